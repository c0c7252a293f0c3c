//! Audio on the host: waveforms, WAV files, resampling.

/// Why a file is not usable as audio.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AudioReason {
    /// The file holds no bytes.
    #[error("the file is empty")]
    Empty,
}

/// Mono samples at one rate.
pub struct Waveform;
/// Several clips at one rate.
pub struct WaveformBatch;
