//! Dropout.

use candle_core::Tensor;

use crate::error::{Context, Error, Result};
use crate::weights::{Loader, Target, TrainingState};

/// In training mode, sets values to 0 at random and scales the others up so that the mean stays; else nothing.
#[derive(Debug, Clone)]
pub struct Dropout {
    p: f64,
    /// `None` where the weights are those of a checkpoint.
    state: Option<TrainingState>,
}

impl Dropout {
    /// Each value becomes 0 with probability `p`, below 1.
    ///
    /// # Errors
    /// [`Error::Config`] for another `p`.
    pub fn new(weights: &Loader, p: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&p) {
            return Err(Error::config("p", p, "0 or more and less than 1"));
        }
        let state = match weights.target() {
            Target::Training(state) => Some(state),
            Target::Kernels | Target::Device => None,
        };
        Ok(Self { p, state })
    }

    /// Whether it changes anything now.
    pub(super) fn is_on(&self) -> bool {
        self.p > 0.0 && self.state.as_ref().is_some_and(TrainingState::is_training)
    }

    /// `x` of any shape.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Some(state) = self.state.as_ref().filter(|_| self.is_on()) else { return Ok(x.clone()) };
        let kept = (1.0 / (1.0 - self.p)) as f32;
        let mask: Vec<f32> = state.with_random(|random| {
            (0..x.elem_count()).map(|_| if random.uniform() < self.p { 0.0 } else { kept }).collect()
        });
        Tensor::from_vec(mask, x.shape(), x.device()).and_then(|mask| x * mask).context("dropout")
    }
}
