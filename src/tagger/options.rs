//! Options of [`Tagger::open_with`](super::Tagger::open_with).

use std::path::{Path, PathBuf};

use candle_core::Device;

use crate::labels::LabelSet;
use crate::weights::Precision;

/// Options for opening a checkpoint.
///
/// ```no_run
/// use clipwise::{LabelSet, OpenOptions, Tagger};
///
/// # fn main() -> clipwise::Result<()> {
/// let options = OpenOptions::new().model("cnn14").labels(LabelSet::open("labels.txt")?);
/// let tagger = Tagger::open_with("checkpoint.pth", &options)?;
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
    /// The name of the model, one of [`presets`](crate::models::presets). It overrides the tensors and `config.json`.
    /// Default: these determine the model.
    pub model: Option<String>,
    /// The class names. Default: those in the folder, or those of the model.
    pub labels: Option<LabelSet>,
    /// The file or folder of the encoder, for heads that are published separately, such as Whisper-AT's. Default: the
    /// checkpoint contains all tensors.
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

    /// Sets the field [`model`](#structfield.model).
    pub fn model(self, name: impl Into<String>) -> Self {
        Self { model: Some(name.into()), ..self }
    }

    /// Sets the field [`encoder`](#structfield.encoder).
    pub fn encoder(self, encoder: impl AsRef<Path>) -> Self {
        Self { encoder: Some(encoder.as_ref().to_path_buf()), ..self }
    }

    /// Sets the field [`labels`](#structfield.labels).
    pub fn labels(self, labels: LabelSet) -> Self {
        Self { labels: Some(labels), ..self }
    }

    /// Sets the field [`precision`](#structfield.precision).
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }
}
