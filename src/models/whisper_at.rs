//! Whisper-AT: a tagger on all layers of Whisper's encoder.
//!
//! Paper: Gong et al., "Whisper-AT: Noise-Robust Automatic Speech Recognizers are Also Strong General Audio Event Taggers", 2023
//! (arXiv 2307.03183). Reference: YuanGongND/whisper-at, `package/whisper-at/whisper_at/model.py` and `transcribe.py`. Checkpoint keys:
//! Whisper's, those of openai/whisper or of transformers, beside those of the published heads (`at_model.time_tr`), in one file or in
//! two: [`OpenOptions::encoder`](crate::OpenOptions#structfield.encoder), or [`Weights::overlaid`].
//!
//! waveform `[batch, n_samples]` at 16 kHz → zeros up to 30 s → Whisper's log-mel and encoder; after each block the mean over 20
//! frames: `[batch, n_layers, 75, dim]` → windows of 25 steps (10 s), in the low-compute variant a norm and a linear layer to 512 →
//! a transformer block over the steps, mean → one over the layers, mean (the embedding) → norm, linear, sigmoid.
//!
//! The reference gives logits per window, those that begin before the clip ends. Here these are the frames, on request; scores and
//! embedding of a clip are means over its windows, weighted by the part of each that is the clip's. A clip of more than 30 s is cut
//! into pieces of 30 s. Any clip has a window; the reference gives none below 160 samples.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch::forward_by_length;
use super::family::Family;
use super::vit::weighted_mean;
use super::{Detail, FrameGrid, ModelInfo, OutputActivation, TaggingModel};
use crate::assumption::Assumption;
use crate::audio::WaveformBatch;
use crate::check::{self, MAX_CLASSES, MAX_WIDTH};
use crate::encoders::WhisperEncoder;
use crate::encoders::whisper::{self, residual_block};
use crate::error::{Context, Error, Result};
use crate::nn::{Activation, LayerNorm, Linear, TransformerBlock};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

/// ε of the layer norms.
const EPS: f32 = 1e-5;
/// Encoder frames per pooled step, and steps per window: 10 s.
const POOL: usize = 20;
const STEPS: usize = 25;
/// Samples of a mel frame, mel frames of a window.
const HOP: usize = 160;
const WINDOW_FRAMES: usize = 1000;
/// A tensor of the head.
const HEAD: &str = "at_model.mlp_layer.1.weight";

/// The shape of a Whisper-AT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `whisper-at`.
    #[serde(default = "whisper_at")]
    pub name: Cow<'static, str>,
    /// The encoder, which sees a multiple of 500 frames (10 s). Clips are filled up to its length whatever `pad` says.
    pub encoder: whisper::Config,
    /// The width to which the low-compute variant projects the encoder's states, 1 to 65,536; `None` for the encoder's own. Default
    /// when read from a file: `None`.
    #[serde(default)]
    pub low_dim: Option<usize>,
    /// Attention heads over the steps of a window; a divisor of the width.
    pub time_heads: usize,
    /// Attention heads over the layers; a divisor of the width.
    pub layer_heads: usize,
    /// Outputs of the last layer, 1 to 2^20.
    pub n_classes: usize,
}

/// The family's name.
fn whisper_at() -> Cow<'static, str> {
    Cow::Borrowed("whisper-at")
}

impl Config {
    /// On Whisper large; other sizes, and the low-compute variant, are read from the tensors.
    pub const LARGE: Self = Self {
        name: Cow::Borrowed("whisper-at"),
        encoder: whisper::Config::LARGE,
        low_dim: None,
        time_heads: 1,
        layer_heads: 8,
        n_classes: 527,
    };

    /// The width of the head.
    fn width(&self) -> usize {
        self.low_dim.unwrap_or(self.encoder.dim)
    }

    /// Windows of the encoder's length.
    fn windows_at_once(&self) -> usize {
        self.encoder.n_positions / (POOL * STEPS)
    }

    fn validate(&self) -> Result<()> {
        check::sizes([("low_dim", self.width(), MAX_WIDTH), ("n_classes", self.n_classes, MAX_CLASSES)])?;
        for (field, heads) in [("time_heads", self.time_heads), ("layer_heads", self.layer_heads)] {
            if heads == 0 || !self.width().is_multiple_of(heads) {
                return Err(Error::config(field, heads, format!("expected a divisor of the width {}", self.width())));
            }
        }
        let n_positions = self.encoder.n_positions;
        if n_positions == 0 || !n_positions.is_multiple_of(POOL * STEPS) {
            let reason = format!("expected a multiple of {}", POOL * STEPS);
            return Err(Error::config("n_positions", n_positions, reason));
        }
        Ok(())
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] =
        &[(Self::LARGE, "Whisper-AT, 16 kHz log-mel, AudioSet mAP 0.421 on Whisper large")];
    const SIGNATURES: &'static [&'static [&'static str]] = &[&[HEAD, "at_model.time_tr.attn.query.weight"]];

    fn name(&self) -> &str {
        &self.name
    }

    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        if !weights.contains(HEAD) {
            return Ok(None);
        }
        if whisper::Config::from_weights(weights).is_err() {
            let reason = "the head of Whisper-AT alone: give its encoder too (OpenOptions::encoder, --encoder)";
            return Err(Error::UnknownModel(reason.to_string()));
        }
        let mut config = Self::LARGE;
        config.fit(weights);
        Ok(Some((config, Vec::new())))
    }

    /// The encoder's sizes, the width of the head and the number of classes.
    fn fit(&mut self, weights: &Weights) {
        if let Ok(encoder) = whisper::Config::from_weights(weights) {
            self.encoder = encoder;
        }
        self.low_dim = weights.shape("at_model.down_layer.1.weight").and_then(|shape| shape.first()).copied();
        if let Some(&[n_classes, _]) = weights.shape(HEAD) {
            self.n_classes = n_classes;
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(WhisperAt::load(self, weights, device)?))
    }
}

/// A loaded Whisper-AT.
#[derive(Debug)]
pub struct WhisperAt {
    config: Config,
    info: ModelInfo,
    encoder: WhisperEncoder,
    down: Option<(LayerNorm, Linear)>,
    over_time: TransformerBlock,
    over_layers: TransformerBlock,
    norm: LayerNorm,
    output: Linear,
}

impl WhisperAt {
    /// Builds the model from a checkpoint of encoder and head.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let model = Self::build(config, &root)?;
        root.finish(&config.name)?;
        Ok(model)
    }

    /// The model with the tensors that a loader gives.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration cannot work, else as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let encoder = WhisperEncoder::build(&config.encoder, root)?;
        let (head, dim, width) = (root.at("at_model"), config.encoder.dim, config.width());
        let down = head.at("down_layer");
        let load_down = || {
            let linear = Linear::load(&down.at("1"), dim, width, Activation::Identity)?;
            Ok::<_, Error>((LayerNorm::load(&down.at("0"), dim, EPS)?, linear))
        };
        let sample_rate = encoder.mel().sample_rate();
        Ok(Self {
            info: ModelInfo {
                frames: Some(FrameGrid { first: 0, step: WINDOW_FRAMES * HOP }),
                ..ModelInfo::new(config.name.clone(), sample_rate, config.n_classes, width)
            },
            encoder,
            down: config.low_dim.is_some().then(load_down).transpose()?,
            over_time: residual_block(&head.at("time_tr"), width, config.time_heads)?,
            over_layers: residual_block(&head.at("layer_tr"), width, config.layer_heads)?,
            norm: LayerNorm::load(&head.at("mlp_layer.0"), width, EPS)?,
            output: Linear::load(&head.at("mlp_layer.1").in_f32(), width, config.n_classes, Activation::Identity)?,
            config: config.clone(),
        })
    }

    /// The configuration that it was loaded with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The encoder.
    pub fn encoder(&self) -> &WhisperEncoder {
        &self.encoder
    }

    /// Windows of a clip.
    fn n_windows(n_samples: usize) -> usize {
        (n_samples / HOP).max(1).div_ceil(WINDOW_FRAMES)
    }

    /// Clips with this many windows each.
    fn run(&self, clips: &[&[f32]], n_windows: usize, detail: Detail) -> Result<TaggingOutput> {
        let at_once = self.config.windows_at_once();
        let mut embeddings = Vec::new();
        for first in (0..n_windows).step_by(at_once) {
            let start = first * WINDOW_FRAMES * HOP;
            let end = start + at_once * WINDOW_FRAMES * HOP;
            let pieces: Vec<&[f32]> =
                clips.iter().map(|clip| &clip[start.min(clip.len())..end.min(clip.len())]).collect();
            // One by one: each is filled up to 30 s.
            let embed = |piece: &[f32]| self.embed(piece, at_once.min(n_windows - first));
            let pieces = pieces.into_iter().map(embed).collect::<Result<Vec<_>>>()?;
            embeddings.push(Tensor::cat(&pieces, 0)?);
        }
        let embeddings = Tensor::cat(&embeddings, 1)?; // [batch, n_windows, width]
        let logits = self.output.forward(&self.norm.forward(&embeddings)?)?; // [batch, n_windows, n_classes]
        let frames = candle_nn::ops::sigmoid(&logits)?;
        let mut rows = Vec::new();
        for (row, clip) in clips.iter().enumerate() {
            let n_frames = (clip.len() / HOP).max(1);
            let weights: Vec<usize> =
                (0..n_windows).map(|window| WINDOW_FRAMES.min(n_frames - window * WINDOW_FRAMES)).collect();
            let mean = |x: &Tensor| {
                let parts = (0..n_windows).map(|window| x.narrow(0, row, 1)?.get_on_dim(1, window));
                weighted_mean(&parts.collect::<candle_core::Result<Vec<_>>>()?, &weights)
            };
            let (scores, embedding) = (mean(&frames)?, mean(&embeddings)?);
            let logits = match n_windows {
                1 => logits.narrow(0, row, 1)?.squeeze(1)?,
                _ => OutputActivation::Sigmoid.logits(&scores)?,
            };
            rows.push([logits, scores, embedding]);
        }
        let join = |part: usize| Tensor::cat(&rows.iter().map(|row| &row[part]).collect::<Vec<_>>(), 0);
        let mut output = TaggingOutput::new(join(0)?, join(1)?, join(2)?);
        output.framewise_output = (detail == Detail::Frames).then_some(frames);
        Ok(output)
    }

    /// The first windows of a clip that the encoder sees at once, `[1, n_windows, width]`.
    fn embed(&self, clip: &[f32], n_windows: usize) -> Result<Tensor> {
        let mel = self.encoder.mel();
        let features = mel.compute_padded(if clip.is_empty() { &[0.0] } else { clip })?;
        let shape = (1, features.nrows(), features.ncols());
        let features = Tensor::from_iter(features, self.device())?.reshape(shape)?;
        let [_, _, layers] = self.run_stages(&features, n_windows)?;
        Ok(layers.mean(1)?.unsqueeze(0)?)
    }

    /// Everything from the front end's features to the embedding, for as many frames as the encoder sees at once,
    /// `[1, 2 · n_positions, n_mels]`: the encoder's layers, pooled, `[n_windows, n_layers, 25, dim]`; the mean over the steps of the
    /// first block of the head, `[n_windows, n_layers, width]`; what the second block makes of it, the same shape. Its mean over the
    /// layers is the embedding.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not fit.
    pub fn stages(&self, features: &Tensor) -> Result<[Tensor; 3]> {
        self.run_stages(features, self.config.windows_at_once()).context("running Whisper-AT")
    }

    fn run_stages(&self, features: &Tensor, n_windows: usize) -> Result<[Tensor; 3]> {
        let layers = self.encoder.map_blocks(features, |x| {
            let steps = x.narrow(1, 0, n_windows * STEPS * POOL)?.reshape((n_windows, STEPS, POOL, ()))?;
            Ok(steps.mean(2)?) // [n_windows, 25, dim]
        })?;
        let (n_layers, width) = (layers.len(), self.config.width());
        let pooled = Tensor::stack(&layers, 1)?; // [n_windows, n_layers, 25, dim]
        let mut x = pooled.flatten(0, 1)?;
        if let Some((norm, linear)) = &self.down {
            x = linear.forward(&norm.forward(&x)?)?;
        }
        let time = self.over_time.forward(&x, None)?.mean(1)?.reshape((n_windows, n_layers, width))?;
        let layers = self.over_layers.forward(&time, None)?;
        Ok([pooled, time, layers])
    }
}

impl TaggingModel for WhisperAt {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        use crate::encoders::SpeechEncoder;
        self.encoder.device()
    }

    fn forward(&self, batch: &WaveformBatch, detail: Detail) -> Result<TaggingOutput> {
        self.info.check(detail)?;
        let run = |clips: &[&[f32]]| {
            let n_windows = clips.iter().map(|clip| Self::n_windows(clip.len())).max().unwrap_or(1);
            self.run(clips, n_windows, detail).context("running Whisper-AT")
        };
        forward_by_length(batch, &self.info, Self::n_windows, run)
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        TaggingOutput::multi_label(self.output.forward(&self.norm.forward(embedding)?)?, embedding.clone())
    }
}
