//! CPU kernels: f32 slices and sizes, no tensors. Only `ops` knows candle.
//!
//! Each kernel splits its output into disjoint pieces over the current rayon pool; a value of the output is computed by
//! one thread in one fixed order, so results do not depend on the number of threads.

pub(super) mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod axis;
pub(super) mod conv;
pub(super) mod conv_gradient;
#[cfg(test)]
mod conv_reference;
pub(super) mod direct;
mod gemm;
pub(super) mod lanes;
pub(super) mod linear;
mod lp_pool;
pub(super) mod map;
pub(super) mod math;
pub(super) mod norm_gradient;
pub(super) mod ops;
pub(super) mod panels;
pub(super) mod pointwise;
pub(super) mod pool_gradient;
mod portable;
#[cfg(test)]
mod reference;
pub(super) mod rnn;
pub(super) mod rnn_gradient;
mod tile;
mod transform;
mod transformed;
pub(super) mod workspace;
