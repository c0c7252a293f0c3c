//! The lists that the generator wrote.

use std::path::{Path, PathBuf};

use clipwise::Waveform;

use crate::phonemes::PHONEMES;
use crate::training::Failure;

/// A recording and what is said in it.
pub struct Phrase {
    pub file: PathBuf,
    /// `espeak:NAME:…` or `flite:NAME:…`.
    pub voice: String,
    /// Tokens: 1 for the first phoneme.
    pub phonemes: Vec<u32>,
    pub text: String,
}

impl Phrase {
    pub fn open(&self) -> Result<Waveform, Failure> {
        Ok(Waveform::open(&self.file)?)
    }
}

/// The phrases of a part.
pub fn read(data: &Path, part: &str) -> Result<Vec<Phrase>, Failure> {
    let list = data.join(format!("{part}.tsv"));
    let text = std::fs::read_to_string(&list).map_err(|error| format!("cannot read {}: {error}", list.display()))?;
    let phrase = |line: &str| {
        let &[file, voice, phonemes, text] = line.split('\t').collect::<Vec<_>>().as_slice() else {
            return Err(format!("{}: expected four columns", list.display()).into());
        };
        let phonemes = tokens(phonemes)?;
        Ok(Phrase { file: data.join(file), voice: voice.to_string(), phonemes, text: text.to_string() })
    };
    text.trim_start_matches('\u{feff}').lines().map(phrase).collect()
}

/// Phonemes by blanks, as tokens.
pub fn tokens(phonemes: &str) -> Result<Vec<u32>, Failure> {
    let token = |phoneme: &str| match PHONEMES.iter().position(|&known| known == phoneme) {
        Some(place) => Ok(place as u32 + 1),
        None => Err(format!("{phoneme}: no phoneme of the net").into()),
    };
    phonemes.split_whitespace().map(token).collect()
}

/// Tokens as phonemes, by blanks.
pub fn text(tokens: &[u32]) -> String {
    tokens.iter().map(|&token| PHONEMES[token as usize - 1]).collect::<Vec<_>>().join(" ")
}
