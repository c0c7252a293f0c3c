//! A folder with a model: `config.json`, `model.safetensors`, perhaps labels.

use std::path::{Path, PathBuf};

use crate::files;
use crate::models::{ModelConfig, detect, left_out};
use crate::{Error, LabelSet, Result, Weights};

/// The largest `config.json` that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

pub(crate) struct Folder {
    pub(crate) weights: Weights,
    pub(crate) labels: Option<LabelSet>,
    config: Option<ModelConfig>,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut folder = Self { weights: open_weights(path)?, labels: None, config: None };
        if let Some(name) = files::first_of(path, &["labels.csv", "labels.json", "labels.txt"])? {
            folder.labels = Some(LabelSet::open(path.join(name))?);
        }
        if let Some(name) = files::first_of(path, &["config.json"])? {
            folder.read_config(&path.join(name))?;
        }
        Ok(folder)
    }

    fn read_config(&mut self, path: &Path) -> Result<()> {
        let value = read_json(path)?;
        if value.get("model").is_some() {
            let config = serde_json::from_value(value);
            self.config = Some(config.map_err(|error| unusable(path.to_path_buf(), error.to_string()))?);
        } else if self.labels.is_none() && value.get("id2label").is_some() {
            self.labels = Some(LabelSet::open(path)?);
        }
        Ok(())
    }

    /// The configuration and what had to be assumed.
    pub(crate) fn model(&self) -> Result<(ModelConfig, Vec<String>)> {
        match &self.config {
            Some(config) => {
                let left_out = left_out(&self.weights, &config.place(&self.weights)?);
                Ok((config.clone(), left_out.into_iter().collect()))
            }
            None => detect(&self.weights).map(|detected| (detected.config, detected.assumptions)),
        }
    }
}

fn unusable(path: PathBuf, reason: String) -> Error {
    Error::Checkpoint { path, reason }
}

/// Reads a `config.json`.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value> {
    let text = files::read_text(path, MAX_CONFIG_BYTES, unusable)?;
    serde_json::from_str(&text).map_err(|error| unusable(path.to_path_buf(), error.to_string()))
}

/// Opens the tensors of a folder: `model.safetensors`, or the index of a sharded checkpoint.
pub(crate) fn open_weights(path: &Path) -> Result<Weights> {
    match files::first_of(path, &["model.safetensors", "model.safetensors.index.json"])? {
        Some(name) => Weights::open(path.join(name)),
        None => {
            let reason = "a folder without model.safetensors; open the checkpoint file itself";
            Err(unusable(path.to_path_buf(), reason.to_string()))
        }
    }
}
