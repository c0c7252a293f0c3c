//! Normalisation. Batch norm at inference is an affine map per channel, folded into the layer before it where there is one.
//!
//! `y = γ (x − μ) / √(σ² + ε) + β` with the running statistics μ, σ² of training.

use candle_core::{D, Device, Tensor};

use super::Activation;
use super::ops::norm::{AffineOp, LayerNormOp};
use super::ops::runs_on_cpu_kernels;
use super::training::BatchStatistics;
use crate::error::{Context, Error, Result};
use crate::weights::{Init, Loader};

/// PyTorch's default ε.
pub const BATCH_NORM_EPS: f64 = 1e-5;

/// Batch norm as `y = scale · x + shift` per channel. Computed in f64, kept in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNorm {
    /// `γ / √(σ² + ε)`, one a channel.
    pub scale: Vec<f32>,
    /// `β − μ · scale`, one a channel.
    pub shift: Vec<f32>,
}

impl BatchNorm {
    /// Reads `weight`, `bias`, `running_mean` and `running_var`, each `[channels]`, with ε = [`BATCH_NORM_EPS`].
    ///
    /// # Errors
    /// As [`Loader::get_vec`], and [`Error::Config`] for a negative variance; tensors that do not fit are reported by
    /// [`Loader::finish`].
    pub fn load(weights: &Loader, channels: usize) -> Result<Self> {
        let read = |name: &str| weights.get_vec(name, &[channels]);
        let (weight, bias) = (read("weight")?, read("bias")?);
        let (mean, variance) = (read("running_mean")?, read("running_var")?);
        if let Some(&value) = variance.iter().find(|&&value| f64::from(value) + BATCH_NORM_EPS <= 0.0) {
            return Err(Error::config("running_var", value, "a variance is 0 or more"));
        }
        let scale = |i: usize| f64::from(weight[i]) / (f64::from(variance[i]) + BATCH_NORM_EPS).sqrt();
        let shift = |i: usize| f64::from(bias[i]) - f64::from(mean[i]) * scale(i);
        Ok(Self {
            scale: (0..channels).map(|i| scale(i) as f32).collect(),
            shift: (0..channels).map(|i| shift(i) as f32).collect(),
        })
    }

    /// As [`load`](Self::load), including the `bias` of the convolution before it if that has one.
    pub(super) fn load_after(conv: &Loader, bias: bool, norm: &Loader, channels: usize) -> Result<Self> {
        let mut norm = Self::load(norm, channels)?;
        if bias {
            let bias = conv.get_vec("bias", &[channels])?;
            for ((shift, scale), bias) in norm.shift.iter_mut().zip(&norm.scale).zip(bias) {
                *shift = (f64::from(*shift) + f64::from(*scale) * f64::from(bias)) as f32;
            }
        }
        Ok(norm)
    }

    /// Scales the filters of a convolution without bias, `[channels, …]`, so that it includes this norm; the shift is
    /// its new bias.
    pub(super) fn fold_into(self, filters: &Tensor) -> candle_core::Result<(Tensor, Vec<f32>)> {
        let channels = self.scale.len();
        let mut shape = vec![1; filters.rank()];
        shape[0] = channels;
        let scale = Tensor::from_vec(self.scale, shape, filters.device())?;
        Ok((filters.broadcast_mul(&scale)?, self.shift))
    }
}

/// A scale and a shift per channel: a batch norm that has no layer before it, over mel bins or before a convolution, or that
/// is trained.
#[derive(Debug)]
pub struct ChannelAffine {
    /// The dimension of the channels; the last if there are fewer.
    axis: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Fixed { op: AffineOp, scale: Tensor, shift: Tensor },
    Trained(BatchStatistics),
}

impl ChannelAffine {
    /// Reads the norm over the last dimension, `[channels]` each: see [`BatchNorm::load`].
    ///
    /// # Errors
    /// As [`BatchNorm::load`].
    pub fn load(weights: &Loader, channels: usize) -> Result<Self> {
        Self::load_with_axis(weights, channels, usize::MAX)
    }

    /// Reads the norm over dimension 1, that of the channels of `[batch, channels, …]`. Before a convolution with zero padding
    /// it cannot be folded into the filters: the padding is zero after the norm, not before.
    ///
    /// # Errors
    /// As [`BatchNorm::load`].
    pub fn load_over_maps(weights: &Loader, channels: usize) -> Result<Self> {
        Self::load_with_axis(weights, channels, 1)
    }

    /// The norm over the last dimension on `device`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn new(norm: BatchNorm, device: &Device) -> Result<Self> {
        Self::fixed(norm, usize::MAX, device)
    }

    fn load_with_axis(weights: &Loader, channels: usize, axis: usize) -> Result<Self> {
        match BatchStatistics::load(weights, channels)? {
            Some(statistics) => Ok(Self { axis, kind: Kind::Trained(statistics) }),
            None => Self::fixed(BatchNorm::load(weights, channels)?, axis, weights.device()),
        }
    }

    fn fixed(norm: BatchNorm, axis: usize, device: &Device) -> Result<Self> {
        let context = "moving a batch norm to the device";
        let scale = Tensor::new(norm.scale.as_slice(), device).context(context)?;
        let shift = Tensor::new(norm.shift.as_slice(), device).context(context)?;
        let op = AffineOp { scale: norm.scale, shift: norm.shift, axis };
        Ok(Self { axis, kind: Kind::Fixed { op, scale, shift } })
    }

    /// `x` `[…, channels]`, or `[batch, channels, …]` where it was made [over maps](Self::load_over_maps), to the same shape.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there are not `channels` channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, Activation::Identity)
    }

    /// [`forward`](Self::forward) and then an activation.
    pub(super) fn forward_with(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let context = "a batch norm";
        let axis = self.axis.min(x.rank().max(1) - 1);
        match &self.kind {
            Kind::Trained(statistics) => return statistics.forward(x, axis, activation).context(context),
            Kind::Fixed { op, .. } if runs_on_cpu_kernels(x) => x.contiguous().and_then(|x| x.apply_op1_no_bwd(op)),
            Kind::Fixed { scale, shift, .. } => {
                let mut shape = vec![1; x.rank().max(1)];
                shape[axis] = scale.elem_count();
                let part = |tensor: &Tensor| tensor.reshape(shape.as_slice());
                let affine = || x.broadcast_mul(&part(scale)?)?.broadcast_add(&part(shift)?);
                affine()
            }
        }
        .and_then(|y| activation.forward(y))
        .context(context)
    }
}

/// `y = weight · (x − mean) / √(variance + ε) + bias` over the last dimension, with each row's own mean and variance.
#[derive(Debug)]
pub struct LayerNorm {
    /// For the kernel; `None` where the norm is trained.
    op: Option<LayerNormOp>,
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, each `[channels]`; to be trained, they are 1 and 0 at first.
    ///
    /// # Errors
    /// As [`Loader::get_vec`]; tensors that do not fit are reported by [`Loader::finish`].
    pub fn load(weights: &Loader, channels: usize, eps: f32) -> Result<Self> {
        let weight = weights.parameter("weight", channels, Init::Constant(1.0))?;
        let bias = weights.parameter("bias", channels, Init::Constant(0.0))?;
        if weights.mode().is_some() {
            return Ok(Self { op: None, weight, bias, eps });
        }
        let host = |tensor: &Tensor| tensor.to_vec1::<f32>().context("bringing a norm to the host");
        let op = LayerNormOp { weight: host(&weight)?, bias: host(&bias)?, eps };
        Ok(Self { op: Some(op), weight, bias, eps })
    }

    /// `x` `[…, channels]` to the same shape.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the last dimension is not `channels`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let context = "a layer norm";
        let x = x.contiguous().context(context)?;
        match &self.op {
            Some(op) if runs_on_cpu_kernels(&x) => x.apply_op1_no_bwd(op).context(context),
            Some(_) if !x.track_op() => {
                candle_nn::ops::layer_norm(&x, &self.weight, &self.bias, self.eps).context(context)
            }
            // The only one that has gradients.
            _ => candle_nn::ops::layer_norm_slow(&x, &self.weight, &self.bias, self.eps).context(context),
        }
    }
}

/// [`LayerNorm`] without weight and bias, of `x` `[…, channels]`.
///
/// # Errors
/// [`Error::Tensor`] if a tensor operation fails on the device.
pub(crate) fn normalized(x: &Tensor, eps: f32) -> Result<Tensor> {
    let context = "a layer norm";
    let channels = x.dim(D::Minus1).context(context)?;
    if runs_on_cpu_kernels(x) {
        let op = LayerNormOp { weight: vec![1.0; channels], bias: vec![0.0; channels], eps };
        return x.contiguous().and_then(|x| x.apply_op1_no_bwd(&op)).context(context);
    }
    let norm = || {
        let weight = Tensor::ones(channels, x.dtype(), x.device())?;
        let bias = Tensor::zeros(channels, x.dtype(), x.device())?;
        candle_nn::ops::layer_norm_slow(x, &weight, &bias, eps)
    };
    norm().context(context)
}
