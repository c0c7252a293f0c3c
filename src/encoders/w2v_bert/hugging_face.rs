//! Configuration files of transformers: `config.json` and `preprocessor_config.json`.

use serde::Deserialize;
use serde_json::Value;

use super::config::{AdapterConfig, Config, Positions, w2v_bert};
use crate::error::{Error, Result};
use crate::frontend::{FbankConfig, SeamlessM4tConfig};
use crate::nn::Activation;

/// The fields of a `config.json` that describe the encoder. Missing fields have the defaults of transformers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Fields {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    feature_projection_input_dim: usize,
    hidden_act: String,
    layer_norm_eps: f32,
    position_embeddings_type: Option<String>,
    rotary_embedding_base: f64,
    left_max_position_embeddings: usize,
    right_max_position_embeddings: usize,
    conv_depthwise_kernel_size: usize,
    add_adapter: bool,
    adapter_kernel_size: usize,
    adapter_stride: usize,
    num_adapter_layers: usize,
    adapter_act: String,
    use_intermediate_ffn_before_adapter: bool,
    output_hidden_size: Option<usize>,
}

impl Default for Fields {
    fn default() -> Self {
        let Config { dim, n_blocks, n_heads, ffn_dim, norm_eps, conv_kernel, .. } = Config::W2V_BERT_2;
        Self {
            hidden_size: dim,
            num_hidden_layers: n_blocks,
            num_attention_heads: n_heads,
            intermediate_size: ffn_dim,
            feature_projection_input_dim: 160,
            hidden_act: "swish".to_string(),
            layer_norm_eps: norm_eps,
            position_embeddings_type: Some("relative_key".to_string()),
            rotary_embedding_base: 10_000.0,
            left_max_position_embeddings: 64,
            right_max_position_embeddings: 8,
            conv_depthwise_kernel_size: conv_kernel,
            add_adapter: false,
            adapter_kernel_size: 3,
            adapter_stride: 2,
            num_adapter_layers: 1,
            adapter_act: "relu".to_string(),
            use_intermediate_ffn_before_adapter: false,
            output_hidden_size: None,
        }
    }
}

/// The fields of a `preprocessor_config.json`, with the defaults of `SeamlessM4TFeatureExtractor`.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Preprocessor {
    num_mel_bins: usize,
    sampling_rate: u32,
    stride: usize,
    padding_value: f32,
}

impl Default for Preprocessor {
    fn default() -> Self {
        let SeamlessM4tConfig { fbank, stride, padding_value, .. } = SeamlessM4tConfig::SEAMLESS_M4T_16K;
        Self { num_mel_bins: fbank.n_mels, sampling_rate: fbank.sample_rate, stride, padding_value }
    }
}

fn activation(field: &'static str, name: &str) -> Result<Activation> {
    match name {
        "swish" | "silu" => Ok(Activation::Swish),
        "gelu" => Ok(Activation::Gelu),
        "relu" => Ok(Activation::Relu),
        _ => Err(Error::config(field, name, "expected swish, gelu or relu")),
    }
}

fn read<T: for<'a> Deserialize<'a>>(file: &'static str, value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|error| Error::config(file, "", error.to_string()))
}

impl Config {
    /// Reads the `config.json` of a folder saved by transformers (`model_type` `wav2vec2-bert`), and its
    /// `preprocessor_config.json`, which describes the features. Without the latter, they are those of the published
    /// model.
    ///
    /// # Errors
    /// [`Error::Config`] if a field has another type, if an activation is not supported, or if the width of the
    /// features differs from that of the front end.
    pub fn from_hugging_face(config: &Value, preprocessor: Option<&Value>) -> Result<Self> {
        let fields: Fields = read("config.json", config)?;
        let front_end = match preprocessor {
            Some(preprocessor) => {
                let Preprocessor { num_mel_bins, sampling_rate, stride, padding_value } =
                    read("preprocessor_config.json", preprocessor)?;
                let fbank = FbankConfig {
                    n_mels: num_mel_bins,
                    sample_rate: sampling_rate,
                    ..SeamlessM4tConfig::SEAMLESS_M4T_16K.fbank
                };
                SeamlessM4tConfig { fbank, stride, padding_value, ..SeamlessM4tConfig::SEAMLESS_M4T_16K }
            }
            None => Self::W2V_BERT_2.front_end,
        };
        let n_features = front_end.stride.saturating_mul(front_end.fbank.n_mels);
        if fields.feature_projection_input_dim != n_features {
            let reason = format!("expected {n_features}, the width of the features");
            return Err(Error::config("feature_projection_input_dim", fields.feature_projection_input_dim, reason));
        }
        let positions = match fields.position_embeddings_type.as_deref() {
            None => Positions::None,
            Some("relative_key") => Positions::RelativeKey {
                left: fields.left_max_position_embeddings,
                right: fields.right_max_position_embeddings,
            },
            Some("relative") => Positions::Relative,
            Some("rotary") => Positions::Rotary { base: fields.rotary_embedding_base },
            Some(other) => {
                let reason = "expected relative_key, relative, rotary or null";
                return Err(Error::config("position_embeddings_type", other, reason));
            }
        };
        if fields.use_intermediate_ffn_before_adapter && !fields.add_adapter {
            let reason = "expected false, since add_adapter is false";
            return Err(Error::config("use_intermediate_ffn_before_adapter", true, reason));
        }
        let adapter = match fields.add_adapter {
            true => Some(AdapterConfig {
                dim: fields.output_hidden_size.filter(|&dim| dim > 0).unwrap_or(fields.hidden_size),
                n_layers: fields.num_adapter_layers,
                kernel: fields.adapter_kernel_size,
                stride: fields.adapter_stride,
                activation: activation("adapter_act", &fields.adapter_act)?,
                feed_forward: fields.use_intermediate_ffn_before_adapter,
            }),
            false => None,
        };
        let sizes = Self {
            name: w2v_bert(),
            front_end,
            dim: fields.hidden_size,
            n_heads: fields.num_attention_heads,
            n_blocks: fields.num_hidden_layers,
            ffn_dim: fields.intermediate_size,
            activation: activation("hidden_act", &fields.hidden_act)?,
            norm_eps: fields.layer_norm_eps,
            positions,
            conv_kernel: fields.conv_depthwise_kernel_size,
            adapter,
        };
        Ok(sizes.named())
    }
}
