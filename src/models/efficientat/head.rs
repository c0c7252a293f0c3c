//! The heads of the MobileNets.

use candle_core::{D, Tensor};

use super::{Config, Head};
use crate::error::{Context, Error, Result};
use crate::nn::{Activation, ConvConfig, ConvStack, Dropout, Linear};
use crate::output::TaggingOutput;
use crate::weights::{Init, Loader};

/// Attention values are clamped to this value and to 1 minus it.
const MIN_ATTENTION: f64 = 1e-7;

/// The head, which classifies the last feature map `[batch, channels, time, mel]` or its mean, the embedding.
#[derive(Debug)]
pub enum Classifier {
    Mlp {
        hidden: Linear,
        dropout: Dropout,
        classes: Linear,
    },
    /// Classes at each position of the map.
    Convolutional(ConvStack),
    Attention {
        /// The attention of all heads and classes, then the values.
        projection: Linear,
        heads: usize,
        weights: Tensor, // [1, heads, 1, 1]
    },
    /// Classes of each time step.
    Frames(Linear),
}

impl Classifier {
    pub fn load(config: &Config, root: &Loader) -> Result<Self> {
        let Config { last, n_classes, .. } = *config;
        let classifier = root.at("classifier");
        Ok(match config.head {
            Head::Mlp(units) => Self::Mlp {
                hidden: Linear::load(&classifier.at(2), last, units, Activation::Hardswish)?,
                dropout: Dropout::new(root, 0.2)?,
                classes: Linear::load(&classifier.at(5).in_f32(), units, n_classes, Activation::Identity)?,
            },
            Head::FullyConvolutional => {
                let mut stack = ConvStack::on_maps(None);
                let shape = ConvConfig::new(last, n_classes, 1);
                stack.conv(&classifier.at(0).in_f32(), Some(&classifier.at(1)), shape, Activation::Identity)?;
                Self::Convolutional(stack)
            }
            Head::AttentionPooling(heads) => {
                let outputs = n_classes * 2 * heads;
                let weights = classifier.parameter("head_weight", (1, heads, 1), Init::Constant(1.0 / heads as f32))?;
                Self::Attention {
                    projection: Linear::load(
                        &classifier.at("subspace_proj").in_f32(),
                        last,
                        outputs,
                        Activation::Identity,
                    )?,
                    heads,
                    weights: weights.unsqueeze(3).context("reshaping the weights of the attention heads")?,
                }
            }
            Head::Frames => {
                // The clip-level head, trained on weak labels only.
                root.ignore("weak_head.*");
                Self::Frames(Linear::load(&root.at("strong_head").in_f32(), last, n_classes, Activation::Identity)?)
            }
        })
    }

    /// Whether the head needs the feature map in addition to the embedding.
    pub fn needs_map(&self) -> bool {
        !matches!(self, Self::Mlp { .. })
    }

    /// Classifies a clip. `map` must be given if it is [needed](Self::needs_map).
    pub fn forward(&self, embedding: Tensor, map: Option<&Tensor>) -> Result<TaggingOutput> {
        match (self, map) {
            (Self::Convolutional(stack), Some(map)) => {
                let (logits, _) = stack.forward_means(map, false, |_, _| Ok(()))?;
                TaggingOutput::multi_label(logits, embedding)
            }
            (Self::Attention { weights, .. }, Some(map)) => {
                let [attention, values] = self.project(map)?; // [batch, heads, n_steps, n_classes]
                let attention = candle_nn::ops::sigmoid(&attention)?.clamp(MIN_ATTENTION, 1.0 - MIN_ATTENTION)?;
                let attention = attention.broadcast_div(&attention.sum_keepdim(2)?)?;
                let pooled = (attention * values)?.sum_keepdim(2)?.broadcast_mul(weights)?;
                TaggingOutput::multi_label(pooled.sum(1)?.squeeze(1)?, embedding)
            }
            (Self::Frames(classes), Some(map)) => {
                let logits = classes.forward(&mean_over_mel(map)?)?; // [batch, n_steps, n_classes]
                let mut output = TaggingOutput::multi_label(logits.max(1)?, embedding)?;
                output.framewise_output = Some(candle_nn::ops::sigmoid(&logits)?);
                Ok(output)
            }
            _ => self.classify(&embedding, "mn"),
        }
    }

    /// Probabilities of each step of the last feature map, `[batch, n_steps, n_classes]`.
    pub fn steps(&self, map: &Tensor) -> Result<Tensor> {
        let logits = match self {
            Self::Mlp { hidden, classes, .. } => classes.forward(&hidden.forward(&mean_over_mel(map)?)?)?,
            Self::Convolutional(stack) => mean_over_mel(&stack.forward(map)?)?,
            Self::Attention { weights, .. } => {
                let [_, values] = self.project(map)?;
                values.broadcast_mul(weights)?.sum(1)?
            }
            Self::Frames(classes) => classes.forward(&mean_over_mel(map)?)?,
        };
        candle_nn::ops::sigmoid(&logits).context("applying the sigmoid to the logits")
    }

    /// Classifies an embedding, for heads whose output depends on the embedding alone.
    pub fn classify(&self, embedding: &Tensor, name: &str) -> Result<TaggingOutput> {
        let logits = match self {
            Self::Mlp { hidden, dropout, classes } => {
                classes.forward(&dropout.forward(&hidden.forward(embedding)?)?)?
            }
            Self::Convolutional(stack) => stack.forward(&embedding.unsqueeze(2)?.unsqueeze(3)?)?.flatten_from(1)?,
            Self::Attention { .. } | Self::Frames(_) => {
                return Err(Error::argument("embedding", name, "this model cannot classify an embedding"));
            }
        };
        TaggingOutput::multi_label(logits, embedding.clone())
    }

    /// Attention and values of each attention head, `[batch, heads, n_steps, n_classes]`.
    fn project(&self, map: &Tensor) -> Result<[Tensor; 2]> {
        let Self::Attention { projection, heads, .. } = self else { unreachable!("the head has no attention") };
        let projected = projection.forward(&mean_over_mel(map)?)?; // [batch, n_steps, 2 · heads · n_classes]
        let (batch, n_steps, outputs) = projected.dims3()?;
        let projected = projected.reshape((batch, n_steps, 2, *heads, outputs / (2 * heads)))?;
        let part = |i: usize| projected.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        Ok([part(0)?, part(1)?])
    }
}

/// Averages `[batch, channels, time, mel]` over mel: `[batch, time, channels]`.
fn mean_over_mel(map: &Tensor) -> candle_core::Result<Tensor> {
    map.mean(D::Minus1)?.transpose(1, 2)?.contiguous()
}
