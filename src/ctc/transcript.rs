//! Results of decoders: tokens and words with times.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::vocabulary::Piece;
use super::{FrameTimes, Vocabulary};
use crate::error::Result;

/// A token with its times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Token {
    /// Index in the vocabulary.
    pub id: usize,
    /// Name in the vocabulary.
    pub name: String,
    /// The frames of the token on the best path, without the blanks around them.
    pub frames: Range<usize>,
    /// Start of the first of these frames, in seconds; at most the [end](FrameTimes::end) of the clip, if known.
    pub onset: f64,
    /// End of the last of these frames, in seconds; at most the end of the clip, if known.
    pub offset: f64,
    /// Mean probability of the token in these frames, in `0..=1`.
    pub confidence: f32,
}

/// A word with its times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The word, as in [`Vocabulary::words`].
    pub text: String,
    /// Onset of its first token, in seconds.
    pub onset: f64,
    /// Offset of its last token, in seconds.
    pub offset: f64,
    /// Mean confidence of its tokens, in `0..=1`.
    pub confidence: f32,
}

/// A decoded token sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Transcript {
    /// [`Vocabulary::text`] of the tokens.
    pub text: String,
    /// The tokens, in order.
    pub tokens: Vec<Token>,
    /// The words, in order. A single word if the vocabulary has no word delimiter.
    pub words: Vec<Word>,
    /// The score by which hypotheses are ranked, as a natural logarithm: `ctc_score` plus the contributions of language
    /// model and hot words.
    pub score: f64,
    /// Natural logarithm of the probability of the best path (greedy), or of all paths that the search kept (beam
    /// search).
    pub ctc_score: f64,
    /// Natural logarithm of the language model's probability, without its weight; 0 without a language model.
    pub lm_score: f64,
}

/// The frames of a token on a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) token: usize,
    pub(super) start: usize,
    /// One past the last frame.
    pub(super) end: usize,
    /// Sum of the token's probability over the frames.
    pub(super) probability: f64,
}

impl Span {
    pub(super) fn begin(token: usize, frame: usize, log_prob: f32) -> Self {
        Self { token, start: frame, end: frame + 1, probability: f64::from(log_prob).exp() }
    }

    /// The span extended by one frame.
    pub(super) fn extended(self, log_prob: f32) -> Self {
        Self { end: self.end + 1, probability: self.probability + f64::from(log_prob).exp(), ..self }
    }

    pub(super) fn to_token(self, vocabulary: &Vocabulary, times: FrameTimes) -> Token {
        Token {
            id: self.token,
            name: vocabulary.token(self.token).unwrap_or_default().to_string(),
            frames: self.start..self.end,
            onset: times.start_of(self.start),
            offset: times.start_of(self.end),
            confidence: ((self.probability / (self.end - self.start) as f64) as f32).min(1.0),
        }
    }
}

impl Transcript {
    pub(super) fn new(
        tokens: Vec<Token>,
        vocabulary: &Vocabulary,
        score: f64,
        ctc_score: f64,
        lm_score: f64,
    ) -> Result<Self> {
        let ids: Vec<usize> = tokens.iter().map(|token| token.id).collect();
        let words = words(&tokens, vocabulary)?;
        Ok(Self { text: vocabulary.text(&ids)?, tokens, words, score, ctc_score, lm_score })
    }

    /// The ids of the tokens.
    pub fn ids(&self) -> Vec<usize> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}

/// The words that tokens spell, with their times.
pub(super) fn words(tokens: &[Token], vocabulary: &Vocabulary) -> Result<Vec<Word>> {
    let mut groups: Vec<Vec<&Token>> = vec![Vec::new()];
    for token in tokens {
        match vocabulary.piece(token.id)? {
            Piece::Silent => continue,
            Piece::Delimiter => groups.push(Vec::new()),
            Piece::Part { begins_word, .. } => {
                if begins_word {
                    groups.push(Vec::new());
                }
                groups.last_mut().into_iter().for_each(|group| group.push(token));
            }
        }
    }
    let word = |group: &Vec<&Token>| {
        let (first, last) = (group.first()?, group.last()?);
        let ids: Vec<usize> = group.iter().map(|token| token.id).collect();
        let text = vocabulary.text(&ids).ok().filter(|text| !text.is_empty())?;
        let mean = group.iter().map(|token| f64::from(token.confidence)).sum::<f64>() / group.len() as f64;
        Some(Word { text, onset: first.onset, offset: last.offset, confidence: mean as f32 })
    };
    Ok(groups.iter().filter_map(word).collect())
}
