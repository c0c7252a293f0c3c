//! Fully connected layers.

use candle_core::{Device, Tensor};

use super::Activation;
use super::kernels::matmul::linear::PackedMatrix;
use super::kernels::workspace::Workspace;
use super::ops::linear::LinearOp;
use super::ops::runs_on_cpu_kernels;
use crate::error::{Context, Error, Result};
use crate::weights::{Init, Loader};

/// `y = activation(W x + b)`, `[batch, in]` to `[batch, out]`, or `[batch, n_tokens, in]` to `[batch, n_tokens, out]`.
#[derive(Debug)]
pub struct Linear {
    out_features: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Packed for the kernel.
    Cpu(LinearOp),
    /// As tensors: elsewhere than on the CPU, and in training.
    Tensors {
        weight: Tensor, // [out, in]
        bias: Tensor,   // [out]
        activation: Activation,
    },
}

impl Linear {
    /// Reads `weight` `[out, in]` and `bias` `[out]`.
    ///
    /// # Errors
    /// As [`Loader::get`]; tensors that do not fit are reported by [`Loader::finish`].
    pub fn load(weights: &Loader, in_features: usize, out_features: usize, activation: Activation) -> Result<Self> {
        let init = Init::of_fan_in(in_features);
        Self::load_with(weights, in_features, out_features, activation, [init; 2])
    }

    /// As [`load`](Self::load); to be trained, weight and bias have these initial values.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(
        weights: &Loader,
        in_features: usize,
        out_features: usize,
        activation: Activation,
        init: [Init; 2],
    ) -> Result<Self> {
        Self::load_named(weights, ["weight", "bias"], [in_features, out_features], activation, init)
    }

    /// As [`load_with`](Self::load_with), where weight and bias have names of their own; `features` go in and out.
    pub(crate) fn load_named(
        weights: &Loader,
        names: [&str; 2],
        features: [usize; 2],
        activation: Activation,
        init: [Init; 2],
    ) -> Result<Self> {
        let [in_features, out_features] = features;
        if weights.mode().is_some() {
            let weight = weights.parameter(names[0], (out_features, in_features), init[0])?;
            let bias = weights.parameter(names[1], out_features, init[1])?;
            return Ok(Self { out_features, kind: Kind::Tensors { weight, bias, activation } });
        }
        let weight = weights.get_vec(names[0], &[out_features, in_features])?;
        let bias = weights.get_vec(names[1], &[out_features])?;
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
        if device.is_cpu() {
            let matrix = PackedMatrix::pack(&weight, in_features, out_features);
            let op = LinearOp { matrix, bias, activation, workspace: Workspace::default() };
            return Ok(Self { out_features, kind: Kind::Cpu(op) });
        }
        let weight = Tensor::from_vec(weight, (out_features, in_features), device);
        let tensors = weight.and_then(|weight| Ok((weight, Tensor::from_vec(bias, out_features, device)?)));
        let (weight, bias) = tensors.context("moving weights to the device")?;
        Ok(Self { out_features, kind: Kind::Tensors { weight, bias, activation } })
    }

    /// `x` `[batch, in]` or `[batch, n_tokens, in]` to the same with `out`. A row's result does not depend on the rest.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape does not fit or `x` is on another device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(op) => contiguous(x).and_then(|x| x.apply_op1_no_bwd(op)),
            Kind::Tensors { weight, bias, activation } => on_device(x, weight, bias, *activation),
        }
        .context("a linear layer")
    }

    /// [`forward`](Self::forward) of `x` `[batch, n_tokens, in]` plus `residual` `[batch, n_tokens, out]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(op) => contiguous(x).and_then(|x| x.apply_op2_no_bwd(&contiguous(residual)?, op)),
            Kind::Tensors { weight, bias, activation } => {
                on_device(x, weight, bias, *activation).and_then(|y| y + residual)
            }
        }
        .context("a linear layer")
    }

    /// Outputs.
    pub(crate) fn out_features(&self) -> usize {
        self.out_features
    }
}

fn on_device(x: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
    activation.forward(x.broadcast_matmul(&weight.t()?)?.broadcast_add(bias)?)
}

/// `x` as the kernels take it.
fn contiguous(x: &Tensor) -> candle_core::Result<Tensor> {
    if !runs_on_cpu_kernels(x) {
        return Err(candle_core::Error::Msg(
            "an f32 tensor on the CPU, one that no gradients are to reach, is wanted".to_string(),
        ));
    }
    x.contiguous()
}
