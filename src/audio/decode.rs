//! Compressed audio, decoded by `symphonia`.
//!
//! `symphonia` is made for players, which prefer skipping to stopping: it only logs a page with a wrong checksum, a
//! lost frame or a file that ends early, and does not remove the encoder delay of MPEG-4 files. So these are checked
//! here: [`ogg`] and [`mp3`] parse pages and frames themselves, [`mp4`] reads the edit list, and [`demuxed`] compares
//! the packets of the other formats with their timestamps. Packets are decoded one by one into a [`Sink`], which counts
//! samples and, if the options say so, skips damage. Memory does not grow with the length, except for the tables of
//! MPEG-4; the size of a file limits the number of samples that it may decode to.

mod demuxed;
mod flac;
mod input;
mod mp3;
mod mp4;
mod ogg;
mod opus;
mod sink;

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track};
use symphonia::core::io::{MediaSource, MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use super::format::{Container, check_channels, check_sample_rate, container};
use super::source::{Blocks, Failure, Input, is_wav};
use super::{AudioReason, Note, ReadOptions, Skipped};
use input::SourceStatus;
use sink::Sink;

/// Limit on the bytes between the tags and the first frame of MPEG audio.
const MAX_JUNK: usize = 1 << 16;

/// The format of a file, and where its audio begins.
pub(super) struct Found {
    container: Container,
    /// Offset of the first byte in the file.
    place: u64,
    /// How many of the bytes before it are neither tags nor padding.
    n_junk: usize,
}

/// Detects a format that is decoded here and skips to its first byte. `start` holds the next bytes of the file, after
/// `n_tags` bytes of tags.
pub(super) fn find(input: &mut Input, start: &[u8], n_tags: u64) -> Result<Option<Found>, Failure> {
    let after_tags = [Container::Flac, Container::Mpeg, Container::Ogg];
    if let Some(container) = container(start)
        && (n_tags == 0 || after_tags.contains(&container))
        && (container != Container::Mpeg || mp3::is_frame(start))
    {
        return Ok(Some(Found { container, place: n_tags, n_junk: 0 }));
    }
    if is_wav(start) && !(start.is_empty() && n_tags > 0) {
        return Ok(None);
    }
    let start = input.peek(MAX_JUNK)?;
    if let Some(at) = mp3::first_frame(&start) {
        input.skip(at as u64)?;
        let n_junk = if start[..at].iter().all(|&byte| byte == 0) { 0 } else { at };
        return Ok(Some(Found { container: Container::Mpeg, place: n_tags + at as u64, n_junk }));
    }
    match (n_tags, start.is_empty()) {
        (0, _) => Ok(None),
        (_, true) => Err(malformed("expected audio after the ID3 tag, got the end of the file")),
        _ => Err(malformed(format!("expected an MPEG frame at byte {n_tags}, after the ID3 tag"))),
    }
}

/// Splits a container into packets.
trait Demux: Send {
    /// Decodes the next part into the sink. False at the end, after checking that the stream was complete.
    fn advance(&mut self, sink: &mut Sink) -> Result<bool, Failure>;

    /// The number of samples that the file declares.
    fn declared(&self) -> Option<u64>;
}

/// A file, decoded block by block.
struct Decoded {
    demux: Box<dyn Demux>,
    sink: Sink,
    sample_rate: u32,
    status: SourceStatus,
    is_ended: bool,
    accept_truncated: bool,
}

/// Opens a file and decodes its first samples.
pub(super) fn open(mut input: Input, found: Found, options: &ReadOptions) -> Result<Box<dyn Blocks + Send>, Failure> {
    let status = SourceStatus::new(&mut input)?;
    let mut sink = Sink::new(options, status.clone());
    if found.n_junk > 0 {
        sink.note(Note::LeadingJunk { n_bytes: found.n_junk as u64 });
    }
    let demux = catch_decoder_panic(&status, || demux(input, &found, &status, &mut sink))?;
    let accept_truncated = options.accept_truncated;
    let mut decoded = Decoded { demux, sink, sample_rate: 0, status, is_ended: false, accept_truncated };
    while decoded.sink.n_ready() == 0 && !decoded.is_ended {
        decoded.advance()?;
    }
    match decoded.sink.format() {
        Some((sample_rate, _)) if decoded.sink.n_ready() > 0 => decoded.sample_rate = sample_rate,
        _ => return Err(AudioReason::NoSamples.into()),
    }
    Ok(Box::new(decoded))
}

fn demux(input: Input, found: &Found, status: &SourceStatus, sink: &mut Sink) -> Result<Box<dyn Demux>, Failure> {
    Ok(match found.container {
        Container::Ogg => Box::new(ogg::Ogg::open(input, status)?),
        Container::Mpeg => Box::new(mp3::Mp3::open(input::into_read(input, status), found.place, sink)?),
        Container::Mp4 => Box::new(mp4::Mp4::open(input, status, sink)?),
        Container::Flac => Box::new(demuxed::Demuxed::flac(input::into_read(input, status), sink)?),
        Container::Aiff => Box::new(demuxed::Demuxed::open(input, status, "aiff", sink)?),
        Container::Caf => Box::new(demuxed::Demuxed::open(input, status, "caf", sink)?),
        Container::Matroska => Box::new(demuxed::Demuxed::open(input, status, "mkv", sink)?),
        Container::Wav => Box::new(demuxed::Demuxed::open(input, status, "wav", sink)?),
    })
}

/// Runs a part of the decoder and turns a panic into an error.
///
/// `symphonia` 0.6 panics on some crafted files, for example on MPEG-4 fragments whose sizes overflow (with overflow
/// checks on). State that a panic leaves behind is never used again, so the panic becomes an error like any other
/// damage.
fn catch_decoder_panic<T>(status: &SourceStatus, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(malformed("the decoder panicked")));
    // The decoder sees a failed read as the end of the file.
    status.failure().map_or(result, |error| Err(error.into()))
}

impl Decoded {
    fn advance(&mut self) -> Result<(), Failure> {
        let result = catch_decoder_panic(&self.status, || self.demux.advance(&mut self.sink));
        self.is_ended = !matches!(result, Ok(true));
        if self.is_ended {
            self.sink.release();
        }
        match result {
            Err(Failure::Audio(reason @ (AudioReason::Truncated { .. } | AudioReason::EndsEarly { .. })))
                if self.accept_truncated =>
            {
                self.sink.note(Note::CutShort(reason));
                Ok(())
            }
            result => result.map(drop),
        }
    }
}

impl Blocks for Decoded {
    fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    fn declared(&self) -> Option<u64> {
        self.demux.declared()
    }

    fn next(&mut self, output: &mut Vec<f32>) -> Result<bool, Failure> {
        let mut result = Ok(());
        while self.sink.n_ready() == 0 && !self.is_ended && result.is_ok() {
            result = self.advance();
        }
        let n = self.sink.n_ready();
        self.sink.give(output);
        result.map(|()| n > 0)
    }

    fn skipped(&self) -> &[Skipped] {
        self.sink.skipped()
    }

    fn notes(&self) -> Vec<Note> {
        self.sink.notes()
    }
}

fn malformed(detail: impl Into<String>) -> Failure {
    AudioReason::Malformed(detail.into()).into()
}

/// Whether the error is the end of the input.
fn is_end(error: &Symphonia) -> bool {
    matches!(error, Symphonia::IoError(error) if error.kind() == ErrorKind::UnexpectedEof)
}

/// Opens a container of a known format.
fn probe(source: Box<dyn MediaSource>, extension: &str) -> Result<Box<dyn FormatReader>, Failure> {
    let stream = MediaSourceStream::new(source, MediaSourceStreamOptions::default());
    let mut hint = Hint::new();
    hint.with_extension(extension);
    let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
    symphonia::default::get_probe().probe(&hint, stream, format, meta).map_err(|error| match error {
        error if is_end(&error) => malformed("the file ends within its header"),
        error => refused(&error),
    })
}

/// Converts an error of opening a container or a codec.
fn refused(error: &Symphonia) -> Failure {
    match error {
        // `Unsupported` is also used for missing parts.
        Symphonia::Unsupported(what) if !what.contains("missing") => AudioReason::Codec((*what).into()).into(),
        error => malformed(detail(error)),
    }
}

/// The message of `symphonia`, without its prefix "malformed stream".
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
        None => Err(malformed("the audio track does not state its codec")),
    }
}

fn decoder_for(params: &AudioCodecParameters) -> Result<Box<dyn AudioDecoder>, Failure> {
    check_format(params.sample_rate, params.channels.as_ref().map(|channels| channels.count()))?;
    if params.codec == CODEC_ID_OPUS {
        return opus_decoder(params);
    }
    let options = AudioDecoderOptions::default().verify(true);
    symphonia::default::get_codecs().make_audio_decoder(params, &options).map_err(|error| refused(&error))
}

#[cfg(feature = "opus")]
fn opus_decoder(params: &AudioCodecParameters) -> Result<Box<dyn AudioDecoder>, Failure> {
    opus::Opus::new(params).map(|decoder| Box::new(decoder) as _).map_err(|error| refused(&error))
}

#[cfg(not(feature = "opus"))]
fn opus_decoder(_: &AudioCodecParameters) -> Result<Box<dyn AudioDecoder>, Failure> {
    Err(AudioReason::Codec("Opus without the cargo feature `opus`".into()).into())
}

fn check_format(rate: Option<u32>, n_channels: Option<usize>) -> Result<(), Failure> {
    rate.map_or(Ok(()), check_sample_rate)?;
    n_channels.map_or(Ok(()), check_channels)?;
    Ok(())
}

/// The packets of one track, in a container that `symphonia` parses.
struct Packets {
    reader: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track_id: u32,
}

/// The next item of a container.
enum Next {
    Packet(Packet),
    End,
    /// The input ended within a packet.
    Cut,
}

impl Packets {
    /// The next packet of the track. `seen` is called for the packets of all tracks.
    fn next(&mut self, sink: &Sink, mut seen: impl FnMut(&Packet) -> Result<(), Failure>) -> Result<Next, Failure> {
        loop {
            match self.reader.next_packet() {
                Ok(Some(packet)) => {
                    seen(&packet)?;
                    if packet.track_id == self.track_id {
                        return Ok(Next::Packet(packet));
                    }
                }
                Ok(None) => return Ok(Next::End),
                Err(error) if is_end(&error) => return Ok(Next::Cut),
                Err(error) => return Err(sink.damaged(detail(&error))),
            }
        }
    }

    /// Decodes a packet, which is expected to give `n_samples`.
    fn decode(&mut self, packet: &Packet, n_samples: u64, sink: &mut Sink) -> Result<(), Failure> {
        sink.decode(self.decoder.as_mut(), packet, n_samples)
    }
}
