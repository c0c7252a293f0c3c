//! Kernels for training: forward passes and their gradients.

pub mod conv;
pub mod gru;
pub mod norm;
pub mod pool;
