//! LeeNet11 and LeeNet24 of PANNs: taggers on the raw waveform.
//!
//! Papers: Lee et al., "Sample-level Deep Convolutional Neural Networks for Music Auto-tagging Using Raw Waveforms", 2017
//! (arXiv 1703.01789); Kong et al., "PANNs", 2020 (arXiv 1912.10211). Reference: qiuqiangkong/audioset_tagging_cnn@d2f4b8c,
//! `pytorch/models.py`, `LeeNet11`, `LeeNet24`. Checkpoint keys: as published.
//!
//! waveform `[batch, 1, n_samples]` → 9 blocks of 1-D convolutions with kernel 3 (the first with stride 3, the others
//! followed by a maximum over 3) → max + mean over time → `fc1` with ReLU (the embedding) → `fc_audioset`, sigmoid.
//! Every step divides the length by 3, rounding up, so any clip of at least one sample works as it is.
//!
//! Frames, on request, are the steps of the last map, 19,683 samples each (LeeNet24: 6,561): `max + mean` of a step and its two
//! neighbours goes through `fc1` and `fc_audioset`.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch::{forward_by_length, waveforms};
use super::family::Family;
use super::frames::{Edge, FrameGrid, max_plus_mean_of_neighbours};
use super::{Detail, ModelInfo, TaggingModel, panns};
use crate::assumption::Assumption;
use crate::audio::WaveformBatch;
use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::nn::{Activation, ConvConfig, ConvStack, Linear, Pool1d};
use crate::output::TaggingOutput;
use crate::weights::Weights;

/// Kernel of the convolutions, stride of the first, window of the pooling.
const THREE: usize = 3;

/// The shape of a LeeNet. Presets are the published ones.
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
    /// Convolutions in a block: 1 or 2.
    pub convs_per_block: usize,
    /// Whether the last block is pooled as blocks 2 to 8 are.
    pub pool_last: bool,
    /// Outputs of `fc1`, 1 to 65,536.
    pub embedding_dim: usize,
    /// Outputs of `fc_audioset`, 1 to 2^20.
    pub n_classes: usize,
}

/// The family's name.
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

    fn info(&self) -> ModelInfo {
        let divisions = if self.pool_last { 9 } else { 8 };
        ModelInfo {
            frames: Some(FrameGrid { first: 0, step: THREE.pow(divisions) }),
            ..ModelInfo::new(self.name.clone(), self.sample_rate, self.n_classes, self.embedding_dim)
        }
    }

    fn validate(&self) -> Result<()> {
        if !matches!(self.convs_per_block, 1 | 2) {
            return Err(Error::config("convs_per_block", self.convs_per_block, "1 or 2"));
        }
        check::sizes(self.channels.map(|channels| ("channels", channels, MAX_WIDTH)))?;
        check::sample_rate(self.sample_rate)?;
        check::size("embedding_dim", self.embedding_dim, MAX_WIDTH)?;
        check::size("n_classes", self.n_classes, MAX_CLASSES)
    }
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

    /// The number of classes and the length of the embedding.
    fn fit(&mut self, weights: &Weights) {
        if let Some(&[n_classes, embedding_dim]) = weights.shape("fc_audioset.weight") {
            (self.n_classes, self.embedding_dim) = (n_classes, embedding_dim);
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(LeeNet::load(self, weights, device)?))
    }
}

/// A loaded LeeNet.
#[derive(Debug)]
pub struct LeeNet {
    config: Config,
    info: ModelInfo,
    device: Device,
    blocks: ConvStack,
    fc1: Linear,
    fc_audioset: Linear,
}

impl LeeNet {
    /// Builds the model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        config.validate()?;
        let root = weights.loader(device);
        let mut blocks = ConvStack::on_sequences();
        let mut in_channels = 1;
        for (i, &channels) in config.channels.iter().enumerate() {
            let block = root.at(format_args!("conv_block{}", i + 1));
            for k in 1..=config.convs_per_block {
                let (conv, norm) = (block.at(format_args!("conv{k}")), block.at(format_args!("bn{k}")));
                let stride = if (i, k) == (0, 1) { THREE } else { 1 };
                let config = ConvConfig { stride, padding: THREE / 2, ..ConvConfig::new(in_channels, channels, THREE) };
                blocks.conv(&conv, Some(&norm), config, Activation::Relu)?;
                in_channels = channels;
            }
            if i > 0 && (i < 8 || config.pool_last) {
                blocks.pool(Pool1d { size: THREE, padding: THREE / 2 });
            }
        }
        let fc1 = Linear::load(&root.at("fc1"), in_channels, config.embedding_dim, Activation::Relu)?;
        let fc_audioset = &root.at("fc_audioset");
        let fc_audioset = Linear::load(fc_audioset, config.embedding_dim, config.n_classes, Activation::Identity)?;
        root.finish(config.name())?;
        Ok(Self { config: config.clone(), info: config.info(), device: device.clone(), blocks, fc1, fc_audioset })
    }

    /// The configuration that it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// `x` `[batch, 1, n_samples]`.
    fn forward_samples(&self, x: Tensor, detail: Detail) -> Result<TaggingOutput> {
        let x = self.blocks.forward(&x)?; // [batch, 256, n_frames]
        let pooled = (x.max(2)? + x.mean(2)?)?; // [batch, 256]
        let embedding = self.fc1.forward(&pooled)?; // [batch, embedding_dim]
        let mut output = self.classify(&embedding)?;
        if detail == Detail::Frames {
            let frames = self.fc1.forward(&max_plus_mean_of_neighbours(&x, Edge::Cut)?)?; // [batch, n_frames, embedding_dim]
            output.framewise_output = Some(candle_nn::ops::sigmoid(&self.fc_audioset.forward(&frames)?)?);
        }
        Ok(output)
    }
}

impl TaggingModel for LeeNet {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        let run = |clips: &[&[f32]]| self.forward_samples(waveforms(clips, &self.device)?, detail).context("LeeNet");
        forward_by_length(batch, &self.info, |n_samples| n_samples, run)
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        TaggingOutput::multi_label(self.fc_audioset.forward(embedding)?, embedding.clone())
    }
}
