//! A language model over phonemes: n-grams with the estimates of Witten and Bell (1991), as an ARPA file.
//!
//! `P(w | h) = (n(h w) + t(h) P(w | h′)) / (n(h) + t(h))`, `t` being how many phonemes follow `h` and `h′` being `h` without its first
//! phoneme; so the weight of backing off from `h` is `t(h) / (n(h) + t(h))`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use crate::corpus::{Utterance, inventory};
use crate::training::Failure;

/// Writes the model of what is said in the utterances.
pub fn write(utterances: &[Utterance], order: usize, file: &Path) -> Result<(), Failure> {
    let inventory = inventory();
    // What follows each context, how often.
    let mut counts: BTreeMap<Vec<&'static str>, BTreeMap<&'static str, f64>> = BTreeMap::new();
    for utterance in utterances {
        let said = utterance.phonemes.iter().map(|&token| inventory[token as usize - 1]);
        let said: Vec<&str> = std::iter::once("<s>").chain(said).chain(["</s>"]).collect();
        for at in 1..said.len() {
            for start in at.saturating_sub(order - 1)..=at {
                *counts.entry(said[start..at].to_vec()).or_default().entry(said[at]).or_default() += 1.0;
            }
        }
    }
    let seen = |context: &[&'static str]| {
        let next = counts.get(context)?;
        Some((next, next.values().sum::<f64>(), next.len() as f64))
    };
    let probability = |context: &[&'static str], phoneme: &str| {
        let mut p = 1.0 / (inventory.len() + 1) as f64;
        for start in (0..=context.len()).rev() {
            let Some((next, n, types)) = seen(&context[start..]) else { break };
            p = (next.get(phoneme).unwrap_or(&0.0) + types * p) / (n + types);
        }
        p
    };
    let mut sections = vec![BTreeSet::new(); order];
    sections[0].extend(inventory.iter().chain(&["<s>", "</s>"]).map(|&phoneme| vec![phoneme]));
    for (context, next) in &counts {
        sections[context.len()].extend(next.keys().map(|phoneme| [context.as_slice(), &[*phoneme]].concat()));
    }
    let mut text = "\\data\\\n".to_string();
    for (n, grams) in sections.iter().enumerate() {
        writeln!(text, "ngram {}={}", n + 1, grams.len())?;
    }
    for (n, grams) in sections.iter().enumerate() {
        writeln!(text, "\n\\{}-grams:", n + 1)?;
        for gram in grams {
            let (phoneme, context) = (gram[n], &gram[..n]);
            let p = if phoneme == "<s>" { -99.0 } else { probability(context, phoneme).log10() };
            write!(text, "{p:.6}\t{}", gram.join(" "))?;
            match seen(gram).filter(|_| n + 1 < order) {
                Some((_, n, types)) => writeln!(text, "\t{:.6}", (types / (n + types)).log10())?,
                None => writeln!(text)?,
            }
        }
    }
    text += "\n\\end\\\n";
    Ok(std::fs::write(file, text)?)
}
