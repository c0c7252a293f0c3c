//! Fully connected layers.

use candle_core::{Device, Tensor};

use super::kernels::ops::LinearOp;
use super::{Activation, has_kernels};
use crate::error::Context;
use crate::weights::{Init, Loader};
use crate::{Error, Result};

/// `y = activation(W x + b)`, `[batch, in]` to `[batch, out]`, or `[batch, n_tokens, in]` to `[batch, n_tokens, out]`.
#[derive(Debug)]
pub struct Linear {
    op: LinearOp,
    /// Elsewhere than on the CPU, and in training: `[out, in]` and `[out]`.
    tensors: Option<(Tensor, Tensor)>,
}

impl Linear {
    /// Reads `weight` `[out, in]` and `bias` `[out]`.
    ///
    /// # Errors
    /// As [`Loader::get`]; tensors that do not fit are reported by [`Loader::finish`].
    pub fn load(weights: &Loader, in_features: usize, out_features: usize, activation: Activation) -> Result<Self> {
        if weights.mode().is_some() {
            let init = Init::of_fan_in(in_features);
            let weight = weights.parameter("weight", (out_features, in_features), init)?;
            let bias = weights.parameter("bias", out_features, init)?;
            let op = LinearOp { weight: Vec::new(), bias: Vec::new(), activation, in_features, out_features };
            return Ok(Self { op, tensors: Some((weight, bias)) });
        }
        let weight = weights.get_vec("weight", &[out_features, in_features])?;
        let bias = weights.get_vec("bias", &[out_features])?;
        Self::new(weight, bias, activation, weights.device())
    }

    /// From `weight` `[out, in]`, row-major, and `bias` `[out]`, which tells the sizes.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no bias or the length of `weight` is not a multiple of it, [`Error::Tensor`] if the device
    /// refuses.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, activation: Activation, device: &Device) -> Result<Self> {
        let out_features = bias.len();
        if out_features == 0 || weight.is_empty() || !weight.len().is_multiple_of(out_features) {
            let reason = format!("rows for {out_features} biases are due");
            return Err(Error::config("weight.len()", weight.len(), reason));
        }
        let in_features = weight.len() / out_features;
        let mut op = LinearOp { weight, bias, activation, in_features, out_features };
        if device.is_cpu() {
            return Ok(Self { op, tensors: None });
        }
        let (weight, bias) = (std::mem::take(&mut op.weight), std::mem::take(&mut op.bias));
        let weight = Tensor::from_vec(weight, (out_features, in_features), device);
        let tensors = weight.and_then(|weight| Ok((weight, Tensor::from_vec(bias, out_features, device)?)));
        Ok(Self { op, tensors: Some(tensors.context("moving weights to the device")?) })
    }

    /// `x` `[batch, in]` or `[batch, n_tokens, in]` to the same with `out`. A row's result does not depend on the rest.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape does not fit or `x` is on another device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.tensors {
            Some(tensors) => self.on_device(x, tensors),
            None => contiguous(x).and_then(|x| x.apply_op1_no_bwd(&self.op)),
        }
        .context("a linear layer")
    }

    /// [`forward`](Self::forward) of `x` `[batch, n_tokens, in]` plus `residual` `[batch, n_tokens, out]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match &self.tensors {
            Some(tensors) => self.on_device(x, tensors).and_then(|y| y + residual),
            None => contiguous(x).and_then(|x| x.apply_op2_no_bwd(&contiguous(residual)?, &self.op)),
        }
        .context("a linear layer")
    }

    /// Outputs.
    pub(crate) fn out_features(&self) -> usize {
        self.op.out_features
    }

    fn on_device(&self, x: &Tensor, (weight, bias): &(Tensor, Tensor)) -> candle_core::Result<Tensor> {
        let y = x.broadcast_matmul(&weight.t()?)?.broadcast_add(bias)?;
        self.op.activation.forward(y)
    }
}

/// `x` as the kernels take it.
fn contiguous(x: &Tensor) -> candle_core::Result<Tensor> {
    if !has_kernels(x) {
        return Err(candle_core::Error::Msg(
            "an f32 tensor on the CPU, one that no gradients are to reach, is wanted".to_string(),
        ));
    }
    x.contiguous()
}
