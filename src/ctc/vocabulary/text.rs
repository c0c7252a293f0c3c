//! Conversion between tokens and text.

use super::Vocabulary;
use super::special::{SPECIAL_TOKENS, WORD_START};
use crate::error::{Error, Result};

/// The role of a token in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// No text: the blank, or a special token such as `<s>`.
    Silent,
    /// The word delimiter.
    Delimiter,
    /// A part of a word, which may be marked as its beginning.
    Part { text: &'a str, begins_word: bool },
}

impl Vocabulary {
    /// The words that tokens spell. Tokens of a word are joined without separator, or with spaces if the vocabulary is
    /// spaced. Blanks and special tokens such as `<s>` are skipped. Repeated tokens are not merged: pass the tokens
    /// after CTC's collapsing.
    ///
    /// # Errors
    /// [`Error::Argument`] if an id is not below [`Vocabulary::len`].
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

    /// The text of tokens: [`Vocabulary::words`] separated by spaces, or by `" | "` if the vocabulary is spaced.
    ///
    /// # Errors
    /// [`Error::Argument`] if an id is not below [`Vocabulary::len`].
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

    /// Converts text to token ids, for alignment and training: the inverse of [`Vocabulary::text`]. If the vocabulary
    /// is not spaced, spaces become word delimiters, or are dropped if there is none. Parts that are not a token are
    /// segmented into the fewest tokens. If the text cannot be encoded, its upper case and then its lower case are
    /// tried.
    ///
    /// # Errors
    /// [`Error::Argument`] if a part of the text cannot be segmented into tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<usize>> {
        let as_it_stands = self.encode_with(text, None);
        let Err(error) = as_it_stands else { return as_it_stands };
        let other_cases = [text.to_uppercase(), text.to_lowercase()];
        other_cases.iter().find_map(|text| self.encode_with(text, None).ok()).ok_or(error)
    }

    /// As [`Vocabulary::encode`], but characters that no token gives become the unknown token, and other cases are not
    /// tried.
    ///
    /// # Errors
    /// [`Error::Config`] if the vocabulary has no unknown token.
    pub fn encode_lossy(&self, text: &str) -> Result<Vec<usize>> {
        let unknown = self
            .unknown()
            .ok_or_else(|| Error::config("unknown", "none", "expected a vocabulary with an unknown token"))?;
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
            ids.extend(segments.ok_or_else(|| {
                Error::argument(
                    "text",
                    format!("{part:?}"),
                    "expected text that can be spelled with the tokens of the vocabulary",
                )
            })?);
        }
        Ok(ids)
    }

    /// Segments `part` into the fewest tokens; among equally short segmentations, the one with the longest first token.
    /// With `unknown`, characters that no token gives become that token, as few as possible.
    fn segment(&self, part: &str, unknown: Option<usize>) -> Option<Vec<usize>> {
        /// Cost of an unknown character: larger than any segmentation into known tokens.
        const UNKNOWN: u128 = 1 << 64;
        // best[i]: cost of the rest from byte i, id of its first token, and where that ends.
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

    /// Whether a token is part of words, not a special token.
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
