//! Normalisation as candle operations.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape};

use super::wrong_shape;
use crate::nn::kernels::activation::Activation;
use crate::nn::kernels::pointwise::{self, NormRows};
use crate::nn::kernels::simd::isa::Isa;
use crate::tensor::contiguous;

/// A scale and a shift per channel of dimension `axis`, which is 1 or the last.
#[derive(Debug)]
pub struct AffineOp {
    /// `[channels]`.
    pub scale: Vec<f32>,
    /// `[channels]`.
    pub shift: Vec<f32>,
    pub axis: usize,
}

impl CustomOp1 for AffineOp {
    fn name(&self) -> &'static str {
        "affine"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        let Self { scale, shift, .. } = self;
        let axis = self.axis.min(layout.dims().len().saturating_sub(1));
        if x.is_empty() || layout.dims().get(axis) != Some(&scale.len()) {
            return Err(wrong_shape(layout));
        }
        let mut y = vec![0.0; x.len()];
        match layout.dims()[axis + 1..].iter().product() {
            1 => pointwise::affine_last(x, scale, shift, &mut y),
            plane => pointwise::affine_planes(x, scale, shift, plane, &mut y),
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}

/// Layer norm over the last dimension, followed by an activation.
#[derive(Debug, Clone)]
pub struct LayerNormOp {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub eps: f32,
    pub activation: Activation,
}

impl LayerNormOp {
    /// As the operation, for some rows, on the calling thread.
    pub fn task(&self, x: &[f32], y: &mut [f32], isa: Isa) {
        let Self { weight, bias, eps, activation } = self;
        isa.run(NormRows { x, weight, bias, eps: *eps, activation: *activation, y });
    }
}

impl CustomOp1 for LayerNormOp {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        if x.is_empty() || layout.dims().last() != Some(&self.weight.len()) {
            return Err(wrong_shape(layout));
        }
        let mut y = vec![0.0; x.len()];
        pointwise::layer_norm(x, (&self.weight, &self.bias), self.eps, self.activation, &mut y);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}
