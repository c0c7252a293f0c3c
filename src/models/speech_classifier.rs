//! A speech encoder with a classifier, for keywords, emotions, languages or speakers.
//!
//! Reference: `Wav2Vec2ForSequenceClassification` of transformers, the classes of the same form for its other encoders,
//! and `WhisperForAudioClassification`. Checkpoint keys: theirs.
//!
//! waveform `[batch, n_samples]` → [encoder](crate::encoders): `[batch, n_frames, dim]`; with `use_weighted_layer_sum`,
//! the sum of its layers weighted by `softmax(layer_weights)` → mean over the frames → `projector`: the embedding
//! `[batch, hidden_dim]` → `classifier`, softmax. The reference projects each frame before the mean, which gives the
//! same result.
//!
//! Shortest clip: that of the encoder. Whisper's classifiers average over the frames of all 30 s, padding included.

use std::borrow::Cow;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::family::Family;
use super::{Detail, ModelInfo, OutputActivation, TaggingModel};
use crate::assumption::Assumption;
use crate::audio::WaveformBatch;
use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::encoders::{
    Encoded, EncoderConfig, Layers, OpenOptions, SpeechEncoder, WeightedSum, WeightedSumConfig, preprocessor,
};
use crate::error::{Context, Error, Result};
use crate::nn::{Activation, Linear};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights, folder};

/// Suffixes of the class names in transformers.
const CLASSES: [&str; 2] = ["ForSequenceClassification", "ForAudioClassification"];

/// The configuration of a speech classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A name of your own. Default when read from a file: `speech-classifier`.
    #[serde(default = "speech_classifier")]
    pub name: Cow<'static, str>,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// A weighted sum over all encoder layers. Default when read from a file: none, so the encoder's output is used.
    #[serde(default)]
    pub weighted_sum: Option<WeightedSumConfig>,
    /// Length of the embedding (`classifier_proj_size`), 1 to 65,536.
    pub hidden_dim: usize,
    /// The number of classes, 1 to 2^20.
    pub n_classes: usize,
    /// Softmax for one class per clip, sigmoid for several.
    pub activation: OutputActivation,
}

/// The default name, also for configurations that match no preset.
fn speech_classifier() -> Cow<'static, str> {
    Cow::Borrowed("speech-classifier")
}

impl Config {
    /// Reads the `config.json` and the `preprocessor_config.json` of a model saved by transformers; `None` for another
    /// kind of model.
    ///
    /// # Errors
    /// [`Error::Config`] for an encoder with settings that this crate does not support, and for a regression model
    /// (`problem_type` `regression`).
    pub fn from_hugging_face(config: &Value, preprocessor: Option<&Value>) -> Result<Option<Self>> {
        let architectures = config.get("architectures").and_then(Value::as_array);
        let mut names = architectures.into_iter().flatten().filter_map(Value::as_str);
        let is_classifier = names.any(|name| CLASSES.iter().any(|class| name.ends_with(class)));
        if !is_classifier || !EncoderConfig::is_hugging_face(config) {
            return Ok(None);
        }
        let mut encoder = EncoderConfig::from_hugging_face(config, preprocessor)?;
        if let EncoderConfig::Whisper(whisper) = &mut encoder {
            whisper.keep_padding = true;
        }
        let has_sum = config.get("use_weighted_layer_sum").and_then(Value::as_bool) == Some(true);
        let number =
            |name: &str| config.get(name).and_then(Value::as_u64).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let n_labels = config.get("id2label").and_then(Value::as_object).map(serde_json::Map::len);
        Ok(Some(Self {
            name: encoder.name().to_string().into(),
            encoder,
            weighted_sum: has_sum.then(WeightedSumConfig::default),
            // Transformers' default.
            hidden_dim: number("classifier_proj_size").unwrap_or(256),
            n_classes: n_labels.or(number("num_labels")).unwrap_or(2),
            activation: OutputActivation::of_hugging_face(config)?,
        }))
    }

    fn validate(&self) -> Result<()> {
        check::sizes([("hidden_dim", self.hidden_dim, MAX_WIDTH), ("n_classes", self.n_classes, MAX_CLASSES)])
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[];
    const SIGNATURES: &'static [&'static [&'static str]] = &[&["projector.weight", "classifier.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    /// The tensors do not determine the activation. Softmax is assumed, as in nearly all published models.
    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let has = |name: &str| weights.contains(name);
        if !(has("projector.weight") && has("classifier.weight")) {
            return Ok(None);
        }
        let mut config = Self {
            name: speech_classifier(),
            encoder: EncoderConfig::from_weights(weights)?,
            weighted_sum: has("layer_weights").then(WeightedSumConfig::default),
            hidden_dim: 0,
            n_classes: 0,
            activation: OutputActivation::Softmax,
        };
        if let EncoderConfig::Whisper(whisper) = &mut config.encoder {
            (whisper.pad, whisper.keep_padding) = (true, true);
        }
        config.fit(weights);
        Ok(Some((config, Vec::new())))
    }

    /// The length of the embedding and the number of classes.
    fn fit(&mut self, weights: &Weights) {
        if let Some(&[n_classes, hidden_dim]) = weights.shape("classifier.weight") {
            (self.n_classes, self.hidden_dim) = (n_classes, hidden_dim);
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(SpeechClassifier::load(self, weights, device)?))
    }
}

/// A loaded speech classifier.
pub struct SpeechClassifier {
    config: Config,
    info: ModelInfo,
    encoder: Box<dyn SpeechEncoder>,
    sum: Option<WeightedSum>,
    projector: Linear,
    classifier: Linear,
}

impl SpeechClassifier {
    /// Opens a folder saved by transformers. [`Tagger::open`](crate::Tagger::open) also opens it, with its labels; this
    /// function gives access to the encoder.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::Checkpoint`] if a file is invalid, [`Error::UnknownModel`] for
    /// another kind of model, otherwise as [`Config::from_hugging_face`] and [`load`](Self::load).
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::open_with(folder, &OpenOptions::new().device(device))
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Argument`] if the encoder or the device does not have the precision.
    pub fn open_with(folder: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let folder = folder.as_ref();
        let value = folder::read_json(&folder.join("config.json"))?;
        let config = Config::from_hugging_face(&value, preprocessor(folder)?.as_ref())?.ok_or_else(|| {
            let architectures = value.get("architectures").unwrap_or(&Value::Null);
            Error::UnknownModel(format!(
                "expected a classifier on a speech encoder in `architectures`, got {architectures}"
            ))
        })?;
        options.apply(Weights::open_folder(folder)?, |weights, device| Self::load(&config, weights, device))
    }

    /// Builds the model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::Weights`] listing every tensor that is missing,
    /// unexpected or of the wrong shape.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let model = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(model)
    }

    /// Builds the model from the tensors of a loader.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, otherwise as [`EncoderConfig::build`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let encoder = config.encoder.build(root)?;
        let (dim, hidden_dim, n_classes) = (encoder.info().dim, config.hidden_dim, config.n_classes);
        let sum = config.weighted_sum.map(|sum| WeightedSum::load(root, encoder.info().n_layers, &sum)).transpose()?;
        let info = ModelInfo {
            min_samples: encoder.info().min_samples,
            activation: config.activation,
            ..ModelInfo::new(config.name.clone(), encoder.info().sample_rate, n_classes, hidden_dim)
        };
        Ok(Self {
            info,
            sum,
            projector: Linear::load(&root.at("projector"), dim, hidden_dim, Activation::Identity)?,
            classifier: Linear::load(&root.at("classifier"), hidden_dim, n_classes, Activation::Identity)?,
            encoder,
            config: config.clone(),
        })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The encoder.
    pub fn encoder(&self) -> &dyn SpeechEncoder {
        &*self.encoder
    }

    /// Classifies the output of the encoder. Needs all layers if the model has a weighted sum.
    ///
    /// # Errors
    /// [`Error::Argument`] if the number of layers differs from the weighted sum's, [`Error::Tensor`] if a shape does
    /// not match.
    pub fn forward_encoded(&self, encoded: &Encoded) -> Result<TaggingOutput> {
        self.classify(&self.embed(encoded).context("running a speech classifier")?)
    }

    fn embed(&self, encoded: &Encoded) -> Result<Tensor> {
        let states = match &self.sum {
            Some(sum) => sum.forward(&encoded.layers)?,
            None => encoded.last.clone(),
        };
        // Row by row, so that padding does not change the rounding of a clip's mean.
        let mean = |(row, &length): (usize, &usize)| states.get(row)?.narrow(0, 0, length)?.mean_keepdim(0);
        let means = encoded.lengths.iter().enumerate().map(mean).collect::<candle_core::Result<Vec<_>>>()?;
        self.projector.forward(&Tensor::cat(&means, 0)?)
    }
}

impl TaggingModel for SpeechClassifier {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        self.encoder.device()
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        self.info.check(detail)?;
        let layers = if self.sum.is_some() { Layers::All } else { Layers::Last };
        self.forward_encoded(&self.encoder.forward(batch, layers)?)
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        self.info.activation.output(self.classifier.forward(embedding)?, embedding.clone())
    }
}
