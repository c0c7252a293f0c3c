//! Taggers: models with labels and resampling.

mod folder;
mod options;
mod save;

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;

use crate::assumption::Assumption;
use crate::audio::{Waveform, WaveformBatch};
use crate::error::{Context, Error, Result};
use crate::labels::LabelSet;
use crate::models::probe::ProbeHead;
use crate::models::{Detail, ModelConfig, TaggingModel, detect};
use crate::output::{OutputActivation, Tagging};
use crate::weights::Weights;
use crate::weights::place::left_out;
use folder::{Folder, open_weights};
pub use options::OpenOptions;
use save::Source;

/// Tags clips of any sample rate. Cheap to clone: the model is shared.
///
/// ```
/// use clipwise::{Tagger, Waveform, device};
///
/// # #[cfg(feature = "bundled")]
/// # fn main() -> clipwise::Result<()> {
/// let tagger = Tagger::bundled(&device::best()?)?; // or Tagger::open("Cnn14_mAP=0.431.pth", …)
/// let clip = Waveform::open("examples/audio/telephone.wav")?;
/// println!("{} at {} Hz", tagger.model().info().name, tagger.model().info().sample_rate);
/// for tag in tagger.tag(&clip)?.above(0.1) {
///     println!("{:5.3}  {}", tag.score, tag.label);
/// }
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "bundled"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct Tagger {
    model: Arc<dyn TaggingModel>,
    labels: LabelSet,
    assumptions: Vec<Assumption>,
    /// What the model was loaded from; `None` if the model was passed to [`Tagger::new`].
    source: Option<Arc<Source>>,
}

impl Tagger {
    /// Loads the tagger that is included in this crate: CED-tiny, trained on AudioSet's 527 classes (published mAP
    /// 0.481), 16 kHz, Apache-2.0.
    ///
    /// Adds 5.6 MB to a binary that calls it. Requires the feature `bundled`, which is on by default.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    #[cfg(feature = "bundled")]
    pub fn bundled(device: &Device) -> Result<Self> {
        Self::bundled_with(&OpenOptions::new().device(device))
    }

    /// As [`bundled`](Self::bundled), with options, of which [`model`](OpenOptions#structfield.model) and
    /// [`encoder`](OpenOptions#structfield.encoder) must not be set.
    ///
    /// ```
    /// use clipwise::{OpenOptions, Precision, Tagger};
    ///
    /// # fn main() -> clipwise::Result<()> {
    /// let tagger = Tagger::bundled_with(&OpenOptions::new().precision(Precision::Int8))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`bundled`](Self::bundled) and [`with_labels`](Self::with_labels); [`Error::Argument`] if the device does not
    /// have the [`precision`](OpenOptions#structfield.precision), or if an option is set that must not be.
    #[cfg(feature = "bundled")]
    pub fn bundled_with(options: &OpenOptions) -> Result<Self> {
        let weights = include_bytes!("../../weights/ced-tiny/model.safetensors");
        Self::load_bundled(weights, include_str!("../../weights/ced-tiny/config.json"), options)
    }

    /// Loads the small tagger that is included in this crate: EfficientAT's mn04, trained on AudioSet's 527 classes
    /// (published mAP 0.432), 32 kHz, MIT.
    ///
    /// A binary that calls this grows by 1.2 MB. The feature `bundled-small` turns it on. It is about seven times as fast as
    /// [`bundled`](Self::bundled).
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    #[cfg(feature = "bundled-small")]
    pub fn bundled_small(device: &Device) -> Result<Self> {
        Self::bundled_small_with(&OpenOptions::new().device(device))
    }

    /// As [`bundled_small`](Self::bundled_small), with options, as [`bundled_with`](Self::bundled_with).
    ///
    /// # Errors
    /// As [`bundled_with`](Self::bundled_with).
    #[cfg(feature = "bundled-small")]
    pub fn bundled_small_with(options: &OpenOptions) -> Result<Self> {
        let weights = include_bytes!("../../weights/efficientat-mn04/model.safetensors");
        Self::load_bundled(weights, include_str!("../../weights/efficientat-mn04/config.json"), options)
    }

    #[cfg(any(feature = "bundled", feature = "bundled-small"))]
    fn load_bundled(weights: &'static [u8], config: &str, options: &OpenOptions) -> Result<Self> {
        let encoder = options.encoder.as_ref().map(|encoder| encoder.display().to_string());
        for (name, set) in [("model", &options.model), ("encoder", &encoder)] {
            if let Some(value) = set {
                return Err(Error::argument(name, value, "expected none for a tagger that is built in"));
            }
        }
        let unusable = |reason: String| Error::Checkpoint { path: "<bundled>".into(), reason };
        let config = serde_json::from_str(config).map_err(|error| unusable(error.to_string()))?;
        let weights = Weights::from_bytes(weights)?.with_precision(options.precision);
        let tagger = Self::load(config, weights, options.device.as_ref().unwrap_or(&Device::Cpu), Vec::new())?;
        match options.labels.clone() {
            Some(labels) => tagger.with_labels(labels),
            None => Ok(tagger),
        }
    }

    /// Opens a checkpoint file, or a folder with `config.json` and `model.safetensors` (or its index).
    ///
    /// The model of a file is recognised from its tensors. In a folder, `config.json` determines the model if it has a
    /// key `model` (see [`ModelConfig`]), and the classes if it has `id2label`; a file `labels.csv`, `.json` or `.txt`
    /// takes precedence for the classes. A folder without a config, or with one for another library, is opened like its
    /// checkpoint file. If one of these files exists and cannot be read, including a dangling link, that is an error.
    ///
    /// A model may be stored below a prefix among other tensors, as Lightning stores it with a loss: see
    /// [`models::detect`](crate::models::detect).
    ///
    /// The labels default to AudioSet's for models of 527 classes, otherwise to `class 0` and so on; see
    /// [`Tagger::with_labels`]. [`Tagger::assumptions`] lists what had to be assumed.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Checkpoint`] if it is not a checkpoint; [`Error::UnknownModel`]
    /// if no model has these tensors; otherwise as [`ModelConfig::load`].
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::open_with(path, &OpenOptions::new().device(device))
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Error::UnknownModel`], listing the known names, if [`OpenOptions::model`] is unknown;
    /// [`Error::LabelCount`] if the number of [`OpenOptions::labels`] differs from the number of classes;
    /// [`Error::Argument`] if the model or the device does not have the
    /// [`precision`](OpenOptions#structfield.precision).
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let Folder { mut weights, config, labels } = Folder::open(path.as_ref())?;
        if let Some(encoder) = &options.encoder {
            weights = open_weights(encoder)?.overlaid(&weights);
        }
        let config = match &options.model {
            Some(name) => Some(ModelConfig::by_name(name, &weights)?),
            None => config,
        };
        let (config, assumptions) = match config {
            Some(config) => {
                let left_out = left_out(&weights, &config.place(&weights)?);
                (config, left_out.into_iter().collect())
            }
            None => detect(&weights).map(|detected| (detected.config, detected.assumptions))?,
        };
        let device = options.device.as_ref().unwrap_or(&Device::Cpu);
        let tagger = Self::load(config, weights.with_precision(options.precision), device, assumptions)?;
        match options.labels.clone().or(labels) {
            Some(labels) => tagger.with_labels(labels),
            None => Ok(tagger),
        }
    }

    /// Wraps a loaded model.
    ///
    /// # Errors
    /// [`Error::LabelCount`] if the number of labels differs from the number of classes.
    pub fn new(model: impl TaggingModel + 'static, labels: LabelSet) -> Result<Self> {
        Self { model: Arc::new(model), labels: LabelSet::numbered(0), assumptions: Vec::new(), source: None }
            .with_labels(labels)
    }

    fn load(config: ModelConfig, weights: Weights, device: &Device, mut assumptions: Vec<Assumption>) -> Result<Self> {
        let model: Arc<dyn TaggingModel> = config.load(&weights, device)?.into();
        let n_classes = model.info().n_classes;
        let mut labels = model.info().labels.clone().unwrap_or_else(LabelSet::audioset);
        if n_classes != labels.len() {
            labels = LabelSet::numbered(n_classes);
            assumptions.extend((n_classes > 0).then_some(Assumption::NumberedLabels { n_classes }));
        }
        let source = Some(Arc::new(Source::new(config, weights)));
        Ok(Self { model, labels, assumptions, source })
    }

    /// Replaces the labels.
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

    /// Tags one clip of any sample rate. It is resampled to the rate of the model if necessary.
    ///
    /// # Errors
    /// [`Error::TooShort`] if the clip is empty; [`Error::NonFinite`] if a sample is NaN or infinite;
    /// [`Error::Argument`] if the sample rate is 0 Hz; [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn tag(&self, waveform: &Waveform) -> Result<Tagging> {
        let tagging = self.tag_batch(std::slice::from_ref(waveform))?.pop();
        tagging
            .ok_or_else(|| candle_core::Error::Msg("the model returned no row for the clip".to_string()))
            .context("tagging a clip")
    }

    /// Tags several clips of any sample rates and lengths. The result for each clip is that of [`Tagger::tag`]. An
    /// empty slice gives an empty result.
    ///
    /// # Errors
    /// As [`Tagger::tag`], for the first clip with an error.
    pub fn tag_batch(&self, waveforms: &[Waveform]) -> Result<Vec<Tagging>> {
        if waveforms.is_empty() {
            return Ok(Vec::new());
        }
        let rate = self.model.info().sample_rate;
        let row = |waveform: &Waveform| match waveform.resample(rate)?.samples {
            samples if samples.is_empty() => Err(Error::TooShort { needed: 1, got: 0 }),
            samples => Ok(samples),
        };
        let rows = waveforms.iter().map(row).collect::<Result<Vec<_>>>()?;
        self.model.forward(&WaveformBatch::new(rows, rate)?, Detail::Clip)?.to_taggings(&self.labels)
    }

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
        save::with_probe(self, head, activation, labels)
    }

    /// Writes a folder from which [`Tagger::open`] opens the same tagger: `config.json`, `labels.json`, and
    /// `model.safetensors` with all weights in f32. The folder may exist. Each file is written under a temporary name,
    /// then renamed.
    ///
    /// # Errors
    /// [`Error::Argument`] if the model was not loaded by this crate (see [`Tagger::new`]); [`Error::Io`] if a file
    /// cannot be written; otherwise as [`Weights::tensor`].
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        save::save(self, folder.as_ref())
    }

    /// The model.
    pub fn model(&self) -> &dyn TaggingModel {
        &*self.model
    }

    /// The model, shared with the clones of this tagger.
    pub fn into_model(self) -> Arc<dyn TaggingModel> {
        self.model
    }

    /// The names of the classes.
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// Properties of the model that the checkpoint did not state and that were assumed. Programs should show them to
    /// users.
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
