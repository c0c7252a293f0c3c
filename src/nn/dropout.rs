//! Dropout.

use candle_core::Tensor;

use crate::error::{Context, Error, Result};
use crate::weights::{Loader, Target, TrainingState};

/// Dropout: in training mode, zeroes random values and scales the others so that the expected value stays the same.
/// Does nothing otherwise.
#[derive(Debug, Clone)]
pub struct Dropout {
    p: f64,
    /// `None` for weights that are not trained.
    state: Option<TrainingState>,
}

impl Dropout {
    /// Creates a dropout that zeroes each value with probability `p`, 0 ≤ `p` < 1.
    ///
    /// # Errors
    /// [`Error::Config`] for `p` outside this range.
    pub fn new(weights: &Loader, p: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&p) {
            return Err(Error::config("p", p, "expected at least 0 and less than 1"));
        }
        let state = match weights.target() {
            Target::Training(state) => Some(state),
            Target::Kernels | Target::Device => None,
        };
        Ok(Self { p, state })
    }

    /// Whether it is active now.
    pub(super) fn is_on(&self) -> bool {
        self.p > 0.0 && self.state.as_ref().is_some_and(TrainingState::is_training)
    }

    /// Applies the dropout to `x` of any shape.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Some(state) = self.state.as_ref().filter(|_| self.is_on()) else { return Ok(x.clone()) };
        let kept = (1.0 / (1.0 - self.p)) as f32;
        let mask: Vec<f32> = state.with_random(|random| {
            (0..x.elem_count()).map(|_| if random.uniform() < self.p { 0.0 } else { kept }).collect()
        });
        Tensor::from_vec(mask, x.shape(), x.device()).and_then(|mask| x * mask).context("applying a dropout")
    }
}
