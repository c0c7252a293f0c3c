//! Sizes of Qwen2-Audio's audio tower, and their detection in checkpoints.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Qwen2AudioEncoder, place, tower_place};
use crate::check::{self, MAX_WIDTH};
use crate::encoders::family::Family;
use crate::encoders::{SpeechEncoder, whisper};
use crate::error::{Error, Result};
use crate::weights::{Loader, Weights};

/// Configuration of the audio tower of Qwen2-Audio.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of the preset, or a custom name. Default when read from a file: `qwen2-audio`.
    #[serde(default = "qwen2_audio")]
    pub name: Cow<'static, str>,
    /// Number of mel filters of the front end.
    pub n_mels: usize,
    /// Width of a hidden state: even, 2 to 65,536.
    pub dim: usize,
    /// Number of attention heads; must divide `dim`.
    pub n_heads: usize,
    /// Number of transformer blocks, 1 to 1,024.
    pub n_blocks: usize,
    /// Width of the feed-forward layers, 1 to 65,536.
    pub ffn_dim: usize,
    /// Maximum number of tokens, 50 per second; 2 to 32,768, and at most 2^24 / `dim`.
    pub n_positions: usize,
    /// Width of the projection to the language model, 1 to 65,536. Default when read from a file: no projection.
    #[serde(default)]
    pub projection: Option<usize>,
}

/// The family's name.
fn qwen2_audio() -> Cow<'static, str> {
    Cow::Borrowed("qwen2-audio")
}

/// The `model_type` of the audio tower alone.
const ENCODER: &str = "qwen2_audio_encoder";

impl Config {
    /// Qwen2-Audio 7B and its Instruct form: 637 M parameters in the audio tower, 5.2 M in the projection.
    pub const BASE: Self = Self {
        name: Cow::Borrowed("qwen2-audio"),
        n_mels: 128,
        dim: 1280,
        n_heads: 20,
        n_blocks: 32,
        ffn_dim: 5120,
        n_positions: 1500,
        projection: Some(4096),
    };

    /// Reads the `config.json` of a folder saved by transformers: `model_type` `qwen2_audio` (the whole model) or
    /// `qwen2_audio_encoder` (without projection).
    ///
    /// # Errors
    /// [`Error::Config`] if a field has another type, or if the activation is not GELU.
    pub fn from_hugging_face(config: &Value) -> Result<Self> {
        let is_encoder = config.get("model_type").and_then(Value::as_str) == Some(ENCODER);
        let empty = Value::Object(serde_json::Map::new());
        let part = |name: &str| config.get(name).filter(|part| !part.is_null()).unwrap_or(&empty);
        let audio = if is_encoder { config } else { part("audio_config") };
        let tower = whisper::Config::sizes_in(audio, Self::BASE.tower())?;
        let width = match part("text_config").get("hidden_size") {
            None => Self::BASE.projection,
            Some(width) => Some(
                width
                    .as_u64()
                    .and_then(|width| usize::try_from(width).ok())
                    .ok_or_else(|| Error::config("text_config.hidden_size", width, "expected a number"))?,
            ),
        };
        Ok(Self::of(&tower, width.filter(|_| !is_encoder)))
    }

    /// Detects the sizes from the tensors of a checkpoint. Heads are assumed to have 64 values each.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] if the checkpoint has no audio tower of Qwen2-Audio.
    pub fn from_weights(weights: &Weights) -> Result<Self> {
        let place = place(&weights.loader(&Device::Cpu));
        let tower = whisper::Config::from_place(&tower_place(&place)).map_err(|_| {
            Error::UnknownModel("expected a checkpoint with the audio tower of Qwen2-Audio".to_string())
        })?;
        let projection = match place.at("multi_modal_projector.linear").shape("weight") {
            Some(&[width, _]) => Some(width),
            _ => None,
        };
        Ok(Self::of(&tower, projection))
    }

    /// The configuration with the sizes of an audio tower.
    fn of(tower: &whisper::Config, projection: Option<usize>) -> Self {
        let whisper::Config { n_mels, dim, n_heads, n_blocks, ffn_dim, n_positions, .. } = *tower;
        Self { name: qwen2_audio(), n_mels, dim, n_heads, n_blocks, ffn_dim, n_positions, projection }
    }

    /// The audio tower, as a Whisper encoder.
    pub(super) fn tower(&self) -> whisper::Config {
        let Self { n_mels, dim, n_heads, n_blocks, ffn_dim, n_positions, .. } = *self;
        whisper::Config {
            name: self.name.clone(),
            n_mels,
            dim,
            n_heads,
            n_blocks,
            ffn_dim,
            n_positions,
            pad: true,
            keep_padding: false,
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        check::size("projection", self.projection.unwrap_or(1), MAX_WIDTH)?;
        if self.n_positions < 2 {
            return Err(Error::config("n_positions", self.n_positions, "expected at least 2, the tokens of one frame"));
        }
        self.tower().validate()
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] =
        &[(Self::BASE, "audio tower of Qwen2-Audio 7B, 642 M parameters with the projection")];

    fn name(&self) -> &str {
        &self.name
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn detect(weights: &Weights) -> Result<Self> {
        Self::from_weights(weights)
    }

    const MODEL_TYPES: &'static [&'static str] = &["qwen2_audio", ENCODER];

    fn from_hugging_face(config: &Value, _preprocessor: Option<&Value>) -> Result<Self> {
        Self::from_hugging_face(config)
    }

    fn is_in(weights: &Weights) -> bool {
        let place = place(&weights.loader(&Device::Cpu));
        tower_place(&place).shape("embed_positions.weight").is_some()
    }

    fn build(&self, root: &Loader) -> Result<Box<dyn SpeechEncoder>> {
        Ok(Box::new(Qwen2AudioEncoder::build(self, root)?))
    }
}
