//! Opening files and streams of any format as a source of blocks.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::Path;

#[cfg(feature = "symphonia")]
use super::decode;
use super::format::{self, START};
use super::pcm::Pcm;
use super::{AudioReason, Note, ReadOptions, Skipped, Waveform, id3};
use crate::error::{Error, Result};

/// The path in errors about streams.
pub(super) const STREAM: &str = "<stream>";

/// One channel of samples, read block by block.
pub(super) trait Blocks {
    /// Sample rate in Hz.
    fn sample_rate(&self) -> u32;

    /// The number of samples that the header declares.
    fn declared(&self) -> Option<u64>;

    /// Appends the next samples, at least one. False at the end. Samples appended before an error are valid.
    fn next(&mut self, output: &mut Vec<f32>) -> Result<bool, Failure>;

    /// The gaps where damage was skipped.
    fn skipped(&self) -> &[Skipped] {
        &[]
    }

    /// Notes so far.
    fn notes(&self) -> Vec<Note> {
        Vec::new()
    }
}

/// Appends all blocks.
pub(super) fn read_all(source: &mut (impl Blocks + ?Sized), output: &mut Vec<f32>) -> Result<(), Failure> {
    while source.next(output)? {}
    Ok(())
}

/// An error without the file's path.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    Audio(AudioReason),
}

impl Failure {
    /// Adds the file's path.
    pub(super) fn about(self, path: &Path) -> Error {
        match self {
            Self::Io(cause) => Error::Io { action: "read", path: path.into(), cause },
            Self::Audio(reason) => Error::Audio { path: path.into(), reason },
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<AudioReason> for Failure {
    fn from(reason: AudioReason) -> Self {
        Self::Audio(reason)
    }
}

/// Source of the bytes of a file.
pub(super) enum Input {
    /// A file or bytes in memory.
    Seekable(Box<dyn Bytes>),
    /// A reader that cannot seek.
    Stream(Box<dyn Read + Send>),
}

/// A seekable source.
pub(super) trait Bytes: Read + Seek + Send + Sync {}

impl<T: Read + Seek + Send + Sync> Bytes for T {}

impl Input {
    /// Returns up to `n` of the next bytes without consuming them.
    pub(super) fn peek(&mut self, n: usize) -> io::Result<Vec<u8>> {
        let mut start = vec![0; n];
        match self {
            Self::Seekable(bytes) => {
                let n_read = read_up_to(bytes, &mut start)?;
                start.truncate(n_read);
                bytes.seek_relative(-(n_read as i64))?;
            }
            Self::Stream(stream) => {
                let n_read = read_up_to(stream, &mut start)?;
                start.truncate(n_read);
                let rest = std::mem::replace(stream, Box::new(io::empty()));
                *stream = Box::new(Cursor::new(start.clone()).chain(rest));
            }
        }
        Ok(start)
    }

    /// Skips `n` bytes, or to the end.
    pub(super) fn skip(&mut self, n: u64) -> io::Result<()> {
        match self {
            Self::Seekable(bytes) => bytes.seek_relative(i64::try_from(n).unwrap_or(i64::MAX)),
            Self::Stream(stream) => io::copy(&mut stream.take(n), &mut io::sink()).map(drop),
        }
    }

    /// Detects the format by the first bytes and opens it.
    fn open(mut self, options: &ReadOptions) -> Result<Box<dyn Blocks + Send>, Failure> {
        let first = self.peek(START)?;
        let (mut start, mut n_tags) = (first.clone(), 0);
        while let n @ 1.. = id3::n_bytes(&start) {
            self.skip(n)?;
            n_tags += n;
            start = self.peek(START)?;
        }
        #[cfg(feature = "symphonia")]
        if let Some(found) = decode::find(&mut self, &start, n_tags)? {
            return decode::open(self, found, options);
        }
        if !is_wav(&start) {
            // The error names the tag, if the file begins with one.
            return Err(format::unsupported(if n_tags > 0 { &first } else { &start }).into());
        }
        Ok(match self {
            Self::Seekable(bytes) => Box::new(Pcm::wav_file(bytes, options)?),
            Self::Stream(stream) => Box::new(Pcm::wav(stream, options)?),
        })
    }
}

/// Whether the bytes begin a WAV file. Fewer than 12 bytes are accepted if they match so far.
pub(super) fn is_wav(start: &[u8]) -> bool {
    let n = start.len().min(4);
    [b"RIFF", b"RF64", b"BW64"].iter().any(|magic| magic[..n] == start[..n])
        && start.get(8..12).is_none_or(|form| form == b"WAVE")
}

/// Opens a file, whose format is detected by its first bytes.
pub(super) fn open(file: File, options: &ReadOptions) -> Result<Box<dyn Blocks + Send>, Failure> {
    if file.metadata()?.is_file() { Input::Seekable(Box::new(file)).open(options) } else { read(file, options) }
}

/// Opens a stream, whose format is detected by its first bytes.
pub(super) fn read(
    reader: impl Read + Send + 'static,
    options: &ReadOptions,
) -> Result<Box<dyn Blocks + Send>, Failure> {
    Input::Stream(Box::new(reader)).open(options)
}

/// Reads a stream, which need not be `Send`, to its end.
pub(super) fn read_waveform(mut reader: impl Read, options: &ReadOptions) -> Result<Waveform, Failure> {
    let mut start = vec![0; START];
    let n = read_up_to(&mut reader, &mut start)?;
    start.truncate(n);
    let is_pcm = is_wav(&start) && !format::is_adpcm(&start);
    let mut whole = Cursor::new(start).chain(reader);
    if is_pcm {
        return waveform(&mut Pcm::wav(whole, options)?);
    }
    let mut bytes = Vec::new();
    whole.read_to_end(&mut bytes)?;
    waveform(&mut *Input::Seekable(Box::new(Cursor::new(bytes))).open(options)?)
}

fn waveform(source: &mut (impl Blocks + ?Sized)) -> Result<Waveform, Failure> {
    let mut samples = Vec::new();
    read_all(source, &mut samples)?;
    Ok(Waveform::new(samples, source.sample_rate()).with_notes(source.notes()))
}
/// Fills `buffer`, or as much of it as there are bytes.
pub(super) fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match read_some(reader, &mut buffer[n..])? {
            0 => break,
            more => n += more,
        }
    }
    Ok(n)
}

/// One `read`, retried when it is interrupted; 0 bytes only at the end.
pub(super) fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
