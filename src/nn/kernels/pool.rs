//! Pooling with `stride = size`.

use rayon::prelude::*;

use crate::nn::Pooling;

/// Window and padding.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    /// Rows and columns of a window.
    pub size: (usize, usize),
    /// Places added on each side of the columns; they never win a maximum. Only for [`Pooling::Max`].
    pub padding: usize,
}

impl Geometry {
    /// Rows and columns of the output, `None` if a window is empty, larger than the padded input or mostly padding.
    pub fn output(&self, height: usize, width: usize) -> Option<(usize, usize)> {
        if self.size.0 == 0 || self.size.1 == 0 || self.padding > self.size.1 / 2 {
            return None;
        }
        let columns = (width + 2 * self.padding).checked_sub(self.size.1)? / self.size.1 + 1;
        Some((height.checked_sub(self.size.0)? / self.size.0 + 1, columns))
    }
}

/// `x` is `[planes, height, width]`, `y` `[planes, height', width']` with [`Geometry::output`]'s sizes.
pub fn pool(x: &[f32], (height, width): (usize, usize), y: &mut [f32], pooling: Pooling, geometry: Geometry) {
    let Some((rows, columns)) = geometry.output(height, width) else { return };
    let (size, padding) = (geometry.size, geometry.padding);
    let planes = ((1 << 15) / (height * width).max(1)).max(1);
    let x = x.par_chunks(planes * height * width);
    y.par_chunks_mut(planes * rows * columns).zip(x).for_each(|(y, x)| {
        for (y, x) in y.chunks_mut(rows * columns).zip(x.chunks(height * width)) {
            for (row, y) in y.chunks_mut(columns).enumerate() {
                let x = &x[row * size.0 * width..][..size.0 * width];
                if pooling == Pooling::Avg && size == (2, 2) {
                    mean_2x2(x, width, y);
                } else {
                    pool_row(x, width, y, pooling, (size, padding));
                }
            }
        }
    });
}

/// One output row of the common case.
fn mean_2x2(x: &[f32], width: usize, y: &mut [f32]) {
    let (upper, lower) = x.split_at(width);
    for ((y, upper), lower) in y.iter_mut().zip(upper.chunks_exact(2)).zip(lower.chunks_exact(2)) {
        *y = (upper[0] + upper[1] + lower[0] + lower[1]) * 0.25;
    }
}

/// One output row from the input rows that it covers.
fn pool_row(x: &[f32], width: usize, y: &mut [f32], pooling: Pooling, (size, padding): ((usize, usize), usize)) {
    for (column, y) in y.iter_mut().enumerate() {
        let start = (column * size.1).saturating_sub(padding);
        let end = (column * size.1 + size.1 - padding).min(width);
        let (mut sum, mut max) = (0.0, f32::NEG_INFINITY);
        for row in x.chunks(width) {
            for &value in &row[start..end] {
                sum += value;
                max = if value > max || value.is_nan() { value } else { max };
            }
        }
        let mean = sum / (size.0 * size.1) as f32;
        *y = match pooling {
            Pooling::Avg => mean,
            Pooling::Max => max,
            Pooling::AvgMax => mean + max,
        };
    }
}
