//! File formats, recognised by their first bytes.

use super::{AudioReason, MAX_CHANNELS, MAX_SAMPLE_RATE};

/// Number of leading bytes that identify a format. The smallest file of any format has more.
pub(super) const START: usize = 36;

/// A format that `symphonia` decodes.
#[cfg(feature = "symphonia")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Aiff,
    Caf,
    Flac,
    /// Matroska and WebM.
    Matroska,
    /// Frames of MPEG audio.
    Mpeg,
    Mp4,
    Ogg,
    /// WAV with compressed samples.
    Wav,
}

/// The format of a file that begins with these bytes; `None` if `symphonia` does not decode it.
#[cfg(feature = "symphonia")]
pub(super) fn container(start: &[u8]) -> Option<Container> {
    match start {
        [b'O', b'g', b'g', b'S', ..] => Some(Container::Ogg),
        [b'f', b'L', b'a', b'C', ..] => Some(Container::Flac),
        [b'F', b'O', b'R', b'M', _, _, _, _, b'A', b'I', b'F', b'F' | b'C', ..] => Some(Container::Aiff),
        [b'c', b'a', b'f', b'f', ..] => Some(Container::Caf),
        [0x1A, 0x45, 0xDF, 0xA3, ..] => Some(Container::Matroska),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some(Container::Mp4),
        // Eleven set bits, and a layer other than 0, which is AAC.
        [0xFF, second, ..] if second & 0xE0 == 0xE0 && second & 6 != 0 => Some(Container::Mpeg),
        _ if is_adpcm(start) => Some(Container::Wav),
        _ => None,
    }
}

/// Whether the bytes begin a WAV file with ADPCM (Microsoft or IMA), if its fmt chunk comes first.
pub(super) fn is_adpcm(start: &[u8]) -> bool {
    let tag = start.get(20..22).and_then(|tag| tag.first_chunk()).map(|&tag| u16::from_le_bytes(tag));
    start.starts_with(b"RIFF") && start.get(8..16) == Some(b"WAVEfmt ") && matches!(tag, Some(0x02 | 0x11))
}

/// The cargo features that add formats.
const OPUS: &str = "opus";
const SYMPHONIA: &str = "symphonia";

/// The error for a format that this build does not read. It names the cargo feature that adds it, if there is one.
pub(super) fn unsupported(start: &[u8]) -> AudioReason {
    let (format, feature) = name(start);
    let feature = feature.filter(|&feature| match feature {
        OPUS => !cfg!(feature = "opus"),
        _ => !cfg!(feature = "symphonia"),
    });
    AudioReason::UnsupportedFormat { format, feature }
}

/// Rejects a rate of 0 Hz or above [`MAX_SAMPLE_RATE`].
pub(super) fn check_sample_rate(sample_rate: u32) -> Result<(), AudioReason> {
    match sample_rate {
        1..=MAX_SAMPLE_RATE => Ok(()),
        _ => Err(AudioReason::SampleRate(sample_rate)),
    }
}

/// Rejects 0 channels, and more than [`MAX_CHANNELS`].
pub(super) fn check_channels(n_channels: usize) -> Result<(), AudioReason> {
    match u16::try_from(n_channels).unwrap_or(u16::MAX) {
        1..=MAX_CHANNELS => Ok(()),
        n_channels => Err(AudioReason::ChannelCount(n_channels)),
    }
}

/// The format by its first bytes, as it follows "expected a WAV file, got", and the cargo feature that reads it.
fn name(start: &[u8]) -> (&'static str, Option<&'static str>) {
    const KNOWN: [(usize, &[u8], &str, Option<&str>); 26] = [
        (28, b"OpusHead", "Ogg with Opus", Some(OPUS)),
        (0, b"OggS", "Ogg", Some(SYMPHONIA)),
        (0, b"fLaC", "FLAC", Some(SYMPHONIA)),
        (0, b"ID3", "MP3 (by its ID3 tag)", Some(SYMPHONIA)),
        (4, b"ftyp", "MPEG-4 (M4A or MP4)", Some(SYMPHONIA)),
        (8, b"AIFF", "AIFF", Some(SYMPHONIA)),
        (8, b"AIFC", "AIFF-C", Some(SYMPHONIA)),
        (0, b"caff", "Core Audio (CAF)", Some(SYMPHONIA)),
        (0, b"RIFX", "RIFX, the big-endian form of WAV", None),
        (0, b"riff", "Wave64", None),
        (8, b"AVI ", "AVI", None),
        (8, b"WEBP", "a WebP image", None),
        (0, b"RIFF", "another kind of RIFF file", None),
        (0, b".snd", "Sun audio", None),
        (0, b"\x1A\x45\xDF\xA3", "Matroska or WebM", Some(SYMPHONIA)),
        (0, b"wvpk", "WavPack", None),
        (0, b"MAC ", "Monkey's Audio", None),
        (0, b"\x30\x26\xB2\x75", "Windows Media (ASF)", None),
        (0, b"#!AMR", "AMR", None),
        (0, b"NIST_1A", "NIST SPHERE", None),
        (0, b"PK\x03\x04", "a ZIP archive", None),
        (0, b"\x1F\x8B", "gzip data", None),
        (0, b"%PDF", "a PDF document", None),
        (0, b"\x89PNG", "a PNG image", None),
        (0, b"version https://git-lfs", "a Git LFS pointer instead of the file", None),
        (0, b"<", "text, possibly a web page", None),
    ];
    for (at, magic, name, feature) in KNOWN {
        if start.get(at..at + magic.len()) == Some(magic) {
            return (name, feature);
        }
    }
    match start {
        // An MPEG frame begins with 11 set bits; layer 0 is AAC.
        [0xFF, second, ..] if second & 0xF6 == 0xF0 => ("AAC", None),
        [0xFF, second, ..] if second & 0xE0 == 0xE0 => ("MP3 or another MPEG audio", Some(SYMPHONIA)),
        _ if start.iter().all(|&byte| byte == 0) => ("zeros", None),
        _ if start.iter().all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => ("text", None),
        _ => ("unknown data", None),
    }
}
