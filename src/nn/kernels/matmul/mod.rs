//! Matrix products.

pub mod gates;
pub mod linear;
pub mod packed;
pub mod strided;
