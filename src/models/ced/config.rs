//! The shapes of CEDs, and which of them a checkpoint has.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::{Ced, PATCH};
use crate::assumption::Assumption;
use crate::check::{self, MAX_CLASSES, MAX_LAYERS, MAX_WIDTH};
use crate::error::{Error, Result};
use crate::frontend::{LogMel, LogMelConfig};
use crate::models::family::Family;
use crate::models::{ModelInfo, TaggingModel};
use crate::weights::Weights;

/// The most frames that are seen at once: 11 minutes. The work grows with their square.
const MAX_TARGET_LENGTH: usize = 1 << 16;

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

/// How the windows of a clip that is longer than [`Config::target_length`] become one result: see [Long clips](crate::models::ced#long-clips).
///
/// [`detect`](crate::models::detect) and a model's name choose `Tokens` for a checkpoint with the tensor names of the Hugging Face
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

    pub(super) fn info(&self, log_mel: &LogMel) -> ModelInfo {
        ModelInfo {
            min_samples: log_mel.samples_for(PATCH),
            ..ModelInfo::new(self.name.clone(), self.log_mel.sample_rate, self.n_classes, self.width)
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
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
