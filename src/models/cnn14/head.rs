//! The last layer of CNN14 and the pooling of segments.

use candle_core::Tensor;

use super::{Config, Decision};
use crate::error::Result;
use crate::models::OutputActivation;
use crate::nn::{Activation, Linear};
use crate::output::TaggingOutput;
use crate::weights::Loader;

/// Bound on the magnitude of the attention scores.
const MAX_SCORE: f64 = 10.0;

/// The last layer.
#[derive(Debug)]
pub(super) struct Classifier {
    activation: OutputActivation,
    decision: Decision,
    /// `fc_audioset`, `fc_transfer` or `att_block.cla`.
    classes: Linear,
    /// `att_block.att`.
    attention: Option<Linear>,
}

impl Classifier {
    pub fn load(config: &Config, root: &Loader) -> Result<Self> {
        let (inputs, outputs) = (config.embedding_dim, config.n_classes);
        let linear = |place: &Loader| Linear::load(&place.clone().in_f32(), inputs, outputs, Activation::Identity);
        let (classes, attention) = match (config.decision, config.head) {
            (Decision::Att, _) => {
                let block = root.at("att_block");
                block.ignore("bn_att.*"); // unused in the published class
                let of_kernel_one = |place: &Loader| {
                    let weight = place.get_vec("weight", &[outputs, inputs, 1])?;
                    Linear::new(weight, place.get_vec("bias", &[outputs])?, Activation::Identity, place.device())
                };
                (of_kernel_one(&block.at("cla"))?, Some(of_kernel_one(&block.at("att"))?))
            }
            (_, OutputActivation::Sigmoid) => (linear(&root.at("fc_audioset"))?, None),
            (_, OutputActivation::Softmax) => {
                root.ignore("fc_audioset.*");
                (linear(&root.at("fc_transfer"))?, None)
            }
        };
        Ok(Self { activation: config.head, decision: config.decision, classes, attention })
    }

    /// Classifies embeddings `[batch, embedding_dim]`.
    pub fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        let logits = self.classes.forward(embedding)?; // [batch, n_classes]
        self.activation.output(logits, embedding.clone())
    }

    /// Probabilities `[batch, n_segments, n_classes]` of segments `[batch, n_segments, embedding_dim]`.
    pub fn probabilities(&self, segments: &Tensor) -> Result<Tensor> {
        Ok(self.activation.probabilities(&self.classes.forward(segments)?)?)
    }

    /// Classifies segments `[batch, n_segments, embedding_dim]` and pools the results. The frames are the segments; the
    /// embedding is their mean.
    pub fn classify_segments(&self, segments: &Tensor) -> Result<TaggingOutput> {
        let logits = self.classes.forward(segments)?; // [batch, n_segments, n_classes]
        let probabilities = candle_nn::ops::sigmoid(&logits)?;
        let embedding = segments.mean(1)?;
        let mut output = match self.decision {
            // The sigmoid is monotonic, so the maximum probability is that of the maximum logit.
            Decision::Max => TaggingOutput::multi_label(logits.max(1)?, embedding)?,
            _ => {
                // [batch, n_classes]
                let clipwise_output = match &self.attention {
                    None => probabilities.mean(1)?,
                    Some(attention) => weighted(&attention.forward(segments)?, &probabilities)?,
                };
                let logits = OutputActivation::Sigmoid.logits(&clipwise_output)?;
                TaggingOutput::new(logits, clipwise_output, embedding)
            }
        };
        output.framewise_output = Some(probabilities);
        Ok(output)
    }
}

/// The mean over segments of `values`, weighted by the softmax of `scores`, both `[batch, n_segments, n_classes]`.
fn weighted(scores: &Tensor, values: &Tensor) -> candle_core::Result<Tensor> {
    let weights = candle_nn::ops::softmax(&scores.clamp(-MAX_SCORE, MAX_SCORE)?, 1)?;
    (weights * values)?.sum(1)
}
