//! Temporal convolutional networks.

use std::borrow::Cow;

use candle_core::Tensor;

use super::ops::activation::add_relu;
use super::{Activation, CausalConv1d, Dropout};
use crate::check::{self, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::weights::Loader;

/// The most levels: the dilation of the last is 2^11.
const MAX_LEVELS: usize = 12;

/// The sizes of a [`Tcn`].
#[derive(Debug, Clone, PartialEq)]
pub struct TcnConfig {
    /// Length of an input vector, 1 to 65,536.
    pub inputs: usize,
    /// Outputs of each level, 1 to 65,536; 1 to 12 levels.
    pub channels: Cow<'static, [usize]>,
    /// Length of the kernels, 2 to 32.
    pub kernel: usize,
    /// Share of the values that dropout sets to 0 after each convolution in training, at least 0 and below 1.
    pub dropout: f64,
}

impl TcnConfig {
    /// Inputs that an output sees, its own included: `1 + 2 (kernel − 1) (2^levels − 1)`.
    pub fn receptive_field(&self) -> usize {
        let of_dilations = 1usize.checked_shl(self.channels.len() as u32).map_or(usize::MAX, |power| power - 1);
        2usize.saturating_mul(self.kernel.saturating_sub(1)).saturating_mul(of_dilations).saturating_add(1)
    }

    fn validate(&self) -> Result<()> {
        let n_levels = self.channels.len();
        if !(1..=MAX_LEVELS).contains(&n_levels) {
            return Err(Error::config("channels", format!("{n_levels} levels"), format!("expected 1 to {MAX_LEVELS}")));
        }
        if !(2..=32).contains(&self.kernel) {
            return Err(Error::config("kernel", self.kernel, "expected 2 to 32"));
        }
        check::size("inputs", self.inputs, MAX_WIDTH)?;
        check::sizes(self.channels.iter().map(|&channels| ("channels", channels, MAX_WIDTH)))
    }
}

/// A temporal convolutional network (Bai et al., "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for
/// Sequence Modeling", 2018, arXiv 1803.01271): levels of two causal convolutions with ReLU and a connection around them. Level
/// `i` has the dilation `2^i`. A frame sees earlier ones alone.
///
/// Tensors are those of locuslab/TCN@2f8c2b8: `network.I.{conv1,conv2,downsample}`; `downsample` is there where the number of
/// channels changes. Weight norm is folded in. To be trained, convolutions have no weight norm.
#[derive(Debug)]
pub struct Tcn {
    config: TcnConfig,
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    convs: [CausalConv1d; 2],
    downsample: Option<CausalConv1d>,
    dropout: Dropout,
}

/// The frames that later ones need: for each convolution its last inputs.
#[derive(Debug, Clone)]
pub struct TcnState(Vec<Tensor>);

impl Tcn {
    /// Reads the tensors of all levels.
    ///
    /// # Errors
    /// [`Error::Config`] for a size that is out of range, else as [`Loader::get`].
    pub fn load(weights: &Loader, config: TcnConfig) -> Result<Self> {
        config.validate()?;
        let mut inputs = config.inputs;
        let mut levels = Vec::new();
        for (i, &outputs) in config.channels.iter().enumerate() {
            let level = weights.at("network").at(i);
            level.ignore("net.*"); // the same convolutions once more
            let conv = |name: &str, inputs: usize| {
                CausalConv1d::load(&level.at(name), [inputs, outputs], config.kernel, 1 << i, Activation::Relu)
            };
            let pointwise =
                || CausalConv1d::load(&level.at("downsample"), [inputs, outputs], 1, 1, Activation::Identity);
            levels.push(Level {
                convs: [conv("conv1", inputs)?, conv("conv2", outputs)?],
                downsample: (inputs != outputs).then(pointwise).transpose()?,
                dropout: Dropout::new(weights, config.dropout)?,
            });
            inputs = outputs;
        }
        Ok(Self { config, levels })
    }

    /// The sizes that it was loaded with.
    pub fn config(&self) -> &TcnConfig {
        &self.config
    }

    /// Length of an output vector.
    pub fn outputs(&self) -> usize {
        self.config.channels.last().copied().unwrap_or_default()
    }

    /// The next vectors of a sequence: `x` `[batch, n, inputs]`, f32, to `[batch, n, channels]` of the last level, and the state
    /// after them. A sequence begins without state. What one call gives for all vectors, several give for their parts.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not fit.
    pub fn forward(&self, x: &Tensor, state: Option<&TcnState>) -> Result<(Tensor, TcnState)> {
        let mut contexts = Vec::with_capacity(2 * self.levels.len());
        let mut x = x.clone();
        for Level { convs, downsample, dropout } in &self.levels {
            let mut y = x.clone();
            for conv in convs {
                let (out, context) = conv.forward(&y, state.and_then(|state| state.0.get(contexts.len())))?;
                contexts.push(context);
                y = dropout.forward(&out)?;
            }
            if let Some(downsample) = downsample {
                x = downsample.forward(&x, None)?.0;
            }
            x = add_relu(&y, &x).context("a temporal convolutional network")?;
        }
        Ok((x, TcnState(contexts)))
    }
}
