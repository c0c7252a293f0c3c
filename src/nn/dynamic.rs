//! The blocks of DyMN: inverted residuals whose filters and activations depend on the clip.
//!
//! Schmid et al., "Dynamic Convolutional Neural Networks as Efficient Pre-trained Audio Models", 2023 (arXiv
//! 2310.15648). The means over the columns and over the rows of a map go through a shared 1x1 convolution. The mean of
//! its output is the context of the clip. The context mixes the four filter sets of each convolution (Chen et al. 2019,
//! arXiv 1912.03458) and sets the slopes and intercepts of the activation, the maximum of two linear functions per
//! channel (Dynamic ReLU, Chen et al. 2020, arXiv 2003.10027). The output itself, as two sequences, weights the rows
//! and columns of each channel (coordinate attention, Hou et al. 2021, arXiv 2103.02907).

use candle_core::{D, Device, Tensor};

use super::batch_norm::FoldedBatchNorm;
use super::conv::Maps;
use super::kernels::conv::shape::ConvShape;
use super::kernels::conv::{Conv as PackedConv, Filters, Input};
use super::kernels::matmul::panels::Storage;
use super::kernels::simd::isa::Isa;
use super::map::{FeatureMap, Values, with_planes};
use super::ops::train;
use super::prepared::Prepared;
use super::{Activation, BatchNorm, ConvConfig, ConvStack, Linear};
use crate::error::{Context, Result};
use crate::weights::{Init, Loader, Target};

/// Filter sets that a convolution mixes.
const SETS: usize = 4;

/// The configuration of a DyMN block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DynamicBlock {
    /// Input channels.
    pub in_channels: usize,
    /// Expanded channels. If equal to `in_channels`, the first convolution is omitted.
    pub expanded: usize,
    /// Output channels. If equal to `in_channels` and the stride is 1, the input is added to the output.
    pub out_channels: usize,
    /// Size of the depthwise kernel on both axes, odd.
    pub kernel: usize,
    /// Stride of the depthwise convolution on both axes, 1 or 2.
    pub stride: usize,
    /// Length of the context vector.
    pub context: usize,
    /// Activation after the first convolution.
    pub activation: Activation,
}

/// A loaded block.
#[derive(Debug)]
pub(super) struct Block {
    config: DynamicBlock,
    joint: ConvStack,
    /// Computes the weights of the columns, and those of the rows.
    attention: [ConvStack; 2],
    expand: Option<DynamicConv>,
    depthwise: DynamicConv,
    coefficients: Linear,
    /// Scale and shift of the activation's coefficients, `[4]`.
    scale: Tensor,
    shift: Tensor,
    project: DynamicConv,
}

impl Block {
    pub fn load(place: &Loader, config: DynamicBlock, maps: Maps) -> Result<Self> {
        let DynamicBlock { in_channels, expanded, out_channels, kernel, stride, context, activation } = config;
        let generator = place.at("context_gen");
        let sequences = || ConvStack::on_maps(Some(1)).with_norm_eps(maps.norm_eps);
        let mut joint = sequences();
        let shape = ConvConfig::new(in_channels, context, 1);
        joint.conv(&generator.at("joint_conv"), Some(&generator.at("joint_norm")), shape, Activation::Hardswish)?;
        let attention = |name: &str| {
            let mut stack = sequences();
            let shape = ConvConfig { bias: true, ..ConvConfig::new(context, expanded, 1) };
            stack.conv(&generator.at(name), None, shape, Activation::Sigmoid).map(|()| stack)
        };
        let conv = |name: &str, shape: ConvConfig, activation| {
            let (conv, norm) = (place.at(format_args!("{name}_conv")), place.at(format_args!("{name}_norm")));
            DynamicConv::load(&conv, &norm, shape, activation, context, maps)
        };
        let act = place.at("depth_act");
        Ok(Self {
            joint,
            attention: [attention("conv_f")?, attention("conv_t")?],
            expand: match expanded == in_channels {
                true => None,
                false => Some(conv("exp", ConvConfig::new(in_channels, expanded, 1), activation)?),
            },
            depthwise: conv(
                "depth",
                ConvConfig { stride, ..ConvConfig::depthwise(expanded, kernel) },
                Activation::Identity,
            )?,
            coefficients: Linear::load(&act.at("coef_net").at(0).in_f32(), context, 4 * expanded, Activation::Sigmoid)?,
            scale: constants(&act, "lambdas", [1.0, 1.0, 0.5, 0.5])?,
            shift: constants(&act, "init_v", [1.0, 0.0, 0.0, 0.0])?,
            project: conv("proj", ConvConfig::new(expanded, out_channels, 1), Activation::Identity)?,
            config,
        })
    }

    /// Runs each clip separately, because the filters depend on it.
    pub fn forward(&self, x: FeatureMap) -> Result<FeatureMap> {
        let batch = match &x.values {
            Values::Tensor(x) => x.dim(0)?,
            Values::Blocks(map) => map.shape.batch,
        };
        if batch == 1 {
            return self.one(x);
        }
        let clips = x.to_tensor()?;
        let one = |clip: usize| {
            let clip = FeatureMap::new(clips.narrow(0, clip, 1)?.contiguous()?, &x.workspace)?;
            Ok(self.one(clip.into_blocks()?)?.to_tensor()?)
        };
        let clips = (0..batch).map(one).collect::<Result<Vec<_>>>()?;
        Ok(x.with(Values::Tensor(Tensor::cat(&clips, 0)?)))
    }

    fn one(&self, x: FeatureMap) -> Result<FeatureMap> {
        let (columns, rows) = axis_means(&x)?; // [1, in, length, 1]
        let (n_columns, n_rows) = (columns.dim(2)?, rows.dim(2)?);
        let joint = self.joint.forward(&Tensor::cat(&[columns, rows], 2)?)?; // [1, context, …, 1]
        let context = joint.mean(2)?.squeeze(2)?; // [1, context]
        let sequence = |start: usize, length: usize, conv: &ConvStack| -> Result<Tensor> {
            let x = joint.narrow(2, start, length)?;
            conv.forward(&if self.config.stride == 1 { x } else { average_every_second(&x)? })
        };
        let columns = sequence(0, n_columns, &self.attention[0])?; // [1, expanded, columns out, 1]
        let rows = sequence(n_columns, n_rows, &self.attention[1])?;
        let coefficients =
            (self.coefficients.forward(&context)?.affine(2.0, -1.0)?).reshape((self.config.expanded, 4))?;
        let coefficients = coefficients.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)?; // slopes, then intercepts
        let expanded = self.expand.as_ref().map(|conv| conv.forward(&x, &context)).transpose()?;
        let y = self.depthwise.forward(expanded.as_ref().unwrap_or(&x), &context)?;
        let y = activate_and_weight(y, &coefficients, &rows, &columns)?;
        let mut y = self.project.forward(&y, &context)?;
        if self.config.stride == 1 && self.config.in_channels == self.config.out_channels {
            if let (Values::Blocks(map), Values::Blocks(x)) = (&mut y.values, &x.values)
                && map.add(x, Activation::Identity, Isa::best()).is_some()
            {
                return Ok(y);
            }
            let sum = (y.to_tensor()? + x.to_tensor()?)?;
            y = y.with(Values::Tensor(sum));
        }
        Ok(y)
    }
}

/// A constant that checkpoints store beside the parameters; `values` in training and if it is missing.
fn constants(place: &Loader, name: &str, values: [f32; 4]) -> Result<Tensor> {
    match place.target() {
        Target::Kernels | Target::Device if !place.lacks(name) => place.get(name, 4),
        _ => Tensor::new(&values, place.device()).context("creating the constants of a dynamic activation"),
    }
}

/// Means of a map over the rows, as a sequence over the columns, and over the columns, as a sequence over the rows,
/// each `[1, channels, length, 1]`.
fn axis_means(x: &FeatureMap) -> Result<(Tensor, Tensor)> {
    Ok(match &x.values {
        Values::Tensor(x) => (x.mean_keepdim(2)?.transpose(2, 3)?, x.mean_keepdim(3)?),
        Values::Blocks(map) => {
            let channels = map.shape.channels;
            let sequence = |means: Vec<f32>| {
                let means = Tensor::from_vec(means, (1, (), channels, 1), &Device::Cpu)?;
                means.transpose(1, 2)
            };
            let (columns, rows) = map.axis_means(Isa::best());
            (sequence(columns)?, sequence(rows)?)
        }
    })
}

/// Averages three neighbours at every second position of `x` `[1, channels, length, 1]`, with zero padding.
fn average_every_second(x: &Tensor) -> candle_core::Result<Tensor> {
    let n = x.dim(2)?.div_ceil(2);
    let x = x.pad_with_zeros(2, 1, 2)?;
    let every = |start: usize| {
        let places = Tensor::from_iter((0..n).map(|i| (2 * i + start) as u32), x.device())?;
        x.index_select(&places, 2)
    };
    ((every(0)? + every(1)?)? + every(2)?)? / 3.0
}

/// Applies the activation given by `coefficients` `[channels, 4]` and multiplies each value by the weights of its row and its
/// column, `[1, channels, length, 1]` each.
fn activate_and_weight(
    mut y: FeatureMap,
    coefficients: &Tensor,
    rows: &Tensor,
    columns: &Tensor,
) -> Result<FeatureMap> {
    if let Values::Blocks(map) = &mut y.values {
        let host = |x: &Tensor| x.t()?.flatten_all()?.to_vec1::<f32>();
        let by_place = |x: &Tensor| host(&x.squeeze(3)?.squeeze(0)?);
        if map.activate_and_weight(&host(coefficients)?, &by_place(rows)?, &by_place(columns)?, Isa::best()).is_none() {
            let shape = format!("{:?}", map.shape);
            return Err(candle_core::Error::Msg(format!(
                "row weights {:?} and column weights {:?} do not fit a map of {shape}",
                rows.dims(),
                columns.dims()
            ))
            .into());
        }
        return Ok(y);
    }
    let x = y.to_tensor()?;
    let linear = |i: usize| {
        let part = |i: usize| coefficients.narrow(1, i, 1)?.reshape((1, (), 1, 1));
        x.broadcast_mul(&part(i)?)?.broadcast_add(&part(i + 2)?)
    };
    let activated = linear(0)?.maximum(&linear(1)?)?;
    let weighted = activated.broadcast_mul(rows)?.broadcast_mul(&columns.transpose(2, 3)?)?;
    Ok(y.with(Values::Tensor(weighted)))
}

/// A convolution with batch norm whose filters are a mixture of four sets.
#[derive(Debug)]
struct DynamicConv {
    shares: Linear,
    shape: ConvShape,
    is_depthwise: bool,
    activation: Activation,
    /// On a device: filters `[4, out · in / groups · rows · columns]` and bias `[1, out, 1, 1]`.
    filters: Prepared<Vec<PackedConv>, [Tensor; 2], (Tensor, BatchNorm)>,
}

impl DynamicConv {
    fn load(
        place: &Loader,
        norm: &Loader,
        config: ConvConfig,
        activation: Activation,
        context: usize,
        maps: Maps,
    ) -> Result<Self> {
        let shape = config.shape(false)?;
        let ConvShape { in_channels, out_channels, kernel, .. } = shape;
        let is_depthwise = config.groups > 1;
        let filter = in_channels / config.groups * kernel.0 * kernel.1;
        let stored = (1, 1, SETS, out_channels * filter);
        // Transposes square kernels that are stored as columns by rows.
        let arranged = |filters: Tensor| -> candle_core::Result<Tensor> {
            let filters = filters.reshape((SETS, out_channels * filter / kernel.0 / kernel.1, kernel.0, kernel.1))?;
            let filters = if maps.swapped_filters { filters.transpose(2, 3)? } else { filters };
            filters.reshape((SETS, out_channels * filter))
        };
        let folded = || FoldedBatchNorm::load_after(place, false, Some((norm, maps.norm_eps)), out_channels);
        let filters = match place.target() {
            Target::Training(_) => {
                let filters = place.parameter("weight", stored, Init::of_fan_in(filter))?;
                let filters = arranged(filters).context("rearranging the filters of a dynamic convolution")?;
                Prepared::Training((filters, BatchNorm::load_with(norm, out_channels, 1, maps.norm_eps)?))
            }
            target => {
                let FoldedBatchNorm { scale, shift } = folded()?;
                let filters = arranged(place.get("weight", stored)?)
                    .context("rearranging the filters of a dynamic convolution")?;
                if let Target::Kernels = target {
                    let sets = filters.to_vec2().context("reading the filters of a dynamic convolution")?;
                    let pack = |values: &Vec<f32>| {
                        let storage = Storage::F32; // they are mixed per clip
                        let filters = Filters { values, scale: &scale, bias: &shift, activation, storage };
                        match is_depthwise {
                            true => PackedConv::pack_depthwise(shape, filters),
                            false => PackedConv::pack(shape, maps.width, filters),
                        }
                    };
                    Prepared::Packed(sets.iter().map(pack).collect())
                } else {
                    let tensors = || {
                        let scale = Tensor::from_vec(scale, (1, out_channels, 1), filters.device())?;
                        let scaled = filters.reshape((SETS, out_channels, filter))?.broadcast_mul(&scale)?;
                        let shift = Tensor::from_vec(shift, (1, out_channels, 1, 1), filters.device())?;
                        Ok::<_, candle_core::Error>([scaled.flatten_from(1)?, shift])
                    };
                    Prepared::OnDevice(tensors().context("folding a batch norm into a dynamic convolution")?)
                }
            }
        };
        let shares = Linear::load(&place.at("residuals").at(0).in_f32(), context, SETS, Activation::Identity)?;
        Ok(Self { shares, shape, is_depthwise, activation, filters })
    }

    fn forward(&self, x: &FeatureMap, context: &Tensor) -> Result<FeatureMap> {
        let shares = candle_nn::ops::softmax(&self.shares.forward(context)?, D::Minus1)?; // [1, 4]
        let mixed = |filters: &Tensor| -> candle_core::Result<Tensor> {
            let ConvShape { out_channels, kernel, .. } = self.shape;
            shares.matmul(filters)?.reshape((out_channels, (), kernel.0, kernel.1))
        };
        let convolved = |filters: Tensor| match self.is_depthwise {
            true => train::depthwise(&x.to_tensor()?, &filters, self.shape),
            false => train::conv(&x.to_tensor()?, &filters, self.shape),
        };
        let y = match &self.filters {
            Prepared::Packed(sets) => {
                let (isa, workspace) = (Isa::best(), &x.workspace);
                let conv = PackedConv::mixture(sets, &shares.flatten_all()?.to_vec1()?);
                let run = |x: Input| conv.as_ref()?.forward(x, None, isa, workspace);
                let map = match &x.values {
                    Values::Blocks(map) => run(Input::Map(map)),
                    Values::Tensor(x) => with_planes(x, |x, shape| run(Input::Planes(x, shape)))?,
                };
                let shape_error = || {
                    candle_core::Error::Msg(format!("a dynamic convolution of {:?} does not fit the maps", self.shape))
                };
                return Ok(x.with(Values::Blocks(map.ok_or_else(shape_error)?)));
            }
            Prepared::OnDevice([filters, bias]) => {
                self.activation.forward(convolved(mixed(filters)?)?.broadcast_add(bias)?)?
            }
            Prepared::Training((filters, norm)) => norm.forward_with(&convolved(mixed(filters)?)?, self.activation)?,
        };
        Ok(x.with(Values::Tensor(y)))
    }
}
