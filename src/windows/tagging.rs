//! Runs a tagger over the windows of a recording.

use std::collections::VecDeque;
use std::ops::Deref;

use candle_core::Tensor;
use ndarray::Array2;

use super::cutter::{Content, Window, WindowCutter};
use super::schedule::{Schedule, WindowConfig};
use super::{Frames, WindowTagging};
use crate::audio::WaveformBatch;
use crate::device::in_pool;
use crate::error::{Context, Error, Result};
use crate::models::{Detail, FrameGrid, MAX_SECONDS};
use crate::output::TaggingOutput;
use crate::tagger::Tagger;

/// Number of samples that are processed at a time, which limits memory however many are pushed.
pub(crate) const CHUNK: usize = 1 << 16;

/// Cuts samples into windows and tags them.
#[derive(Debug)]
pub(crate) struct WindowTagger<T> {
    tagger: T,
    config: WindowConfig,
    cutter: WindowCutter,
    /// Complete windows waiting for the model, at most one batch; the cutter holds more only when this is full.
    waiting: VecDeque<Window>,
    /// Set once the input has ended.
    ended: bool,
    /// The first frame of the recording that has not been returned.
    next_frame: u64,
}

impl<T: Deref<Target = Tagger>> WindowTagger<T> {
    pub fn new(tagger: T, config: &WindowConfig) -> Result<Self> {
        let cutter = WindowCutter::new(Schedule::new(config, tagger.model())?, config);
        Ok(Self { tagger, config: config.clone(), cutter, waiting: VecDeque::new(), ended: false, next_frame: 0 })
    }

    pub fn tagger(&self) -> &T {
        &self.tagger
    }

    pub fn config(&self) -> &WindowConfig {
        &self.config
    }

    /// Length of a window in samples.
    pub fn length(&self) -> usize {
        self.cutter.schedule().length
    }

    /// Discards all samples.
    pub fn reset(&mut self) {
        self.cutter = WindowCutter::new(self.cutter.schedule().clone(), &self.config);
        self.waiting.clear();
        self.ended = false;
        self.next_frame = 0;
    }

    /// Takes some of the samples, at the model's rate, and returns their number: 0 while the batch [is
    /// full](Self::is_full).
    pub fn push(&mut self, samples: &[f32]) -> Result<usize> {
        if self.is_full() {
            return Ok(0);
        }
        let taken = samples.len().min(CHUNK);
        self.cutter.push(&samples[..taken])?;
        self.fill();
        Ok(taken)
    }

    /// Takes all samples and tags the windows that they complete.
    pub fn push_all(&mut self, samples: &[f32], results: &mut Vec<WindowTagging>) -> Result<()> {
        let mut taken = 0;
        while taken < samples.len() {
            taken += self.push(&samples[taken..])?;
            self.tag_all(results)?;
        }
        Ok(())
    }

    /// Ends the input.
    pub fn finish(&mut self) {
        self.ended = true;
        self.fill();
    }

    /// Cuts windows until a batch is full.
    fn fill(&mut self) {
        let front_end = self.cutter.schedule().shared_front_end(self.tagger.model());
        while !self.is_full() {
            let window = if self.ended { self.cutter.take_last(front_end) } else { self.cutter.take(front_end) };
            match window {
                Some(window) => self.waiting.push_back(window),
                None => break,
            }
        }
    }

    /// Number of samples so far, at the model's rate.
    pub fn received(&self) -> u64 {
        self.cutter.received()
    }

    /// Whether a batch of windows is waiting for the model.
    pub fn is_full(&self) -> bool {
        let fitting = (MAX_SECONDS as f64 / self.config.length).max(1.0) as usize;
        self.waiting.len() >= self.config.batch.min(fitting)
    }

    /// Tags one batch of complete windows; returns none if there are none. Windows of a failed batch are lost.
    pub fn tag(&mut self) -> Result<Vec<WindowTagging>> {
        let results = self.tag_waiting();
        self.fill();
        results
    }

    /// Tags all complete windows.
    pub fn tag_all(&mut self, results: &mut Vec<WindowTagging>) -> Result<()> {
        loop {
            let windows = self.tag()?;
            if windows.is_empty() {
                return Ok(());
            }
            results.extend(windows);
        }
    }

    fn tag_waiting(&mut self) -> Result<Vec<WindowTagging>> {
        // All windows of a batch are of the same kind and length.
        let kind = |window: &Window| match &window.content {
            Content::Samples(samples) => Some(samples.len()),
            Content::Features(_) => None,
        };
        let Some(first) = self.waiting.front().map(kind) else { return Ok(Vec::new()) };
        let count = self.waiting.iter().take_while(|window| kind(window) == first).count();
        let mut windows: Vec<Window> = self.waiting.drain(..count).collect();
        let output = self.forward(&mut windows)?;
        let taggings = output.to_taggings(self.tagger.labels())?;
        let (rate, grid) = (f64::from(self.tagger.model().info().sample_rate), self.tagger.model().info().frames);
        let mut results = Vec::with_capacity(count);
        for (row, (window, tagging)) in windows.iter().zip(taggings).enumerate() {
            let frames = match (&output.framewise_output, grid) {
                (Some(frames), Some(grid)) if self.config.framewise => {
                    let frames = frames.get(row).context("reading the frames of a window")?;
                    Some(self.own_frames(&frames, window, grid, rate)?)
                }
                _ => None,
            };
            let (start, end) = (window.range.start as f64 / rate, window.range.end as f64 / rate);
            results.push(WindowTagging { start, end, tagging, frames });
        }
        Ok(results)
    }

    /// Runs the model. Takes the content out of the windows.
    fn forward(&self, windows: &mut [Window]) -> Result<TaggingOutput> {
        let model = self.tagger.model();
        let detail = if self.config.framewise { Detail::Frames } else { Detail::Clip };
        let (mut clips, mut values, mut dim) = (Vec::new(), Vec::<f32>::new(), None);
        for window in windows.iter_mut() {
            match std::mem::replace(&mut window.content, Content::Samples(Vec::new())) {
                Content::Samples(samples) => clips.push(samples),
                Content::Features(features) => {
                    let features = features?;
                    dim = Some(features.dim());
                    values.extend(features.iter());
                }
            }
        }
        let Some((n_frames, n_features)) = dim else {
            let batch = WaveformBatch::new(clips, model.info().sample_rate)?;
            return in_pool(|| model.forward(&batch, detail));
        };
        let features = Tensor::from_vec(values, (windows.len(), n_frames, n_features), model.device());
        let features = features.context("copying the features to the device")?;
        in_pool(|| model.forward_features(&features, detail))
    }

    /// Selects those of a window's frames `[n_frames, n_classes]` that are farther from its ends than the same frames
    /// in its neighbours.
    fn own_frames(&mut self, frames: &Tensor, window: &Window, grid: FrameGrid, rate: f64) -> Result<Frames> {
        let (n_frames, n_classes) = frames.dims2().context("reading the shape of the frames")?;
        let step = grid.step as u64;
        let first = window.range.start / step; // in the recording
        // Exclude frames of padding, and frames beyond the end of the recording (by rounding).
        let inside = (window.range.end.saturating_sub(window.range.start + grid.first as u64)).div_ceil(step);
        let end = first + inside.min(n_frames as u64);
        // The next window begins with the frame in the middle of the overlap (or the later of two).
        let middle = |next: u64| ((next / step + end) / 2).min(end);
        let to = window.next.map_or(end, middle);
        let from = self.next_frame.clamp(first, to);
        self.next_frame = to;
        let own = frames.narrow(0, (from - first) as usize, (to - from) as usize);
        let scores = own.and_then(|own| own.flatten_all()?.to_vec1::<f32>()).context("copying frames to the host")?;
        let shape = ((to - from) as usize, n_classes);
        let scores = Array2::from_shape_vec(shape, scores);
        let time = |frame: u64| (frame * step + grid.first as u64) as f64 / rate;
        let end = match window.next {
            Some(next) => time(to.max(next / step)), // where the frames of the next window begin
            None => time(to).min(window.range.end as f64 / rate),
        };
        Ok(Frames {
            start: time(from).min(end),
            step: grid.step as f64 / rate,
            end,
            scores: scores.map_err(|error| Error::argument("frames", format!("{shape:?}"), error.to_string()))?,
        })
    }
}
