//! How pooling reduces a window.

use serde::{Deserialize, Serialize};

/// How a window becomes one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// Mean.
    #[serde(rename = "avg")]
    Avg,
    /// Largest value.
    #[serde(rename = "max")]
    Max,
    /// Mean plus largest value.
    #[serde(rename = "avg+max")]
    AvgMax,
}
