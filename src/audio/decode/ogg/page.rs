//! Pages of Ogg: cut out of a stream, and checked.

use std::io::{self, Read};

use crate::audio::source::read_up_to;

/// The longest page: a header, 255 lengths, 255 bytes each.
const MAX_PAGE: usize = 27 + 255 + 255 * 255;

pub(super) struct Page {
    pub(super) is_continued: bool,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
    /// Samples up to the end of the page; `None` if no packet ends in it.
    pub(super) granule: Option<u64>,
    pub(super) serial: u32,
    pub(super) number: u32,
    /// Where it begins in the file.
    pub(super) place: u64,
    lacing: Vec<u8>,
    body: Vec<u8>,
}

/// What is wrong with a page.
pub(super) enum Bad {
    Short,
    Magic,
    Checksum,
}

impl Page {
    /// The page that `bytes` begin with, and its length.
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
        // The checksum is that of the page with zeros in its place.
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

    /// The parts of packets in the page, and whether the packet ends with the part.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let (mut lacing, mut body) = (&self.lacing[..], &self.body[..]);
        std::iter::from_fn(move || {
            // A packet goes on as long as its lengths are 255.
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

    /// The first packet of the page, as far as it is in it.
    pub(super) fn first_packet(&self) -> &[u8] {
        self.parts().next().map_or(&[], |(packet, _)| packet)
    }
}

/// The pages of a stream of bytes.
pub(super) struct Pages {
    bytes: Box<dyn Read + Send>,
    window: Vec<u8>,
    at: usize,
    /// Where in the file `window` begins.
    place: u64,
    is_ended: bool,
}

impl Pages {
    pub(super) fn new(bytes: Box<dyn Read + Send>) -> Self {
        Self { bytes, window: Vec::new(), at: 0, place: 0, is_ended: false }
    }

    /// Where the next page begins.
    pub(super) fn place(&self) -> u64 {
        self.place + self.at as u64
    }

    /// The next page, `None` at the end. After a bad one it stays where it is.
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

    /// After a bad page, goes on to the next place that looks like one.
    pub(super) fn step(&mut self) {
        let rest = &self.window[self.at..];
        // A part of the mark at the end stays for when there is more.
        let n =
            rest.windows(4).skip(1).position(|mark| mark == b"OggS").map_or(rest.len().saturating_sub(3), |n| n + 1);
        self.at += if self.is_ended && n + 3 == rest.len() { rest.len() } else { n.clamp(1, rest.len()) };
    }
}

/// The last whole page in `bytes`.
pub(super) fn last_page(bytes: &[u8]) -> Option<Page> {
    let marks = (0..bytes.len().saturating_sub(26)).rev().filter(|&at| bytes[at..].starts_with(b"OggS"));
    marks.take(64).find_map(|at| Page::read(&bytes[at..], 0).ok()).map(|(page, _)| page)
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
