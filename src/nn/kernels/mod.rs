//! CPU kernels: f32 slices and sizes, no tensors. Only `ops` knows candle.
//!
//! Each kernel splits its output into disjoint pieces over the current rayon pool; a value of the output is computed by
//! one thread in one fixed order, so results do not depend on the number of threads.

pub(super) mod attention;
mod gemm;
pub(super) mod linear;
mod lp_pool;
pub(super) mod math;
pub(super) mod ops;
pub(super) mod panels;
pub(super) mod pointwise;
pub(super) mod pool;
#[cfg(test)]
mod reference;
pub(super) mod rnn;
mod simd;
