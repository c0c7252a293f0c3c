//! A convolution and its gradients for training: one product of filters and patches per clip, with clips in parallel.

use std::ops::Range;

use rayon::prelude::*;

use crate::nn::kernels::blocked::Shape;
use crate::nn::kernels::conv::shape::ConvShape;
use crate::nn::kernels::matmul::strided::{MatrixView, strided_matmul};
use crate::nn::kernels::workspace::count;

/// Groups of clips whose filter gradients are summed separately. A fixed number, so that results do not depend on
/// threads.
const GROUPS: usize = 8;

/// A convolution of maps of one size.
#[derive(Debug, Clone, Copy)]
pub struct Patches {
    conv_shape: ConvShape,
    x: Shape,
    /// Rows and columns of the output.
    y: (usize, usize),
}

impl Patches {
    /// `None` if the input's shape does not fit, or if the output or the patches exceed the address space.
    pub fn new(conv_shape: ConvShape, x: Shape) -> Option<Self> {
        let (rows, columns) = conv_shape.output(x.height, x.width).filter(|_| x.channels == conv_shape.in_channels)?;
        count(&[x.batch, conv_shape.out_channels, rows, columns])?;
        count(&[conv_shape.in_channels, conv_shape.kernel.0, conv_shape.kernel.1, rows, columns])?;
        let patches = Self { conv_shape, x, y: (rows, columns) };
        // One column has the memory layout of one row, and the loops are written for rows.
        let lies = x.width == 1 && conv_shape.is_1d();
        Some(if lies {
            let x = Shape { height: 1, width: x.height, ..x };
            Self { conv_shape: conv_shape.swapped(), x, y: (columns, rows) }
        } else {
            patches
        })
    }

    /// Output positions.
    pub fn positions(&self) -> usize {
        self.y.0 * self.y.1
    }

    /// Values per patch.
    fn taps(&self) -> usize {
        self.conv_shape.in_channels * self.conv_shape.kernel.0 * self.conv_shape.kernel.1
    }

    /// Values per clip.
    fn clip(&self) -> usize {
        self.x.channels * self.x.height * self.x.width
    }

    /// Convolves `x` `[batch, in, height, width]` with `filters` `[out, in, rows, columns]`.
    pub fn forward(&self, x: &[f32], filters: &[f32]) -> Vec<f32> {
        let (outputs, taps, positions) = (self.conv_shape.out_channels, self.taps(), self.positions());
        let mut y = vec![0.0; self.x.batch * outputs * positions];
        let clips = y.par_chunks_mut(outputs * positions).zip(x.par_chunks(self.clip()));
        clips.for_each_init(Vec::new, |patches, (y, x)| {
            self.gather(x, patches);
            let patches = MatrixView::rows(patches, taps, positions, positions);
            strided_matmul(MatrixView::rows(filters, outputs, taps, taps), patches, y, positions);
        });
        y
    }

    /// The gradient of `x`, given that of the output.
    pub fn gradient_of_input(&self, filters: &[f32], grad_output: &[f32]) -> Vec<f32> {
        let (outputs, taps, positions) = (self.conv_shape.out_channels, self.taps(), self.positions());
        let mut gradient = vec![0.0; self.x.batch * self.clip()];
        let clips = gradient.par_chunks_mut(self.clip()).zip(grad_output.par_chunks(outputs * positions));
        clips.for_each_init(
            || vec![0.0; taps * positions],
            |patches, (x, y)| {
                let filters = MatrixView::rows(filters, outputs, taps, taps).transposed();
                strided_matmul(filters, MatrixView::rows(y, outputs, positions, positions), patches, positions);
                self.scatter(patches, x);
            },
        );
        gradient
    }

    /// The gradient of the filters, given that of the output.
    pub fn gradient_of_filters(&self, x: &[f32], grad_output: &[f32]) -> Vec<f32> {
        let (outputs, taps, positions) = (self.conv_shape.out_channels, self.taps(), self.positions());
        let at_once = self.x.batch.div_ceil(GROUPS).max(1);
        let groups = x.par_chunks(at_once * self.clip()).zip(grad_output.par_chunks(at_once * outputs * positions));
        let sums: Vec<Vec<f32>> = groups
            .map(|(x, y)| {
                let (mut sum, mut one, mut patches) =
                    (vec![0.0; outputs * taps], vec![0.0; outputs * taps], Vec::new());
                for (x, y) in x.chunks(self.clip()).zip(y.chunks(outputs * positions)) {
                    self.gather(x, &mut patches);
                    let patches = MatrixView::rows(&patches, taps, positions, positions).transposed();
                    strided_matmul(MatrixView::rows(y, outputs, positions, positions), patches, &mut one, taps);
                    sum.iter_mut().zip(&one).for_each(|(sum, x)| *sum += x);
                }
                sum
            })
            .collect();
        let mut gradient = vec![0.0; outputs * taps];
        for sum in sums {
            gradient.iter_mut().zip(sum).for_each(|(gradient, x)| *gradient += x);
        }
        gradient
    }

    /// Gathers the patches of a clip, `[taps, positions]`; padding is zero.
    fn gather(&self, x: &[f32], patches: &mut Vec<f32>) {
        patches.clear();
        patches.resize(self.taps() * self.positions(), 0.0);
        let step = self.conv_shape.stride.1;
        self.for_each_row(|positions, values| {
            let x = x[values.start..].iter().step_by(step);
            patches[positions].iter_mut().zip(x).for_each(|(patch, x)| *patch = *x);
        });
    }

    /// Adds each value of the patches to the position it came from.
    fn scatter(&self, patches: &[f32], x: &mut [f32]) {
        let step = self.conv_shape.stride.1;
        self.for_each_row(|positions, values| {
            let x = x[values.start..].iter_mut().step_by(step);
            x.zip(&patches[positions]).for_each(|(x, patch)| *x += patch);
        });
    }

    /// Calls `f` for each tap and each output row with the positions of the row that lie on the map, and the range of
    /// values there, of which every `stride.1`-th is read.
    fn for_each_row(&self, mut f: impl FnMut(Range<usize>, Range<usize>)) {
        let ConvShape { in_channels, kernel, stride, padding, .. } = self.conv_shape;
        let Shape { height, width, .. } = self.x;
        let (rows, columns) = self.y;
        for tap in 0..in_channels * kernel.0 * kernel.1 {
            let (channel, i, j) = (tap / (kernel.0 * kernel.1), tap / kernel.1 % kernel.0, tap % kernel.1);
            // Output columns whose input for this tap is on the map.
            let first = padding.1.saturating_sub(j).div_ceil(stride.1);
            let end = (width + padding.1).saturating_sub(j).div_ceil(stride.1).min(columns);
            if first >= end {
                continue;
            }
            for row in 0..rows {
                let Some(y) = (row * stride.0 + i).checked_sub(padding.0).filter(|&y| y < height) else { continue };
                let position = (tap * rows + row) * columns;
                let start = (channel * height + y) * width + first * stride.1 + j - padding.1;
                let length = (end - first - 1) * stride.1 + 1;
                f(position + first..position + end, start..start + length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + seed) * 7919 + 13) % 1009) as f32 / 500.0 - 1.0).collect()
    }

    /// The sum of `y · g` by definition; linear in the input, the filters and `g`, so that all three results follow from it.
    fn weighted_sum(conv_shape: ConvShape, shape: Shape, x: &[f32], filters: &[f32], g: &[f32]) -> f64 {
        let ConvShape { in_channels, out_channels, kernel, stride, padding, .. } = conv_shape;
        let (rows, columns) = conv_shape.output(shape.height, shape.width).unwrap();
        let mut sum = 0.0;
        for item in 0..shape.batch {
            for (output, row, column) in
                (0..out_channels).flat_map(|o| (0..rows).flat_map(move |r| (0..columns).map(move |c| (o, r, c))))
            {
                let g = g[((item * out_channels + output) * rows + row) * columns + column];
                for tap in 0..in_channels * kernel.0 * kernel.1 {
                    let (input, i, j) = (tap / (kernel.0 * kernel.1), tap / kernel.1 % kernel.0, tap % kernel.1);
                    let y = (row * stride.0 + i).wrapping_sub(padding.0);
                    let z = (column * stride.1 + j).wrapping_sub(padding.1);
                    if y < shape.height && z < shape.width {
                        let x = x[((item * in_channels + input) * shape.height + y) * shape.width + z];
                        let filter = filters[output * in_channels * kernel.0 * kernel.1 + tap];
                        sum += f64::from(x) * f64::from(filter) * f64::from(g);
                    }
                }
            }
        }
        sum
    }

    #[test]
    fn a_convolution_and_its_gradients_agree_with_the_definition() {
        let conv_shape = |kernel, stride, padding| ConvShape {
            in_channels: 3,
            out_channels: 2,
            kernel,
            stride,
            padding,
            padding_after: padding,
        };
        let uneven = |conv_shape, padding_after| ConvShape { padding_after, ..conv_shape };
        let shape = |height, width| Shape { batch: 10, channels: 3, height, width };
        let narrow = (0..400usize).map(|i| {
            // Every kernel, stride and padding up to 3 on maps of 1 to 4 columns; not all fit.
            let pick = |of: usize, n: usize| i / of % n;
            let kernel = (1 + pick(1, 3), 1 + pick(3, 3));
            let padding = (pick(5, 3), pick(7, 4));
            let stride = (1 + pick(11, 3), 1 + pick(2, 3));
            (conv_shape(kernel, stride, padding), shape(1 + pick(13, 4), 1 + pick(9, 4)))
        });
        let fits = |(conv_shape, shape): &(ConvShape, Shape)| conv_shape.output(shape.height, shape.width).is_some();
        for (conv_shape, shape) in narrow.filter(fits).chain([
            (conv_shape((3, 3), (1, 1), (1, 1)), shape(5, 4)),
            (conv_shape((3, 3), (2, 2), (1, 1)), shape(6, 7)),
            (conv_shape((3, 1), (1, 1), (1, 0)), shape(9, 1)),
            (conv_shape((8, 1), (4, 1), (2, 0)), shape(23, 1)),
            (conv_shape((8, 1), (4, 1), (0, 0)), shape(8, 1)),
            (conv_shape((1, 1), (1, 1), (0, 0)), shape(1, 1)),
            (conv_shape((5, 5), (1, 1), (2, 2)), shape(2, 1)),
            (uneven(conv_shape((3, 3), (2, 2), (0, 0)), (1, 1)), shape(6, 4)),
            (uneven(conv_shape((4, 1), (2, 1), (2, 0)), (0, 3)), shape(7, 1)),
        ]) {
            let patches = Patches::new(conv_shape, shape).unwrap();
            let x = values(shape.batch * patches.clip(), 1);
            let filters = values(2 * patches.taps(), 2);
            let g = values(shape.batch * 2 * patches.positions(), 3);
            let expected = weighted_sum(conv_shape, shape, &x, &filters, &g);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
            for (what, got) in [
                ("output", dot(&patches.forward(&x, &filters), &g)),
                ("input", dot(&patches.gradient_of_input(&filters, &g), &x)),
                ("filters", dot(&patches.gradient_of_filters(&x, &g), &filters)),
            ] {
                assert!((got - expected).abs() < 1e-3, "{what} of {conv_shape:?} on {shape:?}: {got} for {expected}");
            }
            // Each value of the gradients, from a single nonzero value of `x` or of the filters.
            let grad_x = patches.gradient_of_input(&filters, &g);
            let grad_filters = patches.gradient_of_filters(&x, &g);
            let one = |n: usize, i: usize| (0..n).map(|j| f32::from(u8::from(i == j))).collect::<Vec<_>>();
            for i in (0..x.len()).step_by(7) {
                let expected = weighted_sum(conv_shape, shape, &one(x.len(), i), &filters, &g);
                assert!((f64::from(grad_x[i]) - expected).abs() < 1e-4, "input {i} of {conv_shape:?}");
            }
            for i in 0..filters.len() {
                let expected = weighted_sum(conv_shape, shape, &x, &one(filters.len(), i), &g);
                assert!((f64::from(grad_filters[i]) - expected).abs() < 1e-3, "filter {i} of {conv_shape:?}");
            }
        }
        assert!(Patches::new(conv_shape((8, 1), (4, 1), (0, 0)), shape(7, 1)).is_none());
        for padding in [usize::MAX, usize::MAX / 2, usize::MAX / 4, usize::MAX / 16] {
            assert!(Patches::new(conv_shape((1, 1), (1, 1), (padding, 0)), shape(7, 1)).is_none(), "{padding}");
            assert!(Patches::new(conv_shape((1, 1), (1, 1), (0, padding)), shape(7, 1)).is_none(), "{padding}");
        }
    }
}
