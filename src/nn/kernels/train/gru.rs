//! One direction of a GRU layer and its gradients, for training.
//!
//! The backward pass recomputes the gates. In the notation of [`Gates::Gru`](crate::nn::kernels::rnn::Gates::Gru), with
//! `a` the argument of a gate's sigmoid or tanh and `δ` a gradient, a step backward is:
//!
//! ```text
//! δa_n = δh (1 − z)(1 − n²)     δa_z = δh (h − n) z (1 − z)     δa_r = δa_n s₂ r (1 − r)
//! δx = (δa_r, δa_z, δa_n)       δs = (δa_r, δa_z, r δa_n)       δh ← z δh + Wᵀ δs, the gradient of the step before
//! ```

use rayon::prelude::*;

use crate::nn::kernels::matmul::linear::PackedMatrix;
use crate::nn::kernels::matmul::strided::{MatrixView, strided_matmul};
use crate::nn::kernels::rnn::{Gru, parts};
use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{Lanes, map_lanes};
use crate::nn::kernels::simd::math::{sigmoid, tanh};

/// Sequences per task. A fixed number, so that results do not depend on threads.
const GROUP: usize = 8;

/// One direction of a layer, over sequences of given lengths, from zero states.
#[derive(Debug, Clone)]
pub struct Scan {
    pub hidden: usize,
    pub n_frames: usize,
    /// Valid frames of each sequence, up to `n_frames`.
    pub lengths: Vec<usize>,
    /// Whether to run from the last valid frame to the first.
    pub backward: bool,
}

/// The gradients of [`Scan::forward`]'s arguments.
pub struct Gradients {
    pub x: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Scan {
    /// Computes states `[batch, n_frames, hidden]`, zeros beyond a sequence's end, from `x` `[batch, n_frames, 3,
    /// hidden]`, which is the input times its weights, bias included. `weight` `[3, hidden, hidden]` and `bias` `[3,
    /// hidden]` are those of the state.
    pub fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let hidden = self.hidden;
        let recurrent = PackedMatrix::pack(weight, hidden, 3 * hidden).with_bias(bias);
        let (padded, width, isa) = (recurrent.padded_inputs(), recurrent.width(), Isa::best());
        let mut y = vec![0.0; self.lengths.len() * self.n_frames * hidden];
        let groups =
            y.par_chunks_mut(GROUP * self.n_frames * hidden).zip(x.par_chunks(GROUP * self.n_frames * 3 * hidden));
        groups.zip(self.lengths.par_chunks(GROUP)).for_each(|((y, x), lengths)| {
            let mut states = vec![0.0; lengths.len() * padded];
            let mut sums = vec![0.0; lengths.len() * width];
            for step in 0..lengths.iter().copied().max().unwrap_or(0) {
                recurrent.multiply_rows(&states, &mut sums, isa);
                for (row, &length) in lengths.iter().enumerate().filter(|&(_, &length)| step < length) {
                    let frame = row * self.n_frames + self.frame(step, length);
                    let h = &mut states[row * padded..][..hidden];
                    let (x, s) = (parts(&x[frame * 3 * hidden..], hidden), parts(&sums[row * width..], hidden));
                    isa.run(Gru { x, s, h });
                    y[frame * hidden..][..hidden].copy_from_slice(&states[row * padded..][..hidden]);
                }
            }
        });
        y
    }

    /// The gradients of the arguments, given the states `y` and their gradient `grad_y`.
    pub fn gradients(&self, (x, weight, bias): (&[f32], &[f32], &[f32]), y: &[f32], grad_y: &[f32]) -> Gradients {
        let hidden = self.hidden;
        let recurrent = PackedMatrix::pack(weight, hidden, 3 * hidden).with_bias(bias);
        let transposed: Vec<f32> =
            (0..hidden).flat_map(|unit| weight[unit..].iter().step_by(hidden)).copied().collect();
        let transposed = PackedMatrix::pack(&transposed, 3 * hidden, hidden);
        let mut grad_x = vec![0.0; x.len()];
        let (states, gates) = (GROUP * self.n_frames * hidden, GROUP * self.n_frames * 3 * hidden);
        let values = x.par_chunks(gates).zip(y.par_chunks(states)).zip(grad_y.par_chunks(states));
        let groups = grad_x.par_chunks_mut(gates).zip(values).zip(self.lengths.par_chunks(GROUP));
        let grad_weights: Vec<(Vec<f32>, Vec<f32>)> = groups
            .map(|((grad_x, ((x, y), grad_y)), lengths)| {
                self.group(lengths, (x, y, grad_y), (&recurrent, &transposed), grad_x)
            })
            .collect();
        let (mut grad_weight, mut grad_bias) = (vec![0.0; weight.len()], vec![0.0; bias.len()]);
        for (weight, bias) in grad_weights {
            grad_weight.iter_mut().zip(weight).for_each(|(sum, x)| *sum += x);
            grad_bias.iter_mut().zip(bias).for_each(|(sum, x)| *sum += x);
        }
        Gradients { x: grad_x, weight: grad_weight, bias: grad_bias }
    }

    /// The gradients for a group of sequences: writes that of `x`, returns those of weight and bias.
    fn group(
        &self,
        lengths: &[usize],
        (x, y, grad_y): (&[f32], &[f32], &[f32]),
        (recurrent, transposed): (&PackedMatrix, &PackedMatrix),
        grad_x: &mut [f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let (hidden, n, isa) = (self.hidden, self.n_frames, Isa::best());
        let (padded, width) = (recurrent.padded_inputs(), recurrent.width());
        let (gates_width, states_width) = (transposed.padded_inputs(), transposed.width());
        let rows = lengths.len() * n;
        // For each valid frame, the state before it, that state times its weights, and the gradients; zeros elsewhere.
        let mut before = vec![0.0; rows * padded];
        for (row, &length) in lengths.iter().enumerate() {
            for step in 1..length {
                let (to, from) = (row * n + self.frame(step, length), row * n + self.frame(step - 1, length));
                before[to * padded..][..hidden].copy_from_slice(&y[from * hidden..][..hidden]);
            }
        }
        let mut sums = vec![0.0; rows * width];
        recurrent.multiply_rows(&before, &mut sums, isa);
        let mut grad_sums = vec![0.0; rows * 3 * hidden];
        let mut grad_states = vec![0.0; lengths.len() * hidden];
        // For one step: the gradients of the products, and what these contribute to the gradients of the states.
        let mut grad_gates = vec![0.0; lengths.len() * gates_width];
        let mut products = vec![0.0; lengths.len() * states_width];
        for step in (0..lengths.iter().copied().max().unwrap_or(0)).rev() {
            let running = || lengths.iter().enumerate().filter(|&(_, &length)| step < length);
            for (row, &length) in running() {
                let frame = row * n + self.frame(step, length);
                let (state, gates) = (frame * hidden, frame * 3 * hidden);
                let grad_s = &mut grad_gates[row * gates_width..][..3 * hidden];
                isa.run(Backward {
                    x: parts(&x[gates..], hidden),
                    s: parts(&sums[frame * width..], hidden),
                    h: &before[frame * padded..][..hidden],
                    grad_y: &grad_y[state..][..hidden],
                    grad_h: &mut grad_states[row * hidden..][..hidden],
                    grad_x: &mut grad_x[gates..][..3 * hidden],
                    grad_s: &mut *grad_s,
                });
                grad_sums[gates..][..3 * hidden].copy_from_slice(grad_s);
            }
            transposed.multiply_rows(&grad_gates, &mut products, isa);
            for (row, _) in running() {
                let grad_h = &mut grad_states[row * hidden..][..hidden];
                grad_h.iter_mut().zip(&products[row * states_width..]).for_each(|(grad_h, x)| *grad_h += x);
            }
        }
        let mut grad_weight = vec![0.0; 3 * hidden * hidden];
        let grad_rows = MatrixView::rows(&grad_sums, rows, 3 * hidden, 3 * hidden).transposed();
        strided_matmul(grad_rows, MatrixView::rows(&before, rows, hidden, padded), &mut grad_weight, hidden);
        let mut grad_bias = vec![0.0; 3 * hidden];
        for grad_sums in grad_sums.chunks(3 * hidden) {
            grad_bias.iter_mut().zip(grad_sums).for_each(|(sum, x)| *sum += x);
        }
        (grad_weight, grad_bias)
    }

    /// The frame of a sequence at a step.
    fn frame(&self, step: usize, length: usize) -> usize {
        if self.backward { length - 1 - step } else { step }
    }
}

/// One step of the backward pass.
struct Backward<'a> {
    /// The arguments of the step, and the gradient of its output.
    x: [&'a [f32]; 3],
    s: [&'a [f32]; 3],
    h: &'a [f32],
    grad_y: &'a [f32],
    /// On entry the gradient of the state after the step, without `grad_y`; on return the gradient of the state before
    /// it, without the part through the weights.
    grad_h: &'a mut [f32],
    /// The gradients of `x` and `s`, `[3, hidden]`.
    grad_x: &'a mut [f32],
    grad_s: &'a mut [f32],
}

impl SimdOp for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let n = self.grad_h.len();
        let ([x0, x1, x2], [s0, s1, s2]) = (self.x, self.s);
        let (grad_x0, rest) = self.grad_x.split_at_mut(n);
        let (grad_x1, grad_x2) = rest.split_at_mut(n);
        let (grad_s0, rest) = self.grad_s.split_at_mut(n);
        let (grad_s1, grad_s2) = rest.split_at_mut(n);
        let one = L::splat(1.0);
        map_lanes::<L, _, _>(
            [x0, x1, x2, s0, s1, s2, self.h, self.grad_y],
            [self.grad_h, grad_x0, grad_x1, grad_x2, grad_s0, grad_s1, grad_s2],
            #[inline(always)]
            |[x0, x1, x2, s0, s1, s2, h, grad_y], [grad_h, ..]| {
                let (reset, keep) = (sigmoid(x0.add(s0)), sigmoid(x1.add(s1)));
                let new = tanh(reset.mul_add(s2, x2));
                let grad = grad_h.add(grad_y);
                let grad_new = grad.mul(one.sub(keep)).mul(one.sub(new.mul(new)));
                let grad_keep = grad.mul(h.sub(new)).mul(keep).mul(one.sub(keep));
                let grad_reset = grad_new.mul(s2).mul(reset).mul(one.sub(reset));
                [grad.mul(keep), grad_reset, grad_keep, grad_new, grad_reset, grad_keep, grad_new.mul(reset)]
            },
        );
    }
}
