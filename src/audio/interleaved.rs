//! Waveforms from interleaved sample buffers.

use super::format::{check_channels, check_sample_rate};
use super::mixer::Mixer;
use super::{Channels, Waveform};
use crate::error::{Error, Result};

mod sealed {
    pub trait Sealed: Copy + Send + Sync {
        /// Factor that scales full scale to 1.
        const SCALE: f64;
        fn value(self) -> f64;
    }

    macro_rules! sample {
        ($($type:ty: $full_scale:expr),*) => {
            $(impl Sealed for $type {
                const SCALE: f64 = 1.0 / $full_scale;

                fn value(self) -> f64 {
                    f64::from(self)
                }
            })*
        };
    }

    sample!(i8: 128.0, i16: 32_768.0, i32: 2_147_483_648.0, f32: 1.0, f64: 1.0);
}

/// A sample type: `i8`, `i16` and `i32`, whose range is scaled to -1.0..1.0, and `f32` and `f64`, which are not scaled.
pub trait Sample: sealed::Sealed {}

impl<T: sealed::Sealed> Sample for T {}

impl Waveform {
    /// Creates a waveform from a buffer of interleaved samples, `[n_samples · n_channels]`, mixing the channels by
    /// their mean. Samples and notes are identical to those of a WAV file with the same samples.
    ///
    /// ```
    /// use clipwise::Waveform;
    ///
    /// let stereo: &[i16] = &[16_384, -16_384, 8_192, 8_192];
    /// let waveform = Waveform::from_interleaved(stereo, 2, 48_000)?;
    /// assert_eq!(waveform.samples, [0.0, 0.25]);
    /// # Ok::<(), clipwise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Audio`] with the path `<samples>` if the number of channels is 0 or above
    /// [`MAX_CHANNELS`](super::MAX_CHANNELS), if the rate is 0 Hz or above [`MAX_SAMPLE_RATE`](super::MAX_SAMPLE_RATE),
    /// or if a sample is NaN or infinite; [`Error::Argument`] if the number of samples is not a multiple of the number
    /// of channels.
    pub fn from_interleaved<T: Sample>(samples: &[T], n_channels: u16, sample_rate: u32) -> Result<Self> {
        let refused = |reason| Error::Audio { path: "<samples>".into(), reason };
        check_channels(n_channels.into()).map_err(refused)?;
        check_sample_rate(sample_rate).map_err(refused)?;
        if !samples.len().is_multiple_of(n_channels.into()) {
            let reason = format!("expected a multiple of {n_channels}, the number of channels");
            return Err(Error::argument("samples.len()", samples.len(), reason));
        }
        let mut mixer = Mixer::new(Channels::Mean, n_channels.into()).map_err(refused)?;
        let mut mixed = Vec::new();
        mixer.mix(0, samples, T::SCALE, T::value, &mut mixed).map_err(refused)?;
        Ok(Self::new(mixed, sample_rate).with_notes(mixer.notes()))
    }
}
