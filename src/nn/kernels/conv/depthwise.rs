//! Depthwise convolutions of maps: a filter per channel.
//!
//! A task sums whole rows of the output, one block of channels after the other: the rows that a kernel covers stay in the
//! first-level cache. A tile of columns loads each input once per row of the kernel.

use rayon::prelude::*;

use crate::nn::kernels::activation::Activation;
use crate::nn::kernels::blocked::{BlockedMap, Shape};
use crate::nn::kernels::conv::shape::ConvShape;
use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, Lanes};
use crate::nn::kernels::workspace::Workspace;

/// Values per task, about.
const TASK: usize = 1 << 15;
/// Most inputs of a tile along a row: eight columns two apart, and a kernel of seven.
const MAX_INPUTS: usize = 21;

/// Sixteen channels of a place.
type Block = [f32; CHANNEL_BLOCK];

/// Filters in the order in which they are read, bias and activation.
#[derive(Debug)]
pub struct DepthwiseConv {
    conv_shape: ConvShape,
    taps: Vec<Block>, // [blocks][rows][columns]
    bias: Vec<Block>, // [blocks]
    activation: Activation,
}

impl DepthwiseConv {
    /// `filter` gives a weight by channel, row and column; there is one bias per channel.
    pub fn pack(
        conv_shape: ConvShape,
        filter: impl Fn(usize, usize, usize) -> f64,
        bias: &[f32],
        activation: Activation,
    ) -> Self {
        let ConvShape { out_channels, kernel, .. } = conv_shape;
        let (blocks, places) = (out_channels.div_ceil(CHANNEL_BLOCK), kernel.0 * kernel.1);
        let (mut taps, mut biases) = (vec![[0.0; CHANNEL_BLOCK]; blocks * places], vec![[0.0; CHANNEL_BLOCK]; blocks]);
        for (channel, &bias) in bias.iter().enumerate() {
            let (block, lane) = (channel / CHANNEL_BLOCK, channel % CHANNEL_BLOCK);
            biases[block][lane] = bias;
            for (place, taps) in taps[block * places..][..places].iter_mut().enumerate() {
                taps[lane] = filter(channel, place / kernel.1, place % kernel.1) as f32;
            }
        }
        Self { conv_shape, taps, bias: biases, activation }
    }

    /// `None` if `x` is smaller than the kernel or no memory could hold the output.
    pub fn forward(&self, x: &BlockedMap, isa: Isa, workspace: &Workspace) -> Option<BlockedMap> {
        let (height, width) = self.conv_shape.output(x.shape.height, x.shape.width)?;
        let mut map = BlockedMap::unwritten(Shape { height, width, ..x.shape }, workspace)?;
        let (shape, row) = (map.shape, map.shape.row());
        let rows = (TASK / row).max(1);
        map.values.par_chunks_mut(rows * row).enumerate().for_each(|(task, y)| {
            isa.run(Rows { conv: self, x, shape, first: task * rows, y });
        });
        Some(map)
    }
}

/// Rows of the output, from row `first` of all clips on.
struct Rows<'a> {
    conv: &'a DepthwiseConv,
    x: &'a BlockedMap,
    shape: Shape,
    first: usize,
    y: &'a mut [f32],
}

impl SimdOp for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        // Sums of a tile and the inputs of a row fit the registers: 32 of one part per block, else 16.
        macro_rules! by_size {
            ($($kernel:literal by $stride:literal)*) => {
                match (self.conv.conv_shape.kernel.1, self.conv.conv_shape.stride.1) {
                    $(
                        ($kernel, $stride) if L::PARTS == 1 => L::call(RowsOf::<$kernel, $stride, 8>(self)),
                        ($kernel, $stride) => L::call(RowsOf::<$kernel, $stride, 4>(self)),
                    )*
                    _ => L::call(RowsOf::<0, 1, 1>(self)),
                }
            };
        }
        by_size! { 3 by 1 3 by 2 5 by 1 5 by 2 7 by 1 7 by 2 }
    }
}

/// [`Rows`] whose kernel is `K` columns wide, in steps of `S`, `T` columns at a time. `K` is 0 for any kernel and step.
struct RowsOf<'a, const K: usize, const S: usize, const T: usize>(Rows<'a>);

impl<const K: usize, const S: usize, const T: usize> SimdOp for RowsOf<'_, K, S, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Rows { conv, x, shape, first, y } = self.0;
        let ConvShape { kernel, stride, padding, .. } = conv.conv_shape;
        let (values, _) = x.values.as_chunks::<CHANNEL_BLOCK>();
        let (blocks, width) = (shape.blocks(), x.shape.width);
        let (y, _) = y.as_chunks_mut::<CHANNEL_BLOCK>();
        for (i, y) in y.chunks_mut(blocks * shape.width).enumerate() {
            let (item, row) = ((first + i) / shape.height, (first + i) % shape.height * stride.0);
            // The rows of the kernel that lie inside the map.
            let rows = padding.0.saturating_sub(row)..(x.shape.height + padding.0).saturating_sub(row).min(kernel.0);
            for (block, y) in y.chunks_mut(shape.width).enumerate() {
                let taps = &conv.taps[block * kernel.0 * kernel.1..][..kernel.0 * kernel.1];
                let line = |i: usize| {
                    let row = item * x.shape.height + row + i - padding.0;
                    &values[(row * blocks + block) * width..][..width]
                };
                for (tile, y) in y.chunks_mut(T).enumerate() {
                    let left = tile * T * if K == 0 { stride.1 } else { S };
                    for part in 0..L::PARTS {
                        let mut sums = [L::load(&conv.bias[block], part); T];
                        for i in rows.clone() {
                            let (line, taps) = (line(i), &taps[i * kernel.1..][..kernel.1]);
                            if K == 0 {
                                for (j, tap) in taps.iter().enumerate() {
                                    if let Some(x) = (left + j).checked_sub(padding.1).and_then(|at| line.get(at)) {
                                        sums[0] = L::load(x, part).mul_add(L::load(tap, part), sums[0]);
                                    }
                                }
                                continue;
                            }
                            let n = (T - 1) * S + K;
                            let mut inputs = [L::splat(0.0); MAX_INPUTS];
                            match left.checked_sub(padding.1).and_then(|left| line.get(left..left + n)) {
                                Some(line) => (0..n).for_each(|at| inputs[at] = L::load(&line[at], part)),
                                None => {
                                    for at in 0..n {
                                        if let Some(x) = (left + at).checked_sub(padding.1).and_then(|at| line.get(at))
                                        {
                                            inputs[at] = L::load(x, part);
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
}
