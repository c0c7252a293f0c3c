//! ResNet22, ResNet38 and ResNet54 of PANNs: residual networks on log-mel.
//!
//! Papers: He et al., "Deep Residual Learning for Image Recognition", 2015 (arXiv 1512.03385); Kong et al., "PANNs",
//! 2020 (arXiv 1912.10211). Reference: qiuqiangkong/audioset_tagging_cnn@d2f4b8c, `pytorch/models.py`, `ResNet22`,
//! `ResNet38`, `ResNet54`. Checkpoint keys: as published.
//!
//! waveform `[batch, n_samples]` → log-mel `[batch, 1, n_frames, n_mels]` → batch norm per mel bin → two 3x3
//! convolutions (64 channels) → four layers of residual blocks (64 to 512 channels, times four for bottleneck outputs)
//! → two 3x3 convolutions (2048 channels) → mean over mel, max + mean over time → `fc1` with ReLU (the embedding) →
//! `fc_audioset`, sigmoid. A 2x2 mean halves both axes after the first convolutions, before layers 2 to 4 and after
//! layer 4. Blocks have stride 1; the shortcut has a 1x1 convolution where the number of channels changes.
//!
//! Shortest clip: 32 frames, which is 9,920 samples at 32 kHz. Shorter clips, down to one sample, are zero-padded at
//! the end to that length.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::TaggingModel;
use super::family::{Family, matching_preset};
use super::panns::{self, Common, LogMelNet, LogMelNetConfig};
use crate::assumption::Assumption;
use crate::check::{self, MAX_LAYERS, MAX_WIDTH};
use crate::error::Result;
use crate::frontend::LogMelConfig;
use crate::nn::{Activation, ConvConfig, ConvStack, Dropout, Pool2d, Pooling};
use crate::weights::{Loader, Weights};

/// The convolutions of a residual block, each with batch norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Block {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3 and 1x1 convolutions, the last with four times the channels.
    Bottleneck,
}

impl Block {
    /// Ratio of a block's output channels to its inner channels.
    fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// The configuration of a ResNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `resnet`.
    #[serde(default = "resnet")]
    pub name: Cow<'static, str>,
    /// The front end. At least 32 mel bins.
    pub log_mel: LogMelConfig,
    /// The kind of residual block.
    pub block: Block,
    /// Channels of the first two convolutions, 1 to 65,536.
    pub first_channels: usize,
    /// Inner channels of the blocks of each layer, 1 to 16,384.
    pub channels: [usize; 4],
    /// Blocks of each layer, 1 to 1,024.
    pub n_blocks: [usize; 4],
    /// Channels of the last two convolutions, 1 to 65,536.
    pub last_channels: usize,
    /// Outputs of `fc1`, 1 to 65,536.
    pub embedding_dim: usize,
    /// Outputs of `fc_audioset`, 1 to 2^20.
    pub n_classes: usize,
}

/// The default name, also for configurations that match no preset.
fn resnet() -> Cow<'static, str> {
    Cow::Borrowed("resnet")
}

impl Config {
    /// `ResNet22_mAP=0.430.pth`: 63,675,087 parameters, 32 kHz, 527 classes.
    pub const RESNET22: Self = Self {
        name: Cow::Borrowed("resnet22"),
        log_mel: LogMelConfig::PANNS_32K,
        block: Block::Basic,
        first_channels: 64,
        channels: [64, 128, 256, 512],
        n_blocks: [2, 2, 2, 2],
        last_channels: 2048,
        embedding_dim: 2048,
        n_classes: 527,
    };
    /// `ResNet38_mAP=0.434.pth`: 73,783,247 parameters, 32 kHz, 527 classes.
    pub const RESNET38: Self = Self { name: Cow::Borrowed("resnet38"), n_blocks: [3, 4, 6, 3], ..Self::RESNET22 };
    /// `ResNet54_mAP=0.429.pth`: 104,318,159 parameters, 32 kHz, 527 classes.
    pub const RESNET54: Self = Self { name: Cow::Borrowed("resnet54"), block: Block::Bottleneck, ..Self::RESNET38 };
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::RESNET22, "PANNs ResNet22, 32 kHz log-mel, AudioSet mAP 0.430"),
        (Self::RESNET38, "PANNs ResNet38, 32 kHz log-mel, AudioSet mAP 0.434"),
        (Self::RESNET54, "PANNs ResNet54, 32 kHz log-mel, AudioSet mAP 0.429"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["conv_block_after1.conv2.weight", "resnet.layer1.0.conv1.weight", "fc1.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        if !Self::SIGNATURES[0].iter().all(|name| weights.contains(name)) {
            return Ok(None);
        }
        let outputs = |name: &str, default: usize| panns::outputs(weights, name).unwrap_or(default);
        let mut assumptions = Vec::new();
        let mut config = Self {
            log_mel: panns::detect_front_end("ResNet", weights, &mut assumptions)?,
            first_channels: outputs("conv_block1.conv2.weight", Self::RESNET22.first_channels),
            last_channels: outputs("conv_block_after1.conv2.weight", Self::RESNET22.last_channels),
            n_blocks: std::array::from_fn(|i| {
                let block = |n: &usize| weights.contains(&format!("resnet.layer{}.{n}.conv1.weight", i + 1));
                (0..weights.len()).take_while(block).count()
            }),
            channels: std::array::from_fn(|i| {
                outputs(&format!("resnet.layer{}.0.conv1.weight", i + 1), Self::RESNET22.channels[i])
            }),
            block: if weights.contains("resnet.layer1.0.conv3.weight") { Block::Bottleneck } else { Block::Basic },
            ..Self::RESNET22
        };
        let preset = matching_preset(|preset: &Self| Self { name: preset.name.clone(), ..config.clone() });
        config.name = preset.map_or_else(resnet, |preset| preset.name.clone());
        config.fit(weights);
        Ok(Some((config, assumptions)))
    }

    /// The number of classes and the embedding length.
    fn fit(&mut self, weights: &Weights) {
        panns::fit(weights, &mut self.n_classes, &mut self.embedding_dim);
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(ResNet::load(self, weights, device)?))
    }
}

/// A loaded ResNet. Its stages, for observers, are the first convolutions with their pooling, the four layers and the
/// last convolutions.
pub type ResNet = LogMelNet<Config>;

impl LogMelNetConfig for Config {
    const MIN_FRAMES: usize = 32;

    fn common(&self) -> Common<'_> {
        Common { name: &self.name, embedding_dim: self.embedding_dim, n_classes: self.n_classes }
    }

    fn log_mel(&self) -> &LogMelConfig {
        &self.log_mel
    }

    fn validate(&self) -> Result<()> {
        check::sizes(self.channels.map(|channels| ("channels", channels, MAX_WIDTH / Block::Bottleneck.expansion())))?;
        check::sizes(self.n_blocks.map(|n_blocks| ("n_blocks", n_blocks, MAX_LAYERS)))?;
        check::size("first_channels", self.first_channels, MAX_WIDTH)?;
        check::size("last_channels", self.last_channels, MAX_WIDTH)
    }

    fn add_layers(&self, layers: &mut ConvStack, root: &Loader) -> Result<usize> {
        let halve = Pool2d { pooling: Pooling::Avg, size: (2, 2) };
        let mut channels = self.first_channels;
        panns::add_block(layers, &root.at("conv_block1"), panns::same_padding(1, channels, 3), 2, Some(Pooling::Avg))?;
        for (i, (&inner, &n_blocks)) in self.channels.iter().zip(&self.n_blocks).enumerate() {
            if i > 0 {
                layers.pool(halve);
            }
            for n in 0..n_blocks {
                let block = root.at(format_args!("resnet.layer{}.{n}", i + 1));
                // A pooling in `downsample` shifts the indices of its other modules by one.
                let connection = block.at(format_args!("downsample.{}", usize::from(i > 0)));
                let connection_norm = block.at(format_args!("downsample.{}", usize::from(i > 0) + 1));
                let outputs = inner * self.block.expansion();
                let connect = |layers: &mut ConvStack| {
                    if n > 0 || i == 0 && channels == outputs {
                        return Ok(());
                    }
                    let conv = ConvConfig::new(channels, outputs, 1);
                    layers.conv(&connection, Some(&connection_norm), conv, Activation::Identity)
                };
                layers.shortcut(connect, |layers| self.add_block(layers, &block, (channels, inner, outputs)))?;
                layers.activation(Activation::Relu);
                channels = outputs;
            }
            layers.end_stage();
        }
        layers.pool(halve);
        layers.dropout(Dropout::new(root, 0.2)?);
        let last = panns::same_padding(channels, self.last_channels, 3);
        panns::add_block(layers, &root.at("conv_block_after1"), last, 2, None)?;
        Ok(self.last_channels)
    }
}

impl Config {
    /// Adds the convolutions of a block, given its input, inner and output channels.
    fn add_block(
        &self,
        layers: &mut ConvStack,
        block: &Loader,
        (inputs, inner, outputs): (usize, usize, usize),
    ) -> Result<()> {
        let convs = match self.block {
            Block::Basic => &[(inputs, inner, 3), (inner, outputs, 3)][..],
            Block::Bottleneck => &[(inputs, inner, 1), (inner, inner, 3), (inner, outputs, 1)],
        };
        for (i, &(inputs, outputs, kernel)) in convs.iter().enumerate() {
            let [conv, norm] = ["conv", "bn"].map(|name| block.at(format_args!("{name}{}", i + 1)));
            let is_last = i + 1 == convs.len();
            if is_last {
                layers.dropout(Dropout::new(block, 0.1)?);
            }
            let activation = if is_last { Activation::Identity } else { Activation::Relu };
            layers.conv(&conv, Some(&norm), panns::same_padding(inputs, outputs, kernel), activation)?;
        }
        Ok(())
    }
}
