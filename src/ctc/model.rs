//! An encoder and a head.

use candle_core::{D, Device, Tensor};
use ndarray::Array2;

use super::Head;
use crate::encoders::{Layers, SpeechEncoder, WeightedSum};
use crate::error::Context;
use crate::{Error, Result, WaveformBatch};

/// What a CTC model says about a batch.
#[derive(Debug, Clone)]
pub struct CtcOutput {
    /// Scores of the tokens before softmax, `[batch, n_frames, n_tokens]`, f32.
    pub logits: Tensor,
    /// Logarithms of their probabilities, of the same shape.
    pub log_probs: Tensor,
    /// Frames of each clip; what follows them means nothing.
    pub lengths: Vec<usize>,
    /// The time from a frame to the next, in seconds.
    pub frame_seconds: f64,
}

impl CtcOutput {
    /// From the logits, of which the first `lengths[b]` frames of clip `b` count.
    ///
    /// # Errors
    /// [`Error::Config`] unless there is one length up to `n_frames` a clip, [`Error::Tensor`] if the shape does not fit.
    pub fn new(logits: Tensor, lengths: Vec<usize>, frame_seconds: f64) -> Result<Self> {
        let context = "log-probabilities of tokens";
        let (batch, n_frames, _) = logits.dims3().context(context)?;
        if lengths.len() != batch || lengths.iter().any(|&length| length > n_frames) {
            let reason = format!("{batch} numbers up to {n_frames} are due");
            return Err(Error::config("lengths", format!("{lengths:?}"), reason));
        }
        let log_probs = candle_nn::ops::log_softmax(&logits, D::Minus1).context(context)?;
        Ok(Self { logits, log_probs, lengths, frame_seconds })
    }

    /// The log-probabilities of one clip, its own frames only: `[n_frames, n_tokens]`, on the host.
    ///
    /// # Errors
    /// [`Error::Config`] if the batch has no such clip, [`Error::Tensor`] if the device fails.
    pub fn clip(&self, index: usize) -> Result<Array2<f32>> {
        let Some(&length) = self.lengths.get(index) else {
            return Err(Error::config("index", index, format!("the batch has {} clips", self.lengths.len())));
        };
        let context = "bringing log-probabilities to the host";
        let clip = || self.log_probs.get(index)?.narrow(0, 0, length)?.flatten_all()?.to_vec1::<f32>();
        let n_tokens = self.log_probs.dim(D::Minus1).context(context)?;
        Array2::from_shape_vec((length, n_tokens), clip().context(context)?)
            .map_err(|error| Error::config("n_frames", length, error.to_string()))
    }
}

/// A speech encoder, perhaps a weighted sum over its layers, and a head.
pub struct CtcModel {
    encoder: Box<dyn SpeechEncoder>,
    sum: Option<WeightedSum>,
    head: Head,
}

impl CtcModel {
    /// Puts the parts together. Without `sum`, the head sees the last layer.
    ///
    /// # Errors
    /// [`Error::Config`] if they do not fit each other.
    pub fn new(encoder: Box<dyn SpeechEncoder>, sum: Option<WeightedSum>, head: Head) -> Result<Self> {
        let dim = encoder.dim();
        if head.config().dim != dim {
            return Err(Error::config(
                "head.dim",
                head.config().dim,
                format!("the encoder's states have {dim} values"),
            ));
        }
        let n_layers = encoder.n_layers();
        if let Some(sum) = sum.as_ref().filter(|sum| sum.n_layers() != n_layers) {
            let reason = format!("the encoder has {n_layers} layers of hidden states");
            return Err(Error::config("weighted_sum.n_layers", sum.n_layers(), reason));
        }
        Ok(Self { encoder, sum, head })
    }

    /// The encoder.
    pub fn encoder(&self) -> &dyn SpeechEncoder {
        &*self.encoder
    }

    /// The sum over the layers, if it has one.
    pub fn weighted_sum(&self) -> Option<&WeightedSum> {
        self.sum.as_ref()
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Tokens, the blank included.
    pub fn n_tokens(&self) -> usize {
        self.head.config().n_tokens
    }

    /// The rate of the audio that it takes, in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.encoder.sample_rate()
    }

    /// The device that it runs on.
    pub fn device(&self) -> &Device {
        self.encoder.device()
    }

    /// The tokens of a batch of clips of any lengths. A row's result is the result for the clip alone.
    ///
    /// # Errors
    /// As [`SpeechEncoder::forward`].
    pub fn forward(&self, waveforms: &WaveformBatch) -> Result<CtcOutput> {
        let layers = if self.sum.is_some() { Layers::All } else { Layers::Last };
        let encoded = self.encoder.forward(waveforms, layers)?;
        let hidden = match &self.sum {
            Some(sum) => sum.forward(&encoded.layers)?,
            None => {
                let last = encoded.layers.last().cloned();
                last.ok_or_else(|| Error::config("layers.len()", 0, "an encoder gives at least one layer"))?
            }
        };
        CtcOutput::new(self.head.forward(&hidden)?, encoded.lengths, self.encoder.frame_seconds())
    }
}

impl std::fmt::Debug for CtcModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { encoder, sum, head } = self;
        f.debug_struct("CtcModel").field("encoder", &encoder.name()).field("sum", sum).field("head", head).finish()
    }
}
