//! Normalisation of features to mean 0 and variance 1: per clip, or by the statistics of a data set.

use ndarray::{Array2, ArrayView2, Axis, Zip};
use serde::{Deserialize, Serialize};

use super::ClipRule;
use crate::error::{Error, Result};

/// Normalisation of each column of features `[n_frames, n_features]`.
///
/// ```
/// use clipwise::frontend::Normalize;
/// use clipwise::ndarray::array;
///
/// let mut features = array![[1.0, 10.0], [3.0, 10.0]];
/// Normalize::CMN.apply(&mut features)?;
/// assert_eq!(features, array![[-1.0, 0.0], [1.0, 0.0]]);
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Normalize {
    /// Cepstral mean normalisation: subtracts the mean of each column over the frames of the clip.
    Mean,
    /// Cepstral mean and variance normalisation: `(x - mean) / √(var + eps)` with the clip's own statistics.
    MeanVariance {
        /// The divisor of the variance is `n_frames - ddof`: `ddof` is 0 in numpy, 1 in PyTorch. With too few frames
        /// the variance is 0.
        ddof: usize,
        /// Added to the variance, 0 or more. A constant column becomes 0, whatever `eps` is.
        eps: f64,
    },
    /// `(x - mean) / std` with the statistics of a data set (see [`FeatureStatistics`]): one value per column, or a
    /// single one for all columns.
    DataSet {
        /// Means of the columns.
        mean: Vec<f32>,
        /// Standard deviations of the columns, above 0. The recipes of AST and BEATs divide by twice the standard
        /// deviation: pass twice its value.
        std: Vec<f32>,
    },
}

impl Normalize {
    /// Cepstral mean normalisation.
    pub const CMN: Self = Self::Mean;

    /// Cepstral mean and variance normalisation as in Kaldi's `apply-cmvn --norm-vars`: the variance divides by
    /// `n_frames`.
    pub const CMVN: Self = Self::MeanVariance { ddof: 0, eps: 1e-20 };

    /// SeamlessM4T and W2V-BERT: the variance divides by `n_frames - 1`, and `eps` is 1e-7.
    pub const SEAMLESS_M4T: Self = Self::MeanVariance { ddof: 1, eps: 1e-7 };

    /// The clip rule of a normalisation by the clip's own statistics.
    pub(super) fn clip_rule(&self) -> Option<ClipRule> {
        match self {
            Self::DataSet { .. } => None,
            Self::Mean | Self::MeanVariance { .. } => Some(ClipRule::new("normalize", format!("{self:?}"))),
        }
    }

    /// Normalises features `[n_frames, n_features]` in place, computing in f64.
    ///
    /// # Errors
    /// [`Error::Config`] if the statistics have another number of columns or are out of range; [`Error::Argument`] if a
    /// feature is NaN or infinite. On an error the features are unchanged.
    pub fn apply(&self, features: &mut Array2<f32>) -> Result<()> {
        let n_features = features.ncols();
        match self {
            Self::MeanVariance { eps, .. } if !(eps.is_finite() && *eps >= 0.0) => {
                return Err(Error::config("eps", eps, "expected 0 or more"));
            }
            Self::DataSet { mean, std } => {
                for (field, values) in [("mean", mean), ("std", std)] {
                    if values.len() != n_features && values.len() != 1 {
                        let reason = format!("expected 1 or {n_features} values");
                        return Err(Error::config(field, format!("{} values", values.len()), reason));
                    }
                }
                if let Some(bad) = mean.iter().find(|x| !x.is_finite()) {
                    return Err(Error::config("mean", bad, "expected a finite number"));
                }
                if let Some(bad) = std.iter().find(|x| !(x.is_finite() && **x > 0.0)) {
                    return Err(Error::config("std", bad, "expected a number above 0"));
                }
            }
            _ => {}
        }
        check_features(features.view())?;
        for (index, mut column) in features.columns_mut().into_iter().enumerate() {
            let of = |values: &[f32]| f64::from(if values.len() == 1 { values[0] } else { values[index] });
            let (mean, scale) = match self {
                Self::DataSet { mean, std } => (of(mean), of(std).recip()),
                _ if column.is_empty() => continue,
                Self::Mean => (mean(column.iter()), 1.0),
                Self::MeanVariance { ddof, eps } => {
                    let mean = mean(column.iter());
                    let squares: f64 = column.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
                    let count = column.len().saturating_sub(*ddof);
                    let variance = if count == 0 { 0.0 } else { squares / count as f64 };
                    let scale = (variance + eps).sqrt().recip();
                    // The mean of equal values has a rounding error, which must not be amplified.
                    let constant = column.iter().all(|&x| x == column[0]);
                    (mean, if constant || !scale.is_finite() { 0.0 } else { scale })
                }
            };
            column.mapv_inplace(|x| ((f64::from(x) - mean) * scale) as f32);
        }
        Ok(())
    }
}

fn mean<'a>(values: impl ExactSizeIterator<Item = &'a f32>) -> f64 {
    let count = values.len() as f64;
    values.map(|&x| f64::from(x)).sum::<f64>() / count
}

/// Mean and variance of the columns of features, accumulated clip by clip in f64.
///
/// ```
/// use clipwise::frontend::FeatureStatistics;
/// use clipwise::ndarray::array;
///
/// let mut statistics = FeatureStatistics::new(2);
/// statistics.push(array![[1.0, 0.0], [2.0, 0.0]].view())?;
/// statistics.push(array![[6.0, 3.0]].view())?;
/// assert_eq!(statistics.mean(), [3.0, 1.0]);
/// let normalize = statistics.normalize();
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureStatistics {
    n_frames: u64,
    mean: Vec<f64>,
    /// Sums of squared distances from the mean.
    squares: Vec<f64>,
}

impl FeatureStatistics {
    /// Creates empty statistics of features with `n_features` columns.
    pub fn new(n_features: usize) -> Self {
        Self { n_frames: 0, mean: vec![0.0; n_features], squares: vec![0.0; n_features] }
    }

    /// Adds the features `[n_frames, n_features]` of a clip.
    ///
    /// # Errors
    /// [`Error::Argument`] if the number of columns differs or a value is not finite.
    pub fn push(&mut self, features: ArrayView2<f32>) -> Result<()> {
        if features.ncols() != self.mean.len() {
            return Err(Error::argument("n_features", features.ncols(), format!("expected {}", self.mean.len())));
        }
        check_features(features)?;
        if features.nrows() == 0 {
            return Ok(());
        }
        let (old, new) = (self.n_frames as f64, features.nrows() as f64);
        // Chan, Golub and LeVeque's formula for merging means and sums of squares.
        for ((column, total), squares) in features.columns().into_iter().zip(&mut self.mean).zip(&mut self.squares) {
            let mean = mean(column.iter());
            let distance = mean - *total;
            *squares += column.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
            *squares += distance * distance * old * new / (old + new);
            *total += distance * new / (old + new);
        }
        self.n_frames += features.nrows() as u64;
        Ok(())
    }

    /// The number of frames so far.
    pub fn n_frames(&self) -> u64 {
        self.n_frames
    }

    /// The mean of each column; 0 before the first frame.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The standard deviation of each column over all frames (`ddof` 0); 0 before the first frame.
    pub fn std(&self) -> Vec<f64> {
        self.squares.iter().map(|squares| (squares / (self.n_frames.max(1)) as f64).sqrt()).collect()
    }

    /// The normalisation by these statistics, per column. Constant columns are not scaled.
    pub fn normalize(&self) -> Normalize {
        let std = self.std().into_iter().map(|std| positive(std as f32)).collect();
        Normalize::DataSet { mean: self.mean.iter().map(|&mean| mean as f32).collect(), std }
    }

    /// The normalisation by a single mean and standard deviation over all columns, as in AST and BEATs.
    pub fn normalize_as_one(&self) -> Normalize {
        let count = self.mean.len().max(1) as f64;
        let mean = self.mean.iter().sum::<f64>() / count;
        let between: f64 = self.mean.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let within = self.squares.iter().sum::<f64>() / (self.n_frames.max(1) as f64 * count);
        Normalize::DataSet { mean: vec![mean as f32], std: vec![positive((between + within).sqrt() as f32)] }
    }
}

/// Replaces a standard deviation of 0 by 1.
fn positive(std: f32) -> f32 {
    if std > 0.0 { std } else { 1.0 }
}

/// Rejects features that are NaN or infinite.
pub(super) fn check_features(features: ArrayView2<f32>) -> Result<()> {
    let finite =
        Zip::from(features.lanes(Axis(1))).fold(true, |all, row| row.iter().fold(all, |all, x| all & x.is_finite()));
    if finite {
        return Ok(());
    }
    match features.indexed_iter().find(|(_, x)| !x.is_finite()) {
        Some(((frame, column), x)) => Err(Error::argument(
            "features",
            x,
            format!("expected finite values, got this one in frame {frame}, column {column}"),
        )),
        None => Ok(()),
    }
}
