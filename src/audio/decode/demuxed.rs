//! Containers parsed by `symphonia`: FLAC, AIFF, CAF, Matroska, and WAV with ADPCM.
//!
//! Its reader skips what it cannot parse, and reports a truncated file as ended. Both are detected by the packets'
//! timestamps and the length that the header declares.

use std::io::Read;
use std::sync::Mutex;

use symphonia::core::codecs::audio::well_known::CODEC_ID_ALAC;
use symphonia::core::formats::Track;
use symphonia::core::io::MediaSource;
use symphonia::core::packet::Packet;

use super::input::{SeekableSource, StreamSource, into_read, into_seekable};
use super::opus::Head;
use super::{Demux, Next, Packets, Sink, SourceStatus, decoder, flac, malformed, probe};
use crate::audio::source::{Failure, Input};
use crate::audio::{AudioReason, Note};

/// Number of leading bytes of a Matroska file that contain its length.
const MATROSKA_START: usize = 128;

pub(super) struct Demuxed {
    packets: Packets,
    /// The next packet, if it has been read ahead.
    packet: Option<Packet>,
    declared: Option<u64>,
    /// Whether timestamps count samples.
    in_samples: bool,
    is_alac: bool,
    /// End of the last packet, by its timestamp.
    end: u64,
    /// For Matroska: the source, and the length that the header states (0 if unknown).
    matroska: Option<(SourceStatus, u64)>,
}

impl Demuxed {
    pub(super) fn open(
        mut input: Input,
        status: &SourceStatus,
        extension: &str,
        sink: &mut Sink,
    ) -> Result<Self, Failure> {
        if extension == "mkv" {
            let n_bytes = matroska_bytes(&input.peek(MATROSKA_START)?).unwrap_or(0);
            let source = StreamSource(Mutex::new(into_read(input, status)));
            let mut demuxed = Self::new(Box::new(source), extension, sink)?;
            demuxed.matroska = Some((status.clone(), n_bytes));
            return Ok(demuxed);
        }
        let source: Box<dyn MediaSource> = match extension {
            // Given a seekable file, `symphonia` looks for chunks at the end, even if the file is truncated.
            "aiff" | "wav" => Box::new(StreamSource(Mutex::new(into_read(input, status)))),
            // The tables of CAF may be at the end of the file.
            _ => {
                let (bytes, n_bytes) = into_seekable(input, status)?;
                Box::new(SeekableSource { bytes, n_bytes, position: 0, zeros_at: None })
            }
        };
        Self::new(source, extension, sink)
    }

    /// Opens a FLAC stream, which may be followed by an ID3v1 tag.
    pub(super) fn flac(bytes: Box<dyn Read + Send>, sink: &mut Sink) -> Result<Self, Failure> {
        Self::new(Box::new(StreamSource(Mutex::new(flac::mended(bytes)?))), "flac", sink)
    }

    fn new(source: Box<dyn MediaSource>, extension: &str, sink: &mut Sink) -> Result<Self, Failure> {
        let reader = probe(source, extension)?;
        let is_audio = |track: &&Track| track.codec_params.as_ref().is_some_and(|params| params.audio().is_some());
        let track = reader.tracks().iter().find(is_audio).or(reader.tracks().first()).cloned();
        let track = track.ok_or_else(|| malformed("there is no audio track"))?;
        let decoder = decoder(&track)?;
        let params = track.codec_params.as_ref().and_then(|params| params.audio());
        let rate = params.and_then(|params| params.sample_rate);
        let opus = params.and_then(Head::from_params);
        let format = params.and_then(|params| Some((params.sample_rate?, params.channels.as_ref()?.count())));
        if let Some((rate, channels)) = format.filter(|_| opus.is_none()) {
            sink.set_format(rate, channels)?;
        }
        // Matroska has timestamps in milliseconds.
        let in_samples = track.time_base.is_some_and(|base| (base.numer.get(), Some(base.denom.get())) == (1, rate));
        let delay = track.delay.or(opus.map(|head| head.pre_skip.into()));
        sink.encoder_delay = delay.unwrap_or(0).into();
        let declared = track.num_frames.filter(|_| in_samples);
        let is_alac = params.is_some_and(|params| params.codec == CODEC_ID_ALAC);
        let packets = Packets { reader, decoder, track_id: track.id };
        Ok(Self { packets, packet: None, declared, in_samples, is_alac, end: 0, matroska: None })
    }

    /// Checks that the stream is complete.
    fn end(&mut self, sink: &mut Sink, is_cut: bool) -> Result<bool, Failure> {
        let found = sink.n_output();
        // A truncated Matroska file ends without an error, so its length is compared with the declared one.
        let is_cut = self.matroska.as_ref().map_or(is_cut, |(status, n_bytes)| status.n_bytes() < *n_bytes);
        match self.declared {
            // ffmpeg declares the last packet of ALAC with the duration of the others.
            Some(declared) if self.is_alac && self.end == declared => {}
            Some(declared) if found < declared => return Err(AudioReason::Truncated { declared, found }.into()),
            Some(declared) if found > declared => sink.note(Note::MoreThanDeclared { declared }),
            None if is_cut => {
                let detail = "the file ends within a packet".into();
                return Err(AudioReason::EndsEarly { found, detail }.into());
            }
            _ => {}
        }
        if self.packets.decoder.finalize().verify_ok == Some(false) && sink.skipped().is_empty() {
            return Err(malformed("the MD5 sum of the samples differs from that in the header"));
        }
        Ok(false)
    }
}

impl Demux for Demuxed {
    fn advance(&mut self, sink: &mut Sink) -> Result<bool, Failure> {
        let next = match self.packet.take() {
            Some(packet) => Next::Packet(packet),
            None => self.packets.next(sink, |_| Ok(()))?,
        };
        let packet = match next {
            Next::Packet(packet) => packet,
            Next::End => return self.end(sink, false),
            Next::Cut => return self.end(sink, true),
        };
        // A gap in the timestamps means that the reader skipped bytes that it could not parse.
        let begins = u64::try_from(packet.pts.get()).unwrap_or(0);
        if self.in_samples && begins != sink.n_decoded {
            let detail = format!("the next whole packet begins at sample {begins}");
            sink.skip_over(begins.saturating_sub(sink.n_decoded), 1, detail)?;
        }
        if self.in_samples && begins != sink.n_decoded {
            return Ok(true);
        }
        self.end = begins.saturating_add(packet.dur.get());
        if let Some(detail) = sink.decode_or(self.packets.decoder.as_mut(), &packet)? {
            self.packets.decoder.reset();
            // If no packet follows, the file is truncated within this one.
            match self.packets.next(sink, |_| Ok(()))? {
                Next::Packet(next) => self.packet = Some(next),
                Next::End | Next::Cut => return self.end(sink, true),
            }
            let n_samples = if self.in_samples { packet.dur.get() } else { 0 };
            sink.skip_over(n_samples, 1, detail)?;
        }
        Ok(true)
    }

    fn declared(&self) -> Option<u64> {
        self.declared
    }
}

/// The length of a Matroska file that begins with these bytes: its header and one segment (RFC 8794, 8.1 and RFC 9559,
/// 5.1); `None` where the segment's length is unknown.
fn matroska_bytes(start: &[u8]) -> Option<u64> {
    // Variable-length integers: the leading zeros of the first byte are the number of bytes after it. All ones mean
    // unknown.
    let length_at = |at: usize| {
        let first = *start.get(at)?;
        let n = first.leading_zeros() as usize + 1;
        let bytes = start.get(at..at + n).filter(|_| n <= 8)?;
        let value = bytes.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
        let mask = (1 << (7 * n)) - 1;
        Some((value & mask, at + n)).filter(|_| value & mask != mask)
    };
    let (n_header, at) = length_at(4)?;
    let segment = at + usize::try_from(n_header).ok()?;
    if start.get(segment..segment.checked_add(4)?) != Some(&[0x18, 0x53, 0x80, 0x67]) {
        return None;
    }
    let (n_segment, at) = length_at(segment + 4)?;
    (at as u64).checked_add(n_segment)
}
