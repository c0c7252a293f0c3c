//! Resampling per output sample, for ratios without small terms.

use super::filter::{HALF_LENGTH, scale, value};
use crate::nn::kernels::simd::dispatch;

/// Number of tabulated filter shifts per sample of the lower rate. Linear interpolation between them has an error of at
/// most `π² / (8 · 1024²)`, -118 dB.
const SHIFTS: f64 = 1024.0;

/// The tabulated filters, the time of the next output sample, and the input that later outputs need.
pub(super) struct Sinc {
    from: u64,
    to: u64,
    /// Number of filter taps before the input sample at or before the output's time. There is one more tap after it.
    reach: usize,
    /// `filters[s]` is the filter for a time `s / n_shifts` after an input sample.
    filters: Vec<Vec<f32>>,
    /// The next output sample is at input time `whole + rest / to`; kept as integers to be exact.
    whole: u64,
    rest: u64,
    /// The latest input samples, beginning at position `start` of the input.
    recent: Vec<f32>,
    start: u64,
}

/// Half length of the filter in input samples.
pub(super) fn reach(from: u32, to: u32) -> f64 {
    (HALF_LENGTH / scale(from, to)).ceil()
}

impl Sinc {
    /// `at_most` limits the half length of the filter, without effect on inputs of at most that length.
    pub(super) fn new(from: u32, to: u32, at_most: usize) -> Self {
        let scale = scale(from, to);
        let reach = reach(from, to).min(at_most as f64) as usize;
        let n_taps = 2 * reach + 2;
        let n_shifts = (SHIFTS * scale).ceil() as usize;
        let filter = |shift: usize| -> Vec<f32> {
            let shift = shift as f64 / n_shifts as f64;
            (0..n_taps).map(|t| (scale * value((t as f64 - reach as f64 - shift) * scale)) as f32).collect()
        };
        let mut filters: Vec<Vec<f32>> = (0..=n_shifts / 2).map(filter).collect();
        // The filter is even, so the other shifts are mirror images.
        for shift in filters.len()..=n_shifts {
            filters.push(filters[n_shifts - shift].iter().rev().copied().collect());
        }
        let (from, to) = (u64::from(from), u64::from(to));
        Self { from, to, reach, filters, whole: 0, rest: 0, recent: Vec::new(), start: 0 }
    }

    pub(super) fn lookahead(&self) -> usize {
        self.reach + 2
    }

    pub(super) fn reset(&mut self) {
        (self.whole, self.rest, self.start) = (0, 0, 0);
        self.recent.clear();
    }

    /// Appends the output samples that do not depend on later input.
    pub(super) fn push(&mut self, samples: &[f32], output: &mut Vec<f32>) {
        self.recent.extend_from_slice(samples);
        let n_in = self.start + self.recent.len() as u64;
        let n_after = self.reach as u64 + 2;
        dispatch(
            #[inline(always)]
            || {
                while self.whole + n_after <= n_in {
                    output.push(self.next());
                }
            },
        );
        // Drop old samples only when they are the larger part, so that each sample is moved once on average.
        let n_done = (self.whole.saturating_sub(self.reach as u64) - self.start).min(self.recent.len() as u64) as usize;
        if n_done > self.recent.len() / 2 {
            self.recent.drain(..n_done);
            self.start += n_done as u64;
        }
    }

    /// Appends the last `n` samples, padding the input with zeros.
    pub(super) fn finish(&mut self, n: u64, output: &mut Vec<f32>) {
        dispatch(
            #[inline(always)]
            || (0..n).for_each(|_| output.push(self.next())),
        );
    }

    /// The next output sample.
    #[inline(always)]
    fn next(&mut self) -> f32 {
        let n_shifts = self.filters.len() - 1;
        // The output's time is within the input, and the filter's part of the input is in `recent`.
        let begin = self.whole.saturating_sub(self.reach as u64);
        let end = (self.whole + self.reach as u64 + 2).min(self.start + self.recent.len() as u64);
        let tap = (begin + self.reach as u64 - self.whole) as usize;
        let input = &self.recent[(begin - self.start) as usize..(end - self.start) as usize];
        let taps = tap..tap + input.len();
        let shift = self.rest as f64 / self.to as f64 * n_shifts as f64;
        let below = shift as usize;
        let (a, b) = (&self.filters[below][taps.clone()], &self.filters[(below + 1).min(n_shifts)][taps]);
        let (a, b) = dot_both(input, a, b);
        self.rest += self.from;
        self.whole += self.rest / self.to;
        self.rest %= self.to;
        a + (b - a) * (shift - below as f64) as f32
    }
}

/// The dot products of `x` with `a` and with `b`, all of equal length, with eight running sums each.
#[inline(always)]
fn dot_both(x: &[f32], a: &[f32], b: &[f32]) -> (f32, f32) {
    let (mut sum_a, mut sum_b) = ([0.0; 8], [0.0; 8]);
    let (mut rest_a, mut rest_b) = (0.0, 0.0);
    let (xs, x_rest) = x.as_chunks::<8>();
    let (as_, a_rest) = a.as_chunks::<8>();
    let (bs, b_rest) = b.as_chunks::<8>();
    for ((x, a), b) in xs.iter().zip(as_).zip(bs) {
        for i in 0..8 {
            sum_a[i] += x[i] * a[i];
            sum_b[i] += x[i] * b[i];
        }
    }
    for ((x, a), b) in x_rest.iter().zip(a_rest).zip(b_rest) {
        rest_a += x * a;
        rest_b += x * b;
    }
    (sum_a.iter().sum::<f32>() + rest_a, sum_b.iter().sum::<f32>() + rest_b)
}
