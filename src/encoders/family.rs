//! The list of families: how an encoder registers.
//!
//! A family is one file. Its `Config` implements [`Family`], and one line of the list in `encoders/mod.rs` names it.

use serde_json::Value;

use super::SpeechEncoder;
use crate::error::{Error, Result};
use crate::weights::{Loader, Weights};

/// What a family says about itself; implemented by its configuration.
pub(super) trait Family: Clone + 'static {
    /// The named configurations, each with one line about it.
    const PRESETS: &'static [(Self, &'static str)];

    /// The preset's name, or what the configuration file says.
    fn name(&self) -> &str;

    /// Length of a hidden state.
    fn dim(&self) -> usize;

    /// Whether a checkpoint has tensors where [`build`](Self::build) looks for them.
    fn is_in(weights: &Weights) -> bool;

    /// The configuration of such a checkpoint, if its tensors tell it.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] if they do not.
    fn detect(weights: &Weights) -> Result<Self>;

    /// The `model_type`s in configurations of transformers.
    const MODEL_TYPES: &'static [&'static str] = &[];

    /// From the `config.json` of a folder of transformers, with one of these types, and its `preprocessor_config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] for a model that this encoder cannot be.
    fn from_hugging_face(config: &Value, _preprocessor: Option<&Value>) -> Result<Self> {
        let model_type = config.get("model_type").unwrap_or(&Value::Null);
        Err(Error::config("model_type", model_type, "expected a model that transformers has"))
    }

    /// The encoder with the tensors that a loader gives.
    fn build(&self, root: &Loader) -> Result<Box<dyn SpeechEncoder>>;
}

/// Makes [`EncoderConfig`](super::EncoderConfig) and what needs every family from the list of families.
macro_rules! encoders {
    ($($(#[$doc:meta])* $variant:ident: $module:ident::$encoder:ident,)*) => {
        $(pub use $module::$encoder;)*

        /// The configuration of any encoder, as it stands in a `config.json`: `{"type": "whisper", …}`.
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

        /// Every named configuration, by family.
        pub fn presets() -> impl Iterator<Item = Preset> {
            let families: [fn() -> Vec<Preset>; _] = [$(presets_of::<$module::Config>,)*];
            families.into_iter().flat_map(|presets| presets())
        }

        impl EncoderConfig {
            /// The name: a preset's, or what the configuration file says.
            pub fn name(&self) -> &str {
                match self { $(Self::$variant(config) => config.name(),)* }
            }

            /// Length of a hidden state.
            pub fn dim(&self) -> usize {
                match self { $(Self::$variant(config) => Family::dim(config),)* }
            }

            /// The encoder with the tensors that a loader gives, below `encoder` or where the family's checkpoints have them.
            ///
            /// # Errors
            /// [`Error::Config`](crate::Error::Config) if the configuration cannot work, else as [`Loader::get`]; tensors that
            /// do not fit are reported by [`Loader::finish`].
            pub fn build(&self, root: &Loader) -> Result<Box<dyn SpeechEncoder>> {
                match self { $(Self::$variant(config) => Family::build(config, root),)* }
            }

            /// The encoder of a checkpoint, from its tensors.
            ///
            /// # Errors
            /// [`Error::UnknownModel`](crate::Error::UnknownModel) if it holds no encoder of this crate, or does not tell enough.
            pub fn from_weights(weights: &Weights) -> Result<Self> {
                $(if $module::Config::is_in(weights) {
                    return <$module::Config as Family>::detect(weights).map(Self::from);
                })*
                Err(Error::UnknownModel("the checkpoint holds no speech encoder of this version".to_string()))
            }

            /// The encoder of a folder of transformers, from its `config.json`, and its `preprocessor_config.json` if there is
            /// one.
            ///
            /// # Errors
            /// [`Error::UnknownModel`](crate::Error::UnknownModel) for a `model_type` that is no encoder of this crate,
            /// [`Error::Config`](crate::Error::Config) for a field of another type, and for settings that the encoder lacks.
            pub fn from_hugging_face(config: &Value, preprocessor: Option<&Value>) -> Result<Self> {
                let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
                $(if $module::Config::MODEL_TYPES.contains(&model_type) {
                    return <$module::Config as Family>::from_hugging_face(config, preprocessor).map(Self::from);
                })*
                let known = [$($module::Config::MODEL_TYPES,)*].concat().join(", ");
                Err(Error::UnknownModel(format!("expected a model_type among {known}, got {model_type:?}")))
            }

            /// Whether a `config.json` is one of transformers, of a model with an encoder of this crate.
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
