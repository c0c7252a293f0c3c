//! Causal convolutions over sequences of vectors, dilated or not.

use candle_core::Tensor;

use super::{Activation, Linear};
use crate::check::{self, MAX_WIDTH};
use crate::error::{Context, Result};
use crate::weights::{Init, Loader, Target};

/// A convolution over a sequence of vectors where an output sees its own input and earlier ones alone:
/// `y[t] = activation(b + Σ_k W[k] x[t − (kernel − 1 − k) · dilation])`.
///
/// It is a [`Linear`] layer of `kernel` vectors side by side, so dilation costs nothing.
#[derive(Debug)]
pub struct CausalConv1d {
    kernel: usize,
    dilation: usize,
    layer: Layer,
}

#[derive(Debug)]
enum Layer {
    /// Its inputs are the taps' vectors, the earliest first.
    Linear(Linear),
    Training {
        filters: Tensor, // [out, in, kernel]
        bias: Tensor,    // [out]
        activation: Activation,
    },
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
        let shape = (outputs, inputs, kernel);
        let layer = match weights.target() {
            Target::Training(_) => {
                let init = Init::of_fan_in(inputs * kernel);
                let filters = weights.parameter("weight", shape, init)?;
                Layer::Training { filters, bias: weights.parameter("bias", outputs, init)?, activation }
            }
            Target::Kernels | Target::Device => {
                let filters = weights.get_vec("weight", &[outputs, inputs, kernel])?;
                let by_tap = |i: usize| {
                    let (output, tap, input) = (i / (kernel * inputs), i / inputs % kernel, i % inputs);
                    filters[(output * inputs + input) * kernel + tap]
                };
                let matrix: Vec<f32> = (0..filters.len()).map(by_tap).collect();
                let bias = weights.get_vec("bias", &[outputs])?;
                Layer::Linear(Linear::from_matrix(matrix, bias, activation, weights)?)
            }
        };
        Ok(Self { kernel, dilation, layer })
    }

    /// Vectors before its own that an output sees.
    pub fn context(&self) -> usize {
        (self.kernel - 1) * self.dilation
    }

    /// `x` `[batch, n, in]`, f32, to `[batch, n, out]`, and the last [`context`](Self::context) inputs, which the next call takes as
    /// `before`. Without `before` a sequence begins: zeros stand before it.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if the shape or the device does not fit.
    pub fn forward(&self, x: &Tensor, before: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (batch, n, inputs) = x.dims3().context("a causal convolution")?;
        let run = || {
            let padded = match before {
                Some(before) => Tensor::cat(&[before, x], 1)?,
                None => x.pad_with_zeros(1, self.context(), 0)?,
            };
            let taps = (0..self.kernel).map(|tap| padded.narrow(1, tap * self.dilation, n));
            let taps = Tensor::cat(&taps.collect::<candle_core::Result<Vec<_>>>()?, 2)?; // [batch, n, kernel · in]
            Ok::<_, candle_core::Error>((taps, padded.narrow(1, n, self.context())?.contiguous()?))
        };
        let (taps, context) = run().context("a causal convolution")?;
        let y = match &self.layer {
            Layer::Linear(linear) => linear.forward(&taps)?,
            Layer::Training { filters, bias, activation } => {
                let product = || {
                    let matrix = filters.permute((2, 1, 0))?; // [kernel, in, out]
                    let matrix = matrix.reshape((self.kernel * inputs, ()))?;
                    let y = taps.reshape((batch * n, ()))?.matmul(&matrix)?.broadcast_add(bias)?;
                    activation.forward(y.reshape((batch, n, ()))?)
                };
                product().context("a causal convolution")?
            }
        };
        Ok((y, context))
    }
}
