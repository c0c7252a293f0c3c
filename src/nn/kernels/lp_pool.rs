//! Power-average pooling with `stride = size`.

use rayon::prelude::*;

use crate::nn::kernels::blocked::{BlockedMap, Shape, Window};
use crate::nn::kernels::simd::dispatch;
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;
use crate::nn::kernels::workspace::Workspace;

/// Approximate number of values per task.
const TASK: usize = 1 << 15;

/// `(Σ x^power)^(1/power)` per window without padding; `power` is even. `None` if a window is empty or larger than the map.
pub fn lp_pool(x: &BlockedMap, power: u32, window: Window, workspace: &Workspace) -> Option<BlockedMap> {
    let (height, width) = window.output(x.shape.height, x.shape.width)?;
    let mut pooled = BlockedMap::unwritten(Shape { height, width, ..x.shape }, workspace)?;
    let row = pooled.shape.row();
    let rows = (TASK / row).max(1);
    pooled.values.par_chunks_mut(rows * row).enumerate().for_each(|(task, y)| {
        dispatch(
            #[inline(always)]
            || {
                for (i, y) in y.chunks_mut(row).enumerate() {
                    let (item, row) = ((task * rows + i) / height, (task * rows + i) % height);
                    let top = item * x.shape.height + row * window.size.0;
                    for (position, y) in y.as_chunks_mut::<CHANNEL_BLOCK>().0.iter_mut().enumerate() {
                        let start =
                            (position / width * x.shape.width + position % width * window.size.1) * CHANNEL_BLOCK;
                        *y = root(sum(x, top, start, power, window.size), power);
                    }
                }
            },
        );
    });
    Some(pooled)
}

/// `Σ x^power` over a window whose rows begin at row `top`, each at offset `start`.
#[inline(always)]
fn sum(x: &BlockedMap, top: usize, start: usize, power: u32, size: (usize, usize)) -> [f32; CHANNEL_BLOCK] {
    let mut sums = [0.0; CHANNEL_BLOCK];
    for row in top..top + size.0 {
        let x = &x.values[row * x.shape.row() + start..][..size.1 * CHANNEL_BLOCK];
        for x in x.as_chunks::<CHANNEL_BLOCK>().0 {
            for (sum, x) in sums.iter_mut().zip(x) {
                let square = x * x;
                *sum += match power {
                    2 => square,
                    4 => square * square,
                    _ => square.powi((power / 2) as i32),
                };
            }
        }
    }
    sums
}

#[inline(always)]
fn root(sums: [f32; CHANNEL_BLOCK], power: u32) -> [f32; CHANNEL_BLOCK] {
    sums.map(|sum| match power {
        2 => sum.sqrt(),
        4 => sum.sqrt().sqrt(),
        _ => sum.powf(1.0 / power as f32),
    })
}
