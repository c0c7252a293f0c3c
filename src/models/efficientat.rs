//! EfficientAT's MobileNets and the frame-wise MobileNets: MobileNetV3 on log-mel, distilled from transformers.
//!
//! Papers: Schmid et al., "Efficient Large-Scale Audio Tagging Via Transformer-to-CNN Knowledge Distillation", 2022
//! (arXiv 2211.04772); frame-wise: Schmid et al., "Effective Pre-Training of Audio Transformers for Sound Event
//! Detection", 2024 (arXiv 2409.09546), Morocutti et al., "Exploring Performance-Complexity Trade-Offs in Sound Event
//! Detection", 2025 (arXiv 2503.11373). References: fschmid56/EfficientAT `models/mn`, fschmid56/PretrainedSED
//! `models/frame_mn`, theMoro/EfficientSED. Checkpoint keys: as published.
//!
//! waveform `[batch, n_samples]` → log-mel `[batch, 1, n_frames, n_mels]` → 3x3 convolution with stride 2 → 15 inverted
//! residuals (1x1 convolution, depthwise convolution, squeeze-and-excitation, 1x1 convolution) with batch norm and ReLU
//! or hard swish → 1x1 convolution → the mean over the map (the embedding) → one of four heads → sigmoid.
//!
//! DyMN (Schmid et al., "Dynamic Convolutional Neural Networks as Efficient Pre-trained Audio Models", 2023, arXiv
//! 2310.15648; `models/dymn`) replaces some or all of these blocks by a [`DynamicBlock`], whose filters, activations
//! and row and column weights depend on the clip. Filters are mixed by a softmax of temperature 1, as in the
//! checkpoints trained on AudioSet.
//!
//! The reference's feature maps have mel before time. Here time comes first, and filters are transposed when they are
//! read.
//!
//! Shortest clip: that of the front end, 514 samples at 32 kHz and 258 at 16 kHz. Shorter clips, down to one sample,
//! are zero-padded at the end to that length.
//!
//! On request, frames are log-mel frames: each takes the head's result at the nearest step of the last feature map (32
//! log-mel frames per step). The frame-wise networks classify steps of 40 ms, and the clip's logit is the maximum per
//! class. Their reference interpolates the steps of clips that are not 10 s long to 250 steps; here the steps are kept.

use candle_core::{Device, Tensor};

use super::{Detail, ModelInfo, TaggingModel};
use crate::error::{Context, Error, Result};
use crate::frontend::{FrontEnd, LogMel};
use crate::nn::{Activation, ConvAxis, ConvConfig, ConvStack, DynamicBlock};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

mod config;
mod head;

pub use config::{Block, Config, Head};
use head::Classifier;

/// ε of the batch norms in the convolutional trunk.
const NORM_EPS: f64 = 1e-3;

/// A loaded MobileNet.
#[derive(Debug)]
pub struct MobileNet {
    config: Config,
    info: ModelInfo,
    device: Device,
    log_mel: LogMel,
    trunk: ConvStack,
    classifier: Classifier,
}

impl MobileNet {
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
    /// In training, a dropout of 0.2 precedes the classes of [`Head::Mlp`], as in the reference.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let log_mel = LogMel::new(&config.log_mel)?;
        let wrapped = match config.head {
            Head::Frames => root.at(root.first_of(&["model.frame_mn", "model.fmn", "model"])),
            _ => root.clone(),
        };
        Ok(Self {
            info: config.info(&log_mel),
            device: root.device().clone(),
            log_mel,
            trunk: trunk(config, &wrapped)?,
            classifier: Classifier::load(config, root)?,
            config: config.clone(),
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

    /// Runs everything after the front end on log-mel `[batch, n_frames, n_mels]`. Calls `observe` after the first
    /// convolution, each block and the last convolution, with an index from 0 and a function that returns the output
    /// there, `[batch, channels, time, mel]`, for comparison with a reference.
    ///
    /// # Errors
    /// As [`TaggingModel::forward_features`], and any error of `observe`.
    pub fn forward_observed(
        &self,
        log_mel: &Tensor,
        detail: Detail,
        observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<TaggingOutput> {
        self.run(log_mel, detail, observe).context("running a MobileNet")
    }

    fn run(
        &self,
        log_mel: &Tensor,
        detail: Detail,
        observe: impl FnMut(usize, &dyn Fn() -> Result<Tensor>) -> Result<()>,
    ) -> Result<TaggingOutput> {
        let (_, n_frames, _) = log_mel.dims3()?;
        if n_frames == 0 {
            return Err(Error::TooShort { needed: 1, got: 0 });
        }
        let map = self.classifier.needs_map() || detail == Detail::Frames;
        let (embedding, map) = self.trunk.forward_means(&log_mel.unsqueeze(1)?, map, observe)?;
        let mut output = self.classifier.forward(embedding, map.as_ref())?;
        if detail == Detail::Frames
            && let Some(map) = &map
            && output.framewise_output.is_none()
        {
            let steps = self.classifier.steps(map)?; // [batch, n_steps, n_classes]
            output.framewise_output = Some(nearest_steps(&steps, self.config.frames_per_step(), n_frames)?);
        }
        Ok(output)
    }
}

/// The convolutions. The checkpoint's filters have mel before time.
fn trunk(config: &Config, root: &Loader) -> Result<ConvStack> {
    let features = root.at("features");
    let is_dynamic = config.is_dynamic();
    let (stem, last) = match is_dynamic {
        true => (root.at("in_c"), root.at("out_c")),
        false => (features.at(0), features.at(config.blocks.len() + 1)),
    };
    let mut stack = ConvStack::on_maps(Some(config.log_mel.mel.n_mels)).with_norm_eps(NORM_EPS).with_swapped_filters();
    let add = |stack: &mut ConvStack, at: &Loader, shape: ConvConfig, activation: Activation| {
        stack.conv(&at.at(0), Some(&at.at(1)), shape, activation)
    };
    let first = ConvConfig { stride: 2, padding: 1, ..ConvConfig::new(1, config.stem, 3) };
    add(&mut stack, &stem, first, Activation::Hardswish)?;
    stack.end_stage();
    let mut inputs = config.stem;
    for (i, block) in config.blocks.iter().enumerate() {
        let place = if is_dynamic { root.at("layers").at(i) } else { features.at(i + 1) };
        let layers = place.at("block");
        let activation = if block.hard_swish { Activation::Hardswish } else { Activation::Relu };
        let Block { kernel, expanded, channels, squeezed, stride, context, .. } = *block;
        let add_block = |stack: &mut ConvStack| -> Result<()> {
            let mut index = 0..;
            let mut layer = || layers.at(index.next().unwrap_or(0));
            if expanded != inputs {
                add(stack, &layer(), ConvConfig::new(inputs, expanded, 1), activation)?;
            }
            let along_mel = ConvAxis { kernel, stride: stride[1], padding: kernel / 2, padding_after: None };
            let depthwise = ConvConfig {
                stride: stride[0],
                along_width: Some(along_mel),
                ..ConvConfig::depthwise(expanded, kernel)
            };
            add(stack, &layer(), depthwise, activation)?;
            if squeezed > 0 {
                let squeeze = layer().at("conc_se_layers").at(0);
                let [fc1, fc2] = ["fc1", "fc2"].map(|name| squeeze.at(name));
                stack.squeeze_excitation([&fc1, &fc2], expanded, squeezed, Activation::Sigmoid)?;
            }
            add(stack, &layer(), ConvConfig::new(expanded, channels, 1), Activation::Identity)
        };
        if context > 0 {
            let (in_channels, out_channels, stride) = (inputs, channels, stride[0]);
            let block = DynamicBlock { in_channels, expanded, out_channels, kernel, stride, context, activation };
            stack.dynamic_block(&place, block)?;
        } else if stride == [1, 1] && inputs == channels {
            stack.residual(1, add_block)?;
        } else {
            add_block(&mut stack)?;
        }
        stack.end_stage();
        inputs = channels;
    }
    add(&mut stack, &last, ConvConfig::new(inputs, config.last, 1), Activation::Hardswish)?;
    stack.end_stage();
    Ok(stack)
}

/// The nearest of `steps` `[batch, n_steps, n_classes]` for each of `n_frames` frames. The steps lie `length` frames
/// apart, the first at frame 0.
fn nearest_steps(steps: &Tensor, length: usize, n_frames: usize) -> candle_core::Result<Tensor> {
    let last = steps.dim(1)?.saturating_sub(1);
    let index = (0..n_frames).map(|frame| ((frame + length / 2) / length).min(last) as u32);
    steps.index_select(&Tensor::from_iter(index, steps.device())?, 1)
}

impl TaggingModel for MobileNet {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        self.classifier.classify(embedding, &self.config.name)
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.log_mel)
    }

    /// Takes log-mel as the front end computes it, with at least one frame.
    fn forward_features(&self, log_mel: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.forward_observed(log_mel, detail, |_, _| Ok(()))
    }
}
