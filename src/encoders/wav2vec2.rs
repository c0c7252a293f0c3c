//! The encoders of wav2vec 2.0, XLS-R, MMS and HuBERT.
//!
//! Papers: Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", 2020 (arXiv
//! 2006.11477); Hsu et al., "HuBERT", 2021 (arXiv 2106.07447); Babu et al., "XLS-R", 2021 (arXiv 2111.09296). Reference:
//! `Wav2Vec2Model` and `HubertModel` of transformers. Checkpoint keys: theirs, with or without the prefix `wav2vec2.` or
//! `hubert.`; both spellings of weight norm (`weight_g` and `weight_v`, `parametrizations.weight.original0` and `1`), or a
//! plain `weight`.
//!
//! waveform `[batch, n_samples]` at 16 kHz, perhaps normalised per clip → 7 convolutions without padding, GELU, 320 samples per
//! step: `[batch, n_frames, 512]` → layer norm, linear layer: `[batch, n_frames, dim]` → plus a grouped convolution over 128 frames
//! with GELU (the positions) → transformer blocks.
//!
//! Two forms are published. Base models normalise each channel over the time of the clip after the first convolution, and their
//! blocks normalise last, with a norm before the first block. Large ones have a layer norm after every convolution, and their
//! blocks normalise first, with a norm after the last block.
//!
//! In MMS models an adapter follows each block: `x + linear(relu(linear(norm(x))))`, trained for one language (Pratap et al.,
//! "Scaling Speech Technology to 1,000+ Languages", 2023, arXiv 2305.13516).
//!
//! A clip runs at its own length: what stands behind it would change the norm over time. Shortest clip: 400 samples; shorter ones
//! are padded with zeros at their end to that length, and then normalised.
//!
//! Hidden states with [`Layers::All`]: the input of the first block, then the output of each block, the last one after the final
//! norm where there is one. This is what transformers 4 gives; version 5 and s3prl give the last one before that norm.

mod config;
mod hugging_face;

use std::borrow::Cow;

use candle_core::{DType, Device, Tensor};
use ndarray::Array2;

use super::batch;
use super::checkpoint::{self, refuse_training, self_attention};
use super::{Encoded, EncoderInfo, Layers, SpeechEncoder};
use crate::audio::WaveformBatch;
use crate::batch::checked_clips;
use crate::error::{Context, Error, Result};
use crate::nn::{Activation, ConvConfig, ConvStack, LayerNorm, Linear, NormPlace, TransformerBlock};
use crate::weights::{Loader, Weights};
pub use config::{Config, ConvLayer, ConvNorm};

/// The rate of the audio, in Hz.
const SAMPLE_RATE: u32 = 16_000;
/// ε of all norms.
const EPS: f32 = 1e-5;
/// ε of a clip's variance.
const CLIP_EPS: f64 = 1e-7;
/// The most samples that run at once: 30 s, unless one clip alone is longer.
const AT_ONCE: usize = 30 * SAMPLE_RATE as usize;
/// Where the encoder's tensors may stand in a checkpoint.
const PLACES: [&str; 3] = ["wav2vec2", "hubert", "encoder"];
/// What a checkpoint holds of pre-training.
const PRETRAINING: [&str; 5] =
    ["quantizer.*", "project_hid.*", "project_q.*", "masked_spec_embed", "label_embs_concat"];

/// A loaded encoder.
#[derive(Debug)]
pub struct Wav2Vec2Encoder {
    config: Config,
    info: EncoderInfo,
    device: Device,
    convs: Vec<ConvLayerNorm>,
    projection_norm: Option<LayerNorm>,
    projection: Linear,
    /// One per group.
    positions: Vec<ConvStack>,
    norm: LayerNorm,
    blocks: Vec<(TransformerBlock, Option<Adapter>)>,
}

/// What MMS adds to a block's output.
#[derive(Debug)]
struct Adapter {
    norm: LayerNorm,
    linear_1: Linear,
    linear_2: Linear,
}

impl Adapter {
    fn load(weights: &Loader, dim: usize, adapter_dim: usize) -> Result<Self> {
        Ok(Self {
            norm: LayerNorm::load(&weights.at("norm"), dim, EPS)?,
            linear_1: Linear::load(&weights.at("linear_1"), dim, adapter_dim, Activation::Relu)?,
            linear_2: Linear::load(&weights.at("linear_2"), adapter_dim, dim, Activation::Identity)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward_add(&self.linear_1.forward(&self.norm.forward(x)?)?, x)
    }
}

/// A convolution over the waveform and its norm.
#[derive(Debug)]
enum ConvLayerNorm {
    /// With its GELU.
    Plain(ConvStack),
    /// GELU comes after the norm over the channels.
    Layer(ConvStack, LayerNorm),
    /// GELU comes after the norm over time, whose scale and shift are `[channels]`.
    Group { conv: ConvStack, scale: Tensor, shift: Tensor },
}

impl Wav2Vec2Encoder {
    /// Builds the encoder from a checkpoint. [`Config::from_weights`] has the sizes.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let encoder = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(encoder)
    }

    /// The encoder with the tensors that a loader gives, below this place or below `wav2vec2`, `hubert` or `encoder` there.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work or the tensors are to be trained, which this encoder cannot be; else as
    /// [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        refuse_training(root, &config.name)?;
        let place = place(root);
        for rest in PRETRAINING {
            root.ignore(rest);
            place.ignore(rest);
        }
        let Config { dim, n_blocks, .. } = *config;
        let mut in_channels = 1;
        let mut convs = Vec::with_capacity(config.convs.len());
        for (index, layer) in config.convs.iter().enumerate() {
            let weights = place.at("feature_extractor.conv_layers").at(index);
            convs.push(ConvLayerNorm::load(&weights, config, (in_channels, *layer, index == 0))?);
            in_channels = layer.channels;
        }
        let projection = place.at("feature_projection");
        let projection_norm = match config.projection_norm {
            true => Some(LayerNorm::load(&projection.at("layer_norm"), in_channels, EPS)?),
            false => None,
        };
        let (min_samples, stride) = config.grid()?;
        let frame_seconds = stride as f64 / f64::from(SAMPLE_RATE);
        let info = EncoderInfo {
            n_layers: n_blocks + 1,
            min_samples,
            ..EncoderInfo::new(config.name.clone(), SAMPLE_RATE, dim, frame_seconds)
        };
        let encoder = place.at("encoder");
        let block = |index: usize| {
            let layer = encoder.at("layers").at(index);
            let adapter = config.adapter_dim.map(|width| Adapter::load(&layer.at("adapter_layer"), dim, width));
            Ok((load_block(&layer, config)?, adapter.transpose()?))
        };
        Ok(Self {
            config: config.clone(),
            info,
            device: root.device().clone(),
            convs,
            projection_norm,
            projection: Linear::load(&projection.at("projection"), in_channels, dim, Activation::Identity)?,
            positions: load_positions(&encoder.at("pos_conv_embed.conv"), config)?,
            norm: LayerNorm::load(&encoder.at("layer_norm"), dim, EPS)?,
            blocks: (0..n_blocks).map(block).collect::<Result<_>>()?,
        })
    }

    /// The configuration that it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Hidden states of samples `[batch, n_samples, 1]`, f32, on the encoder's device, as they are: a clip must have been
    /// normalised where [`Config::normalize`] says so.
    ///
    /// # Errors
    /// [`Error::TooShort`] for fewer samples than [`min_samples`](EncoderInfo::min_samples), [`Error::Tensor`] if the shape or the
    /// device does not fit.
    pub fn forward_samples(&self, samples: &Tensor, layers: Layers) -> Result<Encoded> {
        let (batch, n_samples, _) = samples.dims3().context("reading the shape of the samples")?;
        let n_frames = self.config.n_frames(n_samples);
        if n_frames == 0 {
            return Err(Error::TooShort { needed: self.info.min_samples, got: n_samples });
        }
        let states = self.run(samples, layers).context("a wav2vec 2.0 encoder")?;
        Ok(Encoded::new(states, vec![n_frames; batch]))
    }

    fn run(&self, samples: &Tensor, layers: Layers) -> Result<Vec<Tensor>> {
        let mut x = samples.clone();
        for conv in &self.convs {
            x = conv.forward(&x)?; // [batch, n, channels]
        }
        if let Some(norm) = &self.projection_norm {
            x = norm.forward(&x)?;
        }
        let x = self.projection.forward(&x)?; // [batch, n_frames, dim]
        let mut x = (&x + self.positions(&x)?)?;
        if !self.config.norm_first {
            x = self.norm.forward(&x)?;
        }
        let mut states = Vec::new();
        for (block, adapter) in &self.blocks {
            let mut y = block.forward(&x, None)?;
            if let Some(adapter) = adapter {
                y = adapter.forward(&y)?;
            }
            if layers == Layers::All {
                states.push(x);
            }
            x = y;
        }
        states.push(if self.config.norm_first { self.norm.forward(&x)? } else { x });
        Ok(states)
    }

    /// The convolution over positions, each group of channels by itself: `[batch, n_frames, dim]` to the same.
    fn positions(&self, x: &Tensor) -> Result<Tensor> {
        let (n_frames, width) = (x.dim(1)?, self.config.dim / self.config.position_groups);
        let group = |(index, conv): (usize, &ConvStack)| {
            let y = conv.forward_vectors(&x.narrow(2, index * width, width)?.contiguous()?, None)?;
            // An even kernel with half of its length as padding gives one frame more.
            Ok(y.narrow(1, 0, n_frames)?)
        };
        let groups = self.positions.iter().enumerate().map(group).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&groups, 2)?)
    }

    /// A clip as a column, normalised where the model wants it.
    fn prepare(&self, clip: &[f32]) -> Array2<f32> {
        let samples = ndarray::ArrayView1::from(clip).insert_axis(ndarray::Axis(1));
        if !self.config.normalize {
            return samples.to_owned();
        }
        let n = clip.len().max(1) as f64;
        let mean = clip.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = clip.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        let scale = (variance + CLIP_EPS).sqrt().recip();
        samples.mapv(|x| ((f64::from(x) - mean) * scale) as f32)
    }
}

impl ConvLayerNorm {
    fn load(
        weights: &Loader,
        config: &Config,
        (in_channels, layer, is_first): (usize, ConvLayer, bool),
    ) -> Result<Self> {
        let ConvLayer { channels, kernel, stride } = layer;
        let shape = ConvConfig { stride, bias: config.conv_bias, ..ConvConfig::new(in_channels, channels, kernel) };
        let conv = |activation: Activation| {
            let mut conv = ConvStack::on_sequences();
            conv.conv(&weights.at("conv"), None, shape, activation).map(|()| conv)
        };
        let norm = weights.at("layer_norm");
        Ok(match (config.conv_norm, is_first) {
            (ConvNorm::Layer, _) => Self::Layer(conv(Activation::Identity)?, LayerNorm::load(&norm, channels, EPS)?),
            (ConvNorm::Group, true) => Self::Group {
                conv: conv(Activation::Identity)?,
                scale: norm.get("weight", channels)?,
                shift: norm.get("bias", channels)?,
            },
            (ConvNorm::Group, false) => Self::Plain(conv(Activation::Gelu)?),
        })
    }

    /// `[batch, n, in_channels]` to `[batch, n_out, channels]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Plain(conv) => conv.forward_vectors(x, None),
            Self::Layer(conv, norm) => Ok(norm.forward(&conv.forward_vectors(x, None)?)?.gelu_erf()?),
            Self::Group { conv, scale, shift } => {
                let x = conv.forward_vectors(x, None)?;
                let x = x.broadcast_sub(&mean_over_time(&x)?)?;
                let deviation = (mean_over_time(&x.sqr()?)? + f64::from(EPS))?.sqrt()?;
                Ok(x.broadcast_div(&deviation)?.broadcast_mul(scale)?.broadcast_add(shift)?.gelu_erf()?)
            }
        }
    }
}

/// `[batch, n, channels]` to `[batch, 1, channels]`, summed in f64: ten seconds are 32,000 values per channel.
fn mean_over_time(x: &Tensor) -> candle_core::Result<Tensor> {
    /// Values per channel that are converted at a time, so that the copy in f64 stays small.
    const BLOCK: usize = 1 << 10;
    let (batch, n, channels) = x.dims3()?;
    let zeros = Tensor::zeros((batch, 1, channels), DType::F64, x.device())?;
    let sum = (0..n).step_by(BLOCK).try_fold(zeros, |sum, start| {
        sum + x.narrow(1, start, BLOCK.min(n - start))?.to_dtype(DType::F64)?.sum_keepdim(1)?
    })?;
    (sum / n as f64)?.to_dtype(x.dtype())
}

/// The shape of the weight of the convolution over positions: its kernel and groups.
fn positions_shape(place: &Loader, dim: usize) -> Option<(usize, usize)> {
    match place.at("encoder.pos_conv_embed.conv").shape("weight") {
        Some(&[_, width, kernel]) if width > 0 => Some((kernel, dim / width)),
        _ => None,
    }
}

/// The convolution over positions, one per group.
fn load_positions(conv: &Loader, config: &Config) -> Result<Vec<ConvStack>> {
    let (dim, kernel, groups) = (config.dim, config.position_kernel, config.position_groups);
    let width = dim / groups;
    let weight = conv.get_vec("weight", &[dim, width, kernel])?;
    let bias = conv.get_vec("bias", &[dim])?;
    let shape = ConvConfig { padding: kernel / 2, bias: true, ..ConvConfig::new(width, width, kernel) };
    let load = |(weight, bias): (&[f32], &[f32])| {
        let tensors = [
            ("weight".to_string(), Tensor::from_slice(weight, (width, width, kernel), &Device::Cpu)?),
            ("bias".to_string(), Tensor::from_slice(bias, width, &Device::Cpu)?),
        ];
        let mut stack = ConvStack::on_sequences();
        stack.conv(&Weights::from_tensors(tensors)?.loader(conv.device()), None, shape, Activation::Gelu)?;
        Ok(stack)
    };
    weight.chunks(width * width * kernel).zip(bias.chunks(width)).map(load).collect()
}

fn load_block(place: &Loader, config: &Config) -> Result<TransformerBlock> {
    let Config { dim, n_heads, ffn_dim, .. } = *config;
    let attention = place.at("attention");
    let projections = ["q_proj", "k_proj", "v_proj", "out_proj"].map(|name| attention.at(name));
    let feed_forward = place.at("feed_forward");
    Ok(TransformerBlock {
        place: if config.norm_first { NormPlace::Before } else { NormPlace::After },
        norm1: LayerNorm::load(&place.at("layer_norm"), dim, EPS)?,
        attention: self_attention(projections, dim, n_heads, true)?,
        norm2: LayerNorm::load(&place.at("final_layer_norm"), dim, EPS)?,
        fc1: Linear::load(&feed_forward.at("intermediate_dense"), dim, ffn_dim, Activation::Gelu)?,
        fc2: Linear::load(&feed_forward.at("output_dense"), ffn_dim, dim, Activation::Identity)?,
        dropout: None,
    })
}

/// Where the encoder stands in a checkpoint.
fn place<'a>(root: &Loader<'a>) -> Loader<'a> {
    let is_here = |place: &Loader| place.at("feature_extractor.conv_layers.0.conv").shape("weight").is_some();
    checkpoint::place(root, &PLACES, is_here)
}

impl SpeechEncoder for Wav2Vec2Encoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Encoded> {
        let clips = checked_clips(waveforms, self.info.sample_rate, self.info.min_samples)?;
        let clips: Vec<Array2<f32>> = clips.iter().map(|clip: &Cow<[f32]>| self.prepare(clip)).collect();
        batch::by_length(&clips, AT_ONCE, |clips| {
            let n_samples = clips.first().map_or(0, |clip| clip.nrows());
            let values: Vec<f32> = clips.iter().copied().flatten().copied().collect();
            let samples = Tensor::from_vec(values, (clips.len(), n_samples, 1), &self.device);
            self.forward_samples(&samples.context("moving samples to the device")?, layers)
        })
    }
}
