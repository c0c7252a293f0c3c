//! Reading a model from a file or a folder.

use std::path::Path;

use crate::encoders::preprocessor;
use crate::error::{Error, Result};
use crate::files;
use crate::labels::LabelSet;
use crate::models::ModelConfig;
use crate::weights::{Weights, folder};

/// A checkpoint, with the configuration and labels of its folder.
pub(super) struct Folder {
    pub weights: Weights,
    pub config: Option<ModelConfig>,
    pub labels: Option<LabelSet>,
}

/// Opens the tensors of a file or a folder.
pub(super) fn open_weights(path: &Path) -> Result<Weights> {
    if path.is_dir() { folder::open_weights(path) } else { Weights::open(path) }
}

impl Folder {
    /// Opens a folder with `model.safetensors` and optionally `config.json` and labels, or a checkpoint file.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Ok(Self { weights: Weights::open(path)?, config: None, labels: None });
        }
        let mut folder = Self { weights: open_weights(path)?, config: None, labels: None };
        if let Some(name) = files::first_of(path, &["labels.csv", "labels.json", "labels.txt"])? {
            folder.labels = Some(LabelSet::open(path.join(name))?);
        }
        if let Some(name) = files::first_of(path, &["config.json"])? {
            folder.read_config(path, &path.join(name))?;
        }
        Ok(folder)
    }

    fn read_config(&mut self, folder: &Path, path: &Path) -> Result<()> {
        let value = folder::read_json(path)?;
        if value.get("model").is_some() {
            let config = serde_json::from_value(value);
            self.config =
                Some(config.map_err(|error| Error::Checkpoint { path: path.into(), reason: error.to_string() })?);
            return Ok(());
        }
        self.config = ModelConfig::from_hugging_face(&value, preprocessor(folder)?.as_ref())?;
        if self.labels.is_none() && value.get("id2label").is_some() {
            self.labels = Some(LabelSet::open(path)?);
        }
        Ok(())
    }
}
