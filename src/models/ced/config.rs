//! Configurations of CED and Dasheng and their detection from checkpoints.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::Ced;
use crate::assumption::Assumption;
use crate::check::{self, MAX_WIDTH};
use crate::error::{Error, Result};
use crate::frontend::{LogMel, LogMelConfig};
use crate::models::family::Family;
use crate::models::vit::{self, MAX_TARGET_LENGTH};
use crate::models::{ModelInfo, TaggingModel};
use crate::nn::{PatchAxes, PatchConfig};
use crate::weights::Weights;

/// Prefixes of the encoder in checkpoints, and the last layers of the heads.
const PREFIXES: [&str; 3] = ["", "encoder.", "dashengmodel."];
const HEADS: [&str; 2] = ["outputlayer.1.weight", "classifier.1.weight"];

/// The configuration of a CED or Dasheng.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `ced`.
    #[serde(default = "ced")]
    pub name: Cow<'static, str>,
    /// The front end. Its number of mel bins must be a multiple of a patch's.
    pub log_mel: LogMelConfig,
    /// Height in mel bins and width in frames of a patch, 1 to 65,536. Default when read from a file: 16 x 16.
    #[serde(default = "patch")]
    pub patch: [usize; 2],
    /// Token dimension, 1 to 65,536.
    pub width: usize,
    /// Attention heads; a divisor of `width`.
    pub n_heads: usize,
    /// Transformer blocks, 1 to 1,024.
    pub depth: usize,
    /// Frames per window, from the width of a patch to 65,536. Longer clips are cut into windows.
    pub target_length: usize,
    /// What is averaged over the windows of a longer clip. Default when read from a file: `Scores`.
    #[serde(default)]
    pub window_mean: WindowMean,
    /// Outputs of the last layer, at most 2^20; 0 for a model without a head.
    pub n_classes: usize,
}

/// How the results of the windows of a clip longer than [`Config::target_length`] are combined: see [Long
/// clips](crate::models::ced#long-clips).
///
/// [`detect`](crate::models::detect) and presets chosen by name use `Tokens` for checkpoints with the tensor names of
/// the Hugging Face conversions (`encoder.time_pos_embed`), to match the results of that class, `TokensByLength` for
/// Dasheng, and `Scores` for all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WindowMean {
    /// The mean of the scores of equally long windows, as in RicherMans/CED with its defaults `eval_avg="mean"` and
    /// `pad_last=True`. The default.
    #[default]
    Scores,
    /// The mean of the tokens of equally long windows, before the head, as in the class for Hugging Face transformers
    /// (`pad_last=True`).
    Tokens,
    /// The mean of the tokens, before the head. The last window is not padded and has the remaining whole patches, as
    /// in XiaoMi/dasheng (`eval_avg="cat"`). The Hugging Face class pads it and then drops the tokens that begin in the
    /// padding.
    TokensByLength,
    /// The mean of the scores, weighted by the number of patches that a window has in time. The last window is not
    /// padded: it has the remaining frames, or the clip's last 16 frames if fewer remain. No reference computes this.
    ScoresByLength,
}

fn patch() -> [usize; 2] {
    Config::TINY.patch
}

/// The default name, also for configurations that match no preset.
fn ced() -> Cow<'static, str> {
    Cow::Borrowed("ced")
}

impl Config {
    /// CED-tiny: 5.5 M parameters.
    pub const TINY: Self = Self {
        name: Cow::Borrowed("ced-tiny"),
        log_mel: LogMelConfig::CED_16K,
        patch: [16, 16],
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

    /// Dasheng base, an encoder without a head: 86 M parameters.
    pub const DASHENG_BASE: Self = Self {
        name: Cow::Borrowed("dasheng"),
        patch: [64, 4],
        target_length: 1008,
        window_mean: WindowMean::TokensByLength,
        n_classes: 0,
        ..Self::BASE
    };
    /// Dasheng 0.6B.
    pub const DASHENG_06B: Self =
        Self { name: Cow::Borrowed("dasheng-0.6b"), width: 1280, n_heads: 16, depth: 32, ..Self::DASHENG_BASE };
    /// Dasheng 1.2B.
    pub const DASHENG_12B: Self =
        Self { name: Cow::Borrowed("dasheng-1.2b"), width: 1536, n_heads: 24, depth: 40, ..Self::DASHENG_BASE };

    pub(super) fn patches(&self) -> PatchConfig {
        PatchConfig { size: self.patch, stride: self.patch, axes: PatchAxes::MelsFirst, bias: true }
    }

    pub(super) fn info(&self, log_mel: &LogMel) -> ModelInfo {
        ModelInfo {
            min_samples: log_mel.samples_for(self.patch[1]),
            ..ModelInfo::new(self.name.clone(), self.log_mel.sample_rate, self.n_classes, self.width)
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let Self { patch: [mels, frames], target_length, .. } = *self;
        let n_mels = self.log_mel.mel.n_mels;
        check::sizes([("patch", mels, MAX_WIDTH), ("patch", frames, MAX_WIDTH)])?;
        if n_mels == 0 || !n_mels.is_multiple_of(mels) {
            return Err(Error::config("n_mels", n_mels, format!("expected a multiple of {mels}")));
        }
        if !(frames..=MAX_TARGET_LENGTH).contains(&target_length) {
            let reason = format!("expected {frames} to {MAX_TARGET_LENGTH} frames");
            return Err(Error::config("target_length", target_length, reason));
        }
        vit::check_sizes([self.width, self.n_heads, 4], self.depth, self.n_classes)
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::TINY, "CED-tiny, 16 kHz log-mel, AudioSet mAP 0.481"),
        (Self::MINI, "CED-mini, 16 kHz log-mel, AudioSet mAP 0.490"),
        (Self::SMALL, "CED-small, 16 kHz log-mel, AudioSet mAP 0.496"),
        (Self::BASE, "CED-base, 16 kHz log-mel, AudioSet mAP 0.500"),
        (Self::DASHENG_BASE, "Dasheng base, 16 kHz log-mel, embeddings"),
        (Self::DASHENG_06B, "Dasheng 0.6B, 16 kHz log-mel, embeddings"),
        (Self::DASHENG_12B, "Dasheng 1.2B, 16 kHz log-mel, embeddings"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] = &[
        &["outputlayer.1.weight", "time_pos_embed"],
        &["outputlayer.1.weight", "encoder.time_pos_embed"],
        &["classifier.1.weight", "dashengmodel.time_pos_embed"],
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let prefix = PREFIXES.into_iter().find(|prefix| weights.contains(&format!("{prefix}time_pos_embed")));
        let Some(prefix) = prefix else { return Ok(None) };
        let shape = |name: &str| weights.shape(&format!("{prefix}{name}"));
        let (Some(&[_, width, _, columns]), Some(&[_, _, mels, frames])) =
            (shape("time_pos_embed"), shape("patch_embed.proj.weight"))
        else {
            return Ok(None);
        };
        let is_dasheng = [mels, frames] == Self::DASHENG_BASE.patch;
        if !is_dasheng && HEADS.iter().all(|head| !weights.contains(head)) {
            return Ok(None);
        }
        let mut presets = Self::PRESETS.iter().map(|(preset, _)| preset);
        let preset = presets.find(|preset| preset.width == width && preset.patch == [mels, frames]);
        let mut config = preset.cloned().ok_or_else(|| {
            let model = if is_dasheng { "Dasheng" } else { "CED" };
            Error::UnknownModel(format!(
                "cannot determine the number of attention heads of a {model} of width {width}: give a config.json"
            ))
        })?;
        if columns != config.target_length / frames {
            config.target_length = columns.saturating_mul(frames);
            config.name = if is_dasheng { Self::DASHENG_BASE.name } else { ced() };
        }
        config.fit(weights);
        Ok(Some((config, Vec::new())))
    }

    /// The number of classes, and the rule for long clips that belongs to the layout.
    fn fit(&mut self, weights: &Weights) {
        if let Some(&[n_classes, _]) = HEADS.iter().find_map(|head| weights.shape(head)) {
            self.n_classes = n_classes;
        }
        if self.window_mean == WindowMean::Scores && weights.contains("encoder.time_pos_embed") {
            self.window_mean = WindowMean::Tokens;
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(Ced::load(self, weights, device)?))
    }
}
