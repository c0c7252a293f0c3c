//! WAV files: options of reading, and writing by `hound`.
//!
//! They are not read by `hound`, whose reader refuses files that are in order (chunks of odd size before the samples,
//! 32-bit integers behind an 18-byte header), takes the low 24 bits of extensible 24-in-32-bit samples where the format
//! puts them high, cannot tell a file that is cut short from one that cannot be read, and spends some 50 times as long
//! on a sample. It is the reference in the tests.

use std::path::Path;

use super::format::check_sample_rate;
use super::source::Failure;
use super::{AudioReason, Waveform};
use crate::error::{Error, Result};

/// Which channels of a file become the waveform. Default: their mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Channels {
    /// The mean of all channels.
    #[default]
    Mean,
    /// One channel, counted from 0. The others are not looked at.
    One(usize),
}

/// How a file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Which channels become the waveform. Default: the mean of all.
    pub channels: Channels,
    /// For WAV streams: whether a data size that stands for an unknown length is accepted. Programs that write to a pipe
    /// put one (`ffmpeg -f wav -`, arecord and SoX: 0, 2^32 - 1 or some 2^31), because they can't go back to fill in the
    /// length. True: the samples go on to the end of the stream, and [`Note::UnknownLength`](super::Note::UnknownLength)
    /// says so. False: an error, for a stream that is cut short looks the same. Default: false. Files with such a header
    /// are always read to their end, with the same note.
    pub accept_placeholder_length: bool,
    /// Whether a file may end before the length that its header declares, or within its last packet. True: the samples
    /// that are there are read, with [`Note::CutShort`](super::Note::CutShort). False: an error. Default: false.
    pub accept_truncated: bool,
    /// For formats other than WAV: go on after a packet that is damaged or lost. Silence as long as what is missing takes
    /// its place where the file tells that length, so that times stay right; [`AudioReader::skipped`](super::AudioReader::skipped)
    /// lists the places. A file that is cut short is an error even so, except a WAV file that lacks no more bytes than its
    /// header has, since some programs count the header as samples. Default: false;
    /// [`AudioReader::open`](super::AudioReader::open) and [`read`](super::AudioReader::read) set it.
    pub skip_damage: bool,
}

impl ReadOptions {
    /// The mean of all channels; damage is skipped.
    pub const SKIP_DAMAGE: Self =
        Self { channels: Channels::Mean, accept_placeholder_length: false, accept_truncated: false, skip_damage: true };
}

/// How samples are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SampleFormat {
    /// 16-bit integers: `round(32768 · x)`, clipped to -32768..=32767.
    Int16,
    /// 32-bit floats, exactly. The default.
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
