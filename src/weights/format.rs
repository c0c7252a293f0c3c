//! Recognises the format of a checkpoint by its content, and lists its tensors.

use std::collections::BTreeMap;

use super::bytes::{Bytes, Fault};
use super::entry::Entry;
use super::safetensors::Index;
use super::{pth, safetensors, tflite, zip};

/// The format of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A safetensors file.
    Safetensors,
    /// Several safetensors files and their index.
    SafetensorsSharded,
    /// The zip format of `torch.save`, since PyTorch 1.6.
    PthZip,
    /// The legacy format of `torch.save`, before PyTorch 1.6.
    PthLegacy,
    /// A TensorFlow Lite file.
    TfLite,
    /// Tensors in memory.
    Memory,
}

/// The parsed content of a file.
pub(super) struct Parsed {
    pub format: Format,
    pub entries: BTreeMap<String, Entry>,
    pub metadata: BTreeMap<String, String>,
}

/// Number of leading bytes that identify a format.
const HEAD: usize = 512;

/// Whether a file is the index of a sharded checkpoint (or other JSON).
pub(super) fn is_index(file: &Bytes) -> Result<bool, Fault> {
    let mut buffer = Vec::new();
    let head = file.head(HEAD, &mut buffer)?;
    Ok(Index::recognise(head) && !safetensors::recognise(head))
}

/// Lists the tensors of a file, or of the part under a key.
pub(super) fn parse(file: &Bytes, part: Option<&str>) -> Result<Parsed, Fault> {
    let mut buffer = Vec::new();
    let head = file.head(HEAD, &mut buffer)?;
    let (format, (entries, metadata)) = if zip::recognise(head) {
        (Format::PthZip, pth::parse_zip(file, part)?)
    } else if pth::recognise_legacy(head) {
        (Format::PthLegacy, pth::parse_legacy(file, part)?)
    } else if let Some(part) = part {
        return Err(format!("expected a PyTorch checkpoint with the key `{part}`, got another format").into());
    } else if safetensors::recognise(head) {
        (Format::Safetensors, safetensors::parse(file)?)
    } else if tflite::recognise(head) {
        (Format::TfLite, (tflite::parse(file)?, BTreeMap::new()))
    } else {
        return Err(format!("expected a safetensors, PyTorch or TensorFlow Lite file, got {}", what_else(head)).into());
    };
    Ok(Parsed { format, entries, metadata })
}

/// Names the type of a file that is not a checkpoint, by its first bytes.
fn what_else(head: &[u8]) -> &'static str {
    let starts = |with: &[u8]| head.starts_with(with);
    let html = |tag: &[u8]| head.trim_ascii_start().get(..tag.len()).is_some_and(|s| s.eq_ignore_ascii_case(tag));
    match head {
        [] => "an empty file",
        _ if starts(b"version https://git-lfs") => "a Git LFS pointer instead of the file",
        _ if html(b"<!doctype html") || html(b"<html") => "a web page (the download may have failed)",
        _ if Index::recognise(head) => "JSON (the index of a sharded checkpoint must be opened by its path)",
        _ if starts(b"\x89HDF\r\n") => "an HDF5 file (Keras)",
        _ if starts(b"GGUF") => "a GGUF file",
        _ if starts(b"\x93NUMPY") => "a NumPy array",
        _ if starts(b"\x1f\x8b") => "a gzip archive",
        _ if head.get(257..262) == Some(b"ustar") => "a tar archive (the format of PyTorch before 0.1.10)",
        [0x80, 0..=5, ..] => "a pickle that was not written by torch.save",
        _ => "an unknown format",
    }
}
