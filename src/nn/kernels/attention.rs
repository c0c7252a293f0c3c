//! Scaled dot-product attention.
//!
//! Keys and values are packed once per sequence and head, as the weights of two matrix products: queries times keys,
//! and softmax times values. A task processes a few queries, so that their scores stay in the cache.

use rayon::prelude::*;

use super::workspace::Workspace;
use crate::nn::kernels::matmul::packed::{Inputs, Outputs, Span, Weights, packed_matmul};
use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, Lanes};
use crate::nn::kernels::simd::math::exp;

/// Queries per task: with 1500 keys their scores take 290 KB.
const QUERIES: usize = 48;

/// Sizes of a multi-head attention.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    pub n_tokens: usize,
    pub n_heads: usize,
    /// Dimensions per head.
    pub head_dim: usize,
}

/// Relative position scores: entry `clamp(key − query + left, 0, n_distances − 1)` of a query's row is added to its
/// scaled score.
#[derive(Debug, Clone, Copy)]
pub struct Relative<'a> {
    /// A row per query, `[batch, n_tokens, n_heads, n_distances]`; with gates a row per head, `[n_heads, n_distances]`.
    pub rows: &'a [f32],
    /// Factors of the rows, `[batch, n_tokens, n_heads]`.
    pub gates: Option<&'a [f32]>,
    pub n_distances: usize,
    pub left: usize,
}

/// Masking and relative positions of the keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keys<'a> {
    /// Sequence `b` has `lengths[b]` keys, at least 1; the rest are masked. No key is masked if `None`.
    pub lengths: Option<&'a [usize]>,
    pub relative: Option<Relative<'a>>,
}

/// `y = softmax(q kᵀ / √head_dim + relative) v` per sequence and head. `qkv` is `[batch, n_tokens, 3, n_heads,
/// head_dim]`, `y` `[batch, n_tokens, n_heads, head_dim]`. A query's result depends only on itself and the keys that
/// are not masked.
pub fn attention(qkv: &[f32], heads: Heads, keys: Keys, y: &mut [f32], isa: Isa, workspace: &Workspace) {
    let Heads { n_tokens, n_heads, head_dim } = heads;
    let width = n_heads * head_dim;
    let sequences = y.par_chunks_mut(n_tokens * width).zip(qkv.par_chunks(3 * n_tokens * width)).enumerate();
    sequences.for_each(|(sequence, (y, qkv))| {
        let n_keys = keys.lengths.map_or(n_tokens, |lengths| lengths[sequence]);
        let sizes = Sizes { heads, n_keys, isa };
        let mut packed = workspace.take(n_heads * sizes.packed());
        let tasks = packed.par_chunks_mut(sizes.packed()).enumerate();
        tasks.for_each(|(head, packed)| sizes.pack(&qkv[width + head * head_dim..], packed));
        y.par_chunks_mut(QUERIES * width).enumerate().for_each(|(task, y)| {
            let queries = &qkv[task * QUERIES * 3 * width..];
            let rows = y.len() / width;
            let mut scores = workspace.take(rows * sizes.keys());
            let mut sums = workspace.take(rows * sizes.values());
            for (head, packed) in packed.chunks(sizes.packed()).enumerate() {
                let offset = head * head_dim;
                let relative = keys.relative.map(|relative| RowsOfHead {
                    relative,
                    n_heads,
                    head,
                    first_row: sequence * n_tokens + task * QUERIES,
                    first_query: task * QUERIES,
                });
                sizes.attend(&queries[offset..], packed, relative, &mut scores, &mut sums, &mut y[offset..]);
            }
        });
    });
}

/// The sizes of one sequence.
#[derive(Clone, Copy)]
struct Sizes {
    heads: Heads,
    n_keys: usize,
    isa: Isa,
}

impl Sizes {
    /// The number of keys, rounded up to whole blocks.
    fn keys(&self) -> usize {
        self.n_keys.next_multiple_of(CHANNEL_BLOCK)
    }

    /// The dimensions of a head, rounded up to whole blocks.
    fn values(&self) -> usize {
        self.heads.head_dim.next_multiple_of(CHANNEL_BLOCK)
    }

    /// Length of a head's packed keys and values.
    fn packed(&self) -> usize {
        self.keys() * (self.heads.head_dim + self.values())
    }

    /// Packs keys as `[block of keys][head_dim][16]`, then values as `[block of values][keys][16]`, both zero-padded.
    /// `keys` starts at this head of the first key.
    fn pack(&self, keys: &[f32], packed: &mut [f32]) {
        let Heads { n_heads, head_dim, .. } = self.heads;
        let width = n_heads * head_dim;
        let row = |key: usize, part: usize| &keys[(3 * key + part) * width..][..head_dim];
        let (for_keys, for_values) = packed.split_at_mut(self.keys() * head_dim);
        for (block, to) in for_keys.chunks_mut(head_dim * CHANNEL_BLOCK).enumerate() {
            let first = block * CHANNEL_BLOCK;
            let n = CHANNEL_BLOCK.min(self.n_keys - first);
            if n < CHANNEL_BLOCK {
                to.fill(0.0);
            }
            for lane in 0..n {
                let to = to[lane..].iter_mut().step_by(CHANNEL_BLOCK);
                to.zip(row(first + lane, 0)).for_each(|(to, &from)| *to = from);
            }
        }
        for (block, to) in for_values.chunks_mut(self.keys() * CHANNEL_BLOCK).enumerate() {
            let first = block * CHANNEL_BLOCK;
            let n = CHANNEL_BLOCK.min(head_dim - first);
            let (inside, beyond) = to.split_at_mut(self.n_keys * CHANNEL_BLOCK);
            for (key, to) in inside.chunks_mut(CHANNEL_BLOCK).enumerate() {
                to[..n].copy_from_slice(&row(key, 1)[first..first + n]);
                to[n..].fill(0.0);
            }
            beyond.fill(0.0);
        }
    }

    /// Attention of one head for the queries of a task. `queries` starts at this head of the first query, `y` at this
    /// head of its result.
    fn attend(
        &self,
        queries: &[f32],
        packed: &[f32],
        relative: Option<RowsOfHead>,
        scores: &mut [f32],
        sums: &mut [f32],
        y: &mut [f32],
    ) {
        let Heads { n_heads, head_dim, .. } = self.heads;
        let (keys, values, width) = (self.keys(), self.values(), n_heads * head_dim);
        let rows = scores.len() / keys;
        let (for_keys, for_values) = packed.split_at(keys * head_dim);
        let span = [Span { x: 0, y: 0, rows }];
        let inputs = Inputs { x: queries, row_stride: 3 * width, segments: &[0], segment_len: head_dim };
        packed_matmul(
            self.isa,
            inputs,
            &span,
            Weights { panels: for_keys, bias: None },
            Outputs { row_stride: keys, panel_stride: CHANNEL_BLOCK, y: &mut *scores },
        );
        let mut inverse = [0.0; QUERIES];
        let mut scale = 1.0 / (head_dim as f32).sqrt();
        if let Some(rows) = relative {
            self.isa.run(AddRelative { scores: &mut *scores, keys, n_keys: self.n_keys, scale, rows });
            scale = 1.0;
        }
        self.isa.run(Softmax { scores: &mut *scores, keys, n_keys: self.n_keys, scale, inverse: &mut inverse });
        let segments: Vec<usize> = (0..keys).step_by(CHANNEL_BLOCK).collect();
        let inputs = Inputs { x: scores, row_stride: keys, segments: &segments, segment_len: CHANNEL_BLOCK };
        packed_matmul(
            self.isa,
            inputs,
            &span,
            Weights { panels: for_values, bias: None },
            Outputs { row_stride: values, panel_stride: CHANNEL_BLOCK, y: &mut *sums },
        );
        for ((y, sums), inverse) in y.chunks_mut(width).zip(sums.chunks(values)).zip(inverse) {
            y[..head_dim].iter_mut().zip(sums).for_each(|(y, sum)| *y = sum * inverse);
        }
    }
}

/// The relative position rows of one head for the queries of a task.
#[derive(Clone, Copy)]
struct RowsOfHead<'a> {
    relative: Relative<'a>,
    n_heads: usize,
    head: usize,
    /// Index of the task's first query over all sequences.
    first_row: usize,
    /// Index of the task's first query in its sequence.
    first_query: usize,
}

/// Scales rows of `keys` scores, of which the first `n_keys` are valid, and adds the scores of their distances.
struct AddRelative<'a> {
    scores: &'a mut [f32],
    keys: usize,
    n_keys: usize,
    scale: f32,
    rows: RowsOfHead<'a>,
}

impl SimdOp for AddRelative<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { scores, keys, n_keys, scale, rows } = self;
        let Relative { rows: values, gates, n_distances, left } = rows.relative;
        for (index, scores) in scores.chunks_mut(keys).enumerate() {
            let (row_index, query) = ((rows.first_row + index) * rows.n_heads + rows.head, rows.first_query + index);
            let (row, gate) = match gates {
                Some(gates) => (rows.head, gates[row_index]),
                None => (row_index, 1.0),
            };
            let row = &values[row * n_distances..][..n_distances];
            // Key `k` gets entry `k + left − query`, which is inside the row from `inside` to `beyond`.
            let inside = query.saturating_sub(left).min(n_keys);
            let beyond = (query + n_distances).saturating_sub(left).clamp(inside, n_keys);
            let (scores, after) = scores[..n_keys].split_at_mut(beyond);
            let (before, scores) = scores.split_at_mut(inside);
            before.iter_mut().for_each(|x| *x = *x * scale + gate * row[0]);
            let row_inside = row.get((inside + left).saturating_sub(query)..).unwrap_or_default();
            scores.iter_mut().zip(row_inside).for_each(|(x, row)| *x = *x * scale + gate * row);
            after.iter_mut().for_each(|x| *x = *x * scale + gate * row[n_distances - 1]);
        }
    }
}

/// Softmax of rows of `keys` values, a multiple of a block, of which the first `n_keys` are valid: these become
/// `e^(scale · (score − max))`, the others about 0. `inverse` receives the reciprocal of each row's sum.
pub struct Softmax<'a> {
    pub scores: &'a mut [f32],
    pub keys: usize,
    pub n_keys: usize,
    /// Above 0.
    pub scale: f32,
    pub inverse: &'a mut [f32],
}

impl SimdOp for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let scale = self.scale;
        for (row, inverse) in self.scores.chunks_mut(self.keys).zip(self.inverse) {
            row[self.n_keys..].fill(f32::NEG_INFINITY);
            let (blocks, _) = row.as_chunks_mut::<CHANNEL_BLOCK>();
            let mut lanes = [f32::NEG_INFINITY; CHANNEL_BLOCK];
            for part in 0..L::PARTS {
                let mut max = L::splat(f32::NEG_INFINITY);
                for block in blocks.iter() {
                    max = L::load(block, part).max(max);
                }
                max.store(&mut lanes, part);
            }
            let max = lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b });
            let shift = L::splat(-max * scale);
            for part in 0..L::PARTS {
                let mut sum = L::splat(0.0);
                for block in blocks.iter_mut() {
                    let power = exp(L::load(block, part).mul_add(L::splat(scale), shift));
                    power.store(block, part);
                    sum = sum.add(power);
                }
                sum.store(&mut lanes, part);
            }
            *inverse = 1.0 / lanes.iter().sum::<f32>();
        }
    }
}
