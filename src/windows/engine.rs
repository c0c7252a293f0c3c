//! From samples that come in pieces to windows, with the front end computed once where windows overlap.

use std::ops::Range;

use super::schedule::Schedule;
use crate::check::check_finite_after;
use crate::error::Result;
use crate::frontend::LogMel;

/// A window that is complete.
#[derive(Debug, PartialEq)]
pub(super) struct Window {
    /// Its samples in the recording, without those that were added at its end.
    pub range: Range<u64>,
    /// The next window, where there is one.
    pub next: Option<u64>,
    pub content: Content,
}

/// What of it the model sees.
#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Samples(Vec<f32>),
    /// `[n_frames, n_mels]` of a whole window.
    LogMel(Vec<f32>),
}

/// Collects samples and cuts windows. Holds no more samples than a window and what was pushed last.
#[derive(Debug)]
pub(super) struct Engine {
    schedule: Schedule,
    pad_last: bool,
    /// Whether a window waits for the sample after it, so that it knows whether another one follows.
    wait: bool,
    /// The samples from `base` on that a window still needs.
    samples: Vec<f32>,
    base: u64,
    /// Samples so far.
    received: u64,
    /// The index of the next window.
    index: u64,
    /// Frames of the recording from `first_frame` on, without the rules that hold for a clip as a whole.
    frames: Vec<f32>,
    first_frame: u64,
}

impl Engine {
    pub fn new(schedule: Schedule, pad_last: bool, wait: bool) -> Self {
        let (samples, frames) = (Vec::new(), Vec::new());
        Self { schedule, pad_last, wait, samples, base: 0, received: 0, index: 0, frames, first_frame: 0 }
    }

    /// Samples so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes samples; none if one is not finite.
    pub fn push(&mut self, samples: &[f32]) -> Result<()> {
        check_finite_after(self.received, samples)?;
        // Between windows that do not touch nothing is kept.
        let unused = self.base.saturating_sub(self.received).min(samples.len() as u64) as usize;
        self.samples.extend_from_slice(&samples[unused..]);
        self.received += samples.len() as u64;
        Ok(())
    }

    /// The next window that is complete.
    pub fn take(&mut self, log_mel: Option<&LogMel>) -> Option<Window> {
        let range = self.schedule.window(self.index);
        if self.received < range.end + u64::from(self.wait) {
            return None;
        }
        let content = match log_mel {
            Some(log_mel) => Content::LogMel(self.log_mel(log_mel)),
            None => Content::Samples(self.samples[..self.schedule.length].to_vec()),
        };
        Some(self.advance(range, content))
    }

    /// The windows that are left when no more samples come; the last one has what no window before it has.
    pub fn take_last(&mut self, log_mel: Option<&LogMel>) -> Option<Window> {
        let wait = std::mem::replace(&mut self.wait, false);
        let whole = self.take(log_mel);
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

    /// Goes to the next window and forgets what it does not need.
    fn advance(&mut self, range: Range<u64>, content: Content) -> Window {
        self.index += 1;
        let next = self.schedule.start(self.index);
        let unused = (next - self.base).min(self.samples.len() as u64) as usize;
        self.samples.drain(..unused);
        self.base = next;
        let follows = next < self.received && range.end < self.received;
        Window { range, next: follows.then_some(next), content }
    }

    /// The log-mel of the window at the beginning of `samples`: what its clip alone has.
    fn log_mel(&mut self, log_mel: &LogMel) -> Vec<f32> {
        let (length, hop_length, n_mels) = (self.schedule.length, log_mel.config().hop_length, log_mel.config().n_mels);
        let n_frames = log_mel.n_frames(length);
        let inside = log_mel.inside(length);
        // Frame t of the window is frame offset + t of the recording, as windows start at multiples of the hop.
        let offset = self.base / hop_length as u64;
        let shared = offset + inside.start as u64..offset + inside.end as u64;
        let unused = (shared.start.saturating_sub(self.first_frame) as usize * n_mels).min(self.frames.len());
        self.frames.drain(..unused);
        if self.frames.is_empty() {
            self.first_frame = shared.start;
        } else {
            self.first_frame += (unused / n_mels) as u64;
        }
        let there = self.frames.len() / n_mels;
        if there < inside.len() {
            let first = (inside.start + there) * hop_length - log_mel.margin(); // in the window
            self.frames.resize(inside.len() * n_mels, 0.0);
            log_mel.frames_at(&self.samples[first..length], &mut self.frames[there * n_mels..]);
        }
        let window = &self.samples[..length];
        let mut out = vec![0.0; n_frames * n_mels];
        let (before, rest) = out.split_at_mut(inside.start.min(n_frames) * n_mels);
        let (within, after) = rest.split_at_mut(inside.len() * n_mels);
        log_mel.frames_from(0, window, before);
        within.copy_from_slice(&self.frames[..within.len()]);
        log_mel.frames_from(inside.end, window, after);
        log_mel.raise_to_floor(&mut out);
        out
    }
}
