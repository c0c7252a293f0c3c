//! Feature maps in blocks of sixteen channels: `[batch, height, channel block, width, 16]`.
//!
//! The sixteen channels of a position fill a vector. A row (in a spectrogram, a frame) with all its channels is
//! contiguous, so that a task owns the rows it writes. Channels are zero-padded to a multiple of sixteen.

use rayon::prelude::*;

use super::workspace::{Buffer, Workspace, count};
use crate::nn::kernels::activation::Activation;
use crate::nn::kernels::pooling::Pooling;
use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, Lanes, map_lanes};

/// Approximate number of values per task.
const TASK: usize = 1 << 15;
/// Keeps the division in [`BlockedMap::snake`] finite.
pub const SNAKE_EPS: f32 = 1e-9;

/// Sizes of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub batch: usize,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl Shape {
    /// Number of channel blocks.
    pub fn blocks(&self) -> usize {
        self.channels.div_ceil(CHANNEL_BLOCK)
    }

    /// Values per row, over all channels.
    pub fn row(&self) -> usize {
        self.blocks() * self.width * CHANNEL_BLOCK
    }

    /// Values of the whole batch; `None` if they exceed the address space.
    pub fn values(&self) -> Option<usize> {
        let channels = self.channels.checked_next_multiple_of(CHANNEL_BLOCK)?;
        count(&[self.batch, self.height, self.width, channels])
    }
}

/// A batch of maps.
#[derive(Debug, Clone)]
pub struct BlockedMap {
    pub shape: Shape,
    pub values: Buffer,
}

impl BlockedMap {
    /// Allocates a map with arbitrary contents. `None` if it is empty or exceeds the address space.
    pub fn unwritten(shape: Shape, workspace: &Workspace) -> Option<Self> {
        let len = shape.values().filter(|&len| len > 0)?;
        Some(Self { shape, values: workspace.take(len) })
    }

    /// Converts from `[batch, channels, height, width]`; `None` if that is empty.
    pub fn from_planes(x: &[f32], shape: Shape, workspace: &Workspace) -> Option<Self> {
        let mut map = Self::unwritten(shape, workspace)?;
        let Shape { channels, height, width, .. } = shape;
        let rows = (TASK / shape.row()).max(1);
        map.values.par_chunks_mut(rows * shape.row()).enumerate().for_each(|(task, y)| {
            for (i, y) in y.chunks_mut(shape.row()).enumerate() {
                let (item, row) = ((task * rows + i) / height, (task * rows + i) % height);
                for (block, y) in y.chunks_mut(width * CHANNEL_BLOCK).enumerate() {
                    y.fill(0.0);
                    for channel in block * CHANNEL_BLOCK..channels.min((block + 1) * CHANNEL_BLOCK) {
                        let x = &x[((item * channels + channel) * height + row) * width..][..width];
                        let y = y[channel % CHANNEL_BLOCK..].iter_mut().step_by(CHANNEL_BLOCK);
                        y.zip(x).for_each(|(y, &x)| *y = x);
                    }
                }
            }
        });
        Some(map)
    }

    /// Converts from `[batch, height, width, channels]`; `None` if that is empty.
    pub fn from_channels_last(x: &[f32], shape: Shape, workspace: &Workspace) -> Option<Self> {
        let mut map = Self::unwritten(shape, workspace)?;
        let Shape { channels, width, .. } = shape;
        let rows = (TASK / shape.row()).max(1);
        let tasks = map.values.par_chunks_mut(rows * shape.row()).zip(x.par_chunks(rows * width * channels));
        tasks.for_each(|(y, x)| {
            for (y, x) in y.chunks_mut(shape.row()).zip(x.chunks(width * channels)) {
                for (block, y) in y.chunks_mut(width * CHANNEL_BLOCK).enumerate() {
                    let part = block * CHANNEL_BLOCK..channels.min((block + 1) * CHANNEL_BLOCK);
                    for (y, x) in y.as_chunks_mut::<CHANNEL_BLOCK>().0.iter_mut().zip(x.chunks(channels)) {
                        y[part.len()..].fill(0.0);
                        y[..part.len()].copy_from_slice(&x[part.clone()]);
                    }
                }
            }
        });
        Some(map)
    }

    /// Converts to `[batch, height, width, channels]`.
    pub fn to_channels_last(&self) -> Vec<f32> {
        let Shape { batch, channels, height, width } = self.shape;
        let mut y = vec![0.0; batch * height * width * channels];
        let rows = (TASK / self.shape.row()).max(1);
        let tasks = y.par_chunks_mut(rows * width * channels).zip(self.values.par_chunks(rows * self.shape.row()));
        tasks.for_each(|(y, x)| {
            for (y, x) in y.chunks_mut(width * channels).zip(x.chunks(self.shape.row())) {
                for (block, x) in x.chunks(width * CHANNEL_BLOCK).enumerate() {
                    let part = block * CHANNEL_BLOCK..channels.min((block + 1) * CHANNEL_BLOCK);
                    for (y, x) in y.chunks_mut(channels).zip(x.as_chunks::<CHANNEL_BLOCK>().0) {
                        y[part.clone()].copy_from_slice(&x[..part.len()]);
                    }
                }
            }
        });
        y
    }

    /// Converts to `[batch, channels, height, width]`.
    pub fn to_planes(&self) -> Vec<f32> {
        let Shape { batch, channels, height, width } = self.shape;
        let (blocks, row) = (self.shape.blocks(), self.shape.row());
        let mut y = vec![0.0; batch * channels * height * width];
        y.par_chunks_mut(height * width).enumerate().for_each(|(plane, y)| {
            let (item, channel) = (plane / channels, plane % channels);
            for (i, y) in y.chunks_mut(width).enumerate() {
                let x = &self.values[(item * height + i) * row..][..blocks * width * CHANNEL_BLOCK];
                let x = x[channel / CHANNEL_BLOCK * width * CHANNEL_BLOCK + channel % CHANNEL_BLOCK..]
                    .iter()
                    .step_by(CHANNEL_BLOCK);
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = x);
            }
        });
        y
    }

    /// Computes `scale[c] x + shift[c]` for each value `x` of channel `c`. `None`, without any change, unless there is
    /// one scale and one shift per channel.
    pub fn affine(&mut self, scale: &[f32], shift: &[f32]) -> Option<()> {
        let (row, width) = (self.shape.row(), self.shape.width);
        if [scale.len(), shift.len()] != [self.shape.channels; 2] {
            return None;
        }
        let padded = |values: &[f32]| {
            let mut values = values.to_vec();
            values.resize(self.shape.blocks() * CHANNEL_BLOCK, 0.0);
            values
        };
        let (scale, shift) = (padded(scale), padded(shift));
        let blocks = || scale.as_chunks::<CHANNEL_BLOCK>().0.iter().zip(shift.as_chunks::<CHANNEL_BLOCK>().0);
        self.values.par_chunks_mut((TASK / row).max(1) * row).for_each(|rows| {
            for (block, (scale, shift)) in rows.chunks_mut(width * CHANNEL_BLOCK).zip(blocks().cycle()) {
                for x in block.as_chunks_mut::<CHANNEL_BLOCK>().0 {
                    for c in 0..CHANNEL_BLOCK {
                        x[c] = x[c] * scale[c] + shift[c];
                    }
                }
            }
        });
        Some(())
    }

    /// Applies an activation to each value.
    pub fn activate(&mut self, activation: Activation, isa: Isa) {
        self.values.par_chunks_mut(TASK).for_each(|values| isa.run(Activate { activation, values }));
    }

    /// Applies Snake, `x + sin²(α x) / α`, to each value (Ziyin et al. 2020, arXiv 2006.08195). `None`, without any
    /// change, unless there is one α per channel.
    pub fn snake(&mut self, alpha: &[f32]) -> Option<()> {
        let (row, width) = (self.shape.row(), self.shape.width);
        if alpha.len() != self.shape.channels {
            return None;
        }
        let mut alpha = alpha.to_vec();
        alpha.resize(self.shape.blocks() * CHANNEL_BLOCK, 1.0);
        self.values.par_chunks_mut((TASK / row).max(1) * row).for_each(|rows| {
            let alphas = alpha.as_chunks::<CHANNEL_BLOCK>().0.iter().cycle();
            for (block, alpha) in rows.chunks_mut(width * CHANNEL_BLOCK).zip(alphas) {
                for x in block.as_chunks_mut::<CHANNEL_BLOCK>().0 {
                    x.iter_mut()
                        .zip(alpha)
                        .for_each(|(x, alpha)| *x += (alpha * *x).sin().powi(2) / (alpha + SNAKE_EPS));
                }
            }
        });
        Some(())
    }

    /// Adds a map of the same shape, then applies the activation. `None`, without any change, for another shape.
    pub fn add(&mut self, other: &Self, activation: Activation, isa: Isa) -> Option<()> {
        if self.shape != other.shape {
            return None;
        }
        let chunks = self.values.par_chunks_mut(TASK).zip(other.values.par_chunks(TASK));
        chunks.for_each(|(values, others)| isa.run(Add { activation, values, others }));
        Some(())
    }

    /// The mean of each channel of each clip: `[batch, channels]`.
    pub fn means(&self, isa: Isa) -> Vec<f32> {
        let Shape { batch, channels, height, width } = self.shape;
        let (row, blocks) = (self.shape.row(), self.shape.blocks());
        // Groups of rows are summed in f32, the groups in f64.
        let at_once = (TASK / row).max(1) * row;
        let tasks: Vec<&[f32]> = self.values.chunks(height * row).flat_map(|item| item.chunks(at_once)).collect();
        let sums: Vec<Vec<f32>> = tasks.par_iter().map(|rows| isa.run(SumRows { rows, blocks, width })).collect();
        let runs = sums.len() / batch;
        let mean = |item: usize, channel: usize| {
            let sum: f64 = sums[item * runs..(item + 1) * runs].iter().map(|sums| f64::from(sums[channel])).sum();
            (sum / (height * width) as f64) as f32
        };
        (0..batch).flat_map(|item| (0..channels).map(move |channel| (item, channel))).map(|(i, c)| mean(i, c)).collect()
    }

    /// For a single clip, the mean of each channel over the rows, `[width, channels]`, and over the columns, `[height,
    /// channels]`.
    pub fn axis_means(&self, isa: Isa) -> (Vec<f32>, Vec<f32>) {
        let Shape { channels, height, width, .. } = self.shape;
        let (row, blocks) = (self.shape.row(), self.shape.blocks());
        let (mut by_row, mut by_column) = (Vec::new(), vec![0.0; width * channels]);
        let rows = (TASK / row).max(1);
        let tasks: Vec<&[f32]> = self.values[..height * row].chunks(rows * row).collect();
        let sum = |rows: &&[f32]| {
            let by_row: Vec<Vec<f32>> = rows.chunks(row).map(|rows| isa.run(SumRows { rows, blocks, width })).collect();
            let mut by_place = vec![0.0; row];
            rows.chunks(row).for_each(|row| by_place.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
            (by_row, by_place)
        };
        for (rows, positions) in tasks.par_iter().map(sum).collect::<Vec<_>>() {
            by_row.extend(rows.iter().flat_map(|row| &row[..channels]).map(|sum| sum / width as f32));
            for (i, sum) in by_column.iter_mut().enumerate() {
                let (column, channel) = (i / channels, i % channels);
                let at = (channel / CHANNEL_BLOCK * width + column) * CHANNEL_BLOCK + channel % CHANNEL_BLOCK;
                *sum += positions[at] / height as f32;
            }
        }
        (by_column, by_row)
    }

    /// For a single clip, replaces each value `x` by `max(a x + c, b x + d)` times the weights of its row and its
    /// column. `coefficients` are `[a, b, c, d]` of each channel, `[4, channels]`; `rows` is `[height, channels]`, `columns`
    /// `[width, channels]`. `None`, without any change, for other sizes.
    pub fn activate_and_weight(&mut self, coefficients: &[f32], rows: &[f32], columns: &[f32], isa: Isa) -> Option<()> {
        let Shape { batch, channels, height, width } = self.shape;
        let fits = (batch, coefficients.len()) == (1, 4 * channels)
            && rows.len() == height * channels
            && columns.len() == width * channels;
        if !fits {
            return None;
        }
        let (row, blocks) = (self.shape.row(), self.shape.blocks());
        let padded = |values: &[f32]| -> Vec<[f32; CHANNEL_BLOCK]> {
            let mut padded = vec![[0.0; CHANNEL_BLOCK]; values.len() / channels * blocks];
            let to = padded.as_flattened_mut().chunks_mut(blocks * CHANNEL_BLOCK);
            to.zip(values.chunks(channels)).for_each(|(to, from)| to[..channels].copy_from_slice(from));
            padded
        };
        let (coefficients, rows, columns) = (padded(coefficients), padded(rows), padded(columns));
        self.values.par_chunks_mut(row).zip(rows.par_chunks(blocks)).for_each(|(x, weights)| {
            isa.run(ActivateAndWeightRow { coefficients: &coefficients, weights, columns: &columns, width, x });
        });
        Some(())
    }

    /// Multiplies each channel of each clip by its factor in `[batch, channels]`. `None`, without any change, for
    /// another number of factors.
    pub fn scale(&mut self, factors: &[f32]) -> Option<()> {
        let Shape { batch, channels, height, width } = self.shape;
        if factors.len() != batch * channels {
            return None;
        }
        let (row, rows) = (self.shape.row(), (TASK / self.shape.row()).max(1));
        let items = self.values.chunks_mut(height * row).zip(factors.chunks(channels));
        let tasks: Vec<_> =
            items.flat_map(|(item, factors)| item.chunks_mut(rows * row).map(move |rows| (rows, factors))).collect();
        tasks.into_par_iter().for_each(|(rows, factors)| {
            let mut blocks = vec![[0.0; CHANNEL_BLOCK]; channels.div_ceil(CHANNEL_BLOCK)];
            blocks.as_flattened_mut()[..channels].copy_from_slice(factors);
            for (block, factors) in rows.chunks_mut(width * CHANNEL_BLOCK).zip(blocks.iter().cycle()) {
                for x in block.as_chunks_mut::<CHANNEL_BLOCK>().0 {
                    for c in 0..CHANNEL_BLOCK {
                        x[c] *= factors[c];
                    }
                }
            }
        });
        Some(())
    }

    /// Rearranges the rows: row `i` of the result is row `rows[i]` of each map, or zeros. `None` if `rows` is empty or
    /// refers to a row that does not exist.
    pub fn select(&self, rows: &[Option<usize>], workspace: &Workspace) -> Option<Self> {
        let Shape { height, .. } = self.shape;
        if rows.iter().flatten().any(|&row| row >= height) {
            return None;
        }
        let mut selected = Self::unwritten(Shape { height: rows.len(), ..self.shape }, workspace)?;
        let row = self.shape.row();
        let task = (TASK / row).max(1);
        selected.values.par_chunks_mut(task * row).enumerate().for_each(|(first, y)| {
            for (i, y) in y.chunks_mut(row).enumerate() {
                let (item, i) = ((first * task + i) / rows.len(), (first * task + i) % rows.len());
                match rows[i] {
                    Some(source) => y.copy_from_slice(&self.values[(item * height + source) * row..][..row]),
                    None => y.fill(0.0),
                }
            }
        });
        Some(selected)
    }

    /// Pooling over windows with `stride = size`. Padding is for [`Pooling::Max`] only and counts as minus infinity.
    /// `None` if a window is empty, larger than the map or mostly padding.
    pub fn pool(&self, pooling: Pooling, window: Window, isa: Isa, workspace: &Workspace) -> Option<Self> {
        let (height, width) = window.output(self.shape.height, self.shape.width)?;
        let mut pooled = Self::unwritten(Shape { height, width, ..self.shape }, workspace)?;
        let row = pooled.shape.row();
        let rows = (TASK / row).max(1);
        pooled.values.par_chunks_mut(rows * row).enumerate().for_each(|(task, y)| {
            for (i, y) in y.chunks_mut(row).enumerate() {
                let (item, row) = ((task * rows + i) / height, (task * rows + i) % height);
                isa.run(PoolRow { x: self, pooling, window, item, row, width, y });
            }
        });
        Some(pooled)
    }

    /// The first pooled rows of a map with one item, as many as `y` holds, on the calling thread. Their windows must lie
    /// inside the map.
    pub fn pool_rows(&self, pooling: Pooling, window: Window, y: &mut [f32], isa: Isa) {
        let width = self.shape.width / window.size.1;
        for (row, y) in y.chunks_mut(self.shape.blocks() * width * CHANNEL_BLOCK).enumerate() {
            isa.run(PoolRow { x: self, pooling, window, item: 0, row, width, y });
        }
    }
}

/// One row of [`BlockedMap::activate_and_weight`].
struct ActivateAndWeightRow<'a> {
    coefficients: &'a [[f32; CHANNEL_BLOCK]],
    weights: &'a [[f32; CHANNEL_BLOCK]],
    columns: &'a [[f32; CHANNEL_BLOCK]],
    width: usize,
    x: &'a mut [f32],
}

impl SimdOp for ActivateAndWeightRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { coefficients, weights, columns, width, x } = self;
        let blocks = weights.len();
        let (x, _) = x.as_chunks_mut::<CHANNEL_BLOCK>();
        for (block, x) in x.chunks_mut(width).enumerate() {
            for part in 0..L::PARTS {
                let mut line = [L::splat(0.0); 4];
                for i in 0..4 {
                    line[i] = L::load(&coefficients[i * blocks + block], part);
                }
                let weight = L::load(&weights[block], part);
                for (column, x) in x.iter_mut().enumerate() {
                    let value = L::load(x, part);
                    let activated = value.mul_add(line[0], line[2]).max(value.mul_add(line[1], line[3]));
                    activated.mul(weight).mul(L::load(&columns[column * blocks + block], part)).store(x, part);
                }
            }
        }
    }
}

/// The sums of each channel over some rows.
struct SumRows<'a> {
    rows: &'a [f32],
    blocks: usize,
    width: usize,
}

impl SimdOp for SumRows<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<L: Lanes>(self) -> Vec<f32> {
        let Self { rows, blocks, width } = self;
        let mut sums = vec![[0.0; CHANNEL_BLOCK]; blocks];
        let (positions, _) = rows.as_chunks::<CHANNEL_BLOCK>();
        for (positions, block) in positions.chunks(width).zip((0..blocks).cycle()) {
            for part in 0..L::PARTS {
                // Four independent sums hide the latency of the additions.
                let mut four = [L::splat(0.0); 4];
                let fours = positions.chunks_exact(4);
                for (x, sum) in fours.remainder().iter().zip(&mut four) {
                    *sum = sum.add(L::load(x, part));
                }
                for x in fours {
                    for i in 0..4 {
                        four[i] = four[i].add(L::load(&x[i], part));
                    }
                }
                let sum = four[0].add(four[1]).add(four[2].add(four[3]));
                sum.add(L::load(&sums[block], part)).store(&mut sums[block], part);
            }
        }
        sums.into_flattened()
    }
}

/// Applies an activation to each value.
pub struct Activate<'a> {
    pub activation: Activation,
    pub values: &'a mut [f32],
}

impl SimdOp for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        map_lanes(
            [],
            [self.values],
            #[inline(always)]
            |[]: [L; 0], [x]| [self.activation.apply_lanes(x)],
        );
    }
}

struct Add<'a> {
    activation: Activation,
    values: &'a mut [f32],
    others: &'a [f32],
}

impl SimdOp for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        map_lanes([self.others], [self.values], |[x]: [L; 1], [y]| [self.activation.apply_lanes(y.add(x))]);
    }
}

/// A pooling window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Rows and columns.
    pub size: (usize, usize),
    /// Rows added above and below.
    pub padding: usize,
}

impl Window {
    /// Rows and columns of the pooled map; `None` if the window does not fit the map or is mostly padding.
    pub fn output(&self, height: usize, width: usize) -> Option<(usize, usize)> {
        if height == 0 || self.padding > self.size.0 / 2 {
            return None;
        }
        let rows = height.checked_add(2 * self.padding)?.checked_div(self.size.0)?;
        let columns = width.checked_div(self.size.1)?;
        (rows > 0 && columns > 0).then_some((rows, columns))
    }

    /// Number of positions in a window, including padding.
    pub fn positions(&self) -> f32 {
        self.size.0 as f32 * self.size.1 as f32
    }
}

struct PoolRow<'a> {
    x: &'a BlockedMap,
    pooling: Pooling,
    window: Window,
    item: usize,
    row: usize,
    width: usize,
    y: &'a mut [f32],
}

impl SimdOp for PoolRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { x, pooling, window, item, row, width, y } = self;
        let Window { size, padding } = window;
        let shape = x.shape;
        let top = (row * size.0).saturating_sub(padding);
        let bottom = (row * size.0 + size.0 - padding).min(shape.height);
        let scale = L::splat(1.0 / window.positions());
        let (y, _) = y.as_chunks_mut::<CHANNEL_BLOCK>();
        let positions = (0..shape.blocks()).flat_map(|block| (0..width).map(move |column| (block, column)));
        for (block, column) in positions {
            for part in 0..L::PARTS {
                let (mut sum, mut max) = (L::splat(0.0), L::splat(f32::NEG_INFINITY));
                for i in top..bottom {
                    let start = (item * shape.height + i) * shape.row()
                        + (block * shape.width + column * size.1) * CHANNEL_BLOCK;
                    let (x, _) = x.values[start..start + size.1 * CHANNEL_BLOCK].as_chunks::<CHANNEL_BLOCK>();
                    for x in x {
                        let x = L::load(x, part);
                        sum = sum.add(x);
                        max = x.max(max);
                    }
                }
                let value = match pooling {
                    Pooling::Avg => sum.mul(scale),
                    Pooling::Max => max,
                    Pooling::AvgMax => sum.mul_add(scale, max),
                };
                value.store(&mut y[block * width + column], part);
            }
        }
    }
}
