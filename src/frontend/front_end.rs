//! The trait of front ends, and what overlapping windows and streams need to know about them.

use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;

use ndarray::Array2;

use super::framing::Framing;
use super::stft::array;
use super::{Fbank, FbankConfig, LogMel};
use crate::check::check_finite;
use crate::error::{Error, Result};

/// A planned front end: computes features `[n_frames, n_features]` from mono samples.
///
/// It works in two steps. [`frames`](Self::frames) computes each frame from the samples around it, so that overlapping
/// clips can share frames; [`finish`](Self::finish) does what depends on the whole clip, such as a floor below its
/// maximum.
///
/// A `&dyn FrontEnd` upcasts to [`&dyn Any`](Any), which can be downcast to, for example, [`LogMel`].
///
/// ```
/// use clipwise::frontend::{Fbank, FbankConfig, FrontEnd, LogMel, LogMelConfig};
///
/// let front_ends: [Box<dyn FrontEnd>; 2] =
///     [Box::new(LogMel::new(&LogMelConfig::SPEECH_16K)?), Box::new(Fbank::new(&FbankConfig::KALDI_16K)?)];
/// for front_end in &front_ends {
///     let n_samples = front_end.sample_rate() as usize; // a second
///     let features = front_end.compute(&vec![0.0; n_samples])?;
///     assert_eq!(features.dim(), (front_end.n_frames(n_samples), front_end.n_features()));
/// }
/// # Ok::<(), clipwise::Error>(())
/// ```
pub trait FrontEnd: Any + Debug + Send + Sync {
    /// The sample rate, in Hz.
    fn sample_rate(&self) -> u32;

    /// The hop length: samples from one frame of [`compute`](Self::compute) to the next.
    fn hop_length(&self) -> usize;

    /// The number of values per frame of [`compute`](Self::compute).
    fn n_features(&self) -> usize;

    /// The number of frames of a clip; 0 if it is too short.
    fn n_frames(&self, n_samples: usize) -> usize;

    /// The length of the shortest accepted clip, in samples.
    fn min_samples(&self) -> usize;

    /// The samples that a frame of [`frames`](Self::frames) depends on.
    fn reach(&self) -> Reach;

    /// The setting that makes features depend on more of the clip than [`reach`](Self::reach) says; `None` if
    /// [`finish`](Self::finish) treats each frame separately.
    fn clip_rule(&self) -> Option<ClipRule>;

    /// The shape of [`frames`](Self::frames) for a clip of at least the minimum length. It may have more rows than the
    /// result has frames, and another number of columns than the result has features.
    fn frames_dim(&self, n_samples: usize) -> (usize, usize);

    /// Computes rows of [`frames`](Self::frames) for a clip of finite samples, beginning with row `first`, and fills
    /// `out` with them.
    ///
    /// # Errors
    /// [`Error::Argument`] if the length of `out` is not a whole number of rows, or exceeds the rows of the clip.
    fn frames_into(&self, samples: &[f32], first: usize, out: &mut [f32]) -> Result<()>;

    /// The first step: computes an array of the shape [`frames_dim`](Self::frames_dim).
    ///
    /// # Errors
    /// As [`compute`](Self::compute).
    fn frames(&self, samples: &[f32]) -> Result<Array2<f32>> {
        if samples.len() < self.min_samples() {
            return Err(Error::TooShort { needed: self.min_samples(), got: samples.len() });
        }
        check_finite(samples)?;
        let (n_rows, n_columns) = self.frames_dim(samples.len());
        let mut written = Ok(());
        let frames = array(n_rows, n_columns, |out| written = self.frames_into(samples, 0, out))?;
        written.map(|()| frames)
    }

    /// The second step: computes the features of a clip of `n_samples` from the result of [`frames`](Self::frames).
    ///
    /// # Errors
    /// [`Error::Argument`] if the array does not have the shape for such a clip.
    fn finish(&self, frames: Array2<f32>, n_samples: usize) -> Result<Array2<f32>>;

    /// Computes the features `[n_frames, n_features]` of mono samples at [`sample_rate`](Self::sample_rate).
    ///
    /// # Errors
    /// [`Error::TooShort`] for clips shorter than [`min_samples`](Self::min_samples); [`Error::NonFinite`] if a sample
    /// is NaN or infinite; [`Error::Argument`] if the result does not fit into memory.
    fn compute(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.finish(self.frames(samples)?, samples.len())
    }
}

/// The samples that a frame depends on: for frame `t`, those from `t * hop_length - before` to
/// `t * hop_length + after`, exclusive. The ends of the clip matter only to frames whose range includes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The hop length: samples from one frame to the next.
    pub hop_length: usize,
    /// Samples before `t * hop_length`.
    pub before: usize,
    /// Samples from `t * hop_length` on, including that one.
    pub after: usize,
}

impl Reach {
    /// The number of frames that depend on the first `n_samples` samples only.
    pub(crate) fn n_complete(&self, n_samples: u64) -> u64 {
        n_samples.checked_sub(self.after as u64).map_or(0, |last| last / self.hop_length as u64 + 1)
    }

    /// Those of the `n_frames` frames of a clip whose range includes neither end of the clip.
    pub(crate) fn inside(&self, n_samples: usize, n_frames: usize) -> Range<usize> {
        let start = self.before.div_ceil(self.hop_length).min(n_frames);
        let end = usize::try_from(self.n_complete(n_samples as u64)).unwrap_or(usize::MAX);
        start..end.min(n_frames).max(start)
    }
}

/// A setting that makes each frame depend on the whole clip or on neighbouring frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipRule {
    /// The name of the setting.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
}

impl ClipRule {
    pub(super) fn new(setting: &'static str, value: String) -> Self {
        Self { setting, value }
    }
}

/// Rejects frames whose shape is not that of a clip's frames.
pub(super) fn check_frames(frames: &Array2<f32>, expected: (usize, usize)) -> Result<()> {
    match frames.dim() == expected {
        true => Ok(()),
        false => Err(Error::argument("frames", format!("{:?}", frames.dim()), format!("expected {expected:?}"))),
    }
}

/// Rejects rows that the clip does not have.
pub(super) fn check_rows(first: usize, out: &[f32], (n_rows, n_columns): (usize, usize)) -> Result<()> {
    let end = first.saturating_add(out.len() / n_columns);
    if out.len().is_multiple_of(n_columns) && end <= n_rows {
        return Ok(());
    }
    let reason = format!("expected whole rows of {n_columns} values, from row {first} to at most row {n_rows}");
    Err(Error::argument("out.len()", out.len(), reason))
}

impl FrontEnd for LogMel {
    fn sample_rate(&self) -> u32 {
        self.config().sample_rate
    }

    fn hop_length(&self) -> usize {
        self.config().stft.hop_length
    }

    fn n_features(&self) -> usize {
        self.config().mel.n_mels
    }

    fn n_frames(&self, n_samples: usize) -> usize {
        self.n_frames(n_samples)
    }

    fn min_samples(&self) -> usize {
        self.min_samples()
    }

    fn reach(&self) -> Reach {
        let framing @ Framing { n_fft, hop_length, margin, .. } = *self.stft().framing();
        Reach { hop_length, before: margin, after: n_fft - margin + framing.lost() }
    }

    fn clip_rule(&self) -> Option<ClipRule> {
        self.config().top_db.map(|top_db| ClipRule::new("top_db", top_db.to_string()))
    }

    fn frames_dim(&self, n_samples: usize) -> (usize, usize) {
        (self.n_frames(n_samples), self.n_features())
    }

    fn frames_into(&self, samples: &[f32], first: usize, out: &mut [f32]) -> Result<()> {
        check_rows(first, out, self.frames_dim(samples.len()))?;
        self.rows(samples, first, out);
        Ok(())
    }

    fn finish(&self, mut frames: Array2<f32>, n_samples: usize) -> Result<Array2<f32>> {
        check_frames(&frames, self.frames_dim(n_samples))?;
        if let Some(floor) = self.floor(frames.iter()) {
            frames.iter_mut().for_each(|value| *value = value.max(floor));
        }
        Ok(frames)
    }

    fn compute(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.compute(samples)
    }
}

impl FrontEnd for Fbank {
    fn sample_rate(&self) -> u32 {
        self.config().sample_rate
    }

    fn hop_length(&self) -> usize {
        self.config().hop_length
    }

    fn n_features(&self) -> usize {
        self.n_features()
    }

    fn n_frames(&self, n_samples: usize) -> usize {
        self.n_frames(n_samples)
    }

    fn min_samples(&self) -> usize {
        self.min_samples()
    }

    fn reach(&self) -> Reach {
        let FbankConfig { hop_length, win_length, .. } = *self.config();
        let before = self.before();
        let after = (win_length as isize - before) as usize; // above 0: `before` is at most half a window
        Reach { hop_length, before: before.max(0) as usize, after }
    }

    fn clip_rule(&self) -> Option<ClipRule> {
        None
    }

    fn frames_dim(&self, n_samples: usize) -> (usize, usize) {
        (self.n_frames(n_samples), self.n_features())
    }

    fn frames_into(&self, samples: &[f32], first: usize, out: &mut [f32]) -> Result<()> {
        check_rows(first, out, self.frames_dim(samples.len()))?;
        self.rows(samples, first, out);
        Ok(())
    }

    fn finish(&self, frames: Array2<f32>, n_samples: usize) -> Result<Array2<f32>> {
        check_frames(&frames, self.frames_dim(n_samples))?;
        Ok(frames)
    }
}
