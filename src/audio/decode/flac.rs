//! Corrections to the bytes of FLAC files that `symphonia` would reject.

use std::io::{self, Cursor, Read};

use super::mp3::tags;
use crate::audio::source::read_up_to;

/// Limit on the headers that are buffered to reach the first frame.
const MAX_HEADERS: usize = 1 << 26;

/// Removes a trailing ID3v1 tag, and corrects an invalid minimum block size.
pub(super) fn mended(bytes: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let bytes = with_block_size(bytes)?;
    Ok(Box::new(WithoutTag { bytes, pending: Vec::new(), at: 0, is_ended: false }))
}

/// Sets the minimum block size in STREAMINFO if it is below 16, as written by encoders that do not know it. In a stream
/// of fixed block size (a flag in the first frame) the minimum equals the maximum.
fn with_block_size(mut bytes: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    // The signature, the header of the first block, and the field for the minimum block size.
    let mut headers = vec![0; 12];
    let n = read_up_to(&mut bytes, &mut headers)?;
    headers.truncate(n);
    let is_known = headers.get(8..10).is_none_or(|size| u16::from_be_bytes([size[0], size[1]]) >= 16);
    let mut at = 4;
    while !is_known && at < MAX_HEADERS {
        let n_before = headers.len();
        headers.resize(n_before.max(at + 4), 0);
        if read_up_to(&mut bytes, &mut headers[n_before..])? < headers.len() - n_before {
            break;
        }
        let [kind, a, b, c] = [headers[at], headers[at + 1], headers[at + 2], headers[at + 3]];
        at += 4 + u32::from_be_bytes([0, a, b, c]) as usize;
        let n_before = headers.len();
        headers.resize(n_before.max(at + if kind & 0x80 != 0 { 2 } else { 0 }), 0);
        let n_read = read_up_to(&mut bytes, &mut headers[n_before..])?;
        headers.truncate(n_before + n_read);
        if kind & 0x80 != 0 {
            // The last bit of the first two bytes of a frame is the blocking strategy: fixed or variable block size.
            let is_variable = headers.get(at..at + 2).is_some_and(|sync| sync == [0xFF, 0xF9]);
            let smallest = if is_variable { [0, 16] } else { [headers[10], headers[11]] };
            headers[8..10].copy_from_slice(&smallest);
            break;
        }
        if n_read < headers.len() - n_before {
            break;
        }
    }
    Ok(Box::new(Cursor::new(headers).chain(bytes)))
}

/// Removes a trailing ID3v1 tag.
struct WithoutTag {
    bytes: Box<dyn Read + Send>,
    /// Bytes read from the source; those before `at` have been returned.
    pending: Vec<u8>,
    at: usize,
    is_ended: bool,
}

impl Read for WithoutTag {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The length of an ID3v1 tag.
        const HELD: usize = 128;
        while !self.is_ended && self.pending.len() - self.at <= HELD {
            self.pending.drain(..self.at);
            self.at = 0;
            let n_before = self.pending.len();
            self.pending.resize(n_before + (1 << 15), 0);
            let n = self.bytes.read(&mut self.pending[n_before..]);
            self.pending.truncate(n_before + n.as_ref().map_or(0, |&n| n));
            if n? == 0 {
                self.is_ended = true;
                self.pending.truncate(n_before - tags::id3v1_bytes(&self.pending));
            }
        }
        let held = if self.is_ended { 0 } else { HELD };
        let n = (self.pending.len() - self.at - held).min(buffer.len());
        buffer[..n].copy_from_slice(&self.pending[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
