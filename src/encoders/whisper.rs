//! The encoder of Whisper.
//!
//! Paper: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022 (arXiv 2212.04356). References:
//! `AudioEncoder` of openai/whisper, `WhisperEncoder` of transformers. Checkpoint keys: those of either, `encoder.blocks.0.attn.query`
//! or `model.encoder.layers.0.self_attn.q_proj`, with or without the decoder, which is not read.
//!
//! waveform `[batch, n_samples]` at 16 kHz → log-mel `[batch, n_frames, n_mels]`, 100 per second → convolution over 3 frames, GELU →
//! the same with a step of 2, GELU: `[batch, ⌈n_frames / 2⌉, dim]`, 50 per second → plus a table of positions → transformer
//! blocks (norm first) → norm.
//!
//! The original fills every clip up with zeros to 30 s. Here a clip takes its own length and the beginning of the table, so
//! that short clips are fast and nothing attends to silence that is not there; [`Config::pad`] brings the zeros back. What
//! comes out are the clip's own frames in both cases. A clip of more than 30 s is an error: it has to be cut.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::batch;
use super::family::Family;
use super::{Encoded, EncoderInfo, Layers, SpeechEncoder};
use crate::audio::WaveformBatch;
use crate::batch::checked_clips;
use crate::check::{self, MAX_LAYERS, MAX_WIDTH, check_lengths};
use crate::error::{Context, Error, Result};
use crate::frontend::{WhisperMel, WhisperMelConfig};
use crate::nn::{
    Activation, ConvConfig, ConvStack, LayerNorm, Linear, NormPlace, SelfAttention, TransformerBlock, mask,
};
use crate::weights::{Loader, Target, Weights};

/// Log-mel frames to one of the encoder's.
const STRIDE: usize = 2;
/// The most frames that it may see: 11 minutes.
const MAX_POSITIONS: usize = 1 << 15;
/// ε of the layer norms.
const EPS: f32 = 1e-5;
/// The length of a head in every published size.
const HEAD_DIM: usize = 64;
/// Where the encoder's tensors may stand in a checkpoint.
const PLACES: [&str; 5] = ["encoder", "model.encoder", "whisper.encoder", "encoder.encoder", "audio_encoder"];
/// What else stands in a checkpoint of the whole model.
const DECODERS: [&str; 4] = ["decoder.*", "model.decoder.*", "whisper.decoder.*", "proj_out.*"];

/// The shape of a Whisper encoder. Presets are the published ones; English-only models have the same shapes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `whisper`.
    #[serde(default = "whisper")]
    pub name: Cow<'static, str>,
    /// Mel filters of the front end.
    pub n_mels: usize,
    /// Length of a hidden state, even, 2 to 65,536.
    pub dim: usize,
    /// Attention heads; a divisor of `dim`.
    pub n_heads: usize,
    /// Transformer blocks, 1 to 1,024.
    pub n_blocks: usize,
    /// Width of a block's feed-forward layer, 1 to 65,536.
    pub ffn_dim: usize,
    /// The most frames that it can see, 50 per second; 1 to 32,768, and times `dim` at most 2^24.
    pub n_positions: usize,
    /// Whether clips are filled up with zeros to `n_positions` frames, as in the original. Default when read from a file: no.
    #[serde(default)]
    pub pad: bool,
}

/// The family's name.
fn whisper() -> Cow<'static, str> {
    Cow::Borrowed("whisper")
}

impl Config {
    /// Whisper tiny: 8.2 M parameters.
    pub const TINY: Self = Self {
        name: Cow::Borrowed("whisper-tiny"),
        n_mels: 80,
        dim: 384,
        n_heads: 6,
        n_blocks: 4,
        ffn_dim: 1536,
        n_positions: 1500,
        pad: false,
    };
    /// Whisper base: 20.6 M parameters.
    pub const BASE: Self =
        Self { name: Cow::Borrowed("whisper-base"), dim: 512, n_heads: 8, n_blocks: 6, ffn_dim: 2048, ..Self::TINY };
    /// Whisper small: 88.2 M parameters.
    pub const SMALL: Self =
        Self { name: Cow::Borrowed("whisper-small"), dim: 768, n_heads: 12, n_blocks: 12, ffn_dim: 3072, ..Self::TINY };
    /// Whisper medium: 307 M parameters.
    pub const MEDIUM: Self = Self {
        name: Cow::Borrowed("whisper-medium"),
        dim: 1024,
        n_heads: 16,
        n_blocks: 24,
        ffn_dim: 4096,
        ..Self::TINY
    };
    /// Whisper large and large-v2: 637 M parameters.
    pub const LARGE: Self = Self {
        name: Cow::Borrowed("whisper-large"),
        dim: 1280,
        n_heads: 20,
        n_blocks: 32,
        ffn_dim: 5120,
        ..Self::TINY
    };
    /// Whisper large-v3, and its turbo, whose encoder is the same.
    pub const LARGE_V3: Self = Self { name: Cow::Borrowed("whisper-large-v3"), n_mels: 128, ..Self::LARGE };

    /// The sizes that the tensors of a checkpoint have; heads have 64 values each.
    ///
    /// # Errors
    /// [`Error::UnknownModel`] if it holds no Whisper encoder.
    pub fn from_weights(weights: &Weights) -> Result<Self> {
        Self::from_place(&place(&weights.loader(&Device::Cpu)))
    }

    fn from_place(place: &Loader) -> Result<Self> {
        let unknown = || Error::UnknownModel("the checkpoint holds no Whisper encoder".to_string());
        let names = Names::of(place);
        let block = |index: usize| place.at(names.blocks).at(index);
        let (Some(&[dim, n_mels, _]), Some(&[ffn_dim, _])) =
            (place.shape("conv1.weight"), block(0).at(names.fc1).shape("weight"))
        else {
            return Err(unknown());
        };
        let n_blocks = (0..).take_while(|&index| block(index).at(names.fc1).shape("weight").is_some()).count();
        let n_positions = match place.shape(names.positions) {
            Some(&[n_positions, _]) => n_positions,
            _ => Self::TINY.n_positions,
        };
        let n_heads = (dim / HEAD_DIM).max(1);
        let sizes = Self { name: whisper(), n_mels, dim, n_heads, n_blocks, ffn_dim, n_positions, pad: false };
        let is_preset = |preset: &&Self| **preset == Self { name: preset.name.clone(), ..sizes.clone() };
        let preset = Self::PRESETS.iter().map(|(preset, _)| preset).find(is_preset);
        Ok(preset.cloned().unwrap_or(sizes))
    }

    /// The settings of the front end.
    pub fn mel(&self) -> WhisperMelConfig {
        WhisperMelConfig { n_mels: self.n_mels, max_frames: self.n_positions.saturating_mul(STRIDE) }
    }

    fn validate(&self) -> Result<()> {
        let Self { dim, n_heads, n_blocks, ffn_dim, n_positions, .. } = *self;
        check::sizes([
            ("dim", dim, MAX_WIDTH),
            ("n_blocks", n_blocks, MAX_LAYERS),
            ("ffn_dim", ffn_dim, MAX_WIDTH),
            ("n_positions", n_positions, MAX_POSITIONS),
        ])?;
        check::cells("n_positions", n_positions, dim)?;
        if !dim.is_multiple_of(2) || n_heads == 0 || !dim.is_multiple_of(n_heads) {
            return Err(Error::config("n_heads", n_heads, format!("must divide dim = {dim}, which must be even")));
        }
        Ok(())
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::TINY, "encoder of Whisper tiny, 8.2 M parameters"),
        (Self::BASE, "encoder of Whisper base, 20.6 M parameters"),
        (Self::SMALL, "encoder of Whisper small, 88.2 M parameters"),
        (Self::MEDIUM, "encoder of Whisper medium, 307 M parameters"),
        (Self::LARGE, "encoder of Whisper large and large-v2, 637 M parameters"),
        (Self::LARGE_V3, "encoder of Whisper large-v3 and its turbo, 637 M parameters"),
    ];

    fn name(&self) -> &str {
        &self.name
    }

    fn is_in(weights: &Weights) -> bool {
        place(&weights.loader(&Device::Cpu)).shape("conv1.weight").is_some()
    }

    fn build(&self, root: &Loader) -> Result<Box<dyn SpeechEncoder>> {
        Ok(Box::new(WhisperEncoder::build(self, root)?))
    }
}

/// What the tensors are called, below the encoder.
#[derive(Debug, Clone, Copy)]
struct Names {
    positions: &'static str,
    blocks: &'static str,
    norm1: &'static str,
    attention: &'static str,
    /// Queries, keys, values and the projection of the result.
    projections: [&'static str; 4],
    norm2: &'static str,
    fc1: &'static str,
    fc2: &'static str,
    norm: &'static str,
}

impl Names {
    const OPENAI: Self = Self {
        positions: "positional_embedding",
        blocks: "blocks",
        norm1: "attn_ln",
        attention: "attn",
        projections: ["query", "key", "value", "out"],
        norm2: "mlp_ln",
        fc1: "mlp.0",
        fc2: "mlp.2",
        norm: "ln_post",
    };
    const HUGGING_FACE: Self = Self {
        positions: "embed_positions.weight",
        blocks: "layers",
        norm1: "self_attn_layer_norm",
        attention: "self_attn",
        projections: ["q_proj", "k_proj", "v_proj", "out_proj"],
        norm2: "final_layer_norm",
        fc1: "fc1",
        fc2: "fc2",
        norm: "layer_norm",
    };

    fn of(place: &Loader) -> Self {
        let is_openai = place.shape("blocks.0.mlp.0.weight").is_some();
        if is_openai { Self::OPENAI } else { Self::HUGGING_FACE }
    }
}

/// Where the encoder stands in a checkpoint.
fn place<'a>(root: &Loader<'a>) -> Loader<'a> {
    let is_here = |place: &Loader| place.shape("conv1.weight").is_some() && place.shape("conv2.weight").is_some();
    let below = PLACES.into_iter().map(|name| root.at(name));
    below.into_iter().find(is_here).unwrap_or_else(|| root.clone())
}

/// A loaded encoder of Whisper.
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
    /// Builds the encoder from a checkpoint, of the whole model or of the encoder alone. [`Config::from_weights`] has the sizes.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let encoder = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(encoder)
    }

    /// The encoder with the tensors that a loader gives, below this place or below `encoder` there.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work or the tensors are to be trained, which this encoder cannot be; else
    /// as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        if let Target::Training(_) = root.target() {
            let reason = "comes from a checkpoint; what stands on top of it can be trained";
            return Err(Error::config("encoder", "whisper", reason));
        }
        let mel = WhisperMel::new(&config.mel())?;
        let Config { n_mels, dim, n_positions, .. } = *config;
        let place = place(root);
        let names = Names::of(&place);
        let mut convs = ConvStack::on_sequences();
        for (name, in_channels, stride) in [("conv1", n_mels, 1), ("conv2", dim, STRIDE)] {
            let conv = ConvConfig { stride, padding: 1, bias: true, ..ConvConfig::new(in_channels, dim, 3) };
            convs.conv(&place.at(name), None, conv, Activation::Gelu)?;
        }
        let positions = match place.lacks(names.positions) {
            true => sinusoids(n_positions, dim, root.device()).context("a table of positions")?,
            false => place.get(names.positions, (n_positions, dim))?,
        };
        for rest in DECODERS {
            root.ignore(rest);
        }
        let block = |index: usize| load_block(&place.at(names.blocks).at(index), config, &names);
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

    /// The configuration that it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn mel(&self) -> &WhisperMel {
        &self.mel
    }

    /// Everything after the front end: features `[batch, n_frames, n_mels]`, f32, on the encoder's device, at most
    /// `2 · n_positions` frames, of which the first `lengths[b]` of clip `b` count; all without `lengths`. Of the hidden
    /// states, `[batch, ⌈n_frames / 2⌉, dim]`, the first `⌈lengths[b] / 2⌉` count, and the others are 0.
    ///
    /// # Errors
    /// [`Error::Config`] for too many frames, and unless there is one length from 1 to `n_frames` a clip; [`Error::Tensor`] if
    /// the shape or the device does not fit.
    pub fn forward_features(&self, features: &Tensor, lengths: Option<&[usize]>, layers: Layers) -> Result<Encoded> {
        self.run(features, lengths, layers).context("whisper")
    }

    fn run(&self, features: &Tensor, lengths: Option<&[usize]>, layers: Layers) -> Result<Encoded> {
        let (batch, n_frames, _) = features.dims3()?;
        let longest = STRIDE * self.config.n_positions;
        if !(1..=longest).contains(&n_frames) {
            return Err(Error::config("n_frames", n_frames, format!("1 to {longest} at once")));
        }
        if let Some(lengths) = lengths {
            check_lengths(lengths, batch, 1..=n_frames)?;
        }
        // Clips that are all as long as the batch need no mask.
        let lengths = lengths.filter(|lengths| lengths.iter().any(|&length| length < n_frames));
        let n_tokens = n_frames.div_ceil(STRIDE);
        let tokens = lengths.map(|lengths| lengths.iter().map(|length| length.div_ceil(STRIDE)).collect::<Vec<_>>());

        let mut x = self.convs.forward_vectors(features, lengths)?; // [batch, n_tokens, dim]
        x = x.broadcast_add(&self.positions.narrow(0, 0, n_tokens)?)?;
        let mut states = Vec::new();
        for block in &self.blocks {
            let y = block.forward(&x, tokens.as_deref())?;
            if layers == Layers::All {
                states.push(x);
            }
            x = y;
        }
        states.push(self.norm.forward(&x)?);
        if let Some(tokens) = &tokens {
            states = states.iter().map(|x| mask(x, tokens)).collect::<candle_core::Result<_>>()?;
        }
        Ok(Encoded { layers: states, lengths: tokens.unwrap_or_else(|| vec![n_tokens; batch]) })
    }

    /// Clips of one number of frames.
    fn forward_clips(&self, clips: &[&Array2<f32>], layers: Layers) -> Result<Encoded> {
        let (n_frames, n_mels) = clips.first().map_or((0, 0), |clip| clip.dim());
        let values: Vec<f32> = clips.iter().copied().flatten().copied().collect();
        let features = Tensor::from_vec(values, (clips.len(), n_frames, n_mels), &self.device).context("whisper")?;
        self.forward_features(&features, None, layers)
    }
}

/// `[n_positions, dim]`: in the first half of a vector sin(t f), in the second cos(t f), `f` from 1 to 1/10,000 geometrically.
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

fn load_block(place: &Loader, config: &Config, names: &Names) -> Result<TransformerBlock> {
    let Config { dim, n_heads, ffn_dim, .. } = *config;
    let attention = place.at(names.attention);
    let [query, key, value, output] = names.projections.map(|name| attention.at(name));
    // Keys have no bias: it would add the same to all scores of a query.
    let mut weight = query.get_vec("weight", &[dim, dim])?;
    weight.extend(key.get_vec("weight", &[dim, dim])?);
    weight.extend(value.get_vec("weight", &[dim, dim])?);
    let mut bias = query.get_vec("bias", &[dim])?;
    bias.resize(2 * dim, 0.0);
    bias.extend(value.get_vec("bias", &[dim])?);
    let qkv = Linear::new(weight, bias, Activation::Identity, place.device())?;
    let output = Linear::load(&output, dim, dim, Activation::Identity)?;
    Ok(TransformerBlock {
        place: NormPlace::Before,
        norm1: LayerNorm::load(&place.at(names.norm1), dim, EPS)?,
        attention: SelfAttention::new(qkv, output, n_heads)?,
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
        let mut encoded =
            batch::by_length(&features, STRIDE * self.config.n_positions, |clips| self.forward_clips(clips, layers))?;
        if self.config.pad {
            let lengths = waveforms.rows().iter().map(|clip| self.mel.n_frames(clip.len()).div_ceil(STRIDE));
            encoded = batch::cut(encoded, lengths.collect())?;
        }
        Ok(encoded)
    }
}
