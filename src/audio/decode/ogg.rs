//! Ogg: pages of packets (RFC 3533).
//!
//! Every page has a checksum, a number and, as its granule position, the count of samples up to its end. All of them
//! are checked, which `symphonia` does not do as an error. Files may be chained, one stream after the other; each link
//! of the chain is decoded by itself.

use super::{Sink, decoder, is_end, malformed, probe};
use crate::audio::AudioReason;
use crate::audio::source::Failure;

/// A run of bytes with one stream that can be decoded.
struct Link<'a> {
    bytes: &'a [u8],
    /// The stream's serial number.
    serial: u32,
    /// Granule position at the end of the stream, and whether its last page is marked as such.
    end: u64,
    is_ended: bool,
    /// Number of the stream's last page.
    n_page: u32,
}

pub(super) fn decode(bytes: &[u8], sink: &mut Sink) -> Result<(), Failure> {
    let mut rest = bytes;
    let mut n_before = 0;
    while !rest.is_empty() {
        let (link, fault) = scan(rest, bytes.len() - rest.len())?;
        decode_link(&link, fault, sink, &mut n_before)?;
        rest = &rest[link.bytes.len()..];
    }
    Ok(())
}

/// Decodes one link; `fault` is what is wrong after its pages, if anything is.
fn decode_link(link: &Link<'_>, fault: Option<String>, sink: &mut Sink, n_before: &mut u64) -> Result<(), Failure> {
    let mut reader = match (probe(link.bytes, "ogg"), &fault) {
        (Err(_), Some(detail)) => {
            return Err(AudioReason::EndsEarly { found: sink.n_decoded, detail: detail.clone() }.into());
        }
        (reader, _) => reader?,
    };
    let track = reader.tracks().iter().find(|track| track.id == link.serial).cloned();
    let track = track.ok_or_else(|| malformed("the headers of the audio stream are damaged"))?;
    let mut decoder = decoder(&track)?;
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            Err(error) if is_end(&error) => break,
            Err(error) => return Err(sink.damaged(&error)),
        };
        if packet.track_id == link.serial {
            sink.decode(decoder.as_mut(), &packet)?;
        }
    }
    let found = sink.n_decoded - *n_before;
    *n_before = sink.n_decoded;
    if let Some(detail) = fault {
        return Err(AudioReason::EndsEarly { found: sink.n_decoded, detail }.into());
    }
    if !link.is_ended {
        let detail = format!("page {} is not marked as the last, and no other follows", link.n_page);
        return Err(AudioReason::EndsEarly { found: sink.n_decoded, detail }.into());
    }
    let declared = link.end.saturating_sub(u64::try_from(track.start_ts.get()).unwrap_or(0));
    if found < declared {
        return Err(AudioReason::Truncated { declared, found }.into());
    }
    if found > declared {
        return Err(malformed(format!("the last page declares {declared} samples per channel, {found} are there")));
    }
    Ok(())
}

/// Checks the pages of the first link of `bytes`, which stand at `offset` in the file. A file that ends within a page
/// is a fault that is told after what is there was counted.
fn scan(bytes: &[u8], offset: usize) -> Result<(Link<'_>, Option<String>), Failure> {
    let mut link: Option<Link<'_>> = None;
    let mut other = "no audio";
    let (mut at, mut in_headers, mut fault) = (0, true, None);
    while at < bytes.len() {
        let place = offset + at;
        let page = match Page::read(&bytes[at..]) {
            Ok(page) => page,
            Err(Bad::Short) => {
                fault = Some(format!("the file ends within the page at byte {place}"));
                break;
            }
            Err(Bad::Magic) => return Err(malformed(format!("there is no Ogg page at byte {place}"))),
            Err(Bad::Checksum) => return Err(malformed(format!("the page at byte {place} has a wrong checksum"))),
        };
        if page.is_first {
            if !in_headers {
                break; // The next link.
            }
            match codec(page.body) {
                (true, _) if link.is_none() => {
                    let serial = page.serial;
                    link = Some(Link { bytes, serial, end: 0, is_ended: false, n_page: page.number });
                }
                (true, _) => {}
                (false, name) => other = name,
            }
        } else {
            in_headers = false;
            if let Some(link) = link.as_mut().filter(|link| link.serial == page.serial) {
                if link.is_ended {
                    return Err(malformed(format!("a page at byte {place} follows the last page of its stream")));
                }
                if page.number != link.n_page.wrapping_add(1) {
                    let detail = format!("page {} at byte {place} follows page {}", page.number, link.n_page);
                    return Err(malformed(detail));
                }
                link.n_page = page.number;
            }
        }
        if let Some(link) = link.as_mut().filter(|link| link.serial == page.serial) {
            link.is_ended = page.is_last;
            // All ones: no packet ends in this page.
            if page.granule != u64::MAX {
                if page.granule >> 48 > 0 {
                    return Err(malformed(format!("the page at byte {place} claims sample {}", page.granule as i64)));
                }
                link.end = page.granule;
            }
        }
        at += page.n_bytes;
    }
    match link {
        Some(link) => Ok((Link { bytes: if fault.is_some() { bytes } else { &bytes[..at] }, ..link }, fault)),
        None if fault.is_some() => Err(malformed("the file ends within its first pages")),
        None => Err(AudioReason::Codec(format!("Ogg with {other}")).into()),
    }
}

/// Whether a stream that begins with this packet can be decoded, and its name.
fn codec(packet: &[u8]) -> (bool, &'static str) {
    const KNOWN: [(&[u8], bool, &str); 8] = [
        (b"\x01vorbis", true, "Vorbis"),
        (b"\x7FFLAC", true, "FLAC"),
        (b"OpusHead", false, "Opus"),
        (b"Speex   ", false, "Speex"),
        (b"\x80theora", false, "Theora video"),
        (b"BBCD", false, "Dirac video"),
        (b"PCM     ", false, "PCM"),
        (b"fishead", false, "no audio"),
    ];
    let found = KNOWN.into_iter().find(|(magic, ..)| packet.starts_with(magic));
    found.map_or((false, "an unknown codec"), |(_, is_read, name)| (is_read, name))
}

struct Page<'a> {
    is_first: bool,
    is_last: bool,
    granule: u64,
    serial: u32,
    number: u32,
    body: &'a [u8],
    n_bytes: usize,
}

enum Bad {
    Short,
    Magic,
    Checksum,
}

impl<'a> Page<'a> {
    /// The page that `bytes` begin with.
    fn read(bytes: &'a [u8]) -> Result<Self, Bad> {
        const HEADER: usize = 27;
        let n = bytes.len().min(5);
        if bytes[..n] != b"OggS\0"[..n] {
            return Err(Bad::Magic);
        }
        let header = bytes.get(..HEADER).ok_or(Bad::Short)?;
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let lacing = bytes.get(HEADER..HEADER + usize::from(header[26])).ok_or(Bad::Short)?;
        let body_at = HEADER + lacing.len();
        let n_bytes = body_at + lacing.iter().map(|&n| usize::from(n)).sum::<usize>();
        let page = bytes.get(..n_bytes).ok_or(Bad::Short)?;
        // The checksum is that of the page with zeros in its place.
        let sum = checksum(checksum(checksum(0, &page[..22]), &[0; 4]), &page[26..]);
        if sum != u32_at(22) {
            return Err(Bad::Checksum);
        }
        let granule = u64::from(u32_at(6)) | u64::from(u32_at(10)) << 32;
        let (is_first, is_last) = (header[5] & 2 != 0, header[5] & 4 != 0);
        Ok(Self { is_first, is_last, granule, serial: u32_at(14), number: u32_at(18), body: &page[body_at..], n_bytes })
    }
}

/// Continues a CRC-32 with the polynomial 0x04C11DB7, highest bit first.
fn checksum(sum: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut sum = (i as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                sum = if sum >> 31 == 1 { sum << 1 ^ 0x04C1_1DB7 } else { sum << 1 };
                bit += 1;
            }
            table[i] = sum;
            i += 1;
        }
        table
    };
    bytes.iter().fold(sum, |sum, &byte| sum << 8 ^ TABLE[((sum >> 24) as u8 ^ byte) as usize])
}
