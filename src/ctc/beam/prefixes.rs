//! The token sequences of a search as a tree, and the times of their best paths as linked chains. Both are
//! garbage-collected from time to time, so that they hold only what the current hypotheses need.

use std::collections::HashMap;

use super::scorer::ScoreState;
use crate::ctc::transcript::Span;

/// The empty prefix, and the empty chain.
pub(super) const ROOT: u32 = 0;

#[derive(Debug, Clone)]
pub(super) struct Prefix {
    pub(super) parent: u32,
    /// The last token; meaningless for the root.
    pub(super) token: usize,
    pub(super) state: ScoreState,
    /// The last frame in which this prefix had a hypothesis, and the index of that hypothesis.
    pub(super) noted: Option<(usize, usize)>,
}

#[derive(Debug, Clone)]
pub(super) struct Prefixes {
    nodes: Vec<Prefix>,
    children: HashMap<(u32, usize), u32>,
}

/// Chains of spans. Each node holds the span of the last token and the index of the previous node.
#[derive(Debug, Clone)]
pub(super) struct Chains(Vec<(u32, Option<Span>)>);

impl Prefixes {
    pub(super) fn new(state: ScoreState) -> Self {
        let root = Prefix { parent: ROOT, token: usize::MAX, state, noted: None };
        Self { nodes: vec![root], children: HashMap::new() }
    }

    pub(super) fn get(&self, prefix: u32) -> &Prefix {
        &self.nodes[prefix as usize]
    }

    pub(super) fn get_mut(&mut self, prefix: u32) -> &mut Prefix {
        &mut self.nodes[prefix as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn child(&self, prefix: u32, token: usize) -> Option<u32> {
        self.children.get(&(prefix, token)).copied()
    }

    pub(super) fn add(&mut self, parent: u32, token: usize, state: ScoreState) -> u32 {
        let id = self.nodes.len() as u32; // cannot overflow, because of the sweeps
        self.nodes.push(Prefix { parent, token, state, noted: None });
        self.children.insert((parent, token), id);
        id
    }

    /// The number of tokens of a prefix.
    pub(super) fn depth(&self, prefix: u32) -> usize {
        std::iter::successors(Some(prefix), |&at| Some(self.get(at).parent)).take_while(|&at| at != ROOT).count()
    }

    /// Keeps the prefixes of `living` and their ancestors, and renumbers `living`. Parents stay before children.
    pub(super) fn sweep<'a>(&mut self, living: impl Iterator<Item = &'a mut u32>) {
        let parents: Vec<u32> = self.nodes.iter().map(|node| node.parent).collect();
        let places = compact(&mut self.nodes, &parents, living);
        for node in &mut self.nodes {
            node.parent = places[node.parent as usize];
        }
        let child = |(id, node): (usize, &Prefix)| ((node.parent, node.token), id as u32);
        self.children = self.nodes.iter().enumerate().skip(1).map(child).collect();
    }
}

impl Chains {
    pub(super) fn new() -> Self {
        Self(vec![(ROOT, None)])
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// `chain` extended by one token.
    pub(super) fn add(&mut self, chain: u32, span: Span) -> u32 {
        self.0.push((chain, Some(span)));
        (self.0.len() - 1) as u32
    }

    /// `chain` with its last token extended by one frame.
    pub(super) fn extend(&mut self, chain: u32, log_prob: f32) -> u32 {
        match self.0[chain as usize] {
            (before, Some(span)) => self.add(before, span.extended(log_prob)),
            (_, None) => chain,
        }
    }

    /// The spans of a chain, from first to last.
    pub(super) fn spans(&self, chain: u32) -> Vec<Span> {
        let chains = std::iter::successors(Some(chain), |&at| Some(self.0[at as usize].0));
        let mut spans: Vec<Span> = chains.map_while(|at| self.0[at as usize].1).collect();
        spans.reverse();
        spans
    }

    /// Keeps the chains of `living`, and renumbers `living`.
    pub(super) fn sweep<'a>(&mut self, living: impl Iterator<Item = &'a mut u32>) {
        let parents: Vec<u32> = self.0.iter().map(|chain| chain.0).collect();
        let places = compact(&mut self.0, &parents, living);
        for chain in &mut self.0 {
            chain.0 = places[chain.0 as usize];
        }
    }
}

/// Keeps the root and the items that `living` reach through `parents`, in their order. Returns the new index of each
/// item.
fn compact<'a, T>(items: &mut Vec<T>, parents: &[u32], living: impl Iterator<Item = &'a mut u32>) -> Vec<u32> {
    let living: Vec<&mut u32> = living.collect();
    let mut kept = vec![false; items.len()];
    kept[ROOT as usize] = true;
    for id in &living {
        let mut at = **id;
        while !std::mem::replace(&mut kept[at as usize], true) {
            at = parents[at as usize];
        }
    }
    let places: Vec<u32> = kept
        .iter()
        .scan(0, |n, &kept| {
            let place = *n;
            *n += u32::from(kept);
            Some(place)
        })
        .collect();
    let mut kept = kept.into_iter();
    items.retain(|_| kept.next().unwrap_or(false));
    living.into_iter().for_each(|id| *id = places[*id as usize]);
    places
}
