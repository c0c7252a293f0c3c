//! WAV files: the RIFF structure is walked here, the samples are decoded and written by `hound`.
//!
//! `hound` alone would refuse files that are in order (chunks of odd size before the samples, 32-bit integers behind
//! an 18-byte header), take the low 24 bits of extensible 24-in-32-bit samples where the format puts them high, and
//! could not tell a file that is cut short from one that cannot be read. So the header is read here, and `hound` is
//! given a plain one in its place. Nothing is allocated by what a header claims.

use std::io::{self, BufReader, Read};
use std::path::Path;

use super::riff::{Format, Header, read_up_to};
use super::{AudioReason, MAX_SAMPLE_RATE, Waveform};
use crate::error::{Error, Result};

/// Which channels of a file become the waveform. Default: their mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channels {
    /// The mean of all channels.
    #[default]
    Mean,
    /// One channel, counted from 0. The others are not looked at.
    One(usize),
}

/// How a WAV file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Which channels become the waveform. Default: the mean of all.
    pub channels: Channels,
    /// What a data length of 0 or 0xFFFF_FFFF means. Programs that write to a pipe (`ffmpeg -f wav -`) put such a
    /// placeholder because they cannot go back to fill in the length. True: the samples go on to the end of the
    /// stream; a file cut short is then not noticed. False: it is an error like any other wrong length. Default:
    /// false.
    pub accept_placeholder_length: bool,
}

/// How the samples of a WAV file are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SampleFormat {
    /// 16-bit integers: `round(32768 · x)`, clipped to -32768..=32767.
    Int16,
    /// 32-bit floats, exactly. The default.
    #[default]
    Float32,
}

/// The samples are read and decoded in parts of about this many bytes.
const PART_BYTES: u64 = 1 << 16;

pub(super) fn read(reader: impl Read, path: &Path, options: &ReadOptions) -> Result<Waveform> {
    let failed = |failure: Failure| match failure {
        Failure::Io(source) => Error::Io { action: "read", path: path.into(), source },
        Failure::Audio(reason) => Error::Audio { path: path.into(), reason },
    };
    let mut reader = BufReader::new(reader);
    let header = Header::read(&mut reader).map_err(failed)?;
    let samples = read_samples(reader, &header, options).map_err(failed)?;
    Ok(Waveform::new(samples, header.sample_rate))
}

/// What stops a reader that does not know the file's name.
pub(super) enum Failure {
    Io(io::Error),
    Audio(AudioReason),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<AudioReason> for Failure {
    fn from(reason: AudioReason) -> Self {
        Self::Audio(reason)
    }
}

/// Decodes the data chunk, at whose first byte `reader` stands.
fn read_samples(mut reader: impl Read, header: &Header, options: &ReadOptions) -> Result<Vec<f32>, Failure> {
    let n_channels = usize::from(header.n_channels);
    if let Channels::One(channel) = options.channels
        && channel >= n_channels
    {
        return Err(AudioReason::NoSuchChannel { channel, count: header.n_channels }.into());
    }
    let frame_bytes = header.frame_bytes();
    let to_the_end = options.accept_placeholder_length && matches!(header.data_bytes, 0 | u32::MAX);
    let declared = if to_the_end { u64::MAX } else { u64::from(header.data_bytes) / frame_bytes };

    let mut mixer = Mixer { channels: options.channels, n_channels, samples: Vec::new() };
    let frames_in_part = PART_BYTES / frame_bytes;
    let mut part = plain_header(header, 0);
    let n_header = part.len();
    part.resize(n_header + (frames_in_part * frame_bytes) as usize, 0);
    let (mut n_frames, mut n_over) = (0, 0);
    while n_frames < declared {
        let n_wanted = (declared - n_frames).min(frames_in_part);
        let n_bytes = read_up_to(&mut reader, &mut part[n_header..][..(n_wanted * frame_bytes) as usize])? as u64;
        let n_whole = n_bytes / frame_bytes;
        decode_part(&mut part, header, n_whole, &mut mixer)?;
        n_frames += n_whole;
        if n_whole < n_wanted {
            n_over = n_bytes % frame_bytes;
            break;
        }
    }

    if !to_the_end && n_frames < declared {
        return Err(AudioReason::Truncated { declared, found: n_frames }.into());
    }
    if !to_the_end {
        n_over = u64::from(header.data_bytes) % frame_bytes;
    }
    if n_over > 0 {
        let detail = format!("the last sample of the data chunk has {n_over} of {frame_bytes} bytes");
        return Err(AudioReason::Malformed(detail).into());
    }
    if n_frames == 0 {
        return Err(AudioReason::NoSamples.into());
    }
    Ok(mixer.samples)
}

/// Decodes the first `n_frames` samples per channel of a part, a small WAV file with a plain header.
fn decode_part(part: &mut [u8], header: &Header, n_frames: u64, mixer: &mut Mixer) -> Result<(), Failure> {
    let plain = plain_header(header, (n_frames * header.frame_bytes()) as u32);
    part[..plain.len()].copy_from_slice(&plain);
    let mut wav = hound::WavReader::new(&part[..]).map_err(hound_failure)?;
    match header.format {
        Format::Float32 => mixer.mix(wav.samples::<f32>(), 1.0),
        _ => mixer.mix(wav.samples::<i32>(), 1.0 / 2_f64.powi(8 * i32::from(header.format.bytes()) - 1)),
    }
}

/// Makes one channel of several, sample by sample.
struct Mixer {
    channels: Channels,
    n_channels: usize,
    samples: Vec<f32>,
}

impl Mixer {
    /// Appends interleaved samples, each times `scale`.
    fn mix<T: Into<f64>>(
        &mut self,
        mut decoded: impl Iterator<Item = hound::Result<T>>,
        scale: f64,
    ) -> Result<(), Failure> {
        let scale_of_mean = scale / self.n_channels as f64;
        loop {
            let (mut sum, mut one) = (0.0, 0.0);
            for channel in 0..self.n_channels {
                let value: f64 = match decoded.next() {
                    Some(value) => value.map_err(hound_failure)?.into(),
                    None => return Ok(()),
                };
                let wanted = match self.channels {
                    Channels::Mean => true,
                    Channels::One(only) => only == channel,
                };
                if wanted {
                    if !value.is_finite() {
                        let index = self.samples.len() as u64;
                        return Err(AudioReason::NonFinite { index, channel, value: value as f32 }.into());
                    }
                    sum += value;
                    one = value;
                }
            }
            // The sum is in f64: integers are exact, and floats cannot overflow.
            self.samples.push(match self.channels {
                Channels::Mean => (sum * scale_of_mean) as f32,
                Channels::One(_) => (one * scale) as f32,
            });
        }
    }
}

/// The shortest WAV header that says how the samples are stored.
fn plain_header(header: &Header, data_bytes: u32) -> Vec<u8> {
    let tag: u16 = if header.format == Format::Float32 { 3 } else { 1 };
    let bytes = header.format.bytes();
    let mut plain = Vec::with_capacity(44);
    plain.extend_from_slice(b"RIFF");
    plain.extend_from_slice(&data_bytes.saturating_add(36).to_le_bytes());
    plain.extend_from_slice(b"WAVEfmt ");
    plain.extend_from_slice(&16_u32.to_le_bytes());
    plain.extend_from_slice(&tag.to_le_bytes());
    plain.extend_from_slice(&header.n_channels.to_le_bytes());
    // A rate of 1 Hz: hound has no use for it, and the bytes per second below cannot overflow.
    plain.extend_from_slice(&1_u32.to_le_bytes());
    plain.extend_from_slice(&(header.frame_bytes() as u32).to_le_bytes());
    plain.extend_from_slice(&(header.frame_bytes() as u16).to_le_bytes());
    plain.extend_from_slice(&(8 * bytes).to_le_bytes());
    plain.extend_from_slice(b"data");
    plain.extend_from_slice(&data_bytes.to_le_bytes());
    plain
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
    let Waveform { samples, sample_rate } = waveform;
    if !(1..=MAX_SAMPLE_RATE).contains(sample_rate) {
        return Err(refused(AudioReason::SampleRate(*sample_rate)));
    }
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
        Failure::Io(source) => Error::Io { action: "write", path: path.into(), source },
        Failure::Audio(reason) => refused(reason),
    })
}
