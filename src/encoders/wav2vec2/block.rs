//! A transformer block, and what WavLM and MMS add to it.

use candle_core::Tensor;

use super::EPS;
use super::config::{Config, PositionBias};
use super::names::Names;
use crate::encoders::checkpoint::self_attention;
use crate::error::{Context, Result};
use crate::nn::{Activation, LayerNorm, Linear, NormPlace, RelativeScores, TransformerBlock};
use crate::weights::{Init, Loader};

/// New weights and biases of adapters, as transformers has them.
const INIT: [Init; 2] = [Init::Normal(0.02), Init::Constant(0.0)];
/// Values of the gates' linear layer that are summed into one.
const GATE_PARTS: usize = 4;

#[derive(Debug)]
pub(super) struct Block {
    transformer: TransformerBlock,
    gates: Option<Gates>,
    adapter: Option<Adapter>,
}

impl Block {
    /// Reads the block, and its adapter from a place of its own.
    pub fn load(place: &Loader, adapter: &Loader, names: &Names, config: &Config) -> Result<Self> {
        let Config { dim, n_heads, ffn_dim, .. } = *config;
        let attention = place.at(names.attention);
        let projections = ["q_proj", "k_proj", "v_proj", "out_proj"].map(|name| attention.at(name));
        let transformer = TransformerBlock {
            place: if config.norm_first { NormPlace::Before } else { NormPlace::After },
            norm1: LayerNorm::load(&place.at(names.norm1), dim, EPS)?,
            attention: self_attention(projections, dim, n_heads, [true; 3])?,
            norm2: LayerNorm::load(&place.at("final_layer_norm"), dim, EPS)?,
            fc1: Linear::load(&place.at(names.fc1), dim, ffn_dim, Activation::Gelu)?,
            fc2: Linear::load(&place.at(names.fc2), ffn_dim, dim, Activation::Identity)?,
            dropout: None,
        };
        let gates = config.position_bias.map(|_| Gates::load(&attention, names, dim / n_heads, n_heads));
        let adapter = config.adapter_dim.map(|width| Adapter::load(adapter, dim, width));
        Ok(Self { transformer, gates: gates.transpose()?, adapter: adapter.transpose()? })
    }

    /// `x` `[batch, n_frames, dim]`; `distances` are the scores of [`Distances::scores`] for this many frames.
    pub fn forward(&self, x: &Tensor, distances: Option<&Tensor>) -> Result<Tensor> {
        let y = match self.gates.as_ref().zip(distances) {
            Some((gates, distances)) => self.transformer.forward_relative(x, None, &|x| {
                RelativeScores::gated(distances, &gates.forward(x)?, distances.dim(1)? / 2)
            })?,
            None => self.transformer.forward(x, None)?,
        };
        match &self.adapter {
            Some(adapter) => adapter.forward(&y),
            None => Ok(y),
        }
    }
}

/// What MMS adds to a block's output.
#[derive(Debug)]
struct Adapter {
    norm: LayerNorm,
    linear_1: Linear,
    linear_2: Linear,
}

impl Adapter {
    fn load(weights: &Loader, dim: usize, adapter_dim: usize) -> Result<Self> {
        Ok(Self {
            norm: LayerNorm::load(&weights.at("norm"), dim, EPS)?,
            linear_1: Linear::load_with(&weights.at("linear_1"), dim, adapter_dim, Activation::Relu, INIT)?,
            linear_2: Linear::load_with(&weights.at("linear_2"), adapter_dim, dim, Activation::Identity, INIT)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward_add(&self.linear_1.forward(&self.norm.forward(x)?)?, x)
    }
}

/// How much of the distances' scores a query takes in each head: `a (b c − 1) + 2`, where `a` and `b` are sigmoids of linear
/// functions of the query's frame and `c` is a constant of the head.
#[derive(Debug)]
struct Gates {
    linear: Linear,
    constants: Tensor, // [n_heads]
}

impl Gates {
    fn load(attention: &Loader, names: &Names, head_dim: usize, n_heads: usize) -> Result<Self> {
        let linear = attention.at(names.gates);
        // Only sums over `GATE_PARTS` outputs are used: the layer that gives them at once.
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
        let constants = attention.get(names.gate_constants, (1, n_heads, 1, 1))?;
        Ok(Self {
            linear: Linear::from_matrix(weight, bias, Activation::Identity, attention)?,
            constants: constants.flatten_all().context("reading the constants of gates")?,
        })
    }

    /// The attention's input `[batch, n_frames, dim]` to `[batch, n_frames, n_heads]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, n_frames, dim) = x.dims3()?;
        let n_heads = self.constants.elem_count();
        let x = x.reshape((batch, n_frames, n_heads, dim / n_heads))?;
        let x = candle_nn::ops::sigmoid(&self.linear.forward(&x)?)?; // [batch, n_frames, n_heads, 2]
        let part = |index: usize| x.narrow(3, index, 1)?.squeeze(3);
        Ok((((part(1)?.broadcast_mul(&self.constants)? - 1.0)? * part(0)?)? + 2.0)?)
    }
}

/// A score per head and bucket of distances between frames.
#[derive(Debug)]
pub(super) struct Distances {
    /// `[n_buckets, n_heads]`.
    table: Tensor,
    bias: PositionBias,
}

impl Distances {
    /// Reads the table, which stands in the attention of the first block.
    pub fn load(attention: &Loader, names: &Names, bias: PositionBias, n_heads: usize) -> Result<Self> {
        Ok(Self { table: attention.get(names.distances, (bias.n_buckets, n_heads))?, bias })
    }

    /// The scores of all distances from `−(n_frames − 1)` on, `[n_heads, 2 · n_frames − 1]`.
    pub fn scores(&self, n_frames: usize) -> Result<Tensor> {
        let before = (1..n_frames).rev().map(|distance| self.bucket(distance));
        let after = (1..n_frames).map(|distance| self.bucket(distance) + self.bias.n_buckets / 2);
        let buckets: Vec<u32> = before.chain([0]).chain(after).map(|bucket| bucket as u32).collect();
        let buckets = Tensor::new(buckets, self.table.device())?;
        Ok(self.table.index_select(&buckets, 0)?.t()?.contiguous()?)
    }

    /// One bucket per distance in the first half of a direction's buckets, then ever longer ranges (Raffel et al., "T5", 2020,
    /// arXiv 1910.10683).
    fn bucket(&self, distance: usize) -> usize {
        let n_buckets = self.bias.n_buckets / 2;
        let n_exact = n_buckets / 2;
        if distance < n_exact {
            return distance;
        }
        let octaves = |distance: usize| (distance as f64 / n_exact as f64).ln();
        let share = octaves(distance) / octaves(self.bias.max_distance);
        (n_exact + (share * (n_buckets - n_exact) as f64) as usize).min(n_buckets - 1)
    }
}
