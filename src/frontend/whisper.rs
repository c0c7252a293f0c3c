//! Whisper's log-mel spectrogram.
//!
//! Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022 (arXiv 2212.04356). Reference:
//! `log_mel_spectrogram` of openai/whisper, `WhisperFeatureExtractor` of transformers. The clip is padded with zeros to
//! 30 s; then follow the power spectrum (Hann window of 400, hop 160, reflect padding, without the last frame),
//! Slaney's mel filters up to 8 kHz, `x = log10(max(power, 1e-10))`, and `(max(x, max(x) − 8) + 4) / 4`.

use ndarray::{Array2, ArrayViewMut2, s};
use serde::{Deserialize, Serialize};

use super::front_end::{check_frames, check_rows};
use super::{ClipRule, FrontEnd, LogMel, LogMelConfig, MelConfig, Reach, StftConfig};
use crate::check;
use crate::error::{Error, Result};

/// Limit on `max_frames`: 11 minutes.
const MAX_FRAMES: usize = 1 << 16;
/// The floor below the largest value of a clip, in dB.
const RANGE: f32 = 80.0;

/// Settings of [`WhisperMel`]. The sample rate is 16 kHz.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhisperMelConfig {
    /// Number of mel filters; at most 2^24 / `max_frames`.
    pub n_mels: usize,
    /// Number of frames of the longest clip, 2 to 65,536. Default when read from a file: 3,000, which is 30 s.
    #[serde(default = "full_length")]
    pub max_frames: usize,
}

fn full_length() -> usize {
    WhisperMelConfig::MELS_80.max_frames
}

impl WhisperMelConfig {
    /// Whisper tiny to large-v2.
    pub const MELS_80: Self = Self { n_mels: 80, max_frames: 3000 };
    /// Whisper large-v3 and its turbo.
    pub const MELS_128: Self = Self { n_mels: 128, ..Self::MELS_80 };
}

/// A planned front end of Whisper.
///
/// The frames of a clip are exactly those of the original, which pads it with zeros to 30 s; whether the zeros are
/// present does not change them.
///
/// ```
/// use clipwise::frontend::{WhisperMel, WhisperMelConfig};
///
/// let front_end = WhisperMel::new(&WhisperMelConfig::MELS_80)?;
/// let second: Vec<f32> = (0..16_000).map(|i| (i % 50) as f32 / 50.0).collect();
/// assert_eq!(front_end.compute(&second)?.dim(), (100, 80)); // [n_frames, n_mels]
/// assert_eq!(front_end.compute_padded(&second)?.dim(), (3000, 80));
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WhisperMel {
    config: WhisperMelConfig,
    log_mel: LogMel,
}

impl WhisperMel {
    /// Plans the front end.
    ///
    /// # Errors
    /// [`Error::Config`] if `max_frames` or `n_mels` is out of range, and as for [`LogMel::new`].
    pub fn new(config: &WhisperMelConfig) -> Result<Self> {
        if !(2..=MAX_FRAMES).contains(&config.max_frames) {
            return Err(Error::config("max_frames", config.max_frames, format!("expected 2 to {MAX_FRAMES}")));
        }
        check::cells("n_mels", config.n_mels, config.max_frames)?;
        let settings = LogMelConfig {
            stft: StftConfig { n_fft: 400, win_length: 400, ..LogMelConfig::PANNS_16K.stft },
            mel: MelConfig { n_mels: config.n_mels, fmin: 0.0, ..LogMelConfig::PANNS_16K.mel },
            ..LogMelConfig::PANNS_16K
        };
        Ok(Self { config: config.clone(), log_mel: LogMel::new(&settings)? })
    }

    /// The settings.
    pub fn config(&self) -> &WhisperMelConfig {
        &self.config
    }

    /// The sample rate: 16,000 Hz.
    pub fn sample_rate(&self) -> u32 {
        self.log_mel.config().sample_rate
    }

    /// The length of the longest accepted clip, in samples.
    pub fn max_samples(&self) -> usize {
        self.config.max_frames * self.hop_length()
    }

    /// The number of frames of a clip: `⌈n_samples / 160⌉`.
    pub fn n_frames(&self, n_samples: usize) -> usize {
        n_samples.div_ceil(self.hop_length())
    }

    /// Computes the features `[n_frames, n_mels]` of a clip of mono samples at 16 kHz; values are about -1.0..=1.5.
    ///
    /// # Errors
    /// [`Error::TooShort`] if there are no samples; [`Error::NonFinite`] if a sample is NaN or infinite;
    /// [`Error::Argument`] if the clip is longer than [`max_samples`](Self::max_samples).
    pub fn compute(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.finish(self.frames(samples)?, samples.len())
    }

    /// Computes the features of a clip padded with zeros to the full length, as in the original:
    /// `[max_frames, n_mels]`.
    ///
    /// # Errors
    /// As [`compute`](Self::compute).
    pub fn compute_padded(&self, samples: &[f32]) -> Result<Array2<f32>> {
        let decibels = self.frames(samples)?;
        // Silence has the lowest possible value.
        let silence = 10.0 * self.log_mel.config().amin.log10();
        let mut features = Array2::from_elem((self.config.max_frames, self.config.n_mels), silence);
        features.slice_mut(s![..decibels.nrows(), ..]).assign(&decibels);
        normalize(features.view_mut(), floor(&decibels));
        Ok(features)
    }

    /// The number of frames that include a sample of the clip. Frame `t` covers the samples from `160 t - 200` to
    /// `160 t + 200`.
    fn n_touched(&self, n_samples: usize) -> usize {
        let before_end = n_samples.saturating_add(self.log_mel.config().stft.n_fft / 2).saturating_sub(1);
        (before_end / self.hop_length() + 1).min(self.config.max_frames)
    }

    fn hop_length(&self) -> usize {
        self.log_mel.config().stft.hop_length
    }
}

impl FrontEnd for WhisperMel {
    fn sample_rate(&self) -> u32 {
        self.sample_rate()
    }

    fn hop_length(&self) -> usize {
        self.hop_length()
    }

    fn n_features(&self) -> usize {
        self.config.n_mels
    }

    fn n_frames(&self, n_samples: usize) -> usize {
        self.n_frames(n_samples)
    }

    fn min_samples(&self) -> usize {
        1
    }

    fn reach(&self) -> Reach {
        self.log_mel.reach()
    }

    fn clip_rule(&self) -> Option<ClipRule> {
        Some(ClipRule::new("top_db", RANGE.to_string()))
    }

    /// All frames that include a sample of the clip, in dB.
    fn frames_dim(&self, n_samples: usize) -> (usize, usize) {
        (self.n_touched(n_samples), self.config.n_mels)
    }

    fn frames_into(&self, samples: &[f32], first: usize, out: &mut [f32]) -> Result<()> {
        let (longest, n_samples) = (self.max_samples(), samples.len());
        if n_samples > longest {
            let seconds = longest as f64 / f64::from(self.sample_rate());
            let reason = format!("expected at most {longest} samples ({seconds} s): cut the recording into pieces");
            return Err(Error::argument("n_samples", n_samples, reason));
        }
        check_rows(first, out, self.frames_dim(n_samples))?;
        let half = self.log_mel.config().stft.n_fft / 2;
        let mut padded = samples.to_vec();
        padded.resize(((self.n_touched(n_samples) - 1) * self.hop_length() + half).min(longest), 0.0);
        self.log_mel.frames_into(&padded, first, out)
    }

    fn finish(&self, frames: Array2<f32>, n_samples: usize) -> Result<Array2<f32>> {
        check_frames(&frames, self.frames_dim(n_samples))?;
        let own = self.n_frames(n_samples).min(frames.nrows());
        let mut features = frames.slice(s![..own, ..]).to_owned();
        normalize(features.view_mut(), floor(&frames));
        Ok(features)
    }
}

fn floor(decibels: &Array2<f32>) -> f32 {
    decibels.iter().copied().fold(f32::NEG_INFINITY, f32::max) - RANGE
}

/// Normalises decibels, which are ten times the logarithm of the formula.
fn normalize(mut decibels: ArrayViewMut2<f32>, floor: f32) {
    decibels.iter_mut().for_each(|x| *x = x.max(floor) / 40.0 + 1.0);
}
