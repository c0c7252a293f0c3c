//! Speech encoders: from a waveform to hidden states, one sequence of vectors a layer.
//!
//! | encoder | audio | a frame |
//! |---|---|---|
//! | [`recurrent`]: a convolution, then GRU or LSTM layers | any features | some of theirs, 30 ms in the one of this crate |
//! | [`whisper`]: the encoder of Whisper, tiny to large-v3 | 16 kHz log-mel | 20 ms |
//!
//! An encoder owns its front end and knows its sample rate. A CTC model ([`ctc::CtcModel`](crate::ctc::CtcModel)) is an
//! encoder, perhaps a [`WeightedSum`] over its layers, and a head.

mod batch;
pub mod recurrent;
mod weighted_sum;
pub mod whisper;

pub use recurrent::RecurrentEncoder;
pub use weighted_sum::{WeightedSum, WeightedSumConfig};
pub use whisper::WhisperEncoder;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::audio::WaveformBatch;
use crate::error::Result;
use crate::weights::{Loader, Weights};

/// Which hidden states are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// The last layer's, after the encoder's final norm where it has one.
    Last,
    /// Those of every layer: the input of the first one, then the output of each.
    All,
}

/// Hidden states of a batch.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// One tensor a layer, or that of the last alone: each `[batch, n_frames, dim]`, f32, on the encoder's device, where
    /// `n_frames` is that of the longest clip.
    pub layers: Vec<Tensor>,
    /// Frames of each clip; zeros follow.
    pub lengths: Vec<usize>,
}

/// A model that turns speech into hidden states.
pub trait SpeechEncoder: Send + Sync {
    /// A short name, such as `whisper`.
    fn name(&self) -> &'static str;

    /// The rate of the audio that it takes, in Hz.
    fn sample_rate(&self) -> u32;

    /// The length of a hidden state.
    fn dim(&self) -> usize;

    /// How many hidden states a frame has with [`Layers::All`]: the layers, and one more for the input of the first.
    fn n_layers(&self) -> usize;

    /// The time from a frame to the next, in seconds.
    fn frame_seconds(&self) -> f64;

    /// The shortest clip in samples that is used as it is; shorter ones are padded with zeros at the end to this length.
    fn min_samples(&self) -> usize;

    /// The device that it runs on.
    fn device(&self) -> &Device;

    /// Hidden states of a batch of clips of any lengths. A row's result is the result for the clip alone.
    ///
    /// # Errors
    /// [`Error::SampleRate`](crate::Error::SampleRate) if the batch is at another rate,
    /// [`Error::TooShort`](crate::Error::TooShort) for a clip without samples, [`Error::NonFinite`](crate::Error::NonFinite)
    /// for a NaN or infinite sample, [`Error::Config`](crate::Error::Config) for a clip that is longer than the encoder can
    /// see, [`Error::Tensor`](crate::Error::Tensor) if a tensor operation fails on the device.
    fn forward(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Encoded>;
}

/// The configuration of any encoder, as it stands in a `config.json`: `{"type": "whisper", …}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EncoderConfig {
    /// Whisper's encoder.
    Whisper(whisper::Config),
    /// A convolution and recurrent layers.
    Recurrent(recurrent::Config),
}

impl EncoderConfig {
    /// The encoder with the tensors that a loader gives; they stand below `encoder`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the configuration cannot work, else as [`Loader::get`]; tensors that do not
    /// fit are reported by [`Loader::finish`].
    pub fn build(&self, weights: &Loader) -> Result<Box<dyn SpeechEncoder>> {
        Ok(match self {
            Self::Whisper(config) => Box::new(WhisperEncoder::build(config, weights)?),
            Self::Recurrent(config) => Box::new(RecurrentEncoder::build(config, &weights.at("encoder"))?),
        })
    }

    /// Whether a checkpoint has tensors where [`build`](Self::build) looks for them.
    pub(crate) fn is_in(&self, weights: &Weights) -> bool {
        match self {
            Self::Whisper(_) => whisper::is_in(weights),
            Self::Recurrent(_) => weights.contains("encoder.conv.weight"),
        }
    }
}

impl<E: SpeechEncoder + ?Sized> SpeechEncoder for Box<E> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn sample_rate(&self) -> u32 {
        (**self).sample_rate()
    }

    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn n_layers(&self) -> usize {
        (**self).n_layers()
    }

    fn frame_seconds(&self) -> f64 {
        (**self).frame_seconds()
    }

    fn min_samples(&self) -> usize {
        (**self).min_samples()
    }

    fn device(&self) -> &Device {
        (**self).device()
    }

    fn forward(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Encoded> {
        (**self).forward(waveforms, layers)
    }
}
