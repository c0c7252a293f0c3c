//! The classification head of the PANNs networks.

use candle_core::Tensor;

use super::pool_over_time;
use crate::error::Result;
use crate::models::Detail;
use crate::models::frames::{Edge, max_plus_mean_of_neighbours};
use crate::nn::{Activation, Dropout, Linear};
use crate::output::TaggingOutput;
use crate::weights::Loader;

/// Max + mean over time, `fc1` with ReLU (the embedding), `fc_audioset`, sigmoid.
#[derive(Debug)]
pub struct Head {
    pooled_dropout: Dropout,
    fc1: Linear,
    fc_audioset: Linear,
}

impl Head {
    pub fn load(root: &Loader, channels: usize, embedding_dim: usize, n_classes: usize) -> Result<Self> {
        Ok(Self {
            pooled_dropout: Dropout::new(root, 0.5)?,
            fc1: Linear::load(&root.at("fc1"), channels, embedding_dim, Activation::Relu)?,
            fc_audioset: Linear::load(
                &root.at("fc_audioset").in_f32(),
                embedding_dim,
                n_classes,
                Activation::Identity,
            )?,
        })
    }

    /// Classifies the time steps `[batch, channels, n_steps]` of a clip. The frames, if requested, are the steps, each
    /// pooled with its two neighbours: `[batch, n_steps, n_classes]`.
    pub fn forward(&self, steps: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        let pooled = self.pooled_dropout.forward(&pool_over_time(steps)?)?; // [batch, channels]
        let mut output = self.classify(&self.fc1.forward(&pooled)?)?;
        if detail == Detail::Frames {
            let steps = self.fc1.forward(&max_plus_mean_of_neighbours(steps, Edge::Cut)?)?; // [batch, n_steps, embedding_dim]
            output.framewise_output = Some(candle_nn::ops::sigmoid(&self.fc_audioset.forward(&steps)?)?);
        }
        Ok(output)
    }

    /// Classifies embeddings `[batch, embedding_dim]`.
    pub fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        TaggingOutput::multi_label(self.fc_audioset.forward(embedding)?, embedding.clone())
    }
}
