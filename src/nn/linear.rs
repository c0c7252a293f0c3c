//! Fully connected layers.

use candle_core::{Device, Tensor};

use super::Activation;
use super::kernels::matmul::int8::{self, Int8Matrix, quantize_weights};
use super::kernels::matmul::linear::PackedMatrix;
use super::kernels::workspace::Workspace;
use super::ops::linear::{LinearOp, Weights};
use super::ops::runs_on_cpu_kernels;
use super::prepared::{Prepared, storage_of};
use crate::error::{Context, Error, Result};
use crate::weights::{Init, Loader, Matrix, Precision, Target};

/// Layers with fewer inputs or outputs are always in f32: there is nothing to gain.
const SMALLEST_INT8: usize = 32;

/// A fully connected layer, `y = activation(W x + b)`: `[batch, in]` to `[batch, out]`, or `[batch, n_tokens, in]` to
/// `[batch, n_tokens, out]`.
#[derive(Debug)]
pub struct Linear {
    out_features: usize,
    activation: Activation,
    /// On a device: the weight `[out, in]` and the bias `[out]`.
    weights: Prepared<LinearOp, [Tensor; 2]>,
}

impl Linear {
    /// Reads `weight` `[out, in]` and `bias` `[out]`.
    ///
    /// # Errors
    /// As [`Loader::get`]. Missing or misshapen tensors are reported by [`Loader::finish`].
    pub fn load(weights: &Loader, in_features: usize, out_features: usize, activation: Activation) -> Result<Self> {
        let init = Init::of_fan_in(in_features);
        Self::load_with(weights, in_features, out_features, activation, [init; 2])
    }

    /// As [`load`](Self::load), with the given initial values of weight and bias for training.
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

    /// As [`load_with`](Self::load_with), with the given tensor names of weight and bias. `features` are the input and
    /// output sizes.
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

    /// Creates a layer from `weight` `[out, in]`, row-major, and `bias` `[out]`, whose length determines the sizes.
    ///
    /// # Errors
    /// [`Error::Argument`] if `weight` or `bias` is empty or the length of `weight` is not a multiple of that of
    /// `bias`, [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, activation: Activation, device: &Device) -> Result<Self> {
        Self::prepare(Matrix::Full(weight), bias, activation, (&Target::on(device), device), Precision::F32)
    }

    /// As [`new`](Self::new), from f32 values or codes, for the loader's target and precision.
    pub(crate) fn from_matrix(
        weight: impl Into<Matrix>,
        bias: Vec<f32>,
        activation: Activation,
        place: &Loader,
    ) -> Result<Self> {
        let layer =
            Self::prepare(weight.into(), bias, activation, (&place.target(), place.device()), place.precision())?;
        if let Prepared::Packed(LinearOp { weights, .. }) = &layer.weights
            && (matches!(weights, Weights::Int8(_)) || matches!(weights, Weights::Packed(matrix) if matrix.is_f16()))
        {
            place.mark_precision();
        }
        Ok(layer)
    }

    /// Creates a layer from a trainable weight `[out, in]` and bias `[out]`.
    pub(crate) fn from_parameters(weight: Tensor, bias: Tensor, activation: Activation) -> Self {
        Self { out_features: bias.elem_count(), activation, weights: Prepared::Training([weight, bias]) }
    }

    fn prepare(
        weight: Matrix,
        bias: Vec<f32>,
        activation: Activation,
        (target, device): (&Target, &Device),
        precision: Precision,
    ) -> Result<Self> {
        let out_features = bias.len();
        if out_features == 0 || weight.len() == 0 || !weight.len().is_multiple_of(out_features) {
            let reason = format!("expected a positive multiple of the {out_features} biases");
            return Err(Error::argument("weight.len()", weight.len(), reason));
        }
        let in_features = weight.len() / out_features;
        let weights = match target {
            Target::Kernels => {
                let worthwhile = in_features.min(out_features) >= SMALLEST_INT8 && in_features <= int8::MAX_INPUTS;
                let is_int8 = precision == Precision::Int8 && worthwhile;
                let pack_int8 = |row: &(dyn Fn(usize, &mut [i8]) -> f32 + Sync)| {
                    Weights::Int8(Int8Matrix::pack(in_features, out_features, row))
                };
                let weights = match weight {
                    Matrix::FourBit(codes) => Weights::FourBit { codes, inputs: in_features, outputs: out_features },
                    Matrix::EightBit(codes) if is_int8 => pack_int8(&|output, row| {
                        let (codes, scale) = codes.row(output);
                        row.copy_from_slice(codes);
                        scale
                    }),
                    Matrix::Full(weight) if is_int8 => {
                        pack_int8(&|output, row| quantize_weights(&weight[output * in_features..][..in_features], row))
                    }
                    weight => {
                        let (weight, storage) = (weight.into_vec(), storage_of(precision));
                        let row = |output: usize, row: &mut [f32]| {
                            row.copy_from_slice(&weight[output * in_features..][..in_features]);
                        };
                        Weights::Packed(PackedMatrix::pack_as(storage, in_features, out_features, row))
                    }
                };
                Prepared::Packed(LinearOp { weights, bias, activation, workspace: Workspace::shared() })
            }
            _ => {
                let weight = Tensor::from_vec(weight.into_vec(), (out_features, in_features), device);
                let bias = Tensor::from_vec(bias, out_features, device);
                let context = "moving the weights of a linear layer to the device";
                Prepared::OnDevice([weight.context(context)?, bias.context(context)?])
            }
        };
        Ok(Self { out_features, activation, weights })
    }

    /// Applies the layer to `x` `[batch, in]` or `[batch, n_tokens, in]`. Each row's result is independent of the
    /// others.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape does not match or `x` is on another device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, None).context("applying a linear layer")
    }

    /// [`forward`](Self::forward) on `x` `[batch, n_tokens, in]` plus `residual` `[batch, n_tokens, out]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.run(x, Some(residual)).context("applying a linear layer")
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

    /// The operation of the CPU kernels, if the weights are packed for them.
    pub(super) fn op(&self) -> Option<&LinearOp> {
        match &self.weights {
            Prepared::Packed(op) if !matches!(op.weights, Weights::FourBit { .. }) => Some(op),
            _ => None,
        }
    }

    /// Number of outputs.
    pub(crate) fn out_features(&self) -> usize {
        self.out_features
    }
}

/// `x` in contiguous memory, if the kernels can take it.
fn contiguous(x: &Tensor) -> candle_core::Result<Tensor> {
    if !runs_on_cpu_kernels(x) {
        let got = format!("{:?} on {:?}{}", x.dtype(), x.device(), if x.track_op() { " with gradients" } else { "" });
        return Err(candle_core::Error::Msg(format!("expected f32 on the CPU without gradients, got {got}")));
    }
    x.contiguous()
}
