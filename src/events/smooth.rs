//! Smoothing of scores as they arrive.

use std::collections::VecDeque;

use super::Smoothing;

/// Scores for a period of time, one value per class.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub start: f64,
    pub end: f64,
    pub scores: Vec<f32>,
}

/// A centred filter over consecutive segments.
#[derive(Debug, Clone)]
pub(super) struct Smoother {
    smoothing: Smoothing,
    /// Segments that the filter still needs.
    recent: VecDeque<Segment>,
    /// Number of these before the next segment to return.
    before: usize,
    values: Vec<f32>,
}

impl Smoother {
    pub fn new(smoothing: Smoothing) -> Self {
        Self { smoothing, recent: VecDeque::new(), before: 0, values: Vec::new() }
    }

    /// Takes a segment. Returns the segment whose filter window is now complete.
    pub fn push(&mut self, segment: Segment) -> Option<Segment> {
        let half = self.smoothing.half();
        if half == 0 {
            return Some(segment);
        }
        self.recent.push_back(segment);
        (self.recent.len() > self.before + half).then(|| self.next())
    }

    /// Returns the remaining segments, one per call, then resets.
    pub fn finish(&mut self) -> Option<Segment> {
        if self.before < self.recent.len() {
            return Some(self.next());
        }
        self.recent.clear();
        self.before = 0;
        None
    }

    fn next(&mut self) -> Segment {
        let half = self.smoothing.half();
        let window = self.before.saturating_sub(half)..(self.before + half + 1).min(self.recent.len());
        let Segment { start, end, ref scores } = self.recent[self.before];
        let mut smooth = |class: usize| {
            self.values.clear();
            self.values.extend(self.recent.range(window.clone()).map(|segment| segment.scores[class]));
            filter(self.smoothing, &mut self.values)
        };
        let scores = (0..scores.len()).map(&mut smooth).collect();
        self.before += 1;
        if self.before > half {
            self.recent.pop_front();
            self.before -= 1;
        }
        Segment { start, end, scores }
    }
}

fn filter(smoothing: Smoothing, values: &mut [f32]) -> f32 {
    let n = values.len();
    match smoothing {
        Smoothing::Median(_) => {
            let (below, &mut middle, _) = values.select_nth_unstable_by(n / 2, f32::total_cmp);
            if n % 2 == 1 { middle } else { 0.5 * (middle + below.iter().copied().fold(f32::NEG_INFINITY, f32::max)) }
        }
        _ => (values.iter().map(|&value| f64::from(value)).sum::<f64>() / n as f64) as f32,
    }
}
