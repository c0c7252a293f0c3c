//! Mixup: training on weighted means of pairs of examples and their labels.
//!
//! Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018): `λ a + (1 - λ) b` with `λ ~ Beta(α, α)`.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::Random;
use crate::error::{Context, Error, Result};

/// How examples of a batch are paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MixupPairing {
    /// Examples `2i` and `2i + 1`, as in PANNs. The batch must be of even size; the result is half as large.
    Neighbours,
    /// Example `i` with the example at index `i` of a random permutation, which may be itself. The batch keeps its
    /// size. As in the paper, but with one `λ` per pair instead of one per batch.
    Shuffled,
}

/// Settings of mixup.
///
/// ```
/// use clipwise::augment::{Mixup, Random};
/// use clipwise::candle_core::{Device, Tensor};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let features = Tensor::rand(0f32, 1.0, (4, 1, 100, 64), &Device::Cpu)?;
/// let labels = Tensor::new(&[[1f32, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], &Device::Cpu)?;
/// let plan = Mixup::PANNS.plan(4, &mut Random::new(1))?;
/// let (features, labels) = (plan.apply(&features)?, plan.apply(&labels)?);
/// assert_eq!((features.dims(), labels.dims()), (&[2, 1, 100, 64][..], &[2, 2][..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mixup {
    /// `α` of the Beta distribution of the weights, above 0. 1 is uniform; smaller values favour one of the two
    /// examples.
    pub alpha: f64,
    /// How examples are paired.
    pub pairing: MixupPairing,
}

/// The pairs and weights of a batch: row `i` of the result is `lambda[i] x[first[i]] + (1 - lambda[i]) x[second[i]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct MixupPlan {
    /// Row indices of the first examples.
    pub first: Vec<u32>,
    /// Row indices of the second examples.
    pub second: Vec<u32>,
    /// Weights of the first examples, `0.0..=1.0`.
    pub lambda: Vec<f32>,
}

impl Mixup {
    /// PANNs' training: neighbouring examples, `α = 1`.
    pub const PANNS: Self = Self { alpha: 1.0, pairing: MixupPairing::Neighbours };

    /// Draws pairs and weights for a batch.
    ///
    /// # Errors
    /// [`Error::Config`] if `alpha` is not finite and above 0; [`Error::Argument`] if `batch` is odd with
    /// [`MixupPairing::Neighbours`], or above `u32::MAX`.
    pub fn plan(&self, batch: usize, random: &mut Random) -> Result<MixupPlan> {
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(Error::config("alpha", self.alpha, "expected a finite number above 0"));
        }
        let Ok(rows) = u32::try_from(batch) else {
            return Err(Error::argument("batch", batch, format!("expected at most {}", u32::MAX)));
        };
        let (first, second): (Vec<u32>, Vec<u32>) = match self.pairing {
            MixupPairing::Neighbours if !batch.is_multiple_of(2) => {
                return Err(Error::argument(
                    "batch",
                    batch,
                    "expected an even number, since `pairing` is `neighbours`",
                ));
            }
            MixupPairing::Neighbours => (0..rows / 2).map(|i| (2 * i, 2 * i + 1)).unzip(),
            MixupPairing::Shuffled => {
                (0..rows).zip(random.permutation(batch).into_iter().map(|row| row as u32)).unzip()
            }
        };
        let lambda = first.iter().map(|_| random.beta(self.alpha, self.alpha) as f32).collect();
        Ok(MixupPlan { first, second, lambda })
    }
}

impl MixupPlan {
    /// Mixes the rows of a float tensor `[batch, ...]`: features, waveforms, or labels as probabilities
    /// `[batch, n_classes]`. Differentiable.
    ///
    /// # Errors
    /// [`Error::Argument`] if `x` is not of a float type or has too few rows, or if the fields of the plan differ in
    /// length; [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let rows = x.dims().first().copied().unwrap_or(0);
        let needed = self.first.iter().chain(&self.second).map(|&row| row as usize + 1).max().unwrap_or(0);
        if rows < needed {
            return Err(Error::argument(
                "x.dims()",
                format!("{:?}", x.dims()),
                format!("expected at least {needed} rows"),
            ));
        }
        if !matches!(x.dtype(), DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
            return Err(Error::argument("x.dtype()", x.dtype().as_str(), "expected a float type"));
        }
        let n = self.lambda.len();
        if (self.first.len(), self.second.len()) != (n, n) {
            return Err(Error::argument("lambda.len()", n, "expected the length of `first` and `second`"));
        }
        let mix = || {
            let x = x.contiguous()?;
            let part = |rows: &[u32], weights: Vec<f32>| {
                let mut dims = vec![1; x.rank()];
                dims[0] = n;
                let weights = Tensor::from_vec(weights, dims, x.device())?.to_dtype(x.dtype())?;
                x.index_select(&Tensor::new(rows, x.device())?, 0)?.broadcast_mul(&weights)
            };
            let rest = self.lambda.iter().map(|lambda| 1.0 - lambda).collect();
            part(&self.first, self.lambda.clone())? + part(&self.second, rest)?
        };
        mix().context("mixing clips")
    }
}
