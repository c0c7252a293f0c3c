//! Transfer learning: a linear classifier on another model's embeddings.

use std::borrow::Cow;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::family::Family;
use super::{Detail, ModelConfig, ModelInfo, OutputActivation, TaggingModel};
use crate::assumption::Assumption;
use crate::audio::WaveformBatch;
use crate::error::{Context, Error, Result};
use crate::frontend::FrontEnd;
use crate::nn::{Activation, Linear};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Parameters, Precision, Weights, save_tensors};

/// Prefix of the base model's tensors in a saved probe.
pub(crate) const BASE: &str = "tagger";
/// Prefix of the head's tensors.
pub(crate) const HEAD: &str = "probe";

/// The configuration of a saved probe: the base model's tensors lie under `tagger.`, those of the head under `probe.`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A name of your own. Default when read from a file: `linear-probe`.
    #[serde(default = "linear_probe")]
    pub name: Cow<'static, str>,
    /// The base model, whose embeddings the head classifies.
    pub base: Box<ModelConfig>,
    /// How the head's outputs become probabilities. Their number is read from `fc.weight`.
    pub head: OutputActivation,
}

/// The default name.
fn linear_probe() -> Cow<'static, str> {
    Cow::Borrowed("linear-probe")
}

impl Config {
    /// A head on the embeddings of `base`.
    pub fn new(base: ModelConfig, head: OutputActivation) -> Self {
        Self { name: linear_probe(), base: Box::new(base), head }
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[];
    const SIGNATURES: &'static [&'static [&'static str]] = &[&["probe.fc.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        if !weights.contains("probe.fc.weight") {
            return Ok(None);
        }
        let reason =
            "a linear probe's tensors do not determine its output activation: open its folder, which has a config.json";
        Err(Error::UnknownModel(reason.to_string()))
    }

    /// All sizes are those of the tensors.
    fn fit(&mut self, _: &Weights) {}

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        let base = self.base.load(&weights.at(BASE), device)?;
        let weights = weights.at("").with_precision(Precision::F32); // the head
        let root = weights.loader(device);
        root.ignore(&format!("{BASE}.*"));
        let probe = LinearProbe::build(base, &root.at(HEAD), self.head, self.name.clone())?;
        root.finish(&self.name)?;
        Ok(Box::new(probe))
    }
}

/// Any tagger with a linear head of your own on its embeddings: `fc`, then softmax or sigmoid.
///
/// The head's file holds `fc.weight` `[n_classes, embedding_dim]` and `fc.bias` `[n_classes]`. It only works with the
/// model on whose embeddings it was trained.
///
/// ```no_run
/// use clipwise::models::OutputActivation;
/// use clipwise::models::probe::LinearProbe;
/// use clipwise::{LabelSet, Tagger, Weights, device};
///
/// # fn main() -> clipwise::Result<()> {
/// let base = Tagger::open("Cnn14_mAP=0.431.pth", &device::cpu())?.into_model();
/// let probe = LinearProbe::load(base, &Weights::open("probe/head.safetensors")?, OutputActivation::Softmax)?;
/// let tagger = Tagger::new(probe, LabelSet::open("probe/labels.txt")?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LinearProbe<M> {
    base: M,
    fc: Linear,
    info: ModelInfo,
}

impl<M: TaggingModel> LinearProbe<M> {
    /// Puts a trained head on a base model.
    ///
    /// # Errors
    /// [`Error::Weights`] if the head's tensors do not match the model's embedding, [`Error::Tensor`] if a tensor
    /// operation fails on the device.
    pub fn load(base: M, weights: &Weights, activation: OutputActivation) -> Result<Self> {
        let root = weights.loader(base.device());
        let probe = Self::build(base, &root, activation, linear_probe())?;
        root.finish("the linear probe")?;
        Ok(probe)
    }

    fn build(base: M, head: &Loader, activation: OutputActivation, name: Cow<'static, str>) -> Result<Self> {
        let n_classes = head.shape("fc.weight").and_then(|shape| shape.first().copied()).unwrap_or(1).max(1);
        let ModelInfo { sample_rate, embedding_dim, min_samples, .. } = *base.info();
        let fc = Linear::load(&head.at("fc"), embedding_dim, n_classes, Activation::Identity)?;
        let info = ModelInfo { activation, min_samples, ..ModelInfo::new(name, sample_rate, n_classes, embedding_dim) };
        Ok(Self { base, fc, info })
    }

    /// The base model.
    pub fn base(&self) -> &M {
        &self.base
    }
}

impl<M: TaggingModel> TaggingModel for LinearProbe<M> {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        self.base.device()
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        self.info.check(detail)?;
        self.classify(&self.base.forward(batch, Detail::Clip)?.embedding)
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        self.info.activation.output(self.fc.forward(embedding)?, embedding.clone())
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        self.base.front_end()
    }

    fn forward_features(&self, features: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.info.check(detail)?;
        self.classify(&self.base.forward_features(features, Detail::Clip)?.embedding)
    }
}

/// A linear head in training. Each embedding dimension is standardised over the training clips (mean 0, variance 1),
/// and [`tensors`](Self::tensors) folds this normalisation into the saved head.
#[derive(Debug)]
pub struct ProbeHead {
    parameters: Parameters,
    fc: Linear,
    mean: Tensor,  // [embedding_dim]
    scale: Tensor, // [embedding_dim]
}

impl ProbeHead {
    /// Creates a head for training on `embeddings` `[n_clips, embedding_dim]`. `seed` determines the initial weights.
    ///
    /// # Errors
    /// [`Error::Argument`] if `embeddings` has no rows or `n_classes` is 0, [`Error::Tensor`] if `embeddings` is not a
    /// matrix.
    pub fn new(embeddings: &Tensor, n_classes: usize, seed: u64) -> Result<Self> {
        let context = "creating a linear probe";
        let (n_clips, embedding_dim) = embeddings.dims2().context(context)?;
        for (field, value) in [("n_clips", n_clips), ("n_classes", n_classes)] {
            if value == 0 {
                return Err(Error::argument(field, value, "expected at least 1"));
            }
        }
        let statistics = || {
            let mean = embeddings.mean_keepdim(0)?;
            let variance = embeddings.broadcast_sub(&mean)?.sqr()?.mean(0)?;
            // A constant dimension carries no information and gets scale 0.
            let scale = variance.ge(1e-12)?.to_dtype(variance.dtype())?.div(&(variance + 1e-12)?.sqrt()?)?;
            Ok::<_, Error>((mean.squeeze(0)?, scale))
        };
        let (mean, scale) = statistics().context(context)?;
        let parameters = Parameters::new(embeddings.device(), seed);
        let fc = Linear::load(&parameters.loader().at("fc"), embedding_dim, n_classes, Activation::Identity)?;
        Ok(Self { parameters, fc, mean, scale })
    }

    /// The trainable parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Computes logits `[n_clips, n_classes]` from `embeddings` `[n_clips, embedding_dim]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape does not match.
    pub fn forward(&self, embeddings: &Tensor) -> Result<Tensor> {
        let normal = embeddings.broadcast_sub(&self.mean).and_then(|x| x.broadcast_mul(&self.scale));
        self.fc.forward(&normal.context("normalising embeddings for a linear probe")?)
    }

    /// The head with its normalisation folded in: `fc.weight` and `fc.bias`, as [`LinearProbe::load`] reads them.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let loader = self.parameters.loader().at("fc");
        let (n_classes, embedding_dim) = (self.fc.out_features(), self.mean.elem_count());
        let (weight, bias) = (loader.get("weight", (n_classes, embedding_dim))?, loader.get("bias", n_classes)?);
        let folded = || {
            let weight = weight.detach().broadcast_mul(&self.scale)?;
            let shift = weight.matmul(&self.mean.unsqueeze(1)?)?.squeeze(1)?;
            Ok::<_, Error>(vec![("fc.bias".to_string(), (bias.detach() - shift)?), ("fc.weight".to_string(), weight)])
        };
        folded().context("folding the normalisation into the head of a linear probe")
    }

    /// Writes [`tensors`](Self::tensors) to a safetensors file.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Tensor`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let tensors = self.tensors()?.into_iter().collect();
        save_tensors(&tensors, path.as_ref())
    }
}
