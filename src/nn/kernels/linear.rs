//! Matrix times vector, and times many.

use rayon::prelude::*;

use super::gemm::{Matrix, product};
use super::simd::dispatch;

/// Outputs per task.
const ROWS: usize = 32;
/// Tokens per task.
const TOKENS: usize = 64;

/// `y[b][o] = finish(Σ_i weight[o][i] x[b][i], o)`. `x` is `[batch, inputs]`, `weight` `[outputs, inputs]`, `y`
/// `[outputs, batch]`, transposed so that a task owns whole rows of it.
pub fn linear(x: &[f32], weight: &[f32], inputs: usize, y: &mut [f32], finish: impl Fn(f32, usize) -> f32 + Sync) {
    let batch = x.len() / inputs;
    y.par_chunks_mut(ROWS * batch).enumerate().for_each(|(task, y)| {
        dispatch(
            #[inline(always)]
            || {
                for (row, y) in y.chunks_mut(batch).enumerate() {
                    let output = task * ROWS + row;
                    let weight = &weight[output * inputs..][..inputs];
                    for (x, y) in x.chunks(inputs).zip(y) {
                        *y = finish(dot(x, weight), output);
                    }
                }
            },
        );
    });
}

/// `y[t][o] = Σ_i weight[o][i] x[t][i]`, then `finish(y[t], t)` on each token's row. `x` is `[tokens, inputs]`, `weight` `[outputs, inputs]`, `y` `[tokens, outputs]`.
pub fn linear_tokens(
    x: &[f32],
    weight: &[f32],
    (inputs, outputs): (usize, usize),
    y: &mut [f32],
    finish: impl Fn(&mut [f32], usize) + Sync,
) {
    let weight = Matrix::rows(weight, outputs, inputs, inputs).transposed();
    let tasks = y.par_chunks_mut(TOKENS * outputs).zip(x.par_chunks(TOKENS * inputs)).enumerate();
    tasks.for_each(|(task, (y, x))| {
        product(Matrix::rows(x, x.len() / inputs, inputs, inputs), weight, y, outputs);
        for (row, y) in y.chunks_mut(outputs).enumerate() {
            finish(y, task * TOKENS + row);
        }
    });
}

/// Sum of products in a fixed order.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a_lanes.zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}
