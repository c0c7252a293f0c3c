//! Batch norm in training: normalises by the statistics of the batch and updates the running ones.

use candle_core::{Tensor, Var};

use super::Activation;
use super::kernels::train::norm::{ChannelLayout, Statistics};
use super::ops::train::NormOp;
use crate::error::Result;
use crate::tensor::with_values;
use crate::weights::{Init, Loader, TrainingState};

/// Weight of a batch in the running statistics: PyTorch's default.
const MOMENTUM: f64 = 0.1;

/// A trainable batch norm.
#[derive(Debug)]
pub(super) struct BatchStatistics {
    weight: Tensor, // [channels]
    bias: Tensor,
    mean: Var,
    variance: Var,
    eps: f64,
    state: TrainingState,
}

impl BatchStatistics {
    pub fn load(weights: &Loader, channels: usize, eps: f64, state: TrainingState) -> Result<Self> {
        Ok(Self {
            weight: weights.parameter("weight", channels, Init::Constant(1.0))?,
            bias: weights.parameter("bias", channels, Init::Constant(0.0))?,
            mean: weights.statistic("running_mean", channels, 0.0)?,
            variance: weights.statistic("running_var", channels, 1.0)?,
            eps,
            state,
        })
    }

    /// Normalises `x` over its channels on `axis`. In training mode, uses the mean and the variance of the batch and
    /// moves the running statistics towards them by `MOMENTUM`, with the unbiased variance.
    pub fn forward(&self, x: &Tensor, axis: usize, activation: Activation) -> candle_core::Result<Tensor> {
        if !self.state.is_training() || !x.device().is_cpu() {
            return activation.forward(self.on_device(x, axis)?);
        }
        let x = x.contiguous()?;
        let (channels, n) = (self.weight.elem_count(), x.elem_count());
        if n == 0 || x.dim(axis)? != channels {
            let reason = format!("expected {channels} channels on axis {axis}, got {:?}", x.dims());
            return Err(candle_core::Error::Msg(reason));
        }
        let layers = ChannelLayout { channels, inner: x.dims()[axis + 1..].iter().product() };
        let statistics = with_values(&[&x], |values| layers.statistics(values[0]))?;
        let n = (n / channels) as f64;
        let column = |value: &dyn Fn(&Statistics) -> f32| Tensor::from_iter(statistics.iter().map(value), x.device());
        self.follow(&self.mean, &column(&|channel| channel.mean)?, 1.0)?;
        self.follow(&self.variance, &column(&|channel| channel.variance)?, n / (n - 1.0).max(1.0))?;
        let scale = |variance: f32| (1.0 / (f64::from(variance) + self.eps).sqrt()) as f32;
        let normal = statistics.iter().map(|channel| (channel.mean, scale(channel.variance))).collect();
        let relu = activation == Activation::Relu;
        let y = x.apply_op3(&self.weight, &self.bias, NormOp { layers, normal, relu })?;
        if relu { Ok(y) } else { activation.forward(y) }
    }

    /// Moves a running statistic towards the batch's value.
    fn follow(&self, running: &Var, value: &Tensor, factor: f64) -> candle_core::Result<()> {
        running.set(&((running.as_tensor() * (1.0 - MOMENTUM))? + (value * (MOMENTUM * factor))?)?)
    }

    fn on_device(&self, x: &Tensor, axis: usize) -> candle_core::Result<Tensor> {
        let mut shape = vec![1; x.rank()];
        shape[axis] = self.weight.elem_count();
        let part = |tensor: &Tensor| tensor.reshape(shape.as_slice());
        if !self.state.is_training() {
            let scale = (self.weight.as_ref() / (self.variance.as_tensor() + self.eps)?.sqrt()?)?;
            let shift = (&self.bias - (self.mean.as_tensor() * &scale)?)?;
            return x.broadcast_mul(&part(&scale)?)?.broadcast_add(&part(&shift)?);
        }
        let others: Vec<usize> = (0..x.rank()).filter(|&i| i != axis).collect();
        let n = (x.elem_count() / self.weight.elem_count().max(1)) as f64;
        let mean = x.mean_keepdim(others.as_slice())?;
        let centred = x.broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim(others.as_slice())?;
        let flat = |value: &Tensor| value.detach().flatten_all();
        self.follow(&self.mean, &flat(&mean)?, 1.0)?;
        self.follow(&self.variance, &flat(&variance)?, n / (n - 1.0).max(1.0))?;
        let scale = (part(&self.weight)? / (variance + self.eps)?.sqrt()?)?;
        centred.broadcast_mul(&scale)?.broadcast_add(&part(&self.bias)?)
    }
}
