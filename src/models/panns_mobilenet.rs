//! MobileNetV1 and MobileNetV2 of PANNs: depthwise convolutions on log-mel.
//!
//! Papers: Howard et al., "MobileNets", 2017 (arXiv 1704.04861); Sandler et al., "MobileNetV2", 2018 (arXiv
//! 1801.04381); Kong et al., "PANNs", 2020 (arXiv 1912.10211). Reference: qiuqiangkong/audioset_tagging_cnn@d2f4b8c,
//! `pytorch/models.py`, `MobileNetV1`, `MobileNetV2`. Checkpoint keys: as published.
//!
//! waveform `[batch, n_samples]` → log-mel `[batch, 1, n_frames, n_mels]` → batch norm per mel bin → a 3x3 convolution,
//! then blocks of a depthwise 3x3 and a 1x1 convolution, each with batch norm → mean over mel, max + mean over time →
//! `fc1` with ReLU (the embedding) → `fc_audioset`, sigmoid. V2 adds a 1x1 convolution before the depthwise one that
//! expands the channels sixfold, residual connections around blocks that keep the size of the maps, linear block
//! outputs, and a last 1x1 convolution. Where other MobileNets have a stride of 2, these average over 2x2 between a 3x3
//! convolution and its norm, five times.
//!
//! Shortest clip: 32 frames, which is 9,920 samples at 32 kHz. Shorter clips, down to one sample, are zero-padded at
//! the end to that length.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::TaggingModel;
use super::family::Family;
use super::panns::{self, Common, LogMelNet, LogMelNetConfig};
use crate::assumption::Assumption;
use crate::check::{self, MAX_WIDTH};
use crate::error::{Error, Result};
use crate::frontend::LogMelConfig;
use crate::nn::{Activation, ConvConfig, ConvStack};
use crate::weights::{Loader, Weights};

/// The MobileNet version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Version {
    /// MobileNetV1, with ReLU.
    V1,
    /// MobileNetV2, with ReLU6.
    V2,
}

impl Version {
    /// The entries of `features` that halve both axes, and the number of entries.
    fn halvings(self) -> (&'static [usize], usize) {
        match self {
            Self::V1 => (&[0, 2, 4, 6, 12], 14),
            Self::V2 => (&[0, 2, 4, 7, 11], 19),
        }
    }

    fn activation(self) -> Activation {
        match self {
            Self::V1 => Activation::Relu,
            Self::V2 => Activation::Relu6,
        }
    }
}

/// The configuration of a PANNs MobileNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `mobilenet`.
    #[serde(default = "mobilenet")]
    pub name: Cow<'static, str>,
    /// The front end. At least 32 mel bins.
    pub log_mel: LogMelConfig,
    /// The MobileNet version.
    pub version: Version,
    /// Output channels of each entry of `features`, 1 to 10,922: 14 entries in V1, 19 in V2.
    pub channels: Cow<'static, [usize]>,
    /// Outputs of `fc1`, 1 to 65,536.
    pub embedding_dim: usize,
    /// Outputs of `fc_audioset`, 1 to 2^20.
    pub n_classes: usize,
}

/// The default name, also for configurations that match no preset.
fn mobilenet() -> Cow<'static, str> {
    Cow::Borrowed("mobilenet")
}

/// Ratio of expanded to input channels in V2's blocks, except the first.
const EXPANSION: usize = 6;

impl Config {
    /// `MobileNetV1_mAP=0.389.pth`: 4,796,303 parameters, 32 kHz, 527 classes.
    pub const V1: Self = Self {
        name: Cow::Borrowed("mobilenetv1"),
        log_mel: LogMelConfig::PANNS_32K,
        version: Version::V1,
        channels: Cow::Borrowed(&[32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]),
        embedding_dim: 1024,
        n_classes: 527,
    };
    /// `MobileNetV2_mAP=0.383.pth`: 4,075,343 parameters, 32 kHz, 527 classes.
    pub const V2: Self = Self {
        name: Cow::Borrowed("mobilenetv2"),
        version: Version::V2,
        channels: Cow::Borrowed(&[32, 16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320, 1280]),
        ..Self::V1
    };
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::V1, "PANNs MobileNetV1, 32 kHz log-mel, AudioSet mAP 0.389"),
        (Self::V2, "PANNs MobileNetV2, 32 kHz log-mel, AudioSet mAP 0.383"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] = &[
        &["features.13.4.weight", "features.0.0.weight", "bn0.weight", "fc1.weight"],
        &["features.17.conv.7.weight", "features.0.0.weight", "bn0.weight", "fc1.weight"],
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let has_all = |names: &&[&str]| names.iter().all(|name| weights.contains(name));
        let Some(found) = Self::SIGNATURES.iter().position(has_all) else { return Ok(None) };
        let preset = if found == 0 { Self::V1 } else { Self::V2 };
        // The last convolution of an entry.
        let last = |entry: usize| match (preset.version, entry) {
            (_, 0) | (Version::V2, 18) => format!("features.{entry}.0.weight"),
            (Version::V1, _) => format!("features.{entry}.4.weight"),
            (Version::V2, 1) => format!("features.{entry}.conv.4.weight"),
            (Version::V2, _) => format!("features.{entry}.conv.7.weight"),
        };
        let channels = preset.channels.iter().enumerate();
        let channels = channels.map(|(entry, &channels)| panns::outputs(weights, &last(entry)).unwrap_or(channels));
        let mut assumptions = Vec::new();
        let log_mel = panns::detect_front_end("MobileNet", weights, &mut assumptions)?;
        let mut config = Self { log_mel, channels: channels.collect(), ..preset.clone() };
        if config != preset {
            config.name = mobilenet();
        }
        config.fit(weights);
        Ok(Some((config, assumptions)))
    }

    /// The number of classes and the embedding length.
    fn fit(&mut self, weights: &Weights) {
        panns::fit(weights, &mut self.n_classes, &mut self.embedding_dim);
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(PannsMobileNet::load(self, weights, device)?))
    }
}

/// A loaded PANNs MobileNet. Its stages, for observers, are the entries of `features`.
pub type PannsMobileNet = LogMelNet<Config>;

impl LogMelNetConfig for Config {
    const MIN_FRAMES: usize = 32;

    fn common(&self) -> Common<'_> {
        Common { name: &self.name, embedding_dim: self.embedding_dim, n_classes: self.n_classes }
    }

    fn log_mel(&self) -> &LogMelConfig {
        &self.log_mel
    }

    fn validate(&self) -> Result<()> {
        let (got, (_, expected)) = (self.channels.len(), self.version.halvings());
        if got != expected {
            return Err(Error::config("channels", got, format!("expected {expected} entries for {:?}", self.version)));
        }
        check::sizes(self.channels.iter().map(|&channels| ("channels", channels, MAX_WIDTH / EXPANSION)))
    }

    fn add_layers(&self, layers: &mut ConvStack, root: &Loader) -> Result<usize> {
        let mut inputs = 1;
        for (entry, &outputs) in self.channels.iter().enumerate() {
            let place = root.at(format_args!("features.{entry}"));
            let halves = self.version.halvings().0.contains(&entry);
            let activation = self.version.activation();
            match (self.version, entry) {
                (_, 0) => {
                    add_conv(layers, &place, [0, 2], panns::same_padding(inputs, outputs, 3), halves, activation)?
                }
                (Version::V2, 18) => {
                    add_conv(layers, &place, [0, 1], ConvConfig::new(inputs, outputs, 1), halves, activation)?;
                }
                (Version::V1, _) => {
                    add_conv(layers, &place, [0, 2], ConvConfig::depthwise(inputs, 3), halves, activation)?;
                    add_conv(layers, &place, [4, 5], ConvConfig::new(inputs, outputs, 1), false, activation)?;
                }
                (Version::V2, _) => {
                    let block = place.at("conv");
                    let add = |layers: &mut ConvStack| {
                        let (mut inner, mut at) = (inputs, 0);
                        if entry > 1 {
                            (inner, at) = (EXPANSION * inputs, 3);
                            add_conv(layers, &block, [0, 1], ConvConfig::new(inputs, inner, 1), false, activation)?;
                        }
                        let depthwise = ConvConfig::depthwise(inner, 3);
                        add_conv(layers, &block, [at, at + 2], depthwise, halves, activation)?;
                        let last = ConvConfig::new(inner, outputs, 1);
                        add_conv(layers, &block, [at + 4, at + 5], last, false, Activation::Identity)
                    };
                    if halves || inputs != outputs {
                        add(layers)?;
                    } else {
                        layers.residual(1, add)?;
                    }
                }
            }
            layers.end_stage();
            inputs = outputs;
        }
        Ok(inputs)
    }
}

/// Adds a convolution, a 2x2 mean if it `halves` both axes, batch norm and activation. `conv` and `norm` are the
/// entries of the two layers with tensors.
fn add_conv(
    layers: &mut ConvStack,
    place: &Loader,
    [conv, norm]: [usize; 2],
    config: ConvConfig,
    halves: bool,
    activation: Activation,
) -> Result<()> {
    let config = ConvConfig { averaged: if halves { 2 } else { 1 }, ..config };
    layers.conv(&place.at(conv), Some(&place.at(norm)), config, activation)
}
