//! Layers. Each is prepared once, at load: batch norm is folded, the activation belongs to the layer.
//!
//! A layer owns the choice of kernel, a model never sees it:
//!
//! | layer | on the CPU | elsewhere |
//! |---|---|---|
//! | [`ConvStack`] | maps in blocks of sixteen channels from layer to layer; packed filters, in Winograd, direct or depthwise form; bias, activation, pooling on the way out | candle |
//! | [`CausalDepthwiseConv`] | a block of channels of some frames at a time | candle, tap by tap |
//! | [`GroupedConv1d`] | the same product, with the taps of a group as its segments | candle |
//! | [`Linear`] | products on packed weights; rows independent of the batch | candle |
//! | [`LayerNorm`], [`gated`] | one pass | candle |
//! | [`SelfAttention`] | matrix products on the projections where they lie, tasks of 64 queries | candle |
//! | [`Pool2d`], [`Pool1d`], [`LpPool2d`] | one pass, rows in parallel | candle |
//! | [`BatchNorm`] | one pass | candle |
//! | [`Rnn`] | one product for many frames, then per step a product with packed weights and fused gates; directions and sequences in parallel | candle, frame by frame |
//!
//! A layer is in one of three states, which its loader decides: packed for the CPU, as tensors on a device, or in training.
//! Layers that are loaded from a [`Parameters`](crate::weights::Parameters) keep their tensors as they are and use candle's
//! differentiable operations on every device; so does everything after them. In its training mode batch norms use the
//! statistics of the batch and [`Dropout`] drops.
//!
//! CPU kernels live in `kernels`; they work on slices, and `ops` gives them to candle as operations on tensors. They use the
//! current rayon pool; their results do not depend on its size nor on what else is in the batch.

mod attention;
mod batch_norm;
mod batch_statistics;
mod conv;
mod conv_stack;
mod depthwise;
mod dropout;
mod dynamic;
mod grouped_conv;
pub(crate) mod kernels;
mod layer_norm;
mod linear;
mod lp_pool;
mod map;
mod ops;
mod pool;
mod prepared;
mod relative;
mod rnn;
mod transformer;

pub use attention::SelfAttention;
pub use batch_norm::BatchNorm;
pub use conv::{ConvAxis, ConvConfig};
pub use conv_stack::ConvStack;
pub use depthwise::{CausalDepthwiseConv, gated};
pub use dropout::Dropout;
pub use dynamic::DynamicBlock;
pub use grouped_conv::GroupedConv1d;
pub use kernels::activation::Activation;
pub use kernels::pooling::Pooling;
pub use layer_norm::LayerNorm;
pub(crate) use layer_norm::normalized;
pub use linear::Linear;
pub use lp_pool::LpPool2d;
pub(crate) use map::mask;
pub use pool::{Pool, Pool1d, Pool2d};
pub use relative::RelativeScores;
pub use rnn::{Cell, Rnn, RnnConfig, RnnState};
pub use transformer::{NormPlace, TransformerBlock};
