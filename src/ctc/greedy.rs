//! Greedy decoding: the best token of each frame, runs merged, blanks dropped.

use ndarray::{ArrayView2, ArrayView3};
use rayon::prelude::*;

use super::frames::{check_log_probs, check_not_empty, timed_clips};
use super::transcript::{Span, Token, Transcript};
use super::{FrameTimes, MAX_FRAMES, Vocabulary};
use crate::error::{Error, Result};

/// The tokens that frames stand for: runs of the same id merged, then blanks dropped.
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

/// Decodes a clip by its best path; `log_probs` is `[n_frames, n_tokens]`, `times` are its [`FrameTimes`] or the seconds per
/// frame. Of equal scores in a frame the lowest id counts.
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
/// [`Error::TooFewFrames`] without frames, [`Error::LabelCount`] if `n_tokens` is not the vocabulary's,
/// [`Error::Argument`] for NaN, +∞, a frame with nothing but −∞, values above 0, seconds per frame that are not positive, and an
/// end that is negative or not finite.
pub fn greedy(log_probs: ArrayView2<f32>, vocabulary: &Vocabulary, times: impl Into<FrameTimes>) -> Result<Transcript> {
    check_not_empty(log_probs)?;
    let mut decoder = GreedyDecoder::new(vocabulary, times)?;
    decoder.push(log_probs)?;
    decoder.transcript()
}

/// [`greedy`] for each clip of a batch `[batch, n_frames, n_tokens]`, cut to its length in frames, with its times.
///
/// # Errors
/// Those of [`greedy`], and [`Error::Argument`] for lengths or times that do not fit the batch.
pub fn greedy_batch(
    log_probs: ArrayView3<f32>,
    lengths: &[usize],
    vocabulary: &Vocabulary,
    times: &[FrameTimes],
) -> Result<Vec<Transcript>> {
    let clips = timed_clips(log_probs, lengths, times)?;
    let decoded = clips.into_par_iter().map(|(clip, times)| greedy(clip, vocabulary, times));
    decoded.collect::<Vec<_>>().into_iter().collect() // the error is that of the first clip that has one
}

/// [`greedy`] on frames as they come, with the same result however they are cut into pieces.
#[derive(Debug, Clone)]
pub struct GreedyDecoder {
    vocabulary: Vocabulary,
    times: FrameTimes,
    n_frames: usize,
    /// The token that the last frame said, if it was not the blank: it may go on.
    open: Option<Span>,
    tokens: Vec<Token>,
    score: f64,
}

impl GreedyDecoder {
    /// A decoder that has seen no frame.
    ///
    /// # Errors
    /// [`Error::Argument`] for seconds per frame that are not positive, and an end that is negative or not finite.
    pub fn new(vocabulary: &Vocabulary, times: impl Into<FrameTimes>) -> Result<Self> {
        let times = times.into().checked()?;
        let (vocabulary, tokens) = (vocabulary.clone(), Vec::new());
        Ok(Self { vocabulary, times, n_frames: 0, open: None, tokens, score: 0.0 })
    }

    /// Tells where the clip ends, in seconds, once that is known: no time of the [`transcript`](Self::transcript) is later.
    ///
    /// # Errors
    /// [`Error::Argument`] for an end that is negative or not finite; the decoder is then as it was before.
    pub fn end_at(&mut self, end: f64) -> Result<()> {
        self.times = self.times.until(end).checked()?;
        Ok(())
    }

    /// Takes further frames `[n_frames, n_tokens]`, any number of them, and gives the tokens that they ended.
    ///
    /// # Errors
    /// Those of [`greedy`], but for no frames; the decoder is then as it was before.
    pub fn push(&mut self, log_probs: ArrayView2<f32>) -> Result<&[Token]> {
        check_log_probs(log_probs, self.vocabulary.len())?;
        if self.n_frames.checked_add(log_probs.nrows()).is_none_or(|n_frames| n_frames >= MAX_FRAMES) {
            return Err(Error::argument("n_frames", log_probs.nrows(), format!("{MAX_FRAMES} frames are too many")));
        }
        let n_known = self.tokens.len();
        for row in log_probs.rows() {
            let (token, &log_prob) =
                match row.iter().enumerate().reduce(|best, other| if other.1 > best.1 { other } else { best }) {
                    Some(best) => best,
                    None => continue, // not with tokens, which were checked
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

    /// What the frames so far say, the token of the last frame among it, as if the clip ended here.
    ///
    /// # Errors
    /// None with tokens of a vocabulary.
    pub fn transcript(&self) -> Result<Transcript> {
        let mut tokens = self.tokens.clone();
        tokens.extend(self.open.map(|span| span.to_token(&self.vocabulary, self.times)));
        self.times.cut(&mut tokens); // those that ended before the end was known
        Transcript::new(tokens, &self.vocabulary, self.score, self.score, 0.0)
    }

    /// The number of frames so far.
    pub fn n_frames(&self) -> usize {
        self.n_frames
    }
}
