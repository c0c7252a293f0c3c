//! Evaluation metrics: average precision, ROC AUC, d′, accuracy, precision, recall, F1, top-k accuracy, confusion.
//!
//! Every function equals the one of scikit-learn that its documentation names, except that a ratio of 0/0 is `None`,
//! where scikit-learn warns and returns 0. Scores are f32 or f64. Only their order matters, +0 equals -0, infinities
//! are allowed, and NaN is an error.
//!
//! ```
//! use clipwise::metrics::{average_precision, roc_auc, d_prime};
//!
//! # fn main() -> clipwise::Result<()> {
//! let (scores, targets) = ([0.9f32, 0.8, 0.7, 0.1], [true, false, true, false]);
//! assert_eq!(average_precision(&scores, &targets)?, Some(0.5 + 0.5 * 2.0 / 3.0));
//! assert_eq!(roc_auc(&scores, &targets)?, Some(0.75));
//! assert!((d_prime(0.75) - 0.9539).abs() < 1e-4);
//! # Ok(())
//! # }
//! ```

mod decisions;
mod edit;
mod normal;
mod ranking;

pub use decisions::{Confusion, Counts, PrecisionRecallF1, accuracy, macro_average, micro_average, top_k_accuracy};
pub use edit::{Confused, Edit, EditConfusion, EditCounts, edits};
pub use ranking::{MultiLabelReport, average_precision, d_prime, mean_average_precision, roc_auc};

use crate::error::{Error, Result};

/// `part / whole`; `None` for 0/0.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

fn check_lengths(name: &'static str, got: usize, other: &str, wanted: usize) -> Result<()> {
    if got == wanted {
        return Ok(());
    }
    Err(Error::argument(name, format!("{got} values"), format!("expected {wanted}, as many as {other}")))
}

fn check_class(name: &'static str, class: usize, n_classes: usize, at: usize) -> Result<()> {
    if class < n_classes {
        return Ok(());
    }
    Err(Error::argument(name, class, format!("expected a class index below {n_classes} as value {at}")))
}
