//! Speech encoders: from a waveform to hidden states, one sequence of vectors per layer. One family per file.
//!
//! | encoder | audio | a frame |
//! |---|---|---|
//! | [`recurrent`]: a convolution, then GRU or LSTM layers | any features | some of theirs, 30 ms in the one of this crate |
//! | [`qwen2_audio`]: the audio tower of Qwen2-Audio | 16 kHz log-mel | 40 ms |
//! | [`speech_tokenizer`]: SpeechTokenizer, codes as well | 16 kHz waveform | 20 ms |
//! | [`w2v_bert`]: W2V-BERT 2.0 | 16 kHz log-mel | 20 ms |
//! | [`wav2vec2`]: wav2vec 2.0, XLS-R, MMS, HuBERT, WavLM | 16 kHz waveform | 20 ms |
//! | [`whisper`]: the encoder of Whisper, tiny to large-v3 | 16 kHz log-mel | 20 ms |
//!
//! [`Encoder::open`] opens a checkpoint and finds which encoder it is. An encoder owns its front end and knows its sample rate. A
//! CTC model ([`ctc::CtcModel`](crate::ctc::CtcModel)) is an
//! encoder, perhaps a [`WeightedSum`] over its layers, and a head.
//!
//! Encoders of published models are frozen as a whole, the feature projection of W2V-BERT 2.0 with all else. Their hidden states
//! carry no gradient, so training what stands on top ([`CtcModel::build_on`](crate::ctc::CtcModel::build_on)) keeps nothing of what
//! they compute. The adapters of MMS can be trained inside the frozen encoder ([`Wav2Vec2Encoder::build_with_adapters`]), and a
//! [`recurrent`] encoder as a whole.

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
pub use open::Encoder;
pub(crate) use open::preprocessor;
pub use weighted_sum::{WeightedSum, WeightedSumConfig};

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::audio::WaveformBatch;
use crate::error::{Error, Result};
use crate::weights::{Loader, Weights};
use family::{Family, encoders};

/// Which hidden states an encoder returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layers {
    /// The encoder's output alone.
    Last,
    /// Beside it those of every layer: the input of the first one, then the output of each.
    All,
}

/// Hidden states of a batch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Encoded {
    /// One tensor per layer with [`Layers::All`], none with [`Layers::Last`]: what transformers calls `hidden_states`. Each
    /// `[batch, n_frames, dim]`, f32, on the encoder's device, where `n_frames` is that of the longest clip.
    pub layers: Vec<Tensor>,
    /// The encoder's output, after its final norm where it has one (`last_hidden_state`); of the same shape.
    pub last: Tensor,
    /// Frames of each clip in `last`; zeros follow.
    pub lengths: Vec<usize>,
    /// Frames of each clip in `layers`: others where an adapter shortens the output, and perhaps narrows it.
    pub layer_lengths: Vec<usize>,
}

impl Encoded {
    /// The hidden states of `layers`, if they are requested, and the output `last`, each `[batch, n_frames, dim]`, of which the
    /// first `lengths[b]` frames of clip `b` count.
    pub fn new(layers: Vec<Tensor>, last: Tensor, lengths: Vec<usize>) -> Self {
        Self { layers, last, layer_lengths: lengths.clone(), lengths }
    }

    /// The same with other tensors.
    fn try_map(&self, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> candle_core::Result<Self> {
        let layers = self.layers.iter().map(&f).collect::<candle_core::Result<_>>()?;
        Ok(Self { layers, last: f(&self.last)?, ..self.clone() })
    }
}

/// What is constant about an encoder.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EncoderInfo {
    /// The name: a preset's, or what the configuration file says.
    pub name: Cow<'static, str>,
    /// The rate of the audio that it takes, in Hz.
    pub sample_rate: u32,
    /// The length of a hidden state.
    pub dim: usize,
    /// Hidden states per frame with [`Layers::All`]: the layers, and one more for the input of the first.
    pub n_layers: usize,
    /// The time from a frame to the next, in seconds.
    pub frame_seconds: f64,
    /// The shortest clip in samples that is used as it is; shorter ones are padded with zeros at the end to this length.
    pub min_samples: usize,
}

impl EncoderInfo {
    /// An encoder with one layer that takes clips of any length as they are; the fields can be set to say otherwise.
    pub fn new(name: impl Into<Cow<'static, str>>, sample_rate: u32, dim: usize, frame_seconds: f64) -> Self {
        Self { name: name.into(), sample_rate, dim, n_layers: 2, frame_seconds, min_samples: 1 }
    }
}

/// A model that turns speech into hidden states.
pub trait SpeechEncoder: Send + Sync {
    /// What is constant about it.
    fn info(&self) -> &EncoderInfo;

    /// The device that it runs on.
    fn device(&self) -> &Device;

    /// Hidden states of a batch of clips of any lengths. A row's result is the result for the clip alone.
    ///
    /// # Errors
    /// [`Error::SampleRate`] if the batch is at another rate,
    /// [`Error::TooShort`] for a clip without samples, [`Error::NonFinite`]
    /// for a NaN or infinite sample, [`Error::Argument`] for a clip that is longer than the encoder can
    /// see, [`Error::Tensor`] if a tensor operation fails on the device.
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
    /// One line about it.
    pub description: &'static str,
    /// The configuration.
    pub config: EncoderConfig,
}

impl Preset {
    /// The name, as command lines take it.
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
