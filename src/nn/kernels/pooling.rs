//! Pooling modes.

use serde::{Deserialize, Serialize};

/// The reduction of a pooling window to one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// Mean.
    #[serde(rename = "avg")]
    Avg,
    /// Maximum.
    #[serde(rename = "max")]
    Max,
    /// Mean plus maximum.
    #[serde(rename = "avg+max")]
    AvgMax,
}
