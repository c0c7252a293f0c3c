//! Gated relative position bias in attention, as in WavLM and BEATs.
//!
//! Chi et al., "XLM-E", 2021 (arXiv 2106.16138); buckets as in Raffel et al., "T5", 2020 (arXiv 1910.10683).

use candle_core::Tensor;

use super::{Activation, Linear, RelativeScores};
use crate::error::{Context, Result};
use crate::weights::Loader;

/// Outputs of the gates' linear layer that are summed into one value.
const GATE_PARTS: usize = 4;

/// A table of position biases: one per head and bucket of distances between tokens.
#[derive(Debug)]
pub(crate) struct DistanceScores {
    /// `[n_buckets, n_heads]`.
    table: Tensor,
    n_buckets: usize,
    max_distance: usize,
}

impl DistanceScores {
    /// Reads the table `name` of `n_buckets` buckets, half of them for each direction. Distances from `max_distance` on
    /// share the last bucket.
    pub fn load(
        attention: &Loader,
        name: &str,
        (n_buckets, max_distance): (usize, usize),
        n_heads: usize,
    ) -> Result<Self> {
        Ok(Self { table: attention.get(name, (n_buckets, n_heads))?, n_buckets, max_distance })
    }

    /// The biases for all distances from `−(n_tokens − 1)` to `n_tokens − 1`, `[n_heads, 2 · n_tokens − 1]`.
    pub fn of(&self, n_tokens: usize) -> Result<Tensor> {
        let before = (1..n_tokens).rev().map(|distance| self.bucket(distance));
        let after = (1..n_tokens).map(|distance| self.bucket(distance) + self.n_buckets / 2);
        let buckets: Vec<u32> = before.chain([0]).chain(after).map(|bucket| bucket as u32).collect();
        let buckets = Tensor::new(buckets, self.table.device())?;
        Ok(self.table.index_select(&buckets, 0)?.t()?.contiguous()?)
    }

    /// The bucket of a distance: the first half of a direction's buckets hold one distance each, the others
    /// logarithmically growing ranges.
    fn bucket(&self, distance: usize) -> usize {
        let n_buckets = self.n_buckets / 2;
        let n_exact = n_buckets / 2;
        if distance < n_exact {
            return distance;
        }
        let octaves = |distance: usize| (distance as f64 / n_exact as f64).ln();
        let share = octaves(distance) / octaves(self.max_distance);
        (n_exact + (share * (n_buckets - n_exact) as f64) as usize).min(n_buckets - 1)
    }
}

/// The gate of a query in each head, by which the position biases are multiplied: `a (b c − 1) + 2`, where `a` and `b`
/// are sigmoids of linear functions of the head's query vector, and `c` is a constant of the head.
#[derive(Debug)]
pub(crate) struct DistanceGates {
    linear: Linear,
    constants: Tensor, // [n_heads]
}

impl DistanceGates {
    /// Reads the linear layer `names[0]` and the constants `names[1]`.
    pub fn load(attention: &Loader, names: [&str; 2], head_dim: usize, n_heads: usize) -> Result<Self> {
        let linear = attention.at(names[0]);
        // Only sums over `GATE_PARTS` outputs are used, so the weights are summed once at load.
        let sums = |values: Vec<f32>, width: usize| -> Vec<f32> {
            let sum = |rows: &[f32]| -> Vec<f32> {
                (0..width)
                    .map(|i| rows.iter().skip(i).step_by(width).map(|&x| f64::from(x)).sum::<f64>() as f32)
                    .collect()
            };
            values.chunks(GATE_PARTS * width).flat_map(sum).collect()
        };
        let weight = sums(linear.get_vec("weight", &[2 * GATE_PARTS, head_dim])?, head_dim);
        let bias = sums(linear.get_vec("bias", &[2 * GATE_PARTS])?, 1);
        let constants = attention.get(names[1], (1, n_heads, 1, 1))?;
        Ok(Self {
            linear: Linear::from_matrix(weight, bias, Activation::Identity, &attention.clone().in_f32())?,
            constants: constants.flatten_all().context("flattening the constants of the position gates")?,
        })
    }

    /// The scores to add to those of attention: `distances` from [`DistanceScores::of`], gated by the query vectors `x`
    /// `[batch, n_tokens, dim]`, heads side by side.
    pub fn scores(&self, distances: &Tensor, x: &Tensor) -> Result<RelativeScores> {
        RelativeScores::gated(distances, &self.forward(x)?, distances.dim(1)? / 2)
    }

    /// The gates `[batch, n_tokens, n_heads]` of `x` `[batch, n_tokens, dim]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, n_tokens, dim) = x.dims3()?;
        let n_heads = self.constants.elem_count();
        let x = x.reshape((batch, n_tokens, n_heads, dim / n_heads))?;
        let x = candle_nn::ops::sigmoid(&self.linear.forward(&x)?)?; // [batch, n_tokens, n_heads, 2]
        let part = |index: usize| x.narrow(3, index, 1)?.squeeze(3);
        Ok((((part(1)?.broadcast_mul(&self.constants)? - 1.0)? * part(0)?)? + 2.0)?)
    }
}
