//! The bridge between candle and the kernels: operations on contiguous f32 tensors that check shapes and call a kernel.

pub mod activation;
pub mod attention;
pub mod causal_conv;
pub mod depthwise;
pub mod grouped_conv;
pub mod linear;
pub mod norm;
pub mod train;
pub mod transformer;

use candle_core::{Error, Layout, Tensor};

/// Whether the CPU kernels can process a tensor. They do not support gradients.
pub fn runs_on_cpu_kernels(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == candle_core::DType::F32 && !x.track_op()
}

fn wrong_shape(layout: &Layout) -> Error {
    Error::Msg(format!("the kernel does not accept an input of shape {:?}", layout.shape()))
}
