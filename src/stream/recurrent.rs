//! A recurrent model on live audio, frame by frame, with its state carried on.

use std::ops::Deref;

use candle_core::Tensor;
use ndarray::Array2;

use crate::audio::Resampler;
use crate::check::check_finite_after;
use crate::error::{Context, Error, Result};
use crate::frontend::{FrontEnd, Reach};
use crate::models::TaggingModel;
use crate::models::rnn::AudioRnnClassifier;
use crate::nn::RnnState;
use crate::output::Frames;

/// Samples that are taken at a time.
const CHUNK: usize = 1 << 16;

/// What a recurrent model says frame by frame of a stream that never ends.
///
/// Whatever the sizes of the blocks, the frames are, bit for bit, the
/// [`framewise_output`](crate::TaggingOutput::framewise_output) of the whole recording as one clip: with
/// [`TimePooling::Last`](crate::models::rnn::TimePooling::Last) what the model would say if the clip ended there. Memory does not grow.
///
/// ```no_run
/// use clipwise::models::rnn::{AudioRnnClassifier, Config};
/// use clipwise::stream::RnnStream;
/// # use clipwise::{Weights, device};
///
/// # fn main() -> clipwise::Result<()> {
/// # let (config, microphone) = (Config::SPEECH_COMMANDS, Vec::<Vec<f32>>::new());
/// let model = AudioRnnClassifier::load(&config, &Weights::open("words.safetensors")?, &device::cpu())?;
/// let mut stream = RnnStream::new(&model, 44_100)?;
/// for block in microphone {
///     let frames = stream.push(&block)?;
///     println!("{:?}", frames.scores);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RnnStream<M> {
    model: M,
    reach: Reach,
    resampler: Resampler,
    /// Samples at the model's rate from `base`, a multiple of the hop, on.
    samples: Vec<f32>,
    base: u64,
    /// Frames given out.
    n_frames: u64,
    state: Option<RnnState>,
    received: u64,
}

impl<M: Deref<Target = AudioRnnClassifier>> RnnStream<M> {
    /// Begins a stream at `sample_rate` Hz.
    ///
    /// # Errors
    /// [`Error::Config`] for a model that cannot tell before the end: one that goes both ways, or whose features depend on the
    /// whole clip (normalised by its own statistics, with a floor below its maximum) or on frames to come (deltas); for a rate
    /// of 0 Hz or one too far from the model's.
    pub fn new(model: M, sample_rate: u32) -> Result<Self> {
        if model.config().bidirectional {
            return Err(Error::config("bidirectional", true, "a stream has no end from which the model could go back"));
        }
        if let Some(rule) = model.features().clip_rule() {
            let reason = "such features depend on more of the clip than a stream has";
            return Err(Error::config(rule.setting, rule.value, reason));
        }
        let reach = model.features().reach();
        let resampler = Resampler::new(sample_rate, model.info().sample_rate)?;
        let samples = Vec::new();
        Ok(Self { model, reach, resampler, samples, base: 0, n_frames: 0, state: None, received: 0 })
    }

    /// Takes the next samples, any number, and returns the frames that can be told; perhaps none.
    ///
    /// # Errors
    /// [`Error::NonFinite`], with the position in the stream, for a NaN or infinite sample: then nothing of `samples` was taken.
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn push(&mut self, samples: &[f32]) -> Result<Frames> {
        check_finite_after(self.received, samples)?;
        let (first, mut scores) = (self.n_frames, Vec::new());
        for chunk in samples.chunks(CHUNK) {
            self.resampler.push(chunk, &mut self.samples)?;
            self.received += chunk.len() as u64;
            // Frames that see no end of the stream.
            let end = self.base + self.samples.len() as u64;
            if self.samples.len() >= self.model.info().min_samples {
                self.run(self.reach.n_complete(end), &mut scores)?;
            }
        }
        self.frames(first, scores, None)
    }

    /// Ends the stream: returns the frames that are left and begins a new one.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn finish(&mut self) -> Result<Frames> {
        let (first, mut scores) = (self.n_frames, Vec::new());
        let frames = self.flush(first, &mut scores);
        self.reset();
        frames
    }

    fn flush(&mut self, first: u64, scores: &mut Vec<f32>) -> Result<Frames> {
        self.resampler.finish(&mut self.samples)?;
        let end = self.base + self.samples.len() as u64;
        if end == 0 {
            return self.frames(first, Vec::new(), None);
        }
        if self.base == 0 && self.samples.len() < self.model.info().min_samples {
            self.samples.resize(self.model.info().min_samples, 0.0); // as a short clip
        }
        let n_samples = usize::try_from(self.base).unwrap_or(usize::MAX).saturating_add(self.samples.len());
        self.run(self.model.features().n_frames(n_samples) as u64, scores)?;
        self.frames(first, std::mem::take(scores), Some(end))
    }

    /// Forgets what was pushed, and begins a new stream at time 0.
    pub fn reset(&mut self) {
        self.resampler.reset();
        self.samples.clear();
        (self.base, self.n_frames, self.state, self.received) = (0, 0, None, 0);
    }

    /// Runs the model up to frame `end` of the stream.
    fn run(&mut self, end: u64, scores: &mut Vec<f32>) -> Result<()> {
        if end <= self.n_frames {
            return Ok(());
        }
        let context = "frames of a stream";
        let features = self.model.features().compute(&self.samples)?; // frame 0 of it is at `base`
        let first = (self.n_frames - self.base / self.reach.hop_length as u64) as usize;
        let count = ((end - self.n_frames) as usize).min(features.nrows().saturating_sub(first));
        let n_features = features.ncols();
        let values: Vec<f32> = features.iter().skip(first * n_features).take(count * n_features).copied().collect();
        let x = Tensor::from_vec(values, (1, count, n_features), self.model.device()).context(context)?;
        let (probabilities, state) = self.model.step(&x, self.state.as_ref())?;
        scores.extend(probabilities.flatten_all().and_then(|p| p.to_vec1::<f32>()).context(context)?);
        self.state = Some(state);
        self.n_frames += count as u64;
        // Frames to come see no sample before these, of which there are enough for the front end.
        let hop = self.reach.hop_length as u64;
        let before = (self.reach.before + self.model.info().min_samples).div_ceil(self.reach.hop_length) as u64;
        let base = (self.n_frames.saturating_sub(before) * hop).max(self.base);
        self.samples.drain(..((base - self.base) as usize).min(self.samples.len()));
        self.base = base;
        Ok(())
    }

    fn frames(&self, first: u64, scores: Vec<f32>, end: Option<u64>) -> Result<Frames> {
        let n_classes = self.model.info().n_classes;
        let n_frames = scores.len() / n_classes;
        let rate = f64::from(self.model.info().sample_rate);
        let time = |frame: u64| (frame * self.reach.hop_length as u64) as f64 / rate;
        let scores = Array2::from_shape_vec((n_frames, n_classes), scores);
        let scores = scores.map_err(|error| Error::config("frames", n_frames, error.to_string()))?;
        let last = time(first + n_frames as u64);
        let end = end.map_or(last, |end| last.min((end as f64 / rate).max(time(first))));
        Ok(Frames { start: time(first), step: self.reach.hop_length as f64 / rate, end, scores })
    }

    /// Seconds of audio that must follow the start of a frame before it can be told, at most.
    pub fn latency(&self) -> f64 {
        let (rate, after) = (f64::from(self.model.info().sample_rate), self.reach.after + self.reach.hop_length);
        after as f64 / rate + self.resampler.lookahead() as f64 / f64::from(self.resampler.input_rate())
    }
}
