//! Results of taggers: tensors for a batch, plain data for a clip.

use candle_core::Tensor;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::labels::LabelSet;

/// The result of a tagging model for a batch. All tensors are f32 on the model's device.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaggingOutput {
    /// Logits (values before the activation), `[batch, n_classes]`.
    pub logits: Tensor,
    /// Probabilities, `[batch, n_classes]`, in `0..=1`: independent for multi-label models (sigmoid), with a sum of 1
    /// for single-label models (softmax).
    pub clipwise_output: Tensor,
    /// Probabilities per output frame, `[batch, n_frames, n_classes]`, if they were requested and the model has them.
    /// If the clips of a batch differ in length, shorter ones are padded with zeros.
    pub framewise_output: Option<Tensor>,
    /// The embedding: the input of the last layer, `[batch, embedding_dim]`.
    pub embedding: Tensor,
}

impl TaggingOutput {
    /// Creates an output without frames; set [`framewise_output`](#structfield.framewise_output) to add them.
    pub fn new(logits: Tensor, clipwise_output: Tensor, embedding: Tensor) -> Self {
        Self { logits, clipwise_output, framewise_output: None, embedding }
    }

    /// Creates the output of a multi-label head: the sigmoid of `logits` `[batch, n_classes]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn multi_label(logits: Tensor, embedding: Tensor) -> Result<Self> {
        let clipwise_output = candle_nn::ops::sigmoid(&logits).context("computing the sigmoid of the logits")?;
        Ok(Self::new(logits, clipwise_output, embedding))
    }

    /// Creates the output of a single-label head: the softmax of `logits` `[batch, n_classes]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn single_label(logits: Tensor, embedding: Tensor) -> Result<Self> {
        let clipwise_output =
            candle_nn::ops::softmax_last_dim(&logits).context("computing the softmax of the logits")?;
        Ok(Self::new(logits, clipwise_output, embedding))
    }

    /// Copies the batch to the host, as one [`Tagging`] per row.
    ///
    /// # Errors
    /// [`Error::LabelCount`] if the number of `labels` differs from `n_classes`; [`Error::Tensor`] if copying fails.
    pub fn to_taggings(&self, labels: &LabelSet) -> Result<Vec<Tagging>> {
        let rows = |tensor: &Tensor| tensor.to_vec2::<f32>().context("copying the result to the host");
        let (scores, logits, embeddings) = (rows(&self.clipwise_output)?, rows(&self.logits)?, rows(&self.embedding)?);
        let n_classes = self.logits.dim(1).context("reading the shape of the logits")?;
        if n_classes != labels.len() {
            return Err(Error::LabelCount { n_classes, n_labels: labels.len() });
        }
        let rows = scores.into_iter().zip(logits).zip(embeddings);
        let tagging = |((scores, logits), embedding)| Tagging {
            scores,
            logits,
            embedding: Embedding(embedding),
            labels: labels.clone(),
        };
        Ok(rows.map(tagging).collect())
    }
}

/// The activation that turns logits into probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutputActivation {
    /// One class per clip: probabilities with a sum of 1. In files also `transfer`, CNN14's name for it.
    #[serde(alias = "transfer")]
    Softmax,
    /// Any number of classes per clip: independent probabilities. In files also `audioset`.
    #[serde(alias = "audioset")]
    Sigmoid,
}

impl OutputActivation {
    /// The activation for `problem_type` in a `config.json` of transformers; softmax if it is absent.
    ///
    /// # Errors
    /// [`Error::Config`] for `regression`, which has no classes.
    pub(crate) fn of_hugging_face(config: &serde_json::Value) -> Result<Self> {
        match config.get("problem_type").and_then(serde_json::Value::as_str) {
            Some("multi_label_classification") => Ok(Self::Sigmoid),
            Some("regression") => Err(Error::config("problem_type", "regression", "expected a classification")),
            _ => Ok(Self::Softmax),
        }
    }

    /// The output for `logits` `[batch, n_classes]` and `embedding` `[batch, embedding_dim]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn output(self, logits: Tensor, embedding: Tensor) -> Result<TaggingOutput> {
        match self {
            Self::Softmax => TaggingOutput::single_label(logits, embedding),
            Self::Sigmoid => TaggingOutput::multi_label(logits, embedding),
        }
    }

    /// The inverse of [`probabilities`](Self::probabilities); finite for probabilities of 0 and 1.
    pub(crate) fn logits(self, probabilities: &Tensor) -> Result<Tensor> {
        let logits = || match self {
            Self::Softmax => probabilities.clamp(f32::MIN_POSITIVE, 1.0)?.log(),
            Self::Sigmoid => {
                let p = probabilities.clamp(f32::MIN_POSITIVE, 1.0 - f32::EPSILON / 2.0)?;
                p.log()? - p.affine(-1.0, 1.0)?.log()?
            }
        };
        logits().context("computing logits from probabilities")
    }

    /// The probabilities for logits whose last dimension is the classes.
    pub(crate) fn probabilities(self, logits: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Softmax => candle_nn::ops::softmax_last_dim(logits),
            Self::Sigmoid => candle_nn::ops::sigmoid(logits),
        }
    }
}

/// The tags of one clip, on the host.
///
/// All fields are plain data. [`top_k`](Tagging::top_k), [`above`](Tagging::above) and
/// [`most_specific`](Tagging::most_specific) give short lists for display.
///
/// In serialized form, `labels` is the name of a built-in label set (`"audioset"`, `"audioset_by_name"`, `"audioset_strong"`,
/// `"yamnet"`), or a list for any other set. For short records, serialize [`Tag`]s instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tagging {
    /// The probability of each class, in `0..=1` and in the order of `labels`: the model's `clipwise_output`.
    pub scores: Vec<f32>,
    /// The logit of each class: the score before the activation.
    pub logits: Vec<f32>,
    /// The embedding: the input of the model's last layer.
    pub embedding: Embedding,
    /// The names of the classes.
    #[serde(with = "crate::labels::by_name")]
    pub labels: LabelSet,
}

/// One class of a [`Tagging`] with its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tag {
    /// The index of the class in the label set.
    pub index: usize,
    /// Machine id, such as AudioSet's `/m/09x0r`, if the label set has one.
    pub id: Option<String>,
    /// Display name.
    pub label: String,
    /// Probability, in `0..=1`.
    pub score: f32,
}

impl Tagging {
    /// The `k` classes with the highest scores, in descending order. Equal scores are in the order of the classes.
    pub fn top_k(&self, k: usize) -> Vec<Tag> {
        let mut order: Vec<usize> = (0..self.scores.len()).collect();
        order.sort_by(|&a, &b| self.scores[b].total_cmp(&self.scores[a]));
        order.into_iter().take(k).map(|index| self.tag(index)).collect()
    }

    /// All classes with a score above `threshold`, in descending order.
    pub fn above(&self, threshold: f32) -> Vec<Tag> {
        let mut tags = self.top_k(self.scores.len());
        tags.retain(|tag| tag.score > threshold);
        tags
    }

    /// The classes [`above`](Tagging::above) `threshold`, without those that have a more specific class among them, highest
    /// first. Where `Bark` is above the threshold, `Dog`, `Domestic animals, pets` and `Animal` are left out. Relies on
    /// [`Label::parents`].
    ///
    /// [`Label::parents`]: crate::Label::parents
    pub fn most_specific(&self, threshold: f32) -> Vec<Tag> {
        let indices: Vec<usize> = self.above(threshold).iter().map(|tag| tag.index).collect();
        self.labels.most_specific(&indices).into_iter().map(|index| self.tag(index)).collect()
    }

    /// The score of a class, by display name or machine id; `None` if there is no such class.
    pub fn score(&self, name_or_id: &str) -> Option<f32> {
        self.scores.get(self.labels.index_of(name_or_id)?).copied()
    }

    /// The embedding, for similarity search and for training classifiers.
    pub fn embedding(&self) -> &Embedding {
        &self.embedding
    }

    fn tag(&self, index: usize) -> Tag {
        let (id, label) = match self.labels.get(index) {
            Some(label) => (label.id.clone(), label.name.clone()),
            None => (None, format!("class {index}")), // only if the public fields were edited
        };
        Tag { index, id, label, score: self.scores[index] }
    }
}

/// The embedding of a clip: the input of the model's last layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Embedding(pub Vec<f32>);

impl Embedding {
    /// Cosine similarity, in `-1..=1`. 0 if either vector is zero or the lengths differ.
    ///
    /// ```
    /// # use clipwise::Embedding;
    /// assert_eq!(Embedding(vec![1.0, 1.0]).cosine(&Embedding(vec![2.0, 2.0])), 1.0);
    /// ```
    pub fn cosine(&self, other: &Self) -> f32 {
        if self.len() != other.len() {
            return 0.0;
        }
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let norms = (dot(self, self) * dot(other, other)).sqrt();
        if norms > 0.0 { (dot(self, other) / norms) as f32 } else { 0.0 }
    }
}

impl std::ops::Deref for Embedding {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagging() -> Tagging {
        Tagging {
            scores: vec![0.2, 0.9, 0.9, 0.0],
            logits: vec![-1.4, 2.2, 2.2, -20.0],
            embedding: Embedding(vec![3.0, 4.0]),
            labels: ["Dog", "Cat", "Rain", "Silence"].into_iter().collect(),
        }
    }

    #[test]
    fn top_k_and_above_are_sorted_and_stable() {
        let indices = |tags: Vec<Tag>| tags.iter().map(|tag| tag.index).collect::<Vec<_>>();
        assert_eq!(indices(tagging().top_k(3)), [1, 2, 0]);
        assert_eq!(indices(tagging().top_k(0)), [0; 0]);
        assert_eq!(indices(tagging().top_k(99)), [1, 2, 0, 3]);
        assert_eq!(indices(tagging().above(0.2)), [1, 2], "above means greater, not equal");
        let animals = Tagging {
            labels: ["Dog", "Animal", "Rain", "Bark"].into_iter().collect::<LabelSet>().with_audioset_parents(),
            ..tagging()
        };
        assert_eq!(indices(animals.most_specific(0.1)), [2, 0]);
        assert_eq!(indices(animals.most_specific(0.5)), [1, 2], "the dog is not above the threshold");
        assert_eq!(tagging().score("dog"), Some(0.2));
        assert_eq!(tagging().score("Horse"), None);
    }

    #[test]
    fn tagging_round_trips_through_json() {
        let json = serde_json::to_string(&tagging()).unwrap();
        assert_eq!(serde_json::from_str::<Tagging>(&json).unwrap(), tagging());
        for (labels, name) in [
            (LabelSet::audioset(), "audioset"),
            (LabelSet::audioset_by_name(), "audioset_by_name"),
            (LabelSet::audioset_strong(), "audioset_strong"),
            (LabelSet::yamnet(), "yamnet"),
        ] {
            let built_in = Tagging { labels, ..tagging() };
            let json = serde_json::to_value(&built_in).unwrap();
            assert_eq!(json["labels"], name);
            assert_eq!(serde_json::from_value::<Tagging>(json.clone()).unwrap(), built_in);
        }
        let unknown = json.replace(&json[json.find("\"labels\":").unwrap()..], "\"labels\":\"fsd50k\"}");
        let error = serde_json::from_str::<Tagging>(&unknown).unwrap_err().to_string();
        assert!(error.contains("one of audioset, audioset_by_name") && error.contains("got \"fsd50k\""), "{error}");
    }

    #[test]
    fn cosine_of_orthogonal_opposite_zero_and_unequal_vectors() {
        let vector = |values: &[f32]| Embedding(values.to_vec());
        assert_eq!(vector(&[1.0, 0.0]).cosine(&vector(&[0.0, 2.0])), 0.0);
        assert_eq!(vector(&[1.0, 0.0]).cosine(&vector(&[-2.0, 0.0])), -1.0);
        assert_eq!(vector(&[0.0]).cosine(&vector(&[1.0])), 0.0);
        assert_eq!(vector(&[1.0]).cosine(&vector(&[1.0, 0.0])), 0.0);
    }
}

/// The result for a window of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowTagging {
    /// Start of the window, in seconds from the beginning of the recording.
    pub start: f64,
    /// End of the window in seconds, without zero padding.
    pub end: f64,
    /// Tags of the window.
    pub tagging: Tagging,
    /// The window's share of the recording's frames, if frames were requested.
    pub frames: Option<Frames>,
}

/// Scores of successive frames. Times are in seconds from the beginning of the recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frames {
    /// Start of the first frame.
    pub start: f64,
    /// Time from one frame to the next.
    pub step: f64,
    /// End of the last frame.
    pub end: f64,
    /// Probabilities, `[n_frames, n_classes]`.
    pub scores: Array2<f32>,
}

impl Frames {
    /// Start and end of a frame, in seconds.
    pub fn span(&self, frame: usize) -> (f64, f64) {
        let time = |frame: usize| (self.start + frame as f64 * self.step).min(self.end);
        (time(frame), if frame + 1 < self.scores.nrows() { time(frame + 1) } else { self.end })
    }
}
