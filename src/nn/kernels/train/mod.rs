//! Kernels of training: forward passes whose gradients are taken, and the gradients.

pub mod conv;
pub mod gru;
pub mod norm;
pub mod pool;
