//! What all front ends share, and what overlapping windows and streams need to know of them.

use std::fmt::Debug;

use ndarray::Array2;

use super::stft::array;
use super::{Fbank, FbankConfig, LogMel};
use crate::error::{Error, Result};

/// A planned front end: from mono samples to `[n_frames, n_features]`.
///
/// It works in two steps. [`frames`](Self::frames) looks at the samples around each frame, so that clips which overlap can
/// share frames; [`finish`](Self::finish) does the rest, such as a floor below the loudest value of the clip.
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
pub trait FrontEnd: Debug + Send + Sync {
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

    /// The first step. The rows may be more than the frames of the result, and the columns others than its features.
    ///
    /// # Errors
    /// As [`compute`](Self::compute).
    fn frames(&self, samples: &[f32]) -> Result<Array2<f32>>;

    /// The second step, for a clip of `n_samples`: from what [`frames`](Self::frames) gives for it to its features.
    ///
    /// # Errors
    /// [`Error::Config`] for an array of another shape than that of such a clip.
    fn finish(&self, frames: Array2<f32>, n_samples: usize) -> Result<Array2<f32>>;

    /// The features of mono samples at [`sample_rate`](Self::sample_rate): `[n_frames, n_features]`.
    ///
    /// # Errors
    /// [`Error::TooShort`] below [`min_samples`](Self::min_samples), [`Error::NonFinite`], [`Error::Config`] for a result
    /// that does not fit into memory.
    fn compute(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.finish(self.frames(samples)?, samples.len())
    }
}

/// What a frame sees: frame `t` no sample before `t * hop_length - before`, and none from `t * hop_length + after` on. It
/// depends on where the clip begins or ends only if that is within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Samples from a frame to the next.
    pub hop_length: usize,
    /// Samples before the frame's place.
    pub before: usize,
    /// Samples from the frame's place on.
    pub after: usize,
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
        false => Err(Error::config("frames", format!("{:?}", frames.dim()), format!("expected {expected:?}"))),
    }
}

impl FrontEnd for LogMel {
    fn sample_rate(&self) -> u32 {
        self.config().sample_rate
    }

    fn hop_length(&self) -> usize {
        self.config().hop_length
    }

    fn n_features(&self) -> usize {
        self.config().n_mels
    }

    fn n_frames(&self, n_samples: usize) -> usize {
        self.n_frames(n_samples)
    }

    fn min_samples(&self) -> usize {
        self.min_samples()
    }

    fn reach(&self) -> Reach {
        let before = self.margin();
        Reach { hop_length: self.config().hop_length, before, after: self.config().n_fft - before }
    }

    fn clip_rule(&self) -> Option<ClipRule> {
        self.config().top_db.map(|top_db| ClipRule::new("top_db", top_db.to_string()))
    }

    fn frames(&self, samples: &[f32]) -> Result<Array2<f32>> {
        let n_frames = self.stft().framing().check(samples)?;
        array(n_frames, self.config().n_mels, |out| self.frames_from(0, samples, out))
    }

    fn finish(&self, mut frames: Array2<f32>, n_samples: usize) -> Result<Array2<f32>> {
        check_frames(&frames, (self.n_frames(n_samples), self.config().n_mels))?;
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
        let FbankConfig { hop_length, win_length, n_fft, snip_edges, .. } = *self.config();
        // A frame lies around its place or after it.
        let before = if snip_edges { 0 } else { win_length };
        Reach { hop_length, before, after: win_length.max(n_fft) + before }
    }

    fn clip_rule(&self) -> Option<ClipRule> {
        None
    }

    fn frames(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.compute(samples)
    }

    fn finish(&self, frames: Array2<f32>, n_samples: usize) -> Result<Array2<f32>> {
        check_frames(&frames, (self.n_frames(n_samples), self.n_features()))?;
        Ok(frames)
    }
}
