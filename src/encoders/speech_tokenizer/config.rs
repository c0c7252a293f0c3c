//! Sizes of SpeechTokenizer, and their detection in checkpoints.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SpeechTokenizer;
use crate::check::{self, MAX_CLASSES, MAX_LAYERS, MAX_WIDTH};
use crate::encoders::SpeechEncoder;
use crate::encoders::family::Family;
use crate::error::{Error, Result};
use crate::weights::{Loader, Weights};

/// Limit on the samples per hidden state.
const MAX_STRIDE: usize = 1 << 16;
/// Limit on the dilation, because a dilated kernel takes memory that the checkpoint does not.
const MAX_DILATION: usize = 32;
/// Limit on the LSTM layers.
const MAX_LSTM_LAYERS: usize = 64;

/// The activation between convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// ELU: `x`, and `e^x − 1` below 0.
    #[serde(alias = "ELU")]
    Elu,
    /// Snake: `x + sin²(α x) / α`, with one α per channel.
    #[serde(alias = "Snake")]
    Snake,
}

/// Configuration of a SpeechTokenizer. Presets are the published models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of the preset, or a custom name. Default when read from a file: `speech-tokenizer`.
    #[serde(default = "speech_tokenizer")]
    pub name: Cow<'static, str>,
    /// The sample rate, in Hz.
    pub sample_rate: u32,
    /// Number of channels after the first convolution, 2 to 65,536. Every strided convolution doubles them, to at most
    /// 65,536.
    pub n_filters: usize,
    /// Strides of the convolutions, from the last to the first, in the order of the decoder. Their product, the number
    /// of samples per hidden state, is at most 65,536.
    pub strides: Cow<'static, [usize]>,
    /// Width of a hidden state and of a codebook's vectors, 1 to 65,536.
    pub dim: usize,
    /// Kernel of the convolutions in residual blocks, 1 to 65,536.
    pub residual_kernel: usize,
    /// Number of residual blocks before each strided convolution, at most 1,024.
    pub n_residual_layers: usize,
    /// The kernel of residual block `j` is dilated by this number to the power of `j`, which is at most 32.
    pub dilation_base: usize,
    /// Number of LSTM layers, at most 64; 0 for none.
    pub n_lstm_layers: usize,
    /// Whether the LSTM is bidirectional.
    pub bidirectional: bool,
    /// The activation between convolutions.
    pub activation: Activation,
    /// Number of codebooks, 1 to 1,024.
    pub n_codebooks: usize,
    /// Number of codes per codebook, 1 to 2^20.
    pub n_codes: usize,
}

/// The family's name.
fn speech_tokenizer() -> Cow<'static, str> {
    Cow::Borrowed("speech-tokenizer")
}

/// The published `config.json`. Training settings in it are ignored.
#[derive(Deserialize)]
struct Published {
    #[serde(default = "default_rate")]
    sample_rate: u32,
    n_filters: usize,
    strides: Vec<usize>,
    dimension: usize,
    bidirectional: bool,
    dilation_base: usize,
    residual_kernel_size: usize,
    n_residual_layers: usize,
    lstm_layers: usize,
    activation: Activation,
    codebook_size: usize,
    n_q: usize,
}

fn default_rate() -> u32 {
    Config::BASE.sample_rate
}

impl Config {
    /// SpeechTokenizer as published, `speechtokenizer_hubert_avg`: 16 kHz, 50 hidden states per second, 8 codebooks of
    /// 1,024 codes; 67.7 M parameters in the encoder, 8.4 M in the codebooks.
    pub const BASE: Self = Self {
        name: Cow::Borrowed("speech-tokenizer"),
        sample_rate: 16_000,
        n_filters: 64,
        strides: Cow::Borrowed(&[8, 5, 4, 2]),
        dim: 1024,
        residual_kernel: 3,
        n_residual_layers: 1,
        dilation_base: 2,
        n_lstm_layers: 2,
        bidirectional: true,
        activation: Activation::Elu,
        n_codebooks: 8,
        n_codes: 1024,
    };
    /// The same sizes with Snake: `speechtokenizer_snake`, and the tokenizer of AnyGPT.
    pub const SNAKE: Self =
        Self { name: Cow::Borrowed("speech-tokenizer-snake"), activation: Activation::Snake, ..Self::BASE };

    /// Reads the `config.json` that is published with a checkpoint (`n_filters`, `strides`, `dimension`, …, `n_q`).
    ///
    /// # Errors
    /// [`Error::Config`] if a field is missing or has another type.
    pub fn from_published(config: &Value) -> Result<Self> {
        let published: Published = serde_json::from_value(config.clone())
            .map_err(|error| Error::config("config.json", "", error.to_string()))?;
        let config = Self {
            name: speech_tokenizer(),
            sample_rate: published.sample_rate,
            n_filters: published.n_filters,
            strides: published.strides.into(),
            dim: published.dimension,
            residual_kernel: published.residual_kernel_size,
            n_residual_layers: published.n_residual_layers,
            dilation_base: published.dilation_base,
            n_lstm_layers: published.lstm_layers,
            bidirectional: published.bidirectional,
            activation: published.activation,
            n_codebooks: published.n_q,
            n_codes: published.codebook_size,
        };
        Ok(config.named())
    }

    /// Detects the sizes from the tensors of a checkpoint. The sample rate (16 kHz) and the dilations (2 to the power
    /// of a residual block's index) cannot be detected.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] if the checkpoint has no SpeechTokenizer with residual blocks.
    pub fn from_weights(weights: &Weights) -> Result<Self> {
        let root = weights.loader(&Device::Cpu);
        let model = |index: usize| root.at("encoder.model").at(index);
        let conv = |place: &Loader| match place.at("conv.conv").shape("weight") {
            Some(&[out, _, kernel]) => Some((out, kernel)),
            _ => None,
        };
        let is_residual = |index: &usize| conv(&model(*index).at("shortcut")).is_some();
        let books = |index: usize| root.at("quantizer.vq.layers").at(index).at("_codebook").shape("embed");
        let detect = || {
            let n_filters = conv(&model(0))?.0;
            let residual_kernel = conv(&model(1).at("block.1"))?.1;
            let n_residual_layers = (1..MAX_LAYERS).take_while(is_residual).count();
            let (mut strides, mut index) = (Vec::new(), 1);
            while is_residual(&index) {
                index += n_residual_layers + 1;
                strides.insert(0, conv(&model(index))?.1 / 2);
                index += 1;
            }
            let lstm = |name: String| model(index).at("lstm").shape(&name);
            let n_lstm_layers =
                (0..MAX_LSTM_LAYERS).take_while(|layer| lstm(format!("weight_ih_l{layer}")).is_some()).count();
            let &[n_codes, dim] = books(0)? else { return None };
            Some(Self {
                n_filters,
                strides: strides.into(),
                dim,
                residual_kernel,
                n_residual_layers,
                n_lstm_layers,
                bidirectional: lstm("weight_ih_l0_reverse".to_string()).is_some(),
                activation: match model(1).at("block.0").shape("alpha") {
                    Some(_) => Activation::Snake,
                    None => Activation::Elu,
                },
                n_codebooks: (0..MAX_LAYERS).take_while(|&index| books(index).is_some()).count(),
                n_codes,
                ..Self::BASE
            })
        };
        let unknown = || Error::UnknownModel("expected a checkpoint of SpeechTokenizer".to_string());
        detect().map(Self::named).ok_or_else(unknown)
    }

    /// Sets the name of the preset with these sizes, if there is one.
    fn named(self) -> Self {
        let sizes = |config: &Self| Self { name: speech_tokenizer(), ..config.clone() };
        let preset = Self::PRESETS.iter().map(|(preset, _)| preset).find(|preset| sizes(preset) == sizes(&self));
        preset.cloned().unwrap_or(sizes(&self))
    }

    /// The number of hidden states of a clip: one per product of the `strides`, in samples, rounded up.
    pub fn n_frames(&self, n_samples: usize) -> usize {
        self.strides.iter().rev().fold(n_samples, |n, stride| n.div_ceil((*stride).max(1)))
    }

    /// Samples per hidden state.
    pub(super) fn hop(&self) -> Result<usize> {
        let hop = self.strides.iter().try_fold(1usize, |hop, stride| hop.checked_mul(*stride));
        let hop = hop.filter(|hop| (1..=MAX_STRIDE).contains(hop) && !self.strides.is_empty());
        let expected = || format!("expected at least one stride, and a product between 1 and {MAX_STRIDE}");
        hop.ok_or_else(|| Error::config("strides", format!("{:?}", self.strides), expected()))
    }

    pub(super) fn validate(&self) -> Result<()> {
        check::sample_rate(self.sample_rate)?;
        check::sizes([
            ("n_filters", self.n_filters, MAX_WIDTH),
            ("dim", self.dim, MAX_WIDTH),
            ("residual_kernel", self.residual_kernel, MAX_WIDTH),
            ("n_residual_layers", self.n_residual_layers.max(1), MAX_LAYERS),
            ("n_lstm_layers", self.n_lstm_layers.max(1), MAX_LSTM_LAYERS),
            ("n_codebooks", self.n_codebooks, MAX_LAYERS),
            ("n_codes", self.n_codes, MAX_CLASSES),
        ])?;
        self.hop()?;
        let widest =
            u32::try_from(self.strides.len()).ok().and_then(|n| self.n_filters.checked_mul(2usize.checked_pow(n)?));
        if self.n_filters < 2 || widest.is_none_or(|widest| widest > MAX_WIDTH) {
            let reason = format!("expected at least 2, and at most {MAX_WIDTH} channels after the last convolution");
            return Err(Error::config("n_filters", self.n_filters, reason));
        }
        let last = u32::try_from(self.n_residual_layers.saturating_sub(1)).unwrap_or(u32::MAX);
        if !self.dilation_base.checked_pow(last).is_some_and(|dilation| (1..=MAX_DILATION).contains(&dilation)) {
            let reason = format!("expected dilations of 1 to {MAX_DILATION} in all residual blocks");
            return Err(Error::config("dilation_base", self.dilation_base, reason));
        }
        if self.bidirectional && self.n_lstm_layers == 0 {
            return Err(Error::config("bidirectional", true, "expected false without an LSTM"));
        }
        Ok(())
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::BASE, "SpeechTokenizer, encoder and 8 codebooks, 76.1 M parameters"),
        (Self::SNAKE, "SpeechTokenizer with Snake, as in AnyGPT, 76.1 M parameters"),
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn detect(weights: &Weights) -> Result<Self> {
        Self::from_weights(weights)
    }

    fn is_in(weights: &Weights) -> bool {
        weights.contains("encoder.model.0.conv.conv.weight")
    }

    fn build(&self, root: &Loader) -> Result<Box<dyn SpeechEncoder>> {
        Ok(Box::new(SpeechTokenizer::build(self, root)?))
    }
}
