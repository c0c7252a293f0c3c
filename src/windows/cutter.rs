//! Cuts blocks of samples into windows. Overlapping windows share the frames of the front end.

use std::ops::Range;

use ndarray::Array2;

use super::schedule::{Schedule, WindowConfig};
use crate::check::check_finite_after;
use crate::error::Result;
use crate::frontend::{FrontEnd, array};

/// A complete window.
#[derive(Debug)]
pub(super) struct Window {
    /// The range of its samples in the recording, without padding.
    pub range: Range<u64>,
    /// The first sample of the next window, if there is one.
    pub next: Option<u64>,
    pub content: Content,
}

/// The input of the model for a window.
#[derive(Debug)]
pub(super) enum Content {
    Samples(Vec<f32>),
    /// Features `[n_frames, n_features]` of a window of full length.
    Features(Result<Array2<f32>>),
}

/// Collects samples and cuts windows. Holds at most a window and the samples pushed last.
#[derive(Debug)]
pub(super) struct WindowCutter {
    schedule: Schedule,
    pad_last: bool,
    /// Whether to wait for the sample after a window, to know whether another window follows.
    wait: bool,
    /// Samples from `base` on, which later windows need.
    samples: Vec<f32>,
    base: u64,
    /// Number of samples so far.
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

    /// Number of samples so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes samples. If one is not finite, takes none.
    pub fn push(&mut self, samples: &[f32]) -> Result<()> {
        check_finite_after(self.received, samples)?;
        // Samples that fall between windows are dropped.
        let unused = self.base.saturating_sub(self.received).min(samples.len() as u64) as usize;
        self.samples.extend_from_slice(&samples[unused..]);
        self.received += samples.len() as u64;
        Ok(())
    }

    /// The next complete window.
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

    /// The next remaining window after the end of the input. The last one ends with the recording.
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

    /// Advances to the next window and drops the samples before it.
    fn advance(&mut self, range: Range<u64>, content: Content) -> Window {
        self.index += 1;
        let next = self.schedule.start(self.index);
        let unused = (next - self.base).min(self.samples.len() as u64) as usize;
        self.samples.drain(..unused);
        self.base = next;
        let follows = next < self.received && range.end < self.received;
        Window { range, next: follows.then_some(next), content }
    }

    /// Features of the window at the beginning of `samples`, equal to those of its clip alone.
    fn features(&mut self, front_end: &dyn FrontEnd) -> Result<Array2<f32>> {
        let window = &self.samples[..self.schedule.length];
        // Windows start at multiples of the hop, so row t of the window is row offset + t of the recording.
        let offset = self.base / front_end.reach().hop_length as u64;
        let (n_rows, n_columns) = front_end.frames_dim(window.len());
        let mut written = Ok(());
        let rows = array(n_rows, n_columns, |rows| written = self.shared.write(front_end, window, offset, rows))?;
        written.and_then(|()| front_end.finish(rows, window.len()))
    }
}

/// Rows of front-end frames of the recording that overlapping windows share.
#[derive(Debug, Default)]
struct SharedRows {
    /// The index in the recording of the first row of `values`.
    first: u64,
    values: Vec<f32>,
}

impl SharedRows {
    /// Writes the rows of a window, the first of which is row `offset` of the recording. Offsets must not decrease.
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
