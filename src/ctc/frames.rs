//! Scores of frames, `[n_frames, n_tokens]`: log-softmax, checks, clips of a batch.

use ndarray::{Array2, ArrayView2, ArrayView3, Axis, s};

use super::FrameTimes;
use crate::error::{Error, Result};

/// Tolerance for log-probabilities above 0, due to rounding.
const ROUNDING: f32 = 1e-3;

/// Computes log-probabilities from logits: `x − ln Σ exp x` over each row of `[n_frames, n_tokens]`, summed in f64.
///
/// # Errors
/// [`Error::Argument`] if a score is NaN or +∞, if all scores of a row are −∞, or if there are no tokens.
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
        0 => Err(Error::argument("n_tokens", 0, "expected at least one token")),
        _ => Ok(()),
    }
}

/// The highest score of a frame, if its scores are valid.
pub(super) fn check_frame(name: &'static str, frame: usize, scores: impl Iterator<Item = f32>) -> Result<f32> {
    let mut highest = f32::NEG_INFINITY;
    for (token, score) in scores.enumerate() {
        if score.is_nan() || score == f32::INFINITY {
            return Err(Error::argument(
                name,
                score,
                format!("expected a finite number or -inf as score [{frame}, {token}]"),
            ));
        }
        highest = highest.max(score);
    }
    match highest {
        f32::NEG_INFINITY => {
            Err(Error::argument(name, "-inf", format!("expected at least one finite score in frame {frame}")))
        }
        _ => Ok(highest),
    }
}

/// Rejects scores that are not log-probabilities of `n_tokens` tokens.
pub(super) fn check_log_probs(log_probs: ArrayView2<f32>, n_tokens: usize) -> Result<()> {
    check_tokens(log_probs.ncols())?;
    if log_probs.ncols() != n_tokens {
        return Err(Error::LabelCount { n_classes: log_probs.ncols(), n_labels: n_tokens });
    }
    for (frame, row) in log_probs.rows().into_iter().enumerate() {
        let highest = check_frame("log_probs", frame, row.iter().copied())?;
        if highest > ROUNDING {
            let reason = format!(
                "expected log-probabilities, which are at most 0, in frame {frame}: use ctc::log_softmax for logits"
            );
            return Err(Error::argument("log_probs", highest, reason));
        }
    }
    Ok(())
}

/// Rejects a clip without frames.
pub(super) fn check_not_empty(log_probs: ArrayView2<f32>) -> Result<()> {
    match log_probs.nrows() {
        0 => Err(Error::TooFewFrames { needed: 1, got: 0 }),
        _ => Ok(()),
    }
}

/// The minimum number of frames for these tokens: one per token, and a blank between equal neighbours.
pub(super) fn frames_needed<T: PartialEq>(tokens: impl Iterator<Item = T> + Clone) -> usize {
    let repeats = tokens.clone().zip(tokens.clone().skip(1)).filter(|(token, next)| token == next).count();
    tokens.count() + repeats
}

/// The clips of a batch with their times.
pub(super) fn timed_clips<'a>(
    log_probs: ArrayView3<'a, f32>,
    lengths: &[usize],
    times: &[FrameTimes],
) -> Result<Vec<(ArrayView2<'a, f32>, FrameTimes)>> {
    let clips = clips(log_probs, lengths)?;
    if times.len() != clips.len() {
        let expected = format!("expected {}, one per clip", clips.len());
        return Err(Error::argument("times", format!("{} values", times.len()), expected));
    }
    Ok(clips.into_iter().zip(times.iter().copied()).collect())
}

/// Splits a batch `[batch, n_frames, n_tokens]` into clips, each cut to its length in frames.
///
/// # Errors
/// [`Error::Argument`] unless there is one length per clip, each at most `n_frames`.
pub fn clips<'a>(log_probs: ArrayView3<'a, f32>, lengths: &[usize]) -> Result<Vec<ArrayView2<'a, f32>>> {
    let (n_clips, n_frames, _) = log_probs.dim();
    if lengths.len() != n_clips {
        let reason = format!("expected {n_clips}, one per clip");
        return Err(Error::argument("lengths", format!("{} values", lengths.len()), reason));
    }
    if let Some(length) = lengths.iter().find(|&&length| length > n_frames) {
        return Err(Error::argument(
            "lengths",
            length,
            format!("expected at most {n_frames}, the number of frames in the batch"),
        ));
    }
    let clip = |(at, &length): (usize, &usize)| log_probs.index_axis_move(Axis(0), at).slice_move(s![..length, ..]);
    Ok(lengths.iter().enumerate().map(clip).collect())
}
