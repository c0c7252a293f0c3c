//! Checkpoint folders: `config.json` with `model.safetensors`, the index of its shards, or `pytorch_model.bin`.

use std::path::{Path, PathBuf};

use super::Weights;
use crate::error::{Error, Result};
use crate::files;

/// Limit on the size of a `config.json`, in bytes.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

fn unusable(path: PathBuf, reason: String) -> Error {
    Error::Checkpoint { path, reason }
}

/// Reads a `config.json`.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value> {
    let text = files::read_text(path, MAX_CONFIG_BYTES, unusable)?;
    serde_json::from_str(&text).map_err(|error| unusable(path.to_path_buf(), error.to_string()))
}

/// Opens the tensors of a folder: `model.safetensors`, the index of a sharded checkpoint, or `pytorch_model.bin`.
pub(crate) fn open_weights(path: &Path) -> Result<Weights> {
    match files::first_of(path, &["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"])? {
        Some(name) => Weights::open(path.join(name)),
        None => {
            std::fs::metadata(path).map_err(|cause| Error::Io { action: "read", path: path.to_path_buf(), cause })?;
            let reason = "expected model.safetensors, model.safetensors.index.json or pytorch_model.bin in this folder; \
                          open another file by its path";
            Err(unusable(path.to_path_buf(), reason.to_string()))
        }
    }
}
