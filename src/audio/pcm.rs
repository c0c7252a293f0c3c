//! Uncompressed samples, with or without a WAV header, read block by block.

use std::io::{BufReader, Read, Seek, SeekFrom};

use super::format::{check_channels, check_sample_rate};
use super::mixer::Mixer;
use super::reader::RawFormat;
use super::riff::{self, Format, Header};
use super::source::{Blocks, Bytes, Failure, read_some, read_up_to};
use super::{AudioReason, Note, ReadOptions, SampleFormat};

/// Approximate limit on the bytes that are read and decoded at once.
const PART_BYTES: usize = 1 << 16;

/// A reader of interleaved samples.
pub(super) struct Pcm<R> {
    reader: BufReader<R>,
    format: Format,
    sample_rate: u32,
    mixer: Mixer,
    length: Length,
    n_frames: u64,
    part: Vec<u8>,
    /// Bytes at the beginning of `part` that belong to an incomplete frame.
    n_over: usize,
    notes: Vec<Note>,
}

/// The length of the sample data.
#[derive(Clone, Copy)]
enum Length {
    Declared {
        n_bytes: u64,
        /// Whether `n_bytes` is a placeholder for an unknown length.
        is_placeholder: bool,
        /// Number of bytes that may be missing at the end.
        n_optional: u64,
        /// Whether more samples may follow those that are declared.
        is_doubtful: bool,
    },
    ToTheEnd {
        /// Whether the last frame may be incomplete.
        is_cut: bool,
    },
}

impl<R: Read> Pcm<R> {
    /// Reads a WAV header from a stream. The stream may be read beyond the end of the samples.
    pub(super) fn wav(reader: R, options: &ReadOptions) -> Result<Self, Failure> {
        let mut reader = BufReader::new(reader);
        let header = Header::read(&mut reader)?;
        match header.data_bytes {
            _ if header.is_placeholder && options.accept_placeholder_length => {
                Self::to_the_end(reader, &header, options, options.accept_truncated)
            }
            0 if header.is_placeholder => Err(AudioReason::UnknownLength { declared_bytes: 0, found: 0 }.into()),
            _ => Self::declared(reader, &header, options, !header.is_placeholder),
        }
    }

    /// A reader of the samples that the header declares.
    fn declared(
        reader: BufReader<R>,
        header: &Header,
        options: &ReadOptions,
        is_doubtful: bool,
    ) -> Result<Self, Failure> {
        let n_optional = match options {
            ReadOptions { accept_truncated: true, .. } => u64::MAX,
            // Some programs include the header in the data size.
            ReadOptions { skip_damage: true, .. } => header.n_bytes,
            _ => 0,
        };
        let (n_bytes, is_placeholder) = (header.data_bytes, header.is_placeholder);
        let length = Length::Declared { n_bytes, is_placeholder, n_optional, is_doubtful };
        Self::new(reader, header.format, header.sample_rate, header.n_channels, length, options)
    }

    /// A reader of everything after the header.
    fn to_the_end(reader: BufReader<R>, header: &Header, options: &ReadOptions, is_cut: bool) -> Result<Self, Failure> {
        let length = Length::ToTheEnd { is_cut };
        let mut pcm = Self::new(reader, header.format, header.sample_rate, header.n_channels, length, options)?;
        pcm.notes.push(match header.is_placeholder {
            true => Note::UnknownLength { declared_bytes: header.data_bytes },
            false => Note::MoreThanDeclared { declared: header.data_bytes / header.frame_bytes() },
        });
        Ok(pcm)
    }

    pub(super) fn raw(reader: R, format: &RawFormat, options: &ReadOptions) -> Result<Self, Failure> {
        check_channels(format.n_channels.into())?;
        check_sample_rate(format.sample_rate)?;
        let sample_format = match format.sample_format {
            SampleFormat::Int16 => Format::Int16,
            SampleFormat::Float32 => Format::Float32,
        };
        let length = Length::ToTheEnd { is_cut: options.accept_truncated };
        Self::new(BufReader::new(reader), sample_format, format.sample_rate, format.n_channels, length, options)
    }

    fn new(
        reader: BufReader<R>,
        format: Format,
        sample_rate: u32,
        n_channels: u16,
        length: Length,
        options: &ReadOptions,
    ) -> Result<Self, Failure> {
        let mixer = Mixer::new(options.channels, n_channels.into())?;
        let frame_bytes = mixer.n_channels() * usize::from(format.bytes());
        let part = vec![0; PART_BYTES / frame_bytes * frame_bytes];
        Ok(Self { reader, format, sample_rate, mixer, length, n_frames: 0, part, n_over: 0, notes: Vec::new() })
    }

    fn frame_bytes(&self) -> usize {
        self.mixer.n_channels() * usize::from(self.format.bytes())
    }

    /// At the end of the declared samples: whether more samples follow, rather than other chunks.
    fn goes_on(&mut self, n_bytes: u64) -> bool {
        let n_padding = (n_bytes % 2) as usize;
        // Ignore read errors here: all declared samples have been read.
        let n = read_up_to(&mut self.reader, &mut self.part[..n_padding + 8]).unwrap_or(0);
        let bytes = &self.part[..n];
        let is_other = |bytes: &[u8]| bytes.is_empty() || is_trailer(bytes) || riff::chunk(bytes).is_some();
        // Some programs don't pad chunks of odd size.
        if is_other(&bytes[n_padding.min(n)..]) || is_other(bytes) {
            return false;
        }
        self.n_over = n;
        self.notes.push(Note::MoreThanDeclared { declared: self.n_frames });
        self.length = Length::ToTheEnd { is_cut: true };
        true
    }

    /// Checks that the stream is complete.
    fn end(&mut self) -> Result<bool, Failure> {
        let (found, n_over) = (self.n_frames, self.n_over as u64);
        let frame_bytes = self.frame_bytes() as u64;
        match self.length {
            Length::Declared { n_bytes, is_placeholder, n_optional, .. } => {
                let (declared, n_odd) = (n_bytes / frame_bytes, n_bytes % frame_bytes);
                if found < declared {
                    let reason = match is_placeholder {
                        true => AudioReason::UnknownLength { declared_bytes: n_bytes, found },
                        false => AudioReason::Truncated { declared, found },
                    };
                    if n_bytes - found * frame_bytes - n_over > n_optional || found == 0 {
                        return Err(reason.into());
                    }
                    self.notes.push(Note::CutShort(reason));
                } else if n_odd > 0 && n_optional == 0 {
                    let detail = format!("the last sample of the data chunk has {n_odd} of {frame_bytes} bytes");
                    return Err(AudioReason::Malformed(detail).into());
                }
            }
            Length::ToTheEnd { is_cut: false } if n_over > 0 => {
                let detail = format!("the last sample has {n_over} of {frame_bytes} bytes");
                return Err(AudioReason::EndsEarly { found, detail }.into());
            }
            Length::ToTheEnd { .. } => {}
        }
        // So that the check runs once.
        self.length = Length::ToTheEnd { is_cut: true };
        if found == 0 { Err(AudioReason::NoSamples.into()) } else { Ok(false) }
    }
}

impl Pcm<Box<dyn Bytes>> {
    /// Reads a WAV header from a file. If its length is inconsistent with the file's, the latter decides.
    pub(super) fn wav_file(mut file: Box<dyn Bytes>, options: &ReadOptions) -> Result<Self, Failure> {
        let header_at = file.stream_position()?;
        let header = Header::read(&mut BufReader::new(&mut file))?;
        let data_at = header_at + header.n_bytes;
        let n_bytes = file.seek(SeekFrom::End(0))?.saturating_sub(data_at);
        let is_unknown = header.is_placeholder && n_bytes > 0 && n_bytes < header.data_bytes;
        let (after, end) = (data_at.saturating_add(header.data_bytes), data_at + n_bytes);
        // Some programs don't pad chunks of odd size.
        let goes_on = after < end
            && header.data_bytes.is_multiple_of(header.frame_bytes())
            && !is_followed_by_chunks(&mut file, data_at + header.data_bytes.next_multiple_of(2), end)?
            && !is_followed_by_chunks(&mut file, after, end)?;
        file.seek(SeekFrom::Start(data_at))?;
        let reader = BufReader::new(file);
        if is_unknown || goes_on {
            Self::to_the_end(reader, &header, options, true)
        } else {
            Self::declared(reader, &header, options, false)
        }
    }
}

/// Whether the bytes from `at` to `end` are chunks, or too few for one.
fn is_followed_by_chunks(file: &mut Box<dyn Bytes>, mut at: u64, end: u64) -> Result<bool, Failure> {
    let mut n_chunks = 0;
    while at < end {
        file.seek(SeekFrom::Start(at))?;
        let mut start = [0; 8];
        let n = read_up_to(file, &mut start)?;
        let next = match riff::chunk(&start[..n]) {
            _ if is_trailer(&start[..n]) => return Ok(true),
            // The padding byte of the last chunk may be missing.
            Some(n_bytes) => at + 8 + u64::from(n_bytes).next_multiple_of(2),
            None => return Ok(n_chunks > 0),
        };
        // Samples may look like a chunk name, but hardly with a length that fits as well.
        if next > end + 1 {
            return Ok(n_chunks > 0 || riff::is_known_chunk(&start));
        }
        (at, n_chunks) = (next, n_chunks + 1);
    }
    Ok(true)
}

/// Whether the bytes begin a tag that some programs append to files of any format.
fn is_trailer(bytes: &[u8]) -> bool {
    [&b"TAG"[..], b"ID3", b"APETAGEX"].iter().any(|magic| bytes.starts_with(magic))
}

impl<R: Read> Blocks for Pcm<R> {
    fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    fn declared(&self) -> Option<u64> {
        match self.length {
            Length::Declared { is_placeholder: false, n_bytes, .. } => Some(n_bytes / self.frame_bytes() as u64),
            _ => None,
        }
    }

    fn next(&mut self, output: &mut Vec<f32>) -> Result<bool, Failure> {
        let frame_bytes = self.frame_bytes();
        let n_left = match self.length {
            Length::Declared { n_bytes, is_doubtful, .. } => {
                let n_left = n_bytes / frame_bytes as u64 - self.n_frames;
                let is_whole = n_bytes.is_multiple_of(frame_bytes as u64);
                if n_left == 0 && is_whole && is_doubtful && self.goes_on(n_bytes) { u64::MAX } else { n_left }
            }
            Length::ToTheEnd { .. } => u64::MAX,
        };
        let n_wanted = usize::try_from(n_left).unwrap_or(usize::MAX).min(self.part.len() / frame_bytes) * frame_bytes;
        if n_wanted == 0 {
            return self.end();
        }
        while self.n_over < frame_bytes {
            match read_some(&mut self.reader, &mut self.part[self.n_over..n_wanted])? {
                0 => return self.end(),
                n => self.n_over += n,
            }
        }
        let n_frames = self.n_over / frame_bytes;
        let whole = n_frames * frame_bytes;
        decode(&mut self.mixer, self.n_frames, &self.part[..whole], self.format, output)?;
        self.part.copy_within(whole..self.n_over, 0);
        self.n_over -= whole;
        self.n_frames += n_frames as u64;
        Ok(true)
    }

    fn notes(&self) -> Vec<Note> {
        self.notes.iter().cloned().chain(self.mixer.notes()).collect()
    }
}

const INT16_SCALE: f64 = 1.0 / 32_768.0;
const INT32_SCALE: f64 = 1.0 / 2_147_483_648.0;

/// Decodes and mixes interleaved samples. Integers of `b` bits are divided by `2^(b-1)`. `n_before` samples per channel
/// came before.
fn decode(
    mixer: &mut Mixer,
    n_before: u64,
    bytes: &[u8],
    format: Format,
    output: &mut Vec<f32>,
) -> Result<(), AudioReason> {
    /// Splits bytes into samples of `N` bytes.
    fn of<const N: usize>(bytes: &[u8]) -> &[[u8; N]] {
        bytes.as_chunks().0
    }
    match format {
        Format::Int8 => mixer.mix(n_before, bytes, 1.0 / 128.0, |a| f64::from(a) - 128.0, output),
        Format::Int16 => mixer.mix(n_before, of(bytes), INT16_SCALE, |b| f64::from(i16::from_le_bytes(b)), output),
        // As the high bytes of 32 bits, for sign extension.
        Format::Int24 => {
            let value = |[a, b, c]: [u8; 3]| f64::from(i32::from_le_bytes([0, a, b, c]));
            mixer.mix(n_before, of(bytes), INT32_SCALE, value, output)
        }
        Format::Int32 => mixer.mix(n_before, of(bytes), INT32_SCALE, |b| f64::from(i32::from_le_bytes(b)), output),
        Format::Float32 => mixer.mix(n_before, of(bytes), 1.0, |b| f64::from(f32::from_le_bytes(b)), output),
        Format::Float64 => mixer.mix(n_before, of(bytes), 1.0, f64::from_le_bytes, output),
        Format::ALaw => mixer.mix(n_before, bytes, INT16_SCALE, a_law, output),
        Format::MuLaw => mixer.mix(n_before, bytes, INT16_SCALE, mu_law, output),
    }
}

/// Decodes an A-law code to a 16-bit integer (ITU-T G.711): sign, 3 bits of exponent, 4 of mantissa; every other bit is
/// inverted.
fn a_law(code: u8) -> f64 {
    let code = code ^ 0x55;
    let (exponent, mantissa) = (code >> 4 & 7, i32::from(code & 15));
    let magnitude = match exponent {
        0 => (mantissa << 4) + 8,
        _ => ((mantissa << 4) + 0x108) << (exponent - 1),
    };
    f64::from(if code & 0x80 != 0 { magnitude } else { -magnitude })
}

/// Decodes a µ-law code to a 16-bit integer (ITU-T G.711): sign, 3 bits of exponent, 4 of mantissa; all bits are
/// inverted.
fn mu_law(code: u8) -> f64 {
    const BIAS: i32 = 0x84;
    let code = !code;
    let (exponent, mantissa) = (code >> 4 & 7, i32::from(code & 15));
    let magnitude = (((mantissa << 3) + BIAS) << exponent) - BIAS;
    f64::from(if code & 0x80 != 0 { -magnitude } else { magnitude })
}
