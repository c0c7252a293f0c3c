//! Activation functions.

use serde::{Deserialize, Serialize};

use super::simd::isa::{Isa, SimdOp};
use super::simd::lanes::{CHANNEL_BLOCK, Lanes, map_lanes};
use super::simd::math;

/// The activation function of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x`.
    Identity,
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `x` for `x ≥ 0`, otherwise `slope · x`.
    LeakyRelu {
        /// PyTorch's `negative_slope`.
        slope: f32,
    },
    /// `x Φ(x)`, the exact form with the error function (PyTorch's default).
    Gelu,
    /// `x / (1 + e^-x)` (PyTorch's `SiLU`).
    Swish,
    /// `x` for `x ≥ 0`, otherwise `e^x − 1` (PyTorch's `ELU` with its default α of 1).
    Elu,
    /// `min(max(x, 0), 6)`; NaN stays NaN.
    Relu6,
    /// `min(max(x + 3, 0), 6) / 6`; NaN stays NaN.
    Hardsigmoid,
    /// `x min(max(x + 3, 0), 6) / 6`.
    Hardswish,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
}

impl Activation {
    // No branch may call `apply`: LLVM does not inline a function that calls itself, and loops over it stay scalar.
    #[inline(always)]
    pub(in super::super) fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu => math::relu(x),
            Self::LeakyRelu { slope } => math::leaky_relu(x, slope),
            Self::Gelu => math::gelu(x),
            Self::Swish => x / (1.0 + (-x).exp()),
            Self::Elu if x < 0.0 => x.exp_m1(),
            Self::Elu => x,
            Self::Relu6 => math::clamp(x, 0.0, 6.0),
            Self::Hardsigmoid => math::clamp(x + 3.0, 0.0, 6.0) * (1.0 / 6.0),
            Self::Hardswish => x * (math::clamp(x + 3.0, 0.0, 6.0) * (1.0 / 6.0)),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }

    /// Applies the function to each value.
    #[inline(always)]
    pub fn apply_all<L: Lanes>(self, values: &mut [f32]) {
        match self {
            Self::Identity => {}
            Self::Relu => values.iter_mut().for_each(|x| *x = Self::Relu.apply(*x)),
            Self::LeakyRelu { .. } | Self::Elu => values.iter_mut().for_each(|x| *x = self.apply(*x)),
            Self::Relu6 => values.iter_mut().for_each(|x| *x = Self::Relu6.apply(*x)),
            Self::Hardsigmoid => values.iter_mut().for_each(|x| *x = Self::Hardsigmoid.apply(*x)),
            Self::Hardswish => values.iter_mut().for_each(|x| *x = Self::Hardswish.apply(*x)),
            Self::Gelu => values.iter_mut().for_each(|x| *x = Self::Gelu.apply(*x)),
            Self::Swish => map_lanes(
                [],
                [values],
                #[inline(always)]
                |[]: [L; 0], [x]| [x.mul(math::sigmoid(x))],
            ),
            Self::Sigmoid => map_lanes(
                [],
                [values],
                #[inline(always)]
                |[]: [L; 0], [x]| [math::sigmoid(x)],
            ),
        }
    }

    /// Applies the function to each lane.
    #[inline(always)]
    pub(super) fn apply_lanes<L: Lanes>(self, x: L) -> L {
        match self {
            Self::Identity => x,
            Self::Relu => x.relu(),
            Self::Elu => math::elu(x),
            Self::Relu6 => x.relu().at_most(L::splat(6.0)),
            Self::Hardsigmoid => hardsigmoid(x),
            Self::Hardswish => x.mul(hardsigmoid(x)),
            _ => {
                let mut values = [0.0; CHANNEL_BLOCK];
                x.store(&mut values, 0);
                apply_to(self, &mut values);
                L::load(&values, 0)
            }
        }
    }
}

#[inline(always)]
fn hardsigmoid<L: Lanes>(x: L) -> L {
    x.add(L::splat(3.0)).relu().at_most(L::splat(6.0)).mul(L::splat(1.0 / 6.0))
}

/// Not inlined, because every kernel would hold a copy.
#[inline(never)]
fn apply_to(activation: Activation, values: &mut [f32; CHANNEL_BLOCK]) {
    Isa::best().run(Activate { activation, values });
}

/// [`Activation::apply_all`] at an instruction-set level.
pub struct Activate<'a> {
    pub activation: Activation,
    pub values: &'a mut [f32],
}

impl SimdOp for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        self.activation.apply_all::<L>(self.values);
    }
}
