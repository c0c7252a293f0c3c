//! The three states of a layer.

/// The weights of a layer in the form that computes with them. [`Loader::target`](crate::weights::Loader::target) decides
/// which, once, at load.
#[derive(Debug)]
pub(super) enum Prepared<P, D, T = D> {
    /// Packed for the kernels, which run f32 tensors on the CPU that need no gradients.
    Packed(P),
    /// Tensors on another device, with batch norms folded in.
    OnDevice(D),
    /// The tensors that are trained, as they are.
    Training(T),
}
