//! A recurrent net over a spectrogram: a general classifier of sounds and words.
//!
//! waveform `[batch, n_samples]` → features `[batch, n_frames, n_features]` → GRU or LSTM → frames `[batch, n_frames,
//! outputs]` → one vector by pooling over time (the embedding) → linear layer `fc`, softmax or sigmoid.
//!
//! Checkpoint keys are those of a PyTorch module with the members `rnn` (or `gru`, `lstm`) and `fc`, and, for attention,
//! `attention = Sequential(Linear(outputs, width), Tanh(), Linear(width, 1))`.
//!
//! Frames, on request, are `fc` on each frame of the recurrent layers instead of their pooling: in a net that is not bidirectional
//! and takes the last state, what it would say of the clip up to there. [`RnnStream`](crate::stream::RnnStream) gives them of a stream.
//!
//! Shortest clip: what the front end needs for its frames and deltas; shorter ones, down to one sample, are padded with
//! zeros at their end to that length.

use std::borrow::Cow;

use candle_core::{D, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch::{features, forward_by_length};
use super::family::Family;
use super::{Detail, FrameGrid, ModelInfo, OutputActivation, TaggingModel};
use crate::assumption::Assumption;
use crate::audio::WaveformBatch;
use crate::check::{self, MAX_CLASSES};
use crate::error::{Context, Error, Result};
use crate::frontend::FrontEnd;
use crate::frontend::features::{Features, FeaturesConfig};
use crate::nn::{Activation, Cell, Linear, Rnn, RnnConfig, RnnState};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

/// How the frames of a clip become one vector. Frames beyond a clip's length never count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimePooling {
    /// The final state of each direction: forward at the last frame, backward at the first.
    Last,
    /// The mean.
    Mean,
    /// The largest value.
    Max,
    /// `Σ a_t h_t` with `a = softmax_t(vᵀ tanh(W h_t + b))`.
    Attention,
}

/// The shape of an [`AudioRnnClassifier`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `rnn`.
    #[serde(default = "rnn")]
    pub name: Cow<'static, str>,
    /// The front end.
    pub features: FeaturesConfig,
    /// GRU or LSTM.
    pub cell: Cell,
    /// Length of the state of one direction, 1 to 65,536.
    pub hidden: usize,
    /// Recurrent layers, 1 to 64.
    pub n_layers: usize,
    /// Whether each layer goes both ways.
    pub bidirectional: bool,
    /// From frames to one vector.
    pub pooling: TimePooling,
    /// Outputs of the last layer, 1 to 2^20.
    pub n_classes: usize,
    /// What they mean.
    pub head: OutputActivation,
}

/// The family's name.
fn rnn() -> Cow<'static, str> {
    Cow::Borrowed("rnn")
}

impl Config {
    /// Two layers of bidirectional GRU over 64 mels, the mean over time, 10 classes: 448,010 parameters.
    pub const BIGRU: Self = Self {
        name: Cow::Borrowed("bigru"),
        features: FeaturesConfig::LOG_MEL_64,
        cell: Cell::Gru,
        hidden: 128,
        n_layers: 2,
        bidirectional: true,
        pooling: TimePooling::Mean,
        n_classes: 10,
        head: OutputActivation::Softmax,
    };
    /// The same with LSTM and attention.
    pub const BILSTM_ATTENTION: Self = Self {
        name: Cow::Borrowed("bilstm-attention"),
        cell: Cell::Lstm,
        pooling: TimePooling::Attention,
        ..Self::BIGRU
    };
    /// Speech-Commands-Classification-by-LSTM-PyTorch: 3 layers of LSTM, the last state, 35 words.
    pub const SPEECH_COMMANDS: Self = Self {
        name: Cow::Borrowed("lstm-speech-commands"),
        features: FeaturesConfig::SPEECH_COMMANDS,
        cell: Cell::Lstm,
        hidden: 64,
        n_layers: 3,
        bidirectional: false,
        pooling: TimePooling::Last,
        n_classes: 35,
        head: OutputActivation::Softmax,
    };

    fn info(&self, features: &Features) -> ModelInfo {
        let (sample_rate, embedding_dim) = (self.features.sample_rate(), self.rnn(true).outputs());
        ModelInfo {
            min_samples: features.min_samples(),
            activation: self.head,
            frames: Some(FrameGrid { first: 0, step: self.features.hop_length() }),
            ..ModelInfo::new(self.name.clone(), sample_rate, self.n_classes, embedding_dim)
        }
    }

    /// The sizes of the recurrent layers.
    pub fn rnn(&self, bias: bool) -> RnnConfig {
        let Self { cell, hidden, n_layers, bidirectional, .. } = *self;
        RnnConfig { cell, inputs: self.features.n_features(), hidden, n_layers, bidirectional, bias }
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::BIGRU, "bidirectional GRU over 64 mels, 16 kHz, mean over time, no published weights"),
        (Self::BILSTM_ATTENTION, "bidirectional LSTM over 64 mels, 16 kHz, attention over time, no published weights"),
        (Self::SPEECH_COMMANDS, "LSTM over 12 MFCC, 16 kHz, 35 words"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["rnn.weight_hh_l0", "fc.weight"], &["gru.weight_hh_l0", "fc.weight"], &["lstm.weight_hh_l0", "fc.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    /// Nothing in a recurrent checkpoint tells its front end.
    fn detect(_: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        Ok(None)
    }

    /// The cell, its sizes and the number of classes.
    fn fit(&mut self, weights: &Weights) {
        let is_here = |name: &&str| weights.contains(&format!("{name}.weight_hh_l0"));
        let Some(name) = NAMES.into_iter().find(is_here) else { return };
        if let Some(&[rows, hidden]) = weights.shape(&format!("{name}.weight_hh_l0"))
            && hidden > 0
        {
            self.cell = if rows / hidden == Cell::Lstm.n_gates() { Cell::Lstm } else { Cell::Gru };
            self.hidden = hidden;
        }
        let layers = |layer: &usize| weights.contains(&format!("{name}.weight_hh_l{layer}"));
        self.n_layers = (0..weights.len()).take_while(layers).count();
        self.bidirectional = weights.contains(&format!("{name}.weight_hh_l0_reverse"));
        if weights.contains("attention.0.weight") {
            self.pooling = TimePooling::Attention;
        }
        if let Some(&[n_classes, _]) = weights.shape("fc.weight") {
            self.n_classes = n_classes;
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(AudioRnnClassifier::load(self, weights, device)?))
    }
}

/// The names that checkpoints have for the recurrent layers.
const NAMES: [&str; 3] = ["rnn", "gru", "lstm"];

/// A loaded recurrent classifier.
#[derive(Debug)]
pub struct AudioRnnClassifier {
    config: Config,
    info: ModelInfo,
    device: Device,
    features: Features,
    rnn: Rnn,
    attention: Option<Attention>,
    fc: Linear,
}

impl AudioRnnClassifier {
    /// Builds the model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let model = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(model)
    }

    /// The model with the tensors that a loader gives: of a checkpoint, or to be trained.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, else as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        check::size("n_classes", config.n_classes, MAX_CLASSES)?;
        let features = Features::new(&config.features)?;
        let rnn = root.at(root.first_of(&NAMES));
        let rnn = Rnn::load(&rnn, config.rnn(!rnn.lacks("bias_ih_l0")))?;
        let outputs = rnn.config().outputs();
        let attention = match config.pooling {
            TimePooling::Attention => Some(Attention::load(&root.at("attention"), outputs)?),
            _ => None,
        };
        let fc = Linear::load(&root.at("fc"), outputs, config.n_classes, Activation::Identity)?;
        let (device, info) = (root.device().clone(), config.info(&features));
        Ok(Self { config: config.clone(), info, device, features, rnn, attention, fc })
    }

    /// The configuration that it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Everything after the front end: features `[batch, n_frames, n_features]`, f32, on the model's device, of which the
    /// first `lengths[b]` frames of clip `b` count; all without `lengths`.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there is one length from 1 to `n_frames` a clip, [`Error::Tensor`] if the shape or the
    /// device does not fit.
    pub fn forward_padded(&self, features: &Tensor, lengths: Option<&[usize]>) -> Result<TaggingOutput> {
        self.run(features, lengths, Detail::Clip).context("a recurrent classifier")
    }

    fn run(&self, features: &Tensor, lengths: Option<&[usize]>, detail: Detail) -> Result<TaggingOutput> {
        let (frames, state) = self.rnn.forward(features, lengths, None)?; // [batch, n_frames, outputs]
        let mut output = self.classify(&self.pool(&frames, lengths, &state)?)?;
        if detail == Detail::Frames {
            output.framewise_output = Some(self.frame_probabilities(&frames)?);
        }
        Ok(output)
    }

    /// The next frames of a sequence: features `[batch, n_frames, n_features]` after those that led to `state`, to the
    /// probabilities `[batch, n_frames, n_classes]` of each frame and the state after the last. A sequence begins without
    /// state. What one call gives for all frames, several give for their parts.
    pub(crate) fn step(&self, features: &Tensor, state: Option<&RnnState>) -> Result<(Tensor, RnnState)> {
        let (frames, state) = self.rnn.forward(features, None, state)?;
        Ok((self.frame_probabilities(&frames)?, state))
    }

    /// `frames` `[batch, n_frames, outputs]` to `[batch, n_frames, n_classes]`.
    fn frame_probabilities(&self, frames: &Tensor) -> Result<Tensor> {
        Ok(self.config.head.probabilities(&self.fc.forward(frames)?)?)
    }

    fn pool(&self, frames: &Tensor, lengths: Option<&[usize]>, state: &RnnState) -> Result<Tensor> {
        if self.config.pooling == TimePooling::Last {
            return Ok(self.last(state)?);
        }
        let scores = self.attention.as_ref().map(|attention| attention.scores(frames)).transpose()?;
        let (batch, n_frames, _) = frames.dims3()?;
        if self.config.pooling == TimePooling::Mean && frames.track_op() {
            // In one piece, for gradients: the share of each frame.
            let share = |i: usize| {
                let length = lengths.map_or(n_frames, |lengths| lengths[i / n_frames]);
                if i % n_frames < length { 1.0 / length as f32 } else { 0.0 }
            };
            let shares = Tensor::from_iter((0..batch * n_frames).map(share), frames.device())?;
            return Ok(frames.broadcast_mul(&shares.reshape((batch, n_frames, 1))?)?.sum(1)?);
        }
        let pool_clip = |clip: usize| {
            let n_frames = lengths.map_or(n_frames, |lengths| lengths[clip]);
            let inside = |x: &Tensor| x.get(clip)?.narrow(0, 0, n_frames);
            let frames = inside(frames)?; // [n_frames, outputs]
            match (&scores, self.config.pooling) {
                (Some(scores), _) => {
                    let weights = candle_nn::ops::softmax(&inside(scores)?, 0)?; // [n_frames, 1]
                    weights.t()?.contiguous()?.matmul(&frames.contiguous()?)?.squeeze(0)
                }
                (None, TimePooling::Max) => frames.max(0),
                (None, _) => frames.mean(0),
            }
        };
        Ok(Tensor::stack(&(0..batch).map(pool_clip).collect::<candle_core::Result<Vec<_>>>()?, 0)?)
    }

    /// The final states of the last layer, `[batch, outputs]`.
    fn last(&self, state: &RnnState) -> candle_core::Result<Tensor> {
        let n_directions = self.rnn.config().n_directions();
        let first = state.h.dim(0)? - n_directions;
        let states = (first..first + n_directions).map(|i| state.h.get(i)).collect::<candle_core::Result<Vec<_>>>()?;
        Tensor::cat(&states, D::Minus1)
    }
}

impl TaggingModel for AudioRnnClassifier {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        let run = |clips: &[&[f32]]| {
            let (features, lengths) = features(&self.features, clips, &self.device)?;
            self.run(&features, Some(&lengths), detail).context("a recurrent classifier")
        };
        match detail {
            Detail::Clip => forward_by_length(batch, &self.info, |_| 0, run),
            // Clips of one length at a time: what follows the frames of a shorter one would not be zeros.
            Detail::Frames => forward_by_length(batch, &self.info, |n_samples| self.features.n_frames(n_samples), run),
        }
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        self.config.head.output(self.fc.forward(embedding)?, embedding.clone())
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.features)
    }

    fn forward_features(&self, features: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        let (batch, n_frames, _) = features.dims3().context("reading the shape of the features")?;
        if n_frames == 0 {
            return Err(Error::TooShort { needed: 1, got: 0 });
        }
        self.run(features, Some(&vec![n_frames; batch]), detail)
    }
}

/// The scores of attention pooling.
#[derive(Debug)]
struct Attention {
    hidden: Linear,
    score: Linear,
}

impl Attention {
    /// Biases are optional; that of the score changes nothing.
    fn load(weights: &Loader, outputs: usize) -> Result<Self> {
        let (hidden, score) = (weights.at("0"), weights.at("2"));
        let width = match hidden.shape("weight") {
            Some(&[width, _]) if width > 0 => width,
            _ => outputs,
        };
        let linear = |place: &Loader, inputs: usize, outputs: usize| {
            if place.lacks("bias") {
                let weight = place.get_vec("weight", &[outputs, inputs])?;
                return Linear::new(weight, vec![0.0; outputs], Activation::Identity, place.device());
            }
            Linear::load(place, inputs, outputs, Activation::Identity)
        };
        Ok(Self { hidden: linear(&hidden, outputs, width)?, score: linear(&score, width, 1)? })
    }

    /// `[batch, n_frames, 1]`.
    fn scores(&self, frames: &Tensor) -> Result<Tensor> {
        self.score.forward(&self.hidden.forward(frames)?.tanh()?)
    }
}
