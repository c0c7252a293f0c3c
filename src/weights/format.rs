//! Recognises the format of a checkpoint file by its content, and lists its tensors.

use std::collections::BTreeMap;

use super::bytes::{Bytes, Fault};
use super::entry::Entry;
use super::safetensors::Index;
use super::{pth, safetensors, tflite, zip};

/// What a checkpoint was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A safetensors file.
    Safetensors,
    /// Several safetensors files and their index.
    SafetensorsSharded,
    /// `torch.save` since PyTorch 1.6.
    PthZip,
    /// `torch.save` before PyTorch 1.6.
    PthLegacy,
    /// A TensorFlow Lite file.
    TfLite,
    /// Tensors in memory.
    Memory,
}

/// What a file's content gave.
pub(super) struct Parsed {
    pub format: Format,
    pub entries: BTreeMap<String, Entry>,
    pub metadata: BTreeMap<String, String>,
}

/// The bytes of a file that tell what it is.
const HEAD: usize = 512;

/// Whether a file is the index of a sharded checkpoint, or at least JSON.
pub(super) fn is_index(file: &Bytes) -> Result<bool, Fault> {
    let mut buffer = Vec::new();
    let head = file.head(HEAD, &mut buffer)?;
    Ok(Index::recognise(head) && !safetensors::recognise(head))
}

/// Lists the tensors of one file, or of one part of it.
pub(super) fn parse(file: &Bytes, part: Option<&str>) -> Result<Parsed, Fault> {
    let mut buffer = Vec::new();
    let head = file.head(HEAD, &mut buffer)?;
    let (format, (entries, metadata)) = if zip::recognise(head) {
        (Format::PthZip, pth::parse_zip(file, part)?)
    } else if pth::recognise_legacy(head) {
        (Format::PthLegacy, pth::parse_legacy(file, part)?)
    } else if let Some(part) = part {
        return Err(format!("not a checkpoint of PyTorch, which alone may have a part `{part}`").into());
    } else if safetensors::recognise(head) {
        (Format::Safetensors, safetensors::parse(file)?)
    } else if tflite::recognise(head) {
        (Format::TfLite, (tflite::parse(file)?, BTreeMap::new()))
    } else {
        return Err(format!(
            "{}; safetensors, PyTorch checkpoints and TensorFlow Lite files are read",
            what_else(head)
        )
        .into());
    };
    Ok(Parsed { format, entries, metadata })
}

/// Names the type of a file that is no checkpoint, by its first bytes.
fn what_else(head: &[u8]) -> &'static str {
    let starts = |with: &[u8]| head.starts_with(with);
    let html = |tag: &[u8]| head.trim_ascii_start().get(..tag.len()).is_some_and(|s| s.eq_ignore_ascii_case(tag));
    match head {
        [] => "an empty file",
        _ if starts(b"version https://git-lfs") => "a Git LFS pointer, not the file it stands for",
        _ if html(b"<!doctype html") || html(b"<html") => "a web page, as where a download failed",
        _ if Index::recognise(head) => "JSON; the index of a sharded checkpoint is opened by its path",
        _ if starts(b"\x89HDF\r\n") => "an HDF5 file (Keras)",
        _ if starts(b"GGUF") => "a GGUF file",
        _ if starts(b"\x93NUMPY") => "a NumPy array",
        _ if starts(b"\x1f\x8b") => "a gzip archive",
        _ if head.get(257..262) == Some(b"ustar") => "a tar archive, as PyTorch before 0.1.10 wrote",
        [0x80, 0..=5, ..] => "a pickle, but not one that torch.save wrote",
        _ => "not a checkpoint of a known kind",
    }
}
