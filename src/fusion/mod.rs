//! Late fusion: combines the results of several models for the same audio.

mod frames;
mod taggings;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
pub use frames::{Config, Member, fuse_frames};
pub use taggings::fuse_taggings;

/// The values that are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Average {
    /// Logits (values before the activation): `α · A + (1 − α) · B`.
    #[default]
    Logits,
    /// Probabilities.
    Probabilities,
}

/// Normalises weights to a sum of 1.
fn shares(weights: impl Iterator<Item = f64>) -> Result<Vec<f64>> {
    let weights: Vec<f64> = weights.collect();
    if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
        return Err(Error::argument("weight", weight, "expected a finite number of at least 0"));
    }
    let sum: f64 = weights.iter().sum();
    if !(sum > 0.0 && sum.is_finite()) {
        return Err(Error::argument("weight", sum, "expected at least one member with a weight above 0"));
    }
    Ok(weights.iter().map(|weight| weight / sum).collect())
}
