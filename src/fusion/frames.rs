//! Fusion of CTC models: log-probabilities averaged over models.

use ndarray::{Array2, ArrayView2, Zip, s};
use serde::{Deserialize, Serialize};

use super::{Average, shares};
use crate::ctc::{Vocabulary, log_softmax};
use crate::error::{Error, Result};

/// Settings of [`fuse_frames`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The values that are averaged. Default: logits.
    pub mode: Average,
    /// Limit on the difference between the lengths of the members, in frames; all are cut to the shortest one. Default:
    /// 2.
    pub max_frame_gap: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { mode: Average::Logits, max_frame_gap: 2 }
    }
}

/// The output of a CTC model for a clip.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// Logits `[n_frames, n_tokens]` or log-probabilities. They differ by a constant per frame, which cancels in the
    /// softmax.
    pub logits: ArrayView2<'a, f32>,
    /// The tokens, the same for all members.
    pub vocabulary: &'a Vocabulary,
    /// The time from one frame to the next in seconds, the same for all members.
    pub frame_seconds: f64,
    /// The weight of the member. Only the ratios of the weights matter.
    pub weight: f64,
}

/// Fuses the outputs of CTC models for one clip. Returns log-probabilities `[n_frames, n_tokens]`: the log-softmax of
/// the weighted mean of the logits, or the logarithm of the weighted mean of the probabilities. Computed in f64.
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
/// assert_eq!(fused.dim(), (2, 2)); // cut to the shorter member
/// let margin = fused[[0, 1]] - fused[[0, 0]];
/// assert!((margin - (0.75 * 2.0 + 0.25 * 1.0)).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Config`] if the lengths of the members differ by more than `max_frame_gap` frames; [`Error::LabelCount`] if
/// the columns of the logits do not match the vocabulary; [`Error::Argument`] if there are no members, if weights are
/// negative, not finite or all 0, if vocabularies or frame durations differ, if logits are NaN or +∞, or if every token
/// of a frame has probability 0 in some member.
pub fn fuse_frames(members: &[Member], config: &Config) -> Result<Array2<f32>> {
    let shares = shares(members.iter().map(|member| member.weight))?;
    let lengths = || members.iter().map(|member| member.logits.nrows());
    let (shortest, longest) = (lengths().min().unwrap_or_default(), lengths().max().unwrap_or_default());
    if longest - shortest > config.max_frame_gap {
        let reason =
            format!("expected lengths that differ by at most that many frames, got {shortest} to {longest} frames");
        return Err(Error::config("max_frame_gap", config.max_frame_gap, reason));
    }
    let first = &members[0]; // exists, since shares are not empty
    for (at, member) in members.iter().enumerate() {
        let (n_classes, n_labels) = (member.logits.ncols(), member.vocabulary.len());
        if n_classes != n_labels {
            return Err(Error::LabelCount { n_classes, n_labels });
        }
        if member.vocabulary != first.vocabulary {
            let reason = "expected the vocabulary of the first member";
            return Err(Error::argument("members", at, reason));
        }
        // Allow for the rounding of rates and hops.
        let gap = (member.frame_seconds - first.frame_seconds).abs();
        if gap.is_nan() || gap > 1e-6 * first.frame_seconds.abs() {
            let reason = format!(
                "expected frames of {} s as in the first member, got {} s",
                first.frame_seconds, member.frame_seconds
            );
            return Err(Error::argument("members", at, reason));
        }
    }

    let mut sum = Array2::<f64>::zeros((shortest, first.vocabulary.len()));
    for (member, share) in members.iter().zip(&shares) {
        if *share == 0.0 {
            continue; // 0 · −∞ is NaN
        }
        let logits = member.logits.slice(s![..shortest, ..]);
        let log_probs = log_softmax(logits)?; // also rejects NaN
        match config.mode {
            Average::Logits => Zip::from(&mut sum).and(&logits).for_each(|sum, &x| *sum += share * f64::from(x)),
            Average::Probabilities => {
                Zip::from(&mut sum).and(&log_probs).for_each(|sum, &x| *sum += share * f64::from(x).exp());
            }
        }
    }
    match config.mode {
        Average::Logits => log_softmax(sum.mapv(|x| x as f32).view()),
        Average::Probabilities => Ok(sum.mapv(|p| p.ln() as f32)),
    }
}
