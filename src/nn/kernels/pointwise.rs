//! Element-wise kernels: affine maps per channel, layer norm with an activation, gated linear units.

use rayon::prelude::*;

use super::activation::Activation;
use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{Lanes, map_lanes};
use crate::nn::kernels::simd::math::{fold, sigmoid};

/// Approximate number of values per task: 256 KiB.
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

/// Layer norm with an activation: `y = activation(weight · (x − mean) / √(variance + ε) + bias)`, with the mean and the
/// variance of each row.
pub fn layer_norm(x: &[f32], (weight, bias): (&[f32], &[f32]), eps: f32, activation: Activation, y: &mut [f32]) {
    let task = (TASK / 4 / weight.len()).max(1) * weight.len();
    let tasks = y.par_chunks_mut(task).zip(x.par_chunks(task));
    tasks.for_each(|(y, x)| Isa::best().run(NormRows { x, weight, bias, eps, activation, y }));
}

/// [`layer_norm`] of some rows.
pub struct NormRows<'a> {
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub eps: f32,
    pub activation: Activation,
    pub y: &'a mut [f32],
}

impl SimdOp for NormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { x, weight, bias, eps, activation, y } = self;
        let channels = weight.len();
        for (y, x) in y.chunks_mut(channels).zip(x.chunks(channels)) {
            let mean = fold(x, 0.0, |x| x, |a, b| a + b) / channels as f32;
            let variance = fold(x, 0.0, |x| (x - mean) * (x - mean), |a, b| a + b) / channels as f32;
            let scale = 1.0 / (variance + eps).sqrt();
            let (mean, scale) = (L::splat(mean), L::splat(scale));
            map_lanes(
                [x, weight, bias],
                [&mut *y],
                #[inline(always)]
                |[x, weight, bias]: [L; 3], _| [x.sub(mean).mul(scale).mul_add(weight, bias)],
            );
            activation.apply_all::<L>(y);
        }
    }
}

/// The gated linear unit `y = a / (1 + e^-b)` of rows `[a, b]`, each of `channels` values (Dauphin et al., 2016, arXiv
/// 1612.08083).
pub fn gated(x: &[f32], channels: usize, y: &mut [f32], isa: Isa) {
    let rows = (TASK / 4 / channels).max(1);
    let tasks = y.par_chunks_mut(rows * channels).zip(x.par_chunks(rows * 2 * channels));
    tasks.for_each(|(y, x)| isa.run(GateRows { x, channels, y }));
}

struct GateRows<'a> {
    x: &'a [f32],
    channels: usize,
    y: &'a mut [f32],
}

impl SimdOp for GateRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        for (y, x) in self.y.chunks_mut(self.channels).zip(self.x.chunks(2 * self.channels)) {
            let (a, b) = x.split_at(self.channels);
            map_lanes(
                [a, b],
                [y],
                #[inline(always)]
                |[a, b]: [L; 2], _| [a.mul(sigmoid(b))],
            );
        }
    }
}
