//! Sizes of wav2vec 2.0 encoders, and their detection in checkpoints.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Wav2Vec2Encoder;
use super::names::{Names, is_fairseq, is_here, place};
use super::positions::Positions;
use crate::check::{self, MAX_LAYERS, MAX_WIDTH};
use crate::encoders::SpeechEncoder;
use crate::encoders::family::Family;
use crate::error::{Error, Result};
use crate::weights::{Loader, Weights};

/// Limit on the samples per hidden state: one second.
const MAX_STRIDE: usize = 16_000;

/// Limit on distances, in frames: 6 hours.
const MAX_DISTANCE: usize = 1 << 20;

/// Normalisation of the convolutions over the waveform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConvNorm {
    /// Each channel over the time of the clip, after the first convolution only (`feat_extract_norm = "group"`, with as
    /// many groups as channels).
    Group,
    /// Each frame over its channels, after every convolution (`feat_extract_norm = "layer"`).
    Layer,
}

/// One convolution over the waveform, without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvLayer {
    /// Number of output channels, 1 to 65,536.
    pub channels: usize,
    /// Kernel, 1 to 65,536.
    pub kernel: usize,
    /// Stride, 1 to 65,536.
    pub stride: usize,
}

const fn conv(kernel: usize, stride: usize) -> ConvLayer {
    ConvLayer { channels: 512, kernel, stride }
}

/// The seven convolutions of all published models, with one hidden state per 320 samples.
const CONVS: &[ConvLayer] = &[conv(10, 5), conv(3, 2), conv(3, 2), conv(3, 2), conv(3, 2), conv(2, 2), conv(2, 2)];

/// Configuration of an encoder of the wav2vec 2.0 family. Presets are the published models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of the preset, or a custom name. Default when read from a file: `wav2vec2`.
    #[serde(default = "wav2vec2")]
    pub name: Cow<'static, str>,
    /// Whether each clip is normalised to mean 0 and variance 1 (`do_normalize`).
    pub normalize: bool,
    /// The convolutions over the waveform, 1 to 1,024 of them.
    pub convs: Cow<'static, [ConvLayer]>,
    /// Normalisation of the convolutions.
    pub conv_norm: ConvNorm,
    /// Whether the convolutions have biases.
    pub conv_bias: bool,
    /// Whether a layer norm precedes the projection to `dim`. False only for some HuBERT models.
    pub projection_norm: bool,
    /// Width of a hidden state, 1 to 65,536.
    pub dim: usize,
    /// Number of attention heads; must divide `dim`.
    pub n_heads: usize,
    /// Number of transformer blocks, 1 to 1,024.
    pub n_blocks: usize,
    /// Width of the feed-forward layers, 1 to 65,536.
    pub ffn_dim: usize,
    /// Kernel of the convolution over positions in frames, 1 to 65,536.
    pub position_kernel: usize,
    /// Groups of that convolution; must divide `dim`.
    pub position_groups: usize,
    /// Whether blocks are pre-norm, with a norm after the last block (`do_stable_layer_norm`); otherwise they are
    /// post-norm, with a norm before the first block.
    pub norm_first: bool,
    /// Width of the adapter after each block of an MMS model (`adapter_attn_dim`), 1 to 65,536; requires `norm_first`.
    /// Default when read from a file: no adapters.
    #[serde(default)]
    pub adapter_dim: Option<usize>,
    /// Whether a batch norm precedes the convolution over positions, which then has no weight norm
    /// (`conv_pos_batch_norm`, some HuBERT models). Default when read from a file: false.
    #[serde(default)]
    pub position_batch_norm: bool,
    /// WavLM's attention bias by the distance between frames, gated in each block. Default when read from a file: none.
    #[serde(default)]
    pub position_bias: Option<PositionBias>,
}

/// WavLM's buckets of distances between frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionBias {
    /// Number of buckets, half of them per direction: a multiple of 4, 4 to 65,536.
    pub n_buckets: usize,
    /// The distance in frames from which the last bucket is used; above `n_buckets / 4`, at most 2^20.
    pub max_distance: usize,
}

impl PositionBias {
    /// The setting of all published models.
    pub const WAVLM: Self = Self { n_buckets: 320, max_distance: 800 };
}

/// The family's name.
fn wav2vec2() -> Cow<'static, str> {
    Cow::Borrowed("wav2vec2")
}

impl Config {
    /// wav2vec 2.0 base: 94 M parameters.
    pub const BASE: Self = Self {
        name: Cow::Borrowed("wav2vec2-base"),
        normalize: true,
        convs: Cow::Borrowed(CONVS),
        conv_norm: ConvNorm::Group,
        conv_bias: false,
        projection_norm: true,
        dim: 768,
        n_heads: 12,
        n_blocks: 12,
        ffn_dim: 3072,
        position_kernel: 128,
        position_groups: 16,
        norm_first: false,
        adapter_dim: None,
        position_batch_norm: false,
        position_bias: None,
    };
    /// wav2vec 2.0 large in its layer-norm form (`large-lv60`), also XLS-R 0.3B: 315 M parameters.
    pub const LARGE: Self = Self {
        name: Cow::Borrowed("wav2vec2-large"),
        conv_norm: ConvNorm::Layer,
        conv_bias: true,
        dim: 1024,
        n_heads: 16,
        n_blocks: 24,
        ffn_dim: 4096,
        norm_first: true,
        ..Self::BASE
    };
    /// XLS-R 1B: 962 M parameters.
    pub const XLS_R_1B: Self =
        Self { name: Cow::Borrowed("xls-r-1b"), dim: 1280, n_blocks: 48, ffn_dim: 5120, ..Self::LARGE };
    /// MMS 1B for recognition, XLS-R 1B with an adapter per block for one language: 965 M parameters.
    pub const MMS_1B: Self = Self { name: Cow::Borrowed("mms-1b"), adapter_dim: Some(16), ..Self::XLS_R_1B };
    /// XLS-R 2B: 2,160 M parameters.
    pub const XLS_R_2B: Self = Self { name: Cow::Borrowed("xls-r-2b"), dim: 1920, ffn_dim: 7680, ..Self::XLS_R_1B };
    /// HuBERT base: 94 M parameters, the shape of wav2vec 2.0 base.
    pub const HUBERT_BASE: Self = Self { name: Cow::Borrowed("hubert-base"), ..Self::BASE };
    /// HuBERT large: 315 M parameters, the shape of wav2vec 2.0 large without biases in the convolutions.
    pub const HUBERT_LARGE: Self = Self { name: Cow::Borrowed("hubert-large"), conv_bias: false, ..Self::LARGE };
    /// HuBERT extra large: 962 M parameters.
    pub const HUBERT_XLARGE: Self = Self { name: Cow::Borrowed("hubert-xlarge"), conv_bias: false, ..Self::XLS_R_1B };

    /// WavLM base and base+: 94 M parameters. Clips are not normalised.
    pub const WAVLM_BASE: Self = Self {
        name: Cow::Borrowed("wavlm-base"),
        normalize: false,
        position_bias: Some(PositionBias::WAVLM),
        ..Self::BASE
    };
    /// WavLM large: 315 M parameters.
    pub const WAVLM_LARGE: Self = Self {
        name: Cow::Borrowed("wavlm-large"),
        conv_bias: false,
        position_bias: Some(PositionBias::WAVLM),
        ..Self::LARGE
    };

    /// Detects the sizes from the tensors of a checkpoint. Some settings cannot be detected and are those of all
    /// published models: the strides (5, then 2), pre-norm blocks (if the convolutions have layer norms), and WavLM's
    /// maximum distance (800 frames). Clips are taken to be normalised, except for models with a norm over time that
    /// have fairseq's names or are WavLM models. The number of heads is that of WavLM's table, otherwise that of the
    /// preset with this `dim`, otherwise `dim / 64`.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] if the checkpoint has no encoder of this family.
    pub fn from_weights(weights: &Weights) -> Result<Self> {
        let root = weights.loader(&Device::Cpu);
        let place = place(&root);
        let names = Names::detect(&place);
        let unknown = || Error::UnknownModel("expected a checkpoint of a wav2vec 2.0 encoder".to_string());
        let conv = |index: usize| place.at("feature_extractor.conv_layers").at(index).at(names.conv);
        let shape = |index: usize| match conv(index).shape("weight") {
            Some(&[channels, _, kernel]) => Some((channels, kernel)),
            _ => None,
        };
        let convs = (0..MAX_LAYERS).map_while(shape).enumerate();
        let convs: Vec<ConvLayer> = convs
            .map(|(index, (channels, kernel))| ConvLayer { channels, kernel, stride: if index == 0 { 5 } else { 2 } })
            .collect();
        let block = |index: usize| place.at("encoder.layers").at(index).at(names.fc1);
        let (Some(&[dim, _]), Some(&[ffn_dim, _])) =
            (place.at(names.projection).shape("weight"), block(0).shape("weight"))
        else {
            return Err(unknown());
        };
        let n_blocks = (0..MAX_LAYERS).take_while(|&index| block(index).shape("weight").is_some()).count();
        let second_norm = place.at("feature_extractor.conv_layers.1").at(names.conv_norms[1]);
        let is_layer = second_norm.shape("weight").is_some();
        let (position_kernel, position_groups, position_batch_norm) =
            Positions::sizes(&place, &names, dim).ok_or_else(unknown)?;
        let (position_bias, wavlm_heads) = match place.at("encoder.layers.0").at(names.attention).shape(names.distances)
        {
            Some(&[n_buckets, n_heads]) => (Some(PositionBias { n_buckets, ..PositionBias::WAVLM }), Some(n_heads)),
            _ => (None, None),
        };
        let preset = Self::PRESETS.iter().map(|(preset, _)| preset).find(|preset| preset.dim == dim);
        let sizes = Self {
            name: wav2vec2(),
            normalize: is_layer || !(is_fairseq(&place) || position_bias.is_some()),
            conv_norm: if is_layer { ConvNorm::Layer } else { ConvNorm::Group },
            conv_bias: conv(0).shape("bias").is_some(),
            projection_norm: place.at(names.projection_norm).shape("weight").is_some(),
            dim,
            n_heads: wavlm_heads.or(preset.map(|preset| preset.n_heads)).unwrap_or((dim / 64).max(1)),
            n_blocks,
            ffn_dim,
            position_kernel,
            position_groups,
            norm_first: is_layer,
            position_batch_norm,
            position_bias,
            adapter_dim: match place.at("encoder.layers.0.adapter_layer.linear_1").shape("weight") {
                Some(&[adapter_dim, _]) => Some(adapter_dim),
                _ => None,
            },
            convs: convs.into(),
        };
        Ok(sizes.named())
    }

    pub(super) fn family_name() -> Cow<'static, str> {
        wav2vec2()
    }

    /// Sets the name of the preset with these sizes, if there is one.
    pub(super) fn named(self) -> Self {
        let is_preset = |preset: &&Self| **preset == Self { name: preset.name.clone(), ..self.clone() };
        let preset = Self::PRESETS.iter().map(|(preset, _)| preset).find(is_preset);
        preset.cloned().unwrap_or(self)
    }

    /// The number of hidden states of a clip.
    pub fn n_frames(&self, n_samples: usize) -> usize {
        Self::frames_after(&self.convs, n_samples)
    }

    /// The number of output frames of these convolutions for `n_samples` samples.
    pub(super) fn frames_after(convs: &[ConvLayer], n_samples: usize) -> usize {
        let convolved = |length: usize, conv: &ConvLayer| match length.checked_sub(conv.kernel) {
            Some(rest) => rest / conv.stride.max(1) + 1,
            None => 0,
        };
        convs.iter().fold(n_samples, convolved)
    }

    /// The number of samples for one hidden state, unless it overflows.
    fn min_samples(&self) -> Option<usize> {
        let before = |length: usize, conv: &ConvLayer| (length - 1).checked_mul(conv.stride)?.checked_add(conv.kernel);
        self.convs.iter().rev().try_fold(1, before)
    }

    /// Length of the shortest clip, and samples per hidden state.
    pub(super) fn grid(&self) -> Result<(usize, usize)> {
        let stride = self.convs.iter().try_fold(1usize, |stride, conv| stride.checked_mul(conv.stride));
        let stride = stride.filter(|stride| *stride <= MAX_STRIDE).ok_or_else(|| {
            Error::config("convs", self.convs.len(), format!("expected strides with a product of at most {MAX_STRIDE}"))
        })?;
        let min_samples = self.min_samples().unwrap_or(usize::MAX);
        check::min_samples("convs", self.convs.len(), min_samples)?;
        Ok((min_samples, stride))
    }

    pub(super) fn validate(&self) -> Result<()> {
        check::sizes([
            ("convs", self.convs.len(), MAX_LAYERS),
            ("dim", self.dim, MAX_WIDTH),
            ("n_blocks", self.n_blocks, MAX_LAYERS),
            ("ffn_dim", self.ffn_dim, MAX_WIDTH),
            ("position_kernel", self.position_kernel, MAX_WIDTH),
            ("adapter_dim", self.adapter_dim.unwrap_or(1), MAX_WIDTH),
        ])?;
        if let Some(adapter_dim) = self.adapter_dim.filter(|_| !self.norm_first) {
            return Err(Error::config("adapter_dim", adapter_dim, "expected none, since norm_first is false"));
        }
        if let Some(PositionBias { n_buckets, max_distance }) = self.position_bias {
            check::sizes([("position_bias.n_buckets", n_buckets, MAX_WIDTH)])?;
            if !n_buckets.is_multiple_of(4) {
                return Err(Error::config("position_bias.n_buckets", n_buckets, "expected a multiple of 4"));
            }
            if !(n_buckets / 4 + 1..=MAX_DISTANCE).contains(&max_distance) {
                let reason = format!("expected {} to {MAX_DISTANCE} frames", n_buckets / 4 + 1);
                return Err(Error::config("position_bias.max_distance", max_distance, reason));
            }
        }
        let of_conv =
            |conv: &ConvLayer| [conv.channels, conv.kernel, conv.stride].map(|size| ("convs", size, MAX_WIDTH));
        check::sizes(self.convs.iter().flat_map(of_conv))?;
        for (field, divisor) in [("n_heads", self.n_heads), ("position_groups", self.position_groups)] {
            if divisor == 0 || !self.dim.is_multiple_of(divisor) {
                return Err(Error::config(field, divisor, format!("expected a divisor of dim = {}", self.dim)));
            }
        }
        self.grid().map(drop)
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::BASE, "wav2vec 2.0 base, 94 M parameters"),
        (Self::LARGE, "wav2vec 2.0 large with layer norms, XLS-R 0.3B, 315 M parameters"),
        (Self::XLS_R_1B, "XLS-R 1B, 962 M parameters"),
        (Self::MMS_1B, "MMS 1B with the adapters of one language, 965 M parameters"),
        (Self::XLS_R_2B, "XLS-R 2B, 2,160 M parameters"),
        (Self::HUBERT_BASE, "HuBERT base, 94 M parameters"),
        (Self::HUBERT_LARGE, "HuBERT large, 315 M parameters"),
        (Self::HUBERT_XLARGE, "HuBERT extra large, 962 M parameters"),
        (Self::WAVLM_BASE, "WavLM base and base+, 94 M parameters"),
        (Self::WAVLM_LARGE, "WavLM large, 315 M parameters"),
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn is_in(weights: &Weights) -> bool {
        let root = weights.loader(&Device::Cpu);
        is_here(&place(&root))
    }

    fn detect(weights: &Weights) -> Result<Self> {
        Self::from_weights(weights)
    }

    const MODEL_TYPES: &'static [&'static str] = &["wav2vec2", "hubert", "wavlm"];

    fn from_hugging_face(config: &Value, preprocessor: Option<&Value>) -> Result<Self> {
        Self::from_hugging_face(config, preprocessor)
    }

    fn build(&self, root: &Loader) -> Result<Box<dyn SpeechEncoder>> {
        Ok(Box::new(Wav2Vec2Encoder::build(self, root)?))
    }
}
