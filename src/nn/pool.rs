//! Pooling over non-overlapping windows.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::has_kernels;
use super::kernels::ops::PoolOp;
use super::kernels::pool::Geometry;
use crate::Result;
use crate::error::Context;

/// How a window becomes one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// Mean.
    #[serde(rename = "avg")]
    Avg,
    /// Largest value.
    #[serde(rename = "max")]
    Max,
    /// Mean plus largest value.
    #[serde(rename = "avg+max")]
    AvgMax,
}

/// 2-D pooling with `stride = size` and no padding: a last row or column that fills no window is dropped.
#[derive(Debug, Clone, Copy)]
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
        if self.size == (1, 1) && self.pooling != Pooling::AvgMax {
            return Ok(x.clone());
        }
        let context = "pooling";
        if has_kernels(x) {
            let geometry = Geometry { size: self.size, padding: 0 };
            let op = PoolOp { pooling: self.pooling, geometry };
            return x.contiguous().and_then(|x| x.apply_op1_no_bwd(&op)).context(context);
        }
        match self.pooling {
            Pooling::Avg => x.avg_pool2d(self.size),
            Pooling::Max => x.max_pool2d(self.size),
            Pooling::AvgMax => x.avg_pool2d(self.size).and_then(|mean| mean + x.max_pool2d(self.size)?),
        }
        .context(context)
    }
}

/// 1-D maximum with `stride = size` and padding that never wins (minus infinity), as PyTorch's `max_pool1d`.
#[derive(Debug, Clone, Copy)]
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
        let context = "pooling";
        let x = x.unsqueeze(2).context(context)?; // [batch, channels, 1, length]
        let y = if has_kernels(&x) {
            let geometry = Geometry { size: (1, self.size), padding: self.padding };
            let op = PoolOp { pooling: Pooling::Max, geometry };
            x.contiguous().and_then(|x| x.apply_op1_no_bwd(&op))
        } else {
            // A repeated edge value stands in the same window as the edge itself, so it never changes the maximum.
            x.pad_with_same(3, self.padding, self.padding).and_then(|x| x.max_pool2d((1, self.size)))
        };
        y.and_then(|y| y.squeeze(2)).context(context)
    }
}
