//! Tokens ↔ text.

use super::Vocabulary;
use super::special::{SPECIAL_TOKENS, WORD_START};
use crate::error::{Error, Result};

/// What a token is in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Nothing: the blank, or a sign such as `<s>`.
    Silent,
    /// The end of a word.
    Delimiter,
    /// A part of a word, which may say that it begins one.
    Part { text: &'a str, begins_word: bool },
}

impl Vocabulary {
    /// The words that tokens spell, those of a word joined by nothing or, if the vocabulary is spaced, by spaces. Blanks
    /// and special tokens such as `<s>` are left out; nothing is merged, so these are the tokens after CTC's collapsing.
    ///
    /// # Errors
    /// [`Error::Argument`] for an id that is not below [`Vocabulary::len`].
    pub fn words(&self, ids: &[usize]) -> Result<Vec<String>> {
        let mut words = vec![String::new()];
        for &id in ids {
            match self.piece(id)? {
                Piece::Silent => {}
                Piece::Delimiter => words.push(String::new()),
                Piece::Part { text, begins_word } => {
                    if begins_word {
                        words.push(String::new());
                    }
                    if let Some(word) = words.last_mut() {
                        if self.0.spaced && !word.is_empty() {
                            word.push(' ');
                        }
                        word.push_str(text);
                    }
                }
            }
        }
        words.retain(|word| !word.is_empty());
        Ok(words)
    }

    /// The text of tokens: [`Vocabulary::words`] with spaces between, or `" | "` if the vocabulary is spaced.
    ///
    /// # Errors
    /// [`Error::Argument`] for an id that is not below [`Vocabulary::len`].
    pub fn text(&self, ids: &[usize]) -> Result<String> {
        Ok(self.words(ids)?.join(&self.word_separator()))
    }

    pub(crate) fn word_separator(&self) -> String {
        match (self.0.spaced, self.word_delimiter()) {
            (true, Some(id)) => match self.tokens()[id].trim() {
                "" => " | ".to_string(),
                name => format!(" {name} "),
            },
            _ => " ".to_string(),
        }
    }

    /// The ids of a text's tokens, for alignment and training: the inverse of [`Vocabulary::text`]. In a vocabulary that is
    /// not spaced, spaces become word delimiters (dropped if there is none). What is not a token is cut into the fewest
    /// tokens that give it. If the text as it stands cannot be encoded, its upper case is tried, then its lower case.
    ///
    /// # Errors
    /// [`Error::Argument`] for a text with a part that no tokens give.
    pub fn encode(&self, text: &str) -> Result<Vec<usize>> {
        let as_it_stands = self.encode_with(text, None);
        let Err(error) = as_it_stands else { return as_it_stands };
        let other_cases = [text.to_uppercase(), text.to_lowercase()];
        other_cases.iter().find_map(|text| self.encode_with(text, None).ok()).ok_or(error)
    }

    /// As [`Vocabulary::encode`], with the unknown token for each character that no token gives, and without trying
    /// another case.
    ///
    /// # Errors
    /// [`Error::Argument`] if the vocabulary has no unknown token.
    pub fn encode_lossy(&self, text: &str) -> Result<Vec<usize>> {
        let unknown =
            self.unknown().ok_or_else(|| Error::config("unknown", "none", "the vocabulary has no such token"))?;
        self.encode_with(text, Some(unknown))
    }

    fn encode_with(&self, text: &str, unknown: Option<usize>) -> Result<Vec<usize>> {
        let (delimiter, mut ids) = (self.word_delimiter(), Vec::new());
        for (at, part) in text.split_whitespace().enumerate() {
            match delimiter {
                Some(delimiter) if self.0.spaced && (part == self.tokens()[delimiter] || part == "|") => {
                    ids.push(delimiter);
                    continue;
                }
                Some(delimiter) if !self.0.spaced && at > 0 => ids.push(delimiter),
                _ => {}
            }
            let segments = match self.0.pieces {
                true => self.segment(&format!("{WORD_START}{part}"), unknown),
                false => self.segment(part, unknown),
            };
            ids.extend(
                segments.ok_or_else(|| {
                    Error::argument("text", format!("{part:?}"), "no tokens of the vocabulary give it")
                })?,
            );
        }
        Ok(ids)
    }

    /// The fewest tokens that give `part`; of equally few, with the longest one first. With `unknown`, characters that no
    /// token gives become that, as few as can be.
    fn segment(&self, part: &str, unknown: Option<usize>) -> Option<Vec<usize>> {
        /// Cost of an unknown character: larger than any cut into known tokens.
        const UNKNOWN: u128 = 1 << 64;
        // best[i]: cost of the rest from byte i, the first token's id, and where it ends.
        let mut best: Vec<Option<(u128, usize, usize)>> = vec![None; part.len() + 1];
        best[part.len()] = Some((0, 0, part.len()));
        for (start, character) in part.char_indices().rev() {
            let first = start + character.len_utf8();
            for end in (first..=part.len().min(start.saturating_add(self.0.longest))).rev() {
                let (Some((rest, ..)), Some(token)) = (best[end], part.get(start..end)) else { continue };
                let known = self.index_of(token).filter(|&id| self.is_part(id));
                let found = known.map(|id| (rest + 1, id)).or_else(|| match unknown {
                    Some(id) if end == first => Some((rest + UNKNOWN, id)),
                    _ => None,
                });
                if let Some((cost, id)) = found
                    && best[start].is_none_or(|(least, ..)| cost < least)
                {
                    best[start] = Some((cost, id, end));
                }
            }
        }
        let (mut ids, mut at) = (Vec::new(), 0);
        while at < part.len() {
            let (_, id, end) = best[at]?;
            ids.push(id);
            at = end;
        }
        Some(ids)
    }

    /// Whether a token is a part of words, and not a sign.
    fn is_part(&self, id: usize) -> bool {
        Some(id) != self.unknown() && matches!(self.piece(id), Ok(Piece::Part { .. }))
    }

    pub(crate) fn piece(&self, id: usize) -> Result<Piece<'_>> {
        let token = self.token(id).ok_or_else(|| {
            Error::argument("ids", id, format!("expected an id below the {} tokens of the vocabulary", self.len()))
        })?;
        Ok(if Some(id) == self.word_delimiter() {
            Piece::Delimiter
        } else if id == self.blank() || SPECIAL_TOKENS.contains(&token) {
            Piece::Silent
        } else {
            match token.strip_prefix(WORD_START) {
                Some(text) if self.0.pieces => Piece::Part { text, begins_word: true },
                _ => Piece::Part { text: token, begins_word: false },
            }
        })
    }
}
