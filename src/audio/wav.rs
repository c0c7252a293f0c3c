//! WAV files. They are written by `hound`, and read here. Other formats are told apart by their first bytes.
//!
//! `hound`'s reader refuses files that are in order (chunks of odd size before the samples, 32-bit integers behind an
//! 18-byte header), takes the low 24 bits of extensible 24-in-32-bit samples where the format puts them high, cannot
//! tell a file that is cut short from one that cannot be read, and spends some 50 times as long on a sample. It is the
//! reference in the tests. Nothing is allocated by what a header claims.

#[cfg(feature = "symphonia")]
use std::io::Cursor;
use std::io::{self, BufReader, Read};
use std::path::Path;

#[cfg(feature = "symphonia")]
use super::decode::Container;
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

/// How a file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Which channels become the waveform. Default: the mean of all.
    pub channels: Channels,
    /// For WAV files: what a data length of 0 or 0xFFFF_FFFF means. Programs that write to a pipe (`ffmpeg -f wav -`) put such a
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
    #[cfg(feature = "symphonia")]
    let mut reader = {
        let mut start = [0; 12];
        let n = read_up_to(&mut reader, &mut start).map_err(|error| failed(error.into()))?;
        let whole = Cursor::new(start).take(n as u64).chain(reader);
        match Container::of(&start[..n]) {
            Some(container) => return read_all(whole, container, options.channels).map_err(failed),
            None => whole,
        }
    };
    let header = Header::read(&mut reader).map_err(failed)?;
    let samples = read_samples(reader, &header, options).map_err(failed)?;
    Ok(Waveform::new(samples, header.sample_rate))
}

/// Reads a file of another format to its end, and decodes it.
#[cfg(feature = "symphonia")]
fn read_all(mut reader: impl Read, container: Container, channels: Channels) -> Result<Waveform, Failure> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    super::decode::decode(&bytes, container, channels)
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
    let mut part = vec![0; (frames_in_part * frame_bytes) as usize];
    let (mut n_frames, mut n_over) = (0, 0);
    while n_frames < declared {
        let n_wanted = (declared - n_frames).min(frames_in_part);
        let n_bytes = read_up_to(&mut reader, &mut part[..(n_wanted * frame_bytes) as usize])? as u64;
        let n_whole = n_bytes / frame_bytes;
        mixer.decode(&part[..(n_whole * frame_bytes) as usize], header.format)?;
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

/// Makes one channel of several, sample by sample.
struct Mixer {
    channels: Channels,
    n_channels: usize,
    samples: Vec<f32>,
}

impl Mixer {
    /// Appends interleaved samples, a whole number per channel. Integers of `b` bits are divided by `2^(b-1)`.
    fn decode(&mut self, bytes: &[u8], format: Format) -> Result<(), AudioReason> {
        match format {
            Format::Int8 => self.mix(bytes, 1.0 / 128.0, |[a]| f64::from(a) - 128.0),
            Format::Int16 => self.mix(bytes, 1.0 / 32_768.0, |b| f64::from(i16::from_le_bytes(b))),
            // As the high bytes of 32 bits, for the sign.
            Format::Int24 => self.mix(bytes, INT32_SCALE, |[a, b, c]| f64::from(i32::from_le_bytes([0, a, b, c]))),
            Format::Int32 => self.mix(bytes, INT32_SCALE, |b| f64::from(i32::from_le_bytes(b))),
            Format::Float32 => self.mix(bytes, 1.0, |b| f64::from(f32::from_le_bytes(b))),
        }
    }

    /// As [`decode`](Self::decode) for samples of `N` bytes, whose value is `scale` times `value`.
    fn mix<const N: usize>(
        &mut self,
        bytes: &[u8],
        scale: f64,
        value: impl Fn([u8; N]) -> f64,
    ) -> Result<(), AudioReason> {
        let (samples, _) = bytes.as_chunks::<N>();
        self.samples.reserve(samples.len() / self.n_channels);
        let (first, end, scale) = match self.channels {
            Channels::Mean => (0, self.n_channels, scale / self.n_channels as f64),
            Channels::One(channel) => (channel, channel + 1, scale),
        };
        for frame in samples.chunks_exact(self.n_channels) {
            // In f64 the sum of integers is exact, and the sum of finite floats is finite.
            let sum: f64 = frame[first..end].iter().map(|&sample| value(sample)).sum();
            if !sum.is_finite() {
                return Err(self.non_finite(&frame[first..end], first, value));
            }
            self.samples.push((sum * scale) as f32);
        }
        Ok(())
    }

    /// Which sample of a frame's channels from `first` on is not finite.
    fn non_finite<const N: usize>(
        &self,
        frame: &[[u8; N]],
        first: usize,
        value: impl Fn([u8; N]) -> f64,
    ) -> AudioReason {
        let at = frame.iter().position(|&sample| !value(sample).is_finite()).unwrap_or(0);
        let index = self.samples.len() as u64;
        AudioReason::NonFinite { index, channel: first + at, value: value(frame[at]) as f32 }
    }
}

const INT32_SCALE: f64 = 1.0 / 2_147_483_648.0;

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
