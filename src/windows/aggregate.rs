//! Aggregation of window results to one result per recording.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::WindowTagging;
use crate::error::{Context, Error, Result};
use crate::output::{Embedding, Tagging};
use crate::tagger::Tagger;

/// How the results of windows are combined. Means are weighted by the duration of the windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Aggregation {
    /// The mean of the probabilities and of the embeddings.
    Mean,
    /// The maximum of the probabilities per class, and of the embeddings per value.
    Max,
    /// The output of the model's last layer for the mean of the embeddings, as in transfer learning with PANNs. (To
    /// pool over time within the model instead, as PANNs' own script does, tag the recording as one clip with
    /// [`Tagger::tag`]; its memory grows with the length.)
    Embedding,
}

/// Aggregates windows one by one.
#[derive(Debug, Clone)]
pub struct Aggregator {
    aggregation: Aggregation,
    seconds: f64,
    scores: Vec<f64>,
    embedding: Vec<f64>,
}

impl Aggregator {
    /// Creates an aggregator without windows.
    pub fn new(aggregation: Aggregation) -> Self {
        Self { aggregation, seconds: 0.0, scores: Vec::new(), embedding: Vec::new() }
    }

    /// Adds a window.
    pub fn push(&mut self, window: &WindowTagging) {
        let seconds = window.end - window.start;
        self.seconds += seconds;
        let largest = self.aggregation == Aggregation::Max;
        let add = |sums: &mut Vec<f64>, values: &[f32]| {
            if sums.len() < values.len() {
                sums.resize(values.len(), if largest { f64::NEG_INFINITY } else { 0.0 });
            }
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum = if largest { sum.max(f64::from(value)) } else { *sum + seconds * f64::from(value) };
            }
        };
        add(&mut self.scores, &window.tagging.scores);
        add(&mut self.embedding, &window.tagging.embedding);
    }

    /// Returns the result for all windows. Its `logits` are `ln(p / (1 − p))` of its probabilities (`ln p` for
    /// softmax), or for [`Aggregation::Embedding`] those of the last layer.
    ///
    /// # Errors
    /// [`Error::TooShort`] if there were no windows; for [`Aggregation::Embedding`] also as
    /// [`TaggingModel::classify`](crate::TaggingModel::classify).
    pub fn finish(self, tagger: &Tagger) -> Result<Tagging> {
        if self.scores.is_empty() {
            return Err(Error::TooShort { needed: 1, got: 0 });
        }
        let scale = if self.aggregation == Aggregation::Max { 1.0 } else { self.seconds.recip() };
        let values = |sums: Vec<f64>| -> Vec<f32> { sums.into_iter().map(|sum| (sum * scale) as f32).collect() };
        let (scores, embedding) = (values(self.scores), values(self.embedding));
        let context = "aggregating windows";
        let model = tagger.model();
        if self.aggregation == Aggregation::Embedding {
            let length = embedding.len();
            let embedding = Tensor::from_vec(embedding, (1, length), model.device()).context(context)?;
            let tagging = model.classify(&embedding)?.to_taggings(tagger.labels())?.pop();
            return tagging
                .ok_or_else(|| candle_core::Error::Msg("the model returned no row".to_string()))
                .context(context);
        }
        let probabilities = Tensor::new(scores.as_slice(), &candle_core::Device::Cpu).context(context)?;
        let logits = model.info().activation.logits(&probabilities)?.to_vec1().context(context)?;
        Ok(Tagging { scores, logits, embedding: Embedding(embedding), labels: tagger.labels().clone() })
    }
}
