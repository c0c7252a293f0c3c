//! Mel-frequency cepstral coefficients: the cosine transform of a log-mel spectrum.
//!
//! `c[n] = s(n) Σ_m x[m] cos(π n (m + 1/2) / n_mels)` over the log-mel values `x` of a frame: the orthonormal DCT-II,
//! with `s(0) = √(1 / n_mels)` and `s(n) = √(2 / n_mels)`. The three libraries share this transform and differ in its
//! input:
//!
//! | | log-mel | lifter |
//! |---|---|---|
//! | `librosa.feature.mfcc` | Slaney's mel, dB, at most 80 dB below the maximum | optional, `1 + L/2 sin(π (n + 1) / L)` |
//! | `torchaudio.transforms.MFCC` | HTK mel, dB as librosa or `ln(x + 1e-6)` | none |
//! | `torchaudio.compliance.kaldi.mfcc`, `compute-mfcc-feats` | [`Fbank`] | `1 + L/2 sin(π n / L)`, `L = 22` |

use std::f64::consts::{PI, SQRT_2};
use std::sync::Arc;

use ndarray::{Array2, ArrayView1, ArrayView2, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::normalize::check_features;
use super::stft::array;
use super::{ClipRule, Fbank, FbankConfig, FrontEnd, LogMel, LogMelConfig, LogScale, Reach};
use crate::error::{Error, Result};
use crate::nn::kernels::simd::dispatch;

/// Limit on the table of cosines: 32 MiB in f64.
const MAX_CELLS: usize = 1 << 22;

/// Frames per task of the thread pool.
const FRAMES_PER_TASK: usize = 64;

/// Number of coefficients that are summed in parallel, for vectorisation; even.
const LANES: usize = 8;

/// The log-mel spectrogram that the cosine transform is applied to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MelFeatures {
    /// As in librosa and torchaudio.
    LogMel(LogMelConfig),
    /// As in Kaldi.
    Fbank(FbankConfig),
}

impl MelFeatures {
    /// The sample rate in Hz, and the hop length in samples.
    pub(super) fn timing(&self) -> (u32, usize) {
        match self {
            Self::LogMel(config) => (config.sample_rate, config.stft.hop_length),
            Self::Fbank(config) => (config.sample_rate, config.hop_length),
        }
    }
}

/// Weights of the coefficients, which rise and fall like half a sine over the first `L` of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Lifter {
    /// All weights are 1.
    None,
    /// `1 + L/2 sin(π (n + 1) / L)`: librosa's `lifter`. `L` above 0.
    Librosa(f64),
    /// `1 + L/2 sin(π n / L)`, which does not change the first coefficient: Kaldi and HTK, usually with 22. `L` above
    /// 0.
    Kaldi(f64),
}

/// Settings of [`Mfcc`]. Take a preset and change what differs:
///
/// ```
/// use clipwise::frontend::MfccConfig;
///
/// let config = MfccConfig { n_mfcc: 20, ..MfccConfig::KALDI_16K };
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MfccConfig {
    /// The log-mel spectrogram.
    pub mel: MelFeatures,
    /// Number of coefficients, 1 to the number of mels. The first one is the loudness.
    pub n_mfcc: usize,
    /// Weights of the coefficients. Default when read from a file: none.
    #[serde(default = "no_lifter")]
    pub lifter: Lifter,
}

fn no_lifter() -> Lifter {
    Lifter::None
}

impl MfccConfig {
    /// `librosa.feature.mfcc(y=y)` with all defaults: 22.05 kHz, 20 of 128 mels in dB.
    pub const LIBROSA_22K: Self =
        Self { mel: MelFeatures::LogMel(LogMelConfig::LIBROSA_22K), n_mfcc: 20, lifter: Lifter::None };

    /// `librosa.feature.mfcc(y=y, sr=16000, n_mfcc=12)`, as the LSTM of Speech-Commands-Classification-by-LSTM-PyTorch.
    pub const SPEECH_COMMANDS_16K: Self = Self {
        mel: MelFeatures::LogMel(LogMelConfig { sample_rate: 16_000, ..LogMelConfig::LIBROSA_22K }),
        n_mfcc: 12,
        lifter: Lifter::None,
    };

    /// 13 coefficients of [`LogMelConfig::SPEECH_16K`]: window 25 ms, hop 10 ms, librosa's filters. 39 values with
    /// [`with_deltas`](super::with_deltas) of orders up to 2.
    pub const SPEECH_16K: Self =
        Self { mel: MelFeatures::LogMel(LogMelConfig::SPEECH_16K), n_mfcc: 13, lifter: Lifter::None };

    /// `torchaudio.transforms.MFCC()` with all defaults: 16 kHz, window 400, hop 200, 40 of 128 mels in dB.
    pub const TORCHAUDIO_16K: Self =
        Self { mel: MelFeatures::LogMel(LogMelConfig::TORCHAUDIO_16K), n_mfcc: 40, lifter: Lifter::None };

    /// `torchaudio.transforms.MFCC(log_mels=True)`: as [`TORCHAUDIO_16K`](Self::TORCHAUDIO_16K), of `ln(x + 1e-6)`.
    pub const TORCHAUDIO_LN_16K: Self = Self {
        mel: MelFeatures::LogMel(LogMelConfig {
            log: LogScale::NaturalOffset,
            amin: 1e-6,
            top_db: None,
            ..LogMelConfig::TORCHAUDIO_16K
        }),
        n_mfcc: 40,
        lifter: Lifter::None,
    };

    /// `torchaudio.compliance.kaldi.mfcc` with all defaults: window 25 ms, hop 10 ms, 13 of 23 mels, lifter 22. Kaldi's
    /// own program replaces the first coefficient by the energy by default: set `use_energy` in the fbank's settings.
    pub const KALDI_16K: Self =
        Self { mel: MelFeatures::Fbank(FbankConfig::KALDI_16K), n_mfcc: 13, lifter: Lifter::Kaldi(22.0) };
}

/// A planned MFCC front end.
///
/// ```
/// use clipwise::frontend::{Mfcc, MfccConfig};
///
/// let mfcc = Mfcc::new(&MfccConfig::SPEECH_16K)?;
/// assert_eq!(mfcc.compute(&vec![0.0; 16_000])?.dim(), (101, 13)); // [n_frames, n_mfcc]
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mfcc {
    config: MfccConfig,
    mel: Arc<dyn FrontEnd>,
    n_mels: usize,
    /// The first half of the cosine transform, times the lifter: `[n_mfcc / LANES, n_mels / 2, LANES]`, both rounded
    /// up, 0 beyond `n_mfcc`. The other half is its mirror image, negated for odd coefficients.
    table: Vec<[f64; LANES]>,
}

impl Mfcc {
    /// Plans the log-mel front end and builds the cosine transform.
    ///
    /// # Errors
    /// [`Error::Config`] as for [`LogMel::new`] or [`Fbank::new`], if `n_mfcc` is not between 1 and the number of mels,
    /// if the lifter is not above 0, or if an [`Fbank`] has `log: false`.
    pub fn new(config: &MfccConfig) -> Result<Self> {
        let (mel, n_mels): (Arc<dyn FrontEnd>, usize) = match &config.mel {
            MelFeatures::LogMel(mel) => (Arc::new(LogMel::new(mel)?), mel.mel.n_mels),
            MelFeatures::Fbank(mel) if !mel.log => {
                return Err(Error::config(
                    "log",
                    mel.log,
                    "expected true, since MFCC are computed from a log-mel spectrum",
                ));
            }
            MelFeatures::Fbank(mel) => (Arc::new(Fbank::new(mel)?), mel.n_mels),
        };
        let n_mfcc = config.n_mfcc;
        if n_mfcc == 0 || n_mfcc > n_mels {
            return Err(Error::config("n_mfcc", n_mfcc, format!("expected 1 to n_mels = {n_mels}")));
        }
        let most = MAX_CELLS / n_mels;
        if n_mfcc > most {
            return Err(Error::config("n_mfcc", n_mfcc, format!("expected at most {most} with n_mels = {n_mels}")));
        }
        let weights = lifter(config.lifter, n_mfcc)?;
        let cosine = |n: usize, m: usize| {
            // The cosine has a period of 4 n_mels half steps of a mel; reducing the argument first keeps it small and
            // accurate.
            let steps = (n * (2 * m + 1)) % (4 * n_mels);
            let scale = (if n == 0 { 1.0 } else { 2.0 } / n_mels as f64).sqrt();
            scale * (PI * steps as f64 / (2 * n_mels) as f64).cos()
        };
        let weight = |n: usize, m: usize| weights.get(n).map_or(0.0, |weight| weight * cosine(n, m));
        let blocks = (0..n_mfcc).step_by(LANES);
        let table = blocks
            .flat_map(|n| (0..n_mels.div_ceil(2)).map(move |m| (n, m)))
            .map(|(n, m)| std::array::from_fn(|lane| weight(n + lane, m)))
            .collect();
        Ok(Self { config: config.clone(), mel, n_mels, table })
    }

    /// The settings.
    pub fn config(&self) -> &MfccConfig {
        &self.config
    }

    /// The number of frames of a clip; 0 if it is shorter than [`min_samples`](Self::min_samples).
    pub fn n_frames(&self, n_samples: usize) -> usize {
        self.mel.n_frames(n_samples)
    }

    /// The length of the shortest accepted clip in samples: that of the log-mel front end.
    pub fn min_samples(&self) -> usize {
        self.mel.min_samples()
    }

    /// Computes the coefficients `[n_frames, n_mfcc]` of mono samples at the configured rate.
    ///
    /// Samples are expected in -1.0..=1.0; all finite values are accepted. Within 1e-3 of the library that the settings
    /// reproduce: the cosine transform is computed in f64 from log-mel values rounded to f32.
    ///
    /// # Errors
    /// As [`LogMel::compute`] or [`Fbank::compute`].
    pub fn compute(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.cepstrum(self.mel.compute(samples)?)
    }

    /// Computes the coefficients of a log-mel spectrogram `[n_frames, n_mels]` without energy (librosa's `S=`).
    ///
    /// # Errors
    /// [`Error::Argument`] if the number of columns differs or a value is not finite.
    pub fn apply(&self, log_mel: ArrayView2<f32>) -> Result<Array2<f32>> {
        if log_mel.ncols() != self.n_mels {
            return Err(Error::argument("n_mels", log_mel.ncols(), format!("expected {}", self.n_mels)));
        }
        check_features(log_mel)?;
        self.transform(log_mel)
    }

    fn transform(&self, log_mel: ArrayView2<f32>) -> Result<Array2<f32>> {
        let (n_mfcc, n_half) = (self.config.n_mfcc, self.n_mels.div_ceil(2));
        array(log_mel.nrows(), n_mfcc, |out: &mut [f32]| {
            out.par_chunks_mut(FRAMES_PER_TASK * n_mfcc).enumerate().for_each(|(block, rows)| {
                let mut folded = vec![[0.0; 2]; n_half]; // for even and odd coefficients
                for (index, row) in rows.chunks_exact_mut(n_mfcc).enumerate() {
                    let frame = log_mel.row(block * FRAMES_PER_TASK + index);
                    dispatch(
                        #[inline(always)]
                        || self.transform_frame(frame, &mut folded, row),
                    );
                }
            });
        })
    }

    #[inline(always)]
    fn transform_frame(&self, frame: ArrayView1<f32>, folded: &mut [[f64; 2]], row: &mut [f32]) {
        for (folded, (&a, &b)) in folded.iter_mut().zip(frame.iter().zip(frame.iter().rev())) {
            *folded = [f64::from(a) + f64::from(b), f64::from(a) - f64::from(b)];
        }
        if let (true, Some(middle)) = (self.n_mels % 2 == 1, folded.last_mut()) {
            middle[0] /= 2.0; // added twice
        }
        for (out, cosines) in row.chunks_mut(LANES).zip(self.table.chunks_exact(folded.len())) {
            let mut sums = [0.0; LANES];
            for (x, cosines) in folded.iter().zip(cosines) {
                for lane in 0..LANES {
                    sums[lane] += x[lane % 2] * cosines[lane];
                }
            }
            out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = sum as f32);
        }
    }

    /// Computes the coefficients from the output of the log-mel front end.
    fn cepstrum(&self, mel: Array2<f32>) -> Result<Array2<f32>> {
        match &self.config.mel {
            MelFeatures::LogMel(_) => self.transform(mel.view()),
            MelFeatures::Fbank(config) => self.kaldi_cepstrum(config, mel),
        }
    }

    /// Computes the coefficients of an fbank, with the energy in Kaldi's place.
    fn kaldi_cepstrum(&self, config: &FbankConfig, fbank: Array2<f32>) -> Result<Array2<f32>> {
        let FbankConfig { use_energy, htk_compat, n_mels, .. } = *config;
        let first_mel = usize::from(use_energy && !htk_compat);
        let mut mfcc = self.transform(fbank.slice(s![.., first_mel..first_mel + n_mels]))?;
        if use_energy {
            mfcc.column_mut(0).assign(&fbank.column(if htk_compat { n_mels } else { 0 }));
        }
        if htk_compat {
            for mut row in mfcc.rows_mut() {
                let first = if use_energy { row[0] } else { (f64::from(row[0]) * SQRT_2) as f32 };
                let last = row.len() - 1;
                (0..last).for_each(|n| row[n] = row[n + 1]);
                row[last] = first;
            }
        }
        Ok(mfcc)
    }
}

impl FrontEnd for Mfcc {
    fn sample_rate(&self) -> u32 {
        self.mel.sample_rate()
    }

    fn hop_length(&self) -> usize {
        self.mel.hop_length()
    }

    fn n_features(&self) -> usize {
        self.config.n_mfcc
    }

    fn n_frames(&self, n_samples: usize) -> usize {
        self.n_frames(n_samples)
    }

    fn min_samples(&self) -> usize {
        self.min_samples()
    }

    fn reach(&self) -> Reach {
        self.mel.reach()
    }

    fn clip_rule(&self) -> Option<ClipRule> {
        self.mel.clip_rule()
    }

    fn frames_dim(&self, n_samples: usize) -> (usize, usize) {
        self.mel.frames_dim(n_samples)
    }

    fn frames_into(&self, samples: &[f32], first: usize, out: &mut [f32]) -> Result<()> {
        self.mel.frames_into(samples, first, out)
    }

    fn finish(&self, frames: Array2<f32>, n_samples: usize) -> Result<Array2<f32>> {
        self.cepstrum(self.mel.finish(frames, n_samples)?)
    }
}

/// The weights of the coefficients.
fn lifter(lifter: Lifter, n_mfcc: usize) -> Result<Vec<f64>> {
    let (length, first) = match lifter {
        Lifter::None => return Ok(vec![1.0; n_mfcc]),
        Lifter::Librosa(length) => (length, 1),
        Lifter::Kaldi(length) => (length, 0),
    };
    if !(length.is_finite() && length > 0.0) {
        return Err(Error::config("lifter", length, "expected a number above 0"));
    }
    Ok((0..n_mfcc).map(|n| 1.0 + length / 2.0 * (PI * (n + first) as f64 / length).sin()).collect())
}
