//! Activations of tensors with candle, and the gated linear unit as a candle operation.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::wrong_shape;
use crate::nn::kernels::activation::Activation;
use crate::nn::kernels::pointwise;
use crate::nn::kernels::simd::isa::Isa;
use crate::tensor::contiguous;

impl Activation {
    pub(in crate::nn) fn forward(self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::Identity => Ok(x),
            Self::Relu => x.relu(),
            Self::LeakyRelu { slope } => candle_nn::ops::leaky_relu(&x, f64::from(slope)),
            Self::Gelu => x.gelu_erf(),
            Self::Swish => x.silu(),
            Self::Elu => x.elu(1.0),
            Self::Relu6 => x.clamp(0f32, 6f32),
            Self::Hardsigmoid => (x + 3.0)?.clamp(0f32, 6f32)? / 6.0,
            Self::Hardswish => (&x * (&x + 3.0)?.clamp(0f32, 6f32)?)? / 6.0,
            Self::Sigmoid => candle_nn::ops::sigmoid(&x),
        }
    }
}

/// The gated linear unit over the last dimension.
#[derive(Debug)]
pub struct GatedOp;

impl CustomOp1 for GatedOp {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        let mut dims = layout.dims().to_vec();
        let Some(last) = dims.last_mut().filter(|last| last.is_multiple_of(2) && !x.is_empty()) else {
            return Err(wrong_shape(layout));
        };
        *last /= 2;
        let mut y = vec![0.0; x.len() / 2];
        pointwise::gated(x, *last, &mut y, Isa::best());
        Ok((CpuStorage::F32(y), dims.into()))
    }
}
