//! A folder with a model: `config.json`, `model.safetensors`, perhaps labels.

use std::path::Path;

use crate::models::{ModelConfig, detect};
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
        let found = |name: &&str| path.join(name).is_file();
        let mut folder = Self { weights: open_weights(path)?, labels: None, config: None };
        if let Some(name) = ["labels.csv", "labels.json", "labels.txt"].into_iter().find(found) {
            folder.labels = Some(LabelSet::open(path.join(name))?);
        }
        let config = path.join("config.json");
        if config.is_file() {
            folder.read_config(&config)?;
        }
        Ok(folder)
    }

    fn read_config(&mut self, path: &Path) -> Result<()> {
        let unusable = |reason| Error::Checkpoint { path: path.to_path_buf(), reason };
        let value = read_json(path)?;
        if value.get("model").is_some() {
            self.config = Some(serde_json::from_value(value).map_err(|error| unusable(error.to_string()))?);
        } else if self.labels.is_none() && value.get("id2label").is_some() {
            self.labels = Some(LabelSet::open(path)?);
        }
        Ok(())
    }

    /// The configuration and what had to be assumed.
    pub(crate) fn model(&self) -> Result<(ModelConfig, Vec<String>)> {
        match &self.config {
            Some(config) => Ok((config.clone(), Vec::new())),
            None => detect(&self.weights).map(|detected| (detected.config, detected.assumptions)),
        }
    }
}

/// Reads a `config.json`.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value> {
    let io = |source| Error::Io { action: "read", path: path.to_path_buf(), source };
    let unusable = |reason| Error::Checkpoint { path: path.to_path_buf(), reason };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > MAX_CONFIG_BYTES {
        return Err(unusable(format!("{length} bytes are too many for a config")));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))
}

/// Opens the tensors of a folder: `model.safetensors`, or the index of a sharded checkpoint.
pub(crate) fn open_weights(path: &Path) -> Result<Weights> {
    let found = |name: &&str| path.join(name).is_file();
    let weights = ["model.safetensors", "model.safetensors.index.json"].into_iter().find(found);
    let weights = weights.ok_or_else(|| Error::Checkpoint {
        path: path.to_path_buf(),
        reason: "a folder without model.safetensors; open the checkpoint file itself".to_string(),
    })?;
    Weights::open(path.join(weights))
}
