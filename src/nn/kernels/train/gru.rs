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

    /// The gradients of the arguments, given the states `y` and their gradient `of_y`.
    pub fn gradients(&self, (x, weight, bias): (&[f32], &[f32], &[f32]), y: &[f32], of_y: &[f32]) -> Gradients {
        let hidden = self.hidden;
        let recurrent = PackedMatrix::pack(weight, hidden, 3 * hidden).with_bias(bias);
        let transposed: Vec<f32> =
            (0..hidden).flat_map(|unit| weight[unit..].iter().step_by(hidden)).copied().collect();
        let transposed = PackedMatrix::pack(&transposed, 3 * hidden, hidden);
        let mut of_x = vec![0.0; x.len()];
        let (states, gates) = (GROUP * self.n_frames * hidden, GROUP * self.n_frames * 3 * hidden);
        let values = x.par_chunks(gates).zip(y.par_chunks(states)).zip(of_y.par_chunks(states));
        let groups = of_x.par_chunks_mut(gates).zip(values).zip(self.lengths.par_chunks(GROUP));
        let of_weights: Vec<(Vec<f32>, Vec<f32>)> = groups
            .map(|((of_x, ((x, y), of_y)), lengths)| self.group(lengths, (x, y, of_y), (&recurrent, &transposed), of_x))
            .collect();
        let (mut of_weight, mut of_bias) = (vec![0.0; weight.len()], vec![0.0; bias.len()]);
        for (weight, bias) in of_weights {
            of_weight.iter_mut().zip(weight).for_each(|(sum, x)| *sum += x);
            of_bias.iter_mut().zip(bias).for_each(|(sum, x)| *sum += x);
        }
        Gradients { x: of_x, weight: of_weight, bias: of_bias }
    }

    /// The gradients for a group of sequences: writes that of `x`, returns those of weight and bias.
    fn group(
        &self,
        lengths: &[usize],
        (x, y, of_y): (&[f32], &[f32], &[f32]),
        (recurrent, transposed): (&PackedMatrix, &PackedMatrix),
        of_x: &mut [f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let (hidden, n, isa) = (self.hidden, self.n_frames, Isa::best());
        let (padded, width) = (recurrent.padded_inputs(), recurrent.width());
        let (of_width, of_padded) = (transposed.padded_inputs(), transposed.width());
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
        let mut of_sums = vec![0.0; rows * 3 * hidden];
        let mut of_states = vec![0.0; lengths.len() * hidden];
        // For one step: the gradients of the products, and what these contribute to the gradients of the states.
        let mut of_gates = vec![0.0; lengths.len() * of_width];
        let mut products = vec![0.0; lengths.len() * of_padded];
        for step in (0..lengths.iter().copied().max().unwrap_or(0)).rev() {
            let running = || lengths.iter().enumerate().filter(|&(_, &length)| step < length);
            for (row, &length) in running() {
                let frame = row * n + self.frame(step, length);
                let (state, gates) = (frame * hidden, frame * 3 * hidden);
                let of_s = &mut of_gates[row * of_width..][..3 * hidden];
                isa.run(Backward {
                    x: parts(&x[gates..], hidden),
                    s: parts(&sums[frame * width..], hidden),
                    h: &before[frame * padded..][..hidden],
                    of_y: &of_y[state..][..hidden],
                    of_h: &mut of_states[row * hidden..][..hidden],
                    of_x: &mut of_x[gates..][..3 * hidden],
                    of_s: &mut *of_s,
                });
                of_sums[gates..][..3 * hidden].copy_from_slice(of_s);
            }
            transposed.multiply_rows(&of_gates, &mut products, isa);
            for (row, _) in running() {
                let of_h = &mut of_states[row * hidden..][..hidden];
                of_h.iter_mut().zip(&products[row * of_padded..]).for_each(|(of_h, x)| *of_h += x);
            }
        }
        let mut of_weight = vec![0.0; 3 * hidden * hidden];
        let of_rows = MatrixView::rows(&of_sums, rows, 3 * hidden, 3 * hidden).transposed();
        strided_matmul(of_rows, MatrixView::rows(&before, rows, hidden, padded), &mut of_weight, hidden);
        let mut of_bias = vec![0.0; 3 * hidden];
        for of_sums in of_sums.chunks(3 * hidden) {
            of_bias.iter_mut().zip(of_sums).for_each(|(sum, x)| *sum += x);
        }
        (of_weight, of_bias)
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
    of_y: &'a [f32],
    /// On entry the gradient of the state after the step, without `of_y`; on return the gradient of the state before
    /// it, without the part through the weights.
    of_h: &'a mut [f32],
    /// The gradients of `x` and `s`, `[3, hidden]`.
    of_x: &'a mut [f32],
    of_s: &'a mut [f32],
}

impl SimdOp for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let n = self.of_h.len();
        let ([x0, x1, x2], [s0, s1, s2]) = (self.x, self.s);
        let (of_x0, rest) = self.of_x.split_at_mut(n);
        let (of_x1, of_x2) = rest.split_at_mut(n);
        let (of_s0, rest) = self.of_s.split_at_mut(n);
        let (of_s1, of_s2) = rest.split_at_mut(n);
        let one = L::splat(1.0);
        map_lanes::<L, _, _>(
            [x0, x1, x2, s0, s1, s2, self.h, self.of_y],
            [self.of_h, of_x0, of_x1, of_x2, of_s0, of_s1, of_s2],
            #[inline(always)]
            |[x0, x1, x2, s0, s1, s2, h, of_y], [of_h, ..]| {
                let (reset, keep) = (sigmoid(x0.add(s0)), sigmoid(x1.add(s1)));
                let new = tanh(reset.mul_add(s2, x2));
                let of = of_h.add(of_y);
                let of_new = of.mul(one.sub(keep)).mul(one.sub(new.mul(new)));
                let of_keep = of.mul(h.sub(new)).mul(keep).mul(one.sub(keep));
                let of_reset = of_new.mul(s2).mul(reset).mul(one.sub(reset));
                [of.mul(keep), of_reset, of_keep, of_new, of_reset, of_keep, of_new.mul(reset)]
            },
        );
    }
}
