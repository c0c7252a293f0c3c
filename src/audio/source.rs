//! What all formats have in common: a source of blocks, found by the first bytes of a file.

use std::fs::File;
#[cfg(feature = "symphonia")]
use std::io::Cursor;
use std::io::{self, Read};
use std::path::Path;

#[cfg(feature = "symphonia")]
use super::decode::{self, Container, Input};
use super::pcm::Pcm;
use super::{AudioReason, ReadOptions, Skipped, Waveform};
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
}

/// Appends all blocks.
pub(super) fn read_all(source: &mut (impl Blocks + ?Sized), output: &mut Vec<f32>) -> Result<(), Failure> {
    while source.next(output)? {}
    Ok(())
}

/// What stops a reader that does not know the file's name.
pub(super) enum Failure {
    Io(io::Error),
    Audio(AudioReason),
}

impl Failure {
    /// The error, with the file's name.
    pub(super) fn about(self, path: &Path) -> Error {
        match self {
            Self::Io(source) => Error::Io { action: "read", path: path.into(), source },
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

/// A file, whose format is told by its first bytes.
#[cfg_attr(not(feature = "symphonia"), allow(unused_mut))]
pub(super) fn open(mut file: File, options: &ReadOptions) -> Result<Box<dyn Blocks + Send>, Failure> {
    #[cfg(feature = "symphonia")]
    if file.metadata()?.is_file() {
        use std::io::{Seek, SeekFrom};
        let mut start = [0; 12];
        let n = read_up_to(&mut file, &mut start)?;
        file.seek(SeekFrom::Start(0))?;
        return match Container::of(&start[..n]) {
            Some(container) => decode::open(Input::Seekable(Box::new(file)), container, options),
            None => Ok(Box::new(Pcm::wav(file, options)?)),
        };
    }
    read(file, options)
}

/// A stream, whose format is told by its first bytes.
#[cfg_attr(not(feature = "symphonia"), allow(unused_mut))]
pub(super) fn read(
    mut reader: impl Read + Send + 'static,
    options: &ReadOptions,
) -> Result<Box<dyn Blocks + Send>, Failure> {
    #[cfg(feature = "symphonia")]
    let reader = {
        let (container, whole) = told(reader)?;
        match container {
            Some(container) => return decode::open(Input::Stream(Box::new(whole)), container, options),
            None => whole,
        }
    };
    Ok(Box::new(Pcm::wav(reader, options)?))
}

/// Reads a stream to its end, which need not be fit for a thread of its own.
pub(super) fn read_waveform(reader: impl Read, options: &ReadOptions) -> Result<Waveform, Failure> {
    #[cfg(feature = "symphonia")]
    let reader = {
        let (container, mut whole) = told(reader)?;
        match container {
            Some(container) => {
                let mut bytes = Vec::new();
                whole.read_to_end(&mut bytes)?;
                let mut source = decode::open(Input::Seekable(Box::new(Cursor::new(bytes))), container, options)?;
                return waveform(&mut *source);
            }
            None => whole,
        }
    };
    waveform(&mut Pcm::wav(reader, options)?)
}

fn waveform(source: &mut (impl Blocks + ?Sized)) -> Result<Waveform, Failure> {
    let mut samples = Vec::new();
    read_all(source, &mut samples)?;
    Ok(Waveform::new(samples, source.sample_rate()))
}

/// A stream with the format that its first bytes tell.
#[cfg(feature = "symphonia")]
fn told<R: Read>(mut reader: R) -> io::Result<(Option<Container>, impl Read + use<R>)> {
    let mut start = [0; 12];
    let n = read_up_to(&mut reader, &mut start)?;
    Ok((Container::of(&start[..n]), Cursor::new(start).take(n as u64).chain(reader)))
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

/// Reads what there is, at least a byte before the end.
pub(super) fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
