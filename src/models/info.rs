//! What a model says about itself, and what it is asked for.

use std::borrow::Cow;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::FrameGrid;
use crate::error::{Error, Result};
use crate::labels::LabelSet;
use crate::output::TaggingOutput;

/// What is constant about a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The name, for messages.
    pub name: Cow<'static, str>,
    /// The rate of the audio that it takes, in Hz.
    pub sample_rate: u32,
    /// The number of classes.
    pub n_classes: usize,
    /// The length of the embedding.
    pub embedding_dim: usize,
    /// The shortest clip in samples that is used as it is; shorter ones are padded with zeros at the end to this length.
    pub min_samples: usize,
    /// What makes probabilities of its logits.
    pub activation: OutputActivation,
    /// Where the frames of [`framewise_output`](TaggingOutput::framewise_output) lie; `None` for a model without frames.
    pub frames: Option<FrameGrid>,
    /// The names of the classes, where the model itself knows them.
    pub labels: Option<LabelSet>,
}

impl ModelInfo {
    /// A model that uses clips of any length as they are, with independent classes, and without frames or labels; the fields
    /// can be set to say otherwise.
    pub fn new(name: impl Into<Cow<'static, str>>, sample_rate: u32, n_classes: usize, embedding_dim: usize) -> Self {
        Self {
            name: name.into(),
            sample_rate,
            n_classes,
            embedding_dim,
            min_samples: 1,
            activation: OutputActivation::Sigmoid,
            frames: None,
            labels: None,
        }
    }

    /// Refuses [`Detail::Frames`] for a model without frames.
    ///
    /// # Errors
    /// [`Error::Config`] in that case.
    pub fn check(&self, detail: Detail) -> Result<()> {
        if detail == Detail::Frames && self.frames.is_none() {
            return Err(Error::config("detail", "Frames", format!("the model {} has no frames", self.name)));
        }
        Ok(())
    }
}

/// How much of its output a model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detail {
    /// The result for the clip. A model that decides for frames first gives them too.
    Clip,
    /// [`framewise_output`](TaggingOutput::framewise_output) as well.
    Frames,
}

/// What makes probabilities of the last layer's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputActivation {
    /// One class per clip: probabilities that sum to 1. Read from `transfer` too, the name that CNN14 had for it.
    #[serde(alias = "transfer")]
    Softmax,
    /// Any number of classes per clip: independent probabilities. Read from `audioset` too.
    #[serde(alias = "audioset")]
    Sigmoid,
}

impl OutputActivation {
    /// The output for clips: `logits` `[batch, n_classes]`, `embedding` `[batch, embedding_dim]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn output(self, logits: Tensor, embedding: Tensor) -> Result<TaggingOutput> {
        match self {
            Self::Softmax => TaggingOutput::single_label(logits, embedding),
            Self::Sigmoid => TaggingOutput::multi_label(logits, embedding),
        }
    }

    /// The probabilities of logits whose last dimension is the classes.
    pub(super) fn probabilities(self, logits: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Softmax => candle_nn::ops::softmax_last_dim(logits),
            Self::Sigmoid => candle_nn::ops::sigmoid(logits),
        }
    }
}
