//! The adapter, which shortens the sequence after the blocks.

use candle_core::Tensor;

use super::block::FeedForward;
use super::config::{AdapterConfig, Config};
use crate::encoders::checkpoint::self_attention;
use crate::error::{Error, Result};
use crate::nn::{Activation, ConvConfig, ConvStack, LayerNorm, Linear, SelfAttention, gated};
use crate::weights::Loader;

/// Optionally half a feed-forward layer and a projection to another width, then strided layers.
#[derive(Debug)]
pub struct Adapter {
    config: AdapterConfig,
    feed_forward: Option<FeedForward>,
    projection: Option<(Linear, LayerNorm)>,
    layers: Vec<Layer>,
}

impl Adapter {
    pub fn load(place: &Loader, config: &Config, adapter: &AdapterConfig) -> Result<Self> {
        let (dim, eps) = (adapter.dim, config.norm_eps);
        let sizes = [config.dim, config.ffn_dim];
        let feed_forward = match adapter.feed_forward {
            true => Some(FeedForward::load(&place.at("intermediate_ffn"), None, sizes, Activation::Relu, 0.5)?),
            false => None,
        };
        let place = place.at("adapter");
        let projection = match dim == config.dim {
            true => None,
            false => Some((
                Linear::load(&place.at("proj"), config.dim, dim, Activation::Identity)?,
                LayerNorm::load(&place.at("proj_layer_norm"), dim, eps)?,
            )),
        };
        let layer = |index: usize| Layer::load(&place.at("layers").at(index), config, adapter);
        Ok(Self {
            config: adapter.clone(),
            feed_forward,
            projection,
            layers: (0..adapter.n_layers).map(layer).collect::<Result<_>>()?,
        })
    }

    /// Shortens `x` `[batch, n_steps, dim]`, whose first `lengths[b]` steps belong to clip `b`. Returns the shorter
    /// sequences and their lengths. Convolutions also use the steps beyond the lengths.
    pub fn forward(&self, mut x: Tensor, mut lengths: Vec<usize>) -> Result<(Tensor, Vec<usize>)> {
        if let Some(feed_forward) = &self.feed_forward {
            x = feed_forward.forward_add(&x)?;
        }
        if let Some((linear, norm)) = &self.projection {
            x = norm.forward(&linear.forward(&x)?)?;
        }
        for layer in &self.layers {
            lengths.iter_mut().for_each(|length| *length = self.config.length(*length));
            x = layer.forward(&x, &lengths)?;
        }
        let n_steps = x.dim(1)?;
        Ok((x, lengths.into_iter().map(|length| length.min(n_steps)).collect()))
    }
}

/// Strided gated convolutions, attention on one of them, a feed-forward layer.
#[derive(Debug)]
struct Layer {
    residual_norm: LayerNorm,
    residual_conv: ConvStack,
    attention_norm: LayerNorm,
    attention_conv: ConvStack,
    attention: SelfAttention,
    feed_forward: FeedForward,
}

impl Layer {
    fn load(place: &Loader, config: &Config, adapter: &AdapterConfig) -> Result<Self> {
        let AdapterConfig { dim, kernel, stride, activation, .. } = *adapter;
        let norm = |name: &str| LayerNorm::load(&place.at(name), dim, config.norm_eps);
        let shape =
            ConvConfig { stride, padding: adapter.padding(), bias: true, ..ConvConfig::new(dim, 2 * dim, kernel) };
        let conv = |name: &str| {
            let mut conv = ConvStack::on_sequences();
            conv.conv(&place.at(name), None, shape, Activation::Identity)?;
            Ok::<_, Error>(conv)
        };
        let attention = place.at("self_attn");
        let projections = ["linear_q", "linear_k", "linear_v", "linear_out"].map(|name| attention.at(name));
        let ffn_norm = norm("ffn_layer_norm")?;
        Ok(Self {
            residual_norm: norm("residual_layer_norm")?,
            residual_conv: conv("residual_conv")?,
            attention_norm: norm("self_attn_layer_norm")?,
            attention_conv: conv("self_attn_conv")?,
            attention: self_attention(projections, dim, config.n_heads, [true; 3])?,
            feed_forward: FeedForward::load(&place.at("ffn"), Some(ffn_norm), [dim, config.ffn_dim], activation, 1.0)?,
        })
    }

    /// `lengths` are those of the result.
    fn forward(&self, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let conv = |norm: &LayerNorm, conv: &ConvStack| gated(&conv.forward_vectors(&norm.forward(x)?, None)?);
        let residual = conv(&self.residual_norm, &self.residual_conv)?;
        let y = conv(&self.attention_norm, &self.attention_conv)?;
        let n_steps = y.dim(1)?;
        let lengths: Vec<usize> = lengths.iter().map(|&length| length.min(n_steps)).collect();
        let y = self.attention.forward_add(&y, Some(&lengths), &residual)?;
        self.feed_forward.forward_add(&y)
    }
}
