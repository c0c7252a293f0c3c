//! Reading small files whole: labels, vocabularies, configurations.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Makes the error for a file whose content is rejected, from its path and the reason.
pub(crate) type Refusal = fn(PathBuf, String) -> Error;

/// Reads a regular file of at most `limit` bytes. `refuse` makes the error for a longer file.
///
/// The limit is applied to the bytes that are read, since the stated length can be wrong: files below `/proc` state 0.
/// Pipes, devices and folders are rejected before they are opened, because opening a pipe blocks until a writer opens
/// it.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read or is not a regular file; the error of `refuse` if it is too long.
pub(crate) fn read(path: &Path, limit: u64, refuse: Refusal) -> Result<Vec<u8>> {
    let error = |cause| Error::Io { action: "read", path: path.to_path_buf(), cause };
    let file = open(path, "read")?;
    let stated = usize::try_from(file.metadata().map_err(error)?.len().min(limit)).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(stated).map_err(|_| error(io::ErrorKind::OutOfMemory.into()))?;
    let length = file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(error)?;
    if length as u64 > limit {
        return Err(refuse(path.to_path_buf(), format!("expected at most {limit} bytes, the file has more")));
    }
    Ok(bytes)
}

/// As [`read`], for UTF-8 text. A leading byte-order mark is removed.
pub(crate) fn read_text(path: &Path, limit: u64, refuse: Refusal) -> Result<String> {
    let refused = |reason: &str| refuse(path.to_path_buf(), reason.to_string());
    let mut bytes = read(path, limit, refuse)?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(refused("expected UTF-8 text, got UTF-16"));
    }
    let mark = bytes.len() - without_mark(&bytes).len();
    bytes.drain(..mark);
    String::from_utf8(bytes).map_err(|_| refused("expected UTF-8 text"))
}

/// Text without the byte-order mark that some editors prepend.
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Opens a regular file for reading. `action` names the attempt in the error: `"open"`, `"read"`.
pub(crate) fn open(path: &Path, action: &'static str) -> Result<File> {
    let error = |cause| Error::Io { action, path: path.to_path_buf(), cause };
    let regular = |metadata: Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    };
    std::fs::metadata(path).and_then(regular).map_err(error)?;
    let file = File::open(path).map_err(error)?;
    // The path may point to another file since the check above.
    file.metadata().and_then(regular).map_err(error)?;
    Ok(file)
}

/// The first of `names` that exists in `folder`. Dangling links count: reading them gives the error.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be searched.
pub(crate) fn first_of(folder: &Path, names: &[&'static str]) -> Result<Option<&'static str>> {
    for &name in names {
        let path = folder.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(_) => return Ok(Some(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(Error::Io { action: "read", path, cause }),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: PathBuf, reason: String) -> Error {
        Error::Labels { path, reason }
    }

    #[test]
    fn limit_holds_whatever_length_the_file_system_states() {
        let folder = std::env::temp_dir().join(format!("clipwise-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("five");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5, refused).unwrap(), b"12345");
        assert_eq!(read(&path, u64::MAX, refused).unwrap(), b"12345");
        for limit in [0, 4] {
            let error = read(&path, limit, refused).unwrap_err().to_string();
            assert!(error.contains(&format!("expected at most {limit} bytes")), "{error}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        // A file of "Linux\n" that states a length of 0.
        let path = Path::new("/proc/sys/kernel/ostype");
        if cfg!(target_os = "linux") && path.exists() {
            assert_eq!(read(path, 6, refused).unwrap(), b"Linux\n");
            assert!(matches!(read(path, 5, refused), Err(Error::Labels { .. })));
        }
    }

    #[test]
    fn byte_order_mark_is_removed() {
        for (text, without) in [("", ""), ("\u{feff}", ""), ("\u{feff}a", "a"), ("a\u{feff}", "a\u{feff}")] {
            assert_eq!(without_mark(text.as_bytes()), without.as_bytes());
        }
    }
}
