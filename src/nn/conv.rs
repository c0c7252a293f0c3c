//! A convolution with folded batch norm, activation and pooling.
//!
//! As usual in deep learning, "convolution" means cross-correlation: the kernel is not flipped.

use candle_core::Tensor;

use super::batch_norm::FoldedBatchNorm;
use super::kernels::conv::shape::ConvShape;
use super::kernels::conv::{Conv as PackedConv, Filters, Input};
use super::kernels::simd::isa::Isa;
use super::map::{FeatureMap, Values, with_planes};
use super::ops::train;
use super::pool::Pool;
use super::prepared::{Prepared, storage_of};
use super::{Activation, BatchNorm};
use crate::check::{self, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::weights::{Init, Loader, Precision, Target};

/// Maximum number of channels. Large enough for a front end with deltas of all orders.
const MAX_CHANNELS: usize = 1 << 20;

/// Maximum window size of [`ConvConfig::averaged`].
const MAX_AVERAGED: usize = 64;

/// The configuration of a convolution. [`new`](Self::new) gives one that is the same on both axes of a map, without
/// groups.
///
/// ```
/// use clipwise::nn::ConvConfig;
///
/// let conv = ConvConfig { padding: 1, ..ConvConfig::new(64, 128, 3) };
/// assert_eq!((conv.stride, conv.bias), (1, false));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvConfig {
    /// Input channels, 1 to 2^20.
    pub in_channels: usize,
    /// Output channels, 1 to 2^20.
    pub out_channels: usize,
    /// Kernel size, 1 to 65,536.
    pub kernel: usize,
    /// Stride, 1 to 65,536. Default of [`new`](Self::new): 1.
    pub stride: usize,
    /// Zero padding on each side, at most 65,536. Default of [`new`](Self::new): 0.
    pub padding: usize,
    /// Zero padding below and on the right, at most 65,536, if it differs from `padding`. TensorFlow's `SAME` with
    /// stride 2 pads an even size only there. Default of [`new`](Self::new): `None`.
    pub padding_after: Option<usize>,
    /// Kernel size, stride and padding along the width of maps, if they differ from those along the height. Default of
    /// [`new`](Self::new): `None`.
    pub along_width: Option<ConvAxis>,
    /// 1, or `in_channels` for a depthwise convolution, where `out_channels` must equal `in_channels`. Default of
    /// [`new`](Self::new): 1.
    pub groups: usize,
    /// Dilation, 1 to 65,536; the dilated kernel may cover at most 65,536 positions. More than 1 only on sequences.
    /// Default of [`new`](Self::new): 1.
    pub dilation: usize,
    /// Averages the convolution's output over windows of this size on both axes, before norm and activation: 1 to 64,
    /// more than 1 only on maps and with stride 1. An incomplete last window is dropped. Default of [`new`](Self::new):
    /// 1.
    pub averaged: usize,
    /// Whether the convolution has a bias, in addition to any norm. Default of [`new`](Self::new): `false`.
    pub bias: bool,
}

/// Kernel size, stride and padding on one axis, in the ranges of [`ConvConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvAxis {
    /// Kernel size.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Zero padding on each side.
    pub padding: usize,
    /// Zero padding on the right, if it differs from `padding`.
    pub padding_after: Option<usize>,
}

impl ConvConfig {
    /// A convolution with stride 1, no padding, no groups, no dilation and no bias.
    pub const fn new(in_channels: usize, out_channels: usize, kernel: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel,
            stride: 1,
            padding: 0,
            padding_after: None,
            along_width: None,
            groups: 1,
            dilation: 1,
            averaged: 1,
            bias: false,
        }
    }

    /// A depthwise convolution with stride 1, padding `kernel / 2` and no bias. With an odd kernel the map keeps its
    /// size.
    pub const fn depthwise(channels: usize, kernel: usize) -> Self {
        Self { padding: kernel / 2, groups: channels, ..Self::new(channels, channels, kernel) }
    }

    /// Positions that the dilated kernel covers.
    pub(super) fn extent(&self) -> usize {
        if self.kernel == 0 { 0 } else { (self.kernel - 1).saturating_mul(self.dilation).saturating_add(1) }
    }

    /// The shape of the kernel on maps, or on sequences, which are maps of width 1. Averaging is folded into a larger
    /// kernel.
    pub(super) fn shape(&self, of_sequences: bool) -> Result<ConvShape> {
        let Self { in_channels, out_channels, groups, dilation, .. } = *self;
        check::sizes([("in_channels", in_channels, MAX_CHANNELS), ("out_channels", out_channels, MAX_CHANNELS)])?;
        if groups != 1 && (groups != in_channels || groups != out_channels) {
            return Err(Error::config(
                "groups",
                groups,
                format!("expected 1, or in_channels = out_channels ({in_channels} and {out_channels})"),
            ));
        }
        if dilation == 0 || dilation > 1 && !of_sequences {
            return Err(Error::config("dilation", dilation, "expected at least 1, and more than 1 only on sequences"));
        }
        if of_sequences && self.along_width.is_some() {
            return Err(Error::config("along_width", "a kernel", "expected none, because sequences have one axis"));
        }
        let averaged = self.averaged;
        check::size("averaged", averaged, MAX_AVERAGED)?;
        if averaged > 1 && (of_sequences || self.stride != 1 || self.along_width.is_some()) {
            return Err(Error::config(
                "averaged",
                averaged,
                "expected 1; larger windows need maps and a stride of 1 on both axes",
            ));
        }
        let kernel = self.extent().saturating_add(if self.kernel == 0 { 0 } else { averaged - 1 });
        let along_height = ConvAxis { kernel, stride: self.stride.saturating_mul(averaged), ..self.axis() };
        let along_width = match of_sequences {
            true => ConvAxis { kernel: 1, stride: 1, padding: 0, padding_after: None },
            false => self.along_width.unwrap_or(along_height),
        };
        for axis in [along_height, along_width] {
            check::sizes([("kernel", axis.kernel, MAX_WIDTH), ("stride", axis.stride, MAX_WIDTH)])?;
            let padding = axis.padding.max(axis.after());
            if padding > MAX_WIDTH {
                return Err(Error::config("padding", padding, format!("expected 0 to {MAX_WIDTH}")));
            }
        }
        Ok(ConvShape {
            in_channels,
            out_channels,
            kernel: (along_height.kernel, along_width.kernel),
            stride: (along_height.stride, along_width.stride),
            padding: (along_height.padding, along_width.padding),
            padding_after: (along_height.after(), along_width.after()),
        })
    }

    /// The axis along the height, without dilation.
    fn axis(&self) -> ConvAxis {
        let Self { kernel, stride, padding, padding_after, .. } = *self;
        ConvAxis { kernel, stride, padding, padding_after }
    }
}

impl ConvAxis {
    fn after(&self) -> usize {
        self.padding_after.unwrap_or(self.padding)
    }
}

/// Properties that the convolutions of a stack share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maps {
    /// Whether the maps are sequences; filters are then `[out, in, kernel]`.
    pub are_sequences: bool,
    /// Columns, if known; 1 for sequences.
    pub width: Option<usize>,
    /// Whether checkpoints store filters as `[out, in, columns, rows]`.
    pub swapped_filters: bool,
    /// ε of the batch norms.
    pub norm_eps: f64,
}

/// Rearranges the filters of a checkpoint into those to compute with.
#[derive(Debug, Clone, Copy)]
struct Arrangement {
    dilation: usize,
    swapped: bool,
    averaged: usize,
}

impl Arrangement {
    fn is_none(self) -> bool {
        self.dilation == 1 && !self.swapped && self.averaged == 1
    }

    /// Filters `[out, in, rows, columns]`, or `[out, in, kernel]` on sequences; dilation inserts zeros.
    fn of(self, mut filters: Tensor) -> candle_core::Result<Tensor> {
        if self.swapped {
            filters = filters.transpose(2, 3)?.contiguous()?;
        }
        if self.dilation > 1 {
            let last = (filters.dim(2)? - 1) * self.dilation + 1;
            let spread = filters.unsqueeze(3)?.pad_with_zeros(3, 0, self.dilation - 1)?.flatten(2, 3)?;
            filters = spread.narrow(2, 0, last)?.contiguous()?;
        }
        for axis in [2, 3].into_iter().filter(|_| self.averaged > 1) {
            let moved = |by: usize| filters.pad_with_zeros(axis, by, self.averaged - 1 - by);
            let sum = (1..self.averaged).try_fold(moved(0)?, |sum, by| sum + moved(by)?)?;
            filters = (sum / self.averaged as f64)?;
        }
        Ok(filters)
    }
}

/// A convolution on maps or sequences.
#[derive(Debug)]
pub(super) struct Conv {
    pub shape: ConvShape,
    is_depthwise: bool,
    arrangement: Arrangement,
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
    pub fn load(
        conv: &Loader,
        norm: Option<&Loader>,
        config: ConvConfig,
        activation: Activation,
        maps: Maps,
    ) -> Result<Self> {
        let ConvConfig { in_channels, out_channels, groups, kernel, dilation, averaged, bias, .. } = config;
        let shape = config.shape(maps.are_sequences)?;
        let is_depthwise = groups > 1;
        let arrangement = Arrangement { dilation, swapped: maps.swapped_filters, averaged };
        let along_width = config.along_width.map_or(kernel, |axis| axis.kernel);
        let (rows, columns) = if arrangement.swapped { (along_width, kernel) } else { (kernel, along_width) };
        let filters = [out_channels, in_channels / groups, rows, columns];
        let filters = if maps.are_sequences { &filters[..3] } else { &filters };
        let folded = || FoldedBatchNorm::load_after(conv, bias, norm.map(|norm| (norm, maps.norm_eps)), out_channels);
        let weights = match conv.target() {
            Target::Kernels => {
                let FoldedBatchNorm { scale, shift } = folded()?;
                let mut values = conv.get_vec("weight", filters)?;
                if !arrangement.is_none() {
                    let arranged = || {
                        let filters = Tensor::from_vec(values, filters, conv.device())?;
                        arrangement.of(filters)?.flatten_all()?.to_vec1()
                    };
                    values = arranged().context("rearranging the filters of a convolution")?;
                }
                let storage = storage_of(conv.precision());
                let filters = Filters { values: &values, scale: &scale, bias: &shift, activation, storage };
                let int8 = match conv.precision() {
                    Precision::Int8 if !is_depthwise => PackedConv::pack_int8(shape, &filters),
                    _ => None,
                };
                let packed = match int8 {
                    Some(int8) => int8,
                    None if is_depthwise => PackedConv::pack_depthwise(shape, filters),
                    None => PackedConv::pack(shape, maps.width, filters),
                };
                if packed.is_int8() || packed.is_f16() {
                    conv.mark_precision();
                }
                Prepared::Packed(packed)
            }
            Target::Device => {
                let FoldedBatchNorm { scale, shift } = folded()?;
                let filters = conv.get("weight", filters)?;
                let filters = arrangement.of(filters).context("rearranging the filters of a convolution")?;
                let tensors = || {
                    let mut of_filters = vec![1; filters.rank()];
                    of_filters[0] = out_channels;
                    let scale = Tensor::from_vec(scale, of_filters, filters.device())?;
                    let bias = Tensor::from_vec(shift, (1, out_channels, 1, 1), filters.device())?;
                    Ok::<_, Error>(Folded { filters: filters.broadcast_mul(&scale)?, bias })
                };
                Prepared::OnDevice(tensors().context("folding a batch norm into a convolution")?)
            }
            Target::Training(_) => {
                let init = Init::of_fan_in(filters[1..].iter().product());
                Prepared::Training(Unfolded {
                    filters: conv.parameter("weight", filters, init)?,
                    bias: bias.then(|| conv.parameter("bias", out_channels, init)).transpose()?,
                    norm: norm.map(|norm| BatchNorm::load_with(norm, out_channels, 1, maps.norm_eps)).transpose()?,
                })
            }
        };
        Ok(Self { shape, is_depthwise, arrangement, activation, weights })
    }

    /// The convolution packed for the kernels, if it is.
    pub fn packed(&self) -> Option<&PackedConv> {
        match &self.weights {
            Prepared::Packed(conv) => Some(conv),
            _ => None,
        }
    }

    /// Convolves `x`, then applies the activation and any pooling.
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
                let map = map.ok_or_else(|| self.shape_error(x))?;
                return Ok(x.with(Values::Blocks(map)));
            }
            Prepared::OnDevice(Folded { filters, bias }) => {
                let maps = x.to_tensor()?;
                let (_, _, height, width) = maps.dims4()?;
                self.shape.output(height, width).ok_or_else(|| self.shape_error(x))?;
                let (before, after, stride) = (self.shape.padding, self.shape.padding_after, self.shape.stride);
                let y = match filters.rank() {
                    _ if self.is_depthwise => train::depthwise(&maps, filters, self.shape)?,
                    3 if before == after => maps.squeeze(3)?.conv1d(filters, before.0, stride.0, 1, 1)?.unsqueeze(3)?,
                    4 if before == after && before.0 == before.1 && stride.0 == stride.1 => {
                        maps.conv2d(filters, before.0, stride.0, 1, 1)?
                    }
                    rank => {
                        let filters = if rank == 3 { filters.unsqueeze(3)? } else { filters.clone() };
                        train::conv(&maps, &filters, self.shape)?
                    }
                };
                self.activation.forward(y.broadcast_add(bias)?)?
            }
            Prepared::Training(Unfolded { filters, bias, norm }) => {
                let ConvShape { out_channels, kernel, .. } = self.shape;
                let filters = self.arrangement.of(filters.clone())?;
                let filters = filters.reshape((out_channels, (), kernel.0, kernel.1))?;
                let maps = x.to_tensor()?;
                let mut y = match self.is_depthwise {
                    true => train::depthwise(&maps, &filters, self.shape)?,
                    false => train::conv(&maps, &filters, self.shape)?,
                };
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

    fn shape_error(&self, x: &FeatureMap) -> candle_core::Error {
        let shape = match &x.values {
            Values::Blocks(map) => format!("{:?}", map.shape),
            Values::Tensor(x) => format!("{:?}", x.dims()),
        };
        candle_core::Error::Msg(format!("{:?} does not fit maps of shape {shape}", self.shape))
    }
}
