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
    /// Applies the function to each value.
    #[inline(always)]
    pub fn apply_all<L: Lanes>(self, values: &mut [f32]) {
        macro_rules! map {
            ($x:ident => $y:expr) => {
                map_lanes(
                    [],
                    [values],
                    #[inline(always)]
                    |[]: [L; 0], [$x]| [$y],
                )
            };
        }
        match self {
            Self::Identity => {}
            Self::Relu => map!(x => x.relu()),
            Self::LeakyRelu { slope } => map!(x => leaky_relu(x, slope)),
            Self::Gelu => map!(x => math::gelu(x)),
            Self::Swish => map!(x => x.mul(math::sigmoid(x))),
            Self::Elu => map!(x => math::elu(x)),
            Self::Relu6 => map!(x => relu6(x)),
            Self::Hardsigmoid => map!(x => hardsigmoid(x)),
            Self::Hardswish => map!(x => x.mul(hardsigmoid(x))),
            Self::Sigmoid => map!(x => math::sigmoid(x)),
        }
    }

    /// Applies the function to each lane.
    #[inline(always)]
    pub(super) fn apply_lanes<L: Lanes>(self, x: L) -> L {
        match self {
            Self::Identity => x,
            Self::Relu => x.relu(),
            Self::LeakyRelu { slope } => leaky_relu(x, slope),
            Self::Elu => math::elu(x),
            Self::Relu6 => relu6(x),
            Self::Hardsigmoid => hardsigmoid(x),
            Self::Hardswish => x.mul(hardsigmoid(x)),
            Self::Gelu | Self::Swish | Self::Sigmoid => {
                let mut values = [0.0; CHANNEL_BLOCK];
                x.store(&mut values, 0);
                apply_to(self, &mut values);
                L::load(&values, 0)
            }
        }
    }
}

#[inline(always)]
fn leaky_relu<L: Lanes>(x: L, slope: f32) -> L {
    x.relu().add(x.at_most(L::splat(0.0)).mul(L::splat(slope)))
}

#[inline(always)]
fn relu6<L: Lanes>(x: L) -> L {
    x.relu().at_most(L::splat(6.0))
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

/// `y = activation(y + bias) + residual` for some outputs of a row.
pub struct FinishRow<'a> {
    pub bias: &'a [f32],
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
    pub y: &'a mut [f32],
}

impl SimdOp for FinishRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { bias, residual, activation, y } = self;
        add::<L>(bias, y);
        activation.apply_all::<L>(y);
        if let Some(residual) = residual {
            add::<L>(residual, y);
        }
    }
}

#[inline(always)]
fn add<L: Lanes>(x: &[f32], y: &mut [f32]) {
    map_lanes(
        [x],
        [y],
        #[inline(always)]
        |[x]: [L; 1], [y]| [y.add(x)],
    );
}

/// `values = activation(values + bias)` for rows of sixteen values.
pub struct FinishBlock<'a> {
    pub bias: &'a [f32; CHANNEL_BLOCK],
    pub activation: Activation,
    pub values: &'a mut [f32],
}

impl SimdOp for FinishBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { bias, activation, values } = self;
        for row in values.as_chunks_mut::<CHANNEL_BLOCK>().0 {
            for part in 0..L::PARTS {
                L::load(row, part).add(L::load(bias, part)).store(row, part);
            }
        }
        activation.apply_all::<L>(values);
    }
}
