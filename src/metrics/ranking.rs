//! Ranking metrics: average precision, ROC AUC, d′.

use ndarray::{ArrayView1, ArrayView2};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::normal::inverse_normal_cdf;
use super::{check_lengths, ratio};
use crate::error::{Error, Result};

/// Average precision `Σ_n (R_n − R_{n−1}) P_n` over the distinct scores in descending order, where `P_n` and `R_n` are
/// precision and recall at the n-th score as threshold: `sklearn.metrics.average_precision_score`.
///
/// `scores` and `targets` are `[n]`. The result is in `0..=1`, or `None` if there is no positive target.
///
/// # Errors
/// [`Error::Argument`] if the lengths differ or a score is NaN.
pub fn average_precision<S: Into<f64> + Copy>(scores: &[S], targets: &[bool]) -> Result<Option<f64>> {
    Ok(ranked(ArrayView1::from(scores), ArrayView1::from(targets), None)?.average_precision())
}

/// Area under the ROC curve: the probability that a positive scores above a negative, where ties count half.
/// `sklearn.metrics.roc_auc_score`.
///
/// `scores` and `targets` are `[n]`. The result is in `0..=1`, or `None` unless there are both positives and negatives.
///
/// # Errors
/// [`Error::Argument`] if the lengths differ or a score is NaN.
pub fn roc_auc<S: Into<f64> + Copy>(scores: &[S], targets: &[bool]) -> Result<Option<f64>> {
    Ok(ranked(ArrayView1::from(scores), ArrayView1::from(targets), None)?.roc_auc())
}

/// Sensitivity index d′ = √2 · Φ⁻¹(AUC), as reported in AudioSet papers: `2**0.5 * scipy.stats.norm.ppf(auc)`.
///
/// 0 for an AUC of 0.5, ∞ for 1, −∞ for 0, NaN outside 0..=1.
pub fn d_prime(auc: f64) -> f64 {
    std::f64::consts::SQRT_2 * inverse_normal_cdf(auc)
}

/// The mean of [`average_precision`] over classes (mAP). Classes without a positive are excluded; `None` if no class
/// remains.
///
/// `scores` and `targets` are `[n, n_classes]`. Equals `average_precision_score(average="macro")` over the classes with
/// a positive; scikit-learn itself counts the other classes as 0.
///
/// # Errors
/// [`Error::Argument`] if the shapes differ or a score is NaN.
pub fn mean_average_precision<S>(scores: ArrayView2<S>, targets: ArrayView2<bool>) -> Result<Option<f64>>
where
    S: Into<f64> + Copy + Sync,
{
    Ok(MultiLabelReport::new(scores, targets)?.mean_average_precision())
}

/// The ranking metrics of a multi-label task, per class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MultiLabelReport {
    /// [`average_precision`] of each class; `None` for classes without a positive.
    pub average_precision: Vec<Option<f64>>,
    /// [`roc_auc`] of each class; `None` for classes without both positives and negatives.
    pub roc_auc: Vec<Option<f64>>,
    /// The number of positives of each class.
    pub n_positive: Vec<usize>,
}

impl MultiLabelReport {
    /// Computes the metrics of `scores` against `targets`, both `[n, n_classes]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the shapes differ or a score is NaN.
    pub fn new<S: Into<f64> + Copy + Sync>(scores: ArrayView2<S>, targets: ArrayView2<bool>) -> Result<Self> {
        if scores.dim() != targets.dim() {
            let reason = format!("expected the shape of the scores, {:?}", scores.shape());
            return Err(Error::argument("targets", format!("{:?}", targets.shape()), reason));
        }
        let of_class = |class| {
            let ranked = ranked(scores.column(class), targets.column(class), Some(class))?;
            Ok((ranked.average_precision(), (ranked.roc_auc(), ranked.n_positive)))
        };
        // Collected in two steps, so that the error of the first class is returned whatever the number of threads.
        let classes: Vec<Result<_>> = (0..scores.ncols()).into_par_iter().map(of_class).collect();
        let classes: Vec<_> = classes.into_iter().collect::<Result<_>>()?;
        let (average_precision, (roc_auc, n_positive)) = classes.into_iter().unzip();
        Ok(Self { average_precision, roc_auc, n_positive })
    }

    /// The mean over the classes that have an average precision (mAP); `None` if none has.
    pub fn mean_average_precision(&self) -> Option<f64> {
        mean(&self.average_precision)
    }

    /// The mean over the classes that have a ROC AUC; `None` if none has.
    pub fn mean_roc_auc(&self) -> Option<f64> {
        mean(&self.roc_auc)
    }

    /// [`d_prime`] of the mean ROC AUC, as PANNs reports it.
    pub fn d_prime(&self) -> Option<f64> {
        self.mean_roc_auc().map(d_prime)
    }
}

fn mean(values: &[Option<f64>]) -> Option<f64> {
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    ratio(known.iter().sum(), known.len() as f64)
}

/// Scores with their targets, highest first.
struct Ranked {
    pairs: Vec<(f64, bool)>,
    n_positive: usize,
}

fn ranked<S>(scores: ArrayView1<S>, targets: ArrayView1<bool>, class: Option<usize>) -> Result<Ranked>
where
    S: Into<f64> + Copy,
{
    check_lengths("targets", targets.len(), "scores", scores.len())?;
    let mut pairs: Vec<(f64, bool)> = scores.iter().map(|&score| score.into()).zip(targets.iter().copied()).collect();
    if let Some(at) = pairs.iter().position(|(score, _)| score.is_nan()) {
        let of_class = class.map(|class| format!(" of class {class}")).unwrap_or_default();
        return Err(Error::argument("scores", "NaN", format!("expected a number as score {at}{of_class}")));
    }
    pairs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let n_positive = pairs.iter().filter(|(_, positive)| *positive).count();
    Ok(Ranked { pairs, n_positive })
}

impl Ranked {
    /// Numbers of positives and negatives per distinct score, highest first. +0 and -0 are adjacent in the order, and
    /// count as equal.
    fn ties(&self) -> impl Iterator<Item = (usize, usize)> {
        self.pairs.chunk_by(|a, b| a.0 == b.0).map(|tie| {
            let positives = tie.iter().filter(|(_, positive)| *positive).count();
            (positives, tie.len() - positives)
        })
    }

    fn average_precision(&self) -> Option<f64> {
        let (mut sum, mut true_positives, mut taken) = (0.0, 0, 0);
        for (positives, negatives) in self.ties() {
            true_positives += positives;
            taken += positives + negatives;
            sum += positives as f64 * true_positives as f64 / taken as f64;
        }
        ratio(sum, self.n_positive as f64)
    }

    fn roc_auc(&self) -> Option<f64> {
        let n_negative = self.pairs.len() - self.n_positive;
        let (mut twice_won, mut negatives_below) = (0u128, n_negative); // integers, so exact
        for (positives, negatives) in self.ties() {
            negatives_below -= negatives;
            twice_won += positives as u128 * (2 * negatives_below as u128 + negatives as u128);
        }
        ratio(twice_won as f64, 2.0 * self.n_positive as f64 * n_negative as f64)
    }
}
