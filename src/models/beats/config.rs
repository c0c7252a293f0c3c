//! Configurations of BEATs and their detection from checkpoints.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::{Beats, STEP, WINDOW, WINDOW_HOP};
use crate::assumption::Assumption;
use crate::check::{self, MAX_WIDTH};
use crate::error::{Error, Result};
use crate::frontend::features::Features;
use crate::frontend::{FbankConfig, FrontEnd};
use crate::labels::LabelSet;
use crate::models::family::{Family, matching_preset};
use crate::models::vit::{self};
use crate::models::{FrameGrid, ModelInfo, TaggingModel};
use crate::nn::{PatchAxes, PatchConfig};
use crate::weights::Weights;

/// The largest value of `max_distance`, in tokens.
const MAX_DISTANCE: usize = 1 << 20;
/// Prefixes of the encoder in checkpoints, and names of the heads.
const PREFIXES: [&str; 4] = ["", "encoder.", "model.beats.", "model.model."];
const HEADS: [&str; 3] = ["predictor.weight", "decoder.linear_out.weight", STRONG_HEAD];
const STRONG_HEAD: &str = "strong_head.weight";
/// Mean and standard deviation of OpenBEATs' training data, from a model card.
const OPEN_STATISTICS: (f32, f32) = (15.664_39, 6.383_12);

/// The configuration of a BEATs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `beats`.
    #[serde(default = "beats")]
    pub name: Cow<'static, str>,
    /// The spectrogram. At least `patch_size` mel bins, at most 4,096.
    pub fbank: FbankConfig,
    /// Mean of the training spectrograms.
    pub mean: f32,
    /// Standard deviation of the training spectrograms, above 0. Features are divided by twice this value.
    pub std: f32,
    /// Frames per window, `patch_size` to 65,536. Longer clips are cut into windows. Not used with `strong`.
    pub target_length: usize,
    /// Height in mel bins and width in frames of a patch, 1 to 65,536.
    pub patch_size: usize,
    /// Token dimension before the projection to `width`, 1 to 65,536.
    pub patch_dim: usize,
    /// Token dimension in the blocks, 1 to 65,536.
    pub width: usize,
    /// Attention heads; a divisor of `width`.
    pub n_heads: usize,
    /// Width of a block's feed-forward layer, 1 to 65,536.
    pub ffn_dim: usize,
    /// Transformer blocks, 1 to 1,024.
    pub depth: usize,
    /// Whether residuals are scaled by `(2 depth)^¼` (`deep_norm`).
    pub deep_norm: bool,
    /// Kernel of the positional convolution in tokens, 1 to 65,536.
    pub position_kernel: usize,
    /// Groups of the positional convolution; a divisor of `width`.
    pub position_groups: usize,
    /// Buckets of relative distances, half of them for each direction; a multiple of 4, 4 to 65,536.
    pub n_buckets: usize,
    /// Distance in tokens from which the last bucket is used; above `n_buckets / 4`, at most 2^20.
    pub max_distance: usize,
    /// Whether the head classifies frames of 40 ms: see [Frames](crate::models::beats#frames). Default when read from a
    /// file: `false`.
    #[serde(default)]
    pub strong: bool,
    /// Outputs of the head, at most 2^20; 0 for a model without one.
    pub n_classes: usize,
}

/// The default name, also for configurations that match no preset.
fn beats() -> Cow<'static, str> {
    Cow::Borrowed("beats")
}

impl Config {
    /// `BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt` and its siblings: 90 M parameters.
    pub const BASE: Self = Self {
        name: Cow::Borrowed("beats"),
        fbank: FbankConfig::BEATS_16K,
        mean: 15.416_63,
        std: 6.555_82,
        target_length: 3072,
        patch_size: 16,
        patch_dim: 512,
        width: 768,
        n_heads: 12,
        ffn_dim: 3072,
        depth: 12,
        deep_norm: true,
        position_kernel: 128,
        position_groups: 16,
        n_buckets: 320,
        max_distance: 800,
        strong: false,
        n_classes: 527,
    };
    /// OpenBEATs base, fine-tuned on AudioSet: 90 M parameters.
    pub const OPEN_BASE: Self =
        Self { name: Cow::Borrowed("openbeats-base"), mean: OPEN_STATISTICS.0, std: OPEN_STATISTICS.1, ..Self::BASE };
    /// OpenBEATs large: 300 M parameters.
    pub const OPEN_LARGE: Self = Self {
        name: Cow::Borrowed("openbeats-large"),
        width: 1024,
        n_heads: 16,
        ffn_dim: 4096,
        depth: 24,
        ..Self::OPEN_BASE
    };
    /// `BEATs_strong_1.pt` of PretrainedSED: 447 classes, frames of 40 ms.
    pub const STRONG: Self = Self { name: Cow::Borrowed("beats-strong"), strong: true, n_classes: 447, ..Self::BASE };

    pub(super) fn patches(&self) -> PatchConfig {
        PatchConfig { bias: false, ..PatchConfig::square(self.patch_size, PatchAxes::FramesFirst) }
    }

    /// Whether the classes are AudioSet-Strong's.
    fn has_strong_classes(&self) -> bool {
        self.strong && self.n_classes == Self::STRONG.n_classes
    }

    pub(super) fn info(&self, front_end: &Features) -> ModelInfo {
        let hop = front_end.hop_length();
        let min_frames = |n: usize| front_end.min_samples() + (n - 1) * hop;
        ModelInfo {
            min_samples: if self.strong { WINDOW_HOP * hop } else { min_frames(self.patch_size) },
            frames: self.strong.then_some(FrameGrid { first: 0, step: STEP * hop }),
            labels: Some(match self.has_strong_classes() {
                true => LabelSet::audioset_strong(),
                // BEATs' order differs from AudioSet's even for 527 classes.
                false => LabelSet::numbered(self.n_classes),
            }),
            ..ModelInfo::new(self.name.clone(), self.fbank.sample_rate, self.n_classes, self.width)
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        vit::check_sizes([self.width, self.n_heads, self.ffn_dim], self.depth, self.n_classes)?;
        check::sizes([("patch_dim", self.patch_dim, MAX_WIDTH), ("position_kernel", self.position_kernel, MAX_WIDTH)])?;
        self.patches().check(self.fbank.n_mels)?;
        vit::check_target_length(self.target_length, self.patch_size)?;
        if self.position_groups == 0 || !self.width.is_multiple_of(self.position_groups) {
            let reason = format!("expected a divisor of the width {}", self.width);
            return Err(Error::config("position_groups", self.position_groups, reason));
        }
        if !(4..=MAX_WIDTH).contains(&self.n_buckets) || !self.n_buckets.is_multiple_of(4) {
            return Err(Error::config("n_buckets", self.n_buckets, "expected a multiple of 4, 4 to 65,536"));
        }
        if !(self.n_buckets / 4 + 1..=MAX_DISTANCE).contains(&self.max_distance) {
            let reason = format!("expected {} to {MAX_DISTANCE} tokens", self.n_buckets / 4 + 1);
            return Err(Error::config("max_distance", self.max_distance, reason));
        }
        if self.strong {
            check::size("n_classes", self.n_classes, check::MAX_CLASSES)?;
            check::size("patch_size", self.patch_size, WINDOW)?;
        }
        Ok(())
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::BASE, "BEATs, 16 kHz Kaldi fbank, AudioSet mAP 0.486"),
        (Self::OPEN_BASE, "OpenBEATs base, 16 kHz Kaldi fbank"),
        (Self::OPEN_LARGE, "OpenBEATs large, 16 kHz Kaldi fbank"),
        (Self::STRONG, "BEATs for frames of 40 ms, 16 kHz Kaldi fbank, AudioSet-Strong"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] = &[
        &["patch_embedding.weight", "predictor.weight"],
        &["encoder.patch_embedding.weight", "decoder.linear_out.weight"],
        &["model.beats.patch_embedding.weight", STRONG_HEAD],
        &["model.model.patch_embedding.weight", STRONG_HEAD],
    ];

    fn name(&self) -> &str {
        &self.name
    }

    /// The tensors do not determine the mean and the standard deviation. OpenBEATs' values are taken for ESPnet's
    /// layout and for widths that BEATs does not have, otherwise BEATs'.
    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let here = |prefix: &&str| weights.contains(&format!("{prefix}encoder.layers.0.self_attn.grep_a"));
        let has_patches = |prefix: &&str| weights.contains(&format!("{prefix}patch_embedding.weight"));
        let Some(prefix) = PREFIXES.into_iter().find(|prefix| here(prefix) && has_patches(prefix)) else {
            return Ok(None);
        };
        let mut config = Self { n_classes: 0, ..Self::BASE };
        config.fit(weights);
        if prefix == "encoder." || config.width != Self::BASE.width {
            (config.mean, config.std) = OPEN_STATISTICS;
        }
        let renamed = |preset: &Self| Self { name: preset.name.clone(), n_classes: preset.n_classes, ..config.clone() };
        config.name = matching_preset(renamed).map_or_else(beats, |preset| preset.name.clone());
        let is_known = config.n_classes == 0 || config.has_strong_classes();
        let is_named = is_known || weights.metadata().contains_key("label_dict");
        let numbered = Assumption::NumberedLabels { n_classes: config.n_classes };
        Ok(Some((config, (!is_named).then_some(numbered).into_iter().collect())))
    }

    /// The sizes that the tensors determine; no classes without a head.
    fn fit(&mut self, weights: &Weights) {
        let here = |prefix: &&str| weights.contains(&format!("{prefix}patch_embedding.weight"));
        let prefix = PREFIXES.into_iter().find(here).unwrap_or_default();
        let shape = |name: &str| weights.shape(&format!("{prefix}{name}"));
        let fc1 = |index: usize| shape(&format!("encoder.layers.{index}.fc1.weight"));
        if let Some(&[ffn_dim, width]) = fc1(0) {
            (self.width, self.ffn_dim) = (width, ffn_dim);
            self.depth = (0..check::MAX_LAYERS).take_while(|&index| fc1(index).is_some()).count();
        }
        if let Some(&[n_buckets, n_heads]) = shape("encoder.layers.0.self_attn.relative_attention_bias.weight") {
            (self.n_buckets, self.n_heads) = (n_buckets, n_heads);
        }
        if let Some(&[patch_dim, _, patch_size, _]) = shape("patch_embedding.weight") {
            (self.patch_dim, self.patch_size) = (patch_dim, patch_size);
        }
        if let Some(&[_, per_group, kernel]) = shape("encoder.pos_conv.0.weight") {
            (self.position_kernel, self.position_groups) = (kernel, self.width / per_group.max(1));
        }
        let mut heads = HEADS.iter().filter_map(|head| weights.shape(head)).chain(shape("predictor.weight"));
        self.n_classes = heads.next().and_then(|head| head.first()).copied().unwrap_or(0);
        self.strong |= weights.contains(STRONG_HEAD);
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(Beats::load(self, weights, device)?))
    }
}
