//! The fully connected layer as a candle operation.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape};

use super::wrong_shape;
use crate::nn::kernels::activation::{Activation, FinishBlock, FinishRow};
use crate::nn::kernels::matmul::int8::Int8Matrix;
use crate::nn::kernels::matmul::linear::PackedMatrix;
use crate::nn::kernels::matmul::panels::Storage;
use crate::nn::kernels::row_blocks::RowBlocks;
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;
use crate::nn::kernels::workspace::{Workspace, count};
use crate::tensor::contiguous;
use crate::weights::FourBit;

/// Maximum number of 4-bit weights decoded at a time (8 MiB as f32), but at least sixteen outputs. All rows are put
/// into blocks again for each part.
const VALUES: usize = 1 << 21;

/// The weights of a fully connected layer, `[outputs, inputs]`.
#[derive(Debug)]
pub enum Weights {
    Packed(PackedMatrix),
    FourBit { codes: FourBit, inputs: usize, outputs: usize },
    Int8(Int8Matrix),
}

impl Weights {
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Packed(matrix) => (matrix.inputs(), matrix.outputs()),
            Self::FourBit { inputs, outputs, .. } => (*inputs, *outputs),
            Self::Int8(matrix) => (matrix.inputs(), matrix.outputs()),
        }
    }

    /// As [`PackedMatrix::multiply`].
    fn multiply(
        &self,
        x: &[f32],
        y: &mut [f32],
        isa: Isa,
        workspace: &Workspace,
        finish: impl Fn(&mut [f32], usize, usize) + Sync,
    ) {
        let (codes, inputs, outputs) = match self {
            Self::Packed(matrix) => return matrix.multiply(x, y, isa, workspace, finish),
            Self::Int8(matrix) => return matrix.multiply(x, y, workspace, finish),
            Self::FourBit { codes, inputs, outputs } => (codes, *inputs, *outputs),
        };
        let at_once = (VALUES / inputs / CHANNEL_BLOCK * CHANNEL_BLOCK).max(CHANNEL_BLOCK).min(outputs);
        // A workspace of its own: the shared one would keep the memory that the 4-bit codes save.
        let workspace = Workspace::default();
        for start in (0..outputs).step_by(at_once) {
            let n = at_once.min(outputs - start);
            let read = |output: usize, row: &mut [f32]| codes.read((start + output) * inputs, row);
            let matrix = PackedMatrix::pack_as(Storage::F32, inputs, n, read);
            let mut part = workspace.take(x.len() / inputs * n);
            matrix.multiply(x, &mut part, isa, &workspace, |sums, row, first| finish(sums, row, start + first));
            y.chunks_mut(outputs).zip(part.chunks(n)).for_each(|(y, part)| y[start..start + n].copy_from_slice(part));
        }
    }
}

/// A fully connected layer.
#[derive(Debug)]
pub struct LinearOp {
    pub weights: Weights,
    pub bias: Vec<f32>,
    pub activation: Activation,
    pub workspace: Workspace,
}

impl CustomOp1 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.rows(contiguous(storage, layout)?, layout, None)
    }
}

impl CustomOp2 for LinearOp {
    fn name(&self) -> &'static str {
        "linear-add"
    }

    /// Adds a residual of the output's shape after the activation.
    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, residual) = (contiguous(storage, layout)?, contiguous(residual, residual_layout)?);
        let (dims, expected) = (layout.dims(), residual_layout.dims());
        let rest = dims.len().saturating_sub(1);
        if expected.len() != dims.len() || expected[..rest] != dims[..rest] || expected[rest] != self.weights.size().1 {
            return Err(wrong_shape(layout));
        }
        self.rows(x, layout, Some(residual))
    }
}

impl LinearOp {
    /// Number of inputs and outputs.
    pub fn sizes(&self) -> (usize, usize) {
        self.weights.size()
    }

    /// As the operation, for some rows, on the calling thread. Does nothing if the weights have four bits.
    pub fn task(&self, x: &[f32], y: &mut [f32], residual: Option<&[f32]>, isa: Isa) {
        match &self.weights {
            Weights::Packed(matrix) => {
                self.task_of_blocks(
                    matrix,
                    &RowBlocks::copy_all(x, matrix.inputs(), &self.workspace),
                    y,
                    residual,
                    isa,
                );
            }
            Weights::Int8(matrix) => {
                matrix.multiply_task(x, y, &self.workspace, |y, row| self.finish(y, row, residual, isa));
            }
            Weights::FourBit { .. } => {}
        }
    }

    /// `residual` + `next` over this layer over `x`, for some rows, on the calling thread.
    pub fn task_with_next(&self, next: &Self, x: &[f32], y: &mut [f32], residual: &[f32], isa: Isa) {
        if let (Weights::Packed(first), Weights::Packed(second)) = (&self.weights, &next.weights)
            && first.outputs().is_multiple_of(CHANNEL_BLOCK)
        {
            let x = RowBlocks::copy_all(x, first.inputs(), &self.workspace);
            let mut hidden = first.multiply_blocks(&x, isa, &self.workspace);
            let bias = self.bias.as_chunks::<CHANNEL_BLOCK>().0;
            hidden.blocks_mut().zip(bias).for_each(|(values, bias)| {
                isa.run(FinishBlock { bias, activation: self.activation, values });
            });
            next.task_of_blocks(second, &hidden, y, Some(residual), isa);
        } else {
            let (inputs, outputs) = self.weights.size();
            let mut hidden = self.workspace.take(x.len() / inputs * outputs);
            self.task(x, &mut hidden, None, isa);
            next.task(&hidden, y, Some(residual), isa);
        }
    }

    fn task_of_blocks(&self, matrix: &PackedMatrix, x: &RowBlocks, y: &mut [f32], residual: Option<&[f32]>, isa: Isa) {
        matrix.multiply_task(x, y, isa, &self.workspace, |y, row| self.finish(y, row, residual, isa));
    }

    /// Bias, activation and residual of a row.
    fn finish(&self, y: &mut [f32], row: usize, residual: Option<&[f32]>, isa: Isa) {
        let residual = residual.map(|residual| &residual[row * y.len()..][..y.len()]);
        isa.run(FinishRow { bias: &self.bias, residual, activation: self.activation, y });
    }

    /// Applies the layer to `x` `[…, in]`.
    fn rows(&self, x: &[f32], layout: &Layout, residual: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let (inputs, outputs) = self.weights.size();
        if x.is_empty() || layout.dims().last() != Some(&inputs) {
            return Err(wrong_shape(layout));
        }
        let len = count(&[x.len() / inputs, outputs]).ok_or_else(|| wrong_shape(layout))?;
        let mut y = vec![0.0; len];
        let isa = Isa::best();
        self.weights.multiply(x, &mut y, isa, &self.workspace, |y, row, first| {
            let bias = &self.bias[first..first + y.len()];
            let residual = residual.map(|residual| &residual[row * outputs + first..][..y.len()]);
            isa.run(FinishRow { bias, residual, activation: self.activation, y });
        });
        let mut dims = layout.dims().to_vec();
        dims.pop();
        dims.push(outputs);
        Ok((CpuStorage::F32(y), dims.into()))
    }
}
