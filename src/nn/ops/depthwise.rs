//! The depthwise convolution as a candle operation.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape};

use super::wrong_shape;
use crate::nn::kernels::depthwise::Depthwise;
use crate::nn::kernels::simd::isa::Isa;
use crate::tensor::contiguous;

/// A depthwise convolution of `[batch, n_frames, channels]`.
#[derive(Debug)]
pub struct DepthwiseOp(pub Depthwise);

impl CustomOp1 for DepthwiseOp {
    fn name(&self) -> &'static str {
        "depthwise-conv"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        let &[_, n_frames, channels] = layout.dims() else { return Err(wrong_shape(layout)) };
        if x.is_empty() || channels != self.0.channels() {
            return Err(wrong_shape(layout));
        }
        let mut y = vec![0.0; x.len()];
        self.0.forward(x, n_frames, &mut y, Isa::best());
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}
