//! Late fusion: several models about the same audio, one result.

use ndarray::{Array2, ArrayView2, Zip, s};
use serde::{Deserialize, Serialize};

use crate::ctc::{Vocabulary, log_softmax};
use crate::error::{Error, Result};
use crate::output::{Embedding, Tagging};

/// What is averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Values before the activation: `α · A + (1 − α) · B`.
    #[default]
    Logits,
    /// Probabilities.
    Probabilities,
}

/// How CTC models are fused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// What is averaged; logits by default.
    pub mode: Mode,
    /// By how many frames the members may differ in length; 2 by default. All are cut to the shortest one.
    pub max_frame_gap: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { mode: Mode::Logits, max_frame_gap: 2 }
    }
}

/// What a CTC model says about a clip.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// Values before softmax, `[n_frames, n_tokens]`, or log-probabilities: they differ by one number a frame, which the
    /// softmax takes out again.
    pub logits: ArrayView2<'a, f32>,
    /// The tokens, the same for all members.
    pub vocabulary: &'a Vocabulary,
    /// The time from a frame to the next in seconds, the same for all members.
    pub frame_seconds: f64,
    /// How much it counts; only the ratios of the weights matter.
    pub weight: f64,
}

/// The fused log-probabilities `[n_frames, n_tokens]` of CTC models about one clip: the log-softmax of the weighted mean of
/// their logits, or the logarithm of the weighted mean of their probabilities, computed in f64.
///
/// ```
/// use clipwise::ctc::Vocabulary;
/// use clipwise::fusion::{Config, Member, fuse_frames};
/// use clipwise::ndarray::array;
///
/// # fn main() -> clipwise::Result<()> {
/// let (a, b) = (array![[0.0f32, 2.0], [0.0, 2.0], [1.0, 0.0]], array![[0.0f32, 1.0], [3.0, 0.0]]);
/// let vocabulary = &Vocabulary::new(["<pad>", "a"])?;
/// let alpha = 0.75;
/// let members = [
///     Member { logits: a.view(), vocabulary, frame_seconds: 0.02, weight: alpha },
///     Member { logits: b.view(), vocabulary, frame_seconds: 0.02, weight: 1.0 - alpha },
/// ];
/// let fused = fuse_frames(&members, &Config::default())?;
/// assert_eq!(fused.dim(), (2, 2)); // cut to the shorter one
/// let margin = fused[[0, 1]] - fused[[0, 0]];
/// assert!((margin - (0.75 * 2.0 + 0.25 * 1.0)).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Config`] without members, for weights that are negative, not finite or all 0, members more than
/// `max_frame_gap` frames apart, vocabularies or durations of a frame that differ, logits that are NaN or +∞, and frames in which
/// every token is ruled out by some member;
/// [`Error::LabelCount`] for logits that are not the vocabulary's.
pub fn fuse_frames(members: &[Member], config: &Config) -> Result<Array2<f32>> {
    let shares = shares(members.iter().map(|member| member.weight))?;
    let lengths = || members.iter().map(|member| member.logits.nrows());
    let (shortest, longest) = (lengths().min().unwrap_or_default(), lengths().max().unwrap_or_default());
    if longest - shortest > config.max_frame_gap {
        let reason = format!("members of {shortest} and of {longest} frames are further apart than max_frame_gap");
        return Err(Error::config("max_frame_gap", config.max_frame_gap, reason));
    }
    let first = &members[0]; // there is one: shares are not empty
    for (at, member) in members.iter().enumerate() {
        let (n_classes, n_labels) = (member.logits.ncols(), member.vocabulary.len());
        if n_classes != n_labels {
            return Err(Error::LabelCount { n_classes, n_labels });
        }
        if member.vocabulary != first.vocabulary {
            let reason = "its vocabulary differs from that of the first one, so that its scores mean other tokens";
            return Err(Error::config("members", at, reason));
        }
        // Rounding of rates and hops is no difference.
        let gap = (member.frame_seconds - first.frame_seconds).abs();
        if gap.is_nan() || gap > 1e-6 * first.frame_seconds.abs() {
            let reason =
                format!("its frames last {} s, the first one's {} s", member.frame_seconds, first.frame_seconds);
            return Err(Error::config("members", at, reason));
        }
    }

    let mut sum = Array2::<f64>::zeros((shortest, first.vocabulary.len()));
    for (member, share) in members.iter().zip(&shares) {
        if *share == 0.0 {
            continue; // 0 · −∞ is no number
        }
        let logits = member.logits.slice(s![..shortest, ..]);
        let log_probs = log_softmax(logits)?; // also refuses NaN
        match config.mode {
            Mode::Logits => Zip::from(&mut sum).and(&logits).for_each(|sum, &x| *sum += share * f64::from(x)),
            Mode::Probabilities => {
                Zip::from(&mut sum).and(&log_probs).for_each(|sum, &x| *sum += share * f64::from(x).exp());
            }
        }
    }
    match config.mode {
        Mode::Logits => log_softmax(sum.mapv(|x| x as f32).view()),
        Mode::Probabilities => Ok(sum.mapv(|p| p.ln() as f32)),
    }
}

/// What turns a tagger's logits into its scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Each class by itself: multi-label taggers, such as all of AudioSet.
    Sigmoid,
    /// The classes sum to 1: single-label taggers.
    Softmax,
}

/// One result of several taggers about one clip, each with a weight of which only the ratio to the others matters.
///
/// [`Mode::Logits`]: the weighted mean of the logits, and its activation as scores. [`Mode::Probabilities`]: the weighted mean
/// of the scores, and as logits what has them as its activation. The embeddings are joined in order, each multiplied by
/// the square root of its weight's share and divided by its norm: the cosine of two is the weighted mean of the members'.
///
/// ```no_run
/// use clipwise::fusion::{Activation, Mode, fuse_taggings};
/// use clipwise::{Tagger, Waveform};
///
/// # fn main() -> clipwise::Result<()> {
/// let device = clipwise::device::best()?;
/// let (ced, cnn) = (Tagger::bundled(&device)?, Tagger::open("Cnn14_mAP=0.431.pth", &device)?);
/// let clip = Waveform::open("dog.wav")?;
/// let both = fuse_taggings(&[(&ced.tag(&clip)?, 0.6), (&cnn.tag(&clip)?, 0.4)], Mode::Logits, Activation::Sigmoid)?;
/// println!("{:?}", both.top_k(3));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Config`] without members, for weights that are negative, not finite or all 0, labels that differ, numbers of
/// scores or logits that are not those of the labels, values that are NaN or infinite with both signs, and results that would be
/// NaN: logits of which all are −∞ or one is +∞ with [`Activation::Softmax`], probabilities outside 0..=1.
pub fn fuse_taggings(members: &[(&Tagging, f64)], mode: Mode, activation: Activation) -> Result<Tagging> {
    let shares = shares(members.iter().map(|member| member.1))?;
    let (first, _) = members[0]; // there is one: shares are not empty
    let n_classes = first.labels.len();
    let (mut logits, mut scores) = (vec![0.0f64; n_classes], vec![0.0f64; n_classes]);
    let mut embedding = Vec::new();
    for (at, (&(member, _), &share)) in members.iter().zip(&shares).enumerate() {
        if member.labels != first.labels {
            let reason = "its labels differ from those of the first one, so that its scores mean other classes";
            return Err(Error::config("members", at, reason));
        }
        if member.logits.len() != n_classes || member.scores.len() != n_classes {
            return Err(Error::config(
                "members",
                at,
                format!("a score and a logit are wanted for each of {n_classes} labels"),
            ));
        }
        let wanted = if mode == Mode::Logits { &member.logits } else { &member.scores };
        if wanted.iter().any(|x| x.is_nan()) {
            return Err(Error::config("members", at, "it holds NaN"));
        }
        if share > 0.0 {
            for class in 0..n_classes {
                logits[class] += share * f64::from(member.logits[class]);
                scores[class] += share * f64::from(member.scores[class]);
            }
        }
        let norm = member.embedding.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { share.sqrt() / norm } else { 0.0 };
        embedding.extend(member.embedding.iter().map(|&x| (f64::from(x) * scale) as f32));
    }
    let averaged = if mode == Mode::Logits { &logits } else { &scores };
    if averaged.iter().any(|x| x.is_nan()) {
        return Err(Error::config("members", "inf - inf", "infinite values of both signs have no mean"));
    }
    match (mode, activation) {
        (Mode::Logits, Activation::Sigmoid) => scores = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        (Mode::Logits, Activation::Softmax) => {
            let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = logits.iter().map(|x| (x - highest).exp()).collect();
            let sum: f64 = powers.iter().sum();
            scores = powers.iter().map(|power| power / sum).collect();
        }
        (Mode::Probabilities, Activation::Sigmoid) => logits = scores.iter().map(|p| p.ln() - (-p).ln_1p()).collect(),
        (Mode::Probabilities, Activation::Softmax) => logits = scores.iter().map(|p| p.ln()).collect(),
    }
    if scores.iter().chain(&logits).any(|x| x.is_nan()) {
        return Err(Error::config("members", "NaN", "their scores or logits have no probabilities"));
    }
    let narrow = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect();
    let labels = first.labels.clone();
    Ok(Tagging { scores: narrow(scores), logits: narrow(logits), embedding: Embedding(embedding), labels })
}

/// Weights that sum to 1.
fn shares(weights: impl Iterator<Item = f64>) -> Result<Vec<f64>> {
    let weights: Vec<f64> = weights.collect();
    if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
        return Err(Error::config("weight", weight, "it must be a finite number of at least 0"));
    }
    let sum: f64 = weights.iter().sum();
    if !(sum > 0.0 && sum.is_finite()) {
        return Err(Error::config("weight", sum, "expected at least one member with a weight above 0"));
    }
    Ok(weights.iter().map(|weight| weight / sum).collect())
}
