//! Depthwise convolutions of maps.
//!
//! A task sums whole rows of the output, one channel block at a time, so that the rows a kernel covers stay in the
//! first-level cache. A tile of columns loads each input once per kernel row.

use rayon::prelude::*;

use crate::nn::kernels::activation::Activation;
use crate::nn::kernels::blocked::{BlockedMap, Shape};
use crate::nn::kernels::conv::shape::ConvShape;
use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, Lanes};
use crate::nn::kernels::workspace::Workspace;

/// Approximate number of values per task.
const TASK: usize = 1 << 15;
/// Maximum number of inputs of a tile in one row: eight columns with stride two and a kernel of seven.
const MAX_INPUTS: usize = 21;

/// The sixteen channels of a position.
type Block = [f32; CHANNEL_BLOCK];

/// Filters in reading order, bias and activation.
#[derive(Debug)]
pub struct DepthwiseConv {
    conv_shape: ConvShape,
    taps: Vec<Block>, // [blocks][rows][columns]
    bias: Vec<Block>, // [blocks]
    activation: Activation,
}

impl DepthwiseConv {
    /// `filter` returns the weight for a channel, row and column; there is one bias per channel.
    pub fn pack(
        conv_shape: ConvShape,
        filter: impl Fn(usize, usize, usize) -> f64,
        bias: &[f32],
        activation: Activation,
    ) -> Self {
        let ConvShape { out_channels, kernel, .. } = conv_shape;
        let (blocks, positions) = (out_channels.div_ceil(CHANNEL_BLOCK), kernel.0 * kernel.1);
        let (mut taps, mut biases) =
            (vec![[0.0; CHANNEL_BLOCK]; blocks * positions], vec![[0.0; CHANNEL_BLOCK]; blocks]);
        for (channel, &bias) in bias.iter().enumerate() {
            let (block, lane) = (channel / CHANNEL_BLOCK, channel % CHANNEL_BLOCK);
            biases[block][lane] = bias;
            for (position, taps) in taps[block * positions..][..positions].iter_mut().enumerate() {
                taps[lane] = filter(channel, position / kernel.1, position % kernel.1) as f32;
            }
        }
        Self { conv_shape, taps, bias: biases, activation }
    }

    pub fn shape(&self) -> ConvShape {
        self.conv_shape
    }

    pub fn weights(&self) -> &[f32] {
        self.taps.as_flattened()
    }

    /// A copy with other weights in the same order.
    pub fn with_weights(&self, weights: &[f32]) -> Self {
        let (taps, _) = weights.as_chunks::<CHANNEL_BLOCK>();
        Self { taps: taps.to_vec(), bias: self.bias.clone(), ..*self }
    }

    /// Convolves `x`. `None` if `x` is smaller than the kernel or the output exceeds the address space.
    pub fn forward(&self, x: &BlockedMap, isa: Isa, workspace: &Workspace) -> Option<BlockedMap> {
        let (height, width) = self.conv_shape.output(x.shape.height, x.shape.width)?;
        let mut map = BlockedMap::unwritten(Shape { height, width, ..x.shape }, workspace)?;
        let (x_row, y_row) = (x.shape.row(), map.shape.row());
        let task = (TASK / y_row).max(1);
        map.values.par_chunks_mut(task * y_row).enumerate().for_each(|(first, y)| {
            for (i, y) in y.chunks_mut(y_row).enumerate() {
                let (item, row) = ((first * task + i) / height, (first * task + i) % height);
                let (first_tap, rows) = self.conv_shape.rows_seen(row, x.shape.height);
                let item = &x.values[item * x.shape.height * x_row..][..x.shape.height * x_row];
                let lines = Lines { rows: item, row: x_row, first: rows.start, n: rows.len() };
                self.row(lines, first_tap, x.shape.width, y, isa);
            }
        });
        Some(map)
    }

    /// Computes one output row, `[blocks][columns][16]`, from `lines` of `width` columns, which begin at kernel row
    /// `first_tap`.
    pub fn row(&self, lines: Lines, first_tap: usize, width: usize, y: &mut [f32], isa: Isa) {
        isa.run(Row { conv: self, lines, first_tap, width, y });
    }
}

/// `n` rows of a map from row `first` on, each of `row` values. The rows form a ring: row 0 follows the last.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    pub rows: &'a [f32],
    pub row: usize,
    pub first: usize,
    pub n: usize,
}

impl<'a> Lines<'a> {
    #[inline(always)]
    fn line(&self, i: usize) -> &'a [f32] {
        let start = (self.first + i) * self.row;
        let start = if start < self.rows.len() { start } else { start - self.rows.len() };
        &self.rows[start..start + self.row]
    }
}

struct Row<'a> {
    conv: &'a DepthwiseConv,
    lines: Lines<'a>,
    first_tap: usize,
    width: usize,
    y: &'a mut [f32],
}

impl SimdOp for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let columns = self.y.len() / CHANNEL_BLOCK / self.conv.bias.len();
        // The sums of a tile and the inputs of a row fit into the registers: 32 if a block is one register, otherwise
        // 16.
        macro_rules! by_size {
            ($($kernel:literal by $stride:literal)*) => {
                match (self.conv.conv_shape.kernel.1, self.conv.conv_shape.stride.1) {
                    $(
                        ($kernel, $stride) if L::PARTS == 1 && columns > 4 => L::call(RowOf::<$kernel, $stride, 8>(self)),
                        ($kernel, $stride) => L::call(RowOf::<$kernel, $stride, 4>(self)),
                    )*
                    _ => L::call(RowOf::<0, 1, 1>(self)),
                }
            };
        }
        by_size! { 3 by 1 3 by 2 5 by 1 5 by 2 7 by 1 7 by 2 }
    }
}

/// [`Row`] for a kernel of `K` columns and stride `S`, `T` columns at a time. `K` = 0 handles any kernel and stride.
struct RowOf<'a, const K: usize, const S: usize, const T: usize>(Row<'a>);

impl<const K: usize, const S: usize, const T: usize> SimdOp for RowOf<'_, K, S, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Row { conv, lines, first_tap, width, y } = self.0;
        let ConvShape { kernel, stride, padding, .. } = conv.conv_shape;
        let (y, _) = y.as_chunks_mut::<CHANNEL_BLOCK>();
        let columns = y.len() / conv.bias.len();
        for (block, y) in y.chunks_mut(columns).enumerate() {
            let taps = &conv.taps[block * kernel.0 * kernel.1..][..kernel.0 * kernel.1];
            for (tile, y) in y.chunks_mut(T).enumerate() {
                let left = tile * T * if K == 0 { stride.1 } else { S };
                for part in 0..L::PARTS {
                    let mut sums = [L::load(&conv.bias[block], part); T];
                    for (i, taps) in (0..lines.n).zip(taps.chunks(kernel.1).skip(first_tap)) {
                        let line = &lines.line(i).as_chunks::<CHANNEL_BLOCK>().0[block * width..][..width];
                        let at = |column: usize| column.checked_sub(padding.1).and_then(|column| line.get(column));
                        if K == 0 {
                            for (j, tap) in taps.iter().enumerate() {
                                if let Some(x) = at(left + j) {
                                    sums[0] = L::load(x, part).mul_add(L::load(tap, part), sums[0]);
                                }
                            }
                            continue;
                        }
                        let n = (T - 1) * S + K;
                        let mut inputs = [L::splat(0.0); MAX_INPUTS];
                        match left.checked_sub(padding.1).and_then(|left| line.get(left..left + n)) {
                            Some(line) => (0..n).for_each(|i| inputs[i] = L::load(&line[i], part)),
                            None => {
                                for i in 0..n {
                                    if let Some(x) = at(left + i) {
                                        inputs[i] = L::load(x, part);
                                    }
                                }
                            }
                        }
                        for j in 0..K {
                            let tap = L::load(&taps[j], part);
                            for t in 0..T {
                                sums[t] = inputs[t * S + j].mul_add(tap, sums[t]);
                            }
                        }
                    }
                    for (y, sum) in y.iter_mut().zip(sums) {
                        conv.activation.apply_lanes(sum).store(y, part);
                    }
                }
            }
        }
    }
}
