//! Power-average pooling with `stride = size`.

use rayon::prelude::*;

use crate::nn::kernels::simd::dispatch;

/// `y = (Σ x^power)^(1/power)` per window; `power` is even. `x` is `[planes, height, width]`, `y` `[planes, height / size.0,
/// width / size.1]`; neither is empty.
pub fn lp_pool(x: &[f32], (height, width): (usize, usize), y: &mut [f32], power: u32, size: (usize, usize)) {
    let (rows, columns) = (height / size.0, width / size.1);
    let planes = ((1 << 15) / (height * width)).max(1);
    let tasks = y.par_chunks_mut(planes * rows * columns).zip(x.par_chunks(planes * height * width));
    tasks.for_each(|(y, x)| {
        dispatch(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_mut(rows * columns).zip(x.chunks(height * width)) {
                    for (y, x) in y.chunks_mut(columns).zip(x.chunks(size.0 * width)) {
                        pool_rows(x, width, y, power, size.1);
                    }
                }
            },
        );
    });
}

/// One output row from the input rows that it covers.
#[inline(always)]
fn pool_rows(x: &[f32], width: usize, y: &mut [f32], power: u32, size: usize) {
    y.fill(0.0);
    for x in x.chunks(width) {
        for (y, x) in y.iter_mut().zip(x.chunks_exact(size)) {
            for &x in x {
                let square = x * x;
                *y += match power {
                    2 => square,
                    4 => square * square,
                    _ => square.powi((power / 2) as i32),
                };
            }
        }
    }
    for y in y {
        *y = match power {
            2 => y.sqrt(),
            4 => y.sqrt().sqrt(),
            _ => y.powf(1.0 / power as f32),
        };
    }
}
