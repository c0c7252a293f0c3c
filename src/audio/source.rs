//! What all formats have in common: a source of blocks, found by the first bytes of a file.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::Path;

#[cfg(feature = "symphonia")]
use super::decode;
use super::format::{self, START};
use super::pcm::Pcm;
use super::{AudioReason, Note, ReadOptions, Skipped, Waveform, id3};
use crate::error::{Error, Result};

/// The name of what has none.
pub(super) const STREAM: &str = "<stream>";

/// One channel of samples, block by block.
pub(super) trait Blocks {
    /// In Hz.
    fn sample_rate(&self) -> u32;

    /// The number of samples that the header declares.
    fn declared(&self) -> Option<u64>;

    /// Appends the next samples, at least one. False at the end. What is appended before an error counts as read.
    fn next(&mut self, output: &mut Vec<f32>) -> Result<bool, Failure>;

    /// The damage that was skipped.
    fn skipped(&self) -> &[Skipped] {
        &[]
    }

    /// What was worked around so far.
    fn notes(&self) -> Vec<Note> {
        Vec::new()
    }
}

/// Appends all blocks.
pub(super) fn read_all(source: &mut (impl Blocks + ?Sized), output: &mut Vec<f32>) -> Result<(), Failure> {
    while source.next(output)? {}
    Ok(())
}

/// What stops a reader that does not know the file's name.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    Audio(AudioReason),
}

impl Failure {
    /// The error, with the file's name.
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

/// Where the bytes of a file come from.
pub(super) enum Input {
    /// A file or bytes in memory.
    Seekable(Box<dyn Bytes>),
    /// What can be read once, in order.
    Stream(Box<dyn Read + Send>),
}

/// Bytes at any place.
pub(super) trait Bytes: Read + Seek + Send + Sync {}

impl<T: Read + Seek + Send + Sync> Bytes for T {}

impl Input {
    /// The next bytes, at most `n`, which stay to be read.
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

    /// Steps over `n` bytes, or to the end.
    pub(super) fn skip(&mut self, n: u64) -> io::Result<()> {
        match self {
            Self::Seekable(bytes) => bytes.seek_relative(i64::try_from(n).unwrap_or(i64::MAX)),
            Self::Stream(stream) => io::copy(&mut stream.take(n), &mut io::sink()).map(drop),
        }
    }

    /// The samples, in the format that the first bytes tell.
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
            // An error is about the file as it begins.
            return Err(format::unsupported(if n_tags > 0 { &first } else { &start }).into());
        }
        Ok(match self {
            Self::Seekable(bytes) => Box::new(Pcm::wav_file(bytes, options)?),
            Self::Stream(stream) => Box::new(Pcm::wav(stream, options)?),
        })
    }
}

/// Whether these bytes begin a WAV file, or may do so as far as they go.
pub(super) fn is_wav(start: &[u8]) -> bool {
    let n = start.len().min(4);
    [b"RIFF", b"RF64", b"BW64"].iter().any(|magic| magic[..n] == start[..n])
        && start.get(8..12).is_none_or(|form| form == b"WAVE")
}

/// A file, whose format is told by its first bytes.
pub(super) fn open(file: File, options: &ReadOptions) -> Result<Box<dyn Blocks + Send>, Failure> {
    if file.metadata()?.is_file() { Input::Seekable(Box::new(file)).open(options) } else { read(file, options) }
}

/// A stream, whose format is told by its first bytes.
pub(super) fn read(
    reader: impl Read + Send + 'static,
    options: &ReadOptions,
) -> Result<Box<dyn Blocks + Send>, Failure> {
    Input::Stream(Box::new(reader)).open(options)
}

/// Reads a stream to its end, which need not be fit for a thread of its own.
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
/// Fills `buffer`, or as much of it as there is.
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
