//! Changing the sample rate.
//!
//! A band-limited resampling is the convolution of the clip, zero outside its ends, with a low-pass filter just below
//! the lower of the two Nyquist frequencies, read off at the output's instants. Where the reduced ratio of the rates
//! has small terms, which covers every pair of usual rates, `rubato`'s synchronous FFT resampler does it block by
//! block. Its filter is as long as its block, and its block holds a whole period of the ratio: for the remaining pairs
//! (44101 to 32000 Hz, 48 kHz to 1 Hz) that rings for seconds or does not fit in memory. `rubato`'s asynchronous
//! resampler, made for such pairs, begins at a fraction of an output sample that cannot be set. So for those the same
//! kind of filter is evaluated here, one output sample at a time.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler as _, WindowFunction};

use crate::error::{Error, Result, check_finite};

/// Filter length of the FFT resampler, in samples of the lower rate, at least. It puts the filter's edges at 0.947 and
/// 1.0 of the lower Nyquist frequency.
const MIN_BLOCK: usize = 512;

/// The longest FFT block in samples of the lower rate, at most. A longer filter only rings longer.
const MAX_BLOCK: usize = 2048;

/// The longest FFT block in samples of the higher rate, at most: some 10 MB of working memory.
const MAX_LONGER_BLOCK: usize = 1 << 18;

/// An output may be this many times longer than its input, or [`MAX_EXPANDED`], whichever is longer.
const MAX_EXPANSION: u128 = 64;

/// Four minutes at 32 kHz. A clip of a few kilobytes that claims to be at 1 Hz must not become hours of audio.
const MAX_EXPANDED: u128 = 1 << 23;

/// The samples of a clip at `from` Hz as they would be at `to` Hz.
///
/// Band-limited: flat within 0.1 dB up to 0.9 of the lower Nyquist frequency, and below -80 dB from the lower Nyquist
/// frequency on, be it aliases of what the input has there or images. No delay is added: output sample `j` is at the
/// time of input sample `j · from / to`, exactly, and the length is `ceil(n · to / from)`. The clip counts as zero
/// outside its ends. Equal rates give a copy. Memory is in proportion to input and output, with a constant of at most
/// some 10 MB.
///
/// ```
/// let one_second = vec![0.0; 44_100];
/// assert_eq!(clipwise::audio::resample(&one_second, 44_100, 32_000)?.len(), 32_000);
/// # Ok::<(), clipwise::Error>(())
/// ```
///
/// # Errors
/// [`Error::NonFinite`] if a sample is infinite or not a number, [`Error::Config`] if a rate is 0 or if the output would
/// be over 64 times as long as the input and over 2^23 samples.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>> {
    for (field, rate) in [("from", from), ("to", to)] {
        if rate == 0 {
            return Err(Error::config(field, rate, "a rate is at least 1 Hz"));
        }
    }
    check_finite(samples)?;
    if from == to {
        return Ok(samples.to_vec());
    }
    let n_out = (samples.len() as u128 * u128::from(to)).div_ceil(u128::from(from));
    if n_out > MAX_EXPANDED && n_out > MAX_EXPANSION * samples.len() as u128 {
        return Err(Error::config("to", to, format!("{} samples at {from} Hz would become {n_out}", samples.len())));
    }
    let n_out = usize::try_from(n_out).map_err(|_| Error::config("to", to, "the output exceeds the address space"))?;
    if samples.is_empty() {
        return Ok(Vec::new());
    }

    let divisor = gcd(from, to);
    let (step_in, step_out) = ((from / divisor) as usize, (to / divisor) as usize);
    // Even, so that the filter's delay of half a block is a whole number of samples on both sides.
    let n_steps = MIN_BLOCK.div_ceil(step_in.min(step_out)).next_power_of_two().max(2);
    if n_steps.saturating_mul(step_in.min(step_out)) <= MAX_BLOCK
        && n_steps.saturating_mul(step_in.max(step_out)) <= MAX_LONGER_BLOCK
    {
        by_fft(samples, n_steps * step_in, n_steps * step_out, n_out)
    } else {
        Ok(by_sinc(samples, from, to, n_out))
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Resamples by blocks of `block_in` samples, which become `block_out` samples each; both are even.
fn by_fft(samples: &[f32], block_in: usize, block_out: usize, n_out: usize) -> Result<Vec<f32>> {
    let failed = |e: &dyn std::fmt::Display| Error::config("block_in", block_in, e.to_string());
    let window = WindowFunction::BlackmanHarris2;
    let mut fft =
        Fft::<f32>::new_custom(block_in, block_out, block_in, 1, 1, window, FixedSync::Both).map_err(|e| failed(&e))?;
    let mut output = Vec::with_capacity(n_out);
    let mut block = vec![0.0; block_out];
    // The filter is centred on half a block: the first half block of output lies before the clip.
    let mut skip = block_out / 2;
    let mut start = 0;
    while output.len() < n_out {
        let input = &samples[start..(start + block_in).min(samples.len())];
        let indexing = Indexing { partial_len: Some(input.len()), ..Indexing::default() };
        let source = InterleavedSlice::new(input, 1, input.len()).map_err(|e| failed(&e))?;
        let mut target = InterleavedSlice::new_mut(&mut block, 1, block_out).map_err(|e| failed(&e))?;
        fft.process_into_buffer(&source, &mut target, Some(&indexing)).map_err(|e| failed(&e))?;
        let n_wanted = (n_out - output.len()).min(block_out - skip);
        output.extend_from_slice(&block[skip..skip + n_wanted]);
        skip = 0;
        start += input.len();
    }
    Ok(output)
}

/// Half length of the filter of [`by_sinc`], in samples of the lower rate.
const HALF_LENGTH: f64 = 96.0;

/// Its cut-off, relative to the lower Nyquist frequency. With the half width of the Blackman-Harris window's main lobe,
/// 4 / 96 here, its edges are at 0.915 and 0.998.
const CUTOFF: f64 = 0.9565;

/// Its tabulated shifts, per sample of the lower rate. Between them it is interpolated linearly, which errs by at most
/// `π² / (8 · 1024²)`, -118 dB.
const SHIFTS: f64 = 1024.0;

/// Resamples one output sample at a time by a windowed sinc.
fn by_sinc(samples: &[f32], from: u32, to: u32, n_out: usize) -> Vec<f32> {
    // Samples of the lower rate in one input sample.
    let scale = (f64::from(to) / f64::from(from)).min(1.0);
    // The filter has `n_taps` input samples, `reach` of them before the one at or before the output's instant. More
    // than the clip has are of no use, however long the filter is.
    let reach = (HALF_LENGTH / scale).ceil().min(samples.len() as f64) as usize;
    let n_taps = 2 * reach + 2;
    let n_shifts = (SHIFTS * scale).ceil() as usize;
    let filters: Vec<Vec<f32>> = (0..=n_shifts)
        .map(|shift| shift as f64 / n_shifts as f64)
        .map(|shift| (0..n_taps).map(|t| filter_at((t as f64 - reach as f64 - shift) * scale, scale)).collect())
        .collect();

    let (from, to) = (u64::from(from), u64::from(to));
    // Output sample j is at input time j · from / to = whole + rest / to, kept exact.
    let (mut whole, mut rest) = (0_u64, 0_u64);
    let mut output = Vec::with_capacity(n_out);
    for _ in 0..n_out {
        // n_out is such that `whole` lies within the clip.
        let whole_in = whole as usize;
        let (first, end) = (whole_in.saturating_sub(reach), (whole_in + n_taps - reach).min(samples.len()));
        let tap = first + reach - whole_in;
        let taps = tap..tap + end - first;
        let shift = rest as f64 / to as f64 * n_shifts as f64;
        let below = shift as usize;
        let (a, b) = (&filters[below][taps.clone()], &filters[(below + 1).min(n_shifts)][taps]);
        let (a, b) = dot_both(&samples[first..end], a, b);
        output.push(a + (b - a) * (shift - below as f64) as f32);
        rest += from;
        whole += rest / to;
        rest %= to;
    }
    output
}

/// The filter at a distance in samples of the lower rate, with gain `scale`.
fn filter_at(x: f64, scale: f64) -> f32 {
    use std::f64::consts::PI;
    if x.abs() >= HALF_LENGTH {
        return 0.0;
    }
    let phase = PI * x / HALF_LENGTH;
    let window = 0.35875 + 0.48829 * phase.cos() + 0.14128 * (2.0 * phase).cos() + 0.01168 * (3.0 * phase).cos();
    let angle = PI * CUTOFF * x;
    let sinc = if angle == 0.0 { 1.0 } else { angle.sin() / angle };
    (scale * CUTOFF * sinc * window) as f32
}

/// The products of `x` with `a` and with `b`, all of one length, in eight running sums each.
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
