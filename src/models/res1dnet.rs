//! Res1dNet31 and Res1dNet51 of PANNs: residual networks on the raw waveform.
//!
//! Paper: Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", 2020 (arXiv
//! 1912.10211). Reference: qiuqiangkong/audioset_tagging_cnn@d2f4b8c, `pytorch/models.py`, `Res1dNet31`, `Res1dNet51`.
//! Checkpoint keys: as published.
//!
//! waveform `[batch, 1, n_samples]` → convolution with kernel 11 and stride 5, batch norm → seven layers of residual
//! blocks (64 to 2048 channels) of two convolutions with kernel 3, the second with dilation 2 → max + mean over time →
//! `fc1` with ReLU (the embedding) → `fc_audioset`, sigmoid. Layers 2 to 7 divide the length by 4: by max pooling
//! before their first convolution, and by average pooling on the shortcut, which is followed by a convolution with
//! kernel 1.
//!
//! Shortest clip: 20,476 samples, which give one step. Shorter clips, down to one sample, are zero-padded at the end to
//! that length.
//!
//! On request, frames are the time steps of the last feature map, 20,480 samples each: `max + mean` of a step and its
//! two neighbours goes through `fc1` and `fc_audioset`.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::family::{Family, matching_preset};
use super::panns::{self, Common, WaveformNet, WaveformNetConfig};
use super::{FrameGrid, TaggingModel};
use crate::assumption::Assumption;
use crate::check::{self, MAX_LAYERS, MAX_WIDTH};
use crate::error::Result;
use crate::nn::{Activation, ConvConfig, ConvStack, Dropout, Pool1d, Pool2d, Pooling};
use crate::weights::{Loader, Weights};

/// The first convolution.
const FIRST: ConvConfig = ConvConfig { stride: 5, padding: 5, ..ConvConfig::new(1, 1, 11) };
/// Factor by which layers 2 to 7 each divide the length.
const POOL: usize = 4;
/// Steps of the first convolution per step of the last feature map.
const STEPS: usize = POOL.pow(6);

/// The configuration of a Res1dNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `res1dnet`.
    #[serde(default = "res1dnet")]
    pub name: Cow<'static, str>,
    /// Rate of the audio in Hz, 1 to 100 MHz.
    pub sample_rate: u32,
    /// Channels of the seven layers, 1 to 65,536. The first convolution has as many as the first layer.
    pub channels: [usize; 7],
    /// Blocks of each of the seven layers, 1 to 1,024.
    pub n_blocks: [usize; 7],
    /// Outputs of `fc1`, 1 to 65,536.
    pub embedding_dim: usize,
    /// Outputs of `fc_audioset`, 1 to 2^20.
    pub n_classes: usize,
}

/// The default name, also for configurations that match no preset.
fn res1dnet() -> Cow<'static, str> {
    Cow::Borrowed("res1dnet")
}

impl Config {
    /// `Res1dNet31_mAP=0.365.pth`: 80,464,463 parameters, 527 classes.
    pub const RES1DNET31: Self = Self {
        name: Cow::Borrowed("res1dnet31"),
        sample_rate: 32_000,
        channels: [64, 128, 256, 512, 1024, 1024, 2048],
        n_blocks: [2; 7],
        embedding_dim: 2048,
        n_classes: 527,
    };
    /// `Res1dNet51_mAP=0.355.pth`: 106,538,063 parameters, 527 classes.
    pub const RES1DNET51: Self =
        Self { name: Cow::Borrowed("res1dnet51"), n_blocks: [2, 3, 4, 6, 4, 3, 2], ..Self::RES1DNET31 };
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::RES1DNET31, "PANNs Res1dNet31, 32 kHz waveform, AudioSet mAP 0.365"),
        (Self::RES1DNET51, "PANNs Res1dNet51, 32 kHz waveform, AudioSet mAP 0.355"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["resnet.layer7.0.conv1.weight", "conv0.weight", "fc1.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        if !Self::SIGNATURES[0].iter().all(|name| weights.contains(name)) {
            return Ok(None);
        }
        let block = |layer: usize, n: usize| format!("resnet.layer{}.{n}.conv1.weight", layer + 1);
        let mut config = Self {
            channels: std::array::from_fn(|i| {
                panns::outputs(weights, &block(i, 0)).unwrap_or(Self::RES1DNET31.channels[i])
            }),
            n_blocks: std::array::from_fn(|i| {
                (0..weights.len()).take_while(|&n| weights.contains(&block(i, n))).count()
            }),
            ..Self::RES1DNET31
        };
        let preset = matching_preset(|preset: &Self| Self { name: preset.name.clone(), ..config.clone() });
        config.name = preset.map_or_else(res1dnet, |preset| preset.name.clone());
        config.fit(weights);
        Ok(Some((config, Vec::new())))
    }

    /// The number of classes and the embedding length.
    fn fit(&mut self, weights: &Weights) {
        panns::fit(weights, &mut self.n_classes, &mut self.embedding_dim);
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(Res1dNet::load(self, weights, device)?))
    }
}

/// A loaded Res1dNet. Its stages, for observers, are the first convolution and the seven layers.
pub type Res1dNet = WaveformNet<Config>;

impl WaveformNetConfig for Config {
    fn common(&self) -> Common<'_> {
        Common { name: &self.name, embedding_dim: self.embedding_dim, n_classes: self.n_classes }
    }

    fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    fn steps(&self) -> (usize, FrameGrid) {
        // With the padding, the first output needs one sample and each further output one stride.
        ((STEPS - 1) * FIRST.stride + 1, FrameGrid { first: 0, step: STEPS * FIRST.stride })
    }

    fn validate(&self) -> Result<()> {
        check::sizes(self.channels.map(|channels| ("channels", channels, MAX_WIDTH)))?;
        check::sizes(self.n_blocks.map(|n_blocks| ("n_blocks", n_blocks, MAX_LAYERS)))
    }

    fn add_layers(&self, layers: &mut ConvStack, root: &Loader) -> Result<usize> {
        let mut channels = self.channels[0];
        let first = ConvConfig { out_channels: channels, ..FIRST };
        layers.conv(&root.at("conv0"), Some(&root.at("bn0")), first, Activation::Identity)?;
        layers.end_stage();
        for (i, (&outputs, &n_blocks)) in self.channels.iter().zip(&self.n_blocks).enumerate() {
            for n in 0..n_blocks {
                let block = root.at(format_args!("resnet.layer{}.{n}", i + 1));
                let shortens = i > 0 && n == 0;
                let connect = |layers: &mut ConvStack| {
                    if !shortens {
                        return Ok(());
                    }
                    layers.pool(Pool2d { pooling: Pooling::Avg, size: (POOL, 1) });
                    let (conv, norm) = (block.at("downsample.1"), block.at("downsample.2"));
                    layers.conv(&conv, Some(&norm), ConvConfig::new(channels, outputs, 1), Activation::Identity)
                };
                let convs = |layers: &mut ConvStack| {
                    if shortens {
                        layers.pool(Pool1d { size: POOL, padding: 0 });
                    }
                    let first = panns::same_padding(channels, outputs, 3);
                    layers.conv(&block.at("conv1"), Some(&block.at("bn1")), first, Activation::Relu)?;
                    layers.dropout(Dropout::new(&block, 0.1)?);
                    let second = ConvConfig { dilation: 2, padding: 2, ..ConvConfig::new(outputs, outputs, 3) };
                    layers.conv(&block.at("conv2"), Some(&block.at("bn2")), second, Activation::Identity)
                };
                layers.shortcut(connect, convs)?;
                layers.activation(Activation::Relu);
                channels = outputs;
            }
            layers.end_stage();
        }
        Ok(channels)
    }
}
