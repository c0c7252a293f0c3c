//! Convolutions with bias, batch norm folded in, and activation.
//!
//! As everywhere in this field a convolution is a cross-correlation: the kernel is not flipped.

use candle_core::Tensor;

use super::kernels::ops::BiasActivationOp;
use super::{Activation, BatchNorm, has_kernels};
use crate::error::Context;
use crate::weights::Loader;
use crate::{Error, Result};

/// Geometry of a [`Conv2d`]: square kernels, the same stride and zero padding on both axes, no groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Channels in.
    pub in_channels: usize,
    /// Channels out.
    pub out_channels: usize,
    /// Rows and columns of the kernel.
    pub kernel: usize,
    /// Step on both axes.
    pub stride: usize,
    /// Zeros added on each side of both axes.
    pub padding: usize,
}

/// A 2-D convolution without groups, `[batch, in, height, width]` to `[batch, out, height', width']`.
#[derive(Debug)]
pub struct Conv2d {
    config: Conv2dConfig,
    weight: Tensor, // [out, in, kernel, kernel]
    epilogue: Epilogue,
}

impl Conv2d {
    /// Reads `weight` `[out, in, kernel, kernel]` of a convolution without bias and the batch norm that follows it.
    ///
    /// # Errors
    /// [`Error::Config`] for a kernel or stride of 0, else as [`Loader::get`]; tensors that do not fit are reported by [`Loader::finish`].
    pub fn load(conv: &Loader, norm: &Loader, config: Conv2dConfig, activation: Activation) -> Result<Self> {
        let Conv2dConfig { in_channels, out_channels, kernel, stride, .. } = config;
        check_geometry(kernel, stride)?;
        let filters = conv.get("weight", (out_channels, in_channels, kernel, kernel))?;
        let (weight, epilogue) = fold(&filters, BatchNorm::load(norm, out_channels)?, activation)?;
        Ok(Self { config, weight, epilogue })
    }

    /// `x` `[batch, in, height, width]` to `[batch, out, height', width']`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Conv2dConfig { kernel, stride, padding, .. } = self.config;
        check_input(&x.dims()[x.rank().min(2)..], kernel, padding).context("a convolution")?;
        let y = x.conv2d(&self.weight, padding, stride, 1, 1).context("a convolution")?;
        self.epilogue.forward(y)
    }
}

/// Geometry of a [`Conv1d`], no groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv1dConfig {
    /// Channels in.
    pub in_channels: usize,
    /// Channels out.
    pub out_channels: usize,
    /// Length of the kernel.
    pub kernel: usize,
    /// Step.
    pub stride: usize,
    /// Zeros added on each side.
    pub padding: usize,
}

/// A 1-D convolution without groups, `[batch, in, length]` to `[batch, out, length']`.
#[derive(Debug)]
pub struct Conv1d {
    config: Conv1dConfig,
    weight: Tensor, // [out, in, kernel]
    epilogue: Epilogue,
}

impl Conv1d {
    /// Reads `weight` `[out, in, kernel]` of a convolution without bias and the batch norm that follows it.
    ///
    /// # Errors
    /// [`Error::Config`] for a kernel or stride of 0, else as [`Loader::get`]; tensors that do not fit are reported by [`Loader::finish`].
    pub fn load(conv: &Loader, norm: &Loader, config: Conv1dConfig, activation: Activation) -> Result<Self> {
        let Conv1dConfig { in_channels, out_channels, kernel, stride, .. } = config;
        check_geometry(kernel, stride)?;
        let filters = conv.get("weight", (out_channels, in_channels, kernel))?;
        let (weight, epilogue) = fold(&filters, BatchNorm::load(norm, out_channels)?, activation)?;
        Ok(Self { config, weight, epilogue })
    }

    /// `x` `[batch, in, length]` to `[batch, out, (length + 2 · padding − kernel) / stride + 1]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Conv1dConfig { kernel, stride, padding, .. } = self.config;
        check_input(&x.dims()[x.rank().min(2)..], kernel, padding).context("a convolution")?;
        let y = x.conv1d(&self.weight, padding, stride, 1, 1).context("a convolution")?;
        self.epilogue.forward(y)
    }
}

fn check_geometry(kernel: usize, stride: usize) -> Result<()> {
    for (field, value) in [("kernel", kernel), ("stride", stride)] {
        if value == 0 {
            return Err(Error::config(field, value, "at least 1"));
        }
    }
    Ok(())
}

/// Refuses an input, given by its axes after the channels, that is shorter than the kernel.
fn check_input(axes: &[usize], kernel: usize, padding: usize) -> candle_core::Result<()> {
    match axes.iter().find(|&&length| length == 0 || length + 2 * padding < kernel) {
        Some(length) => Err(candle_core::Error::Msg(format!("length {length} is too short for a kernel of {kernel}"))),
        None => Ok(()),
    }
}

fn fold(filters: &Tensor, norm: BatchNorm, activation: Activation) -> Result<(Tensor, Epilogue)> {
    let (weight, bias) = norm.fold_into(filters).context("folding a batch norm")?;
    Ok((weight, Epilogue::new(bias, activation, filters.device())?))
}

/// Bias and activation after a convolution.
#[derive(Debug)]
struct Epilogue {
    op: BiasActivationOp,
    bias: Tensor, // [channels]
}

impl Epilogue {
    fn new(bias: Vec<f32>, activation: Activation, device: &candle_core::Device) -> Result<Self> {
        let tensor = Tensor::new(bias.as_slice(), device).context("moving a bias to the device")?;
        Ok(Self { op: BiasActivationOp { bias, activation }, bias: tensor })
    }

    /// `y` `[batch, channels, …]`, fresh from the convolution and owned by nobody else.
    fn forward(&self, y: Tensor) -> Result<Tensor> {
        let context = "bias and activation";
        if has_kernels(&y) {
            y.inplace_op1(&self.op).context(context)?;
            return Ok(y);
        }
        let mut shape = vec![1; y.rank()];
        shape[1] = self.bias.elem_count();
        let bias = self.bias.reshape(shape).context(context)?;
        y.broadcast_add(&bias).and_then(|y| self.op.activation.forward(y)).context(context)
    }
}
