//! Resampling block by block with `rubato`'s synchronous FFT resampler, in f64 as all Fourier transforms here.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use crate::error::{Error, Result};

/// A filter as long as a block, over blocks of `block_in` samples that become `block_out` samples each.
pub(super) struct Blocks {
    fft: Fft<f64>,
    block_in: usize,
    block_out: usize,
    /// Input that does not make a block yet.
    partial: Vec<f64>,
    output: Vec<f64>,
    /// Samples of output that lie before the clip: half a block, on which the filter is centred.
    skip: usize,
}

impl Blocks {
    /// Both sizes are even.
    pub(super) fn new(block_in: usize, block_out: usize) -> Result<Self> {
        let window = WindowFunction::BlackmanHarris2;
        let fft = Fft::<f64>::new_custom(block_in, block_out, block_in, 1, 1, window, FixedSync::Both)
            .map_err(|error| failed(block_in, &error))?;
        let partial = Vec::with_capacity(block_in);
        Ok(Self { fft, block_in, block_out, partial, output: vec![0.0; block_out], skip: block_out / 2 })
    }

    /// A block that is not complete, and half of one on which the filter is centred.
    pub(super) fn lookahead(&self) -> usize {
        self.block_in + self.block_in / 2
    }

    pub(super) fn reset(&mut self) {
        self.fft.reset();
        self.partial.clear();
        self.skip = self.block_out / 2;
    }

    /// Appends the output of the blocks that `samples` complete.
    pub(super) fn push(&mut self, mut samples: &[f32], output: &mut Vec<f32>) -> Result<()> {
        while !samples.is_empty() {
            let (taken, rest) = samples.split_at((self.block_in - self.partial.len()).min(samples.len()));
            self.partial.extend(taken.iter().map(|&x| f64::from(x)));
            if self.partial.len() == self.block_in {
                self.process(output)?;
            }
            samples = rest;
        }
        Ok(())
    }

    /// Appends the last `n` samples, for which the input goes on with zeros.
    pub(super) fn finish(&mut self, n: usize, output: &mut Vec<f32>) -> Result<()> {
        let n_whole = output.len() + n;
        while output.len() < n_whole {
            self.partial.resize(self.block_in, 0.0);
            self.process(output)?;
        }
        output.truncate(n_whole);
        Ok(())
    }

    fn process(&mut self, output: &mut Vec<f32>) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| failed(self.block_in, error);
        let source = InterleavedSlice::new(&self.partial, 1, self.block_in).map_err(|error| failed(&error))?;
        let mut target =
            InterleavedSlice::new_mut(&mut self.output, 1, self.block_out).map_err(|error| failed(&error))?;
        self.fft.process_into_buffer(&source, &mut target, None).map_err(|error| failed(&error))?;
        output.extend(self.output[self.skip..].iter().map(|&x| x as f32));
        self.skip = 0;
        self.partial.clear();
        Ok(())
    }
}

fn failed(block_in: usize, error: &dyn std::fmt::Display) -> Error {
    Error::config("block_in", block_in, error.to_string())
}
