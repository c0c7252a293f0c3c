//! Matrix products.

pub mod int8;
pub mod linear;
pub mod packed;
pub mod panels;
pub mod strided;
