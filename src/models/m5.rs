//! M3 to M34-res: very deep convolutional networks on the raw waveform, and the small M5 of the PyTorch tutorial.
//!
//! Paper: Dai et al., "Very Deep Convolutional Neural Networks for Raw Waveforms", 2016 (arXiv 1610.00087). The layers
//! of a residual block and the numbers of parameters follow philipperemy/very-deep-convnets-raw-waveforms.
//!
//! waveform `[batch, 1, n_samples]` → a long convolution with a large stride → stages of convolutions with kernel 3,
//! batch norm and ReLU; max pooling over 4 after the first convolution and after each stage → mean over time (the
//! embedding) → `fc1`, softmax. The convolutions have biases although a norm follows them.
//!
//! Checkpoint keys: `conv1`, `bn1`, `conv2` … in the order of the layers, then `fc1`. In a residual network, `conv1`
//! and `bn1` are followed by blocks `block1.conv1`, `.bn1`, `.conv2`, `.bn2`, `.bn3` …:
//! `relu(bn3(bn2(conv2(relu(bn1(conv1(x))))) + x))`. Where a block increases the number of channels, each channel of
//! `x` is repeated. A PyTorch `Sequential` named `model`, of convolution, norm, ReLU, pooling and optional dropout,
//! followed by `fc`, loads too.
//!
//! Shortest clip: the samples that give one frame, see [`ModelInfo::min_samples`]: 6,848 for [`Config::M5`]. Shorter
//! clips, down to one sample, are zero-padded at the end to that length.
//!
//! On request, frames are the time steps of the last feature map classified by `fc1`, 4,096 samples each for
//! [`Config::M5`]; the clip's logits are the mean of the frames' logits.

mod config;

use candle_core::{Device, Tensor};

use super::batch::{forward_by_length, waveforms};
use super::{Detail, ModelInfo, TaggingModel};
use crate::audio::WaveformBatch;
use crate::error::{Context, Error, Result};
use crate::nn::{Activation, ConvConfig, ConvStack, Linear, Pool1d};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};
pub use config::{Config, Stage};
use config::{KERNEL, Names};

/// A loaded network of this family.
#[derive(Debug)]
pub struct M5 {
    config: Config,
    info: ModelInfo,
    device: Device,
    layers: ConvStack,
    fc1: Linear,
}

impl M5 {
    /// Builds the model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::Weights`] listing every tensor that is missing,
    /// unexpected or of the wrong shape.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let model = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(model)
    }

    /// Builds the model from the tensors of a loader: those of a checkpoint, or new ones for training.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let names = Names::detect(|name| root.shape(name).is_some());
        let pool = Pool1d { size: config.pool, padding: 0 };
        let mut layers = ConvStack::on_sequences();
        let first = ConvConfig {
            stride: config.stride,
            padding: config.first_padding(),
            bias: true,
            ..ConvConfig::new(1, config.channels, config.kernel)
        };
        layers.conv(&root.at(names.conv(0)), Some(&root.at(names.norm(0))), first, Activation::Relu)?;
        layers.pool(pool);
        layers.end_stage();
        let (mut index, mut in_channels) = (0, config.channels);
        for (i, stage) in config.stages.iter().enumerate() {
            for layer in 1..=stage.layers {
                index += 1;
                let padding = usize::from(config.padded);
                let conv = ConvConfig { padding, bias: true, ..ConvConfig::new(in_channels, stage.channels, KERNEL) };
                if config.residual {
                    add_residual(&mut layers, &root.at(format_args!("block{index}")), conv)?;
                } else {
                    let (conv_at, norm_at) = (root.at(names.conv(index)), root.at(names.norm(index)));
                    layers.conv(&conv_at, Some(&norm_at), conv, Activation::Relu)?;
                }
                if layer == stage.layers && (config.pool_last || i + 1 < config.stages.len()) {
                    layers.pool(pool);
                }
                layers.end_stage();
                in_channels = stage.channels;
            }
        }
        let fc1 = Linear::load(&root.at(names.fc()).in_f32(), in_channels, config.n_classes, Activation::Identity)?;
        let (config, info, device) = (config.clone(), config.info(), root.device().clone());
        Ok(Self { config, info, device, layers, fc1 })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Runs the network on samples `[batch, 1, n_samples]`, f32, on the model's device.
    ///
    /// # Errors
    /// [`Error::TooShort`] for fewer samples than [`min_samples`](ModelInfo::min_samples), [`Error::Tensor`] if the
    /// shape or the device does not match.
    pub fn forward_samples(&self, x: &Tensor) -> Result<TaggingOutput> {
        self.run(x, Detail::Clip).context("running M5")
    }

    fn run(&self, x: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.check(x)?;
        let x = self.layers.forward(x)?; // [batch, channels, n_frames]
        let mut output = self.classify(&x.mean(2)?)?;
        if detail == Detail::Frames {
            let logits = self.fc1.forward(&x.transpose(1, 2)?.contiguous()?)?; // [batch, n_frames, n_classes]
            output.framewise_output = Some(self.config.head.probabilities(&logits)?);
        }
        Ok(output)
    }

    /// The output of each layer, including the pooling after it, for comparison with a reference: `layer1`, `layer2` …
    ///
    /// # Errors
    /// As [`M5::forward_samples`].
    pub fn stages(&self, x: &Tensor) -> Result<Vec<(String, Tensor)>> {
        self.check(x)?;
        let mut stages = Vec::new();
        self.layers.forward_observed(x, |i, x| {
            stages.push((format!("layer{}", i + 1), x()?));
            Ok(())
        })?;
        Ok(stages)
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        let (_, _, got) = x.dims3()?;
        let needed = self.info.min_samples;
        if got < needed { Err(Error::TooShort { needed, got }) } else { Ok(()) }
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
        let run = |clips: &[&[f32]]| self.run(&waveforms(clips, &self.device)?, detail).context("running M5");
        forward_by_length(batch, &self.info, |n_samples| n_samples, run)
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        self.config.head.output(self.fc1.forward(embedding)?, embedding.clone())
    }
}

/// Two convolutions with a residual connection, then a norm and ReLU.
fn add_residual(layers: &mut ConvStack, block: &Loader, first: ConvConfig) -> Result<()> {
    let channels = first.out_channels;
    layers.residual(channels / first.in_channels, |layers| {
        layers.conv(&block.at("conv1"), Some(&block.at("bn1")), first, Activation::Relu)?;
        let second = ConvConfig { in_channels: channels, ..first };
        layers.conv(&block.at("conv2"), Some(&block.at("bn2")), second, Activation::Identity)
    })?;
    layers.batch_norm(&block.at("bn3"), channels, Activation::Relu)
}
