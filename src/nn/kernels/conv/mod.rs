//! Convolutions: the choice of a kernel.

pub mod causal;
mod depthwise;
mod direct;
pub mod grouped;
mod int8;
#[cfg(test)]
mod reference;
pub mod shape;
pub mod stream;
mod winograd;

use rayon::prelude::*;

use crate::nn::kernels::activation::Activation;
use crate::nn::kernels::blocked::{BlockedMap, Shape, Window};
use crate::nn::kernels::conv::depthwise::DepthwiseConv;
use crate::nn::kernels::conv::direct::{DirectConv, Source};
use crate::nn::kernels::conv::int8::Int8Conv;
use crate::nn::kernels::conv::shape::ConvShape;
use crate::nn::kernels::conv::winograd::WinogradConv;
use crate::nn::kernels::matmul::int8::MAX_INPUTS;
use crate::nn::kernels::matmul::panels::Storage;
use crate::nn::kernels::pooling::Pooling;
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;
use crate::nn::kernels::workspace::{AlignedVec, Workspace};

/// The weighted sum of the weights of all sets.
fn mixed(sets: &[Conv], shares: &[f32]) -> Option<AlignedVec> {
    let sets = sets.iter().map(Conv::weights).collect::<Option<Vec<_>>>()?;
    let n = sets.first()?.len();
    if sets.len() != shares.len() || sets.iter().any(|set| set.len() != n) {
        return None;
    }
    let mut sum = AlignedVec::zeros(n);
    sum.par_chunks_mut(MIXED).enumerate().for_each(|(task, sum)| {
        for (set, share) in sets.iter().zip(shares) {
            let set = &set[task * MIXED..][..sum.len()];
            sum.iter_mut().zip(set).for_each(|(sum, weight)| *sum += share * weight);
        }
    });
    Some(sum)
}

/// 1x1 convolutions with fewer inputs or outputs are always in f32: quantising takes longer than 8 bits save.
const SMALLEST_INT8: (usize, usize) = (32, 64);

/// Weights per task of a mixture, so that the sums stay in the cache.
const MIXED: usize = 1 << 12;

/// Filters, with the scale and bias of a folded norm, and the activation.
pub struct Filters<'a> {
    /// `[out, in, rows, columns]`.
    pub values: &'a [f32],
    /// One per output channel.
    pub scale: &'a [f32],
    /// One per output channel.
    pub bias: &'a [f32],
    pub activation: Activation,
    pub storage: Storage,
}

/// A convolution, packed for its kernel.
#[derive(Debug)]
pub struct Conv {
    conv_shape: ConvShape,
    packed: Packed,
}

#[derive(Debug)]
enum Packed {
    Direct(DirectConv),
    Winograd(WinogradConv),
    Depthwise(DepthwiseConv),
    Int8(Int8Conv),
}

/// The input of a convolution.
pub enum Input<'a> {
    /// `[batch, channels, height, width]`.
    Planes(&'a [f32], Shape),
    Map(&'a BlockedMap),
}

impl Conv {
    /// Chooses a kernel and packs the filters for it. `width` is the map's, if known.
    pub fn pack(conv_shape: ConvShape, width: Option<usize>, filters: Filters) -> Self {
        let ConvShape { in_channels, out_channels, kernel, stride, padding, padding_after } = conv_shape;
        let mut bias = filters.bias.to_vec();
        bias.resize(out_channels.next_multiple_of(CHANNEL_BLOCK), 0.0);
        let filter = |output: usize, input: usize, row: usize, column: usize| {
            let at = ((output * in_channels + input) * kernel.0 + row) * kernel.1 + column;
            f64::from(filters.values[at]) * f64::from(filters.scale[output])
        };
        let channels = (in_channels, out_channels);
        let packed = match (kernel, stride, padding) {
            _ if conv_shape.is_planar() => {
                Packed::Direct(DirectConv::pack(conv_shape, filters.storage, filter, bias, filters.activation))
            }
            ((3, 3), (1, 1), (1, 1)) if padding_after == (1, 1) => {
                let scale = |x: f32, output: usize| f64::from(x) * f64::from(filters.scale[output]);
                let (all, _) = filters.values.as_chunks::<9>();
                let taps = |output: usize, input: usize| {
                    let [a, b, c, d, e, f, g, h, i] = all[output * in_channels + input].map(|x| scale(x, output));
                    [[a, b, c], [d, e, f], [g, h, i]]
                };
                Packed::Winograd(WinogradConv::pack(channels, width, filters.storage, taps, bias, filters.activation))
            }
            ((3, 1), (1, 1), (1, 0)) if width == Some(1) && padding_after == (1, 0) => {
                // The only column becomes the middle one of three.
                let taps = |o, i| [0, 1, 2].map(|row| [0.0, filter(o, i, row, 0), 0.0]);
                Packed::Winograd(WinogradConv::pack(channels, width, filters.storage, taps, bias, filters.activation))
            }
            _ => Packed::Direct(DirectConv::pack(conv_shape, filters.storage, filter, bias, filters.activation)),
        };
        Self { conv_shape, packed }
    }

    /// Packs a 1x1 convolution in 8 bits. `None` for other kernels, and if there are fewer channels than make it faster.
    pub fn pack_int8(conv_shape: ConvShape, filters: &Filters) -> Option<Self> {
        let ConvShape { in_channels, out_channels, .. } = conv_shape;
        let worthwhile = (SMALLEST_INT8.0..=MAX_INPUTS).contains(&in_channels) && out_channels >= SMALLEST_INT8.1;
        if !worthwhile || !conv_shape.is_pointwise() || conv_shape.is_planar() {
            return None;
        }
        let mut bias = filters.bias.to_vec();
        bias.resize(out_channels.next_multiple_of(CHANNEL_BLOCK), 0.0);
        let filter = |output: usize, input: usize| {
            f64::from(filters.values[output * in_channels + input]) * f64::from(filters.scale[output])
        };
        let conv = Int8Conv::pack((in_channels, out_channels), filter, bias, filters.activation);
        Some(Self { conv_shape, packed: Packed::Int8(conv) })
    }

    /// Packs a depthwise convolution with filters `[channels, 1, rows, columns]`.
    pub fn pack_depthwise(conv_shape: ConvShape, filters: Filters) -> Self {
        let kernel = conv_shape.kernel;
        let filter = |channel: usize, row: usize, column: usize| {
            let at = (channel * kernel.0 + row) * kernel.1 + column;
            f64::from(filters.values[at]) * f64::from(filters.scale[channel])
        };
        let packed = DepthwiseConv::pack(conv_shape, filter, filters.bias, filters.activation);
        Self { conv_shape, packed: Packed::Depthwise(packed) }
    }

    /// A convolution whose filters are the sum of those of `sets`, weighted by `shares`, with the bias and activation
    /// of the first. `None` if there are no sets, for Winograd and 8-bit kernels, and for sets of different shapes.
    pub fn mixture(sets: &[Self], shares: &[f32]) -> Option<Self> {
        let first = sets.first()?;
        let weights = mixed(sets, shares)?;
        let packed = match &first.packed {
            Packed::Direct(conv) => Packed::Direct(conv.with_weights(weights)),
            Packed::Depthwise(conv) => Packed::Depthwise(conv.with_weights(&weights)),
            Packed::Winograd(_) | Packed::Int8(_) => return None,
        };
        Some(Self { conv_shape: first.conv_shape, packed })
    }

    /// Whether weights and activations have 8 bits.
    pub fn is_int8(&self) -> bool {
        matches!(self.packed, Packed::Int8(_))
    }

    /// Whether the weights are stored as f16.
    pub fn is_f16(&self) -> bool {
        match &self.packed {
            Packed::Direct(conv) => conv.weights().is_none(),
            Packed::Winograd(conv) => conv.is_f16(),
            Packed::Depthwise(_) | Packed::Int8(_) => false,
        }
    }

    /// The packed weights, except for Winograd kernels, f16 and 8-bit kernels.
    fn weights(&self) -> Option<&[f32]> {
        match &self.packed {
            Packed::Direct(conv) => conv.weights(),
            Packed::Depthwise(conv) => Some(conv.weights()),
            Packed::Winograd(_) | Packed::Int8(_) => None,
        }
    }

    /// Convolves `x` with its channels scaled by `factors` `[batch, in]`, for a 1x1 kernel. `None` for any other
    /// kernel, otherwise as [`forward`](Self::forward).
    pub fn forward_scaled(
        &self,
        x: &BlockedMap,
        factors: &[f32],
        isa: Isa,
        workspace: &Workspace,
    ) -> Option<BlockedMap> {
        match &self.packed {
            Packed::Direct(conv) if self.is_blocked_pointwise() && x.shape.channels == self.conv_shape.in_channels => {
                conv.pointwise(x, Some(factors), isa, workspace)
            }
            Packed::Int8(conv) if x.shape.channels == self.conv_shape.in_channels => {
                conv.forward(x, Some(factors), isa, workspace)
            }
            _ => None,
        }
    }

    fn is_blocked_pointwise(&self) -> bool {
        self.conv_shape.is_pointwise() && !self.conv_shape.is_planar()
    }

    /// Convolution, activation and pooling. `None` if the input's shape does not fit.
    pub fn forward(
        &self,
        x: Input,
        pool: Option<(Pooling, Window)>,
        isa: Isa,
        workspace: &Workspace,
    ) -> Option<BlockedMap> {
        let shape = match &x {
            Input::Planes(_, shape) => *shape,
            Input::Map(map) => map.shape,
        };
        if shape.channels != self.conv_shape.in_channels {
            return None;
        }
        let (blocked, planes);
        let is_planar = self.conv_shape.is_planar() && matches!(self.packed, Packed::Direct(_));
        let source = match x {
            Input::Planes(x, _) if is_planar => Source::Planes(x),
            Input::Map(map) if is_planar => {
                planes = map.to_planes();
                Source::Planes(&planes)
            }
            Input::Planes(x, _) => {
                blocked = BlockedMap::from_planes(x, shape, workspace)?;
                Source::Map(&blocked)
            }
            Input::Map(map) => Source::Map(map),
        };
        let mut pool = pool;
        let map = match (&self.packed, source) {
            (Packed::Winograd(conv), Source::Map(x)) => {
                let fused = pool.take_if(|(_, window)| *window == Window { size: (2, 2), padding: 0 });
                conv.forward(x, fused.map(|(pooling, _)| pooling), isa, workspace)?
            }
            (Packed::Depthwise(conv), Source::Map(x)) => conv.forward(x, isa, workspace)?,
            (Packed::Int8(conv), Source::Map(x)) => conv.forward(x, None, isa, workspace)?,
            (Packed::Direct(conv), source) => conv.forward(source, shape, &mut pool, isa, workspace)?,
            (_, Source::Planes(_)) => return None, // unreachable: only direct convolutions read planes
        };
        match pool {
            Some((pooling, window)) => map.pool(pooling, window, isa, workspace),
            None => Some(map),
        }
    }
}
