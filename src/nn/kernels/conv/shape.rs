//! Sizes of a convolution.

use std::ops::Range;

/// With up to this many input channels, the input is read as planes, because blocks of sixteen would be mostly zeros.
const PLANAR_CHANNELS: usize = 4;

/// Sizes of a convolution. A 1-D convolution has the length as height, and width 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    pub in_channels: usize,
    pub out_channels: usize,
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    /// Zero padding before the first row and column.
    pub padding: (usize, usize),
    /// Zero padding after the last row and column.
    pub padding_after: (usize, usize),
}

impl ConvShape {
    /// Rows and columns of the output; `None` if the input is smaller than the kernel or empty.
    pub fn output(&self, height: usize, width: usize) -> Option<(usize, usize)> {
        let axis = |length: usize, kernel: usize, stride: usize, padding: [usize; 2]| {
            (length > 0).then_some(())?;
            let padded = length.checked_add(padding[0])?.checked_add(padding[1])?;
            padded.checked_sub(kernel)?.checked_div(stride)?.checked_add(1)
        };
        let (kernel, stride, before, after) = (self.kernel, self.stride, self.padding, self.padding_after);
        Some((
            axis(height, kernel.0, stride.0, [before.0, after.0])?,
            axis(width, kernel.1, stride.1, [before.1, after.1])?,
        ))
    }

    /// Whether the input is read as planes.
    pub fn is_planar(&self) -> bool {
        self.in_channels <= PLANAR_CHANNELS
    }

    /// Whether a map with one column gives an output with one column.
    pub fn is_1d(&self) -> bool {
        self.kernel.1 == 1 && self.padding.1 == 0 && self.padding_after.1 == 0
    }

    /// The first kernel row that lies inside a map of `height`, and the rows of the map that output row `row` reads.
    pub fn rows_seen(&self, row: usize, height: usize) -> (usize, Range<usize>) {
        let top = row * self.stride.0;
        let first_tap = self.padding.0.saturating_sub(top).min(self.kernel.0);
        let end = (top + self.kernel.0).saturating_sub(self.padding.0).min(height);
        (first_tap, (top + first_tap).saturating_sub(self.padding.0).min(end)..end)
    }

    /// Whether each output position depends on a single input position.
    pub fn is_pointwise(&self) -> bool {
        let Self { kernel, stride, padding, padding_after, .. } = *self;
        (kernel, stride, padding, padding_after) == ((1, 1), (1, 1), (0, 0), (0, 0))
    }

    /// The convolution with its axes swapped.
    pub fn swapped(self) -> Self {
        let swap = |(a, b): (usize, usize)| (b, a);
        Self {
            kernel: swap(self.kernel),
            stride: swap(self.stride),
            padding: swap(self.padding),
            padding_after: swap(self.padding_after),
            ..self
        }
    }
}
