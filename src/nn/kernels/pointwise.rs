//! One pass over every value.

use rayon::prelude::*;

use super::attention::fold;
use super::simd::dispatch;

/// Values per task, about: 256 KiB.
const TASK: usize = 1 << 16;

/// `y[…][c][…] = finish(y + bias[c])` in place. `y` is `[batch, channels, plane]`.
pub fn bias_activation(y: &mut [f32], bias: &[f32], plane: usize, finish: impl Fn(f32) -> f32 + Sync) {
    let planes = (TASK / plane.max(1)).max(1);
    y.par_chunks_mut(planes * plane).enumerate().for_each(|(task, y)| {
        for (i, y) in y.chunks_mut(plane).enumerate() {
            let bias = bias[(task * planes + i) % bias.len()];
            y.iter_mut().for_each(|y| *y = finish(*y + bias));
        }
    });
}

/// `y[…][c] = scale[c] x[…][c] + shift[c]`. `x` is `[…, channels]`.
pub fn affine_last(x: &[f32], scale: &[f32], shift: &[f32], y: &mut [f32]) {
    let channels = scale.len();
    let task = (TASK / channels).max(1) * channels;
    y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| {
        for (y, x) in y.chunks_mut(channels).zip(x.chunks(channels)) {
            for c in 0..channels {
                y[c] = x[c] * scale[c] + shift[c];
            }
        }
    });
}

/// `y = weight · (x − mean) / √(variance + ε) + bias` per row of `channels` values; mean and variance are the row's.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) {
    let channels = weight.len();
    let task = (TASK / 4 / channels).max(1) * channels;
    y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| {
        dispatch(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_mut(channels).zip(x.chunks(channels)) {
                    let mean = fold(x, 0.0, |x| x, |a, b| a + b) / channels as f32;
                    let variance = fold(x, 0.0, |x| (x - mean) * (x - mean), |a, b| a + b) / channels as f32;
                    let scale = 1.0 / (variance + eps).sqrt();
                    for c in 0..channels {
                        y[c] = (x[c] - mean) * scale * weight[c] + bias[c];
                    }
                }
            },
        );
    });
}

/// `max(x, 0)`; NaN stays NaN, as in PyTorch (and unlike `f32::max`).
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// `e^x` for `x` up to 88, within 2 units in the last place; 0 below -87.
///
/// `x = n ln 2 + r`, `e^x = 2^n e^r`, with the Taylor polynomial of degree 7 for `|r| ≤ ln 2 / 2`. No branch and no call,
/// so that loops over it vectorise.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
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
    let polynomial = ((((even * r + 1.0 / 120.0) * r + 1.0 / 24.0) * r + 1.0 / 6.0) * r + 0.5) * r * r + r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(TO_INTEGER.to_bits() as i32).wrapping_add(127);
    let power = f32::from_bits((exponent << 23) as u32);
    if x < -87.3 { 0.0 } else { polynomial * power }
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
