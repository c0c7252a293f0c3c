//! Sample rate conversion.
//!
//! Band-limited resampling is a convolution of the clip (zero outside its ends) with a low-pass filter just below the
//! lower of the two Nyquist frequencies, evaluated at the output's sample times. One filter, in units of the lower
//! rate, serves all pairs of rates (`filter`). If the reduced ratio of the rates has small terms, as for all common
//! pairs of rates, the convolution runs block by block with FFTs (`fft`). A block holds a whole period of the ratio;
//! for other pairs (44101 to 32000 Hz, 48 kHz to 1 Hz) it would last for seconds or not fit in memory. For those the
//! same filter is evaluated per output sample (`sinc`).

mod fft;
mod filter;
mod sinc;

use crate::check::check_finite_after;
use crate::error::{Error, Result};

/// Limit on the ratio of output to input length. Outputs up to [`MAX_EXPANDED`] are always allowed.
const MAX_EXPANSION: u128 = 64;

/// About four minutes at 32 kHz. A clip of a few kilobytes that claims to be at 1 Hz must not become hours of audio.
const MAX_EXPANDED: u128 = 1 << 23;

/// Limit on the half length of a stream's filter, in input samples: about 30 MB of working memory.
const MAX_REACH: usize = 1 << 20;

/// Resamples a clip from `from` Hz to `to` Hz.
///
/// The frequency response, relative to the lower Nyquist frequency, is the same for all pairs of rates:
///
/// | frequency | 0.92 | 0.9375 | 0.95 | 0.957 | 0.9625 | 0.975 | 0.9875 | 1 and more |
/// |---|---|---|---|---|---|---|---|---|
/// | gain in dB | -0.001 | -0.4 | -2.9 | -6 | -10.0 | -24.7 | -52.4 | below -110 |
///
/// Aliases and images lie above the lower Nyquist frequency. The response is that of soxr's quality HQ, which
/// `librosa.load` uses and published models were trained with. soxr's own response depends on the pair of rates: for
/// common pairs this one is in the middle, within 0.3 dB of each down to -20 dB, and within 0.85 dB down to -40 dB.
///
/// The phase is linear, without delay: output sample `j` is exactly at the time of input sample `j · from / to`. The
/// output has `ceil(n · to / from)` samples. The clip is taken as zero outside its ends. Equal rates give a copy.
/// Memory is proportional to input and output, plus at most about 10 MB. A [`Resampler`] gives identical samples for a
/// stream.
///
/// ```
/// let one_second = vec![0.0; 44_100];
/// assert_eq!(clipwise::audio::resample(&one_second, 44_100, 32_000)?.len(), 32_000);
/// # Ok::<(), clipwise::Error>(())
/// ```
///
/// # Errors
/// [`Error::NonFinite`] if a sample is NaN or infinite; [`Error::Argument`] if a rate is 0, or if the output would have
/// more than 2^23 samples and be more than 64 times as long as the input.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>> {
    let mut resampler = Resampler::for_at_most(from, to, samples.len())?;
    let n_out = resampler.checked(samples)?;
    let n_out = usize::try_from(n_out)
        .map_err(|_| Error::argument("to", to, "expected a rate for which the output fits in memory"))?;
    let mut output = Vec::with_capacity(n_out);
    resampler.push(samples, &mut output)?;
    resampler.finish(&mut output)?;
    Ok(output)
}

/// Resamples a stream that arrives in pieces of any size.
///
/// The output from the first [`push`](Self::push) to [`finish`](Self::finish) is bit-identical to [`resample`] of the
/// whole stream, however it is split. Memory does not grow with the length of the stream.
///
/// ```
/// use clipwise::audio::{Resampler, resample};
///
/// let whole: Vec<f32> = (0..44_100).map(|i| (i as f32 * 0.1).sin()).collect();
/// let (mut resampler, mut output) = (Resampler::new(44_100, 32_000)?, Vec::new());
/// for block in whole.chunks(1_000) {
///     resampler.push(block, &mut output)?;
/// }
/// resampler.finish(&mut output)?;
/// assert_eq!(output, resample(&whole, 44_100, 32_000)?);
/// # Ok::<(), clipwise::Error>(())
/// ```
pub struct Resampler {
    from: u32,
    to: u32,
    method: Method,
    n_in: u64,
    n_out: u64,
}

enum Method {
    Copy,
    Fft(Box<fft::Blocks>),
    Sinc(Box<sinc::Sinc>),
}

impl Resampler {
    /// Creates a resampler from `from` Hz to `to` Hz.
    ///
    /// # Errors
    /// [`Error::Argument`] if a rate is 0, or if the filter would span more than 2^20 samples to either side, as when
    /// `from` is more than 10,000 times `to`.
    pub fn new(from: u32, to: u32) -> Result<Self> {
        Self::for_at_most(from, to, usize::MAX)
    }

    /// As [`new`](Self::new), for a stream of at most `n_samples`, which limits the length of the filter.
    fn for_at_most(from: u32, to: u32, n_samples: usize) -> Result<Self> {
        for (field, rate) in [("from", from), ("to", to)] {
            if rate == 0 {
                return Err(Error::argument(field, rate, "expected at least 1 Hz"));
            }
        }
        let divisor = gcd(from, to);
        let method = if from == to {
            Method::Copy
        } else if let Some(blocks) = fft::Blocks::new(from / divisor, to / divisor)? {
            Method::Fft(Box::new(blocks))
        } else if n_samples == usize::MAX && sinc::reach(from, to) > MAX_REACH as f64 {
            let reason = format!(
                "expected a rate for which the filter spans at most {MAX_REACH} samples to either side, from {from} Hz"
            );
            return Err(Error::argument("to", to, reason));
        } else {
            Method::Sinc(Box::new(sinc::Sinc::new(from, to, n_samples)))
        };
        Ok(Self { from, to, method, n_in: 0, n_out: 0 })
    }

    /// The sample rate of the input, in Hz.
    pub fn input_rate(&self) -> u32 {
        self.from
    }

    /// The sample rate of the output, in Hz.
    pub fn output_rate(&self) -> u32 {
        self.to
    }

    /// Latency: how far the input must be ahead of an output sample's time before that sample is returned, in input
    /// samples at most.
    pub fn lookahead(&self) -> usize {
        match &self.method {
            Method::Copy => 0,
            Method::Fft(blocks) => blocks.lookahead(),
            Method::Sinc(sinc) => sinc.lookahead(),
        }
    }

    /// Takes the next input samples and appends the output samples that do not depend on later input.
    ///
    /// # Errors
    /// [`Error::NonFinite`], with the position in the stream, if a sample is NaN or infinite; [`Error::Argument`] if
    /// the output so far would have more than 2^23 samples and be more than 64 times as long as the input. On an error,
    /// no samples are taken.
    pub fn push(&mut self, samples: &[f32], output: &mut Vec<f32>) -> Result<()> {
        self.checked(samples)?;
        let n_before = output.len();
        match &mut self.method {
            Method::Copy => output.extend_from_slice(samples),
            Method::Fft(blocks) => blocks.push(samples, output)?,
            Method::Sinc(sinc) => sinc.push(samples, output),
        }
        self.n_in += samples.len() as u64;
        self.n_out += (output.len() - n_before) as u64;
        Ok(())
    }

    /// Ends the stream: appends the remaining output, up to `ceil(n · to / from)` samples in total, and starts a new
    /// stream.
    ///
    /// # Errors
    /// [`Error::Argument`] if the FFT fails, which no known input causes.
    pub fn finish(&mut self, output: &mut Vec<f32>) -> Result<()> {
        // At most what one block or filter produces.
        let n_left = (self.length(self.n_in) - u128::from(self.n_out)) as u64;
        match &mut self.method {
            Method::Copy => {}
            Method::Fft(blocks) => blocks.finish(n_left as usize, output)?,
            Method::Sinc(sinc) => sinc.finish(n_left, output),
        }
        self.reset();
        Ok(())
    }

    /// Discards the input so far and starts a new stream.
    pub fn reset(&mut self) {
        (self.n_in, self.n_out) = (0, 0);
        match &mut self.method {
            Method::Copy => {}
            Method::Fft(blocks) => blocks.reset(),
            Method::Sinc(sinc) => sinc.reset(),
        }
    }

    /// The output length for `n` input samples.
    pub(super) fn length(&self, n: u64) -> u128 {
        (u128::from(n) * u128::from(self.to)).div_ceil(u128::from(self.from))
    }

    /// Checks the next samples. Returns the total output length after them.
    fn checked(&self, samples: &[f32]) -> Result<u128> {
        check_finite_after(self.n_in, samples)?;
        let n_in = self.n_in + samples.len() as u64;
        let n_out = self.length(n_in);
        if n_out > MAX_EXPANDED && n_out > MAX_EXPANSION * u128::from(n_in) && self.from != self.to {
            let reason = format!(
                "expected an output of at most {MAX_EXPANSION} times {n_in} samples (at {} Hz) or {MAX_EXPANDED} samples, \
                 got {n_out}",
                self.from
            );
            return Err(Error::argument("to", self.to, reason));
        }
        Ok(n_out)
    }
}

impl std::fmt::Debug for Resampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resampler({} Hz to {} Hz, {} samples in, {} out)", self.from, self.to, self.n_in, self.n_out)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fft_and_direct_resampling_agree() {
        // Noise with steps at both ends, from a linear congruential generator.
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let samples: Vec<f32> = (0..20_000).map(|_| noise()).collect();
        let pairs =
            [(44_100, 16_000), (44_100, 32_000), (44_100, 48_000), (3, 1), (3, 2), (2, 1), (24, 1), (1_000, 999)];
        for (from, to) in pairs.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            let divisor = gcd(from, to);
            let n_out = (samples.len() as u64 * u64::from(to)).div_ceil(u64::from(from));
            let (mut by_fft, mut by_sinc) = (Vec::new(), Vec::new());
            let mut blocks = fft::Blocks::new(from / divisor, to / divisor).unwrap().unwrap();
            blocks.push(&samples, &mut by_fft).unwrap();
            blocks.finish(n_out as usize - by_fft.len(), &mut by_fft).unwrap();
            let mut sinc = sinc::Sinc::new(from, to, usize::MAX);
            sinc.push(&samples, &mut by_sinc);
            sinc.finish(n_out - by_sinc.len() as u64, &mut by_sinc);
            assert_eq!(by_fft.len(), by_sinc.len());
            // Sums of some hundred products in f32, and a filter that is interpolated.
            for (i, (a, b)) in by_fft.iter().zip(&by_sinc).enumerate() {
                assert!((a - b).abs() < 1.5e-6, "{from} to {to} Hz, sample {i}: {a} by FFT, {b} by sinc");
            }
        }
    }
}
