//! Scaled dot-product attention.
//!
//! Keys and values are packed once per sequence and head, as the weights of two matrix products: queries times keys,
//! and softmax times values. A task processes a few queries, so that their scores stay in the cache.

use rayon::prelude::*;

use super::row_blocks::RowBlocks;
use super::workspace::{Buffer, Workspace};
use crate::nn::kernels::matmul::packed::{Outputs, Span, Weights, packed_matmul};
use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, Lanes, MAX_PARTS};
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

impl Heads {
    /// Dimensions of all heads together.
    fn width(&self) -> usize {
        self.n_heads * self.head_dim
    }
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
    let width = heads.width();
    let sequences = y.par_chunks_mut(heads.n_tokens * width).zip(qkv.par_chunks(3 * heads.n_tokens * width));
    sequences.enumerate().for_each(|(index, (y, qkv))| {
        let sequence = PackedSequence::new(qkv, index, heads, keys, isa, workspace);
        let tasks = y.par_chunks_mut(QUERIES * width).enumerate();
        tasks.for_each(|(task, y)| sequence.attend(task * QUERIES, y));
    });
}

/// A sequence whose keys and values are packed.
pub struct PackedSequence<'a> {
    qkv: &'a [f32],
    /// Its position in the batch.
    index: usize,
    relative: Option<Relative<'a>>,
    sizes: Sizes,
    packed: Buffer,
    workspace: &'a Workspace,
}

impl<'a> PackedSequence<'a> {
    /// Packs sequence `index` of a batch, `qkv` `[n_tokens, 3, n_heads, head_dim]`.
    pub fn new(qkv: &'a [f32], index: usize, heads: Heads, keys: Keys<'a>, isa: Isa, workspace: &'a Workspace) -> Self {
        let n_keys = keys.lengths.map_or(heads.n_tokens, |lengths| lengths[index]);
        let sizes = Sizes { heads, n_keys, isa };
        let mut packed = workspace.take(heads.n_heads * sizes.packed());
        let tasks = packed.par_chunks_mut(sizes.packed()).enumerate();
        tasks.for_each(|(head, packed)| sizes.pack(&qkv[heads.width() + head * heads.head_dim..], packed));
        Self { qkv, index, relative: keys.relative, sizes, packed, workspace }
    }

    /// Attention of the queries from `first` on, as many as `y` `[queries, n_heads, head_dim]` has rows, on the calling
    /// thread.
    pub fn attend(&self, first: usize, y: &mut [f32]) {
        let Self { sizes, .. } = self;
        let Heads { n_tokens, n_heads, head_dim } = sizes.heads;
        let width = sizes.heads.width();
        let n_queries = y.len() / width;
        let at_once = n_queries.div_ceil(n_queries.div_ceil(QUERIES).max(1));
        for (task, y) in y.chunks_mut(at_once * width).enumerate() {
            let (first, rows) = (first + task * at_once, y.len() / width);
            let mut scores = RowBlocks::take(rows, sizes.n_keys, self.workspace);
            let mut sums = self.workspace.take(rows * sizes.values());
            for (head, packed) in self.packed.chunks(sizes.packed()).enumerate() {
                let relative = self.relative.map(|relative| RowsOfHead {
                    relative,
                    n_heads,
                    head,
                    first_row: self.index * n_tokens + first,
                    first_query: first,
                });
                let queries = &self.qkv[first * 3 * width + head * head_dim..];
                let queries = RowBlocks::copy(queries, (rows, 3 * width), head_dim, self.workspace);
                sizes.attend(&queries, packed, relative, &mut scores, &mut sums, &mut y[head * head_dim..]);
            }
        }
    }
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
        2 * self.keys() * self.values()
    }

    /// Packs keys as `[block of keys][head_dim][16]`, then values as `[block of values][keys][16]`, all sizes
    /// zero-padded to whole blocks. `keys` starts at this head of the first key.
    fn pack(&self, keys: &[f32], packed: &mut [f32]) {
        let Heads { n_heads, head_dim, .. } = self.heads;
        let width = n_heads * head_dim;
        let row = |key: usize, part: usize| &keys[(3 * key + part) * width..][..head_dim];
        let (for_keys, for_values) = packed.split_at_mut(self.keys() * self.values());
        for (block, to) in for_keys.chunks_mut(self.values() * CHANNEL_BLOCK).enumerate() {
            let first = block * CHANNEL_BLOCK;
            let n = CHANNEL_BLOCK.min(self.n_keys - first);
            if n < CHANNEL_BLOCK || head_dim < self.values() {
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

    /// Attention of one head for the queries of a task. `y` starts at this head of the first query's result.
    fn attend(
        &self,
        queries: &RowBlocks,
        packed: &[f32],
        relative: Option<RowsOfHead>,
        scores: &mut RowBlocks,
        sums: &mut [f32],
        y: &mut [f32],
    ) {
        let Heads { head_dim, .. } = self.heads;
        let (keys, values, width) = (self.keys(), self.values(), self.heads.width());
        let (for_keys, for_values) = packed.split_at(keys * values);
        let span = [Span { x: 0, y: 0, rows: queries.rows() }];
        let weights = Weights { panels: for_keys.into(), bias: None };
        packed_matmul(self.isa, queries.inputs(&queries.segments()), &span, weights, scores.outputs());
        let mut inverse = [0.0; QUERIES];
        let mut scale = 1.0 / (head_dim as f32).sqrt();
        if let Some(rows) = relative {
            self.isa.run(AddRelative { scores: &mut *scores, n_keys: self.n_keys, scale, rows });
            scale = 1.0;
        }
        self.isa.run(Softmax { scores: &mut *scores, n_keys: self.n_keys, scale, inverse: &mut inverse });
        let weights = Weights { panels: for_values.into(), bias: None };
        let outputs = Outputs { row_stride: values, panel_stride: CHANNEL_BLOCK, y: &mut *sums };
        packed_matmul(self.isa, scores.inputs(&scores.segments()), &span, weights, outputs);
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

/// Scales rows of `n_keys` scores and adds the scores of their distances.
struct AddRelative<'a> {
    scores: &'a mut RowBlocks,
    n_keys: usize,
    scale: f32,
    rows: RowsOfHead<'a>,
}

impl SimdOp for AddRelative<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { scores, n_keys, scale, rows } = self;
        let Relative { rows: values, gates, n_distances, left } = rows.relative;
        let mut added = vec![0.0; n_keys.next_multiple_of(CHANNEL_BLOCK)];
        for index in 0..scores.rows() {
            let (row_index, query) = ((rows.first_row + index) * rows.n_heads + rows.head, rows.first_query + index);
            let (row, gate) = match gates {
                Some(gates) => (rows.head, gates[row_index]),
                None => (row_index, 1.0),
            };
            let row = &values[row * n_distances..][..n_distances];
            // Key `k` gets entry `k + left − query`, which is inside the row from `inside` to `beyond`.
            let inside = query.saturating_sub(left).min(n_keys);
            let beyond = (query + n_distances).saturating_sub(left).clamp(inside, n_keys);
            added[..inside].fill(gate * row[0]);
            let row_inside = row.get((inside + left).saturating_sub(query)..).unwrap_or_default();
            added[inside..beyond].iter_mut().zip(row_inside).for_each(|(y, row)| *y = gate * row);
            added[beyond..n_keys].fill(gate * row[n_distances - 1]);
            for (scores, added) in scores.row_mut(index).zip(added.as_chunks::<CHANNEL_BLOCK>().0) {
                scores.iter_mut().zip(added).for_each(|(x, added)| *x = *x * scale + added);
            }
        }
    }
}

/// Softmax of rows of `n_keys` values: these become `e^(scale · (score − max))`, the padding of the last block about 0.
/// `inverse` receives the reciprocal of each row's sum.
pub struct Softmax<'a> {
    pub scores: &'a mut RowBlocks,
    pub n_keys: usize,
    /// Above 0.
    pub scale: f32,
    pub inverse: &'a mut [f32],
}

impl SimdOp for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { scores, n_keys, scale, inverse } = self;
        let padding = n_keys % CHANNEL_BLOCK;
        if padding > 0
            && let Some(last) = scores.blocks_mut().last()
        {
            last.as_chunks_mut::<CHANNEL_BLOCK>()
                .0
                .iter_mut()
                .for_each(|block| block[padding..].fill(f32::NEG_INFINITY));
        }
        for (row, inverse) in (0..scores.rows()).zip(inverse) {
            let max = row_max::<L>(scores.row_mut(row));
            let shift = L::splat(-max * scale);
            let mut sums = [L::splat(0.0); MAX_PARTS];
            for block in scores.row_mut(row) {
                for part in 0..L::PARTS {
                    let power = exp(L::load(block, part).mul_add(L::splat(scale), shift));
                    power.store(block, part);
                    sums[part] = sums[part].add(power);
                }
            }
            let mut lanes = [0.0; CHANNEL_BLOCK];
            for part in 0..L::PARTS {
                sums[part].store(&mut lanes, part);
            }
            *inverse = 1.0 / lanes.iter().sum::<f32>();
        }
    }
}

/// The largest value, in any order. A NaN may be lost: its power is NaN all the same, and so is the sum.
#[inline(always)]
fn row_max<'a, L: Lanes>(blocks: impl Iterator<Item = &'a mut [f32; CHANNEL_BLOCK]>) -> f32 {
    let mut maxima = [L::splat(f32::NEG_INFINITY); MAX_PARTS];
    for block in blocks {
        for part in 0..L::PARTS {
            maxima[part] = L::load(block, part).at_least(maxima[part]);
        }
    }
    let mut lanes = [f32::NEG_INFINITY; CHANNEL_BLOCK];
    for part in 0..L::PARTS {
        maxima[part].store(&mut lanes, part);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
}
