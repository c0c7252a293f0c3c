//! CNN14 of PANNs: a VGG-like tagger on log-mel spectrograms.
//!
//! Paper: Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", 2020
//! (arXiv 1912.10211). Reference: qiuqiangkong/audioset_tagging_cnn@d2f4b8c, `pytorch/models.py`, `Cnn14`.
//! Checkpoint keys: as published.
//!
//! waveform `[batch, n_samples]` → log-mel `[batch, 1, n_frames, n_mels]` → batch norm per mel bin → 6 conv blocks (64 to
//! 2048 channels, both axes halved by each but the last) → mean over mel, max + mean over time → `fc1` with ReLU (the
//! embedding) → `fc_audioset`, sigmoid.
//!
//! Shortest clip: 32 frames, which is 9,920 samples at 32 kHz. Anything shorter, down to one sample, is padded with zeros
//! at its end to that length.
//!
//! The classifier of a fine-tuned `Transfer_Cnn14` (`fc_transfer`, softmax) loads as well: [`Head::Transfer`].
//!
//! `Cnn14_DecisionLevelMax`, `…Avg` and `…Att` decide in every segment of 32 frames and then pool over time: see
//! [`Decision`]. Their `framewise_output` is a segment's value for each of its frames, and that of the last segment for the frames
//! that are left. CNN14 itself gives it on request ([`Detail::Frames`]): its head applied to each segment.

mod head;

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch::{features, forward_by_length};
use super::frames::{Edge, FrameGrid, around, stretch};
use super::{Detail, ModelInfo, OutputActivation, TaggingModel, panns};
use crate::audio::WaveformBatch;
use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::frontend::{FrontEnd, LogMel, LogMelConfig};
use crate::nn::{
    Activation, ChannelAffine, Conv2d, Conv2dConfig, Dropout, FeatureMap, Linear, Pool2d, Pooling, Workspace,
};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};
use head::Classifier;

/// Frames that five halvings leave one of: a segment.
const MIN_FRAMES: usize = 32;

/// Which layer is the last, and what its values mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// `fc_audioset`, independent probabilities (sigmoid).
    Audioset,
    /// `fc_transfer` of `Transfer_Cnn14`, probabilities that sum to 1 (softmax).
    Transfer,
}

/// Where the classes are decided. With `s` a step of the last map, averaged over mel, a segment is `max + mean` of the steps
/// `s − 1` to `s + 1`, with zeros beyond the ends of the clip in the mean; then come `fc1`, ReLU and the last layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Once, from the steps pooled over the clip: CNN14.
    #[default]
    Clip,
    /// In each segment; the clip's probability is the largest: `Cnn14_DecisionLevelMax`. Its tensors are CNN14's.
    Max,
    /// In each segment; the clip's probability is the mean: `Cnn14_DecisionLevelAvg`. Its tensors are CNN14's.
    Avg,
    /// In each segment; the clip's probability is a mean whose weights are a softmax over time of a second layer, cut to
    /// -10..=10, for each class: `Cnn14_DecisionLevelAtt`, with `att_block` for `fc_audioset`.
    Att,
}

/// The shape of a CNN14. Presets are named after the published checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The front end. At least 32 mel bins.
    pub log_mel: LogMelConfig,
    /// Channels of the six blocks, 1 to 65,536.
    pub channels: [usize; 6],
    /// The pooling after blocks 1 to 5.
    pub pooling: Pooling,
    /// Outputs of `fc1`, 1 to 65,536.
    pub embedding_dim: usize,
    /// Outputs of the last layer, 1 to 2^20.
    pub n_classes: usize,
    /// The last layer.
    pub head: Head,
    /// Where the classes are decided. Default when read from a file: for the clip.
    #[serde(default)]
    pub decision: Decision,
}

impl Config {
    /// `Cnn14_mAP=0.431.pth`: 32 kHz, 527 classes.
    pub const AUDIOSET_32K: Self = Self {
        log_mel: LogMelConfig::PANNS_32K,
        channels: [64, 128, 256, 512, 1024, 2048],
        pooling: Pooling::Avg,
        embedding_dim: 2048,
        n_classes: 527,
        head: Head::Audioset,
        decision: Decision::Clip,
    };
    /// `Cnn14_16k_mAP=0.438.pth`: 16 kHz, 527 classes.
    pub const AUDIOSET_16K: Self = Self { log_mel: LogMelConfig::PANNS_16K, ..Self::AUDIOSET_32K };
    /// `Cnn14_8k_mAP=0.416.pth`: 8 kHz, 527 classes.
    pub const AUDIOSET_8K: Self = Self { log_mel: LogMelConfig::PANNS_8K, ..Self::AUDIOSET_32K };
    /// 48 kHz with 2048-point frames every 320 samples; no weights are published.
    pub const AUDIOSET_48K: Self = Self { log_mel: LogMelConfig::PANNS_48K, ..Self::AUDIOSET_32K };

    /// `Cnn14_DecisionLevelMax_mAP=0.385.pth`: 32 kHz, 527 classes.
    pub const DECISION_MAX: Self = Self { decision: Decision::Max, ..Self::AUDIOSET_32K };
    /// `Cnn14_DecisionLevelAvg`: 32 kHz, 527 classes.
    pub const DECISION_AVG: Self = Self { decision: Decision::Avg, ..Self::AUDIOSET_32K };
    /// `Cnn14_DecisionLevelAtt_mAP=0.425.pth`: 32 kHz, 527 classes.
    pub const DECISION_ATT: Self = Self { decision: Decision::Att, ..Self::AUDIOSET_32K };

    /// Takes the head, its classes and the embedding's length from a checkpoint, where it has them.
    pub(super) fn fit_head(&mut self, weights: &Weights) {
        if weights.contains("fc_transfer.weight") {
            self.head = Head::Transfer;
        }
        let weight = if self.decision == Decision::Att { "att_block.cla.weight" } else { self.head.weight_name() };
        if let Some(&[n_classes, embedding_dim, ..]) = weights.shape(weight) {
            (self.n_classes, self.embedding_dim) = (n_classes, embedding_dim);
        }
    }

    fn validate(&self) -> Result<()> {
        let n_mels = self.log_mel.mel.n_mels;
        if n_mels < MIN_FRAMES {
            return Err(Error::config("n_mels", n_mels, "five halvings need at least 32"));
        }
        check::sizes(self.channels.map(|channels| ("channels", channels, MAX_WIDTH)))?;
        check::size("embedding_dim", self.embedding_dim, MAX_WIDTH)?;
        check::size("n_classes", self.n_classes, MAX_CLASSES)?;
        if self.decision != Decision::Clip && self.head != Head::Audioset {
            return Err(Error::config(
                "head",
                format!("{:?}", self.head),
                "segments are decided by the head `audioset`",
            ));
        }
        Ok(())
    }
}

impl Head {
    fn weight_name(self) -> &'static str {
        match self {
            Self::Audioset => "fc_audioset.weight",
            Self::Transfer => "fc_transfer.weight",
        }
    }
}

/// A loaded CNN14.
#[derive(Debug)]
pub struct Cnn14 {
    config: Config,
    info: ModelInfo,
    device: Device,
    log_mel: LogMel,
    bn0: ChannelAffine,
    blocks: [ConvBlock; 6],
    block_dropout: Dropout,
    pooled_dropout: Dropout,
    fc1: Linear,
    head: Classifier,
    workspace: Workspace,
}

impl Cnn14 {
    /// Builds the model from a checkpoint.
    ///
    /// Where the checkpoint carries its front end (`logmel_extractor.melW`, the DFT kernels), that is compared with the
    /// configuration's.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, [`Error::FrontEnd`] if the checkpoint's front end is another,
    /// [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        root.ignore("spectrogram_extractor.*");
        root.ignore("logmel_extractor.*");
        let model = Self::build(config, &root)?;
        panns::check_front_end(weights, &model.log_mel)?;
        root.finish(config.name())?;
        Ok(model)
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
        let bn0 = ChannelAffine::load(&root.at("bn0"), config.log_mel.mel.n_mels)?;
        let block = |i: usize| {
            let in_channels = if i == 0 { 1 } else { config.channels[i - 1] };
            // The last block is not pooled.
            let pool = (i < 5).then_some(Pool2d { pooling: config.pooling, size: (2, 2) });
            let shape = (in_channels, config.channels[i], config.log_mel.mel.n_mels >> i);
            ConvBlock::load(&root.at(format_args!("conv_block{}", i + 1)), shape, pool)
        };
        let blocks = [block(0)?, block(1)?, block(2)?, block(3)?, block(4)?, block(5)?];
        let (pooled, embedding_dim) = (config.channels[5], config.embedding_dim);
        let fc1 = Linear::load(&root.at("fc1"), pooled, embedding_dim, Activation::Relu)?;
        let head = Classifier::load(config, root)?;
        Ok(Self {
            config: config.clone(),
            info: config.info(&log_mel),
            device: root.device().clone(),
            log_mel,
            bn0,
            blocks,
            block_dropout: Dropout::new(root, 0.2)?,
            pooled_dropout: Dropout::new(root, 0.5)?,
            fc1,
            head,
            workspace: Workspace::default(),
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

    /// The batch norm per mel bin, the first layer: `[batch, 1, n_frames, n_mels]` in dB to the same. Augmentation of features
    /// comes after it.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not fit.
    pub fn normalize(&self, log_mel: &Tensor) -> Result<Tensor> {
        self.bn0.forward(log_mel)
    }

    /// What follows [`normalize`](Self::normalize).
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not fit.
    pub fn forward_normalized(&self, x: &Tensor) -> Result<TaggingOutput> {
        self.run_normalized(x, Detail::Clip)
    }

    fn run_normalized(&self, x: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        let n_frames = x.dim(2).context("the shape of the log-mel")?;
        let x = FeatureMap::new(x, &self.workspace)?; // [batch, 1, n_frames, n_mels]
        let x = self.blocks.iter().try_fold(x, |x, block| {
            let x = block.forward(x)?;
            if !self.block_dropout.is_on() {
                return Ok(x);
            }
            FeatureMap::new(&self.block_dropout.forward(&x.to_tensor()?)?, &self.workspace)
        })?; // [batch, 2048, n_frames / 32, n_mels / 32]
        let steps = mean_over_mel(&x.to_tensor()?)?; // [batch, 2048, n_frames / 32]
        let mut output = if self.config.decision == Decision::Clip {
            let pooled = self.pooled_dropout.forward(&pool_over_time(&steps)?)?; // [batch, 2048]
            let embedding = self.fc1.forward(&pooled)?; // [batch, embedding_dim]
            let mut output = self.classify(&embedding)?;
            if detail == Detail::Frames {
                let segments = self.fc1.forward(&around(&steps, Edge::Cut)?)?; // [batch, n_frames / 32, embedding_dim]
                output.framewise_output = Some(self.head.probabilities(&segments)?);
            }
            output
        } else {
            let pooled = self.pooled_dropout.forward(&around(&steps, Edge::Zeros)?)?; // [batch, n_frames / 32, 2048]
            let segments = self.pooled_dropout.forward(&self.fc1.forward(&pooled)?)?;
            self.head.decide(&segments)?
        };
        if let Some(segments) = output.framewise_output.take() {
            let frames = stretch(&segments, MIN_FRAMES, n_frames);
            output.framewise_output = Some(frames.context("from segments to frames")?); // [batch, n_frames, n_classes]
        }
        Ok(output)
    }

    /// The value after each stage, for comparison with a reference: `bn0`, `block1` to `block6`, `pooled`.
    ///
    /// # Errors
    /// As [`TaggingModel::forward_features`].
    pub fn stages(&self, log_mel: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let mut stages = vec![("bn0".to_string(), self.bn0.forward(log_mel)?)];
        let mut x = FeatureMap::new(&stages[0].1, &self.workspace)?;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x)?;
            stages.push((format!("block{}", i + 1), x.to_tensor()?));
        }
        let pooled = pool_over_time(&mean_over_mel(&stages[6].1)?)?;
        stages.push(("pooled".to_string(), pooled));
        Ok(stages)
    }
}

impl TaggingModel for Cnn14 {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        let run = |clips: &[Cow<[f32]>]| self.forward_features(&features(&self.log_mel, clips, &self.device)?, detail);
        forward_by_length(batch, &self.info, |n_samples| self.log_mel.n_frames(n_samples), run)
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        if self.config.decision != Decision::Clip {
            return Err(Error::config("embedding", &self.info.name, "this model decides in segments"));
        }
        self.head.classify(embedding)
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.log_mel)
    }

    /// Log-mel in dB, with at least 32 frames.
    fn forward_features(&self, log_mel: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        let (_, n_frames, _) = log_mel.dims3().context("the shape of the log-mel")?;
        if n_frames < MIN_FRAMES {
            return Err(Error::TooShort { needed: MIN_FRAMES, got: n_frames });
        }
        let log_mel = log_mel.unsqueeze(1).context("the shape of the log-mel")?;
        self.run_normalized(&self.normalize(&log_mel)?, detail)
    }
}

impl Config {
    fn info(&self, log_mel: &LogMel) -> ModelInfo {
        ModelInfo {
            name: self.name().into(),
            sample_rate: self.log_mel.sample_rate,
            n_classes: self.n_classes,
            embedding_dim: self.embedding_dim,
            min_samples: log_mel.samples_for(MIN_FRAMES),
            activation: match self.head {
                Head::Audioset => OutputActivation::Sigmoid,
                Head::Transfer => OutputActivation::Softmax,
            },
            frames: Some(FrameGrid { first: 0, step: self.log_mel.stft.hop_length }),
            labels: None,
        }
    }

    /// The name in [`MODELS`](super::MODELS) of the preset with this sample rate.
    fn name(&self) -> &'static str {
        match (self.decision, self.log_mel.sample_rate) {
            (Decision::Max, _) => "cnn14-decision-max",
            (Decision::Avg, _) => "cnn14-decision-avg",
            (Decision::Att, _) => "cnn14-decision-att",
            (Decision::Clip, 16_000) => "cnn14-16k",
            (Decision::Clip, 8_000) => "cnn14-8k",
            (Decision::Clip, 48_000) => "cnn14-48k",
            (Decision::Clip, _) => "cnn14",
        }
    }
}

/// Two 3x3 convolutions with batch norm and ReLU, then perhaps pooling.
#[derive(Debug)]
struct ConvBlock {
    conv1: Conv2d,
    conv2: Conv2d,
}

impl ConvBlock {
    fn load(
        weights: &Loader,
        (in_channels, out_channels, n_mels): (usize, usize, usize),
        pool: Option<Pool2d>,
    ) -> Result<Self> {
        let conv = |i: usize, in_channels: usize, pool: Option<Pool2d>| {
            let width = Some(n_mels);
            let config =
                Conv2dConfig { in_channels, out_channels, kernel: 3, stride: 1, padding: 1, bias: false, width, pool };
            let (conv, norm) = (weights.at(format_args!("conv{i}")), weights.at(format_args!("bn{i}")));
            Conv2d::load(&conv, &norm, config, Activation::Relu)
        };
        Ok(Self { conv1: conv(1, in_channels, None)?, conv2: conv(2, out_channels, pool)? })
    }

    fn forward(&self, x: FeatureMap) -> Result<FeatureMap> {
        self.conv2.forward_map(self.conv1.forward_map(x)?)
    }
}

/// `[batch, channels, n_frames, n_mels]` to `[batch, channels, n_frames]`.
fn mean_over_mel(x: &Tensor) -> Result<Tensor> {
    x.mean(3).context("pooling over mel")
}

/// Max + mean: `[batch, channels, n_frames]` to `[batch, channels]`.
fn pool_over_time(x: &Tensor) -> Result<Tensor> {
    x.max(2).and_then(|max| max + x.mean(2)?).context("pooling over time")
}
