//! Audio on the host: waveforms, audio files, resampling.
//!
//! A [`Waveform`] is one channel of `f32` samples and their sample rate. It is read from a file ([`Waveform::open`]) or
//! a stream ([`Waveform::read`]), or made from a buffer ([`Waveform::new`], [`Waveform::from_interleaved`]).
//! [`Waveform::resample`] and [`resample`] change its rate. An [`AudioReader`] reads recordings of any length block by
//! block, and a [`Resampler`] resamples a stream. A [`WaveformBatch`] is the input of a model: clips at one rate, of
//! any lengths.

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
