//! Features of sequence models: a spectrum, with optional deltas and normalisation.

use std::sync::Arc;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::{
    ClipRule, DeltaConfig, DeltaEdge, Fbank, FbankConfig, FrontEnd, LogMel, LogMelConfig, MelConfig, Mfcc, MfccConfig,
    Normalize, Reach, with_deltas,
};
use crate::check;
use crate::error::{Error, Result};

/// The values of a frame, before deltas and normalisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FeatureKind {
    /// A log-mel spectrum.
    LogMel(LogMelConfig),
    /// Kaldi's log-mel spectrum.
    Fbank(FbankConfig),
    /// Cepstral coefficients.
    Mfcc(MfccConfig),
}

impl FeatureKind {
    fn plan(&self) -> Result<Arc<dyn FrontEnd>> {
        Ok(match self {
            Self::LogMel(config) => Arc::new(LogMel::new(config)?),
            Self::Fbank(config) => Arc::new(Fbank::new(config)?),
            Self::Mfcc(config) => Arc::new(Mfcc::new(config)?),
        })
    }

    /// The sample rate in Hz, and the hop length in samples.
    fn timing(&self) -> (u32, usize) {
        match self {
            Self::LogMel(config) => (config.sample_rate, config.stft.hop_length),
            Self::Fbank(config) => (config.sample_rate, config.hop_length),
            Self::Mfcc(config) => config.mel.timing(),
        }
    }
}

/// Deltas that are appended to the features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deltas {
    /// The highest order. 2 turns 13 values into 39.
    pub orders: usize,
    /// Settings of the deltas.
    pub config: DeltaConfig,
}

/// Settings of [`Features`]: a spectrum, then deltas, then normalisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesConfig {
    /// The values of a frame.
    pub spectrum: FeatureKind,
    /// Deltas, appended to the values. Default when read from a file: none.
    #[serde(default)]
    pub deltas: Option<Deltas>,
    /// Normalisation, applied after the deltas. Default when read from a file: none.
    #[serde(default)]
    pub normalize: Option<Normalize>,
}

impl FeaturesConfig {
    /// 64 mels in dB at 16 kHz (window 25 ms, hop 10 ms), normalised per clip to mean 0 and variance 1.
    pub const LOG_MEL_64: Self = Self {
        spectrum: FeatureKind::LogMel(LogMelConfig {
            mel: MelConfig { n_mels: 64, ..LogMelConfig::SPEECH_16K.mel },
            ..LogMelConfig::SPEECH_16K
        }),
        deltas: None,
        normalize: Some(Normalize::CMVN),
    };
    /// 13 MFCC with deltas and delta-deltas at 16 kHz (window 25 ms, hop 10 ms), normalised per clip to mean 0 and
    /// variance 1.
    pub const MFCC_39: Self = Self {
        spectrum: FeatureKind::Mfcc(MfccConfig::SPEECH_16K),
        deltas: Some(Deltas { orders: 2, config: DeltaConfig::TORCHAUDIO }),
        normalize: Some(Normalize::CMVN),
    };
    /// librosa's 12 MFCC at 16 kHz.
    pub const SPEECH_COMMANDS: Self =
        Self { spectrum: FeatureKind::Mfcc(MfccConfig::SPEECH_COMMANDS_16K), deltas: None, normalize: None };

    /// The sample rate, in Hz.
    pub fn sample_rate(&self) -> u32 {
        self.spectrum.timing().0
    }

    /// The hop length: samples from one frame to the next.
    pub fn hop_length(&self) -> usize {
        self.spectrum.timing().1
    }

    /// The number of values per frame.
    pub fn n_features(&self) -> usize {
        let values = match &self.spectrum {
            FeatureKind::LogMel(config) => config.mel.n_mels,
            FeatureKind::Fbank(config) => config.n_mels.saturating_add(config.use_energy.into()),
            FeatureKind::Mfcc(config) => config.n_mfcc,
        };
        values.saturating_mul(self.deltas.as_ref().map_or(0, |deltas| deltas.orders.min(8)) + 1)
    }
}

/// A planned front end: a spectrum with optional deltas and normalisation.
#[derive(Debug, Clone)]
pub struct Features {
    config: FeaturesConfig,
    spectrum: Arc<dyn FrontEnd>,
    /// The length of the shortest clip with enough frames for the deltas.
    min_samples: usize,
}

impl Features {
    /// Plans the front end.
    ///
    /// # Errors
    /// [`Error::Config`] if a setting is invalid.
    pub fn new(config: &FeaturesConfig) -> Result<Self> {
        let mut features = Self { config: config.clone(), spectrum: config.spectrum.plan()?, min_samples: 0 };
        let needed = match &config.deltas {
            Some(Deltas { config, .. }) if config.edge == DeltaEdge::Interp => config.width,
            _ => 1,
        };
        features.min_samples = features.samples_for(needed)?;
        check::min_samples("width", needed, features.min_samples)?;
        // Deltas and normalisation check their settings when used, so run them once, on silence.
        let n_features = features.compute(&vec![0.0; features.min_samples])?.ncols();
        if n_features != config.n_features() {
            return Err(Error::config("n_features", n_features, format!("expected {}", config.n_features())));
        }
        Ok(features)
    }

    /// The settings.
    pub fn config(&self) -> &FeaturesConfig {
        &self.config
    }

    /// The number of frames of a clip; 0 if it is too short.
    pub fn n_frames(&self, n_samples: usize) -> usize {
        self.spectrum.n_frames(n_samples)
    }

    /// The length of the shortest accepted clip, in samples.
    pub fn min_samples(&self) -> usize {
        self.min_samples
    }

    /// Computes the features `[n_frames, n_features]` of mono samples at the configured rate.
    ///
    /// # Errors
    /// [`Error::TooShort`] for clips shorter than [`min_samples`](Self::min_samples); [`Error::NonFinite`] if a sample
    /// is NaN or infinite; [`Error::Argument`] if the result does not fit into memory.
    pub fn compute(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.finish(self.frames(samples)?, samples.len())
    }

    /// The length of the shortest clip with at least `needed` frames.
    fn samples_for(&self, needed: usize) -> Result<usize> {
        let mut enough = self.spectrum.min_samples();
        let mut too_few = enough.saturating_sub(1);
        while self.n_frames(enough) < needed {
            too_few = enough;
            enough = enough.checked_mul(2).ok_or_else(|| Error::config("width", needed, "expected fewer frames"))?;
        }
        while enough - too_few > 1 {
            let middle = too_few + (enough - too_few) / 2;
            *(if self.n_frames(middle) < needed { &mut too_few } else { &mut enough }) = middle;
        }
        Ok(enough)
    }
}

impl FrontEnd for Features {
    fn sample_rate(&self) -> u32 {
        self.spectrum.sample_rate()
    }

    fn hop_length(&self) -> usize {
        self.spectrum.hop_length()
    }

    fn n_features(&self) -> usize {
        self.config.n_features()
    }

    fn n_frames(&self, n_samples: usize) -> usize {
        self.n_frames(n_samples)
    }

    fn min_samples(&self) -> usize {
        self.min_samples
    }

    fn reach(&self) -> Reach {
        self.spectrum.reach()
    }

    fn clip_rule(&self) -> Option<ClipRule> {
        if let Some(Deltas { orders, .. }) = &self.config.deltas {
            return Some(ClipRule::new("deltas", format!("of order {orders}")));
        }
        self.config.normalize.as_ref().and_then(Normalize::clip_rule).or_else(|| self.spectrum.clip_rule())
    }

    fn frames_dim(&self, n_samples: usize) -> (usize, usize) {
        self.spectrum.frames_dim(n_samples)
    }

    fn frames_into(&self, samples: &[f32], first: usize, out: &mut [f32]) -> Result<()> {
        self.spectrum.frames_into(samples, first, out)
    }

    fn finish(&self, frames: Array2<f32>, n_samples: usize) -> Result<Array2<f32>> {
        let mut features = self.spectrum.finish(frames, n_samples)?;
        if let Some(Deltas { orders, config }) = &self.config.deltas {
            features = with_deltas(features.view(), *orders, config)?;
        }
        if let Some(normalize) = &self.config.normalize {
            normalize.apply(&mut features)?;
        }
        Ok(features)
    }
}
