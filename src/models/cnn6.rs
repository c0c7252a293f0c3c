//! Cnn6 and Cnn10 of PANNs: the small siblings of CNN14, four blocks of one 5x5 or of two 3x3 convolutions.
//!
//! Paper: Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", 2020
//! (arXiv 1912.10211). Reference: qiuqiangkong/audioset_tagging_cnn@d2f4b8c, `pytorch/models.py`, `Cnn6` and `Cnn10`.
//! Checkpoint keys: as published.
//!
//! waveform `[batch, n_samples]` → log-mel `[batch, 1, n_frames, n_mels]` → batch norm per mel bin → 4 blocks of
//! convolutions, each with batch norm and ReLU (64 to 512 channels), each block halving both axes → mean over mel, max + mean over time →
//! `fc1` with ReLU (the embedding) → `fc_audioset`, sigmoid.
//!
//! Shortest clip: 16 frames, which is 4,800 samples at 32 kHz. Anything shorter, down to one sample, is padded with zeros at its
//! end to that length.
//!
//! Frames, on request, are the steps of the last map, 16 log-mel frames each: `max + mean` of a step and its two neighbours goes
//! through `fc1` and `fc_audioset`.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch::{features, forward_by_length};
use super::family::Family;
use super::frames::{Edge, FrameGrid, max_plus_mean_of_neighbours, repeat_to_frames};
use super::{Detail, ModelInfo, TaggingModel, panns};
use crate::assumption::Assumption;
use crate::audio::WaveformBatch;
use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::frontend::{FrontEnd, LogMel, LogMelConfig};
use crate::nn::{Activation, BatchNorm, ConvConfig, ConvStack, Dropout, Linear, Pool2d, Pooling};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

/// Log-mel frames per step of the last map (2⁴): the shortest input.
const MIN_FRAMES: usize = 16;

/// What a block has before its pooling; each convolution with batch norm and ReLU.
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
    /// The kernel, and the number of convolutions.
    fn sizes(self) -> (usize, usize) {
        match self {
            Self::One5x5 => (5, 1),
            Self::Two3x3 => (3, 2),
        }
    }
}

/// The shape of a Cnn6 or Cnn10.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `cnn6`.
    #[serde(default = "cnn6")]
    pub name: Cow<'static, str>,
    /// The front end. At least 16 mel bins.
    pub log_mel: LogMelConfig,
    /// The convolutions of a block. Default when read from a file: those of Cnn6.
    #[serde(default)]
    pub block: Block,
    /// Channels of the four blocks, 1 to 65,536.
    pub channels: [usize; 4],
    /// Outputs of `fc1`, 1 to 65,536.
    pub embedding_dim: usize,
    /// Outputs of `fc_audioset`, 1 to 2^20.
    pub n_classes: usize,
}

/// The family's name.
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

    fn info(&self, log_mel: &LogMel) -> ModelInfo {
        ModelInfo {
            min_samples: log_mel.samples_for(MIN_FRAMES),
            frames: Some(FrameGrid { first: 0, step: self.log_mel.stft.hop_length }),
            ..ModelInfo::new(self.name.clone(), self.log_mel.sample_rate, self.n_classes, self.embedding_dim)
        }
    }

    fn validate(&self) -> Result<()> {
        let n_mels = self.log_mel.mel.n_mels;
        if n_mels < MIN_FRAMES {
            return Err(Error::config("n_mels", n_mels, "expected at least 16, for four halvings"));
        }
        check::sizes(self.channels.map(|channels| ("channels", channels, MAX_WIDTH)))?;
        check::size("embedding_dim", self.embedding_dim, MAX_WIDTH)?;
        check::size("n_classes", self.n_classes, MAX_CLASSES)
    }
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

    /// The number of classes and the length of the embedding.
    fn fit(&mut self, weights: &Weights) {
        if let Some(&[n_classes, embedding_dim]) = weights.shape("fc_audioset.weight") {
            (self.n_classes, self.embedding_dim) = (n_classes, embedding_dim);
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(Cnn6::load(self, weights, device)?))
    }
}

/// A loaded Cnn6 or Cnn10.
#[derive(Debug)]
pub struct Cnn6 {
    config: Config,
    info: ModelInfo,
    device: Device,
    log_mel: LogMel,
    bn0: BatchNorm,
    blocks: ConvStack,
    pooled_dropout: Dropout,
    fc1: Linear,
    fc_audioset: Linear,
}

impl Cnn6 {
    /// Builds the model from a checkpoint. A front end that the checkpoint carries is compared with the configuration's.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, [`Error::FrontEnd`] if the checkpoint's front end is another,
    /// [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        panns::load(&config.name, weights, device, |root| Self::build(config, root), Self::log_mel)
    }

    /// The model with the tensors that a loader gives: of a checkpoint, or to be trained.
    ///
    /// In training a fifth of the values after each block, and half of them before `fc1`, are dropped, as PANNs does.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, else as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let log_mel = LogMel::new(&config.log_mel)?;
        check::min_samples("hop_length", config.log_mel.stft.hop_length, log_mel.samples_for(MIN_FRAMES))?;
        let n_mels = config.log_mel.mel.n_mels;
        let mut blocks = ConvStack::on_maps(Some(n_mels));
        let (kernel, n_convs) = config.block.sizes();
        let mut in_channels = 1;
        for (i, &channels) in config.channels.iter().enumerate() {
            let block = root.at(format_args!("conv_block{}", i + 1));
            for conv in 1..=n_convs {
                let shape = ConvConfig { padding: kernel / 2, ..ConvConfig::new(in_channels, channels, kernel) };
                let [conv, norm] = ["conv", "bn"].map(|name| block.at(format_args!("{name}{conv}")));
                blocks.conv(&conv, Some(&norm), shape, Activation::Relu)?;
                in_channels = channels;
            }
            blocks.pool(Pool2d { pooling: Pooling::Avg, size: (2, 2) });
            blocks.dropout(Dropout::new(root, 0.2)?);
            blocks.end_stage();
        }
        let Config { embedding_dim, n_classes, .. } = *config;
        Ok(Self {
            info: config.info(&log_mel),
            device: root.device().clone(),
            log_mel,
            bn0: BatchNorm::load(&root.at("bn0"), n_mels)?,
            blocks,
            pooled_dropout: Dropout::new(root, 0.5)?,
            fc1: Linear::load(&root.at("fc1"), in_channels, embedding_dim, Activation::Relu)?,
            fc_audioset: Linear::load(&root.at("fc_audioset"), embedding_dim, n_classes, Activation::Identity)?,
            config: config.clone(),
        })
    }

    /// The configuration that it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn log_mel(&self) -> &LogMel {
        &self.log_mel
    }

    /// Everything after the front end, log-mel in dB `[batch, n_frames, n_mels]`. `observe` is called after each
    /// block, with its number from 0 and a function that gives the values there, for comparison with a reference.
    ///
    /// # Errors
    /// As [`TaggingModel::forward_features`], and those of `observe`.
    pub fn forward_observed(
        &self,
        log_mel: &Tensor,
        detail: Detail,
        observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<TaggingOutput> {
        self.run(log_mel, detail, observe).context("Cnn6 or Cnn10")
    }

    fn run(
        &self,
        log_mel: &Tensor,
        detail: Detail,
        observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<TaggingOutput> {
        let (_, n_frames, _) = log_mel.dims3()?;
        if n_frames < MIN_FRAMES {
            return Err(Error::TooShort { needed: MIN_FRAMES, got: n_frames });
        }
        let x = self.bn0.forward(&log_mel.unsqueeze(1)?)?; // [batch, 1, n_frames, n_mels]
        let steps = self.blocks.forward_observed(&x, observe)?.mean(3)?; // [batch, 512, n_frames / 16]
        let pooled = self.pooled_dropout.forward(&panns::pool_over_time(&steps)?)?; // [batch, 512]
        let mut output = self.classify(&self.fc1.forward(&pooled)?)?;
        if detail == Detail::Frames {
            let steps = self.fc1.forward(&max_plus_mean_of_neighbours(&steps, Edge::Cut)?)?; // [batch, n_frames / 16, embedding_dim]
            let steps = candle_nn::ops::sigmoid(&self.fc_audioset.forward(&steps)?)?;
            output.framewise_output = Some(repeat_to_frames(&steps, MIN_FRAMES, n_frames)?); // [batch, n_frames, n_classes]
        }
        Ok(output)
    }
}

impl TaggingModel for Cnn6 {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        let run = |clips: &[&[f32]]| self.forward_features(&features(&self.log_mel, clips, &self.device)?.0, detail);
        forward_by_length(batch, &self.info, |n_samples| self.log_mel.n_frames(n_samples), run)
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        TaggingOutput::multi_label(self.fc_audioset.forward(embedding)?, embedding.clone())
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.log_mel)
    }

    /// Log-mel in dB, with at least 16 frames.
    fn forward_features(&self, log_mel: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.forward_observed(log_mel, detail, |_, _| Ok(()))
    }
}
