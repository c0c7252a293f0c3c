//! speechocean762 as it is published.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use clipwise::Waveform;

use crate::RATE;
use crate::phonemes::{self, PHONEMES};
use crate::training::Failure;

/// A recording and what is said in it.
pub struct Utterance {
    pub id: String,
    pub speaker: String,
    pub file: PathBuf,
    /// Tokens: 1 for the first phoneme.
    pub phonemes: Vec<u32>,
}

impl Utterance {
    pub fn open(&self) -> Result<Waveform, Failure> {
        Ok(Waveform::open(&self.file)?.resample(RATE)?)
    }
}

/// The phonemes of the ARPAbet: `ʌ` also stands for `ə`, and `ɚ` for `ɜ`, which it does not tell apart.
pub fn inventory() -> Vec<&'static str> {
    PHONEMES.into_iter().filter(|phoneme| !["ə", "ɜ"].contains(phoneme)).collect()
}

/// The utterances of a part, `train` or `test`.
pub fn read(corpus: &Path, part: &str) -> Result<Vec<Utterance>, Failure> {
    let lines = |file: &str| -> Result<Vec<(String, String)>, Failure> {
        let path = corpus.join(file);
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let pair = |line: &str| {
            let pair = line.split_once(['\t', ' ']).ok_or_else(|| format!("{file}: expected two columns: {line:?}"))?;
            Ok((pair.0.to_string(), pair.1.to_string()))
        };
        text.lines().map(pair).collect()
    };
    // A line per word: `000010011.1 K_B AO0_I L_E` is the second word of an utterance.
    let mut words: HashMap<String, BTreeMap<usize, String>> = HashMap::new();
    for (place, said) in lines("resource/text-phone")? {
        let (id, word) = place.split_once('.').ok_or("text-phone: expected UTTERANCE.WORD")?;
        words.entry(id.to_string()).or_default().insert(word.parse()?, said);
    }
    let tokens: HashMap<&str, u32> = inventory().into_iter().zip(1..).collect();
    let speakers: HashMap<String, String> = lines(&format!("{part}/utt2spk"))?.into_iter().collect();
    let utterance = |(id, file): (String, String)| {
        let said = words.get(&id).ok_or_else(|| format!("{id} is not in text-phone"))?;
        let phonemes = said.values().flat_map(|word| word.split_whitespace()).map(|phoneme| {
            let phoneme = phoneme.split('_').next().unwrap_or_default();
            let known = phonemes::of_arpabet(phoneme).map_err(|unknown| format!("{id}: {unknown}: no phoneme"))?;
            Ok(known.into_iter().map(|phoneme| tokens[phoneme]).collect::<Vec<_>>())
        });
        let phonemes = phonemes.collect::<Result<Vec<_>, Failure>>()?.concat();
        let speaker = speakers.get(&id).ok_or_else(|| format!("{id} has no speaker"))?.clone();
        Ok(Utterance { speaker, file: corpus.join(file), phonemes, id })
    };
    lines(&format!("{part}/wav.scp"))?.into_iter().map(utterance).collect()
}
