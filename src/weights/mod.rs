//! Checkpoints.

/// All tensors that do not fit.
#[derive(Debug, thiserror::Error)]
#[error("")]
pub struct LoadReport;

/// A checkpoint.
pub struct Weights;
