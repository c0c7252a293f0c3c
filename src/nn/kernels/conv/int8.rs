//! 1x1 convolutions with 8-bit weights and activations. Each position is a row of the matrix product, with its own scale.

use rayon::prelude::*;

use crate::nn::kernels::activation::Activation;
use crate::nn::kernels::blocked::{BlockedMap, Shape};
use crate::nn::kernels::conv::direct::Finish;
use crate::nn::kernels::matmul::int8::{Int8Matrix, quantize_weights};
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;
use crate::nn::kernels::workspace::Workspace;

/// Values per task, inputs plus outputs.
const TASK: usize = 1 << 16;

/// Packed filters, bias and activation.
#[derive(Debug)]
pub struct Int8Conv {
    matrix: Int8Matrix,
    bias: Vec<f32>, // [panels · 16]
    activation: Activation,
}

impl Int8Conv {
    /// `filter` returns the weight for an output and input; `bias` is padded to whole blocks. There are at most
    /// [`MAX_INPUTS`](crate::nn::kernels::matmul::int8::MAX_INPUTS) inputs.
    pub fn pack(
        (inputs, outputs): (usize, usize),
        filter: impl Fn(usize, usize) -> f64 + Sync,
        bias: Vec<f32>,
        activation: Activation,
    ) -> Self {
        let matrix = Int8Matrix::pack(inputs, outputs, |output, codes| {
            let weights: Vec<f32> = (0..inputs).map(|input| filter(output, input) as f32).collect();
            quantize_weights(&weights, codes)
        });
        Self { matrix, bias, activation }
    }

    /// Convolves `x`, with its channels scaled by `factors` `[batch, in]` if given. `None` if there is another number of
    /// them, or if the output exceeds the address space.
    pub fn forward(
        &self,
        x: &BlockedMap,
        factors: Option<&[f32]>,
        isa: Isa,
        workspace: &Workspace,
    ) -> Option<BlockedMap> {
        let Shape { batch, channels, height, width } = x.shape;
        if factors.is_some_and(|factors| factors.len() != batch * channels) {
            return None;
        }
        let mut map = BlockedMap::unwritten(Shape { channels: self.matrix.outputs(), ..x.shape }, workspace)?;
        let factors: Vec<Vec<f32>> = factors.map_or(Vec::new(), |factors| {
            let padded = |factors: &[f32]| {
                let mut factors = factors.to_vec();
                factors.resize(channels.next_multiple_of(CHANNEL_BLOCK), 0.0);
                factors
            };
            factors.chunks(channels).map(padded).collect()
        });
        let (x_row, y_row) = (x.shape.row(), map.shape.row());
        let lines = (TASK / (x_row + y_row)).max(1);
        let items = map.values.chunks_mut(height * y_row).zip(x.values.chunks(height * x_row)).enumerate();
        let tasks: Vec<_> = items
            .flat_map(|(item, (y, x))| {
                let tasks = y.chunks_mut(lines * y_row).zip(x.chunks(lines * x_row));
                tasks.map(move |(y, x)| (item, y, x))
            })
            .collect();
        tasks.into_par_iter().for_each(|(item, y, x)| {
            self.lines(x, factors.get(item).map(Vec::as_slice), y, width, isa, workspace);
        });
        Some(map)
    }

    /// Computes lines of `width` positions, on the calling thread.
    pub fn lines(
        &self,
        x: &[f32],
        factors: Option<&[f32]>,
        y: &mut [f32],
        width: usize,
        isa: Isa,
        workspace: &Workspace,
    ) {
        self.matrix.multiply_lines(x, factors, y, width, workspace);
        isa.run(Finish { bias: &self.bias, activation: self.activation, positions: width, y });
    }
}
