//! Convolutions with batch norm folded in, activation, and pooling.
//!
//! As everywhere in this field a convolution is a cross-correlation: the kernel is not flipped.

use candle_core::Tensor;

use super::kernels::conv::shape::ConvShape;
use super::kernels::conv::{Conv, Filters, Input};
use super::kernels::simd::isa::Isa;
use super::kernels::workspace::Workspace;
use super::map::{FeatureMap, Values, with_planes};
use super::ops::train;
use super::pool::Pool;
use super::{Activation, BatchNorm, ChannelAffine, Pool1d, Pool2d};
use crate::check::{self, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::weights::{Init, Loader};

/// The most channels, those of a front end with deltas of all orders included.
const MAX_CHANNELS: usize = 1 << 20;

/// Geometry of a [`Conv2d`]: square kernels, the same stride and zero padding on both axes, no groups.
#[derive(Debug, Clone, Copy)]
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
    /// Whether it has a bias of its own before the norm.
    pub bias: bool,
    /// Columns of the maps that it will see, where they are known: a layer for 1 or 2 of them may need fewer products, and
    /// then refuses maps of another width.
    pub width: Option<usize>,
    /// Pooling after the activation.
    pub pool: Option<Pool2d>,
}

impl Conv2dConfig {
    fn geometry(&self) -> Result<ConvShape> {
        let Self { in_channels, out_channels, kernel, stride, padding, .. } = *self;
        let (kernel, stride, padding) = ((kernel, kernel), (stride, stride), (padding, padding));
        checked(ConvShape { in_channels, out_channels, kernel, stride, padding })
    }
}

/// A 2-D convolution without groups, `[batch, in, height, width]` to `[batch, out, height', width']`.
#[derive(Debug)]
pub struct Conv2d {
    config: Conv2dConfig,
    layer: Layer,
}

impl Conv2d {
    /// Reads `weight` `[out, in, kernel, kernel]` of a convolution, `bias` `[out]` if it has one, and the batch norm that follows it.
    ///
    /// # Errors
    /// [`Error::Config`] for a size that is 0 or beyond all use, else as [`Loader::get`]; tensors that do not fit are reported by
    /// [`Loader::finish`].
    pub fn load(conv: &Loader, norm: &Loader, config: Conv2dConfig, activation: Activation) -> Result<Self> {
        let Conv2dConfig { in_channels, out_channels, kernel, width, bias, .. } = config;
        let geometry = config.geometry()?;
        let layer = Layer::load(
            conv,
            &[out_channels, in_channels, kernel, kernel],
            geometry,
            width,
            bias,
            Some(norm),
            activation,
        )?;
        Ok(Self { config, layer })
    }

    /// `x` `[batch, in, height, width]` to `[batch, out, height', width']`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_map(FeatureMap::new(x, &Workspace::default())?)?.to_tensor()
    }

    /// The same from layer to layer.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape does not fit.
    pub fn forward_map(&self, x: FeatureMap) -> Result<FeatureMap> {
        let Conv2dConfig { stride, padding, pool, .. } = self.config;
        self.layer.forward(x, pool.map(Pool::from), |x, weight| x.conv2d(weight, padding, stride, 1, 1))
    }
}

/// Geometry of a [`Conv1d`], no groups.
#[derive(Debug, Clone, Copy)]
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
    /// Whether it has a bias of its own before the norm.
    pub bias: bool,
    /// Pooling after the activation.
    pub pool: Option<Pool1d>,
}

impl Conv1dConfig {
    /// The length is the height of a map, whose width is 1.
    fn geometry(&self) -> Result<ConvShape> {
        let Self { in_channels, out_channels, kernel, stride, padding, .. } = *self;
        let (kernel, stride, padding) = ((kernel, 1), (stride, 1), (padding, 0));
        checked(ConvShape { in_channels, out_channels, kernel, stride, padding })
    }
}

/// A 1-D convolution without groups, `[batch, in, length]` to `[batch, out, length']`.
#[derive(Debug)]
pub struct Conv1d {
    config: Conv1dConfig,
    layer: Layer,
}

impl Conv1d {
    /// Reads `weight` `[out, in, kernel]` of a convolution, `bias` `[out]` if it has one, and the batch norm that follows it.
    ///
    /// # Errors
    /// [`Error::Config`] for a size that is 0 or beyond all use, else as [`Loader::get`]; tensors that do not fit are reported by
    /// [`Loader::finish`].
    pub fn load(conv: &Loader, norm: &Loader, config: Conv1dConfig, activation: Activation) -> Result<Self> {
        Self::load_with(conv, Some(norm), config, activation)
    }

    /// As [`load`](Self::load), of a convolution that no batch norm follows.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_plain(conv: &Loader, config: Conv1dConfig, activation: Activation) -> Result<Self> {
        Self::load_with(conv, None, config, activation)
    }

    fn load_with(conv: &Loader, norm: Option<&Loader>, config: Conv1dConfig, activation: Activation) -> Result<Self> {
        let Conv1dConfig { in_channels, out_channels, kernel, bias, .. } = config;
        let geometry = config.geometry()?;
        let layer = Layer::load(conv, &[out_channels, in_channels, kernel], geometry, Some(1), bias, norm, activation)?;
        Ok(Self { config, layer })
    }

    /// `x` `[batch, in, length]` to `[batch, out, (length + 2 · padding − kernel) / stride + 1]`, pooled.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape does not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.dims3().context("a convolution")?;
        self.forward_map(FeatureMap::new(x, &Workspace::default())?)?.to_sequence()
    }

    /// The same from layer to layer: maps of width 1.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape does not fit.
    pub fn forward_map(&self, x: FeatureMap) -> Result<FeatureMap> {
        let Conv1dConfig { stride, padding, pool, .. } = self.config;
        x.check_is_sequence().context("a convolution")?;
        self.layer.forward(x, pool.map(Pool::from), |x, weight| {
            x.squeeze(3)?.conv1d(weight, padding, stride, 1, 1)?.unsqueeze(3)
        })
    }
}

/// A geometry that can work.
fn checked(geometry: ConvShape) -> Result<ConvShape> {
    let ConvShape { in_channels, out_channels, kernel, stride, padding } = geometry;
    check::sizes([
        ("in_channels", in_channels, MAX_CHANNELS),
        ("out_channels", out_channels, MAX_CHANNELS),
        ("kernel", kernel.0, MAX_WIDTH),
        ("stride", stride.0, MAX_WIDTH),
    ])?;
    if padding.0 > MAX_WIDTH {
        return Err(Error::config("padding", padding.0, format!("expected 0 to {MAX_WIDTH}")));
    }
    Ok(geometry)
}

/// Filters where they are used.
#[derive(Debug)]
enum Layer {
    /// Packed for the kernels.
    Cpu(Conv),
    /// As tensors on another device.
    Device {
        geometry: ConvShape,
        weight: Tensor, // [out, in, …]
        bias: Tensor,   // [1, out, 1, 1]
        activation: Activation,
    },
    /// As they are, for gradients.
    Trained {
        geometry: ConvShape,
        filters: Tensor,      // [out, in, …]
        bias: Option<Tensor>, // [out]
        norm: Option<ChannelAffine>,
        activation: Activation,
    },
}

impl Layer {
    fn load(
        conv: &Loader,
        shape: &[usize],
        geometry: ConvShape,
        width: Option<usize>,
        bias: bool,
        norm: Option<&Loader>,
        activation: Activation,
    ) -> Result<Self> {
        if conv.mode().is_some() {
            let init = Init::of_fan_in(shape[1..].iter().product());
            let filters = conv.parameter("weight", shape, init)?;
            let bias = if bias { Some(conv.parameter("bias", shape[0], init)?) } else { None };
            let norm = norm.map(|norm| ChannelAffine::load_over_maps(norm, shape[0])).transpose()?;
            return Ok(Self::Trained { geometry, filters, bias, norm, activation });
        }
        let norm = match norm {
            Some(norm) => BatchNorm::load_after(conv, bias, norm, shape[0])?,
            None => {
                let shift = if bias { conv.get_vec("bias", &shape[..1])? } else { vec![0.0; shape[0]] };
                BatchNorm { scale: vec![1.0; shape[0]], shift }
            }
        };
        if conv.device().is_cpu() {
            let values = conv.get_vec("weight", shape)?;
            let filters = Filters { values: &values, scale: &norm.scale, bias: &norm.shift, activation };
            return Ok(Self::Cpu(Conv::pack(geometry, width, filters)));
        }
        let filters = conv.get("weight", shape)?;
        let (weight, bias) = norm.fold_into(&filters).context("folding a batch norm")?;
        let bias = Tensor::from_vec(bias, (1, geometry.out_channels, 1, 1), filters.device());
        Ok(Self::Device { geometry, weight, bias: bias.context("moving a bias to the device")?, activation })
    }

    fn forward(
        &self,
        x: FeatureMap,
        pool: Option<Pool>,
        conv: impl FnOnce(Tensor, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<FeatureMap> {
        let context = "a convolution";
        match self {
            Self::Cpu(layer) => {
                let pool = pool.map(|Pool { pooling, window }| (pooling, window));
                let (isa, workspace) = (Isa::best(), x.workspace);
                let map = match &x.values {
                    Values::Blocks(map) => layer.forward(Input::Map(map), pool, isa, &workspace),
                    Values::Tensor(x) => {
                        with_planes(x, |x, shape| layer.forward(Input::Planes(x, shape), pool, isa, &workspace))
                            .context(context)?
                    }
                };
                let refused = || match &x.values {
                    Values::Blocks(map) => refuse(&map.shape),
                    Values::Tensor(x) => refuse(x.shape()),
                };
                Ok(FeatureMap::with(workspace, map.ok_or_else(refused).context(context)?))
            }
            Self::Device { geometry, weight, bias, activation } => {
                let maps = x.to_tensor()?;
                let (_, _, height, width) = maps.dims4().context(context)?;
                geometry.output(height, width).ok_or_else(|| refuse(maps.shape())).context(context)?;
                let y = conv(maps, weight).and_then(|y| y.broadcast_add(bias));
                let y = y.and_then(|y| activation.forward(y)).context(context)?;
                pooled(&y, pool, &x.workspace)
            }
            Self::Trained { geometry, filters, bias, norm, activation } => {
                let maps = x.to_tensor()?;
                let shape = (geometry.out_channels, geometry.in_channels, geometry.kernel.0, geometry.kernel.1);
                let filters = filters.reshape(shape).context(context)?;
                let mut y = train::conv(&maps, &filters, *geometry).context(context)?;
                if let Some(bias) = bias {
                    y = bias.reshape((1, (), 1, 1)).and_then(|bias| y.broadcast_add(&bias)).context(context)?;
                }
                let y = match norm {
                    Some(norm) => norm.forward_with(&y, *activation)?,
                    None => activation.forward(y).context(context)?,
                };
                pooled(&y, pool, &x.workspace)
            }
        }
    }
}

fn refuse(shape: &dyn std::fmt::Debug) -> candle_core::Error {
    candle_core::Error::Msg(format!("a layer cannot take maps of shape {shape:?}"))
}

fn pooled(y: &Tensor, pool: Option<Pool>, workspace: &Workspace) -> Result<FeatureMap> {
    let y = FeatureMap::new(y, workspace)?;
    match pool {
        Some(pool) => pool.forward(y),
        None => Ok(y),
    }
}
