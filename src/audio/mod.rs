//! Audio on the host: waveforms, audio files, resampling.
//!
//! A [`Waveform`] is one channel of `f32` samples at a known rate. It comes from a file ([`Waveform::open`]), a stream
//! ([`Waveform::read`]) or a buffer ([`Waveform::new`]), and changes its rate with [`Waveform::resample`] or
//! [`resample`]. An [`AudioReader`] gives the same samples block by block, so that a recording may have any length, and
//! a [`Resampler`] changes the rate of a stream. A [`WaveformBatch`] is what a model takes: clips at one rate, of any lengths.

#[cfg(feature = "symphonia")]
mod decode;
mod format;
mod id3;
mod interleaved;
mod mixer;
mod note;
mod pcm;
mod reader;
mod resample;
mod riff;
mod skipped;
mod source;
mod wav;
mod waveform;

#[doc(inline)]
pub use crate::error::{AudioReason, MAX_CHANNELS, MAX_SAMPLE_RATE};
pub use interleaved::Sample;
pub use note::Note;
pub use reader::{AudioReader, RawFormat};
pub use resample::{Resampler, resample};
pub use skipped::Skipped;
pub use wav::{Channels, ReadOptions, SampleFormat};
pub use waveform::{Waveform, WaveformBatch};
