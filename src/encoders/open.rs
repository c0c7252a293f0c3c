//! Opening an encoder of any family.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use serde_json::Value;

use super::{Encoded, EncoderConfig, EncoderInfo, Layers, SpeechEncoder, SpeechTokenizer};
use crate::audio::{Waveform, WaveformBatch};
use crate::error::{Error, Result};
use crate::files;
use crate::weights::{Precision, Weights, folder};

/// Tensors beside the encoder in checkpoints of whole models.
const HEADS: [&str; 6] =
    ["lm_head.*", "ctc_head.*", "projector.*", "classifier.*", "layer_weights", "w2v_encoder.proj.*"];

/// Options for opening an encoder.
///
/// ```no_run
/// use clipwise::Precision;
/// use clipwise::encoders::{Encoder, OpenOptions};
///
/// # fn main() -> clipwise::Result<()> {
/// let encoder = Encoder::open_with("wav2vec2-base", &OpenOptions::new().precision(Precision::Int8))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// The device that the encoder runs on. Default: the CPU.
    pub device: Option<Device>,
    /// The precision in which the layers compute. Default: [`Precision::F32`].
    pub precision: Precision,
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

    /// Sets the field [`precision`](#structfield.precision).
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Passes a checkpoint with the precision, and the device, to `load`.
    pub(crate) fn apply<T>(&self, weights: Weights, load: impl FnOnce(&Weights, &Device) -> Result<T>) -> Result<T> {
        load(&weights.with_precision(self.precision), self.device.as_ref().unwrap_or(&Device::Cpu))
    }
}

/// A speech encoder of any family. Cheap to clone: the model is shared.
///
/// ```no_run
/// use clipwise::encoders::{Encoder, Layers, SpeechEncoder};
/// use clipwise::{Waveform, device};
///
/// # fn main() -> clipwise::Result<()> {
/// let encoder = Encoder::open("wav2vec2-base", &device::cpu())?;
/// let encoded = encoder.encode(&Waveform::open("speech.wav")?, Layers::All)?;
/// println!("{:?}, {} layers", encoded.last.dims(), encoded.layers.len()); // [1, n_frames, dim]
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Encoder(Arc<dyn SpeechEncoder>);

impl Encoder {
    /// Opens a folder with `config.json` and weights (`model.safetensors`, the index of its shards, or
    /// `pytorch_model.bin`), or a checkpoint file.
    ///
    /// The `config.json` is that of transformers or SpeechTokenizer, an [`EncoderConfig`], or a
    /// [`CtcConfig`](crate::ctc::CtcConfig), whose encoder is used. Without it, and for a file, the encoder is
    /// recognised from the tensors; see [`EncoderConfig::from_weights`]. Heads and decoders in the checkpoint are
    /// ignored.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Checkpoint`] if a file is invalid; [`Error::UnknownModel`] if
    /// there is no encoder of this crate; otherwise as [`EncoderConfig::build`] and
    /// [`Loader::finish`](crate::weights::Loader::finish).
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::open_with(path, &OpenOptions::new().device(device))
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Argument`] if the encoder or the device does not have the precision.
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            let weights = Weights::open(path)?;
            let config = EncoderConfig::from_weights(&weights)?;
            return options.apply(weights, |weights, device| Self::load(&config, weights, device));
        }
        if SpeechTokenizer::is_folder(path)? {
            return SpeechTokenizer::open_with(path, options).map(Self::new);
        }
        let weights = folder::open_weights(path)?;
        let config = match files::first_of(path, &["config.json"])? {
            Some(name) => config_in(path, &path.join(name))?,
            None => EncoderConfig::from_weights(&weights)?,
        };
        options.apply(weights, |weights, device| Self::load(&config, weights, device))
    }

    /// Builds the encoder from a checkpoint, which may also contain heads and decoders.
    ///
    /// # Errors
    /// As [`EncoderConfig::build`]; [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &EncoderConfig, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        HEADS.iter().for_each(|head| root.ignore(head));
        let encoder = config.build(&root)?;
        root.finish(config.name())?;
        Ok(Self(encoder.into()))
    }

    /// Wraps a loaded encoder.
    pub fn new(encoder: impl SpeechEncoder + 'static) -> Self {
        Self(Arc::new(encoder))
    }

    /// Computes the hidden states of one clip of any sample rate. It is resampled to the rate of the encoder if
    /// necessary.
    ///
    /// # Errors
    /// As [`SpeechEncoder::forward`], and [`Error::Argument`] if the sample rate is 0 Hz.
    pub fn encode(&self, waveform: &Waveform, layers: Layers) -> Result<Encoded> {
        self.forward(&(&waveform.resample(self.info().sample_rate)?).into(), layers)
    }
}

/// The encoder that the `config.json` of a folder describes.
fn config_in(folder: &Path, path: &Path) -> Result<EncoderConfig> {
    let value = folder::read_json(path)?;
    let unusable = |error: serde_json::Error| Error::Checkpoint { path: path.into(), reason: error.to_string() };
    if value.get("type").is_some() {
        return serde_json::from_value(value).map_err(unusable);
    }
    match value.get("encoder") {
        Some(encoder) if encoder.get("type").is_some() => serde_json::from_value(encoder.clone()).map_err(unusable),
        _ => EncoderConfig::from_hugging_face(&value, preprocessor(folder)?.as_ref()),
    }
}

/// The feature settings in a folder of transformers, if any: `preprocessor_config.json`, or the corresponding part of
/// `processor_config.json` (transformers 5).
pub(crate) fn preprocessor(folder: &Path) -> Result<Option<Value>> {
    let Some(name) = files::first_of(folder, &["preprocessor_config.json", "processor_config.json"])? else {
        return Ok(None);
    };
    let value: Value = folder::read_json(&folder.join(name))?;
    Ok(Some(value.get("feature_extractor").cloned().unwrap_or(value)))
}

impl SpeechEncoder for Encoder {
    fn info(&self) -> &EncoderInfo {
        self.0.info()
    }

    fn device(&self) -> &Device {
        self.0.device()
    }

    fn forward(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Encoded> {
        self.0.forward(waveforms, layers)
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_tuple("Encoder").field(&self.info().name).finish()
    }
}
