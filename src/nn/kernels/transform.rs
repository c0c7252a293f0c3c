//! The first and the last step of a transformed convolution: tiles of the input to values to multiply, products to outputs.

use super::axis::{Axis, MAX_OUTPUTS, MAX_POINTS};
use super::lanes::{LANES, Lanes, Work};
use super::map::Shape;
use super::transformed::{Piece, Run};
use crate::nn::Pooling;

/// The first step, for one block of channels.
pub struct Forward<'a, T, W> {
    pub run: &'a Run<'a, T, W>,
    pub pieces: &'a [Piece],
    pub block: usize,
    pub tiles: usize,
    pub y: &'a mut [f32], // [place][tile][16]
}

impl<T: Axis + Sync, W: Axis + Sync> Work for Forward<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { run, pieces, block, tiles, y } = self;
        let Shape { height, width, .. } = run.x.shape;
        let (y, _) = y.as_chunks_mut::<LANES>();
        let zeros = vec![0.0; width * LANES];
        // Transformed along time: [T::PRODUCTS][columns with their padding][16].
        let padded = run.columns * W::OUTPUTS + W::INPUTS - W::OUTPUTS;
        let mut along_time = vec![[0.0; LANES]; T::PRODUCTS * padded];
        let row_of = |item: usize, row: Option<usize>| match row {
            Some(row) if row < height => {
                let start = (item * height + row) * run.x.shape.row() + block * width * LANES;
                &run.x.values[start..start + width * LANES]
            }
            _ => &zeros,
        };
        for piece in pieces {
            for row in 0..piece.rows + run.taps - 1 {
                // Before the first output: the tile's own inputs, or the taps that the product sums.
                let first = (piece.first + row) * T::OUTPUTS;
                let before = T::BEFORE + run.taps / 2;
                let mut rows = [&zeros[..]; MAX_POINTS];
                for i in 0..T::INPUTS {
                    rows[i] = row_of(piece.item, (first + i).checked_sub(before));
                }
                let rows = rows.map(|row| row.as_chunks::<LANES>().0);
                for (column, part) in (0..width).flat_map(|column| (0..L::PARTS).map(move |part| (column, part))) {
                    let mut x = [L::splat(0.0); MAX_POINTS];
                    for i in 0..T::INPUTS {
                        x[i] = L::load(&rows[i][column], part);
                    }
                    let values = T::forward(x);
                    for i in 0..T::PRODUCTS {
                        values[i].store(&mut along_time[i * padded + column + W::BEFORE], part);
                    }
                }
                let start = (piece.start + row) * run.columns;
                let places = (0..run.columns).flat_map(|column| (0..T::PRODUCTS).map(move |i| (column, i)));
                for (column, i) in places {
                    for part in 0..L::PARTS {
                        let mut x = [L::splat(0.0); MAX_POINTS];
                        for j in 0..W::INPUTS {
                            x[j] = L::load(&along_time[i * padded + column * W::OUTPUTS + j], part);
                        }
                        let values = W::forward(x);
                        for j in 0..W::PRODUCTS {
                            values[j].store(&mut y[(i * W::PRODUCTS + j) * tiles + start + column], part);
                        }
                    }
                }
            }
        }
    }
}

/// The last step, for some rows of tiles.
pub struct Inverse<'a, T, W> {
    pub run: &'a Run<'a, T, W>,
    pub piece: Piece,
    pub tiles: usize,
    pub products: &'a [f32], // [place][panel][tile][16]
    pub y: &'a mut [f32],    // [row][panel][column][16]
}

impl<T: Axis + Sync, W: Axis + Sync> Work for Inverse<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { run, piece, tiles, products, y } = self;
        let (products, _) = products.as_chunks::<LANES>();
        let (bias, _) = run.layer.bias.as_chunks::<LANES>();
        let panels = bias.len();
        let (y, _) = y.as_chunks_mut::<LANES>();
        let pooled = run.pooling.is_some();
        let width = if pooled { run.x.shape.width / 2 } else { run.x.shape.width };
        let height = y.len() / (panels * width);
        let step = Run::<T, W>::STEP;
        let panels_in_parts = (0..panels).flat_map(|panel| (0..L::PARTS).map(move |part| (panel, part)));
        for (panel, part) in panels_in_parts {
            let bias = L::load(&bias[panel], part);
            for row in (0..piece.rows).step_by(step) {
                for column in 0..run.columns {
                    // An even number of rows, outputs as they are before pooling.
                    let mut out = [[L::splat(0.0); MAX_OUTPUTS]; MAX_OUTPUTS];
                    for i in 0..step.min(piece.rows - row) {
                        let tile = (piece.start + row + i) * run.columns + column;
                        let first = i * T::OUTPUTS;
                        let mut along_mel = [[L::splat(0.0); MAX_POINTS]; MAX_OUTPUTS];
                        for j in 0..W::PRODUCTS {
                            let mut m = [L::splat(0.0); MAX_POINTS];
                            for i in 0..T::PRODUCTS {
                                let place = i * W::PRODUCTS + j;
                                m[i] = L::load(&products[(place * panels + panel) * tiles + tile], part);
                            }
                            let values = T::inverse(m);
                            for i in 0..T::OUTPUTS {
                                along_mel[i][j] = values[i];
                            }
                        }
                        for i in 0..T::OUTPUTS {
                            let values = W::inverse(along_mel[i]);
                            for j in 0..W::OUTPUTS {
                                out[first + i][j] = run.layer.activation.of(values[j].add(bias));
                            }
                        }
                    }
                    let (top, left) = (row * T::OUTPUTS, column * W::OUTPUTS);
                    let mut put = |row: usize, column: usize, value: L| {
                        if row < height && column < width {
                            value.store(&mut y[(row * panels + panel) * width + column], part);
                        }
                    };
                    match run.pooling {
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

/// One window of 2 x 2.
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
