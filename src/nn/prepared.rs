//! The three states of a layer's weights.

use super::kernels::matmul::panels::Storage;
use crate::weights::Precision;

/// The weights of a layer in the form in which they are used. [`Loader::target`](crate::weights::Loader::target)
/// selects the form once, at load.
#[derive(Debug)]
pub(super) enum Prepared<P, D, T = D> {
    /// Packed for the CPU kernels, for f32 tensors without gradients.
    Packed(P),
    /// Tensors on another device, with batch norms folded in.
    OnDevice(D),
    /// Trainable tensors, unchanged.
    Training(T),
}

/// How a precision stores packed weights in floating point.
pub(super) fn storage_of(precision: Precision) -> Storage {
    match precision {
        Precision::F16Weights => Storage::F16,
        Precision::F32 | Precision::Int8 => Storage::F32,
    }
}
