//! A causal convolution as a candle operation.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape};

use super::wrong_shape;
use crate::nn::kernels::conv::causal::CausalConv;
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::workspace::{Workspace, count};
use crate::tensor::contiguous;

/// A convolution of sequences of vectors, `[batch, n, inputs]` to `[batch, n, outputs]`.
#[derive(Debug)]
pub struct CausalConvOp {
    pub conv: CausalConv,
    pub workspace: Workspace,
}

impl CustomOp1 for CausalConvOp {
    fn name(&self) -> &'static str {
        "causal-conv"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(contiguous(storage, layout)?, layout, None)
    }
}

impl CustomOp2 for CausalConvOp {
    fn name(&self) -> &'static str {
        "causal-conv-continued"
    }

    /// With the vectors before, `[batch, context, inputs]`.
    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        before: &CpuStorage,
        before_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, before) = (contiguous(storage, layout)?, contiguous(before, before_layout)?);
        let &[batch, _, inputs] = layout.dims() else { return Err(wrong_shape(layout)) };
        if before_layout.dims() != [batch, self.conv.shape().context(), inputs] {
            return Err(wrong_shape(before_layout));
        }
        self.run(x, layout, Some(before))
    }
}

impl CausalConvOp {
    fn run(&self, x: &[f32], layout: &Layout, before: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let shape = self.conv.shape();
        let &[batch, n, inputs] = layout.dims() else { return Err(wrong_shape(layout)) };
        let len = count(&[batch, n, shape.outputs]).filter(|_| !x.is_empty() && inputs == shape.inputs);
        let mut y = vec![0.0; len.ok_or_else(|| wrong_shape(layout))?];
        self.conv.forward(x, before, n, &mut y, Isa::best(), &self.workspace);
        Ok((CpuStorage::F32(y), (batch, n, shape.outputs).into()))
    }
}
