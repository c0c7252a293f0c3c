//! Front ends: spectrograms and cepstral features from samples, computed on the host in `ndarray` arrays.
//!
//! | input | front end | output |
//! |---|---|---|
//! | samples | [`Stft`] | complex, magnitude or power spectrum `[n_frames, n_bins]` |
//! | spectrum | [`MelFilterBank`] | mel spectrum `[n_frames, n_mels]` |
//! | samples | [`LogMel`] | log-mel spectrogram `[n_frames, n_mels]`, in dB or with the natural logarithm |
//! | samples | [`Fbank`] | Kaldi's log-mel spectrogram `[n_frames, n_mels]`, natural logarithm |
//! | samples | [`Mfcc`] | cepstral coefficients `[n_frames, n_mfcc]` of librosa, torchaudio or Kaldi |
//! | samples | [`SeamlessM4t`] | normalised and stacked fbank `[n_frames / 2, 160]` of W2V-BERT and SeamlessM4T |
//! | samples | [`WhisperMel`] | Whisper's log-mel spectrogram `[n_frames, n_mels]` |
//! | features | [`delta`], [`with_deltas`] | derivatives over time; 13 MFCC become 39 |
//! | features | [`Normalize`] | mean 0 and variance 1 per clip, or by the statistics of a data set |
//!
//! [`FrontEnd`] is the trait of front ends from samples to features. [`features::Features`] combines one of [`LogMel`],
//! [`Fbank`] and [`Mfcc`] with deltas and normalisation.
//!
//! Front ends are planned once and then used through `&self` from any number of threads. Frames are distributed over
//! the current rayon pool; results do not depend on the number of threads. Nothing is allocated per frame.
//!
//! **Frames.** A clip of `n` samples has `n / hop_length + 1` frames if `center` is set (with an odd `n_fft`,
//! `(n - 1) / hop_length + 1`), otherwise `(n - n_fft) / hop_length + 1`.
//!
//! **Scale.** Samples are expected in -1.0..=1.0. Transforms are not normalised: a full-scale sine at the centre of a
//! bin has the power `(sum of the window / 2)²`.

mod decibel;
mod delta;
mod fbank;
pub mod features;
mod frame_loop;
mod framing;
mod front_end;
mod log_mel;
mod mel;
mod mfcc;
mod normalize;
mod real_fft;
mod seamless;
mod stft;
mod whisper;
mod window;

pub use decibel::LogScale;
pub use delta::{DeltaConfig, DeltaEdge, DeltaMethod, delta, with_deltas};
pub use fbank::{Fbank, FbankConfig};
pub use framing::PadMode;
pub use front_end::{ClipRule, FrontEnd, Reach};
pub use log_mel::{LogMel, LogMelConfig};
pub use mel::{MAX_MEL_CELLS, MAX_N_MELS, MelAxis, MelConfig, MelFilterBank, MelNorm, MelScale};
pub use mfcc::{Lifter, MelFeatures, Mfcc, MfccConfig};
pub use normalize::{FeatureStatistics, Normalize};
pub use rustfft::num_complex::Complex;
pub use seamless::{SeamlessM4t, SeamlessM4tBatch, SeamlessM4tConfig};
pub(crate) use stft::array;
pub use stft::{MAX_N_FFT, Spectrum, Stft, StftConfig};
pub use whisper::{WhisperMel, WhisperMelConfig};
pub use window::Window;
