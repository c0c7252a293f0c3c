//! Matrix products.

pub mod linear;
pub mod packed;
pub mod strided;
