//! Pooling over non-overlapping windows.

use candle_core::Tensor;

use super::kernels::blocked::Window;
use super::kernels::pooling::Pooling;
use super::kernels::simd::isa::Isa;
use super::kernels::workspace::Workspace;
use super::map::{FeatureMap, Values};
use super::ops::train;
use crate::error::{Context, Result};

/// 2-D pooling with `stride = size` and no padding: a last row or column that fills no window is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool2d {
    /// How.
    pub pooling: Pooling,
    /// Rows and columns of a window.
    pub size: (usize, usize),
}

impl Pool2d {
    /// `x` `[batch, channels, height, width]` to `[batch, channels, height / size.0, width / size.1]`.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if a window is larger than `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Pool::from(*self).forward(FeatureMap::new(x, &Workspace::default())?)?.to_tensor()
    }
}

/// 1-D maximum with `stride = size` and padding that never wins (minus infinity), as PyTorch's `max_pool1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool1d {
    /// Length of a window.
    pub size: usize,
    /// Places added on each side; at most `size / 2`.
    pub padding: usize,
}

impl Pool1d {
    /// `x` `[batch, channels, length]` to `[batch, channels, (length + 2 · padding − size) / size + 1]`.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if a window is larger than the padded `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.dims3().context("pooling")?;
        Pool::from(*self).forward(FeatureMap::new(x, &Workspace::default())?)?.to_sequence()
    }
}

/// Either of them on feature maps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pool {
    pub pooling: Pooling,
    pub window: Window,
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
    pub fn forward(self, x: FeatureMap) -> Result<FeatureMap> {
        let context = "pooling";
        let Self { pooling, window } = self;
        let x = x.into_blocks()?;
        let refuse = |shape: &[usize]| candle_core::Error::Msg(format!("{window:?} does not fit maps of {shape:?}"));
        if let Values::Blocks(map) = &x.values {
            let pooled = map.pool(pooling, window, Isa::best(), &x.workspace);
            let refuse = || refuse(&[map.shape.height, map.shape.width]);
            return Ok(FeatureMap::with(x.workspace.clone(), pooled.ok_or_else(refuse).context(context)?));
        }
        let tensor = x.to_tensor()?;
        let (_, _, height, width) = tensor.dims4().context(context)?;
        if tensor.elem_count() == 0 || window.output(height, width).is_none() {
            return Err(refuse(&[height, width])).context(context);
        }
        // A repeated edge value stands in the same window as the edge itself, so it never changes the maximum.
        if tensor.track_op() {
            return FeatureMap::new(&train::pool(&tensor, pooling, window).context(context)?, &x.workspace);
        }
        let y = tensor.pad_with_same(2, window.padding, window.padding).and_then(|y| match pooling {
            Pooling::Avg => y.avg_pool2d(window.size),
            Pooling::Max => y.max_pool2d(window.size),
            Pooling::AvgMax => y.avg_pool2d(window.size).and_then(|mean| mean + y.max_pool2d(window.size)?),
        });
        FeatureMap::new(&y.context(context)?, &x.workspace)
    }
}
