//! Finds events in scores as they arrive.

use super::config::Thresholds;
use super::smooth::{Segment, Smoother};
use super::{Event, EventConfig};
use crate::error::{Error, Result};
use crate::labels::LabelSet;
use crate::output::{Frames, WindowTagging};

/// Times that differ by less count as equal, in seconds: they are sums of rounded fractions.
const SAME: f64 = 1e-6;

/// Finds events in scores that arrive in order of time.
#[derive(Debug, Clone)]
pub struct EventDetector {
    config: EventConfig,
    labels: LabelSet,
    /// The classes that count.
    classes: Vec<Class>,
    smoother: Smoother,
    /// Where the last segment ended.
    end: Option<f64>,
    /// The last window, whose segment ends in the middle of its overlap with the next.
    window: Option<Waiting>,
}

#[derive(Debug, Clone)]
struct Waiting {
    /// Where the window begins; its segment begins later if windows overlap.
    start: f64,
    segment: Segment,
}

#[derive(Debug, Clone)]
struct Class {
    index: usize,
    thresholds: Thresholds,
    /// Seconds so far, and the integral of the score over them.
    heard: f64,
    area: f64,
    run: Option<Run>,
    /// A run that is over; the next may belong to the same event.
    last: Option<Run>,
}

/// A stretch of scores that are not below the lower threshold.
#[derive(Debug, Clone)]
struct Run {
    onset: f64,
    offset: f64,
    peak: f32,
    /// `heard` and `area` of the class at onset and at offset.
    from: (f64, f64),
    to: (f64, f64),
}

impl EventDetector {
    /// A detector for scores of the classes of `labels`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the settings are invalid, or name classes that `labels` does not have.
    pub fn new(config: &EventConfig, labels: &LabelSet) -> Result<Self> {
        let counts = |(index, thresholds): (usize, Option<Thresholds>)| {
            let (heard, area, run, last) = (0.0, 0.0, None, None);
            Some(Class { index, thresholds: thresholds?, heard, area, run, last })
        };
        let classes = config.thresholds(labels)?.into_iter().enumerate().filter_map(counts).collect();
        let (config, labels) = (config.clone(), labels.clone());
        Ok(Self { smoother: Smoother::new(config.smoothing), config, labels, classes, end: None, window: None })
    }

    /// Takes a result of [`Tagger::windows`](crate::Tagger::windows) or of a [`TaggerStream`](crate::TaggerStream), and returns the
    /// events that are over: from its frames if it has them, else from its tags.
    ///
    /// Where windows overlap, each one counts up to the middle of the overlap. An event can thus be returned one window late.
    ///
    /// # Errors
    /// [`Error::LabelCount`] for another number of classes, [`Error::Argument`] for scores that are not finite and for times that go
    /// back.
    pub fn push(&mut self, window: &WindowTagging) -> Result<Vec<Event>> {
        match &window.frames {
            Some(frames) => self.push_frames(frames),
            None => {
                let scores = &window.tagging.scores;
                self.check(window.start, window.end, scores)?;
                let mut events = Vec::new();
                let mut start = window.start;
                if let Some(Waiting { segment: before, .. }) = self.window.take() {
                    // Where the last window is short, it may lie within the one before.
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

    /// Takes the next frames.
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

    /// Takes the scores of the time from `start` to `end`, one per class, and returns the events that are over.
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

    /// Ends the input: returns the remaining events, and starts over.
    pub fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.take_window(&mut events);
        self.interrupt(&mut events);
        for class in &mut self.classes {
            if let Some(run) = class.last.take() {
                emit(&self.config, &self.labels, class.index, run, &mut events);
            }
            (class.heard, class.area) = (0.0, 0.0);
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
            return Err(Error::argument("end", end, format!("expected after the start, {start} s")));
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

    /// Takes the last window, with all of its time.
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

    /// Before a gap without scores: ends all runs and the smoothing.
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
            let from = (class.heard, class.area);
            let seconds = segment.end - segment.start;
            class.heard += seconds;
            class.area += f64::from(score) * seconds;
            let to = (class.heard, class.area);
            if score >= class.thresholds.1 {
                let (onset, offset) = (segment.start, segment.end);
                let run = class.run.get_or_insert(Run { onset, offset, peak: score, from, to });
                (run.offset, run.peak, run.to) = (offset, run.peak.max(score), to);
            } else if let Some(run) = class.run.take() {
                class.close(run, config, labels, events);
            }
            // An event that no later run can join is over.
            let reach = class.run.as_ref().map_or(segment.end, |run| run.onset);
            if let Some(last) = class.last.take_if(|last| reach - last.offset > config.min_gap + SAME) {
                emit(config, labels, class.index, last, events);
            }
        }
    }
}

impl Class {
    /// A run is over: part of the last event, or an event that may go on.
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

/// By onset, then by class.
fn sorted(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by(|a, b| a.onset.total_cmp(&b.onset).then(a.index.cmp(&b.index)));
    events
}
