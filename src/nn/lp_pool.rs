//! Power-average pooling.

use candle_core::Tensor;

use super::kernels::blocked::Window;
use super::ops::pool::LpPoolOp;
use super::ops::runs_on_cpu_kernels;
use crate::error::{Context, Error, Result};

/// `(Σ x^p)^(1/p)` over windows with `stride = size` and no padding, PyTorch's `LPPool2d`: between a sum and a maximum. A
/// last row or column that fills no window is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LpPool2d {
    /// `p`, even, so that signs do not count.
    pub power: u32,
    /// Rows and columns of a window.
    pub size: (usize, usize),
}

impl LpPool2d {
    /// `x` `[batch, channels, height, width]` to `[batch, channels, height / size.0, width / size.1]`.
    ///
    /// # Errors
    /// [`Error::Config`] for an odd power or 0, [`Error::Tensor`] if a window
    /// is larger than `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.power == 0 || !self.power.is_multiple_of(2) {
            return Err(Error::config("power", self.power, "an even number above 0"));
        }
        let context = "pooling";
        let (_, _, height, width) = x.dims4().context(context)?;
        if (Window { size: self.size, padding: 0 }).output(height, width).is_none() {
            let reason = format!("expected maps of at least {:?}, got {:?}", self.size, (height, width));
            return Err(candle_core::Error::Msg(reason)).context(context);
        }
        if runs_on_cpu_kernels(x) && !x.track_op() {
            return x
                .contiguous()
                .and_then(|x| x.apply_op1_no_bwd(&LpPoolOp { power: self.power, size: self.size }))
                .context(context);
        }
        self.on_device(x).context(context)
    }

    fn on_device(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let squares = x.sqr()?;
        let powers = match self.power {
            2 => squares,
            4 => squares.sqr()?,
            power => squares.powf(f64::from(power) / 2.0)?,
        };
        let sums = (powers.avg_pool2d(self.size)? * (self.size.0 * self.size.1) as f64)?;
        match self.power {
            2 => sums.sqrt(),
            4 => sums.sqrt()?.sqrt(),
            power => sums.powf(1.0 / f64::from(power)),
        }
    }
}
