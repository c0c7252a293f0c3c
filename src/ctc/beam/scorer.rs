//! The contributions of language model and hot words to the score of a hypothesis.

use super::{LanguageModelConfig, Unit};
use crate::ctc::Vocabulary;
use crate::ctc::hot_words::{BONUS_RANGE, HotWords, is_in_range};
use crate::ctc::language_model::{Context, LanguageModel};
use crate::ctc::vocabulary::Piece;
use crate::error::{Error, Result};

#[derive(Debug, Clone)]
pub(super) struct Scorer {
    vocabulary: Vocabulary,
    model: Option<(LanguageModel, LanguageModelConfig, Unit)>,
    hot_words: Option<HotWords>,
}

/// The sums of a hypothesis, and the state that the next token depends on.
#[derive(Debug, Clone, Default)]
pub(super) struct ScoreState {
    /// Added to the score of the frames.
    pub(super) added: f64,
    /// Log-probability by the language model, without its weight.
    pub(super) model: f64,
    context: Context,
    /// The text of the incomplete word, if words are scored.
    word: String,
    hot_words: u32,
}

impl Scorer {
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        Self { vocabulary: vocabulary.clone(), model: None, hot_words: None }
    }

    pub(super) fn set_language_model(&mut self, model: &LanguageModel, config: LanguageModelConfig) -> Result<()> {
        for (field, value) in [("weight", config.weight), ("bonus", config.bonus), ("unknown", config.unknown)] {
            if !is_in_range(value) {
                return Err(Error::config(field, value, BONUS_RANGE));
            }
        }
        let has_words = self.vocabulary.has_words();
        let unit = config.unit.unwrap_or(match has_words && !self.vocabulary.is_spaced() {
            true => Unit::Words,
            false => Unit::Tokens,
        });
        if unit == Unit::Words && !has_words {
            let reason = "expected tokens, since the vocabulary has no word delimiter";
            return Err(Error::config("unit", "words", reason));
        }
        self.model = Some((model.clone(), config, unit));
        Ok(())
    }

    pub(super) fn set_hot_words(&mut self, hot_words: HotWords) {
        self.hot_words = Some(hot_words);
    }

    pub(super) fn blank(&self) -> usize {
        self.vocabulary.blank()
    }

    /// Whether there is neither a language model nor hot words.
    pub(super) fn is_idle(&self) -> bool {
        self.model.is_none() && self.hot_words.is_none()
    }

    /// The state before the first token.
    pub(super) fn start(&self) -> ScoreState {
        let context = match &self.model {
            Some((model, config, _)) if config.boundaries => model.start(),
            _ => Context::default(),
        };
        let (added, hot_words) =
            self.hot_words.as_ref().map_or((0.0, 0), |words| (words.start_credit(), words.start()));
        ScoreState { added, model: 0.0, context, word: String::new(), hot_words }
    }

    /// The state after one more token.
    pub(super) fn advance(&self, state: &ScoreState, token: usize) -> Result<ScoreState> {
        let mut next = state.clone();
        if let Some(words) = &self.hot_words {
            let (state, added) = words.advance(state.hot_words, token);
            next.hot_words = state;
            next.added += added;
        }
        match self.model.as_ref().map(|(.., unit)| unit) {
            None => {}
            Some(Unit::Tokens) => match self.vocabulary.piece(token)? {
                Piece::Silent => {}
                _ => self.score(&mut next, self.vocabulary.token(token).unwrap_or_default()),
            },
            Some(Unit::Words) => match self.vocabulary.piece(token)? {
                Piece::Silent => {}
                Piece::Delimiter => self.end_word(&mut next),
                Piece::Part { text, begins_word } => {
                    if begins_word {
                        self.end_word(&mut next);
                    }
                    next.word.push_str(text);
                }
            },
        }
        Ok(next)
    }

    /// The state at the end of the clip.
    pub(super) fn finish(&self, state: &ScoreState) -> ScoreState {
        let mut end = state.clone();
        if let Some(words) = &self.hot_words {
            end.added += words.finish(state.hot_words);
        }
        self.end_word(&mut end);
        if let Some((model, config, _)) = &self.model
            && config.boundaries
        {
            let score = model.score_end(&end.context);
            end.model += score;
            end.added += config.weight * score;
        }
        end
    }

    fn end_word(&self, state: &mut ScoreState) {
        if !state.word.is_empty() {
            let word = std::mem::take(&mut state.word);
            self.score(state, &word);
        }
    }

    fn score(&self, state: &mut ScoreState, unit: &str) {
        let Some((model, config, _)) = &self.model else { return };
        let (mut score, context) = model.score(&state.context, unit);
        if !model.contains(unit) {
            score += config.unknown;
        }
        state.context = context;
        state.model += score;
        state.added += config.weight * score + config.bonus;
    }
}
