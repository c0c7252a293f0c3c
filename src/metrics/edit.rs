//! Edit distance: phoneme, character and word error rates of transcripts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ratio;

/// One step of an alignment of a reference with a hypothesis. Indices are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edit {
    /// The items are equal.
    Match {
        /// Index in the reference.
        reference: usize,
        /// Index in the hypothesis.
        hypothesis: usize,
    },
    /// An item is replaced by another.
    Substitute {
        /// Index in the reference.
        reference: usize,
        /// Index in the hypothesis.
        hypothesis: usize,
    },
    /// An item of the reference is missing in the hypothesis.
    Delete {
        /// Index in the reference.
        reference: usize,
    },
    /// An item of the hypothesis is not in the reference.
    Insert {
        /// Index in the hypothesis.
        hypothesis: usize,
    },
}

/// The shortest sequence of edits that turns `reference` into `hypothesis` (Levenshtein distance: substitution,
/// deletion and insertion cost 1), in order. Among equally short sequences, the one that, from the end, prefers
/// substitution, then deletion, then insertion. Time grows with the product of the lengths, memory with
/// `√reference.len() · hypothesis.len()`.
///
/// ```
/// use clipwise::metrics::{Edit, edits};
///
/// let steps = edits(&["k", "æ", "t"], &["k", "ʌ", "t", "s"]);
/// assert_eq!(steps[1], Edit::Substitute { reference: 1, hypothesis: 1 });
/// assert_eq!(steps[3], Edit::Insert { hypothesis: 3 });
/// ```
pub fn edits<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> Vec<Edit> {
    let n_before = reference.iter().zip(hypothesis).take_while(|(a, b)| a == b).count();
    let (from, to) = (&reference[n_before..], &hypothesis[n_before..]);
    let every = ((from.len() + 1) as f64).sqrt().ceil() as usize;
    // Row i holds the distances from the first i items of `from` to each prefix of `to`; one in `every` rows is kept.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    let mut kept = vec![row.clone()];
    for i in 1..=from.len() {
        next_row(&from[i - 1], i, to, &mut row);
        if i % every == 0 {
            kept.push(row.clone());
        }
    }

    let (mut i, mut j) = (from.len(), to.len());
    let mut backwards = Vec::with_capacity(i.max(j));
    for (block, first_row) in kept.into_iter().enumerate().rev() {
        let first = block * every;
        let mut rows = vec![first_row];
        for at in first + 1..=i {
            let mut row = rows[rows.len() - 1].clone();
            next_row(&from[at - 1], at, to, &mut row);
            rows.push(row);
        }
        while i > first || (block == 0 && j > 0) {
            let distance = |i: usize, j: usize| rows[i - first][j];
            let (reference, hypothesis) = ((n_before + i).wrapping_sub(1), (n_before + j).wrapping_sub(1));
            let edit = match () {
                () if i > 0 && j > 0 && from[i - 1] == to[j - 1] && distance(i, j) == distance(i - 1, j - 1) => {
                    Edit::Match { reference, hypothesis }
                }
                () if i > 0 && j > 0 && distance(i, j) == distance(i - 1, j - 1) + 1 => {
                    Edit::Substitute { reference, hypothesis }
                }
                () if i > 0 && distance(i, j) == distance(i - 1, j) + 1 => Edit::Delete { reference },
                () => Edit::Insert { hypothesis },
            };
            i -= usize::from(!matches!(edit, Edit::Insert { .. }));
            j -= usize::from(!matches!(edit, Edit::Delete { .. }));
            backwards.push(edit);
        }
    }
    let same = (0..n_before).map(|at| Edit::Match { reference: at, hypothesis: at });
    same.chain(backwards.into_iter().rev()).collect()
}

/// Replaces the distances of row `i - 1` by those of row `i`.
fn next_row<T: PartialEq>(item: &T, i: usize, to: &[T], row: &mut [usize]) {
    let mut diagonal = std::mem::replace(&mut row[0], i);
    for (j, other) in to.iter().enumerate() {
        let above = row[j + 1];
        row[j + 1] = (diagonal + usize::from(item != other)).min(above + 1).min(row[j] + 1);
        diagonal = above;
    }
}

/// Edit counts, summed over any number of transcripts. The error rate of a corpus is that of the sums, not the mean of
/// the rates.
///
/// ```
/// use clipwise::metrics::EditCounts;
///
/// let mut words = EditCounts::of_words("ask not what your country", "ask what your county");
/// words += EditCounts::of_words("can do", "can do");
/// assert_eq!(words.rate(), Some(2.0 / 7.0)); // WER
/// assert_eq!(EditCounts::of(&["k", "æ", "t"], &["k", "t"]).rate(), Some(1.0 / 3.0)); // PER
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EditCounts {
    /// Items that are equal in both.
    pub matches: u64,
    /// Items that were replaced by another.
    pub substitutions: u64,
    /// Items of the reference that are missing in the hypothesis.
    pub deletions: u64,
    /// Items of the hypothesis that are not in the reference.
    pub insertions: u64,
}

impl EditCounts {
    /// The counts of [`edits`]. For phoneme error rates, pass sequences of phonemes or of their ids.
    pub fn of<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> Self {
        let mut counts = Self::default();
        for edit in edits(reference, hypothesis) {
            *match edit {
                Edit::Match { .. } => &mut counts.matches,
                Edit::Substitute { .. } => &mut counts.substitutions,
                Edit::Delete { .. } => &mut counts.deletions,
                Edit::Insert { .. } => &mut counts.insertions,
            } += 1;
        }
        counts
    }

    /// Counts word edits, for word error rates. Words are separated by white space; case and punctuation matter.
    pub fn of_words(reference: &str, hypothesis: &str) -> Self {
        let (reference, hypothesis) = (reference.split_whitespace(), hypothesis.split_whitespace());
        Self::of(&reference.collect::<Vec<_>>(), &hypothesis.collect::<Vec<_>>())
    }

    /// Counts edits of code points, including spaces, for character error rates.
    pub fn of_characters(reference: &str, hypothesis: &str) -> Self {
        let characters = |text: &str| text.chars().collect::<Vec<_>>();
        Self::of(&characters(reference), &characters(hypothesis))
    }

    /// The total number of items in the references.
    pub fn n_reference(&self) -> u64 {
        self.matches.saturating_add(self.substitutions).saturating_add(self.deletions)
    }

    /// The edit distance: the sum of substitutions, deletions and insertions.
    pub fn n_errors(&self) -> u64 {
        self.substitutions.saturating_add(self.deletions).saturating_add(self.insertions)
    }

    /// The error rate (PER, CER or WER): errors per item of the references. May exceed 1. `None` if the references are
    /// empty.
    pub fn rate(&self) -> Option<f64> {
        ratio(self.n_errors() as f64, self.n_reference() as f64)
    }
}

impl std::ops::AddAssign for EditCounts {
    fn add_assign(&mut self, other: Self) {
        self.matches = self.matches.saturating_add(other.matches);
        self.substitutions = self.substitutions.saturating_add(other.substitutions);
        self.deletions = self.deletions.saturating_add(other.deletions);
        self.insertions = self.insertions.saturating_add(other.insertions);
    }
}

impl std::iter::Sum for EditCounts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, counts| {
            sum += counts;
            sum
        })
    }
}

/// Confusion counts of phonemes (or words, or other items) over a corpus.
///
/// ```
/// let mut confusion = clipwise::metrics::EditConfusion::default();
/// confusion.add(&["k", "æ", "t"], &["k", "ʌ", "t", "s"]);
/// confusion.add(&["k", "æ", "n"], &["k", "ʌ", "n"]);
/// let worst = &confusion.errors()[0];
/// assert_eq!((worst.reference, worst.hypothesis, worst.n), (Some(&"æ"), Some(&"ʌ"), 2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditConfusion<T> {
    /// Counts by items of reference and hypothesis; `None` for insertions and deletions.
    pairs: BTreeMap<(Option<T>, Option<T>), u64>,
}

/// A pair of items and how often one was replaced by the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Confused<'a, T> {
    /// The item in the reference; `None` for insertions.
    pub reference: Option<&'a T>,
    /// The item in the hypothesis; `None` for deletions.
    pub hypothesis: Option<&'a T>,
    /// Number of occurrences.
    pub n: u64,
}

impl<T> Default for EditConfusion<T> {
    fn default() -> Self {
        Self { pairs: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> EditConfusion<T> {
    /// Adds the [`edits`] of a transcript.
    pub fn add(&mut self, reference: &[T], hypothesis: &[T]) {
        for edit in edits(reference, hypothesis) {
            let (from, to) = match edit {
                Edit::Match { reference, hypothesis } | Edit::Substitute { reference, hypothesis } => {
                    (Some(reference), Some(hypothesis))
                }
                Edit::Delete { reference } => (Some(reference), None),
                Edit::Insert { hypothesis } => (None, Some(hypothesis)),
            };
            let pair = (from.map(|at| reference[at].clone()), to.map(|at| hypothesis[at].clone()));
            *self.pairs.entry(pair).or_default() += 1;
        }
    }

    /// How often `reference` was replaced by `hypothesis`. `None` stands for insertions or deletions, respectively.
    pub fn count(&self, reference: Option<&T>, hypothesis: Option<&T>) -> u64 {
        self.pairs.get(&(reference.cloned(), hypothesis.cloned())).copied().unwrap_or_default()
    }

    /// All pairs that occurred, including equal ones, ordered by reference and hypothesis.
    pub fn pairs(&self) -> impl Iterator<Item = Confused<'_, T>> {
        self.pairs.iter().map(|((reference, hypothesis), &n)| Confused {
            reference: reference.as_ref(),
            hypothesis: hypothesis.as_ref(),
            n,
        })
    }

    /// The pairs of different items, most frequent first.
    pub fn errors(&self) -> Vec<Confused<'_, T>> {
        let mut errors: Vec<_> = self.pairs().filter(|pair| pair.reference != pair.hypothesis).collect();
        errors.sort_by_key(|pair| std::cmp::Reverse(pair.n)); // stable
        errors
    }

    /// The edit counts over all pairs.
    pub fn counts(&self) -> EditCounts {
        let mut counts = EditCounts::default();
        for pair in self.pairs() {
            *match (pair.reference, pair.hypothesis) {
                (None, _) => &mut counts.insertions,
                (_, None) => &mut counts.deletions,
                (reference, hypothesis) if reference == hypothesis => &mut counts.matches,
                _ => &mut counts.substitutions,
            } += pair.n;
        }
        counts
    }
}
