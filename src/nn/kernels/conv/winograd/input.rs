//! The first step of a Winograd convolution: tiles of the input to values to multiply.

use super::axis::{Axis, MAX_POINTS};
use crate::nn::kernels::blocked::Shape;
use crate::nn::kernels::conv::winograd::{Pass, TileRows};
use crate::nn::kernels::simd::isa::SimdOp;
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, Lanes};

/// The first step, for one block of channels.
pub struct InputTransform<'a, T, W> {
    pub run: &'a Pass<'a, T, W>,
    pub pieces: &'a [TileRows],
    pub block: usize,
    pub tiles: usize,
    pub y: &'a mut [f32], // [place][tile][16]
}

impl<T: Axis + Sync, W: Axis + Sync> SimdOp for InputTransform<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { run, pieces, block, tiles, y } = self;
        let Shape { height, width, .. } = run.x.shape;
        let (y, _) = y.as_chunks_mut::<CHANNEL_BLOCK>();
        let zeros = vec![0.0; width * CHANNEL_BLOCK];
        // Transformed along time: [T::PRODUCTS][columns with their padding][16].
        let padded = run.columns * W::OUTPUTS + W::INPUTS - W::OUTPUTS;
        let mut along_time = vec![[0.0; CHANNEL_BLOCK]; T::PRODUCTS * padded];
        let row_of = |item: usize, row: Option<usize>| match row {
            Some(row) if row < height => {
                let start = (item * height + row) * run.x.shape.row() + block * width * CHANNEL_BLOCK;
                &run.x.values[start..start + width * CHANNEL_BLOCK]
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
                let rows = rows.map(|row| row.as_chunks::<CHANNEL_BLOCK>().0);
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
