//! Names of the tensors in checkpoints.

use crate::encoders::checkpoint;
use crate::weights::Loader;

/// Prefixes of the encoder's tensors in checkpoints.
const PLACES: [&str; 5] = ["wav2vec2", "hubert", "wavlm", "encoder", "w2v_encoder.w2v_model"];
/// Tensors of pre-training, which are ignored.
const PRETRAINING: [&str; 8] = [
    "quantizer.*",
    "project_hid.*",
    "project_q.*",
    "final_proj.*",
    "masked_spec_embed",
    "mask_emb",
    "label_embs_concat",
    "layer_norm_for_extract.*",
];

/// Names of the tensors, below the encoder's prefix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    /// The convolution, below `feature_extractor.conv_layers.N`.
    pub conv: &'static str,
    /// Its norms: over time, and over channels.
    pub conv_norms: [&'static str; 2],
    pub projection_norm: &'static str,
    pub projection: &'static str,
    /// The convolution over positions: with weight norm, and with a batch norm before it.
    pub positions: [&'static str; 2],
    pub positions_norm: &'static str,
    /// Below `encoder.layers.N`, like the following ones.
    pub attention: &'static str,
    pub norm1: &'static str,
    pub fc1: &'static str,
    pub fc2: &'static str,
    /// Below the attention: the table of distances, the linear layer of the gates and their constants.
    pub distances: &'static str,
    pub gates: &'static str,
    pub gate_constants: &'static str,
}

impl Names {
    const HUGGING_FACE: Self = Self {
        conv: "conv",
        conv_norms: ["layer_norm"; 2],
        projection_norm: "feature_projection.layer_norm",
        projection: "feature_projection.projection",
        positions: ["encoder.pos_conv_embed.conv"; 2],
        positions_norm: "encoder.pos_conv_embed.batch_norm",
        attention: "attention",
        norm1: "layer_norm",
        fc1: "feed_forward.intermediate_dense",
        fc2: "feed_forward.output_dense",
        distances: "rel_attn_embed.weight",
        gates: "gru_rel_pos_linear",
        gate_constants: "gru_rel_pos_const",
    };
    const FAIRSEQ: Self = Self {
        conv: "0",
        conv_norms: ["2", "2.1"],
        projection_norm: "layer_norm",
        projection: "post_extract_proj",
        positions: ["encoder.pos_conv.0", "encoder.pos_conv.1"],
        positions_norm: "encoder.pos_conv.0",
        attention: "self_attn",
        norm1: "self_attn_layer_norm",
        fc1: "fc1",
        fc2: "fc2",
        distances: "relative_attention_bias.weight",
        gates: "grep_linear",
        gate_constants: "grep_a",
    };

    /// The names that the checkpoint uses below this prefix.
    pub fn detect(place: &Loader) -> Self {
        if is_fairseq(place) { Self::FAIRSEQ } else { Self::HUGGING_FACE }
    }
}

/// Whether the checkpoint has fairseq's names below this prefix.
pub(super) fn is_fairseq(place: &Loader) -> bool {
    place.shape("feature_extractor.conv_layers.0.0.weight").is_some()
}

/// The loader below the encoder's prefix in a checkpoint.
pub(super) fn place<'a>(root: &Loader<'a>) -> Loader<'a> {
    checkpoint::place(root, &PLACES, is_here)
}

/// Whether the encoder is below this prefix.
pub(super) fn is_here(place: &Loader) -> bool {
    is_fairseq(place) || place.shape("feature_extractor.conv_layers.0.conv.weight").is_some()
}

/// Ignores the tensors of pre-training.
pub(super) fn ignore_pretraining(root: &Loader, place: &Loader) {
    for rest in PRETRAINING {
        root.ignore(rest);
        place.ignore(rest);
    }
}
