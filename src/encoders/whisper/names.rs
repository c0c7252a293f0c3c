//! Names of the tensors in checkpoints.

use crate::encoders::checkpoint;
use crate::weights::Loader;

/// Prefixes of the encoder's tensors in checkpoints.
const PLACES: [&str; 5] = ["encoder", "model.encoder", "whisper.encoder", "encoder.encoder", "audio_encoder"];

/// Names of the tensors, below the encoder's prefix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub positions: &'static str,
    pub blocks: &'static str,
    pub norm1: &'static str,
    pub attention: &'static str,
    /// Queries, keys, values and the output projection.
    pub projections: [&'static str; 4],
    pub norm2: &'static str,
    pub fc1: &'static str,
    pub fc2: &'static str,
    pub norm: &'static str,
}

impl Names {
    pub const OPENAI: Self = Self {
        positions: "positional_embedding",
        blocks: "blocks",
        norm1: "attn_ln",
        attention: "attn",
        projections: ["query", "key", "value", "out"],
        norm2: "mlp_ln",
        fc1: "mlp.0",
        fc2: "mlp.2",
        norm: "ln_post",
    };
    const HUGGING_FACE: Self = Self {
        positions: "embed_positions.weight",
        blocks: "layers",
        norm1: "self_attn_layer_norm",
        attention: "self_attn",
        projections: ["q_proj", "k_proj", "v_proj", "out_proj"],
        norm2: "final_layer_norm",
        fc1: "fc1",
        fc2: "fc2",
        norm: "layer_norm",
    };

    pub fn detect(place: &Loader) -> Self {
        let is_openai = place.shape("blocks.0.mlp.0.weight").is_some();
        if is_openai { Self::OPENAI } else { Self::HUGGING_FACE }
    }
}

/// The loader below the encoder's prefix in a checkpoint.
pub(super) fn place<'a>(root: &Loader<'a>) -> Loader<'a> {
    let is_here = |place: &Loader| place.shape("conv1.weight").is_some() && place.shape("conv2.weight").is_some();
    checkpoint::place(root, &PLACES, is_here)
}
