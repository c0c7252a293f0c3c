//! Element-wise functions over [`Lanes`], and scalar functions and row reductions without branches and calls, so that
//! loops over them vectorise.

use super::lanes::Lanes;

/// Partial results of a row reduction, so that it vectorises.
const PARTIALS: usize = 16;

/// `max(x, 0)`; NaN stays NaN, as in PyTorch (and unlike `f32::max`).
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// `x` for `x ≥ 0`, otherwise `slope · x`.
#[inline(always)]
pub fn leaky_relu(x: f32, slope: f32) -> f32 {
    if x < 0.0 { slope * x } else { x }
}

/// `x` clamped to `low..=high`; NaN stays NaN, as in PyTorch.
#[inline(always)]
pub fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// `e^x` within 1 ulp, 2 without fused multiply-adds. Arguments are clamped to -87.3..=88.3.
#[inline(always)]
pub fn exp<L: Lanes>(x: L) -> L {
    let (less_one, power) = exp_parts(x);
    less_one.mul_add(power, power)
}

/// `x` for `x ≥ 0`, otherwise `e^x − 1`, within 2e-7. NaN stays NaN.
#[inline(always)]
pub fn elu<L: Lanes>(x: L) -> L {
    let (less_one, power) = exp_parts(x.at_most(L::splat(0.0)));
    x.relu().add(less_one.mul_add(power, power.sub(L::splat(1.0))))
}

/// `1 / (1 + e^-x)` within 2e-7, in 0..=1.
#[inline(always)]
pub fn sigmoid<L: Lanes>(x: L) -> L {
    let one = L::splat(1.0);
    one.div(one.add(exp(L::splat(0.0).sub(x))))
}

/// `tanh x` within 2e-7 and a relative error of 4e-7, in -1..=1.
///
/// Computed as `m / (m + 2)` with `m = e^2x − 1`, which stays accurate near 0.
#[inline(always)]
pub fn tanh<L: Lanes>(x: L) -> L {
    let (less_one, power) = exp_parts(x.add(x));
    let m = less_one.mul_add(power, power.sub(L::splat(1.0)));
    m.div(m.add(L::splat(2.0)))
}

/// `e^r − 1` and `2^n`, where `e^x = 2^n e^r`.
///
/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, and `e^r − 1 = r + r² q(r)`. The polynomial q of degree 4 is a minimax fit
/// (Remez algorithm) of the error relative to `e^r`: 4e-9 with coefficients in f32.
#[inline(always)]
fn exp_parts<L: Lanes>(x: L) -> (L, L) {
    const Q: [f32; 5] = [0.001_381_458_4, 0.008_368_724, 0.041_668_39, 0.166_665_21, 0.499_999_94];
    // ln 2 in two parts; the first is short enough that its product with n is exact (Cody and Waite).
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding this moves the nearest integer into the low bits of the sum.
    let to_integer = L::splat(12_582_912.0); // 1.5 · 2^23
    let x = x.at_least(L::splat(-87.3)).at_most(L::splat(88.3));
    let shifted = x.mul_add(L::splat(std::f32::consts::LOG2_E), to_integer);
    let n = shifted.sub(to_integer);
    let r = n.mul_add(L::splat(-LN_2_LOW), n.mul_add(L::splat(-LN_2_HIGH), x));
    let mut q = L::splat(Q[0]);
    for coefficient in &Q[1..] {
        q = q.mul_add(r, L::splat(*coefficient));
    }
    (q.mul_add(r.mul(r), r), shifted.power_of_two())
}

/// `x Φ(x) = x (1 + erf(x / √2)) / 2`, the exact form of GELU, within 2e-7 · max(1, |x|).
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The error function within 2e-7: an odd rational approximation on -4..=4, beyond which it is ±1 in f32. The
/// coefficients are those that Eigen and XLA use for f32.
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

/// Reduces a row: `combine` of `map(x)`, in a fixed order of `PARTIALS` partial results.
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
