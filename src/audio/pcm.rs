//! Samples as they are, behind a WAV header or without one, block by block.

use std::io::{BufReader, Read};

use super::reader::RawFormat;
use super::riff::{Format, Header};
use super::source::{Blocks, Failure, read_some};
use super::{AudioReason, Channels, MAX_CHANNELS, MAX_SAMPLE_RATE, ReadOptions, SampleFormat};

/// The samples are read and decoded in parts of at most about this many bytes.
const PART_BYTES: usize = 1 << 16;

/// Interleaved samples.
pub(super) struct Pcm<R> {
    reader: BufReader<R>,
    format: Format,
    sample_rate: u32,
    mixer: Mixer,
    /// Samples per channel that the header declares, and bytes after them that are no whole one.
    declared: Option<(u64, u64)>,
    n_frames: u64,
    part: Vec<u8>,
    /// Bytes at the beginning of `part` that are no whole frame yet.
    n_over: usize,
}

impl<R: Read> Pcm<R> {
    /// Reads a WAV header; the stream may be read past the end of the samples.
    pub(super) fn wav(reader: R, options: &ReadOptions) -> Result<Self, Failure> {
        let mut reader = BufReader::new(reader);
        let header = Header::read(&mut reader)?;
        let to_the_end = options.accept_placeholder_length && header.is_placeholder;
        let frame_bytes = header.frame_bytes();
        let declared = (!to_the_end).then(|| (header.data_bytes / frame_bytes, header.data_bytes % frame_bytes));
        Self::new(reader, header.format, header.sample_rate, header.n_channels, declared, options.channels)
    }

    pub(super) fn raw(reader: R, format: &RawFormat, options: &ReadOptions) -> Result<Self, Failure> {
        if !(1..=MAX_CHANNELS).contains(&format.n_channels) {
            return Err(AudioReason::ChannelCount(format.n_channels).into());
        }
        if !(1..=MAX_SAMPLE_RATE).contains(&format.sample_rate) {
            return Err(AudioReason::SampleRate(format.sample_rate).into());
        }
        let sample_format = match format.sample_format {
            SampleFormat::Int16 => Format::Int16,
            SampleFormat::Float32 => Format::Float32,
        };
        let reader = BufReader::new(reader);
        Self::new(reader, sample_format, format.sample_rate, format.n_channels, None, options.channels)
    }

    fn new(
        reader: BufReader<R>,
        format: Format,
        sample_rate: u32,
        count: u16,
        declared: Option<(u64, u64)>,
        channels: Channels,
    ) -> Result<Self, Failure> {
        if let Channels::One(channel) = channels
            && channel >= usize::from(count)
        {
            return Err(AudioReason::NoSuchChannel { channel, count }.into());
        }
        let mixer = Mixer { channels, n_channels: count.into(), n_before: 0 };
        let frame_bytes = mixer.n_channels * usize::from(format.bytes());
        let part = vec![0; PART_BYTES / frame_bytes * frame_bytes];
        Ok(Self { reader, format, sample_rate, mixer, declared, n_frames: 0, part, n_over: 0 })
    }

    /// What the end of the stream means.
    fn end(&self, frame_bytes: usize) -> Result<bool, Failure> {
        let found = self.n_frames;
        let n_over = match self.declared {
            Some((declared, _)) if found < declared => return Err(AudioReason::Truncated { declared, found }.into()),
            Some((_, n_over)) if n_over > 0 => {
                let detail = format!("the last sample of the data chunk has {n_over} of {frame_bytes} bytes");
                return Err(AudioReason::Malformed(detail).into());
            }
            Some(_) => 0,
            None => self.n_over,
        };
        if n_over > 0 {
            let detail = format!("the last sample has {n_over} of {frame_bytes} bytes");
            return Err(AudioReason::EndsEarly { found, detail }.into());
        }
        if found == 0 { Err(AudioReason::NoSamples.into()) } else { Ok(false) }
    }
}

impl<R: Read> Blocks for Pcm<R> {
    fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    fn declared(&self) -> Option<u64> {
        self.declared.map(|(n, _)| n)
    }

    fn next(&mut self, output: &mut Vec<f32>) -> Result<bool, Failure> {
        let frame_bytes = self.mixer.n_channels * usize::from(self.format.bytes());
        let n_left = self.declared.map_or(u64::MAX, |(declared, _)| declared - self.n_frames);
        let n_wanted = usize::try_from(n_left).unwrap_or(usize::MAX).min(self.part.len() / frame_bytes) * frame_bytes;
        while self.n_over < frame_bytes {
            // Nothing is wanted after the last sample.
            match read_some(&mut self.reader, &mut self.part[self.n_over..n_wanted.max(self.n_over)])? {
                0 => return self.end(frame_bytes),
                n => self.n_over += n,
            }
        }
        let n_frames = self.n_over / frame_bytes;
        let whole = n_frames * frame_bytes;
        self.mixer.decode(&self.part[..whole], self.format, output)?;
        self.part.copy_within(whole..self.n_over, 0);
        self.n_over -= whole;
        self.n_frames += n_frames as u64;
        Ok(true)
    }
}

/// Makes one channel of several, sample by sample.
struct Mixer {
    channels: Channels,
    n_channels: usize,
    /// Samples per channel before those that are decoded.
    n_before: u64,
}

impl Mixer {
    /// Appends interleaved samples, a whole number per channel. Integers of `b` bits are divided by `2^(b-1)`.
    fn decode(&mut self, bytes: &[u8], format: Format, output: &mut Vec<f32>) -> Result<(), AudioReason> {
        match format {
            Format::Int8 => self.mix(bytes, output, 1.0 / 128.0, |[a]| f64::from(a) - 128.0),
            Format::Int16 => self.mix(bytes, output, 1.0 / 32_768.0, |b| f64::from(i16::from_le_bytes(b))),
            // As the high bytes of 32 bits, for the sign.
            Format::Int24 => {
                self.mix(bytes, output, INT32_SCALE, |[a, b, c]| f64::from(i32::from_le_bytes([0, a, b, c])))
            }
            Format::Int32 => self.mix(bytes, output, INT32_SCALE, |b| f64::from(i32::from_le_bytes(b))),
            Format::Float32 => self.mix(bytes, output, 1.0, |b| f64::from(f32::from_le_bytes(b))),
        }
    }

    /// As [`decode`](Self::decode) for samples of `N` bytes, whose value is `scale` times `value`.
    fn mix<const N: usize>(
        &mut self,
        bytes: &[u8],
        output: &mut Vec<f32>,
        scale: f64,
        value: impl Fn([u8; N]) -> f64,
    ) -> Result<(), AudioReason> {
        let (samples, _) = bytes.as_chunks::<N>();
        output.reserve(samples.len() / self.n_channels);
        let (first, end, scale) = match self.channels {
            Channels::Mean => (0, self.n_channels, scale / self.n_channels as f64),
            Channels::One(channel) => (channel, channel + 1, scale),
        };
        for (i, frame) in samples.chunks_exact(self.n_channels).enumerate() {
            // In f64 the sum of integers is exact, and the sum of finite floats is finite.
            let sum: f64 = frame[first..end].iter().map(|&sample| value(sample)).sum();
            if !sum.is_finite() {
                let at = frame[first..end].iter().position(|&sample| !value(sample).is_finite()).unwrap_or(0);
                let (index, channel) = (self.n_before + i as u64, first + at);
                return Err(AudioReason::NonFinite { index, channel, value: value(frame[channel]) as f32 });
            }
            output.push((sum * scale) as f32);
        }
        self.n_before += (samples.len() / self.n_channels) as u64;
        Ok(())
    }
}

const INT32_SCALE: f64 = 1.0 / 2_147_483_648.0;
