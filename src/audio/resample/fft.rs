//! Resampling block by block with FFTs, for ratios with small terms. In f64, like all transforms of this crate.
//!
//! A block of the input is transformed, its bins below the lower Nyquist frequency are multiplied by the filter's
//! response, and the result is transformed back to a block of the output's length. This is a circular convolution, so
//! the filter wraps around at the ends of a block: the output there is discarded, and blocks overlap accordingly.

use std::iter::once;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, FftError, RealFftPlanner, RealToComplex};

use super::filter;
use crate::error::{Error, Result};

/// Minimum number of new samples per block, at the lower rate. With fewer, most of the work goes into the overlap.
const MIN_NEW: usize = 512;

/// Limit on the block length at the lower rate. A block is the latency of a stream.
const MAX_BLOCK: usize = 2048;

/// Limit on the block length at the higher rate: about 10 MB of working memory.
const MAX_LONGER_BLOCK: usize = 1 << 18;

/// The FFT plans, the filter's response, and the block that is being filled.
pub(super) struct Blocks {
    forward: Arc<dyn RealToComplex<f64>>,
    inverse: Arc<dyn ComplexToReal<f64>>,
    /// Gains of the bins below the lower Nyquist frequency.
    response: Vec<f64>,
    input: Vec<f64>,
    /// Number of samples in `input`.
    n_filled: usize,
    /// The last input samples of a block, which also begin the next block.
    overlap: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    output: Vec<f64>,
    scratch: Vec<Complex<f64>>,
    /// Number of valid output samples per block. They end where the filter begins to wrap around.
    n_new: usize,
    /// Half length of the filter in output samples.
    reach: usize,
    /// Number of output samples still to be dropped before the clip begins.
    n_before: usize,
}

impl Blocks {
    /// For a reduced ratio of `step_in` input samples to `step_out` output samples. `None` if its terms are too large.
    pub(super) fn new(step_in: u32, step_out: u32) -> Result<Option<Self>> {
        let scale = filter::scale(step_in, step_out);
        let (step_in, step_out) = (step_in as usize, step_out as usize);
        let (shorter, longer) = (step_in.min(step_out), step_in.max(step_out));
        if longer > MAX_LONGER_BLOCK {
            return Ok(None);
        }
        let reach = (filter::HALF_LENGTH * step_out as f64 / shorter as f64).ceil() as usize;
        let n_overlap = (2 * reach).div_ceil(step_out);
        // Steps per block: an even number without prime factors other than 2 and 3, for fast FFTs.
        let mut sizes = once(2).chain((2..12).flat_map(|e| [1 << e, 3 << (e - 1)]));
        let n_steps = sizes.find(|&n| n > n_overlap && (n - n_overlap) * shorter >= MIN_NEW);
        let Some(n_steps) = n_steps.filter(|n| n * shorter <= MAX_BLOCK && n * longer <= MAX_LONGER_BLOCK) else {
            return Ok(None);
        };
        let (n_in, n_out) = (n_steps * step_in, n_steps * step_out);
        let mut planner = RealFftPlanner::new();
        let (forward, inverse) = (planner.plan_fft_forward(n_in), planner.plan_fft_inverse(n_out));
        // A filter centred on sample 0 is even, so its transform is real and it adds no delay. The division undoes the
        // scaling of the two unnormalised FFTs.
        let tap = |i: usize| filter::value(i.min(n_in - i) as f64 * scale) * scale / n_in as f64;
        let mut taps: Vec<f64> = (0..n_in).map(tap).collect();
        let mut spectrum = forward.make_output_vec();
        forward.process(&mut taps, &mut spectrum).map_err(|error| failed(n_in, error))?;
        let response = spectrum[..n_in.min(n_out) / 2].iter().map(|x| x.re).collect();

        spectrum.resize(n_in.max(n_out) / 2 + 1, Complex::default());
        let n_scratch = forward.get_scratch_len().max(inverse.get_scratch_len());
        Ok(Some(Self {
            forward,
            inverse,
            response,
            input: vec![0.0; n_in],
            n_filled: n_overlap * step_in,
            overlap: vec![0.0; n_overlap * step_in],
            spectrum,
            output: vec![0.0; n_out],
            scratch: vec![Complex::default(); n_scratch],
            n_new: n_out - n_overlap * step_out,
            reach,
            n_before: reach,
        }))
    }

    /// Latency in input samples: the new samples of a block, and the reach of the filter before them.
    pub(super) fn lookahead(&self) -> usize {
        let (n_in, n_out) = (self.input.len() as u64, self.output.len() as u64);
        ((self.n_new + self.reach) as u64 * n_in).div_ceil(n_out) as usize
    }

    pub(super) fn reset(&mut self) {
        self.n_filled = self.overlap.len();
        self.input[..self.n_filled].fill(0.0);
        self.n_before = self.reach;
    }

    /// Appends the output of the blocks that `samples` complete.
    pub(super) fn push(&mut self, mut samples: &[f32], output: &mut Vec<f32>) -> Result<()> {
        while !samples.is_empty() {
            let free = &mut self.input[self.n_filled..];
            let (taken, rest) = samples.split_at(free.len().min(samples.len()));
            free.iter_mut().zip(taken).for_each(|(to, &from)| *to = f64::from(from));
            self.n_filled += taken.len();
            if self.n_filled == self.input.len() {
                self.process(output)?;
            }
            samples = rest;
        }
        Ok(())
    }

    /// Appends the last `n` samples, padding the input with zeros.
    pub(super) fn finish(&mut self, n: usize, output: &mut Vec<f32>) -> Result<()> {
        let n_whole = output.len() + n;
        while output.len() < n_whole {
            self.input[self.n_filled..].fill(0.0);
            self.process(output)?;
        }
        output.truncate(n_whole);
        Ok(())
    }

    /// Appends the output of the block and begins the next block.
    fn process(&mut self, output: &mut Vec<f32>) -> Result<()> {
        let n_in = self.input.len();
        self.n_filled = self.overlap.len();
        self.overlap.copy_from_slice(&self.input[n_in - self.n_filled..]);
        self.convolve().map_err(|error| failed(n_in, error))?;
        self.input[..self.n_filled].copy_from_slice(&self.overlap);
        let end = self.output.len() - self.reach;
        output.extend(self.output[end - self.n_new + self.n_before..end].iter().map(|&x| x as f32));
        self.n_before = 0;
        Ok(())
    }

    /// Filters `input` into `output`, overwriting `input`.
    fn convolve(&mut self) -> std::result::Result<(), FftError> {
        let n_bins = self.input.len() / 2 + 1;
        self.forward.process_with_scratch(&mut self.input, &mut self.spectrum[..n_bins], &mut self.scratch)?;
        let n_bins = self.output.len() / 2 + 1;
        let (below, above) = self.spectrum[..n_bins].split_at_mut(self.response.len());
        below.iter_mut().zip(&self.response).for_each(|(x, gain)| *x *= gain);
        above.fill(Complex::default());
        self.inverse.process_with_scratch(&mut self.spectrum[..n_bins], &mut self.output, &mut self.scratch)
    }
}

fn failed(block: usize, error: FftError) -> Error {
    Error::argument("block", block, error.to_string())
}
