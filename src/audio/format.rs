//! Formats of files, recognised by their first bytes.

/// How many first bytes tell formats apart: fewer than the smallest file has in any of them.
pub(super) const START: usize = 36;

/// The formats that are read.
pub(super) const READ: &str =
    if cfg!(feature = "symphonia") { "WAV, AIFF, CAF, Ogg, FLAC, MP3, MPEG-4 or Matroska" } else { "WAV" };

/// The codecs that are read.
pub(super) const CODECS: &str = if cfg!(feature = "opus") {
    "Vorbis, Opus, FLAC, MP3, MP2, AAC-LC, ALAC and ADPCM"
} else {
    "Vorbis, FLAC, MP3, MP2, AAC-LC, ALAC and ADPCM"
};

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

/// The format of a file that begins with these bytes, if `symphonia` decodes it.
#[cfg(feature = "symphonia")]
pub(super) fn container(start: &[u8]) -> Option<Container> {
    match start {
        [b'O', b'g', b'g', b'S', ..] => Some(Container::Ogg),
        [b'f', b'L', b'a', b'C', ..] => Some(Container::Flac),
        [b'F', b'O', b'R', b'M', _, _, _, _, b'A', b'I', b'F', b'F' | b'C', ..] => Some(Container::Aiff),
        [b'c', b'a', b'f', b'f', ..] => Some(Container::Caf),
        [0x1A, 0x45, 0xDF, 0xA3, ..] => Some(Container::Matroska),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some(Container::Mp4),
        // Eleven set bits, and a layer: 0 is AAC's.
        [0xFF, second, ..] if second & 0xE0 == 0xE0 && second & 6 != 0 => Some(Container::Mpeg),
        _ if is_adpcm(start) => Some(Container::Wav),
        _ => None,
    }
}

/// Whether these bytes begin a WAV file with ADPCM, of Microsoft or IMA, whose fmt chunk comes first.
pub(super) fn is_adpcm(start: &[u8]) -> bool {
    let tag = start.get(20..22).and_then(|tag| tag.first_chunk()).map(|&tag| u16::from_le_bytes(tag));
    start.starts_with(b"RIFF") && start.get(8..16) == Some(b"WAVEfmt ") && matches!(tag, Some(0x02 | 0x11))
}

const OPUS: &str = "Ogg with Opus";

/// What a file is that the feature `symphonia` reads.
const WITH_SYMPHONIA: [&str; 8] = [
    "Ogg",
    "FLAC",
    "MP3, by its ID3 tag",
    "MPEG-4 (M4A or MP4)",
    "AIFF",
    "AIFF-C",
    "Core Audio (CAF)",
    "MP3 or another MPEG audio",
];

/// The end of a message that says that a file is `what`, if only a cargo feature is missing.
pub(super) fn with_feature(what: &str) -> &'static str {
    if what == OPUS && !cfg!(feature = "opus") {
        ", which the cargo feature `opus` reads"
    } else if !cfg!(feature = "symphonia") && WITH_SYMPHONIA.contains(&what) {
        ", which the cargo feature `symphonia` reads"
    } else {
        ""
    }
}

/// What a file is by its first bytes, as the end of "not a WAV file but …".
pub(super) fn name(start: &[u8]) -> &'static str {
    const KNOWN: [(usize, &[u8], &str); 26] = [
        (28, b"OpusHead", OPUS),
        (0, b"OggS", WITH_SYMPHONIA[0]),
        (0, b"fLaC", WITH_SYMPHONIA[1]),
        (0, b"ID3", WITH_SYMPHONIA[2]),
        (4, b"ftyp", WITH_SYMPHONIA[3]),
        (8, b"AIFF", WITH_SYMPHONIA[4]),
        (8, b"AIFC", WITH_SYMPHONIA[5]),
        (0, b"caff", WITH_SYMPHONIA[6]),
        (0, b"RIFX", "RIFX, the big-endian form of WAV"),
        (0, b"riff", "Wave64"),
        (8, b"AVI ", "AVI"),
        (8, b"WEBP", "a WebP image"),
        (0, b"RIFF", "another kind of RIFF file"),
        (0, b".snd", "Sun audio"),
        (0, b"\x1A\x45\xDF\xA3", "Matroska or WebM"),
        (0, b"wvpk", "WavPack"),
        (0, b"MAC ", "Monkey's Audio"),
        (0, b"\x30\x26\xB2\x75", "Windows Media (ASF)"),
        (0, b"#!AMR", "AMR"),
        (0, b"NIST_1A", "NIST SPHERE"),
        (0, b"PK\x03\x04", "a ZIP archive"),
        (0, b"\x1F\x8B", "gzip data"),
        (0, b"%PDF", "a PDF document"),
        (0, b"\x89PNG", "a PNG image"),
        (0, b"version https://git-lfs", "a Git LFS pointer, in place of the file itself"),
        (0, b"<", "text, perhaps a web page"),
    ];
    for (at, magic, name) in KNOWN {
        if start.get(at..at + magic.len()) == Some(magic) {
            return name;
        }
    }
    match start {
        // An MPEG frame begins with 11 set bits; layer 0 is AAC's.
        [0xFF, second, ..] if second & 0xF6 == 0xF0 => "AAC",
        [0xFF, second, ..] if second & 0xE0 == 0xE0 => WITH_SYMPHONIA[7],
        _ if start.iter().all(|&byte| byte == 0) => "zeros",
        _ if start.iter().all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => "text",
        _ => "unknown data",
    }
}
