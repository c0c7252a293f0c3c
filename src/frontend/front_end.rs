//! The trait of all front ends, with what overlapping windows and streams need to know of them.

use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;

use ndarray::Array2;

use super::framing::Framing;
use super::stft::array;
use super::{Fbank, FbankConfig, LogMel};
use crate::check::check_finite;
use crate::error::{Error, Result};

/// A planned front end: from mono samples to `[n_frames, n_features]`.
///
/// It works in two steps. [`frames`](Self::frames) looks at the samples around each frame, so that clips which overlap can
/// share frames; [`finish`](Self::finish) does the rest, such as a floor below the loudest value of the clip.
///
/// A `&dyn FrontEnd` upcasts to [`&dyn Any`](Any), which tells whether it is a [`LogMel`], for example.
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
    /// In Hz.
    fn sample_rate(&self) -> u32;

    /// Samples from a frame of [`compute`](Self::compute) to the next.
    fn hop_length(&self) -> usize;

    /// Values of a frame of [`compute`](Self::compute).
    fn n_features(&self) -> usize;

    /// Frames of a clip; 0 where it is too short for one.
    fn n_frames(&self, n_samples: usize) -> usize;

    /// The shortest clip that is accepted, in samples.
    fn min_samples(&self) -> usize;

    /// Which samples a frame of [`frames`](Self::frames) sees.
    fn reach(&self) -> Reach;

    /// The setting by which features depend on more of the clip than the samples that [`reach`](Self::reach) names; `None`
    /// where [`finish`](Self::finish) treats each frame by itself.
    fn clip_rule(&self) -> Option<ClipRule>;

    /// Rows and columns of [`frames`](Self::frames) for a clip that is long enough. There may be more rows than frames in the
    /// result, and other columns than its features.
    fn frames_dim(&self, n_samples: usize) -> (usize, usize);

    /// Writes rows of [`frames`](Self::frames) for a clip of finite samples to `out`, as many as it holds, beginning with row
    /// `first`.
    ///
    /// # Errors
    /// [`Error::Argument`] if `out` does not hold whole rows, or more than the clip has.
    fn frames_into(&self, samples: &[f32], first: usize, out: &mut [f32]) -> Result<()>;

    /// The first step: an array with the shape of [`frames_dim`](Self::frames_dim).
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

    /// The second step, for a clip of `n_samples`: from what [`frames`](Self::frames) gives for it to its features.
    ///
    /// # Errors
    /// [`Error::Argument`] for an array of another shape than that of such a clip.
    fn finish(&self, frames: Array2<f32>, n_samples: usize) -> Result<Array2<f32>>;

    /// The features of mono samples at [`sample_rate`](Self::sample_rate): `[n_frames, n_features]`.
    ///
    /// # Errors
    /// [`Error::TooShort`] below [`min_samples`](Self::min_samples), [`Error::NonFinite`], [`Error::Argument`] for a result
    /// that does not fit into memory.
    fn compute(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.finish(self.frames(samples)?, samples.len())
    }
}

/// The samples that a frame sees: frame `t` those from `t * hop_length - before` up to `t * hop_length + after`, exclusive. Where
/// the clip begins or ends matters only to frames for which that lies within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Samples from a frame to the next.
    pub hop_length: usize,
    /// Samples before `t * hop_length`.
    pub before: usize,
    /// Samples from `t * hop_length` on.
    pub after: usize,
}

impl Reach {
    /// How many frames see nothing beyond the first `n_samples` samples.
    pub(crate) fn n_complete(&self, n_samples: u64) -> u64 {
        n_samples.checked_sub(self.after as u64).map_or(0, |last| last / self.hop_length as u64 + 1)
    }

    /// Of the `n_frames` frames of a clip, those that see neither of its ends.
    pub(crate) fn inside(&self, n_samples: usize, n_frames: usize) -> Range<usize> {
        let start = self.before.div_ceil(self.hop_length).min(n_frames);
        let end = usize::try_from(self.n_complete(n_samples as u64)).unwrap_or(usize::MAX);
        start..end.min(n_frames).max(start)
    }
}

/// A setting that makes each frame depend on the whole clip, or on frames beside it.
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

/// Refuses frames of another shape than a clip has.
pub(super) fn check_frames(frames: &Array2<f32>, expected: (usize, usize)) -> Result<()> {
    match frames.dim() == expected {
        true => Ok(()),
        false => Err(Error::argument("frames", format!("{:?}", frames.dim()), format!("expected {expected:?}"))),
    }
}

/// Refuses rows that a clip does not have.
pub(super) fn check_rows(first: usize, out: &[f32], (n_rows, n_columns): (usize, usize)) -> Result<()> {
    let end = first.saturating_add(out.len() / n_columns);
    if out.len().is_multiple_of(n_columns) && end <= n_rows {
        return Ok(());
    }
    let reason = format!("expected whole rows of {n_columns} values, from row {first} up to {n_rows}");
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
