//! The grouped convolution as a candle operation.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape};

use super::wrong_shape;
use crate::nn::kernels::conv::grouped::GroupedConv;
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::workspace::Workspace;
use crate::tensor::contiguous;

/// A grouped convolution of sequences of vectors, `[batch, n, channels]`.
#[derive(Debug)]
pub struct GroupedConvOp {
    pub conv: GroupedConv,
    pub workspace: Workspace,
}

impl CustomOp1 for GroupedConvOp {
    fn name(&self) -> &'static str {
        "grouped-conv"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout)?;
        let &[_, n, channels] = layout.dims() else { return Err(wrong_shape(layout)) };
        if x.is_empty() || channels != self.conv.shape().channels {
            return Err(wrong_shape(layout));
        }
        let mut y = vec![0.0; x.len()];
        self.conv.forward(x, n, &mut y, Isa::best(), &self.workspace);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}
