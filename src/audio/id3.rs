//! ID3v2 tags, which some programs prepend to audio of any format.

/// The length of the ID3v2 tag at the beginning of `bytes`, as it states; 0 if there is none.
pub(super) fn n_bytes(bytes: &[u8]) -> u64 {
    let Some(&[b'I', b'D', b'3', _, _, flags, a, b, c, d]) = bytes.first_chunk() else { return 0 };
    let n = [a, b, c, d].iter().fold(0, |n, &byte| n << 7 | u64::from(byte & 0x7F));
    // The optional footer is a copy of the 10-byte header.
    10 + n + if flags & 0x10 != 0 { 10 } else { 0 }
}
