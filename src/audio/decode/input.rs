//! Input of the decoders: the bytes of a file, their number, and read errors.

use std::io::{self, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use symphonia::core::io::MediaSource;

use crate::audio::source::{Bytes, Input};

/// The bytes as a sequential reader.
pub(super) fn into_read(input: Input, status: &SourceStatus) -> Box<dyn Read + Send> {
    let status = status.clone();
    match input {
        Input::Seekable(inner) => Box::new(CountingReader { inner, status, counts: false }),
        Input::Stream(inner) => Box::new(CountingReader { inner, status, counts: true }),
    }
}

/// The bytes as a seekable source, and their number. A stream is read into memory.
pub(super) fn into_seekable(input: Input, status: &SourceStatus) -> io::Result<(Box<dyn Bytes>, u64)> {
    let inner = match input {
        Input::Seekable(inner) => inner,
        Input::Stream(mut stream) => {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes)?;
            status.0.n_bytes.store(bytes.len() as u64, Ordering::Relaxed);
            Box::new(Cursor::new(bytes))
        }
    };
    Ok((Box::new(CountingReader { inner, status: status.clone(), counts: false }), status.n_bytes()))
}

/// The number of bytes of the source (for streams: read so far) and its first read error.
///
/// Decoders treat a read error as the end of the file, so it is kept here.
#[derive(Clone)]
pub(super) struct SourceStatus(Arc<SourceState>);

struct SourceState {
    n_bytes: AtomicU64,
    failure: Mutex<Option<io::Error>>,
}

impl SourceStatus {
    /// Determines the length of a seekable source. The position does not change.
    pub(super) fn new(input: &mut Input) -> io::Result<Self> {
        let n_bytes = match input {
            Input::Seekable(bytes) => {
                let at = bytes.stream_position()?;
                let n_bytes = bytes.seek(SeekFrom::End(0))?;
                bytes.seek(SeekFrom::Start(at))?;
                n_bytes
            }
            Input::Stream(_) => 0,
        };
        Ok(Self(Arc::new(SourceState { n_bytes: AtomicU64::new(n_bytes), failure: Mutex::new(None) })))
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.0.n_bytes.load(Ordering::Relaxed)
    }

    /// Takes the read error, if there was one.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A reader that counts bytes and records errors.
struct CountingReader<R: ?Sized> {
    status: SourceStatus,
    counts: bool,
    inner: Box<R>,
}

impl<R: Read + ?Sized> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(n) => {
                if self.counts {
                    self.status.0.n_bytes.fetch_add(n as u64, Ordering::Relaxed);
                }
                Ok(n)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                *self.status.0.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

impl<R: Seek + ?Sized> Seek for CountingReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// A sequential source for `symphonia`. The mutex provides the `Sync` that `symphonia` requires.
pub(super) struct StreamSource(pub(super) Mutex<Box<dyn Read + Send>>);

impl Read for StreamSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).read(buffer)
    }
}

impl Seek for StreamSource {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl MediaSource for StreamSource {
    fn is_seekable(&self) -> bool {
        false
    }

    fn byte_len(&self) -> Option<u64> {
        None
    }
}

/// A seekable source for `symphonia`.
pub(super) struct SeekableSource {
    pub(super) bytes: Box<dyn Bytes>,
    pub(super) n_bytes: u64,
    /// Read position.
    pub(super) position: u64,
    /// Four bytes at this offset are read as zeros.
    pub(super) zeros_at: Option<u64>,
}

impl Read for SeekableSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        if let Some(at) = self.zeros_at {
            for place in at..at + 4 {
                if let Some(i) = place.checked_sub(self.position).filter(|&i| i < n as u64) {
                    buffer[i as usize] = 0;
                }
            }
        }
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for SeekableSource {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.bytes.seek(to)?;
        Ok(self.position)
    }
}

impl MediaSource for SeekableSource {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.n_bytes)
    }
}
