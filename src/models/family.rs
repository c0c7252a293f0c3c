//! The list of families: how a model registers.
//!
//! A family is one file. Its `Config` implements [`Family`], and one entry of the list in `models/mod.rs` names it.

use candle_core::Device;

use super::TaggingModel;
use crate::assumption::Assumption;
use crate::error::Result;
use crate::weights::Weights;

/// What a family says about itself; implemented by its configuration.
pub(super) trait Family: Clone + 'static {
    /// The named configurations, each with one line about it.
    const PRESETS: &'static [(Self, &'static str)];

    /// The names of tensors by which a checkpoint of this family is found below a prefix, one list per layout.
    const SIGNATURES: &'static [&'static [&'static str]];

    /// The preset's name, or what the configuration file says.
    fn name(&self) -> &str;

    /// The configuration of a checkpoint whose tensors have no prefix, and what had to be assumed; `None` if it is not of this
    /// family, or if its tensors do not tell enough.
    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>>;

    /// Takes from a checkpoint the sizes that may differ from the preset's.
    fn fit(&mut self, weights: &Weights);

    /// Loads the model.
    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>>;
}

/// The preset that `renamed`, a configuration with the preset's own name, is equal to.
pub(super) fn published<C: Family + PartialEq>(renamed: impl Fn(&C) -> C) -> Option<&'static C> {
    C::PRESETS.iter().map(|(preset, _)| preset).find(|preset| **preset == renamed(preset))
}

/// Makes [`ModelConfig`](super::ModelConfig) and what needs every family from the list of families.
macro_rules! families {
    ($($(#[$doc:meta])* $variant:ident: $module:ident::$model:ident,)*) => {
        $(#[doc(inline)]
        pub use $module::$model;)*

        /// The configuration of any model, as it stands in a `config.json`: `{"model": "cnn14", …}`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "model", rename_all = "lowercase")]
        #[non_exhaustive]
        pub enum ModelConfig {
            $($(#[$doc])* $variant($module::Config),)*
        }

        $(impl From<$module::Config> for ModelConfig {
            fn from(config: $module::Config) -> Self {
                Self::$variant(config)
            }
        })*

        /// Every named configuration, by family.
        pub fn presets() -> impl Iterator<Item = Preset> {
            let families: [fn() -> Vec<Preset>; _] = [$(presets_of::<$module::Config>,)*];
            families.into_iter().flat_map(|presets| presets())
        }

        /// The signatures of all families.
        fn signatures() -> Vec<&'static [&'static str]> {
            [$($module::Config::SIGNATURES,)*].concat()
        }

        /// The first family whose tensors are those of the checkpoint, which have no prefix.
        fn detect_here(weights: &Weights) -> Result<Option<(ModelConfig, Vec<Assumption>)>> {
            $(if let Some((config, assumptions)) = $module::Config::detect(weights)? {
                return Ok(Some((config.into(), assumptions)));
            })*
            Ok(None)
        }

        impl ModelConfig {
            /// The name: a preset's, or what the configuration file says.
            pub fn name(&self) -> &str {
                match self { $(Self::$variant(config) => config.name(),)* }
            }

            fn signatures(&self) -> &'static [&'static [&'static str]] {
                match self { $(Self::$variant(_) => $module::Config::SIGNATURES,)* }
            }

            fn fit(&mut self, weights: &Weights) {
                match self { $(Self::$variant(config) => config.fit(weights),)* }
            }

            fn load_here(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
                match self { $(Self::$variant(config) => Family::load(config, weights, device),)* }
            }
        }
    };
}
pub(super) use families;
