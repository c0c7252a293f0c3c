//! Differentiable operations for training: convolution, pooling, batch norm and GRU. On the CPU they use kernels, on
//! other devices compositions of candle's operations.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Tensor};

use crate::nn::kernels::blocked::{Shape as MapShape, Window};
use crate::nn::kernels::conv::shape::ConvShape;
use crate::nn::kernels::pooling::Pooling;
use crate::nn::kernels::train::conv::Patches;
use crate::nn::kernels::train::gru::Scan;
use crate::nn::kernels::train::norm::ChannelLayout;
use crate::nn::kernels::train::pool::Planes;
use crate::tensor::{contiguous, with_values};

/// Convolves `x` `[batch, in, height, width]` with `filters` `[out, in, rows, columns]`, with gradients.
pub fn conv(x: &Tensor, filters: &Tensor, geometry: ConvShape) -> Result<Tensor> {
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op2(&filters.contiguous()?, ConvOp(geometry));
    }
    let ConvShape { in_channels, out_channels, kernel, stride, .. } = geometry;
    let (x, (rows, columns)) = padded(x, geometry)?;
    let (batch, _, height, width) = x.dims4()?;
    let position = |tap: usize, at: usize| {
        let (row, column) = (at / columns * stride.0 + tap / kernel.1, at % columns * stride.1 + tap % kernel.1);
        (row * width + column) as u32
    };
    let taps = kernel.0 * kernel.1;
    let positions = (0..taps).flat_map(|tap| (0..rows * columns).map(move |at| position(tap, at)));
    let positions = Tensor::from_iter(positions, x.device())?;
    let patches = x.reshape((batch, in_channels, height * width))?.index_select(&positions, 2)?;
    let patches = patches.reshape((batch, in_channels * taps, rows * columns))?;
    let filters = filters.reshape((out_channels, in_channels * taps))?;
    filters.broadcast_matmul(&patches)?.reshape((batch, out_channels, rows, columns))
}

/// `x` zero-padded, and the rows and columns of the output.
fn padded(x: &Tensor, geometry: ConvShape) -> Result<(Tensor, (usize, usize))> {
    let (_, _, height, width) = x.dims4()?;
    let output = geometry.output(height, width).ok_or_else(|| shape_error(geometry, x.dims()))?;
    let (before, after) = (geometry.padding, geometry.padding_after);
    Ok((x.pad_with_zeros(2, before.0, after.0)?.pad_with_zeros(3, before.1, after.1)?, output))
}

/// Depthwise convolution of `x` `[batch, channels, height, width]` with `filters` `[channels, 1, rows, columns]`: tap
/// by tap, with gradients, on every device.
pub fn depthwise(x: &Tensor, filters: &Tensor, geometry: ConvShape) -> Result<Tensor> {
    let ConvShape { in_channels, kernel, stride, .. } = geometry;
    if x.dim(1)? != in_channels {
        return Err(shape_error(geometry, x.dims()));
    }
    let (x, (rows, columns)) = padded(x, geometry)?;
    let filters = filters.reshape((1, in_channels, kernel.0 * kernel.1))?;
    // `n` positions along an axis from `start` on, `step` apart.
    let every = |x: &Tensor, axis: usize, start: usize, n: usize, step: usize| {
        let x = x.narrow(axis, start, (n - 1) * step + 1)?;
        if step == 1 {
            return Ok(x);
        }
        let positions = Tensor::from_iter((0..n).map(|i| (i * step) as u32), x.device())?;
        x.contiguous()?.index_select(&positions, axis)
    };
    let product = |tap: usize| {
        let seen = every(&x, 2, tap / kernel.1, rows, stride.0)?;
        let seen = every(&seen, 3, tap % kernel.1, columns, stride.1)?;
        seen.broadcast_mul(&filters.narrow(2, tap, 1)?.unsqueeze(3)?)
    };
    (1..kernel.0 * kernel.1).try_fold(product(0)?, |sum, tap| sum + product(tap)?)
}

/// The gradient as a tensor shaped like `x`, if it was computed.
fn gradient(values: impl Into<Option<Vec<f32>>>, x: &Tensor) -> Result<Option<Tensor>> {
    values.into().map(|values| Tensor::from_vec(values, x.shape(), x.device())).transpose()
}

fn shape_error(geometry: ConvShape, dims: &[usize]) -> Error {
    Error::Msg(format!("{geometry:?} does not fit maps of shape {dims:?}"))
}

/// [`conv`] on the CPU.
struct ConvOp(ConvShape);

impl CustomOp2 for ConvOp {
    fn name(&self) -> &'static str {
        "conv-trained"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        filters: &CpuStorage,
        filters_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, filters) = (contiguous(x, x_layout)?, contiguous(filters, filters_layout)?);
        let shape_error = || shape_error(self.0, x_layout.dims());
        let &[batch, channels, height, width] = x_layout.dims() else { return Err(shape_error()) };
        let shape = MapShape { batch, channels, height, width };
        let patches = Patches::new(self.0, shape).ok_or_else(shape_error)?;
        let (rows, columns) = self.0.output(height, width).ok_or_else(shape_error)?;
        let y = patches.forward(x, filters);
        Ok((CpuStorage::F32(y), (batch, self.0.out_channels, rows, columns).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        filters: &Tensor,
        _: &Tensor,
        grad_output: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (batch, channels, height, width) = x.dims4()?;
        let shape = MapShape { batch, channels, height, width };
        let patches = Patches::new(self.0, shape).ok_or_else(|| shape_error(self.0, x.dims()))?;
        let gradients = with_values(&[x, filters, grad_output], |values| {
            let grad_x = x.track_op().then(|| patches.gradient_of_input(values[1], values[2]));
            let grad_filters = filters.track_op().then(|| patches.gradient_of_filters(values[0], values[2]));
            (grad_x, grad_filters)
        })?;
        Ok((gradient(gradients.0, x)?, gradient(gradients.1, filters)?))
    }
}

/// Pools `[batch, channels, height, width]`. The gradient of a maximum goes to its position.
pub fn pool(x: &Tensor, pooling: Pooling, window: Window) -> Result<Tensor> {
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op1(PoolOp(pooling, window));
    }
    let Window { size, padding } = window;
    let (batch, channels, height, width) = x.dims4()?;
    let shape_error = || Error::Msg(format!("{window:?} does not fit maps of shape {:?}", x.dims()));
    let (rows, columns) = window.output(height, width).ok_or_else(shape_error)?;
    let mut x = x.clone();
    if padding > 0 {
        let edge = Tensor::full(f32::NEG_INFINITY, (batch, channels, padding, width), x.device())?;
        x = Tensor::cat(&[&edge, &x, &edge], 2)?;
    }
    let x = x.narrow(2, 0, rows * size.0)?.narrow(3, 0, columns * size.1)?;
    let x = x.contiguous()?.reshape(vec![batch, channels, rows, size.0, columns, size.1])?;
    let x =
        x.permute(vec![0, 1, 2, 4, 3, 5])?.contiguous()?.reshape((batch, channels, rows, columns, size.0 * size.1))?;
    // If several positions hold the maximum, as in silence, the first one gets the gradient, as in PyTorch.
    let max = |x: &Tensor| x.gather(&x.argmax_keepdim(4)?, 4)?.squeeze(4);
    match pooling {
        Pooling::Max => max(&x),
        Pooling::Avg => x.mean(4),
        Pooling::AvgMax => x.mean(4)? + max(&x)?,
    }
}

/// [`pool`] on the CPU.
struct PoolOp(Pooling, Window);

impl PoolOp {
    fn planes(&self, dims: &[usize]) -> Result<Planes> {
        let planes = match dims {
            &[batch, channels, height, width] if batch * channels * height * width > 0 => {
                Planes::new((height, width), self.0, self.1)
            }
            _ => None,
        };
        planes.ok_or_else(|| Error::Msg(format!("{:?} does not fit maps of shape {dims:?}", self.1)))
    }
}

impl CustomOp1 for PoolOp {
    fn name(&self) -> &'static str {
        "pool-trained"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let planes = self.planes(layout.dims())?;
        let (batch, channels, _, _) = layout.shape().dims4()?;
        let y = planes.forward(contiguous(x, layout)?);
        Ok((CpuStorage::F32(y), (batch, channels, planes.pooled.0, planes.pooled.1).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad_output: &Tensor) -> Result<Option<Tensor>> {
        let planes = self.planes(x.dims())?;
        gradient(with_values(&[x, grad_output], |values| planes.gradient(values[0], values[1]))?, x)
    }
}

/// Batch norm on the CPU with the statistics of the batch; the arguments are `x`, weight and bias.
pub struct NormOp {
    pub layers: ChannelLayout,
    /// Mean and `1 / √(variance + ε)`.
    pub normal: Vec<(f32, f32)>,
    pub relu: bool,
}

impl CustomOp3 for NormOp {
    fn name(&self) -> &'static str {
        "norm-trained"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (weight, bias) = (contiguous(weight, weight_layout)?, contiguous(bias, bias_layout)?);
        let y = self.layers.forward(contiguous(x, x_layout)?, &self.normal, weight, bias, self.relu);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad_output: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [grad_x, grad_weight, grad_bias] = with_values(&[x, y, grad_output, weight], |values| {
            self.layers.gradients((values[0], values[1]), values[2], &self.normal, values[3], self.relu)
        })?;
        Ok((gradient(grad_x, x)?, gradient(grad_weight, weight)?, gradient(grad_bias, bias)?))
    }
}

/// One direction of a GRU layer on the CPU, from zero states. `x` `[batch, n_frames, 3 · hidden]` holds the input
/// multiplied by its weights; `weight` `[3 · hidden, hidden]` and `bias` `[3 · hidden]` belong to the state. Returns
/// states `[batch, n_frames, hidden]`.
pub fn gru(x: &Tensor, weight: &Tensor, bias: &Tensor, lengths: &[usize], backward: bool) -> Result<Tensor> {
    let (_, n_frames, _) = x.dims3()?;
    let scan = Scan { hidden: weight.dim(1)?, n_frames, lengths: lengths.to_vec(), backward };
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, GruOp(scan))
}

struct GruOp(Scan);

impl GruOp {
    fn check(&self, x: &[usize], weight: &[usize], bias: &[usize]) -> Result<()> {
        let Scan { hidden, n_frames, ref lengths, .. } = self.0;
        let fits = x == [lengths.len(), n_frames, 3 * hidden] && weight == [3 * hidden, hidden] && bias == [3 * hidden];
        if fits && hidden > 0 && lengths.iter().all(|&length| length <= n_frames) {
            return Ok(());
        }
        Err(Error::Msg(format!(
            "input {x:?}, weight {weight:?} and bias {bias:?} do not fit a GRU over sequences of lengths {lengths:?}"
        )))
    }
}

impl CustomOp3 for GruOp {
    fn name(&self) -> &'static str {
        "gru-trained"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.check(x_layout.dims(), weight_layout.dims(), bias_layout.dims())?;
        let (weight, bias) = (contiguous(weight, weight_layout)?, contiguous(bias, bias_layout)?);
        let y = self.0.forward(contiguous(x, x_layout)?, weight, bias);
        Ok((CpuStorage::F32(y), (self.0.lengths.len(), self.0.n_frames, self.0.hidden).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad_output: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = with_values(&[x, weight, bias, y, grad_output], |values| {
            self.0.gradients((values[0], values[1], values[2]), values[3], values[4])
        })?;
        Ok((gradient(gradients.x, x)?, gradient(gradients.weight, weight)?, gradient(gradients.bias, bias)?))
    }
}
