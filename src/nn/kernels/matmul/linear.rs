//! Fully connected layers: rows times a packed matrix.

use rayon::prelude::*;

use crate::nn::kernels::matmul::packed::{Inputs, Outputs, Span, Weights, packed_matmul};
use crate::nn::kernels::matmul::panels::{PackedWeights, Storage};
use crate::nn::kernels::row_blocks::RowBlocks;
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;
use crate::nn::kernels::workspace::Workspace;

/// Rows per task, if there are many rows.
const ROWS: usize = 64;
/// Maximum panels per task, if there are few rows: enough weights (1 MiB with 2048 inputs) to be worth a task.
const PANELS: usize = 8;

/// A packed weight matrix: `[panels][inputs][16]`, inputs and outputs zero-padded to whole blocks.
#[derive(Debug)]
pub struct PackedMatrix {
    weights: PackedWeights,
    bias: Option<Vec<f32>>, // [panels · 16]
    inputs: usize,
    outputs: usize,
}

impl PackedMatrix {
    /// Packs a weight `[outputs, inputs]`.
    pub fn pack(weight: &[f32], inputs: usize, outputs: usize) -> Self {
        Self::pack_as(Storage::F32, inputs, outputs, |output, row| {
            row.copy_from_slice(&weight[output * inputs..][..inputs]);
        })
    }

    /// Packs `outputs` rows of weights, which `row` writes.
    pub fn pack_as(storage: Storage, inputs: usize, outputs: usize, row: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        let sizes = (outputs.div_ceil(CHANNEL_BLOCK), inputs.next_multiple_of(CHANNEL_BLOCK) * CHANNEL_BLOCK);
        let weights = PackedWeights::pack(storage, sizes, |index, panel| {
            let n = CHANNEL_BLOCK.min(outputs - index * CHANNEL_BLOCK);
            let mut rows = vec![0.0; n * inputs];
            for (lane, values) in rows.chunks_mut(inputs.max(1)).enumerate() {
                row(index * CHANNEL_BLOCK + lane, values);
            }
            for (input, weights) in panel.as_chunks_mut::<CHANNEL_BLOCK>().0.iter_mut().take(inputs).enumerate() {
                (0..n).for_each(|lane| weights[lane] = rows[lane * inputs + input]);
            }
        });
        Self { weights, bias: None, inputs, outputs }
    }

    /// Starts the sums from `bias`, one value per output, instead of from 0.
    pub fn with_bias(self, bias: &[f32]) -> Self {
        let mut padded = vec![0.0; self.width()];
        padded[..self.outputs].copy_from_slice(bias);
        Self { bias: Some(padded), ..self }
    }

    pub fn is_f16(&self) -> bool {
        self.weights.as_f32().is_none()
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of inputs, rounded up to whole blocks.
    pub fn padded_inputs(&self) -> usize {
        self.inputs.next_multiple_of(CHANNEL_BLOCK)
    }

    /// Number of outputs, rounded up to whole blocks.
    pub fn width(&self) -> usize {
        self.outputs.next_multiple_of(CHANNEL_BLOCK)
    }

    /// `y[r][o] = bias[o] + Σ_i weight[o][i] x[r][i]`. `x` is `[rows, inputs]`, `y` `[rows, outputs]`. Each row's
    /// result is independent of the others.
    ///
    /// `finish(sums, row, first)` turns sums into results: those of the outputs of `row` from `first` on.
    pub fn multiply(
        &self,
        x: &[f32],
        y: &mut [f32],
        isa: Isa,
        workspace: &Workspace,
        finish: impl Fn(&mut [f32], usize, usize) + Sync,
    ) {
        let rows = x.len() / self.inputs;
        if rows >= 2 * ROWS {
            let tasks = y.par_chunks_mut(ROWS * self.outputs).zip(x.par_chunks(ROWS * self.inputs)).enumerate();
            tasks.for_each(|(task, (y, x))| {
                let x = RowBlocks::copy_all(x, self.inputs, workspace);
                self.multiply_task(&x, y, isa, workspace, |sums, row| finish(sums, task * ROWS + row, 0));
            });
            return;
        }
        let x = RowBlocks::copy_all(x, self.inputs, workspace);
        let segments = x.segments();
        let product = |panels: (usize, usize), sums: &mut [f32], stride: usize| {
            let outputs = Outputs { y: sums, row_stride: stride, panel_stride: CHANNEL_BLOCK };
            self.multiply_panels(x.inputs(&segments), rows, panels, outputs, isa);
        };
        split_outputs(y, (rows, self.outputs), workspace, product, finish);
    }

    /// As [`multiply`](Self::multiply), on the calling thread. `finish` gets all sums of a row.
    pub fn multiply_task(
        &self,
        x: &RowBlocks,
        y: &mut [f32],
        isa: Isa,
        workspace: &Workspace,
        finish: impl Fn(&mut [f32], usize),
    ) {
        let segments = x.segments();
        let product = |panels: (usize, usize), sums: &mut [f32], stride: usize| {
            let outputs = Outputs { y: sums, row_stride: stride, panel_stride: CHANNEL_BLOCK };
            self.multiply_panels(x.inputs(&segments), x.rows(), panels, outputs, isa);
        };
        all_outputs(y, (x.rows(), self.outputs), workspace, product, finish);
    }

    /// The sums of all outputs, without bias unless the matrix has one, on the calling thread.
    pub fn multiply_blocks(&self, x: &RowBlocks, isa: Isa, workspace: &Workspace) -> RowBlocks {
        let mut y = RowBlocks::take(x.rows(), self.outputs, workspace);
        let panels = self.width() / CHANNEL_BLOCK;
        self.multiply_panels(x.inputs(&x.segments()), x.rows(), (0, panels), y.outputs(), isa);
        y
    }

    /// As [`multiply`](Self::multiply), on the calling thread and with all inputs in one sum. `x` is `[rows,
    /// padded_inputs]`, `y` `[rows, width]`.
    pub fn multiply_rows(&self, x: &[f32], y: &mut [f32], isa: Isa) {
        let (row_stride, width) = (self.padded_inputs(), self.width());
        let inputs = Inputs { x, row_stride, segments: &[0], segment_len: row_stride };
        let weights = Weights { panels: self.weights.all(), bias: self.bias.as_deref() };
        let rows = x.len() / row_stride;
        let outputs = Outputs { y, row_stride: width, panel_stride: CHANNEL_BLOCK };
        packed_matmul(isa, inputs, &[Span { x: 0, y: 0, rows }], weights, outputs);
    }

    /// The sums of `rows` rows in `panels` panels from `first` on, on the calling thread. `inputs` has a segment of
    /// sixteen values per block of inputs.
    pub fn multiply_panels(
        &self,
        inputs: Inputs,
        rows: usize,
        (first, panels): (usize, usize),
        outputs: Outputs,
        isa: Isa,
    ) {
        let panel = self.padded_inputs() * CHANNEL_BLOCK;
        let weights = Weights {
            panels: self.weights.panels(panel, first, panels),
            bias: self.bias.as_ref().map(|bias| &bias[first * CHANNEL_BLOCK..(first + panels) * CHANNEL_BLOCK]),
        };
        packed_matmul(isa, inputs, &[Span { x: 0, y: 0, rows }], weights, outputs);
    }
}

/// Computes `y` `[rows, outputs]` for few rows: tasks split the outputs. `product(panels, sums, stride)` writes the sums of
/// some panels, the first and their number, as rows that lie `stride` apart; `finish` is that of
/// [`PackedMatrix::multiply`].
pub(super) fn split_outputs(
    y: &mut [f32],
    (rows, outputs): (usize, usize),
    workspace: &Workspace,
    product: impl Fn((usize, usize), &mut [f32], usize) + Sync,
    finish: impl Fn(&mut [f32], usize, usize),
) {
    let panels = outputs.div_ceil(CHANNEL_BLOCK);
    let task_panels = panels.div_ceil(panels.div_ceil(PANELS));
    let width = task_panels * CHANNEL_BLOCK;
    let mut sums = workspace.take(panels * CHANNEL_BLOCK * rows); // [task][rows][width]
    sums.par_chunks_mut(rows * width).enumerate().for_each(|(task, sums)| {
        let stride = sums.len() / rows;
        product((task * task_panels, stride / CHANNEL_BLOCK), sums, stride);
    });
    for (row, y) in y.chunks_mut(outputs).enumerate() {
        for (task, y) in y.chunks_mut(width).enumerate() {
            let sums = &sums[task * rows * width + row * y.len().next_multiple_of(CHANNEL_BLOCK)..];
            y.copy_from_slice(&sums[..y.len()]);
            finish(y, row, task * width);
        }
    }
}

/// As [`split_outputs`], on the calling thread. `finish` gets all sums of a row.
pub(super) fn all_outputs(
    y: &mut [f32],
    (rows, outputs): (usize, usize),
    workspace: &Workspace,
    product: impl Fn((usize, usize), &mut [f32], usize),
    finish: impl Fn(&mut [f32], usize),
) {
    let panels = outputs.div_ceil(CHANNEL_BLOCK);
    // Rows of 4 KiB share cache sets.
    if outputs.is_multiple_of(CHANNEL_BLOCK) && !outputs.is_multiple_of(1024) {
        product((0, panels), y, outputs);
    } else {
        let stride = (panels | 1) * CHANNEL_BLOCK;
        let mut sums = workspace.take(rows * stride);
        product((0, panels), &mut sums, stride);
        let rows = y.chunks_mut(outputs).zip(sums.chunks(stride));
        rows.for_each(|(y, sums)| y.copy_from_slice(&sums[..outputs]));
    }
    y.chunks_mut(outputs).enumerate().for_each(|(row, y)| finish(y, row));
}
