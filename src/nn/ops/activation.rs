//! Activations of tensors, by candle.

use candle_core::{Result, Tensor};

use crate::nn::kernels::activation::Activation;

impl Activation {
    pub(in crate::nn) fn forward(self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::Identity => Ok(x),
            Self::Relu => x.relu(),
            Self::LeakyRelu { slope } => candle_nn::ops::leaky_relu(&x, f64::from(slope)),
            Self::Gelu => x.gelu_erf(),
            Self::Elu => x.elu(1.0),
        }
    }
}
