//! Code shared by the PANNs models: networks on log-mel and on the waveform, detection of the front end, convolution
//! blocks.

mod head;
mod nets;

use candle_core::{Device, Tensor};

use crate::assumption::Assumption;
use crate::error::{Error, Result};
use crate::frontend::{LogMel, LogMelConfig, MelConfig};
use crate::nn::{Activation, ConvConfig, ConvStack, Dropout, Pool2d, Pooling};
use crate::weights::{Loader, Weights};
pub use head::Head;
pub use nets::{Common, LogMelNet, LogMelNetConfig, WaveformNet, WaveformNetConfig};

/// The front-end tensors of a PANNs checkpoint.
const CONV_REAL: &str = "spectrogram_extractor.stft.conv_real.weight"; // [n_bins, 1, n_fft], window · cos
const CONV_IMAG: &str = "spectrogram_extractor.stft.conv_imag.weight"; // [n_bins, 1, n_fft], window · −sin
const MEL_W: &str = "logmel_extractor.melW"; // [n_bins, n_mels]

/// Largest accepted difference from the checkpoint's front end, relative to the largest value. Versions of the
/// reference differ by 1e-7, a symmetric instead of a periodic window by 3e-3, another mel scale by more than 0.1.
const TOLERANCE: f32 = 1e-4;

/// Front ends with names, which error messages suggest.
const KNOWN: [(&str, LogMelConfig); 4] = [
    ("cnn14", LogMelConfig::PANNS_32K),
    ("cnn14-16k", LogMelConfig::PANNS_16K),
    ("cnn14-8k", LogMelConfig::PANNS_8K),
    ("cnn14-48k", LogMelConfig::PANNS_48K),
];

/// PANNs' 32 kHz front end with a different number of mel bins.
pub const fn with_mels(n_mels: usize) -> LogMelConfig {
    let log_mel = LogMelConfig::PANNS_32K;
    LogMelConfig { mel: MelConfig { n_mels, ..log_mel.mel }, ..log_mel }
}

/// Detects a checkpoint's front end from its frame length and its mel bins. Without front-end tensors, assumes the one
/// for 32 kHz.
///
/// # Errors
/// [`Error::UnknownModel`] for a frame length that no preset has.
pub fn detect_front_end(model: &str, weights: &Weights, assumptions: &mut Vec<Assumption>) -> Result<LogMelConfig> {
    let mut log_mel = match n_fft(weights) {
        Some(n_fft) => {
            KNOWN.into_iter().map(|(_, config)| config).find(|config| config.stft.n_fft == n_fft).ok_or_else(|| {
                Error::UnknownModel(format!(
                    "cannot determine the front end of a {model} with frames of {n_fft} samples: no preset has this length; give a config.json"
                ))
            })?
        }
        None => {
            let log_mel = LogMelConfig::PANNS_32K;
            assumptions.push(Assumption::SampleRate { model: model.to_string(), sample_rate: log_mel.sample_rate });
            log_mel
        }
    };
    if let Some(&[n_mels]) = weights.shape("bn0.weight") {
        log_mel.mel.n_mels = n_mels;
    }
    Ok(log_mel)
}

/// The frame length of a checkpoint's front-end tensors.
fn n_fft(weights: &Weights) -> Option<usize> {
    match weights.shape(CONV_REAL) {
        Some(&[_, _, n_fft]) => Some(n_fft),
        _ => outputs(weights, MEL_W).filter(|&bins| bins > 1).map(|bins| 2 * (bins - 1)),
    }
}

/// The number of outputs of a layer, from the shape of its weight.
pub fn outputs(weights: &Weights, name: &str) -> Option<usize> {
    weights.shape(name)?.first().copied()
}

/// Output channels of each block's first convolution, or the default if the tensor is missing.
pub fn channels<const N: usize>(weights: &Weights, default: [usize; N]) -> [usize; N] {
    std::array::from_fn(|i| outputs(weights, &format!("conv_block{}.conv1.weight", i + 1)).unwrap_or(default[i]))
}

/// Adds `n` convolutions without bias, each with batch norm and ReLU, named `conv1`, `bn1`, `conv2`, `bn2` … All but
/// the first have stride 1 and keep the number of channels.
pub fn add_convs(layers: &mut ConvStack, block: &Loader, first: ConvConfig, n: usize) -> Result<()> {
    for i in 1..=n {
        let [conv, norm] = ["conv", "bn"].map(|name| block.at(format_args!("{name}{i}")));
        let others = ConvConfig { in_channels: first.out_channels, stride: 1, ..first };
        layers.conv(&conv, Some(&norm), if i == 1 { first } else { others }, Activation::Relu)?;
    }
    Ok(())
}

/// Adds a stage: [`add_convs`], a pooling that halves both axes (if any), and a dropout.
pub fn add_block(
    layers: &mut ConvStack,
    block: &Loader,
    first: ConvConfig,
    n: usize,
    pooling: Option<Pooling>,
) -> Result<()> {
    add_convs(layers, block, first, n)?;
    if let Some(pooling) = pooling {
        layers.pool(Pool2d { pooling, size: (2, 2) });
    }
    layers.dropout(Dropout::new(block, 0.2)?);
    layers.end_stage();
    Ok(())
}

/// A convolution with zero padding that keeps the length, for odd kernels.
pub const fn same_padding(in_channels: usize, out_channels: usize, kernel: usize) -> ConvConfig {
    ConvConfig { padding: kernel / 2, ..ConvConfig::new(in_channels, out_channels, kernel) }
}

/// Reads the number of classes and the embedding length, if the checkpoint has a head.
pub fn fit(weights: &Weights, n_classes: &mut usize, embedding_dim: &mut usize) {
    if let Some(&[outputs, inputs]) = weights.shape("fc_audioset.weight") {
        (*n_classes, *embedding_dim) = (outputs, inputs);
    }
}

/// Loads a model and compares the front end in the checkpoint, if any, with the model's.
pub fn load<M>(
    name: &str,
    weights: &Weights,
    device: &Device,
    build: impl FnOnce(&Loader) -> Result<M>,
    log_mel: fn(&M) -> Option<&LogMel>,
) -> Result<M> {
    let root = weights.loader(device);
    root.ignore("spectrogram_extractor.*");
    root.ignore("logmel_extractor.*");
    let model = build(&root)?;
    if let Some(log_mel) = log_mel(&model) {
        check_front_end(weights, log_mel)?;
    }
    root.finish(name)?;
    Ok(model)
}

/// Compares the front end in the checkpoint, if any, with the one in use.
fn check_front_end(weights: &Weights, log_mel: &LogMel) -> Result<()> {
    let Some((tensor, reason)) = difference(weights, log_mel)? else { return Ok(()) };
    let mut fitting = None;
    for (name, mut config) in KNOWN {
        config.mel.n_mels = log_mel.config().mel.n_mels;
        if difference(weights, &LogMel::new(&config)?)?.is_none() {
            fitting = Some(name);
        }
    }
    let path = weights.path().unwrap_or("<bytes>".as_ref()).to_path_buf();
    Err(Error::FrontEnd { path, tensor: tensor.to_string(), reason, fitting })
}

/// The first tensor that differs from the front end in use, and how it differs.
fn difference(weights: &Weights, log_mel: &LogMel) -> Result<Option<(&'static str, String)>> {
    let n_fft = log_mel.config().stft.n_fft;
    let n_bins = n_fft / 2 + 1;
    let window = log_mel.stft().window();
    let phase_step = std::f64::consts::TAU / n_fft as f64;
    let kernel = |wave: fn(f64) -> f64| -> Vec<f32> {
        let table: Vec<f64> = (0..n_fft).map(|i| wave(phase_step * i as f64)).collect();
        let row = |bin: usize| (0..n_fft).map(move |i| (bin * i) % n_fft);
        let rows = (0..n_bins).flat_map(|bin| row(bin).zip(window));
        rows.map(|(phase, &w)| (table[phase] * f64::from(w)) as f32).collect()
    };
    if let Some(reason) = differs(weights, MEL_W, &[n_bins, log_mel.config().mel.n_mels], || {
        log_mel.mel().to_array().t().iter().copied().collect()
    })? {
        return Ok(Some((MEL_W, reason)));
    }
    let shape = [n_bins, 1, n_fft];
    if let Some(reason) = differs(weights, CONV_REAL, &shape, || kernel(f64::cos))? {
        return Ok(Some((CONV_REAL, reason)));
    }
    Ok(differs(weights, CONV_IMAG, &shape, || kernel(|phase| -phase.sin()))?.map(|reason| (CONV_IMAG, reason)))
}

/// How a tensor in the checkpoint differs from the expected values; `None` if it is equal or missing.
fn differs(weights: &Weights, name: &str, shape: &[usize], expected: impl Fn() -> Vec<f32>) -> Result<Option<String>> {
    let Some(got) = weights.shape(name) else { return Ok(None) };
    if got != shape {
        return Ok(Some(format!("expected shape {shape:?} for the model's front end, got {got:?}")));
    }
    let (got, expected) = (weights.to_vec(name)?, expected());
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    // A NaN must count as a difference.
    let off = got.iter().zip(&expected).map(|(a, b)| if a.is_nan() { f32::INFINITY } else { (a - b).abs() });
    let worst = off.fold(0.0, f32::max) / largest;
    Ok((worst > TOLERANCE)
        .then(|| format!("its values differ from the model's front end by {worst:.1e} of the largest value")))
}

/// Max + mean: `[batch, channels, n_steps]` to `[batch, channels]`.
pub fn pool_over_time(x: &Tensor) -> candle_core::Result<Tensor> {
    x.max(2)? + x.mean(2)?
}
