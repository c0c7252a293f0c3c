//! Causal convolutions over sequences of vectors, dilated or not: the product reads each tap where it lies.

use rayon::prelude::*;

use crate::nn::kernels::activation::{Activate, Activation};
use crate::nn::kernels::matmul::linear::PackedMatrix;
use crate::nn::kernels::matmul::packed::{Inputs, Outputs};
use crate::nn::kernels::matmul::panels::Storage;
use crate::nn::kernels::row_blocks::copy_block;
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;
use crate::nn::kernels::workspace::{Buffer, Workspace};

/// Vectors per task.
const ROWS: usize = 64;

/// The sizes of a causal convolution.
#[derive(Debug, Clone, Copy)]
pub struct CausalShape {
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub dilation: usize,
}

impl CausalShape {
    /// Vectors before its own that an output sees.
    pub fn context(&self) -> usize {
        (self.kernel - 1) * self.dilation
    }
}

/// Packed weights, bias and activation.
#[derive(Debug)]
pub struct CausalConv {
    shape: CausalShape,
    /// Its inputs are the taps, the earliest first, each in whole blocks.
    matrix: PackedMatrix,
    activation: Activation,
}

impl CausalConv {
    /// `filters` are `[outputs, inputs, kernel]`.
    pub fn pack(shape: CausalShape, filters: &[f32], bias: &[f32], activation: Activation) -> Self {
        let CausalShape { inputs, outputs, kernel, .. } = shape;
        let tap_len = inputs.next_multiple_of(CHANNEL_BLOCK);
        let matrix = PackedMatrix::pack_as(Storage::F32, kernel * tap_len, outputs, |output, row| {
            for (tap, row) in row.chunks_mut(tap_len).enumerate() {
                let weight = |input: usize| filters[(output * inputs + input) * kernel + tap];
                row[..inputs].iter_mut().enumerate().for_each(|(input, value)| *value = weight(input));
            }
        });
        Self { shape, matrix: matrix.with_bias(bias), activation }
    }

    /// The sizes that it was packed with.
    pub fn shape(&self) -> CausalShape {
        self.shape
    }

    /// `y = activation(convolution of x)` for sequences of `n` vectors: `x` is `[batch, n, inputs]`, `y` `[batch, n, outputs]`,
    /// `before` `[batch, context, inputs]`; without it zeros stand before `x`. A vector's result does not depend on how many follow.
    pub fn forward(&self, x: &[f32], before: Option<&[f32]>, n: usize, y: &mut [f32], isa: Isa, workspace: &Workspace) {
        let CausalShape { inputs, outputs: n_outputs, kernel, dilation } = self.shape;
        let (blocks, context) = (inputs.div_ceil(CHANNEL_BLOCK), self.shape.context());
        let block_len = rows_of_block(context + n) * CHANNEL_BLOCK;
        let starts = (0..kernel)
            .flat_map(|tap| (0..blocks).map(move |block| block * block_len + tap * dilation * CHANNEL_BLOCK));
        let (segments, panels) = (starts.collect::<Vec<_>>(), self.matrix.width() / CHANNEL_BLOCK);
        let sequences = y.par_chunks_mut(n * n_outputs).zip(x.par_chunks(n * inputs)).enumerate();
        sequences.for_each(|(index, (y, x))| {
            let before = before.map(|before| &before[index * context * inputs..][..context * inputs]);
            let x = self.blocks(x, before, workspace);
            y.par_chunks_mut(ROWS * n_outputs).enumerate().for_each(|(task, y)| {
                let rows = y.len() / n_outputs;
                // An odd number of blocks, so that rows do not share cache sets.
                let stride = (panels | 1) * CHANNEL_BLOCK;
                let mut sums = workspace.take(rows * stride);
                let x = &x[task * ROWS * CHANNEL_BLOCK..];
                let outputs = Outputs { y: &mut sums, row_stride: stride, panel_stride: CHANNEL_BLOCK };
                let inputs = Inputs { x, row_stride: CHANNEL_BLOCK, segments: &segments, segment_len: CHANNEL_BLOCK };
                self.matrix.multiply_panels(inputs, rows, (0, panels), outputs, isa);
                for (y, sums) in y.chunks_mut(n_outputs).zip(sums.chunks(stride)) {
                    y.copy_from_slice(&sums[..n_outputs]);
                }
                isa.run(Activate { activation: self.activation, values: y });
            });
        });
    }

    /// The context and `x` as `[block of inputs][row][16]`.
    fn blocks(&self, x: &[f32], before: Option<&[f32]>, workspace: &Workspace) -> Buffer {
        let (inputs, context) = (self.shape.inputs, self.shape.context());
        let block_len = rows_of_block(context + x.len() / inputs) * CHANNEL_BLOCK;
        let mut blocks = workspace.take(inputs.div_ceil(CHANNEL_BLOCK) * block_len);
        blocks.par_chunks_mut(block_len).enumerate().for_each(|(block, to)| {
            let (start, rest) = to.split_at_mut(context * CHANNEL_BLOCK);
            match before {
                Some(before) => copy_block(before, inputs, block * CHANNEL_BLOCK, start),
                None => start.fill(0.0),
            }
            copy_block(x, inputs, block * CHANNEL_BLOCK, rest);
        });
        blocks
    }
}

/// Rows in a block with room for `rows`: an odd number, so that blocks do not share cache sets.
fn rows_of_block(rows: usize) -> usize {
    rows | 1
}
