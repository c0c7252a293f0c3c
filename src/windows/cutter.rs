//! Cuts samples that come in pieces into windows. Windows that overlap share the frames of the front end.

use std::ops::Range;

use ndarray::Array2;

use super::schedule::{Schedule, WindowConfig};
use crate::check::check_finite_after;
use crate::error::Result;
use crate::frontend::{FrontEnd, array};

/// A complete window.
#[derive(Debug)]
pub(super) struct Window {
    /// Its samples in the recording, without padding.
    pub range: Range<u64>,
    /// The first sample of the next window, if there is one.
    pub next: Option<u64>,
    pub content: Content,
}

/// What the model gets of it.
#[derive(Debug)]
pub(super) enum Content {
    Samples(Vec<f32>),
    /// `[n_frames, n_features]` of a whole window.
    Features(Result<Array2<f32>>),
}

/// Collects samples and cuts windows. Holds no more samples than a window and what was pushed last.
#[derive(Debug)]
pub(super) struct WindowCutter {
    schedule: Schedule,
    pad_last: bool,
    /// Whether a window waits for the sample after it, which tells whether another window follows.
    wait: bool,
    /// The samples from `base` on that later windows need.
    samples: Vec<f32>,
    base: u64,
    /// Samples so far.
    received: u64,
    /// The index of the next window.
    index: u64,
    shared: SharedRows,
}

impl WindowCutter {
    pub fn new(schedule: Schedule, config: &WindowConfig) -> Self {
        Self {
            schedule,
            pad_last: config.pad_last,
            wait: config.framewise,
            samples: Vec::new(),
            base: 0,
            received: 0,
            index: 0,
            shared: SharedRows::default(),
        }
    }

    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Samples so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes samples, or none if one is not finite.
    pub fn push(&mut self, samples: &[f32]) -> Result<()> {
        check_finite_after(self.received, samples)?;
        // Samples that fall between windows are dropped.
        let unused = self.base.saturating_sub(self.received).min(samples.len() as u64) as usize;
        self.samples.extend_from_slice(&samples[unused..]);
        self.received += samples.len() as u64;
        Ok(())
    }

    /// The next window that is complete.
    pub fn take(&mut self, front_end: Option<&dyn FrontEnd>) -> Option<Window> {
        let range = self.schedule.window(self.index);
        if self.received < range.end + u64::from(self.wait) {
            return None;
        }
        let content = match front_end {
            Some(front_end) => Content::Features(self.features(front_end)),
            None => Content::Samples(self.samples[..self.schedule.length].to_vec()),
        };
        Some(self.advance(range, content))
    }

    /// The next of the windows that are left once the input has ended; the last one ends with the recording.
    pub fn take_last(&mut self, front_end: Option<&dyn FrontEnd>) -> Option<Window> {
        let wait = std::mem::replace(&mut self.wait, false);
        let whole = self.take(front_end);
        self.wait = wait;
        if whole.is_some() {
            return whole;
        }
        let start = self.schedule.start(self.index);
        let covered = self.index.checked_sub(1).map_or(0, |index| self.schedule.window(index).end);
        if start >= self.received || covered >= self.received {
            return None;
        }
        let mut samples = self.samples.clone();
        if self.pad_last {
            samples.resize(self.schedule.length, 0.0);
        }
        Some(self.advance(start..self.received, Content::Samples(samples)))
    }

    /// Goes to the next window and drops the samples before it.
    fn advance(&mut self, range: Range<u64>, content: Content) -> Window {
        self.index += 1;
        let next = self.schedule.start(self.index);
        let unused = (next - self.base).min(self.samples.len() as u64) as usize;
        self.samples.drain(..unused);
        self.base = next;
        let follows = next < self.received && range.end < self.received;
        Window { range, next: follows.then_some(next), content }
    }

    /// The features of the window at the beginning of `samples`: those of its clip alone.
    fn features(&mut self, front_end: &dyn FrontEnd) -> Result<Array2<f32>> {
        let window = &self.samples[..self.schedule.length];
        // Windows start at multiples of the hop: row t of the window is row offset + t of the recording.
        let offset = self.base / front_end.reach().hop_length as u64;
        let (n_rows, n_columns) = front_end.frames_dim(window.len());
        let mut written = Ok(());
        let rows = array(n_rows, n_columns, |rows| written = self.shared.write(front_end, window, offset, rows))?;
        written.and_then(|()| front_end.finish(rows, window.len()))
    }
}

/// Rows of the front end's frames of the recording, which windows that overlap have in common.
#[derive(Debug, Default)]
struct SharedRows {
    /// The row of the recording with which `values` begin.
    first: u64,
    values: Vec<f32>,
}

impl SharedRows {
    /// Writes the rows of a window, of which the first is row `offset` of the recording. Later windows have no smaller offset.
    fn write(&mut self, front_end: &dyn FrontEnd, window: &[f32], offset: u64, rows: &mut [f32]) -> Result<()> {
        let (n_rows, n_columns) = front_end.frames_dim(window.len());
        let inside = front_end.reach().inside(window.len(), n_rows);
        let (before, rest) = rows.split_at_mut(inside.start * n_columns);
        let (middle, after) = rest.split_at_mut(inside.len() * n_columns);
        front_end.frames_into(window, 0, before)?;
        front_end.frames_into(window, inside.end, after)?;

        let first = offset + inside.start as u64;
        let unused = ((first - self.first) as usize).saturating_mul(n_columns).min(self.values.len());
        self.values.drain(..unused);
        self.first = first;
        let known = self.values.len();
        front_end.frames_into(window, inside.start + known / n_columns, &mut middle[known..])?;
        middle[..known].copy_from_slice(&self.values);
        self.values.extend_from_slice(&middle[known..]);
        Ok(())
    }
}
