//! Options for reading audio files, and writing of WAV files with `hound`.
//!
//! WAV files are not read with `hound`: its reader rejects valid files (chunks of odd size before the samples, 32-bit
//! integers behind an 18-byte header), takes the low 24 bits of extensible 24-in-32-bit samples where the format has
//! them in the high bits, does not distinguish truncated files from read errors, and takes about 50 times as long per
//! sample. It is the reference in the tests.

use std::path::Path;

use super::format::check_sample_rate;
use super::source::Failure;
use super::{AudioReason, Waveform};
use crate::error::{Error, Result};

/// How the channels of a file are mixed to one. Default: by their mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Channels {
    /// The mean of all channels.
    #[default]
    Mean,
    /// A single channel, from 0. The others are ignored.
    One(usize),
}

/// Options for reading audio files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// How the channels are mixed to one. Default: by their mean.
    pub channels: Channels,
    /// For WAV streams: whether to accept a placeholder as data size. Programs that write to a pipe cannot fill in the
    /// length afterwards, so they leave a placeholder (`ffmpeg -f wav -`, arecord and SoX: 0, 2^32 - 1 or about 2^31).
    /// If true, the stream is read to its end, with [`Note::UnknownLength`](super::Note::UnknownLength). If false, it
    /// is an error, because a truncated stream looks the same. Default: false. Files with a placeholder are always read
    /// to their end, with the same note.
    pub accept_placeholder_length: bool,
    /// Whether to accept a file that ends before its declared length, or within its last packet. If true, the samples
    /// before the end are read, with [`Note::CutShort`](super::Note::CutShort). If false, it is an error. Default:
    /// false.
    pub accept_truncated: bool,
    /// For formats other than WAV: whether to continue after a damaged or missing packet. If the file states the length
    /// of the missing audio, zeros replace it, so that times stay right;
    /// [`AudioReader::skipped`](super::AudioReader::skipped) lists the gaps. A truncated file is still an error, except
    /// a WAV file that lacks no more bytes than its header has, since some programs count the header as samples.
    /// Default: false; [`AudioReader::open`](super::AudioReader::open) and [`read`](super::AudioReader::read) set it.
    pub skip_damage: bool,
}

impl ReadOptions {
    /// Mixes by the mean of all channels and skips damage.
    pub const SKIP_DAMAGE: Self =
        Self { channels: Channels::Mean, accept_placeholder_length: false, accept_truncated: false, skip_damage: true };
}

/// Sample format of a WAV file or raw stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SampleFormat {
    /// 16-bit integers. Written as `round(32768 · x)`, clipped to -32768..=32767.
    Int16,
    /// 32-bit floats, written unchanged. The default.
    #[default]
    Float32,
}

fn hound_failure(error: hound::Error) -> Failure {
    match error {
        hound::Error::IoError(error) => Failure::Io(error),
        other => AudioReason::Malformed(other.to_string()).into(),
    }
}

pub(super) fn write(waveform: &Waveform, path: &Path, format: SampleFormat) -> Result<()> {
    let refused = |reason| Error::Audio { path: path.into(), reason };
    let (bits_per_sample, sample_format) = match format {
        SampleFormat::Int16 => (16_u16, hound::SampleFormat::Int),
        SampleFormat::Float32 => (32_u16, hound::SampleFormat::Float),
    };
    let Waveform { samples, sample_rate, .. } = waveform;
    check_sample_rate(*sample_rate).map_err(refused)?;
    if samples.is_empty() {
        return Err(refused(AudioReason::NoSamples));
    }
    if samples.len() as u64 * u64::from(bits_per_sample / 8) > u64::from(u32::MAX) - 128 {
        return Err(refused(AudioReason::TooLong(samples.len())));
    }
    if let Some(i) = samples.iter().position(|x| !x.is_finite()) {
        return Err(refused(AudioReason::NonFinite { index: i as u64, channel: 0, value: samples[i] }));
    }
    let spec = hound::WavSpec { channels: 1, sample_rate: *sample_rate, bits_per_sample, sample_format };
    let written = || -> hound::Result<()> {
        let mut wav = hound::WavWriter::create(path, spec)?;
        for &x in samples {
            match format {
                SampleFormat::Int16 => wav.write_sample((x * 32768.0).round().clamp(-32768.0, 32767.0) as i16)?,
                SampleFormat::Float32 => wav.write_sample(x)?,
            }
        }
        wav.finalize()
    };
    written().map_err(|error| match hound_failure(error) {
        Failure::Io(cause) => Error::Io { action: "write", path: path.into(), cause },
        Failure::Audio(reason) => refused(reason),
    })
}
