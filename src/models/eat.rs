//! EAT, a vision transformer with post-norm blocks, and SSLAM, the same architecture with other training.
//!
//! Papers: Chen et al., "EAT: Self-Supervised Pre-Training with Efficient Audio Transformer", 2024 (arXiv 2401.03497);
//! Alex et al., "SSLAM", 2025 (arXiv 2506.12222). Reference: cwx-worst-one/EAT, `models/images.py`,
//! `models/EAT_audio_classification.py` and `inference/inference.py`. Checkpoint keys: those of fairseq
//! (`modality_encoders.IMAGE.local_encoder.proj`, with or without `model.` before them) or of the Hugging Face
//! conversions (`local_encoder.proj`). The two differ in the ε of the last norm.
//!
//! waveform `[batch, n_samples]` at 16 kHz → Kaldi fbank (Hann window) `[batch, n_frames, 128]` → zero-padded to 1024
//! frames → `(x − mean) / (2 std)` → patches of 16 frames x 16 mel bins, projected by a linear layer: 64 x 8 tokens →
//! position table added → a class token without a position prepended → norm → 12 or 24 transformer blocks (post-norm) →
//! the class token (the embedding) → norm, linear, sigmoid.
//!
//! A pre-training checkpoint has no head: `n_classes` is 0, and the output is the embedding. The reference first
//! subtracts the mean of a clip's samples; the fbank subtracts the mean of each frame, which has the same effect.
//!
//! The reference cuts a clip to 1024 frames (10.2 s) and ignores the rest. Here a longer clip is cut into windows of
//! that length, the last of which ends with the clip; scores and embedding are means over the windows, weighted by the
//! frames that each adds. Clips of fewer than 400 samples, for which the reference fails, are zero-padded at the end to
//! that length.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::family::Family;
use super::vit::{self, BlockShape, MAX_TARGET_LENGTH};
use super::{Detail, ModelInfo, OutputActivation, TaggingModel};
use crate::assumption::Assumption;
use crate::check;
use crate::error::{Context, Error, Result};
use crate::frontend::features::Features;
use crate::frontend::{FbankConfig, FrontEnd};
use crate::nn::{Activation, LayerNorm, Linear, NormPlace, PatchAxes, PatchConfig, PatchEmbedding, TransformerBlock};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

/// Prefix in fairseq's layout of the layers before the blocks.
const IMAGE: &str = "modality_encoders.IMAGE";
/// ε of all layer norms except the last one in the Hugging Face layout.
const EPS: f32 = 1e-6;
/// Tensors used in pre-training only.
const PRETRAINING: [&str; 6] = [
    "modality_encoders.IMAGE.decoder.*",
    "modality_encoders.IMAGE.encoder_mask",
    "recon_proj.*",
    "cls_proj.*",
    "center",
    "_ema*",
];

/// The configuration of an EAT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `eat`.
    #[serde(default = "eat")]
    pub name: Cow<'static, str>,
    /// The spectrogram. At least `patch_size` mel bins, at most 4,096.
    pub fbank: FbankConfig,
    /// Mean of the training spectrograms.
    pub mean: f32,
    /// Standard deviation of the training spectrograms, above 0. Features are divided by twice this value.
    pub std: f32,
    /// Frames per window, `patch_size` to 65,536. Shorter clips are padded, longer ones cut into windows.
    pub target_length: usize,
    /// Height in mel bins and width in frames of a patch, 1 to 65,536.
    pub patch_size: usize,
    /// Positions in time in the position table, at least `target_length / patch_size`.
    pub max_columns: usize,
    /// Token dimension, 1 to 65,536.
    pub width: usize,
    /// Attention heads; a divisor of `width`.
    pub n_heads: usize,
    /// Width of a block's feed-forward layer, 1 to 65,536.
    pub ffn_dim: usize,
    /// Transformer blocks, 1 to 1,024.
    pub depth: usize,
    /// ε of the norm before the last layer, 0 or more.
    pub head_eps: f32,
    /// Outputs of the last layer, at most 2^20; 0 for a model without a head.
    pub n_classes: usize,
    /// The function that turns the outputs into probabilities.
    pub activation: OutputActivation,
}

/// The default name, also for configurations that match no preset.
fn eat() -> Cow<'static, str> {
    Cow::Borrowed("eat")
}

impl Config {
    /// `EAT-base_epoch30_finetune_AS2M`: 88 M parameters.
    pub const BASE: Self = Self {
        name: Cow::Borrowed("eat"),
        fbank: FbankConfig::AST_16K,
        mean: -4.268,
        std: 4.569,
        target_length: 1024,
        patch_size: 16,
        max_columns: 768,
        width: 768,
        n_heads: 12,
        ffn_dim: 3072,
        depth: 12,
        head_eps: EPS,
        n_classes: 527,
        activation: OutputActivation::Sigmoid,
    };
    /// `EAT-large_epoch20_finetune_AS2M`: 309 M parameters.
    pub const LARGE: Self =
        Self { name: Cow::Borrowed("eat-large"), width: 1024, n_heads: 16, ffn_dim: 4096, depth: 24, ..Self::BASE };
    /// `SSLAM_AS2M_Finetuned`: EAT base with other training.
    pub const SSLAM: Self = Self { name: Cow::Borrowed("sslam"), ..Self::BASE };

    fn patches(&self) -> PatchConfig {
        PatchConfig::square(self.patch_size, PatchAxes::FramesFirst)
    }

    fn validate(&self) -> Result<()> {
        vit::check_sizes([self.width, self.n_heads, self.ffn_dim], self.depth, self.n_classes)?;
        self.patches().check(self.fbank.n_mels)?;
        vit::check_target_length(self.target_length, self.patch_size)?;
        let needed = self.target_length / self.patch_size;
        if !(needed..=MAX_TARGET_LENGTH).contains(&self.max_columns) {
            let reason = format!("expected {needed} to {MAX_TARGET_LENGTH}");
            return Err(Error::config("max_columns", self.max_columns, reason));
        }
        match self.head_eps.is_finite() && self.head_eps >= 0.0 {
            true => Ok(()),
            false => Err(Error::config("head_eps", self.head_eps, "expected at least 0")),
        }
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::BASE, "EAT base, 16 kHz Kaldi fbank, AudioSet mAP 0.489"),
        (Self::LARGE, "EAT large, 16 kHz Kaldi fbank, AudioSet mAP 0.495"),
        (Self::SSLAM, "SSLAM (EAT base), 16 kHz Kaldi fbank, AudioSet mAP 0.502"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] = &[
        &["model.modality_encoders.IMAGE.extra_tokens", "head.weight"],
        &["modality_encoders.IMAGE.extra_tokens", "cls_proj.weight"],
        &["extra_tokens", "fixed_positional_encoder.positions", "pre_norm.weight"],
    ];

    fn name(&self) -> &str {
        &self.name
    }

    /// The tensors distinguish neither SSLAM from EAT base nor the mean, the standard deviation, the window length and
    /// the activation. AudioSet's are assumed, with a softmax for any number of classes other than 527, and attention
    /// heads of 64 dimensions.
    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let has_all = |names: &&[&str]| names.iter().all(|name| weights.contains(name));
        if !Self::SIGNATURES.iter().any(has_all) && !weights.contains("modality_encoders.IMAGE.extra_tokens") {
            return Ok(None);
        }
        let mut config = Self { n_classes: 0, ..Self::BASE };
        config.fit(weights);
        if (config.width, config.depth) == (Self::LARGE.width, Self::LARGE.depth) {
            config.name = Self::LARGE.name;
        }
        if ![0, Self::BASE.n_classes].contains(&config.n_classes) {
            config.activation = OutputActivation::Softmax;
        }
        Ok(Some((config, Vec::new())))
    }

    /// The sizes that the tensors determine, no classes without a head, and the ε that belongs to the layout.
    fn fit(&mut self, weights: &Weights) {
        let first_block = |prefix: &&str| weights.contains(&format!("{prefix}blocks.0.mlp.fc1.weight"));
        let prefix = ["", "model."].into_iter().find(first_block).unwrap_or_default();
        let fc1 = |index: usize| weights.shape(&format!("{prefix}blocks.{index}.mlp.fc1.weight"));
        if let Some(&[ffn_dim, width]) = fc1(0) {
            if width != self.width {
                self.n_heads = (width / 64).max(1);
            }
            (self.width, self.ffn_dim) = (width, ffn_dim);
            self.depth = (0..check::MAX_LAYERS).take_while(|&index| fc1(index).is_some()).count();
        }
        self.n_classes = weights.shape("head.weight").and_then(|head| head.first()).copied().unwrap_or(0);
        let is_fairseq = weights.contains(&format!("{prefix}{IMAGE}.extra_tokens"));
        self.head_eps = if is_fairseq { EPS } else { 1e-5 };
        let positions = match is_fairseq {
            true => format!("{prefix}{IMAGE}.fixed_positional_encoder.positions"),
            false => "fixed_positional_encoder.positions".to_string(),
        };
        if let (Some(&[1, n_positions, _]), rows) =
            (weights.shape(&positions), self.fbank.n_mels / self.patch_size.max(1))
        {
            self.max_columns = n_positions / rows.max(1);
            self.target_length = self.target_length.min(self.max_columns.saturating_mul(self.patch_size));
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(Eat::load(self, weights, device)?))
    }
}

/// A loaded EAT.
#[derive(Debug)]
pub struct Eat {
    config: Config,
    info: ModelInfo,
    device: Device,
    front_end: Features,
    patches: PatchEmbedding,
    positions: Tensor,   // [1, n_positions, width]
    class_token: Tensor, // [1, 1, width]
    norm: LayerNorm,
    blocks: Vec<TransformerBlock>,
    /// The layer norm and the linear layer after the class token; `None` for a model without a head.
    head: Option<(LayerNorm, Linear)>,
}

impl Eat {
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
    /// [`Error::Config`] if the configuration is invalid, otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let front_end = vit::front_end(&config.fbank, config.mean, config.std)?;
        vit::check_tokens(config.patches().grid(config.fbank.n_mels, config.target_length))?;
        let Config { width, n_heads, ffn_dim, n_classes, .. } = *config;
        let encoder = if root.first_of(&["blocks", "model"]) == "model" { root.at("model") } else { root.clone() };
        let (first, norm) = match encoder.first_of(&["local_encoder", IMAGE]) {
            IMAGE => (encoder.at(IMAGE), "context_encoder.norm"),
            _ => (encoder.clone(), "pre_norm"),
        };
        for rest in PRETRAINING {
            root.ignore(rest);
            encoder.ignore(rest);
        }
        let shape = BlockShape { width, n_heads, ffn_dim, place: NormPlace::After, eps: EPS };
        let block = |index: usize| vit::load_block(&encoder.at("blocks").at(index), &shape);
        let load_head = || {
            let head = Linear::load(&root.at("head").in_f32(), width, n_classes, Activation::Identity)?;
            Ok::<_, Error>((LayerNorm::load(&root.at("fc_norm"), width, config.head_eps)?, head))
        };
        let [rows, _] = config.patches().grid(config.fbank.n_mels, config.target_length);
        let n_positions = rows * config.max_columns;
        Ok(Self {
            info: ModelInfo {
                min_samples: front_end.min_samples(),
                activation: config.activation,
                ..ModelInfo::new(config.name.clone(), config.fbank.sample_rate, n_classes, width)
            },
            device: root.device().clone(),
            front_end,
            patches: PatchEmbedding::load(&first.at("local_encoder.proj"), config.patches(), width)?,
            positions: first.get("fixed_positional_encoder.positions", (1, n_positions, width))?,
            class_token: first.get("extra_tokens", (1, 1, width))?,
            norm: LayerNorm::load(&first.at(norm), width, EPS)?,
            blocks: (0..config.depth).map(block).collect::<Result<_>>()?,
            head: (n_classes > 0).then(load_head).transpose()?,
            config: config.clone(),
        })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Hidden states of features `[batch, n_frames, n_mels]` of at most `target_length` frames: the input of the first
    /// block, then the output of each block, `[batch, n_tokens, width]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not match.
    pub fn hidden_states(&self, features: &Tensor) -> Result<Vec<Tensor>> {
        vit::hidden_states(&self.blocks, self.tokens(features).context("running EAT")?)
    }

    fn tokens(&self, features: &Tensor) -> Result<Tensor> {
        let silence = -self.config.mean / (2.0 * self.config.std);
        let x = self.patches.forward(&vit::pad_frames(features, self.config.target_length, silence)?)?;
        let x = x.broadcast_add(&self.positions.narrow(1, 0, x.dim(1)?)?)?;
        self.norm.forward(&vit::prepend(&self.class_token, &x)?)
    }

    fn tag(&self, features: &Tensor) -> Result<TaggingOutput> {
        let x = self.blocks.iter().try_fold(self.tokens(features)?, |x, block| block.forward(&x, None))?;
        self.classify(&x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)
    }
}

impl TaggingModel for Eat {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        match &self.head {
            Some((norm, head)) => {
                let logits = head.forward(&norm.forward(embedding)?)?; // [batch, n_classes]
                self.config.activation.output(logits, embedding.clone())
            }
            None => vit::without_head(embedding),
        }
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.front_end)
    }

    /// Takes the normalised fbank, with at least one frame.
    fn forward_features(&self, features: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.info.check(detail)?;
        let tag = |window: &Tensor| self.tag(window);
        vit::in_windows(features, (self.config.target_length, true), self.config.activation, &tag)
            .context("running EAT")
    }
}
