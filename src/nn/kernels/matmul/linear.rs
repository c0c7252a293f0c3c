//! Rows times a matrix: fully connected layers.

use rayon::prelude::*;

use crate::nn::kernels::matmul::packed::{Inputs, Outputs, Span, packed_matmul};
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;
use crate::nn::kernels::workspace::Workspace;

/// Rows per task where there are many.
const ROWS: usize = 64;
/// Outputs per task where there are few rows, in panels: enough weights (with 2048 inputs 1 MiB) to be worth a task.
const PANELS: usize = 8;

/// A weight matrix, packed once: `[panels][inputs][16]`, with zeros for what the last panel and the last block of inputs lack.
#[derive(Debug)]
pub struct PackedMatrix {
    weights: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

impl PackedMatrix {
    /// From `[outputs, inputs]`.
    pub fn pack(weight: &[f32], inputs: usize, outputs: usize) -> Self {
        let panel = inputs.next_multiple_of(CHANNEL_BLOCK) * CHANNEL_BLOCK;
        let mut weights = vec![0.0; outputs.div_ceil(CHANNEL_BLOCK) * panel];
        weights.par_chunks_mut(panel.max(1)).enumerate().for_each(|(index, panel)| {
            for lane in 0..CHANNEL_BLOCK.min(outputs - index * CHANNEL_BLOCK) {
                let row = &weight[(index * CHANNEL_BLOCK + lane) * inputs..][..inputs];
                panel[lane..].iter_mut().step_by(CHANNEL_BLOCK).zip(row).for_each(|(weight, &value)| *weight = value);
            }
        });
        Self { weights, inputs, outputs }
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `y[r][o] = Σ_i weight[o][i] x[r][i]`, handed to `finish` as the row's outputs from the first one that is given, the row's
    /// place for them in `y`, and its number. `x` is `[rows, inputs]`, `y` `[rows, outputs]`. A row's result does not depend
    /// on the others.
    pub fn multiply(
        &self,
        x: &[f32],
        y: &mut [f32],
        isa: Isa,
        workspace: &Workspace,
        finish: impl Fn(&[f32], &mut [f32], usize, usize) + Sync,
    ) {
        let rows = x.len() / self.inputs;
        if rows >= 2 * ROWS {
            let tasks = y.par_chunks_mut(ROWS * self.outputs).zip(x.par_chunks(ROWS * self.inputs)).enumerate();
            tasks.for_each(|(task, (y, x))| {
                let x = self.blocks(x, workspace);
                let mut sums = workspace.take(y.len() / self.outputs * self.outputs.next_multiple_of(CHANNEL_BLOCK));
                self.sums(&x, y.len() / self.outputs, &self.weights, &mut sums, isa);
                let width = self.outputs.next_multiple_of(CHANNEL_BLOCK);
                for (row, (y, sums)) in y.chunks_mut(self.outputs).zip(sums.chunks(width)).enumerate() {
                    finish(&sums[..self.outputs], y, task * ROWS + row, 0);
                }
            });
            return;
        }
        // Few rows: the outputs are divided.
        let blocks = self.blocks(x, workspace);
        let panel = self.inputs.next_multiple_of(CHANNEL_BLOCK) * CHANNEL_BLOCK;
        let width = PANELS * CHANNEL_BLOCK;
        let mut sums = workspace.take(self.outputs.div_ceil(width) * width * rows); // [task][rows][width]
        sums.par_chunks_mut(rows * width).zip(self.weights.par_chunks(PANELS * panel)).for_each(|(sums, weights)| {
            self.sums(&blocks, rows, weights, &mut sums[..weights.len() / panel * CHANNEL_BLOCK * rows], isa);
        });
        for (row, y) in y.chunks_mut(self.outputs).enumerate() {
            for (task, y) in y.chunks_mut(width).enumerate() {
                let panels = (self.outputs - task * width).min(width).next_multiple_of(CHANNEL_BLOCK);
                let sums = &sums[task * rows * width + row * panels..];
                finish(&sums[..y.len()], y, row, task * width);
            }
        }
    }

    /// `x` as `[block of inputs][row][16]`, with one row more if they are even in number, so that blocks do not fall onto the same
    /// lines of the cache.
    fn blocks(&self, x: &[f32], workspace: &Workspace) -> crate::nn::kernels::workspace::Buffer {
        let rows = (x.len() / self.inputs) | 1;
        let mut blocks = workspace.take(self.inputs.div_ceil(CHANNEL_BLOCK) * rows * CHANNEL_BLOCK);
        for (block, y) in blocks.chunks_mut(rows * CHANNEL_BLOCK).enumerate() {
            let first = block * CHANNEL_BLOCK;
            let n = CHANNEL_BLOCK.min(self.inputs - first);
            for (y, x) in y.chunks_mut(CHANNEL_BLOCK).zip(x.chunks(self.inputs)) {
                y[..n].copy_from_slice(&x[first..first + n]);
                y[n..].fill(0.0);
            }
        }
        blocks
    }

    /// `[rows, panels · 16]` for the panels of `weights`.
    fn sums(&self, x: &[f32], rows: usize, weights: &[f32], y: &mut [f32], isa: Isa) {
        let segments: Vec<usize> =
            (0..self.inputs.div_ceil(CHANNEL_BLOCK)).map(|block| block * (rows | 1) * CHANNEL_BLOCK).collect();
        let inputs = Inputs { x, row_stride: CHANNEL_BLOCK, segments: &segments, run: CHANNEL_BLOCK };
        let outputs = Outputs { row_stride: y.len() / rows, panel_stride: CHANNEL_BLOCK, y };
        packed_matmul(isa, inputs, &[Span { x: 0, y: 0, rows }], weights, outputs);
    }
}
