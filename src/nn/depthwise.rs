//! Causal depthwise convolution, and the gated linear unit before it in a Conformer.

use candle_core::Tensor;

use super::kernels::depthwise::Depthwise;
use super::ops::activation::GatedOp;
use super::ops::depthwise::DepthwiseOp;
use super::ops::runs_on_cpu_kernels;
use super::prepared::Prepared;
use crate::check::{self, MAX_WIDTH};
use crate::error::{Context, Result};
use crate::weights::{Init, Loader, Target};

/// A causal depthwise convolution over time, without bias. The output is as long as the input: each frame depends on
/// itself and the `kernel − 1` frames before it, which are zero before the first frame.
#[derive(Debug)]
pub struct CausalDepthwiseConv {
    kernel: usize,
    /// On a device: `[kernel, channels]`.
    weights: Prepared<DepthwiseOp, Tensor>,
}

impl CausalDepthwiseConv {
    /// Reads `weight` `[channels, 1, kernel]`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a size out of range, otherwise as [`Loader::get`].
    pub fn load(weights: &Loader, channels: usize, kernel: usize) -> Result<Self> {
        check::sizes([("channels", channels, MAX_WIDTH), ("kernel", kernel, MAX_WIDTH)])?;
        let shape = [channels, 1, kernel];
        let tensor = || {
            let filters = weights.parameter("weight", &shape, Init::of_fan_in(kernel))?;
            filters
                .squeeze(1)
                .and_then(|filters| filters.t())
                .context("transposing the filters of a depthwise convolution")
        };
        let weights = match weights.target() {
            Target::Kernels => {
                let filters = weights.get_vec("weight", &shape)?;
                Prepared::Packed(DepthwiseOp(Depthwise::pack(&filters, kernel, kernel - 1)))
            }
            Target::Device => Prepared::OnDevice(tensor()?),
            Target::Training(_) => Prepared::Training(tensor()?),
        };
        Ok(Self { kernel, weights })
    }

    /// Convolves `x` `[batch, n_frames, channels]`. The shape stays the same.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if the shape or the device does not match.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x).context("running a depthwise convolution")
    }

    fn run(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let filters = match &self.weights {
            Prepared::Packed(op) => return x.contiguous()?.apply_op1_no_bwd(op),
            Prepared::OnDevice(filters) | Prepared::Training(filters) => filters,
        };
        let n_frames = x.dim(1)?;
        let x = x.pad_with_zeros(1, self.kernel - 1, 0)?;
        let tap = |tap: usize| x.narrow(1, tap, n_frames)?.broadcast_mul(&filters.get(tap)?);
        (1..self.kernel).try_fold(tap(0)?, |sum, k| sum + tap(k)?)
    }
}

/// The gated linear unit: splits the last dimension into halves `a` and `b` and computes `a · sigmoid(b)`, `[…, 2 ·
/// channels]` to `[…, channels]` (Dauphin et al., 2016, arXiv 1612.08083).
///
/// # Errors
/// [`Error::Tensor`](crate::Error::Tensor) if the last dimension is odd.
pub fn gated(x: &Tensor) -> Result<Tensor> {
    let gate = || match runs_on_cpu_kernels(x) {
        true => x.contiguous()?.apply_op1_no_bwd(&GatedOp),
        false => {
            let halves = x.chunk(2, candle_core::D::Minus1)?;
            &halves[0] * candle_nn::ops::sigmoid(&halves[1])?
        }
    };
    gate().context("computing a gated linear unit")
}
