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

use super::batch::forward_by_length;
use super::{Detail, FrameGrid, ModelInfo, OutputActivation, TaggingModel};
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

impl Config {
    /// Two layers of bidirectional GRU over 64 mels, the mean over time, 10 classes: 448,010 parameters.
    pub const BIGRU: Self = Self {
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
    pub const BILSTM_ATTENTION: Self = Self { cell: Cell::Lstm, pooling: TimePooling::Attention, ..Self::BIGRU };
    /// Speech-Commands-Classification-by-LSTM-PyTorch: 3 layers of LSTM, the last state, 35 words.
    pub const SPEECH_COMMANDS: Self = Self {
        features: FeaturesConfig::SPEECH_COMMANDS,
        cell: Cell::Lstm,
        hidden: 64,
        n_layers: 3,
        bidirectional: false,
        pooling: TimePooling::Last,
        n_classes: 35,
        head: OutputActivation::Softmax,
    };

    /// Takes cell, sizes and classes from a checkpoint, where it has them.
    pub(super) fn fit(&mut self, weights: &Weights) {
        let Some(name) = key(|name| weights.contains(&format!("{name}.weight_hh_l0"))) else { return };
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

    fn info(&self, features: &Features) -> ModelInfo {
        ModelInfo {
            name: "rnn".into(),
            sample_rate: self.features.sample_rate(),
            n_classes: self.n_classes,
            embedding_dim: self.rnn(true).outputs(),
            min_samples: features.min_samples(),
            activation: self.head,
            frames: Some(FrameGrid { first: 0, step: self.features.hop_length() }),
            labels: None,
        }
    }

    /// The sizes of the recurrent layers.
    pub fn rnn(&self, bias: bool) -> RnnConfig {
        let Self { cell, hidden, n_layers, bidirectional, .. } = *self;
        RnnConfig { cell, inputs: self.features.n_features(), hidden, n_layers, bidirectional, bias }
    }
}

/// The name that a checkpoint has for its recurrent layers.
fn key(has: impl Fn(&str) -> bool) -> Option<&'static str> {
    ["rnn", "gru", "lstm"].into_iter().find(|name| has(name))
}

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
        root.finish("rnn")?;
        Ok(model)
    }

    /// The model with the tensors that a loader gives: of a checkpoint, or to be trained.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, else as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        check::size("n_classes", config.n_classes, MAX_CLASSES)?;
        let features = Features::new(&config.features)?;
        let name = key(|name| root.contains(&format!("{name}.weight_hh_l0"))).unwrap_or("rnn");
        let rnn = root.at(name);
        let rnn = Rnn::load(&rnn, config.rnn(rnn.contains("bias_ih_l0")))?;
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
    /// [`Error::Config`] unless there is one length from 1 to `n_frames` a clip, [`Error::Tensor`] if the shape or the
    /// device does not fit.
    pub fn forward_padded(&self, features: &Tensor, lengths: Option<&[usize]>) -> Result<TaggingOutput> {
        let (frames, state) = self.rnn.forward(features, lengths, None)?; // [batch, n_frames, outputs]
        self.classify(&self.pool(&frames, lengths, &state)?)
    }

    fn run(&self, features: &Tensor, lengths: &[usize], detail: Detail) -> Result<TaggingOutput> {
        let (frames, state) = self.rnn.forward(features, Some(lengths), None)?; // [batch, n_frames, outputs]
        let mut output = self.classify(&self.pool(&frames, Some(lengths), &state)?)?;
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
        self.config.head.probabilities(&self.fc.forward(frames)?).context("the probabilities of frames")
    }

    fn pool(&self, frames: &Tensor, lengths: Option<&[usize]>, state: &RnnState) -> Result<Tensor> {
        let context = "pooling over time";
        if self.config.pooling == TimePooling::Last {
            return self.last(state).context(context);
        }
        let scores = self.attention.as_ref().map(|attention| attention.scores(frames)).transpose()?;
        let (batch, n_frames, _) = frames.dims3().context(context)?;
        if self.config.pooling == TimePooling::Mean && frames.track_op() {
            // In one piece, for gradients: the share of each frame.
            let share = |i: usize| {
                let length = lengths.map_or(n_frames, |lengths| lengths[i / n_frames]);
                if i % n_frames < length { 1.0 / length as f32 } else { 0.0 }
            };
            let shares = Tensor::from_iter((0..batch * n_frames).map(share), frames.device());
            let shares = shares.and_then(|shares| shares.reshape((batch, n_frames, 1)));
            return shares.and_then(|shares| frames.broadcast_mul(&shares)?.sum(1)).context(context);
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
        let rows = (0..batch).map(pool_clip).collect::<candle_core::Result<Vec<_>>>();
        rows.and_then(|rows| Tensor::stack(&rows, 0)).context(context)
    }

    /// The final states of the last layer, `[batch, outputs]`.
    fn last(&self, state: &RnnState) -> candle_core::Result<Tensor> {
        let n_directions = self.rnn.config().n_directions();
        let first = state.h.dim(0)? - n_directions;
        let states = (first..first + n_directions).map(|i| state.h.get(i)).collect::<candle_core::Result<Vec<_>>>()?;
        Tensor::cat(&states, D::Minus1)
    }

    /// Features of clips of any lengths, zeros where a clip has no more, and the frames of each.
    fn batch(&self, clips: &[Cow<[f32]>]) -> Result<(Tensor, Vec<usize>)> {
        let features = clips.iter().map(|clip| self.features.compute(clip)).collect::<Result<Vec<_>>>()?;
        let lengths: Vec<usize> = features.iter().map(|features| features.nrows()).collect();
        let (longest, n_features) = (lengths.iter().copied().max().unwrap_or(0), self.config.features.n_features());
        let mut values = vec![0.0; clips.len() * longest * n_features];
        for (values, features) in values.chunks_mut(longest * n_features).zip(&features) {
            values.iter_mut().zip(features).for_each(|(to, from)| *to = *from);
        }
        let tensor = Tensor::from_vec(values, (clips.len(), longest, n_features), &self.device);
        Ok((tensor.context("moving the features to the device")?, lengths))
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
        let run = |clips: &[Cow<[f32]>]| {
            let (features, lengths) = self.batch(clips)?;
            self.run(&features, &lengths, detail)
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
        self.run(features, &vec![n_frames; batch], detail)
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
            if place.contains("bias") {
                return Linear::load(place, inputs, outputs, Activation::Identity);
            }
            let weight = place.get_vec("weight", &[outputs, inputs])?;
            Linear::new(weight, vec![0.0; outputs], Activation::Identity, place.device())
        };
        Ok(Self { hidden: linear(&hidden, outputs, width)?, score: linear(&score, width, 1)? })
    }

    /// `[batch, n_frames, 1]`.
    fn scores(&self, frames: &Tensor) -> Result<Tensor> {
        let hidden = self.hidden.forward(frames)?.tanh().context("attention over time")?;
        self.score.forward(&hidden)
    }
}
