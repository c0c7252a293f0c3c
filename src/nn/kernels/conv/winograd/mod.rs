//! Winograd convolutions, for 3x3 kernels with stride 1 and padding 1. [`axis`] defines the transforms of each axis.
//!
//! A convolution has three steps. First, tiles of the input are transformed. Then, each of the (up to 36) transformed
//! positions is one matrix product over channels. Last, the products are transformed back, fused with bias, activation
//! and pooling. Filters are transformed at load, in f64.
//!
//! Two loop orders keep operands in cache. If filters are small (the first blocks of CNN14), a task takes some rows of
//! the map through all three steps. If they are large (the last blocks, which are bound by reading them), each step
//! runs over the whole map with all threads. The matrix products then run position by position, so that each filter is
//! read once.

mod axis;
mod input;
mod output;

use std::marker::PhantomData;

use rayon::prelude::*;

use crate::nn::kernels::activation::Activation;
use crate::nn::kernels::blocked::{BlockedMap, Shape};
use crate::nn::kernels::matmul::packed::{Inputs, Outputs, Span, Weights, packed_matmul};
use crate::nn::kernels::matmul::panels::{PackedWeights, Storage};
use crate::nn::kernels::pooling::Pooling;
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;
use crate::nn::kernels::workspace::Workspace;
use axis::{Axis, F43, TwoColumns, Untransformed};
use input::InputTransform;
use output::OutputTransform;

/// Up to this many input plus output channels, a task takes rows through all steps.
const ROWS_CHANNELS: usize = 512;
/// Transformed values, inputs plus outputs, of such a task: 2 MiB, slightly the fastest of 0.5 to 2 MiB.
const ROWS_VALUES: usize = 1 << 19;
/// Otherwise, transformed inputs per position over all channels: half a second-level cache …
const POSITION_VALUES: usize = 1 << 17;
/// … but at least this many tiles, so that each read of a filter is reused often enough.
const MIN_TILES: usize = 256;
/// Inputs whose filters are transformed together.
const PACKED_INPUTS: usize = 64;
/// Panels per task of a matrix product.
const TASK_PANELS: usize = 2;
/// Number of filter weights above which time is not transformed: the transform would double them, and such layers are
/// bound by reading weights.
const LARGE_FILTER: usize = 3 << 20;

/// Row bands per thread in the output transform.
const BANDS_PER_THREAD: usize = 2;

/// The transform of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    F43,
    TwoColumns,
    /// An axis without taps, or time with three taps that the matrix product sums.
    Untransformed,
}

impl Form {
    fn products(self) -> usize {
        match self {
            Self::F43 => F43::PRODUCTS,
            Self::TwoColumns => TwoColumns::PRODUCTS,
            Self::Untransformed => 1,
        }
    }

    fn filter(self, product: usize) -> [f64; 3] {
        match self {
            Self::F43 => F43::filter(product),
            Self::TwoColumns => TwoColumns::filter(product),
            Self::Untransformed => Untransformed::filter(product),
        }
    }
}

/// Transformed filters, bias and activation.
#[derive(Debug)]
pub struct WinogradConv {
    in_channels: usize,
    out_channels: usize,
    time: Form,
    mel: Form,
    weights: PackedWeights, // [positions][panels][taps][input blocks · 16][16]
    pub bias: Vec<f32>,     // [panels · 16]
    pub activation: Activation,
}

impl WinogradConv {
    /// Packs the 3x3 filter of each output and input. `width` is the map's, if known; if it is 1 or 2, maps of other
    /// widths are rejected. `bias` is padded to whole blocks.
    pub fn pack(
        (in_channels, out_channels): (usize, usize),
        width: Option<usize>,
        storage: Storage,
        filter: impl Fn(usize, usize) -> [[f64; 3]; 3] + Sync,
        bias: Vec<f32>,
        activation: Activation,
    ) -> Self {
        let time = if in_channels * out_channels * 9 > LARGE_FILTER { Form::Untransformed } else { Form::F43 };
        let mel = match width {
            Some(1) => Form::Untransformed,
            Some(2) => Form::TwoColumns,
            _ => Form::F43,
        };
        let taps = if time == Form::Untransformed { 3 } else { 1 };
        let (inputs, panels) =
            (in_channels.div_ceil(CHANNEL_BLOCK) * CHANNEL_BLOCK, out_channels.div_ceil(CHANNEL_BLOCK));
        // With both axes transformed, errors of the filters would grow too much.
        let storage = if time == Form::Untransformed { storage } else { Storage::F32 };
        let sizes = (time.products() * mel.products() * panels, taps * inputs * CHANNEL_BLOCK);
        let weights = PackedWeights::pack(storage, sizes, |index, panel| {
            let (position, panel_index) = (index / panels, index % panels);
            let (time_position, mel_position) = (position / mel.products(), position % mel.products());
            let (along_time, along_mel) = (time.filter(time_position), mel.filter(mel_position));
            // A range of inputs for all lanes at a time, so that their weights stay in the cache.
            let lanes = 0..CHANNEL_BLOCK.min(out_channels - panel_index * CHANNEL_BLOCK);
            let parts = (0..in_channels).step_by(PACKED_INPUTS);
            for (first, lane) in parts.flat_map(|first| lanes.clone().map(move |lane| (first, lane))) {
                for input in first..in_channels.min(first + PACKED_INPUTS) {
                    let rows = filter(panel_index * CHANNEL_BLOCK + lane, input);
                    let rows = rows.map(|row| row[0] * along_mel[0] + row[1] * along_mel[1] + row[2] * along_mel[2]);
                    if time == Form::Untransformed {
                        for (tap, value) in rows.into_iter().enumerate() {
                            panel[(tap * inputs + input) * CHANNEL_BLOCK + lane] = value as f32;
                        }
                    } else {
                        let value = rows[0] * along_time[0] + rows[1] * along_time[1] + rows[2] * along_time[2];
                        panel[input * CHANNEL_BLOCK + lane] = value as f32;
                    }
                }
            }
        });
        Self { in_channels, out_channels, time, mel, weights, bias, activation }
    }

    pub fn is_f16(&self) -> bool {
        self.weights.as_f32().is_none()
    }

    /// Convolves `x` to a map of the same size, or of half its rows and columns with 2x2 `pooling`. `None` if the
    /// number of channels or the width does not match, or if the output is empty.
    pub fn forward(
        &self,
        x: &BlockedMap,
        pooling: Option<Pooling>,
        isa: Isa,
        workspace: &Workspace,
    ) -> Option<BlockedMap> {
        let fits = match self.mel {
            Form::Untransformed => x.shape.width == 1,
            Form::TwoColumns => x.shape.width == 2,
            Form::F43 => true,
        };
        if !fits || x.shape.channels != self.in_channels {
            return None;
        }
        match (self.time, self.mel) {
            (Form::F43, Form::F43) => Pass::<F43, F43>::new(self, x, pooling, isa, workspace).forward(),
            (Form::F43, Form::TwoColumns) => Pass::<F43, TwoColumns>::new(self, x, pooling, isa, workspace).forward(),
            (Form::F43, Form::Untransformed) => {
                Pass::<F43, Untransformed>::new(self, x, pooling, isa, workspace).forward()
            }
            (_, Form::F43) => Pass::<Untransformed, F43>::new(self, x, pooling, isa, workspace).forward(),
            (_, Form::TwoColumns) => Pass::<Untransformed, TwoColumns>::new(self, x, pooling, isa, workspace).forward(),
            (_, Form::Untransformed) => {
                Pass::<Untransformed, Untransformed>::new(self, x, pooling, isa, workspace).forward()
            }
        }
    }
}

/// One forward pass, monomorphised over the transforms of the two axes.
pub struct Pass<'a, T, W> {
    pub layer: &'a WinogradConv,
    pub x: &'a BlockedMap,
    pub pooling: Option<Pooling>,
    isa: Isa,
    workspace: &'a Workspace,
    /// Taps along time that the matrix product sums.
    pub taps: usize,
    /// Tiles per row.
    pub columns: usize,
    axes: PhantomData<(T, W)>,
}

/// A range of tile rows of one clip.
#[derive(Debug, Clone, Copy)]
pub struct TileRows {
    pub item: usize,
    /// The first tile row, and their number.
    pub first: usize,
    pub count: usize,
    /// Index of the first among the rows of transformed tiles.
    pub start: usize,
}

impl<'a, T: Axis + Sync, W: Axis + Sync> Pass<'a, T, W> {
    fn new(
        layer: &'a WinogradConv,
        x: &'a BlockedMap,
        pooling: Option<Pooling>,
        isa: Isa,
        workspace: &'a Workspace,
    ) -> Self {
        let taps = if layer.time == Form::Untransformed { 3 } else { 1 };
        let columns = x.shape.width.div_ceil(W::OUTPUTS);
        Self { layer, x, pooling, isa, workspace, taps, columns, axes: PhantomData }
    }

    const POSITIONS: usize = T::PRODUCTS * W::PRODUCTS;
    /// Tile rows that give an even number of output rows, as pooling needs.
    pub const STEP: usize = if T::OUTPUTS == 1 { 2 } else { 1 };

    fn forward(&self) -> Option<BlockedMap> {
        let Shape { batch, height, width, .. } = self.x.shape;
        let halve = |n: usize| if self.pooling.is_some() { n / 2 } else { n };
        let shape = Shape { batch, channels: self.layer.out_channels, height: halve(height), width: halve(width) };
        let mut map = BlockedMap::unwritten(shape, self.workspace)?;
        let (inputs, outputs) = (self.x.shape.blocks() * CHANNEL_BLOCK, shape.blocks() * CHANNEL_BLOCK);
        let by_rows = inputs + outputs <= ROWS_CHANNELS;
        let tiles = if by_rows {
            ROWS_VALUES / (Self::POSITIONS * (inputs + outputs))
        } else {
            (POSITION_VALUES / inputs).max(MIN_TILES)
        };
        let rows = (tiles / self.columns / Self::STEP).max(1) * Self::STEP;
        let groups = self.groups(rows, &mut map, !by_rows);
        if by_rows {
            groups.into_par_iter().for_each(|group| self.group(group, false));
        } else {
            groups.into_iter().for_each(|group| self.group(group, true));
        }
        Some(map)
    }

    /// Splits the map into groups of at most `rows` tile rows, each with its output rows. With `across`, a group may
    /// span several clips.
    fn groups<'y>(&self, rows: usize, map: &'y mut BlockedMap, across: bool) -> Vec<Vec<(TileRows, &'y mut [f32])>> {
        let all = self.x.shape.height.div_ceil(T::OUTPUTS);
        let (row, height) = (map.shape.row(), map.shape.height);
        let mut groups: Vec<Vec<(TileRows, &mut [f32])>> = Vec::new();
        let mut filled = rows;
        for (item, mut y) in map.values.chunks_mut(height * row).enumerate() {
            let mut first = 0;
            while first < all {
                if filled >= rows || !across {
                    groups.push(Vec::new());
                    filled = 0;
                }
                // Fill the group in whole steps; the last rows of a clip may be fewer.
                let count = (rows - filled).next_multiple_of(Self::STEP).min(all - first);
                let start = filled + groups.last().map_or(0, |group| group.len() * (self.taps - 1));
                let tile_rows = TileRows { item, first, count, start };
                let (mine, rest) = y.split_at_mut(self.output_rows(first, count) * row);
                y = rest;
                if let Some(group) = groups.last_mut() {
                    group.push((tile_rows, mine));
                }
                filled += count;
                first += count;
            }
        }
        groups
    }

    /// Number of output rows of `count` tile rows from `first` on.
    fn output_rows(&self, first: usize, count: usize) -> usize {
        let height = self.x.shape.height;
        let position = |row: usize| {
            let row = (row * T::OUTPUTS).min(height);
            if self.pooling.is_some() { row / 2 } else { row }
        };
        position(first + count) - position(first)
    }

    /// Runs the three steps for a group, each with all threads if `parallel`.
    fn group(&self, group: Vec<(TileRows, &mut [f32])>, parallel: bool) {
        let layer = self.layer;
        let tile_rows: Vec<TileRows> = group.iter().map(|(rows, _)| *rows).collect();
        let n_rows = tile_rows.last().map_or(0, |last| last.start + last.count + self.taps - 1);
        // Odd, so that channels and positions do not share cache sets.
        let tiles = (n_rows * self.columns) | 1;
        let (blocks, panels) = (self.x.shape.blocks(), layer.bias.len() / CHANNEL_BLOCK);

        let mut transformed = self.workspace.take(blocks * Self::POSITIONS * tiles * CHANNEL_BLOCK); // [block][position][tile][16]
        let by_block = transformed.chunks_mut(Self::POSITIONS * tiles * CHANNEL_BLOCK).enumerate().collect();
        for_each(parallel, by_block, |(block, y): (usize, &mut [f32])| {
            self.isa.run(InputTransform { pass: self, tile_rows: &tile_rows, block, tiles, y });
        });

        let mut products = self.workspace.take(Self::POSITIONS * panels * tiles * CHANNEL_BLOCK); // [position][panel][tile][16]
        let by_position = products.chunks_mut(panels * tiles * CHANNEL_BLOCK).enumerate();
        let by_task = by_position.flat_map(|(position, y)| {
            y.chunks_mut(TASK_PANELS * tiles * CHANNEL_BLOCK).enumerate().map(move |(task, y)| (position, task, y))
        });
        let block_stride = Self::POSITIONS * tiles * CHANNEL_BLOCK;
        let (taps, columns) = (self.taps, self.columns);
        let segments: Vec<usize> = (0..taps)
            .flat_map(|tap| (0..blocks).map(move |block| block * block_stride + tap * columns * CHANNEL_BLOCK))
            .collect();
        let place_of = |rows: &TileRows| rows.start * columns * CHANNEL_BLOCK;
        let spans: Vec<Span> = tile_rows
            .iter()
            .map(|rows| Span { x: place_of(rows), y: place_of(rows), rows: rows.count * columns })
            .collect();
        let panel = taps * blocks * CHANNEL_BLOCK * CHANNEL_BLOCK;
        for_each(parallel, by_task.collect(), |(position, task, y): (usize, usize, &mut [f32])| {
            let first = position * panels + task * TASK_PANELS;
            let panels = layer.weights.panels(panel, first, y.len() / (tiles * CHANNEL_BLOCK));
            let x = &transformed[position * tiles * CHANNEL_BLOCK..];
            let inputs = Inputs { x, row_stride: CHANNEL_BLOCK, segments: &segments, segment_len: CHANNEL_BLOCK };
            let outputs = Outputs { y, row_stride: CHANNEL_BLOCK, panel_stride: tiles * CHANNEL_BLOCK };
            packed_matmul(self.isa, inputs, &spans, Weights { panels, bias: None }, outputs);
        });

        let mut bands = Vec::new();
        for (rows, mut y) in group {
            // Few, long bands, because the products of a position and panel are contiguous along the rows.
            let parts = if parallel { BANDS_PER_THREAD * rayon::current_num_threads() } else { 1 };
            let step = rows.count.div_ceil(parts).next_multiple_of(Self::STEP);
            for first in (0..rows.count).step_by(step) {
                let count = step.min(rows.count - first);
                let band = TileRows { first: rows.first + first, count, start: rows.start + first, ..rows };
                let row = if self.pooling.is_some() { self.x.shape.width / 2 } else { self.x.shape.width };
                let (mine, rest) = y.split_at_mut(self.output_rows(band.first, count) * panels * row * CHANNEL_BLOCK);
                y = rest;
                bands.push((band, mine));
            }
        }
        for_each(parallel, bands, |(rows, y): (TileRows, &mut [f32])| {
            self.isa.run(OutputTransform { pass: self, rows, tiles, products: &products, y });
        });
    }
}

fn for_each<I: Send>(parallel: bool, items: Vec<I>, work: impl Fn(I) + Sync + Send) {
    if parallel {
        items.into_par_iter().for_each(work);
    } else {
        items.into_iter().for_each(work);
    }
}
