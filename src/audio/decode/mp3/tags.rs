//! Tags before, between and after the frames of an MP3 file.

use super::frame::Frame;
use crate::audio::id3;

/// The length of the tag at the beginning of `bytes`, as it states: ID3v2, ID3v1, or APE with a header. 0 if there is
/// none.
pub(super) fn leading_bytes(bytes: &[u8]) -> u64 {
    match bytes {
        [b'T', b'A', b'G', ..] => 128,
        // The length is in bytes 12 to 15 and excludes the header.
        [b'A', b'P', b'E', b'T', b'A', b'G', b'E', b'X', _, _, _, _, a, b, c, d, ..] => {
            32 + u64::from(u32::from_le_bytes([*a, *b, *c, *d]))
        }
        _ => id3::n_bytes(bytes),
    }
}

/// The length of the ID3v1 tag at the end of `bytes`; 0 if there is none.
pub(in crate::audio::decode) fn id3v1_bytes(bytes: &[u8]) -> usize {
    let is_there = bytes.len() >= 128 && bytes[bytes.len() - 128..].starts_with(b"TAG");
    if is_there { 128 } else { 0 }
}

/// The length of what follows the last frame: an ID3v1, APE or Lyrics3 tag, or zeros.
pub(super) fn trailing_bytes(bytes: &[u8]) -> usize {
    let mut rest = &bytes[..bytes.len() - id3v1_bytes(bytes)];
    // The last 32 bytes of an APE tag contain its length, which excludes an optional header of 32 bytes.
    if let Some(footer) = rest.len().checked_sub(32).map(|at| &rest[at..])
        && footer.starts_with(b"APETAGEX")
    {
        let n = u32::from_le_bytes([footer[12], footer[13], footer[14], footer[15]]) as usize;
        let n = n + if footer[23] & 0x80 != 0 { 32 } else { 0 };
        rest = &rest[..rest.len().saturating_sub(n)];
    }
    // A Lyrics3 tag ends in its length, as six digits, and its signature.
    if let Some(length) = rest.strip_suffix(b"LYRICS200").and_then(|rest| rest.last_chunk::<6>())
        && let Some(n) = std::str::from_utf8(length).ok().and_then(|digits| digits.parse::<usize>().ok())
    {
        rest = &rest[..rest.len().saturating_sub(n + 15)];
    }
    // A frame may also end in zeros, but not in as many as this.
    let n_zeros = rest.iter().rev().take_while(|&&byte| byte == 0).count();
    if n_zeros >= 1024 { bytes.len() - rest.len() + last_frame_gap(rest, n_zeros) } else { bytes.len() - rest.len() }
}

/// The number of zeros at the end of `bytes` that follow the last frame.
fn last_frame_gap(bytes: &[u8], n_zeros: usize) -> usize {
    let mut at = bytes.iter().take_while(|&&byte| byte == 0).count();
    while let Some(Ok(frame)) = bytes.get(at..).and_then(Frame::read) {
        at += frame.n_bytes;
    }
    if at + n_zeros >= bytes.len() { bytes.len().saturating_sub(at) } else { 0 }
}
