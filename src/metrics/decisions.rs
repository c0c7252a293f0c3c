//! Classification metrics: accuracy, top-k accuracy, counts, precision, recall, F1, confusion matrix.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::{check_class, check_lengths, ratio};
use crate::error::{Error, Result};

/// Limit on the classes of a [`Confusion`], whose counts then take 512 MB.
const MAX_CONFUSION_CLASSES: usize = 8192;

/// The fraction of `predictions` that equal their target: `sklearn.metrics.accuracy_score`. `None` for empty slices.
///
/// # Errors
/// [`Error::Argument`] if the lengths differ.
pub fn accuracy<T: PartialEq>(targets: &[T], predictions: &[T]) -> Result<Option<f64>> {
    check_lengths("predictions", predictions.len(), "targets", targets.len())?;
    let right = targets.iter().zip(predictions).filter(|(target, prediction)| target == prediction).count();
    Ok(ratio(right as f64, targets.len() as f64))
}

/// The fraction of rows whose target is among the `k` highest scores: `sklearn.metrics.top_k_accuracy_score`. `None` if
/// there are no rows.
///
/// `scores` is `[n, n_classes]`, `targets` are `[n]` class indices. Among equal scores, the class with the higher index
/// is ranked higher, as in scikit-learn.
///
/// # Errors
/// [`Error::Argument`] if `k` is 0, the lengths differ, a target is not below `n_classes`, or a score is NaN.
pub fn top_k_accuracy<S>(scores: ArrayView2<S>, targets: &[usize], k: usize) -> Result<Option<f64>>
where
    S: Into<f64> + Copy,
{
    if k == 0 {
        return Err(Error::argument("k", k, "expected at least 1"));
    }
    check_lengths("targets", targets.len(), "rows of scores", scores.nrows())?;
    let mut hits = 0usize;
    for (at, (row, &target)) in scores.rows().into_iter().zip(targets).enumerate() {
        check_class("targets", target, row.len(), at)?;
        if let Some(class) = row.iter().position(|&score| score.into().is_nan()) {
            return Err(Error::argument("scores", "NaN", format!("expected a number as score [{at}, {class}]")));
        }
        let own: f64 = row[target].into();
        let above = |(class, &score): (usize, &S)| score.into() > own || (score.into() == own && class > target);
        hits += usize::from(row.iter().enumerate().filter(|&pair| above(pair)).count() < k);
    }
    Ok(ratio(hits as f64, targets.len() as f64))
}

/// The number of correct and wrong decisions about one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Positives that were predicted as positive.
    pub true_positive: u64,
    /// Negatives that were predicted as positive.
    pub false_positive: u64,
    /// Positives that were predicted as negative.
    pub false_negative: u64,
    /// Negatives that were predicted as negative.
    pub true_negative: u64,
}

impl Counts {
    /// Counts the decisions `score > threshold`. Both slices are `[n]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the lengths differ, or if a score or the threshold is NaN.
    pub fn at_threshold<S: Into<f64> + Copy>(scores: &[S], targets: &[bool], threshold: f64) -> Result<Self> {
        check_lengths("targets", targets.len(), "scores", scores.len())?;
        if threshold.is_nan() {
            return Err(Error::argument("threshold", threshold, "expected a number"));
        }
        let mut counts = Self::default();
        for (at, (&score, &target)) in scores.iter().zip(targets).enumerate() {
            let score: f64 = score.into();
            if score.is_nan() {
                return Err(Error::argument("scores", "NaN", format!("expected a number as score {at}")));
            }
            *match (target, score > threshold) {
                (true, true) => &mut counts.true_positive,
                (false, true) => &mut counts.false_positive,
                (true, false) => &mut counts.false_negative,
                (false, false) => &mut counts.true_negative,
            } += 1;
        }
        Ok(counts)
    }

    /// `(TP, FP, FN, TN)` as floats, whose sums cannot overflow.
    fn parts(&self) -> (f64, f64, f64, f64) {
        let Self { true_positive, false_positive, false_negative, true_negative } = *self;
        (true_positive as f64, false_positive as f64, false_negative as f64, true_negative as f64)
    }

    /// `(TP + TN) / (TP + FP + FN + TN)`: `accuracy_score`. `None` if nothing was counted.
    pub fn accuracy(&self) -> Option<f64> {
        let (tp, fp, fn_, tn) = self.parts();
        ratio(tp + tn, tp + fp + fn_ + tn)
    }

    /// `TP / (TP + FP)`: `precision_score`. `None` if nothing was predicted as positive.
    pub fn precision(&self) -> Option<f64> {
        let (tp, fp, ..) = self.parts();
        ratio(tp, tp + fp)
    }

    /// `TP / (TP + FN)` (sensitivity): `recall_score`. `None` without positives.
    pub fn recall(&self) -> Option<f64> {
        let (tp, _, fn_, _) = self.parts();
        ratio(tp, tp + fn_)
    }

    /// `TN / (TN + FP)`: `recall_score(pos_label=0)`. `None` without negatives.
    pub fn specificity(&self) -> Option<f64> {
        let (_, fp, _, tn) = self.parts();
        ratio(tn, tn + fp)
    }

    /// `2 TP / (2 TP + FP + FN)`: `f1_score`. `None` if there are no positives and nothing was predicted as positive.
    pub fn f1(&self) -> Option<f64> {
        let (tp, fp, fn_, _) = self.parts();
        ratio(2.0 * tp, 2.0 * tp + fp + fn_)
    }
}

/// Precision, recall and F1, averaged over classes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PrecisionRecallF1 {
    /// [`Counts::precision`], averaged.
    pub precision: f64,
    /// [`Counts::recall`], averaged.
    pub recall: f64,
    /// [`Counts::f1`], averaged.
    pub f1: f64,
}

/// The mean over classes: `precision_recall_fscore_support(average="macro")`. Undefined ratios count as 0, as there.
///
/// Classes that occur neither among the targets nor among the predictions are excluded. scikit-learn does the same for
/// single-label data; for multi-label data, pass the other classes as its `labels`. `None` if no class remains.
pub fn macro_average(classes: &[Counts]) -> Option<PrecisionRecallF1> {
    let present: Vec<&Counts> = classes.iter().filter(|counts| counts.f1().is_some()).collect();
    let mean = |measure: fn(&Counts) -> Option<f64>| {
        ratio(present.iter().filter_map(|counts| measure(counts)).sum(), present.len() as f64)
    };
    Some(PrecisionRecallF1 {
        precision: mean(Counts::precision)?,
        recall: mean(Counts::recall)?,
        f1: mean(Counts::f1)?,
    })
}

/// Precision, recall and F1 over the decisions of all classes: `precision_recall_fscore_support(average="micro")`.
/// Undefined ratios count as 0, as there; `None` if all three are undefined.
///
/// For single-label data all three equal the accuracy.
pub fn micro_average(classes: &[Counts]) -> Option<PrecisionRecallF1> {
    let sum = classes.iter().fold(Counts::default(), |sum, counts| Counts {
        true_positive: sum.true_positive.saturating_add(counts.true_positive),
        false_positive: sum.false_positive.saturating_add(counts.false_positive),
        false_negative: sum.false_negative.saturating_add(counts.false_negative),
        true_negative: sum.true_negative.saturating_add(counts.true_negative),
    });
    let or_zero = |value: Option<f64>| value.unwrap_or(0.0);
    sum.f1().map(|f1| PrecisionRecallF1 { precision: or_zero(sum.precision()), recall: or_zero(sum.recall()), f1 })
}

/// The confusion matrix of a single-label task: `sklearn.metrics.confusion_matrix`.
///
/// ```
/// # fn main() -> clipwise::Result<()> {
/// let confusion = clipwise::metrics::Confusion::new(&[0, 0, 1, 2], &[0, 1, 1, 1], 3)?;
/// assert_eq!(confusion.counts()[[0, 1]], 1); // one clip of class 0 was predicted as class 1
/// assert_eq!(confusion.accuracy(), Some(0.5));
/// assert_eq!(confusion.recall(0), Some(0.5));
/// assert_eq!(confusion.precision(2), None); // never predicted
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    counts: Array2<u64>,
}

impl Confusion {
    /// Counts pairs of class indices. Both slices are `[n]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the lengths differ, an index is not below `n_classes`, or there are more than 8192
    /// classes.
    pub fn new(targets: &[usize], predictions: &[usize], n_classes: usize) -> Result<Self> {
        check_lengths("predictions", predictions.len(), "targets", targets.len())?;
        if n_classes > MAX_CONFUSION_CLASSES {
            let reason = format!("expected at most {MAX_CONFUSION_CLASSES}");
            return Err(Error::argument("n_classes", n_classes, reason));
        }
        let mut counts = Array2::zeros((n_classes, n_classes));
        for (at, (&target, &prediction)) in targets.iter().zip(predictions).enumerate() {
            check_class("targets", target, n_classes, at)?;
            check_class("predictions", prediction, n_classes, at)?;
            counts[[target, prediction]] += 1;
        }
        Ok(Self { counts })
    }

    /// The counts `[n_classes, n_classes]`, one row per true class, one column per predicted class.
    pub fn counts(&self) -> ArrayView2<'_, u64> {
        self.counts.view()
    }

    /// The number of classes.
    pub fn n_classes(&self) -> usize {
        self.counts.nrows()
    }

    /// The fraction on the diagonal: `accuracy_score`. `None` if nothing was counted.
    pub fn accuracy(&self) -> Option<f64> {
        ratio(self.counts.diag().sum() as f64, self.counts.sum() as f64)
    }

    /// One class against the rest: `multilabel_confusion_matrix`. `None` if there is no such class.
    pub fn class(&self, class: usize) -> Option<Counts> {
        self.class_of(class, self.counts.sum())
    }

    fn class_of(&self, class: usize, total: u64) -> Option<Counts> {
        let true_positive = *self.counts.get([class, class])?;
        let false_negative = self.counts.row(class).sum() - true_positive;
        let false_positive = self.counts.column(class).sum() - true_positive;
        let true_negative = total - true_positive - false_negative - false_positive;
        Some(Counts { true_positive, false_positive, false_negative, true_negative })
    }

    /// [`Confusion::class`] of every class.
    pub fn classes(&self) -> Vec<Counts> {
        let total = self.counts.sum();
        (0..self.n_classes()).filter_map(|class| self.class_of(class, total)).collect()
    }

    /// [`Counts::precision`] of a class; `None` also if there is no such class.
    pub fn precision(&self, class: usize) -> Option<f64> {
        self.class(class)?.precision()
    }

    /// [`Counts::recall`] of a class; `None` also if there is no such class.
    pub fn recall(&self, class: usize) -> Option<f64> {
        self.class(class)?.recall()
    }

    /// [`Counts::f1`] of a class; `None` also if there is no such class.
    pub fn f1(&self, class: usize) -> Option<f64> {
        self.class(class)?.f1()
    }

    /// [`macro_average`] over the classes.
    pub fn macro_average(&self) -> Option<PrecisionRecallF1> {
        macro_average(&self.classes())
    }

    /// [`micro_average`] over the classes.
    pub fn micro_average(&self) -> Option<PrecisionRecallF1> {
        micro_average(&self.classes())
    }
}
