//! An encoder, with the head that its checkpoint has.

use std::path::Path;

use clipwise::audio::WaveformBatch;
use clipwise::candle_core::Tensor;
use clipwise::ctc::{CtcModel, OpenOptions};
use clipwise::encoders::{Encoder, Layers, SpeechEncoder};
use clipwise::models::SpeechClassifier;
use clipwise::{Device, ModelConfig, Waveform, Weights};
use serde_json::Value;

use crate::command_line::Failure;

pub enum Model {
    Ctc(CtcModel),
    Classifier(SpeechClassifier),
    Encoder(Encoder),
}

/// The tensors of one clip, by name, and the time from a frame to the next in seconds.
pub struct Encoding {
    pub tensors: Vec<(String, Tensor)>,
    pub n_frames: usize,
    pub frame_seconds: f64,
}

impl Model {
    /// Opens a folder or a file. The `config.json` of a folder says whether there is a head.
    pub fn open(path: &Path, language: Option<&str>, device: &Device) -> Result<Self, Failure> {
        let config = path.join("config.json");
        let config: Value = match config.exists() {
            true => serde_json::from_str(&std::fs::read_to_string(config)?)?,
            false => Value::Null,
        };
        let architecture = config["architectures"][0].as_str().unwrap_or_default();
        if architecture.ends_with("ForCTC") || config.get("head").is_some() || language.is_some() {
            let mut options = OpenOptions::new().device(device);
            options.language = language.map(str::to_string);
            return Ok(Self::Ctc(CtcModel::open_with(path, &options)?));
        }
        if architecture.ends_with("Classification") {
            let preprocessor = std::fs::read_to_string(path.join("preprocessor_config.json")).ok();
            let preprocessor: Option<Value> = preprocessor.map(|text| serde_json::from_str(&text)).transpose()?;
            if let Some(ModelConfig::SpeechClassifier(config)) =
                ModelConfig::from_hugging_face(&config, preprocessor.as_ref())?
            {
                let weights = Weights::open_folder(path)?;
                return Ok(Self::Classifier(SpeechClassifier::load(&config, &weights, device)?));
            }
        }
        Ok(Self::Encoder(Encoder::open(path, device)?))
    }

    pub fn encoder(&self) -> &dyn SpeechEncoder {
        match self {
            Self::Ctc(model) => model.encoder(),
            Self::Classifier(model) => model.encoder(),
            Self::Encoder(encoder) => encoder,
        }
    }

    /// The hidden states of these layers, the output, and the logits.
    pub fn encode(&self, waveform: &Waveform, layers: &[usize]) -> clipwise::Result<Encoding> {
        let waveform = waveform.resample(self.encoder().info().sample_rate)?;
        let encoded = self.encoder().forward(&WaveformBatch::from(&waveform), Layers::All)?;
        let hidden = |&layer: &usize| Ok((format!("hidden_{layer}"), encoded.layers[layer].get(0)?));
        let mut tensors = layers.iter().map(hidden).collect::<clipwise::Result<Vec<_>>>()?;
        tensors.push(("last_hidden".to_string(), encoded.last.get(0)?));
        match self {
            Self::Ctc(model) => tensors.push(("logits".to_string(), model.forward_encoded(&encoded)?.logits.get(0)?)),
            Self::Classifier(model) => {
                tensors.push(("logits".to_string(), model.forward_encoded(&encoded)?.logits.get(0)?));
            }
            Self::Encoder(_) => {}
        }
        let frame_seconds = self.encoder().info().frame_seconds;
        Ok(Encoding { tensors, n_frames: encoded.lengths[0], frame_seconds })
    }
}
