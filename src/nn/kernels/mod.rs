//! CPU kernels: f32 slices and sizes, no tensors and no layers.
//!
//! Each kernel splits its output into disjoint pieces over the current rayon pool. Each value is computed by one thread
//! in a fixed order, so results do not depend on the number of threads.
//!
//! | folder or file | contents |
//! |---|---|
//! | `simd` | instruction sets, chosen at run time; vectors; element-wise functions |
//! | `matmul` | matrix products: packed weights (f32, f16, 8 bits), fully connected layers, strided views |
//! | `conv` | convolutions: the choice of a kernel, direct, depthwise and grouped ones, Winograd's |
//! | `blocked`, `row_blocks` | feature maps in blocks of sixteen channels, and their pooling; rows in blocks of sixteen columns |
//! | `attention`, `depthwise`, `rnn`, `pointwise`, `lp_pool` | one operation each |
//! | `train` | gradients |
//! | `workspace` | reused memory |

pub mod activation;
pub mod attention;
pub mod blocked;
pub mod conv;
pub mod depthwise;
pub mod lp_pool;
pub mod matmul;
pub mod pointwise;
pub mod pooling;
#[cfg(test)]
mod reference;
pub mod rnn;
pub mod row_blocks;
pub mod simd;
pub mod train;
pub mod workspace;
