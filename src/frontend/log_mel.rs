//! Log-mel spectrograms, in decibels or with the natural logarithm.
//!
//! `10 log10(max(x, amin)) - 10 log10(max(amin, reference))` of the mel spectrum `x`, as in torchlibrosa's
//! `LogmelFilterBank` and librosa's `melspectrogram` with `power_to_db`; [`LogScale`] has the other logarithms. Unlike
//! in torchlibrosa, everything up to the final value is computed in f64.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::real_fft::Bins;
use super::stft::array;
use super::{
    LogScale, MelAxis, MelConfig, MelFilterBank, MelNorm, MelScale, PadMode, Spectrum, Stft, StftConfig, Window,
};
use crate::error::{Error, Result};

/// Number of filters whose f64 outputs are on the stack at a time.
const MELS_PER_BLOCK: usize = 64;

/// Settings of [`LogMel`]. Take a preset and change what differs:
///
/// ```
/// use clipwise::frontend::{LogMelConfig, MelConfig};
///
/// let config = LogMelConfig {
///     mel: MelConfig { n_mels: 128, ..LogMelConfig::PANNS_32K.mel },
///     ..LogMelConfig::PANNS_32K
/// };
/// ```
///
/// In a file, the fields of `stft` and `mel` are in the same object as the others, and the scale and the norm of the
/// filters are called `mel_scale` and `mel_norm`. Only `sample_rate`, `n_fft`, `win_length`, `hop_length` and `n_mels`
/// are required; the other fields default to the values of the presets, except that the filters cover 0 Hz to half the
/// sample rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FileConfig")]
pub struct LogMelConfig {
    /// Sample rate in Hz, 1 to 100 MHz.
    pub sample_rate: u32,
    /// If not 0, frames are cut from `x[i + 1] - preemphasis * x[i]` instead of the clip `x`, which has one sample
    /// fewer. Finite. Default: 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub preemphasis: f32,
    /// Frames, window and Fourier transform.
    #[serde(flatten)]
    pub stft: StftConfig,
    /// The spectrum that the filters are applied to. (In decibels, the result is ten times log10 for magnitudes, too.)
    pub power: Spectrum,
    /// The mel filters.
    #[serde(flatten)]
    pub mel: MelConfig,
    /// The logarithm. Default: decibels.
    pub log: LogScale,
    /// The value that becomes 0 dB (librosa's `ref`), 0 or more; `amin` if that is larger. Default: 1.
    pub reference: f32,
    /// Lower bound of the mel spectrum, above 0. With [`LogScale::NaturalOffset`] it is added to every value instead.
    /// Default: 1e-10.
    pub amin: f32,
    /// Range of the clip in dB: smaller values are raised to `top_db` below the clip's maximum. `None` (the default)
    /// for no floor. With a floor, each frame depends on the whole clip.
    pub top_db: Option<f32>,
    /// Added to the logarithm. Finite. Default: 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub shift: f32,
    /// Divisor of the shifted logarithm, above 0. Default: 1.
    #[serde(skip_serializing_if = "is_one")]
    pub divisor: f32,
}

/// Fields that older versions lack are written only if they differ from their defaults.
fn is_zero(value: &f32) -> bool {
    *value == 0.0
}

fn is_one(value: &f32) -> bool {
    *value == 1.0
}

/// [`LogMelConfig`] as read from a file. serde cannot deny unknown fields together with `flatten`, so they are
/// collected.
#[derive(Deserialize)]
struct FileConfig {
    sample_rate: u32,
    #[serde(default)]
    preemphasis: f32,
    #[serde(flatten)]
    stft: StftConfig,
    #[serde(default)]
    power: Spectrum,
    #[serde(flatten)]
    mel: MelConfig,
    #[serde(default)]
    log: LogScale,
    #[serde(default = "default_reference", alias = "ref")]
    reference: f32,
    #[serde(default = "default_amin")]
    amin: f32,
    #[serde(default)]
    top_db: Option<f32>,
    #[serde(default)]
    shift: f32,
    #[serde(default = "default_divisor")]
    divisor: f32,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

fn default_reference() -> f32 {
    LogMelConfig::PANNS_32K.reference
}

fn default_amin() -> f32 {
    LogMelConfig::PANNS_32K.amin
}

fn default_divisor() -> f32 {
    LogMelConfig::PANNS_32K.divisor
}

impl TryFrom<FileConfig> for LogMelConfig {
    type Error = String;

    fn try_from(config: FileConfig) -> std::result::Result<Self, String> {
        let FileConfig {
            sample_rate,
            preemphasis,
            stft,
            power,
            mel,
            log,
            reference,
            amin,
            top_db,
            shift,
            divisor,
            unknown,
        } = config;
        match unknown.keys().next() {
            Some(field) => Err(format!("unknown field `{field}` of a log-mel front end")),
            None => {
                Ok(Self { sample_rate, preemphasis, stft, power, mel, log, reference, amin, top_db, shift, divisor })
            }
        }
    }
}

impl LogMelConfig {
    /// PANNs at 32 kHz, as in `Cnn14_mAP=0.431.pth`: window 1024, hop 320, 64 mels, 50–14000 Hz.
    pub const PANNS_32K: Self = Self {
        sample_rate: 32_000,
        preemphasis: 0.0,
        stft: StftConfig {
            n_fft: 1024,
            win_length: 1024,
            hop_length: 320,
            window: Window::Hann,
            periodic: true,
            center: true,
            pad_mode: PadMode::Reflect,
        },
        power: Spectrum::Power,
        mel: MelConfig {
            n_mels: 64,
            fmin: 50.0,
            fmax: Some(14_000.0),
            scale: MelScale::Slaney,
            norm: MelNorm::Slaney,
            axis: MelAxis::Hz,
        },
        log: LogScale::Decibel,
        reference: 1.0,
        amin: 1e-10,
        top_db: None,
        shift: 0.0,
        divisor: 1.0,
    };

    /// PANNs at 16 kHz, as in `Cnn14_16k_mAP=0.438.pth`: window 512, hop 160, 64 mels, 50–8000 Hz.
    pub const PANNS_16K: Self = Self {
        sample_rate: 16_000,
        stft: StftConfig { n_fft: 512, win_length: 512, hop_length: 160, ..Self::PANNS_32K.stft },
        mel: MelConfig { fmax: Some(8_000.0), ..Self::PANNS_32K.mel },
        ..Self::PANNS_32K
    };

    /// PANNs at 8 kHz, as in `Cnn14_8k_mAP=0.416.pth`: window 256, hop 80, 64 mels, 50–4000 Hz.
    pub const PANNS_8K: Self = Self {
        sample_rate: 8_000,
        stft: StftConfig { n_fft: 256, win_length: 256, hop_length: 80, ..Self::PANNS_32K.stft },
        mel: MelConfig { fmax: Some(4_000.0), ..Self::PANNS_32K.mel },
        ..Self::PANNS_32K
    };

    /// PANNs' filters at 48 kHz: window 2048, hop 320, 64 mels, 50–14000 Hz. Not used by a published checkpoint.
    pub const PANNS_48K: Self = Self {
        sample_rate: 48_000,
        stft: StftConfig { n_fft: 2048, win_length: 2048, ..Self::PANNS_32K.stft },
        ..Self::PANNS_32K
    };

    /// CED: 16 kHz, window 512, hop 160, 64 HTK mels without area normalisation, 0–8000 Hz, at most 120 dB below the
    /// maximum.
    pub const CED_16K: Self = Self {
        mel: MelConfig { fmin: 0.0, scale: MelScale::Htk, norm: MelNorm::None, ..Self::PANNS_16K.mel },
        top_db: Some(120.0),
        ..Self::PANNS_16K
    };

    /// EfficientAT and PaSST: 32 kHz with pre-emphasis 0.97, symmetric Hann window 800 in 1024, hop 320, Kaldi's 128
    /// mels from 0 to 15000 Hz, `(ln(x + 1e-5) + 4.5) / 5`.
    pub const EFFICIENT_AT_32K: Self = Self {
        preemphasis: 0.97,
        stft: StftConfig { win_length: 800, periodic: false, ..Self::PANNS_32K.stft },
        mel: MelConfig {
            n_mels: 128,
            fmin: 0.0,
            fmax: Some(15_000.0),
            scale: MelScale::Htk,
            norm: MelNorm::None,
            axis: MelAxis::Mel,
        },
        log: LogScale::NaturalOffset,
        amin: 1e-5,
        shift: 4.5,
        divisor: 5.0,
        ..Self::PANNS_32K
    };

    /// The frame-wise MobileNets of PretrainedSED and EfficientSED: 16 kHz, window 400 in 512, hop 160, Kaldi's 128
    /// mels from 0 to 7000 Hz, `(ln(max(x, 1e-7)) + 4.5) / 5`, otherwise as
    /// [`EFFICIENT_AT_32K`](Self::EFFICIENT_AT_32K).
    pub const EFFICIENT_SED_16K: Self = Self {
        sample_rate: 16_000,
        stft: StftConfig { n_fft: 512, win_length: 400, hop_length: 160, ..Self::EFFICIENT_AT_32K.stft },
        mel: MelConfig { fmax: Some(7_000.0), ..Self::EFFICIENT_AT_32K.mel },
        log: LogScale::Natural,
        amin: 1e-7,
        ..Self::EFFICIENT_AT_32K
    };

    /// librosa's `power_to_db(melspectrogram(y))` with all defaults: 22.05 kHz, window 2048, hop 512, zero padding, 128
    /// mels, at most 80 dB below the maximum. librosa uses these lengths in samples at every rate:
    /// `LogMelConfig { sample_rate: 16_000, ..LogMelConfig::LIBROSA_22K }` corresponds to `sr=16000`.
    pub const LIBROSA_22K: Self = Self {
        sample_rate: 22_050,
        stft: StftConfig {
            n_fft: 2048,
            win_length: 2048,
            hop_length: 512,
            pad_mode: PadMode::Constant,
            ..Self::PANNS_32K.stft
        },
        mel: MelConfig { n_mels: 128, fmin: 0.0, fmax: None, ..Self::PANNS_32K.mel },
        top_db: Some(80.0),
        ..Self::PANNS_32K
    };

    /// The usual speech front end with librosa's filters: 16 kHz, window 25 ms, hop 10 ms, 80 mels, no floor below the
    /// maximum.
    pub const SPEECH_16K: Self = Self {
        sample_rate: 16_000,
        stft: StftConfig { n_fft: 512, win_length: 400, hop_length: 160, ..Self::LIBROSA_22K.stft },
        mel: MelConfig { n_mels: 80, ..Self::LIBROSA_22K.mel },
        top_db: None,
        ..Self::LIBROSA_22K
    };

    /// The CRNN of Datadriven-GPVAD: 22.05 kHz, window 40 ms, hop 20 ms, 64 mels, `ln(x + 2.2e-16)`.
    pub const CRNN_22K: Self = Self {
        stft: StftConfig { win_length: 882, hop_length: 441, ..Self::LIBROSA_22K.stft },
        mel: MelConfig { n_mels: 64, ..Self::LIBROSA_22K.mel },
        log: LogScale::NaturalOffset,
        amin: 2.2e-16,
        top_db: None,
        ..Self::LIBROSA_22K
    };

    /// torchaudio's `transforms.MelSpectrogram` and `AmplitudeToDB(top_db=80)` with their defaults: 16 kHz, window 400,
    /// hop 200, 128 HTK mels without area normalisation.
    pub const TORCHAUDIO_16K: Self = Self {
        sample_rate: 16_000,
        stft: StftConfig {
            n_fft: 400,
            win_length: 400,
            hop_length: 200,
            pad_mode: PadMode::Reflect,
            ..Self::LIBROSA_22K.stft
        },
        mel: MelConfig { scale: MelScale::Htk, norm: MelNorm::None, ..Self::LIBROSA_22K.mel },
        ..Self::LIBROSA_22K
    };
}

/// A planned log-mel front end.
///
/// ```
/// use clipwise::frontend::{LogMel, LogMelConfig};
///
/// let log_mel = LogMel::new(&LogMelConfig::PANNS_32K)?;
/// let clip = vec![0.0; 320_000]; // 10 s of silence
/// let features = log_mel.compute(&clip)?;
/// assert_eq!(features.dim(), (1001, 64)); // [n_frames, n_mels]
/// assert_eq!(features[(0, 0)], -100.0); // 10 log10(amin)
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LogMel {
    config: LogMelConfig,
    stft: Stft,
    mel: MelFilterBank,
    /// `10 log10(max(amin, reference))`.
    offset: f64,
}

impl LogMel {
    /// Plans the transform and builds the filters.
    ///
    /// # Errors
    /// [`Error::Config`] as for [`Stft::new`] and [`MelFilterBank::new`], and if another field is out of range.
    pub fn new(config: &LogMelConfig) -> Result<Self> {
        let LogMelConfig { power, reference, amin, top_db, preemphasis, shift, divisor, .. } = *config;
        for (field, value) in [("preemphasis", preemphasis), ("shift", shift)] {
            if !value.is_finite() {
                return Err(Error::config(field, value, "expected a finite number"));
            }
        }
        if !(divisor.is_finite() && divisor > 0.0) {
            return Err(Error::config("divisor", divisor, "expected a number above 0"));
        }
        if !(amin.is_finite() && amin > 0.0) {
            return Err(Error::config("amin", amin, "expected a number above 0"));
        }
        if power == Spectrum::Real {
            return Err(Error::config("power", power, "expected magnitude or power, since the real part is signed"));
        }
        if !(reference.is_finite() && reference >= 0.0) {
            return Err(Error::config("reference", reference, "expected 0 or more"));
        }
        if let Some(top_db) = top_db.filter(|top_db| !(top_db.is_finite() && *top_db >= 0.0)) {
            return Err(Error::config("top_db", top_db, "expected 0 dB or more, or None"));
        }
        Ok(Self {
            config: *config,
            stft: Stft::new(&config.stft)?.with_preemphasis(f64::from(preemphasis)),
            mel: MelFilterBank::new(&config.mel, config.sample_rate, config.stft.n_fft)?,
            offset: 10.0 * f64::from(amin.max(reference)).log10(),
        })
    }

    /// Replaces the window by other `win_length` values, and the filters by others of shape `[n_mels, n_bins]`, such as
    /// those in a checkpoint, which may be rounded or trained.
    ///
    /// # Errors
    /// [`Error::Argument`] if a size differs from the settings, or if a value is not finite.
    pub fn with_tables(mut self, window: &[f32], filters: ArrayView2<f32>) -> Result<Self> {
        self.mel = self.mel.replaced(filters)?;
        self.stft = self.stft.with_window(window)?;
        Ok(self)
    }

    /// The settings.
    pub fn config(&self) -> &LogMelConfig {
        &self.config
    }

    /// The short-time Fourier transform.
    pub fn stft(&self) -> &Stft {
        &self.stft
    }

    /// The mel filters.
    pub fn mel(&self) -> &MelFilterBank {
        &self.mel
    }

    /// The number of frames of a clip; 0 if it is shorter than [`min_samples`](Self::min_samples).
    pub fn n_frames(&self, n_samples: usize) -> usize {
        self.stft.n_frames(n_samples)
    }

    /// The length of the shortest accepted clip, in samples; see [`Stft::min_samples`].
    pub fn min_samples(&self) -> usize {
        self.stft.min_samples()
    }

    /// The length of the shortest clip with at least `n_frames` frames; [`min_samples`](Self::min_samples) for 0.
    pub fn samples_for(&self, n_frames: usize) -> usize {
        self.stft.framing().samples_for(n_frames.max(1))
    }

    /// Computes the log-mel spectrogram `[n_frames, n_mels]` of mono samples at the configured rate, in dB or as
    /// [`LogMelConfig::log`] says.
    ///
    /// Samples are expected in -1.0..=1.0; all finite values are accepted.
    ///
    /// # Errors
    /// [`Error::TooShort`] for clips shorter than [`min_samples`](Self::min_samples); [`Error::NonFinite`] if a sample
    /// is NaN or infinite; [`Error::Argument`] if the result does not fit into memory.
    pub fn compute(&self, samples: &[f32]) -> Result<Array2<f32>> {
        let n_frames = self.stft.framing().check(samples)?;
        array(n_frames, self.config.mel.n_mels, |out| self.fill(samples, out))
    }

    /// As [`compute`](Self::compute), written row by row to `out`, which must have the length `n_frames * n_mels`.
    ///
    /// # Errors
    /// As [`compute`](Self::compute), and [`Error::Argument`] if `out` has another length.
    pub fn compute_into(&self, samples: &[f32], out: &mut [f32]) -> Result<()> {
        let (n_frames, n_mels) = (self.stft.framing().check(samples)?, self.config.mel.n_mels);
        if n_frames.checked_mul(n_mels) != Some(out.len()) {
            return Err(Error::argument("out.len()", out.len(), format!("expected {n_frames} frames × {n_mels} mels")));
        }
        self.fill(samples, out);
        Ok(())
    }

    fn fill(&self, samples: &[f32], out: &mut [f32]) {
        self.rows(samples, 0, out);
        if let Some(floor) = self.floor(out.iter()) {
            out.iter_mut().for_each(|value| *value = value.max(floor));
        }
    }

    /// The floor that `top_db` sets below the maximum of a clip.
    pub(super) fn floor<'a>(&self, values: impl Iterator<Item = &'a f32>) -> Option<f32> {
        let range = self.config.top_db? * self.config.log.per_decibel() as f32 / self.config.divisor;
        Some(values.copied().fold(f32::NEG_INFINITY, f32::max) - range)
    }

    /// Computes frames of a clip from frame `first` on, one per row of `out`, without the floor of `top_db`. The clip
    /// must have these frames.
    pub(super) fn rows(&self, samples: &[f32], first: usize, out: &mut [f32]) {
        self.stft.for_each_frame(
            samples,
            first,
            (out, self.config.mel.n_mels),
            || self.mel.spectrum(),
            #[inline(always)]
            |bins, spectrum, row| self.finish_frame(bins, spectrum, row),
        );
    }

    /// Computes the `[n_mels]` values of a frame from its spectrum, in blocks that fit into the L1 cache.
    #[inline(always)]
    fn finish_frame(&self, bins: Bins, spectrum: &mut [f64], row: &mut [f32]) {
        let n_bins = self.mel.n_bins();
        self.config.power.write(bins, &mut spectrum[..n_bins]);
        for (block, row) in row.chunks_mut(MELS_PER_BLOCK).enumerate() {
            let mels = &mut [0.0; MELS_PER_BLOCK][..row.len()];
            self.mel.apply_to_frame(spectrum, block * MELS_PER_BLOCK, mels);
            self.config.log.apply(mels, f64::from(self.config.amin), self.offset, row);
            if (self.config.shift, self.config.divisor) != (0.0, 1.0) {
                row.iter_mut().for_each(|x| *x = (*x + self.config.shift) / self.config.divisor);
            }
        }
    }
}
