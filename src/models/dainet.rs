//! DaiNet19 of PANNs: a residual network on the raw waveform, after M18 of Dai et al.
//!
//! Papers: Dai et al., "Very Deep Convolutional Neural Networks for Raw Waveforms", 2016 (arXiv 1610.00087); Kong et
//! al., "PANNs", 2020 (arXiv 1912.10211). Reference: qiuqiangkong/audioset_tagging_cnn@d2f4b8c, `pytorch/models.py`,
//! `DaiNet19`. Checkpoint keys: as published.
//!
//! waveform `[batch, 1, n_samples]` → convolution with kernel 80 and stride 4, batch norm → four residual blocks of
//! four convolutions with kernel 3 (64 to 512 channels), with max pooling over 4 between the blocks → max + mean over
//! time → `fc1` with ReLU (the embedding) → `fc_audioset`, sigmoid. The shortcut has a convolution with kernel 1 where
//! the number of channels changes.
//!
//! Shortest clip: 332 samples, which give one step. Shorter clips, down to one sample, are zero-padded at the end to
//! that length.
//!
//! On request, frames are the time steps of the last feature map, 256 samples each: `max + mean` of a step and its two
//! neighbours goes through `fc1` and `fc_audioset`.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::family::{Family, matching_preset};
use super::panns::{self, Common, WaveformNet, WaveformNetConfig};
use super::{FrameGrid, TaggingModel};
use crate::assumption::Assumption;
use crate::check::{self, MAX_WIDTH};
use crate::error::Result;
use crate::nn::{Activation, ConvConfig, ConvStack, Pool1d};
use crate::weights::{Loader, Weights};

/// The first convolution.
const FIRST: ConvConfig = ConvConfig { stride: 4, ..ConvConfig::new(1, 1, 80) };
/// Size of the max pooling between the blocks.
const POOL: usize = 4;
/// Steps of the first convolution per step of the last feature map.
const STEPS: usize = POOL.pow(3);
/// Convolutions of a block.
const CONVS: usize = 4;

/// The configuration of a DaiNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `dainet`.
    #[serde(default = "dainet")]
    pub name: Cow<'static, str>,
    /// Rate of the audio in Hz, 1 to 100 MHz.
    pub sample_rate: u32,
    /// Channels of the first convolution, 1 to 65,536.
    pub first_channels: usize,
    /// Channels of the four blocks, 1 to 65,536.
    pub channels: [usize; 4],
    /// Outputs of `fc1`, 1 to 65,536.
    pub embedding_dim: usize,
    /// Outputs of `fc_audioset`, 1 to 2^20.
    pub n_classes: usize,
}

/// The default name, also for configurations that match no preset.
fn dainet() -> Cow<'static, str> {
    Cow::Borrowed("dainet")
}

impl Config {
    /// `DaiNet19_mAP=0.295.pth`: 4,385,807 parameters, 527 classes.
    pub const DAINET19: Self = Self {
        name: Cow::Borrowed("dainet19"),
        sample_rate: 32_000,
        first_channels: 64,
        channels: [64, 128, 256, 512],
        embedding_dim: 512,
        n_classes: 527,
    };
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] =
        &[(Self::DAINET19, "PANNs DaiNet19, 32 kHz waveform, AudioSet mAP 0.295")];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["conv_block4.conv4.weight", "conv_block1.conv1.weight", "conv0.weight", "fc1.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        if !Self::SIGNATURES[0].iter().all(|name| weights.contains(name)) {
            return Ok(None);
        }
        let mut config = Self {
            first_channels: panns::outputs(weights, "conv0.weight").unwrap_or(Self::DAINET19.first_channels),
            channels: panns::channels(weights, Self::DAINET19.channels),
            ..Self::DAINET19
        };
        let preset = matching_preset(|preset: &Self| Self { name: preset.name.clone(), ..config.clone() });
        config.name = preset.map_or_else(dainet, |preset| preset.name.clone());
        config.fit(weights);
        Ok(Some((config, Vec::new())))
    }

    /// The number of classes and the embedding length.
    fn fit(&mut self, weights: &Weights) {
        panns::fit(weights, &mut self.n_classes, &mut self.embedding_dim);
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(DaiNet::load(self, weights, device)?))
    }
}

/// A loaded DaiNet. Its stages, for observers, are the first convolution and the blocks, before the pooling.
pub type DaiNet = WaveformNet<Config>;

impl WaveformNetConfig for Config {
    fn common(&self) -> Common<'_> {
        Common { name: &self.name, embedding_dim: self.embedding_dim, n_classes: self.n_classes }
    }

    fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    fn steps(&self) -> (usize, FrameGrid) {
        let (shortest, step) = ((STEPS - 1) * FIRST.stride + FIRST.kernel, STEPS * FIRST.stride);
        // The receptive field of a step is the shortest clip, and the step lies in its middle.
        (shortest, FrameGrid { first: (shortest - step) / 2, step })
    }

    fn validate(&self) -> Result<()> {
        check::size("first_channels", self.first_channels, MAX_WIDTH)?;
        check::sizes(self.channels.map(|channels| ("channels", channels, MAX_WIDTH)))
    }

    fn add_layers(&self, layers: &mut ConvStack, root: &Loader) -> Result<usize> {
        let mut channels = self.first_channels;
        let first = ConvConfig { out_channels: channels, ..FIRST };
        layers.conv(&root.at("conv0"), Some(&root.at("bn0")), first, Activation::Identity)?;
        layers.end_stage();
        for (i, &outputs) in self.channels.iter().enumerate() {
            if i > 0 {
                layers.pool(Pool1d { size: POOL, padding: 0 });
            }
            let block = root.at(format_args!("conv_block{}", i + 1));
            let (conv, norm) = (block.at("downsample"), block.at("bn_downsample"));
            let connect = |layers: &mut ConvStack| {
                if channels == outputs {
                    // Tensors of the published class that it does not use here.
                    block.ignore("downsample.*");
                    block.ignore("bn_downsample.*");
                    return Ok(());
                }
                layers.conv(&conv, Some(&norm), ConvConfig::new(channels, outputs, 1), Activation::Identity)
            };
            let convs = |layers: &mut ConvStack| {
                panns::add_convs(layers, &block, panns::same_padding(channels, outputs, 3), CONVS - 1)?;
                let (conv, norm) = (block.at(format_args!("conv{CONVS}")), block.at(format_args!("bn{CONVS}")));
                layers.conv(&conv, Some(&norm), panns::same_padding(outputs, outputs, 3), Activation::Identity)
            };
            layers.shortcut(connect, convs)?;
            layers.activation(Activation::Relu);
            layers.end_stage();
            channels = outputs;
        }
        Ok(channels)
    }
}
