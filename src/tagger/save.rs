//! Attaching a trained head to a tagger, and saving taggers as folders.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;

use super::Tagger;
use crate::error::{Context, Error, Result};
use crate::labels::LabelSet;
use crate::models::probe::{self, LinearProbe, ProbeHead};
use crate::models::{ModelConfig, OutputActivation};
use crate::weights::Weights;

/// The configuration and checkpoints that a model was loaded from.
pub(super) struct Source {
    config: ModelConfig,
    /// The checkpoints, each with the prefix that its tensors get when they are saved together.
    weights: Vec<(String, Weights)>,
}

impl Source {
    pub fn new(config: ModelConfig, weights: Weights) -> Self {
        Self { config, weights: vec![(String::new(), weights)] }
    }
}

impl Tagger {
    /// Replaces the classification head of this tagger's model by a trained one, for your own classes. The rest of the
    /// model is shared.
    ///
    /// ```no_run
    /// # use clipwise::{LabelSet, Tagger, device};
    /// # use clipwise::models::{OutputActivation, probe::ProbeHead};
    /// # fn trained() -> ProbeHead { unimplemented!() }
    /// # fn main() -> clipwise::Result<()> {
    /// let tagger = Tagger::open("Cnn14_mAP=0.431.pth", &device::cpu())?;
    /// let head: ProbeHead = trained(); // on this tagger's embeddings
    /// let mine = tagger.with_probe(&head, OutputActivation::Softmax, LabelSet::open("labels.txt")?)?;
    /// mine.save("my-sounds")?;
    /// let same = Tagger::open("my-sounds", &device::cpu())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Weights`] if the head expects embeddings of another length; [`Error::LabelCount`] if the number of
    /// labels differs from the number of the head's classes; [`Error::Tensor`] if a tensor operation fails on the
    /// device.
    pub fn with_probe(&self, head: &ProbeHead, activation: OutputActivation, labels: LabelSet) -> Result<Self> {
        let head = Weights::from_tensors(head.tensors()?)?;
        let probe = LinearProbe::load(self.model.clone(), &head, activation)?;
        let source = self.source.as_ref().map(|source| {
            let prefix = |(prefix, weights): &(String, Weights)| (format!("{}.{prefix}", probe::BASE), weights.at(""));
            let mut weights: Vec<_> = source.weights.iter().map(prefix).collect();
            weights.push((format!("{}.", probe::HEAD), head));
            Arc::new(Source { config: probe::Config::new(source.config.clone(), activation).into(), weights })
        });
        Ok(Self { source, ..Self::new(probe, labels)? })
    }

    /// Writes a folder from which [`Tagger::open`] opens the same tagger: `config.json`, `labels.json`, and
    /// `model.safetensors` with all weights in f32. The folder may exist. Each file is replaced only when its new
    /// version is complete.
    ///
    /// # Errors
    /// [`Error::Argument`] if the model was not loaded by this crate (see [`Tagger::new`]); [`Error::Io`] if a file
    /// cannot be written; otherwise as [`Weights::tensor`].
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let Some(source) = &self.source else {
            let reason =
                "expected a model that was loaded from a checkpoint: the configuration of other models is unknown";
            return Err(Error::argument("model", &self.model.info().name, reason));
        };
        let mut tensors = HashMap::new();
        for (prefix, weights) in &source.weights {
            for name in weights.names() {
                tensors.insert(format!("{prefix}{name}"), weights.tensor(name, &Device::Cpu)?);
            }
        }
        let error = |path: &Path, cause| Error::Io { action: "write", path: path.to_path_buf(), cause };
        std::fs::create_dir_all(folder).map_err(|cause| error(folder, cause))?;
        let write = |name: &str, write: &dyn Fn(&Path) -> Result<()>| {
            let (path, partial) = (folder.join(name), folder.join(format!("{name}.partial")));
            write(&partial)?;
            std::fs::rename(&partial, &path).map_err(|cause| error(&path, cause))
        };
        let json = |name: &str, text: serde_json::Result<String>| {
            let text = text.map_err(|cause| error(&folder.join(name), cause.into()))?;
            write(name, &|path| std::fs::write(path, &text).map_err(|cause| error(path, cause)))
        };
        write("model.safetensors", &|path| {
            candle_core::safetensors::save(&tensors, path).context("writing safetensors")
        })?;
        json("labels.json", serde_json::to_string(&self.labels))?;
        json("config.json", serde_json::to_string_pretty(&source.config))
    }
}
