//! The input transform: the first step of a Winograd convolution.

use super::axis::{Axis, MAX_POINTS};
use crate::nn::kernels::blocked::Shape;
use crate::nn::kernels::conv::winograd::{Pass, TileRows};
use crate::nn::kernels::simd::isa::SimdOp;
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, Lanes};

/// Transforms some rows of tiles for one channel block.
pub struct InputTransform<'a, T, W> {
    pub pass: &'a Pass<'a, T, W>,
    pub tile_rows: &'a [TileRows],
    pub block: usize,
    pub tiles: usize,
    pub y: &'a mut [f32], // [position][tile][16]
}

impl<T: Axis + Sync, W: Axis + Sync> SimdOp for InputTransform<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { pass, tile_rows, block, tiles, y } = self;
        let Shape { height, width, .. } = pass.x.shape;
        let (y, _) = y.as_chunks_mut::<CHANNEL_BLOCK>();
        let zeros = vec![0.0; width * CHANNEL_BLOCK];
        // Transformed along time: [T::PRODUCTS][padded columns][16].
        let padded = pass.columns * W::OUTPUTS + W::INPUTS - W::OUTPUTS;
        let mut along_time = vec![[0.0; CHANNEL_BLOCK]; T::PRODUCTS * padded];
        let row_of = |item: usize, row: Option<usize>| match row {
            Some(row) if row < height => {
                let start = (item * height + row) * pass.x.shape.row() + block * width * CHANNEL_BLOCK;
                &pass.x.values[start..start + width * CHANNEL_BLOCK]
            }
            _ => &zeros,
        };
        for rows in tile_rows {
            for row in 0..rows.count + pass.taps - 1 {
                // Inputs before the first output: those of the tile, or of the taps that the matrix product sums.
                let first = (rows.first + row) * T::OUTPUTS;
                let before = T::BEFORE + pass.taps / 2;
                let mut inputs = [&zeros[..]; MAX_POINTS];
                for i in 0..T::INPUTS {
                    inputs[i] = row_of(rows.item, (first + i).checked_sub(before));
                }
                let inputs = inputs.map(|row| row.as_chunks::<CHANNEL_BLOCK>().0);
                for (column, part) in (0..width).flat_map(|column| (0..L::PARTS).map(move |part| (column, part))) {
                    let mut x = [L::splat(0.0); MAX_POINTS];
                    for i in 0..T::INPUTS {
                        x[i] = L::load(&inputs[i][column], part);
                    }
                    let values = T::forward(x);
                    for i in 0..T::PRODUCTS {
                        values[i].store(&mut along_time[i * padded + column + W::BEFORE], part);
                    }
                }
                let start = (rows.start + row) * pass.columns;
                let positions = (0..pass.columns).flat_map(|column| (0..T::PRODUCTS).map(move |i| (column, i)));
                for (column, i) in positions {
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
