//! Input features of SeamlessM4T and W2V-BERT 2.0: Kaldi's fbank, normalised per clip and column, stacked in pairs of
//! frames.
//!
//! Reference: `SeamlessM4TFeatureExtractor` of transformers.

use ndarray::{Array2, Array3, Axis, s};
use serde::{Deserialize, Serialize};

use super::stft::array;
use super::{ClipRule, Fbank, FbankConfig, FrontEnd, Normalize, Reach};
use crate::error::{Error, Result};

/// Settings of [`SeamlessM4t`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeamlessM4tConfig {
    /// The spectrogram.
    pub fbank: FbankConfig,
    /// Normalisation of each clip. `None` disables it (`do_normalize_per_mel_bins=False`).
    pub normalize: Option<Normalize>,
    /// Number of frames that are stacked to one step, 1 to 1024.
    pub stride: usize,
    /// The value of the padding after the last frame of a clip, which is added after normalisation. Finite.
    pub padding_value: f32,
}

impl SeamlessM4tConfig {
    /// The published checkpoints: 16 kHz, 80 mels, two frames per step (160 values, 20 ms).
    pub const SEAMLESS_M4T_16K: Self = Self {
        fbank: FbankConfig::SEAMLESS_M4T_16K,
        normalize: Some(Normalize::SEAMLESS_M4T),
        stride: 2,
        padding_value: 0.0,
    };
}

/// The features of a batch of clips.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SeamlessM4tBatch {
    /// `[batch, n_steps, stride * n_features]`; `n_steps` is that of the longest clip.
    pub input_features: Array3<f32>,
    /// `[batch, n_steps]`: 1 for steps whose frames all belong to the clip, else 0. The last step of an odd number of
    /// frames is therefore masked, although half of it is audio, as in transformers.
    pub attention_mask: Array2<u8>,
}

impl SeamlessM4tBatch {
    /// The number of unmasked steps of each clip.
    pub fn lengths(&self) -> Vec<usize> {
        self.attention_mask.rows().into_iter().map(|row| row.iter().filter(|&&on| on == 1).count()).collect()
    }
}

/// A planned front end of SeamlessM4T and W2V-BERT 2.0.
///
/// ```
/// use clipwise::frontend::{SeamlessM4t, SeamlessM4tConfig};
///
/// let front_end = SeamlessM4t::new(&SeamlessM4tConfig::SEAMLESS_M4T_16K)?;
/// let second: Vec<f32> = (0..16_000).map(|i| (i % 50) as f32 / 50.0).collect();
/// assert_eq!(front_end.compute(&second)?.dim(), (49, 160)); // [n_steps, 2 * n_mels]
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SeamlessM4t {
    config: SeamlessM4tConfig,
    fbank: Fbank,
}

impl SeamlessM4t {
    /// Plans the front end.
    ///
    /// # Errors
    /// [`Error::Config`] as for [`Fbank::new`], if `stride` is not between 1 and 1024, or if `padding_value` is not
    /// finite.
    pub fn new(config: &SeamlessM4tConfig) -> Result<Self> {
        if config.stride == 0 || config.stride > 1024 {
            return Err(Error::config("stride", config.stride, "expected 1 to 1024"));
        }
        if !config.padding_value.is_finite() {
            return Err(Error::config("padding_value", config.padding_value, "expected a finite number"));
        }
        Ok(Self { config: config.clone(), fbank: Fbank::new(&config.fbank)? })
    }

    /// The settings.
    pub fn config(&self) -> &SeamlessM4tConfig {
        &self.config
    }

    /// The number of values per step.
    pub fn n_features(&self) -> usize {
        self.config.stride * self.fbank.n_features()
    }

    /// The number of steps of a clip without padding, which are the unmasked ones.
    pub fn length(&self, n_samples: usize) -> usize {
        self.fbank.n_frames(n_samples) / self.config.stride
    }

    /// The number of steps of a clip. The last one is padded if the number of frames is not a multiple of the stride.
    pub fn n_steps(&self, n_samples: usize) -> usize {
        self.fbank.n_frames(n_samples).div_ceil(self.config.stride)
    }

    /// The length of the shortest accepted clip in samples: one with [`length`](Self::length) 1.
    pub fn min_samples(&self) -> usize {
        let more = (self.config.stride - 1).saturating_mul(self.config.fbank.hop_length);
        self.fbank.min_samples().saturating_add(more)
    }

    /// Computes the features `[n_steps, stride * n_features]` of one clip: mono samples in -1.0..=1.0 at the configured
    /// rate.
    ///
    /// # Errors
    /// [`Error::TooShort`] for clips shorter than [`min_samples`](Self::min_samples); [`Error::NonFinite`] if a sample
    /// is NaN or infinite; [`Error::Argument`] as for [`Normalize::apply`], or if the result does not fit into memory.
    pub fn compute(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.finish(self.frames(samples)?, samples.len())
    }

    /// Computes the features of several clips, each as in [`compute`](Self::compute), padded to the longest.
    ///
    /// # Errors
    /// As [`compute`](Self::compute), and [`Error::Argument`] if there are no clips.
    pub fn compute_batch(&self, clips: &[&[f32]]) -> Result<SeamlessM4tBatch> {
        let Some(longest) = clips.iter().map(|clip| clip.len()).max() else {
            return Err(Error::argument("clips.len()", 0, "expected at least one clip"));
        };
        let rows: Vec<Array2<f32>> = clips.iter().map(|clip| self.compute(clip)).collect::<Result<_>>()?;
        let n_steps = self.n_steps(longest);
        let cells = array(clips.len() * n_steps, self.n_features(), |out| out.fill(self.config.padding_value))?;
        let mut input_features = cells
            .into_shape_with_order((clips.len(), n_steps, self.n_features()))
            .map_err(|e| Error::argument("n_frames", n_steps, e.to_string()))?;
        let mut attention_mask = Array2::zeros((clips.len(), n_steps));
        for (index, row) in rows.iter().enumerate() {
            input_features.index_axis_mut(Axis(0), index).slice_mut(s![..row.nrows(), ..]).assign(row);
            attention_mask.slice_mut(s![index, ..self.length(clips[index].len())]).fill(1);
        }
        Ok(SeamlessM4tBatch { input_features, attention_mask })
    }
}

impl FrontEnd for SeamlessM4t {
    fn sample_rate(&self) -> u32 {
        self.fbank.sample_rate()
    }

    fn hop_length(&self) -> usize {
        self.config.stride * self.fbank.hop_length()
    }

    fn n_features(&self) -> usize {
        self.n_features()
    }

    fn n_frames(&self, n_samples: usize) -> usize {
        self.n_steps(n_samples)
    }

    fn min_samples(&self) -> usize {
        self.min_samples()
    }

    fn reach(&self) -> Reach {
        self.fbank.reach()
    }

    fn clip_rule(&self) -> Option<ClipRule> {
        let joined = || (self.config.stride > 1).then(|| ClipRule::new("stride", self.config.stride.to_string()));
        self.config.normalize.as_ref().and_then(Normalize::clip_rule).or_else(joined)
    }

    fn frames_dim(&self, n_samples: usize) -> (usize, usize) {
        self.fbank.frames_dim(n_samples)
    }

    fn frames_into(&self, samples: &[f32], first: usize, out: &mut [f32]) -> Result<()> {
        self.fbank.frames_into(samples, first, out)
    }

    fn finish(&self, frames: Array2<f32>, n_samples: usize) -> Result<Array2<f32>> {
        let mut features = self.fbank.finish(frames, n_samples)?;
        if let Some(normalize) = &self.config.normalize {
            normalize.apply(&mut features)?;
        }
        array(self.n_steps(n_samples), self.n_features(), |out: &mut [f32]| {
            let (frames, rest) = out.split_at_mut(features.len());
            frames.iter_mut().zip(&features).for_each(|(out, &x)| *out = x);
            rest.fill(self.config.padding_value);
        })
    }
}
