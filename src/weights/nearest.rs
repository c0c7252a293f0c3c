//! The most similar existing name for a missing tensor.

use std::collections::BTreeMap;

/// Finds the most similar unexpected tensor for a missing one, at bounded cost.
pub(crate) struct Nearest<'a> {
    candidates: BTreeMap<&'a str, &'a [usize]>,
    /// Remaining number of cells of edit-distance tables that may be computed.
    budget: usize,
}

/// Longer names are not compared.
const MAX_NAME: usize = 256;
/// Number of edits that a different shape counts as.
const SHAPE_PENALTY: usize = 3;

impl<'a> Nearest<'a> {
    pub(super) fn new(candidates: impl Iterator<Item = (&'a str, &'a [usize])>) -> Self {
        Self { candidates: candidates.collect(), budget: 100_000_000 }
    }

    /// The candidate with the fewest edits, if those are at most half of the name's length.
    ///
    /// A name that only lacks or adds leading parts (`encoder.fc.bias` for `fc.bias`) counts as one edit, and another
    /// shape as three more. `None` if nothing is similar or the budget is used up.
    pub(super) fn to(&mut self, name: &str, shape: &[usize]) -> Option<String> {
        let mut best: Option<(usize, &str)> = None;
        for (&candidate, &candidate_shape) in &self.candidates {
            if name.len().max(candidate.len()) > MAX_NAME {
                continue;
            }
            let penalty = if candidate_shape == shape { 0 } else { SHAPE_PENALTY };
            let limit = best.map_or(usize::MAX, |(score, _)| score);
            if name.len().abs_diff(candidate.len()) + penalty >= limit && !adds_parts(name, candidate) {
                continue;
            }
            self.budget = self.budget.checked_sub((name.len() + 1) * (candidate.len() + 1))?;
            let edits = if adds_parts(name, candidate) { 1 } else { strsim::levenshtein(name, candidate) };
            if edits <= name.len().max(2) / 2 && edits + penalty < limit {
                best = Some((edits + penalty, candidate));
            }
        }
        best.map(|(_, candidate)| candidate.to_owned())
    }
}

/// Whether one name equals the other with leading parts added.
fn adds_parts(a: &str, b: &str) -> bool {
    let (long, short) = if a.len() > b.len() { (a, b) } else { (b, a) };
    long.strip_suffix(short).is_some_and(|lead| lead.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_prefers_the_same_shape_and_ignores_distant_names() {
        let stored: [(&str, &[usize]); 4] =
            [("fc.weight", &[2, 3]), ("fc2.weight", &[4, 3]), ("net.head.bias", &[7]), ("z", &[1])];
        let mut nearest = Nearest::new(stored.into_iter());
        assert_eq!(nearest.to("fc1.weight", &[4, 3]).as_deref(), Some("fc2.weight"));
        assert_eq!(nearest.to("fc1.weight", &[2, 3]).as_deref(), Some("fc.weight"));
        assert_eq!(nearest.to("head.bias", &[7]).as_deref(), Some("net.head.bias"));
        assert_eq!(nearest.to("spectrogram", &[5]), None);
    }

    #[test]
    fn many_long_names_take_bounded_time() {
        let names: Vec<String> = (0..100_000).map(|i| format!("{i:0>250}")).collect();
        let mut nearest = Nearest::new(names.iter().map(|name| (name.as_str(), &[][..])));
        for i in 0..1000 {
            nearest.to(&format!("{i:x>250}"), &[]);
        }
        assert_eq!(nearest.to("0", &[]), None);
    }
}
