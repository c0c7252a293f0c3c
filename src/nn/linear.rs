//! Fully connected layers.

use candle_core::{Device, Tensor};

use super::Activation;
use super::kernels::matmul::linear::PackedMatrix;
use super::kernels::workspace::Workspace;
use super::ops::linear::{LinearOp, Weights};
use super::ops::runs_on_cpu_kernels;
use super::prepared::Prepared;
use crate::error::{Context, Error, Result};
use crate::weights::{Init, Loader, Matrix, Target};

/// `y = activation(W x + b)`, `[batch, in]` to `[batch, out]`, or `[batch, n_tokens, in]` to `[batch, n_tokens, out]`.
#[derive(Debug)]
pub struct Linear {
    out_features: usize,
    activation: Activation,
    /// As tensors: the weight `[out, in]` and the bias `[out]`.
    weights: Prepared<LinearOp, [Tensor; 2]>,
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
        if let Target::Training(_) = weights.target() {
            let weight = weights.parameter(names[0], (out_features, in_features), init[0])?;
            let bias = weights.parameter(names[1], out_features, init[1])?;
            return Ok(Self { out_features, activation, weights: Prepared::Training([weight, bias]) });
        }
        let weight = weights.matrix(names[0], [out_features, in_features])?;
        let bias = weights.get_vec(names[1], &[out_features])?;
        Self::from_matrix(weight, bias, activation, weights)
    }

    /// From `weight` `[out, in]`, row-major, and `bias` `[out]`, which tells the sizes.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no bias or the length of `weight` is not a multiple of it, [`Error::Tensor`] if a tensor
    /// operation fails on the device.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, activation: Activation, device: &Device) -> Result<Self> {
        Self::prepare(Matrix::Full(weight), bias, activation, (&Target::on(device), device))
    }

    /// As [`new`](Self::new), from values or codes of 4 bits, for what computes with them in this place.
    pub(crate) fn from_matrix(
        weight: impl Into<Matrix>,
        bias: Vec<f32>,
        activation: Activation,
        place: &Loader,
    ) -> Result<Self> {
        Self::prepare(weight.into(), bias, activation, (&place.target(), place.device()))
    }

    /// From a weight `[out, in]` and a bias `[out]` that are trained.
    pub(crate) fn from_parameters(weight: Tensor, bias: Tensor, activation: Activation) -> Self {
        Self { out_features: bias.elem_count(), activation, weights: Prepared::Training([weight, bias]) }
    }

    fn prepare(
        weight: Matrix,
        bias: Vec<f32>,
        activation: Activation,
        (target, device): (&Target, &Device),
    ) -> Result<Self> {
        let out_features = bias.len();
        if out_features == 0 || weight.len() == 0 || !weight.len().is_multiple_of(out_features) {
            let reason = format!("expected a multiple of the {out_features} biases");
            return Err(Error::argument("weight.len()", weight.len(), reason));
        }
        let in_features = weight.len() / out_features;
        let weights = match target {
            Target::Kernels => {
                let weights = match weight {
                    Matrix::Full(weight) => Weights::Packed(PackedMatrix::pack(&weight, in_features, out_features)),
                    Matrix::FourBit(codes) => Weights::FourBit { codes, inputs: in_features, outputs: out_features },
                };
                Prepared::Packed(LinearOp { weights, bias, activation, workspace: Workspace::shared() })
            }
            _ => {
                let weight = Tensor::from_vec(weight.into_vec(), (out_features, in_features), device);
                let bias = Tensor::from_vec(bias, out_features, device);
                let context = "moving weights to the device";
                Prepared::OnDevice([weight.context(context)?, bias.context(context)?])
            }
        };
        Ok(Self { out_features, activation, weights })
    }

    /// `x` `[batch, in]` or `[batch, n_tokens, in]` to the same with `out`. A row's result does not depend on the rest.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape does not fit or `x` is on another device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, None).context("a linear layer")
    }

    /// [`forward`](Self::forward) of `x` `[batch, n_tokens, in]` plus `residual` `[batch, n_tokens, out]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.run(x, Some(residual)).context("a linear layer")
    }

    fn run(&self, x: &Tensor, residual: Option<&Tensor>) -> candle_core::Result<Tensor> {
        match (&self.weights, residual) {
            (Prepared::Packed(op), None) => contiguous(x)?.apply_op1_no_bwd(op),
            (Prepared::Packed(op), Some(residual)) => contiguous(x)?.apply_op2_no_bwd(&contiguous(residual)?, op),
            (Prepared::OnDevice([weight, bias]) | Prepared::Training([weight, bias]), _) => {
                let y = self.activation.forward(x.broadcast_matmul(&weight.t()?)?.broadcast_add(bias)?)?;
                match residual {
                    Some(residual) => y + residual,
                    None => Ok(y),
                }
            }
        }
    }

    /// Outputs.
    pub(crate) fn out_features(&self) -> usize {
        self.out_features
    }
}

/// `x` as the kernels take it.
fn contiguous(x: &Tensor) -> candle_core::Result<Tensor> {
    if !runs_on_cpu_kernels(x) {
        let got = format!("{:?} on {:?}{}", x.dtype(), x.device(), if x.track_op() { " with gradients" } else { "" });
        return Err(candle_core::Error::Msg(format!("expected f32 on the CPU without gradients, got {got}")));
    }
    x.contiguous()
}
