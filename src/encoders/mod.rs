//! Speech encoders: sequences of hidden states from waveforms. One family per file.
//!
//! | encoder | input | frame |
//! |---|---|---|
//! | [`recurrent`]: a convolution, then GRU or LSTM layers | any features | 30 ms in the preset |
//! | [`qwen2_audio`]: the audio tower of Qwen2-Audio | 16 kHz log-mel | 40 ms |
//! | [`speech_tokenizer`]: SpeechTokenizer, which also gives codes | 16 kHz waveform | 20 ms |
//! | [`w2v_bert`]: W2V-BERT 2.0 | 16 kHz log-mel | 20 ms |
//! | [`wav2vec2`]: wav2vec 2.0, XLS-R, MMS, HuBERT, WavLM | 16 kHz waveform | 20 ms |
//! | [`whisper`]: the encoder of Whisper, tiny to large-v3 | 16 kHz log-mel | 20 ms |
//!
//! [`Encoder::open`] opens a checkpoint and recognises the encoder. An encoder includes its front end and defines its
//! sample rate. A CTC model ([`ctc::CtcModel`](crate::ctc::CtcModel)) is an encoder, optionally a [`WeightedSum`] of
//! its layers, and a head.
//!
//! Encoders of published models are frozen as a whole (in W2V-BERT 2.0 including the feature projection). Their hidden
//! states carry no gradient, so that training a model on top of them
//! ([`CtcModel::build_on`](crate::ctc::CtcModel::build_on)) does not store their intermediate results. The adapters of
//! MMS can be trained inside the frozen encoder ([`Wav2Vec2Encoder::build_with_adapters`]), and a [`recurrent`] encoder
//! as a whole.

mod batch;
mod checkpoint;
mod family;
mod open;
pub mod qwen2_audio;
pub mod recurrent;
pub mod speech_tokenizer;
pub mod w2v_bert;
pub mod wav2vec2;
mod weighted_sum;
pub mod whisper;

pub(crate) use checkpoint::self_attention;
pub(crate) use open::preprocessor;
pub use open::{Encoder, OpenOptions};
pub use weighted_sum::{WeightedSum, WeightedSumConfig};

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::audio::WaveformBatch;
use crate::error::{Error, Result};
use crate::weights::{Loader, Weights};
use family::{Family, encoders};

/// The hidden states that an encoder returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layers {
    /// Only the output of the encoder.
    Last,
    /// The output, and the hidden states of all layers: the input of the first layer and the output of each layer.
    All,
}

/// Hidden states of a batch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Encoded {
    /// With [`Layers::All`] one tensor per layer (`hidden_states` in transformers), otherwise empty. Each is
    /// `[batch, n_frames, dim]`, f32, on the encoder's device; `n_frames` is that of the longest clip.
    pub layers: Vec<Tensor>,
    /// The output of the encoder, after its final norm if it has one (`last_hidden_state`); of the same shape.
    pub last: Tensor,
    /// Number of frames of each clip in `last`; later frames are 0.
    pub lengths: Vec<usize>,
    /// Number of frames of each clip in `layers`. Differs from `lengths` if an adapter shortens the output (and
    /// possibly changes its width).
    pub layer_lengths: Vec<usize>,
}

impl Encoded {
    /// Creates a result from the hidden states of the `layers` (if requested) and the output `last`, each
    /// `[batch, n_frames, dim]`. The first `lengths[b]` frames belong to clip `b`.
    pub fn new(layers: Vec<Tensor>, last: Tensor, lengths: Vec<usize>) -> Self {
        Self { layers, last, layer_lengths: lengths.clone(), lengths }
    }

    /// Applies `f` to all tensors.
    fn try_map(&self, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> candle_core::Result<Self> {
        let layers = self.layers.iter().map(&f).collect::<candle_core::Result<_>>()?;
        Ok(Self { layers, last: f(&self.last)?, ..self.clone() })
    }
}

/// Static properties of an encoder.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EncoderInfo {
    /// The name: that of a preset, or the one in the configuration file.
    pub name: Cow<'static, str>,
    /// The sample rate of the input, in Hz.
    pub sample_rate: u32,
    /// The width of a hidden state.
    pub dim: usize,
    /// Number of hidden states per frame with [`Layers::All`]: the number of layers plus one, for the input of the
    /// first layer.
    pub n_layers: usize,
    /// The time from one frame to the next, in seconds.
    pub frame_seconds: f64,
    /// The shortest clip, in samples. Shorter clips are padded with zeros at the end to this length.
    pub min_samples: usize,
}

impl EncoderInfo {
    /// An encoder with one layer and no minimum length. Set the fields to change this.
    pub fn new(name: impl Into<Cow<'static, str>>, sample_rate: u32, dim: usize, frame_seconds: f64) -> Self {
        Self { name: name.into(), sample_rate, dim, n_layers: 2, frame_seconds, min_samples: 1 }
    }
}

/// A model that computes hidden states from speech.
pub trait SpeechEncoder: Send + Sync {
    /// The static properties of the encoder.
    fn info(&self) -> &EncoderInfo;

    /// The device of the encoder.
    fn device(&self) -> &Device;

    /// Computes the hidden states of a batch of clips of any lengths. The result for each row equals that for the clip
    /// alone.
    ///
    /// # Errors
    /// [`Error::SampleRate`] if the batch is at another sample rate; [`Error::TooShort`] if a clip is empty;
    /// [`Error::NonFinite`] if a sample is NaN or infinite; [`Error::Argument`] if a clip is longer than the encoder
    /// supports; [`Error::Tensor`] if a tensor operation fails on the device.
    fn forward(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Encoded>;
}

encoders! {
    /// Whisper's encoder.
    Whisper: whisper::WhisperEncoder,
    /// wav2vec 2.0, XLS-R, MMS, HuBERT, WavLM.
    Wav2vec2: wav2vec2::Wav2Vec2Encoder,
    /// W2V-BERT 2.0.
    W2vBert: w2v_bert::W2vBertEncoder,
    /// The audio tower of Qwen2-Audio.
    Qwen2Audio: qwen2_audio::Qwen2AudioEncoder,
    /// SpeechTokenizer's encoder and codebooks.
    SpeechTokenizer: speech_tokenizer::SpeechTokenizer,
    /// A convolution and recurrent layers.
    Recurrent: recurrent::RecurrentEncoder,
}

/// A named configuration.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Preset {
    /// One-line description.
    pub description: &'static str,
    /// The configuration.
    pub config: EncoderConfig,
}

impl Preset {
    /// The name, as used on command lines.
    pub fn name(&self) -> &str {
        self.config.name()
    }
}

/// The presets of one family.
fn presets_of<C: Family + Into<EncoderConfig>>() -> Vec<Preset> {
    let preset = |(config, description): &(C, &'static str)| Preset { description, config: config.clone().into() };
    C::PRESETS.iter().map(preset).collect()
}

impl<E: SpeechEncoder + ?Sized> SpeechEncoder for Box<E> {
    fn info(&self) -> &EncoderInfo {
        (**self).info()
    }

    fn device(&self) -> &Device {
        (**self).device()
    }

    fn forward(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Encoded> {
        (**self).forward(waveforms, layers)
    }
}
