//! Where in a checkpoint a model stands.

use super::Weights;
use crate::assumption::Assumption;
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

/// The tensors outside a model's place, if there are any.
pub(crate) fn left_out(weights: &Weights, place: &str) -> Option<Assumption> {
    let tensors: Vec<String> = weights.outside(place).map(str::to_string).collect();
    (!tensors.is_empty()).then(|| Assumption::LeftOut { place: place.to_string(), tensors })
}
