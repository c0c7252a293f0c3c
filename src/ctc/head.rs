//! Heads of CTC models: map hidden states to logits of tokens.
//!
//! | head | layers | preset | parameters |
//! |---|---|---|---|
//! | linear | Linear | [`HeadConfig::W2V_BERT`] | 44,075 |
//! | linear with dropout | Dropout → Linear | [`HeadConfig::WHISPER_SMALL`] | 33,067 |
//! | two layers | Linear → GELU → Dropout → Linear | [`HeadConfig::QWEN2_AUDIO`] | 677,931 |
//!
//! Each may be preceded by GRU or LSTM layers ([`RecurrentConfig`]).
//!
//! Checkpoint keys: `lm_head` or `ctc_head`, with `.weight` and `.bias` if it is a single linear layer; for a
//! `Sequential`, with the indices of its linear layers in between. Recurrent layers: `rnn.weight_ih_l0` and so on,
//! named as in `torch.nn.GRU` and `LSTM`, in a member `rnn` beside `lm_head`.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::error::{Error, Result};
use crate::nn::{Activation, Cell, Dropout, Linear, Rnn, RnnConfig};
use crate::weights::{Init, Loader, Weights};

/// Initial weights and biases: near 0, so that no token (in particular not the blank) has a head start.
pub(super) const INIT: [Init; 2] = [Init::Normal(0.02), Init::Constant(0.0)];
/// Possible names of the weights of the last layer.
const WEIGHTS: [&[&str]; 10] = [
    &["lm_head.weight"],
    &["lm_head.3.weight"],
    &["lm_head.2.weight"],
    &["lm_head.1.weight"],
    &["lm_head.0.weight"],
    &["ctc_head.weight"],
    &["ctc_head.3.weight"],
    &["ctc_head.2.weight"],
    &["ctc_head.1.weight"],
    &["ctc_head.0.weight"],
];

/// The prefixes, for [`Weights::at`], below which a checkpoint has a head, shortest first.
pub(super) fn places(weights: &Weights) -> Vec<String> {
    weights.places(&WEIGHTS)
}

/// Configuration of a [`Head`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// Width of a hidden state, 1 to 65,536.
    pub dim: usize,
    /// GRU or LSTM layers before the linear layers. Default when read from a file: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurrent: Option<RecurrentConfig>,
    /// Width of a hidden layer with GELU, 1 to 65,536. Default when read from a file: none.
    #[serde(default)]
    pub hidden: Option<usize>,
    /// Dropout probability in training, after each recurrent layer and before the last layer; 0 or more and less than
    /// 1. Default when read from a file: 0.
    #[serde(default)]
    pub dropout: f64,
    /// Number of tokens, including the blank; 1 to 2^20.
    pub n_tokens: usize,
}

/// Configuration of the recurrent layers of a [`Head`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecurrentConfig {
    /// GRU or LSTM.
    pub cell: Cell,
    /// Width of the state per direction, 1 to 65,536.
    pub hidden: usize,
    /// Number of layers, 1 to 64.
    pub n_layers: usize,
    /// Whether the layers are bidirectional.
    pub bidirectional: bool,
}

impl RecurrentConfig {
    /// The layers for an input of this width.
    fn rnn(&self, inputs: usize) -> RnnConfig {
        let Self { cell, hidden, n_layers, bidirectional } = *self;
        RnnConfig { cell, inputs, hidden, n_layers, bidirectional, bias: true }
    }
}

impl HeadConfig {
    /// One linear layer for W2V-BERT 2.0 (width 1,024) and 43 phonemes.
    pub const W2V_BERT: Self = Self::linear(1024, 43);
    /// One linear layer with dropout for Whisper small (width 768) and 43 phonemes.
    pub const WHISPER_SMALL: Self = Self { dim: 768, dropout: 0.1, ..Self::W2V_BERT };
    /// Two layers for the encoder of Qwen2-Audio (width 1,280) and 43 phonemes.
    pub const QWEN2_AUDIO: Self = Self { dim: 1280, hidden: Some(512), dropout: 0.1, ..Self::W2V_BERT };

    /// The named configurations, each with the name of its encoder.
    pub const PRESETS: &'static [(&'static str, Self)] =
        &[("w2v-bert", Self::W2V_BERT), ("whisper-small", Self::WHISPER_SMALL), ("qwen2-audio", Self::QWEN2_AUDIO)];

    /// One linear layer without dropout.
    pub const fn linear(dim: usize, n_tokens: usize) -> Self {
        Self { dim, recurrent: None, hidden: None, dropout: 0.0, n_tokens }
    }

    /// The preset with this name.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], listing the known names.
    pub fn by_name(name: &str) -> Result<Self> {
        let preset = Self::PRESETS.iter().find(|(preset, _)| *preset == name).map(|(_, config)| config.clone());
        preset.ok_or_else(|| {
            let known: Vec<&str> = Self::PRESETS.iter().map(|(name, _)| *name).collect();
            Error::UnknownModel(format!("expected a head called {}, got {name:?}", known.join(", ")))
        })
    }

    fn validate(&self) -> Result<()> {
        check::sizes([
            ("dim", self.dim, MAX_WIDTH),
            ("hidden", self.hidden.unwrap_or(1), MAX_WIDTH),
            ("n_tokens", self.n_tokens, MAX_CLASSES),
        ])
    }
}

/// Maps hidden states `[batch, n_frames, dim]` to logits `[batch, n_frames, n_tokens]`.
///
/// To train a head, build it from [`Parameters`](crate::weights::Parameters): the weights of its linear layers are
/// initialised from a Gaussian with standard deviation 0.02, their biases with 0, and recurrent layers as in PyTorch.
///
/// ```
/// use clipwise::Device;
/// use clipwise::ctc::{Head, HeadConfig};
/// use clipwise::weights::Parameters;
///
/// let parameters = Parameters::new(&Device::Cpu, 1);
/// let head = Head::load(&HeadConfig::W2V_BERT, &parameters.loader())?;
/// assert_eq!(parameters.count(), 44_075);
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Debug)]
pub struct Head {
    config: HeadConfig,
    recurrent: Vec<Rnn>,
    hidden: Option<Linear>,
    dropout: Dropout,
    output: Linear,
}

impl Head {
    /// Reads the head from `lm_head` or `ctc_head` below the loader's prefix, and its recurrent layers from `rnn`.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid; otherwise as [`Loader::get`]. Tensors that do not fit are
    /// reported by [`Loader::finish`].
    pub fn load(config: &HeadConfig, weights: &Loader) -> Result<Self> {
        config.validate()?;
        let HeadConfig { dim, n_tokens, .. } = *config;
        let root = weights.at(weights.first_of(&["lm_head", "ctc_head"])).in_f32();
        let (recurrent, dim) = match config.recurrent.as_ref().map(|recurrent| recurrent.rnn(dim)) {
            Some(rnn) => (Rnn::load_layers(&weights.at("rnn"), rnn)?, rnn.outputs()),
            None => (Vec::new(), dim),
        };
        let dropout = Dropout::new(weights, config.dropout)?;
        let linear = |place: &Loader, inputs: usize, outputs: usize, activation: Activation| {
            Linear::load_with(place, inputs, outputs, activation, INIT)
        };
        // The index of the last linear layer in a `Sequential` depends on whether dropout is part of it.
        let (hidden, output) = match config.hidden {
            Some(width) => {
                let hidden = linear(&root.at("0"), dim, width, Activation::Gelu)?;
                let output = root.at(root.first_of(&["3", "2", "1"]));
                (Some(hidden), linear(&output, width, n_tokens, Activation::Identity)?)
            }
            None => {
                let place = match root.first_of(&["weight", "3", "2", "1", "0"]) {
                    "weight" => root,
                    last => root.at(last),
                };
                (None, linear(&place, dim, n_tokens, Activation::Identity)?)
            }
        };
        Ok(Self { config: config.clone(), recurrent, hidden, dropout, output })
    }

    /// The configuration of the head.
    pub fn config(&self) -> &HeadConfig {
        &self.config
    }

    /// Computes logits `[batch, n_frames, n_tokens]` from hidden states `[batch, n_frames, dim]`, f32, on the head's
    /// device. With `lengths`, the first `lengths[b]` frames belong to clip `b`; backward recurrent layers begin at
    /// their end.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not match; with recurrent layers also [`Error::Argument`]
    /// unless there is one length per clip, between 1 and `n_frames`.
    pub fn forward(&self, hidden: &Tensor, lengths: Option<&[usize]>) -> Result<Tensor> {
        let mut x = hidden.clone();
        for layer in &self.recurrent {
            x = self.dropout.forward(&layer.forward(&x, lengths, None)?.0)?;
        }
        if let Some(layer) = &self.hidden {
            x = layer.forward(&x)?;
        }
        if self.hidden.is_some() || self.recurrent.is_empty() {
            x = self.dropout.forward(&x)?;
        }
        self.output.forward(&x)
    }
}
