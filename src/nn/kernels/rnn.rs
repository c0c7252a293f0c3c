//! GRU and LSTM layers over whole sequences.
//!
//! A layer has one or two directions. For a few frames at a time the products of the input with its weights are taken,
//! all frames and sequences at once; then each direction goes through these frames step by step, with the product of its
//! state and the gates. Sequences are spread over threads in groups that share each weight they read.

use rayon::prelude::*;

use crate::nn::kernels::matmul::gates::{GateWeights, Rows, gate_matmul};
use crate::nn::kernels::simd::dispatch;
use crate::nn::kernels::simd::math::{sigmoid, tanh};

/// What a step computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gates {
    /// `r = σ(x₀ + s₀)`, `z = σ(x₁ + s₁)`, `n = tanh(x₂ + r s₂)`, `h = (1 − z) n + z h`.
    Gru,
    /// `i, f, o = σ(x₀ + s₀), σ(x₁ + s₁), σ(x₃ + s₃)`, `g = tanh(x₂ + s₂)`, `c = f c + i g`, `h = o tanh c`.
    Lstm,
}

impl Gates {
    /// Rows of weights per hidden value.
    pub fn count(self) -> usize {
        match self {
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }
}

/// The weights of one direction of a layer: `x` in the formulas is the product of the input with the first, `s` that of the
/// state with the second, biases included.
#[derive(Debug)]
pub struct Direction {
    pub input: GateWeights,
    pub recurrent: GateWeights,
}

/// Frames of one sequence that one task multiplies by the input's weights.
const FRAMES: usize = 32;
/// Frames of all sequences together whose products are held at a time, per direction.
const HELD_FRAMES: usize = 512;
/// Sequences per task at most: more do not make better use of a weight that is read.
const GROUP: usize = 16;

/// One sequence in one direction.
struct Track<'a> {
    /// Which sequence.
    row: usize,
    /// Its frames that count.
    length: usize,
    /// State, `hidden` long, and of an LSTM its cell.
    h: Vec<f32>,
    c: Vec<f32>,
    /// Where the output of each frame goes.
    frames: Vec<&'a mut [f32]>,
}

/// Sequences that go step by step together, longest first, in one direction.
struct Group<'a> {
    direction: usize,
    tracks: Vec<Track<'a>>,
    /// Products of the states, `[tracks, gates, width]`.
    sums: Vec<f32>,
}

/// One layer. `x` is `[batch, n_frames, inputs]`, `y` zeros `[batch, n_frames, directions, hidden]`. Of sequence `b` only
/// the first `lengths[b]` frames count, 1 to `n_frames`; `y` is left as it is beyond. The second of `directions`, if there
/// is one, goes from the last of these frames to the first. `h` and, for an LSTM, `c` are `[directions, batch, hidden]`: the
/// state before and, when done, after.
pub fn layer(
    gates: Gates,
    directions: &[Direction],
    x: &[f32],
    lengths: &[usize],
    (h, c): (&mut [f32], &mut [f32]),
    y: &mut [f32],
) {
    let (batch, steps) = (lengths.len(), lengths.iter().copied().max().unwrap_or(0));
    let (inputs, stride) = (directions[0].input.inputs(), directions[0].input.stride());
    let sequence = x.len() / batch.max(1);
    let mut groups = groups(gates, directions, lengths, (h, c), y);
    let tracks: Vec<(usize, usize, usize)> = groups
        .iter()
        .flat_map(|group| group.tracks.iter().map(|track| (group.direction, track.row, track.length)))
        .collect();
    let task = FRAMES.min(steps).max(1);
    let held = (HELD_FRAMES / batch.max(1) / task).clamp(1, steps.div_ceil(task).max(1)) * task;
    let mut products = vec![0.0; tracks.len() * held * stride]; // [tracks, held, gates, width]
    for start in (0..steps).step_by(held) {
        products.par_chunks_mut(task * stride).enumerate().for_each(|(i, products)| {
            let (direction, row, length) = tracks[i * task / held];
            let first = start + i * task % held;
            let count = length.saturating_sub(first).min(task);
            let x = &x[row * sequence..][..sequence];
            let frame = |step: usize| if direction == 0 { first + step } else { length - 1 - first - step };
            let get = |step: usize| &x[frame(step) * inputs..][..inputs];
            gate_matmul(&directions[direction].input, Rows { count, get }, products);
        });
        let mut rest = products.as_slice();
        let mut tasks = Vec::with_capacity(groups.len());
        for group in &mut groups {
            let (own, others) = rest.split_at(group.tracks.len() * held * stride);
            rest = others;
            tasks.push((group, own));
        }
        tasks.into_par_iter().for_each(|(group, products)| {
            let recurrent = &directions[group.direction].recurrent;
            for step in 0..held {
                group.step(gates, recurrent, &products[step * stride..], (start + step, held * stride));
            }
        });
    }
    for group in groups {
        for track in group.tracks {
            let place = (group.direction * batch + track.row) * track.h.len();
            h[place..][..track.h.len()].copy_from_slice(&track.h);
            if gates == Gates::Lstm {
                c[place..][..track.c.len()].copy_from_slice(&track.c);
            }
        }
    }
}

/// Each direction's sequences by falling length, in as many groups as there are threads, if they do not get too large.
fn groups<'a>(
    gates: Gates,
    directions: &[Direction],
    lengths: &[usize],
    (h, c): (&[f32], &[f32]),
    y: &'a mut [f32],
) -> Vec<Group<'a>> {
    let (batch, n_directions) = (lengths.len(), directions.len());
    let (hidden, stride) = (directions[0].recurrent.inputs(), directions[0].recurrent.stride());
    let mut rows: Vec<usize> = (0..batch).collect();
    rows.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
    let n_frames = y.len() / (batch * n_directions * hidden).max(1);
    let mut frames: Vec<Vec<&mut [f32]>> = (0..batch * n_directions).map(|_| Vec::with_capacity(n_frames)).collect();
    for (i, frame) in y.chunks_mut(hidden).enumerate() {
        frames[i / n_directions / n_frames * n_directions + i % n_directions].push(frame);
    }
    let size = (batch * n_directions).div_ceil(rayon::current_num_threads()).clamp(1, GROUP);
    let mut groups = Vec::new();
    for direction in 0..n_directions {
        for rows in rows.chunks(size) {
            let track = |&row: &usize| {
                let state = (direction * batch + row) * hidden..(direction * batch + row + 1) * hidden;
                Track {
                    row,
                    length: lengths[row],
                    h: h[state.clone()].to_vec(),
                    c: if gates == Gates::Lstm { c[state].to_vec() } else { Vec::new() },
                    frames: std::mem::take(&mut frames[row * n_directions + direction]),
                }
            };
            let tracks: Vec<Track> = rows.iter().map(track).collect();
            groups.push(Group { direction, sums: vec![0.0; tracks.len() * stride], tracks });
        }
    }
    groups
}

impl Group<'_> {
    /// Step `step` of those tracks that have one. `products` starts at the first track's, the others' follow at multiples
    /// of `distance`.
    fn step(&mut self, gates: Gates, recurrent: &GateWeights, products: &[f32], (step, distance): (usize, usize)) {
        let (tracks, sums) = (&mut self.tracks, &mut self.sums);
        let count = tracks.partition_point(|track| track.length > step);
        gate_matmul(recurrent, Rows { count, get: |row: usize| tracks[row].h.as_slice() }, sums);
        let (width, stride) = (recurrent.width(), recurrent.stride());
        for (row, track) in tracks[..count].iter_mut().enumerate() {
            let (x, s) = (&products[row * distance..][..stride], &sums[row * stride..][..stride]);
            match gates {
                Gates::Gru => gru((x, width), (s, width), &mut track.h),
                Gates::Lstm => lstm(x, s, width, &mut track.h, &mut track.c),
            }
            let frame = if self.direction == 0 { step } else { track.length - 1 - step };
            track.frames[frame].copy_from_slice(&track.h);
        }
    }
}

/// See [`Gates::Gru`]. `x` and `s` are `[3, width]`, each of its own width.
pub(super) fn gru((x, x_width): (&[f32], usize), (s, s_width): (&[f32], usize), h: &mut [f32]) {
    let n = h.len();
    let (x0, x1, x2) = (part(x, 0, x_width, n), part(x, 1, x_width, n), part(x, 2, x_width, n));
    let (s0, s1, s2) = (part(s, 0, s_width, n), part(s, 1, s_width, n), part(s, 2, s_width, n));
    dispatch(
        #[inline(always)]
        || {
            for u in 0..n {
                let (reset, keep) = (sigmoid(x0[u] + s0[u]), sigmoid(x1[u] + s1[u]));
                let new = tanh(x2[u] + reset * s2[u]);
                h[u] = (h[u] - new) * keep + new;
            }
        },
    );
}

/// See [`Gates::Lstm`]. `x` and `s` are `[4, width]`.
fn lstm(x: &[f32], s: &[f32], width: usize, h: &mut [f32], c: &mut [f32]) {
    let n = h.len();
    let gate = |values, gate: usize| -> &[f32] { part(values, gate, width, n) };
    let (x0, x1, x2, x3) = (gate(x, 0), gate(x, 1), gate(x, 2), gate(x, 3));
    let (s0, s1, s2, s3) = (gate(s, 0), gate(s, 1), gate(s, 2), gate(s, 3));
    let c = &mut c[..n];
    dispatch(
        #[inline(always)]
        || {
            for u in 0..n {
                let (input, forget) = (sigmoid(x0[u] + s0[u]), sigmoid(x1[u] + s1[u]));
                let (new, output) = (tanh(x2[u] + s2[u]), sigmoid(x3[u] + s3[u]));
                c[u] = forget * c[u] + input * new;
                h[u] = output * tanh(c[u]);
            }
        },
    );
}

/// The first `n` values of a gate.
fn part(values: &[f32], gate: usize, width: usize, n: usize) -> &[f32] {
    &values[gate * width..][..n]
}
