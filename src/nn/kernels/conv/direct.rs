//! Direct convolutions, for any kernel size, stride and padding. A task copies a few padded rows into the cache and
//! passes the patches to [`packed_matmul`] as segments of that copy.

use rayon::prelude::*;

use crate::nn::kernels::activation::{Activation, FinishRow};
use crate::nn::kernels::blocked::{Activate, BlockedMap, Shape, Window};
use crate::nn::kernels::conv::shape::ConvShape;
use crate::nn::kernels::matmul::packed::{Inputs, Outputs, Span, Weights, packed_matmul};
use crate::nn::kernels::matmul::panels::{PackedWeights, Panels, Storage};
use crate::nn::kernels::pooling::Pooling;
use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, Lanes};
use crate::nn::kernels::workspace::{AlignedVec, Workspace, count};

/// Values per task, inputs plus outputs: half a second-level cache.
const TASK: usize = 1 << 17;

/// Layout of the input.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// `[batch, channels, height, width]`.
    Planes(&'a [f32]),
    Map(&'a BlockedMap),
}

/// Weights in reading order, bias and activation.
#[derive(Debug)]
pub struct DirectConv {
    conv_shape: ConvShape,
    weights: PackedWeights, // [panels][segments][segment_len][16]
    bias: Vec<f32>,         // [panels · 16]
    activation: Activation,
}

impl DirectConv {
    /// `filter` returns the weight for an output, input, row and column; `bias` is padded to whole blocks.
    pub fn pack(
        conv_shape: ConvShape,
        storage: Storage,
        filter: impl Fn(usize, usize, usize, usize) -> f64 + Sync,
        bias: Vec<f32>,
        activation: Activation,
    ) -> Self {
        let ConvShape { in_channels, out_channels, kernel, .. } = conv_shape;
        let inputs = match conv_shape.is_planar() {
            true => in_channels,
            false => in_channels.next_multiple_of(segment_len(conv_shape)),
        };
        let panel = kernel.0 * kernel.1 * inputs * CHANNEL_BLOCK;
        let sizes = (out_channels.div_ceil(CHANNEL_BLOCK), panel);
        let weights = PackedWeights::pack(storage, sizes, |index, panel| {
            for (at, weights) in panel.chunks_mut(CHANNEL_BLOCK).enumerate() {
                let (input, row, column) = if conv_shape.is_planar() {
                    // A segment is a row of the kernel, or a column if the axes are swapped for the product.
                    (at / (kernel.0 * kernel.1), at / kernel.1 % kernel.0, at % kernel.1)
                } else {
                    let (tap, input) = (at / inputs, at % inputs);
                    (input, tap / kernel.1, tap % kernel.1)
                };
                for (lane, weight) in weights.iter_mut().enumerate() {
                    let output = index * CHANNEL_BLOCK + lane;
                    if input < in_channels && output < out_channels {
                        *weight = filter(output, input, row, column) as f32;
                    }
                }
            }
        });
        Self { conv_shape, weights, bias, activation }
    }

    /// Convolves `x` of `shape`. Pools a sequence too, if no window reaches beyond its ends: then it takes `pool`. `None` if
    /// `x` is smaller than the kernel, the output than a window, or if the output exceeds the address space.
    pub fn forward(
        &self,
        x: Source,
        shape: Shape,
        pool: &mut Option<(Pooling, Window)>,
        isa: Isa,
        workspace: &Workspace,
    ) -> Option<BlockedMap> {
        if let Source::Map(x) = x
            && self.conv_shape.is_pointwise()
        {
            return self.pointwise(x, None, isa, workspace);
        }
        let (height, width) = self.conv_shape.output(shape.height, shape.width)?;
        let channels = self.conv_shape.out_channels;
        // A 1-D convolution has one column, so the rows of the matrix product run along the length instead.
        let is_1d = shape.width == 1 && self.conv_shape.is_1d();
        let pool = pool.take_if(|(_, window)| is_1d && window.padding == 0 && window.size.1 == 1);
        let pooled = match pool {
            Some((_, window)) => window.output(height, width)?.0,
            None => height,
        };
        let mut map = BlockedMap::unwritten(Shape { batch: shape.batch, channels, height: pooled, width }, workspace)?;
        let out = map.shape;
        let (conv_shape, lines, columns) =
            if is_1d { (self.conv_shape.swapped(), 1, height) } else { (self.conv_shape, height, width) };
        let unit = if conv_shape.is_planar() { 1 } else { CHANNEL_BLOCK };
        let planes = if conv_shape.is_planar() { shape.channels } else { shape.blocks() };
        let position = (planes * unit).saturating_mul(conv_shape.stride.1).saturating_add(out.blocks() * CHANNEL_BLOCK);
        // A task is a number of whole lines, or in 1-D a part of the line.
        let (task_lines, task_columns) = if is_1d {
            (1, (TASK / position).clamp(CHANNEL_BLOCK, columns.max(CHANNEL_BLOCK)).min(columns))
        } else {
            ((TASK / position.saturating_mul(columns)).clamp(1, lines), columns)
        };
        let window = pool.map_or(1, |(_, window)| window.size.0);
        let task_columns = if is_1d { (task_columns / window).max(1) * window } else { task_columns };
        let patch_size = |lines: usize, columns: usize| {
            let axis = |n: usize, stride: usize, kernel: usize| (n - 1) * stride + kernel; // in the padded input
            let (kernel, stride) = (conv_shape.kernel, conv_shape.stride);
            (axis(lines, stride.0, kernel.0), axis(columns, stride.1, kernel.1))
        };
        let largest = patch_size(task_lines, task_columns);
        count(&[planes, largest.0, largest.1, unit])?;
        let task_values = if is_1d { task_columns / window * out.row() } else { task_lines * out.row() };
        let items = map.values.chunks_mut(out.height * out.row());
        let tasks: Vec<_> = items
            .enumerate()
            .flat_map(|(item, y)| y.chunks_mut(task_values).enumerate().map(move |(task, y)| (item, task, y)))
            .collect();
        tasks.into_par_iter().try_for_each(|(item, task, pooled)| {
            let done = pooled.len() / out.row() * window;
            let mut unpooled = match pool {
                Some(_) => Some(BlockedMap::unwritten(Shape { batch: 1, height: done, ..out }, workspace)?),
                None => None,
            };
            let y = unpooled.as_mut().map_or(&mut *pooled, |map| &mut map.values[..]);
            let (first_line, lines, first_column, columns) =
                if is_1d { (0, 1, task * task_columns, done) } else { (task * task_lines, done, 0, columns) };
            let patch = Patch {
                first: (first_line * conv_shape.stride.0, first_column * conv_shape.stride.1),
                size: patch_size(lines, columns),
                padding: conv_shape.padding,
                is_1d,
            };
            let plane = patch.size.0 * patch.size.1 * unit;
            let mut padded = workspace.take(planes * plane);
            patch.copy(x, shape, item, &mut padded);
            let row = patch.size.1 * unit;
            let (kernel, stride) = (conv_shape.kernel, conv_shape.stride);
            let (segments, segment_len): (Vec<_>, _) = if conv_shape.is_planar() {
                let rows = (0..planes * kernel.0).map(|i| i / kernel.0 * plane + i % kernel.0 * row);
                (rows.collect(), kernel.1)
            } else {
                let taps = (0..kernel.0 * kernel.1).map(|tap| tap / kernel.1 * row + tap % kernel.1 * CHANNEL_BLOCK);
                (taps.flat_map(|tap| (0..planes).map(move |block| block * plane + tap)).collect(), CHANNEL_BLOCK)
            };
            let (y_row, y_panel, y_line) = if is_1d {
                (out.row(), CHANNEL_BLOCK, 0)
            } else {
                (CHANNEL_BLOCK, out.width * CHANNEL_BLOCK, out.row())
            };
            let spans: Vec<_> =
                (0..lines).map(|line| Span { x: line * stride.0 * row, y: line * y_line, rows: columns }).collect();
            let inputs = Inputs { x: &padded, row_stride: stride.1 * unit, segments: &segments, segment_len };
            let outputs = Outputs { y: &mut *y, row_stride: y_row, panel_stride: y_panel };
            packed_matmul(isa, inputs, &spans, Weights { panels: self.weights.all(), bias: None }, outputs);
            let positions = if is_1d { 1 } else { out.width };
            isa.run(Finish { bias: &self.bias, activation: self.activation, positions, y });
            if let (Some((pooling, window)), Some(map)) = (pool, unpooled) {
                map.pool_rows(pooling, window, pooled, isa);
            }
            Some(())
        })?;
        Some(map)
    }
}

/// 1x1 convolutions, whose inputs are rows of a matrix product in position.
impl DirectConv {
    /// Convolves `x`, with its channels scaled by `factors` `[batch, in]` if given.
    pub fn pointwise(
        &self,
        x: &BlockedMap,
        factors: Option<&[f32]>,
        isa: Isa,
        workspace: &Workspace,
    ) -> Option<BlockedMap> {
        let mut map = BlockedMap::unwritten(Shape { channels: self.conv_shape.out_channels, ..x.shape }, workspace)?;
        let Shape { batch, channels, height, width } = x.shape;
        let (x_row, y_row) = (x.shape.row(), map.shape.row());
        // Scaling the weights is cheaper than scaling a map.
        let scaled: Vec<AlignedVec> = match factors {
            Some(factors) if factors.len() == batch * channels => {
                factors.chunks(channels).map(|factors| self.scaled(factors)).collect()
            }
            Some(_) => return None,
            None => Vec::new(),
        };
        let weights = (0..batch).map(|item| scaled.get(item).map_or(self.weights.all(), Panels::from));
        let task = (TASK / (x_row + y_row)).max(1);
        let segments = self.segments(width);
        let items = map.values.chunks_mut(height * y_row).zip(x.values.chunks(height * x_row)).zip(weights);
        let tasks: Vec<_> = items
            .flat_map(|((y, x), weights)| {
                y.chunks_mut(task * y_row).zip(x.chunks(task * x_row)).map(move |(y, x)| (y, x, weights))
            })
            .collect();
        tasks.into_par_iter().for_each(|(y, x, weights)| {
            let rows = y.len() / y_row;
            // In a map with one column, the positions of consecutive rows form one span.
            let spans: Vec<_> = match width {
                1 => vec![Span { x: 0, y: 0, rows }],
                _ => (0..rows).map(|row| Span { x: row * x_row, y: row * y_row, rows: width }).collect(),
            };
            let (x_place, y_place) = if width == 1 { (x_row, y_row) } else { (CHANNEL_BLOCK, CHANNEL_BLOCK) };
            let inputs = Inputs { x, row_stride: x_place, ..self.inputs(&segments) };
            self.product(inputs, &spans, weights, (y, y_place, width), isa);
        });
        Some(map)
    }

    /// The weights with each input scaled by its factor.
    fn scaled(&self, factors: &[f32]) -> AlignedVec {
        let mut weights = self.weights.to_f32();
        let inputs = factors.len().next_multiple_of(segment_len(self.conv_shape));
        for panel in weights.as_chunks_mut::<CHANNEL_BLOCK>().0.chunks_mut(inputs) {
            for (lanes, factor) in panel.iter_mut().zip(factors) {
                lanes.iter_mut().for_each(|weight| *weight *= factor);
            }
        }
        weights
    }

    /// Computes one row of `width` columns; `segments` come from [`segments`](Self::segments) for this width.
    pub fn row(&self, x: &[f32], segments: &[usize], y: &mut [f32], width: usize, isa: Isa) {
        let inputs = Inputs { x, ..self.inputs(segments) };
        self.product(inputs, &[Span { x: 0, y: 0, rows: width }], self.weights.all(), (y, CHANNEL_BLOCK, width), isa);
    }

    /// Computes one row of a convolution over planes of `shape`.
    pub fn line(
        &self,
        (x, shape, item): (Source, Shape, usize),
        row: usize,
        y: &mut [f32],
        isa: Isa,
        workspace: &Workspace,
    ) {
        let ConvShape { kernel, stride, padding, .. } = self.conv_shape;
        let width = y.len() / self.bias.len();
        let size = (kernel.0, (width - 1) * stride.1 + kernel.1);
        let patch = Patch { first: (row * stride.0, 0), size, padding, is_1d: false };
        let mut padded = workspace.take(shape.channels * size.0 * size.1);
        patch.copy(x, shape, item, &mut padded);
        let segments: Vec<_> = (0..shape.channels * kernel.0).map(|line| line * size.1).collect();
        let inputs = Inputs { x: &padded, row_stride: stride.1, segments: &segments, segment_len: kernel.1 };
        let outputs = Outputs { y: &mut *y, row_stride: CHANNEL_BLOCK, panel_stride: width * CHANNEL_BLOCK };
        let span = Span { x: 0, y: 0, rows: width };
        packed_matmul(isa, inputs, &[span], Weights { panels: self.weights.all(), bias: None }, outputs);
        isa.run(Finish { bias: &self.bias, activation: self.activation, positions: width, y });
    }

    /// Offsets of the channel segments of a position, in a row of `width` columns.
    pub fn segments(&self, width: usize) -> Vec<usize> {
        let n = segment_len(self.conv_shape);
        let position = |channel: usize| channel / CHANNEL_BLOCK * width * CHANNEL_BLOCK + channel % CHANNEL_BLOCK;
        (0..self.conv_shape.in_channels).step_by(n).map(position).collect()
    }

    fn inputs<'a>(&self, segments: &'a [usize]) -> Inputs<'a> {
        Inputs { x: &[], row_stride: CHANNEL_BLOCK, segments, segment_len: segment_len(self.conv_shape) }
    }

    fn product(
        &self,
        inputs: Inputs,
        spans: &[Span],
        weights: Panels,
        (y, y_place, width): (&mut [f32], usize, usize),
        isa: Isa,
    ) {
        let outputs = Outputs { y: &mut *y, row_stride: y_place, panel_stride: width * CHANNEL_BLOCK };
        packed_matmul(isa, inputs, spans, Weights { panels: weights, bias: Some(&self.bias) }, outputs);
        if self.activation != Activation::Identity {
            isa.run(Activate { activation: self.activation, values: y });
        }
    }

    pub fn shape(&self) -> ConvShape {
        self.conv_shape
    }

    /// The weights, if they are in f32.
    pub fn weights(&self) -> Option<&[f32]> {
        self.weights.as_f32()
    }

    /// A copy with other weights in the same order.
    pub fn with_weights(&self, weights: AlignedVec) -> Self {
        Self { weights: PackedWeights::F32(weights), bias: self.bias.clone(), ..*self }
    }
}

/// Channels read together: half a block if the last block is at most half full, otherwise a block.
fn segment_len(conv_shape: ConvShape) -> usize {
    match conv_shape.in_channels % CHANNEL_BLOCK {
        1..=8 if conv_shape.is_pointwise() => CHANNEL_BLOCK / 2,
        _ => CHANNEL_BLOCK,
    }
}

/// A part of the zero-padded input, with its axes swapped for 1-D convolutions.
struct Patch {
    /// First row and column, in the padded input.
    first: (usize, usize),
    size: (usize, usize),
    padding: (usize, usize),
    is_1d: bool,
}

impl Patch {
    /// Copies to `[channel or block][row][column][1 or 16]`.
    fn copy(&self, x: Source, shape: Shape, item: usize, y: &mut [f32]) {
        let (height, width) = if self.is_1d { (1, shape.height) } else { (shape.height, shape.width) };
        let (unit, planes) = match x {
            Source::Planes(_) => (1, shape.channels),
            Source::Map(_) => (CHANNEL_BLOCK, shape.blocks()),
        };
        // Columns of the patch that are not padding.
        let start = self.padding.1.saturating_sub(self.first.1).min(self.size.1);
        let end = (width + self.padding.1).saturating_sub(self.first.1).clamp(start, self.size.1);
        for (i, y) in y.chunks_mut(self.size.1 * unit).enumerate() {
            let (plane, row) = (i / self.size.0, i % self.size.0 + self.first.0);
            if row < self.padding.0 || row >= height + self.padding.0 || plane >= planes {
                y.fill(0.0);
                continue;
            }
            y[..start * unit].fill(0.0);
            y[end * unit..].fill(0.0);
            if start == end {
                continue; // padding only
            }
            let (row, column) = (row - self.padding.0, self.first.1 + start - self.padding.1);
            let y = &mut y[start * unit..end * unit];
            match x {
                Source::Planes(x) => {
                    let x = &x[((item * shape.channels + plane) * height + row) * width + column..];
                    y.copy_from_slice(&x[..end - start]);
                }
                Source::Map(map) if self.is_1d => {
                    let x = &map.values[(item * width + column) * shape.row() + plane * CHANNEL_BLOCK..];
                    for (y, x) in y.chunks_mut(CHANNEL_BLOCK).zip(x.chunks(shape.row())) {
                        y.copy_from_slice(&x[..CHANNEL_BLOCK]);
                    }
                }
                Source::Map(map) => {
                    let x =
                        &map.values[(item * height + row) * shape.row() + (plane * width + column) * CHANNEL_BLOCK..];
                    y.copy_from_slice(&x[..(end - start) * CHANNEL_BLOCK]);
                }
            }
        }
    }
}

/// Adds the bias and applies the activation.
pub struct Finish<'a> {
    pub bias: &'a [f32],
    pub activation: Activation,
    /// Consecutive positions of `y` with the same channels.
    pub positions: usize,
    pub y: &'a mut [f32],
}

impl SimdOp for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        if self.positions == 1 {
            for y in self.y.chunks_mut(self.bias.len()) {
                FinishRow { bias: self.bias, residual: None, activation: self.activation, y }.run::<L>();
            }
            return;
        }
        let (bias, _) = self.bias.as_chunks::<CHANNEL_BLOCK>();
        for row in self.y.chunks_mut(bias.len() * self.positions * CHANNEL_BLOCK) {
            for (bias, y) in bias.iter().zip(row.chunks_mut(self.positions * CHANNEL_BLOCK)) {
                for part in 0..L::PARTS {
                    let bias = L::load(bias, part);
                    for y in y.as_chunks_mut::<CHANNEL_BLOCK>().0 {
                        self.activation.apply_lanes(L::load(y, part).add(bias)).store(y, part);
                    }
                }
            }
        }
    }
}
