//! The front ends of models that read sequences of any features.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::{
    DeltaConfig, DeltaEdge, Fbank, FbankConfig, LogMel, LogMelConfig, MelFeatures, Mfcc, MfccConfig, Normalize,
    with_deltas,
};
use crate::check;
use crate::error::{Error, Result};

/// What a frame holds, before deltas and normalisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spectrum {
    /// A log-mel spectrum.
    LogMel(LogMelConfig),
    /// Kaldi's log-mel spectrum.
    Fbank(FbankConfig),
    /// Cepstral coefficients.
    Mfcc(MfccConfig),
}

/// Slopes beside the values themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deltas {
    /// Up to which order: 2 makes 39 values of 13.
    pub orders: usize,
    /// How they are taken.
    pub config: DeltaConfig,
}

/// From samples to frames of features: a spectrum, then deltas, then normalisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesConfig {
    /// The values of a frame.
    pub spectrum: Spectrum,
    /// Slopes beside them. Default when read from a file: none.
    #[serde(default)]
    pub deltas: Option<Deltas>,
    /// Normalisation, after the deltas. Default when read from a file: none.
    #[serde(default)]
    pub normalize: Option<Normalize>,
}

impl FeaturesConfig {
    /// 64 mels in dB, 16 kHz, window 25 ms, hop 10 ms, each with the clip's mean 0 and variance 1.
    pub const LOG_MEL_64: Self = Self {
        spectrum: Spectrum::LogMel(LogMelConfig { n_mels: 64, ..LogMelConfig::SPEECH_16K }),
        deltas: None,
        normalize: Some(Normalize::CMVN),
    };
    /// 13 MFCC with deltas of both orders, 16 kHz, window 25 ms, hop 10 ms, each with the clip's mean 0 and variance 1.
    pub const MFCC_39: Self = Self {
        spectrum: Spectrum::Mfcc(MfccConfig::SPEECH_16K),
        deltas: Some(Deltas { orders: 2, config: DeltaConfig::TORCHAUDIO }),
        normalize: Some(Normalize::CMVN),
    };
    /// librosa's 12 MFCC at 16 kHz.
    pub const SPEECH_COMMANDS: Self =
        Self { spectrum: Spectrum::Mfcc(MfccConfig::SPEECH_COMMANDS_16K), deltas: None, normalize: None };

    /// In Hz.
    pub fn sample_rate(&self) -> u32 {
        match &self.spectrum {
            Spectrum::LogMel(config) => config.sample_rate,
            Spectrum::Fbank(config) => config.sample_rate,
            Spectrum::Mfcc(config) => match &config.mel {
                MelFeatures::LogMel(config) => config.sample_rate,
                MelFeatures::Fbank(config) => config.sample_rate,
            },
        }
    }

    /// Samples from a frame to the next.
    pub fn hop_length(&self) -> usize {
        match &self.spectrum {
            Spectrum::LogMel(config) => config.hop_length,
            Spectrum::Fbank(config) => config.hop_length,
            Spectrum::Mfcc(config) => match &config.mel {
                MelFeatures::LogMel(config) => config.hop_length,
                MelFeatures::Fbank(config) => config.hop_length,
            },
        }
    }

    /// Length of a frame.
    pub fn n_features(&self) -> usize {
        let values = match &self.spectrum {
            Spectrum::LogMel(config) => config.n_mels,
            Spectrum::Fbank(config) => config.n_mels.saturating_add(config.use_energy.into()),
            Spectrum::Mfcc(config) => config.n_mfcc,
        };
        values.saturating_mul(self.deltas.as_ref().map_or(0, |deltas| deltas.orders.min(8)) + 1)
    }
}

/// A planned front end.
#[derive(Debug, Clone)]
pub struct Features {
    config: FeaturesConfig,
    planned: Planned,
    /// The fewest samples that give as many frames as the deltas need.
    min_samples: usize,
}

/// What a frame sees of the samples, and the distance between frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    pub hop: usize,
    pub before: usize,
    pub after: usize,
}

#[derive(Debug, Clone)]
enum Planned {
    LogMel(LogMel),
    Fbank(Fbank),
    Mfcc(Mfcc),
}

impl Features {
    /// Plans the transforms.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that cannot work.
    pub fn new(config: &FeaturesConfig) -> Result<Self> {
        let planned = match &config.spectrum {
            Spectrum::LogMel(config) => Planned::LogMel(LogMel::new(config)?),
            Spectrum::Fbank(config) => Planned::Fbank(Fbank::new(config)?),
            Spectrum::Mfcc(config) => Planned::Mfcc(Mfcc::new(config)?),
        };
        let mut features = Self { config: config.clone(), planned, min_samples: 0 };
        let needed = match &config.deltas {
            Some(Deltas { config, .. }) if config.edge == DeltaEdge::Interp => config.width,
            _ => 1,
        };
        features.min_samples = features.samples_for(needed)?;
        check::min_samples("width", needed, features.min_samples)?;
        // Settings of the deltas and of the normalisation are checked where they are used: here, on silence.
        let n_features = features.compute(&vec![0.0; features.min_samples])?.ncols();
        if n_features != config.n_features() {
            return Err(Error::config("n_features", n_features, format!("{} are due", config.n_features())));
        }
        Ok(features)
    }

    /// The settings.
    pub fn config(&self) -> &FeaturesConfig {
        &self.config
    }

    /// Frames of a clip; 0 where it is too short for one.
    pub fn n_frames(&self, n_samples: usize) -> usize {
        match &self.planned {
            Planned::LogMel(planned) => planned.n_frames(n_samples),
            Planned::Fbank(planned) => planned.n_frames(n_samples),
            Planned::Mfcc(planned) => planned.n_frames(n_samples),
        }
    }

    /// The shortest clip that is accepted.
    pub fn min_samples(&self) -> usize {
        self.min_samples
    }

    /// The features of mono samples at the configured rate: `[n_frames, n_features]`.
    ///
    /// # Errors
    /// [`Error::TooShort`] below [`min_samples`](Self::min_samples), [`Error::NonFinite`], [`Error::Config`] for a result
    /// that does not fit into memory.
    pub fn compute(&self, samples: &[f32]) -> Result<Array2<f32>> {
        if samples.len() < self.min_samples {
            return Err(Error::TooShort { needed: self.min_samples, got: samples.len() });
        }
        let mut features = match &self.planned {
            Planned::LogMel(planned) => planned.compute(samples)?,
            Planned::Fbank(planned) => planned.compute(samples)?,
            Planned::Mfcc(planned) => planned.compute(samples)?,
        };
        if let Some(Deltas { orders, config }) = &self.config.deltas {
            features = with_deltas(features.view(), *orders, config)?;
        }
        if let Some(normalize) = &self.config.normalize {
            normalize.apply(&mut features)?;
        }
        Ok(features)
    }

    /// How far a frame sees, where it sees no more than samples near it: frame `t` those from `t · hop − before` up to
    /// `t · hop + after`, and the ends of a clip only if they are within.
    pub(crate) fn reach(&self) -> Result<Reach> {
        let whole = |field: &'static str, value: String| {
            Err(Error::config(field, value, "such features depend on more of the clip than a stream has"))
        };
        if let Some(Deltas { orders, .. }) = &self.config.deltas {
            return whole("deltas", format!("of order {orders}"));
        }
        match &self.config.normalize {
            None | Some(Normalize::DataSet { .. }) => {}
            Some(normalize) => return whole("normalize", format!("{normalize:?}")),
        }
        let of_log_mel = |config: &LogMelConfig| match config.top_db {
            Some(top_db) => whole("top_db", top_db.to_string()),
            None => {
                let before = if config.center { config.n_fft / 2 } else { 0 };
                Ok(Reach { hop: config.hop_length, before, after: config.n_fft - before })
            }
        };
        // A frame of Kaldi's lies around its place or after it.
        let of_fbank = |config: &FbankConfig| {
            let before = if config.snip_edges { 0 } else { config.win_length };
            Ok(Reach { hop: config.hop_length, before, after: config.win_length.max(config.n_fft) + before })
        };
        match &self.config.spectrum {
            Spectrum::LogMel(config) => of_log_mel(config),
            Spectrum::Fbank(config) => of_fbank(config),
            Spectrum::Mfcc(config) => match &config.mel {
                MelFeatures::LogMel(config) => of_log_mel(config),
                MelFeatures::Fbank(config) => of_fbank(config),
            },
        }
    }

    /// The fewest samples with at least `needed` frames.
    fn samples_for(&self, needed: usize) -> Result<usize> {
        let mut enough = match &self.planned {
            Planned::LogMel(planned) => planned.min_samples(),
            Planned::Fbank(planned) => planned.min_samples(),
            Planned::Mfcc(planned) => planned.min_samples(),
        };
        let mut too_few = enough.saturating_sub(1);
        while self.n_frames(enough) < needed {
            too_few = enough;
            enough = enough.checked_mul(2).ok_or_else(|| Error::config("width", needed, "fewer frames"))?;
        }
        while enough - too_few > 1 {
            let middle = too_few + (enough - too_few) / 2;
            *(if self.n_frames(middle) < needed { &mut too_few } else { &mut enough }) = middle;
        }
        Ok(enough)
    }
}
