//! The function after a layer.

use super::simd::lanes::{CHANNEL_BLOCK, Lanes};
use super::simd::{dispatch, math};

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
    /// `x`, and `e^x − 1` below 0 (PyTorch's `ELU` with its default α of 1).
    Elu,
}

impl Activation {
    #[inline(always)]
    pub(in super::super) fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu => math::relu(x),
            Self::LeakyRelu { slope } => math::leaky_relu(x, slope),
            Self::Gelu => math::gelu(x),
            Self::Elu if x < 0.0 => x.exp_m1(),
            Self::Elu => x,
        }
    }

    /// The same on lanes.
    #[inline(always)]
    pub(super) fn apply_lanes<L: Lanes>(self, x: L) -> L {
        match self {
            Self::Identity => x,
            Self::Relu => x.relu(),
            Self::Elu => math::elu(x),
            _ => {
                let mut values = [0.0; CHANNEL_BLOCK];
                x.store(&mut values, 0);
                self.apply_to(&mut values);
                L::load(&values, 0)
            }
        }
    }

    /// Out of line, or every kernel would hold a copy.
    #[inline(never)]
    fn apply_to(self, values: &mut [f32; CHANNEL_BLOCK]) {
        dispatch(
            #[inline(always)]
            || values.iter_mut().for_each(|x| *x = self.apply(*x)),
        );
    }
}
