//! Functions of one value and of one row, without branches and calls, so that loops over them vectorise.

/// Partial results of a row, so that it vectorises.
const PARTIALS: usize = 16;

/// `max(x, 0)`; NaN stays NaN, as in PyTorch (and unlike `f32::max`).
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// `x`, times `slope` below 0.
#[inline(always)]
pub fn leaky_relu(x: f32, slope: f32) -> f32 {
    if x < 0.0 { slope * x } else { x }
}

/// `e^x` for `x` up to 88, within 2 units in the last place; 0 below -87.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (less_one, power) = exp_parts(x);
    if x < -87.3 { 0.0 } else { (less_one + 1.0) * power }
}

/// `1 / (1 + e^-x)` within 2e-7, in 0..=1.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `tanh x` within 2e-7 and 4e-7 of its value, in -1..=1.
///
/// `m / (m + 2)` with `m = e^2x − 1`, which keeps its digits near 0.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let (less_one, power) = exp_parts(2.0 * x);
    let m = less_one * power + (power - 1.0);
    m / (m + 2.0)
}

/// `e^r − 1` and `2^n` with `e^x = 2^n e^r`, for `x` in -87..=88, at whose ends larger values count as the end.
///
/// `x = n ln 2 + r`, with the Taylor polynomial of degree 7 for `|r| ≤ ln 2 / 2`. No branch and no call, so that loops
/// over it vectorise.
#[inline(always)]
fn exp_parts(x: f32) -> (f32, f32) {
    // Adding this puts the nearest integer into the low bits of the sum.
    const TO_INTEGER: f32 = 12_582_912.0; // 1.5 · 2^23
    // ln 2 in two parts, the first short enough that its product with n is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped * std::f32::consts::LOG2_E + TO_INTEGER;
    let n = shifted - TO_INTEGER;
    let r = (clamped - n * LN_2_HIGH) - n * LN_2_LOW;
    let even = 1.0 / 5040.0 * r + 1.0 / 720.0;
    let less_one = ((((even * r + 1.0 / 120.0) * r + 1.0 / 24.0) * r + 1.0 / 6.0) * r + 0.5) * r * r + r;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(TO_INTEGER.to_bits() as i32).wrapping_add(127);
    (less_one, f32::from_bits((exponent << 23) as u32))
}

/// `x Φ(x) = x (1 + erf(x / √2)) / 2`, the exact form of GELU, within 2e-7 · max(1, |x|).
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The error function within 2e-7: an odd rational approximation on -4..=4, beyond which it is ±1 in f32.
///
/// The coefficients are those that Eigen and XLA use for f32.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let x2 = x * x;
    let mut p = -2.726_142_3e-10;
    for c in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2] {
        p = p * x2 + c;
    }
    let mut q = -1.456_607_2e-5;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_474e-2] {
        q = q * x2 + c;
    }
    x * p / q
}

/// `combine` of `map(x)` over a row, in a fixed order of `PARTIALS` partial results.
#[inline(always)]
pub fn fold(row: &[f32], start: f32, map: impl Fn(f32) -> f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; PARTIALS];
    let blocks = row.chunks_exact(PARTIALS);
    let rest = blocks.remainder();
    for block in blocks {
        for lane in 0..PARTIALS {
            lanes[lane] = combine(lanes[lane], map(block[lane]));
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        lanes[lane] = combine(lanes[lane], map(x));
    }
    let mut result = lanes[0];
    for lane in &lanes[1..] {
        result = combine(result, *lane);
    }
    result
}
