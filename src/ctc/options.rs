//! Options of [`CtcModel::open_with`](super::CtcModel::open_with).

use std::path::{Path, PathBuf};

use candle_core::Device;

use crate::weights::Precision;

/// Options for opening the folder of a CTC model.
///
/// ```no_run
/// use clipwise::ctc::{CtcModel, OpenOptions};
///
/// # fn main() -> clipwise::Result<()> {
/// let model = CtcModel::open_with("mms-1b-all", &OpenOptions::new().language("fra"))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// The device that the model runs on. Default: the CPU.
    pub device: Option<Device>,
    /// The precision in which the layers compute. Default: [`Precision::F32`].
    pub precision: Precision,
    /// The language of an MMS model, for example `fra` for `adapter.fra.safetensors`. It selects the adapters, the head
    /// and the vocabulary. Default: those of the folder's weights, with the vocabulary that `tokenizer_config.json`
    /// names.
    pub language: Option<String>,
    /// The checkpoint of the published encoder, or a folder with one, if the model's folder has only the weighted sum and
    /// the head. Default: the folder has all tensors.
    pub encoder: Option<PathBuf>,
}

impl OpenOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the field [`device`](#structfield.device).
    pub fn device(self, device: &Device) -> Self {
        Self { device: Some(device.clone()), ..self }
    }

    /// Sets the field [`language`](#structfield.language).
    pub fn language(self, language: impl Into<String>) -> Self {
        Self { language: Some(language.into()), ..self }
    }

    /// Sets the field [`encoder`](#structfield.encoder).
    pub fn encoder(self, encoder: impl AsRef<Path>) -> Self {
        Self { encoder: Some(encoder.as_ref().to_path_buf()), ..self }
    }

    /// Sets the field [`precision`](#structfield.precision).
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }
}
