//! Scaled dot-product attention.

use std::cell::RefCell;

use rayon::prelude::*;

use super::gemm::{Matrix, product};
use super::math::softmax;
use crate::simd::dispatch;

/// Queries per task.
const QUERIES: usize = 64;

/// Sizes of an attention over `batch` sequences.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    pub n_tokens: usize,
    pub n_heads: usize,
    /// Of one head.
    pub head_dim: usize,
}

thread_local! {
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `y = softmax(q kᵀ / √head_dim) v` per sequence and head. `qkv` is `[batch, n_tokens, 3, n_heads, head_dim]`, `y`
/// `[batch, n_tokens, n_heads, head_dim]`. Of sequence `b` the keys from `lengths[b]` on are left out; `lengths[b]` is at
/// least 1.
pub fn attention(qkv: &[f32], heads: Heads, lengths: Option<&[usize]>, y: &mut [f32]) {
    let Heads { n_tokens, n_heads, head_dim } = heads;
    let width = n_heads * head_dim;
    let sequences = y.par_chunks_mut(n_tokens * width).zip(qkv.par_chunks(3 * n_tokens * width)).enumerate();
    sequences.for_each(|(sequence, (y, qkv))| {
        let n_keys = lengths.map_or(n_tokens, |lengths| lengths[sequence]);
        y.par_chunks_mut(QUERIES * width).enumerate().for_each(|(task, y)| {
            let queries = &qkv[task * QUERIES * 3 * width..];
            SCORES.with_borrow_mut(|scores| {
                scores.resize(QUERIES * n_keys, 0.0);
                for head in 0..n_heads {
                    attend(&queries[head * head_dim..], &qkv[width + head * head_dim..], heads, scores, y, head);
                }
            });
        });
    });
}

/// One head for the queries of a task. `queries` starts at this head of the first query, `keys` at this head of the first
/// key.
fn attend(queries: &[f32], keys: &[f32], heads: Heads, scores: &mut [f32], y: &mut [f32], head: usize) {
    let Heads { n_heads, head_dim, .. } = heads;
    let width = n_heads * head_dim;
    let n_queries = y.len() / width;
    let n_keys = scores.len() / QUERIES;
    let q = Matrix::rows(queries, n_queries, head_dim, 3 * width);
    let k = Matrix::rows(keys, n_keys, head_dim, 3 * width);
    let v = Matrix::rows(&keys[width..], n_keys, head_dim, 3 * width);
    product(q, k.transposed(), scores, n_keys);
    let scale = 1.0 / (head_dim as f32).sqrt();
    dispatch(
        #[inline(always)]
        || scores[..n_queries * n_keys].chunks_mut(n_keys).for_each(|row| softmax(row, scale)),
    );
    product(Matrix::rows(scores, n_queries, n_keys, n_keys), v, &mut y[head * head_dim..], width);
}
