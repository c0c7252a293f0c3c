//! ConvNeXt for audio: PANNs' front end with 224 mel bins, followed by a ConvNeXt.
//!
//! Papers: Liu et al., "A ConvNet for the 2020s", 2022 (arXiv 2201.03545); Pellegrini et al., "Adapting a ConvNeXt
//! model to audio classification on AudioSet", 2023 (arXiv 2306.00830). Reference: topel/audioset-convnext-inf@f8e5632,
//! `pytorch/convnext.py`. Checkpoint keys: as published.
//!
//! waveform `[batch, n_samples]` at 32 kHz → log-mel in dB `[batch, n_frames, 224]` → batch norm per mel bin (`bn0`) →
//! stem: a 4x4 convolution with stride 4 (after 4 frames of zero padding at both ends), layer norm → four stages of
//! blocks: depthwise 7x7 convolution, layer norm, two linear layers with GELU between them, scaling by `gamma`,
//! residual; a layer norm and a 2x2 convolution with stride 2 precede each stage but the first → `[batch, n_frames /
//! 32, 7, 768]` → mean over mel, max + mean over time → layer norm (the embedding) → `head_audioset`, sigmoid.
//!
//! Shortest clip: 24 frames, which is 7,360 samples. Shorter clips, down to one sample, are zero-padded at the end to
//! that length.
//!
//! On request, frames are the time steps of the last feature map, 32 log-mel frames each: `max + mean` of a step and
//! its two neighbours goes through the norm and `head_audioset`.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::family::Family;
use super::frames::{Edge, max_plus_mean_of_neighbours};
use super::{Detail, FrameGrid, ModelInfo, TaggingModel, panns};
use crate::assumption::Assumption;
use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::frontend::{FrontEnd, LogMel, LogMelConfig, MelConfig};
use crate::nn::{Activation, BatchNorm, ConvAxis, ConvConfig, ConvStack, LayerNorm, Linear};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

const EPS: f32 = 1e-6;
/// Kernel of the depthwise convolutions; kernel and stride of the convolutions between stages.
const KERNEL: usize = 7;
const DOWNSAMPLE: usize = 2;
/// Stem steps per step of the last feature map.
const STEM_STEPS: usize = DOWNSAMPLE.pow(3);
/// Tokens per pass through a block's linear layers.
const TOKENS_AT_ONCE: usize = 512;
/// Maximum number of blocks in a stage.
const MAX_DEPTH: usize = 256;

/// The first convolution, over time and mel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stem {
    /// Kernel in frames and mel bins, 1 to 64 each.
    pub kernel: [usize; 2],
    /// Stride in frames and mel bins, 1 to 64 each.
    pub stride: [usize; 2],
    /// Zero padding in frames at both ends, at most 64.
    pub padding: usize,
}

impl Stem {
    /// The stem of the published model. 10 s give a map of 252 x 56.
    pub const STEPS_252: Self = Self { kernel: [4, 4], stride: [4, 4], padding: 4 };
    /// The reference's other stems that the kernel shape identifies: maps of 504 x 28, 56 x 56 and 112 x 112.
    const OTHERS: [Self; 3] = [
        Self { kernel: [4, 8], stride: [2, 8], padding: 5 },
        Self { kernel: [18, 4], stride: [18, 4], padding: 9 },
        Self { kernel: [9, 2], stride: [9, 2], padding: 4 },
    ];

    /// The fewest frames that give one step of the last feature map.
    fn min_frames(&self) -> usize {
        ((STEM_STEPS - 1) * self.stride[0] + self.kernel[0]).saturating_sub(2 * self.padding).max(1)
    }
}

/// The configuration of a ConvNeXt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `convnext`.
    #[serde(default = "convnext")]
    pub name: Cow<'static, str>,
    /// The front end.
    pub log_mel: LogMelConfig,
    /// The first convolution.
    pub stem: Stem,
    /// Blocks of each stage, 1 to 256.
    pub depths: [usize; 4],
    /// Channels of each stage, 1 to 65,536.
    pub channels: [usize; 4],
    /// Outputs of `head_audioset`, 1 to 2^20.
    pub n_classes: usize,
}

/// The default name, also for configurations that match no preset.
fn convnext() -> Cow<'static, str> {
    Cow::Borrowed("convnext")
}

impl Config {
    /// `convnext_tiny_471mAP.pth`: 28,222,767 parameters, 527 classes.
    pub const TINY: Self = Self {
        name: Cow::Borrowed("convnext-tiny"),
        log_mel: LogMelConfig {
            mel: MelConfig { n_mels: 224, ..LogMelConfig::PANNS_32K.mel },
            ..LogMelConfig::PANNS_32K
        },
        stem: Stem::STEPS_252,
        depths: [3, 3, 9, 3],
        channels: [96, 192, 384, 768],
        n_classes: 527,
    };

    fn embedding_dim(&self) -> usize {
        self.channels[3]
    }

    fn validate(&self) -> Result<()> {
        let Stem { kernel, stride, padding } = self.stem;
        check::sizes(kernel.map(|n| ("stem.kernel", n, 64)))?;
        check::sizes(stride.map(|n| ("stem.stride", n, 64)))?;
        if padding > 64 {
            return Err(Error::config("stem.padding", padding, "expected 0 to 64"));
        }
        let n_mels = self.log_mel.mel.n_mels;
        let columns = n_mels.checked_sub(kernel[1]).map_or(0, |rest| rest / stride[1] + 1);
        if columns < STEM_STEPS {
            let reason = format!("expected at least {}", (STEM_STEPS - 1) * stride[1] + kernel[1]);
            return Err(Error::config("n_mels", n_mels, reason));
        }
        check::sizes(self.depths.map(|depth| ("depths", depth, MAX_DEPTH)))?;
        check::sizes(self.channels.map(|channels| ("channels", channels, MAX_WIDTH)))?;
        check::size("n_classes", self.n_classes, MAX_CLASSES)
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] =
        &[(Self::TINY, "ConvNeXt-Tiny, 32 kHz log-mel, AudioSet mAP 0.471")];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["stages.0.0.dwconv.weight", "downsample_layers.0.0.weight", "head_audioset.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let Some(&[_, 1, rows, columns]) = weights.shape("downsample_layers.0.0.weight") else { return Ok(None) };
        if !weights.contains("stages.0.0.dwconv.weight") || !weights.contains("head_audioset.weight") {
            return Ok(None);
        }
        let stem = Stem::OTHERS.into_iter().find(|stem| stem.kernel == [rows, columns]).unwrap_or(Stem::STEPS_252);
        let depth = |stage: usize| {
            let has = |block: &usize| weights.contains(&format!("stages.{stage}.{block}.dwconv.weight"));
            (0..MAX_DEPTH).take_while(has).count()
        };
        let channels = |stage: usize| {
            let shape = weights.shape(&format!("stages.{stage}.0.dwconv.weight"));
            shape.and_then(|shape| shape.first().copied()).unwrap_or(Self::TINY.channels[stage])
        };
        let (depths, channels) = (std::array::from_fn(depth), std::array::from_fn(channels));
        let mut config = Self { stem, depths, channels, ..Self::TINY };
        if config != Self::TINY {
            config.name = convnext();
        }
        config.fit(weights);
        let mut assumptions = Vec::new();
        config.log_mel = panns::detect_front_end(&config.name, weights, &mut assumptions)?;
        Ok(Some((config, assumptions)))
    }

    /// The number of classes.
    fn fit(&mut self, weights: &Weights) {
        if let Some(&[n_classes, _]) = weights.shape("head_audioset.weight") {
            self.n_classes = n_classes;
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(ConvNext::load(self, weights, device)?))
    }
}

/// A loaded ConvNeXt.
#[derive(Debug)]
pub struct ConvNext {
    config: Config,
    info: ModelInfo,
    device: Device,
    log_mel: LogMel,
    bn0: BatchNorm,
    stages: Vec<Stage>,
    norm: LayerNorm,
    head: Linear,
}

/// A downsampling layer and the blocks after it.
#[derive(Debug)]
struct Stage {
    /// Precedes the convolution; in the first stage, follows it.
    norm: LayerNorm,
    downsample: ConvStack,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    depthwise: ConvStack,
    norm: LayerNorm,
    expand: Linear,
    /// The second linear layer, scaled by `gamma`.
    project: Linear,
}

impl ConvNext {
    /// Builds the model from a checkpoint. If the checkpoint includes its front end, it is compared with the
    /// configuration's.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::FrontEnd`] if the checkpoint's front end differs,
    /// [`Error::Weights`] listing every tensor that is missing, unexpected or of the wrong shape.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        config.validate()?;
        let build = |root: &Loader| Self::build(config, root);
        panns::load(&config.name, weights, device, build, |model: &Self| Some(&model.log_mel))
    }

    fn build(config: &Config, root: &Loader) -> Result<Self> {
        let log_mel = LogMel::new(&config.log_mel)?;
        let min_samples = log_mel.samples_for(config.stem.min_frames());
        check::min_samples("hop_length", config.log_mel.stft.hop_length, min_samples)?;
        let info = ModelInfo {
            min_samples,
            frames: Some(FrameGrid { first: 0, step: config.log_mel.stft.hop_length }),
            ..ModelInfo::new(config.name.clone(), config.log_mel.sample_rate, config.n_classes, config.embedding_dim())
        };
        Ok(Self {
            config: config.clone(),
            info,
            device: root.device().clone(),
            log_mel,
            bn0: BatchNorm::load(&root.at("bn0"), config.log_mel.mel.n_mels)?,
            stages: (0..4).map(|stage| Stage::load(config, root, stage)).collect::<Result<_>>()?,
            norm: LayerNorm::load(&root.at("norm"), config.embedding_dim(), EPS)?,
            head: Linear::load(
                &root.at("head_audioset"),
                config.embedding_dim(),
                config.n_classes,
                Activation::Identity,
            )?,
        })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn log_mel(&self) -> &LogMel {
        &self.log_mel
    }

    /// Runs everything after the front end on log-mel in dB `[batch, n_frames, n_mels]`. Calls `observe` after each
    /// stage with its index from 0 and its output `[batch, height, width, channels]`, for comparison with a reference.
    ///
    /// # Errors
    /// As [`TaggingModel::forward_features`], and any error of `observe`.
    pub fn forward_observed(
        &self,
        log_mel: &Tensor,
        detail: Detail,
        observe: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<TaggingOutput> {
        self.run(log_mel, detail, observe).context("running ConvNeXt")
    }

    fn run(
        &self,
        log_mel: &Tensor,
        detail: Detail,
        mut observe: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<TaggingOutput> {
        let (_, n_frames, _) = log_mel.dims3()?;
        let needed = self.config.stem.min_frames();
        if n_frames < needed {
            return Err(Error::TooShort { needed, got: n_frames });
        }
        let mut x = self.bn0.forward(log_mel)?.unsqueeze(3)?; // [batch, n_frames, n_mels, 1]
        for (i, stage) in self.stages.iter().enumerate() {
            x = stage.forward(&x, i == 0)?;
            observe(i, &x)?;
        }
        let steps = x.mean(2)?.transpose(1, 2)?.contiguous()?; // [batch, channels, n_steps]
        let embedding = self.norm.forward(&panns::pool_over_time(&steps)?)?; // [batch, channels]
        let mut output = self.classify(&embedding)?;
        if detail == Detail::Frames {
            let steps = self.norm.forward(&max_plus_mean_of_neighbours(&steps, Edge::Cut)?)?;
            let steps = candle_nn::ops::sigmoid(&self.head.forward(&steps)?)?; // [batch, n_steps, n_classes]
            let (Stem { stride, padding, .. }, last) = (self.config.stem, steps.dim(1)?.saturating_sub(1));
            let step = |frame: usize| ((frame + padding) / (stride[0] * STEM_STEPS)).min(last) as u32;
            let steps_of_frames = Tensor::from_iter((0..n_frames).map(step), steps.device())?;
            output.framewise_output = Some(steps.index_select(&steps_of_frames, 1)?); // [batch, n_frames, n_classes]
        }
        Ok(output)
    }
}

impl Stage {
    fn load(config: &Config, root: &Loader, stage: usize) -> Result<Self> {
        let channels = config.channels[stage];
        let layers = root.at("downsample_layers").at(stage);
        let mut downsample = ConvStack::on_maps(None);
        let norm = match stage.checked_sub(1) {
            None => {
                let Stem { kernel, stride, padding } = config.stem;
                let along_width = ConvAxis { kernel: kernel[1], stride: stride[1], padding: 0, padding_after: None };
                let conv = ConvConfig {
                    stride: stride[0],
                    padding,
                    along_width: Some(along_width),
                    bias: true,
                    ..ConvConfig::new(1, channels, kernel[0])
                };
                downsample.conv(&layers.at("0"), None, conv, Activation::Identity)?;
                LayerNorm::load(&layers.at("1"), channels, EPS)?
            }
            Some(before) => {
                let before = config.channels[before];
                let conv =
                    ConvConfig { stride: DOWNSAMPLE, bias: true, ..ConvConfig::new(before, channels, DOWNSAMPLE) };
                downsample.conv(&layers.at("1"), None, conv, Activation::Identity)?;
                LayerNorm::load(&layers.at("0"), before, EPS)?
            }
        };
        let block = |i: usize| Block::load(&root.at("stages").at(stage).at(i), channels);
        Ok(Self { norm, downsample, blocks: (0..config.depths[stage]).map(block).collect::<Result<_>>()? })
    }

    /// Downsamples `x` `[batch, height, width, channels]` and runs the blocks.
    fn forward(&self, x: &Tensor, is_first: bool) -> Result<Tensor> {
        let x = match is_first {
            true => self.norm.forward(&self.downsample.forward_channels_last(x)?)?,
            false => self.downsample.forward_channels_last(&self.norm.forward(x)?)?,
        };
        self.blocks.iter().try_fold(x, |x, block| block.forward(&x))
    }
}

impl Block {
    fn load(weights: &Loader, channels: usize) -> Result<Self> {
        let mut depthwise = ConvStack::on_maps(None);
        let conv = ConvConfig { bias: true, ..ConvConfig::depthwise(channels, KERNEL) };
        depthwise.conv(&weights.at("dwconv"), None, conv, Activation::Identity)?;
        let project = weights.at("pwconv2");
        let mut matrix = project.get_vec("weight", &[channels, 4 * channels])?;
        let mut bias = project.get_vec("bias", &[channels])?;
        let gamma = weights.get_vec("gamma", &[channels])?;
        for ((row, bias), gamma) in matrix.chunks_mut(4 * channels).zip(&mut bias).zip(gamma) {
            row.iter_mut().for_each(|x| *x *= gamma);
            *bias *= gamma;
        }
        Ok(Self {
            depthwise,
            norm: LayerNorm::load(&weights.at("norm"), channels, EPS)?,
            expand: Linear::load(&weights.at("pwconv1"), channels, 4 * channels, Activation::Gelu)?,
            project: Linear::from_matrix(matrix, bias, Activation::Identity, weights)?,
        })
    }

    /// Maps `x` `[batch, height, width, channels]` to the same shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let tokens = (1, batch * height * width, channels);
        let (y, x) = (self.depthwise.forward_channels_last(x)?.reshape(tokens)?, x.reshape(tokens)?);
        // In parts, so that the hidden layer, four times as wide, stays in the cache.
        let parts = (0..tokens.1).step_by(TOKENS_AT_ONCE).map(|first| {
            let n = TOKENS_AT_ONCE.min(tokens.1 - first);
            let (x, y) = (x.narrow(1, first, n)?, y.narrow(1, first, n)?);
            self.project.forward_add(&self.expand.forward(&self.norm.forward(&y)?)?, &x)
        });
        let y = Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)?;
        Ok(y.reshape((batch, height, width, channels))?)
    }
}

impl TaggingModel for ConvNext {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        TaggingOutput::multi_label(self.head.forward(embedding)?, embedding.clone())
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.log_mel)
    }

    /// Takes log-mel in dB.
    fn forward_features(&self, log_mel: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.forward_observed(log_mel, detail, |_, _| Ok(()))
    }
}
