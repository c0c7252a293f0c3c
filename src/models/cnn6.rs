//! Cnn6 and Cnn10 of PANNs: smaller variants of CNN14 with four blocks of one 5x5 or two 3x3 convolutions.
//!
//! Paper: Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", 2020
//! (arXiv 1912.10211). Reference: qiuqiangkong/audioset_tagging_cnn@d2f4b8c, `pytorch/models.py`, `Cnn6` and `Cnn10`.
//! Checkpoint keys: as published.
//!
//! waveform `[batch, n_samples]` → log-mel `[batch, 1, n_frames, n_mels]` → batch norm per mel bin → 4 blocks (64 to
//! 512 channels) of convolutions with batch norm and ReLU, each followed by a pooling that halves both axes → mean over
//! mel, max + mean over time → `fc1` with ReLU (the embedding) → `fc_audioset`, sigmoid.
//!
//! Shortest clip: 16 frames, which is 4,800 samples at 32 kHz. Shorter clips, down to one sample, are zero-padded at
//! the end to that length.
//!
//! On request, frames are the time steps of the last feature map, 16 log-mel frames each: `max + mean` of a step and
//! its two neighbours goes through `fc1` and `fc_audioset`.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::TaggingModel;
use super::family::Family;
use super::panns::{self, Common, LogMelNet, LogMelNetConfig};
use crate::assumption::Assumption;
use crate::check::{self, MAX_WIDTH};
use crate::error::Result;
use crate::frontend::LogMelConfig;
use crate::nn::{ConvStack, Pooling};
use crate::weights::{Loader, Weights};

/// The convolutions of a block, each with batch norm and ReLU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Block {
    /// One 5x5 convolution, as in Cnn6.
    #[default]
    #[serde(rename = "5x5")]
    One5x5,
    /// Two 3x3 convolutions, as in Cnn10.
    #[serde(rename = "two-3x3")]
    Two3x3,
}

impl Block {
    /// Kernel size and number of convolutions.
    fn sizes(self) -> (usize, usize) {
        match self {
            Self::One5x5 => (5, 1),
            Self::Two3x3 => (3, 2),
        }
    }
}

/// The configuration of a Cnn6 or Cnn10.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `cnn6`.
    #[serde(default = "cnn6")]
    pub name: Cow<'static, str>,
    /// The front end. At least 16 mel bins.
    pub log_mel: LogMelConfig,
    /// The convolutions of each block. Default when read from a file: those of Cnn6.
    #[serde(default)]
    pub block: Block,
    /// Channels of the four blocks, 1 to 65,536.
    pub channels: [usize; 4],
    /// Outputs of `fc1`, 1 to 65,536.
    pub embedding_dim: usize,
    /// Outputs of `fc_audioset`, 1 to 2^20.
    pub n_classes: usize,
}

/// The default name, also for configurations that match no preset.
fn cnn6() -> Cow<'static, str> {
    Cow::Borrowed("cnn6")
}

impl Config {
    /// `Cnn6_mAP=0.343.pth`: 4,837,455 parameters, 32 kHz, 527 classes.
    pub const CNN6: Self = Self {
        name: Cow::Borrowed("cnn6"),
        log_mel: LogMelConfig::PANNS_32K,
        block: Block::One5x5,
        channels: [64, 128, 256, 512],
        embedding_dim: 512,
        n_classes: 527,
    };

    /// `Cnn10_mAP=0.380.pth`: 5,219,279 parameters, 32 kHz, 527 classes.
    pub const CNN10: Self = Self { name: Cow::Borrowed("cnn10"), block: Block::Two3x3, ..Self::CNN6 };
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::CNN6, "PANNs Cnn6, 32 kHz log-mel, AudioSet mAP 0.343"),
        (Self::CNN10, "PANNs Cnn10, 32 kHz log-mel, AudioSet mAP 0.380"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["conv_block4.conv1.weight", "conv_block1.conv1.weight", "fc1.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let two = weights.contains("conv_block1.conv2.weight");
        let preset = match weights.shape("conv_block1.conv1.weight") {
            Some([_, _, 5, 5]) if !two => Self::CNN6,
            Some([_, _, 3, 3]) if two => Self::CNN10,
            _ => return Ok(None),
        };
        let other = weights.contains("conv_block5.conv1.weight");
        if other || !weights.contains("conv_block4.conv1.weight") || !weights.contains("fc1.weight") {
            return Ok(None);
        }
        let mut assumptions = Vec::new();
        let log_mel = panns::detect_front_end(&preset.name, weights, &mut assumptions)?;
        let channels = panns::channels(weights, preset.channels);
        let mut config = Self { log_mel, channels, ..preset };
        config.fit(weights);
        Ok(Some((config, assumptions)))
    }

    /// The number of classes and the embedding length.
    fn fit(&mut self, weights: &Weights) {
        panns::fit(weights, &mut self.n_classes, &mut self.embedding_dim);
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(Cnn6::load(self, weights, device)?))
    }
}

/// A loaded Cnn6 or Cnn10. Its stages, for observers, are the four blocks.
pub type Cnn6 = LogMelNet<Config>;

impl LogMelNetConfig for Config {
    const MIN_FRAMES: usize = 16;

    fn common(&self) -> Common<'_> {
        Common { name: &self.name, embedding_dim: self.embedding_dim, n_classes: self.n_classes }
    }

    fn log_mel(&self) -> &LogMelConfig {
        &self.log_mel
    }

    fn validate(&self) -> Result<()> {
        check::sizes(self.channels.map(|channels| ("channels", channels, MAX_WIDTH)))
    }

    fn add_layers(&self, layers: &mut ConvStack, root: &Loader) -> Result<usize> {
        let (kernel, n_convs) = self.block.sizes();
        let mut in_channels = 1;
        for (i, &channels) in self.channels.iter().enumerate() {
            let block = root.at(format_args!("conv_block{}", i + 1));
            panns::add_block(
                layers,
                &block,
                panns::same_padding(in_channels, channels, kernel),
                n_convs,
                Some(Pooling::Avg),
            )?;
            in_channels = channels;
        }
        Ok(in_channels)
    }
}
