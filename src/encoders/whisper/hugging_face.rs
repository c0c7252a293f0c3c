//! The configuration files of transformers: `config.json` and `preprocessor_config.json`.

use serde::Deserialize;
use serde_json::Value;

use super::config::Config;
use crate::error::{Error, Result};

/// What a `config.json` says about the encoder; missing fields mean what transformers means by them.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Fields {
    num_mel_bins: usize,
    d_model: usize,
    encoder_layers: usize,
    encoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    max_source_positions: usize,
    activation_function: String,
}

impl Default for Fields {
    fn default() -> Self {
        let Config { n_mels, dim, n_blocks, n_heads, ffn_dim, n_positions, .. } = Config::TINY;
        Self {
            num_mel_bins: n_mels,
            d_model: dim,
            encoder_layers: n_blocks,
            encoder_attention_heads: n_heads,
            encoder_ffn_dim: ffn_dim,
            max_source_positions: n_positions,
            activation_function: "gelu".to_string(),
        }
    }
}

impl Config {
    /// From the `config.json` of a folder of transformers (`model_type` `whisper`), and its `preprocessor_config.json`. Clips are
    /// [padded](Self::pad), as transformers does.
    ///
    /// # Errors
    /// [`Error::Config`] for a field of another type, for other activations, and for a preprocessor that normalises clips or has
    /// another number of mel filters.
    pub fn from_hugging_face(config: &Value, preprocessor: Option<&Value>) -> Result<Self> {
        let fields =
            Fields::deserialize(config).map_err(|error| Error::config("config.json", "", error.to_string()))?;
        if fields.activation_function != "gelu" {
            return Err(Error::config("activation_function", fields.activation_function, "expected gelu"));
        }
        let of_preprocessor = |name: &str| preprocessor.and_then(|preprocessor| preprocessor.get(name));
        if of_preprocessor("do_normalize").and_then(Value::as_bool) == Some(true) {
            return Err(Error::config("do_normalize", true, "expected false: clips are not normalised for Whisper"));
        }
        if let Some(size) = of_preprocessor("feature_size").filter(|size| **size != fields.num_mel_bins) {
            return Err(Error::config(
                "feature_size",
                size,
                format!("expected num_mel_bins = {}", fields.num_mel_bins),
            ));
        }
        let sizes = Self {
            n_mels: fields.num_mel_bins,
            dim: fields.d_model,
            n_heads: fields.encoder_attention_heads,
            n_blocks: fields.encoder_layers,
            ffn_dim: fields.encoder_ffn_dim,
            n_positions: fields.max_source_positions,
            ..Self::unnamed()
        };
        Ok(Self { pad: true, ..sizes.named() })
    }
}
