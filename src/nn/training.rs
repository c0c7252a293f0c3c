//! What layers do only while they are trained: statistics of the batch and dropout.

use candle_core::{Tensor, Var};

use super::Activation;
use super::kernels::train::norm::{ChannelLayout, Statistics};
use super::norm::BATCH_NORM_EPS;
use super::ops::train::NormOp;
use crate::error::{Context, Error, Result};
use crate::tensor::with_values;
use crate::weights::{Init, Loader, Mode};

/// The share of a batch in the running statistics: PyTorch's default.
const MOMENTUM: f64 = 0.1;

/// A batch norm that is trained.
#[derive(Debug)]
pub(super) struct BatchStatistics {
    weight: Tensor, // [channels]
    bias: Tensor,
    mean: Var,
    variance: Var,
    mode: Mode,
}

impl BatchStatistics {
    /// `None` where the tensors are those of a checkpoint.
    pub fn load(weights: &Loader, channels: usize) -> Result<Option<Self>> {
        let Some(mode) = weights.mode() else { return Ok(None) };
        let get = |name: &str, value: f32| weights.parameter(name, channels, Init::Constant(value));
        let (weight, bias) = (get("weight", 1.0)?, get("bias", 0.0)?);
        let (mean, variance) =
            (weights.statistic("running_mean", channels, 0.0)?, weights.statistic("running_var", channels, 1.0)?);
        Ok(mean.zip(variance).map(|(mean, variance)| Self { weight, bias, mean, variance, mode }))
    }

    /// `x` with its channels on `axis`. In training mode the mean and the variance are those of the batch, and the running
    /// ones move a tenth of the way towards them, the variance with one degree of freedom less.
    pub fn forward(&self, x: &Tensor, axis: usize, activation: Activation) -> candle_core::Result<Tensor> {
        if !self.mode.is_training() || !x.device().is_cpu() {
            return activation.forward(self.on_device(x, axis)?);
        }
        let x = x.contiguous()?;
        let (channels, n) = (self.weight.elem_count(), x.elem_count());
        if n == 0 || x.dim(axis)? != channels {
            return Err(candle_core::Error::Msg(format!("{channels} channels are wanted, not {:?}", x.dims())));
        }
        let layers = ChannelLayout { channels, inner: x.dims()[axis + 1..].iter().product() };
        let statistics = with_values(&[&x], |values| layers.statistics(values[0]))?;
        let n = (n / channels) as f64;
        let column = |value: &dyn Fn(&Statistics) -> f32| Tensor::from_iter(statistics.iter().map(value), x.device());
        self.follow(&self.mean, &column(&|channel| channel.mean)?, 1.0)?;
        self.follow(&self.variance, &column(&|channel| channel.variance)?, n / (n - 1.0).max(1.0))?;
        let scale = |variance: f32| (1.0 / (f64::from(variance) + BATCH_NORM_EPS).sqrt()) as f32;
        let normal = statistics.iter().map(|channel| (channel.mean, scale(channel.variance))).collect();
        let relu = activation == Activation::Relu;
        let y = x.apply_op3(&self.weight, &self.bias, NormOp { layers, normal, relu })?;
        if relu { Ok(y) } else { activation.forward(y) }
    }

    /// Moves a running statistic towards that of a batch.
    fn follow(&self, running: &Var, value: &Tensor, factor: f64) -> candle_core::Result<()> {
        running.set(&((running.as_tensor() * (1.0 - MOMENTUM))? + (value * (MOMENTUM * factor))?)?)
    }

    fn on_device(&self, x: &Tensor, axis: usize) -> candle_core::Result<Tensor> {
        let mut shape = vec![1; x.rank()];
        shape[axis] = self.weight.elem_count();
        let part = |tensor: &Tensor| tensor.reshape(shape.as_slice());
        if !self.mode.is_training() {
            let scale = (self.weight.as_ref() / (self.variance.as_tensor() + BATCH_NORM_EPS)?.sqrt()?)?;
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
        let scale = (part(&self.weight)? / (variance + BATCH_NORM_EPS)?.sqrt()?)?;
        centred.broadcast_mul(&scale)?.broadcast_add(&part(&self.bias)?)
    }
}

/// In training mode, sets values to 0 at random and scales the others up so that the mean stays; else nothing.
#[derive(Debug, Clone)]
pub struct Dropout {
    p: f64,
    mode: Option<Mode>,
}

impl Dropout {
    /// Each value becomes 0 with probability `p`, below 1.
    ///
    /// # Errors
    /// [`Error::Config`] for another `p`.
    pub fn new(weights: &Loader, p: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&p) {
            return Err(Error::config("p", p, "0 or more and less than 1"));
        }
        Ok(Self { p, mode: weights.mode() })
    }

    /// Whether it changes anything now.
    pub(crate) fn is_on(&self) -> bool {
        self.p > 0.0 && self.mode.as_ref().is_some_and(Mode::is_training)
    }

    /// `x` of any shape.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Some(mode) = self.mode.as_ref().filter(|_| self.is_on()) else { return Ok(x.clone()) };
        let kept = (1.0 / (1.0 - self.p)) as f32;
        let mask: Vec<f32> = mode.with_random(|random| {
            (0..x.elem_count()).map(|_| if random.uniform() < self.p { 0.0 } else { kept }).collect()
        });
        Tensor::from_vec(mask, x.shape(), x.device()).and_then(|mask| x * mask).context("dropout")
    }
}
