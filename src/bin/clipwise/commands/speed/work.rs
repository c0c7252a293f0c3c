//! What is timed: a part of a model with its input, as a function without arguments.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use clap::ValueEnum;
use clipwise::ctc::{CtcConfig, CtcModel, HeadConfig};
use clipwise::encoders::{self, Encoder, EncoderConfig, Layers, SpeechEncoder, WhisperEncoder, whisper};
use clipwise::frontend::{FrontEnd, LogMel, LogMelConfig};
use clipwise::models::{cnn14, presets};
use clipwise::nn::{Cell, Rnn, RnnConfig};
use clipwise::{Detail, Device, ModelConfig, OpenOptions, Precision, Tagger, TaggingModel, WaveformBatch, Weights};

use super::seeded;
use crate::commands::encode::Model;
use crate::message::Failure;
use crate::model::BUILT_IN;

/// One call of what is timed.
pub type Work = Box<dyn FnMut() -> Result<(), Failure>>;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    All,
    Trunk,
    Frontend,
}

/// What is timed, and on how much.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    pub model: &'a str,
    pub part: Part,
    pub seconds: f64,
    pub batch: usize,
    pub weights: Option<&'a Path>,
    pub precision: Precision,
    /// Of a CTC head on an encoder with random weights.
    pub n_tokens: Option<usize>,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self {
            model: CHECKPOINT,
            part: Part::All,
            seconds: 10.0,
            batch: 1,
            weights: None,
            precision: Precision::F32,
            n_tokens: None,
        }
    }
}

/// The name for whatever a checkpoint is.
pub const CHECKPOINT: &str = "checkpoint";
/// What has a name beside the presets.
const KINDS: [&str; 5] = ["cnn14-narrow", "gru", "lstm", "log-mel", CHECKPOINT];

impl Case<'_> {
    /// Loads the model and makes the input.
    pub fn prepare(&self) -> Result<Work, Failure> {
        let encoder = encoders::presets().find(|preset| preset.name() == self.model);
        if self.n_tokens.is_some() && encoder.is_none() {
            return Err("--tokens: expected a speech encoder".into());
        }
        match (self.model, encoder.map(|preset| preset.config)) {
            (_, Some(EncoderConfig::Whisper(config))) if self.n_tokens.is_none() => self.whisper(&config),
            (_, Some(config)) => self.encoder(&config),
            (CHECKPOINT, None) => self.checkpoint(),
            ("gru", None) => self.recurrent(Cell::Gru),
            ("lstm", None) => self.recurrent(Cell::Lstm),
            ("log-mel", None) => self.log_mel(),
            _ => self.tagger(),
        }
    }

    /// As the command line spells it.
    pub fn part_name(&self) -> String {
        self.part.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The name of the model or of the checkpoint.
    pub fn label(&self) -> String {
        match (self.model, self.weights.and_then(Path::file_name), self.n_tokens) {
            (CHECKPOINT, Some(file), _) => file.to_string_lossy().into_owned(),
            (model, _, Some(n)) => format!("{model}+ctc{n}"),
            (model, ..) => model.to_owned(),
        }
    }

    /// Whether the model has neither a checkpoint nor a place in the box.
    pub fn has_random_weights(&self) -> bool {
        self.weights.is_none() && BUILT_IN.iter().all(|(name, _)| *name != self.model)
    }

    fn clips(&self, sample_rate: u32) -> clipwise::Result<WaveformBatch> {
        let n_samples = (self.seconds * f64::from(sample_rate)).round() as usize;
        let clips = (0..self.batch).map(|row| seeded::noise(n_samples.max(1), row as u32)).collect();
        WaveformBatch::new(clips, sample_rate)
    }

    /// Weights of a model that `load` loads: those of the checkpoint, or random ones.
    fn weights(&self, load: impl Fn(&Weights) -> clipwise::Result<()>) -> Result<Weights, Failure> {
        let weights = match self.weights {
            Some(path) if path.is_dir() => Weights::open_folder(path)?,
            Some(path) => Weights::open(path)?,
            None => seeded::weights(load)?,
        };
        Ok(weights.with_precision(self.precision))
    }

    fn tagger(&self) -> Result<Work, Failure> {
        self.tagging(self.load_tagger()?)
    }

    fn tagging(&self, model: Arc<dyn TaggingModel>) -> Result<Work, Failure> {
        let clips = self.clips(model.info().sample_rate)?;
        match (self.part, model.front_end().is_some()) {
            (Part::Frontend, false) => Err("this model takes the waveform itself: it has no front end".into()),
            (Part::Frontend, true) => {
                let mut out = Vec::new();
                Ok(Box::new(move || features_only(model.front_end(), &clips, &mut out)))
            }
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
    fn load_tagger(&self) -> Result<Arc<dyn TaggingModel>, Failure> {
        let options = OpenOptions::new().precision(self.precision);
        if let Some(path) = self.weights.filter(|_| self.model != "cnn14-narrow") {
            return Ok(Tagger::open_with(path, &options.model(self.model))?.into_model());
        }
        match self.model {
            "ced-tiny" => return Ok(Tagger::bundled_with(&options)?.into_model()),
            "mn04" => return Ok(Tagger::bundled_small_with(&options)?.into_model()),
            _ => {}
        }
        let (config, device) = (config(self.model)?, Device::Cpu);
        let weights = self.weights(|weights| config.load(weights, &device).map(drop))?;
        Ok(config.load(&weights, &device)?.into())
    }

    /// A tagger, else a speech encoder with the head that it has.
    fn checkpoint(&self) -> Result<Work, Failure> {
        let path = self.weights.ok_or("--model checkpoint needs --weights")?;
        let not_a_tagger = match Tagger::open_with(path, &OpenOptions::new().precision(self.precision)) {
            Ok(tagger) => return self.tagging(tagger.into_model()),
            Err(error) => error,
        };
        let options = encoders::OpenOptions::new().precision(self.precision);
        let model = Model::open(path, None, &options).map_err(|_| not_a_tagger)?;
        self.whole()?;
        let batch = self.clips(model.encoder().info().sample_rate)?;
        Ok(Box::new(move || Ok(model.forward(&batch)?)))
    }

    fn whole(&self) -> Result<(), Failure> {
        match self.part {
            Part::All => Ok(()),
            _ => Err("expected --part all: this encoder is timed as a whole".into()),
        }
    }

    /// The encoder of Whisper on 16 kHz, without padding to 30 s.
    fn whisper(&self, config: &whisper::Config) -> Result<Work, Failure> {
        let load = |weights: &Weights| WhisperEncoder::load(config, weights, &Device::Cpu);
        let model = load(&self.weights(|weights| load(weights).map(drop))?)?;
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

    /// A speech encoder, with a linear CTC head if `n_tokens` is given.
    fn encoder(&self, config: &EncoderConfig) -> Result<Work, Failure> {
        self.whole()?;
        let Some(n_tokens) = self.n_tokens else {
            let load = |weights: &Weights| Encoder::load(config, weights, &Device::Cpu);
            let encoder = load(&self.weights(|weights| load(weights).map(drop))?)?;
            let batch = self.clips(encoder.info().sample_rate)?;
            return Ok(Box::new(move || Ok(encoder.forward(&batch, Layers::Last).map(drop)?)));
        };
        let config = CtcConfig {
            encoder: config.clone(),
            weighted_sum: None,
            head: HeadConfig::linear(config.dim(), n_tokens),
            vocabulary: Default::default(),
        };
        let load = |weights: &Weights| {
            let root = weights.loader(&Device::Cpu);
            let model = CtcModel::build(&config, &root)?;
            root.finish("a CTC model").map(|()| model)
        };
        let model = load(&self.weights(|weights| load(weights).map(drop))?)?;
        let batch = self.clips(model.sample_rate())?;
        Ok(Box::new(move || Ok(model.forward(&batch).map(drop)?)))
    }

    /// PANNs' log-mel alone.
    fn log_mel(&self) -> Result<Work, Failure> {
        if self.part == Part::Trunk {
            return Err("log-mel is a front end alone".into());
        }
        if self.precision != Precision::F32 {
            return Err(format!("expected --precision f32 for a front end, got {}", self.precision).into());
        }
        let log_mel = LogMel::new(&LogMelConfig::PANNS_32K)?;
        let clips = self.clips(LogMelConfig::PANNS_32K.sample_rate)?;
        let mut out = Vec::new();
        Ok(Box::new(move || features_only(Some(&log_mel), &clips, &mut out)))
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
        let rnn = load(&self.weights(|weights| load(weights).map(drop))?)?;
        let n_frames = ((self.seconds * 100.0).round() as usize).max(1);
        let x =
            Tensor::from_vec(seeded::noise(self.batch * n_frames * 64, 1), (self.batch, n_frames, 64), &Device::Cpu)?;
        Ok(Box::new(move || Ok(rnn.forward(&x, None, None).map(drop)?)))
    }
}

/// A name that [`Case::prepare`] knows. The error for another one lists those that are most alike.
pub fn model_name(text: &str) -> Result<String, String> {
    let mut names = names();
    if names.iter().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    names.sort_by(|a, b| strsim::jaro_winkler(b, text).total_cmp(&strsim::jaro_winkler(a, text)));
    names.truncate(3);
    Err(format!("no model or encoder has this name; similar: {}", names.join(", ")))
}

/// The preset of this name; `cnn14-narrow` is CNN14 with an eighth of the channels.
fn config(name: &str) -> Result<ModelConfig, Failure> {
    if name == "cnn14-narrow" {
        let full = cnn14::Config::AUDIOSET_32K;
        let channels = full.channels.map(|channels| channels / 8);
        return Ok(cnn14::Config { channels, embedding_dim: full.embedding_dim / 8, ..full }.into());
    }
    Ok(presets().find(|preset| preset.name() == name).ok_or("no such preset")?.config)
}

/// All names that [`Case::prepare`] knows.
fn names() -> Vec<String> {
    let models = presets().map(|preset| preset.name().to_owned());
    let encoders = encoders::presets().map(|preset| preset.name().to_owned());
    models.chain(encoders).chain(KINDS.map(str::to_owned)).collect()
}

/// Computes the features of each clip, one after the other.
fn features_only(front_end: Option<&dyn FrontEnd>, clips: &WaveformBatch, out: &mut Vec<f32>) -> Result<(), Failure> {
    let front_end = front_end.ok_or("this model has no front end")?;
    for clip in clips.rows() {
        match (front_end as &dyn Any).downcast_ref::<LogMel>() {
            Some(log_mel) => {
                out.resize(log_mel.n_frames(clip.len()) * log_mel.mel().n_mels(), 0.0);
                log_mel.compute_into(clip, out)?;
            }
            None => drop(front_end.compute(clip)?),
        }
    }
    Ok(())
}

/// Features of clips of one length, `[batch, n_frames, n_features]`.
fn features(model: &dyn TaggingModel, clips: &WaveformBatch) -> Result<Tensor, Failure> {
    let front_end: &dyn FrontEnd = model.front_end().ok_or("this model has no front end")?;
    let rows = clips.rows().iter().map(|clip| front_end.compute(clip)).collect::<clipwise::Result<Vec<_>>>()?;
    let shape = (rows.len(), rows[0].nrows(), rows[0].ncols());
    Ok(Tensor::from_iter(rows.iter().flatten().copied(), &Device::Cpu)?.reshape(shape)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct() {
        let names = names();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        assert!(model_name("whisper-tin").unwrap_err().contains("similar: whisper-tiny"));
    }

    #[test]
    fn every_kind_of_model_runs_with_random_weights() {
        let case = |model: &'static str| Case { model, seconds: 0.5, batch: 2, ..Case::default() };
        let ctc = |model| Case { n_tokens: Some(5), ..case(model) };
        let (whisper_part, cnn14_part) = (Part::Trunk, Part::Frontend);
        let cases = [
            case("m5"),
            case("gru"),
            case("lstm"),
            case("log-mel"),
            case("ced-tiny"),
            case("bigru-encoder"),
            ctc("bigru-encoder"),
            ctc("whisper-tiny"),
            Case { part: whisper_part, ..case("whisper-tiny") },
            Case { part: cnn14_part, ..case("cnn14-narrow") },
        ];
        for case in cases {
            let result = case.prepare().and_then(|mut work| work());
            assert!(result.is_ok(), "{}: {:?}", case.label(), result.err());
        }
        for (case, reason) in [(ctc("m5"), "expected a speech encoder"), (case(CHECKPOINT), "needs --weights")] {
            let error = case.prepare().err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(reason), "{error}");
        }
    }
}
