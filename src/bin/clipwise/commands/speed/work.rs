//! What is timed: a part of a model with its input, as a function without arguments.

use std::any::Any;
use std::path::Path;

use candle_core::Tensor;
use clap::ValueEnum;
use clipwise::encoders::{self, Encoder, Layers, SpeechEncoder, WhisperEncoder, whisper};
use clipwise::frontend::{FrontEnd, LogMel};
use clipwise::models::{cnn14, presets};
use clipwise::nn::{Cell, Rnn, RnnConfig};
use clipwise::{Detail, Device, ModelConfig, OpenOptions, Precision, Tagger, TaggingModel, WaveformBatch, Weights};

use super::seeded;
use crate::message::Failure;
use crate::model::model_name;

/// One call of what is timed.
pub type Work = Box<dyn FnMut() -> Result<(), Failure>>;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    All,
    Trunk,
    Frontend,
}

/// What is timed, and on how much.
pub struct Case<'a> {
    pub model: &'a str,
    pub part: Part,
    pub seconds: f64,
    pub batch: usize,
    pub weights: Option<&'a Path>,
    pub precision: Precision,
}

impl Case<'_> {
    /// Loads the model and makes the input.
    pub fn prepare(&self) -> Result<Work, Failure> {
        match self.model {
            "whisper-tiny" => self.whisper(),
            "encoder" => self.encoder(),
            "gru" => self.recurrent(Cell::Gru),
            "lstm" => self.recurrent(Cell::Lstm),
            _ => self.tagger(),
        }
    }

    fn clips(&self, sample_rate: u32) -> clipwise::Result<WaveformBatch> {
        let n_samples = (self.seconds * f64::from(sample_rate)).round() as usize;
        let clips = (0..self.batch).map(|row| seeded::noise(n_samples.max(1), row as u32)).collect();
        WaveformBatch::new(clips, sample_rate)
    }

    fn tagger(&self) -> Result<Work, Failure> {
        let model = self.load_tagger()?;
        let clips = self.clips(model.info().sample_rate)?;
        match (self.part, model.front_end().is_some()) {
            (Part::Frontend, false) => Err("this model takes the waveform itself: it has no front end".into()),
            (Part::Frontend, true) => front_end(model, &clips),
            (Part::Trunk, true) => {
                let features = features(&*model, &clips)?; // [batch, n_frames, n_features]
                Ok(Box::new(move || Ok(model.forward_features(&features, Detail::Clip).map(drop)?)))
            }
            (Part::All, _) | (Part::Trunk, false) => {
                Ok(Box::new(move || Ok(model.forward(&clips, Detail::Clip).map(drop)?)))
            }
        }
    }

    /// A checkpoint, a model in the box, or random weights.
    fn load_tagger(&self) -> Result<std::sync::Arc<dyn TaggingModel>, Failure> {
        let device = Device::Cpu;
        let options = OpenOptions::new().precision(self.precision);
        if let Some(path) = self.weights.filter(|_| self.model != "cnn14-narrow") {
            let options = if self.model.is_empty() { options } else { options.model(self.model) };
            return Ok(Tagger::open_with(path, &options)?.into_model());
        }
        match self.model {
            "ced-tiny" => return Ok(Tagger::bundled_with(&options)?.into_model()),
            "mn04" => return Ok(Tagger::bundled_small_with(&options)?.into_model()),
            _ => {}
        }
        let config = config(self.model)?;
        let weights = match self.weights {
            Some(path) => Weights::open(path)?,
            None => seeded::weights(|weights| config.load(weights, &device).map(drop))?,
        };
        Ok(config.load(&weights.with_precision(self.precision), &device)?.into())
    }

    /// The encoder of Whisper tiny on 16 kHz, without padding to 30 s.
    fn whisper(&self) -> Result<Work, Failure> {
        let weights = match self.weights {
            Some(path) => Weights::open(path)?,
            None => seeded::weights(|weights| {
                WhisperEncoder::load(&whisper::Config::TINY, weights, &Device::Cpu).map(drop)
            })?,
        };
        let weights = weights.with_precision(self.precision);
        let model = WhisperEncoder::load(&whisper::Config::from_weights(&weights)?, &weights, &Device::Cpu)?;
        let batch = self.clips(model.info().sample_rate)?;
        let features = |model: &WhisperEncoder, batch: &WaveformBatch| -> Result<Tensor, Failure> {
            let clips =
                batch.rows().iter().map(|clip| model.mel().compute(clip)).collect::<clipwise::Result<Vec<_>>>()?;
            let shape = (clips.len(), clips[0].nrows(), clips[0].ncols());
            Ok(Tensor::from_iter(clips.iter().flatten().copied(), &Device::Cpu)?.reshape(shape)?)
        };
        Ok(match self.part {
            Part::All => Box::new(move || Ok(model.forward(&batch, Layers::Last).map(drop)?)),
            Part::Frontend => Box::new(move || features(&model, &batch).map(drop)),
            Part::Trunk => {
                let features = features(&model, &batch)?;
                Box::new(move || Ok(model.forward_features(&features, None, Layers::Last).map(drop)?))
            }
        })
    }

    /// Any speech encoder, of the folder or file that --weights names.
    fn encoder(&self) -> Result<Work, Failure> {
        if self.part != Part::All {
            return Err("an encoder is timed as a whole".into());
        }
        let options = encoders::OpenOptions::new().precision(self.precision);
        let encoder = Encoder::open_with(self.weights.ok_or("an encoder needs --weights")?, &options)?;
        let batch = self.clips(encoder.info().sample_rate)?;
        Ok(Box::new(move || Ok(encoder.forward(&batch, Layers::Last).map(drop)?)))
    }

    /// Two bidirectional layers of 256 over 100 frames per second, as PyTorch's `GRU(64, 256, 2, batch_first=True,
    /// bidirectional=True)`.
    fn recurrent(&self, cell: Cell) -> Result<Work, Failure> {
        if self.part == Part::Frontend {
            return Err("these are recurrent layers alone: they have no front end".into());
        }
        let config = RnnConfig { cell, inputs: 64, hidden: 256, n_layers: 2, bidirectional: true, bias: true };
        let load = |weights: &Weights| {
            let root = weights.loader(&Device::Cpu);
            let rnn = Rnn::load(&root, config)?;
            root.finish("recurrent layers").map(|()| rnn)
        };
        let weights = match self.weights {
            Some(path) => Weights::open(path)?,
            None => seeded::weights(|weights| load(weights).map(drop))?,
        };
        let rnn = load(&weights.with_precision(self.precision))?;
        let n_frames = ((self.seconds * 100.0).round() as usize).max(1);
        let x =
            Tensor::from_vec(seeded::noise(self.batch * n_frames * 64, 1), (self.batch, n_frames, 64), &Device::Cpu)?;
        Ok(Box::new(move || Ok(rnn.forward(&x, None, None).map(drop)?)))
    }
}

/// The preset of this name; `cnn14-narrow` is CNN14 with an eighth of the channels.
fn config(name: &str) -> Result<ModelConfig, Failure> {
    if name == "cnn14-narrow" {
        let full = cnn14::Config::AUDIOSET_32K;
        let channels = full.channels.map(|channels| channels / 8);
        return Ok(cnn14::Config { channels, embedding_dim: full.embedding_dim / 8, ..full }.into());
    }
    let name = model_name(name).map_err(|error| format!("--model: {error}"))?;
    let preset = presets().find(|preset| preset.name() == name);
    Ok(preset.ok_or("no such preset")?.config)
}

/// The features of each clip, one after the other.
fn front_end(model: std::sync::Arc<dyn TaggingModel>, clips: &WaveformBatch) -> Result<Work, Failure> {
    let clips = clips.rows().to_vec();
    let mut out = Vec::new();
    Ok(Box::new(move || {
        let front_end = model.front_end().ok_or("this model has no front end")?;
        for clip in &clips {
            match (front_end as &dyn Any).downcast_ref::<LogMel>() {
                Some(log_mel) => {
                    out.resize(log_mel.n_frames(clip.len()) * log_mel.mel().n_mels(), 0.0);
                    log_mel.compute_into(clip, &mut out)?;
                }
                None => drop(front_end.compute(clip)?),
            }
        }
        Ok(())
    }))
}

/// Features of clips of one length, `[batch, n_frames, n_features]`.
fn features(model: &dyn TaggingModel, clips: &WaveformBatch) -> Result<Tensor, Failure> {
    let front_end: &dyn FrontEnd = model.front_end().ok_or("this model has no front end")?;
    let rows = clips.rows().iter().map(|clip| front_end.compute(clip)).collect::<clipwise::Result<Vec<_>>>()?;
    let shape = (rows.len(), rows[0].nrows(), rows[0].ncols());
    Ok(Tensor::from_iter(rows.iter().flatten().copied(), &Device::Cpu)?.reshape(shape)?)
}
