//! Neural network layers. Each layer is prepared once, when it is loaded: batch norms are folded into the layer before
//! them, and activations are part of their layer.
//!
//! Each layer chooses its own kernel:
//!
//! | layer | on the CPU | on other devices |
//! |---|---|---|
//! | [`ConvStack`] | feature maps in blocks of sixteen channels throughout; packed filters for a Winograd, direct or depthwise kernel; bias, activation and pooling fused | candle |
//! | [`CausalDepthwiseConv`] | tasks of several frames, one channel block at a time | candle, tap by tap |
//! | [`GroupedConv1d`] | the packed product, with the taps of a group as its segments | candle |
//! | [`PatchEmbedding`] | [`Linear`] on patches | candle |
//! | [`Linear`], [`CausalConv1d`] | products with packed weights; each row independent of the batch | candle |
//! | [`LayerNorm`], [`gated`] | one pass | candle |
//! | [`SelfAttention`] | packed products on the projections in place, tasks of 48 queries | candle |
//! | [`Pool2d`], [`Pool1d`], [`LpPool2d`] | one pass, rows in parallel | candle |
//! | [`BatchNorm`] | one pass | candle |
//! | [`Rnn`] | one product for many frames, then a product with packed weights and fused gates per step; directions and sequences in parallel | candle, frame by frame |
//!
//! The loader decides which of three states a layer is in: packed for the CPU, tensors on a device, or in training.
//! Layers loaded from a [`Parameters`](crate::weights::Parameters) keep their tensors and use candle's differentiable
//! operations on every device, and so does everything after them. In training mode, batch norms use the
//! statistics of the batch and [`Dropout`] is active.
//!
//! The CPU kernels are in `kernels` and work on slices; `ops` wraps them as candle operations. They run on the current
//! rayon pool. Their results depend neither on the number of threads nor on the rest of the batch.

mod attention;
mod batch_norm;
mod batch_statistics;
mod causal_conv;
mod conv;
mod conv_stack;
mod depthwise;
mod distance;
mod dropout;
mod dynamic;
mod grouped_conv;
pub(crate) mod kernels;
mod layer_norm;
mod linear;
mod lp_pool;
mod map;
mod ops;
mod patches;
mod pool;
mod prepared;
mod relative;
mod rnn;
mod tcn;
mod transformer;

pub use attention::SelfAttention;
pub use batch_norm::BatchNorm;
pub use causal_conv::CausalConv1d;
pub use conv::{ConvAxis, ConvConfig};
pub use conv_stack::ConvStack;
pub use depthwise::{CausalDepthwiseConv, gated};
pub(crate) use distance::{DistanceGates, DistanceScores};
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
pub use patches::{PatchAxes, PatchConfig, PatchEmbedding};
pub use pool::{Pool, Pool1d, Pool2d};
pub use relative::RelativeScores;
pub use rnn::{Cell, Rnn, RnnConfig, RnnState};
pub use tcn::{Tcn, TcnConfig, TcnState};
pub use transformer::{NormPlace, TransformerBlock};
