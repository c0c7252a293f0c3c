//! CRNN: convolutions over the spectrogram, then a recurrent layer over time, which gives probabilities per frame.
//!
//! Paper: Dinkel et al., "Voice activity detection in the wild: A data-driven approach using teacher-student training",
//! 2021 (arXiv 2105.04065). Reference: RicherMans/Datadriven-GPVAD, `models.py`, `CRNN`. Checkpoint keys: as published.
//!
//! waveform `[batch, n_samples]` → ln-mel `[batch, 1, n_frames, 64]` → 5 blocks of batch norm, 3x3 convolution and
//! leaky ReLU (slope 0.1); power-average pooling (p = 4) after the first, third and fifth block leaves `n_frames / 4`
//! frames and one band → bidirectional GRU → linear layer, sigmoid → frame probabilities, interpolated linearly to
//! `n_frames` (`framewise_output`) → `Σ p² / Σ p` over time (`clipwise_output`, linear-softmax pooling).
//!
//! `logits` are `ln(p / (1 − p))` of the clip's probabilities; the embedding is the mean over the frames of the
//! recurrent layer. Shortest clip: 4 frames; shorter clips are zero-padded at the end.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::family::Family;
use super::{Detail, FrameGrid, ModelInfo, TaggingModel};
use crate::assumption::Assumption;
use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::frontend::{FrontEnd, LogMel, LogMelConfig};
use crate::labels::LabelSet;
use crate::nn::{Activation, Cell, ConvConfig, ConvStack, Linear, LpPool2d, Rnn, RnnConfig};
use crate::output::{OutputActivation, TaggingOutput};
use crate::weights::Weights;

/// Indices of the blocks in the checkpoint's `features`; the indices between belong to the poolings.
const BLOCK_INDICES: [usize; 5] = [0, 2, 3, 5, 6];
/// Index of the pooling after each block.
const POOLINGS: [Option<usize>; 5] = [Some(0), None, Some(1), None, Some(2)];
/// Lower bound of frame and clip probabilities.
const LOWEST: f32 = 1e-7;

/// The configuration of a CRNN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `crnn`.
    #[serde(default = "crnn")]
    pub name: Cow<'static, str>,
    /// The front end.
    pub log_mel: LogMelConfig,
    /// Channels of the five blocks, 1 to 65,536.
    pub channels: [usize; 5],
    /// Window of the three poolings, in frames and mel bands, 1 to 64.
    pub pooling: [(usize, usize); 3],
    /// Hidden size of one direction, 1 to 65,536.
    pub hidden: usize,
    /// Outputs of the last layer, 1 to 2^20.
    pub n_classes: usize,
}

/// The default name, also for configurations that match no preset.
fn crnn() -> Cow<'static, str> {
    Cow::Borrowed("crnn")
}

impl Config {
    /// `teacher1.pth` of Datadriven-GPVAD: 22.05 kHz, AudioSet's 527 classes in the order of their display names.
    pub const GPVAD_TEACHER1: Self = Self {
        name: Cow::Borrowed("crnn"),
        log_mel: LogMelConfig::CRNN_22K,
        channels: [32, 128, 128, 128, 128],
        pooling: [(2, 4), (2, 4), (1, 4)],
        hidden: 128,
        n_classes: 527,
    };

    /// Log-mel frames per frame of the recurrent layer.
    fn stride(&self) -> usize {
        self.pooling.iter().map(|pooling| pooling.0).product()
    }

    /// Mel bands that remain after the poolings.
    fn n_bands(&self) -> usize {
        self.pooling.iter().fold(self.log_mel.mel.n_mels, |bands, pooling| bands / pooling.1)
    }

    fn info(&self, log_mel: &LogMel) -> ModelInfo {
        let embedding_dim = 2 * self.hidden;
        ModelInfo {
            min_samples: log_mel.samples_for(self.stride()),
            frames: Some(FrameGrid { first: 0, step: self.log_mel.stft.hop_length }),
            labels: (self.n_classes == 527).then(LabelSet::audioset_by_name),
            ..ModelInfo::new(self.name.clone(), self.log_mel.sample_rate, self.n_classes, embedding_dim)
        }
    }

    fn validate(&self) -> Result<()> {
        let wrong = |&(frames, bands): &(usize, usize)| !(1..=64).contains(&frames) || !(1..=64).contains(&bands);
        if self.pooling.iter().any(wrong) {
            return Err(Error::config(
                "pooling",
                format!("{:?}", self.pooling),
                "expected 1 to 64 frames and 1 to 64 bands per pooling",
            ));
        }
        check::sizes(self.channels.map(|channels| ("channels", channels, MAX_WIDTH)))?;
        if self.n_bands() == 0 {
            return Err(Error::config(
                "n_mels",
                self.log_mel.mel.n_mels,
                "expected at least one band after the poolings",
            ));
        }
        check::size("hidden", self.hidden, MAX_WIDTH)?;
        check::size("n_classes", self.n_classes, MAX_CLASSES)
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] =
        &[(Self::GPVAD_TEACHER1, "CRNN of Datadriven-GPVAD, 22.05 kHz ln-mel, AudioSet classes per frame")];
    const SIGNATURES: &'static [&'static [&'static str]] =
        &[&["gru.weight_hh_l0_reverse", "features.6.block.1.weight", "outputlayer.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        if !Self::SIGNATURES[0].iter().all(|name| weights.contains(name)) {
            return Ok(None);
        }
        let mut config = Self::GPVAD_TEACHER1;
        config.fit(weights);
        let assumptions = if config.n_classes == 527 { vec![Assumption::AudioSetByName] } else { Vec::new() };
        Ok(Some((config, assumptions)))
    }

    /// The channels, the hidden size and the number of classes.
    fn fit(&mut self, weights: &Weights) {
        for (channels, index) in self.channels.iter_mut().zip(BLOCK_INDICES) {
            if let Some(&[outputs, ..]) = weights.shape(&format!("features.{index}.block.1.weight")) {
                *channels = outputs;
            }
        }
        if let Some(&[_, hidden]) = weights.shape("gru.weight_hh_l0") {
            self.hidden = hidden;
        }
        if let Some(&[n_classes, _]) = weights.shape("outputlayer.weight") {
            self.n_classes = n_classes;
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(Crnn::load(self, weights, device)?))
    }
}

/// A loaded CRNN.
#[derive(Debug)]
pub struct Crnn {
    config: Config,
    info: ModelInfo,
    device: Device,
    log_mel: LogMel,
    blocks: ConvStack,
    gru: Rnn,
    output: Linear,
}

impl Crnn {
    /// Builds the model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::Weights`] listing every tensor that is missing,
    /// unexpected or of the wrong shape.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        config.validate()?;
        let log_mel = LogMel::new(&config.log_mel)?;
        check::min_samples("hop_length", config.log_mel.stft.hop_length, log_mel.samples_for(config.stride()))?;
        let root = weights.loader(device);
        let mut blocks = ConvStack::on_maps(Some(config.log_mel.mel.n_mels));
        let mut in_channels = 1;
        for (i, &channels) in config.channels.iter().enumerate() {
            let block = root.at("features").at(BLOCK_INDICES[i]).at("block");
            blocks.batch_norm(&block.at("0"), in_channels, Activation::Identity)?;
            let conv = ConvConfig { padding: 1, ..ConvConfig::new(in_channels, channels, 3) };
            blocks.conv(&block.at("1"), None, conv, Activation::LeakyRelu { slope: 0.1 })?;
            if let Some(pooling) = POOLINGS[i] {
                blocks.lp_pool(LpPool2d { power: 4, size: config.pooling[pooling] });
            }
            blocks.end_stage();
            in_channels = channels;
        }
        let gru = RnnConfig {
            cell: Cell::Gru,
            inputs: config.channels[4].saturating_mul(config.n_bands()),
            hidden: config.hidden,
            n_layers: 1,
            bidirectional: true,
            bias: true,
        };
        let gru = Rnn::load(&root.at("gru"), gru)?;
        let outputs = gru.config().outputs();
        let output = Linear::load(&root.at("outputlayer").in_f32(), outputs, config.n_classes, Activation::Identity)?;
        root.finish(&config.name)?;
        let info = config.info(&log_mel);
        Ok(Self { config: config.clone(), info, device: device.clone(), log_mel, blocks, gru, output })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn log_mel(&self) -> &LogMel {
        &self.log_mel
    }

    /// The output of each stage, for comparison with a reference: `block0` to `block4` (including their pooling),
    /// `gru`, `frames` (before interpolation).
    ///
    /// # Errors
    /// As [`TaggingModel::forward_features`].
    pub fn stages(&self, log_mel: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let mut stages = Vec::new();
        let x = self.blocks.forward_observed(log_mel, |i, x| {
            stages.push((format!("block{i}"), x()?));
            Ok(())
        })?;
        let frames = self.recurrent(&x)?;
        let probabilities = self.frame_probabilities(&frames)?;
        stages.extend([("gru".to_string(), frames), ("frames".to_string(), probabilities)]);
        Ok(stages)
    }

    /// Runs the recurrent layer on maps `[batch, channels, n_frames / 4, bands]`: frames `[batch, n_frames / 4, 2 ·
    /// hidden]`.
    fn recurrent(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.gru.forward(&x.transpose(1, 2)?.flatten_from(2)?, None, None)?.0)
    }

    fn frame_probabilities(&self, frames: &Tensor) -> Result<Tensor> {
        Ok(candle_nn::ops::sigmoid(&self.output.forward(frames)?)?.clamp(LOWEST, 1.0)?)
    }

    fn run(&self, log_mel: &Tensor) -> Result<TaggingOutput> {
        let (_, n_frames, _) = log_mel.dims3()?;
        let needed = self.config.stride();
        if n_frames < needed {
            return Err(Error::TooShort { needed, got: n_frames });
        }
        let x = self.blocks.forward(&log_mel.unsqueeze(1)?)?;
        let frames = self.recurrent(&x)?; // [batch, n_frames / 4, 2 · hidden]
        let framewise = self.frame_probabilities(&frames)?; // [batch, n_frames / 4, n_classes]
        let framewise = interpolate_frames(&framewise, n_frames)?; // [batch, n_frames, n_classes]
        let clipwise_output = (framewise.sqr()?.sum(1)? / framewise.sum(1)?)?.clamp(LOWEST, 1.0)?; // [batch, n_classes]
        let logits = OutputActivation::Sigmoid.logits(&clipwise_output)?;
        let embedding = frames.mean(1)?;
        Ok(TaggingOutput { logits, clipwise_output, framewise_output: Some(framewise), embedding })
    }
}

impl TaggingModel for Crnn {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.log_mel)
    }

    /// Takes natural log-mel, with at least 4 frames. Frames are returned for any [`Detail`], because the clip's result
    /// is pooled from them.
    fn forward_features(&self, log_mel: &Tensor, _detail: Detail) -> Result<TaggingOutput> {
        self.run(log_mel).context("running CRNN")
    }
}

/// Interpolates `x` `[batch, length, classes]` linearly to `[batch, n_frames, classes]`, with samples at the frame
/// centres, as PyTorch's `interpolate(mode="linear", align_corners=False)`.
fn interpolate_frames(x: &Tensor, n_frames: usize) -> candle_core::Result<Tensor> {
    let length = x.dim(1)?;
    let scale = length as f32 / n_frames as f32;
    let place = |frame: usize| ((frame as f32 + 0.5) * scale - 0.5).max(0.0);
    let left = |frame: usize| (place(frame) as usize).min(length - 1);
    let index =
        |get: &dyn Fn(usize) -> usize| Tensor::from_iter((0..n_frames).map(|frame| get(frame) as u32), x.device());
    let (lefts, rights) = (index(&left)?, index(&|frame| (left(frame) + 1).min(length - 1))?);
    let share = Tensor::from_iter((0..n_frames).map(|frame| place(frame) - left(frame) as f32), x.device())?;
    let share = share.reshape((1, n_frames, 1))?;
    let from_left = x.index_select(&lefts, 1)?.broadcast_mul(&share.affine(-1.0, 1.0)?)?;
    from_left + x.index_select(&rights, 1)?.broadcast_mul(&share)?
}
