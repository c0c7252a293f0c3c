//! SpeechTokenizer: a neural speech codec. Its first codebook represents the content, the others the voice.
//!
//! Paper: Zhang et al., "SpeechTokenizer: Unified Speech Tokenizer for Speech Language Models", 2023 (arXiv
//! 2308.16692). Reference: the package speechtokenizer 1.0.1. Checkpoint keys: those of `SpeechTokenizer.pt`,
//! `encoder.model.0.conv.conv.weight_g` and so on, with either form of weight norm; the decoder is ignored.
//!
//! waveform `[batch, n_samples]` at 16 kHz → convolution with kernel 7: `[batch, n_samples, 64]` → four times residual
//! blocks, an activation, and a convolution with stride 2, 4, 5, then 8 that doubles the channels:
//! `[batch, ⌈n_samples / 320⌉, 1024]` → bidirectional LSTM plus its input: `[…, 2048]` → activation, convolution with
//! kernel 7: hidden states `[batch, n_frames, 1024]` → codebooks: codes `[8, n_frames]`.
//!
//! Residual vector quantisation: the first codebook gives the index of its vector that is nearest to the hidden state,
//! each further one that of the vector nearest to the remainder.
//!
//! Convolutions use reflect padding at the ends of a clip, so each clip runs at its own length. There is no minimum
//! length.

mod config;

use std::path::Path;

use candle_core::{Device, Tensor};
use ndarray::Array2;

use super::batch;
use super::checkpoint::refuse_training;
use super::{Encoded, EncoderInfo, Layers, OpenOptions, SpeechEncoder};
use crate::audio::WaveformBatch;
use crate::batch::checked_clips;
use crate::error::{Context, Error, Result};
use crate::files;
use crate::nn::{self, Cell, ConvConfig, ConvStack, Linear, Rnn, RnnConfig};
use crate::weights::{Loader, Weights, folder};
pub use config::{Activation, Config};

/// Kernel of the first and the last convolution.
const KERNEL: usize = 7;
/// Divisor of the number of channels inside a residual block.
const COMPRESS: usize = 2;
/// Limit on the samples that run at once: 30 s at 16 kHz, or a single longer clip.
const AT_ONCE: usize = 480_000;
/// Relative rounding error of a score. Codes with scores this close to the best are compared again in f64.
const ROUNDING: f32 = 1e-5;
/// Names of the checkpoint file in published folders.
const FILES: [&str; 2] = ["SpeechTokenizer.pt", "ckpt.dev"];

/// The encoder and the codebooks of SpeechTokenizer.
///
/// ```no_run
/// use clipwise::ctc::{TokenTransformer, TokenTransformerConfig};
/// use clipwise::encoders::SpeechTokenizer;
/// use clipwise::{Waveform, Weights, device};
///
/// # fn main() -> clipwise::Result<()> {
/// let device = device::cpu();
/// let tokenizer = SpeechTokenizer::open("speechtokenizer_hubert_avg", &device)?;
/// let speech = Waveform::open("speech.wav")?.resample(tokenizer.config().sample_rate)?;
/// let codes = tokenizer.encode(&(&speech).into())?; // one [n_codebooks, n_frames] per clip
///
/// let head = Weights::open("phonemes.pth")?;
/// let head = TokenTransformer::load(&TokenTransformerConfig::SPEECH_TOKENIZER, &head, &device)?;
/// let semantic: Vec<u32> = codes[0].row(0).to_vec();
/// println!("{:?}", head.forward(&[&semantic])?.logits.dims()); // [1, n_frames, n_tokens]
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SpeechTokenizer {
    config: Config,
    info: EncoderInfo,
    device: Device,
    convs: ConvStack,
    lstm: Option<Rnn>,
    output: ConvStack,
    codebooks: Vec<Codebook>,
}

/// The vectors of a codebook.
#[derive(Debug)]
struct Codebook {
    vectors: Vec<f32>, // [n_codes, dim]
    /// `2 x·e − e·e` for each vector `e`; the nearest one has the highest score.
    scores: Linear,
}

impl SpeechTokenizer {
    /// Builds the tokenizer from a checkpoint. [`Config::from_weights`] finds the sizes.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid; [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let tokenizer = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(tokenizer)
    }

    /// Whether a folder has a checkpoint file with one of SpeechTokenizer's names.
    pub(super) fn is_folder(path: &Path) -> Result<bool> {
        Ok(files::first_of(path, &FILES)?.is_some())
    }

    /// Opens a folder with the published `config.json` and `SpeechTokenizer.pt`. The tensors may also be in `ckpt.dev`,
    /// `model.safetensors` or `pytorch_model.bin`.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Checkpoint`] if a file is invalid; otherwise as
    /// [`Config::from_published`] and [`load`](Self::load).
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::open_with(folder, &OpenOptions::new().device(device))
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Argument`] if the device does not have the precision.
    pub fn open_with(folder: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = folder.as_ref();
        let config = Config::from_published(&folder::read_json(&path.join("config.json"))?)?;
        let weights = match files::first_of(path, &FILES)? {
            Some(name) => Weights::open(path.join(name))?,
            None => folder::open_weights(path)?,
        };
        options.apply(weights, |weights, device| Self::load(&config, weights, device))
    }

    /// Builds the tokenizer from a loader.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, or if the loader creates trainable tensors, which this
    /// encoder does not support; otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        refuse_training(root, &config.name)?;
        ["decoder.*", "transform.*"].into_iter().for_each(|rest| root.ignore(rest));
        let hop = config.hop()?;
        let frame_seconds = hop as f64 / f64::from(config.sample_rate);
        let info = EncoderInfo {
            n_layers: 1,
            ..EncoderInfo::new(config.name.clone(), config.sample_rate, config.dim, frame_seconds)
        };
        let model = root.at("encoder.model");
        let mut places = (0..).map(|index: usize| model.at(index));
        let mut next = || places.next().unwrap_or_else(|| model.clone()); // unreachable: the iterator is infinite

        let mut convs = ConvStack::on_sequences();
        let mut channels = config.n_filters;
        add_conv(&mut convs, &next(), ConvConfig::new(1, channels, KERNEL), nn::Activation::Identity)?;
        for &stride in config.strides.iter().rev() {
            for layer in 0..config.n_residual_layers {
                add_residual(&mut convs, &next(), config, (channels, config.dilation_base.pow(layer as u32)))?;
            }
            add_activation(&mut convs, &next(), config, channels)?;
            let step = ConvConfig { stride, ..ConvConfig::new(channels, 2 * channels, 2 * stride) };
            add_conv(&mut convs, &next(), step, nn::Activation::Identity)?;
            channels *= 2;
        }
        let lstm = match config.n_lstm_layers {
            0 => None,
            n_layers => {
                let bidirectional = config.bidirectional;
                let shape = RnnConfig {
                    cell: Cell::Lstm,
                    inputs: channels,
                    hidden: channels,
                    n_layers,
                    bidirectional,
                    bias: true,
                };
                channels = shape.outputs();
                Some(Rnn::load(&next().at("lstm"), shape)?)
            }
        };
        let mut output = ConvStack::on_sequences();
        add_activation(&mut output, &next(), config, channels)?;
        add_conv(&mut output, &next(), ConvConfig::new(channels, config.dim, KERNEL), nn::Activation::Identity)?;
        let codebook = |index: usize| {
            let book = root.at("quantizer.vq.layers").at(index).at("_codebook");
            ["inited", "cluster_size", "embed_avg"].into_iter().for_each(|rest| book.ignore(rest));
            Codebook::load(&book, config)
        };
        let codebooks = (0..config.n_codebooks).map(codebook).collect::<Result<_>>()?;
        Ok(Self { config: config.clone(), info, device: root.device().clone(), convs, lstm, output, codebooks })
    }

    /// The configuration of the tokenizer.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The codes of each clip, `[n_codebooks, n_frames]`. Those of the first codebook represent the content.
    ///
    /// # Errors
    /// As [`SpeechEncoder::forward`].
    pub fn encode(&self, waveforms: &WaveformBatch) -> Result<Vec<Array2<u32>>> {
        let encoded = self.forward(waveforms, Layers::Last)?;
        let clip = |(row, &length): (usize, &usize)| self.quantize(&encoded.last.get(row)?.narrow(0, 0, length)?);
        encoded.lengths.iter().enumerate().map(clip).collect::<Result<_>>().context("quantising hidden states")
    }

    /// The codes `[n_codebooks, n_frames]` of hidden states `[n_frames, dim]`, f32. Among equally near vectors the
    /// first one is chosen.
    ///
    /// # Errors
    /// [`Error::Argument`] if the hidden states are not of width `dim`; [`Error::Tensor`] if there are not two axes, or
    /// if a tensor operation fails on the device.
    pub fn quantize(&self, states: &Tensor) -> Result<Array2<u32>> {
        let context = "quantising hidden states";
        let (n_frames, dim) = states.dims2().context(context)?;
        let mut rest: Vec<f32> = states.flatten_all().and_then(|states| states.to_vec1()).context(context)?;
        let mut codes = Array2::default((self.codebooks.len(), n_frames));
        if n_frames == 0 || dim != self.config.dim {
            return if dim == self.config.dim { Ok(codes) } else { Err(wrong_width(dim, self.config.dim)) };
        }
        for (codebook, mut codes) in self.codebooks.iter().zip(codes.rows_mut()) {
            let x = Tensor::from_slice(&rest, (n_frames, dim), &self.device).context(context)?;
            let scores = codebook.scores.forward(&x)?.to_vec2::<f32>().context(context)?;
            for ((x, scores), code) in rest.chunks_mut(dim).zip(scores).zip(&mut codes) {
                let nearest = codebook.nearest(x, &scores);
                *code = nearest as u32;
                x.iter_mut().zip(codebook.vector(nearest, dim)).for_each(|(x, e)| *x -= e);
            }
        }
        Ok(codes)
    }

    /// Computes hidden states `[batch, n_frames, dim]` from samples `[batch, n_samples, 1]`, f32, on the tokenizer's
    /// device.
    ///
    /// # Errors
    /// [`Error::TooShort`] if there are no samples; [`Error::Tensor`] if the shape or the device does not match.
    pub fn forward_samples(&self, samples: &Tensor) -> Result<Tensor> {
        if samples.dim(1).is_ok_and(|n_samples| n_samples == 0) {
            return Err(Error::TooShort { needed: 1, got: 0 });
        }
        self.run(samples).context("running SpeechTokenizer")
    }

    fn run(&self, samples: &Tensor) -> Result<Tensor> {
        let mut x = self.convs.forward_vectors(samples, None)?; // [batch, n_frames, channels]
        if let Some(lstm) = &self.lstm {
            let (y, _) = lstm.forward(&x, None, None)?;
            let shortcut = if self.config.bidirectional { Tensor::cat(&[&x, &x], 2)? } else { x };
            x = (y + shortcut)?;
        }
        self.output.forward_vectors(&x, None)
    }
}

fn wrong_width(got: usize, expected: usize) -> Error {
    Error::argument("states", got, format!("expected hidden states of width {expected}"))
}

/// Adds a convolution with weight norm, and the padding before it.
fn add_conv(stack: &mut ConvStack, place: &Loader, conv: ConvConfig, activation: nn::Activation) -> Result<()> {
    let conv = ConvConfig { bias: true, ..conv };
    stack.reflect_pad(&conv)?;
    stack.conv(&place.at("conv.conv"), None, conv, activation)
}

fn add_activation(stack: &mut ConvStack, place: &Loader, config: &Config, channels: usize) -> Result<()> {
    match config.activation {
        Activation::Elu => {
            stack.activation(nn::Activation::Elu);
            Ok(())
        }
        Activation::Snake => stack.snake(place, channels),
    }
}

fn add_residual(
    stack: &mut ConvStack,
    place: &Loader,
    config: &Config,
    (channels, dilation): (usize, usize),
) -> Result<()> {
    let block = place.at("block");
    let inner = channels / COMPRESS;
    let connect = |stack: &mut ConvStack| {
        let conv = ConvConfig { bias: true, ..ConvConfig::new(channels, channels, 1) };
        stack.conv(&place.at("shortcut.conv.conv"), None, conv, nn::Activation::Identity)
    };
    stack.shortcut(connect, |stack| {
        add_activation(stack, &block.at(0), config, channels)?;
        let first = ConvConfig { dilation, ..ConvConfig::new(channels, inner, config.residual_kernel) };
        match config.activation {
            Activation::Elu => add_conv(stack, &block.at(1), first, nn::Activation::Elu)?,
            Activation::Snake => {
                add_conv(stack, &block.at(1), first, nn::Activation::Identity)?;
                stack.snake(&block.at(2), inner)?;
            }
        }
        add_conv(stack, &block.at(3), ConvConfig::new(inner, channels, 1), nn::Activation::Identity)
    })
}

impl Codebook {
    fn load(weights: &Loader, config: &Config) -> Result<Self> {
        let Config { n_codes, dim, .. } = *config;
        let vectors = weights.get_vec("embed", &[n_codes, dim])?;
        let doubled: Vec<f32> = vectors.iter().map(|x| 2.0 * x).collect();
        let squares = vectors.chunks(dim).map(|vector| -dot(vector, vector) as f32).collect();
        Ok(Self { scores: Linear::from_matrix(doubled, squares, nn::Activation::Identity, weights)?, vectors })
    }

    fn vector(&self, code: usize, dim: usize) -> &[f32] {
        &self.vectors[code * dim..][..dim]
    }

    /// The code of the vector nearest to `x`: by the scores in f32, and by the distances in f64 among those that
    /// rounding may have put in the wrong order.
    fn nearest(&self, x: &[f32], scores: &[f32]) -> usize {
        let (best, &highest) = scores
            .iter()
            .enumerate()
            .fold((0, &f32::NEG_INFINITY), |best, (code, score)| if score > best.1 { (code, score) } else { best });
        let dim = x.len();
        let size = dot(x, x) as f32 + dot(self.vector(best, dim), self.vector(best, dim)) as f32;
        let near = |code: &usize| scores[*code] >= highest - ROUNDING * size;
        let distance = |code: usize| {
            let differences = x.iter().zip(self.vector(code, dim)).map(|(&x, &e)| f64::from(x) - f64::from(e));
            differences.map(|difference| difference.powi(2)).sum::<f64>()
        };
        let mut near = (0..scores.len()).filter(near);
        match (near.next(), near.next()) {
            (Some(first), Some(second)) => {
                let candidates = [first, second].into_iter().chain(near).map(|code| (code, distance(code)));
                candidates.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(best, |(code, _)| code)
            }
            _ => best,
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

impl SpeechEncoder for SpeechTokenizer {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    /// The hidden states before quantisation, for any `layers`.
    fn forward(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Encoded> {
        let clips = checked_clips(waveforms, self.info.sample_rate, self.info.min_samples)?;
        let clips: Vec<Array2<f32>> = clips.iter().map(|clip| batch::column(clip)).collect();
        batch::by_length(&clips, AT_ONCE, |clips| {
            let n_frames = clips.iter().map(|clip| self.config.n_frames(clip.nrows())).collect();
            let states = self.forward_samples(&batch::stack(clips, &self.device)?)?;
            let all = (layers == Layers::All).then(|| states.clone());
            Ok(Encoded::new(all.into_iter().collect(), states, n_frames))
        })
    }
}
