//! The interface by which a model family registers.
//!
//! A family is one file. Its `Config` implements [`Family`], and one entry in the list in `models/mod.rs` names it.

use candle_core::Device;

use super::TaggingModel;
use crate::assumption::Assumption;
use crate::error::Result;
use crate::weights::Weights;

/// Presets, detection and loading of one model family; implemented by its configuration.
pub(super) trait Family: Clone + 'static {
    /// The presets, each with a one-line description.
    const PRESETS: &'static [(Self, &'static str)];

    /// Tensor names that identify a checkpoint of this family below any prefix, one list per layout.
    const SIGNATURES: &'static [&'static [&'static str]];

    /// The preset's name, or the name given in the configuration file.
    fn name(&self) -> &str;

    /// The configuration that fits a checkpoint whose tensors have no prefix, and the assumptions made. `None` if the
    /// checkpoint belongs to another family or its tensors do not determine the configuration.
    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>>;

    /// Takes the sizes that may differ from the preset's from a checkpoint.
    fn fit(&mut self, weights: &Weights);

    /// Loads the model.
    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>>;
}

/// The preset that equals `renamed(preset)`, a configuration carrying that preset's name.
pub(super) fn matching_preset<C: Family + PartialEq>(renamed: impl Fn(&C) -> C) -> Option<&'static C> {
    C::PRESETS.iter().map(|(preset, _)| preset).find(|preset| **preset == renamed(preset))
}

/// Generates [`ModelConfig`](super::ModelConfig), and everything that dispatches over families, from the list of
/// families.
macro_rules! families {
    ($($(#[$doc:meta])* $variant:ident: $module:ident::$model:ident,)*) => {
        $(#[doc(inline)]
        pub use $module::$model;)*

        /// The configuration of any model, in the format of `config.json`: `{"model": "cnn14", …}`.
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

        /// All presets, grouped by family.
        pub fn presets() -> impl Iterator<Item = Preset> {
            let families: [fn() -> Vec<Preset>; _] = [$(presets_of::<$module::Config>,)*];
            families.into_iter().flat_map(|presets| presets())
        }

        /// The signatures of all families.
        fn signatures() -> Vec<&'static [&'static str]> {
            [$($module::Config::SIGNATURES,)*].concat()
        }

        /// The first family that recognises the checkpoint's tensors, taken without a prefix.
        fn detect_here(weights: &Weights) -> Result<Option<(ModelConfig, Vec<Assumption>)>> {
            $(if let Some((config, assumptions)) = $module::Config::detect(weights)? {
                return Ok(Some((config.into(), assumptions)));
            })*
            Ok(None)
        }

        impl ModelConfig {
            /// The preset's name, or the name given in the configuration file.
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
