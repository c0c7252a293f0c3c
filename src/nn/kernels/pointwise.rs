//! Element-wise kernels: an affine map per channel, and layer norm with an activation.

use rayon::prelude::*;

use super::activation::Activation;
use crate::nn::kernels::simd::dispatch;
use crate::nn::kernels::simd::math::fold;

/// Values per task, about: 256 KiB.
const TASK: usize = 1 << 16;

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

/// `y[…][c][…] = scale[c] x[…][c][…] + shift[c]`. `x` is `[batch, channels, plane]`.
pub fn affine_planes(x: &[f32], scale: &[f32], shift: &[f32], plane: usize, y: &mut [f32]) {
    let planes = (TASK / plane.max(1)).max(1);
    y.par_chunks_mut(planes * plane).zip(x.par_chunks(planes * plane)).enumerate().for_each(|(task, (y, x))| {
        for (i, (y, x)) in y.chunks_mut(plane).zip(x.chunks(plane)).enumerate() {
            let channel = (task * planes + i) % scale.len();
            let (scale, shift) = (scale[channel], shift[channel]);
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x * scale + shift);
        }
    });
}

/// `y = activation(weight · (x − mean) / √(variance + ε) + bias)` per row of `channels` values; mean and variance are the row's.
pub fn layer_norm(x: &[f32], (weight, bias): (&[f32], &[f32]), eps: f32, activation: Activation, y: &mut [f32]) {
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
                    if activation != Activation::Identity {
                        y.iter_mut().for_each(|y| *y = activation.apply(*y));
                    }
                }
            },
        );
    });
}
