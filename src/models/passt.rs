//! PaSST: a vision transformer over overlapping patches, with separate time and frequency positions.
//!
//! Paper: Koutini et al., "Efficient Training of Audio Transformers with Patchout", 2022 (arXiv 2110.05069). Reference:
//! kkoutini/passt_hear21, `hear21passt/models/passt.py` and `preprocess.py`. Checkpoint keys: as published.
//!
//! waveform `[batch, n_samples]` at 32 kHz → log-mel with pre-emphasis `[batch, n_frames, 128]` → patches of 16 mel
//! bins x 16 frames with a stride of 10 on both axes, projected by a linear layer: 12 x 99 tokens → time and frequency
//! position embeddings added → a class and a distillation token, with positions of their own, prepended → 12
//! transformer blocks (pre-norm) → norm → mean of the first two tokens (the embedding) → norm, linear, sigmoid.
//!
//! A shorter clip uses the beginning of the table of time positions, as in the reference; frames at its end that do not
//! fill a patch are dropped. The reference fails above 10.05 s; its HEAR wrapper averages windows of 10 s every 2.5 s
//! over a clip that is mirrored at its ends. Here a longer clip is cut into windows of `target_length` frames (10 s),
//! the last of which ends with the clip; scores and embedding are means over the windows, weighted by the frames that
//! each adds. Clips of fewer than 4,801 samples, which yield fewer than 16 frames, are zero-padded at the end to that
//! length.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::family::Family;
use super::vit::{self, BlockShape, GridPositions, MAX_TARGET_LENGTH};
use super::{Detail, ModelInfo, OutputActivation, TaggingModel};
use crate::assumption::Assumption;
use crate::check;
use crate::error::{Context, Error, Result};
use crate::frontend::{FrontEnd, LogMel, LogMelConfig, StftConfig};
use crate::nn::{Activation, LayerNorm, Linear, NormPlace, PatchAxes, PatchConfig, PatchEmbedding, TransformerBlock};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

/// Height in mel bins and width in frames of a patch.
const PATCH: usize = 16;
/// ε of the layer norms in the blocks, and of the layer norm before the last layer.
const BLOCK_EPS: f32 = 1e-6;
const HEAD_EPS: f32 = 1e-5;
/// Strides that can be detected from the size of the frequency position table.
const STRIDES: [usize; 4] = [10, 12, 14, 16];

/// The configuration of a PaSST.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `passt`.
    #[serde(default = "passt")]
    pub name: Cow<'static, str>,
    /// The front end. At least 16 mel bins.
    pub log_mel: LogMelConfig,
    /// Stride of the patches in mel bins and in frames, 1 to 65,536.
    pub stride: usize,
    /// Entries of the table of time positions, 1 to 65,536.
    pub n_columns: usize,
    /// Frames per window, 16 to 65,536, with at most `n_columns` patches in time. Longer clips are cut into windows.
    pub target_length: usize,
    /// Token dimension, 1 to 65,536.
    pub width: usize,
    /// Attention heads; a divisor of `width`.
    pub n_heads: usize,
    /// Transformer blocks, 1 to 1,024.
    pub depth: usize,
    /// Outputs of the last layer, 1 to 2^20.
    pub n_classes: usize,
    /// The function that turns the outputs into probabilities.
    pub activation: OutputActivation,
}

/// The default name, also for configurations that match no preset.
fn passt() -> Cow<'static, str> {
    Cow::Borrowed("passt")
}

/// The front end with a different hop, in samples.
const fn with_hop(hop_length: usize) -> LogMelConfig {
    LogMelConfig {
        stft: StftConfig { hop_length, ..LogMelConfig::EFFICIENT_AT_32K.stft },
        ..LogMelConfig::EFFICIENT_AT_32K
    }
}

impl Config {
    /// `passt-s-f128-p16-s10-ap.476-swa.pt` and its siblings for 10 s: 87 M parameters.
    pub const S10: Self = Self {
        name: Cow::Borrowed("passt"),
        log_mel: LogMelConfig::EFFICIENT_AT_32K,
        stride: 10,
        n_columns: 99,
        target_length: 1000,
        width: 768,
        n_heads: 12,
        depth: 12,
        n_classes: 527,
        activation: OutputActivation::Sigmoid,
    };
    /// `passt-s-f128-p16-s16-ap.468.pt`: patches that do not overlap.
    pub const S16: Self = Self { name: Cow::Borrowed("passt-s16"), stride: 16, n_columns: 62, ..Self::S10 };
    /// `passt-s-f128-20sec-p16-s10-ap.474-swa.pt`: clips of 20 s.
    pub const S20: Self = Self { name: Cow::Borrowed("passt-20s"), n_columns: 200, target_length: 2000, ..Self::S10 };
    /// `passt-s-f128-30sec-p16-s10-ap.473-swa.pt`: clips of 30 s.
    pub const S30: Self = Self { name: Cow::Borrowed("passt-30s"), n_columns: 300, target_length: 3000, ..Self::S10 };
    /// `passt-s-f128-stfthop160-p16-s10-ap.473-swa.pt`: a frame every 5 ms.
    pub const HOP160: Self = Self { name: Cow::Borrowed("passt-hop160"), log_mel: with_hop(160), ..Self::S20 };
    /// `passt-s-f128-stfthop100-p16-s10-ap.473-swa.pt`: a frame every 3.1 ms.
    pub const HOP100: Self = Self {
        name: Cow::Borrowed("passt-hop100"),
        log_mel: with_hop(100),
        n_columns: 320,
        target_length: 3200,
        ..Self::S10
    };

    fn patches(&self) -> PatchConfig {
        PatchConfig { stride: [self.stride; 2], ..PatchConfig::square(PATCH, PatchAxes::MelsFirst) }
    }

    fn validate(&self) -> Result<()> {
        let n_mels = self.log_mel.mel.n_mels;
        vit::check_sizes([self.width, self.n_heads, 4], self.depth, self.n_classes)?;
        check::sizes([
            ("n_classes", self.n_classes, check::MAX_CLASSES),
            ("n_columns", self.n_columns, MAX_TARGET_LENGTH),
        ])?;
        self.patches().check(n_mels)?;
        let [_, columns] = self.patches().grid(n_mels, self.target_length);
        if columns == 0 || columns > self.n_columns || self.target_length > MAX_TARGET_LENGTH {
            let reason =
                format!("expected at most {MAX_TARGET_LENGTH} frames, with 1 to {} patches in time", self.n_columns);
            return Err(Error::config("target_length", self.target_length, reason));
        }
        vit::check_tokens(self.patches().grid(n_mels, self.target_length))
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::S10, "PaSST-S, 32 kHz log-mel, AudioSet mAP 0.476"),
        (Self::S16, "PaSST-S without overlap, 32 kHz log-mel, AudioSet mAP 0.468"),
        (Self::S20, "PaSST-S for 20 s, 32 kHz log-mel, AudioSet mAP 0.474"),
        (Self::S30, "PaSST-S for 30 s, 32 kHz log-mel, AudioSet mAP 0.473"),
        (Self::HOP160, "PaSST-S with a hop of 160, 32 kHz log-mel, AudioSet mAP 0.473"),
        (Self::HOP100, "PaSST-S with a hop of 100, 32 kHz log-mel, AudioSet mAP 0.473"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["time_new_pos_embed", "freq_new_pos_embed", "head.1.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    /// The tensors do not determine the hop: 320 samples are assumed, but 100 for the position table of that
    /// checkpoint, and 160 if the file name contains `stfthop160`. Nor do they determine the activation: a sigmoid is
    /// assumed for 527 classes, FSD50K's 200 and OpenMIC's 20, otherwise a softmax.
    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let Some(&[_, width, _, n_columns]) = weights.shape("time_new_pos_embed") else { return Ok(None) };
        let Some(&[_, _, rows, _]) = weights.shape("freq_new_pos_embed") else { return Ok(None) };
        if !weights.contains("head.1.weight") {
            return Ok(None);
        }
        let is_here = |stride: &&usize| Self { stride: **stride, ..Self::S10 }.patches().grid(128, PATCH)[0] == rows;
        let Some(&stride) = STRIDES.iter().find(is_here) else { return Ok(None) };
        let word = "stfthop160";
        let name = weights.path().and_then(|path| path.file_name()?.to_str());
        let is_hop160 = n_columns == Self::HOP160.n_columns && name.is_some_and(|name| name.contains(word));
        let named = Assumption::FileName { word, otherwise: "passt-20s" };
        let presets = Self::PRESETS.iter().map(|(preset, _)| preset).chain([&Self::HOP160]);
        let same = |preset: &&Self| preset.stride == stride && preset.n_columns == n_columns;
        let mut config = match is_hop160 {
            true => Self::HOP160,
            false => presets.clone().find(same).cloned().unwrap_or_else(|| {
                // The frames that fill the table, rounded down to hundreds if possible.
                let most = (n_columns.saturating_mul(stride)).saturating_add(PATCH - 1);
                let target_length = if most >= 100 { most - most % 100 } else { most };
                Self { name: passt(), stride, n_columns, target_length, ..Self::S10 }
            }),
        };
        if width != config.width {
            (config.width, config.n_heads) = (width, (width / 64).max(1));
        }
        config.fit(weights);
        if ![527, 200, 20].contains(&config.n_classes) {
            config.activation = OutputActivation::Softmax;
        }
        Ok(Some((config, is_hop160.then_some(named).into_iter().collect())))
    }

    /// The number of classes and of blocks.
    fn fit(&mut self, weights: &Weights) {
        if let Some(&[n_classes, _]) = weights.shape("head.1.weight") {
            self.n_classes = n_classes;
        }
        let block = |index: &usize| weights.contains(&format!("blocks.{index}.norm1.weight"));
        self.depth = (0..check::MAX_LAYERS).take_while(block).count();
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(Passt::load(self, weights, device)?))
    }
}

/// A loaded PaSST.
#[derive(Debug)]
pub struct Passt {
    config: Config,
    info: ModelInfo,
    device: Device,
    log_mel: LogMel,
    patches: PatchEmbedding,
    positions: GridPositions,
    first_tokens: Tensor, // [1, 2, width], positions included
    blocks: Vec<TransformerBlock>,
    norm: LayerNorm,
    head_norm: LayerNorm,
    head: Linear,
}

impl Passt {
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
        let log_mel = LogMel::new(&config.log_mel)?;
        let min_samples = log_mel.samples_for(PATCH);
        check::min_samples("hop_length", config.log_mel.stft.hop_length, min_samples)?;
        let Config { width, n_heads, n_classes, n_columns, .. } = *config;
        let [rows, _] = config.patches().grid(config.log_mel.mel.n_mels, PATCH);
        let shape = BlockShape { width, n_heads, ffn_dim: 4 * width, place: NormPlace::Before, eps: BLOCK_EPS };
        let block = |index: usize| vit::load_block(&root.at("blocks").at(index), &shape);
        let [class, distillation] = ["cls_token", "dist_token"].map(|name| root.get(name, (1, 1, width)));
        let first_tokens =
            Tensor::cat(&[class?, distillation?], 1).context("concatenating the class and distillation tokens")?;
        let tables = ["time_new_pos_embed", "freq_new_pos_embed"];
        // The distillation head, unused in the reference.
        root.ignore("head_dist.*");
        Ok(Self {
            info: ModelInfo {
                min_samples,
                activation: config.activation,
                ..ModelInfo::new(config.name.clone(), config.log_mel.sample_rate, n_classes, width)
            },
            device: root.device().clone(),
            log_mel,
            patches: PatchEmbedding::load(&root.at("patch_embed.proj"), config.patches(), width)?,
            positions: GridPositions::load(root, tables, [rows, n_columns], width)?,
            first_tokens: (first_tokens + root.get("new_pos_embed", (1, 2, width))?)
                .context("adding the positions of the class and distillation tokens")?,
            blocks: (0..config.depth).map(block).collect::<Result<_>>()?,
            norm: LayerNorm::load(&root.at("norm"), width, BLOCK_EPS)?,
            head_norm: LayerNorm::load(&root.at("head.0"), width, HEAD_EPS)?,
            head: Linear::load(&root.at("head.1").in_f32(), width, n_classes, Activation::Identity)?,
            config: config.clone(),
        })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn log_mel(&self) -> &LogMel {
        &self.log_mel
    }

    /// Hidden states of log-mel `[batch, n_frames, n_mels]` of at most `target_length` frames: the input of the first
    /// block, then the output of each block, `[batch, n_tokens, width]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not match, or if there are fewer frames than one patch.
    pub fn hidden_states(&self, log_mel: &Tensor) -> Result<Vec<Tensor>> {
        vit::hidden_states(&self.blocks, self.tokens(log_mel).context("running PaSST")?)
    }

    fn tokens(&self, log_mel: &Tensor) -> Result<Tensor> {
        let x = self.positions.add(&self.patches.forward(log_mel)?)?;
        Ok(vit::prepend(&self.first_tokens, &x)?)
    }

    fn tag(&self, log_mel: &Tensor) -> Result<TaggingOutput> {
        let x = self.blocks.iter().try_fold(self.tokens(log_mel)?, |x, block| block.forward(&x, None))?;
        self.classify(&self.norm.forward(&x.narrow(1, 0, 2)?)?.mean(1)?)
    }
}

impl TaggingModel for Passt {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        let logits = self.head.forward(&self.head_norm.forward(embedding)?)?; // [batch, n_classes]
        self.config.activation.output(logits, embedding.clone())
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.log_mel)
    }

    /// Takes the normalised log-mel spectrogram, with at least 16 frames.
    fn forward_features(&self, log_mel: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.info.check(detail)?;
        let n_frames = log_mel.dim(1).context("reading the shape of the features")?;
        if n_frames < PATCH {
            return Err(Error::TooShort { needed: PATCH, got: n_frames });
        }
        let tag = |window: &Tensor| self.tag(window);
        vit::in_windows(log_mel, (self.config.target_length, false), self.config.activation, &tag)
            .context("running PaSST")
    }
}
