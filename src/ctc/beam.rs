//! Prefix beam search: the most probable token sequences over all their paths, with language model and hot words.

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

/// The widest search.
const MAX_WIDTH: usize = 1 << 20;

/// How wide a search is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The most hypotheses that are kept after each frame, 1 to 2^20, and times the tokens that may be followed in a frame at most
    /// 2^24; 100 by default.
    pub width: usize,
    /// In each frame only tokens with at least this log-probability, and the best one, are followed; −5 by default, −∞ for all.
    pub min_token_log_prob: f64,
    /// Hypotheses whose score is further below the best one are dropped; 10 by default, +∞ for none.
    pub max_score_gap: f64,
    /// The most transcripts that are given; 1 by default.
    pub n_best: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { width: 100, min_token_log_prob: -5.0, max_score_gap: 10.0, n_best: 1 }
    }
}

/// What a language model scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Unit {
    /// Each token by its name, word delimiters too: phonemes, letters, word pieces.
    Tokens,
    /// Words, when a word delimiter, a token that begins a word or the end follows.
    Words,
}

/// How a language model counts beside the frames. A hypothesis's score is `ctc + weight · lm + bonus · units`: the
/// logarithms of its probabilities by the frames and by the model, and its number of units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LanguageModelConfig {
    /// Weight, often called α; 0.5 by default.
    pub weight: f64,
    /// Added for each unit, often called β, since language models favour short sequences; 1.5 by default.
    pub bonus: f64,
    /// Added to the log-probability of a unit that the model does not know; −10 · ln 10 by default.
    pub unknown: f64,
    /// Whether the sequence is a whole sentence: begins after `<s>` and is followed by `</s>`; true by default.
    pub boundaries: bool,
    /// What is scored. `None`: words, or tokens where the vocabulary is spaced.
    pub unit: Option<Unit>,
}

impl Default for LanguageModelConfig {
    fn default() -> Self {
        Self { weight: 0.5, bonus: 1.5, unknown: -10.0 * std::f64::consts::LN_10, boundaries: true, unit: None }
    }
}

/// A prefix beam search (Hannun et al., *First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional
/// Recurrent DNNs*, 2014), in f64.
///
/// Where the limits of its [`Config`] drop nothing, a transcript's `ctc_score` is the exact log-probability of its tokens, over
/// all paths. Times come from the best path of the tokens.
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
    /// A search without language model.
    ///
    /// # Errors
    /// [`Error::Config`] for a width out of its range, no transcripts, and limits that are NaN or leave nothing.
    pub fn new(vocabulary: &Vocabulary, config: Config) -> Result<Self> {
        let Config { width, min_token_log_prob, max_score_gap, n_best } = config;
        if n_best == 0 {
            return Err(Error::config("n_best", n_best, "expected at least 1"));
        }
        if min_token_log_prob.is_nan() {
            return Err(Error::config("min_token_log_prob", min_token_log_prob, "it must be a number or -inf"));
        }
        if max_score_gap.is_nan() || max_score_gap < 0.0 {
            return Err(Error::config("max_score_gap", max_score_gap, "it must be at least 0"));
        }
        check::size("width", width, MAX_WIDTH)?;
        // Probabilities sum to 1, so few tokens can have a high one.
        let n_followed = vocabulary.len().min((1.0 + (-min_token_log_prob).exp()) as usize);
        check::cells("width", width, n_followed)?;
        Ok(Self { scorer: Scorer::new(vocabulary), vocabulary: vocabulary.clone(), config })
    }

    /// The search with a language model.
    ///
    /// # Errors
    /// [`Error::Config`] for numbers that are not finite, and for words as the unit where the vocabulary has no words.
    pub fn with_language_model(mut self, model: &LanguageModel, config: LanguageModelConfig) -> Result<Self> {
        self.scorer.set_language_model(model, config)?;
        Ok(self)
    }

    /// The search with phrases that it should favour: each occurrence adds its bonus (natural logarithm) to a hypothesis's
    /// score. Whole words match where the vocabulary has a word delimiter, any run of tokens where it has none; a phrase in
    /// word pieces matches as [`Vocabulary::encode`] cuts it. A part of a phrase is credited while it is being spoken.
    ///
    /// # Errors
    /// [`Error::Argument`] for a bonus that is not finite, an empty phrase, and one that the vocabulary cannot spell.
    pub fn with_hot_words<T: AsRef<str>>(mut self, phrases: &[(T, f64)]) -> Result<Self> {
        let phrases: Vec<(String, f64)> =
            phrases.iter().map(|(phrase, bonus)| (phrase.as_ref().to_string(), *bonus)).collect();
        self.scorer.set_hot_words(HotWords::new(&phrases, &self.vocabulary)?);
        Ok(self)
    }

    /// The best transcripts of a clip, at most `n_best`, best first. `log_probs` is `[n_frames, n_tokens]`, `times` are its
    /// [`FrameTimes`] or the seconds per frame.
    ///
    /// # Errors
    /// [`Error::TooFewFrames`] without frames, [`Error::LabelCount`] if `n_tokens` is not the vocabulary's,
    /// [`Error::Argument`] for NaN, +∞, a frame with nothing but −∞, values above 0, seconds per frame that are not positive, and
    /// an end that is negative or not finite.
    pub fn decode(&self, log_probs: ArrayView2<f32>, times: impl Into<FrameTimes>) -> Result<Vec<Transcript>> {
        check_not_empty(log_probs)?;
        let mut decoder = self.decoder(times)?;
        decoder.push(log_probs)?;
        decoder.transcripts()
    }

    /// [`BeamSearch::decode`] for each clip of a batch `[batch, n_frames, n_tokens]`, cut to its length in frames, with its
    /// times; clips are spread over the threads.
    ///
    /// # Errors
    /// Those of [`BeamSearch::decode`], and [`Error::Argument`] for lengths or times that do not fit the batch.
    pub fn decode_batch(
        &self,
        log_probs: ArrayView3<f32>,
        lengths: &[usize],
        times: &[FrameTimes],
    ) -> Result<Vec<Vec<Transcript>>> {
        let clips = timed_clips(log_probs, lengths, times)?;
        let decoded = clips.into_par_iter().map(|(clip, times)| self.decode(clip, times));
        decoded.collect::<Vec<_>>().into_iter().collect() // the error is that of the first clip that has one
    }

    /// A decoder that takes frames as they come.
    ///
    /// # Errors
    /// [`Error::Argument`] for seconds per frame that are not positive, and an end that is negative or not finite.
    pub fn decoder(&self, times: impl Into<FrameTimes>) -> Result<BeamDecoder<'_>> {
        let times = times.into().checked()?;
        Ok(BeamDecoder { search: self, state: Search::new(&self.scorer), times })
    }
}

/// [`BeamSearch`] on frames as they come, with the same result however they are cut into pieces.
///
/// Memory grows with the tokens of the hypotheses, not with the number of frames.
#[derive(Debug, Clone)]
pub struct BeamDecoder<'a> {
    search: &'a BeamSearch,
    state: Search,
    times: FrameTimes,
}

impl BeamDecoder<'_> {
    /// Tells where the clip ends, in seconds, once that is known: no time of the [`transcripts`](Self::transcripts) is later.
    ///
    /// # Errors
    /// [`Error::Argument`] for an end that is negative or not finite; the decoder is then as it was before.
    pub fn end_at(&mut self, end: f64) -> Result<()> {
        self.times = self.times.until(end).checked()?;
        Ok(())
    }

    /// Takes further frames `[n_frames, n_tokens]`, any number of them.
    ///
    /// # Errors
    /// Those of [`BeamSearch::decode`], but for no frames; the decoder is then as it was before.
    pub fn push(&mut self, log_probs: ArrayView2<f32>) -> Result<()> {
        check_log_probs(log_probs, self.search.vocabulary.len())?;
        if self.n_frames().checked_add(log_probs.nrows()).is_none_or(|n_frames| n_frames >= MAX_FRAMES) {
            return Err(Error::argument("n_frames", log_probs.nrows(), format!("{MAX_FRAMES} frames are too many")));
        }
        for row in log_probs.rows() {
            self.state.step(row, &self.search.config, &self.search.scorer)?;
        }
        Ok(())
    }

    /// The best transcripts of the frames so far, best first, as if the clip ended here.
    ///
    /// # Errors
    /// None with tokens of a vocabulary.
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
