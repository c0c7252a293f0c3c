//! Words that a search should favour: an automaton over tokens (Aho and Corasick, 1975).

use std::collections::{BTreeMap, VecDeque};

use super::Vocabulary;
use crate::error::{Error, Result};

/// Counts how often phrases occur in a sequence of tokens, and what they are worth.
///
/// Where the vocabulary has a word delimiter, phrases match whole words: they are looked for with a delimiter on both sides,
/// and the sequence is taken to stand between two.
#[derive(Debug, Clone)]
pub(super) struct HotWords {
    nodes: Vec<Node>,
    delimiter: Option<usize>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    children: BTreeMap<usize, u32>,
    /// The node of the longest proper suffix that is a node.
    fallback: u32,
    /// What reaching this node earns for good: bonuses of all phrases that end here.
    earned: f64,
    /// Partial bonus for the unfinished phrases at this node.
    credit: f64,
}

/// What bonuses and weights must be, so that no sum of them overflows.
pub(super) const BONUS_RANGE: &str = "a number from -1e6 to 1e6";

/// Whether a bonus or a weight is [`BONUS_RANGE`] its bounds.
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
                    format!("the bonus of {phrase:?} must be {BONUS_RANGE}"),
                ));
            }
            let tokens = vocabulary.encode(phrase)?;
            if tokens.is_empty() {
                return Err(Error::argument("hot_words", format!("{phrase:?}"), "a phrase has at least one token"));
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
            let next =
                u32::try_from(self.nodes.len()).map_err(|_| Error::argument("hot_words", "phrases", "too many"))?;
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

    /// Sets fallbacks breadth first, and what a node has from its fallback.
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

    /// The state after a token, and what that adds: bonuses earned, and the change of what is advanced.
    pub(super) fn advance(&self, state: u32, token: usize) -> (u32, f64) {
        let next = self.step(state, token);
        let (from, to) = (&self.nodes[state as usize], &self.nodes[next as usize]);
        (next, to.earned + to.credit - from.credit)
    }

    /// What the end of the sequence adds: phrases that it completes, less what was advanced for others.
    pub(super) fn finish(&self, state: u32) -> f64 {
        let (state, added) = self.delimiter.map_or((state, 0.0), |delimiter| self.advance(state, delimiter));
        added - self.nodes[state as usize].credit
    }

    /// What is advanced before the first token, to be taken off the end's sum.
    pub(super) fn start_credit(&self) -> f64 {
        self.nodes[self.start() as usize].credit
    }
}
