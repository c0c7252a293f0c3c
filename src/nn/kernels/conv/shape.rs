//! Sizes of a convolution.

/// Up to this many channels the input is read as planes: blocks of sixteen would be mostly zeros.
const PLANAR_CHANNELS: usize = 4;

/// Sizes of a convolution. In a 1-D one the height is the length, and the width is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    pub in_channels: usize,
    pub out_channels: usize,
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    pub padding: (usize, usize),
}

impl ConvShape {
    /// Rows and columns of the output; `None` if the input is smaller than the kernel or empty.
    pub fn output(&self, height: usize, width: usize) -> Option<(usize, usize)> {
        let axis = |length: usize, kernel: usize, stride: usize, padding: usize| {
            (length > 0).then_some(())?;
            let padded = length.checked_add(padding.checked_mul(2)?)?;
            padded.checked_sub(kernel)?.checked_div(stride)?.checked_add(1)
        };
        let (kernel, stride, padding) = (self.kernel, self.stride, self.padding);
        Some((axis(height, kernel.0, stride.0, padding.0)?, axis(width, kernel.1, stride.1, padding.1)?))
    }

    /// Whether the input is read as planes.
    pub fn is_planar(&self) -> bool {
        self.in_channels <= PLANAR_CHANNELS
    }

    /// With the axes swapped.
    pub fn swapped(self) -> Self {
        let swap = |(a, b): (usize, usize)| (b, a);
        Self { kernel: swap(self.kernel), stride: swap(self.stride), padding: swap(self.padding), ..self }
    }
}
