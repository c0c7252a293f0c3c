//! Greedy decoding: the best token of each frame, with repeated tokens merged and blanks removed.

use ndarray::{ArrayView2, ArrayView3};
use rayon::prelude::*;

use super::frames::{check_log_probs, check_not_empty, timed_clips};
use super::transcript::{Span, Token, Transcript};
use super::{FrameTimes, MAX_FRAMES, Vocabulary};
use crate::error::{Error, Result};

/// The tokens that a path represents: repeated ids are merged, then blanks removed.
///
/// ```
/// assert_eq!(clipwise::ctc::collapse(&[0, 3, 3, 0, 3, 5, 5], 0), [3, 3, 5]);
/// ```
pub fn collapse(frame_ids: &[usize], blank: usize) -> Vec<usize> {
    let mut ids = frame_ids.to_vec();
    ids.dedup();
    ids.retain(|&id| id != blank);
    ids
}

/// Decodes the best path of a clip. `log_probs` is `[n_frames, n_tokens]`; `times` is its [`FrameTimes`], or the number
/// of seconds per frame. Among equal scores in a frame, the lowest id is chosen.
///
/// ```
/// use clipwise::ctc::{Vocabulary, greedy, log_softmax};
/// use clipwise::ndarray::array;
///
/// # fn main() -> clipwise::Result<()> {
/// let vocabulary = Vocabulary::new(["<pad>", "h", "i"])?;
/// let logits = array![[0.0f32, 9.0, 0.0], [0.0, 9.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 9.0]];
/// let transcript = greedy(log_softmax(logits.view())?.view(), &vocabulary, 0.02)?;
/// assert_eq!(transcript.text, "hi");
/// assert_eq!((transcript.tokens[0].onset, transcript.tokens[0].offset), (0.0, 0.04));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::TooFewFrames`] if there are no frames; [`Error::LabelCount`] if `n_tokens` differs from the vocabulary;
/// [`Error::Argument`] if a value is NaN, +∞ or above 0, if all values of a frame are −∞, if the seconds per frame are
/// not positive, or if the end is negative or not finite.
pub fn greedy(log_probs: ArrayView2<f32>, vocabulary: &Vocabulary, times: impl Into<FrameTimes>) -> Result<Transcript> {
    check_not_empty(log_probs)?;
    let mut decoder = GreedyDecoder::new(vocabulary, times)?;
    decoder.push(log_probs)?;
    decoder.transcript()
}

/// [`greedy`] for each clip of a batch `[batch, n_frames, n_tokens]`, with its length in frames and its times.
///
/// # Errors
/// As [`greedy`], and [`Error::Argument`] if lengths or times do not match the batch.
pub fn greedy_batch(
    log_probs: ArrayView3<f32>,
    lengths: &[usize],
    vocabulary: &Vocabulary,
    times: &[FrameTimes],
) -> Result<Vec<Transcript>> {
    let clips = timed_clips(log_probs, lengths, times)?;
    let decoded = clips.into_par_iter().map(|(clip, times)| greedy(clip, vocabulary, times));
    decoded.collect::<Vec<_>>().into_iter().collect() // returns the error of the first failing clip
}

/// [`greedy`] for a stream of frames. The result does not depend on how the frames are split.
#[derive(Debug, Clone)]
pub struct GreedyDecoder {
    vocabulary: Vocabulary,
    times: FrameTimes,
    n_frames: usize,
    /// The token of the last frame, unless it was the blank: it may continue.
    open: Option<Span>,
    tokens: Vec<Token>,
    score: f64,
}

impl GreedyDecoder {
    /// Creates a decoder.
    ///
    /// # Errors
    /// [`Error::Argument`] if the seconds per frame are not positive, or if the end is negative or not finite.
    pub fn new(vocabulary: &Vocabulary, times: impl Into<FrameTimes>) -> Result<Self> {
        let times = times.into().checked()?;
        let (vocabulary, tokens) = (vocabulary.clone(), Vec::new());
        Ok(Self { vocabulary, times, n_frames: 0, open: None, tokens, score: 0.0 })
    }

    /// Sets the end of the clip in seconds, once it is known. Times in the [`transcript`](Self::transcript) are clipped
    /// to it.
    ///
    /// # Errors
    /// [`Error::Argument`] if the end is negative or not finite; the decoder is unchanged.
    pub fn end_at(&mut self, end: f64) -> Result<()> {
        self.times = self.times.until(end).checked()?;
        Ok(())
    }

    /// Takes any number of further frames `[n_frames, n_tokens]`. Returns the tokens that ended in them.
    ///
    /// # Errors
    /// As [`greedy`], except that an empty array is valid. On an error the decoder is unchanged.
    pub fn push(&mut self, log_probs: ArrayView2<f32>) -> Result<&[Token]> {
        check_log_probs(log_probs, self.vocabulary.len())?;
        if self.n_frames.checked_add(log_probs.nrows()).is_none_or(|n_frames| n_frames >= MAX_FRAMES) {
            return Err(Error::argument(
                "n_frames",
                log_probs.nrows(),
                format!("expected less than {MAX_FRAMES} frames in total"),
            ));
        }
        let n_known = self.tokens.len();
        for row in log_probs.rows() {
            let (token, &log_prob) =
                match row.iter().enumerate().reduce(|best, other| if other.1 > best.1 { other } else { best }) {
                    Some(best) => best,
                    None => continue, // unreachable: there are tokens
                };
            self.score += f64::from(log_prob);
            self.open = match self.open.take() {
                Some(span) if span.token == token => Some(span.extended(log_prob)),
                ended => {
                    self.tokens.extend(ended.map(|span| span.to_token(&self.vocabulary, self.times)));
                    (token != self.vocabulary.blank()).then(|| Span::begin(token, self.n_frames, log_prob))
                }
            };
            self.n_frames += 1;
        }
        Ok(&self.tokens[n_known..])
    }

    /// The transcript of the frames so far, including the token of the last frame, as if the clip ended here.
    ///
    /// # Errors
    /// None, since all tokens are from the vocabulary.
    pub fn transcript(&self) -> Result<Transcript> {
        let mut tokens = self.tokens.clone();
        tokens.extend(self.open.map(|span| span.to_token(&self.vocabulary, self.times)));
        self.times.cut(&mut tokens); // for tokens that ended before the end was set
        Transcript::new(tokens, &self.vocabulary, self.score, self.score, 0.0)
    }

    /// The number of frames so far.
    pub fn n_frames(&self) -> usize {
        self.n_frames
    }
}
