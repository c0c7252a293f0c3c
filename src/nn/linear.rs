//! Fully connected layers.

use candle_core::Tensor;

use super::kernels::ops::LinearOp;
use super::{Activation, has_kernels};
use crate::Result;
use crate::error::Context;
use crate::weights::Loader;

/// `y = activation(W x + b)`, `[batch, in]` to `[batch, out]`.
#[derive(Debug)]
pub struct Linear {
    op: LinearOp,
    /// Elsewhere than on the CPU: `[out, in]` and `[out]`.
    tensors: Option<(Tensor, Tensor)>,
}

impl Linear {
    /// Reads `weight` `[out, in]` and `bias` `[out]`.
    ///
    /// # Errors
    /// As [`Loader::get`]; tensors that do not fit are reported by [`Loader::finish`].
    pub fn load(weights: &Loader, in_features: usize, out_features: usize, activation: Activation) -> Result<Self> {
        let (weight, bias, tensors);
        if weights.device().is_cpu() {
            weight = weights.get_vec("weight", &[out_features, in_features])?;
            bias = weights.get_vec("bias", &[out_features])?;
            tensors = None;
        } else {
            (weight, bias) = (Vec::new(), Vec::new());
            tensors = Some((weights.get("weight", (out_features, in_features))?, weights.get("bias", out_features)?));
        }
        Ok(Self { op: LinearOp { weight, bias, activation, in_features, out_features }, tensors })
    }

    /// `x` `[batch, in]` to `[batch, out]`. A row's result does not depend on the rest of the batch.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if the shape does not fit or `x` is on another device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let context = "a linear layer";
        match &self.tensors {
            Some((weight, bias)) => {
                let y = weight.t().and_then(|weight| x.matmul(&weight)?.broadcast_add(bias)).context(context)?;
                self.op.activation.forward(y).context(context)
            }
            None if has_kernels(x) => x.contiguous().and_then(|x| x.apply_op1_no_bwd(&self.op)).context(context),
            None => Err(candle_core::Error::Msg("an f32 tensor on the CPU is wanted".to_string())).context(context),
        }
    }
}
