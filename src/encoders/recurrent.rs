//! A recurrent speech encoder: features, a strided convolution, then GRU or LSTM layers, as in Deep Speech 2 (Amodei et
//! al. 2015, arXiv 1512.02595).
//!
//! waveform → features `[batch, n_features, n]` → convolution over time, batch norm, ReLU → `[batch, n_frames, dim]`
//! with `n_frames = ⌈n / stride⌉` → recurrent layers, each `[batch, n_frames, dim]`.
//!
//! Checkpoint keys are those of a PyTorch module with the members `conv = Conv1d(n_features, dim, kernel, stride,
//! padding=kernel // 2, bias=False)`, `norm = BatchNorm1d(dim)` and `rnn = GRU(dim, hidden, n_layers, bidirectional=…)`
//! (or `LSTM`).
//!
//! Shortest clip: the minimum of the front end; shorter clips are padded with zeros at the end.

use std::borrow::Cow;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::family::Family;
use super::{Encoded, EncoderInfo, Layers, SpeechEncoder};
use crate::audio::WaveformBatch;
use crate::batch::checked_clips;
use crate::check::{self, check_lengths};
use crate::error::{Context, Error, Result};
use crate::frontend::features::{Features, FeaturesConfig};
use crate::nn::{Activation, Cell, ConvConfig, ConvStack, Dropout, Rnn, RnnConfig};
use crate::weights::{Loader, Weights};

/// Configuration of a [`RecurrentEncoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of the preset, or a custom name. Default when read from a file: `recurrent`.
    #[serde(default = "recurrent")]
    pub name: Cow<'static, str>,
    /// The front end.
    pub features: FeaturesConfig,
    /// Length of the convolution's kernel in frames of features: odd, at most 1,023.
    pub kernel: usize,
    /// Frames of features per hidden state, 1 to `kernel`.
    pub stride: usize,
    /// GRU or LSTM.
    pub cell: Cell,
    /// Width of the state per direction, 1 to 16,384.
    pub hidden: usize,
    /// Number of recurrent layers, 1 to 64.
    pub n_layers: usize,
    /// Whether the layers are bidirectional.
    pub bidirectional: bool,
    /// Dropout probability in training, after the convolution and each recurrent layer; 0 or more and less than 1.
    /// Default when read from a file: 0.
    #[serde(default)]
    pub dropout: f64,
}

/// The family's name.
fn recurrent() -> Cow<'static, str> {
    Cow::Borrowed("recurrent")
}

impl Config {
    /// Two bidirectional GRU layers of width 128 per direction over 64 mels, with one state per 30 ms: 0.68 M
    /// parameters.
    pub const BIGRU: Self = Self {
        name: Cow::Borrowed("bigru-encoder"),
        features: FeaturesConfig::LOG_MEL_64,
        kernel: 5,
        stride: 3,
        cell: Cell::Gru,
        hidden: 128,
        n_layers: 2,
        bidirectional: true,
        dropout: 0.1,
    };

    /// Width of a hidden state: `hidden` per direction.
    pub fn dim(&self) -> usize {
        self.rnn(0).outputs()
    }

    /// The recurrent layers for an input of this width.
    fn rnn(&self, inputs: usize) -> RnnConfig {
        let Self { cell, hidden, n_layers, bidirectional, .. } = *self;
        RnnConfig { cell, inputs, hidden, n_layers, bidirectional, bias: true }
    }

    fn validate(&self) -> Result<()> {
        if self.kernel.is_multiple_of(2) || self.kernel > 1 << 10 {
            return Err(Error::config("kernel", self.kernel, "expected an odd number up to 1023"));
        }
        if !(1..=self.kernel).contains(&self.stride) {
            return Err(Error::config("stride", self.stride, format!("expected 1 to kernel = {}", self.kernel)));
        }
        check::sizes([("hidden", self.hidden, 1 << 14), ("n_layers", self.n_layers, 64)])
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] =
        &[(Self::BIGRU, "convolution and bidirectional GRU over 64 mels, 0.68 M parameters, no published weights")];

    fn name(&self) -> &str {
        &self.name
    }

    fn dim(&self) -> usize {
        self.dim()
    }

    fn is_in(weights: &Weights) -> bool {
        weights.contains("encoder.conv.weight")
    }

    fn detect(_: &Weights) -> Result<Self> {
        let reason =
            "the features of a recurrent encoder cannot be recognised: open its folder, which has a config.json";
        Err(Error::UnknownModel(reason.to_string()))
    }

    fn build(&self, root: &Loader) -> Result<Box<dyn SpeechEncoder>> {
        Ok(Box::new(RecurrentEncoder::build(self, &root.at("encoder"))?))
    }
}

/// A recurrent encoder, loaded or trainable.
#[derive(Debug)]
pub struct RecurrentEncoder {
    config: Config,
    info: EncoderInfo,
    device: Device,
    features: Features,
    conv: ConvStack,
    layers: Vec<Rnn>,
    dropout: Dropout,
}

impl RecurrentEncoder {
    /// Builds the encoder from a checkpoint with no other tensors.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid; [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let encoder = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(encoder)
    }

    /// Builds the encoder from a loader of a checkpoint, or of parameters to train.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid; otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let features = Features::new(&config.features)?;
        let dim = config.dim();
        let Config { kernel, stride, .. } = *config;
        let first =
            ConvConfig { stride, padding: kernel / 2, ..ConvConfig::new(config.features.n_features(), dim, kernel) };
        let mut conv = ConvStack::on_sequences();
        conv.conv(&root.at("conv"), Some(&root.at("norm")), first, Activation::Relu)?;
        let layers = Rnn::load_layers(&root.at("rnn"), config.rnn(dim))?;
        let dropout = Dropout::new(root, config.dropout)?;
        let sample_rate = config.features.sample_rate();
        let frame_seconds = (config.features.hop_length() * config.stride) as f64 / f64::from(sample_rate);
        let info = EncoderInfo {
            n_layers: layers.len() + 1,
            min_samples: features.min_samples(),
            ..EncoderInfo::new(config.name.clone(), sample_rate, dim, frame_seconds)
        };
        Ok(Self { config: config.clone(), info, device: root.device().clone(), features, conv, layers, dropout })
    }

    /// The configuration of the encoder.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The number of hidden states for `n_features` frames of features.
    pub fn n_frames(&self, n_features: usize) -> usize {
        n_features.div_ceil(self.config.stride)
    }

    /// Runs everything after the front end on features `[batch, n, n_features]`, f32, on the encoder's device. The
    /// first `lengths[b]` frames belong to clip `b`; later ones must be 0. Differentiable.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there is one length per clip, between 1 and `n`; [`Error::Tensor`] if the shape or
    /// the device does not match.
    pub fn forward_features(&self, features: &Tensor, lengths: &[usize], layers: Layers) -> Result<Encoded> {
        self.run(features, lengths, layers).context("running the recurrent encoder")
    }

    fn run(&self, features: &Tensor, lengths: &[usize], layers: Layers) -> Result<Encoded> {
        let (batch, n, _) = features.dims3()?;
        check_lengths(lengths, batch, 1..=n)?;
        let x = self.conv.forward_vectors(features, None)?;
        let lengths: Vec<usize> = lengths.iter().map(|&length| self.n_frames(length)).collect();
        let n_frames = self.n_frames(n);
        if lengths.iter().all(|&length| length == n_frames) {
            return self.recur(x, lengths, layers);
        }
        let counts = |i: usize| f32::from(i % n_frames < lengths[i / n_frames]);
        let mask = Tensor::from_iter((0..batch * n_frames).map(counts), x.device())?;
        self.recur(x.broadcast_mul(&mask.reshape((batch, n_frames, 1))?)?, lengths, layers)
    }

    /// Runs the recurrent layers.
    fn recur(&self, x: Tensor, lengths: Vec<usize>, layers: Layers) -> Result<Encoded> {
        let mut x = self.dropout.forward(&x)?;
        let mut states = Vec::new();
        for layer in &self.layers {
            states.extend((layers == Layers::All).then(|| x.clone()));
            x = self.dropout.forward(&layer.forward(&x, Some(&lengths), None)?.0)?;
        }
        states.extend((layers == Layers::All).then(|| x.clone()));
        Ok(Encoded::new(states, x, lengths))
    }

    /// The convolution's output `[n_frames, dim]` for a single clip.
    fn clip(&self, clip: &[f32]) -> Result<Tensor> {
        let features = self.features.compute(clip)?;
        let shape = (1, features.nrows(), features.ncols());
        let features = Tensor::from_iter(features, &self.device)?.reshape(shape)?;
        Ok(self.conv.forward_vectors(&features, None)?.squeeze(0)?)
    }
}

impl SpeechEncoder for RecurrentEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Encoded> {
        let context = "running the recurrent encoder";
        let clips = checked_clips(waveforms, self.info.sample_rate, self.info.min_samples)?;
        let clips = clips.iter().map(|clip| self.clip(clip)).collect::<Result<Vec<_>>>().context(context)?;
        let lengths: Vec<usize> = clips.iter().map(|clip| clip.dims()[0]).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let padded = |clip: &Tensor| {
            let missing = longest - clip.dim(0)?;
            let zeros = Tensor::zeros((missing, clip.dim(1)?), DType::F32, &self.device)?;
            if missing == 0 { Ok(clip.clone()) } else { Tensor::cat(&[clip, &zeros], 0) }
        };
        let rows = clips.iter().map(padded).collect::<candle_core::Result<Vec<_>>>();
        let x = rows.and_then(|rows| Tensor::stack(&rows, 0)).context(context)?;
        self.recur(x, lengths, layers).context(context)
    }
}
