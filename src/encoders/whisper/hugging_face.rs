//! Configuration files of transformers: `config.json` and `preprocessor_config.json`.

use serde::Deserialize;
use serde_json::Value;

use super::config::Config;
use crate::error::{Error, Result};

/// The fields of a `config.json` that describe the encoder.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    num_mel_bins: Option<usize>,
    d_model: Option<usize>,
    encoder_layers: Option<usize>,
    encoder_attention_heads: Option<usize>,
    encoder_ffn_dim: Option<usize>,
    max_source_positions: Option<usize>,
    activation_function: Option<String>,
}

impl Config {
    /// Reads the `config.json` of a folder saved by transformers (`model_type` `whisper`), and its
    /// `preprocessor_config.json`. Clips are [padded](Self::pad), as in transformers.
    ///
    /// # Errors
    /// [`Error::Config`] if a field has another type, if the activation is not GELU, or if the preprocessor normalises
    /// clips or has another number of mel filters.
    pub fn from_hugging_face(config: &Value, preprocessor: Option<&Value>) -> Result<Self> {
        let sizes = Self::sizes_in(config, Self::unnamed())?;
        let of_preprocessor = |name: &str| preprocessor.and_then(|preprocessor| preprocessor.get(name));
        if of_preprocessor("do_normalize").and_then(Value::as_bool) == Some(true) {
            return Err(Error::config("do_normalize", true, "expected false, since Whisper does not normalise clips"));
        }
        if let Some(size) = of_preprocessor("feature_size").filter(|size| **size != sizes.n_mels) {
            return Err(Error::config("feature_size", size, format!("expected num_mel_bins = {}", sizes.n_mels)));
        }
        Ok(Self { pad: true, ..sizes.named() })
    }

    /// The sizes in a configuration of transformers; missing ones are those of `defaults`.
    ///
    /// # Errors
    /// [`Error::Config`] if a field has another type, or if the activation is not GELU.
    pub(in crate::encoders) fn sizes_in(config: &Value, defaults: Self) -> Result<Self> {
        let fields =
            Fields::deserialize(config).map_err(|error| Error::config("config.json", "", error.to_string()))?;
        if let Some(activation) = fields.activation_function.filter(|activation| activation != "gelu") {
            return Err(Error::config("activation_function", activation, "expected gelu"));
        }
        Ok(Self {
            n_mels: fields.num_mel_bins.unwrap_or(defaults.n_mels),
            dim: fields.d_model.unwrap_or(defaults.dim),
            n_heads: fields.encoder_attention_heads.unwrap_or(defaults.n_heads),
            n_blocks: fields.encoder_layers.unwrap_or(defaults.n_blocks),
            ffn_dim: fields.encoder_ffn_dim.unwrap_or(defaults.ffn_dim),
            n_positions: fields.max_source_positions.unwrap_or(defaults.n_positions),
            ..defaults
        })
    }
}
