//! Layer norm.

use candle_core::{D, Device, Tensor};
use candle_nn::ops::{layer_norm, layer_norm_slow};

use super::Activation;
use super::ops::norm::LayerNormOp;
use super::ops::runs_on_cpu_kernels;
use super::prepared::Prepared;
use crate::error::{Context, Result};
use crate::weights::{Init, Loader, Target};

/// Layer norm over the last dimension: `y = weight · (x − mean) / √(variance + ε) + bias`, with the mean and the
/// variance of each row.
#[derive(Debug)]
pub struct LayerNorm {
    weights: Prepared<LayerNormOp, [Tensor; 2]>,
    eps: f32,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, each `[channels]`. In training they start at 1 and 0.
    ///
    /// # Errors
    /// As [`Loader::get_vec`]. Missing or misshapen tensors are reported by [`Loader::finish`].
    pub fn load(weights: &Loader, channels: usize, eps: f32) -> Result<Self> {
        let tensor = |name: &str, value: f32| weights.parameter(name, channels, Init::Constant(value));
        let tensors = || Ok::<_, crate::error::Error>([tensor("weight", 1.0)?, tensor("bias", 0.0)?]);
        let weights = match weights.target() {
            Target::Kernels => {
                let host = |name: &str| weights.get_vec(name, &[channels]);
                let (weight, bias) = (host("weight")?, host("bias")?);
                Prepared::Packed(LayerNormOp { weight, bias, eps, activation: Activation::Identity })
            }
            Target::Device => Prepared::OnDevice(tensors()?),
            Target::Training(_) => Prepared::Training(tensors()?),
        };
        Ok(Self { weights, eps })
    }

    /// Normalises `x` `[…, channels]`. The shape stays the same.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if the last dimension is not `channels`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, Activation::Identity)
    }

    /// [`forward`](Self::forward) followed by an activation.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_with(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.normalize(x, activation).context("applying a layer norm")
    }

    /// The operation of the CPU kernels, if the weights are prepared for them.
    pub(super) fn op(&self) -> Option<&LayerNormOp> {
        match &self.weights {
            Prepared::Packed(op) => Some(op),
            _ => None,
        }
    }

    fn normalize(&self, x: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
        let x = x.contiguous()?;
        activation.forward(match &self.weights {
            Prepared::Packed(op) if runs_on_cpu_kernels(&x) => {
                return x.apply_op1_no_bwd(&LayerNormOp { activation, ..op.clone() });
            }
            Prepared::Packed(op) => {
                let [weight, bias] = [&op.weight, &op.bias].map(|values| Tensor::new(values.as_slice(), &Device::Cpu));
                layer_norm_slow(&x, &weight?, &bias?, self.eps)?
            }
            Prepared::OnDevice([weight, bias]) if !x.track_op() => layer_norm(&x, weight, bias, self.eps)?,
            // candle's fused version has no gradients.
            Prepared::OnDevice([weight, bias]) | Prepared::Training([weight, bias]) => {
                layer_norm_slow(&x, weight, bias, self.eps)?
            }
        })
    }
}

/// Layer norm of `x` `[…, channels]` without weight and bias.
///
/// # Errors
/// [`Error::Tensor`](crate::Error::Tensor) if a tensor operation fails on the device.
pub(crate) fn normalized(x: &Tensor, eps: f32) -> Result<Tensor> {
    let norm = || {
        let channels = x.dim(D::Minus1)?;
        if runs_on_cpu_kernels(x) {
            let (weight, bias) = (vec![1.0; channels], vec![0.0; channels]);
            let op = LayerNormOp { weight, bias, eps, activation: Activation::Identity };
            return x.contiguous()?.apply_op1_no_bwd(&op);
        }
        let weight = Tensor::ones(channels, x.dtype(), x.device())?;
        let bias = Tensor::zeros(channels, x.dtype(), x.device())?;
        layer_norm_slow(x, &weight, &bias, eps)
    };
    norm().context("applying a layer norm")
}
