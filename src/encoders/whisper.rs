//! The encoder of Whisper.
//!
//! Paper: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022 (arXiv 2212.04356).
//! References: `AudioEncoder` of openai/whisper, `WhisperEncoder` of transformers. Checkpoint keys: those of either,
//! `encoder.blocks.0.attn.query` or `model.encoder.layers.0.self_attn.q_proj`, with or without the decoder, which is
//! ignored.
//!
//! waveform `[batch, n_samples]` at 16 kHz → log-mel `[batch, n_frames, n_mels]`, 100 per second → convolution with
//! kernel 3, GELU → convolution with kernel 3 and stride 2, GELU: `[batch, ⌈n_frames / 2⌉, dim]`, 50 per second → plus
//! position embeddings → transformer blocks (pre-norm) → norm.
//!
//! The original pads every clip with zeros to 30 s. Here a clip keeps its own length and uses the first position
//! embeddings, so that short clips are fast and no attention goes to padding; [`Config::pad`] restores the padding. The
//! output contains the clip's own frames in both cases. Clips of more than 30 s are an error: cut them first.

mod config;
mod hugging_face;
mod names;

use std::borrow::Cow;

use candle_core::{Device, Tensor};

use super::batch;
use super::checkpoint::{refuse_training, self_attention};
use super::{Encoded, EncoderInfo, Layers, SpeechEncoder};
use crate::audio::WaveformBatch;
use crate::batch::checked_clips;
use crate::check::check_lengths;
use crate::error::{Context, Error, Result};
use crate::frontend::WhisperMel;
use crate::nn::{Activation, ConvConfig, ConvStack, LayerNorm, Linear, NormPlace, TransformerBlock, mask};
use crate::weights::{Loader, Weights};
pub use config::Config;
use names::{Names, place};

/// Log-mel frames per encoder frame.
pub(super) const STRIDE: usize = 2;
/// Epsilon of the layer norms.
const EPS: f32 = 1e-5;
/// Tensors of the rest of a whole model.
const DECODERS: [&str; 4] = ["decoder.*", "model.decoder.*", "whisper.decoder.*", "proj_out.*"];

/// Whisper's encoder.
#[derive(Debug)]
pub struct WhisperEncoder {
    config: Config,
    info: EncoderInfo,
    device: Device,
    mel: WhisperMel,
    convs: ConvStack,
    positions: Tensor, // [n_positions, dim]
    blocks: Vec<TransformerBlock>,
    norm: LayerNorm,
}

impl WhisperEncoder {
    /// Builds the encoder from a checkpoint of the whole model or of the encoder alone. [`Config::from_weights`] finds
    /// the sizes.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid; [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let encoder = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(encoder)
    }

    /// Builds the encoder from a loader, below its prefix or below `encoder` there.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, or if the loader creates trainable tensors, which this
    /// encoder does not support; otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        refuse_training(root, "whisper")?;
        let mel = WhisperMel::new(&config.mel())?;
        let Config { n_mels, dim, n_positions, .. } = *config;
        let place = place(root);
        let names = Names::detect(&place);
        let mut convs = ConvStack::on_sequences();
        for (name, in_channels, stride) in [("conv1", n_mels, 1), ("conv2", dim, STRIDE)] {
            let conv = ConvConfig { stride, padding: 1, bias: true, ..ConvConfig::new(in_channels, dim, 3) };
            convs.conv(&place.at(name), None, conv, Activation::Gelu)?;
        }
        let positions = match place.lacks(names.positions) {
            true => sinusoids(n_positions, dim, root.device()).context("computing position embeddings")?,
            false => place.get(names.positions, (n_positions, dim))?,
        };
        for rest in DECODERS {
            root.ignore(rest);
        }
        let sizes = [dim, config.n_heads, config.ffn_dim];
        let block = |index: usize| load_block(&place.at(names.blocks).at(index), sizes, &names);
        let hop = mel.max_samples() / mel.config().max_frames;
        let frame_seconds = (STRIDE * hop) as f64 / f64::from(mel.sample_rate());
        let info = EncoderInfo {
            n_layers: config.n_blocks + 1,
            ..EncoderInfo::new(config.name.clone(), mel.sample_rate(), dim, frame_seconds)
        };
        Ok(Self {
            config: config.clone(),
            info,
            device: root.device().clone(),
            mel,
            convs,
            positions,
            blocks: (0..config.n_blocks).map(block).collect::<Result<_>>()?,
            norm: LayerNorm::load(&place.at(names.norm), dim, EPS)?,
        })
    }

    /// The configuration of the encoder.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn mel(&self) -> &WhisperMel {
        &self.mel
    }

    /// Runs everything after the front end on features `[batch, n_frames, n_mels]`, f32, on the encoder's device, with
    /// at most `2 · n_positions` frames. The first `lengths[b]` frames belong to clip `b`; without `lengths`, all do.
    /// The first `⌈lengths[b] / 2⌉` of the hidden states `[batch, ⌈n_frames / 2⌉, dim]` belong to clip `b`; later ones
    /// are 0.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are too many frames, or unless there is one length per clip, between 1 and
    /// `n_frames`; [`Error::Tensor`] if the shape or the device does not match.
    pub fn forward_features(&self, features: &Tensor, lengths: Option<&[usize]>, layers: Layers) -> Result<Encoded> {
        self.run(features, lengths, layers).context("running Whisper's encoder")
    }

    fn run(&self, features: &Tensor, lengths: Option<&[usize]>, layers: Layers) -> Result<Encoded> {
        let (batch, n_frames, _) = features.dims3()?;
        let longest = STRIDE * self.config.n_positions;
        if !(1..=longest).contains(&n_frames) {
            return Err(Error::argument("n_frames", n_frames, format!("expected 1 to {longest}")));
        }
        if let Some(lengths) = lengths {
            check_lengths(lengths, batch, 1..=n_frames)?;
        }
        // Without padding no mask is needed.
        let lengths = lengths.filter(|lengths| lengths.iter().any(|&length| length < n_frames));
        let n_tokens = n_frames.div_ceil(STRIDE);
        let tokens = lengths.map(|lengths| lengths.iter().map(|length| length.div_ceil(STRIDE)).collect::<Vec<_>>());

        let x = self.embed(features, lengths)?;
        let (mut states, x) = self.run_blocks(x, tokens.as_deref(), layers)?;
        let last = self.norm.forward(&x)?;
        states.extend((layers == Layers::All).then(|| last.clone()));
        match tokens {
            Some(tokens) => Ok(Encoded::new(states, last, tokens.clone()).try_map(|x| mask(x, &tokens))?),
            None => Ok(Encoded::new(states, last, vec![n_tokens; batch])),
        }
    }

    /// The input of the first block, `[batch, n_tokens, dim]`.
    pub(super) fn embed(&self, features: &Tensor, lengths: Option<&[usize]>) -> Result<Tensor> {
        let x = self.convs.forward_vectors(features, lengths)?;
        Ok(x.broadcast_add(&self.positions.narrow(0, 0, x.dim(1)?)?)?)
    }

    /// Runs the blocks. Returns the input of each block, if all layers are requested, and the output of the last block
    /// before the norm.
    pub(super) fn run_blocks(
        &self,
        mut x: Tensor,
        tokens: Option<&[usize]>,
        layers: Layers,
    ) -> Result<(Vec<Tensor>, Tensor)> {
        let mut states = Vec::new();
        for block in &self.blocks {
            states.extend((layers == Layers::All).then(|| x.clone()));
            x = block.forward(&x, tokens)?;
        }
        Ok((states, x))
    }

    /// Applies `f` to the output of each block, for features `[batch, n_frames, n_mels]`.
    pub(crate) fn map_blocks(
        &self,
        features: &Tensor,
        mut f: impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<Vec<Tensor>> {
        let mut x = self.embed(features, None)?;
        let run = |block: &TransformerBlock| {
            x = block.forward(&x, None)?;
            f(&x)
        };
        self.blocks.iter().map(run).collect()
    }

    /// The norm after the blocks.
    pub(super) fn norm(&self) -> &LayerNorm {
        &self.norm
    }
}

/// Sinusoidal position embeddings `[n_positions, dim]`: sin(t f) in the first half of a vector, cos(t f) in the second;
/// `f` from 1 to 1/10,000, geometrically spaced.
fn sinusoids(n_positions: usize, dim: usize, device: &Device) -> candle_core::Result<Tensor> {
    let half = dim / 2;
    let step = 10_000f64.ln() / (half.max(2) - 1) as f64;
    let value = |i: usize| {
        let (t, place) = (i / dim, i % dim);
        let angle = t as f64 * (-step * (place % half) as f64).exp();
        (if place < half { angle.sin() } else { angle.cos() }) as f32
    };
    Tensor::from_iter((0..n_positions * dim).map(value), device)?.reshape((n_positions, dim))
}

/// A block with the tensor names of openai/whisper.
pub(crate) fn residual_block(place: &Loader, dim: usize, n_heads: usize) -> Result<TransformerBlock> {
    load_block(place, [dim, n_heads, 4 * dim], &Names::OPENAI)
}

fn load_block(place: &Loader, [dim, n_heads, ffn_dim]: [usize; 3], names: &Names) -> Result<TransformerBlock> {
    let attention = place.at(names.attention);
    Ok(TransformerBlock {
        place: NormPlace::Before,
        norm1: LayerNorm::load(&place.at(names.norm1), dim, EPS)?,
        attention: self_attention(names.projections.map(|name| attention.at(name)), dim, n_heads, [true, false, true])?,
        norm2: LayerNorm::load(&place.at(names.norm2), dim, EPS)?,
        fc1: Linear::load(&place.at(names.fc1), dim, ffn_dim, Activation::Gelu)?,
        fc2: Linear::load(&place.at(names.fc2), ffn_dim, dim, Activation::Identity)?,
        dropout: None,
    })
}

impl SpeechEncoder for WhisperEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Encoded> {
        let features = |clip: &Cow<[f32]>| match self.config.pad {
            true => self.mel.compute_padded(clip),
            false => self.mel.compute(clip),
        };
        let clips = checked_clips(waveforms, self.info.sample_rate, self.info.min_samples)?;
        let features = clips.iter().map(features).collect::<Result<Vec<_>>>()?;
        let mut encoded = batch::by_length(&features, STRIDE * self.config.n_positions, |clips| {
            self.forward_features(&batch::stack(clips, &self.device)?, None, layers)
        })?;
        if self.config.pad && !self.config.keep_padding {
            let lengths = waveforms.rows().iter().map(|clip| self.mel.n_frames(clip.len()).div_ceil(STRIDE));
            encoded = batch::cut(encoded, lengths.collect())?;
        }
        Ok(encoded)
    }
}
