//! The encoder of W2V-BERT 2.0: Conformer blocks over mel features.
//!
//! Papers: Barrault et al., "Seamless: Multilingual Expressive and Streaming Speech Translation", 2023 (arXiv
//! 2312.05187); Gulati et al., "Conformer", 2020 (arXiv 2005.08100). Reference: `Wav2Vec2BertModel` of transformers.
//! Checkpoint keys: theirs, with or without the prefix `wav2vec2_bert.`.
//!
//! waveform `[batch, n_samples]` at 16 kHz → log-mel frames, normalised per clip and mel bin, stacked in pairs:
//! `[batch, n_steps, 160]`, 50 per second → layer norm, linear layer: `[batch, n_steps, dim]` → Conformer blocks: half
//! a feed-forward layer, attention, a causal convolution over 31 steps, half a feed-forward layer, a norm → optionally
//! an adapter: strided convolutions, attention, a feed-forward layer.
//!
//! A step with an odd last frame is padded and masked: it gets no attention and is not part of the result; only the
//! convolutions of an adapter use it. Shortest clip: 560 samples (one step); shorter clips are padded with zeros at the
//! end. An adapter may need more steps.
//!
//! Hidden states with [`Layers::All`]: the input of the first block, then the output of each block. An adapter shortens
//! only [`Encoded::last`], and may change its width.

mod adapter;
mod block;
mod config;
mod hugging_face;

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use ndarray::{Array2, s};

use self::adapter::Adapter;
use self::block::{Block, Tables};
use super::checkpoint::{self, refuse_training};
use super::{Encoded, EncoderInfo, Layers, SpeechEncoder, batch};
use crate::audio::WaveformBatch;
use crate::batch::checked_clips;
use crate::check::{check_lengths, min_samples};
use crate::error::{Context, Result};
use crate::frontend::{SeamlessM4t, SeamlessM4tConfig};
use crate::nn::{Activation, LayerNorm, Linear, mask};
use crate::weights::{Loader, Weights};
pub use config::{AdapterConfig, Config, Positions};

/// Limit on the samples that run at once: 30 s, or a single longer clip.
const AT_ONCE: usize = 30 * 16_000;
/// Prefixes of the encoder's tensors in checkpoints.
const PLACES: [&str; 2] = ["wav2vec2_bert", "encoder"];
/// Ignored tensors: those of pre-training, and tables that are computed.
const REST: [&str; 2] = ["masked_spec_embed", "encoder.embed_positions.*"];

/// The encoder of W2V-BERT 2.0.
#[derive(Debug)]
pub struct W2vBertEncoder {
    config: Config,
    info: EncoderInfo,
    device: Device,
    front_end: SeamlessM4t,
    projection_norm: LayerNorm,
    projection: Linear,
    blocks: Vec<Block>,
    adapter: Option<Adapter>,
}

impl W2vBertEncoder {
    /// Builds the encoder from a checkpoint. [`Config::from_weights`] finds the sizes.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the configuration is invalid;
    /// [`Error::Weights`](crate::Error::Weights) with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let encoder = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(encoder)
    }

    /// Builds the encoder from a loader, below its prefix or below `wav2vec2_bert` or `encoder` there.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the configuration is invalid, or if the loader creates trainable
    /// tensors, which this encoder does not support; otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let front_end = SeamlessM4t::new(&config.front_end)?;
        refuse_training(root, &config.name)?;
        let place = place(root);
        REST.iter().for_each(|rest| place.ignore(rest));
        let SeamlessM4tConfig { fbank, stride, .. } = front_end.config();
        let more = (config.min_frames()? - stride).saturating_mul(fbank.hop_length);
        let shortest = front_end.min_samples().saturating_add(more);
        min_samples("front_end", *stride, shortest)?;
        let steps = stride * config.steps_per_frame()?;
        let frame_seconds = (fbank.hop_length * steps) as f64 / f64::from(fbank.sample_rate);
        let info = EncoderInfo {
            n_layers: config.n_blocks + 1,
            min_samples: shortest,
            ..EncoderInfo::new(config.name.clone(), fbank.sample_rate, config.output_dim(), frame_seconds)
        };
        let projection = place.at("feature_projection");
        let n_features = front_end.n_features();
        let block = |index: usize| Block::load(&place.at("encoder.layers").at(index), config);
        Ok(Self {
            config: config.clone(),
            info,
            device: root.device().clone(),
            projection_norm: LayerNorm::load(&projection.at("layer_norm"), n_features, config.norm_eps)?,
            projection: Linear::load(&projection.at("projection"), n_features, config.dim, Activation::Identity)?,
            front_end,
            blocks: (0..config.n_blocks).map(block).collect::<Result<_>>()?,
            adapter: config.adapter.as_ref().map(|adapter| Adapter::load(&place, config, adapter)).transpose()?,
        })
    }

    /// The configuration of the encoder.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn front_end(&self) -> &SeamlessM4t {
        &self.front_end
    }

    /// Runs everything after the front end on features `[batch, n_steps, n_features]`, f32, on the encoder's device.
    /// The first `lengths[b]` steps belong to clip `b` (see
    /// [`SeamlessM4tBatch::lengths`](crate::frontend::SeamlessM4tBatch::lengths)); without `lengths`, all do.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) unless there is one length per clip, between 1 and `n_steps`;
    /// [`Error::Tensor`](crate::Error::Tensor) if the shape or the device does not match, or if there are fewer steps
    /// than the adapter's convolutions need.
    pub fn forward_features(&self, features: &Tensor, lengths: Option<&[usize]>, layers: Layers) -> Result<Encoded> {
        let (batch, n_steps, _) = features.dims3().context("reading the shape of the features")?;
        let all = vec![n_steps; batch];
        let lengths = lengths.unwrap_or(&all);
        check_lengths(lengths, batch, 1..=n_steps)?;
        self.run(features, lengths, layers).context("running W2V-BERT")
    }

    fn run(&self, features: &Tensor, lengths: &[usize], layers: Layers) -> Result<Encoded> {
        let n_steps = features.dim(1)?;
        // Without padding no mask is needed.
        let masked = lengths.iter().any(|&length| length < n_steps).then_some(lengths);
        let mut x = self.projection.forward(&self.projection_norm.forward(features)?)?;
        if let Some(lengths) = masked {
            x = mask(&x, lengths)?;
        }
        let tables = Tables::new(&self.config, n_steps, features.device())?;
        let mut states = Vec::new();
        for block in &self.blocks {
            states.extend((layers == Layers::All).then(|| x.clone()));
            x = block.forward(&x, masked, &tables)?;
        }
        states.extend((layers == Layers::All).then(|| x.clone()));
        let (last, last_lengths) = match &self.adapter {
            Some(adapter) => adapter.forward(x, lengths.to_vec())?,
            None => (x, lengths.to_vec()),
        };
        let states = states.iter().map(|x| batch::cut_tensor(x, lengths)).collect::<candle_core::Result<_>>()?;
        let last = batch::cut_tensor(&last, &last_lengths)?;
        Ok(Encoded { layer_lengths: lengths.to_vec(), ..Encoded::new(states, last, last_lengths) })
    }

    /// Runs clips with the same number of samples.
    fn forward_clips(&self, clips: &[&Array2<f32>], layers: Layers) -> Result<Encoded> {
        let n_samples = clips.first().map_or(0, |clip| clip.nrows());
        let length = self.front_end.length(n_samples);
        let n_steps = if self.adapter.is_some() { self.front_end.n_steps(n_samples) } else { length };
        let features = |clip: &&Array2<f32>| {
            let samples: Cow<[f32]> = clip.as_slice().map_or_else(|| clip.iter().copied().collect(), Cow::Borrowed);
            Ok(self.front_end.compute(&samples)?.slice_move(s![..n_steps, ..]))
        };
        let features = clips.iter().map(features).collect::<Result<Vec<_>>>()?;
        let features = batch::stack(&features.iter().collect::<Vec<_>>(), &self.device)?;
        self.forward_features(&features, Some(&vec![length; clips.len()]), layers)
    }
}

/// The loader below the encoder's prefix in a checkpoint.
fn place<'a>(root: &Loader<'a>) -> Loader<'a> {
    let is_here = |place: &Loader| place.at("feature_projection.projection").shape("weight").is_some();
    checkpoint::place(root, &PLACES, is_here)
}

impl SpeechEncoder for W2vBertEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Encoded> {
        let clips = checked_clips(waveforms, self.info.sample_rate, self.info.min_samples)?;
        let clips: Vec<Array2<f32>> = clips.iter().map(|clip| batch::column(clip)).collect();
        batch::by_length(&clips, AT_ONCE, |clips| self.forward_clips(clips, layers))
    }
}
