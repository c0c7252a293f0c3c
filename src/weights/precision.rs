//! The precision in which layers compute.

use serde::{Deserialize, Serialize};

/// The precision in which the layers of a model store their weights and compute, on the CPU.
///
/// Set it when a model is opened: [`OpenOptions::precision`](crate::OpenOptions#structfield.precision), or
/// [`Weights::with_precision`](super::Weights::with_precision). Its names are those of the variants in snake case,
/// such as `int8`.
///
/// On other devices, only [`F32`](Self::F32) is available: loading in another precision is an error there. So is
/// loading a model without a layer that has the precision, such as a recurrent one. Training is always in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// 8-bit integers: weights with one scale per output, activations with one scale per row, which is computed from
    /// each row. Products are summed exactly in 32-bit integers. The layers' results do not depend on the instruction
    /// set. A row with a NaN or infinite value gives NaN.
    ///
    /// This applies to linear layers and 1x1 convolutions that are large enough to gain. The rest stays in f32: attention
    /// scores, norms, other convolutions, recurrent layers, patch and position embeddings, squeeze-and-excitation, and
    /// the last layer, which computes the scores. 8-bit weights of a checkpoint are used as stored (`x` with `x.scale`, as in
    /// [`weights`](super)); others are rounded when they are loaded.
    ///
    /// See `docs/performance.md` for the accuracy and speed of some models.
    Int8,
    /// The weights of large layers in f16, which halves the memory for them; everything is computed in f32. Large layers
    /// are 3x3 convolutions with more than 3 · 2^20 weights, and other convolutions (but depthwise, grouped, causal and
    /// dynamic ones) and fully connected layers with at least 2^18. A layer with a weight beyond the range of f16 stays
    /// in f32.
    F16Weights,
}
