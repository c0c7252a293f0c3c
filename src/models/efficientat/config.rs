//! Configurations of the MobileNets and their detection from checkpoints.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::assumption::Assumption;
use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::error::{Error, Result};
use crate::frontend::{LogMel, LogMelConfig, MelConfig, StftConfig};
use crate::labels::LabelSet;
use crate::models::family::Family;
use crate::models::{FrameGrid, ModelInfo, TaggingModel};
use crate::weights::Weights;

use super::MobileNet;

/// Number of blocks in the published networks.
const N_BLOCKS: usize = 15;
/// Maximum number of blocks in a configuration.
const MAX_BLOCKS: usize = 256;
/// Index of the first block with hard swish; earlier blocks have ReLU.
const FIRST_HARD_SWISH: usize = 6;
/// Kernel, expanded channels, output channels and presence of a squeeze-and-excitation, for each block at width 1.
const TABLE: [(usize, usize, usize, bool); N_BLOCKS] = [
    (3, 16, 16, false),
    (3, 64, 24, false),
    (3, 72, 24, false),
    (5, 72, 40, true),
    (5, 120, 40, true),
    (5, 120, 40, true),
    (3, 240, 80, false),
    (3, 200, 80, false),
    (3, 184, 80, false),
    (3, 184, 80, false),
    (3, 480, 112, true),
    (3, 672, 112, true),
    (5, 672, 160, true),
    (5, 960, 160, true),
    (5, 960, 160, true),
];
/// The blocks with stride 2, of which only the first ones have it in some published variants: in `s2211`, the first
/// two.
const STEPS: [usize; 4] = [1, 3, 6, 12];
/// Filter sets that a DyMN convolution mixes.
const SETS: usize = 4;
/// Strides over time and mel of the frame-wise networks: 40 ms per step of the last feature map, which has one column.
const FRAME_STRIDES: [[usize; 2]; N_BLOCKS] = [
    [1, 1],
    [2, 2],
    [1, 2],
    [1, 1],
    [1, 1],
    [1, 2],
    [1, 1],
    [1, 2],
    [1, 1],
    [1, 1],
    [1, 2],
    [1, 1],
    [1, 1],
    [1, 1],
    [1, 2],
];

/// An inverted residual: 1x1 convolution that expands the channels (omitted if their number stays the same), depthwise
/// convolution, squeeze-and-excitation, 1x1 convolution; residual connection if input and output have the same shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Size of the depthwise kernel on both axes, odd, 1 to 65,535.
    pub kernel: usize,
    /// Expanded channels, 1 to 65,536.
    pub expanded: usize,
    /// Output channels, 1 to 65,536.
    pub channels: usize,
    /// Hidden units of the squeeze-and-excitation, up to 65,536; 0 for none.
    #[serde(default)]
    pub squeezed: usize,
    /// Length of the context vector by which a DyMN block mixes its filters, up to 65,536; 0 for a block with fixed
    /// filters.
    #[serde(default)]
    pub context: usize,
    /// Whether the activation is hard swish rather than ReLU.
    pub hard_swish: bool,
    /// Strides over time and mel, 1 or 2.
    pub stride: [usize; 2],
}

/// The classification head on the last feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Head {
    /// The mean over the map, a hidden layer with this many units and hard swish, and the output layer.
    Mlp(usize),
    /// A 1x1 convolution with batch norm to the classes, then the mean over the map.
    FullyConvolutional,
    /// Attention pooling over time with this many heads (PSLA, Gong et al. 2021, arXiv 2102.01243).
    AttentionPooling(usize),
    /// Classifies each time step of a map with one column; the clip's logit is the maximum per class.
    Frames,
}

/// The configuration of a MobileNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `mn10`.
    #[serde(default = "default_name")]
    pub name: Cow<'static, str>,
    /// The front end.
    pub log_mel: LogMelConfig,
    /// Channels of the first convolution, 1 to 65,536.
    pub stem: usize,
    /// The blocks, 1 to 256.
    pub blocks: Cow<'static, [Block]>,
    /// Channels of the last convolution, which is also the length of the embedding; 1 to 65,536.
    pub last: usize,
    /// The classification head.
    pub head: Head,
    /// Number of classes, 1 to 2^20.
    pub n_classes: usize,
}

fn default_name() -> Cow<'static, str> {
    Cow::Borrowed("mn10")
}

/// `channels · tenths / 10` rounded to a multiple of eight, but to no less than 90 % of it, as MobileNet does.
pub(super) const fn scaled(channels: usize, tenths: usize) -> usize {
    let nearest = (channels * tenths + 40) / 80 * 8;
    let nearest = if nearest < 8 { 8 } else { nearest };
    if 100 * nearest < 9 * channels * tenths { nearest + 8 } else { nearest }
}

/// Hidden units of the squeeze-and-excitation for `expanded` channels.
const fn squeezed(expanded: usize) -> usize {
    scaled(expanded / 4, 10)
}

/// The published blocks at a width in tenths, with the given strides.
const fn blocks(tenths: usize, strides: &[[usize; 2]; N_BLOCKS]) -> [Block; N_BLOCKS] {
    let block =
        Block { kernel: 0, expanded: 0, channels: 0, squeezed: 0, context: 0, hard_swish: false, stride: [1, 1] };
    let mut blocks = [block; N_BLOCKS];
    let mut i = 0;
    while i < N_BLOCKS {
        let (kernel, expanded, channels, squeezes) = TABLE[i];
        let expanded = scaled(expanded, tenths);
        blocks[i] = Block {
            kernel,
            expanded,
            channels: scaled(channels, tenths),
            squeezed: if squeezes { squeezed(expanded) } else { 0 },
            context: 0,
            hard_swish: i >= FIRST_HARD_SWISH,
            stride: strides[i],
        };
        i += 1;
    }
    blocks
}

/// The DyMN blocks at a width in tenths.
const fn dynamic_blocks(tenths: usize) -> [Block; N_BLOCKS] {
    let mut blocks = blocks(tenths, &strides(4));
    let (least, most) = (scaled(32, tenths), scaled(128, tenths));
    let mut i = 0;
    while i < N_BLOCKS {
        let context = squeezed(blocks[i].expanded);
        blocks[i].squeezed = 0;
        blocks[i].context = if context < least {
            least
        } else if context > most {
            most
        } else {
            context
        };
        i += 1;
    }
    blocks
}

/// Strides of 2 in the first `n` of [`STEPS`], 1 elsewhere.
const fn strides(n: usize) -> [[usize; 2]; N_BLOCKS] {
    let mut strides = [[1, 1]; N_BLOCKS];
    let mut i = 0;
    while i < n {
        strides[STEPS[i]] = [2, 2];
        i += 1;
    }
    strides
}

/// The front end with a different hop, in samples.
const fn hop(hop_length: usize) -> LogMelConfig {
    let log_mel = LogMelConfig::EFFICIENT_AT_32K;
    LogMelConfig { stft: StftConfig { hop_length, ..log_mel.stft }, ..log_mel }
}

/// The front end with a different number of mel bins.
const fn mels(n_mels: usize) -> LogMelConfig {
    let log_mel = LogMelConfig::EFFICIENT_AT_32K;
    LogMelConfig { mel: MelConfig { n_mels, ..log_mel.mel }, ..log_mel }
}

/// Words in published file names for variants that tensors do not determine, and their presets.
const NAMED: [(&str, Config); 9] = [
    ("hop_5_", Config::MN10_HOP_5),
    ("hop_15", Config::MN10_HOP_15),
    ("hop_20", Config::MN10_HOP_20),
    ("hop_25", Config::MN10_HOP_25),
    ("mels_40", Config::MN10_MELS_40),
    ("mels_64", Config::MN10_MELS_64),
    ("mels_256", Config::MN10_MELS_256),
    ("s2221", Config::MN10_FC_S2221),
    ("s2211", Config::MN10_FC_S2211),
];

impl Config {
    /// `mn01_as_mAP_298.pt`: width 0.1.
    pub const MN01: Self = Self::tagger("mn01", 1, &const { blocks(1, &strides(4)) });
    /// `mn02_as_mAP_378.pt`: width 0.2.
    pub const MN02: Self = Self::tagger("mn02", 2, &const { blocks(2, &strides(4)) });
    /// `mn04_as_mAP_432.pt`: width 0.4, 983,599 parameters, 32 kHz, 527 classes.
    pub const MN04: Self = Self::tagger("mn04", 4, &const { blocks(4, &strides(4)) });
    /// `mn05_as_mAP_443.pt`: width 0.5.
    pub const MN05: Self = Self::tagger("mn05", 5, &const { blocks(5, &strides(4)) });
    /// `mn10_as_mAP_471.pt`: width 1.
    pub const MN10: Self = Self::tagger("mn10", 10, &const { blocks(10, &strides(4)) });
    /// `mn20_as_mAP_478.pt`: width 2.
    pub const MN20: Self = Self::tagger("mn20", 20, &const { blocks(20, &strides(4)) });
    /// `mn30_as_mAP_482.pt`: width 3.
    pub const MN30: Self = Self::tagger("mn30", 30, &const { blocks(30, &strides(4)) });
    /// `mn40_as_mAP_484.pt`, and `mn40_as_ext_mAP_487.pt`, which was trained longer: width 4.
    pub const MN40: Self = Self::tagger("mn40", 40, &const { blocks(40, &strides(4)) });
    /// `mn10_as_hop_5_mAP_475.pt`: a log-mel frame every 5 ms.
    pub const MN10_HOP_5: Self =
        Self::network("mn10-hop-5", 10, &const { blocks(10, &strides(4)) }, hop(160), Head::Mlp(1280));
    /// `mn10_as_hop_15_mAP_463.pt`.
    pub const MN10_HOP_15: Self =
        Self::network("mn10-hop-15", 10, &const { blocks(10, &strides(4)) }, hop(480), Head::Mlp(1280));
    /// `mn10_as_hop_20_mAP_456.pt`.
    pub const MN10_HOP_20: Self =
        Self::network("mn10-hop-20", 10, &const { blocks(10, &strides(4)) }, hop(640), Head::Mlp(1280));
    /// `mn10_as_hop_25_mAP_447.pt`.
    pub const MN10_HOP_25: Self =
        Self::network("mn10-hop-25", 10, &const { blocks(10, &strides(4)) }, hop(800), Head::Mlp(1280));
    /// `mn10_as_mels_40_mAP_453.pt`: 40 mel bins.
    pub const MN10_MELS_40: Self =
        Self::network("mn10-mels-40", 10, &const { blocks(10, &strides(4)) }, mels(40), Head::Mlp(1280));
    /// `mn10_as_mels_64_mAP_461.pt`.
    pub const MN10_MELS_64: Self =
        Self::network("mn10-mels-64", 10, &const { blocks(10, &strides(4)) }, mels(64), Head::Mlp(1280));
    /// `mn10_as_mels_256_mAP_474.pt`.
    pub const MN10_MELS_256: Self =
        Self::network("mn10-mels-256", 10, &const { blocks(10, &strides(4)) }, mels(256), Head::Mlp(1280));
    /// `mn10_as_fc_mAP_465.pt`: [`Head::FullyConvolutional`].
    pub const MN10_FC: Self = Self::network(
        "mn10-fc",
        10,
        &const { blocks(10, &strides(4)) },
        LogMelConfig::EFFICIENT_AT_32K,
        Head::FullyConvolutional,
    );
    /// `mn10_as_fc_s2221_mAP_466.pt`: stride 1 in place of the last of the four strides of 2.
    pub const MN10_FC_S2221: Self = Self::network(
        "mn10-fc-s2221",
        10,
        &const { blocks(10, &strides(3)) },
        LogMelConfig::EFFICIENT_AT_32K,
        Head::FullyConvolutional,
    );
    /// `mn10_as_fc_s2211_mAP_466.pt`: stride 1 in place of the last two of them.
    pub const MN10_FC_S2211: Self = Self::network(
        "mn10-fc-s2211",
        10,
        &const { blocks(10, &strides(2)) },
        LogMelConfig::EFFICIENT_AT_32K,
        Head::FullyConvolutional,
    );
    /// `dymn04_as.pt`: DyMN of width 0.4.
    pub const DYMN04: Self = Self::tagger("dymn04", 4, &const { dynamic_blocks(4) });
    /// `dymn10_as.pt`.
    pub const DYMN10: Self = Self::tagger("dymn10", 10, &const { dynamic_blocks(10) });
    /// `dymn20_as_mAP_493.pt`.
    pub const DYMN20: Self = Self::tagger("dymn20", 20, &const { dynamic_blocks(20) });
    /// `fmn04` of EfficientSED: frames of 40 ms, 16 kHz, the 447 classes of AudioSet Strong.
    pub const FMN04: Self = Self::frame_wise("fmn04", 4, &const { blocks(4, &FRAME_STRIDES) });
    /// `frame_mn06_strong_1.pt` of PretrainedSED.
    pub const FRAME_MN06: Self = Self::frame_wise("frame_mn06", 6, &const { blocks(6, &FRAME_STRIDES) });
    /// `frame_mn10_strong_1.pt` of PretrainedSED.
    pub const FRAME_MN10: Self = Self::frame_wise("frame_mn10", 10, &const { blocks(10, &FRAME_STRIDES) });
    /// `fmn06` of EfficientSED.
    pub const FMN06: Self = Self::frame_wise("fmn06", 6, &const { blocks(6, &FRAME_STRIDES) });
    /// `fmn10` of EfficientSED.
    pub const FMN10: Self = Self::frame_wise("fmn10", 10, &const { blocks(10, &FRAME_STRIDES) });
    /// `fmn20` of EfficientSED.
    pub const FMN20: Self = Self::frame_wise("fmn20", 20, &const { blocks(20, &FRAME_STRIDES) });
    /// `fmn30` of EfficientSED.
    pub const FMN30: Self = Self::frame_wise("fmn30", 30, &const { blocks(30, &FRAME_STRIDES) });

    const fn tagger(name: &'static str, tenths: usize, blocks: &'static [Block]) -> Self {
        Self::network(name, tenths, blocks, LogMelConfig::EFFICIENT_AT_32K, Head::Mlp(scaled(1280, tenths)))
    }

    const fn frame_wise(name: &'static str, tenths: usize, blocks: &'static [Block]) -> Self {
        Self::network(name, tenths, blocks, LogMelConfig::EFFICIENT_SED_16K, Head::Frames)
    }

    const fn network(
        name: &'static str,
        tenths: usize,
        blocks: &'static [Block],
        log_mel: LogMelConfig,
        head: Head,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            log_mel,
            stem: scaled(16, tenths),
            blocks: Cow::Borrowed(blocks),
            last: 6 * scaled(160, tenths),
            head,
            n_classes: if matches!(head, Head::Frames) { 447 } else { 527 },
        }
    }
}

impl Config {
    pub(super) fn info(&self, log_mel: &LogMel) -> ModelInfo {
        ModelInfo {
            min_samples: log_mel.min_samples(),
            frames: Some(self.frames()),
            labels: (self.n_classes == 447).then(LabelSet::audioset_strong),
            ..ModelInfo::new(self.name.clone(), self.log_mel.sample_rate, self.n_classes, self.last)
        }
    }

    /// Whether some or all blocks are DyMN's.
    pub(super) fn is_dynamic(&self) -> bool {
        self.blocks.iter().any(|block| block.context > 0)
    }

    /// Log-mel frames per step of the last feature map.
    pub(super) fn frames_per_step(&self) -> usize {
        self.blocks.iter().map(|block| block.stride[0]).product::<usize>() * 2
    }

    /// A frame is a step of the last feature map for [`Head::Frames`], otherwise a log-mel frame.
    fn frames(&self) -> FrameGrid {
        let hop = self.log_mel.stft.hop_length;
        match self.head {
            Head::Frames => FrameGrid { first: 0, step: self.frames_per_step() * hop },
            _ => FrameGrid { first: 0, step: hop },
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        check::sizes([("stem", self.stem, MAX_WIDTH), ("last", self.last, MAX_WIDTH)])?;
        check::size("n_classes", self.n_classes, MAX_CLASSES)?;
        check::size("blocks", self.blocks.len(), MAX_BLOCKS)?;
        let mut columns = self.log_mel.mel.n_mels.div_ceil(2);
        let mut frames = 2usize;
        for block in self.blocks.iter() {
            check::sizes([
                ("kernel", block.kernel, MAX_WIDTH),
                ("expanded", block.expanded, MAX_WIDTH),
                ("channels", block.channels, MAX_WIDTH),
            ])?;
            check::size("squeezed", block.squeezed.max(1), MAX_WIDTH)?;
            check::size("context", block.context.max(1), MAX_WIDTH)?;
            if block.context > 0 && block.stride[0] != block.stride[1] {
                return Err(Error::config(
                    "stride",
                    block.stride[0],
                    "a DyMN block must have equal strides over time and mel",
                ));
            }
            if block.kernel.is_multiple_of(2) {
                return Err(Error::config("kernel", block.kernel, "expected an odd kernel"));
            }
            for stride in block.stride {
                check::size("stride", stride, 2)?;
            }
            columns = columns.div_ceil(block.stride[1]);
            frames = frames.saturating_mul(block.stride[0]);
        }
        check::size("stride", frames, MAX_WIDTH)?;
        match self.head {
            Head::Mlp(units) => check::size("head", units, MAX_WIDTH),
            Head::AttentionPooling(heads) => check::size("head", heads, 256),
            Head::Frames if columns != 1 => Err(Error::config(
                "n_mels",
                self.log_mel.mel.n_mels,
                "the strides over mel must reduce the mel bins to one column for the head `frames`",
            )),
            Head::FullyConvolutional | Head::Frames => Ok(()),
        }
    }

    /// Reads the sizes of the stem, the blocks and the last convolution; `None` if any is missing or the number of
    /// blocks differs.
    fn fit_trunk(&mut self, weights: &Weights) -> Option<()> {
        let prefix = trunk(weights);
        let at = |name: &str| weights.shape(&format!("{prefix}{name}"));
        let is_dynamic = weights.contains("in_c.0.weight");
        let n_blocks = self.blocks.len();
        let (stem, last) = match is_dynamic {
            true => ("in_c.0.weight".to_string(), "out_c.0.weight".to_string()),
            false => ("features.0.0.weight".to_string(), format!("features.{}.0.weight", n_blocks + 1)),
        };
        let (&[stem, 1, 3, 3], &[last, _, 1, 1]) = (at(&stem)?, at(&last)?) else { return None };
        let mut blocks = self.blocks.to_vec();
        for (i, block) in blocks.iter_mut().enumerate() {
            let place = if is_dynamic { format!("layers.{i}") } else { format!("features.{}", i + 1) };
            let length = |name: &str| Some(at(&format!("{place}.{name}"))?.iter().product::<usize>());
            if let Some(context) = length("context_gen.joint_norm.weight") {
                let expanded = length("depth_norm.weight")?;
                let kernel = (length("depth_conv.weight")? / SETS / expanded.max(1)).isqrt();
                let channels = length("proj_norm.weight")?;
                *block = Block { kernel, expanded, channels, squeezed: 0, context, ..*block };
                continue;
            }
            let layer = |k: usize, leaf: &str| at(&format!("{place}.block.{k}.{leaf}"));
            let depthwise = usize::from(layer(0, "0.weight")?.ends_with(&[1, 1]));
            let &[expanded, 1, kernel, _] = layer(depthwise, "0.weight")? else { return None };
            let squeezed = layer(depthwise + 1, "conc_se_layers.0.fc1.weight").and_then(|shape| shape.first());
            let &channels = layer(depthwise + 1 + usize::from(squeezed.is_some()), "0.weight")?.first()?;
            let squeezed = squeezed.copied().unwrap_or(0);
            *block = Block { kernel, expanded, channels, squeezed, context: 0, ..*block };
        }
        (self.stem, self.last, self.blocks) = (stem, last, blocks.into());
        Some(())
    }

    /// Reads the head and the number of classes; `None` if the checkpoint has no head.
    fn fit_head(&mut self, weights: &Weights) -> Option<()> {
        let first = |name: &str| weights.shape(name)?.first().copied();
        (self.head, self.n_classes) = if let Some(n_classes) = first("strong_head.weight") {
            (Head::Frames, n_classes)
        } else if let (Some(units), Some(n_classes)) = (first("classifier.2.weight"), first("classifier.5.weight")) {
            (Head::Mlp(units), n_classes)
        } else if let Some(n_classes) = first("classifier.0.weight") {
            (Head::FullyConvolutional, n_classes)
        } else if let (Some(&[_, heads, _]), Some(outputs)) =
            (weights.shape("classifier.head_weight"), first("classifier.subspace_proj.weight"))
        {
            (Head::AttentionPooling(heads), outputs / (2 * heads).max(1))
        } else {
            return None;
        };
        Some(())
    }
}

/// Prefix of the convolutions. Frame-wise networks are wrapped in another module.
pub(super) fn trunk(weights: &Weights) -> &'static str {
    let has = |prefix: &&str| weights.contains(&format!("{prefix}features.0.0.weight"));
    ["", "model.frame_mn.", "model.fmn.", "model."].into_iter().find(has).unwrap_or("")
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::MN04, "EfficientAT mn04, 32 kHz log-mel, AudioSet mAP 0.432"),
        (Self::MN01, "EfficientAT mn01, AudioSet mAP 0.298"),
        (Self::MN02, "EfficientAT mn02, AudioSet mAP 0.378"),
        (Self::MN05, "EfficientAT mn05, AudioSet mAP 0.443"),
        (Self::MN10, "EfficientAT mn10, AudioSet mAP 0.471"),
        (Self::MN20, "EfficientAT mn20, AudioSet mAP 0.478"),
        (Self::MN30, "EfficientAT mn30, AudioSet mAP 0.482"),
        (Self::MN40, "EfficientAT mn40, AudioSet mAP 0.484 (0.487 the extended training)"),
        (Self::MN10_HOP_5, "EfficientAT mn10 with a hop of 5 ms, AudioSet mAP 0.475"),
        (Self::MN10_HOP_15, "EfficientAT mn10 with a hop of 15 ms, AudioSet mAP 0.463"),
        (Self::MN10_HOP_20, "EfficientAT mn10 with a hop of 20 ms, AudioSet mAP 0.456"),
        (Self::MN10_HOP_25, "EfficientAT mn10 with a hop of 25 ms, AudioSet mAP 0.447"),
        (Self::MN10_MELS_40, "EfficientAT mn10 with 40 mels, AudioSet mAP 0.453"),
        (Self::MN10_MELS_64, "EfficientAT mn10 with 64 mels, AudioSet mAP 0.461"),
        (Self::MN10_MELS_256, "EfficientAT mn10 with 256 mels, AudioSet mAP 0.474"),
        (Self::MN10_FC, "EfficientAT mn10, fully convolutional head, AudioSet mAP 0.465"),
        (Self::MN10_FC_S2221, "EfficientAT mn10, fully convolutional head, three strides of 2, AudioSet mAP 0.466"),
        (Self::MN10_FC_S2211, "EfficientAT mn10, fully convolutional head, two strides of 2, AudioSet mAP 0.466"),
        (Self::DYMN04, "EfficientAT dymn04, dynamic filters, AudioSet mAP 0.450"),
        (Self::DYMN10, "EfficientAT dymn10, AudioSet mAP 0.477"),
        (Self::DYMN20, "EfficientAT dymn20, AudioSet mAP 0.493"),
        (Self::FRAME_MN10, "frame-wise MobileNet of width 1, 16 kHz, 447 classes of AudioSet Strong, 40 ms"),
        (Self::FRAME_MN06, "frame-wise MobileNet of width 0.6"),
        (Self::FMN04, "frame-wise MobileNet of width 0.4"),
        (Self::FMN06, "frame-wise MobileNet of width 0.6, as EfficientSED calls it"),
        (Self::FMN10, "frame-wise MobileNet of width 1, as EfficientSED calls it"),
        (Self::FMN20, "frame-wise MobileNet of width 2"),
        (Self::FMN30, "frame-wise MobileNet of width 3"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] = &[
        &["features.16.0.weight", "features.1.block.0.0.weight", "classifier.5.weight"],
        &["features.16.0.weight", "features.1.block.0.0.weight", "classifier.0.weight"],
        &["features.16.0.weight", "features.1.block.0.0.weight", "classifier.head_weight"],
        &["in_c.0.weight", "layers.14.context_gen.joint_conv.weight", "out_c.0.weight"],
        &["strong_head.weight", "model.frame_mn.features.16.0.weight"],
        &["strong_head.weight", "model.fmn.features.16.0.weight"],
        &["strong_head.weight", "model.features.16.0.weight"],
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        let mut assumptions = Vec::new();
        let mut config = if weights.contains("strong_head.weight") { Self::FRAME_MN10 } else { Self::MN10 };
        if config.fit_head(weights).is_none() || weights.names().any(|name| name.starts_with("seq_model.")) {
            return Ok(None);
        }
        let file = weights.path().and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy();
        if let Some((word, named)) = NAMED.into_iter().find(|(word, _)| file.contains(word))
            && config.head != Head::Frames
        {
            assumptions.push(Assumption::FileName { word, otherwise: "mn10" });
            config = named;
        }
        if config.fit_trunk(weights).is_none() {
            return Ok(None);
        }
        config.fit_head(weights);
        let is_sized = |preset: &&(Self, &str)| {
            Self { name: config.name.clone(), n_classes: config.n_classes, ..preset.0.clone() } == config
        };
        match Self::PRESETS.iter().find(is_sized) {
            Some((preset, _)) => config.name = preset.name.clone(),
            None if config.head == Head::Frames => config.name = "frame_mn".into(),
            None if config.is_dynamic() => config.name = "dymn".into(),
            None => config.name = "mn".into(),
        }
        Ok(Some((config, assumptions)))
    }

    /// The sizes of all layers, the head and the number of classes.
    fn fit(&mut self, weights: &Weights) {
        self.fit_trunk(weights);
        self.fit_head(weights);
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(MobileNet::load(self, weights, device)?))
    }
}
