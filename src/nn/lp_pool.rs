//! Power-average pooling.

use candle_core::Tensor;

use super::kernels::blocked::Window;
use super::kernels::lp_pool::lp_pool;
use super::kernels::workspace::Workspace;
use super::map::{FeatureMap, Values};
use crate::error::{Context, Error, Result};

/// Power-average pooling, `(Σ x^p)^(1/p)` over windows with `stride = size` and no padding, as PyTorch's `LPPool2d`. It
/// lies between a sum and a maximum. An incomplete last row or column of windows is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LpPool2d {
    /// `p`; even, so that signs have no effect.
    pub power: u32,
    /// Rows and columns of a window.
    pub size: (usize, usize),
}

impl LpPool2d {
    /// Pools `x` `[batch, channels, height, width]` to `[batch, channels, height / size.0, width / size.1]`.
    ///
    /// # Errors
    /// [`Error::Config`] if the power is odd or 0, [`Error::Tensor`] if the window is larger than `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let context = "computing a power-average pooling";
        let x = FeatureMap::new(x.clone(), &Workspace::shared()).context(context)?;
        self.forward_map(x).context(context)?.to_tensor().context(context)
    }

    pub(super) fn forward_map(&self, x: FeatureMap) -> Result<FeatureMap> {
        if self.power == 0 || !self.power.is_multiple_of(2) {
            return Err(Error::config("power", self.power, "expected an even number above 0"));
        }
        let window = Window { size: self.size, padding: 0 };
        let shape_error = |height: usize, width: usize| {
            candle_core::Error::Msg(format!("expected maps of at least {:?}, got {:?}", self.size, (height, width)))
        };
        let x = x.into_blocks()?;
        let y = match &x.values {
            Values::Blocks(map) => {
                let pooled = lp_pool(map, self.power, window, &x.workspace);
                Values::Blocks(pooled.ok_or_else(|| shape_error(map.shape.height, map.shape.width))?)
            }
            Values::Tensor(x) => {
                let (_, _, height, width) = x.dims4()?;
                window.output(height, width).ok_or_else(|| shape_error(height, width))?;
                Values::Tensor(self.on_device(x)?)
            }
        };
        Ok(x.with(y))
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
