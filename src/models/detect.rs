//! Which model a checkpoint is for, from its keys and shapes.

use super::{ModelConfig, detect_here, presets, signatures};
use crate::assumption::Assumption;
use crate::error::{Error, Result};
use crate::weights::Weights;
use crate::weights::place::{left_out, only};

/// The model of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Detected {
    /// Its configuration, sizes taken from the checkpoint.
    pub config: ModelConfig,
    /// Where its tensors stand in the checkpoint, as [`Weights::at`] takes it: `net` for `net.fc1.weight`; usually empty.
    pub place: String,
    /// What the checkpoint does not say and was assumed.
    pub assumptions: Vec<Assumption>,
}

/// Prefixes below which a model is looked for, at most.
const MAX_PLACES: usize = 16;

/// Finds the model for a checkpoint from the names and shapes of its tensors.
///
/// A model may stand below any prefix that its tensors share, beside other tensors: [`Detected::place`]. Tensors beside it are
/// left out, and named in [`Detected::assumptions`]. Whether all tensors fit is seen at [`ModelConfig::load`].
///
/// `Cnn14_DecisionLevelMax` and `…Avg` have exactly the tensors of CNN14 but compute something else: they are told apart by
/// these words in the published file name.
///
/// # Errors
/// [`Error::UnknownModel`] if no model of this crate has such tensors, with a guess at what it is, or if there are several.
pub fn detect(weights: &Weights) -> Result<Detected> {
    let whole = [String::new()];
    let prefixes = weights.places(&signatures()).into_iter().filter(|place| !place.is_empty()).take(MAX_PLACES);
    let mut found = Vec::new();
    for place in whole.into_iter().chain(prefixes) {
        if let Some((config, assumptions)) = detect_here(&weights.at(&place))? {
            found.push(Detected { config, place, assumptions });
            if found[0].place.is_empty() {
                break;
            }
        }
    }
    let place = only(weights, &found.iter().map(|detected| detected.place.as_str()).collect::<Vec<_>>())?;
    let mut detected = found.pop().ok_or_else(|| unknown(weights))?;
    detected.assumptions.extend(left_out(weights, &place));
    Ok(detected)
}

impl ModelConfig {
    /// Where a checkpoint has the tensors of this model, as [`Weights::at`] takes it: empty unless they stand below a prefix, or
    /// nowhere.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] if several models of the family stand below prefixes.
    pub fn place(&self, weights: &Weights) -> Result<String> {
        only(weights, &weights.places(self.signatures()))
    }
}

fn unknown(weights: &Weights) -> Error {
    let has = |prefix: &str| weights.names().any(|name| name.starts_with(prefix));
    let guess = [
        ("features.", "a MobileNet, but none of PANNs or EfficientAT"),
        ("patch_embed.", "a vision transformer, but no CED, Dasheng, EAT or PaSST"),
        ("conv_block4.", "a PANNs network of four blocks, but no Cnn6 and no Cnn10"),
        (
            "rnn.weight_hh_l0",
            "a recurrent classifier, which does not tell its front end: name the model or give a config",
        ),
        ("gru.weight_hh_l0", "a GRU classifier, which does not tell its front end: name the model or give a config"),
        (
            "tcn.network.",
            "a temporal convolutional network, which does not tell its front end: name the model or give a config",
        ),
        ("lstm.weight_hh_l0", "an LSTM classifier, which does not tell its front end: name the model or give a config"),
    ];
    let guess = guess.iter().find(|(prefix, _)| has(prefix)).map(|(_, name)| format!(" It looks like {name}."));
    let first: Vec<&str> = weights.names().take(3).collect();
    Error::UnknownModel(format!(
        "{}: no model of this version has such tensors ({} of them, the first {first:?}).{} Known models: {}",
        weights.path().unwrap_or("<bytes>".as_ref()).display(),
        weights.len(),
        guess.unwrap_or_default(),
        known(),
    ))
}

/// The names of all presets, for messages.
pub(super) fn known() -> String {
    presets().map(|preset| preset.name().to_string()).collect::<Vec<_>>().join(", ")
}
