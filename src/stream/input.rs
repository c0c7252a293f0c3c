//! Input shared by all streams: samples at any rate, in blocks of any size, checked and resampled.

use crate::audio::Resampler;
use crate::check::check_finite_after;
use crate::error::Result;
use crate::windows::CHUNK;

/// The input of a stream.
#[derive(Debug)]
pub(super) struct StreamInput {
    resampler: Resampler,
    resampled: Vec<f32>,
    received: u64,
}

impl StreamInput {
    pub fn new(sample_rate: u32, model_rate: u32) -> Result<Self> {
        Ok(Self { resampler: Resampler::new(sample_rate, model_rate)?, resampled: Vec::new(), received: 0 })
    }

    /// Resamples `samples` and passes them to `model` in pieces. If one is not finite, none are taken.
    pub fn push(&mut self, samples: &[f32], mut model: impl FnMut(&[f32]) -> Result<()>) -> Result<()> {
        check_finite_after(self.received, samples)?;
        for chunk in samples.chunks(CHUNK) {
            self.resampled.clear();
            self.resampler.push(chunk, &mut self.resampled)?;
            self.received += chunk.len() as u64;
            model(&self.resampled)?;
        }
        Ok(())
    }

    /// Passes the samples that the resampler still holds to `model`.
    pub fn finish<R>(&mut self, model: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
        self.resampled.clear();
        self.resampler.finish(&mut self.resampled)?;
        model(&self.resampled)
    }

    /// Discards all samples.
    pub fn reset(&mut self) {
        self.resampler.reset();
        self.received = 0;
    }

    /// The sample rate of the input, in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.resampler.input_rate()
    }

    /// Seconds of audio pushed so far.
    pub fn position(&self) -> f64 {
        self.received as f64 / f64::from(self.sample_rate())
    }

    /// Latency in seconds: that of the resampler, plus `samples` of lookahead at the model's rate.
    pub fn delay(&self, samples: usize) -> f64 {
        self.resampler.lookahead() as f64 / f64::from(self.sample_rate())
            + samples as f64 / f64::from(self.resampler.output_rate())
    }
}
