//! Pooling over non-overlapping windows.

use candle_core::Tensor;

use super::kernels::blocked::Window;
use super::kernels::pooling::Pooling;
use super::kernels::simd::isa::Isa;
use super::kernels::workspace::Workspace;
use super::map::{FeatureMap, Values};
use super::ops::train;
use crate::error::{Context, Result};

/// 2-D pooling with `stride = size` and no padding. An incomplete last row or column of windows is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool2d {
    /// The reduction of a window to one value.
    pub pooling: Pooling,
    /// Rows and columns of a window.
    pub size: (usize, usize),
}

impl Pool2d {
    /// Pools `x` `[batch, channels, height, width]` to `[batch, channels, height / size.0, width / size.1]`.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if a window is larger than `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let context = "computing a pooling";
        let x = FeatureMap::new(x.clone(), &Workspace::shared()).context(context)?;
        Pool::from(*self).forward(&x).and_then(|y| y.to_tensor()).context(context)
    }
}

/// 1-D max pooling with `stride = size`, padded with minus infinity, as PyTorch's `max_pool1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool1d {
    /// Length of a window.
    pub size: usize,
    /// Padding on each side; at most `size / 2`.
    pub padding: usize,
}

impl Pool1d {
    /// Pools `x` `[batch, channels, length]` to `[batch, channels, (length + 2 · padding − size) / size + 1]`.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if a window is larger than the padded `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let context = "computing a pooling";
        let x = FeatureMap::from_sequence(x, &Workspace::shared()).context(context)?;
        Pool::from(*self).forward(&x).and_then(|y| y.to_sequence()).context(context)
    }
}

/// A pooling layer in a [`ConvStack`](super::ConvStack): a [`Pool2d`] or a [`Pool1d`].
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    pub(super) pooling: Pooling,
    pub(super) window: Window,
}

impl From<Pool2d> for Pool {
    fn from(Pool2d { pooling, size }: Pool2d) -> Self {
        Self { pooling, window: Window { size, padding: 0 } }
    }
}

impl From<Pool1d> for Pool {
    fn from(Pool1d { size, padding }: Pool1d) -> Self {
        Self { pooling: Pooling::Max, window: Window { size: (size, 1), padding } }
    }
}

impl Pool {
    pub(super) fn forward(self, x: &FeatureMap) -> candle_core::Result<FeatureMap> {
        let Self { pooling, window } = self;
        let shape_error = |height: usize, width: usize| {
            candle_core::Error::Msg(format!("{window:?} does not fit maps of {height} rows and {width} columns"))
        };
        let blocks;
        let x = match &x.values {
            Values::Blocks(_) => x,
            Values::Tensor(_) => {
                blocks = x.clone().into_blocks()?;
                &blocks
            }
        };
        let y = match &x.values {
            Values::Blocks(map) => {
                let pooled = map.pool(pooling, window, Isa::best(), &x.workspace);
                Values::Blocks(pooled.ok_or_else(|| shape_error(map.shape.height, map.shape.width))?)
            }
            Values::Tensor(x) => {
                let (_, _, height, width) = x.dims4()?;
                if x.elem_count() == 0 || window.output(height, width).is_none() {
                    return Err(shape_error(height, width));
                }
                Values::Tensor(if x.track_op() { train::pool(x, pooling, window)? } else { self.on_device(x)? })
            }
        };
        Ok(x.with(y))
    }

    fn on_device(self, x: &Tensor) -> candle_core::Result<Tensor> {
        let Window { size, padding } = self.window;
        // A repeated edge value is in the same window as the edge itself, so it does not change the maximum.
        let x = x.pad_with_same(2, padding, padding)?;
        match self.pooling {
            Pooling::Avg => x.avg_pool2d(size),
            Pooling::Max => x.max_pool2d(size),
            Pooling::AvgMax => x.avg_pool2d(size)? + x.max_pool2d(size)?,
        }
    }
}
