//! Sizes of Whisper's encoders, and their detection in checkpoints.

use std::borrow::Cow;

use candle_core::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::names::{Names, place};
use super::{STRIDE, WhisperEncoder};
use crate::check::{self, MAX_LAYERS, MAX_WIDTH};
use crate::encoders::SpeechEncoder;
use crate::encoders::family::Family;
use crate::error::{Error, Result};
use crate::frontend::WhisperMelConfig;
use crate::weights::{Loader, Weights};

/// Limit on the number of positions: 11 minutes.
const MAX_POSITIONS: usize = 1 << 15;
/// Width of an attention head in all published sizes.
const HEAD_DIM: usize = 64;

/// Configuration of a Whisper encoder. Presets are the published sizes; English-only models have the same ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of the preset, or a custom name. Default when read from a file: `whisper`.
    #[serde(default = "whisper")]
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
    /// Maximum number of frames, 50 per second; 1 to 32,768, and at most 2^24 / `dim`.
    pub n_positions: usize,
    /// Whether clips are padded with zeros to `n_positions` frames, as in the original. Default when read from a file:
    /// false.
    #[serde(default)]
    pub pad: bool,
    /// Whether the result includes the hidden states of that padding. Default when read from a file: false.
    #[serde(default)]
    pub keep_padding: bool,
}

/// The family's name.
fn whisper() -> Cow<'static, str> {
    Cow::Borrowed("whisper")
}

impl Config {
    /// Whisper tiny: 8.2 M parameters.
    pub const TINY: Self = Self {
        name: Cow::Borrowed("whisper-tiny"),
        n_mels: 80,
        dim: 384,
        n_heads: 6,
        n_blocks: 4,
        ffn_dim: 1536,
        n_positions: 1500,
        pad: false,
        keep_padding: false,
    };
    /// Whisper base: 20.6 M parameters.
    pub const BASE: Self =
        Self { name: Cow::Borrowed("whisper-base"), dim: 512, n_heads: 8, n_blocks: 6, ffn_dim: 2048, ..Self::TINY };
    /// Whisper small: 88.2 M parameters.
    pub const SMALL: Self =
        Self { name: Cow::Borrowed("whisper-small"), dim: 768, n_heads: 12, n_blocks: 12, ffn_dim: 3072, ..Self::TINY };
    /// Whisper medium: 307 M parameters.
    pub const MEDIUM: Self = Self {
        name: Cow::Borrowed("whisper-medium"),
        dim: 1024,
        n_heads: 16,
        n_blocks: 24,
        ffn_dim: 4096,
        ..Self::TINY
    };
    /// Whisper large and large-v2: 637 M parameters.
    pub const LARGE: Self = Self {
        name: Cow::Borrowed("whisper-large"),
        dim: 1280,
        n_heads: 20,
        n_blocks: 32,
        ffn_dim: 5120,
        ..Self::TINY
    };
    /// Whisper large-v3, and its turbo, which has the same encoder: 637 M parameters.
    pub const LARGE_V3: Self = Self { name: Cow::Borrowed("whisper-large-v3"), n_mels: 128, ..Self::LARGE };

    /// Detects the sizes from the tensors of a checkpoint. Heads are assumed to have 64 values each.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] if the checkpoint has no Whisper encoder.
    pub fn from_weights(weights: &Weights) -> Result<Self> {
        Self::from_place(&place(&weights.loader(&Device::Cpu)))
    }

    /// Detects the sizes from the tensors below a prefix.
    pub(in crate::encoders) fn from_place(place: &Loader) -> Result<Self> {
        let unknown = || Error::UnknownModel("expected a checkpoint of a Whisper encoder".to_string());
        let names = Names::detect(place);
        let block = |index: usize| place.at(names.blocks).at(index);
        let (Some(&[dim, n_mels, _]), Some(&[ffn_dim, _])) =
            (place.shape("conv1.weight"), block(0).at(names.fc1).shape("weight"))
        else {
            return Err(unknown());
        };
        let n_blocks = (0..).take_while(|&index| block(index).at(names.fc1).shape("weight").is_some()).count();
        let n_positions = match place.shape(names.positions) {
            Some(&[n_positions, _]) => n_positions,
            _ => Self::TINY.n_positions,
        };
        let n_heads = (dim / HEAD_DIM).max(1);
        Ok(Self { n_mels, dim, n_heads, n_blocks, ffn_dim, n_positions, ..Self::unnamed() }.named())
    }

    /// A configuration with the family's name, whose sizes are to be replaced.
    pub(super) fn unnamed() -> Self {
        Self { name: whisper(), ..Self::TINY }
    }

    /// Sets the name of the preset with these sizes, if there is one.
    pub(super) fn named(self) -> Self {
        let is_preset = |preset: &&Self| **preset == Self { name: preset.name.clone(), ..self.clone() };
        let preset = Self::PRESETS.iter().map(|(preset, _)| preset).find(is_preset);
        preset.cloned().unwrap_or(self)
    }

    /// The settings of the front end.
    pub fn mel(&self) -> WhisperMelConfig {
        WhisperMelConfig { n_mels: self.n_mels, max_frames: self.n_positions.saturating_mul(STRIDE) }
    }

    pub(in crate::encoders) fn validate(&self) -> Result<()> {
        let Self { dim, n_heads, n_blocks, ffn_dim, n_positions, .. } = *self;
        check::sizes([
            ("dim", dim, MAX_WIDTH),
            ("n_blocks", n_blocks, MAX_LAYERS),
            ("ffn_dim", ffn_dim, MAX_WIDTH),
            ("n_positions", n_positions, MAX_POSITIONS),
        ])?;
        check::cells("n_positions", n_positions, dim)?;
        if !dim.is_multiple_of(2) || n_heads == 0 || !dim.is_multiple_of(n_heads) {
            return Err(Error::config(
                "n_heads",
                n_heads,
                format!("expected a divisor of dim = {dim}, which must be even"),
            ));
        }
        Ok(())
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::TINY, "encoder of Whisper tiny, 8.2 M parameters"),
        (Self::BASE, "encoder of Whisper base, 20.6 M parameters"),
        (Self::SMALL, "encoder of Whisper small, 88.2 M parameters"),
        (Self::MEDIUM, "encoder of Whisper medium, 307 M parameters"),
        (Self::LARGE, "encoder of Whisper large and large-v2, 637 M parameters"),
        (Self::LARGE_V3, "encoder of Whisper large-v3 and its turbo, 637 M parameters"),
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn is_in(weights: &Weights) -> bool {
        place(&weights.loader(&Device::Cpu)).shape("conv1.weight").is_some()
    }

    fn detect(weights: &Weights) -> Result<Self> {
        Self::from_weights(weights)
    }

    const MODEL_TYPES: &'static [&'static str] = &["whisper"];

    fn from_hugging_face(config: &Value, preprocessor: Option<&Value>) -> Result<Self> {
        Self::from_hugging_face(config, preprocessor)
    }

    fn build(&self, root: &Loader) -> Result<Box<dyn SpeechEncoder>> {
        Ok(Box::new(WhisperEncoder::build(self, root)?))
    }
}
