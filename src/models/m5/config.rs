//! Configurations of the networks and the layer names in checkpoints.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::M5;
use crate::assumption::Assumption;
use crate::check::{self, MAX_CLASSES, MAX_LAYERS, MAX_WIDTH};
use crate::error::{Error, Result};
use crate::models::family::Family;
use crate::models::{FrameGrid, ModelInfo, OutputActivation, TaggingModel};
use crate::weights::Weights;

/// Kernel of all convolutions except the first.
pub(super) const KERNEL: usize = 3;

/// The layers between two poolings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Output channels of the convolutions, 1 to 65,536.
    pub channels: usize,
    /// Convolutions, or residual blocks of two; 1 to 1,024 over all stages.
    pub layers: usize,
}

/// The configuration of a network of this family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `m5`.
    #[serde(default = "m5")]
    pub name: Cow<'static, str>,
    /// Rate of the audio in Hz, 1 to 100 MHz.
    pub sample_rate: u32,
    /// Channels of the first convolution, 1 to 65,536.
    pub channels: usize,
    /// Kernel of the first convolution, 1 to 65,536.
    pub kernel: usize,
    /// Stride of the first convolution, 1 to 65,536.
    pub stride: usize,
    /// Whether convolutions are zero-padded, so that only strides and poolings shorten a clip: by `(kernel − stride) /
    /// 2` on each side in the first convolution, by 1 in the others.
    pub padded: bool,
    /// The layers after the first convolution.
    pub stages: Cow<'static, [Stage]>,
    /// Whether the stages consist of residual blocks.
    pub residual: bool,
    /// Window and stride of the max pooling after the first convolution and after each stage; an incomplete last window
    /// is dropped. One frame must need at most 2^24 samples.
    pub pool: usize,
    /// Whether the last stage is pooled too.
    pub pool_last: bool,
    /// Outputs of `fc1`, 1 to 2^20.
    pub n_classes: usize,
    /// The function that turns the outputs into probabilities.
    pub head: OutputActivation,
}

/// The default name, also for configurations that match no preset.
fn m5() -> Cow<'static, str> {
    Cow::Borrowed("m5")
}

/// A stage of `layers` layers.
const fn stage(channels: usize, layers: usize) -> Stage {
    Stage { channels, layers }
}

impl Config {
    /// The M5 of the PyTorch tutorial, 35 words at 8 kHz: 26,915 parameters.
    pub const M5: Self = Self {
        name: Cow::Borrowed("m5"),
        sample_rate: 8_000,
        channels: 32,
        kernel: 80,
        stride: 16,
        padded: false,
        stages: Cow::Borrowed(&[stage(32, 1), stage(64, 1), stage(64, 1)]),
        residual: false,
        pool: 4,
        pool_last: true,
        n_classes: 35,
        head: OutputActivation::Softmax,
    };
    /// The paper's M3: 221,194 parameters with 10 classes.
    pub const M3_PAPER: Self =
        Self { name: Cow::Borrowed("m3"), channels: 256, stages: Cow::Borrowed(&[stage(256, 1)]), ..Self::M5_PAPER };
    /// The paper's M5: 559,114 parameters with 10 classes.
    pub const M5_PAPER: Self = Self {
        name: Cow::Borrowed("m5-paper"),
        channels: 128,
        stride: 4,
        padded: true,
        stages: Cow::Borrowed(&[stage(128, 1), stage(256, 1), stage(512, 1)]),
        n_classes: 10,
        ..Self::M5
    };
    /// The paper's M11: 1,786,442 parameters with 10 classes.
    pub const M11_PAPER: Self = Self {
        name: Cow::Borrowed("m11"),
        channels: 64,
        stages: Cow::Borrowed(&[stage(64, 2), stage(128, 2), stage(256, 3), stage(512, 2)]),
        pool_last: false,
        ..Self::M5_PAPER
    };
    /// The paper's M18: 3,683,786 parameters with 10 classes.
    pub const M18_PAPER: Self = Self {
        name: Cow::Borrowed("m18"),
        stages: Cow::Borrowed(&[stage(64, 4), stage(128, 4), stage(256, 4), stage(512, 4)]),
        ..Self::M11_PAPER
    };
    /// The paper's M34-res: 3,984,154 parameters with 10 classes.
    pub const M34_RES_PAPER: Self = Self {
        name: Cow::Borrowed("m34-res"),
        channels: 48,
        stages: Cow::Borrowed(&[stage(48, 3), stage(96, 4), stage(192, 6), stage(384, 3)]),
        residual: true,
        ..Self::M11_PAPER
    };

    /// Number of layers after the first convolution.
    fn n_layers(&self) -> usize {
        self.stages.iter().map(|stage| stage.layers).sum()
    }

    /// Zero padding on each side of the first convolution.
    pub(super) fn first_padding(&self) -> usize {
        if self.padded { self.kernel.saturating_sub(self.stride) / 2 } else { 0 }
    }

    /// Samples that give one frame; `None` on overflow.
    fn min_samples(&self) -> Option<usize> {
        let convs = if self.residual { 2 } else { 1 };
        let mut frames = 1usize;
        for (i, stage) in self.stages.iter().enumerate().rev() {
            if self.pool_last || i + 1 < self.stages.len() {
                frames = frames.checked_mul(self.pool)?;
            }
            if !self.padded {
                frames = frames.checked_add((KERNEL - 1).checked_mul(stage.layers)?.checked_mul(convs)?)?;
            }
        }
        frames = frames.checked_mul(self.pool)?;
        let samples = (frames - 1).checked_mul(self.stride)?.checked_add(self.kernel)?;
        Some(samples.saturating_sub(2 * self.first_padding()).max(1))
    }

    /// The position of the time steps of the last feature map. The receptive field of a frame is
    /// [`min_samples`](Self::min_samples), and the frame lies in its middle.
    fn frames(&self) -> FrameGrid {
        let n_pools = 1 + self.stages.len() - usize::from(!self.pool_last && !self.stages.is_empty());
        let step = (0..n_pools).fold(self.stride, |step, _| step.saturating_mul(self.pool));
        let seen = self.min_samples().unwrap_or(step);
        FrameGrid { first: if self.padded { 0 } else { seen.saturating_sub(step) / 2 }, step }
    }

    pub(super) fn info(&self) -> ModelInfo {
        let embedding_dim = self.stages.last().map_or(self.channels, |stage| stage.channels);
        ModelInfo {
            min_samples: self.min_samples().unwrap_or(usize::MAX), // `validate` has ruled out overflow
            activation: self.head,
            frames: Some(self.frames()),
            ..ModelInfo::new(self.name.clone(), self.sample_rate, self.n_classes, embedding_dim)
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        check::sample_rate(self.sample_rate)?;
        check::sizes([
            ("channels", self.channels, MAX_WIDTH),
            ("kernel", self.kernel, MAX_WIDTH),
            ("stride", self.stride, MAX_WIDTH),
            ("pool", self.pool, MAX_WIDTH),
            ("n_classes", self.n_classes, MAX_CLASSES),
        ])?;
        let of_stage = |stage: &Stage| [("stages", stage.channels, MAX_WIDTH), ("stages", stage.layers, MAX_LAYERS)];
        check::sizes(self.stages.iter().flat_map(of_stage))?;
        let n_layers = self.stages.iter().fold(0usize, |sum, stage| sum.saturating_add(stage.layers));
        if n_layers > MAX_LAYERS {
            return Err(Error::config(
                "stages",
                n_layers,
                format!("expected at most {MAX_LAYERS} layers over all stages"),
            ));
        }
        if self.residual && !self.padded {
            return Err(Error::config("residual", true, "expected `padded = true` for a residual network"));
        }
        let mut channels = self.channels;
        for stage in self.stages.iter().filter(|_| self.residual) {
            if !stage.channels.is_multiple_of(channels) {
                let reason = format!("expected a multiple of the {channels} channels before it in a residual network");
                return Err(Error::config("stages", stage.channels, reason));
            }
            channels = stage.channels;
        }
        check::min_samples("stages", self.stages.len(), self.min_samples().unwrap_or(usize::MAX))
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::M5, "M5 of the PyTorch tutorial, 8 kHz waveform, 35 words, no published weights"),
        (Self::M3_PAPER, "M3 of the paper, 8 kHz waveform, no published weights"),
        (Self::M5_PAPER, "M5 of the paper, 8 kHz waveform, no published weights"),
        (Self::M11_PAPER, "M11 of the paper, 8 kHz waveform, no published weights"),
        (Self::M18_PAPER, "M18 of the paper, 8 kHz waveform, no published weights"),
        (Self::M34_RES_PAPER, "M34-res of the paper, 8 kHz waveform, no published weights"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] = &[
        &["fc1.weight", "conv1.weight", "bn1.weight"],
        &["fc.weight", "model.4.weight"],
        &["fc.weight", "model.5.weight"],
    ];

    fn name(&self) -> &str {
        &self.name
    }

    /// The preset with the same widths or, failing that, one with the same number of layers.
    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let names = Names::detect(|name| weights.contains(name));
        let is_first = |shape: &[usize]| shape.len() == 3 && shape[1] == 1;
        if !weights.shape(&format!("{}.weight", names.conv(0))).is_some_and(is_first)
            || !(weights.contains("fc1.weight") || weights.contains("fc.weight"))
        {
            return Ok(None);
        }
        let residual = weights.contains("block1.conv1.weight");
        let layer = |i: &usize| {
            let name = if residual { format!("block{i}.conv1") } else { names.conv(*i) };
            weights.contains(&format!("{name}.weight"))
        };
        let n_layers = (1..weights.len()).take_while(layer).count();
        let same_depth = |config: &&Self| config.residual == residual && config.n_layers() == n_layers;
        let fitted = |preset: &Self| {
            let mut config = preset.clone();
            config.fit(weights);
            (config == Self { n_classes: config.n_classes, ..preset.clone() }, config)
        };
        let fitting = || Self::PRESETS.iter().map(|(preset, _)| preset).filter(same_depth).map(fitted);
        let as_published = fitting().find(|(same_widths, _)| *same_widths);
        let Some((same_widths, mut config)) = as_published.or_else(|| fitting().next()) else { return Ok(None) };
        if !same_widths {
            config.name = m5();
        }
        let model = "M5".to_string();
        let assumptions = vec![
            Assumption::SampleRate { model: model.clone(), sample_rate: config.sample_rate },
            Assumption::Stride { model, stride: config.stride },
        ];
        Ok(Some((config, assumptions)))
    }

    /// The channels, the first kernel and the number of classes, as far as the checkpoint's layers match.
    fn fit(&mut self, weights: &Weights) {
        let names = Names::detect(|name| weights.contains(name));
        let shape = |name: String| weights.shape(&format!("{name}.weight"));
        if let Some(&[channels, _, kernel]) = shape(names.conv(0)) {
            (self.channels, self.kernel) = (channels, kernel);
        }
        let mut first = 1;
        for stage in self.stages.to_mut() {
            let name = if self.residual { format!("block{first}.conv1") } else { names.conv(first) };
            if let Some(&[channels, ..]) = shape(name) {
                stage.channels = channels;
            }
            first += stage.layers;
        }
        if let Some(&[n_classes, _]) = shape(names.fc().to_string()) {
            self.n_classes = n_classes;
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(M5::load(self, weights, device)?))
    }
}

/// The naming scheme of the layers in a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(super) enum Names {
    Numbered,
    /// Members of a `Sequential`, with this many members per convolution.
    Sequential(usize),
}

impl Names {
    pub fn detect(has: impl Fn(&str) -> bool) -> Self {
        match has("conv1.weight") {
            false if has("model.4.weight") => Self::Sequential(4),
            false if has("model.5.weight") => Self::Sequential(5),
            _ => Self::Numbered,
        }
    }

    /// Name of the convolution with this index, from 0.
    pub fn conv(self, index: usize) -> String {
        match self {
            Self::Numbered => format!("conv{}", index + 1),
            Self::Sequential(step) => format!("model.{}", step * index),
        }
    }

    pub fn norm(self, index: usize) -> String {
        match self {
            Self::Numbered => format!("bn{}", index + 1),
            Self::Sequential(step) => format!("model.{}", step * index + 1),
        }
    }

    pub fn fc(self) -> &'static str {
        match self {
            Self::Numbered => "fc1",
            Self::Sequential(_) => "fc",
        }
    }
}
