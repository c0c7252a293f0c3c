//! The hypotheses of a search, from frame to frame.

use ndarray::ArrayView1;

use super::Config;
use super::prefixes::{Chains, Prefixes, ROOT};
use super::scorer::Scorer;
use crate::ctc::transcript::Span;
use crate::error::Result;

/// Number of nodes below which sweeping is not worthwhile.
const SWEEP_FROM: usize = 1 << 12;

/// A prefix that is followed. `blank` are its paths that end in the blank, `token` those that end in its last token.
#[derive(Debug, Clone, Copy)]
struct Hypothesis {
    prefix: u32,
    blank: Paths,
    token: Paths,
}

/// The paths of a prefix with the same kind of end.
#[derive(Debug, Clone, Copy)]
struct Paths {
    /// Log of the sum of their probabilities.
    sum: f64,
    /// Log-probability of the best one.
    best: f64,
    /// Chain of the best one, for its times.
    chain: u32,
}

const NONE: Paths = Paths { sum: f64::NEG_INFINITY, best: f64::NEG_INFINITY, chain: ROOT };

/// A prefix that is not followed yet: a followed one, extended by one token.
#[derive(Debug, Clone, Copy)]
struct Extension {
    score: f64,
    parent: u32,
    token: usize,
    log_prob: f32,
    /// The paths, whose chain does not include the token yet.
    paths: Paths,
}

/// A transcript with its scores.
#[derive(Debug)]
pub(super) struct Ranked {
    pub(super) spans: Vec<Span>,
    pub(super) score: f64,
    pub(super) ctc_score: f64,
    pub(super) lm_score: f64,
}

#[derive(Debug, Clone)]
pub(super) struct Search {
    blank: usize,
    n_frames: usize,
    prefixes: Prefixes,
    chains: Chains,
    /// Sorted, best first.
    hypotheses: Vec<Hypothesis>,
    sweep_prefixes: usize,
    sweep_chains: usize,
}

impl Paths {
    /// Adds other paths with the same kind of end.
    fn join(&mut self, other: Paths) {
        self.sum = log_add(self.sum, other.sum);
        if other.best > self.best {
            (self.best, self.chain) = (other.best, other.chain);
        }
    }

    fn times(self, log_prob: f32) -> Self {
        Self { sum: self.sum + f64::from(log_prob), best: self.best + f64::from(log_prob), ..self }
    }
}

impl Hypothesis {
    fn all(&self) -> Paths {
        let mut all = self.blank;
        all.join(self.token);
        all
    }
}

impl Search {
    pub(super) fn new(scorer: &Scorer) -> Self {
        let nothing = Hypothesis { prefix: ROOT, blank: Paths { sum: 0.0, best: 0.0, chain: ROOT }, token: NONE };
        Self {
            blank: scorer.blank(),
            n_frames: 0,
            prefixes: Prefixes::new(scorer.start()),
            chains: Chains::new(),
            hypotheses: vec![nothing],
            sweep_prefixes: SWEEP_FROM,
            sweep_chains: SWEEP_FROM,
        }
    }

    pub(super) fn n_frames(&self) -> usize {
        self.n_frames
    }

    /// Processes a frame, which has been checked.
    pub(super) fn step(&mut self, row: ArrayView1<f32>, config: &Config, scorer: &Scorer) -> Result<()> {
        let best = row.iter().fold(f32::NEG_INFINITY, |best, &x| best.max(x));
        let least = f64::from(best).min(config.min_token_log_prob);
        let followed = |&(_, &x): &(usize, &f32)| f64::from(x) >= least && x > f32::NEG_INFINITY;
        let tokens: Vec<(usize, f32)> = row.iter().enumerate().filter(followed).map(|(token, &x)| (token, x)).collect();

        let mut same: Vec<Hypothesis> = Vec::with_capacity(self.hypotheses.len());
        for at in 0..self.hypotheses.len() {
            let old = self.hypotheses[at];
            same.push(self.repeat_or_blank(&old, row, least));
        }
        let mut longer = Vec::new();
        let heirs = self.followed_extensions();
        let (mut next_heir, mut heir_of) = (0, vec![None; row.len()]);
        for (at, old) in self.hypotheses.iter().enumerate() {
            let first_heir = next_heir;
            while let Some(&(_, token, heir)) = heirs.get(next_heir).filter(|(parent, ..)| *parent == at) {
                heir_of[token] = Some(heir);
                next_heir += 1;
            }
            let (all, last) = (old.all(), self.prefixes.get(old.prefix).token);
            for &(token, log_prob) in tokens.iter().filter(|(token, _)| *token != self.blank) {
                // A repeated token needs a blank in between.
                let paths = if token == last { old.blank } else { all }.times(log_prob);
                if paths.sum == f64::NEG_INFINITY {
                    continue;
                }
                match heir_of[token] {
                    // Already a hypothesis: merge the paths.
                    Some(heir) => {
                        let known: &mut Hypothesis = &mut same[heir];
                        if paths.best > known.token.best {
                            let chain = self.chains.add(paths.chain, Span::begin(token, self.n_frames, log_prob));
                            known.token.join(Paths { chain, ..paths });
                        } else {
                            known.token.join(paths);
                        }
                    }
                    None => {
                        let added = match scorer.is_idle() {
                            true => self.prefixes.get(old.prefix).state.added,
                            false => {
                                let prefix = child(&mut self.prefixes, old.prefix, token, scorer)?;
                                self.prefixes.get(prefix).state.added
                            }
                        };
                        longer.push(Extension { score: paths.sum + added, parent: old.prefix, token, log_prob, paths });
                    }
                }
            }
            heirs[first_heir..next_heir].iter().for_each(|&(_, token, _)| heir_of[token] = None);
        }
        self.prune(same, longer, config, scorer)?;
        self.n_frames += 1;
        Ok(())
    }

    /// A hypothesis after a frame that adds no token: a blank, or its last token again.
    fn repeat_or_blank(&mut self, old: &Hypothesis, row: ArrayView1<f32>, least: f64) -> Hypothesis {
        let log_prob =
            |token: usize| row.get(token).copied().filter(|&x| f64::from(x) >= least && x > f32::NEG_INFINITY);
        let mut token = NONE;
        if old.token.sum > f64::NEG_INFINITY
            && let Some(log_prob) = log_prob(self.prefixes.get(old.prefix).token)
        {
            token = old.token.times(log_prob);
            token.chain = self.chains.extend(token.chain, log_prob);
        }
        let blank = log_prob(self.blank).map_or(NONE, |log_prob| old.all().times(log_prob));
        Hypothesis { prefix: old.prefix, blank, token }
    }

    /// Pairs of hypotheses in which `child` extends `parent` by one token, as `(parent, token, child)`, sorted.
    fn followed_extensions(&mut self) -> Vec<(usize, usize, usize)> {
        for (at, hypothesis) in self.hypotheses.iter().enumerate() {
            self.prefixes.get_mut(hypothesis.prefix).noted = Some((self.n_frames, at));
        }
        let heir = |(at, hypothesis): (usize, &Hypothesis)| {
            let prefix = self.prefixes.get(hypothesis.prefix);
            let (frame, parent) = self.prefixes.get(prefix.parent).noted?;
            (frame == self.n_frames && hypothesis.prefix != ROOT).then_some((parent, prefix.token, at))
        };
        let mut heirs: Vec<_> = self.hypotheses.iter().enumerate().filter_map(heir).collect();
        heirs.sort_unstable();
        heirs
    }

    /// Keeps the best hypotheses; among equal scores, those found first.
    fn prune(&mut self, same: Vec<Hypothesis>, longer: Vec<Extension>, config: &Config, scorer: &Scorer) -> Result<()> {
        let mut order: Vec<(f64, usize)> = Vec::with_capacity(same.len() + longer.len());
        for hypothesis in &same {
            let score = hypothesis.all().sum + self.prefixes.get(hypothesis.prefix).state.added;
            order.push((score, order.len()));
        }
        order.extend(longer.iter().enumerate().map(|(at, longer)| (longer.score, same.len() + at)));
        let better = |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if order.len() > config.width {
            order.select_nth_unstable_by(config.width, better);
            order.truncate(config.width);
        }
        order.sort_unstable_by(better);
        let highest = order.first().map_or(f64::NEG_INFINITY, |first| first.0);
        order.retain(|(score, _)| *score > f64::NEG_INFINITY && *score >= highest - config.max_score_gap);

        self.hypotheses.clear();
        for (_, at) in order {
            let hypothesis = match at.checked_sub(same.len()) {
                None => same[at],
                Some(at) => {
                    let Extension { parent, token, log_prob, paths, .. } = longer[at];
                    let prefix = child(&mut self.prefixes, parent, token, scorer)?;
                    let chain = self.chains.add(paths.chain, Span::begin(token, self.n_frames, log_prob));
                    Hypothesis { prefix, blank: NONE, token: Paths { chain, ..paths } }
                }
            };
            self.hypotheses.push(hypothesis);
        }
        self.sweep();
        Ok(())
    }

    fn sweep(&mut self) {
        if self.prefixes.len() > self.sweep_prefixes {
            self.prefixes.sweep(self.hypotheses.iter_mut().map(|hypothesis| &mut hypothesis.prefix));
            self.sweep_prefixes = SWEEP_FROM.max(2 * self.prefixes.len());
        }
        if self.chains.len() > self.sweep_chains {
            let paths =
                self.hypotheses.iter_mut().flat_map(|hypothesis| [&mut hypothesis.blank, &mut hypothesis.token]);
            self.chains.sweep(paths.map(|paths| &mut paths.chain));
            self.sweep_chains = SWEEP_FROM.max(2 * self.chains.len());
        }
    }

    /// The best hypotheses as if the clip ended here, best first.
    pub(super) fn ranked(&self, scorer: &Scorer, n_best: usize) -> Vec<Ranked> {
        let mut ended: Vec<_> = self
            .hypotheses
            .iter()
            .map(|hypothesis| {
                let (all, end) = (hypothesis.all(), scorer.finish(&self.prefixes.get(hypothesis.prefix).state));
                (all.sum + end.added, all, end.model)
            })
            .collect();
        ended.sort_by(|a, b| b.0.total_cmp(&a.0));
        let found = |(score, all, lm_score): (f64, Paths, f64)| Ranked {
            spans: self.chains.spans(all.chain),
            score,
            ctc_score: all.sum,
            lm_score,
        };
        ended.into_iter().take(n_best).map(found).collect()
    }

    /// The length of the common prefix of all hypotheses.
    pub(super) fn n_settled(&self) -> usize {
        let parent = |prefix: u32| self.prefixes.get(prefix).parent;
        // Children have higher indices than their parents, so the higher of two prefixes is shortened.
        let common = |mut a: u32, mut b: u32| {
            while a != b {
                if a > b { a = parent(a) } else { b = parent(b) }
            }
            a
        };
        let prefix = self.hypotheses.iter().map(|hypothesis| hypothesis.prefix).reduce(common);
        prefix.map_or(0, |prefix| self.prefixes.depth(prefix))
    }
}

/// The prefix extended by one token.
fn child(prefixes: &mut Prefixes, parent: u32, token: usize, scorer: &Scorer) -> Result<u32> {
    match prefixes.child(parent, token) {
        Some(prefix) => Ok(prefix),
        None => {
            let state = scorer.advance(&prefixes.get(parent).state, token)?;
            Ok(prefixes.add(parent, token, state))
        }
    }
}

/// `ln(eᵃ + eᵇ)`.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}
