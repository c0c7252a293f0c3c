//! The audio tower of Qwen2-Audio, and the layer that brings its states to the language model.
//!
//! Paper: Chu et al., "Qwen2-Audio Technical Report", 2024 (arXiv 2407.10759). Reference: `Qwen2AudioForConditionalGeneration` and
//! `Qwen2AudioEncoder` of transformers. Checkpoint keys: theirs, `audio_tower.layers.0.self_attn.q_proj.weight` and
//! `multi_modal_projector.linear.weight`, of the whole model, whose language model is not read, or of the encoder alone.
//!
//! waveform `[batch, n_samples]` at 16 kHz → log-mel with 128 filters, convolutions, positions and blocks of
//! [`whisper`]: `[batch, n_tokens, 1280]`, 50 per second → mean of each two: `[batch, n_frames, 1280]`, 25 per second
//! → norm → projection `[batch, n_frames, 4096]`. With `T = ⌈n_samples / 160⌉`, `n_tokens = ⌈T / 2⌉` and `n_frames =
//! ⌊n_tokens / 2⌋`.
//!
//! The original fills every clip up with zeros to 30 s and masks what is not the clip's own in attention. What comes out here are
//! the clip's own frames, the same values, without the work for the zeros. Shortest clip: 321 samples; shorter ones are padded with
//! zeros at their end to that length. A clip of more than 30 s is an error: it has to be cut.
//!
//! Hidden states with [`Layers::All`]: the input of the first block and the output of each, the mean of each two; the last one with
//! its norm. [`Qwen2AudioEncoder::encode`] gives them as transformers does, 50 per second.

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

/// Tokens to a frame.
const STRIDE: usize = 2;
/// Where the model may stand in a checkpoint.
const PLACES: [&str; 1] = ["model"];
/// What else a checkpoint of the whole model holds.
const REST: [&str; 3] = ["language_model.*", "model.language_model.*", "lm_head.*"];

/// A loaded audio tower.
#[derive(Debug)]
pub struct Qwen2AudioEncoder {
    config: Config,
    info: EncoderInfo,
    tower: WhisperEncoder,
    projector: Option<Linear>,
}

/// What the audio tower says about a batch. Zeros follow a clip's own states.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Qwen2AudioOutput {
    /// The input of the first block and the output of each, before the norm, each `[batch, n_tokens, dim]`, f32, 50 per second;
    /// none with [`Layers::Last`].
    pub layers: Vec<Tensor>,
    /// Tokens of each clip.
    pub n_tokens: Vec<usize>,
    /// The mean of each two of the last states, normalised: `[batch, n_frames, dim]`, 25 per second.
    pub last_hidden: Tensor,
    /// What the language model is given, `[batch, n_frames, projection]`, if the checkpoint has the projection.
    pub projected: Option<Tensor>,
    /// Frames of each clip.
    pub lengths: Vec<usize>,
}

impl Qwen2AudioEncoder {
    /// Builds the encoder from a checkpoint, of the whole model or of the encoder alone. [`Config::from_hugging_face`] has the
    /// sizes.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the configuration cannot work, [`Error::Weights`](crate::Error::Weights) with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let encoder = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(encoder)
    }

    /// The encoder with the tensors that a loader gives, below `audio_tower` and `multi_modal_projector` at this place or below
    /// `model` there; without a projection also at this place itself.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the configuration cannot work or the tensors are to be trained, which this encoder cannot be; else
    /// as [`Loader::get`].
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
            // A frame needs two tokens, which three log-mel frames make.
            min_samples: tower.mel().max_samples() / tower.mel().config().max_frames * whisper::STRIDE + 1,
            ..whisper.clone()
        };
        Ok(Self { config: config.clone(), info, tower, projector })
    }

    /// The configuration that it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All that the audio tower says about a batch of clips of any lengths. A row's result is the result for the clip alone.
    ///
    /// # Errors
    /// As [`SpeechEncoder::forward`].
    pub fn encode(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Qwen2AudioOutput> {
        let clips = checked_clips(waveforms, self.info.sample_rate, self.info.min_samples)?;
        let clips = clips.iter().map(|clip| self.features(clip)).collect::<Result<Vec<_>>>()?;
        let at_once = whisper::STRIDE * self.config.n_positions;
        let run = |clips: &[&Array2<f32>]| self.run(clips, layers).context("Qwen2-Audio");
        let Encoded { layers, last: last_hidden, lengths, layer_lengths: n_tokens } =
            batch::by_length(&clips, at_once, run)?;
        let project = |projector: &Linear| {
            let projected = projector.forward(&last_hidden)?;
            batch::cut_tensor(&projected, &lengths).context("Qwen2-Audio")
        };
        let projected = self.projector.as_ref().map(project).transpose()?;
        Ok(Qwen2AudioOutput { layers, n_tokens, last_hidden, projected, lengths })
    }

    /// The log-mel frames of a clip that its own tokens see: one more than theirs, where there is one before 30 s.
    fn features(&self, clip: &[f32]) -> Result<Array2<f32>> {
        let mel = self.tower.mel();
        let n_tokens = mel.n_frames(clip.len()).div_ceil(whisper::STRIDE);
        let features = mel.compute_padded(clip)?;
        let seen = (n_tokens * whisper::STRIDE + 1).min(features.nrows());
        Ok(features.slice(s![..seen, ..]).to_owned())
    }

    /// Clips of one number of log-mel frames: the hidden states, one per token, and the last one after pooling and norm.
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

/// The mean of each two of `[batch, n, dim]`; a last one by itself is left out.
fn pool(x: &Tensor) -> candle_core::Result<Tensor> {
    let (batch, n, dim) = x.dims3()?;
    let pairs = n / STRIDE;
    x.narrow(1, 0, pairs * STRIDE)?.contiguous()?.reshape((batch, pairs, STRIDE, dim))?.mean(2)
}

/// Where the model stands in a checkpoint.
fn place<'a>(root: &Loader<'a>) -> Loader<'a> {
    checkpoint::place(root, &PLACES, |place| place.at("audio_tower").shape("conv1.weight").is_some())
}

/// Where the audio tower stands in a model.
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
        let pooled = below.iter().map(pool).collect::<candle_core::Result<Vec<_>>>().context("Qwen2-Audio")?;
        let last = (layers == Layers::All).then(|| last_hidden.clone());
        Ok(Encoded::new(pooled.into_iter().chain(last).collect(), last_hidden, lengths))
    }
}
