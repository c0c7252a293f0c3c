//! Parsing and checking of Ogg pages.

use std::io::{self, Read};

use crate::audio::source::read_up_to;

/// The longest page: a header, 255 segment lengths, and 255 segments of 255 bytes.
const MAX_PAGE: usize = 27 + 255 + 255 * 255;

pub(super) struct Page {
    pub(super) is_continued: bool,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
    /// Granule position: number of samples up to the end of the page. `None` if no packet ends in it.
    pub(super) granule: Option<u64>,
    pub(super) serial: u32,
    pub(super) number: u32,
    /// Offset in the file.
    pub(super) place: u64,
    lacing: Vec<u8>,
    body: Vec<u8>,
}

/// Why a page is invalid.
pub(super) enum Bad {
    Short,
    Magic,
    Checksum,
}

impl Page {
    /// Parses the page at the beginning of `bytes`. Also returns its length.
    fn read(bytes: &[u8], place: u64) -> Result<(Self, usize), Bad> {
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
        // The checksum is computed with its own field set to zero.
        let sum = checksum(checksum(checksum(0, &page[..22]), &[0; 4]), &page[26..]);
        if sum != u32_at(22) {
            return Err(Bad::Checksum);
        }
        let granule = u64::from(u32_at(6)) | u64::from(u32_at(10)) << 32;
        let page = Self {
            is_continued: header[5] & 1 != 0,
            is_first: header[5] & 2 != 0,
            is_last: header[5] & 4 != 0,
            granule: (granule != u64::MAX).then_some(granule),
            serial: u32_at(14),
            number: u32_at(18),
            place,
            lacing: lacing.to_vec(),
            body: page[body_at..].to_vec(),
        };
        Ok((page, n_bytes))
    }

    /// The packets and parts of packets in the page, each with whether the packet ends there.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let (mut lacing, mut body) = (&self.lacing[..], &self.body[..]);
        std::iter::from_fn(move || {
            // A packet continues while its segment lengths are 255.
            let n_full = lacing.iter().take_while(|&&n| n == 255).count();
            let ends = n_full < lacing.len();
            if lacing.is_empty() {
                return None;
            }
            let n_lengths = n_full + usize::from(ends);
            let n_bytes = lacing[..n_lengths].iter().map(|&n| usize::from(n)).sum();
            let (part, rest) = body.split_at(n_bytes);
            (lacing, body) = (&lacing[n_lengths..], rest);
            Some((part, ends))
        })
    }

    /// The part of the first packet that is in this page.
    pub(super) fn first_packet(&self) -> &[u8] {
        self.parts().next().map_or(&[], |(packet, _)| packet)
    }
}

/// The pages of a byte stream.
pub(super) struct Pages {
    bytes: Box<dyn Read + Send>,
    window: Vec<u8>,
    at: usize,
    /// Offset of `window` in the file.
    place: u64,
    is_ended: bool,
}

impl Pages {
    pub(super) fn new(bytes: Box<dyn Read + Send>) -> Self {
        Self { bytes, window: Vec::new(), at: 0, place: 0, is_ended: false }
    }

    /// Offset of the next page in the file.
    pub(super) fn place(&self) -> u64 {
        self.place + self.at as u64
    }

    /// The next page, `None` at the end. The position does not change if the page is invalid.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<Page, Bad>>> {
        if !self.is_ended && self.window.len() - self.at < MAX_PAGE {
            self.window.drain(..self.at);
            self.place += self.at as u64;
            self.at = 0;
            let n_before = self.window.len();
            self.window.resize(2 * MAX_PAGE, 0);
            let n_read = read_up_to(&mut self.bytes, &mut self.window[n_before..])?;
            self.window.truncate(n_before + n_read);
            self.is_ended = self.window.len() < 2 * MAX_PAGE;
        }
        let rest = &self.window[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        Ok(Some(Page::read(rest, self.place()).map(|(page, n_bytes)| {
            self.at += n_bytes;
            page
        })))
    }

    /// Skips an invalid page: advances to the next page signature.
    pub(super) fn step(&mut self) {
        let rest = &self.window[self.at..];
        // Keep the last bytes, which may be the beginning of a signature.
        let n =
            rest.windows(4).skip(1).position(|mark| mark == b"OggS").map_or(rest.len().saturating_sub(3), |n| n + 1);
        self.at += if self.is_ended && n + 3 == rest.len() { rest.len() } else { n.clamp(1, rest.len()) };
    }
}

/// The last complete page in `bytes`.
pub(super) fn last_page(bytes: &[u8]) -> Option<Page> {
    let marks = (0..bytes.len().saturating_sub(26)).rev().filter(|&at| bytes[at..].starts_with(b"OggS"));
    marks.take(64).find_map(|at| Page::read(&bytes[at..], 0).ok()).map(|(page, _)| page)
}

/// Continues a CRC-32 (polynomial 0x04C11DB7, most significant bit first, as Ogg has it).
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
