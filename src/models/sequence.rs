//! Code shared by models over frames: pooling over time, the last layer, streaming.

use std::borrow::Cow;
use std::fmt::Debug;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch::{features, forward_by_length};
use super::{Detail, FrameGrid, ModelInfo, OutputActivation, TaggingModel};
use crate::audio::WaveformBatch;
use crate::check::{self, MAX_CLASSES};
use crate::error::{Context, Error, Result};
use crate::frontend::FrontEnd;
use crate::frontend::features::Features;
use crate::nn::{Activation, Linear};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

/// How the frames of a clip are pooled into one vector. Padding frames beyond a clip's length are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimePooling {
    /// The final state of each direction: forward at the last frame, backward at the first.
    Last,
    /// The mean over the frames.
    Mean,
    /// The maximum over the frames.
    Max,
    /// Attention pooling: `Σ a_t h_t` with `a = softmax_t(vᵀ tanh(W h_t + b))`.
    Attention,
}

/// Pooling and the last layer, for the clip and for each frame.
#[derive(Debug)]
pub(super) struct SequenceHead {
    pooling: TimePooling,
    attention: Option<Attention>,
    fc: Linear,
    activation: OutputActivation,
}

impl SequenceHead {
    /// The last layer is named `fc` or `linear` in the checkpoint.
    pub fn load(
        root: &Loader,
        pooling: TimePooling,
        inputs: usize,
        n_classes: usize,
        activation: OutputActivation,
    ) -> Result<Self> {
        check::size("n_classes", n_classes, MAX_CLASSES)?;
        let attention = match pooling {
            TimePooling::Attention => Some(Attention::load(&root.at("attention"), inputs)?),
            _ => None,
        };
        let fc = Linear::load(&root.at(root.first_of(&FC)).in_f32(), inputs, n_classes, Activation::Identity)?;
        Ok(Self { pooling, attention, fc, activation })
    }

    /// Classifies an `embedding` `[batch, inputs]`.
    pub fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        self.activation.output(self.fc.forward(embedding)?, embedding.clone())
    }

    /// Probabilities `[batch, n_frames, n_classes]` of `frames` `[batch, n_frames, inputs]`.
    pub fn frames(&self, frames: &Tensor) -> Result<Tensor> {
        Ok(self.activation.probabilities(&self.fc.forward(frames)?)?)
    }

    /// Pools frames `[batch, n_frames, inputs]` to `[batch, inputs]`, over the first `lengths[b]` frames of clip `b`,
    /// or over all frames if `lengths` is `None`. `last` computes the vectors of [`TimePooling::Last`].
    pub fn pool(
        &self,
        frames: &Tensor,
        lengths: Option<&[usize]>,
        last: impl FnOnce() -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        if self.pooling == TimePooling::Last {
            return Ok(last()?);
        }
        let scores = self.attention.as_ref().map(|attention| attention.scores(frames)).transpose()?;
        let (batch, n_frames, _) = frames.dims3()?;
        if self.pooling == TimePooling::Mean && frames.track_op() {
            // As one weighted sum, for gradients; each frame's weight is 1 / length, and 0 in the padding.
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
            match (&scores, self.pooling) {
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
}

/// Names of the last layer in checkpoints.
const FC: [&str; 2] = ["fc", "linear"];

/// Reads from a checkpoint whether frames are pooled by attention, and the number of classes.
pub(super) fn fit_head(weights: &Weights, pooling: &mut TimePooling, n_classes: &mut usize) {
    if weights.contains("attention.0.weight") {
        *pooling = TimePooling::Attention;
    }
    let rows = FC.iter().find_map(|name| weights.shape(&format!("{name}.weight"))?.first().copied());
    *n_classes = rows.unwrap_or(*n_classes);
}

/// The scoring network of attention pooling.
#[derive(Debug)]
struct Attention {
    hidden: Linear,
    score: Linear,
}

impl Attention {
    /// Biases are optional. The bias of the score has no effect, because the softmax cancels it.
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
            Linear::load(&place.clone().in_f32(), inputs, outputs, Activation::Identity)
        };
        Ok(Self { hidden: linear(&hidden, outputs, width)?, score: linear(&score, width, 1)? })
    }

    /// Unnormalised scores `[batch, n_frames, 1]`.
    fn scores(&self, frames: &Tensor) -> Result<Tensor> {
        self.score.forward(&self.hidden.forward(frames)?.tanh()?)
    }
}

/// The constant properties of a model over `features`.
pub(super) fn info(
    name: Cow<'static, str>,
    features: &Features,
    n_classes: usize,
    embedding_dim: usize,
    activation: OutputActivation,
) -> ModelInfo {
    ModelInfo {
        min_samples: features.min_samples(),
        activation,
        frames: Some(FrameGrid { first: 0, step: features.config().hop_length() }),
        ..ModelInfo::new(name, features.config().sample_rate(), n_classes, embedding_dim)
    }
}

/// The layers between the front end and the head, which map frames to frames.
pub trait Backbone: Debug + Send + Sync {
    /// What is carried from one block of frames to the next.
    type State: Debug + Send;

    /// What is being run, for error messages.
    const WHAT: &'static str;

    /// Maps features `[batch, n_frames, n_features]` to frames `[batch, n_frames, outputs]` and the state after the
    /// last frame. `state` is the state after the preceding frames; of clip `b` the first `lengths[b]` frames count.
    ///
    /// # Errors
    /// [`Error::Argument`] for invalid lengths, [`Error::Tensor`] if the shape or the device does not match.
    fn forward(
        &self,
        features: &Tensor,
        lengths: Option<&[usize]>,
        state: Option<&Self::State>,
    ) -> Result<(Tensor, Self::State)>;

    /// The vectors of [`TimePooling::Last`], `[batch, outputs]`, from the `frames` and `state` returned by
    /// [`forward`](Self::forward).
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn last(&self, frames: &Tensor, lengths: Option<&[usize]>, state: &Self::State) -> candle_core::Result<Tensor>;

    /// Checks that each frame depends only on earlier frames.
    ///
    /// # Errors
    /// [`Error::Config`] if it does not.
    fn check_causal(&self) -> Result<()>;
}

/// A classifier of sequences: a front end, a [`Backbone`] over its frames, and a head.
#[derive(Debug)]
pub struct SequenceClassifier<C, B> {
    pub(super) config: C,
    pub(super) info: ModelInfo,
    pub(super) device: Device,
    pub(super) features: Features,
    pub(super) backbone: B,
    pub(super) head: SequenceHead,
}

impl<C, B: Backbone> SequenceClassifier<C, B> {
    /// The configuration of the model.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// The front end.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Runs everything after the front end on features `[batch, n_frames, n_features]`, f32, on the model's device. The
    /// first `lengths[b]` frames of clip `b` count, or all frames if `lengths` is `None`.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there is one length of 1 to `n_frames` per clip, [`Error::Tensor`] if the shape or
    /// the device does not match.
    pub fn forward_padded(&self, features: &Tensor, lengths: Option<&[usize]>) -> Result<TaggingOutput> {
        self.run(features, lengths, Detail::Clip).context(B::WHAT)
    }

    /// Runs the next frames of a sequence: features `[batch, n_frames, n_features]` that follow those that led to
    /// `state`, which is `None` at the start. Returns the probabilities `[batch, n_frames, n_classes]` of each frame
    /// and the new state. Splitting a sequence over several calls gives the same frames as one call.
    pub(crate) fn step(&self, features: &Tensor, state: Option<&B::State>) -> Result<(Tensor, B::State)> {
        let (frames, state) = self.backbone.forward(features, None, state)?;
        Ok((self.head.frames(&frames)?, state))
    }

    /// Checks that the model can run on a stream.
    pub(crate) fn check_causal(&self) -> Result<()> {
        self.backbone.check_causal()
    }

    fn run(&self, features: &Tensor, lengths: Option<&[usize]>, detail: Detail) -> Result<TaggingOutput> {
        let (frames, state) = self.backbone.forward(features, lengths, None)?; // [batch, n_frames, outputs]
        let embedding = self.head.pool(&frames, lengths, || self.backbone.last(&frames, lengths, &state))?;
        let mut output = self.head.classify(&embedding)?;
        if detail == Detail::Frames {
            output.framewise_output = Some(self.head.frames(&frames)?);
        }
        Ok(output)
    }
}

impl<C: Send + Sync, B: Backbone> TaggingModel for SequenceClassifier<C, B> {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        let run = |clips: &[&[f32]]| {
            let (features, lengths) = features(&self.features, clips, &self.device)?;
            self.run(&features, Some(&lengths), detail).context(B::WHAT)
        };
        match detail {
            Detail::Clip => forward_by_length(batch, &self.info, |_| 0, run),
            // Only clips of one length: the padding of a shorter clip would not become zeros in its frames.
            Detail::Frames => forward_by_length(batch, &self.info, |n_samples| self.features.n_frames(n_samples), run),
        }
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        self.head.classify(embedding)
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
