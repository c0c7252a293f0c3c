//! CTC models: one sequence of log-probabilities of several.

use ndarray::{Array2, ArrayView2, Zip, s};
use serde::{Deserialize, Serialize};

use super::{Average, shares};
use crate::ctc::{Vocabulary, log_softmax};
use crate::error::{Error, Result};

/// How CTC models are fused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// What is averaged; logits by default.
    pub mode: Average,
    /// By how many frames the members may differ in length; 2 by default. All are cut to the shortest one.
    pub max_frame_gap: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { mode: Average::Logits, max_frame_gap: 2 }
    }
}

/// What a CTC model says about a clip.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// Values before softmax, `[n_frames, n_tokens]`, or log-probabilities: they differ by one number per frame, which the
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
/// [`Error::Config`] for members more than `max_frame_gap` frames apart; [`Error::Argument`] without members, for weights that
/// are negative, not finite or all 0, vocabularies or durations of a frame that differ, logits that are NaN or +∞, and frames in which
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
            return Err(Error::argument("members", at, reason));
        }
        // Rounding of rates and hops is no difference.
        let gap = (member.frame_seconds - first.frame_seconds).abs();
        if gap.is_nan() || gap > 1e-6 * first.frame_seconds.abs() {
            let reason =
                format!("its frames last {} s, the first one's {} s", member.frame_seconds, first.frame_seconds);
            return Err(Error::argument("members", at, reason));
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
