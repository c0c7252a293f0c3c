//! Vocabularies of CTC models: token ids ↔ text, with blank, unknown token and word delimiter.

mod files;
mod special;
mod text;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
pub(super) use files::in_folder;
use special::{BLANKS, SPECIAL_TOKENS, UNKNOWNS, WORD_DELIMITERS, WORD_START};
pub(crate) use text::Piece;

/// A reference to a token, by index or name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum TokenRef {
    /// Index, from 0.
    Index(usize),
    /// Exact name.
    Name(String),
}

/// Special tokens of a vocabulary. With `None` (the default), they are identified by their usual names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The blank. `None`: the first of `<blank>`, `<blk>`, `[BLANK]`, `<ctc_blank>`, `<pad>`, `[PAD]`, `<PAD>`, `<eps>`
    /// and the empty name that exists.
    pub blank: Option<TokenRef>,
    /// The unknown token. `None`: `<unk>`, `[UNK]`, `<UNK>` or `⁇`, if it exists.
    pub unknown: Option<TokenRef>,
    /// The word delimiter. `None`: `|`, `<space>`, `[SPACE]`, a space or `▁`, if it exists.
    pub word_delimiter: Option<TokenRef>,
    /// Whether text has spaces between tokens, as in transcripts of phonemes (`h ə l oʊ | w ɜː l d`), or not
    /// (`hello world`). `None`: it has if a token is longer than one code point and no token begins with `▁`.
    pub spaced: Option<bool>,
    /// The language, for a `vocab.json` with one vocabulary per language (MMS). `None`: the `target_lang` of the
    /// `tokenizer_config.json` in the same folder.
    pub language: Option<String>,
}

/// The tokens of a CTC model, in the order of its outputs. Cheap to clone.
///
/// ```
/// use clipwise::ctc::Vocabulary;
///
/// # fn main() -> clipwise::Result<()> {
/// let vocabulary = Vocabulary::new(["[PAD]", "[UNK]", "|", "oʊ", "o", "ʊ", "s", "m", "aɪ"])?;
/// assert_eq!(vocabulary.blank(), 0);
/// assert_eq!(vocabulary.encode("soʊ | m aɪ")?, [6, 3, 2, 7, 8]);
/// assert_eq!(vocabulary.text(&[6, 3, 2, 7, 8])?, "s oʊ | m aɪ");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    tokens: Vec<String>,
    index: HashMap<String, usize>,
    blank: usize,
    unknown: Option<usize>,
    word_delimiter: Option<usize>,
    spaced: bool,
    /// SentencePiece: tokens are marked if they begin a word.
    pieces: bool,
    /// Length of the longest token, in bytes.
    longest: usize,
}

impl Vocabulary {
    /// Creates a vocabulary from tokens in the order of the outputs. Blank, unknown token and word delimiter are
    /// identified by their usual names.
    ///
    /// # Errors
    /// [`Error::Argument`] if a token occurs twice; [`Error::Config`] if no token has a usual name of a blank.
    pub fn new<T: Into<String>>(tokens: impl IntoIterator<Item = T>) -> Result<Self> {
        Self::with_config(tokens, &Config::default())
    }

    /// As [`Vocabulary::new`], with the special tokens of `config`.
    ///
    /// # Errors
    /// [`Error::Argument`] if a token occurs twice; [`Error::Config`] if a token of `config` does not exist, or if
    /// there is no blank.
    pub fn with_config<T: Into<String>>(tokens: impl IntoIterator<Item = T>, config: &Config) -> Result<Self> {
        let tokens: Vec<String> = tokens.into_iter().map(Into::into).collect();
        let mut index = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = index.insert(token.clone(), id) {
                return Err(Error::argument(
                    "tokens",
                    format!("{token:?}"),
                    format!("expected different tokens, got it as token {first} and as token {id}"),
                ));
            }
        }
        let place = |field: &'static str, wanted: &Option<TokenRef>, usual: &[&str]| match wanted {
            None => Ok(usual.iter().find_map(|&name| index.get(name).copied())),
            Some(TokenRef::Index(id)) if *id < tokens.len() => Ok(Some(*id)),
            Some(TokenRef::Index(id)) => {
                Err(Error::config(field, id, format!("expected an index below {}, the number of tokens", tokens.len())))
            }
            Some(TokenRef::Name(name)) => match index.get(name) {
                Some(&id) => Ok(Some(id)),
                None => Err(Error::config(field, format!("{name:?}"), "expected the name of a token")),
            },
        };
        let blank = place("blank", &config.blank, &BLANKS)?.ok_or_else(|| {
            let reason =
                format!("expected its name or index, since none of the {} tokens is called {BLANKS:?}", tokens.len());
            Error::config("blank", "none", reason)
        })?;
        let not_blank = |id: &usize| *id != blank;
        let unknown = place("unknown", &config.unknown, &UNKNOWNS)?.filter(not_blank);
        let pieces = tokens.iter().any(|token| token.starts_with(WORD_START) && token.chars().nth(1).is_some());
        // In SentencePiece vocabularies the mark alone begins a word, and is not a delimiter.
        let usual = if pieces { &WORD_DELIMITERS[..4] } else { &WORD_DELIMITERS[..] };
        let word_delimiter = place("word_delimiter", &config.word_delimiter, usual)?.filter(not_blank);
        let in_text = |(id, token): &(usize, &String)| {
            let special = *id == blank || Some(*id) == unknown || Some(*id) == word_delimiter;
            !special && !SPECIAL_TOKENS.contains(&token.as_str())
        };
        let mut shown = tokens.iter().enumerate().filter(in_text).map(|(_, token)| token);
        let spaced = config.spaced.unwrap_or_else(|| !pieces && shown.any(|token| token.chars().nth(1).is_some()));
        let longest = tokens.iter().map(String::len).max().unwrap_or_default();
        Ok(Self(Arc::new(Inner { tokens, index, blank, unknown, word_delimiter, spaced, pieces, longest })))
    }

    /// Creates tokens named by their index, for models with unknown tokens. Text has spaces between tokens.
    ///
    /// # Errors
    /// [`Error::Config`] if `blank` is not below `n_tokens`.
    pub fn numbered(n_tokens: usize, blank: usize) -> Result<Self> {
        let config = Config { blank: Some(TokenRef::Index(blank)), spaced: Some(true), ..Config::default() };
        Self::with_config((0..n_tokens).map(|id| id.to_string()), &config)
    }

    /// Reads a vocabulary. The format is recognised by the content:
    /// - JSON: `{"a": 0, …}` (Hugging Face's `vocab.json`), or `["a", …]`;
    /// - text: one token per line, or one token and its index (`tokens.txt` of icefall, WeNet, sherpa);
    /// - fairseq's `dict.ltr.txt`: one token and its count per line. As in fairseq, `<s>` (the blank), `<pad>`, `</s>`
    ///   and `<unk>` are prepended;
    /// - a folder with `vocab.json`, `tokens.txt` or `vocab.txt`. Hugging Face's `tokenizer_config.json`,
    ///   `special_tokens_map.json` and `added_tokens.json` in the same folder are taken into account.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Labels`] if it has no tokens, indices that do not run from 0
    /// without gaps, a token twice, no blank with a usual name, or invalid JSON.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &Config::default())
    }

    /// As [`Vocabulary::open`], with the special tokens of `config`.
    ///
    /// # Errors
    /// As [`Vocabulary::open`], and [`Error::Labels`] if a token of `config` does not exist.
    pub fn open_with(path: impl AsRef<Path>, config: &Config) -> Result<Self> {
        files::open(path.as_ref(), config)
    }

    /// Reads a vocabulary of s3prl: one token per line. As in s3prl, `<pad>` (the blank), `<eos>` and `<unk>` are
    /// prepended.
    ///
    /// # Errors
    /// As [`Vocabulary::open`].
    pub fn open_s3prl(path: impl AsRef<Path>) -> Result<Self> {
        files::open_s3prl(path.as_ref())
    }

    /// The vocabulary as the content of a `vocab.json`, in the order of the ids.
    pub fn to_json(&self) -> String {
        let entry = |(id, token)| format!("  {}: {id}", serde_json::Value::from(token));
        let entries: Vec<String> = self.tokens().iter().map(String::as_str).enumerate().map(entry).collect();
        format!("{{\n{}\n}}\n", entries.join(",\n"))
    }

    /// Adapts the vocabulary to a head of `n_tokens` outputs: trailing special tokens that never occur in text (`<s>`,
    /// `</s>`) are dropped, for heads that were trained without them.
    ///
    /// # Errors
    /// [`Error::LabelCount`] if the result does not have `n_tokens` tokens.
    pub fn for_outputs(&self, n_tokens: usize) -> Result<Self> {
        if n_tokens == self.len() {
            return Ok(self.clone());
        }
        let mut rest = self.tokens().iter().enumerate().skip(n_tokens);
        let droppable = |(id, token): (usize, &String)| id != self.blank() && SPECIAL_TOKENS.contains(&token.as_str());
        if n_tokens > self.len() || !rest.all(droppable) {
            return Err(Error::LabelCount { n_classes: n_tokens, n_labels: self.len() });
        }
        let config = Config {
            blank: Some(TokenRef::Index(self.blank())),
            unknown: self.unknown().map(TokenRef::Index),
            word_delimiter: self.word_delimiter().map(TokenRef::Index),
            spaced: Some(self.0.spaced),
            language: None,
        };
        Self::with_config(self.tokens()[..n_tokens].iter().cloned(), &config)
    }

    /// The names of the tokens, in the order of their ids.
    pub fn tokens(&self) -> &[String] {
        &self.0.tokens
    }

    /// The number of tokens, including the blank.
    pub fn len(&self) -> usize {
        self.0.tokens.len()
    }

    /// Always false, since there is always a blank.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The id of the blank.
    pub fn blank(&self) -> usize {
        self.0.blank
    }

    /// The id of the unknown token, if there is one.
    pub fn unknown(&self) -> Option<usize> {
        self.0.unknown
    }

    /// The id of the word delimiter, if there is one.
    pub fn word_delimiter(&self) -> Option<usize> {
        self.0.word_delimiter
    }

    /// Whether words can be separated, by a word delimiter or by tokens that begin a word.
    pub fn has_words(&self) -> bool {
        self.0.pieces || self.word_delimiter().is_some()
    }

    /// Whether text has spaces between tokens.
    pub fn is_spaced(&self) -> bool {
        self.0.spaced
    }

    /// The name of a token; `None` if there is no such id.
    pub fn token(&self, id: usize) -> Option<&str> {
        self.tokens().get(id).map(String::as_str)
    }

    /// The id of a token with this exact name.
    pub fn index_of(&self, token: &str) -> Option<usize> {
        self.0.index.get(token).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_letters_pieces_and_phonemes_round_trip() {
        let letters = Vocabulary::new(["<pad>", "<s>", "</s>", "<unk>", "|", "E", "H", "L", "O"]).unwrap();
        assert!(!letters.is_spaced());
        assert_eq!((letters.blank(), letters.unknown(), letters.word_delimiter()), (0, Some(3), Some(4)));
        assert_eq!(letters.encode("hello  ho").unwrap(), [6, 5, 7, 7, 8, 4, 6, 8], "upper case as the tokens have it");
        assert_eq!(letters.text(&[1, 6, 5, 0, 7, 7, 8, 4, 4, 6, 8, 2]).unwrap(), "HELLO HO");
        assert!(matches!(letters.encode("HEY"), Err(Error::Argument { name: "text", .. })));
        assert_eq!(letters.encode_lossy("HEY").unwrap(), [6, 5, 3]);
        assert_eq!(letters.text(&[6, 5, 3]).unwrap(), "HE<unk>");

        let pieces = Vocabulary::new(["<blk>", "<unk>", "▁", "▁he", "▁h", "e", "llo", "l", "o"]).unwrap();
        assert!(!pieces.is_spaced() && pieces.word_delimiter().is_none());
        assert_eq!(pieces.encode("hello ol").unwrap(), [3, 6, 2, 8, 7]);
        assert_eq!(pieces.text(&[3, 6, 2, 8, 7]).unwrap(), "hello ol");

        let ipa = Vocabulary::new(["t", "tʃ", "ʃ", "iː", "i", "d̪", "d", "|", "[PAD]"]).unwrap();
        assert!(ipa.is_spaced());
        assert_eq!(ipa.encode("tʃ iː | d̪ i t").unwrap(), [1, 3, 7, 5, 4, 0]);
        assert_eq!(ipa.encode("tʃiː | d̪it").unwrap(), [1, 3, 7, 5, 4, 0], "the longest tokens where nothing separates");
        assert_eq!(ipa.text(&[1, 3, 8, 7, 5, 4, 0]).unwrap(), "tʃ iː | d̪ i t");
        assert_eq!(ipa.words(&[1, 3, 7, 5, 4, 0]).unwrap(), ["tʃ iː", "d̪ i t"]);
        assert!(matches!(ipa.text(&[9]), Err(Error::Argument { name: "ids", .. })));
        // A delimiter without a name, and more unknown characters than costs of 64 bits would have room for.
        let spaced = Vocabulary::new(["<pad>", " ", "tʃ", "iː"]).unwrap();
        let ids = spaced.encode(&spaced.text(&[2, 1, 3]).unwrap()).unwrap();
        assert_eq!(ids, [2, 1, 3]);
        let unknown = Vocabulary::new(["<pad>", "<unk>", "a"]).unwrap();
        assert_eq!(unknown.encode_lossy(&"x".repeat(1 << 20)).unwrap().len(), 1 << 20);
    }

    #[test]
    fn encoding_takes_the_fewest_tokens() {
        let vocabulary = Vocabulary::new(["<pad>", "<unk>", "ab", "a", "bc", "b"]).unwrap();
        assert_eq!(vocabulary.encode("abc").unwrap(), [3, 4]);
        assert_eq!(vocabulary.encode("abb").unwrap(), [2, 5]);
        assert_eq!(vocabulary.encode_lossy("xabc").unwrap(), [1, 3, 4]);
        assert_eq!(vocabulary.encode("").unwrap(), [0; 0]);
    }

    #[test]
    fn blank_by_name_by_index_and_missing() {
        let config = |blank: TokenRef| Config { blank: Some(blank), ..Config::default() };
        let tokens = ["a", "-", "b"];
        assert_eq!(Vocabulary::with_config(tokens, &config(TokenRef::Name("-".into()))).unwrap().blank(), 1);
        assert_eq!(Vocabulary::with_config(tokens, &config(TokenRef::Index(2))).unwrap().blank(), 2);
        for (tokens, config, field) in [
            (&tokens[..], Config::default(), "blank"),
            (&tokens, config(TokenRef::Index(3)), "blank"),
            (&tokens, config(TokenRef::Name("x".into())), "blank"),
            (&["<pad>", "a", "a"], Config::default(), "tokens"),
            (&[], Config::default(), "blank"),
        ] {
            let error = Vocabulary::with_config(tokens.iter().copied(), &config).unwrap_err();
            assert!(
                matches!(error, Error::Config { field: at, .. } | Error::Argument { name: at, .. } if at == field),
                "{error}"
            );
        }
        assert_eq!(Vocabulary::new(["<pad>", "<blank>"]).unwrap().blank(), 1, "`<blank>` has precedence over `<pad>`");
    }

    #[test]
    fn vocabulary_of_a_head_without_trailing_special_tokens() {
        let vocabulary = Vocabulary::new(["a", "b", "[PAD]", "<s>", "</s>"]).unwrap();
        assert_eq!(vocabulary.for_outputs(3).unwrap().tokens(), ["a", "b", "[PAD]"]);
        assert_eq!(vocabulary.for_outputs(5).unwrap(), vocabulary);
        for n_tokens in [0, 2, 6] {
            assert!(matches!(vocabulary.for_outputs(n_tokens), Err(Error::LabelCount { .. })), "{n_tokens}");
        }
    }
}
