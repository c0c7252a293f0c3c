//! M3 to M34-res: very deep convolutional nets on the raw waveform, and the small M5 of PyTorch's tutorial.
//!
//! Paper: Dai et al., "Very Deep Convolutional Neural Networks for Raw Waveforms", 2016 (arXiv 1610.00087). The layers of a
//! residual block and the numbers of parameters follow philipperemy/very-deep-convnets-raw-waveforms.
//!
//! waveform `[batch, 1, n_samples]` → a long convolution with a large step → stages of convolutions with kernel 3, each with
//! batch norm and ReLU; a maximum over 4 after the first convolution and after each stage → mean over time (the embedding)
//! → `fc1`, softmax. The convolutions have biases, although a norm follows them.
//!
//! Checkpoint keys: `conv1`, `bn1`, `conv2` … in the order of the layers, then `fc1`. The blocks of a residual net, after
//! `conv1` and `bn1`, are `block1.conv1`, `.bn1`, `.conv2`, `.bn2`, `.bn3` …: `relu(bn3(bn2(conv2(relu(bn1(conv1(x))))) + x))`, where
//! each channel of `x` is repeated as often as there are more of them after the block. A net that is a PyTorch `Sequential` called
//! `model`, of convolution, norm, ReLU, pooling and perhaps dropout, and ends in `fc` loads too.
//!
//! Shortest clip: what leaves one frame, see [`ModelInfo::min_samples`]: 6,848 samples for [`Config::M5`]. Anything
//! shorter, down to one sample, is padded with zeros at its end to that length.
//!
//! Frames, on request, are the steps of the last map through `fc1`, 4,096 samples each for [`Config::M5`]; the clip's logits are
//! their mean before the softmax.

mod config;

use candle_core::{Device, Tensor};

use super::batch::{forward_by_length, waveforms};
use super::{Detail, ModelInfo, TaggingModel};
use crate::audio::WaveformBatch;
use crate::error::{Context, Error, Result};
use crate::nn::{Activation, ChannelAffine, Conv1d, Conv1dConfig, FeatureMap, Linear, Pool1d, Workspace};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};
pub use config::{Config, Stage};
use config::{KERNEL, Names};

/// A net of this family.
#[derive(Debug)]
pub struct M5 {
    config: Config,
    info: ModelInfo,
    device: Device,
    first: Conv1d,
    layers: Vec<Layer>,
    fc1: Linear,
    workspace: Workspace,
}

impl M5 {
    /// Builds the model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let model = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(model)
    }

    /// The model with the tensors that a loader gives: of a checkpoint, or to be trained.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, else as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let names = Names::of(|name| root.contains(name));
        let pool = Some(Pool1d { size: config.pool, padding: 0 });
        let conv = |index: usize, config: Conv1dConfig| {
            Conv1d::load(&root.at(names.conv(index)), &root.at(names.norm(index)), config, Activation::Relu)
        };
        let first = Conv1dConfig {
            in_channels: 1,
            out_channels: config.channels,
            kernel: config.kernel,
            stride: config.stride,
            padding: config.first_padding(),
            bias: true,
            pool,
        };
        let first = conv(0, first)?;
        let (mut layers, mut in_channels) = (Vec::new(), config.channels);
        for (i, stage) in config.stages.iter().enumerate() {
            for layer in 1..=stage.layers {
                let pooled = layer == stage.layers && (config.pool_last || i + 1 < config.stages.len());
                let shape = Conv1dConfig {
                    in_channels,
                    out_channels: stage.channels,
                    kernel: KERNEL,
                    stride: 1,
                    padding: usize::from(config.padded),
                    bias: true,
                    pool: pool.filter(|_| pooled),
                };
                let index = layers.len() + 1;
                layers.push(if config.residual {
                    Layer::Residual(Box::new(Residual::load(&root.at(format_args!("block{index}")), shape)?))
                } else {
                    Layer::Conv(Box::new(conv(index, shape)?))
                });
                in_channels = stage.channels;
            }
        }
        let fc1 = Linear::load(&root.at(names.fc()), in_channels, config.n_classes, Activation::Identity)?;
        let (config, info, device) = (config.clone(), config.info(), root.device().clone());
        Ok(Self { config, info, device, first, layers, fc1, workspace: Workspace::default() })
    }

    /// The configuration that it was built with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The net on samples `[batch, 1, n_samples]`, f32, on the model's device.
    ///
    /// # Errors
    /// [`Error::TooShort`] for fewer samples than [`min_samples`](ModelInfo::min_samples), [`Error::Tensor`] if the shape or
    /// the device does not fit.
    pub fn forward_samples(&self, x: &Tensor) -> Result<TaggingOutput> {
        self.run(x, Detail::Clip)
    }

    fn run(&self, x: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        let x = self.layers.iter().try_fold(self.first(x)?, |x, layer| layer.forward(x, &self.workspace))?;
        let x = x.to_sequence()?; // [batch, channels, n_frames]
        let mut output = self.classify(&x.mean(2).context("pooling over time")?)?;
        if detail == Detail::Frames {
            let context = "the frames";
            let frames = x.transpose(1, 2).and_then(|x| x.contiguous()).context(context)?;
            let logits = self.fc1.forward(&frames)?; // [batch, n_frames, n_classes]
            output.framewise_output = Some(self.config.head.probabilities(&logits).context(context)?);
        }
        Ok(output)
    }

    /// The value after each layer and the pooling that follows it, for comparison with a reference: `layer1`, `layer2` …
    ///
    /// # Errors
    /// As [`M5::forward_samples`].
    pub fn stages(&self, x: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let mut x = self.first(x)?;
        let mut stages = vec![("layer1".to_string(), x.to_sequence()?)];
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, &self.workspace)?;
            stages.push((format!("layer{}", i + 2), x.to_sequence()?));
        }
        Ok(stages)
    }

    fn first(&self, x: &Tensor) -> Result<FeatureMap> {
        let (_, _, got) = x.dims3().context("the shape of the samples")?;
        let needed = self.info.min_samples;
        if got < needed {
            return Err(Error::TooShort { needed, got });
        }
        self.first.forward_map(FeatureMap::new(x, &self.workspace)?)
    }
}

impl TaggingModel for M5 {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        let run = |clips: &[&[f32]]| self.run(&waveforms(clips, &self.device)?, detail);
        forward_by_length(batch, &self.info, |n_samples| n_samples, run)
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        self.config.head.output(self.fc1.forward(embedding)?, embedding.clone())
    }
}

#[derive(Debug)]
enum Layer {
    Conv(Box<Conv1d>),
    Residual(Box<Residual>),
}

impl Layer {
    fn forward(&self, x: FeatureMap, workspace: &Workspace) -> Result<FeatureMap> {
        match self {
            Self::Conv(conv) => conv.forward_map(x),
            Self::Residual(block) => block.forward(x, workspace),
        }
    }
}

/// Two convolutions around which the input goes, a norm, ReLU, perhaps a pooling.
#[derive(Debug)]
struct Residual {
    conv1: Conv1d,
    conv2: Conv1d,
    bn3: ChannelAffine,
    /// Channels out for each channel in.
    repeats: usize,
    pool: Option<Pool1d>,
}

impl Residual {
    fn load(weights: &Loader, first: Conv1dConfig) -> Result<Self> {
        let conv = |i: usize, config: Conv1dConfig, activation: Activation| {
            let (conv, norm) = (weights.at(format_args!("conv{i}")), weights.at(format_args!("bn{i}")));
            Conv1d::load(&conv, &norm, Conv1dConfig { pool: None, ..config }, activation)
        };
        let channels = first.out_channels;
        Ok(Self {
            conv1: conv(1, first, Activation::Relu)?,
            conv2: conv(2, Conv1dConfig { in_channels: channels, ..first }, Activation::Identity)?,
            bn3: ChannelAffine::load_over_maps(&weights.at("bn3"), channels)?,
            repeats: channels / first.in_channels,
            pool: first.pool,
        })
    }

    fn forward(&self, x: FeatureMap, workspace: &Workspace) -> Result<FeatureMap> {
        let shortcut = x.to_sequence()?;
        let y = self.conv2.forward_map(self.conv1.forward_map(x)?)?.to_sequence()?;
        let sum = || {
            let (batch, channels, length) = shortcut.dims3()?;
            let repeated = shortcut.unsqueeze(2)?.broadcast_as((batch, channels, self.repeats, length))?;
            y + repeated.reshape((batch, channels * self.repeats, length))?
        };
        let y = self.bn3.forward(&sum().context("a residual sum")?)?.relu().context("a residual block")?;
        match self.pool {
            Some(pool) => FeatureMap::new(&pool.forward(&y)?, workspace),
            None => FeatureMap::new(&y, workspace),
        }
    }
}
