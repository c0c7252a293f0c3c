//! An encoder, with the head that its checkpoint has.

use std::path::Path;

use clipwise::audio::WaveformBatch;
use clipwise::candle_core::{DType, Tensor};
use clipwise::ctc::{self, CtcModel};
use clipwise::encoders::{
    Encoder, Layers, OpenOptions, Qwen2AudioEncoder, SpeechEncoder, SpeechTokenizer, qwen2_audio,
};
use clipwise::models::SpeechClassifier;
use clipwise::{Detail, Device, TaggingModel, Waveform, Weights};
use serde_json::Value;

use crate::message::{Failure, cannot};

pub enum Model {
    Ctc(Box<CtcModel>),
    Classifier(Box<SpeechClassifier>),
    Qwen2Audio(Box<Qwen2AudioEncoder>),
    SpeechTokenizer(Box<SpeechTokenizer>),
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
    pub fn open(path: &Path, language: Option<&str>, options: &OpenOptions) -> Result<Self, Failure> {
        let device = options.device.as_ref().unwrap_or(&Device::Cpu);
        let config = path.join("config.json");
        let config: Value = match config.exists() {
            true => {
                let text = std::fs::read_to_string(&config).map_err(|error| cannot("read", &config, error))?;
                serde_json::from_str(&text).map_err(|error| cannot("read", &config, error))?
            }
            false => Value::Null,
        };
        let architecture = config["architectures"][0].as_str().unwrap_or_default();
        if architecture.ends_with("ForCTC") || config.get("head").is_some() || language.is_some() {
            let mut options = ctc::OpenOptions::new().device(device).precision(options.precision);
            options.language = language.map(str::to_string);
            return Ok(Self::Ctc(Box::new(CtcModel::open_with(path, &options)?)));
        }
        if config["model_type"].as_str().is_some_and(|name| name.starts_with("qwen2_audio")) {
            let config = qwen2_audio::Config::from_hugging_face(&config)?;
            let weights = Weights::open_folder(path)?.with_precision(options.precision);
            return Ok(Self::Qwen2Audio(Box::new(Qwen2AudioEncoder::load(&config, &weights, device)?)));
        }
        if config.get("semantic_dimension").is_some() {
            return Ok(Self::SpeechTokenizer(Box::new(SpeechTokenizer::open_with(path, options)?)));
        }
        let is_classifier = |class: &&str| architecture.ends_with(class);
        if ["ForSequenceClassification", "ForAudioClassification"].iter().any(is_classifier) {
            return Ok(Self::Classifier(Box::new(SpeechClassifier::open_with(path, options)?)));
        }
        Ok(Self::Encoder(Encoder::open_with(path, options)?))
    }

    pub fn encoder(&self) -> &dyn SpeechEncoder {
        match self {
            Self::Ctc(model) => model.encoder(),
            Self::Classifier(model) => model.encoder(),
            Self::Qwen2Audio(encoder) => &**encoder,
            Self::SpeechTokenizer(tokenizer) => &**tokenizer,
            Self::Encoder(encoder) => encoder,
        }
    }

    /// Computes the output, with the head if there is one, for its time.
    pub fn forward(&self, batch: &WaveformBatch) -> clipwise::Result<()> {
        match self {
            Self::Ctc(model) => model.forward(batch).map(drop),
            Self::Classifier(model) => model.forward(batch, Detail::Clip).map(drop),
            Self::Qwen2Audio(_) | Self::SpeechTokenizer(_) | Self::Encoder(_) => {
                self.encoder().forward(batch, Layers::Last).map(drop)
            }
        }
    }

    /// The hidden states of these layers, the output, and the logits.
    pub fn encode(&self, waveform: &Waveform, layers: &[usize]) -> clipwise::Result<Encoding> {
        let waveform = waveform.resample(self.encoder().info().sample_rate)?;
        let batch = WaveformBatch::from(&waveform);
        let frame_seconds = self.encoder().info().frame_seconds;
        if let Self::Qwen2Audio(encoder) = self {
            return qwen2_audio(encoder, &batch, layers);
        }
        let encoded = self.encoder().forward(&batch, Layers::All)?;
        let hidden = |&layer: &usize| Ok((format!("hidden_{layer}"), encoded.layers[layer].get(0)?));
        let mut tensors = layers.iter().map(hidden).collect::<clipwise::Result<Vec<_>>>()?;
        tensors.push(("last_hidden".to_string(), encoded.last.get(0)?));
        match self {
            Self::Ctc(model) => tensors.push(("logits".to_string(), model.forward_encoded(&encoded)?.logits.get(0)?)),
            Self::Classifier(model) => {
                tensors.push(("logits".to_string(), model.forward_encoded(&encoded)?.logits.get(0)?));
            }
            Self::SpeechTokenizer(tokenizer) => {
                let codes = tokenizer.quantize(&encoded.last.get(0)?)?;
                let shape = codes.dim();
                let codes = Tensor::from_iter(codes.into_iter().map(i64::from), &Device::Cpu)?.reshape(shape)?;
                tensors.push(("codes".to_string(), codes.to_dtype(DType::I32)?)); // [n_codebooks, n_frames]
            }
            Self::Qwen2Audio(_) | Self::Encoder(_) => {}
        }
        Ok(Encoding { tensors, n_frames: encoded.lengths[0], frame_seconds })
    }
}

/// The layers as transformers has them: all but the last in steps of 20 ms, the last one pooled to 40 ms.
fn qwen2_audio(encoder: &Qwen2AudioEncoder, batch: &WaveformBatch, layers: &[usize]) -> clipwise::Result<Encoding> {
    let output = encoder.encode(batch, Layers::All)?;
    let hidden = |&layer: &usize| {
        let state = if layer + 1 < encoder.info().n_layers { &output.layers[layer] } else { &output.last_hidden };
        Ok((format!("hidden_{layer}"), state.get(0)?))
    };
    let mut tensors = layers.iter().map(hidden).collect::<clipwise::Result<Vec<_>>>()?;
    tensors.push(("last_hidden".to_string(), output.last_hidden.get(0)?));
    if let Some(projected) = &output.projected {
        tensors.push(("projected".to_string(), projected.get(0)?));
    }
    Ok(Encoding { tensors, n_frames: output.lengths[0], frame_seconds: encoder.info().frame_seconds })
}
