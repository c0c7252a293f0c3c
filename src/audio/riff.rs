//! The RIFF structure of WAV files.

use std::io::{self, Read};

use super::source::{Failure, read_up_to};
use super::{AudioReason, format};

/// Placeholders for an unknown length, also rounded down to whole frames: ffmpeg writes all ones, others 0 or the
/// largest signed number, arecord 2^31, SoX 2^31 less 4 KiB.
const PLACEHOLDERS: [u32; 5] = [0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, u32::MAX];

/// Encoding of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Int8,
    Int16,
    Int24,
    Int32,
    Float32,
    Float64,
    /// 8 bits, logarithmic (ITU-T G.711).
    ALaw,
    /// 8 bits, logarithmic, as used in North America and Japan (ITU-T G.711).
    MuLaw,
}

impl Format {
    pub(super) fn bytes(self) -> u16 {
        match self {
            Self::Int8 | Self::ALaw | Self::MuLaw => 1,
            Self::Int16 => 2,
            Self::Int24 => 3,
            Self::Int32 | Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }
}

/// The header before the samples, validated.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) format: Format,
    pub(super) n_channels: u16,
    pub(super) sample_rate: u32,
    /// Declared length of the data chunk.
    pub(super) data_bytes: u64,
    /// Whether that length is a placeholder for an unknown length.
    pub(super) is_placeholder: bool,
    /// Number of bytes before the samples.
    pub(super) n_bytes: u64,
}

impl Header {
    /// Bytes of a frame, which is one sample of every channel.
    pub(super) fn frame_bytes(&self) -> u64 {
        u64::from(self.n_channels) * u64::from(self.format.bytes())
    }

    /// Reads up to the first byte of the data chunk, in constant memory.
    pub(super) fn read(reader: &mut impl Read) -> Result<Self, Failure> {
        let reader = &mut Counted { reader, n_bytes: 0 };
        let mut start = [0; format::START];
        // Two reads: the second one is only needed to name the format of a file that is not WAV.
        let n_start = read_up_to(reader, &mut start[..12])?;
        if n_start == 0 {
            return Err(AudioReason::Empty.into());
        }
        let is_long = matches!(&start[..4], b"RF64" | b"BW64");
        let begins_right = is_long || b"RIFF".starts_with(&start[..n_start.min(4)]);
        if !begins_right || n_start == 12 && &start[8..12] != b"WAVE" {
            let n = if n_start < 12 { n_start } else { 12 + read_up_to(reader, &mut start[12..])? };
            return Err(format::unsupported(&start[..n]).into());
        }
        if n_start < 12 {
            return Err(malformed(format!("the file ends after {n_start} of the 12 bytes of the RIFF header")));
        }

        // RF64 has lengths that exceed 32 bits in a chunk of their own (EBU Tech 3306).
        let mut long_bytes = None;
        let mut format = None;
        loop {
            let mut chunk = [0; 8];
            match read_up_to(reader, &mut chunk)? {
                8 => {}
                0 => return Err(malformed("expected a data chunk, got the end of the file".into())),
                n => return Err(malformed(format!("the file ends after {n} of the 8 bytes of a chunk header"))),
            }
            let (name, n_bytes) = chunk.split_at(4);
            let n_bytes = u32_at(n_bytes, 0);
            match name {
                b"fmt " => format = Some(read_fmt(reader, n_bytes)?),
                b"data" => {
                    let (format, n_channels, sample_rate) =
                        format.ok_or_else(|| malformed("expected a fmt chunk before the data chunk".into()))?;
                    let data_bytes = long_bytes.filter(|_| n_bytes == u32::MAX).unwrap_or(n_bytes.into());
                    let frame_bytes = u32::from(n_channels) * u32::from(format.bytes());
                    let stands_for = |&length: &u32| n_bytes == length || n_bytes == length - length % frame_bytes;
                    let is_placeholder = long_bytes.is_none() && PLACEHOLDERS.iter().any(stands_for);
                    let n_bytes = reader.n_bytes;
                    return Ok(Self { format, n_channels, sample_rate, data_bytes, is_placeholder, n_bytes });
                }
                b"ds64" if is_long => {
                    // The lengths of the file and of the data chunk; other fields follow.
                    let mut lengths = [0; 16];
                    if n_bytes < 16 || read_up_to(reader, &mut lengths)? < 16 {
                        return Err(malformed("the ds64 chunk is truncated".into()));
                    }
                    skip(reader, name, n_bytes, 16)?;
                    long_bytes = lengths.last_chunk().map(|&bytes| u64::from_le_bytes(bytes));
                }
                _ => skip(reader, name, n_bytes, 0)?,
            }
        }
    }
}

/// Reads a fmt chunk: encoding, number of channels, sample rate.
fn read_fmt(reader: &mut impl Read, n_bytes: u32) -> Result<(Format, u16, u32), Failure> {
    // The length of a WAVEFORMATEXTENSIBLE; longer chunks are truncated to it.
    let mut fmt = [0; 40];
    let n_used = n_bytes.min(40) as usize;
    if n_used < 16 {
        return Err(malformed(format!("expected a fmt chunk of at least 16 bytes, got {n_bytes}")));
    }
    if read_up_to(reader, &mut fmt[..n_used])? < n_used {
        return Err(malformed("the file ends in the fmt chunk".into()));
    }
    skip(reader, b"fmt ", n_bytes, n_used as u32)?;

    let (mut tag, n_channels, sample_rate) = (u16_at(&fmt, 0), u16_at(&fmt, 2), u32_at(&fmt, 4));
    let (frame_bytes, bits) = (u16_at(&fmt, 12), u16_at(&fmt, 14));
    let extensible = tag == 0xFFFE;
    if extensible {
        if n_used < 40 {
            return Err(malformed(format!("expected an extensible fmt chunk of at least 40 bytes, got {n_bytes}")));
        }
        // The remaining bytes of the GUID are the same for all formats that have a tag.
        const TAGGED: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71];
        if fmt[26..40] != TAGGED {
            return Err(AudioReason::Encoding("an unknown extensible format".into()).into());
        }
        tag = u16_at(&fmt, 24);
    }
    if !matches!(tag, 1 | 3 | 6 | 7) {
        return Err(AudioReason::Encoding(encoding_name(tag)).into());
    }
    format::check_channels(n_channels.into())?;
    format::check_sample_rate(sample_rate)?;
    let format = match (tag, bits) {
        (1, 8) => Format::Int8,
        (1, 16) => Format::Int16,
        (1, 24) => Format::Int24,
        (1, 32) => Format::Int32,
        (3, 32) => Format::Float32,
        (3, 64) => Format::Float64,
        (6, 8) => Format::ALaw,
        (7, 8) => Format::MuLaw,
        (1, _) => return Err(AudioReason::Encoding(format!("a {bits}-bit integer")).into()),
        (3, _) => return Err(AudioReason::Encoding(format!("a {bits}-bit float")).into()),
        _ => return Err(AudioReason::Encoding(format!("{} of {bits} bits", encoding_name(tag))).into()),
    };
    // In an extensible header `bits` is the size of the container. The valid bits are its high bits, so their number
    // does not matter. The bytes per second are redundant and often wrong.
    if frame_bytes != n_channels * format.bytes() {
        let detail =
            format!("expected the block size of {n_channels} channels of {bits} bits, got {frame_bytes} bytes");
        return Err(malformed(detail));
    }
    Ok((format, n_channels, sample_rate))
}

/// Skips the rest of a chunk of `n_bytes`, of which `n_used` have been read, and its padding byte.
fn skip(reader: &mut impl Read, name: &[u8], n_bytes: u32, n_used: u32) -> Result<(), Failure> {
    let n_rest = u64::from(n_bytes - n_used);
    let n_skipped = io::copy(&mut reader.take(n_rest), &mut io::sink())?;
    if n_skipped < n_rest {
        let n_there = u64::from(n_used) + n_skipped;
        let name = name.escape_ascii();
        return Err(malformed(format!("the chunk \"{name}\" declares {n_bytes} bytes, the file holds {n_there}")));
    }
    if n_bytes % 2 == 1 {
        io::copy(&mut reader.take(1), &mut io::sink())?;
    }
    Ok(())
}

/// Counts the bytes read.
struct Counted<'a, R> {
    reader: &'a mut R,
    n_bytes: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.n_bytes += n as u64;
        Ok(n)
    }
}

/// The length of the chunk whose header is at the beginning of `bytes`; `None` if there is no chunk header.
pub(super) fn chunk(bytes: &[u8]) -> Option<u32> {
    let (name, size) = bytes.first_chunk::<8>()?.split_at(4);
    let is_name = name[0] != b' ' && name.iter().all(|byte| matches!(byte, b' '..=b'~'));
    is_name.then(|| u32_at(size, 0))
}

/// Whether `bytes` begins with the name of a chunk that often follows the samples.
pub(super) fn is_known_chunk(bytes: &[u8]) -> bool {
    const KNOWN: [&[u8; 4]; 14] = [
        b"LIST", b"id3 ", b"ID3 ", b"fact", b"cue ", b"smpl", b"inst", b"PEAK", b"bext", b"iXML", b"cart", b"JUNK",
        b"PAD ", b"_PMX",
    ];
    KNOWN.iter().any(|name| bytes.starts_with(*name))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn malformed(detail: String) -> Failure {
    AudioReason::Malformed(detail).into()
}

/// The name of a format tag.
fn encoding_name(tag: u16) -> String {
    let name = match tag {
        0x02 => "Microsoft ADPCM",
        0x06 => "A-law",
        0x07 => "mu-law",
        0x11 => "IMA ADPCM",
        0x31 => "GSM 6.10",
        0x50 => "MPEG audio",
        0x55 => "MP3",
        0xFF | 0x1610 => "AAC",
        0x161..=0x163 => "Windows Media Audio",
        0x2000 => "AC-3",
        0x674F..=0x6771 => "Vorbis",
        _ => return format!("format tag {tag:#06x}"),
    };
    name.into()
}
