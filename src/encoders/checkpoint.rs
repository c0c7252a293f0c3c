//! Shared code for loading encoders of published models.

use crate::error::{Error, Result};
use crate::nn::{Activation, Linear, SelfAttention};
use crate::weights::{Loader, Matrix, Target};

/// An error if the loader would create trainable tensors, which encoders of published models do not support.
pub fn refuse_training(root: &Loader, encoder: &str) -> Result<()> {
    match root.target() {
        Target::Training(_) => {
            let reason = "expected a loader of a checkpoint: this encoder cannot be trained, but a head on it can, \
                          with CtcModel::build_on";
            Err(Error::config("encoder", encoder, reason))
        }
        Target::Kernels | Target::Device => Ok(()),
    }
}

/// The loader below the first of `places` that `is_here` accepts, otherwise `root`.
pub fn place<'a>(root: &Loader<'a>, places: &[&str], is_here: impl Fn(&Loader) -> bool) -> Loader<'a> {
    places.iter().map(|name| root.at(name)).find(is_here).unwrap_or_else(|| root.clone())
}

/// Self-attention with separate tensors for queries, keys, values and the output projection. `biases` states which of
/// the first three have one. Keys need none: it would add the same value to all scores of a query.
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
