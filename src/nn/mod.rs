//! Layers. Each is prepared once, at load: batch norm is folded, the activation belongs to the layer.
//!
//! A layer owns the choice of kernel, a model never sees it:
//!
//! | layer | on the CPU | elsewhere |
//! |---|---|---|
//! | [`Conv2d`], [`Conv1d`] | packed filters, in transformed (Winograd) or direct form; bias, activation, pooling on the way out | candle |
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
//! CPU kernels live in `kernels`, work on slices, and use the current rayon pool; their results do not depend on its
//! size nor on what else is in the batch.

mod attention;
mod conv;
mod kernels;
mod linear;
mod lp_pool;
mod map;
mod norm;
mod pool;
mod rnn;
mod training;
mod transformer;

pub use attention::SelfAttention;
pub use conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig};
pub use kernels::workspace::Workspace;
pub use linear::Linear;
pub use lp_pool::LpPool2d;
pub use map::FeatureMap;
pub(crate) use norm::normalized;
pub use norm::{BATCH_NORM_EPS, BatchNorm, ChannelAffine, LayerNorm};
pub use pool::{Pool1d, Pool2d, Pooling};
pub use rnn::{Cell, Rnn, RnnConfig, RnnState};
pub use training::Dropout;
pub use transformer::{NormPlace, TransformerBlock};

use candle_core::Tensor;
use kernels::lanes::{LANES, Lanes};

/// The function after a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// The value itself.
    Identity,
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `x`, times `slope` below 0.
    LeakyRelu {
        /// PyTorch's `negative_slope`.
        slope: f32,
    },
    /// `x Φ(x)`, the exact form with the error function (PyTorch's default).
    Gelu,
}

impl Activation {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu => kernels::math::relu(x),
            Self::LeakyRelu { slope } => kernels::math::leaky_relu(x, slope),
            Self::Gelu => kernels::math::gelu(x),
        }
    }

    /// On the lanes of a kernel.
    #[inline(always)]
    fn of<L: Lanes>(self, x: L) -> L {
        match self {
            Self::Identity => x,
            Self::Relu => x.relu(),
            _ => {
                let mut values = [0.0; LANES];
                x.store(&mut values, 0);
                self.apply_to(&mut values);
                L::load(&values, 0)
            }
        }
    }

    /// Out of line: it would be copied into every kernel.
    #[inline(never)]
    fn apply_to(self, values: &mut [f32; LANES]) {
        crate::simd::dispatch(
            #[inline(always)]
            || values.iter_mut().for_each(|x| *x = self.apply(*x)),
        );
    }

    fn forward(self, x: Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Identity => Ok(x),
            Self::Relu => x.relu(),
            Self::LeakyRelu { slope } => candle_nn::ops::leaky_relu(&x, f64::from(slope)),
            Self::Gelu => x.gelu_erf(),
        }
    }
}

/// Whether the kernels of this crate serve a tensor. They have no gradients.
fn has_kernels(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == candle_core::DType::F32 && !x.track_op()
}
