//! The encoders of wav2vec 2.0, XLS-R, MMS, HuBERT and WavLM.
//!
//! Papers: Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", 2020
//! (arXiv 2006.11477); Hsu et al., "HuBERT", 2021 (arXiv 2106.07447); Babu et al., "XLS-R", 2021 (arXiv 2111.09296);
//! Chen et al., "WavLM", 2021 (arXiv 2110.13900). Reference: `Wav2Vec2Model`, `HubertModel` and `WavLMModel` of
//! transformers. Checkpoint keys: theirs, with or without the prefix `wav2vec2.`, `hubert.` or `wavlm.`, or those of
//! fairseq and of WavLM's authors (`post_extract_proj`, `encoder.layers.N.self_attn`); both forms of weight norm
//! (`weight_g` and `weight_v`, `parametrizations.weight.original0` and `original1`), or a plain `weight`.
//!
//! waveform `[batch, n_samples]` at 16 kHz, optionally normalised per clip → 7 convolutions without padding, GELU, 320
//! samples per step: `[batch, n_frames, 512]` → layer norm, linear layer: `[batch, n_frames, dim]` → plus a grouped
//! convolution over 128 frames with GELU (the positions) → transformer blocks.
//!
//! There are two published variants. Base models normalise each channel over the time of the clip after the first
//! convolution, and have post-norm blocks, with a norm before the first block. Large models have a layer norm after
//! every convolution, and pre-norm blocks, with a norm after the last block.
//!
//! MMS models have an adapter after each block, `x + linear(relu(linear(norm(x))))`, which is trained for one language
//! (Pratap et al., "Scaling Speech Technology to 1,000+ Languages", 2023, arXiv 2305.13516).
//!
//! WavLM adds a bias to the attention scores: a table by the distance from query to key, shared by all blocks, times a
//! gate that each block computes from the query's frame.
//!
//! Each clip runs at its own length, since padding would change the norm over time. Shortest clip: 400 samples; shorter
//! clips are padded with zeros at the end and then normalised.
//!
//! Hidden states with [`Layers::All`]: the input of the first block, then the output of each block, as in transformers
//! 5 and s3prl. (In transformers 4 the last one is after the final norm, like [`Encoded::last`].)

mod block;
mod config;
mod extractor;
mod hugging_face;
mod names;
mod positions;

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use ndarray::Array2;

use super::batch;
use super::checkpoint::refuse_training;
use super::{Encoded, EncoderInfo, Layers, SpeechEncoder};
use crate::audio::WaveformBatch;
use crate::batch::checked_clips;
use crate::error::{Context, Error, Result};
use crate::nn::{Activation, DistanceScores, LayerNorm, Linear};
use crate::weights::{Loader, Weights};
use block::Block;
pub use config::{Config, ConvLayer, ConvNorm, PositionBias};
use extractor::Extractor;
use names::{Names, ignore_pretraining, place};
use positions::Positions;

/// Sample rate in Hz.
const SAMPLE_RATE: u32 = 16_000;
/// Epsilon of all norms.
const EPS: f32 = 1e-5;
/// Epsilon of a clip's variance.
const CLIP_EPS: f64 = 1e-7;
/// Limit on the samples that run at once: 30 s, or a single longer clip.
const AT_ONCE: usize = 30 * SAMPLE_RATE as usize;
/// An encoder of the wav2vec 2.0 family.
#[derive(Debug)]
pub struct Wav2Vec2Encoder {
    config: Config,
    info: EncoderInfo,
    device: Device,
    extractor: Extractor,
    projection_norm: Option<LayerNorm>,
    projection: Linear,
    positions: Positions,
    norm: LayerNorm,
    distances: Option<DistanceScores>,
    blocks: Vec<Block>,
}

impl Wav2Vec2Encoder {
    /// Builds the encoder from a checkpoint. [`Config::from_weights`] finds the sizes.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid; [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let encoder = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(encoder)
    }

    /// Builds the encoder from a loader, below its prefix or below `wav2vec2`, `hubert`, `wavlm` or `encoder` there.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, or if the loader creates trainable tensors, which this
    /// encoder does not support; otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        let adapters = place(root).at("encoder.layers");
        Self::with_adapters(config, root, |index| adapters.at(index).at("adapter_layer"))
    }

    /// As [`build`](Self::build) for an MMS model, with the adapters from another loader, below
    /// `wav2vec2.encoder.layers.N.adapter_layer`: to train the adapters of a language from
    /// [`Parameters`](crate::weights::Parameters), with all else frozen. With a head from the same parameters, their
    /// saved file is an `adapter.<language>.safetensors`.
    ///
    /// Gradients pass through the frozen blocks above an adapter, so the tensor library computes everything, and
    /// intermediate results of the blocks are kept for the backward pass.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_with_adapters(config: &Config, root: &Loader, adapters: &Loader) -> Result<Self> {
        let root = root.clone().without_kernels();
        let (replaced, adapters) = (place(&root).at("encoder.layers"), adapters.at("wav2vec2.encoder.layers"));
        Self::with_adapters(config, &root, |index| {
            replaced.at(index).ignore("adapter_layer.*");
            adapters.at(index).at("adapter_layer")
        })
    }

    /// Builds the encoder, with the adapter of each block from `adapter`.
    fn with_adapters<'a>(config: &Config, root: &Loader<'a>, adapter: impl Fn(usize) -> Loader<'a>) -> Result<Self> {
        config.validate()?;
        refuse_training(root, &config.name)?;
        let place = place(root);
        ignore_pretraining(root, &place);
        let names = Names::detect(&place);
        let Config { dim, n_blocks, n_heads, .. } = *config;
        let in_channels = config.convs.last().map_or(0, |conv| conv.channels);
        let projection_norm = match config.projection_norm {
            true => Some(LayerNorm::load(&place.at(names.projection_norm), in_channels, EPS)?),
            false => None,
        };
        let (min_samples, stride) = config.grid()?;
        let frame_seconds = stride as f64 / f64::from(SAMPLE_RATE);
        let info = EncoderInfo {
            n_layers: n_blocks + 1,
            min_samples,
            ..EncoderInfo::new(config.name.clone(), SAMPLE_RATE, dim, frame_seconds)
        };
        let blocks = place.at("encoder.layers");
        let first_attention = blocks.at(0).at(names.attention);
        let distances = |PositionBias { n_buckets, max_distance }| {
            DistanceScores::load(&first_attention, names.distances, (n_buckets, max_distance), n_heads)
        };
        let distances = config.position_bias.map(distances);
        Ok(Self {
            config: config.clone(),
            info,
            device: root.device().clone(),
            extractor: Extractor::load(&place, &names, config)?,
            projection_norm,
            projection: Linear::load(&place.at(names.projection), in_channels, dim, Activation::Identity)?,
            positions: Positions::load(&place, &names, config)?,
            norm: LayerNorm::load(&place.at("encoder.layer_norm"), dim, EPS)?,
            distances: distances.transpose()?,
            blocks: (0..n_blocks)
                .map(|index| Block::load(&blocks.at(index), &adapter(index), &names, config))
                .collect::<Result<_>>()?,
        })
    }

    /// The configuration of the encoder.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Computes the hidden states of samples `[batch, n_samples, 1]`, f32, on the encoder's device. If
    /// [`Config::normalize`] is set, the clips must have been normalised.
    ///
    /// # Errors
    /// [`Error::TooShort`] if there are fewer samples than [`min_samples`](EncoderInfo::min_samples); [`Error::Tensor`]
    /// if the shape or the device does not match.
    pub fn forward_samples(&self, samples: &Tensor, layers: Layers) -> Result<Encoded> {
        let (batch, n_samples, _) = samples.dims3().context("reading the shape of the samples")?;
        let n_frames = self.config.n_frames(n_samples);
        if n_frames == 0 {
            return Err(Error::TooShort { needed: self.info.min_samples, got: n_samples });
        }
        let (states, last) = self.run(samples, layers).context("running wav2vec 2.0")?;
        Ok(Encoded::new(states, last, vec![n_frames; batch]))
    }

    fn run(&self, samples: &Tensor, layers: Layers) -> Result<(Vec<Tensor>, Tensor)> {
        let mut x = self.extractor.forward(samples)?;
        if let Some(norm) = &self.projection_norm {
            x = norm.forward(&x)?;
        }
        let x = self.projection.forward(&x)?; // [batch, n_frames, dim]
        let mut x = self.positions.forward_add(&x)?;
        if !self.config.norm_first {
            x = self.norm.forward(&x)?;
        }
        let distances = self.distances.as_ref().map(|distances| distances.of(x.dim(1)?)).transpose()?;
        let mut states = Vec::new();
        for block in &self.blocks {
            states.extend((layers == Layers::All).then(|| x.clone()));
            x = block.forward(&x, distances.as_ref())?;
        }
        states.extend((layers == Layers::All).then(|| x.clone()));
        Ok((states, if self.config.norm_first { self.norm.forward(&x)? } else { x }))
    }

    /// A clip as a column, normalised if the model requires it.
    fn prepare(&self, clip: &[f32]) -> Array2<f32> {
        let samples = batch::column(clip);
        if !self.config.normalize {
            return samples;
        }
        let n = clip.len().max(1) as f64;
        let mean = clip.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = clip.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        let scale = (variance + CLIP_EPS).sqrt().recip();
        samples.mapv_into(|x| ((f64::from(x) - mean) * scale) as f32)
    }
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
        batch::by_length(&clips, AT_ONCE, |clips| self.forward_samples(&batch::stack(clips, &self.device)?, layers))
    }
}
