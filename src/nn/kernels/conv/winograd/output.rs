//! The output transform: the last step of a Winograd convolution, including bias, activation and pooling.

use super::axis::{Axis, MAX_OUTPUTS, MAX_POINTS};
use crate::nn::kernels::conv::winograd::{Pass, TileRows};
use crate::nn::kernels::pooling::Pooling;
use crate::nn::kernels::simd::isa::SimdOp;
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, Lanes};

/// Transforms the products of a range of tile rows back.
pub struct OutputTransform<'a, T, W> {
    pub pass: &'a Pass<'a, T, W>,
    pub rows: TileRows,
    pub tiles: usize,
    pub products: &'a [f32], // [position][panel][tile][16]
    pub y: &'a mut [f32],    // [row][panel][column][16]
}

impl<T: Axis + Sync, W: Axis + Sync> SimdOp for OutputTransform<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { pass, rows, tiles, products, y } = self;
        let (products, _) = products.as_chunks::<CHANNEL_BLOCK>();
        let (bias, _) = pass.layer.bias.as_chunks::<CHANNEL_BLOCK>();
        let panels = bias.len();
        let (y, _) = y.as_chunks_mut::<CHANNEL_BLOCK>();
        let pooled = pass.pooling.is_some();
        let width = if pooled { pass.x.shape.width / 2 } else { pass.x.shape.width };
        let height = y.len() / (panels * width);
        let step = Pass::<T, W>::STEP;
        let panels_in_parts = (0..panels).flat_map(|panel| (0..L::PARTS).map(move |part| (panel, part)));
        for (panel, part) in panels_in_parts {
            let bias = L::load(&bias[panel], part);
            for row in (0..rows.count).step_by(step) {
                for column in 0..pass.columns {
                    // Before pooling: an even number of output rows.
                    let mut out = [[L::splat(0.0); MAX_OUTPUTS]; MAX_OUTPUTS];
                    for i in 0..step.min(rows.count - row) {
                        let tile = (rows.start + row + i) * pass.columns + column;
                        let first = i * T::OUTPUTS;
                        let mut along_mel = [[L::splat(0.0); MAX_POINTS]; MAX_OUTPUTS];
                        for j in 0..W::PRODUCTS {
                            let mut m = [L::splat(0.0); MAX_POINTS];
                            for i in 0..T::PRODUCTS {
                                let position = i * W::PRODUCTS + j;
                                m[i] = L::load(&products[(position * panels + panel) * tiles + tile], part);
                            }
                            let values = T::inverse(m);
                            for i in 0..T::OUTPUTS {
                                along_mel[i][j] = values[i];
                            }
                        }
                        for i in 0..T::OUTPUTS {
                            let values = W::inverse(along_mel[i]);
                            for j in 0..W::OUTPUTS {
                                out[first + i][j] = pass.layer.activation.apply_lanes(values[j].add(bias));
                            }
                        }
                    }
                    let (top, left) = (row * T::OUTPUTS, column * W::OUTPUTS);
                    let mut put = |row: usize, column: usize, value: L| {
                        if row < height && column < width {
                            value.store(&mut y[(row * panels + panel) * width + column], part);
                        }
                    };
                    match pass.pooling {
                        None => {
                            for i in 0..step * T::OUTPUTS {
                                for j in 0..W::OUTPUTS {
                                    put(top + i, left + j, out[i][j]);
                                }
                            }
                        }
                        Some(pooling) => {
                            for i in 0..step * T::OUTPUTS / 2 {
                                for j in 0..W::OUTPUTS / 2 {
                                    let (upper, lower) = (out[2 * i], out[2 * i + 1]);
                                    let window = [upper[2 * j], upper[2 * j + 1], lower[2 * j], lower[2 * j + 1]];
                                    put(top / 2 + i, left / 2 + j, pool(pooling, window));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Pools one 2x2 window.
#[inline(always)]
fn pool<L: Lanes>(pooling: Pooling, [a, b, c, d]: [L; 4]) -> L {
    let max = || a.max(b).max(c.max(d));
    let sum = || a.add(b).add(c.add(d));
    match pooling {
        Pooling::Avg => sum().mul(L::splat(0.25)),
        Pooling::Max => max(),
        Pooling::AvgMax => sum().mul_add(L::splat(0.25), max()),
    }
}
