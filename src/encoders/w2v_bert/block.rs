//! The Conformer block.

use candle_core::{Device, Tensor};

use super::config::{Config, Positions};
use crate::encoders::checkpoint::self_attention;
use crate::error::{Context, Result};
use crate::nn::{Activation, CausalDepthwiseConv, LayerNorm, Linear, RelativeScores, SelfAttention, gated, mask};
use crate::weights::Loader;

/// A Conformer block: half a feed-forward layer, attention, convolution, half a feed-forward layer, each with a norm
/// before it and a residual connection; then a norm.
#[derive(Debug)]
pub struct Block {
    feed_forward_1: FeedForward,
    attention_norm: LayerNorm,
    attention: Attention,
    conv: Convolution,
    feed_forward_2: FeedForward,
    norm: LayerNorm,
}

impl Block {
    pub fn load(place: &Loader, config: &Config) -> Result<Self> {
        let Config { dim, norm_eps, activation, .. } = *config;
        let feed_forward = |name: &str| {
            let norm = LayerNorm::load(&place.at(format!("{name}_layer_norm")), dim, norm_eps)?;
            FeedForward::load(&place.at(name), Some(norm), [dim, config.ffn_dim], activation, 0.5)
        };
        Ok(Self {
            feed_forward_1: feed_forward("ffn1")?,
            attention_norm: LayerNorm::load(&place.at("self_attn_layer_norm"), dim, norm_eps)?,
            attention: Attention::load(&place.at("self_attn"), config)?,
            conv: Convolution::load(&place.at("conv_module"), config)?,
            feed_forward_2: feed_forward("ffn2")?,
            norm: LayerNorm::load(&place.at("final_layer_norm"), dim, norm_eps)?,
        })
    }

    /// Maps `x` `[batch, n_steps, dim]` to the same shape. The first `lengths[b]` steps belong to clip `b`.
    pub fn forward(&self, x: &Tensor, lengths: Option<&[usize]>, tables: &Tables) -> Result<Tensor> {
        let x = self.feed_forward_1.forward_add(x)?;
        let x = self.attention.forward_add(&self.attention_norm.forward(&x)?, lengths, tables, &x)?;
        let x = self.conv.forward_add(&x, lengths)?;
        self.norm.forward(&self.feed_forward_2.forward_add(&x)?)
    }
}

/// A feed-forward layer: two linear layers with an activation in between.
#[derive(Debug)]
pub struct FeedForward {
    norm: Option<LayerNorm>,
    fc1: Linear,
    fc2: Linear,
}

impl FeedForward {
    /// `[dim, width]` are outer and inner width. `factor` scales the result; a power of two does not round the weights.
    pub fn load(
        place: &Loader,
        norm: Option<LayerNorm>,
        [dim, width]: [usize; 2],
        activation: Activation,
        factor: f32,
    ) -> Result<Self> {
        let output = place.at("output_dense");
        let scaled = |name: &str, shape: &[usize]| {
            let mut values = output.get_vec(name, shape)?;
            values.iter_mut().for_each(|x| *x *= factor);
            Ok::<_, crate::error::Error>(values)
        };
        let (weight, bias) = (scaled("weight", &[dim, width])?, scaled("bias", &[dim])?);
        Ok(Self {
            norm,
            fc1: Linear::load(&place.at("intermediate_dense"), dim, width, activation)?,
            fc2: Linear::from_matrix(weight, bias, Activation::Identity, place)?,
        })
    }

    /// `x + factor · linear(activation(linear(norm(x))))`.
    pub fn forward_add(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.norm.as_ref().map(|norm| norm.forward(x)).transpose()?;
        self.fc2.forward_add(&self.fc1.forward(normed.as_ref().unwrap_or(x))?, x)
    }
}

/// A linear layer without bias, stored as a convolution with kernel 1.
fn pointwise(place: &Loader, inputs: usize, outputs: usize) -> Result<Linear> {
    let weight = place.get_vec("weight", &[outputs, inputs, 1])?;
    Linear::from_matrix(weight, vec![0.0; outputs], Activation::Identity, place)
}

/// The convolution module of a Conformer block.
#[derive(Debug)]
struct Convolution {
    norm: LayerNorm,
    widen: Linear,
    depthwise: CausalDepthwiseConv,
    depthwise_norm: LayerNorm,
    activation: Activation,
    output: Linear,
}

impl Convolution {
    fn load(place: &Loader, config: &Config) -> Result<Self> {
        let Config { dim, norm_eps, activation, conv_kernel, .. } = *config;
        Ok(Self {
            norm: LayerNorm::load(&place.at("layer_norm"), dim, norm_eps)?,
            widen: pointwise(&place.at("pointwise_conv1"), dim, 2 * dim)?,
            depthwise: CausalDepthwiseConv::load(&place.at("depthwise_conv"), dim, conv_kernel)?,
            depthwise_norm: LayerNorm::load(&place.at("depthwise_layer_norm"), dim, norm_eps)?,
            activation,
            output: pointwise(&place.at("pointwise_conv2"), dim, dim)?,
        })
    }

    fn forward_add(&self, x: &Tensor, lengths: Option<&[usize]>) -> Result<Tensor> {
        let mut y = self.norm.forward(x)?;
        if let Some(lengths) = lengths {
            y = mask(&y, lengths)?;
        }
        let y = self.depthwise.forward(&gated(&self.widen.forward(&y)?)?)?;
        self.output.forward_add(&self.depthwise_norm.forward_with(&y, self.activation)?, x)
    }
}

/// Position tables of a batch, shared by all blocks.
pub enum Tables {
    None,
    /// Sinusoids of the distances, beginning with the farthest key before the query: `[1, 2 · n_steps − 1, dim]`.
    Relative(Tensor),
    /// `[n_steps, 1, head_dim]`.
    Rotary {
        cos: Tensor,
        sin: Tensor,
    },
}

impl Tables {
    pub fn new(config: &Config, n_steps: usize, device: &Device) -> Result<Self> {
        Self::compute(config, n_steps, device).context("computing position tables")
    }

    /// Angles are products in f32, as in transformers.
    fn compute(config: &Config, n_steps: usize, device: &Device) -> candle_core::Result<Self> {
        let dim = config.dim;
        Ok(match config.positions {
            Positions::Relative => {
                let step = -(10_000f64.ln() / dim as f64) as f32;
                let frequencies: Vec<f32> = (0..dim / 2).map(|i| (2.0 * i as f32 * step).exp()).collect();
                let distances = (0..2 * n_steps - 1).map(|i| n_steps as f32 - 1.0 - i as f32);
                let pair = |angle: f32| [f64::from(angle).sin() as f32, f64::from(angle).cos() as f32];
                let values = distances.flat_map(|distance| frequencies.iter().flat_map(move |f| pair(distance * f)));
                let table = Tensor::from_iter(values.collect::<Vec<_>>(), device)?;
                Self::Relative(table.reshape((1, 2 * n_steps - 1, dim))?)
            }
            Positions::Rotary { base } => {
                let head_dim = dim / config.n_heads;
                let frequency =
                    |i: usize| 1.0 / (base as f32).powf((2 * (i % (head_dim / 2))) as f32 / head_dim as f32);
                let angles: Vec<f32> =
                    (0..n_steps * head_dim).map(|i| (i / head_dim) as f32 * frequency(i % head_dim)).collect();
                let table = |f: fn(f64) -> f64| {
                    let values = angles.iter().map(|&angle| f(f64::from(angle)) as f32);
                    Tensor::from_iter(values, device)?.reshape((n_steps, 1, head_dim))
                };
                Self::Rotary { cos: table(f64::cos)?, sin: table(f64::sin)? }
            }
            Positions::None | Positions::RelativeKey { .. } => Self::None,
        })
    }
}

/// Self-attention with position embeddings.
#[derive(Debug)]
struct Attention {
    attention: SelfAttention,
    n_heads: usize,
    positions: Scores,
}

/// How positions enter the attention scores.
#[derive(Debug)]
enum Scores {
    /// Not at all (positions are in the input, or there are none).
    None,
    /// Products of the query with embeddings of the distances, divided by √head_dim.
    Key { products: Linear, left: usize },
    /// Products with projected sinusoids of the distances.
    Relative {
        projection: Linear,
        /// Bias of the queries for the products with keys, `[3 · dim]`; 0 for keys and values.
        content: Tensor,
        /// Added to these queries for the products with distances: `[n_heads, head_dim]`.
        distance: Tensor,
    },
}

impl Attention {
    fn load(place: &Loader, config: &Config) -> Result<Self> {
        let Config { dim, n_heads, .. } = *config;
        let head_dim = dim / n_heads;
        let projections = ["linear_q", "linear_k", "linear_v", "linear_out"].map(|name| place.at(name));
        let positions = match config.positions {
            Positions::None | Positions::Rotary { .. } => Scores::None,
            Positions::RelativeKey { left, right } => {
                let n_distances = left + right + 1;
                let mut vectors = place.at("distance_embedding").get_vec("weight", &[n_distances, head_dim])?;
                vectors.iter_mut().for_each(|x| *x /= (head_dim as f32).sqrt());
                Scores::Key {
                    products: Linear::from_matrix(
                        vectors,
                        vec![0.0; n_distances],
                        Activation::Identity,
                        &place.clone().in_f32(),
                    )?,
                    left,
                }
            }
            Positions::Relative => {
                let weight = place.at("linear_pos").get_vec("weight", &[dim, dim])?;
                let [u, v] = ["pos_bias_u", "pos_bias_v"].map(|name| place.get(name, (n_heads, head_dim)));
                let (u, v) = (u?, v?);
                let content = || u.flatten_all()?.pad_with_zeros(0, 0, 2 * dim);
                Scores::Relative {
                    projection: Linear::from_matrix(
                        weight,
                        vec![0.0; dim],
                        Activation::Identity,
                        &place.clone().in_f32(),
                    )?,
                    content: content().context("loading position biases")?,
                    distance: (v - u).context("loading position biases")?,
                }
            }
        };
        Ok(Self { attention: self_attention(projections, dim, n_heads, [true; 3])?, n_heads, positions })
    }

    fn forward_add(&self, x: &Tensor, lengths: Option<&[usize]>, tables: &Tables, residual: &Tensor) -> Result<Tensor> {
        let mut qkv = self.attention.project(x)?; // [batch, n_steps, 3 · dim]
        let (batch, n_steps, dim) = x.dims3().context("reading the shape of the attention's input")?;
        if let Tables::Rotary { cos, sin } = tables {
            let rotated = self.attention.project(&self.rotate(x, cos, sin).context("rotating queries and keys")?)?;
            let parts = || Tensor::cat(&[rotated.narrow(2, 0, 2 * dim)?, qkv.narrow(2, 2 * dim, dim)?], 2);
            qkv = parts().context("rotating queries and keys")?;
        }
        let relative = match (&self.positions, tables) {
            (Scores::Key { products, left }, _) => {
                let queries = || qkv.narrow(2, 0, dim)?.reshape((batch, n_steps * self.n_heads, ()));
                let rows = products.forward(&queries().context("computing relative positions")?)?;
                let rows = rows.reshape((batch, n_steps, self.n_heads, ())).context("computing relative positions")?;
                Some(RelativeScores::new(&rows, *left)?)
            }
            (Scores::Relative { projection, content, distance }, Tables::Relative(sinusoids)) => {
                let context = "computing relative positions";
                qkv = qkv.broadcast_add(content).context(context)?;
                let distances = projection.forward(sinusoids)?;
                let rows =
                    self.rows(&qkv.narrow(2, 0, dim).context(context)?, distance, &distances).context(context)?;
                Some(RelativeScores::new(&rows, n_steps - 1)?)
            }
            _ => None,
        };
        self.attention.forward_projected(&qkv, lengths, relative.as_ref(), residual)
    }

    /// Products of queries `[batch, n_steps, dim]` with `distances` `[1, n_distances, dim]`, per head and divided by
    /// √head_dim: `[batch, n_steps, n_heads, n_distances]`.
    fn rows(&self, queries: &Tensor, bias: &Tensor, distances: &Tensor) -> candle_core::Result<Tensor> {
        let heads = |x: &Tensor| x.reshape((x.dim(0)?, x.dim(1)?, self.n_heads, ()));
        let queries = heads(queries)?.broadcast_add(bias)?.transpose(1, 2)?.contiguous()?;
        let distances = heads(distances)?.permute((0, 2, 3, 1))?.contiguous()?;
        let scale = 1.0 / (queries.dim(3)? as f64).sqrt();
        (queries.broadcast_matmul(&distances)? * scale)?.transpose(1, 2)
    }

    /// Rotates the input by its positions, per head.
    fn rotate(&self, x: &Tensor, cos: &Tensor, sin: &Tensor) -> candle_core::Result<Tensor> {
        let heads = x.reshape((x.dim(0)?, x.dim(1)?, self.n_heads, ()))?;
        let halves = heads.chunk(2, 3)?;
        let turned = Tensor::cat(&[&halves[1].neg()?, &halves[0]], 3)?;
        (heads.broadcast_mul(cos)? + turned.broadcast_mul(sin)?)?.reshape(x.shape())
    }
}
