//! A transformer block, with the additions of WavLM and MMS.

use candle_core::Tensor;

use super::EPS;
use super::config::Config;
use super::names::Names;
use crate::encoders::checkpoint::self_attention;
use crate::error::Result;
use crate::nn::{Activation, DistanceGates, LayerNorm, Linear, NormPlace, TransformerBlock};
use crate::weights::{Init, Loader};

/// Initial weights and biases of adapters, as in transformers.
const INIT: [Init; 2] = [Init::Normal(0.02), Init::Constant(0.0)];

#[derive(Debug)]
pub(super) struct Block {
    transformer: TransformerBlock,
    gates: Option<DistanceGates>,
    adapter: Option<Adapter>,
}

impl Block {
    /// Reads the block, and its adapter from a separate loader.
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
        let gates = |_| DistanceGates::load(&attention, [names.gates, names.gate_constants], dim / n_heads, n_heads);
        let gates = config.position_bias.map(gates);
        let adapter = config.adapter_dim.map(|width| Adapter::load(adapter, dim, width));
        Ok(Self { transformer, gates: gates.transpose()?, adapter: adapter.transpose()? })
    }

    /// Runs `x` `[batch, n_frames, dim]`. `distances` are the scores from
    /// [`DistanceScores::of`](crate::nn::DistanceScores::of) for this number of frames.
    pub fn forward(&self, x: &Tensor, distances: Option<&Tensor>) -> Result<Tensor> {
        let y = match self.gates.as_ref().zip(distances) {
            Some((gates, distances)) => {
                self.transformer.forward_relative(x, None, &|x, _| gates.scores(distances, x))?
            }
            None => self.transformer.forward(x, None)?,
        };
        match &self.adapter {
            Some(adapter) => adapter.forward(&y),
            None => Ok(y),
        }
    }
}

/// The adapter of MMS, applied to the output of a block.
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
