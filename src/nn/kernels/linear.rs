//! Matrix times vector.

use rayon::prelude::*;

/// Outputs per task.
const ROWS: usize = 32;
/// Partial sums of a dot product, so that it vectorises.
const LANES: usize = 16;

/// `y[b][o] = finish(Σ_i weight[o][i] x[b][i], o)`. `x` is `[batch, inputs]`, `weight` `[outputs, inputs]`, `y`
/// `[outputs, batch]`, transposed so that a task owns whole rows of it.
pub fn linear(x: &[f32], weight: &[f32], inputs: usize, y: &mut [f32], finish: impl Fn(f32, usize) -> f32 + Sync) {
    let batch = x.len() / inputs;
    y.par_chunks_mut(ROWS * batch).enumerate().for_each(|(task, y)| {
        for (row, y) in y.chunks_mut(batch).enumerate() {
            let output = task * ROWS + row;
            let weight = &weight[output * inputs..][..inputs];
            for (x, y) in x.chunks(inputs).zip(y) {
                *y = finish(dot(x, weight), output);
            }
        }
    });
}

/// Sum of products in a fixed order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
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
