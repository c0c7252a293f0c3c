//! The constant properties of a model, and the detail of output to request from it.

use std::borrow::Cow;

use super::FrameGrid;
use crate::error::{Error, Result};
use crate::labels::LabelSet;
use crate::output::OutputActivation;

/// Constant properties of a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The model's name, for messages.
    pub name: Cow<'static, str>,
    /// The sample rate of the input audio, in Hz.
    pub sample_rate: u32,
    /// The number of classes; 0 for a model that outputs embeddings only.
    pub n_classes: usize,
    /// The length of the embedding.
    pub embedding_dim: usize,
    /// The shortest clip, in samples, that needs no padding. Shorter clips are zero-padded at the end to this length.
    pub min_samples: usize,
    /// The function that turns logits into probabilities.
    pub activation: OutputActivation,
    /// The position of each frame of [`framewise_output`](crate::TaggingOutput::framewise_output); `None` for a model
    /// without frames.
    pub frames: Option<FrameGrid>,
    /// The class names, if the model defines them.
    pub labels: Option<LabelSet>,
}

impl ModelInfo {
    /// Properties of a multi-label model that accepts clips of any length and has neither frames nor labels. Set the
    /// public fields to change any of these.
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

    /// Checks that the model can produce the requested detail.
    ///
    /// # Errors
    /// [`Error::Argument`] for [`Detail::Frames`] if the model has no frames.
    pub fn check(&self, detail: Detail) -> Result<()> {
        if detail == Detail::Frames && self.frames.is_none() {
            return Err(Error::argument("detail", "Frames", format!("the model {} has no frame output", self.name)));
        }
        Ok(())
    }
}

/// Which outputs to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Detail {
    /// The result for the clip. Models that classify frames first still return them.
    Clip,
    /// Also [`framewise_output`](crate::TaggingOutput::framewise_output).
    Frames,
}
