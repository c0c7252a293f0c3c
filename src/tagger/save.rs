//! Attaching a trained head to a tagger, and saving taggers as folders.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;

use super::Tagger;
use crate::error::{Error, Result};
use crate::labels::LabelSet;
use crate::models::probe::{self, LinearProbe, ProbeHead};
use crate::models::{ModelConfig, OutputActivation};
use crate::weights::{Weights, save_tensors};

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

/// See [`Tagger::with_probe`].
pub(super) fn with_probe(
    tagger: &Tagger,
    head: &ProbeHead,
    activation: OutputActivation,
    labels: LabelSet,
) -> Result<Tagger> {
    let head = Weights::from_tensors(head.tensors()?)?;
    let probe = LinearProbe::load(tagger.model.clone(), &head, activation)?;
    let source = tagger.source.as_ref().map(|source| {
        let prefix = |(prefix, weights): &(String, Weights)| (format!("{}.{prefix}", probe::BASE), weights.at(""));
        let mut weights: Vec<_> = source.weights.iter().map(prefix).collect();
        weights.push((format!("{}.", probe::HEAD), head));
        Arc::new(Source { config: probe::Config::new(source.config.clone(), activation).into(), weights })
    });
    Ok(Tagger { source, ..Tagger::new(probe, labels)? })
}

/// See [`Tagger::save`].
pub(super) fn save(tagger: &Tagger, folder: &Path) -> Result<()> {
    let Some(source) = &tagger.source else {
        let reason = "expected a model that was loaded from a checkpoint: the configuration of other models is unknown";
        return Err(Error::argument("model", &tagger.model.info().name, reason));
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
    write("model.safetensors", &|path| save_tensors(&tensors, path))?;
    json("labels.json", serde_json::to_string(&tagger.labels))?;
    json("config.json", serde_json::to_string_pretty(&source.config))
}
