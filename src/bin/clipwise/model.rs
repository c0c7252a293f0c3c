//! Which model, and where it runs.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clipwise::device::{self, Device};
use clipwise::{LabelSet, OpenOptions, Precision, Tagger, models};
use sha2::{Digest, Sha256};

use crate::message::{self, Failure, about, cannot, escaped, say};
use crate::output::{Provenance, stdout};
use crate::run::{Outcome, Status};

/// The models that are built in, with the SHA-256 of their weights.
pub const BUILT_IN: [(&str, &str); 2] = [
    ("ced-tiny", "4aa3b32fc25a40903e85fd0519aab62c438d39ff907eb906d1ba66272ed79763"),
    ("mn04", "16b21c36a9cc27be89deb7544f95830e6a1d54d14716e71ad4c85017ffdb2d30"),
];

/// Where to run.
#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    /// Run on auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto", help_heading = "Model")]
    device: String,
    /// CPU threads [default: one per core]
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub threads: Option<usize>,
    /// Compute in this precision: f32; int8, faster and less accurate; or f16_weights, large layers in half the memory (both on the CPU only)
    #[arg(long, value_name = "PRECISION", default_value_t, help_heading = "Model")]
    pub precision: Precision,
}

impl RunArgs {
    pub fn device(&self) -> Result<Device, Failure> {
        let device::Choice { device, reason, .. } = device::choose(&self.device)?;
        if self.device == "auto" && cfg!(feature = "cuda") {
            say(format_args!("note: {reason}"));
        }
        Ok(device)
    }
}

/// Which tagger.
#[derive(clap::Args, Clone, Debug)]
pub struct ModelArgs {
    /// Checkpoint: safetensors, .pth or .pt of PyTorch, YAMNet's or BirdNET's .tflite, or a folder with config.json and weights;
    /// its tensors tell the model [default: the built-in CED-tiny]
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    weights: Option<PathBuf>,
    /// Open the checkpoint as this model (`clipwise models` lists them); without --weights: ced-tiny, or mn04, which is seven times
    /// as fast
    #[arg(long, value_name = "NAME", help_heading = "Model", value_parser = model_name)]
    model: Option<String>,
    /// Checkpoint of the encoder below a head that is published alone (Whisper-AT): a file, or a folder of transformers
    #[arg(long, value_name = "FILE", requires = "weights", help_heading = "Model")]
    encoder: Option<PathBuf>,
    /// Class names of the model: CSV, JSON, or text with one name per line
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    labels: Option<PathBuf>,
    /// List the classes of the model (index, id, label) and stop
    #[arg(long, help_heading = "Model")]
    pub list_classes: bool,
    #[command(flatten)]
    pub run: RunArgs,
}

/// The name of a model. The error for another one names those that are most alike.
pub fn model_name(text: &str) -> Result<String, String> {
    let mut names: Vec<String> = models::presets().map(|preset| preset.name().to_string()).collect();
    if names.iter().any(|name| name == text) {
        return Ok(text.to_string());
    }
    names.sort_by(|a, b| strsim::jaro_winkler(b, text).total_cmp(&strsim::jaro_winkler(a, text)));
    names.truncate(3);
    Err(format!("no model has this name; similar: {} (`clipwise models` lists all)", names.join(", ")))
}

/// A tagger, and where it came from.
#[derive(Clone)]
pub struct Opened {
    pub tagger: Arc<Tagger>,
    weights: Option<PathBuf>,
    encoder: Option<PathBuf>,
}

impl ModelArgs {
    /// Opens the tagger; what it had to assume goes to stderr.
    pub fn open(&self) -> Result<Opened, Failure> {
        let device = self.run.device()?;
        let mut options = OpenOptions::new().device(&device).precision(self.run.precision);
        let built_in = options.clone();
        options.model.clone_from(&self.model);
        options.encoder.clone_from(&self.encoder);
        let mut tagger = match (&self.weights, self.model.as_deref()) {
            (Some(weights), _) => self.open_checkpoint(weights, &options)?,
            (None, None | Some("ced-tiny")) => Tagger::bundled_with(&built_in)?,
            (None, Some("mn04")) => Tagger::bundled_small_with(&built_in)?,
            (None, Some(name)) => {
                let error = format!("--model {name} needs --weights: only ced-tiny and mn04 are built in");
                return Err(error.into());
            }
        };
        if let Some(labels) = &self.labels {
            tagger = tagger.with_labels(LabelSet::open(labels)?).map_err(|error| about(labels, &error))?;
        }
        for assumption in tagger.assumptions() {
            say(format_args!("note: {assumption}"));
        }
        // Checkpoints with AudioSet's classes under their own names have its ontology too.
        let labels = tagger.labels().with_audioset_parents();
        let tagger = tagger.with_labels(labels)?;
        Ok(Opened { tagger: Arc::new(tagger), weights: self.weights.clone(), encoder: self.encoder.clone() })
    }

    /// As [`Tagger::open_with`]. If the checkpoint is not of the model that was asked for, the error says what it looks like.
    fn open_checkpoint(&self, weights: &Path, options: &OpenOptions) -> Result<Tagger, Failure> {
        let error = match Tagger::open_with(weights, options) {
            Ok(tagger) => return Ok(tagger),
            Err(error) => error,
        };
        let (Some(name), clipwise::Error::Weights(_) | clipwise::Error::FrontEnd { .. }) = (&self.model, &error) else {
            return Err(about(weights, &error).into());
        };
        let mut detected = options.clone();
        detected.model = None;
        match Tagger::open_with(weights, &detected) {
            Ok(tagger) if tagger.model().info().name != name.as_str() => {
                let looks_like = &tagger.model().info().name;
                let weights = message::name(weights);
                Err(format!(
                    "{weights}: expected a checkpoint of {name} (--model), got one that looks like {looks_like}"
                )
                .into())
            }
            _ => Err(about(weights, &error).into()),
        }
    }
}

impl Opened {
    /// What a table says about the model. Reads the whole checkpoint, and that of the encoder if it is another.
    pub fn provenance(&self) -> Result<Provenance, Failure> {
        let model = self.tagger.model().info().name.to_string();
        let sha256 = match &self.weights {
            Some(weights) => sha256([Some(weights), self.encoder.as_ref()].into_iter().flatten())?,
            None => BUILT_IN
                .iter()
                .find(|(name, _)| *name == model)
                .map(|(_, sha256)| sha256.to_string())
                .unwrap_or_default(),
        };
        Ok(Provenance { model, sha256, labels: self.tagger.labels().clone() })
    }
}

/// Prints the classes: index, id and label between tabs.
pub fn list_classes(labels: &LabelSet) -> Outcome {
    let mut out = BufWriter::new(stdout());
    for (index, label) in labels.iter().enumerate() {
        writeln!(out, "{index}\t{}\t{}", label.id.as_deref().unwrap_or_default(), escaped(&label.name))?;
    }
    out.flush()?;
    Ok(Status::Good)
}

/// The index of a class by name or id. The error for an unknown class names those that are most alike.
pub fn class(labels: &LabelSet, class: &str) -> Result<usize, Failure> {
    labels.index_of(class).ok_or_else(|| {
        let wanted = class.to_lowercase();
        let likeness = |name: &str| {
            let name = name.to_lowercase();
            let part = if name.split([' ', ',', '(', ')']).any(|word| word == wanted) { 1.0 } else { 0.0 };
            part + strsim::jaro_winkler(&name, &wanted)
        };
        let mut names: Vec<&str> = labels.iter().map(|label| label.name.as_str()).collect();
        names.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
        names.truncate(3);
        format!("the model has no class {class:?}; similar: {} (--list-classes lists all)", names.join("; ")).into()
    })
}

/// The SHA-256 of checkpoints, one after the other: files, or the weight files of folders in the order of their names.
fn sha256<'a>(checkpoints: impl Iterator<Item = &'a PathBuf>) -> Result<String, Failure> {
    let mut all = Vec::new();
    for weights in checkpoints {
        if !weights.is_dir() {
            all.push(weights.clone());
            continue;
        }
        let entries = std::fs::read_dir(weights).map_err(|error| cannot("read", weights, error))?;
        let is_weights =
            |path: &PathBuf| path.extension().is_some_and(|ending| ending == "safetensors" || ending == "bin");
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_weights).collect();
        files.sort();
        all.append(&mut files);
    }
    let mut hasher = Sha256::new();
    for path in all {
        let cannot_read = |error| cannot("read", &path, error);
        let mut file = BufReader::with_capacity(1 << 20, File::open(&path).map_err(cannot_read)?);
        loop {
            let bytes = file.fill_buf().map_err(cannot_read)?;
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
            let n = bytes.len();
            file.consume(n);
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
