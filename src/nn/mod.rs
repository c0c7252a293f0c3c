//! Layers. Each is prepared once, at load: batch norm is folded, the activation belongs to the layer.
//!
//! A layer owns the choice of kernel, a model never sees it:
//!
//! | layer | on the CPU | elsewhere |
//! |---|---|---|
//! | [`Conv2d`], [`Conv1d`] | packed filters, in Winograd or direct form; bias, activation, pooling on the way out | candle |
//! | [`Linear`] | products on packed weights; rows independent of the batch | candle |
//! | [`LayerNorm`] | one pass | candle |
//! | [`SelfAttention`] | matrix products on the projections where they lie, tasks of 64 queries | candle |
//! | [`Pool2d`], [`Pool1d`] | one pass, channels in parallel | candle |
//! | [`ChannelAffine`] | one pass | candle |
//! | [`LpPool2d`] | one pass, channels in parallel | candle |
//! | [`Rnn`] | one product for many frames, then per step a product with packed weights and fused gates; directions and sequences in parallel | candle, frame by frame |
//!
//! Convolutions hand each other [`FeatureMap`]s, which lie in blocks of sixteen channels on the CPU; memory comes from a
//! model's [`Workspace`] and goes back there.
//!
//! Layers that are loaded from a [`Trainable`](crate::weights::Trainable) keep their tensors as they are and use candle's
//! differentiable operations on every device; so does everything after them. In its training mode batch norms use the
//! statistics of the batch and [`Dropout`] drops.
//!
//! CPU kernels live in `kernels`; they work on slices, and `ops` gives them to candle as operations on tensors. They use the current rayon pool; their results do not depend on its
//! size nor on what else is in the batch.

mod attention;
mod conv;
pub(crate) mod kernels;
mod linear;
mod lp_pool;
mod map;
mod norm;
mod ops;
mod pool;
mod rnn;
mod training;
mod transformer;

pub use attention::SelfAttention;
pub use conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig};
pub use kernels::activation::Activation;
pub use kernels::pooling::Pooling;
pub use kernels::workspace::Workspace;
pub use linear::Linear;
pub use lp_pool::LpPool2d;
pub use map::FeatureMap;
pub(crate) use norm::normalized;
pub use norm::{BATCH_NORM_EPS, BatchNorm, ChannelAffine, LayerNorm};
pub use pool::{Pool1d, Pool2d};
pub use rnn::{Cell, Rnn, RnnConfig, RnnState};
pub use training::Dropout;
pub use transformer::{NormPlace, TransformerBlock};
