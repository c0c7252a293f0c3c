//! Detects events in scores as they arrive.

use super::config::Thresholds;
use super::smooth::{Segment, Smoother};
use super::{Event, EventConfig};
use crate::error::{Error, Result};
use crate::labels::LabelSet;
use crate::output::{Frames, WindowTagging};

/// Times that differ by less are considered equal, in seconds, since they are sums of rounded numbers.
const SAME: f64 = 1e-6;

/// Detects events in scores that arrive in order of time.
#[derive(Debug, Clone)]
pub struct EventDetector {
    config: EventConfig,
    labels: LabelSet,
    /// The classes that are detected.
    classes: Vec<Class>,
    smoother: Smoother,
    /// End of the last segment.
    end: Option<f64>,
    /// The last window. Its segment will end in the middle of its overlap with the next window.
    window: Option<Waiting>,
}

#[derive(Debug, Clone)]
struct Waiting {
    /// Start of the window. Its segment begins later if windows overlap.
    start: f64,
    segment: Segment,
}

#[derive(Debug, Clone)]
struct Class {
    index: usize,
    thresholds: Thresholds,
    /// Seconds so far, and the integral of the score over them.
    elapsed: f64,
    area: f64,
    run: Option<Run>,
    /// A run that has ended; the next run may be merged with it.
    last: Option<Run>,
}

/// A period without scores below the lower threshold.
#[derive(Debug, Clone)]
struct Run {
    onset: f64,
    offset: f64,
    peak: f32,
    /// `elapsed` and `area` of the class at the onset and at the offset.
    from: (f64, f64),
    to: (f64, f64),
}

impl EventDetector {
    /// Creates a detector for scores of the classes of `labels`.
    ///
    /// # Errors
    /// [`Error::Config`] if the settings are invalid, or name classes that `labels` does not have.
    pub fn new(config: &EventConfig, labels: &LabelSet) -> Result<Self> {
        let counts = |(index, thresholds): (usize, Option<Thresholds>)| {
            let (elapsed, area, run, last) = (0.0, 0.0, None, None);
            Some(Class { index, thresholds: thresholds?, elapsed, area, run, last })
        };
        let classes = config.thresholds(labels)?.into_iter().enumerate().filter_map(counts).collect();
        let (config, labels) = (config.clone(), labels.clone());
        Ok(Self { smoother: Smoother::new(config.smoothing), config, labels, classes, end: None, window: None })
    }

    /// Processes a result of [`Tagger::windows`](crate::Tagger::windows) or of a [`TaggerStream`](crate::TaggerStream):
    /// its frames if it has them, otherwise its tags. Returns the events that have ended.
    ///
    /// If windows overlap, each one applies up to the middle of the overlap. An event can therefore be returned one
    /// window late.
    ///
    /// # Errors
    /// [`Error::LabelCount`] if the number of scores differs from the number of labels; [`Error::Argument`] if a score
    /// is not finite, or if the window starts before earlier scores.
    pub fn push(&mut self, window: &WindowTagging) -> Result<Vec<Event>> {
        match &window.frames {
            Some(frames) => self.push_frames(frames),
            None => {
                let scores = &window.tagging.scores;
                self.check(window.start, window.end, scores)?;
                let mut events = Vec::new();
                let mut start = window.start;
                if let Some(Waiting { segment: before, .. }) = self.window.take() {
                    // A short last window may lie within the previous one.
                    let middle = (0.5 * (window.start + before.end)).max(before.start).min(window.end);
                    let end = if window.start < before.end { middle } else { before.end };
                    start = start.max(end);
                    self.segment(Segment { end, ..before }, &mut events);
                }
                let segment = Segment { start, end: window.end, scores: scores.clone() };
                self.window = Some(Waiting { start: window.start, segment });
                Ok(sorted(events))
            }
        }
    }

    /// Processes the next frames. Returns the events that have ended.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_frames(&mut self, frames: &Frames) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for (frame, scores) in frames.scores.rows().into_iter().enumerate() {
            let (start, end) = frames.span(frame);
            events.extend(self.push_segment(start, end, &scores.to_vec())?);
        }
        Ok(sorted(events))
    }

    /// Processes scores (one per class) for the time from `start` to `end`, in seconds. Returns the events that have
    /// ended.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_segment(&mut self, start: f64, end: f64, scores: &[f32]) -> Result<Vec<Event>> {
        self.check(start, end, scores)?;
        let mut events = Vec::new();
        self.take_window(&mut events);
        self.segment(Segment { start, end, scores: scores.to_vec() }, &mut events);
        Ok(sorted(events))
    }

    /// Ends the input: returns the remaining events and resets the detector.
    pub fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.take_window(&mut events);
        self.interrupt(&mut events);
        for class in &mut self.classes {
            if let Some(run) = class.last.take() {
                emit(&self.config, &self.labels, class.index, run, &mut events);
            }
            (class.elapsed, class.area) = (0.0, 0.0);
        }
        self.end = None;
        sorted(events)
    }

    fn check(&self, start: f64, end: f64, scores: &[f32]) -> Result<()> {
        if scores.len() != self.labels.len() {
            return Err(Error::LabelCount { n_classes: scores.len(), n_labels: self.labels.len() });
        }
        if let Some(score) = scores.iter().find(|score| !score.is_finite()) {
            return Err(Error::argument("scores", score, "expected a finite score"));
        }
        if !(start.is_finite() && end.is_finite() && start < end) {
            return Err(Error::argument("end", end, format!("expected a time after the start, {start} s")));
        }
        let before = match &self.window {
            Some(window) => Some(window.start),
            None => self.end,
        };
        match before.filter(|before| start < before - SAME) {
            Some(before) => Err(Error::argument(
                "start",
                start,
                format!("expected at least {before} s, the time of earlier scores"),
            )),
            None => Ok(()),
        }
    }

    /// Processes the last window to its end.
    fn take_window(&mut self, events: &mut Vec<Event>) {
        if let Some(window) = self.window.take() {
            self.segment(window.segment, events);
        }
    }

    fn segment(&mut self, segment: Segment, events: &mut Vec<Event>) {
        if segment.end <= segment.start {
            return;
        }
        if self.end.is_some_and(|end| segment.start > end + SAME) {
            self.interrupt(events);
        }
        self.end = Some(segment.end);
        if let Some(smooth) = self.smoother.push(segment) {
            self.smoothed(&smooth, events);
        }
    }

    /// Ends all runs and the smoothing before a gap without scores.
    fn interrupt(&mut self, events: &mut Vec<Event>) {
        while let Some(smooth) = self.smoother.finish() {
            self.smoothed(&smooth, events);
        }
        for class in &mut self.classes {
            if let Some(run) = class.run.take() {
                class.close(run, &self.config, &self.labels, events);
            }
        }
    }

    fn smoothed(&mut self, segment: &Segment, events: &mut Vec<Event>) {
        let (config, labels) = (&self.config, &self.labels);
        for class in &mut self.classes {
            let score = segment.scores[class.index];
            let from = (class.elapsed, class.area);
            let seconds = segment.end - segment.start;
            class.elapsed += seconds;
            class.area += f64::from(score) * seconds;
            let to = (class.elapsed, class.area);
            if score >= class.thresholds.1 {
                let (onset, offset) = (segment.start, segment.end);
                let run = class.run.get_or_insert(Run { onset, offset, peak: score, from, to });
                (run.offset, run.peak, run.to) = (offset, run.peak.max(score), to);
            } else if let Some(run) = class.run.take() {
                class.close(run, config, labels, events);
            }
            // The last run ends an event once no later run can be merged with it.
            let reach = class.run.as_ref().map_or(segment.end, |run| run.onset);
            if let Some(last) = class.last.take_if(|last| reach - last.offset > config.min_gap + SAME) {
                emit(config, labels, class.index, last, events);
            }
        }
    }
}

impl Class {
    /// Ends a run: merges it with the last one, or keeps it until a later one may be merged.
    fn close(&mut self, mut run: Run, config: &EventConfig, labels: &LabelSet, events: &mut Vec<Event>) {
        if run.peak < self.thresholds.0 {
            return;
        }
        if let Some(last) = self.last.take() {
            if run.onset - last.offset <= config.min_gap + SAME {
                run = Run { onset: last.onset, from: last.from, peak: run.peak.max(last.peak), ..run };
            } else {
                emit(config, labels, self.index, last, events);
            }
        }
        self.last = Some(run);
    }
}

fn emit(config: &EventConfig, labels: &LabelSet, index: usize, run: Run, events: &mut Vec<Event>) {
    let Run { onset, offset, peak, from, to } = run;
    if offset - onset < config.min_duration - SAME {
        return;
    }
    let Some(label) = labels.get(index) else { return };
    let mean = ((to.1 - from.1) / (to.0 - from.0)) as f32;
    let parents = if config.parents { label.parents.clone() } else { Vec::new() };
    let (id, label) = (label.id.clone(), label.name.clone());
    events.push(Event { onset, offset, label, id, index, peak, mean: mean.min(peak), parents });
}

/// Sorts by onset, then by class.
fn sorted(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by(|a, b| a.onset.total_cmp(&b.onset).then(a.index.cmp(&b.index)));
    events
}
