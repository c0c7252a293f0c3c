//! What a model says about itself, and what it is asked for.

use std::borrow::Cow;

use super::FrameGrid;
use crate::error::{Error, Result};
use crate::labels::LabelSet;
use crate::output::OutputActivation;

/// What is constant about a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The name, for messages.
    pub name: Cow<'static, str>,
    /// The rate of the audio that it takes, in Hz.
    pub sample_rate: u32,
    /// The number of classes; 0 for a model that gives embeddings alone.
    pub n_classes: usize,
    /// The length of the embedding.
    pub embedding_dim: usize,
    /// The shortest clip in samples that is used as it is; shorter ones are padded with zeros at the end to this length.
    pub min_samples: usize,
    /// What makes probabilities of its logits.
    pub activation: OutputActivation,
    /// Where the frames of [`framewise_output`](crate::TaggingOutput::framewise_output) lie; `None` for a model without frames.
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
    /// [`Error::Argument`] in that case.
    pub fn check(&self, detail: Detail) -> Result<()> {
        if detail == Detail::Frames && self.frames.is_none() {
            return Err(Error::argument("detail", "Frames", format!("the model {} has no frames", self.name)));
        }
        Ok(())
    }
}

/// How much of its output a model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Detail {
    /// The result for the clip. A model that decides for frames first gives them too.
    Clip,
    /// [`framewise_output`](crate::TaggingOutput::framewise_output) as well.
    Frames,
}
