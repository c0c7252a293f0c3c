//! Hot words, which a search favours: an Aho-Corasick automaton over tokens (Aho and Corasick, 1975).

use std::collections::{BTreeMap, VecDeque};

use super::Vocabulary;
use crate::error::{Error, Result};

/// Finds the occurrences of phrases in a token sequence, and adds their bonuses.
///
/// If the vocabulary has a word delimiter, phrases match whole words: they are matched with a delimiter on both sides,
/// and the sequence is treated as if it were between two delimiters.
#[derive(Debug, Clone)]
pub(super) struct HotWords {
    nodes: Vec<Node>,
    delimiter: Option<usize>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    children: BTreeMap<usize, u32>,
    /// The node of the longest proper suffix (failure link).
    fallback: u32,
    /// Bonus for reaching this node: the sum over all phrases that end here.
    earned: f64,
    /// Partial bonus for the unfinished phrases at this node.
    credit: f64,
}

/// Bounds of bonuses and weights, so that no sum of them overflows.
pub(super) const BONUS_RANGE: &str = "a number from -1e6 to 1e6";

/// Whether a bonus or weight is within [`BONUS_RANGE`].
pub(super) fn is_in_range(value: f64) -> bool {
    value.abs() <= 1e6
}

impl HotWords {
    pub(super) fn new(phrases: &[(String, f64)], vocabulary: &Vocabulary) -> Result<Self> {
        let mut words = Self { nodes: vec![Node::default()], delimiter: vocabulary.word_delimiter() };
        for (phrase, bonus) in phrases {
            if !is_in_range(*bonus) {
                return Err(Error::argument(
                    "hot_words",
                    bonus,
                    format!("expected {BONUS_RANGE} as the bonus of {phrase:?}"),
                ));
            }
            let tokens = vocabulary.encode(phrase)?;
            if tokens.is_empty() {
                return Err(Error::argument(
                    "hot_words",
                    format!("{phrase:?}"),
                    "expected a phrase of at least one token",
                ));
            }
            let ends = words.delimiter;
            words.insert(ends.into_iter().chain(tokens).chain(ends).collect(), *bonus)?;
        }
        words.link();
        Ok(words)
    }

    fn insert(&mut self, tokens: Vec<usize>, bonus: f64) -> Result<()> {
        let mut node = 0;
        for (at, &token) in tokens.iter().enumerate() {
            let next = u32::try_from(self.nodes.len()).map_err(|_| {
                Error::argument("hot_words", "too many phrases", "expected less than 2^32 tokens in all")
            })?;
            node = *self.nodes[node].children.entry(token).or_insert(next) as usize;
            if node == self.nodes.len() {
                self.nodes.push(Node::default());
            }
            let advance = bonus * (at + 1) as f64 / tokens.len() as f64;
            if at + 1 < tokens.len() {
                self.nodes[node].credit = self.nodes[node].credit.max(advance);
            }
        }
        self.nodes[node].earned += bonus;
        Ok(())
    }

    /// Sets failure links breadth first, and adds the bonuses of their targets.
    fn link(&mut self) {
        let mut queue: VecDeque<u32> = self.nodes[0].children.values().copied().collect();
        while let Some(node) = queue.pop_front() {
            let (fallback, children) = (self.nodes[node as usize].fallback, self.nodes[node as usize].children.clone());
            let (earned, credit) = (self.nodes[fallback as usize].earned, self.nodes[fallback as usize].credit);
            self.nodes[node as usize].earned += earned;
            self.nodes[node as usize].credit = self.nodes[node as usize].credit.max(credit);
            for (token, child) in children {
                self.nodes[child as usize].fallback = self.step(fallback, token);
                queue.push_back(child);
            }
        }
    }

    fn step(&self, mut node: u32, token: usize) -> u32 {
        loop {
            match self.nodes[node as usize].children.get(&token) {
                Some(&child) => return child,
                None if node == 0 => return 0,
                None => node = self.nodes[node as usize].fallback,
            }
        }
    }

    /// The state before the first token.
    pub(super) fn start(&self) -> u32 {
        self.delimiter.map_or(0, |delimiter| self.step(0, delimiter))
    }

    /// The state after a token, and the change of the score: bonuses earned, and the change of the partial bonus.
    pub(super) fn advance(&self, state: u32, token: usize) -> (u32, f64) {
        let next = self.step(state, token);
        let (from, to) = (&self.nodes[state as usize], &self.nodes[next as usize]);
        (next, to.earned + to.credit - from.credit)
    }

    /// The change of the score at the end of the sequence: phrases completed by it, minus the partial bonus of others.
    pub(super) fn finish(&self, state: u32) -> f64 {
        let (state, added) = self.delimiter.map_or((state, 0.0), |delimiter| self.advance(state, delimiter));
        added - self.nodes[state as usize].credit
    }

    /// The partial bonus before the first token, which the end subtracts.
    pub(super) fn start_credit(&self) -> f64 {
        self.nodes[self.start() as usize].credit
    }
}
