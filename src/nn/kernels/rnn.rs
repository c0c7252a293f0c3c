//! GRU and LSTM layers over whole sequences.
//!
//! A layer has one or two directions. It multiplies a range of frames by the input weights, for all sequences at once.
//! Then each direction goes through these frames step by step: the state times the recurrent weights, then the gates. A
//! group of sequences shares each weight that it reads, and groups are spread over threads.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::nn::kernels::matmul::linear::PackedMatrix;
use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{Lanes, map_lanes};
use crate::nn::kernels::simd::math::{sigmoid, tanh};

/// The gates of a cell, which define one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gates {
    /// `r = σ(x₀ + s₀)`, `z = σ(x₁ + s₁)`, `n = tanh(x₂ + r s₂)`, `h = (1 − z) n + z h`.
    Gru,
    /// `i, f, o = σ(x₀ + s₀), σ(x₁ + s₁), σ(x₃ + s₃)`, `g = tanh(x₂ + s₂)`, `c = f c + i g`, `h = o tanh c`.
    Lstm,
}

impl Gates {
    /// Rows of weights per hidden unit.
    pub fn count(self) -> usize {
        match self {
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }
}

/// The weights of one direction of a layer, `[gates · hidden, …]`, including biases: in the formulas, `x` is the input
/// times `input`, and `s` the state times `recurrent`.
#[derive(Debug)]
pub struct Direction {
    pub input: PackedMatrix,
    pub recurrent: PackedMatrix,
}

/// Frames of one sequence that a task multiplies by the input weights.
const FRAMES: usize = 32;
/// Frames over all sequences whose products are held at a time, per direction.
const HELD_FRAMES: usize = 512;
/// Maximum number of sequences per task. Larger groups do not reuse a weight more often per read.
const GROUP: usize = 16;

/// One sequence, in one direction.
struct Track<'a> {
    /// Index of the sequence in the batch.
    row: usize,
    /// Number of valid frames.
    length: usize,
    /// Destination of the output of each frame.
    frames: Vec<&'a mut [f32]>,
}

/// Sequences of one direction that advance together, the longest first.
struct Group<'a> {
    direction: usize,
    tracks: Vec<Track<'a>>,
    /// States, `[tracks, padded]`: rows of `hidden` values, zero-padded to whole blocks.
    h: Vec<f32>,
    /// Cell states of an LSTM, in the same layout.
    c: Vec<f32>,
    /// States times the recurrent weights, `[tracks, width]`.
    sums: Vec<f32>,
}

/// Runs one layer. `x` is `[batch, n_frames, inputs]`; `y` is `[batch, n_frames, directions, hidden]` and must hold
/// zeros.
///
/// Only the first `lengths[b]` frames of sequence `b` are valid, 1 to `n_frames`; `y` is not written beyond them. The
/// second of `directions`, if present, runs from the last valid frame to the first. `h` and, for an LSTM, `c` are
/// `[directions, batch, hidden]`: on entry the state before the first step, on return the state after the last.
pub fn layer(
    gates: Gates,
    directions: &[Direction],
    x: &[f32],
    lengths: &[usize],
    (h, c): (&mut [f32], &mut [f32]),
    y: &mut [f32],
    isa: Isa,
) {
    let (batch, steps) = (lengths.len(), lengths.iter().copied().max().unwrap_or(0));
    let (inputs, width) = (directions[0].input.padded_inputs(), directions[0].input.width());
    let (hidden, padded) = (directions[0].recurrent.inputs(), directions[0].recurrent.padded_inputs());
    let x = pad_rows(x, directions[0].input.inputs(), inputs);
    let sequence = x.len() / batch.max(1);
    let mut groups = groups(gates, directions, lengths, (h, c), y);
    let tracks: Vec<(usize, usize, usize)> = groups
        .iter()
        .flat_map(|group| group.tracks.iter().map(|track| (group.direction, track.row, track.length)))
        .collect();
    let task = FRAMES.min(steps).max(1);
    let held = (HELD_FRAMES / batch.max(1) / task).clamp(1, steps.div_ceil(task).max(1)) * task;
    // [tracks, held, width], ordered by frame; the backward direction reads it in reverse.
    let mut products = vec![0.0; tracks.len() * held * width];
    for start in (0..steps).step_by(held) {
        products.par_chunks_mut(task * width).enumerate().for_each(|(i, products)| {
            let (direction, row, length) = tracks[i * task / held];
            let slot = (i * task % held) as isize;
            let begin = slot + if direction == 0 { start as isize } else { length as isize - (start + held) as isize };
            let frame = |slot: isize| (begin + slot).clamp(0, length as isize) as usize;
            let (first, end) = (frame(0), frame(task as isize));
            if first == end {
                return;
            }
            let x = &x[row * sequence + first * inputs..row * sequence + end * inputs];
            let products = &mut products[(first as isize - begin) as usize * width..];
            directions[direction].input.multiply_rows(x, products, isa);
        });
        let own = groups.iter_mut().scan(products.as_slice(), |rest, group| {
            let (own, others) = rest.split_at(group.tracks.len() * held * width);
            *rest = others;
            Some((group, own))
        });
        own.collect::<Vec<_>>().into_par_iter().for_each(|(group, products)| {
            for step in 0..held {
                let slot = if group.direction == 0 { step } else { held - 1 - step };
                let products = &products[slot * width..];
                group.step(gates, &directions[group.direction].recurrent, products, (start + step, held * width), isa);
            }
        });
    }
    for group in groups {
        for (i, track) in group.tracks.iter().enumerate() {
            let offset = (group.direction * batch + track.row) * hidden;
            h[offset..][..hidden].copy_from_slice(&group.h[i * padded..][..hidden]);
            if gates == Gates::Lstm {
                c[offset..][..hidden].copy_from_slice(&group.c[i * padded..][..hidden]);
            }
        }
    }
}

/// Zero-pads rows of `len` values to `padded` values.
pub(super) fn pad_rows(x: &[f32], len: usize, padded: usize) -> Cow<'_, [f32]> {
    if len == padded {
        return Cow::Borrowed(x);
    }
    let mut rows = vec![0.0; x.len() / len * padded];
    rows.chunks_mut(padded).zip(x.chunks(len)).for_each(|(row, x)| row[..len].copy_from_slice(x));
    Cow::Owned(rows)
}

/// Sorts each direction's sequences by descending length and splits them into one group per thread, or more if groups
/// would exceed [`GROUP`].
fn groups<'a>(
    gates: Gates,
    directions: &[Direction],
    lengths: &[usize],
    (h, c): (&[f32], &[f32]),
    y: &'a mut [f32],
) -> Vec<Group<'a>> {
    let (batch, n_directions) = (lengths.len(), directions.len());
    let recurrent = &directions[0].recurrent;
    let hidden = recurrent.inputs();
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
            let states = |values: &[f32]| {
                let row = |&row: &usize| &values[(direction * batch + row) * hidden..][..hidden];
                pad_rows(&rows.iter().map(row).collect::<Vec<_>>().concat(), hidden, recurrent.padded_inputs())
                    .into_owned()
            };
            let track = |&row: &usize| {
                let frames = std::mem::take(&mut frames[row * n_directions + direction]);
                Track { row, length: lengths[row], frames }
            };
            groups.push(Group {
                direction,
                tracks: rows.iter().map(track).collect(),
                h: states(h),
                c: if gates == Gates::Lstm { states(c) } else { Vec::new() },
                sums: vec![0.0; rows.len() * recurrent.width()],
            });
        }
    }
    groups
}

impl Group<'_> {
    /// Runs step `step` for the tracks that are long enough. The products of track `i` start at `i · distance`.
    fn step(
        &mut self,
        gates: Gates,
        recurrent: &PackedMatrix,
        products: &[f32],
        (step, distance): (usize, usize),
        isa: Isa,
    ) {
        let count = self.tracks.partition_point(|track| track.length > step);
        let (hidden, padded) = (recurrent.inputs(), recurrent.padded_inputs());
        recurrent.multiply_rows(&self.h[..count * padded], &mut self.sums, isa);
        for (row, track) in self.tracks[..count].iter_mut().enumerate() {
            let (x, s) = (&products[row * distance..], &self.sums[row * recurrent.width()..]);
            let h = &mut self.h[row * padded..][..hidden];
            match gates {
                Gates::Gru => isa.run(Gru { x: parts(x, hidden), s: parts(s, hidden), h }),
                Gates::Lstm => {
                    let c = &mut self.c[row * padded..][..hidden];
                    isa.run(Lstm { x: parts(x, hidden), s: parts(s, hidden), h, c });
                }
            }
            let frame = if self.direction == 0 { step } else { track.length - 1 - step };
            track.frames[frame].copy_from_slice(&self.h[row * padded..][..hidden]);
        }
    }
}

/// See [`Gates::Gru`].
pub(super) struct Gru<'a> {
    pub x: [&'a [f32]; 3],
    pub s: [&'a [f32]; 3],
    pub h: &'a mut [f32],
}

impl SimdOp for Gru<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let ([x0, x1, x2], [s0, s1, s2]) = (self.x, self.s);
        map_lanes::<L, _, _>(
            [x0, x1, x2, s0, s1, s2],
            [self.h],
            #[inline(always)]
            |[x0, x1, x2, s0, s1, s2], [h]| {
                let (reset, keep) = (sigmoid(x0.add(s0)), sigmoid(x1.add(s1)));
                let new = tanh(reset.mul_add(s2, x2));
                [h.sub(new).mul_add(keep, new)]
            },
        );
    }
}

/// See [`Gates::Lstm`].
struct Lstm<'a> {
    x: [&'a [f32]; 4],
    s: [&'a [f32]; 4],
    h: &'a mut [f32],
    c: &'a mut [f32],
}

impl SimdOp for Lstm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let ([x0, x1, x2, x3], [s0, s1, s2, s3]) = (self.x, self.s);
        map_lanes::<L, _, _>(
            [x0, x1, x2, x3, s0, s1, s2, s3],
            [self.h, self.c],
            #[inline(always)]
            |[x0, x1, x2, x3, s0, s1, s2, s3], [_, c]| {
                let (input, forget) = (sigmoid(x0.add(s0)), sigmoid(x1.add(s1)));
                let (new, output) = (tanh(x2.add(s2)), sigmoid(x3.add(s3)));
                let c = forget.mul_add(c, input.mul(new));
                [output.mul(tanh(c)), c]
            },
        );
    }
}

/// The `n` values of each gate.
pub(super) fn parts<const GATES: usize>(values: &[f32], n: usize) -> [&[f32]; GATES] {
    std::array::from_fn(|gate| &values[gate * n..][..n])
}
