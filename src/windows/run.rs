//! From samples to the results of windows.

use std::collections::VecDeque;

use candle_core::Tensor;
use ndarray::Array2;

use super::engine::{Content, Engine, Window};
use super::schedule::{Schedule, WindowConfig};
use super::{Frames, WindowTagging};
use crate::audio::WaveformBatch;
use crate::error::{Context, Error, Result};
use crate::models::{Detail, FrameGrid};
use crate::output::TaggingOutput;
use crate::tagger::Tagger;

/// Samples that are taken at a time: bounds memory where much is pushed at once.
const CHUNK: usize = 1 << 16;
/// Windows that a model sees at once hold at most so many seconds, as the clips of a batch.
const MAX_SECONDS: f64 = 40.0;

/// Runs a model over windows. The tagger is given to every call and must be the same.
#[derive(Debug)]
pub(crate) struct Runner {
    config: WindowConfig,
    schedule: Schedule,
    engine: Engine,
    /// Complete, and not yet seen by the model: no more than it sees at once. The engine has others only if these are so many.
    waiting: VecDeque<Window>,
    /// No more samples come.
    ended: bool,
    /// Frames of the recording before this one were given out.
    frames_end: u64,
}

impl Runner {
    pub fn new(tagger: &Tagger, config: &WindowConfig) -> Result<Self> {
        let schedule = Schedule::new(config, tagger.model())?;
        let engine = Engine::new(schedule.clone(), config.pad_last, config.framewise);
        Ok(Self { config: config.clone(), schedule, engine, waiting: VecDeque::new(), ended: false, frames_end: 0 })
    }

    pub fn config(&self) -> &WindowConfig {
        &self.config
    }

    /// Length of a window in samples.
    pub fn length(&self) -> usize {
        self.schedule.length
    }

    /// Forgets all samples.
    pub fn reset(&mut self) {
        self.engine = Engine::new(self.schedule.clone(), self.config.pad_last, self.config.framewise);
        self.waiting.clear();
        (self.ended, self.frames_end) = (false, 0);
    }

    /// Takes some of the samples, at the model's rate, and tells how many: none while it [is full](Self::is_full).
    pub fn push(&mut self, tagger: &Tagger, samples: &[f32]) -> Result<usize> {
        if self.is_full() {
            return Ok(0);
        }
        let taken = samples.len().min(CHUNK);
        self.engine.push(&samples[..taken])?;
        self.fill(tagger);
        Ok(taken)
    }

    /// No more samples come.
    pub fn finish(&mut self, tagger: &Tagger) {
        self.ended = true;
        self.fill(tagger);
    }

    /// Cuts windows, as many as the model sees at once: each is a copy of its samples.
    fn fill(&mut self, tagger: &Tagger) {
        let front_end = self.schedule.shared_front_end(tagger.model());
        while !self.is_full() {
            let window = if self.ended { self.engine.take_last(front_end) } else { self.engine.take(front_end) };
            match window {
                Some(window) => self.waiting.push_back(window),
                None => break,
            }
        }
    }

    /// Samples so far, at the model's rate.
    pub fn received(&self) -> u64 {
        self.engine.received()
    }

    /// Whether there are as many windows as the model sees at once.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.batch()
    }

    /// Tags windows that are complete, as many as the model sees at once; none if there are none. After an error these windows
    /// are gone.
    pub fn tag(&mut self, tagger: &Tagger) -> Result<Vec<WindowTagging>> {
        let results = self.tag_waiting(tagger);
        self.fill(tagger);
        results
    }

    fn tag_waiting(&mut self, tagger: &Tagger) -> Result<Vec<WindowTagging>> {
        // Windows of one kind and length, in their order.
        let kind = |window: &Window| match &window.content {
            Content::Samples(samples) => Some(samples.len()),
            Content::Features(_) => None,
        };
        let Some(first) = self.waiting.front().map(kind) else { return Ok(Vec::new()) };
        let count = self.waiting.iter().take_while(|window| kind(window) == first).count();
        let mut windows: Vec<Window> = self.waiting.drain(..count).collect();
        let output = self.forward(tagger, &mut windows)?;
        let taggings = output.to_taggings(tagger.labels())?;
        let rate = f64::from(tagger.model().info().sample_rate);
        let mut results = Vec::with_capacity(count);
        for (row, (window, tagging)) in windows.iter().zip(taggings).enumerate() {
            let frames = match (&output.framewise_output, tagger.model().info().frames) {
                (Some(frames), Some(grid)) if self.config.framewise => {
                    Some(self.own_frames(frames, row, window, grid, rate)?)
                }
                _ => None,
            };
            let (start, end) = (window.range.start as f64 / rate, window.range.end as f64 / rate);
            results.push(WindowTagging { start, end, tagging, frames });
        }
        Ok(results)
    }

    fn batch(&self) -> usize {
        let fitting = (MAX_SECONDS / self.config.length).max(1.0) as usize;
        self.config.batch.min(fitting)
    }

    fn forward(&self, tagger: &Tagger, windows: &mut [Window]) -> Result<TaggingOutput> {
        let model = tagger.model();
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
            return model.forward(&WaveformBatch::new(clips, model.info().sample_rate)?, detail);
        };
        let features = Tensor::from_vec(values, (windows.len(), n_frames, n_features), model.device());
        model.forward_features(&features.context("moving the features to the device")?, detail)
    }

    /// The frames of a window that are farther from its ends than from those of its neighbours.
    fn own_frames(
        &mut self,
        frames: &Tensor,
        row: usize,
        window: &Window,
        grid: FrameGrid,
        rate: f64,
    ) -> Result<Frames> {
        let step = grid.step as u64;
        let n_frames = frames.dim(1).context("the shape of the frames")? as u64;
        let first = window.range.start / step; // in the recording
        // What was padded or rounded up beyond the end of the recording is left out.
        let inside = (window.range.end.saturating_sub(window.range.start + grid.first as u64)).div_ceil(step);
        let end = first + n_frames.min(inside);
        // Of two frames in the middle, or of one, the next window has the later: it may reach farther.
        let middle = |next: u64| ((next / step + end) / 2).min(end);
        let to = window.next.map_or(end, middle);
        let from = self.frames_end.clamp(first, to);
        self.frames_end = to;
        let own = frames.get(row).and_then(|frames| frames.narrow(0, (from - first) as usize, (to - from) as usize));
        let scores = own.and_then(|own| own.flatten_all()?.to_vec1::<f32>()).context("bringing frames to the host")?;
        let shape = ((to - from) as usize, frames.dim(2).context("the shape of the frames")?);
        let scores = Array2::from_shape_vec(shape, scores);
        let time = |frame: u64| (frame * step + grid.first as u64) as f64 / rate;
        let end = match window.next {
            Some(next) => time(to.max(next / step)), // where the next window's frames begin, should there be too few
            None => time(to).min(window.range.end as f64 / rate),
        };
        Ok(Frames {
            start: time(from).min(end),
            step: grid.step as f64 / rate,
            end,
            scores: scores.map_err(|error| Error::config("frames", format!("{shape:?}"), error.to_string()))?,
        })
    }
}
