//! Ogg, FLAC, MP3 and MPEG-4 audio, decoded by `symphonia`.
//!
//! `symphonia` is made for players, which rather skip than stop: a page with a wrong checksum, a lost frame or a file
//! that ends early are only logged, the encoder's delay in MPEG-4 files is left in, and the length of an MP3 file
//! without a header is guessed. So the structure around the packets is checked here first, one file a format, and
//! after decoding the samples are counted. The file lies in memory as a whole; beyond that, memory grows with what is
//! really decoded, which is bounded by the file's size ([`MAX_EXPANSION`]).

mod mp3;
mod mp4;
mod ogg;

use std::io::{Cursor, ErrorKind};

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;

use super::source::Failure;
use super::{AudioReason, Channels, MAX_CHANNELS, MAX_SAMPLE_RATE, Waveform};

/// Samples per channel that a byte of a file may become, where they are more than [`MAX_EXPANDED`]. Digital silence in
/// FLAC makes some 400; a crafted file could make 10000 a byte.
const MAX_EXPANSION: usize = 1024;

/// 256 MiB of samples.
const MAX_EXPANDED: usize = 1 << 26;

/// A format by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Ogg,
    Flac,
    /// Bytes that begin an ID3 tag: MP3, or FLAC with a tag before it.
    Tagged,
    Mp3,
    Mp4,
}

impl Container {
    /// The format of a file that begins with these bytes, if it is one of these.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [b'O', b'g', b'g', b'S', ..] => Some(Self::Ogg),
            [b'f', b'L', b'a', b'C', ..] => Some(Self::Flac),
            [b'I', b'D', b'3', ..] => Some(Self::Tagged),
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some(Self::Mp4),
            // Eleven set bits and layer III.
            [0xFF, second, ..] if second & 0xE6 == 0xE2 => Some(Self::Mp3),
            _ => None,
        }
    }
}

/// Where the bytes of a file come from.
pub(super) enum Input {
    /// A file or bytes.
    Seekable(Box<dyn Bytes>),
    /// What can be read once, in order.
    Stream(Box<dyn std::io::Read + Send>),
}

/// Bytes at any place.
pub(super) trait Bytes: std::io::Read + std::io::Seek + Send + Sync {}

impl<T: std::io::Read + std::io::Seek + Send + Sync> Bytes for T {}

pub(super) fn open(
    input: Input,
    container: Container,
    options: &super::ReadOptions,
) -> Result<Box<dyn super::source::Blocks + Send>, Failure> {
    let mut bytes = Vec::new();
    match input {
        Input::Seekable(mut file) => file.read_to_end(&mut bytes)?,
        Input::Stream(mut stream) => stream.read_to_end(&mut bytes)?,
    };
    Ok(Box::new(super::reader::Memory { waveform: decode(&bytes, container, options.channels)?, at: 0 }))
}

/// Decodes a whole file.
///
/// `symphonia` 0.6 panics on some crafted files, for one on fragments of MPEG-4 whose sizes overflow where overflow is
/// checked. Everything that a panic leaves behind is thrown away here, so it becomes an error like any other damage.
pub(super) fn decode(bytes: &[u8], container: Container, channels: Channels) -> Result<Waveform, Failure> {
    std::panic::catch_unwind(|| decode_unguarded(bytes, container, channels))
        .unwrap_or_else(|_| Err(malformed("the decoder broke down on it")))
}

fn decode_unguarded(bytes: &[u8], container: Container, channels: Channels) -> Result<Waveform, Failure> {
    let mut sink = Sink::new(channels, bytes.len());
    match container {
        Container::Ogg => ogg::decode(bytes, &mut sink)?,
        Container::Flac => flac(bytes, &mut sink)?,
        Container::Mp3 => mp3::decode(bytes, &mut sink)?,
        Container::Mp4 => mp4::decode(bytes, &mut sink)?,
        Container::Tagged => {
            let audio = &bytes[mp3::id3_bytes(bytes).min(bytes.len())..];
            if audio.starts_with(b"fLaC") { flac(audio, &mut sink)? } else { mp3::decode(bytes, &mut sink)? }
        }
    }
    match sink.format {
        Some((sample_rate, _)) if !sink.samples.is_empty() => Ok(Waveform::new(sink.samples, sample_rate)),
        _ => Err(AudioReason::NoSamples.into()),
    }
}

/// Decodes a FLAC stream, which may be followed by an ID3v1 tag.
fn flac(bytes: &[u8], sink: &mut Sink) -> Result<(), Failure> {
    let bytes = &bytes[..bytes.len() - mp3::id3v1_bytes(bytes)];
    let mut reader = probe(bytes, "flac")?;
    let track = reader.tracks().first().cloned().ok_or_else(|| malformed("there is no audio track"))?;
    let declared = track.num_frames;
    let mut decoder = decoder(&track)?;
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            Err(error) if is_end(&error) => break,
            Err(error) => return Err(sink.damaged(&error)),
        };
        // The reader steps over what it cannot make out.
        if packet.pts.get() != sink.n_decoded as i64 {
            let detail = format!("the next whole frame begins at sample {}", packet.pts.get());
            return Err(AudioReason::Damaged { index: sink.n_decoded, detail }.into());
        }
        sink.decode(decoder.as_mut(), &packet)?;
    }
    let found = sink.n_decoded;
    match declared {
        Some(declared) if found < declared => return Err(AudioReason::Truncated { declared, found }.into()),
        Some(declared) if found > declared => {
            return Err(malformed(format!("the header declares {declared} samples per channel, {found} are there")));
        }
        _ => {}
    }
    if decoder.finalize().verify_ok == Some(false) {
        return Err(malformed("the samples do not have the MD5 sum that the header states"));
    }
    Ok(())
}

fn malformed(detail: impl Into<String>) -> Failure {
    AudioReason::Malformed(detail.into()).into()
}

/// Whether the bytes were at an end.
fn is_end(error: &Symphonia) -> bool {
    matches!(error, Symphonia::IoError(error) if error.kind() == ErrorKind::UnexpectedEof)
}

/// Opens a container whose format is known.
fn probe<'a>(bytes: &'a [u8], extension: &str) -> Result<Box<dyn FormatReader + 'a>, Failure> {
    let stream = MediaSourceStream::new(Box::new(Cursor::new(bytes)), MediaSourceStreamOptions::default());
    let mut hint = Hint::new();
    hint.with_extension(extension);
    let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
    symphonia::default::get_probe().probe(&hint, stream, format, meta).map_err(|error| match error {
        error if is_end(&error) => malformed("the file ends within its header"),
        Symphonia::Unsupported(what) => AudioReason::Codec(what.into()).into(),
        error => malformed(detail(&error)),
    })
}

/// What `symphonia` says, without its own "malformed stream".
fn detail(error: &Symphonia) -> String {
    match error {
        Symphonia::DecodeError(what) | Symphonia::LimitError(what) | Symphonia::Unsupported(what) => (*what).into(),
        error if is_end(error) => "a packet ends too early".into(),
        error => error.to_string(),
    }
}

/// The decoder of a track.
fn decoder(track: &Track) -> Result<Box<dyn AudioDecoder>, Failure> {
    match track.codec_params.as_ref().and_then(|params| params.audio()) {
        Some(params) => decoder_for(params),
        None => Err(malformed("the audio track does not say how it is coded")),
    }
}

fn decoder_for(params: &AudioCodecParameters) -> Result<Box<dyn AudioDecoder>, Failure> {
    check_format(params.sample_rate, params.channels.as_ref().map(|channels| channels.count()))?;
    let options = AudioDecoderOptions::default().verify(true);
    symphonia::default::get_codecs().make_audio_decoder(params, &options).map_err(|error| match error {
        Symphonia::Unsupported(what) => AudioReason::Codec(what.into()).into(),
        error => malformed(detail(&error)),
    })
}

fn check_format(rate: Option<u32>, n_channels: Option<usize>) -> Result<(), Failure> {
    match (rate, n_channels) {
        (Some(rate), _) if !(1..=MAX_SAMPLE_RATE).contains(&rate) => Err(AudioReason::SampleRate(rate).into()),
        (_, Some(n)) if !(1..=usize::from(MAX_CHANNELS)).contains(&n) => {
            Err(AudioReason::ChannelCount(u16::try_from(n).unwrap_or(u16::MAX)).into())
        }
        _ => Ok(()),
    }
}

/// Takes decoded buffers, makes one channel of them, and counts.
struct Sink {
    channels: Channels,
    samples: Vec<f32>,
    /// Samples per channel that come before the audio: the delay of the encoder.
    skip: u64,
    /// Samples per channel decoded, those in `skip` among them.
    n_decoded: u64,
    /// Rate and number of channels.
    format: Option<(u32, usize)>,
    n_bytes: usize,
    interleaved: Vec<f32>,
}

impl Sink {
    fn new(channels: Channels, n_bytes: usize) -> Self {
        let (samples, interleaved) = (Vec::new(), Vec::new());
        Self { channels, samples, skip: 0, n_decoded: 0, format: None, n_bytes, interleaved }
    }

    /// Decodes a packet and takes what it holds.
    fn decode(
        &mut self,
        decoder: &mut dyn AudioDecoder,
        packet: &symphonia::core::packet::Packet,
    ) -> Result<(), Failure> {
        match decoder.decode(packet) {
            Ok(buffer) => self.take(&buffer),
            Err(Symphonia::Unsupported(what)) => Err(AudioReason::Codec(what.into()).into()),
            Err(error) => Err(self.damaged(&error)),
        }
    }

    /// The error for a packet that cannot be read or decoded.
    fn damaged(&self, error: &Symphonia) -> Failure {
        AudioReason::Damaged { index: self.n_kept(), detail: detail(error) }.into()
    }

    /// Samples per channel so far, without those that are skipped.
    fn n_kept(&self) -> u64 {
        self.n_decoded.saturating_sub(self.skip)
    }

    /// States rate and channels, which must stay as they are.
    fn set_format(&mut self, rate: u32, n_channels: usize) -> Result<(), Failure> {
        match self.format {
            Some(format) if format == (rate, n_channels) => return Ok(()),
            Some(before) => {
                let name = |(rate, n_channels)| format!("{rate} Hz, {n_channels} channels");
                let (before, after) = (name(before), name((rate, n_channels)));
                return Err(AudioReason::FormatChange { index: self.n_kept(), before, after }.into());
            }
            None => {}
        }
        check_format(Some(rate), Some(n_channels))?;
        if let Channels::One(channel) = self.channels
            && channel >= n_channels
        {
            return Err(AudioReason::NoSuchChannel { channel, count: n_channels as u16 }.into());
        }
        self.format = Some((rate, n_channels));
        Ok(())
    }

    fn take(&mut self, buffer: &GenericAudioBufferRef<'_>) -> Result<(), Failure> {
        if buffer.frames() == 0 {
            return Ok(());
        }
        let n_channels = buffer.num_planes();
        self.set_format(buffer.spec().rate(), n_channels)?;
        buffer.copy_to_vec_interleaved(&mut self.interleaved);
        let n_skipped = self.skip.saturating_sub(self.n_decoded).min(buffer.frames() as u64) as usize;
        self.n_decoded += buffer.frames() as u64;
        let n_kept = buffer.frames() - n_skipped;
        let limit = MAX_EXPANDED.max(self.n_bytes.saturating_mul(MAX_EXPANSION));
        if n_kept > limit - self.samples.len() {
            return Err(AudioReason::Expands { n_bytes: self.n_bytes as u64, limit: limit as u64 }.into());
        }

        let (first, end) = match self.channels {
            Channels::Mean => (0, n_channels),
            Channels::One(channel) => (channel, channel + 1),
        };
        let scale = 1.0 / (end - first) as f64;
        self.samples.reserve(n_kept);
        for frame in self.interleaved.chunks_exact(n_channels).skip(n_skipped) {
            // In f64 the sum of finite floats is finite.
            let sum: f64 = frame[first..end].iter().map(|&sample| f64::from(sample)).sum();
            if !sum.is_finite() {
                let at = frame[first..end].iter().position(|sample| !sample.is_finite()).unwrap_or(0);
                let index = self.samples.len() as u64;
                return Err(AudioReason::NonFinite { index, channel: first + at, value: frame[first + at] }.into());
            }
            self.samples.push((sum * scale) as f32);
        }
        Ok(())
    }

    /// Keeps the first `n` samples: the rest is the encoder's padding.
    fn keep(&mut self, n: u64) {
        self.samples.truncate(usize::try_from(n).unwrap_or(usize::MAX));
    }
}
