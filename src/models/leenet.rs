//! LeeNet11 and LeeNet24 of PANNs: convolutional taggers on the raw waveform.
//!
//! Papers: Lee et al., "Sample-level Deep Convolutional Neural Networks for Music Auto-tagging Using Raw Waveforms",
//! 2017 (arXiv 1703.01789); Kong et al., "PANNs", 2020 (arXiv 1912.10211). Reference:
//! qiuqiangkong/audioset_tagging_cnn@d2f4b8c, `pytorch/models.py`, `LeeNet11`, `LeeNet24`. Checkpoint keys: as
//! published.
//!
//! waveform `[batch, 1, n_samples]` → 9 blocks of 1-D convolutions with kernel 3 (the first with stride 3, the others
//! followed by max pooling over 3) → max + mean over time → `fc1` with ReLU (the embedding) → `fc_audioset`, sigmoid.
//! Each block divides the length by 3, rounding up, so clips of any length work without padding.
//!
//! On request, frames are the time steps of the last feature map, 19,683 samples each (LeeNet24: 6,561): `max + mean`
//! of a step and its two neighbours goes through `fc1` and `fc_audioset`.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::family::Family;
use super::panns::{self, Common, WaveformNet, WaveformNetConfig};
use super::{FrameGrid, TaggingModel};
use crate::assumption::Assumption;
use crate::check::{self, MAX_WIDTH};
use crate::error::{Error, Result};
use crate::nn::{ConvConfig, ConvStack, Dropout, Pool1d};
use crate::weights::{Loader, Weights};

/// Kernel of the convolutions, stride of the first one, size of the pooling.
const THREE: usize = 3;

/// The configuration of a LeeNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `leenet`.
    #[serde(default = "leenet")]
    pub name: Cow<'static, str>,
    /// Rate of the audio in Hz, 1 to 100 MHz.
    pub sample_rate: u32,
    /// Channels of the nine blocks, 1 to 65,536.
    pub channels: [usize; 9],
    /// Convolutions per block: 1 or 2.
    pub convs_per_block: usize,
    /// Whether the last block is pooled like blocks 2 to 8.
    pub pool_last: bool,
    /// Outputs of `fc1`, 1 to 65,536.
    pub embedding_dim: usize,
    /// Outputs of `fc_audioset`, 1 to 2^20.
    pub n_classes: usize,
}

/// The default name, also for configurations that match no preset.
fn leenet() -> Cow<'static, str> {
    Cow::Borrowed("leenet")
}

impl Config {
    /// `LeeNet11_mAP=0.266.pth`: 748,367 parameters, 527 classes.
    pub const LEENET11: Self = Self {
        name: Cow::Borrowed("leenet11"),
        sample_rate: 32_000,
        channels: [64, 64, 64, 128, 128, 128, 128, 128, 256],
        convs_per_block: 1,
        pool_last: true,
        embedding_dim: 512,
        n_classes: 527,
    };
    /// `LeeNet24_mAP=0.336.pth`: 10,003,791 parameters, 527 classes.
    pub const LEENET24: Self = Self {
        name: Cow::Borrowed("leenet24"),
        sample_rate: 32_000,
        channels: [64, 96, 128, 128, 256, 256, 512, 512, 1024],
        convs_per_block: 2,
        pool_last: false,
        embedding_dim: 1024,
        n_classes: 527,
    };
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::LEENET11, "PANNs LeeNet11, 32 kHz waveform, AudioSet mAP 0.266"),
        (Self::LEENET24, "PANNs LeeNet24, 32 kHz waveform, AudioSet mAP 0.336"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["conv_block9.conv1.weight", "conv_block1.conv1.weight", "fc1.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let is_1d = weights.shape("conv_block1.conv1.weight").is_some_and(|shape| shape.len() == 3);
        let other = weights.contains("conv0.weight"); // DaiNet or Res1dNet
        if !is_1d || other || !weights.contains("conv_block9.conv1.weight") || !weights.contains("fc1.weight") {
            return Ok(None);
        }
        let two = weights.contains("conv_block1.conv2.weight");
        let preset = if two { Self::LEENET24 } else { Self::LEENET11 };
        let mut config = Self { channels: panns::channels(weights, preset.channels), ..preset.clone() };
        if config != preset {
            config.name = leenet();
        }
        config.fit(weights);
        Ok(Some((config, Vec::new())))
    }

    /// The number of classes and the embedding length.
    fn fit(&mut self, weights: &Weights) {
        panns::fit(weights, &mut self.n_classes, &mut self.embedding_dim);
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(LeeNet::load(self, weights, device)?))
    }
}

/// A loaded LeeNet. Its stages, for observers, are the blocks.
pub type LeeNet = WaveformNet<Config>;

impl WaveformNetConfig for Config {
    fn common(&self) -> Common<'_> {
        Common { name: &self.name, embedding_dim: self.embedding_dim, n_classes: self.n_classes }
    }

    fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    fn steps(&self) -> (usize, FrameGrid) {
        let divisions = if self.pool_last { 9 } else { 8 };
        (1, FrameGrid { first: 0, step: THREE.pow(divisions) })
    }

    fn validate(&self) -> Result<()> {
        if !matches!(self.convs_per_block, 1 | 2) {
            return Err(Error::config("convs_per_block", self.convs_per_block, "expected 1 or 2"));
        }
        check::sizes(self.channels.map(|channels| ("channels", channels, MAX_WIDTH)))
    }

    fn add_layers(&self, layers: &mut ConvStack, root: &Loader) -> Result<usize> {
        let mut in_channels = 1;
        for (i, &channels) in self.channels.iter().enumerate() {
            let block = root.at(format_args!("conv_block{}", i + 1));
            let stride = if i == 0 { THREE } else { 1 };
            let first = ConvConfig { stride, ..panns::same_padding(in_channels, channels, THREE) };
            panns::add_convs(layers, &block, first, self.convs_per_block)?;
            if i > 0 && (i < 8 || self.pool_last) {
                layers.pool(Pool1d { size: THREE, padding: THREE / 2 });
            }
            layers.dropout(Dropout::new(root, if self.convs_per_block == 2 && i < 8 { 0.1 } else { 0.0 })?);
            layers.end_stage();
            in_channels = channels;
        }
        Ok(in_channels)
    }
}
