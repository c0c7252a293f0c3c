//! The list of families: how an encoder registers.
//!
//! A family is one file. Its `Config` implements [`Family`], and one line of the list in `encoders/mod.rs` names it.

use super::SpeechEncoder;
use crate::error::Result;
use crate::weights::{Loader, Weights};

/// What a family says about itself; implemented by its configuration.
pub(super) trait Family: Clone + 'static {
    /// The named configurations, each with one line about it.
    const PRESETS: &'static [(Self, &'static str)];

    /// The preset's name, or what the configuration file says.
    fn name(&self) -> &str;

    /// Whether a checkpoint has tensors where [`build`](Self::build) looks for them.
    fn is_in(weights: &Weights) -> bool;

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

            /// The encoder with the tensors that a loader gives, below `encoder` or where the family's checkpoints have them.
            ///
            /// # Errors
            /// [`Error::Config`](crate::Error::Config) if the configuration cannot work, else as [`Loader::get`]; tensors that
            /// do not fit are reported by [`Loader::finish`].
            pub fn build(&self, root: &Loader) -> Result<Box<dyn SpeechEncoder>> {
                match self { $(Self::$variant(config) => Family::build(config, root),)* }
            }

            /// Whether a checkpoint has tensors where [`build`](Self::build) looks for them.
            pub(crate) fn is_in(&self, weights: &Weights) -> bool {
                match self { $(Self::$variant(_) => $module::Config::is_in(weights),)* }
            }
        }
    };
}
pub(super) use encoders;
