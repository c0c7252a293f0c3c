//! Where in a checkpoint a model stands.

use super::Weights;
use crate::error::{Error, Result};

/// The place of a model, given all places where there is one, the shortest first.
///
/// # Errors
/// [`Error::UnknownModel`] for several, unless one of them is all of the checkpoint.
pub(crate) fn only(weights: &Weights, places: &[impl AsRef<str>]) -> Result<String> {
    match places {
        [] => Ok(String::new()),
        [place] => Ok(place.as_ref().to_string()),
        [place, ..] if place.as_ref().is_empty() => Ok(String::new()),
        [first, second, ..] => Err(Error::UnknownModel(format!(
            "{}: expected one model, got {}, such as those below `{}.` and `{}.`: Weights::at gives the tensors of one",
            weights.path().unwrap_or("<bytes>".as_ref()).display(),
            places.len(),
            first.as_ref(),
            second.as_ref(),
        ))),
    }
}

/// What is to be said of the tensors that stand beside a model.
pub(crate) fn left_out(weights: &Weights, place: &str) -> Option<String> {
    let names: Vec<&str> = weights.outside(place).collect();
    let listed = match names.len() {
        0 => return None,
        1..=3 => names.join(", "),
        n => format!("{} and {} more", names[..3].join(", "), n - 3),
    };
    Some(format!("the model is taken to be what stands below `{place}.` in the checkpoint; left out: {listed}"))
}
