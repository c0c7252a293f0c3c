//! Power-average pooling as a candle operation.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape};

use super::wrong_shape;
use crate::nn::kernels::lp_pool;
use crate::tensor::contiguous;

/// Power-average pooling over the last two dimensions.
#[derive(Debug)]
pub struct LpPoolOp {
    pub power: u32,
    pub size: (usize, usize),
}

impl CustomOp1 for LpPoolOp {
    fn name(&self) -> &'static str {
        "lp-pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        let &[batch, channels, height, width] = layout.dims() else { return Err(wrong_shape(layout)) };
        let Self { power, size } = *self;
        let output = height.checked_div(size.0).zip(width.checked_div(size.1));
        let output = output.filter(|&(rows, columns)| !x.is_empty() && rows > 0 && columns > 0);
        let Some((rows, columns)) = output else { return Err(wrong_shape(layout)) };
        let mut y = vec![0.0; batch * channels * rows * columns];
        lp_pool::lp_pool(x, (height, width), &mut y, power, size);
        Ok((CpuStorage::F32(y), (batch, channels, rows, columns).into()))
    }
}
