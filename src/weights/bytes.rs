//! The bytes of a file: read from disk on demand, or held in memory.

use std::{
    borrow::Cow,
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};
use crate::files;

/// The content of a file. Its length is that at the time of opening.
pub(super) enum Bytes {
    OnDisk { file: Positioned, path: PathBuf, len: usize },
    Held(Cow<'static, [u8]>),
}

/// Why the content of a file cannot be used.
#[derive(Debug)]
pub(super) enum Fault {
    /// Description of the damage.
    Damaged(String),
    /// The bytes end too early. If only the first bytes of the file were parsed, more may help.
    CutShort(String),
    /// The file could not be read.
    Io(Error),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Damaged(reason)
    }
}

impl From<&str> for Fault {
    fn from(reason: &str) -> Self {
        Self::Damaged(reason.to_owned())
    }
}

impl Fault {
    /// Changes the reason with `f`.
    pub(super) fn map(self, f: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Damaged(reason) => Self::Damaged(f(reason)),
            Self::CutShort(reason) => Self::CutShort(f(reason)),
            Self::Io(error) => Self::Io(error),
        }
    }

    /// Converts to the error for the file at `path`.
    pub(super) fn into_error(self, path: Option<&Path>) -> Error {
        match self {
            Self::Damaged(reason) | Self::CutShort(reason) => super::unusable(path, reason),
            Self::Io(error) => error,
        }
    }
}

impl Bytes {
    /// Opens a regular file without reading it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = files::open(path, "open")?;
        let error = |cause| Error::Io { action: "open", path: path.to_owned(), cause };
        let len = usize::try_from(file.metadata().map_err(error)?.len());
        let len = len.map_err(|_| error(io::Error::from(io::ErrorKind::FileTooLarge)))?;
        Ok(Self::OnDisk { file: Positioned::new(file), path: path.to_owned(), len })
    }

    /// Reads a regular file of the stated length into memory.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = Self::open(path)?;
        let content = file.to_cow(0..file.len()).map_err(|fault| fault.into_error(Some(path)))?;
        Ok(Self::from(content.into_owned()))
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::OnDisk { len, .. } => *len,
            Self::Held(bytes) => bytes.len(),
        }
    }

    /// The bytes of `range`: borrowed if in memory, otherwise read into `buffer`, which is overwritten.
    pub(super) fn get<'a>(&'a self, range: Range<usize>, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], Fault> {
        if range.start > range.end || range.end > self.len() {
            return Err(Fault::CutShort(format!("bytes {range:?} are outside the file of {} bytes", self.len())));
        }
        if let Self::Held(bytes) = self {
            return Ok(&bytes[range]);
        }
        let more = range.len().saturating_sub(buffer.len());
        buffer.try_reserve(more).map_err(|_| format!("{} bytes do not fit into memory", range.len()))?;
        buffer.resize(range.len(), 0); // writes nothing if the length stays the same
        self.read_into(range.start, buffer)?;
        Ok(buffer)
    }

    /// Fills `buffer` with the bytes from `start` on.
    pub(super) fn read_into(&self, start: usize, buffer: &mut [u8]) -> Result<(), Fault> {
        let (file, path) = match self {
            Self::OnDisk { file, path, .. } => (file, path),
            Self::Held(bytes) => {
                let outside = || Fault::CutShort(format!("the file ends too soon after byte {start}"));
                let end = start.checked_add(buffer.len());
                buffer.copy_from_slice(end.and_then(|end| bytes.get(start..end)).ok_or_else(outside)?);
                return Ok(());
            }
        };
        match file.read_exact_at(buffer, start as u64) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(format!("the file has become shorter than the {} bytes that it had when it was opened", self.len())
                    .into())
            }
            Err(cause) => Err(Fault::Io(Error::Io { action: "read", path: path.clone(), cause })),
        }
    }

    /// The first bytes, at most `len`.
    pub(super) fn head<'a>(&'a self, len: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], Fault> {
        self.get(0..len.min(self.len()), buffer)
    }

    /// The bytes of `range`, copied if the file is on disk.
    pub(super) fn to_cow(&self, range: Range<usize>) -> Result<Cow<'_, [u8]>, Fault> {
        if let Self::Held(bytes) = self
            && let Some(bytes) = bytes.get(range.clone())
        {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut buffer = Vec::new();
        self.get(range, &mut buffer)?;
        Ok(Cow::Owned(buffer))
    }

    /// The `N` bytes from `start` on.
    pub(super) fn array<const N: usize>(&self, start: usize) -> Result<[u8; N], Fault> {
        let mut buffer = Vec::new();
        let bytes = self.get(start..start.saturating_add(N), &mut buffer)?;
        bytes.first_chunk().copied().ok_or_else(|| Fault::CutShort("the file ends too early".to_owned()))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(content: Vec<u8>) -> Self {
        Self::Held(Cow::Owned(content))
    }
}

/// A file that can be read at any position from any thread.
pub(super) struct Positioned(Inner);

#[cfg(any(unix, windows))]
type Inner = File;
#[cfg(not(any(unix, windows)))]
type Inner = std::sync::Mutex<File>;

impl Positioned {
    fn new(file: File) -> Self {
        Self(Inner::from(file))
    }

    #[cfg(unix)]
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buffer, position)
    }

    #[cfg(windows)]
    fn read_exact_at(&self, mut buffer: &mut [u8], mut position: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(&self.0, buffer, position) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buffer = &mut buffer[n..];
                    position += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    #[cfg(not(any(unix, windows)))]
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        // The position is set before each read, so a panic in between leaves no invalid state.
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(position))?;
        file.read_exact(buffer)
    }
}
