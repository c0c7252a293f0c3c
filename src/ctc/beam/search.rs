//! The hypotheses of a search, from frame to frame.

use ndarray::ArrayView1;

use super::Config;
use super::prefixes::{Chains, Prefixes, ROOT};
use super::scorer::Scorer;
use crate::Result;
use crate::ctc::transcript::Span;

/// Nodes beside which sweeping is not worth while.
const SWEEP_FROM: usize = 1 << 12;

/// A prefix that is still followed. "Blank" are its paths that end in the blank, "token" those that end in its last token.
#[derive(Debug, Clone, Copy)]
struct Hypothesis {
    prefix: u32,
    blank: Paths,
    token: Paths,
}

/// The paths of a prefix that end alike.
#[derive(Debug, Clone, Copy)]
struct Paths {
    /// Log of the sum of their probabilities.
    sum: f64,
    /// Log-probability of the best one.
    best: f64,
    /// Its times.
    chain: u32,
}

const NONE: Paths = Paths { sum: f64::NEG_INFINITY, best: f64::NEG_INFINITY, chain: ROOT };

/// A transcript with its scores.
#[derive(Debug)]
pub(super) struct Found {
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
    /// Best first.
    hypotheses: Vec<Hypothesis>,
    sweep_prefixes: usize,
    sweep_chains: usize,
}

impl Paths {
    /// These paths and others that end alike.
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

    /// Takes a frame, which has been checked.
    pub(super) fn step(&mut self, row: ArrayView1<f32>, config: &Config, scorer: &Scorer) -> Result<()> {
        let best = row.iter().fold(f32::NEG_INFINITY, |best, &x| best.max(x));
        let least = f64::from(best).min(config.min_token_log_prob);
        let followed = |&(_, &x): &(usize, &f32)| f64::from(x) >= least && x > f32::NEG_INFINITY;
        let tokens: Vec<(usize, f32)> = row.iter().enumerate().filter(followed).map(|(token, &x)| (token, x)).collect();

        let mut new: Vec<Hypothesis> = Vec::with_capacity(self.hypotheses.len() * 2);
        for at in 0..self.hypotheses.len() {
            let old = self.hypotheses[at];
            let (all, last) = (old.all(), self.prefixes.get(old.prefix).token);
            for &(token, log_prob) in &tokens {
                if token == self.blank {
                    self.note(&mut new, old.prefix).blank.join(all.times(log_prob));
                    continue;
                }
                if token == last && old.token.sum > f64::NEG_INFINITY {
                    let mut same = old.token.times(log_prob);
                    same.chain = self.chains.extend(same.chain, log_prob);
                    self.note(&mut new, old.prefix).token.join(same);
                }
                // The same token again needs a blank between.
                let mut longer = if token == last { old.blank } else { all }.times(log_prob);
                if longer.sum == f64::NEG_INFINITY {
                    continue;
                }
                longer.chain = self.chains.add(longer.chain, Span::begin(token, self.n_frames, log_prob));
                let prefix = match self.prefixes.child(old.prefix, token) {
                    Some(prefix) => prefix,
                    None => {
                        let standing = scorer.advance(&self.prefixes.get(old.prefix).standing, token)?;
                        self.prefixes.add(old.prefix, token, standing)
                    }
                };
                self.note(&mut new, prefix).token.join(longer);
            }
        }
        self.n_frames += 1;
        self.keep(new, config);
        Ok(())
    }

    /// The hypothesis of a prefix after this frame.
    fn note<'a>(&mut self, new: &'a mut Vec<Hypothesis>, prefix: u32) -> &'a mut Hypothesis {
        let place = match self.prefixes.get(prefix).noted {
            Some((frame, place)) if frame == self.n_frames => place,
            _ => {
                self.prefixes.get_mut(prefix).noted = Some((self.n_frames, new.len()));
                new.push(Hypothesis { prefix, blank: NONE, token: NONE });
                new.len() - 1
            }
        };
        &mut new[place]
    }

    /// Keeps the best hypotheses.
    fn keep(&mut self, new: Vec<Hypothesis>, config: &Config) {
        let score =
            |hypothesis: &Hypothesis| hypothesis.all().sum + self.prefixes.get(hypothesis.prefix).standing.added;
        let mut scored: Vec<(f64, Hypothesis)> =
            new.into_iter().map(|hypothesis| (score(&hypothesis), hypothesis)).collect();
        // Stable: of equal scores the one that was found first goes first.
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        let highest = scored.first().map_or(f64::NEG_INFINITY, |first| first.0);
        scored.truncate(config.width);
        scored.retain(|(score, _)| *score >= highest - config.max_score_gap);
        self.hypotheses = scored.into_iter().map(|(_, hypothesis)| hypothesis).collect();

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

    /// The best hypotheses if the clip ended here, best first.
    pub(super) fn ranked(&self, scorer: &Scorer, n_best: usize) -> Vec<Found> {
        let mut ended: Vec<_> = self
            .hypotheses
            .iter()
            .map(|hypothesis| {
                let (all, end) = (hypothesis.all(), scorer.finish(&self.prefixes.get(hypothesis.prefix).standing));
                (all.sum + end.added, all, end.model)
            })
            .collect();
        ended.sort_by(|a, b| b.0.total_cmp(&a.0));
        let found = |(score, all, lm_score): (f64, Paths, f64)| Found {
            spans: self.chains.spans(all.chain),
            score,
            ctc_score: all.sum,
            lm_score,
        };
        ended.into_iter().take(n_best).map(found).collect()
    }

    /// The length of the prefix that all hypotheses begin with.
    pub(super) fn n_settled(&self) -> usize {
        let parent = |prefix: u32| self.prefixes.get(prefix).parent;
        // Children come after parents: of two prefixes the later one can be shortened.
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

/// `ln(eᵃ + eᵇ)`.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}
