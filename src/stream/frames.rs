//! Frame-by-frame tagging of live audio, by models that carry their state from block to block.

use std::ops::Deref;

use candle_core::Tensor;
use ndarray::Array2;

use super::input::StreamInput;
use crate::error::{Context, Error, Result};
use crate::frontend::{FrontEnd, Reach};
use crate::models::TaggingModel;
use crate::models::sequence::{Backbone, SequenceClassifier};
use crate::output::Frames;

/// Runs a recurrent or causal convolutional model over an endless stream, with one output per frame.
///
/// The frames are bit-identical to the [`framewise_output`](crate::TaggingOutput::framewise_output) of the whole
/// recording as one clip, however it is split into blocks. With
/// [`TimePooling::Last`](crate::models::rnn::TimePooling::Last), a frame is the model's output for the clip up to that
/// frame. Memory does not grow with time.
///
/// ```no_run
/// use clipwise::models::rnn::{AudioRnnClassifier, Config};
/// use clipwise::stream::FrameStream;
/// # use clipwise::{Weights, device};
///
/// # fn main() -> clipwise::Result<()> {
/// # let (config, microphone) = (Config::SPEECH_COMMANDS, Vec::<Vec<f32>>::new());
/// let model = AudioRnnClassifier::load(&config, &Weights::open("words.safetensors")?, &device::cpu())?;
/// let mut stream = FrameStream::new(&model, 44_100)?;
/// for block in microphone {
///     let frames = stream.push(&block)?;
///     println!("{:?}", frames.scores);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FrameStream<M, B: Backbone> {
    input: StreamInput,
    recurrence: Recurrence<M, B>,
}

impl<M: Deref<Target = SequenceClassifier<C, B>>, C: Send + Sync, B: Backbone> FrameStream<M, B> {
    /// Begins a stream at `sample_rate` Hz.
    ///
    /// # Errors
    /// [`Error::Config`] if the model depends on later audio: a bidirectional one, or one whose features depend on the
    /// whole clip (normalised by its own statistics, or with a floor below its maximum) or on later frames (deltas).
    /// [`Error::Argument`] if the sample rate is 0 Hz or too far from the model's.
    pub fn new(model: M, sample_rate: u32) -> Result<Self> {
        let input = StreamInput::new(sample_rate, model.info().sample_rate)?;
        Ok(Self { input, recurrence: Recurrence::new(model)? })
    }

    /// Takes the next samples, any number, and returns the frames that are now complete (possibly none).
    ///
    /// # Errors
    /// [`Error::NonFinite`], with the position in the stream, if a sample is NaN or infinite; no samples are taken in
    /// that case. [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn push(&mut self, samples: &[f32]) -> Result<Frames> {
        let (first, mut scores) = (self.recurrence.n_frames, Vec::new());
        self.input.push(samples, |samples| self.recurrence.push(samples, &mut scores))?;
        self.recurrence.frames(first, scores, None)
    }

    /// Ends the stream: returns the remaining frames and begins a new stream.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn finish(&mut self) -> Result<Frames> {
        let (first, mut scores) = (self.recurrence.n_frames, Vec::new());
        let finished = self.input.finish(|samples| self.recurrence.finish(samples, &mut scores));
        let frames = finished.and_then(|end| self.recurrence.frames(first, scores, Some(end)));
        self.reset();
        frames
    }

    /// Discards the samples so far and begins a new stream at time 0.
    pub fn reset(&mut self) {
        self.input.reset();
        self.recurrence.reset();
    }

    /// Maximum latency: seconds of audio from the start of a frame until it is returned.
    pub fn latency(&self) -> f64 {
        let Reach { hop_length, after, .. } = self.recurrence.reach;
        self.input.delay(after + hop_length)
    }
}

/// The model, its state, and the samples that its next frames depend on.
#[derive(Debug)]
struct Recurrence<M, B: Backbone> {
    model: M,
    reach: Reach,
    /// Samples from `base` on, which is a multiple of the hop.
    samples: Vec<f32>,
    base: u64,
    /// Number of frames returned so far.
    n_frames: u64,
    state: Option<B::State>,
}

impl<M: Deref<Target = SequenceClassifier<C, B>>, C: Send + Sync, B: Backbone> Recurrence<M, B> {
    fn new(model: M) -> Result<Self> {
        model.check_causal()?;
        if let Some(rule) = model.features().clip_rule() {
            let reason = "not supported in a stream, since features would depend on the whole clip or on later frames";
            return Err(Error::config(rule.setting, rule.value, reason));
        }
        let reach = model.features().reach();
        Ok(Self { model, reach, samples: Vec::new(), base: 0, n_frames: 0, state: None })
    }

    fn reset(&mut self) {
        self.samples.clear();
        (self.base, self.n_frames, self.state) = (0, 0, None);
    }

    /// Number of samples so far.
    fn end(&self) -> u64 {
        self.base + self.samples.len() as u64
    }

    /// Appends the scores of the frames that do not depend on later samples.
    fn push(&mut self, samples: &[f32], scores: &mut Vec<f32>) -> Result<()> {
        self.samples.extend_from_slice(samples);
        if self.samples.len() < self.model.info().min_samples {
            return Ok(());
        }
        self.run(self.reach.n_complete(self.end()), scores)
    }

    /// Appends the scores of the remaining frames after the last `samples`. Returns the total number of samples.
    fn finish(&mut self, samples: &[f32], scores: &mut Vec<f32>) -> Result<u64> {
        self.samples.extend_from_slice(samples);
        let end = self.end();
        if end == 0 {
            return Ok(0);
        }
        if self.base == 0 && self.samples.len() < self.model.info().min_samples {
            self.samples.resize(self.model.info().min_samples, 0.0); // like a short clip
        }
        let n_samples = usize::try_from(self.end()).unwrap_or(usize::MAX);
        self.run(self.model.features().n_frames(n_samples) as u64, scores)?;
        Ok(end)
    }

    /// Runs the model up to frame `end` of the stream.
    fn run(&mut self, end: u64, scores: &mut Vec<f32>) -> Result<()> {
        if end <= self.n_frames {
            return Ok(());
        }
        let context = "running a stream";
        let features = self.model.features().compute(&self.samples)?; // their frame 0 is at `base`
        let first = (self.n_frames - self.base / self.reach.hop_length as u64) as usize;
        let count = ((end - self.n_frames) as usize).min(features.nrows().saturating_sub(first));
        let n_features = features.ncols();
        let values: Vec<f32> = features.iter().skip(first * n_features).take(count * n_features).copied().collect();
        let x = Tensor::from_vec(values, (1, count, n_features), self.model.device()).context(context)?;
        let (probabilities, state) = self.model.step(&x, self.state.as_ref())?;
        scores.extend(probabilities.flatten_all().and_then(|p| p.to_vec1::<f32>()).context(context)?);
        self.state = Some(state);
        self.n_frames += count as u64;
        // Keep the samples that later frames depend on, and at least the minimum for the front end.
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
        let scores = scores.map_err(|error| Error::argument("frames", n_frames, error.to_string()))?;
        let last = time(first + n_frames as u64);
        let end = end.map_or(last, |end| last.min((end as f64 / rate).max(time(first))));
        Ok(Frames { start: time(first), step: self.reach.hop_length as f64 / rate, end, scores })
    }
}
