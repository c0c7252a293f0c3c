//! Ogg: packets in pages (RFC 3533).
//!
//! Every page has a checksum, a sequence number and a granule position (the number of samples up to its end). All are
//! checked. Files may be chained (one stream after another), and other streams may be multiplexed with the first that
//! has audio. The mappings of Vorbis and FLAC to packets: Vorbis I specification, appendix A; "Ogg FLAC mapping" of
//! Xiph.

mod page;

use std::io::{Read, Seek, SeekFrom};

use symphonia::core::codecs::audio::well_known::{CODEC_ID_FLAC, CODEC_ID_OPUS, CODEC_ID_VORBIS};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder};
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use self::page::{Bad, Page, Pages};
use super::input::{SourceStatus, into_read};
use super::{Demux, Sink, decoder_for, malformed, opus};
use crate::audio::source::{Failure, Input};
use crate::audio::{AudioReason, Note};

/// Limit on the length of a packet. Headers with pictures can be long; they are not stored.
const MAX_PACKET: usize = 1 << 24;

pub(super) struct Ogg {
    pages: Pages,
    /// Whether all pages so far were first pages of streams.
    in_headers: bool,
    /// What the streams hold instead of audio, for the error.
    other: &'static str,
    link: Option<Link>,
    /// Serial number and granule position of the last page of the file.
    last: Option<(u32, u64)>,
    declared: Option<u64>,
}

/// One stream of a chain.
struct Link {
    serial: u32,
    /// Sequence number of the latest page, and whether it is marked as the last of its stream.
    number: u32,
    is_ended: bool,
    codec: Codec,
    /// Samples to drop before the audio: those still to come, and their total.
    n_early: u64,
    pre_skip: u64,
    /// Setup data for the decoder, from the headers.
    setup: Vec<u8>,
    decoder: Option<Box<dyn AudioDecoder>>,
    /// The beginning of a packet that continues in the next page.
    partial: Option<Vec<u8>>,
    /// Granule position at which the stream begins, once it is known.
    start: Option<u64>,
    /// Number of samples decoded.
    n: u64,
    /// Damage since the last page with a granule position: index into the samples that are ready, number of packets,
    /// description.
    damage: Option<(usize, u64, String)>,
}

impl Ogg {
    pub(super) fn open(mut input: Input, status: &SourceStatus) -> Result<Self, Failure> {
        let mut last = None;
        if let Input::Seekable(bytes) = &mut input {
            let (mut tail, at) = (Vec::new(), bytes.stream_position()?);
            bytes.seek(SeekFrom::Start(status.n_bytes().saturating_sub(1 << 16).max(at)))?;
            bytes.take(1 << 16).read_to_end(&mut tail)?;
            bytes.seek(SeekFrom::Start(at))?;
            last = page::last_page(&tail).and_then(|page| Some((page.serial, page.granule?)));
        }
        let pages = Pages::new(into_read(input, status));
        Ok(Self { pages, in_headers: true, other: "no audio", link: None, last, declared: None })
    }

    /// Records damaged or lost pages.
    fn damaged(&mut self, sink: &Sink, n_packets: u64, detail: String) {
        if let Some(link) = &mut self.link {
            link.partial = None;
            link.damaged(sink, n_packets, detail);
        }
    }

    /// Processes the first page of a stream.
    fn begin(&mut self, page: &Page, sink: &mut Sink) -> Result<(), Failure> {
        if !self.in_headers {
            match self.end_link(sink, None) {
                Err(Failure::Audio(reason)) if sink.skip_damage => sink.skip_over(0, 0, reason.to_string())?,
                result => result?,
            }
            (self.link, self.in_headers, self.other) = (None, true, "no audio");
        }
        match Codec::detect(page.first_packet()) {
            Ok(codec) if self.link.is_none() => {
                let link = Link::new(codec, page, sink)?;
                self.declared = self.last.filter(|(serial, _)| *serial == link.serial).map(|(_, n)| n);
                self.link = Some(link);
            }
            Ok(_) => {}
            Err(name) => self.other = name,
        }
        Ok(())
    }

    /// Processes a page other than the first of a stream.
    fn go_on(&mut self, page: &Page, sink: &mut Sink) -> Result<(), Failure> {
        self.in_headers = false;
        let Some(link) = self.link.as_mut().filter(|link| link.serial == page.serial) else { return Ok(()) };
        let place = page.place;
        let expected = link.number.wrapping_add(1);
        let fault = if link.is_ended {
            Some(format!("a page at byte {place} follows the last page of its stream"))
        } else if page.number != expected {
            Some(format!("page {} at byte {place} follows page {}", page.number, link.number))
        } else {
            page.granule
                .filter(|n| n >> 48 > 0)
                .map(|n| format!("the page at byte {place} states the granule position {}", n as i64))
        };
        if let Some(fault) = fault {
            if !sink.skip_damage {
                return Err(malformed(fault));
            }
            if page.granule.is_some_and(|n| n >> 48 > 0) {
                return Ok(()); // As lost: the next page has the wrong number.
            }
            let n_lost = page.number.wrapping_sub(expected);
            link.partial = None;
            // A damaged page has been counted already.
            let n_packets = if link.damage.is_some() { 0 } else { u64::from(n_lost).min(1) };
            link.damaged(sink, n_packets, fault);
        }
        (link.number, link.is_ended) = (page.number, page.is_last);
        link.take(page, sink)
    }

    /// Checks that a stream is complete. `fault` describes the end of a truncated file.
    fn end_link(&mut self, sink: &mut Sink, fault: Option<String>) -> Result<(), Failure> {
        let found = sink.n_decoded;
        match (&self.link, fault) {
            (None, Some(_)) => Err(malformed("the file ends within the first pages of its streams")),
            (None, None) => Err(AudioReason::Codec(format!("Ogg with {}", self.other)).into()),
            (Some(_), Some(detail)) => Err(AudioReason::EndsEarly { found, detail }.into()),
            (Some(link), None) => {
                if !link.is_ended {
                    sink.note(Note::NoEndMark);
                    sink.drop_last(sink.held_back);
                }
                Ok(())
            }
        }
    }
}

impl Demux for Ogg {
    fn advance(&mut self, sink: &mut Sink) -> Result<bool, Failure> {
        let place = self.pages.place();
        let bad = match self.pages.next()? {
            None => return self.end_link(sink, None).map(|()| false),
            Some(Ok(page)) if page.is_first => return self.begin(&page, sink).map(|()| true),
            Some(Ok(page)) => return self.go_on(&page, sink).map(|()| true),
            Some(Err(bad)) => bad,
        };
        let detail = match bad {
            Bad::Short => {
                let detail = format!("the file ends within the page at byte {place}");
                return self.end_link(sink, Some(detail)).map(|()| false);
            }
            Bad::Magic => format!("expected an Ogg page at byte {place}"),
            Bad::Checksum => format!("the page at byte {place} has a wrong checksum"),
        };
        if !sink.skip_damage {
            return Err(malformed(detail));
        }
        self.damaged(sink, 1, detail);
        self.pages.step();
        Ok(true)
    }

    fn declared(&self) -> Option<u64> {
        let start = self.link.as_ref().map_or(0, |link| link.start.unwrap_or(link.pre_skip));
        self.declared.map(|n| n.saturating_sub(start))
    }
}

impl Link {
    /// Begins a stream, from the page with its first header.
    fn new(codec: Codec, page: &Page, sink: &mut Sink) -> Result<Self, Failure> {
        let packet = page.first_packet();
        let damaged = || malformed("the headers of the audio stream are damaged");
        let mut pre_skip = 0;
        let (setup, rate, n_channels) = match codec {
            Codec::Vorbis => {
                let rate = packet.get(12..).and_then(|rest| rest.first_chunk()).map(|&bytes| u32::from_le_bytes(bytes));
                let n_channels = *packet.get(11).ok_or_else(damaged)?;
                (packet, rate.ok_or_else(damaged)?, usize::from(n_channels))
            }
            Codec::Flac => {
                // Signature, version, number of headers, "fLaC", header of a STREAMINFO block, and its 34 bytes, in
                // which 20 bits of rate and 3 of channels follow 10 bytes.
                let info = packet.get(17..51).ok_or_else(damaged)?;
                let rate = u32::from(info[10]) << 12 | u32::from(info[11]) << 4 | u32::from(info[12]) >> 4;
                (info, rate, usize::from(info[12] >> 1 & 7) + 1)
            }
            Codec::Opus => {
                let head = opus::Head::read(packet).ok_or_else(damaged)?;
                pre_skip = head.pre_skip.into();
                (packet, opus::SAMPLE_RATE, head.n_channels)
            }
        };
        sink.set_format(rate, n_channels)?;
        Ok(Self {
            serial: page.serial,
            number: page.number,
            is_ended: page.is_last,
            codec,
            n_early: pre_skip,
            pre_skip,
            setup: setup.to_vec(),
            decoder: None,
            partial: None,
            start: None,
            n: 0,
            damage: None,
        })
    }

    fn damaged(&mut self, sink: &Sink, n_packets: u64, detail: String) {
        let (_, n, _) = self.damage.get_or_insert((sink.len(), 0, detail));
        *n += n_packets;
        // Audio after the gap must not be overlap-added to that before it.
        if let Some(decoder) = &mut self.decoder {
            decoder.reset();
        }
    }

    /// Processes the packets that end in a page, and compares their number of samples with its granule position.
    fn take(&mut self, page: &Page, sink: &mut Sink) -> Result<(), Failure> {
        let (begins_at, n_before) = (sink.len(), sink.n_decoded);
        let mut has_audio = false;
        // The packet that ends first in this page began in a lost page.
        let mut is_lost = page.is_continued && self.partial.is_none();
        if !page.is_continued {
            self.partial = None;
        }
        for (part, ends) in page.parts() {
            let mut packet = self.partial.take().unwrap_or_default();
            if packet.len() + part.len() > MAX_PACKET {
                return Err(sink.damaged("a packet is longer than 16 MiB"));
            }
            packet.extend_from_slice(part);
            if !ends {
                self.partial = (!is_lost).then_some(packet);
            } else if !std::mem::take(&mut is_lost) {
                has_audio |= self.packet(packet, sink)?;
            }
        }
        let n_early = self.n_early.min(sink.n_decoded - n_before);
        sink.drop_at(begins_at, n_early as usize);
        self.n_early -= n_early;
        let produced = sink.n_decoded - n_before;
        self.n += produced;
        let Some(granule) = page.granule.filter(|_| has_audio || page.is_last) else { return Ok(()) };
        self.count(page, granule, has_audio, begins_at, produced, sink)
    }

    /// Processes a packet. Returns whether it is audio.
    fn packet(&mut self, packet: Vec<u8>, sink: &mut Sink) -> Result<bool, Failure> {
        let is_audio = match (self.codec, packet.first()) {
            (_, None) => return Ok(false),
            (Codec::Vorbis, Some(first)) => first & 1 == 0,
            (Codec::Flac, Some(first)) => *first == 0xFF,
            (Codec::Opus, Some(_)) => !packet.starts_with(b"OpusTags"),
        };
        if !is_audio {
            // The setup header of Vorbis. The other headers are not needed.
            if self.codec == Codec::Vorbis && packet[0] == 5 && self.decoder.is_none() {
                self.setup.extend_from_slice(&packet);
                self.open_decoder()?;
            }
            return Ok(false);
        }
        if self.decoder.is_none() && self.codec != Codec::Vorbis {
            self.open_decoder()?;
        }
        let Some(decoder) = &mut self.decoder else {
            return Err(malformed("the headers of the audio stream are damaged"));
        };
        let packet = Packet::new(0, Timestamp::ZERO, Duration::ZERO, packet);
        // The number of missing samples follows from the granule position of the page.
        match sink.decode_or(decoder.as_mut(), &packet)? {
            Some(detail) if sink.skip_damage => self.damaged(sink, 1, detail),
            Some(detail) => return Err(sink.damaged(detail)),
            None => {}
        }
        Ok(true)
    }

    fn open_decoder(&mut self) -> Result<(), Failure> {
        let mut params = AudioCodecParameters::new();
        params.for_codec(match self.codec {
            Codec::Vorbis => CODEC_ID_VORBIS,
            Codec::Flac => CODEC_ID_FLAC,
            Codec::Opus => CODEC_ID_OPUS,
        });
        params.with_extra_data(self.setup.as_slice().into());
        self.decoder = Some(decoder_for(&params)?);
        Ok(())
    }

    /// Compares the granule position of a page with the `produced` samples of its packets, which begin at index
    /// `begins_at`.
    fn count(
        &mut self,
        page: &Page,
        granule: u64,
        has_audio: bool,
        begins_at: usize,
        produced: u64,
        sink: &mut Sink,
    ) -> Result<(), Failure> {
        let damage = self.damage.take();
        let start = match self.start {
            Some(start) => start,
            // Unknown after a gap at the beginning, and in a stream of one page, which ends in encoder padding.
            None if damage.is_some() || page.is_last => self.pre_skip,
            // The granule position of Opus includes the samples that are dropped before the audio.
            None if self.codec == Codec::Opus => granule.saturating_sub(self.n).max(self.pre_skip),
            // A stream may be an excerpt of a longer one, or begin with the encoder delay.
            None => {
                if let Some(n_delay) = produced.checked_sub(granule) {
                    sink.drop_at(begins_at, n_delay as usize);
                    self.n = granule;
                    self.start = Some(0);
                    return Ok(());
                }
                granule - produced
            }
        };
        self.start = has_audio.then_some(start).or(self.start);
        let declared = granule.saturating_sub(start);
        let found = self.n;
        // Padding, if this turns out to be the last page.
        sink.held_back = usize::try_from(found.saturating_sub(declared)).unwrap_or(usize::MAX);
        if found < declared
            && let Some((at, n_packets, detail)) = damage
        {
            sink.skip_over_at(at.min(sink.len()), declared - found, n_packets, detail)?;
            self.n = declared;
            return Ok(());
        }
        if let Some((at, n_packets, detail)) = damage {
            sink.skip_over_at(at.min(sink.len()), 0, n_packets, detail)?;
        }
        if !page.is_last {
            return Ok(());
        }
        if found < declared {
            return Err(AudioReason::Truncated { declared, found }.into());
        }
        sink.held_back = 0;
        // The encoder padding is in the last page.
        let n_padding = found - declared;
        if n_padding > produced && !sink.skip_damage {
            return Err(malformed(format!(
                "the last page declares {declared} samples per channel, the stream holds {found}"
            )));
        }
        sink.drop_last(n_padding.min(produced) as usize);
        self.n = declared;
        Ok(())
    }
}

/// A supported codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Vorbis,
    Flac,
    Opus,
}

impl Codec {
    /// Detects the codec of a stream by its first packet. The error names an unsupported codec.
    fn detect(packet: &[u8]) -> Result<Self, &'static str> {
        const OTHER: [(&[u8], &str); 5] = [
            (b"Speex   ", "Speex"),
            (b"\x80theora", "Theora video"),
            (b"BBCD", "Dirac video"),
            (b"PCM     ", "PCM"),
            (b"fishead", "no audio"),
        ];
        match packet {
            [1, b'v', b'o', b'r', b'b', b'i', b's', ..] => Ok(Self::Vorbis),
            [0x7F, b'F', b'L', b'A', b'C', ..] => Ok(Self::Flac),
            _ if packet.starts_with(b"OpusHead") => Ok(Self::Opus),
            _ => {
                let other = OTHER.into_iter().find(|(magic, _)| packet.starts_with(magic));
                Err(other.map_or("an unknown codec", |(_, name)| name))
            }
        }
    }
}
