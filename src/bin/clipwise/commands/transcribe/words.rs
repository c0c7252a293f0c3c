//! How words are pronounced: as phonemes, by a lexicon, by espeak-ng.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use clipwise::ctc::{Transcript, Vocabulary, Word};

use super::{TextKind, phonemes};
use crate::message::{Failure, cannot};

/// Words and the tokens that say them.
pub struct SpokenText(Vec<(String, Vec<usize>)>);

impl SpokenText {
    /// All tokens, with word delimiters between words where the vocabulary has them.
    pub fn targets(&self, vocabulary: &Vocabulary) -> Vec<usize> {
        let mut targets = Vec::new();
        for (_, tokens) in &self.0 {
            if !targets.is_empty() {
                targets.extend(vocabulary.word_delimiter());
            }
            targets.extend(tokens);
        }
        targets
    }

    /// When each word is spoken, given the alignment of [`SpokenText::targets`].
    pub fn words(&self, aligned: &Transcript, vocabulary: &Vocabulary) -> Vec<Word> {
        let mut tokens = aligned.tokens.iter().filter(|token| Some(token.id) != vocabulary.word_delimiter());
        let word = |(text, ids): &(String, Vec<usize>)| {
            let own: Vec<_> = tokens.by_ref().take(ids.len()).collect();
            let confidence = own.iter().map(|token| token.confidence).sum::<f32>() / own.len() as f32;
            let (first, last) = (own.first()?, own.last()?);
            Some(Word { text: text.clone(), onset: first.onset, offset: last.offset, confidence })
        };
        self.0.iter().filter_map(word).collect()
    }
}

/// The tokens of a text: its letters where the model's tokens are letters, its phonemes, or those of its words.
pub fn pronounce(
    text: &str,
    kind: TextKind,
    vocabulary: &Vocabulary,
    lexicon: Option<&Path>,
    voice: &str,
) -> Result<SpokenText, Failure> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    if parts.is_empty() {
        return Err("the text to align is empty".into());
    }
    if !vocabulary.is_spaced() {
        let word = |word: &&str| Ok((word.to_string(), vocabulary.encode(word)?));
        return Ok(SpokenText(parts.iter().map(word).collect::<clipwise::Result<_>>()?));
    }
    let token = |part: &&str| index_of(part, vocabulary).filter(|&id| id != vocabulary.blank());
    let n_known = parts.iter().filter(|part| **part == "|" || token(part).is_some()).count();
    let is_phonemes = match kind {
        TextKind::Phonemes => true,
        TextKind::Words => false,
        TextKind::Auto => 2 * n_known > parts.len(),
    };
    if is_phonemes {
        if let Some(unknown) = parts.iter().find(|part| **part != "|" && token(part).is_none()) {
            let meant = if *unknown == "g" { "; the IPA letter is ɡ (U+0261)" } else { "" };
            let tokens: Vec<&str> = vocabulary.tokens().iter().map(String::as_str).collect();
            let tokens = tokens.join(" ");
            return Err(format!(
                "{unknown:?} is none of the model's phonemes ({tokens}){meant}. If the text is made of words: --align-as words"
            )
            .into());
        }
        let words = parts.split(|part| *part == "|").filter(|word| !word.is_empty());
        let word = |word: &[&str]| (word.concat(), word.iter().filter_map(token).collect());
        let words: Vec<_> = words.map(word).collect();
        return if words.is_empty() { Err("the text to align is empty".into()) } else { Ok(SpokenText(words)) };
    }

    let lexicon = lexicon.map(read_lexicon).transpose()?.unwrap_or_default();
    let words: Vec<&str> = parts.iter().map(|part| part.trim_matches(|c: char| !c.is_alphanumeric())).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let known = |word: &str| lexicon.get(&word.to_lowercase()).cloned();
    // Words are said otherwise in a phrase than alone, but espeak-ng joins some and splits others ("25"): where each one alone
    // is one group and there are as many groups as words, none was joined.
    let alone: Vec<Vec<Vec<String>>> = match words.iter().all(|word| known(word).is_some()) {
        true => Vec::new(),
        false => words.iter().map(|word| espeak(word, voice)).collect::<Result<_, _>>()?,
    };
    let in_phrase = match alone.is_empty() || alone.iter().any(|groups| groups.len() != 1) {
        true => Vec::new(),
        false => espeak(&words.join(" "), voice)?,
    };
    let mut spoken = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let said = match known(word) {
            Some(said) => said,
            None if in_phrase.len() == words.len() => in_phrase[at].clone(),
            None => alone[at].concat(),
        };
        let ids = said.iter().map(|phoneme| index_of(phoneme, vocabulary)).collect::<Option<Vec<usize>>>();
        let ids = ids.filter(|ids| !ids.is_empty()).ok_or_else(|| {
            format!("{word:?} is pronounced {:?}: expected phonemes that the model has", said.join(" "))
        })?;
        spoken.push((word.to_string(), ids));
    }
    match spoken.is_empty() {
        true => Err("the text to align has no words".into()),
        false => Ok(SpokenText(spoken)),
    }
}

/// The token of a phoneme, or of the one that stands for it in a vocabulary of the ARPAbet.
fn index_of(phoneme: &str, vocabulary: &Vocabulary) -> Option<usize> {
    vocabulary.index_of(phoneme).or_else(|| match phoneme {
        "ə" => vocabulary.index_of("ʌ"),
        "ɜ" => vocabulary.index_of("ɚ"),
        _ => None,
    })
}

/// Phonemes by word in lower case; of several pronunciations the first.
fn read_lexicon(path: &Path) -> Result<HashMap<String, Vec<String>>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| cannot("read", path, error))?;
    let mut lexicon = HashMap::new();
    for (number, line) in
        text.trim_start_matches('\u{feff}').lines().enumerate().filter(|(_, line)| !line.trim().is_empty())
    {
        let (word, phonemes) = line
            .split_once('\t')
            .ok_or_else(|| format!("{}: line {}: expected a word, a tab and phonemes", path.display(), number + 1))?;
        let phonemes = phonemes.split_whitespace().map(str::to_string).collect();
        lexicon.entry(word.trim().to_lowercase()).or_insert(phonemes);
    }
    Ok(lexicon)
}

/// The phonemes of each group of words that espeak-ng says together.
fn espeak(text: &str, voice: &str) -> Result<Vec<Vec<String>>, Failure> {
    let output = Command::new("espeak-ng").args(["-q", "--ipa", "--sep=_", "-v", voice, "--", text]).output();
    let output = output.map_err(|error| {
        format!(
            "the pronunciation of {text:?} is not known: give phonemes or --lexicon, or install espeak-ng ({error})"
        )
    })?;
    if !output.status.success() {
        return Err(format!("espeak-ng: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    let said = String::from_utf8(output.stdout)?;
    let group = |group: &str| match phonemes::of_espeak(group) {
        Ok(phonemes) => Ok(phonemes.into_iter().map(str::to_string).collect()),
        Err(other) => {
            Err(format!("espeak-ng says {other:?} in {text:?}, which is none of the model's phonemes").into())
        }
    };
    said.split_whitespace().map(group).collect()
}
