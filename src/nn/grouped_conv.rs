//! Grouped convolutions over sequences of vectors.

use candle_core::Tensor;

use super::Activation;
use super::kernels::conv::grouped::{GroupedConv, GroupedShape};
use super::kernels::workspace::Workspace;
use super::ops::grouped_conv::GroupedConvOp;
use super::prepared::Prepared;
use crate::error::{Context, Error, Result};
use crate::weights::{Loader, Target};

/// A grouped convolution over a sequence of vectors, with an activation. Each group of channels depends only on itself;
/// the output has the shape of the input.
#[derive(Debug)]
pub struct GroupedConv1d {
    groups: usize,
    kernel: usize,
    activation: Activation,
    /// On a device: the filters `[channels, channels / groups, kernel]` and the bias `[channels, 1]`.
    weights: Prepared<GroupedConvOp, [Tensor; 2]>,
}

impl GroupedConv1d {
    /// Creates the layer from `filters` `[channels, channels / groups, kernel]`, row-major, and `bias` `[channels]`,
    /// whose length determines the sizes. An output vector depends on the `kernel / 2` vectors before it, which are
    /// zero before the first.
    ///
    /// # Errors
    /// [`Error::Argument`] if `groups` does not divide the channels or the number of filter values does not match,
    /// [`Error::Tensor`] if a tensor operation fails on the device of `place`.
    pub(crate) fn new(
        filters: Vec<f32>,
        bias: Vec<f32>,
        groups: usize,
        activation: Activation,
        place: &Loader,
    ) -> Result<Self> {
        let channels = bias.len();
        if groups == 0 || channels == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::argument("groups", groups, format!("expected a divisor of the {channels} channels")));
        }
        let width = channels / groups;
        let kernel = filters.len() / (channels * width);
        if kernel == 0 || !filters.len().is_multiple_of(channels * width) {
            let reason = format!("expected a multiple of {channels} x {width} (channels times channels per group)");
            return Err(Error::argument("filters.len()", filters.len(), reason));
        }
        let weights = match place.target() {
            Target::Kernels => {
                let shape = GroupedShape { channels, groups, kernel, padding: kernel / 2 };
                let conv = GroupedConv::pack(shape, &filters, bias, activation);
                Prepared::Packed(GroupedConvOp { conv, workspace: Workspace::shared() })
            }
            _ => {
                let filters = Tensor::from_vec(filters, (channels, width, kernel), place.device());
                let bias = Tensor::from_vec(bias, (channels, 1), place.device());
                let context = "moving the weights of a grouped convolution to the device";
                Prepared::OnDevice([filters.context(context)?, bias.context(context)?])
            }
        };
        Ok(Self { groups, kernel, activation, weights })
    }

    /// Convolves `x` `[batch, n, channels]`, f32. The shape stays the same.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not match.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x).context("running a grouped convolution")
    }

    fn run(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match &self.weights {
            Prepared::Packed(op) => x.contiguous()?.apply_op1_no_bwd(op),
            Prepared::OnDevice([filters, bias]) | Prepared::Training([filters, bias]) => {
                let n = x.dim(1)?;
                let y = x.transpose(1, 2)?.contiguous()?.conv1d(filters, self.kernel / 2, 1, 1, self.groups)?;
                // An even kernel gives one extra vector.
                self.activation.forward(y.narrow(2, 0, n)?.broadcast_add(bias)?)?.transpose(1, 2)?.contiguous()
            }
        }
    }
}
