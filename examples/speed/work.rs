//! What is timed: a part of a model with its input, as a function without arguments.
//!
//! A further model is a variant of [`Model`] with its configuration and an arm of [`network`].

use std::path::Path;

use candle_core::Tensor;
use clap::ValueEnum;
use clipwise::encoders::{Encoder, Layers, SpeechEncoder, WhisperEncoder, whisper};
use clipwise::frontend::{FrontEnd, LogMel, LogMelConfig};
use clipwise::models::{
    M5, MobileNet, PannsMobileNet, ResNet, Wavegram, cnn14, efficientat, leenet, m5, panns_mobilenet, resnet, wavegram,
};
use clipwise::nn::{Cell, Rnn, RnnConfig};
use clipwise::weights::{Loader, Parameters};
use clipwise::{Detail, Device, ModelConfig, TaggingModel, WaveformBatch, Weights};

use crate::seeded;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One call of what is timed.
pub type Work = Box<dyn FnMut() -> Result<(), Failure>>;

#[derive(Clone, Copy, ValueEnum)]
pub enum Model {
    Cnn14,
    #[value(name = "cnn14-narrow")]
    Cnn14Narrow,
    #[value(name = "resnet38")]
    ResNet38,
    #[value(name = "mobilenetv1")]
    MobileNetV1,
    #[value(name = "mobilenetv2")]
    MobileNetV2,
    WavegramLogmelCnn14,
    #[value(name = "leenet11")]
    LeeNet11,
    CedTiny,
    Mn04,
    Mn10,
    /// M5 on the raw waveform at 8 kHz, 35 classes.
    M5,
    /// The encoder of Whisper tiny on 16 kHz, without padding to 30 s.
    WhisperTiny,
    /// Any speech encoder, of the folder or file that --weights names.
    Encoder,
    /// A bidirectional GRU, 2 layers of 256, over 100 frames a second of 64 values: the recurrent layers alone.
    Gru,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    All,
    Trunk,
    Frontend,
}

impl Model {
    /// `None` for what is not a model by itself.
    fn config(self) -> Result<Option<ModelConfig>, Failure> {
        let full = cnn14::Config::AUDIOSET_32K;
        Ok(Some(match self {
            Self::Gru | Self::WhisperTiny | Self::Encoder => return Ok(None),
            Self::M5 => ModelConfig::M5(m5::Config::M5),
            Self::Cnn14 => ModelConfig::Cnn14(full),
            Self::Cnn14Narrow => {
                let channels = full.channels.map(|channels| channels / 8);
                ModelConfig::Cnn14(cnn14::Config { channels, embedding_dim: full.embedding_dim / 8, ..full })
            }
            Self::ResNet38 => ModelConfig::ResNet(resnet::Config::RESNET38),
            Self::MobileNetV1 => ModelConfig::PannsMobileNet(panns_mobilenet::Config::V1),
            Self::MobileNetV2 => ModelConfig::PannsMobileNet(panns_mobilenet::Config::V2),
            Self::WavegramLogmelCnn14 => ModelConfig::Wavegram(wavegram::Config::LOGMEL_CNN14),
            Self::LeeNet11 => ModelConfig::LeeNet(leenet::Config::LEENET11),
            Self::Mn04 => ModelConfig::MobileNet(efficientat::Config::MN04),
            Self::Mn10 => ModelConfig::MobileNet(efficientat::Config::MN10),
            Self::CedTiny => serde_json::from_str(include_str!("../../weights/ced-tiny/config.json"))?,
        }))
    }

    /// The name in `clipwise::models::presets`; `None` for one that is not there.
    fn preset(self) -> Option<&'static str> {
        match self {
            Self::Cnn14 => Some("cnn14"),
            Self::Cnn14Narrow | Self::Gru | Self::WhisperTiny | Self::Encoder => None,
            Self::M5 => Some("m5"),
            Self::ResNet38 => Some("resnet38"),
            Self::MobileNetV1 => Some("mobilenetv1"),
            Self::MobileNetV2 => Some("mobilenetv2"),
            Self::WavegramLogmelCnn14 => Some("wavegram-logmel-cnn14"),
            Self::LeeNet11 => Some("leenet11"),
            Self::CedTiny => Some("ced-tiny"),
            Self::Mn04 => Some("mn04"),
            Self::Mn10 => Some("mn10"),
        }
    }

    fn seeded(self, config: &ModelConfig) -> Result<Weights, Failure> {
        Ok(match config {
            ModelConfig::Cnn14(config) => seeded::cnn14(config)?,
            ModelConfig::LeeNet(config) => seeded::leenet(config)?,
            ModelConfig::M5(config) => built(|root| M5::build(config, root))?,
            ModelConfig::MobileNet(config) => built(|root| MobileNet::build(config, root))?,
            ModelConfig::ResNet(config) => built(|root| ResNet::build(config, root))?,
            ModelConfig::PannsMobileNet(config) => built(|root| PannsMobileNet::build(config, root))?,
            ModelConfig::Wavegram(config) => built(|root| Wavegram::build(config, root))?,
            ModelConfig::Ced(_) => {
                Weights::from_bytes(include_bytes!("../../weights/ced-tiny/model.safetensors").as_slice())?
            }
            _ => return Err("this model needs --weights".into()),
        })
    }
}

/// The weights that a model would be trained from.
fn built<M>(build: impl FnOnce(&Loader) -> clipwise::Result<M>) -> Result<Weights, Failure> {
    let parameters = Parameters::new(&Device::Cpu, 1);
    build(&parameters.loader())?;
    Ok(parameters.weights()?)
}

/// Loads the model, as far as `part` needs it, and makes the input: `batch` clips of `seconds`.
pub fn prepare(model: Model, part: Part, seconds: f64, batch: usize, weights: Option<&Path>) -> Result<Work, Failure> {
    let Some(mut config) = model.config()? else {
        let other = match model {
            Model::WhisperTiny => whisper,
            Model::Encoder => encoder,
            _ => gru,
        };
        return other(part, seconds, batch, weights);
    };
    let clips = |sample_rate: u32| -> Vec<Vec<f32>> {
        let n_samples = (seconds * f64::from(sample_rate)).round() as usize;
        (0..batch).map(|row| seeded::noise(n_samples.max(1), row as u32)).collect()
    };
    let (sample_rate, front_end) = match &config {
        ModelConfig::Cnn14(config) => (config.log_mel.sample_rate, Some(config.log_mel)),
        ModelConfig::Ced(config) => (config.log_mel.sample_rate, Some(config.log_mel)),
        ModelConfig::MobileNet(config) => (config.log_mel.sample_rate, Some(config.log_mel)),
        ModelConfig::ResNet(config) => (config.log_mel.sample_rate, Some(config.log_mel)),
        ModelConfig::PannsMobileNet(config) => (config.log_mel.sample_rate, Some(config.log_mel)),
        ModelConfig::Wavegram(config) => (config.sample_rate, None),
        ModelConfig::LeeNet(config) => (config.sample_rate, None),
        ModelConfig::M5(config) => (config.sample_rate, None),
        _ => return Err("this model cannot be timed yet".into()),
    };
    if part == Part::Frontend {
        let front_end = front_end.ok_or("this model takes the waveform itself: it has no front end")?;
        return log_mel(&front_end, clips(sample_rate));
    }
    let weights = match (weights, model.preset()) {
        (None, _) => model.seeded(&config)?,
        (Some(path), None) => Weights::open(path)?,
        (Some(path), Some(preset)) => {
            let weights = Weights::open(path)?;
            config = ModelConfig::by_name(preset, &weights)?;
            weights
        }
    };
    network(&config, part, &weights, clips(sample_rate))
}

fn log_mel(config: &LogMelConfig, clips: Vec<Vec<f32>>) -> Result<Work, Failure> {
    let log_mel = LogMel::new(config)?;
    let mut out = vec![0.0; log_mel.n_frames(clips[0].len()) * config.mel.n_mels];
    log_mel.compute_into(&clips[0], &mut out)?; // a clip that is too short is an error before the clock runs
    Ok(Box::new(move || {
        clips.iter().try_for_each(|clip| log_mel.compute_into(clip, &mut out))?;
        Ok(())
    }))
}

fn network(config: &ModelConfig, part: Part, weights: &Weights, clips: Vec<Vec<f32>>) -> Result<Work, Failure> {
    let model = config.load(weights, &Device::Cpu)?;
    let features = match model.front_end() {
        Some(front_end) if part == Part::Trunk => features(front_end, &clips)?, // [batch, n_frames, n_features]
        _ => return whole(model, clips),
    };
    Ok(Box::new(move || Ok(model.forward_features(&features, Detail::Clip).map(drop)?)))
}

/// An encoder of speech is no tagger: its result are hidden states.
fn whisper(part: Part, seconds: f64, batch: usize, weights: Option<&Path>) -> Result<Work, Failure> {
    let weights = match weights {
        Some(path) => Weights::open(path)?,
        None => seeded::whisper(&whisper::Config::TINY)?,
    };
    let model = WhisperEncoder::load(&whisper::Config::from_weights(&weights)?, &weights, &Device::Cpu)?;
    let n_samples = (seconds * f64::from(model.info().sample_rate)).round() as usize;
    let clips: Vec<_> = (0..batch).map(|row| seeded::noise(n_samples.max(1), row as u32)).collect();
    let batch = WaveformBatch::new(clips, model.info().sample_rate)?;
    let features = |model: &WhisperEncoder, batch: &WaveformBatch| -> Result<Tensor, Failure> {
        let clips = batch.rows().iter().map(|clip| model.mel().compute(clip)).collect::<clipwise::Result<Vec<_>>>()?;
        let shape = (clips.len(), clips[0].nrows(), clips[0].ncols());
        Ok(Tensor::from_iter(clips.iter().flatten().copied(), &Device::Cpu)?.reshape(shape)?)
    };
    Ok(match part {
        Part::All => Box::new(move || Ok(model.forward(&batch, Layers::Last).map(drop)?)),
        Part::Frontend => Box::new(move || features(&model, &batch).map(drop)),
        Part::Trunk => {
            let features = features(&model, &batch)?;
            Box::new(move || Ok(model.forward_features(&features, None, Layers::Last).map(drop)?))
        }
    })
}

fn encoder(part: Part, seconds: f64, batch: usize, weights: Option<&Path>) -> Result<Work, Failure> {
    if part != Part::All {
        return Err("an encoder is timed as a whole".into());
    }
    let encoder = Encoder::open(weights.ok_or("an encoder needs --weights")?, &Device::Cpu)?;
    let sample_rate = encoder.info().sample_rate;
    let n_samples = (seconds * f64::from(sample_rate)).round() as usize;
    let clips = (0..batch).map(|row| seeded::noise(n_samples.max(1), row as u32)).collect();
    let batch = WaveformBatch::new(clips, sample_rate)?;
    Ok(Box::new(move || Ok(encoder.forward(&batch, Layers::Last).map(drop)?)))
}

/// Two bidirectional layers of 256, as PyTorch's `GRU(64, 256, 2, batch_first=True, bidirectional=True)`.
fn gru(part: Part, seconds: f64, batch: usize, weights: Option<&Path>) -> Result<Work, Failure> {
    if part == Part::Frontend {
        return Err("these are recurrent layers alone: they have no front end".into());
    }
    let config = RnnConfig { cell: Cell::Gru, inputs: 64, hidden: 256, n_layers: 2, bidirectional: true, bias: true };
    let rnn = match weights {
        Some(path) => Rnn::load(&Weights::open(path)?.loader(&Device::Cpu), config)?,
        None => Rnn::new(config, |name, shape| {
            let seed = name.bytes().fold(0u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
            // PyTorch's initial values: within ± 1 / √hidden; the noise has a tenth.
            let values = seeded::noise(shape.iter().product(), seed).into_iter().map(|x| x * 0.6).collect();
            Tensor::from_vec(values, shape, &Device::Cpu)
                .map_err(|cause| clipwise::Error::Tensor { context: "making seeded weights", cause })
        })?,
    };
    let n_frames = ((seconds * 100.0).round() as usize).max(1);
    let frames = seeded::noise(batch * n_frames * 64, 1);
    let x = Tensor::from_vec(frames, (batch, n_frames, 64), &Device::Cpu)?;
    Ok(Box::new(move || Ok(rnn.forward(&x, None, None).map(drop)?)))
}

fn whole(model: impl TaggingModel + 'static, clips: Vec<Vec<f32>>) -> Result<Work, Failure> {
    let batch = WaveformBatch::new(clips, model.info().sample_rate)?;
    Ok(Box::new(move || Ok(model.forward(&batch, Detail::Clip).map(drop)?)))
}

/// Features of clips of one length, `[batch, n_frames, n_features]`.
fn features(front_end: &dyn FrontEnd, clips: &[Vec<f32>]) -> Result<Tensor, Failure> {
    let rows = clips.iter().map(|clip| front_end.compute(clip)).collect::<clipwise::Result<Vec<_>>>()?;
    let shape = (clips.len(), rows[0].nrows(), front_end.n_features());
    Ok(Tensor::from_iter(rows.into_iter().flatten(), &Device::Cpu)?.reshape(shape)?)
}
