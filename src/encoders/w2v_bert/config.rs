//! Sizes of W2V-BERT encoders, and their detection in checkpoints.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{W2vBertEncoder, place};
use crate::check::{self, MAX_LAYERS, MAX_WIDTH};
use crate::encoders::SpeechEncoder;
use crate::encoders::family::Family;
use crate::error::{Error, Result};
use crate::frontend::{FbankConfig, SeamlessM4tConfig};
use crate::nn::Activation;
use crate::weights::{Loader, Weights};

/// Position embeddings in attention (`position_embeddings_type`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Positions {
    /// None.
    None,
    /// One embedding per distance, multiplied with the query (Shaw et al., 2018, arXiv 1803.02155).
    RelativeKey {
        /// The farthest distance before the query with its own embedding, at most 65,536 steps.
        left: usize,
        /// The farthest distance after the query with its own embedding, at most 65,536 steps.
        right: usize,
    },
    /// Projected sinusoids of the distance, as in Transformer-XL (Dai et al., 2019, arXiv 1901.02860).
    Relative,
    /// Rotary embeddings: the input of queries and keys is rotated by its position, per head (Su et al., 2021, arXiv
    /// 2104.09864).
    Rotary {
        /// Base of the wavelengths, above 0.
        base: f64,
    },
}

/// Configuration of the adapter, which shortens the sequence after the blocks (`add_adapter`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// Width of the output (`output_hidden_size`); must be a multiple of the encoder's `n_heads`.
    pub dim: usize,
    /// Number of layers, at most 1,024.
    pub n_layers: usize,
    /// Kernel of the convolutions, 1 to 65,536.
    pub kernel: usize,
    /// Stride of the convolutions, 1 to 65,536.
    pub stride: usize,
    /// Activation in the feed-forward layers.
    pub activation: Activation,
    /// Whether a feed-forward layer precedes the first layer (`use_intermediate_ffn_before_adapter`).
    pub feed_forward: bool,
}

/// Configuration of an encoder of the W2V-BERT family. The preset is the published model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of the preset, or a custom name. Default when read from a file: `w2v_bert`.
    #[serde(default = "w2v_bert")]
    pub name: Cow<'static, str>,
    /// The front end. Default when read from a file: that of the published model.
    #[serde(default = "front_end")]
    pub front_end: SeamlessM4tConfig,
    /// Width of a hidden state, 1 to 65,536; even with [`Positions::Relative`].
    pub dim: usize,
    /// Number of attention heads; must divide `dim`.
    pub n_heads: usize,
    /// Number of Conformer blocks, 1 to 1,024.
    pub n_blocks: usize,
    /// Width of the feed-forward layers, 1 to 65,536.
    pub ffn_dim: usize,
    /// Activation in the blocks.
    pub activation: Activation,
    /// Epsilon of all norms, 0 or more.
    pub norm_eps: f32,
    /// Position embeddings.
    pub positions: Positions,
    /// Kernel of the convolution over time in each block: odd, 1 to 65,535.
    pub conv_kernel: usize,
    /// Adapter after the blocks. Default when read from a file: none.
    #[serde(default)]
    pub adapter: Option<AdapterConfig>,
}

/// The family's name.
pub(super) fn w2v_bert() -> Cow<'static, str> {
    Cow::Borrowed("w2v_bert")
}

fn front_end() -> SeamlessM4tConfig {
    Config::W2V_BERT_2.front_end
}

impl Config {
    /// W2V-BERT 2.0: 580 M parameters.
    pub const W2V_BERT_2: Self = Self {
        name: Cow::Borrowed("w2v-bert-2.0"),
        front_end: SeamlessM4tConfig { padding_value: 1.0, ..SeamlessM4tConfig::SEAMLESS_M4T_16K },
        dim: 1024,
        n_heads: 16,
        n_blocks: 24,
        ffn_dim: 4096,
        activation: Activation::Swish,
        norm_eps: 1e-5,
        positions: Positions::RelativeKey { left: 64, right: 8 },
        conv_kernel: 31,
        adapter: None,
    };

    /// Detects the sizes from the tensors of a checkpoint. Activations, epsilon and the adapter's stride cannot be
    /// detected and are those of the published model (stride 2 and ReLU in the adapter). Rotary positions cannot be
    /// detected either and are taken for none. Of the distance embeddings, 8 are for keys after the query, as
    /// published. The number of heads is that of the position embeddings, otherwise that of the preset with this `dim`,
    /// otherwise `dim / 64`.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] if the checkpoint has no W2V-BERT encoder.
    pub fn from_weights(weights: &Weights) -> Result<Self> {
        let preset = Self::W2V_BERT_2;
        let root = weights.loader(&Device::Cpu);
        let place = place(&root);
        let block = |index: usize| place.at("encoder.layers").at(index);
        let first = block(0);
        let (Some(&[dim, in_features]), Some(&[ffn_dim, _]), Some(&[_, _, conv_kernel])) = (
            place.at("feature_projection.projection").shape("weight"),
            first.at("ffn1.intermediate_dense").shape("weight"),
            first.at("conv_module.depthwise_conv").shape("weight"),
        ) else {
            return Err(Error::UnknownModel("expected a checkpoint of a W2V-BERT encoder".to_string()));
        };
        let is_block = |index: &usize| block(*index).at("final_layer_norm").shape("weight").is_some();
        let attention = first.at("self_attn");
        let usual = if dim == preset.dim { preset.n_heads } else { (dim / 64).max(1) };
        let (positions, n_heads) =
            match (attention.at("distance_embedding").shape("weight"), attention.shape("pos_bias_u")) {
                (Some(&[n_distances, head_dim]), _) => {
                    let right = n_distances.saturating_sub(1).min(8);
                    let left = n_distances.saturating_sub(1 + right);
                    (Positions::RelativeKey { left, right }, dim.checked_div(head_dim).unwrap_or(usual))
                }
                (_, Some(&[n_heads, _])) => (Positions::Relative, n_heads),
                _ => (Positions::None, usual),
            };
        let layer = |index: usize| place.at("adapter.layers").at(index).at("residual_conv");
        let adapter = match layer(0).shape("weight") {
            Some(&[_, dim, kernel]) => Some(AdapterConfig {
                dim,
                n_layers: (0..MAX_LAYERS).take_while(|&index| layer(index).shape("weight").is_some()).count(),
                kernel,
                stride: 2,
                activation: Activation::Relu,
                feed_forward: place.at("intermediate_ffn.intermediate_dense").shape("weight").is_some(),
            }),
            _ => None,
        };
        let n_mels = in_features / preset.front_end.stride;
        let fbank = FbankConfig { n_mels, ..preset.front_end.fbank };
        let sizes = Self {
            name: w2v_bert(),
            front_end: SeamlessM4tConfig { fbank, ..preset.front_end },
            dim,
            n_heads,
            n_blocks: (0..MAX_LAYERS).take_while(is_block).count(),
            ffn_dim,
            positions,
            conv_kernel,
            adapter,
            ..preset
        };
        Ok(sizes.named())
    }

    /// Sets the name of the preset if it has these sizes.
    pub(super) fn named(self) -> Self {
        let preset = Self::W2V_BERT_2;
        if (Self { name: preset.name.clone(), ..self.clone() }) == preset { preset } else { self }
    }

    /// Width of the output: that of the adapter, if there is one.
    pub fn output_dim(&self) -> usize {
        self.adapter.as_ref().map_or(self.dim, |adapter| adapter.dim)
    }

    /// Number of feature frames of the shortest clip: those of one step, at least two (so that there is a variance),
    /// and as many as the adapter's convolutions need.
    pub(super) fn min_frames(&self) -> Result<usize> {
        let stride = self.front_end.stride;
        let least = stride.max(2);
        let Some(adapter) = &self.adapter else { return Ok(least) };
        let before = |length: usize, _| {
            let length = (length - 1).checked_mul(adapter.stride)?.checked_add(adapter.kernel)?;
            Some(length.saturating_sub(adapter.padding() * 2).max(1))
        };
        // One frame is enough for the last step.
        let frames = (0..adapter.n_layers).try_fold(1usize, before).and_then(|steps| (steps - 1).checked_mul(stride));
        let frames = frames.filter(|frames| *frames <= check::MAX_MIN_SAMPLES).ok_or_else(|| {
            let reason =
                format!("expected a number for which the shortest clip has at most {} samples", check::MAX_MIN_SAMPLES);
            Error::config("adapter.n_layers", adapter.n_layers, reason)
        })?;
        Ok(least.max(frames + 1))
    }

    /// Steps of the front end per output state.
    pub(super) fn steps_per_frame(&self) -> Result<usize> {
        let Some(adapter) = &self.adapter else { return Ok(1) };
        let steps = (0..adapter.n_layers).try_fold(1usize, |steps, _| steps.checked_mul(adapter.stride));
        let steps = steps.filter(|steps| *steps <= MAX_WIDTH);
        steps.ok_or_else(|| {
            let reason = format!("expected strides with a product of at most {MAX_WIDTH}");
            Error::config("adapter.stride", adapter.stride, reason)
        })
    }

    pub(super) fn validate(&self) -> Result<()> {
        let Self { dim, n_heads, n_blocks, ffn_dim, conv_kernel, .. } = *self;
        check::sizes([
            ("dim", dim, MAX_WIDTH),
            ("n_blocks", n_blocks, MAX_LAYERS),
            ("ffn_dim", ffn_dim, MAX_WIDTH),
            ("conv_kernel", conv_kernel, MAX_WIDTH),
        ])?;
        let divides = |dim: usize| n_heads > 0 && dim.is_multiple_of(n_heads);
        if !divides(dim) {
            return Err(Error::config("n_heads", n_heads, format!("expected a divisor of dim = {dim}")));
        }
        if conv_kernel.is_multiple_of(2) {
            return Err(Error::config("conv_kernel", conv_kernel, "expected an odd number"));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(Error::config("norm_eps", self.norm_eps, "expected 0 or more"));
        }
        match self.positions {
            Positions::RelativeKey { left, right } if left.max(right) > MAX_WIDTH => {
                let reason = format!("expected distances of at most {MAX_WIDTH}");
                return Err(Error::config("positions", format!("{left} and {right}"), reason));
            }
            Positions::Relative if !dim.is_multiple_of(2) => {
                return Err(Error::config("dim", dim, "expected an even number for relative positions"));
            }
            Positions::Rotary { base } if !(base.is_finite() && base > 0.0) => {
                return Err(Error::config("positions", base, "expected a base above 0"));
            }
            Positions::Rotary { .. } if !(dim / n_heads).is_multiple_of(2) => {
                return Err(Error::config(
                    "n_heads",
                    n_heads,
                    "expected a number for which dim / n_heads is even, for rotary positions",
                ));
            }
            _ => {}
        }
        let Some(AdapterConfig { dim, n_layers, kernel, stride, .. }) = self.adapter else { return Ok(()) };
        check::sizes([
            ("adapter.dim", dim, MAX_WIDTH),
            ("adapter.kernel", kernel, MAX_WIDTH),
            ("adapter.stride", stride, MAX_WIDTH),
        ])?;
        if n_layers > MAX_LAYERS {
            return Err(Error::config("adapter.n_layers", n_layers, format!("expected at most {MAX_LAYERS}")));
        }
        if !divides(dim) {
            return Err(Error::config("adapter.dim", dim, format!("expected a multiple of n_heads = {n_heads}")));
        }
        Ok(())
    }
}

impl AdapterConfig {
    /// Padding on each side, in steps.
    pub(super) fn padding(&self) -> usize {
        self.stride / 2
    }

    /// Number of valid steps after a layer. As in transformers, the padding here differs from that of the convolution.
    pub(super) fn length(&self, length: usize) -> usize {
        let padded = length + 2 * (self.kernel / 2);
        padded.saturating_sub(self.kernel) / self.stride + 1
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[(Self::W2V_BERT_2, "W2V-BERT 2.0, 580 M parameters")];

    fn name(&self) -> &str {
        &self.name
    }

    fn dim(&self) -> usize {
        self.output_dim()
    }

    const MODEL_TYPES: &'static [&'static str] = &["wav2vec2-bert"];

    fn from_hugging_face(config: &Value, preprocessor: Option<&Value>) -> Result<Self> {
        Self::from_hugging_face(config, preprocessor)
    }

    fn detect(weights: &Weights) -> Result<Self> {
        Self::from_weights(weights)
    }

    fn is_in(weights: &Weights) -> bool {
        let root = weights.loader(&Device::Cpu);
        place(&root).at("encoder.layers.0.conv_module.depthwise_conv").shape("weight").is_some()
    }

    fn build(&self, root: &Loader) -> Result<Box<dyn SpeechEncoder>> {
        Ok(Box::new(W2vBertEncoder::build(self, root)?))
    }
}
