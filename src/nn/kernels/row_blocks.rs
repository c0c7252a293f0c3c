//! Rows of values in blocks of sixteen columns, the form in which `matmul::packed` reads them fastest.

use crate::nn::kernels::matmul::packed::{Inputs, Outputs};
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;
use crate::nn::kernels::workspace::{Buffer, Workspace};

/// A matrix as `[block of columns][row][16]`. The last block is zero-padded.
pub struct RowBlocks {
    values: Buffer,
    rows: usize,
    columns: usize,
}

impl RowBlocks {
    /// A matrix with arbitrary values.
    pub fn take(rows: usize, columns: usize, workspace: &Workspace) -> Self {
        let values = workspace.take(columns.div_ceil(CHANNEL_BLOCK) * block_len(rows));
        Self { values, rows, columns }
    }

    /// Copies `rows` rows that lie `stride` apart, limited to their first `columns` values.
    pub fn copy(x: &[f32], (rows, stride): (usize, usize), columns: usize, workspace: &Workspace) -> Self {
        let mut copy = Self::take(rows, columns, workspace);
        for (block, y) in copy.values.chunks_mut(block_len(rows)).enumerate() {
            let first = block * CHANNEL_BLOCK;
            for (row, y) in y.as_chunks_mut::<CHANNEL_BLOCK>().0.iter_mut().take(rows).enumerate() {
                copy_padded(&x[row * stride..][first..columns], y);
            }
        }
        copy
    }

    /// Copies `[rows, columns]`.
    pub fn copy_all(x: &[f32], columns: usize, workspace: &Workspace) -> Self {
        Self::copy(x, (x.len() / columns, columns), columns, workspace)
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The values of `row`, a block each.
    #[inline(always)]
    pub fn row_mut(&mut self, row: usize) -> impl Iterator<Item = &mut [f32; CHANNEL_BLOCK]> {
        let blocks = self.values.chunks_mut(block_len(self.rows));
        blocks.map(move |block| &mut block.as_chunks_mut().0[row])
    }

    /// The rows of each block, one after the other.
    pub fn blocks_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let len = self.rows * CHANNEL_BLOCK;
        self.values.chunks_mut(block_len(self.rows)).map(move |block| &mut block[..len])
    }

    /// The offset of each block.
    pub fn segments(&self) -> Vec<usize> {
        (0..self.columns.div_ceil(CHANNEL_BLOCK)).map(|block| block * block_len(self.rows)).collect()
    }

    /// The rows as inputs of a product, with their [`segments`](Self::segments).
    pub fn inputs<'a>(&'a self, segments: &'a [usize]) -> Inputs<'a> {
        Inputs { x: &self.values, row_stride: CHANNEL_BLOCK, segments, segment_len: CHANNEL_BLOCK }
    }

    /// The destination of a product.
    pub fn outputs(&mut self) -> Outputs<'_> {
        Outputs { y: &mut self.values, row_stride: CHANNEL_BLOCK, panel_stride: block_len(self.rows) }
    }
}

/// Values in a block: of an odd number of rows, so that blocks do not share cache sets.
fn block_len(rows: usize) -> usize {
    (rows | 1) * CHANNEL_BLOCK
}

/// Sixteen columns, from `first` on, of `x` `[rows, columns]`: `[rows, 16]`, with zeros where there are fewer.
pub fn copy_block(x: &[f32], columns: usize, first: usize, y: &mut [f32]) {
    for (y, x) in y.as_chunks_mut::<CHANNEL_BLOCK>().0.iter_mut().zip(x.chunks(columns)) {
        copy_padded(&x[first..], y);
    }
}

/// The first sixteen values of `x`, zero-padded.
#[inline(always)]
fn copy_padded(x: &[f32], y: &mut [f32; CHANNEL_BLOCK]) {
    match x.first_chunk() {
        Some(x) => *y = *x,
        None => {
            y[..x.len()].copy_from_slice(x);
            y[x.len()..].fill(0.0);
        }
    }
}
