//! The languages of MMS models, each with a file of adapters and head: `adapter.<language>.safetensors`.

use std::path::Path;

use crate::error::{Error, Result};
use crate::weights::Weights;

/// The parts of the file name around the language.
const PREFIX: &str = "adapter.";
const SUFFIXES: [&str; 2] = [".safetensors", ".bin"];
/// Limit on the number of languages in a message.
const MAX_SHOWN: usize = 20;

/// The languages for which a folder has adapters, sorted.
pub(super) fn in_folder(folder: &Path) -> Result<Vec<String>> {
    let error = |cause| Error::Io { action: "read", path: folder.to_path_buf(), cause };
    let language = |name: &str| {
        let name = name.strip_prefix(PREFIX)?;
        SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).map(str::to_string)
    };
    let mut languages = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        languages.extend(entry.map_err(error)?.file_name().to_str().and_then(language));
    }
    languages.sort();
    languages.dedup();
    Ok(languages)
}

/// The first languages, for messages.
pub(super) fn shown(languages: &[String]) -> String {
    let more = if languages.len() > MAX_SHOWN { ", …" } else { "" };
    languages[..languages.len().min(MAX_SHOWN)].join(", ") + more
}

/// Opens the adapters and head of a language.
pub(super) fn open(folder: &Path, language: &str) -> Result<Weights> {
    let languages = in_folder(folder)?;
    if !languages.iter().any(|known| known == language) {
        let reason = match languages.len() {
            0 => "expected a file adapter.<language>.safetensors in the folder, found none".to_string(),
            n => format!("expected one of {n} languages: {}", shown(&languages)),
        };
        return Err(Error::argument("language", language, reason));
    }
    // The name is from the list, so the path cannot leave the folder.
    let path = SUFFIXES.map(|suffix| folder.join(format!("{PREFIX}{language}{suffix}")));
    Weights::open(if path[0].exists() { &path[0] } else { &path[1] })
}
