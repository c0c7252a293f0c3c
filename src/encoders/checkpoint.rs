//! What encoders of published models share when they are loaded.

use crate::error::{Error, Result};
use crate::nn::{Activation, Linear, SelfAttention};
use crate::weights::{Loader, Matrix, Target};

/// An error if the loader would create new tensors to train, which encoders of published models do not support.
pub fn refuse_training(root: &Loader, encoder: &str) -> Result<()> {
    match root.target() {
        Target::Training(_) => {
            let reason = "comes from a checkpoint; what stands on top of it can be trained, with CtcModel::build_on";
            Err(Error::config("encoder", encoder, reason))
        }
        Target::Kernels | Target::Device => Ok(()),
    }
}

/// Where an encoder stands in a checkpoint: the first of `places` that `is_here` accepts, else the root.
pub fn place<'a>(root: &Loader<'a>, places: &[&str], is_here: impl Fn(&Loader) -> bool) -> Loader<'a> {
    places.iter().map(|name| root.at(name)).find(is_here).unwrap_or_else(|| root.clone())
}

/// Self-attention with a tensor for each projection: queries, keys, values and the result. `biases` says which of the first
/// three have one. Keys need none: it would add the same to all scores of a query.
pub(crate) fn self_attention(
    projections: [Loader; 4],
    dim: usize,
    n_heads: usize,
    biases: [bool; 3],
) -> Result<SelfAttention> {
    let [query, key, value, output] = projections;
    let (mut weights, mut bias) = (Vec::new(), Vec::new());
    for (projection, has_bias) in [&query, &key, &value].into_iter().zip(biases) {
        weights.push(projection.matrix("weight", [dim, dim])?);
        match has_bias {
            true => bias.extend(projection.get_vec("bias", &[dim])?),
            false => bias.resize(bias.len() + dim, 0.0),
        }
    }
    let qkv = Linear::from_matrix(Matrix::join(weights), bias, Activation::Identity, &query)?;
    SelfAttention::new(qkv, Linear::load(&output, dim, dim, Activation::Identity)?, n_heads)
}
