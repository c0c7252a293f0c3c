//! Prefix beam search: the most probable token sequences over all their paths, with language models and hot words.

mod prefixes;
mod scorer;
mod search;

use ndarray::{ArrayView2, ArrayView3};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::scorer::Scorer;
use self::search::Search;
use super::frames::{check_log_probs, check_not_empty, timed_clips};
use super::hot_words::HotWords;
use super::transcript::Transcript;
use super::{FrameTimes, LanguageModel, MAX_FRAMES, Vocabulary};
use crate::check;
use crate::error::{Error, Result};

/// Limit on the width of a search.
const MAX_WIDTH: usize = 1 << 20;

/// Settings of a beam search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Number of hypotheses that are kept after each frame, 1 to 2^20; times the number of tokens that may be followed
    /// in a frame, at most 2^24. Default: 100.
    pub width: usize,
    /// Log-probability below which a token is not followed in a frame, unless it is the best one. Default: −5; −∞
    /// follows all.
    pub min_token_log_prob: f64,
    /// Hypotheses whose score is lower than the best one by more than this are dropped. Default: 10; +∞ drops none.
    pub max_score_gap: f64,
    /// Maximum number of transcripts that are returned. Default: 1.
    pub n_best: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { width: 100, min_token_log_prob: -5.0, max_score_gap: 10.0, n_best: 1 }
    }
}

/// The unit that a language model scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Unit {
    /// Tokens by their names, including word delimiters: phonemes, characters, word pieces.
    Tokens,
    /// Words, as soon as a word delimiter, a token that begins a word, or the end follows.
    Words,
}

/// Settings of a language model in a search. The score of a hypothesis is `ctc + weight · lm + bonus · units`, with the
/// log-probabilities by the CTC model and by the language model, and the number of units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LanguageModelConfig {
    /// Weight of the language model, often called α. Default: 0.5.
    pub weight: f64,
    /// Bonus per unit, often called β, which compensates for the preference of language models for short sequences.
    /// Default: 1.5.
    pub bonus: f64,
    /// Added to the log-probability of units that the language model does not know. Default: −10 · ln 10.
    pub unknown: f64,
    /// Whether the sequence is a whole sentence, between `<s>` and `</s>`. Default: true.
    pub boundaries: bool,
    /// The unit that is scored. `None`: words, or tokens if the vocabulary is spaced.
    pub unit: Option<Unit>,
}

impl Default for LanguageModelConfig {
    fn default() -> Self {
        Self { weight: 0.5, bonus: 1.5, unknown: -10.0 * std::f64::consts::LN_10, boundaries: true, unit: None }
    }
}

/// A prefix beam search (Hannun et al., *First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional
/// Recurrent DNNs*, 2014), computed in f64.
///
/// If the limits in [`Config`] drop nothing, the `ctc_score` of a transcript is the exact log-probability of its tokens
/// over all paths. Times are those of the best path of the tokens.
///
/// ```
/// use clipwise::ctc::{BeamSearch, Vocabulary, beam};
/// use clipwise::ndarray::array;
///
/// # fn main() -> clipwise::Result<()> {
/// // Blank is the best token of both frames, but "a" is the more probable text: its three paths sum to 0.64.
/// let log_probs = array![[0.6f32, 0.4], [0.6, 0.4]].mapv(f32::ln);
/// let search = BeamSearch::new(&Vocabulary::new(["<blank>", "a"])?, beam::Config::default())?;
/// let best = &search.decode(log_probs.view(), 0.02)?[0];
/// assert_eq!(best.text, "a");
/// assert!((best.ctc_score.exp() - 0.64).abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct BeamSearch {
    vocabulary: Vocabulary,
    config: Config,
    scorer: Scorer,
}

impl BeamSearch {
    /// Creates a search without language model.
    ///
    /// # Errors
    /// [`Error::Config`] if `width` is out of range, `n_best` is 0, or a limit is NaN or drops everything.
    pub fn new(vocabulary: &Vocabulary, config: Config) -> Result<Self> {
        let Config { width, min_token_log_prob, max_score_gap, n_best } = config;
        if n_best == 0 {
            return Err(Error::config("n_best", n_best, "expected at least 1"));
        }
        if min_token_log_prob.is_nan() {
            return Err(Error::config("min_token_log_prob", min_token_log_prob, "expected a number or -inf"));
        }
        if max_score_gap.is_nan() || max_score_gap < 0.0 {
            return Err(Error::config("max_score_gap", max_score_gap, "expected at least 0"));
        }
        check::size("width", width, MAX_WIDTH)?;
        // Probabilities sum to 1, so the number of tokens above a limit is bounded.
        let n_followed = vocabulary.len().min((1.0 + (-min_token_log_prob).exp()) as usize);
        check::cells("width", width, n_followed)?;
        Ok(Self { scorer: Scorer::new(vocabulary), vocabulary: vocabulary.clone(), config })
    }

    /// Adds a language model.
    ///
    /// # Errors
    /// [`Error::Config`] if a number is out of range, or if `unit` is words and the vocabulary has no words.
    pub fn with_language_model(mut self, model: &LanguageModel, config: LanguageModelConfig) -> Result<Self> {
        self.scorer.set_language_model(model, config)?;
        Ok(self)
    }

    /// Adds phrases to favour. Each occurrence adds its bonus (a natural logarithm) to the score of a hypothesis. If
    /// the vocabulary has a word delimiter, phrases match whole words; otherwise they match any run of tokens. With
    /// word pieces, a phrase matches as [`Vocabulary::encode`] segments it. The bonus is granted in parts while a
    /// phrase is being completed.
    ///
    /// # Errors
    /// [`Error::Argument`] if a bonus is out of range, or if a phrase is empty or cannot be spelled with the
    /// vocabulary.
    pub fn with_hot_words<T: AsRef<str>>(mut self, phrases: &[(T, f64)]) -> Result<Self> {
        let phrases: Vec<(String, f64)> =
            phrases.iter().map(|(phrase, bonus)| (phrase.as_ref().to_string(), *bonus)).collect();
        self.scorer.set_hot_words(HotWords::new(&phrases, &self.vocabulary)?);
        Ok(self)
    }

    /// Finds the best transcripts of a clip, at most `n_best`, best first. `log_probs` is `[n_frames, n_tokens]`;
    /// `times` is its [`FrameTimes`], or the number of seconds per frame.
    ///
    /// # Errors
    /// [`Error::TooFewFrames`] if there are no frames; [`Error::LabelCount`] if `n_tokens` differs from the vocabulary;
    /// [`Error::Argument`] if a value is NaN, +∞ or above 0, if all values of a frame are −∞, if the seconds per frame
    /// are not positive, or if the end is negative or not finite.
    pub fn decode(&self, log_probs: ArrayView2<f32>, times: impl Into<FrameTimes>) -> Result<Vec<Transcript>> {
        check_not_empty(log_probs)?;
        let mut decoder = self.decoder(times)?;
        decoder.push(log_probs)?;
        decoder.transcripts()
    }

    /// [`BeamSearch::decode`] for each clip of a batch `[batch, n_frames, n_tokens]`, with its length in frames and its
    /// times. Clips are decoded in parallel.
    ///
    /// # Errors
    /// As [`BeamSearch::decode`], and [`Error::Argument`] if lengths or times do not match the batch.
    pub fn decode_batch(
        &self,
        log_probs: ArrayView3<f32>,
        lengths: &[usize],
        times: &[FrameTimes],
    ) -> Result<Vec<Vec<Transcript>>> {
        let clips = timed_clips(log_probs, lengths, times)?;
        let decoded = clips.into_par_iter().map(|(clip, times)| self.decode(clip, times));
        decoded.collect::<Vec<_>>().into_iter().collect() // returns the error of the first failing clip
    }

    /// Creates a decoder for a stream of frames.
    ///
    /// # Errors
    /// [`Error::Argument`] if the seconds per frame are not positive, or if the end is negative or not finite.
    pub fn decoder(&self, times: impl Into<FrameTimes>) -> Result<BeamDecoder<'_>> {
        let times = times.into().checked()?;
        Ok(BeamDecoder { search: self, state: Search::new(&self.scorer), times })
    }
}

/// [`BeamSearch`] for a stream of frames. The result does not depend on how the frames are split.
///
/// Memory grows with the tokens of the hypotheses, not with the number of frames.
#[derive(Debug, Clone)]
pub struct BeamDecoder<'a> {
    search: &'a BeamSearch,
    state: Search,
    times: FrameTimes,
}

impl BeamDecoder<'_> {
    /// Sets the end of the clip in seconds, once it is known. Times in the [`transcripts`](Self::transcripts) are
    /// clipped to it.
    ///
    /// # Errors
    /// [`Error::Argument`] if the end is negative or not finite; the decoder is unchanged.
    pub fn end_at(&mut self, end: f64) -> Result<()> {
        self.times = self.times.until(end).checked()?;
        Ok(())
    }

    /// Takes any number of further frames `[n_frames, n_tokens]`.
    ///
    /// # Errors
    /// As [`BeamSearch::decode`], except that an empty array is valid. On an error the decoder is unchanged.
    pub fn push(&mut self, log_probs: ArrayView2<f32>) -> Result<()> {
        check_log_probs(log_probs, self.search.vocabulary.len())?;
        if self.n_frames().checked_add(log_probs.nrows()).is_none_or(|n_frames| n_frames >= MAX_FRAMES) {
            return Err(Error::argument(
                "n_frames",
                log_probs.nrows(),
                format!("expected less than {MAX_FRAMES} frames in total"),
            ));
        }
        for row in log_probs.rows() {
            self.state.step(row, &self.search.config, &self.search.scorer)?;
        }
        Ok(())
    }

    /// The best transcripts of the frames so far, best first, as if the clip ended here.
    ///
    /// # Errors
    /// None, since all tokens are from the vocabulary.
    pub fn transcripts(&self) -> Result<Vec<Transcript>> {
        let (search, scorer) = (self.search, &self.search.scorer);
        let found = self.state.ranked(scorer, search.config.n_best);
        let transcript = |found: search::Ranked| {
            let token = |span: &super::transcript::Span| span.to_token(&search.vocabulary, self.times);
            let tokens = found.spans.iter().map(token).collect();
            Transcript::new(tokens, &search.vocabulary, found.score, found.ctc_score, found.lm_score)
        };
        found.into_iter().map(transcript).collect()
    }

    /// Length of the prefix that all hypotheses have in common, in tokens. Later frames cannot change it.
    pub fn n_settled(&self) -> usize {
        self.state.n_settled()
    }

    /// The number of frames so far.
    pub fn n_frames(&self) -> usize {
        self.state.n_frames()
    }
}
