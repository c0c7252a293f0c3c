//! Activations of tensors with candle; gates and sums as candle operations.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::{runs_on_cpu_kernels, wrong_shape};
use crate::nn::kernels::activation::{Activate, Activation};
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

/// `relu(x + y)` for tensors of one shape.
pub fn add_relu(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    match runs_on_cpu_kernels(x) && runs_on_cpu_kernels(y) {
        true => x.contiguous()?.apply_op2_no_bwd(&y.contiguous()?, &AddReluOp),
        false => (x + y)?.relu(),
    }
}

#[derive(Debug)]
struct AddReluOp;

impl CustomOp2 for AddReluOp {
    fn name(&self) -> &'static str {
        "add-relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout, y: &CpuStorage, other: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, y) = (contiguous(x, layout)?, contiguous(y, other)?);
        if layout.shape() != other.shape() {
            return Err(wrong_shape(other));
        }
        let mut sum: Vec<f32> = x.iter().zip(y).map(|(x, y)| x + y).collect();
        Isa::best().run(Activate { activation: Activation::Relu, values: &mut sum });
        Ok((CpuStorage::F32(sum), layout.shape().clone()))
    }
}
