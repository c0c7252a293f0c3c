//! A model with its labels: audio in, tags out.

use std::path::Path;

use candle_core::Device;

use crate::assumption::Assumption;
use crate::audio::{Waveform, WaveformBatch};
use crate::error::{Context, Error, Result};
use crate::files;
use crate::labels::LabelSet;
use crate::models::{Detail, ModelConfig, TaggingModel, detect};
use crate::output::Tagging;
use crate::weights::Weights;
use crate::weights::folder;
use crate::weights::place::left_out;

/// Tags clips of any sample rate.
///
/// ```no_run
/// use clipwise::{Tagger, Waveform};
///
/// # fn main() -> clipwise::Result<()> {
/// let device = clipwise::device::best()?;
/// let tagger = Tagger::open("Cnn14_mAP=0.431.pth", &device)?;
/// let tagging = tagger.tag(&Waveform::open("dog.wav")?)?;
/// for tag in tagging.top_k(5) {
///     println!("{:5.3}  {}", tag.score, tag.label);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Tagger {
    model: Box<dyn TaggingModel>,
    labels: LabelSet,
    assumptions: Vec<Assumption>,
}

impl Tagger {
    /// The tagger in the box: CED-tiny, trained on AudioSet's 527 classes (published mAP 0.481), 16 kHz, Apache-2.0.
    ///
    /// The feature `bundled` puts its 5.6 MB into the binary.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    #[cfg(feature = "bundled")]
    pub fn bundled(device: &Device) -> Result<Self> {
        let weights = Weights::from_bytes(include_bytes!("../weights/ced-tiny/model.safetensors").as_slice())?;
        let unusable = |reason: String| Error::Checkpoint { path: "<bundled>".into(), reason };
        let config = serde_json::from_str(include_str!("../weights/ced-tiny/config.json"));
        let config = config.map_err(|error| unusable(error.to_string()))?;
        Self::from_config(&config, &weights, device, Vec::new())
    }

    /// Opens a checkpoint file, or a folder with `config.json` and `model.safetensors` (or its index).
    ///
    /// Which model a file is for is found from its tensors. In a folder, `config.json` says it where it has a key `model`
    /// (see [`ModelConfig`]), and names the classes where it has `id2label`; a file `labels.csv`, `.json` or `.txt` names
    /// them too. A folder without a config, or with one that only another library understands, is opened as its file. A file
    /// with one of these names that cannot be read, be it a link to nowhere, is an error.
    ///
    /// A model may stand below a prefix of its own in the checkpoint, beside other tensors, as Lightning saves it beside a loss:
    /// see [`models::detect`](crate::models::detect).
    ///
    /// The labels are AudioSet's for 527 classes, else `class 0` and so on: see [`Tagger::with_labels`]. What had to be
    /// assumed stands in [`Tagger::assumptions`].
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Checkpoint`] if it is not a checkpoint, [`Error::UnknownModel`] if no model has such
    /// tensors, and as [`ModelConfig::load`].
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            let folder = Folder::open(path)?;
            let (config, assumptions) = folder.model()?;
            let tagger = Self::from_config(&config, &folder.weights, device, assumptions)?;
            return match folder.labels {
                Some(labels) => tagger.with_labels(labels),
                None => Ok(tagger),
            };
        }
        let weights = Weights::open(path)?;
        let detected = detect(&weights)?;
        Self::from_config(&detected.config, &weights, device, detected.assumptions)
    }

    /// Opens a checkpoint file as the model with this name, one of [`presets`](crate::models::presets).
    ///
    /// # Errors
    /// As [`Tagger::open`].
    pub fn open_as(name: &str, path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let weights = Weights::open(path)?;
        let config = ModelConfig::by_name(name, &weights)?;
        let assumptions = left_out(&weights, &config.place(&weights)?).into_iter().collect();
        Self::from_config(&config, &weights, device, assumptions)
    }

    /// A tagger of a loaded model.
    ///
    /// # Errors
    /// [`Error::LabelCount`] if the number of labels differs from the number of classes.
    pub fn new(model: impl TaggingModel + 'static, labels: LabelSet) -> Result<Self> {
        Self { model: Box::new(model), labels: LabelSet::numbered(0), assumptions: Vec::new() }.with_labels(labels)
    }

    fn from_config(
        config: &ModelConfig,
        weights: &Weights,
        device: &Device,
        mut assumptions: Vec<Assumption>,
    ) -> Result<Self> {
        let model = config.load(weights, device)?;
        let mut labels = model.info().labels.clone().unwrap_or_else(LabelSet::audioset);
        if model.info().n_classes != labels.len() {
            labels = LabelSet::numbered(model.info().n_classes);
            assumptions.push(Assumption::NumberedLabels { n_classes: model.info().n_classes });
        }
        Ok(Self { model, labels, assumptions })
    }

    /// The same tagger with other labels.
    ///
    /// # Errors
    /// [`Error::LabelCount`] if the number of labels differs from the number of classes.
    pub fn with_labels(mut self, labels: LabelSet) -> Result<Self> {
        let (n_classes, n_labels) = (self.model.info().n_classes, labels.len());
        if n_classes != n_labels {
            return Err(Error::LabelCount { n_classes, n_labels });
        }
        self.labels = labels;
        self.assumptions.retain(|it| !matches!(it, Assumption::NumberedLabels { .. } | Assumption::AudioSetByName));
        Ok(self)
    }

    /// Tags one clip of any rate, resampled to the model's where it differs.
    ///
    /// # Errors
    /// [`Error::TooShort`] for a clip without samples, [`Error::NonFinite`] for NaN or infinite samples,
    /// [`Error::Config`] for a rate of 0 Hz, [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn tag(&self, waveform: &Waveform) -> Result<Tagging> {
        let tagging = self.tag_batch(std::slice::from_ref(waveform))?.pop();
        tagging
            .ok_or_else(|| candle_core::Error::Msg("the model gave no row for the clip".to_string()))
            .context("tagging")
    }

    /// Tags several clips of any rates and lengths; the result for a clip is that of [`Tagger::tag`]. No clips, no
    /// taggings.
    ///
    /// # Errors
    /// As [`Tagger::tag`], for the first clip that has one.
    pub fn tag_batch(&self, waveforms: &[Waveform]) -> Result<Vec<Tagging>> {
        if waveforms.is_empty() {
            return Ok(Vec::new());
        }
        let rate = self.model.info().sample_rate;
        let row = |waveform: &Waveform| Ok(waveform.resample(rate)?.samples);
        let rows = waveforms.iter().map(row).collect::<Result<Vec<_>>>()?;
        self.model.forward(&WaveformBatch::new(rows, rate)?, Detail::Clip)?.to_taggings(&self.labels)
    }

    /// The model.
    pub fn model(&self) -> &dyn TaggingModel {
        &*self.model
    }

    /// The model by itself.
    pub fn into_model(self) -> Box<dyn TaggingModel> {
        self.model
    }

    /// The names of the classes.
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// What the checkpoint did not say and was assumed; worth showing to whoever runs the program.
    pub fn assumptions(&self) -> &[Assumption] {
        &self.assumptions
    }
}

impl std::fmt::Debug for Tagger {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (model, labels) = (&self.model.info().name, self.labels.len());
        f.debug_struct("Tagger").field("model", model).field("n_labels", &labels).finish_non_exhaustive()
    }
}

/// A folder with a model: `config.json`, `model.safetensors`, perhaps labels.
struct Folder {
    weights: Weights,
    labels: Option<LabelSet>,
    config: Option<ModelConfig>,
}

impl Folder {
    fn open(path: &Path) -> Result<Self> {
        let mut folder = Self { weights: folder::open_weights(path)?, labels: None, config: None };
        if let Some(name) = files::first_of(path, &["labels.csv", "labels.json", "labels.txt"])? {
            folder.labels = Some(LabelSet::open(path.join(name))?);
        }
        if let Some(name) = files::first_of(path, &["config.json"])? {
            folder.read_config(&path.join(name))?;
        }
        Ok(folder)
    }

    fn read_config(&mut self, path: &Path) -> Result<()> {
        let value = folder::read_json(path)?;
        if value.get("model").is_some() {
            let config = serde_json::from_value(value);
            self.config =
                Some(config.map_err(|error| Error::Checkpoint { path: path.into(), reason: error.to_string() })?);
        } else if self.labels.is_none() && value.get("id2label").is_some() {
            self.labels = Some(LabelSet::open(path)?);
        }
        Ok(())
    }

    /// The configuration and what had to be assumed.
    fn model(&self) -> Result<(ModelConfig, Vec<Assumption>)> {
        match &self.config {
            Some(config) => {
                let left_out = left_out(&self.weights, &config.place(&self.weights)?);
                Ok((config.clone(), left_out.into_iter().collect()))
            }
            None => detect(&self.weights).map(|detected| (detected.config, detected.assumptions)),
        }
    }
}
