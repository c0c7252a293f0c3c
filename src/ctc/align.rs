//! Forced alignment: the times of the tokens of a known text.

use ndarray::{ArrayView1, ArrayView2};
use serde::{Deserialize, Serialize};

use super::frames::{check_log_probs, check_not_empty, frames_needed};
use super::transcript::{Span, Transcript};
use super::{FrameTimes, MAX_FRAMES, Vocabulary};
use crate::error::{Error, Result};

/// The best path of a token sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Alignment {
    /// The tokens and words with their times. Its scores are the log-probability of the path.
    pub transcript: Transcript,
    /// The token of each frame, including blanks, `[n_frames]`.
    pub path: Vec<usize>,
    /// The log-probability of that token in each frame, `[n_frames]`.
    pub frame_scores: Vec<f32>,
}

/// Aligns `targets` (ids without blanks, see [`Vocabulary::encode`]) with a clip: finds the most probable path that
/// represents them, with the Viterbi algorithm. `log_probs` is `[n_frames, n_tokens]`; `times` is the clip's
/// [`FrameTimes`], or the number of seconds per frame.
///
/// Path and spans equal those of `torchaudio.functional.forced_align` and `merge_tokens`. Memory is proportional to
/// `2 · targets.len() · √n_frames`.
///
/// ```
/// use clipwise::ctc::{Vocabulary, align};
/// use clipwise::ndarray::array;
///
/// # fn main() -> clipwise::Result<()> {
/// let vocabulary = Vocabulary::new(["<pad>", "h", "i"])?;
/// let log_probs = array![[0.1f32, 0.8, 0.1], [0.1, 0.5, 0.4], [0.7, 0.2, 0.1], [0.3, 0.1, 0.6]].mapv(f32::ln);
/// let alignment = align(log_probs.view(), &vocabulary.encode("hi")?, &vocabulary, 0.02)?;
/// assert_eq!(alignment.path, [1, 1, 0, 2]);
/// assert_eq!(alignment.transcript.tokens[1].frames, 3..4);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::TooFewFrames`] if there are fewer frames than one per target plus one between equal neighbours;
/// [`Error::Argument`] if a target is the blank or not a token, or if all paths have probability 0; otherwise as
/// [`greedy`](super::greedy).
pub fn align(
    log_probs: ArrayView2<f32>,
    targets: &[usize],
    vocabulary: &Vocabulary,
    times: impl Into<FrameTimes>,
) -> Result<Alignment> {
    let times = times.into().checked()?;
    check_log_probs(log_probs, vocabulary.len())?;
    check_not_empty(log_probs)?;
    check_targets(targets, vocabulary, log_probs.nrows())?;

    let trellis = Trellis { targets, blank: vocabulary.blank(), n_frames: log_probs.nrows() };
    let states = trellis.best_states(log_probs)?;
    let path: Vec<usize> = states.iter().map(|&state| trellis.token(state)).collect();
    let frame_scores: Vec<f32> = path.iter().zip(log_probs.rows()).map(|(&token, row)| row[token]).collect();

    let mut spans: Vec<Span> = Vec::with_capacity(targets.len());
    let mut last = 0;
    for (frame, (&state, &score)) in states.iter().zip(&frame_scores).enumerate() {
        match spans.last_mut() {
            _ if state % 2 == 0 => {}
            Some(span) if state == last => *span = span.extended(score),
            _ => spans.push(Span::begin(trellis.token(state), frame, score)),
        }
        last = state;
    }
    let tokens = spans.into_iter().map(|span| span.to_token(vocabulary, times)).collect();
    let score = frame_scores.iter().map(|&score| f64::from(score)).sum();
    Ok(Alignment { transcript: Transcript::new(tokens, vocabulary, score, score, 0.0)?, path, frame_scores })
}

fn check_targets(targets: &[usize], vocabulary: &Vocabulary, n_frames: usize) -> Result<()> {
    for (at, &id) in targets.iter().enumerate() {
        if id >= vocabulary.len() || id == vocabulary.blank() {
            let reason = format!("expected a token below {} other than the blank as target {at}", vocabulary.len());
            return Err(Error::argument("targets", id, reason));
        }
    }
    if n_frames >= MAX_FRAMES {
        return Err(Error::argument("n_frames", n_frames, format!("expected less than {MAX_FRAMES} frames")));
    }
    let needed = frames_needed(targets.iter());
    match n_frames < needed {
        true => Err(Error::TooFewFrames { needed, got: n_frames }),
        false => Ok(()),
    }
}

/// The states of a path: blank, target 0, blank, target 1, …, blank. From frame to frame, the state stays, advances by
/// one, or by two (skipping a blank between different targets).
struct Trellis<'a> {
    targets: &'a [usize],
    blank: usize,
    n_frames: usize,
}

impl Trellis<'_> {
    fn n_states(&self) -> usize {
        2 * self.targets.len() + 1
    }

    fn token(&self, state: usize) -> usize {
        if state % 2 == 1 { self.targets[state / 2] } else { self.blank }
    }

    fn may_skip(&self, state: usize) -> bool {
        state % 2 == 1 && state > 1 && self.targets[state / 2] != self.targets[state / 2 - 1]
    }

    /// The state of each frame of the best path. Scores are kept for every √n_frames-th frame; the steps in between are
    /// recomputed, block by block from the end.
    fn best_states(&self, log_probs: ArrayView2<f32>) -> Result<Vec<usize>> {
        let n_states = self.n_states();
        let every = (self.n_frames as f64).sqrt().ceil() as usize;
        // A path begins in the first blank or in the first target.
        let mut scores = vec![f64::NEG_INFINITY; n_states];
        for state in 0..n_states.min(2) {
            scores[state] = f64::from(log_probs[[0, self.token(state)]]);
        }
        let mut kept = vec![scores.clone()];
        for frame in 1..self.n_frames {
            self.step(log_probs.row(frame), &mut scores, None);
            if frame % every == 0 {
                kept.push(scores.clone());
            }
        }

        let last = n_states - 1;
        let mut state = if last > 0 && scores[last - 1] >= scores[last] { last - 1 } else { last };
        if scores[state] == f64::NEG_INFINITY {
            return Err(Error::argument(
                "log_probs",
                "-inf",
                "expected at least one path for the targets with a probability above 0",
            ));
        }
        let mut states = vec![state; self.n_frames];
        let mut steps = vec![0u8; every * n_states];
        for (block, mut scores) in kept.into_iter().enumerate().rev() {
            let (first, end) = (block * every, ((block + 1) * every).min(self.n_frames - 1));
            // The steps to the frames first + 1 ..= end.
            for (frame, steps) in (first + 1..=end).zip(steps.chunks_mut(n_states)) {
                self.step(log_probs.row(frame), &mut scores, Some(steps));
            }
            for frame in (first + 1..=end).rev() {
                states[frame] = state;
                state -= usize::from(steps[(frame - first - 1) * n_states + state]);
            }
        }
        states[0] = state;
        Ok(states)
    }

    /// Updates the scores by one frame, and records by how many states the best path to each state advanced. On ties it
    /// stays.
    fn step(&self, row: ArrayView1<f32>, scores: &mut [f64], mut steps: Option<&mut [u8]>) {
        // In descending order, so that the states below still have the scores of the previous frame.
        for state in (0..scores.len()).rev() {
            let stay = scores[state];
            let one = if state > 0 { scores[state - 1] } else { f64::NEG_INFINITY };
            let two = if self.may_skip(state) { scores[state - 2] } else { f64::NEG_INFINITY };
            let (best, by) = match () {
                () if two > one && two > stay => (two, 2),
                () if one > stay => (one, 1),
                () => (stay, 0),
            };
            scores[state] = best + f64::from(row[self.token(state)]);
            if let Some(steps) = &mut steps {
                steps[state] = by;
            }
        }
    }
}
