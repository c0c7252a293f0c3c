//! Batch norm with batch statistics and optional ReLU, and its gradients, for training.

use rayon::prelude::*;

use crate::nn::kernels::simd::math;

/// Approximate number of values per task.
const TASK: usize = 1 << 14;

/// The position of the channels in an array: `[outer, channels, inner]`.
#[derive(Debug, Clone, Copy)]
pub struct ChannelLayout {
    pub channels: usize,
    pub inner: usize,
}

/// The statistics of one channel.
#[derive(Debug, Clone, Copy)]
pub struct Statistics {
    pub mean: f32,
    pub variance: f32,
}

impl ChannelLayout {
    /// The rows of a channel in `x`, and those at the same positions in `y`.
    fn channel<'a>(self, channel: usize, x: &'a [f32], y: &'a [f32]) -> impl Iterator<Item = (&'a [f32], &'a [f32])> {
        let rows = move |values: &'a [f32]| values.chunks_exact(self.inner).skip(channel).step_by(self.channels);
        rows(x).zip(rows(y))
    }

    /// Mean and (biased) variance of each channel, summed in f64.
    pub fn statistics(self, x: &[f32]) -> Vec<Statistics> {
        let n = (x.len() / self.channels) as f64;
        let of_channel = |channel: usize| {
            let sum = |value: &dyn Fn(f64) -> f64| {
                let rows = self.channel(channel, x, x);
                rows.map(|(row, _)| row.iter().map(|&x| value(f64::from(x))).sum::<f64>()).sum::<f64>()
            };
            let mean = sum(&|x| x) / n;
            let variance = sum(&|x| (x - mean) * (x - mean)) / n;
            Statistics { mean: mean as f32, variance: variance as f32 }
        };
        (0..self.channels).into_par_iter().map(of_channel).collect()
    }

    /// Calls `f(channel, start, row)` for each row of `y`; `start` is its offset.
    fn for_each_row(self, y: &mut [f32], f: impl Fn(usize, usize, &mut [f32]) + Sync) {
        let rows = (TASK / self.inner).max(1);
        y.par_chunks_mut(rows * self.inner).enumerate().for_each(|(task, y)| {
            for (i, y) in y.chunks_exact_mut(self.inner).enumerate() {
                let row = task * rows + i;
                f(row % self.channels, row * self.inner, y);
            }
        });
    }

    /// `(x − mean) · scale · weight + bias`, then ReLU if `relu`.
    pub fn forward(self, x: &[f32], normal: &[(f32, f32)], weight: &[f32], bias: &[f32], relu: bool) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        self.for_each_row(&mut y, |channel, start, y| {
            let (mean, scale) = normal[channel];
            let (scale, bias) = (scale * weight[channel], bias[channel]);
            for (y, x) in y.iter_mut().zip(&x[start..]) {
                let value = (x - mean) * scale + bias;
                *y = if relu { math::relu(value) } else { value };
            }
        });
        y
    }

    /// The gradients of `x`, weight and bias. `normal` was computed from `x`, and `y` is the output.
    pub fn gradients(
        self,
        (x, y): (&[f32], &[f32]),
        grad_y: &[f32],
        normal: &[(f32, f32)],
        weight: &[f32],
        relu: bool,
    ) -> [Vec<f32>; 3] {
        let n = (x.len() / self.channels) as f32;
        let passes = |y: f32| !relu || y > 0.0;
        let sums = |channel: usize| {
            let (mean, scale) = normal[channel];
            let (mut grad_bias, mut grad_weight) = (0.0f64, 0.0f64);
            for ((x, y), (_, g)) in self.channel(channel, x, y).zip(self.channel(channel, x, grad_y)) {
                for ((&x, &y), &g) in x.iter().zip(y).zip(g) {
                    let g = if passes(y) { f64::from(g) } else { 0.0 };
                    grad_bias += g;
                    grad_weight += g * f64::from((x - mean) * scale);
                }
            }
            (grad_bias as f32, grad_weight as f32)
        };
        let (grad_bias, grad_weight): (Vec<f32>, Vec<f32>) = (0..self.channels).into_par_iter().map(sums).unzip();
        let mut grad_x = vec![0.0; x.len()];
        self.for_each_row(&mut grad_x, |channel, start, grad_x| {
            let (mean, scale) = normal[channel];
            let factor = scale * weight[channel];
            let (bias_share, weight_share) = (grad_bias[channel] / n, grad_weight[channel] / n);
            for (i, grad_x) in grad_x.iter_mut().enumerate() {
                let (x, y, g) = (x[start + i], y[start + i], grad_y[start + i]);
                let g = if passes(y) { g } else { 0.0 };
                *grad_x = factor * (g - bias_share - (x - mean) * scale * weight_share);
            }
        });
        [grad_x, grad_weight, grad_bias]
    }
}
