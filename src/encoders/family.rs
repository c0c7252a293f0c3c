//! Registration of encoder families.
//!
//! A family is one file. Its `Config` implements [`Family`], and one line in the list in `encoders/mod.rs` registers
//! it.

use serde_json::Value;

use super::SpeechEncoder;
use crate::error::{Error, Result};
use crate::weights::{Loader, Weights};

/// A family of encoders; implemented by its configuration.
pub(super) trait Family: Clone + 'static {
    /// The named configurations, each with a one-line description.
    const PRESETS: &'static [(Self, &'static str)];

    /// The name: that of the preset, or the one in the configuration file.
    fn name(&self) -> &str;

    /// Width of a hidden state.
    fn dim(&self) -> usize;

    /// Whether a checkpoint has tensors where [`build`](Self::build) looks for them.
    fn is_in(weights: &Weights) -> bool;

    /// The configuration of such a checkpoint, from its tensors.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] if they do not determine it.
    fn detect(weights: &Weights) -> Result<Self>;

    /// The values of `model_type` in configurations of transformers.
    const MODEL_TYPES: &'static [&'static str] = &[];

    /// The configuration from a folder saved by transformers: its `config.json`, with one of these types, and
    /// `preprocessor_config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] if this encoder does not support the model.
    fn from_hugging_face(config: &Value, _preprocessor: Option<&Value>) -> Result<Self> {
        let model_type = config.get("model_type").unwrap_or(&Value::Null);
        Err(Error::config("model_type", model_type, "expected a model with a configuration in transformers"))
    }

    /// Builds the encoder from a loader.
    fn build(&self, root: &Loader) -> Result<Box<dyn SpeechEncoder>>;
}

/// Generates [`EncoderConfig`](super::EncoderConfig) and the functions over all families from the list of families.
macro_rules! encoders {
    ($($(#[$doc:meta])* $variant:ident: $module:ident::$encoder:ident,)*) => {
        $(pub use $module::$encoder;)*

        /// The configuration of an encoder of any family, as in a `config.json`: `{"type": "whisper", …}`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum EncoderConfig {
            $($(#[$doc])* $variant($module::Config),)*
        }

        $(impl From<$module::Config> for EncoderConfig {
            fn from(config: $module::Config) -> Self {
                Self::$variant(config)
            }
        })*

        /// All named configurations, by family.
        pub fn presets() -> impl Iterator<Item = Preset> {
            let families: [fn() -> Vec<Preset>; _] = [$(presets_of::<$module::Config>,)*];
            families.into_iter().flat_map(|presets| presets())
        }

        impl EncoderConfig {
            /// The name: that of a preset, or the one in the configuration file.
            pub fn name(&self) -> &str {
                match self { $(Self::$variant(config) => config.name(),)* }
            }

            /// Width of a hidden state.
            pub fn dim(&self) -> usize {
                match self { $(Self::$variant(config) => Family::dim(config),)* }
            }

            /// Builds the encoder from a loader, below `encoder` or where the checkpoints of the family have it.
            ///
            /// # Errors
            /// [`Error::Config`](crate::Error::Config) if the configuration is invalid; otherwise as [`Loader::get`].
            /// Tensors that do not fit are reported by [`Loader::finish`].
            pub fn build(&self, root: &Loader) -> Result<Box<dyn SpeechEncoder>> {
                match self { $(Self::$variant(config) => Family::build(config, root),)* }
            }

            /// Recognises the encoder of a checkpoint from its tensors.
            ///
            /// # Errors
            /// [`Error::UnknownModel`](crate::Error::UnknownModel) if the checkpoint has no encoder of this crate, or
            /// not enough information.
            pub fn from_weights(weights: &Weights) -> Result<Self> {
                $(if $module::Config::is_in(weights) {
                    return <$module::Config as Family>::detect(weights).map(Self::from);
                })*
                Err(Error::UnknownModel("expected a checkpoint of a speech encoder that this version supports".to_string()))
            }

            /// The encoder of a folder saved by transformers, from its `config.json` and, if it exists, its
            /// `preprocessor_config.json`.
            ///
            /// # Errors
            /// [`Error::UnknownModel`](crate::Error::UnknownModel) if `model_type` is not that of an encoder of this
            /// crate; [`Error::Config`](crate::Error::Config) if a field has another type, or if the encoder does not
            /// support a setting.
            pub fn from_hugging_face(config: &Value, preprocessor: Option<&Value>) -> Result<Self> {
                let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
                $(if $module::Config::MODEL_TYPES.contains(&model_type) {
                    return <$module::Config as Family>::from_hugging_face(config, preprocessor).map(Self::from);
                })*
                let known = [$($module::Config::MODEL_TYPES,)*].concat().join(", ");
                Err(Error::UnknownModel(format!("expected one of the model types {known}, got {model_type:?}")))
            }

            /// Whether a `config.json` is from transformers, for a model with an encoder of this crate.
            pub(crate) fn is_hugging_face(config: &Value) -> bool {
                let model_type = config.get("model_type").and_then(Value::as_str);
                model_type.is_some_and(|name| [$($module::Config::MODEL_TYPES,)*].concat().contains(&name))
            }

            /// Whether a checkpoint has tensors where [`build`](Self::build) looks for them.
            pub(crate) fn is_in(&self, weights: &Weights) -> bool {
                match self { $(Self::$variant(_) => $module::Config::is_in(weights),)* }
            }
        }
    };
}
pub(super) use encoders;
