//! The audio tower of Qwen2-Audio, and the projection of its states to the language model.
//!
//! Paper: Chu et al., "Qwen2-Audio Technical Report", 2024 (arXiv 2407.10759). Reference:
//! `Qwen2AudioForConditionalGeneration` and `Qwen2AudioEncoder` of transformers. Checkpoint keys: theirs,
//! `audio_tower.layers.0.self_attn.q_proj.weight` and `multi_modal_projector.linear.weight`, from the whole model
//! (whose language model is ignored) or from the encoder alone.
//!
//! waveform `[batch, n_samples]` at 16 kHz → log-mel with 128 filters, convolutions, position embeddings and blocks of
//! [`whisper`]: `[batch, n_tokens, 1280]`, 50 per second → mean over pairs: `[batch, n_frames, 1280]`, 25 per second →
//! norm → projection `[batch, n_frames, 4096]`. With `T = ⌈n_samples / 160⌉`, `n_tokens = ⌈T / 2⌉` and
//! `n_frames = ⌊n_tokens / 2⌋`.
//!
//! The original pads every clip with zeros to 30 s and masks the padding in attention. Here the result contains the
//! clip's own frames, with the same values, without the work for the padding. Shortest clip: 321 samples; shorter clips
//! are padded with zeros at the end. Clips of more than 30 s are an error: cut them first.
//!
//! Hidden states with [`Layers::All`]: the input of the first block and the output of each block, averaged over pairs;
//! the last one after its norm. [`Qwen2AudioEncoder::encode`] returns them like transformers, 50 per second.

mod config;

use candle_core::{Device, Tensor};
use ndarray::{Array2, s};

use super::whisper::{self, WhisperEncoder};
use super::{Encoded, EncoderInfo, Layers, SpeechEncoder, batch, checkpoint};
use crate::audio::WaveformBatch;
use crate::batch::checked_clips;
use crate::error::{Context, Result};
use crate::nn::{Activation, Linear};
use crate::weights::{Loader, Weights};
pub use config::Config;

/// Tokens per frame.
const STRIDE: usize = 2;
/// Prefixes of the model's tensors in checkpoints.
const PLACES: [&str; 1] = ["model"];
/// Tensors of the rest of the whole model.
const REST: [&str; 3] = ["language_model.*", "model.language_model.*", "lm_head.*"];

/// The audio tower of Qwen2-Audio.
#[derive(Debug)]
pub struct Qwen2AudioEncoder {
    config: Config,
    info: EncoderInfo,
    tower: WhisperEncoder,
    projector: Option<Linear>,
}

/// The output of the audio tower for a batch. States beyond the length of a clip are 0.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Qwen2AudioOutput {
    /// The input of the first block and the output of each block, before the norm, each `[batch, n_tokens, dim]`, f32,
    /// 50 per second; empty with [`Layers::Last`].
    pub layers: Vec<Tensor>,
    /// Number of tokens of each clip.
    pub n_tokens: Vec<usize>,
    /// The last states, averaged over pairs and normalised: `[batch, n_frames, dim]`, 25 per second.
    pub last_hidden: Tensor,
    /// The input of the language model, `[batch, n_frames, projection]`, if the checkpoint has the projection.
    pub projected: Option<Tensor>,
    /// Number of frames of each clip.
    pub lengths: Vec<usize>,
}

impl Qwen2AudioEncoder {
    /// Builds the encoder from a checkpoint of the whole model or of the encoder alone. [`Config::from_hugging_face`]
    /// or [`Config::from_weights`] find the sizes.
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

    /// Builds the encoder from a loader: from `audio_tower` and `multi_modal_projector`, below its prefix or below
    /// `model` there. Without a projection, the tensors may also be directly below the prefix.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the configuration is invalid, or if the loader creates trainable
    /// tensors, which this encoder does not support; otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let place = place(root);
        REST.into_iter().for_each(|rest| root.ignore(rest));
        let tower = WhisperEncoder::build(&config.tower(), &tower_place(&place))?;
        let projector = match config.projection {
            Some(width) => {
                let linear = place.at("multi_modal_projector.linear");
                Some(Linear::load(&linear, config.dim, width, Activation::Identity)?)
            }
            None => {
                place.ignore("multi_modal_projector.*");
                None
            }
        };
        let whisper = tower.info();
        let info = EncoderInfo {
            name: config.name.clone(),
            frame_seconds: STRIDE as f64 * whisper.frame_seconds,
            // A frame needs two tokens, and these need three log-mel frames.
            min_samples: tower.mel().max_samples() / tower.mel().config().max_frames * whisper::STRIDE + 1,
            ..whisper.clone()
        };
        Ok(Self { config: config.clone(), info, tower, projector })
    }

    /// The configuration of the encoder.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Computes all outputs of the audio tower for a batch of clips of any lengths. The result for each row equals that
    /// for the clip alone.
    ///
    /// # Errors
    /// As [`SpeechEncoder::forward`].
    pub fn encode(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Qwen2AudioOutput> {
        let clips = checked_clips(waveforms, self.info.sample_rate, self.info.min_samples)?;
        let clips = clips.iter().map(|clip| self.features(clip)).collect::<Result<Vec<_>>>()?;
        let at_once = whisper::STRIDE * self.config.n_positions;
        let run = |clips: &[&Array2<f32>]| self.run(clips, layers).context("running Qwen2-Audio");
        let Encoded { layers, last: last_hidden, lengths, layer_lengths: n_tokens } =
            batch::by_length(&clips, at_once, run)?;
        let project = |projector: &Linear| {
            let projected = projector.forward(&last_hidden)?;
            batch::cut_tensor(&projected, &lengths).context("projecting hidden states")
        };
        let projected = self.projector.as_ref().map(project).transpose()?;
        Ok(Qwen2AudioOutput { layers, n_tokens, last_hidden, projected, lengths })
    }

    /// The log-mel frames that the tokens of a clip depend on: one more than they cover, if there is one before 30 s.
    fn features(&self, clip: &[f32]) -> Result<Array2<f32>> {
        let mel = self.tower.mel();
        let n_tokens = mel.n_frames(clip.len()).div_ceil(whisper::STRIDE);
        let features = mel.compute_padded(clip)?;
        let seen = (n_tokens * whisper::STRIDE + 1).min(features.nrows());
        Ok(features.slice(s![..seen, ..]).to_owned())
    }

    /// Runs clips with the same number of log-mel frames. Returns the hidden states, one per token, and the last one
    /// after pooling and norm.
    fn run(&self, clips: &[&Array2<f32>], layers: Layers) -> Result<Encoded> {
        let features = batch::stack(clips, self.tower.device())?;
        let n_tokens = features.dim(1)? / whisper::STRIDE;
        let x = self.tower.embed(&features, None)?.narrow(1, 0, n_tokens)?.contiguous()?;
        let (mut states, x) = self.tower.run_blocks(x, None, layers)?;
        let last_hidden = self.tower.norm().forward(&pool(&x)?)?;
        states.extend((layers == Layers::All).then_some(x));
        let [lengths, layer_lengths] = [n_tokens / STRIDE, n_tokens].map(|length| vec![length; clips.len()]);
        Ok(Encoded { layer_lengths, ..Encoded::new(states, last_hidden, lengths) })
    }
}

/// The mean over pairs of `[batch, n, dim]`; an odd last one is dropped.
fn pool(x: &Tensor) -> candle_core::Result<Tensor> {
    let (batch, n, dim) = x.dims3()?;
    let pairs = n / STRIDE;
    x.narrow(1, 0, pairs * STRIDE)?.contiguous()?.reshape((batch, pairs, STRIDE, dim))?.mean(2)
}

/// The loader below the model's prefix in a checkpoint.
fn place<'a>(root: &Loader<'a>) -> Loader<'a> {
    checkpoint::place(root, &PLACES, |place| place.at("audio_tower").shape("conv1.weight").is_some())
}

/// The loader of the audio tower in a model.
fn tower_place<'a>(place: &Loader<'a>) -> Loader<'a> {
    if place.shape("conv1.weight").is_some() { place.clone() } else { place.at("audio_tower") }
}

impl SpeechEncoder for Qwen2AudioEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        self.tower.device()
    }

    fn forward(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Encoded> {
        let Qwen2AudioOutput { layers: states, last_hidden, lengths, .. } = self.encode(waveforms, layers)?;
        let below = &states[..states.len().saturating_sub(1)];
        let pooled =
            below.iter().map(pool).collect::<candle_core::Result<Vec<_>>>().context("pooling hidden states")?;
        let last = (layers == Layers::All).then(|| last_hidden.clone());
        Ok(Encoded::new(pooled.into_iter().chain(last).collect(), last_hidden, lengths))
    }
}
