//! A convolution with batch norm folded in, activation, and pooling.
//!
//! As everywhere in this field a convolution is a cross-correlation: the kernel is not flipped.

use candle_core::Tensor;

use super::batch_norm::FoldedBatchNorm;
use super::kernels::conv::shape::ConvShape;
use super::kernels::conv::{Conv as PackedConv, Filters, Input};
use super::kernels::simd::isa::Isa;
use super::map::{FeatureMap, Values, with_planes};
use super::ops::train;
use super::pool::Pool;
use super::prepared::Prepared;
use super::{Activation, BatchNorm};
use crate::check::{self, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::weights::{Init, Loader, Target};

/// The most channels, those of a front end with deltas of all orders included.
const MAX_CHANNELS: usize = 1 << 20;

/// The sizes of a convolution without groups, the same on both axes of a map.
///
/// ```
/// use clipwise::nn::ConvConfig;
///
/// let conv = ConvConfig { padding: 1, ..ConvConfig::new(64, 128, 3) };
/// assert_eq!((conv.stride, conv.bias), (1, false));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvConfig {
    /// Channels in, 1 to 2^20.
    pub in_channels: usize,
    /// Channels out, 1 to 2^20.
    pub out_channels: usize,
    /// Length of the kernel, 1 to 65,536.
    pub kernel: usize,
    /// Step, 1 to 65,536. 1 by [`new`](Self::new).
    pub stride: usize,
    /// Zeros added on each side, at most 65,536. 0 by [`new`](Self::new).
    pub padding: usize,
    /// Places from a value of the kernel to the next, 1 to 65,536 with the whole kernel up to that length; more than 1 only on
    /// sequences. 1 by [`new`](Self::new).
    pub dilation: usize,
    /// Whether it has a bias of its own, before the norm if one follows. False by [`new`](Self::new).
    pub bias: bool,
}

impl ConvConfig {
    /// Stride 1, no padding, no dilation, no bias.
    pub const fn new(in_channels: usize, out_channels: usize, kernel: usize) -> Self {
        Self { in_channels, out_channels, kernel, stride: 1, padding: 0, dilation: 1, bias: false }
    }

    /// Places that the kernel covers.
    pub(super) fn extent(&self) -> usize {
        if self.kernel == 0 { 0 } else { (self.kernel - 1).saturating_mul(self.dilation).saturating_add(1) }
    }

    /// On sequences, whose length is the height of a map of width 1, or on maps.
    fn shape(&self, of_sequences: bool) -> Result<ConvShape> {
        let Self { in_channels, out_channels, stride, padding, dilation, .. } = *self;
        let kernel = self.extent();
        check::sizes([
            ("in_channels", in_channels, MAX_CHANNELS),
            ("out_channels", out_channels, MAX_CHANNELS),
            ("kernel", kernel, MAX_WIDTH),
            ("stride", stride, MAX_WIDTH),
        ])?;
        if padding > MAX_WIDTH {
            return Err(Error::config("padding", padding, format!("expected 0 to {MAX_WIDTH}")));
        }
        if dilation == 0 || dilation > 1 && !of_sequences {
            return Err(Error::config("dilation", dilation, "expected 1, or more on sequences"));
        }
        let [kernel, stride, padding] =
            [(kernel, 1), (stride, 1), (padding, 0)].map(|(n, width)| (n, if of_sequences { width } else { n }));
        Ok(ConvShape { in_channels, out_channels, kernel, stride, padding })
    }
}

/// Filters `[out, in, kernel]` with zeros between their values.
fn spread(filters: Tensor, dilation: usize) -> candle_core::Result<Tensor> {
    if dilation == 1 {
        return Ok(filters);
    }
    let last = (filters.dim(2)? - 1) * dilation + 1;
    filters.unsqueeze(3)?.pad_with_zeros(3, 0, dilation - 1)?.flatten(2, 3)?.narrow(2, 0, last)?.contiguous()
}

/// A convolution of maps, or of sequences.
#[derive(Debug)]
pub(super) struct Conv {
    pub shape: ConvShape,
    dilation: usize,
    activation: Activation,
    weights: Prepared<PackedConv, Folded, Unfolded>,
}

#[derive(Debug)]
struct Folded {
    filters: Tensor, // [out, in, …]
    bias: Tensor,    // [1, out, 1, 1]
}

#[derive(Debug)]
struct Unfolded {
    filters: Tensor,      // [out, in, …]
    bias: Option<Tensor>, // [out]
    norm: Option<BatchNorm>,
}

impl Conv {
    /// `width` is that of the maps, if it is known; that of sequences is 1, and their filters are `[out, in, kernel]`.
    pub fn load(
        conv: &Loader,
        norm: Option<&Loader>,
        config: ConvConfig,
        activation: Activation,
        (of_sequences, width): (bool, Option<usize>),
    ) -> Result<Self> {
        let ConvConfig { in_channels, out_channels, kernel, dilation, bias, .. } = config;
        let shape = config.shape(of_sequences)?;
        let filters = [out_channels, in_channels, kernel, kernel];
        let filters = if of_sequences { &filters[..3] } else { &filters };
        let folded = || FoldedBatchNorm::load_after(conv, bias, norm, out_channels);
        let weights = match conv.target() {
            Target::Kernels => {
                let FoldedBatchNorm { scale, shift } = folded()?;
                let mut values = conv.get_vec("weight", filters)?;
                if dilation > 1 {
                    let spread = || {
                        spread(Tensor::from_vec(values, filters, conv.device())?, dilation)?.flatten_all()?.to_vec1()
                    };
                    values = spread().context("a dilated convolution")?;
                }
                let filters = Filters { values: &values, scale: &scale, bias: &shift, activation };
                Prepared::Packed(PackedConv::pack(shape, width, filters))
            }
            Target::Device => {
                let FoldedBatchNorm { scale, shift } = folded()?;
                let filters = spread(conv.get("weight", filters)?, dilation).context("a dilated convolution")?;
                let tensors = || {
                    let mut of_filters = vec![1; filters.rank()];
                    of_filters[0] = out_channels;
                    let scale = Tensor::from_vec(scale, of_filters, filters.device())?;
                    let bias = Tensor::from_vec(shift, (1, out_channels, 1, 1), filters.device())?;
                    Ok::<_, Error>(Folded { filters: filters.broadcast_mul(&scale)?, bias })
                };
                Prepared::OnDevice(tensors().context("folding a batch norm")?)
            }
            Target::Training(_) => {
                let init = Init::of_fan_in(filters[1..].iter().product());
                Prepared::Training(Unfolded {
                    filters: conv.parameter("weight", filters, init)?,
                    bias: bias.then(|| conv.parameter("bias", out_channels, init)).transpose()?,
                    norm: norm.map(|norm| BatchNorm::load_channels_first(norm, out_channels)).transpose()?,
                })
            }
        };
        Ok(Self { shape, dilation, activation, weights })
    }

    /// The convolution of `x`, its activation, and a pooling if one follows.
    pub fn forward(&self, x: &FeatureMap, pool: Option<Pool>) -> candle_core::Result<FeatureMap> {
        let y = match &self.weights {
            Prepared::Packed(conv) => {
                let (pool, isa, workspace) = (pool.map(|pool| (pool.pooling, pool.window)), Isa::best(), &x.workspace);
                let map = match &x.values {
                    Values::Blocks(map) => conv.forward(Input::Map(map), pool, isa, workspace),
                    Values::Tensor(x) => {
                        with_planes(x, |x, shape| conv.forward(Input::Planes(x, shape), pool, isa, workspace))?
                    }
                };
                let map = map.ok_or_else(|| self.refuse(x))?;
                return Ok(x.with(Values::Blocks(map)));
            }
            Prepared::OnDevice(Folded { filters, bias }) => {
                let maps = x.to_tensor()?;
                let (_, _, height, width) = maps.dims4()?;
                self.shape.output(height, width).ok_or_else(|| self.refuse(x))?;
                let (padding, stride) = (self.shape.padding.0, self.shape.stride.0);
                let y = match filters.rank() {
                    3 => maps.squeeze(3)?.conv1d(filters, padding, stride, 1, 1)?.unsqueeze(3)?,
                    _ => maps.conv2d(filters, padding, stride, 1, 1)?,
                };
                self.activation.forward(y.broadcast_add(bias)?)?
            }
            Prepared::Training(Unfolded { filters, bias, norm }) => {
                let ConvShape { in_channels, out_channels, kernel, .. } = self.shape;
                let filters = spread(filters.clone(), self.dilation)?;
                let filters = filters.reshape((out_channels, in_channels, kernel.0, kernel.1))?;
                let mut y = train::conv(&x.to_tensor()?, &filters, self.shape)?;
                if let Some(bias) = bias {
                    y = y.broadcast_add(&bias.reshape((1, (), 1, 1))?)?;
                }
                match norm {
                    Some(norm) => norm.forward_with(&y, self.activation)?,
                    None => self.activation.forward(y)?,
                }
            }
        };
        let y = x.with(Values::Tensor(y));
        match pool {
            Some(pool) => pool.forward(&y),
            None => Ok(y),
        }
    }

    fn refuse(&self, x: &FeatureMap) -> candle_core::Error {
        let shape = match &x.values {
            Values::Blocks(map) => format!("{:?}", map.shape),
            Values::Tensor(x) => format!("{:?}", x.dims()),
        };
        candle_core::Error::Msg(format!("a convolution of {:?} cannot take maps of {shape}", self.shape))
    }
}
