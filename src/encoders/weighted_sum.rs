//! Weighted sum of the hidden states of all layers.
//!
//! Yang et al., "SUPERB: Speech processing Universal PERformance Benchmark", 2021 (arXiv 2105.01051): `h = Σ w_i h_i`
//! with `w = softmax(α)`, where `α` is learned. Reference: `Featurizer` of s3prl; `use_weighted_layer_sum` of
//! transformers.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::check::{self, MAX_LAYERS};
use crate::error::{Context, Error, Result};
use crate::nn::normalized;
use crate::tensor::softmax;
use crate::weights::{Init, Loader, Target};

/// Epsilon of s3prl's normalisation.
const EPS: f32 = 1e-5;
/// Names of `α` in checkpoints: that of transformers and this crate; those of s3prl's `Featurizer`, as part of a model
/// or alone.
const NAMES: [&str; 4] = ["layer_weights", "featurizer.weights", "Featurizer.weights", "weights"];

/// Settings of [`WeightedSum`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedSumConfig {
    /// Whether each hidden state is normalised to mean 0 and variance 1 over its values, like s3prl's option
    /// `normalize`. Default: false.
    #[serde(default)]
    pub normalize: bool,
}

/// A sum of the hidden states of all layers, weighted by the softmax of one number per layer.
#[derive(Debug)]
pub struct WeightedSum {
    alpha: Tensor, // [n_layers]
    /// The softmax of `alpha`; `None` in training.
    weights: Option<Vec<f64>>,
    config: WeightedSumConfig,
}

impl WeightedSum {
    /// Creates the sum from the numbers before the softmax, one per layer.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are none, or if one is not finite.
    pub fn new(alpha: &[f32], config: &WeightedSumConfig, device: &Device) -> Result<Self> {
        if alpha.is_empty() || !alpha.iter().all(|alpha| alpha.is_finite()) {
            return Err(Error::argument("alpha", format!("{alpha:?}"), "expected finite numbers, one per layer"));
        }
        let tensor = Tensor::new(alpha, device).context("copying weights to the device")?;
        Ok(Self::with(tensor, Some(softmax(alpha.iter().copied().map(f64::from))), config))
    }

    /// The mean of `n_layers` layers: all numbers before the softmax are 0, as at the start of training.
    ///
    /// # Errors
    /// [`Error::Config`] if `n_layers` is not between 1 and 1,025.
    pub fn uniform(n_layers: usize, config: &WeightedSumConfig, device: &Device) -> Result<Self> {
        check::size("n_layers", n_layers, MAX_LAYERS + 1)?;
        Self::new(&vec![0.0; n_layers], config, device)
    }

    /// Reads `layer_weights` `[n_layers]`, or s3prl's `featurizer.weights` or (in a file of its own) `weights`. In
    /// training they are initialised with 0.
    ///
    /// # Errors
    /// As [`Loader::get`], and [`Error::Argument`] if `n_layers` is 0.
    pub fn load(weights: &Loader, n_layers: usize, config: &WeightedSumConfig) -> Result<Self> {
        let name = weights.first_of(&NAMES);
        if let Target::Training(_) = weights.target() {
            if n_layers == 0 {
                return Err(Error::argument("n_layers", 0, "expected at least 1"));
            }
            return Ok(Self::with(weights.parameter(name, n_layers, Init::Constant(0.0))?, None, config));
        }
        Self::new(&weights.get_vec(name, &[n_layers])?, config, weights.device())
    }

    fn with(alpha: Tensor, weights: Option<Vec<f64>>, config: &WeightedSumConfig) -> Self {
        Self { alpha, weights, config: *config }
    }

    /// The number of layers.
    pub fn n_layers(&self) -> usize {
        self.alpha.elem_count()
    }

    /// The weights of the layers, with a sum of 1.
    ///
    /// # Errors
    /// [`Error::Tensor`] if they cannot be copied from the device.
    pub fn weights(&self) -> Result<Vec<f64>> {
        match &self.weights {
            Some(weights) => Ok(weights.clone()),
            None => {
                let alpha = self.alpha.to_vec1::<f32>().context("copying weights to the host")?;
                Ok(softmax(alpha.into_iter().map(f64::from)))
            }
        }
    }

    /// Computes the sum of the hidden states of all layers, each `[…, dim]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the number of tensors is not [`n_layers`](Self::n_layers); [`Error::Tensor`] if their
    /// shapes differ.
    pub fn forward(&self, layers: &[Tensor]) -> Result<Tensor> {
        self.sum(layers).context("summing layers")
    }

    fn sum(&self, layers: &[Tensor]) -> Result<Tensor> {
        let expected = self.n_layers();
        if layers.len() != expected {
            let reason = format!("expected {expected}, one per weight");
            return Err(Error::argument("layers.len()", layers.len(), reason));
        }
        let mut sum: Option<Tensor> = None;
        for (index, layer) in layers.iter().enumerate() {
            let layer = if self.config.normalize { normalized(layer, EPS)? } else { layer.clone() };
            let weighted = match &self.weights {
                Some(weights) => (layer * weights[index])?,
                None => layer.broadcast_mul(&candle_nn::ops::softmax(&self.alpha, 0)?.get(index)?)?,
            };
            sum = Some(match sum {
                Some(sum) => (sum + weighted)?,
                None => weighted,
            });
        }
        sum.ok_or_else(|| Error::argument("layers.len()", 0, "expected at least 1")) // unreachable: there are weights
    }
}
