//! Detects which model a checkpoint belongs to, from the names and shapes of its tensors.

use super::{ModelConfig, detect_here, presets, signatures};
use crate::assumption::Assumption;
use crate::error::{Error, Result};
use crate::weights::Weights;
use crate::weights::place::{left_out, only};

/// The model that fits a checkpoint.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Detected {
    /// The configuration, with sizes taken from the checkpoint.
    pub config: ModelConfig,
    /// The prefix of the model's tensors, as [`Weights::at`] takes it: `net` for `net.fc1.weight`. Usually empty.
    pub place: String,
    /// What the checkpoint does not determine and was assumed.
    pub assumptions: Vec<Assumption>,
}

/// Maximum number of prefixes that are searched for a model.
const MAX_PREFIXES: usize = 16;

/// Finds the model for a checkpoint from the names and shapes of its tensors.
///
/// The model may lie below any common prefix ([`Detected::place`]). Tensors outside the prefix are ignored and listed
/// in [`Detected::assumptions`]. [`ModelConfig::load`] checks that all tensors fit.
///
/// `Cnn14_DecisionLevelMax` and `…Avg` have exactly the tensors of CNN14 but compute something else. They are
/// recognised by these words in the published file name.
///
/// # Errors
/// [`Error::UnknownModel`], with a hint at what the checkpoint is, if no model of this crate has such tensors, or if
/// several do.
pub fn detect(weights: &Weights) -> Result<Detected> {
    let whole = [String::new()];
    let prefixes = weights.places(&signatures()).into_iter().filter(|place| !place.is_empty()).take(MAX_PREFIXES);
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
    /// The prefix of this model's tensors in a checkpoint, as [`Weights::at`] takes it. Empty if they have no prefix or
    /// are not found.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] if the checkpoint holds several models of the family, each below its own prefix.
    pub fn place(&self, weights: &Weights) -> Result<String> {
        only(weights, &weights.places(self.signatures()))
    }
}

fn unknown(weights: &Weights) -> Error {
    let has = |prefix: &str| weights.names().any(|name| name.starts_with(prefix));
    let hint = [
        ("features.", "a MobileNet, but not one of PANNs or EfficientAT"),
        ("patch_embed.", "a vision transformer, but not CED, Dasheng, EAT or PaSST"),
        ("conv_block4.", "a PANNs network of four blocks, but not Cnn6 or Cnn10"),
        (
            "rnn.weight_hh_l0",
            "a recurrent classifier, whose front end the tensors do not determine: give the model's name or a config.json",
        ),
        (
            "gru.weight_hh_l0",
            "a GRU classifier, whose front end the tensors do not determine: give the model's name or a config.json",
        ),
        (
            "tcn.network.",
            "a temporal convolutional network, whose front end the tensors do not determine: give the model's name or a config.json",
        ),
        (
            "lstm.weight_hh_l0",
            "an LSTM classifier, whose front end the tensors do not determine: give the model's name or a config.json",
        ),
    ];
    let hint = hint.iter().find(|(prefix, _)| has(prefix)).map(|(_, name)| format!(" It looks like {name}."));
    let first: Vec<&str> = weights.names().take(3).collect();
    Error::UnknownModel(format!(
        "{}: no supported model has such tensors ({} tensors, the first are {first:?}).{} Known models: {}",
        weights.path().unwrap_or("<bytes>".as_ref()).display(),
        weights.len(),
        hint.unwrap_or_default(),
        known(),
    ))
}

/// The names of all presets, for messages.
pub(super) fn known() -> String {
    presets().map(|preset| preset.name().to_string()).collect::<Vec<_>>().join(", ")
}
