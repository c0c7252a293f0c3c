//! CED: vision transformers for audio tagging.
//!
//! Paper: Dinkel et al., "CED: Consistent ensemble distillation for audio tagging", 2023 (arXiv 2308.11957). Reference:
//! RicherMans/CED, `models/audiotransformer.py`. Checkpoint keys: as published there, or with the prefix `encoder.` of the
//! Hugging Face conversions.
//!
//! waveform `[batch, n_samples]` at 16 kHz → log-mel in dB `[batch, n_frames, 64]` → batch norm per mel bin → patches of 16
//! mel bins x 16 frames, a linear layer each → plus a position embedding per time and per frequency → 12 transformer blocks
//! (norm first) → norm → mean over all tokens (the embedding) → norm, linear, sigmoid.
//!
//! The table of time positions has 63 entries, so 1012 frames (10.1 s) are seen at once. A shorter clip uses the beginning of
//! the table; frames that fill no patch at its end are left out. Clips below 2,400 samples are padded with zeros at their end to
//! that length.
//!
//! # Long clips
//! A clip of more frames is cut into windows of 1012 frames. [`Config::window_mean`] says what is averaged over them:
//!
//! | [`WindowMean`] | last window | `clipwise_output` | `embedding` |
//! |---|---|---|---|
//! | `Scores`: RicherMans/CED | zeros behind it, put there after the batch norm | mean of the windows' | mean of the windows' |
//! | `Tokens`: Hugging Face | the same | head of the embedding | mean over the tokens of all windows |
//! | `ScoresByLength` | as long as what is left | weighted mean of the windows' | weighted mean of the windows' |
//!
//! - Windows of one length have as many tokens each, so the embedding is the same by the first two rules.
//! - `logits` are `ln(p / (1 − p))` of the mean where scores are averaged.
//! - The zeros stand in the normalised spectrogram, where 0 is about the mean of the training data, and the model hears something
//!   in them. A clip of 10.2 s has two windows of which the second is almost all zeros, and it counts as much as the first.
//! - Both references leave the last window out where a clip's frames divide into whole windows (20.23 s of audio), which is
//!   their mistake: a frame less, or one more, and all of the clip counts. Here it counts.
//! - The Hugging Face class mixes the tokens of neighbours where a batch has several long clips. Here a row is the clip alone.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::batch::{features, forward_by_length};
use super::family::Family;
use super::{Detail, ModelInfo, TaggingModel};
use crate::assumption::Assumption;
use crate::audio::WaveformBatch;
use crate::check::{self, MAX_CLASSES, MAX_LAYERS, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::frontend::{FrontEnd, LogMel, LogMelConfig};
use crate::nn::{Activation, BatchNorm, LayerNorm, Linear, NormPlace, SelfAttention, TransformerBlock};
use crate::output::{TaggingOutput, logits_of};
use crate::weights::{Loader, Weights};

/// Mel bins and frames of a patch.
const PATCH: usize = 16;
/// The most frames that are seen at once: 11 minutes. The work grows with their square.
const MAX_TARGET_LENGTH: usize = 1 << 16;
/// ε of the layer norms of the blocks, and of the one before the last layer.
const BLOCK_EPS: f32 = 1e-6;
const HEAD_EPS: f32 = 1e-5;
/// The window and the filters of a checkpoint that carries its front end.
const WINDOW: &str = "front_end.0.spectrogram.window"; // [win_length]
const FILTERS: &str = "front_end.0.mel_scale.fb"; // [n_bins, n_mels]

/// The shape of a CED. Presets are the published ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `ced`.
    #[serde(default = "ced")]
    pub name: Cow<'static, str>,
    /// The front end; a multiple of 16 mel bins.
    pub log_mel: LogMelConfig,
    /// Length of a token, 1 to 65,536.
    pub width: usize,
    /// Attention heads; a divisor of `width`.
    pub n_heads: usize,
    /// Transformer blocks, 1 to 1,024.
    pub depth: usize,
    /// Frames that are seen at once, 16 to 65,536.
    pub target_length: usize,
    /// What is averaged over the windows of a clip that has more frames. Default when read from a file: `Scores`.
    #[serde(default)]
    pub window_mean: WindowMean,
    /// Outputs of the last layer, 1 to 2^20.
    pub n_classes: usize,
}

/// How the windows of a clip that is longer than [`Config::target_length`] become one result: see [Long clips](self#long-clips).
///
/// [`detect`](super::detect) and a model's name choose `Tokens` for a checkpoint with the tensor names of the Hugging Face
/// conversions (`encoder.time_pos_embed`), so that it gives what their class gives, and `Scores` for all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WindowMean {
    /// Scores of windows of one length, as in RicherMans/CED (`eval_avg="mean"`, `pad_last=True`, its defaults). The default.
    #[default]
    Scores,
    /// Tokens of windows of one length, before the head, as in the class for Hugging Face's transformers (`pad_last=True`).
    Tokens,
    /// Scores, weighted by the patches that a window has in time. The last window is not padded: it is as long as what is left
    /// of the clip, and at least 16 frames, the clip's last. No reference computes this; no zeros are heard.
    ScoresByLength,
}

/// The family's name.
fn ced() -> Cow<'static, str> {
    Cow::Borrowed("ced")
}

impl Config {
    /// CED-tiny: 5.5 M parameters.
    pub const TINY: Self = Self {
        name: Cow::Borrowed("ced-tiny"),
        log_mel: LogMelConfig::CED_16K,
        width: 192,
        n_heads: 3,
        depth: 12,
        target_length: 1012,
        window_mean: WindowMean::Scores,
        n_classes: 527,
    };
    /// CED-mini: 9.6 M parameters.
    pub const MINI: Self = Self { name: Cow::Borrowed("ced-mini"), width: 256, n_heads: 4, ..Self::TINY };
    /// CED-small: 22 M parameters.
    pub const SMALL: Self = Self { name: Cow::Borrowed("ced-small"), width: 384, n_heads: 6, ..Self::TINY };
    /// CED-base: 86 M parameters.
    pub const BASE: Self = Self { name: Cow::Borrowed("ced-base"), width: 768, n_heads: 12, ..Self::TINY };

    fn info(&self, log_mel: &LogMel) -> ModelInfo {
        ModelInfo {
            min_samples: log_mel.samples_for(PATCH),
            ..ModelInfo::new(self.name.clone(), self.log_mel.sample_rate, self.n_classes, self.width)
        }
    }

    fn validate(&self) -> Result<()> {
        let n_mels = self.log_mel.mel.n_mels;
        if n_mels == 0 || !n_mels.is_multiple_of(PATCH) {
            return Err(Error::config("n_mels", n_mels, "a multiple of 16"));
        }
        if !(PATCH..=MAX_TARGET_LENGTH).contains(&self.target_length) {
            let reason = format!("expected {PATCH} to {MAX_TARGET_LENGTH} frames");
            return Err(Error::config("target_length", self.target_length, reason));
        }
        check::sizes([
            ("width", self.width, MAX_WIDTH),
            ("depth", self.depth, MAX_LAYERS),
            ("n_classes", self.n_classes, MAX_CLASSES),
        ])?;
        if self.n_heads == 0 || !self.width.is_multiple_of(self.n_heads) {
            return Err(Error::config("n_heads", self.n_heads, format!("must divide the width {}", self.width)));
        }
        Ok(())
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::TINY, "CED-tiny, 16 kHz log-mel, AudioSet mAP 0.481"),
        (Self::MINI, "CED-mini, 16 kHz log-mel, AudioSet mAP 0.490"),
        (Self::SMALL, "CED-small, 16 kHz log-mel, AudioSet mAP 0.496"),
        (Self::BASE, "CED-base, 16 kHz log-mel, AudioSet mAP 0.500"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["outputlayer.1.weight", "time_pos_embed"], &["outputlayer.1.weight", "encoder.time_pos_embed"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let positions = ["time_pos_embed", "encoder.time_pos_embed"].into_iter().find_map(|name| weights.shape(name));
        let (Some(positions), Some(output)) = (positions, weights.shape("outputlayer.1.weight")) else {
            return Ok(None);
        };
        let width = output.get(1).copied().unwrap_or_default();
        let preset = Self::PRESETS.iter().map(|(preset, _)| preset).find(|preset| preset.width == width);
        let mut config = preset.cloned().ok_or_else(|| {
            Error::UnknownModel(format!("a CED of width {width}: its number of heads is not known, give a config"))
        })?;
        if let &[_, _, _, columns] = positions
            && columns != config.target_length / PATCH
        {
            config.target_length = columns * PATCH;
            config.name = ced();
        }
        config.fit(weights);
        Ok(Some((config, Vec::new())))
    }

    /// The number of classes, and the rule for long clips of those who named the checkpoint's tensors.
    fn fit(&mut self, weights: &Weights) {
        if let Some(&[n_classes, _]) = weights.shape("outputlayer.1.weight") {
            self.n_classes = n_classes;
        }
        if weights.contains("encoder.time_pos_embed") {
            self.window_mean = WindowMean::Tokens;
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(Ced::load(self, weights, device)?))
    }
}

/// A loaded CED.
#[derive(Debug)]
pub struct Ced {
    config: Config,
    info: ModelInfo,
    device: Device,
    log_mel: LogMel,
    init_bn: BatchNorm,
    patch_embed: Linear,
    time_positions: Tensor,      // [1, 1, 63, width]
    frequency_positions: Tensor, // [1, n_mels / 16, 1, width]
    blocks: Vec<TransformerBlock>,
    norm: LayerNorm,
    output_norm: LayerNorm,
    output: Linear,
}

impl Ced {
    /// Builds the model from a checkpoint. A window and mel filters that the checkpoint carries are used as they are.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        config.validate()?;
        let root = weights.loader(device);
        let encoder = match root.first_of(&["patch_embed", "encoder"]) {
            "encoder" => root.at("encoder"),
            _ => root.clone(),
        };
        let log_mel = load_front_end(config, &root)?;
        check::min_samples("hop_length", config.log_mel.stft.hop_length, log_mel.samples_for(PATCH))?;
        let init_bn = if encoder.lacks("init_bn.1.weight") { "init_bn" } else { "init_bn.1" };
        let init_bn = BatchNorm::load(&encoder.at(init_bn), config.log_mel.mel.n_mels)?;

        let (width, rows, columns) = (config.width, config.log_mel.mel.n_mels / PATCH, config.target_length / PATCH);
        let patches = encoder.at("patch_embed").at("proj");
        let filters = patches.get_vec("weight", &[width, 1, PATCH, PATCH])?;
        let patch_embed = Linear::new(filters, patches.get_vec("bias", &[width])?, Activation::Identity, device)?;
        let positions = |name: &str, rows: usize, columns: usize| {
            let table = encoder.get(name, (1, width, rows, columns))?;
            table.permute((0, 2, 3, 1))?.contiguous().context("a position table")
        };
        let time_positions = positions("time_pos_embed", 1, columns)?;
        let frequency_positions = positions("freq_pos_embed", rows, 1)?;

        let block = |i: usize| load_block(&encoder.at("blocks").at(i), config);
        let blocks = (0..config.depth).map(block).collect::<Result<_>>()?;
        let norm = LayerNorm::load(&encoder.at("norm"), width, BLOCK_EPS)?;
        let head = root.at("outputlayer");
        let output_norm = LayerNorm::load(&head.at("0"), width, HEAD_EPS)?;
        let output = Linear::load(&head.at("1"), width, config.n_classes, Activation::Identity)?;
        root.finish(&config.name)?;
        Ok(Self {
            config: config.clone(),
            info: config.info(&log_mel),
            device: device.clone(),
            log_mel,
            init_bn,
            patch_embed,
            time_positions,
            frequency_positions,
            blocks,
            norm,
            output_norm,
            output,
        })
    }

    /// The configuration that it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn log_mel(&self) -> &LogMel {
        &self.log_mel
    }

    fn run(&self, log_mel: &Tensor) -> Result<TaggingOutput> {
        let (_, n_frames, _) = log_mel.dims3()?;
        if n_frames < PATCH {
            return Err(Error::TooShort { needed: PATCH, got: n_frames });
        }
        let x = self.init_bn.forward(log_mel)?;
        if n_frames <= self.config.target_length {
            return self.classify(&self.embed(&x)?);
        }
        self.forward_windows(&x, n_frames)
    }

    /// From the normalised spectrogram of one window, `[batch, n_frames, n_mels]`, to the mean over its tokens, `[batch, width]`.
    fn embed(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.patch_embed.forward(&self.patches(x)?)?;
        let x = self.add_positions(&x)?; // [batch, n_tokens, width]
        let x = self.blocks.iter().try_fold(x, |x, block| block.forward(&x, None))?;
        Ok(self.norm.forward(&x)?.mean(1)?)
    }

    /// `[batch, n_frames, n_mels]` to `[batch, n_tokens, 256]`: tokens by frequency, then time; each by frequency, then time.
    fn patches(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, n_frames, n_mels) = x.dims3()?;
        let (rows, columns) = (n_mels / PATCH, n_frames / PATCH);
        let x = x.narrow(1, 0, columns * PATCH)?.reshape((batch, columns, PATCH, rows, PATCH))?;
        x.permute((0, 3, 1, 4, 2))?.reshape((batch, rows * columns, PATCH * PATCH))
    }

    fn add_positions(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, n_tokens, width) = x.dims3()?;
        let rows = self.config.log_mel.mel.n_mels / PATCH;
        let time = self.time_positions.narrow(2, 0, n_tokens / rows)?;
        let positions = time.broadcast_add(&self.frequency_positions)?; // [1, rows, columns, width]
        x.broadcast_add(&positions.reshape((1, n_tokens, width))?)?.reshape((batch, n_tokens, width))
    }

    /// Windows of a clip.
    fn windows(&self, n_frames: usize) -> Vec<Window> {
        let target_length = self.config.target_length;
        let window = |start: usize| {
            let length = target_length.min(n_frames - start);
            if self.config.window_mean != WindowMean::ScoresByLength {
                return Window { start, length, padded: target_length, weight: 1 };
            }
            let start = if length < PATCH { n_frames - PATCH } else { start };
            let length = length.max(PATCH);
            Window { start, length, padded: length, weight: length / PATCH }
        };
        (0..n_frames).step_by(target_length).map(window).collect()
    }

    /// A clip that is longer than what is seen at once, from its normalised spectrogram, `[batch, n_frames, n_mels]`.
    fn forward_windows(&self, x: &Tensor, n_frames: usize) -> Result<TaggingOutput> {
        let windows = self.windows(n_frames);
        let embed = |window: &Window| {
            let cut = x.narrow(1, window.start, window.length)?;
            self.embed(&cut.pad_with_zeros(1, 0, window.padded - window.length)?.contiguous()?)
        };
        let embeddings = windows.iter().map(embed).collect::<Result<Vec<_>>>()?;
        let embedding = mean(&embeddings, &windows)?;
        if self.config.window_mean == WindowMean::Tokens {
            return self.classify(&embedding);
        }
        let scores = embeddings.iter().map(|embedding| Ok(self.classify(embedding)?.clipwise_output));
        let clipwise_output = mean(&scores.collect::<Result<Vec<_>>>()?, &windows)?;
        Ok(TaggingOutput { logits: logits_of(&clipwise_output)?, clipwise_output, framewise_output: None, embedding })
    }
}

/// A window of a clip, in frames.
struct Window {
    start: usize,
    length: usize,
    /// Its length with the zeros behind it.
    padded: usize,
    weight: usize,
}

/// The weighted mean of what windows gave, each `[batch, n]`.
fn mean(parts: &[Tensor], windows: &[Window]) -> candle_core::Result<Tensor> {
    let total: usize = windows.iter().map(|window| window.weight).sum();
    let shares: Vec<f32> = windows.iter().map(|window| (window.weight as f64 / total as f64) as f32).collect();
    let parts = Tensor::stack(parts, 0)?; // [n_windows, batch, n]
    parts.broadcast_mul(&Tensor::from_vec(shares, (windows.len(), 1, 1), parts.device())?)?.sum(0)
}

fn load_front_end(config: &Config, root: &Loader) -> Result<LogMel> {
    let log_mel = LogMel::new(&config.log_mel)?;
    if root.lacks(WINDOW) || root.lacks(FILTERS) {
        root.ignore("front_end.*");
        return Ok(log_mel);
    }
    let shape = (log_mel.mel().n_bins(), log_mel.mel().n_mels());
    let window = root.get_vec(WINDOW, &[config.log_mel.stft.win_length])?;
    let filters = Array2::from_shape_vec(shape, root.get_vec(FILTERS, &[shape.0, shape.1])?);
    let filters = filters.map_err(|error| Error::config("filters", format!("{shape:?}"), error.to_string()))?;
    log_mel.with_tables(&window, filters.t())
}

fn load_block(weights: &Loader, config: &Config) -> Result<TransformerBlock> {
    let width = config.width;
    let attention = weights.at("attn");
    let qkv = Linear::load(&attention.at("qkv"), width, 3 * width, Activation::Identity)?;
    let output = Linear::load(&attention.at("proj"), width, width, Activation::Identity)?;
    let mlp = weights.at("mlp");
    Ok(TransformerBlock {
        place: NormPlace::Before,
        norm1: LayerNorm::load(&weights.at("norm1"), width, BLOCK_EPS)?,
        attention: SelfAttention::new(qkv, output, config.n_heads)?,
        norm2: LayerNorm::load(&weights.at("norm2"), width, BLOCK_EPS)?,
        fc1: Linear::load(&mlp.at("fc1"), width, 4 * width, Activation::Gelu)?,
        fc2: Linear::load(&mlp.at("fc2"), 4 * width, width, Activation::Identity)?,
        dropout: None,
    })
}

impl TaggingModel for Ced {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        self.info.check(detail)?;
        let run = |clips: &[&[f32]]| self.forward_features(&features(&self.log_mel, clips, &self.device)?.0, detail);
        forward_by_length(batch, &self.info, |n_samples| self.log_mel.n_frames(n_samples), run)
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        let logits = self.output.forward(&self.output_norm.forward(embedding)?)?; // [batch, n_classes]
        TaggingOutput::multi_label(logits, embedding.clone())
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.log_mel)
    }

    /// Log-mel in dB, with at least 16 frames.
    fn forward_features(&self, log_mel: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.info.check(detail)?;
        self.run(log_mel).context("CED")
    }
}
