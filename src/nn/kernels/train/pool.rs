//! Pooling of planes and its gradient, for training.

use std::ops::Range;

use rayon::prelude::*;

use crate::nn::kernels::blocked::Window;
use crate::nn::kernels::pooling::Pooling;

/// Pooling of planes of one size.
#[derive(Debug, Clone, Copy)]
pub struct Planes {
    pub size: (usize, usize),
    pub pooled: (usize, usize),
    pub pooling: Pooling,
    pub window: Window,
}

impl Planes {
    /// `None` if the window does not fit.
    pub fn new(size: (usize, usize), pooling: Pooling, window: Window) -> Option<Self> {
        Some(Self { size, pooled: window.output(size.0, size.1)?, pooling, window })
    }

    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let (plane, pooled) = (self.size.0 * self.size.1, self.pooled.0 * self.pooled.1);
        let mut y = vec![0.0; x.len() / plane * pooled];
        y.par_chunks_mut(pooled).zip(x.par_chunks(plane)).for_each(|(y, x)| {
            for (position, y) in y.iter_mut().enumerate() {
                let (_, max, mean) = self.max_and_mean(x, position);
                *y = match self.pooling {
                    Pooling::Max => max,
                    Pooling::Avg => mean,
                    Pooling::AvgMax => max + mean,
                };
            }
        });
        y
    }

    /// The gradient of `x`. If several values are the maximum, as in silence, the first one gets it, as in PyTorch.
    pub fn gradient(&self, x: &[f32], grad_output: &[f32]) -> Vec<f32> {
        let (plane, pooled) = (self.size.0 * self.size.1, self.pooled.0 * self.pooled.1);
        let share = 1.0 / self.window.positions();
        let mut gradient = vec![0.0; x.len()];
        let planes = gradient.par_chunks_mut(plane).zip(x.par_chunks(plane)).zip(grad_output.par_chunks(pooled));
        planes.for_each(|((gradient, x), grad_output)| {
            for (position, &g) in grad_output.iter().enumerate() {
                if self.pooling != Pooling::Avg {
                    gradient[self.max_and_mean(x, position).0] += g;
                }
                if self.pooling != Pooling::Max {
                    let (rows, columns) = self.inside(position);
                    for row in rows {
                        let row = &mut gradient[row * self.size.1..][columns.clone()];
                        row.iter_mut().for_each(|value| *value += g * share);
                    }
                }
            }
        });
        gradient
    }

    /// The index and value of a window's maximum, and the window's mean.
    fn max_and_mean(&self, x: &[f32], position: usize) -> (usize, f32, f32) {
        let (rows, columns) = self.inside(position);
        let mut first = rows.start * self.size.1 + columns.start;
        let (mut max, mut sum) = (x[first], 0.0);
        for row in rows {
            for at in row * self.size.1 + columns.start..row * self.size.1 + columns.end {
                sum += x[at];
                if x[at] > max || x[at].is_nan() {
                    (first, max) = (at, x[at]);
                }
            }
        }
        (first, max, sum / self.window.positions())
    }

    /// The rows and columns of a window that lie inside the plane, at least one of each.
    fn inside(&self, position: usize) -> (Range<usize>, Range<usize>) {
        let Window { size, padding } = self.window;
        let (row, column) = (position / self.pooled.1, position % self.pooled.1);
        let rows = (row * size.0).saturating_sub(padding)..(row * size.0 + size.0 - padding).min(self.size.0);
        (rows, column * size.1..(column + 1) * size.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_of_narrow_planes_and_its_gradient_equal_their_definition() {
        for (height, width, rows, columns, padding) in
            (0..6 * 4 * 4 * 4 * 3).map(|i: usize| (1 + i % 6, 1 + i / 6 % 4, 1 + i / 24 % 4, 1 + i / 96 % 4, i / 384))
        {
            let window = Window { size: (rows, columns), padding };
            let n = 2 * height * width;
            let x: Vec<f32> = (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 500.0 - 1.0).collect();
            for pooling in [Pooling::Avg, Pooling::Max, Pooling::AvgMax] {
                let Some(planes) = Planes::new((height, width), pooling, window) else {
                    let padded = height + 2 * padding;
                    assert!(padded < rows || width < columns || 2 * padding > rows, "{height} x {width} {window:?}");
                    continue;
                };
                let pooled = ((height + 2 * padding) / rows, width / columns);
                let positions = pooled.0 * pooled.1;
                let grad_output: Vec<f32> = (0..2 * positions).map(|i| 1.0 + i as f32 / 8.0).collect();
                let (mut y, mut gradient) = (Vec::new(), vec![0.0f32; n]);
                for position in 0..2 * positions {
                    let (plane, row, column) =
                        (position / positions, position / pooled.1 % pooled.0 * rows, position % pooled.1 * columns);
                    let inside = (row..row + rows).filter(|row| (padding..height + padding).contains(row));
                    let at = |row: usize, column: usize| (plane * height + row - padding) * width + column;
                    let window: Vec<usize> =
                        inside.flat_map(|row| (column..column + columns).map(move |column| at(row, column))).collect();
                    let mean = window.iter().map(|&at| x[at]).sum::<f32>() / (rows * columns) as f32;
                    let first = window.iter().copied().reduce(|a, b| if x[b] > x[a] { b } else { a }).unwrap();
                    y.push(match pooling {
                        Pooling::Avg => mean,
                        Pooling::Max => x[first],
                        Pooling::AvgMax => x[first] + mean,
                    });
                    if pooling != Pooling::Avg {
                        gradient[first] += grad_output[position];
                    }
                    if pooling != Pooling::Max {
                        let share = grad_output[position] / (rows * columns) as f32;
                        window.iter().for_each(|&at| gradient[at] += share);
                    }
                }
                let close =
                    |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(close(&planes.forward(&x), &y), "{pooling:?} {window:?} of {height} x {width}");
                assert!(
                    close(&planes.gradient(&x, &grad_output), &gradient),
                    "{pooling:?} {window:?} of {height} x {width}"
                );
            }
        }
    }
}
