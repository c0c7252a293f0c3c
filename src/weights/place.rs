//! Finding a model in a checkpoint that holds more.

use super::Weights;
use crate::assumption::Assumption;
use crate::error::{Error, Result};

/// Selects the prefix of a model among those that match, which are sorted by length.
///
/// # Errors
/// [`Error::UnknownModel`] if several match, unless one of them is the empty prefix.
pub(crate) fn only(weights: &Weights, places: &[impl AsRef<str>]) -> Result<String> {
    match places {
        [] => Ok(String::new()),
        [place] => Ok(place.as_ref().to_string()),
        [place, ..] if place.as_ref().is_empty() => Ok(String::new()),
        [first, second, ..] => Err(Error::UnknownModel(format!(
            "{}: expected one model, got {}, such as those below `{}.` and `{}.`: select one with Weights::at",
            weights.path().unwrap_or("<bytes>".as_ref()).display(),
            places.len(),
            first.as_ref(),
            second.as_ref(),
        ))),
    }
}

/// The assumption that tensors outside a model's prefix are ignored, if there are any.
pub(crate) fn left_out(weights: &Weights, place: &str) -> Option<Assumption> {
    let tensors: Vec<String> = weights.outside(place).map(str::to_string).collect();
    (!tensors.is_empty()).then(|| Assumption::LeftOut { place: place.to_string(), tensors })
}
