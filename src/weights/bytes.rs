//! The bytes of one file: mapped, read, or given.

use std::{
    borrow::Cow,
    fs::File,
    io,
    ops::{Deref, Range},
    path::Path,
};

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use crate::{Error, Result};

/// The content of one file.
pub(super) enum Bytes {
    Mapped(Mmap),
    Held(Cow<'static, [u8]>),
}

/// How a file's content gets into memory.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Map,
    Read,
}

impl Bytes {
    pub(super) fn open(path: &Path, access: Access) -> Result<Self> {
        let open_error = |source| Error::Io { action: "open", path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(open_error)?;
        if !metadata.is_file() {
            // Checked before opening: opening a pipe would wait for its other end.
            return Err(open_error(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        // An empty file cannot be mapped on every system.
        if metadata.len() == 0 || matches!(access, Access::Read) {
            let content = std::fs::read(path);
            return content.map(Self::from).map_err(|source| Error::Io {
                action: "read",
                path: path.to_owned(),
                source,
            });
        }
        let file = File::open(path).map_err(open_error)?;
        // SAFETY: the mapping is private and read-only, and every access through it copies plain bytes out after a
        // bounds check against the mapping's own length, so no value of another type is ever assumed to lie there. What
        // remains is that another process changes the file meanwhile, which `Weights::open` documents.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) };
        map.map(Self::Mapped).map_err(|source| Error::Io { action: "map", path: path.to_owned(), source })
    }
}

impl Bytes {
    /// Says that the bytes of `range` will hardly be read again. What is mapped leaves memory; a later read brings it back.
    pub(super) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: the mapping is of a file, read-only and never written through, so pages that are dropped are read
            // from the file again, with the same content. The range is checked against the mapping by the call.
            #[allow(unsafe_code)]
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(content: Vec<u8>) -> Self {
        Self::Held(Cow::Owned(content))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Held(bytes) => bytes,
        }
    }
}
