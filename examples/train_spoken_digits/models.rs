//! The nets, and what happens to a clip on its way into them.

use clipwise::augment::{Random, SpecAugment, add_gaussian_noise};
use clipwise::candle_core::Tensor;
use clipwise::frontend::features::{FeatureKind, FeaturesConfig};
use clipwise::frontend::{LogMelConfig, MelConfig, Normalize, StftConfig};
use clipwise::models::sequence::{Backbone, SequenceClassifier};
use clipwise::models::{m5, rnn, tcn};
use clipwise::ndarray::{Array2, s};
use clipwise::weights::Parameters;
use clipwise::{ModelConfig, TaggingModel};

use crate::classes::{Clip, step, targets};
use crate::training::{Failure, Step};

/// In Hz.
pub const RATE: u32 = 8_000;
/// Samples of a clip while M5 is trained.
const WINDOW: usize = 8_000;
/// The share of a target that is spread over all classes.
const SMOOTHING: f32 = 0.05;

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub enum Kind {
    /// M5 on the samples
    M5,
    /// A bidirectional GRU over 40 mels, window 25 ms, hop 16 ms
    Gru,
    /// A temporal convolutional network over the same
    Tcn,
}

pub enum Net {
    M5(Box<m5::M5>),
    Gru(Box<rnn::AudioRnnClassifier>),
    Tcn(Box<tcn::AudioTcnClassifier>),
}

impl Net {
    pub fn build(kind: Kind, parameters: &Parameters) -> Result<Self, Failure> {
        let loader = parameters.loader();
        if kind == Kind::M5 {
            let stage = |channels: usize| m5::Stage { channels, layers: 1 };
            let stages = vec![stage(64), stage(128), stage(128)].into();
            let config =
                m5::Config { name: "m5-spoken-digits".into(), channels: 64, stages, n_classes: 10, ..m5::Config::M5 };
            return Ok(Self::M5(Box::new(m5::M5::build(&config, &loader)?)));
        }
        let log_mel = LogMelConfig {
            sample_rate: RATE,
            stft: StftConfig { n_fft: 256, win_length: 200, hop_length: 128, ..LogMelConfig::SPEECH_16K.stft },
            mel: MelConfig { n_mels: 40, ..LogMelConfig::SPEECH_16K.mel },
            ..LogMelConfig::SPEECH_16K
        };
        let features =
            FeaturesConfig { spectrum: FeatureKind::LogMel(log_mel), deltas: None, normalize: Some(Normalize::CMVN) };
        if kind == Kind::Tcn {
            let config = tcn::Config {
                name: "tcn-spoken-digits".into(),
                features,
                channels: vec![48; 5].into(),
                n_classes: 10,
                ..tcn::Config::TCN
            };
            return Ok(Self::Tcn(Box::new(tcn::AudioTcnClassifier::build(&config, &loader)?)));
        }
        let config = rnn::Config {
            name: "gru-spoken-digits".into(),
            features,
            hidden: 64,
            n_layers: 1,
            n_classes: 10,
            ..rnn::Config::BIGRU
        };
        Ok(Self::Gru(Box::new(rnn::AudioRnnClassifier::build(&config, &loader)?)))
    }

    pub fn config(&self) -> ModelConfig {
        match self {
            Self::M5(model) => ModelConfig::M5(model.config().clone()),
            Self::Gru(model) => ModelConfig::Rnn(model.config().clone()),
            Self::Tcn(model) => ModelConfig::Tcn(model.config().clone()),
        }
    }

    /// What the net makes of the clips with these indices, each augmented anew.
    pub fn forward(&self, clips: &[Clip], batch: &[usize], random: &mut Random) -> Result<Step, Failure> {
        let classes: Vec<usize> = batch.iter().map(|&i| clips[i].class).collect();
        let samples = |&i: &usize| augmented(&clips[i].waveform.samples, random);
        let rows = batch.iter().map(samples).collect::<Result<Vec<_>, Failure>>()?;
        let logits = match self {
            Self::M5(model) => {
                let rows: Vec<f32> = rows.into_iter().flat_map(|row| placed(row, random)).collect();
                let x = Tensor::from_vec(rows, (batch.len(), 1, WINDOW), model.device())?;
                model.forward_samples(&x)?.logits
            }
            Self::Gru(model) => logits(model, &rows, random)?,
            Self::Tcn(model) => logits(model, &rows, random)?,
        };
        step(&logits, &targets(&classes, 10, SMOOTHING, logits.device())?)
    }
}

/// The logits of clips whose features are masked here and there.
fn logits<C: Send + Sync, B: Backbone>(
    model: &SequenceClassifier<C, B>,
    rows: &[Vec<f32>],
    random: &mut Random,
) -> Result<Tensor, Failure> {
    let features = |row: &Vec<f32>| masked(model.features().compute(row)?, random);
    let frames = rows.iter().map(features).collect::<Result<Vec<_>, Failure>>()?;
    let lengths: Vec<usize> = frames.iter().map(|frames| frames.nrows()).collect();
    let (longest, n_mels) = (lengths.iter().copied().max().unwrap_or(0), frames[0].ncols());
    let mut values = vec![0.0; rows.len() * longest * n_mels];
    for (values, frames) in values.chunks_mut(longest * n_mels).zip(&frames) {
        values.iter_mut().zip(frames).for_each(|(value, x)| *value = *x);
    }
    let x = Tensor::from_vec(values, (rows.len(), longest, n_mels), model.device())?;
    Ok(model.forward_padded(&x, Some(&lengths))?.logits)
}

/// Up to 15 % faster or slower, up to 10 dB louder or softer, some with noise 15 to 45 dB below.
fn augmented(samples: &[f32], random: &mut Random) -> Result<Vec<f32>, Failure> {
    let mut samples = change_speed(samples, 0.85 + 0.3 * random.uniform());
    let gain = 10f64.powf(random.uniform() - 0.5) as f32;
    samples.iter_mut().for_each(|x| *x *= gain);
    if random.uniform() < 0.5 {
        add_gaussian_noise(&mut samples, 15.0 + 30.0 * random.uniform(), random)?;
    }
    Ok(samples)
}

/// In a window of silence, half of the clips at its start, as the tagger pads them; a longer clip loses its ends.
fn placed(samples: Vec<f32>, random: &mut Random) -> Vec<f32> {
    let mut window = vec![0.0; WINDOW];
    if samples.len() >= WINDOW {
        let start = random.below(samples.len() - WINDOW + 1);
        window.copy_from_slice(&samples[start..start + WINDOW]);
    } else {
        let start = if random.uniform() < 0.5 { 0 } else { random.below(WINDOW - samples.len() + 1) };
        window[start..start + samples.len()].copy_from_slice(&samples);
    }
    window
}

/// Two stripes of up to 3 frames and two of up to 5 mels set to the mean.
fn masked(mut features: Array2<f32>, random: &mut Random) -> Result<Array2<f32>, Failure> {
    let augment = SpecAugment { time_drop_width: 4, time_stripes: 2, freq_drop_width: 6, freq_stripes: 2 };
    let stripes = augment.stripes(features.nrows(), features.ncols(), random)?;
    for time in stripes.time {
        features.slice_mut(s![time, ..]).fill(0.0);
    }
    for freq in stripes.freq {
        features.slice_mut(s![.., freq]).fill(0.0);
    }
    Ok(features)
}

/// The clip played `factor` times as fast, by linear interpolation.
fn change_speed(samples: &[f32], factor: f64) -> Vec<f32> {
    let n = (samples.len() as f64 / factor) as usize;
    let value = |i: usize| {
        let place = i as f64 * factor;
        let (left, share) = (place as usize, place.fract() as f32);
        let right = samples[(left + 1).min(samples.len() - 1)];
        samples[left.min(samples.len() - 1)] * (1.0 - share) + right * share
    };
    (0..n.max(1)).map(value).collect()
}
