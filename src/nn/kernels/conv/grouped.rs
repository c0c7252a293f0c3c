//! Grouped convolutions over sequences of vectors.

use std::ops::Range;

use rayon::prelude::*;

use crate::nn::kernels::activation::{Activation, FinishRow};
use crate::nn::kernels::matmul::packed::{Inputs, Outputs, Span, Weights, packed_matmul};
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;
use crate::nn::kernels::workspace::Workspace;

/// Vectors per task: with a kernel of 128 and groups of 64 channels, the inputs of a task take 64 KiB.
const ROWS: usize = 128;

/// Sizes of a grouped convolution with stride 1 and as many output as input channels.
#[derive(Debug, Clone, Copy)]
pub struct GroupedShape {
    pub channels: usize,
    /// A divisor of the channels.
    pub groups: usize,
    pub kernel: usize,
    /// Zero padding before a sequence. The padding after it keeps the length.
    pub padding: usize,
}

/// Weights in reading order, bias and activation.
#[derive(Debug)]
pub struct GroupedConv {
    shape: GroupedShape,
    weights: Vec<f32>, // [groups][panels][kernel][width][16]
    bias: Vec<f32>,    // [channels]
    activation: Activation,
}

impl GroupedConv {
    /// Packs `filters` `[channels, channels / groups, kernel]`.
    pub fn pack(shape: GroupedShape, filters: &[f32], bias: Vec<f32>, activation: Activation) -> Self {
        let GroupedShape { channels, groups, kernel, .. } = shape;
        let width = channels / groups;
        let group = width.div_ceil(CHANNEL_BLOCK) * kernel * width * CHANNEL_BLOCK;
        let mut weights = vec![0.0; groups * group];
        weights.par_chunks_mut(group.max(1)).enumerate().for_each(|(index, weights)| {
            for (at, lanes) in weights.chunks_mut(CHANNEL_BLOCK).enumerate() {
                let (panel, tap, input) = (at / (kernel * width), at / width % kernel, at % width);
                let outputs = panel * CHANNEL_BLOCK..width.min((panel + 1) * CHANNEL_BLOCK);
                for (weight, output) in lanes.iter_mut().zip(outputs) {
                    *weight = filters[((index * width + output) * width + input) * kernel + tap];
                }
            }
        });
        Self { shape, weights, bias, activation }
    }

    /// The sizes.
    pub fn shape(&self) -> GroupedShape {
        self.shape
    }

    /// `y = activation(conv(x))`; both are sequences of `n` vectors, `[batch, n, channels]`.
    pub fn forward(&self, x: &[f32], n: usize, y: &mut [f32], isa: Isa, workspace: &Workspace) {
        let channels = self.shape.channels;
        let sequences = y.par_chunks_mut(n * channels).zip(x.par_chunks(n * channels));
        sequences.for_each(|(y, x)| {
            y.par_chunks_mut(ROWS * channels).enumerate().for_each(|(task, y)| {
                self.rows(x, task * ROWS..task * ROWS + y.len() / channels, y, isa, workspace);
            });
        });
    }

    /// Computes a range of vectors of one sequence.
    fn rows(&self, x: &[f32], rows: Range<usize>, y: &mut [f32], isa: Isa, workspace: &Workspace) {
        let GroupedShape { channels, groups, kernel, padding } = self.shape;
        let (n, width) = (x.len() / channels, channels / groups);
        // Row `r` of the padded sequence is vector `r − padding`.
        let padded_rows = rows.start..rows.end + kernel - 1;
        let mut padded = workspace.take(padded_rows.len() * width);
        let panels = width.div_ceil(CHANNEL_BLOCK);
        let mut sums = workspace.take(rows.len() * panels * CHANNEL_BLOCK);
        let segments: Vec<usize> = (0..kernel).map(|tap| tap * width).collect();
        for (group, weights) in self.weights.chunks(panels * kernel * width * CHANNEL_BLOCK).enumerate() {
            for (row, to) in padded_rows.clone().zip(padded.chunks_mut(width)) {
                match row.checked_sub(padding).filter(|&row| row < n) {
                    Some(row) => to.copy_from_slice(&x[row * channels + group * width..][..width]),
                    None => to.fill(0.0),
                }
            }
            packed_matmul(
                isa,
                Inputs { x: &padded, row_stride: width, segments: &segments, segment_len: width },
                &[Span { x: 0, y: 0, rows: rows.len() }],
                Weights { panels: weights.into(), bias: None },
                Outputs { row_stride: panels * CHANNEL_BLOCK, panel_stride: CHANNEL_BLOCK, y: &mut sums },
            );
            let bias = &self.bias[group * width..][..width];
            for (y, sums) in y.chunks_mut(channels).zip(sums.chunks(panels * CHANNEL_BLOCK)) {
                let y = &mut y[group * width..][..width];
                y.copy_from_slice(&sums[..width]);
                isa.run(FinishRow { bias, residual: None, activation: self.activation, y });
            }
        }
    }
}
