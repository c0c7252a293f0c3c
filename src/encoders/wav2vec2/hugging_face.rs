//! Configuration files of transformers: `config.json` and `preprocessor_config.json`.

use serde::Deserialize;
use serde_json::Value;

use super::config::{Config, ConvLayer, ConvNorm, PositionBias};
use crate::error::{Error, Result};

/// The fields of a `config.json` that describe the encoder. Missing fields have the defaults of transformers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Fields {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    layer_norm_eps: f64,
    feat_extract_norm: ConvNorm,
    feat_extract_activation: String,
    feat_proj_layer_norm: bool,
    conv_dim: Vec<usize>,
    conv_kernel: Vec<usize>,
    conv_stride: Vec<usize>,
    conv_bias: bool,
    num_conv_pos_embeddings: usize,
    num_conv_pos_embedding_groups: usize,
    conv_pos_batch_norm: bool,
    num_buckets: usize,
    max_bucket_distance: usize,
    do_stable_layer_norm: bool,
    adapter_attn_dim: Option<usize>,
    add_adapter: bool,
}

impl Default for Fields {
    fn default() -> Self {
        let Config { dim, n_blocks, n_heads, ffn_dim, convs, position_kernel, position_groups, .. } = Config::BASE;
        Self {
            hidden_size: dim,
            num_hidden_layers: n_blocks,
            num_attention_heads: n_heads,
            intermediate_size: ffn_dim,
            hidden_act: "gelu".to_string(),
            layer_norm_eps: 1e-5,
            feat_extract_norm: ConvNorm::Group,
            feat_extract_activation: "gelu".to_string(),
            feat_proj_layer_norm: true,
            conv_dim: convs.iter().map(|conv| conv.channels).collect(),
            conv_kernel: convs.iter().map(|conv| conv.kernel).collect(),
            conv_stride: convs.iter().map(|conv| conv.stride).collect(),
            conv_bias: false,
            num_conv_pos_embeddings: position_kernel,
            num_conv_pos_embedding_groups: position_groups,
            conv_pos_batch_norm: false,
            num_buckets: PositionBias::WAVLM.n_buckets,
            max_bucket_distance: PositionBias::WAVLM.max_distance,
            do_stable_layer_norm: false,
            adapter_attn_dim: None,
            add_adapter: false,
        }
    }
}

impl Config {
    /// Reads the `config.json` of a folder saved by transformers (`model_type` `wav2vec2`, `hubert` or `wavlm`), and
    /// its `preprocessor_config.json`, which says whether clips are normalised (default: yes).
    ///
    /// # Errors
    /// [`Error::Config`] if a field has another type, or if a setting is not supported: activations other than GELU,
    /// another epsilon than 1e-5, convolutions after the blocks.
    pub fn from_hugging_face(config: &Value, preprocessor: Option<&Value>) -> Result<Self> {
        let fields: Fields = serde_json::from_value(config.clone())
            .map_err(|error| Error::config("config.json", "", error.to_string()))?;
        let refused = [
            ("hidden_act", fields.hidden_act != "gelu", "expected gelu"),
            ("feat_extract_activation", fields.feat_extract_activation != "gelu", "expected gelu"),
            ("layer_norm_eps", fields.layer_norm_eps != 1e-5, "expected 1e-5"),
            (
                "add_adapter",
                fields.add_adapter,
                "expected false, since convolutions after the encoder are not supported",
            ),
        ];
        if let Some((field, _, reason)) = refused.into_iter().find(|(_, refused, _)| *refused) {
            return Err(Error::config(field, config.get(field).unwrap_or(&Value::Null), reason));
        }
        let [dims, kernels, strides] = [&fields.conv_dim, &fields.conv_kernel, &fields.conv_stride];
        if [kernels.len(), strides.len()] != [dims.len(); 2] {
            let reason = format!("expected {} values in conv_kernel and conv_stride, one per convolution", dims.len());
            return Err(Error::config("conv_dim", format!("{dims:?}"), reason));
        }
        let convs = dims.iter().zip(kernels).zip(strides);
        let convs: Vec<ConvLayer> =
            convs.map(|((&channels, &kernel), &stride)| ConvLayer { channels, kernel, stride }).collect();
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let bias = PositionBias { n_buckets: fields.num_buckets, max_distance: fields.max_bucket_distance };
        let do_normalize = preprocessor.and_then(|preprocessor| preprocessor.get("do_normalize")?.as_bool());
        let sizes = Self {
            name: Self::family_name(),
            normalize: do_normalize.unwrap_or(true),
            convs: convs.into(),
            conv_norm: fields.feat_extract_norm,
            conv_bias: fields.conv_bias,
            projection_norm: fields.feat_proj_layer_norm,
            dim: fields.hidden_size,
            n_heads: fields.num_attention_heads,
            n_blocks: fields.num_hidden_layers,
            ffn_dim: fields.intermediate_size,
            position_kernel: fields.num_conv_pos_embeddings,
            position_groups: fields.num_conv_pos_embedding_groups,
            norm_first: fields.do_stable_layer_norm,
            // Only pre-norm blocks of wav2vec 2.0 and HuBERT have adapters, whatever the file says.
            adapter_dim: fields.adapter_attn_dim.filter(|_| fields.do_stable_layer_norm && model_type != "wavlm"),
            position_batch_norm: fields.conv_pos_batch_norm && model_type == "hubert",
            position_bias: (model_type == "wavlm").then_some(bias),
        };
        Ok(sizes.named())
    }
}
