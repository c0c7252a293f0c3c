//! One inventory of English phonemes for all synthesisers and accents.

/// The phonemes, after the blank: the 24 consonants and 17 vowels of General American and, without r, British English.
pub const PHONEMES: [&str; 41] = [
    "p", "b", "t", "d", "k", "ɡ", "tʃ", "dʒ", "f", "v", "θ", "ð", "s", "z", "ʃ", "ʒ", "h", "m", "n", "ŋ", "l", "ɹ",
    "j", "w", "i", "ɪ", "ɛ", "æ", "ɑ", "ɔ", "ʊ", "u", "ʌ", "ə", "ɚ", "ɜ", "eɪ", "aɪ", "ɔɪ", "aʊ", "oʊ",
];

/// What stands before them in the vocabulary.
pub const BLANK: &str = "<blank>";

/// What espeak-ng writes with `--ipa --sep=_`: words by spaces, phonemes by `_`, stress and length marked. `Err` names a
/// phoneme that is none of these accents'.
pub fn of_espeak(line: &str) -> Result<Vec<&'static str>, String> {
    let mut phonemes = Vec::new();
    for symbol in line.split(|c: char| c == '_' || c.is_whitespace()) {
        let plain: String = symbol.chars().filter(|c| !"ˈˌː:ʲ\u{200d}".contains(*c)).collect();
        let parts: &[&'static str] = match plain.as_str() {
            "" | "ʔ" => &[],
            "a" | "ɛə" => &["æ"],
            "ɐ" => &["ə"],
            "ᵻ" => &["ɪ"],
            "ɒ" if symbol.contains('ː') => &["ɔ"],
            "ɒ" => &["ɑ"],
            "ɾ" => &["t"],
            "r" => &["ɹ"],
            "ʍ" => &["w"],
            "əʊ" => &["oʊ"],
            "ʌʉ" => &["aʊ"],
            "ʉ" => &["u"],
            "e" if symbol.contains(['ː', 'ʲ']) => &["eɪ"],
            "e" => &["i"],
            "o" => &["oʊ"],
            "əɪ" => &["ɜ"],
            "ɜɹ" | "əɹ" => &["ɚ"],
            "əl" => &["ə", "l"],
            "n̩" => &["ə", "n"],
            "ɑɹ" => &["ɑ", "ɹ"],
            "ɔɹ" | "oɹ" => &["ɔ", "ɹ"],
            "ɛɹ" => &["ɛ", "ɹ"],
            "ɪɹ" => &["ɪ", "ɹ"],
            "ʊɹ" | "ʉɹ" => &["ʊ", "ɹ"],
            "ʌɹ" => &["ʌ", "ɹ"],
            "iə" => &["ɪ", "ə"],
            "eə" => &["ɛ", "ə"],
            "ʊə" => &["ʊ", "ə"],
            "aɪə" => &["aɪ", "ə"],
            "aɪɚ" => &["aɪ", "ɚ"],
            other => match PHONEMES.iter().find(|phoneme| **phoneme == other) {
                Some(phoneme) => std::slice::from_ref(phoneme),
                None => return Err(symbol.to_string()),
            },
        };
        phonemes.extend_from_slice(parts);
    }
    Ok(phonemes)
}

/// The ARPAbet: what flite writes with `-ps`, pauses included, or a dictionary in capitals with digits for stress.
pub fn of_arpabet(line: &str) -> Result<Vec<&'static str>, String> {
    let mut phonemes = Vec::new();
    for symbol in line.split_whitespace() {
        let plain = symbol.trim_end_matches(|c: char| c.is_ascii_digit()).to_ascii_lowercase();
        phonemes.push(match plain.as_str() {
            "pau" | "ssil" => continue,
            "aa" => "ɑ",
            "ae" => "æ",
            "ah" => "ʌ",
            "ao" => "ɔ",
            "aw" => "aʊ",
            "ax" => "ə",
            "ay" => "aɪ",
            "ch" => "tʃ",
            "dh" => "ð",
            "eh" => "ɛ",
            "er" | "axr" => "ɚ",
            "ey" => "eɪ",
            "g" => "ɡ",
            "hh" => "h",
            "ih" => "ɪ",
            "iy" => "i",
            "jh" => "dʒ",
            "ng" => "ŋ",
            "ow" => "oʊ",
            "oy" => "ɔɪ",
            "r" => "ɹ",
            "sh" => "ʃ",
            "th" => "θ",
            "uh" => "ʊ",
            "uw" => "u",
            "y" => "j",
            "zh" => "ʒ",
            other => match PHONEMES.iter().find(|phoneme| **phoneme == other) {
                Some(phoneme) => phoneme,
                None => return Err(symbol.to_string()),
            },
        });
    }
    Ok(phonemes)
}
