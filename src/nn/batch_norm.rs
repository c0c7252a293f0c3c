//! Batch norm: `y = γ (x − μ) / √(σ² + ε) + β` with the running statistics μ, σ² of training.
//!
//! At inference it is an affine map per channel, folded into the preceding layer where there is one.

use candle_core::{Device, Tensor};

use super::Activation;
use super::batch_statistics::BatchStatistics;
use super::kernels::simd::isa::Isa;
use super::map::{FeatureMap, Values};
use super::ops::norm::AffineOp;
use super::ops::runs_on_cpu_kernels;
use super::prepared::Prepared;
use crate::error::{Context, Error, Result};
use crate::weights::{Loader, Target};

/// PyTorch's default ε.
pub(super) const EPS: f64 = 1e-5;

/// Batch norm as `y = scale · x + shift` per channel. Computed in f64, stored in f32.
pub(super) struct FoldedBatchNorm {
    /// `γ / √(σ² + ε)`, `[channels]`.
    pub scale: Vec<f32>,
    /// `β − μ · scale`, `[channels]`.
    pub shift: Vec<f32>,
}

impl FoldedBatchNorm {
    /// Reads `weight`, `bias`, `running_mean` and `running_var`, each `[channels]`.
    fn load(weights: &Loader, channels: usize, eps: f64) -> Result<Self> {
        let read = |name: &str| weights.get_vec(name, &[channels]);
        let (weight, bias) = (read("weight")?, read("bias")?);
        let (mean, variance) = (read("running_mean")?, read("running_var")?);
        if let Some(&value) = variance.iter().find(|&&value| f64::from(value) + eps <= 0.0) {
            return Err(Error::argument("running_var", value, "expected a variance of 0 or more"));
        }
        let scale = |i: usize| f64::from(weight[i]) / (f64::from(variance[i]) + eps).sqrt();
        let shift = |i: usize| f64::from(bias[i]) - f64::from(mean[i]) * scale(i);
        Ok(Self {
            scale: (0..channels).map(|i| scale(i) as f32).collect(),
            shift: (0..channels).map(|i| shift(i) as f32).collect(),
        })
    }

    /// The affine map that follows a convolution: its `bias` if it has one, and the norm if there is one.
    pub fn load_after(conv: &Loader, bias: bool, norm: Option<(&Loader, f64)>, channels: usize) -> Result<Self> {
        let Some((norm, eps)) = norm else {
            let shift = if bias { conv.get_vec("bias", &[channels])? } else { vec![0.0; channels] };
            return Ok(Self { scale: vec![1.0; channels], shift });
        };
        let mut norm = Self::load(norm, channels, eps)?;
        if bias {
            let bias = conv.get_vec("bias", &[channels])?;
            for ((shift, scale), bias) in norm.shift.iter_mut().zip(&norm.scale).zip(bias) {
                *shift = (f64::from(*shift) + f64::from(*scale) * f64::from(bias)) as f32;
            }
        }
        Ok(norm)
    }
}

/// Batch norm that is not folded: over mel bins, before a convolution, or in training.
#[derive(Debug)]
pub struct BatchNorm {
    /// The dimension of the channels, capped at the last dimension.
    axis: usize,
    weights: Prepared<AffineOp, [Tensor; 2], BatchStatistics>,
}

impl BatchNorm {
    /// Loads a norm over the last dimension: `weight`, `bias`, `running_mean` and `running_var`, each `[channels]`; ε
    /// is 1e-5.
    ///
    /// # Errors
    /// As [`Loader::get_vec`], and [`Error::Argument`] for a negative variance. Missing or misshapen tensors are
    /// reported by [`Loader::finish`].
    pub fn load(weights: &Loader, channels: usize) -> Result<Self> {
        Self::load_with(weights, channels, usize::MAX, EPS)
    }

    /// Loads a norm over dimension 1, the channels of `[batch, channels, …]`. Before a convolution with zero padding it
    /// cannot be folded into the filters, because the padding is zero after the norm.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_channels_first(weights: &Loader, channels: usize) -> Result<Self> {
        Self::load_with(weights, channels, 1, EPS)
    }

    /// Loads a norm over dimension `axis`, with the given ε.
    pub(super) fn load_with(weights: &Loader, channels: usize, axis: usize, eps: f64) -> Result<Self> {
        let folded = || FoldedBatchNorm::load(weights, channels, eps);
        let weights = match weights.target() {
            Target::Kernels => {
                let FoldedBatchNorm { scale, shift } = folded()?;
                Prepared::Packed(AffineOp { scale, shift, axis })
            }
            Target::Device => {
                let FoldedBatchNorm { scale, shift } = folded()?;
                Prepared::OnDevice(
                    tensors(&scale, &shift, weights.device())
                        .context("moving the weights of a batch norm to the device")?,
                )
            }
            Target::Training(state) => Prepared::Training(BatchStatistics::load(weights, channels, eps, state)?),
        };
        Ok(Self { axis, weights })
    }

    /// Normalises `x` `[…, channels]`, or `[batch, channels, …]` if loaded with
    /// [`load_channels_first`](Self::load_channels_first). The shape stays the same.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the number of channels differs.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, Activation::Identity).context("applying a batch norm")
    }

    /// [`forward`](Self::forward) followed by an activation.
    pub(super) fn forward_with(&self, x: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
        let axis = self.axis.min(x.rank().max(1) - 1);
        let affine = |[scale, shift]: &[Tensor; 2]| {
            let mut shape = vec![1; x.rank().max(1)];
            shape[axis] = scale.elem_count();
            x.broadcast_mul(&scale.reshape(shape.as_slice())?)?.broadcast_add(&shift.reshape(shape.as_slice())?)
        };
        activation.forward(match &self.weights {
            Prepared::Packed(op) if runs_on_cpu_kernels(x) => x.contiguous()?.apply_op1_no_bwd(op)?,
            Prepared::Packed(op) => affine(&tensors(&op.scale, &op.shift, &Device::Cpu)?)?,
            Prepared::OnDevice(tensors) => affine(tensors)?,
            Prepared::Training(statistics) => return statistics.forward(x, axis, activation),
        })
    }

    /// Normalises the channels of maps, then applies an activation.
    pub(super) fn forward_map(&self, mut x: FeatureMap, activation: Activation) -> candle_core::Result<FeatureMap> {
        match (&mut x.values, &self.weights) {
            (Values::Blocks(map), Prepared::Packed(op)) => {
                let shape_error = |channels| format!("expected {} channels, got {channels}", op.scale.len());
                let done = map.affine(&op.scale, &op.shift);
                done.ok_or_else(|| candle_core::Error::Msg(shape_error(map.shape.channels)))?;
                if activation != Activation::Identity {
                    map.activate(activation, Isa::best());
                }
                Ok(x)
            }
            _ => {
                let y = self.forward_with(&x.to_tensor()?, activation)?;
                Ok(x.with(Values::Tensor(y)))
            }
        }
    }
}

fn tensors(scale: &[f32], shift: &[f32], device: &Device) -> candle_core::Result<[Tensor; 2]> {
    Ok([Tensor::new(scale, device)?, Tensor::new(shift, device)?])
}
