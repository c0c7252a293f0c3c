//! Scores of frames, `[n_frames, n_tokens]`: log-softmax, checks, the rows of a batch.

use ndarray::{Array2, ArrayView2, ArrayView3, Axis, s};

use super::FrameTimes;
use crate::error::{Error, Result};

/// How far above 0 a log-probability may be by rounding.
const ROUNDING: f32 = 1e-3;

/// Log-probabilities from logits: `x − ln Σ exp x` over each row of `[n_frames, n_tokens]`, summed in f64.
///
/// # Errors
/// [`Error::Argument`] for a row with NaN or +∞, or with nothing but −∞, and without tokens.
pub fn log_softmax(logits: ArrayView2<f32>) -> Result<Array2<f32>> {
    check_tokens(logits.ncols())?;
    let mut log_probs = logits.to_owned();
    for (frame, mut row) in log_probs.rows_mut().into_iter().enumerate() {
        let highest = check_frame("logits", frame, row.iter().copied())?;
        let sum: f64 = row.iter().map(|&x| f64::from(x - highest).exp()).sum();
        let normaliser = f64::from(highest) + sum.ln();
        row.mapv_inplace(|x| (f64::from(x) - normaliser) as f32);
    }
    Ok(log_probs)
}

fn check_tokens(n_tokens: usize) -> Result<()> {
    match n_tokens {
        0 => Err(Error::argument("n_tokens", 0, "frames need a score for at least one token")),
        _ => Ok(()),
    }
}

/// The highest score of a frame, if it can be worked with.
pub(super) fn check_frame(name: &'static str, frame: usize, scores: impl Iterator<Item = f32>) -> Result<f32> {
    let mut highest = f32::NEG_INFINITY;
    for (token, score) in scores.enumerate() {
        if score.is_nan() || score == f32::INFINITY {
            return Err(Error::argument(
                name,
                score,
                format!("score [{frame}, {token}] must be a finite number or -inf"),
            ));
        }
        highest = highest.max(score);
    }
    match highest {
        f32::NEG_INFINITY => Err(Error::argument(name, "-inf", format!("frame {frame} leaves no token possible"))),
        _ => Ok(highest),
    }
}

/// Refuses what is no log-probabilities of `n_tokens` tokens.
pub(super) fn check_log_probs(log_probs: ArrayView2<f32>, n_tokens: usize) -> Result<()> {
    check_tokens(log_probs.ncols())?;
    if log_probs.ncols() != n_tokens {
        return Err(Error::LabelCount { n_classes: log_probs.ncols(), n_labels: n_tokens });
    }
    for (frame, row) in log_probs.rows().into_iter().enumerate() {
        let highest = check_frame("log_probs", frame, row.iter().copied())?;
        if highest > ROUNDING {
            let reason = format!(
                "frame {frame} holds no log-probabilities, which are at most 0: take ctc::log_softmax of logits"
            );
            return Err(Error::argument("log_probs", highest, reason));
        }
    }
    Ok(())
}

/// Refuses a clip without frames.
pub(super) fn check_not_empty(log_probs: ArrayView2<f32>) -> Result<()> {
    match log_probs.nrows() {
        0 => Err(Error::TooFewFrames { needed: 1, got: 0 }),
        _ => Ok(()),
    }
}

/// The fewest frames that can say these tokens: one each, and a blank between equal ones.
pub(super) fn frames_needed<T: PartialEq>(tokens: impl Iterator<Item = T> + Clone) -> usize {
    let repeats = tokens.clone().zip(tokens.clone().skip(1)).filter(|(token, next)| token == next).count();
    tokens.count() + repeats
}

/// The clips of a batch, each with its times.
pub(super) fn timed_clips<'a>(
    log_probs: ArrayView3<'a, f32>,
    lengths: &[usize],
    times: &[FrameTimes],
) -> Result<Vec<(ArrayView2<'a, f32>, FrameTimes)>> {
    let clips = clips(log_probs, lengths)?;
    if times.len() != clips.len() {
        let expected = format!("one per clip, of which there are {}", clips.len());
        return Err(Error::argument("times", format!("{} values", times.len()), expected));
    }
    Ok(clips.into_iter().zip(times.iter().copied()).collect())
}

/// The clips of a batch `[batch, n_frames, n_tokens]`, each cut to its length in frames.
///
/// # Errors
/// [`Error::Argument`] unless there is one length per clip, each at most `n_frames`.
pub fn clips<'a>(log_probs: ArrayView3<'a, f32>, lengths: &[usize]) -> Result<Vec<ArrayView2<'a, f32>>> {
    let (n_clips, n_frames, _) = log_probs.dim();
    if lengths.len() != n_clips {
        let reason = format!("expected {n_clips} lengths, one per clip");
        return Err(Error::argument("lengths", format!("{} values", lengths.len()), reason));
    }
    if let Some(length) = lengths.iter().find(|&&length| length > n_frames) {
        return Err(Error::argument("lengths", length, format!("the batch has {n_frames} frames")));
    }
    let clip = |(at, &length): (usize, &usize)| log_probs.index_axis_move(Axis(0), at).slice_move(s![..length, ..]);
    Ok(lengths.iter().enumerate().map(clip).collect())
}
