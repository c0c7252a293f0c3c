//! Causal convolutions over sequences of vectors, dilated or not.

use candle_core::Tensor;

use super::Activation;
use super::kernels::conv::causal::{CausalConv, CausalShape};
use super::kernels::workspace::Workspace;
use super::ops::causal_conv::CausalConvOp;
use super::ops::runs_on_cpu_kernels;
use super::prepared::Prepared;
use crate::check::{self, MAX_WIDTH};
use crate::error::{Context, Result};
use crate::weights::{Init, Loader, Target};

/// A convolution over a sequence of vectors where an output sees its own input and earlier ones alone:
/// `y[t] = activation(b + Σ_k W[k] x[t − (kernel − 1 − k) · dilation])`.
#[derive(Debug)]
pub struct CausalConv1d {
    shape: CausalShape,
    activation: Activation,
    /// As tensors: the filters `[out, in, kernel]` and the bias `[out]`.
    weights: Prepared<CausalConvOp, [Tensor; 2]>,
}

impl CausalConv1d {
    /// Reads `weight` `[out, in, kernel]` and `bias` `[out]`, as `torch.nn.Conv1d` has them; `channels` are in and out.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a kernel or dilation outside 1 to 65,536, else as [`Loader::get`].
    pub fn load(
        weights: &Loader,
        channels: [usize; 2],
        kernel: usize,
        dilation: usize,
        activation: Activation,
    ) -> Result<Self> {
        let [inputs, outputs] = channels;
        check::sizes([("kernel", kernel, MAX_WIDTH), ("dilation", dilation, MAX_WIDTH)])?;
        let shape = CausalShape { inputs, outputs, kernel, dilation };
        let weights = match weights.target() {
            Target::Training(_) => {
                let init = Init::of_fan_in(inputs * kernel);
                let filters = weights.parameter("weight", (outputs, inputs, kernel), init)?;
                Prepared::Training([filters, weights.parameter("bias", outputs, init)?])
            }
            Target::Device => {
                let filters = weights.get("weight", (outputs, inputs, kernel))?;
                Prepared::OnDevice([filters, weights.get("bias", outputs)?])
            }
            Target::Kernels => {
                let filters = weights.get_vec("weight", &[outputs, inputs, kernel])?;
                let bias = weights.get_vec("bias", &[outputs])?;
                let conv = CausalConv::pack(shape, &filters, &bias, activation);
                Prepared::Packed(CausalConvOp { conv, workspace: Workspace::shared() })
            }
        };
        Ok(Self { shape, activation, weights })
    }

    /// Vectors before its own that an output sees.
    pub fn context(&self) -> usize {
        self.shape.context()
    }

    /// `x` `[batch, n, in]`, f32, to `[batch, n, out]`, and the last [`context`](Self::context) inputs, which the next call takes as
    /// `before`. Without `before` a sequence begins: zeros stand before it.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if the shape or the device does not fit.
    pub fn forward(&self, x: &Tensor, before: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.run(x, before).context("a causal convolution")
    }

    fn run(&self, x: &Tensor, before: Option<&Tensor>) -> candle_core::Result<(Tensor, Tensor)> {
        let (batch, n, inputs) = x.dims3()?;
        let CausalShape { kernel, dilation, .. } = self.shape;
        let context = self.context();
        let padded = |x: &Tensor, before: Option<&Tensor>| match before {
            Some(before) => Tensor::cat(&[before, x], 1),
            None => x.pad_with_zeros(1, context, 0),
        };
        match &self.weights {
            Prepared::Packed(op) => {
                if !runs_on_cpu_kernels(x) {
                    return Err(candle_core::Error::Msg("expected f32 on the CPU without gradients".to_string()));
                }
                let x = x.contiguous()?;
                let y = match before {
                    Some(before) => x.apply_op2_no_bwd(&before.contiguous()?, op)?,
                    None => x.apply_op1_no_bwd(op)?,
                };
                let last = match n.checked_sub(context) {
                    Some(start) => x.narrow(1, start, context)?,
                    None => padded(&x, before)?.narrow(1, n, context)?,
                };
                Ok((y, last.contiguous()?))
            }
            Prepared::OnDevice([filters, bias]) | Prepared::Training([filters, bias]) => {
                let padded = padded(x, before)?;
                let taps = (0..kernel).map(|tap| padded.narrow(1, tap * dilation, n));
                let taps = Tensor::cat(&taps.collect::<candle_core::Result<Vec<_>>>()?, 2)?; // [batch, n, kernel · in]
                let matrix = filters.permute((2, 1, 0))?.reshape((kernel * inputs, ()))?;
                let y = taps.reshape((batch * n, ()))?.matmul(&matrix)?.broadcast_add(bias)?;
                let y = self.activation.forward(y.reshape((batch, n, ()))?)?;
                Ok((y, padded.narrow(1, n, context)?.contiguous()?))
            }
        }
    }
}
