//! Heads: from hidden states to the logits of tokens.
//!
//! | head | layers | preset | parameters |
//! |---|---|---|---|
//! | linear | Linear | [`HeadConfig::W2V_BERT`] | 44,075 |
//! | linear with dropout | Dropout → Linear | [`HeadConfig::WHISPER_SMALL`] | 33,067 |
//! | two layers | Linear → GELU → Dropout → Linear | [`HeadConfig::QWEN2_AUDIO`] | 677,931 |
//!
//! GRU or LSTM layers ([`RecurrentConfig`]) may stand before each of them.
//!
//! Checkpoint keys: `lm_head` or `ctc_head`, with `.weight` and `.bias` where it is one linear layer; where it is a
//! `Sequential`, with the numbers of its linear layers before these. Recurrent layers: `rnn.weight_ih_l0` and so on, as
//! `torch.nn.GRU` or `LSTM` names them, in a member `rnn` beside `lm_head`.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::error::{Error, Result};
use crate::nn::{Activation, Cell, Dropout, Linear, Rnn, RnnConfig};
use crate::weights::{Init, Loader, Weights};

/// New weights and biases: no token begins ahead of the others, the blank least of all.
pub(super) const INIT: [Init; 2] = [Init::Normal(0.02), Init::Constant(0.0)];
/// The names that the weights of its last layer may have.
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

/// The places, for [`Weights::at`], below which a checkpoint has a head; the shortest first.
pub(super) fn places(weights: &Weights) -> Vec<String> {
    weights.places(&WEIGHTS)
}

/// The shape of a [`Head`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// Length of a hidden state, 1 to 65,536.
    pub dim: usize,
    /// GRU or LSTM layers before the others. Default when read from a file: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurrent: Option<RecurrentConfig>,
    /// Width of a layer with GELU before the last one, 1 to 65,536. Default when read from a file: no such layer.
    #[serde(default)]
    pub hidden: Option<usize>,
    /// Share of the values after each recurrent layer and before the last layer that are dropped in training, 0 or more and
    /// less than 1. Default when read from a file: 0.
    #[serde(default)]
    pub dropout: f64,
    /// Tokens, the blank included; 1 to 2^20.
    pub n_tokens: usize,
}

/// The recurrent layers of a [`Head`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecurrentConfig {
    /// GRU or LSTM.
    pub cell: Cell,
    /// Length of the state of one direction, 1 to 65,536.
    pub hidden: usize,
    /// Layers, 1 to 64.
    pub n_layers: usize,
    /// Whether each layer goes both ways.
    pub bidirectional: bool,
}

impl RecurrentConfig {
    /// On hidden states of this length.
    fn rnn(&self, inputs: usize) -> RnnConfig {
        let Self { cell, hidden, n_layers, bidirectional } = *self;
        RnnConfig { cell, inputs, hidden, n_layers, bidirectional, bias: true }
    }
}

impl HeadConfig {
    /// One linear layer on W2V-BERT 2.0 for 43 phonemes; 1,024 values a hidden state.
    pub const W2V_BERT: Self = Self::linear(1024, 43);
    /// The same with dropout on Whisper small; 768 values a hidden state.
    pub const WHISPER_SMALL: Self = Self { dim: 768, dropout: 0.1, ..Self::W2V_BERT };
    /// Two layers on the encoder of Qwen2-Audio; 1,280 values a hidden state.
    pub const QWEN2_AUDIO: Self = Self { dim: 1280, hidden: Some(512), dropout: 0.1, ..Self::W2V_BERT };

    /// The named heads, each with the encoder that it is for.
    pub const PRESETS: &'static [(&'static str, Self)] =
        &[("w2v-bert", Self::W2V_BERT), ("whisper-small", Self::WHISPER_SMALL), ("qwen2-audio", Self::QWEN2_AUDIO)];

    /// One linear layer, without dropout.
    pub const fn linear(dim: usize, n_tokens: usize) -> Self {
        Self { dim, recurrent: None, hidden: None, dropout: 0.0, n_tokens }
    }

    /// The preset of this name.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] with the known names.
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

/// From hidden states `[batch, n_frames, dim]` to logits `[batch, n_frames, n_tokens]`.
///
/// To train one, build it from a [`Parameters`](crate::weights::Parameters): the weights of its linear layers are Gaussian with
/// standard deviation 0.02, their biases 0; recurrent layers begin as PyTorch's do.
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
    /// Reads the head, which stands below this place as `lm_head` or `ctc_head`, its recurrent layers as `rnn`.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, else as [`Loader::get`]; tensors that do not fit are reported by
    /// [`Loader::finish`].
    pub fn load(config: &HeadConfig, weights: &Loader) -> Result<Self> {
        config.validate()?;
        let HeadConfig { dim, n_tokens, .. } = *config;
        let root = weights.at(weights.first_of(&["lm_head", "ctc_head"]));
        let (recurrent, dim) = match config.recurrent.as_ref().map(|recurrent| recurrent.rnn(dim)) {
            Some(rnn) => (Rnn::load_layers(&weights.at("rnn"), rnn)?, rnn.outputs()),
            None => (Vec::new(), dim),
        };
        let dropout = Dropout::new(weights, config.dropout)?;
        let linear = |place: &Loader, inputs: usize, outputs: usize, activation: Activation| {
            Linear::load_with(place, inputs, outputs, activation, INIT)
        };
        // Which linear layer of a `Sequential` is the last depends on whether dropout has a place in it.
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

    /// The configuration that it was loaded with.
    pub fn config(&self) -> &HeadConfig {
        &self.config
    }

    /// Hidden states `[batch, n_frames, dim]`, f32, on the head's device, to logits `[batch, n_frames, n_tokens]`. With
    /// `lengths`, the first `lengths[b]` frames of clip `b` count, where recurrent layers going backward begin.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not fit; [`Error::Argument`] with recurrent layers, unless there is one
    /// length from 1 to `n_frames` per clip.
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
