//! Depthwise convolution of sequences of vectors.
//!
//! A task processes a range of frames, one block of channels at a time. It copies these frames and their neighbours,
//! which lie a whole vector apart in memory, into the first-level cache and sums there.

use rayon::prelude::*;

use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, Lanes};

/// Frames per task.
const FRAMES: usize = 128;
/// Frames summed at once: with a latency of four cycles and two multiply-adds per cycle, eight sums keep the units
/// busy.
const TILE: usize = 8;

/// Packed filters, one per channel.
#[derive(Debug)]
pub struct Depthwise {
    /// `[blocks][kernel][16]`, zeros beyond the last channel.
    taps: Vec<[f32; CHANNEL_BLOCK]>,
    kernel: usize,
    channels: usize,
    /// Frames before the current one that the kernel covers.
    before: usize,
}

impl Depthwise {
    /// Packs filters `[channels, kernel]`, of which tap `before` belongs to the current frame.
    pub fn pack(filters: &[f32], kernel: usize, before: usize) -> Self {
        let channels = filters.len() / kernel;
        let mut taps = vec![[0.0; CHANNEL_BLOCK]; channels.div_ceil(CHANNEL_BLOCK) * kernel];
        for (channel, filter) in filters.chunks(kernel).enumerate() {
            let block = &mut taps[channel / CHANNEL_BLOCK * kernel..];
            block.iter_mut().zip(filter).for_each(|(taps, &tap)| taps[channel % CHANNEL_BLOCK] = tap);
        }
        Self { taps, kernel, channels, before }
    }

    pub fn channels(&self) -> usize {
        self.channels
    }

    /// `y[t][c] = Σ_k filters[c][k] x[t + k − before][c]`, with zero padding. `x` and `y` are `[batch, n_frames,
    /// channels]`.
    pub fn forward(&self, x: &[f32], n_frames: usize, y: &mut [f32], isa: Isa) {
        let sequence = n_frames * self.channels;
        y.par_chunks_mut(sequence).zip(x.par_chunks(sequence)).for_each(|(y, x)| {
            let tasks = y.par_chunks_mut(FRAMES * self.channels).enumerate();
            tasks.for_each(|(task, y)| isa.run(Frames { conv: self, x, first: task * FRAMES, y }));
        });
    }
}

/// Computes the frames of a task, starting at `first`.
struct Frames<'a> {
    conv: &'a Depthwise,
    x: &'a [f32],
    first: usize,
    y: &'a mut [f32],
}

impl SimdOp for Frames<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { conv, x, first, y } = self;
        let Depthwise { channels, kernel, before, .. } = *conv;
        let rows = y.len() / channels;
        // Frames from `first − before` on, rounded up to whole tiles; the last sums may be discarded.
        let mut column = vec![[0.0; CHANNEL_BLOCK]; rows.next_multiple_of(TILE) + kernel - 1];
        for (block, taps) in conv.taps.chunks(kernel).enumerate() {
            let channel = block * CHANNEL_BLOCK;
            let n = CHANNEL_BLOCK.min(channels - channel);
            for (i, values) in column.iter_mut().enumerate() {
                let frame = (first + i).checked_sub(before).and_then(|frame| x.get(frame * channels..));
                match frame.and_then(|frame| frame.get(channel..channel + n)) {
                    Some(frame) => values[..n].copy_from_slice(frame),
                    None => *values = [0.0; CHANNEL_BLOCK],
                }
            }
            for row in (0..rows).step_by(TILE) {
                let mut sums = [[0.0; CHANNEL_BLOCK]; TILE];
                for part in 0..L::PARTS {
                    let mut parts = [L::splat(0.0); TILE];
                    for (taps, frames) in taps.iter().zip(column[row..].windows(TILE)) {
                        let taps = L::load(taps, part);
                        for i in 0..TILE {
                            parts[i] = L::load(&frames[i], part).mul_add(taps, parts[i]);
                        }
                    }
                    for i in 0..TILE {
                        parts[i].store(&mut sums[i], part);
                    }
                }
                for (y, sums) in y[row * channels..].chunks_mut(channels).zip(&sums) {
                    y[channel..channel + n].copy_from_slice(&sums[..n]);
                }
            }
        }
    }
}
