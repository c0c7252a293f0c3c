//! The kernels as candle operations on contiguous f32 tensors.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Error, Layout, Result, Shape};

use super::attention::{self, Heads};
use super::lanes::Level;
use super::linear::Matrix;
use super::workspace::{Workspace, count};
use super::{lp_pool, math, pointwise};
use crate::nn::{Activation, BatchNorm, LpPool2d};
use crate::simd::dispatch;
use crate::tensor::contiguous;

/// A scale and a shift per channel of dimension `axis`: 1, or the last.
#[derive(Debug)]
pub struct AffineOp {
    pub norm: BatchNorm,
    pub axis: usize,
}

impl CustomOp1 for AffineOp {
    fn name(&self) -> &'static str {
        "affine"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        let BatchNorm { scale, shift } = &self.norm;
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

/// A fully connected layer.
#[derive(Debug)]
pub struct LinearOp {
    pub matrix: Matrix,
    pub bias: Vec<f32>,
    pub activation: Activation,
    pub workspace: Workspace,
}

impl CustomOp1 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.rows(contiguous(storage, layout)?, layout, None)
    }
}

impl CustomOp2 for LinearOp {
    fn name(&self) -> &'static str {
        "linear-add"
    }

    /// With a residual of the output's shape that is added after the activation.
    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, residual) = (contiguous(storage, layout)?, contiguous(residual, residual_layout)?);
        let (dims, wanted) = (layout.dims(), residual_layout.dims());
        let rest = dims.len().saturating_sub(1);
        if wanted.len() != dims.len() || wanted[..rest] != dims[..rest] || wanted[rest] != self.matrix.outputs() {
            return Err(wrong_shape(layout));
        }
        self.rows(x, layout, Some(residual))
    }
}

impl LinearOp {
    /// `x` `[…, in]` to `[…, out]`.
    fn rows(&self, x: &[f32], layout: &Layout, residual: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let (inputs, outputs) = (self.matrix.inputs(), self.matrix.outputs());
        if x.is_empty() || layout.dims().last() != Some(&inputs) {
            return Err(wrong_shape(layout));
        }
        let len = count(&[x.len() / inputs, outputs]).ok_or_else(|| wrong_shape(layout))?;
        let mut y = vec![0.0; len];
        self.matrix.multiply(x, &mut y, Level::best(), &self.workspace, |sums, y, row, first| {
            let bias = &self.bias[first..first + y.len()];
            let residual = residual.map(|residual| &residual[row * outputs + first..][..y.len()]);
            dispatch(
                #[inline(always)]
                || {
                    let sums = sums.iter().zip(bias).map(|(sum, bias)| sum + bias);
                    match self.activation {
                        Activation::Identity => y.iter_mut().zip(sums).for_each(|(y, sum)| *y = sum),
                        Activation::Relu => y.iter_mut().zip(sums).for_each(|(y, sum)| *y = math::relu(sum)),
                        Activation::Gelu => y.iter_mut().zip(sums).for_each(|(y, sum)| *y = math::gelu(sum)),
                        Activation::LeakyRelu { slope } => {
                            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = math::leaky_relu(sum, slope));
                        }
                    }
                    if let Some(residual) = residual {
                        y.iter_mut().zip(residual).for_each(|(y, x)| *y += x);
                    }
                },
            );
        });
        let mut dims = layout.dims().to_vec();
        dims.pop();
        dims.push(outputs);
        Ok((CpuStorage::F32(y), dims.into()))
    }
}

/// Normalisation of each row of the last dimension.
#[derive(Debug)]
pub struct LayerNormOp {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub eps: f32,
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
        pointwise::layer_norm(x, &self.weight, &self.bias, self.eps, &mut y);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}

/// Attention from `[batch, n_tokens, 3 · n_heads · head_dim]`.
#[derive(Debug)]
pub struct AttentionOp {
    pub n_heads: usize,
    /// Keys that count, one number a sequence, each 1 to `n_tokens`; all without it.
    pub lengths: Option<Vec<usize>>,
    pub workspace: Workspace,
}

impl CustomOp1 for AttentionOp {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let qkv = contiguous(storage, layout)?;
        let &[batch, n_tokens, width] = layout.dims() else { return Err(wrong_shape(layout)) };
        let head_dim = width / 3 / self.n_heads;
        if qkv.is_empty() || 3 * self.n_heads * head_dim != width {
            return Err(wrong_shape(layout));
        }
        let mut y = vec![0.0; qkv.len() / 3];
        let heads = Heads { n_tokens, n_heads: self.n_heads, head_dim };
        attention::attention(qkv, heads, self.lengths.as_deref(), &mut y, Level::best(), &self.workspace);
        Ok((CpuStorage::F32(y), (batch, n_tokens, width / 3).into()))
    }
}

/// Power-average pooling over the last two dimensions.
#[derive(Debug)]
pub struct LpPoolOp(pub LpPool2d);

impl CustomOp1 for LpPoolOp {
    fn name(&self) -> &'static str {
        "lp-pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        let &[batch, channels, height, width] = layout.dims() else { return Err(wrong_shape(layout)) };
        let LpPool2d { power, size } = self.0;
        let output = height.checked_div(size.0).zip(width.checked_div(size.1));
        let output = output.filter(|&(rows, columns)| !x.is_empty() && rows > 0 && columns > 0);
        let Some((rows, columns)) = output else { return Err(wrong_shape(layout)) };
        let mut y = vec![0.0; batch * channels * rows * columns];
        lp_pool::lp_pool(x, (height, width), &mut y, power, size);
        Ok((CpuStorage::F32(y), (batch, channels, rows, columns).into()))
    }
}

fn wrong_shape(layout: &Layout) -> Error {
    Error::Msg(format!("a kernel cannot take an input of shape {:?}", layout.shape()))
}
