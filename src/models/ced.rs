//! CED, vision transformers for audio tagging, and Dasheng, the same architecture with other patches, for embeddings.
//!
//! Papers: Dinkel et al., "CED: Consistent ensemble distillation for audio tagging", 2023 (arXiv 2308.11957); "Scaling
//! up masked audio encoder learning for general audio classification", 2024 (arXiv 2406.06992). References:
//! RicherMans/CED, `models/audiotransformer.py`; XiaoMi/dasheng, `dasheng/train/models.py`. Checkpoint keys: as
//! published there, or with the prefix `encoder.` of the Hugging Face conversions.
//!
//! waveform `[batch, n_samples]` at 16 kHz → log-mel in dB `[batch, n_frames, 64]` → batch norm per mel bin → patches
//! of 16 mel bins x 16 frames, projected by a linear layer → time and frequency position embeddings added → 12
//! transformer blocks (pre-norm) → norm → mean over all tokens (the embedding) → norm, linear, sigmoid.
//!
//! The table of time positions has 63 entries, so a window has 1012 frames (10.1 s). A shorter clip uses the beginning
//! of the table; frames at its end that do not fill a patch are dropped. Clips of fewer than 2,400 samples are
//! zero-padded at the end to that length.
//!
//! # Dasheng
//! A patch covers all 64 mel bins x 4 frames, so a token covers 40 ms; the table of time positions has 252 entries
//! (1008 frames). The published encoders have no head: `n_classes` is 0, and the output is the embedding. A head is
//! named as in CED (`outputlayer`), as in the published AudioSet classifier, or `classifier` beside `dashengmodel`, the
//! names of the class in Dasheng's README. Clips of fewer than 480 samples are zero-padded at the end to that length.
//!
//! # Long clips
//! A longer clip is cut into windows of 1012 frames. [`Config::window_mean`] selects what is averaged over the windows:
//!
//! | [`WindowMean`] | last window | `clipwise_output` | `embedding` |
//! |---|---|---|---|
//! | `Scores`: RicherMans/CED | zero-padded after the batch norm | mean over the windows | mean over the windows |
//! | `Tokens`: Hugging Face | zero-padded after the batch norm | head on the embedding | mean over the tokens of all windows |
//! | `TokensByLength`: XiaoMi/dasheng | the remaining whole patches | head on the embedding | mean over the tokens of all windows |
//! | `ScoresByLength` | the remaining frames | weighted mean over the windows | weighted mean over the windows |
//!
//! - Windows of equal length have equally many tokens, so the first two rules give the same embedding.
//! - Where scores are averaged, `logits` are `ln(p / (1 − p))` of the mean.
//! - Padding is added to the normalised spectrogram, where 0 is about the mean of the training data, so the model does
//!   not take it for silence. A clip of 10.2 s has two windows, the second almost all padding, and both count equally.
//! - Both references drop the last window if a clip's frames divide evenly into windows (20.23 s of audio). This is a
//!   bug: with one frame more or less, the whole clip counts. Here it always counts.
//! - The Hugging Face class mixes tokens of different clips if a batch has several long clips. Here each row equals the
//!   result for that clip alone.

mod config;

use candle_core::{Device, Tensor};

use super::vit::{self, BlockShape, GridPositions, weighted_mean};
use super::{Detail, ModelInfo, TaggingModel};
use crate::check;
use crate::error::{Context, Error, Result};
use crate::frontend::{FrontEnd, LogMel};
use crate::nn::{Activation, BatchNorm, LayerNorm, Linear, NormPlace, PatchEmbedding, TransformerBlock};
use crate::output::{OutputActivation, TaggingOutput};
use crate::weights::{Loader, Weights};
pub use config::{Config, WindowMean};

/// ε of the layer norms in the blocks, and of the layer norm before the last layer.
const BLOCK_EPS: f32 = 1e-6;
const HEAD_EPS: f32 = 1e-5;
/// Window and mel filters of a checkpoint that includes its front end.
const WINDOW: &str = "front_end.0.spectrogram.window"; // [win_length]
const FILTERS: &str = "front_end.0.mel_scale.fb"; // [n_bins, n_mels]

/// A loaded CED.
#[derive(Debug)]
pub struct Ced {
    config: Config,
    info: ModelInfo,
    device: Device,
    log_mel: LogMel,
    init_bn: BatchNorm,
    patch_embed: PatchEmbedding,
    positions: GridPositions,
    blocks: Vec<TransformerBlock>,
    norm: LayerNorm,
    /// The layer norm and the linear layer after the mean; `None` for a model without a head.
    head: Option<(LayerNorm, Linear)>,
}

impl Ced {
    /// Builds the model from a checkpoint. If the checkpoint includes a window and mel filters, these are used.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::Weights`] listing every tensor that is missing,
    /// unexpected or of the wrong shape.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        config.validate()?;
        let root = weights.loader(device);
        let encoder = match root.first_of(&["patch_embed", "encoder", "dashengmodel"]) {
            "patch_embed" => root.clone(),
            place => root.at(place),
        };
        root.ignore("decoder.*");
        let log_mel = load_front_end(config, if root.lacks(WINDOW) { &encoder } else { &root })?;
        check::min_samples("hop_length", config.log_mel.stft.hop_length, log_mel.samples_for(config.patch[1]))?;
        let init_bn = if encoder.lacks("init_bn.1.weight") { "init_bn" } else { "init_bn.1" };
        let init_bn = BatchNorm::load(&encoder.at(init_bn), config.log_mel.mel.n_mels)?;

        let patches = config.patches();
        let [rows, columns] = patches.grid(config.log_mel.mel.n_mels, config.target_length);
        let width = config.width;
        let patch_embed = PatchEmbedding::load(&encoder.at("patch_embed").at("proj"), patches, width)?;
        let positions = GridPositions::load(&encoder, ["time_pos_embed", "freq_pos_embed"], [rows, columns], width)?;

        let shape =
            BlockShape { width, n_heads: config.n_heads, ffn_dim: 4 * width, place: NormPlace::Before, eps: BLOCK_EPS };
        let block = |i: usize| vit::load_block(&encoder.at("blocks").at(i), &shape);
        let blocks = (0..config.depth).map(block).collect::<Result<_>>()?;
        let norm = LayerNorm::load(&encoder.at("norm"), width, BLOCK_EPS)?;
        let head = root.at(root.first_of(&["outputlayer", "classifier"]));
        let load_head = || {
            let output = Linear::load(&head.at("1").in_f32(), width, config.n_classes, Activation::Identity)?;
            Ok::<_, Error>((LayerNorm::load(&head.at("0"), width, HEAD_EPS)?, output))
        };
        let head = (config.n_classes > 0).then(load_head).transpose()?;
        root.finish(&config.name)?;
        Ok(Self {
            config: config.clone(),
            info: config.info(&log_mel),
            device: device.clone(),
            log_mel,
            init_bn,
            patch_embed,
            positions,
            blocks,
            norm,
            head,
        })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The front end.
    pub fn log_mel(&self) -> &LogMel {
        &self.log_mel
    }

    fn run(&self, log_mel: &Tensor) -> Result<TaggingOutput> {
        let (_, n_frames, _) = log_mel.dims3()?;
        let needed = self.config.patch[1];
        if n_frames < needed {
            return Err(Error::TooShort { needed, got: n_frames });
        }
        let x = self.init_bn.forward(log_mel)?;
        if n_frames <= self.config.target_length {
            return self.classify(&self.embed(&x)?);
        }
        self.forward_windows(&x, n_frames)
    }

    /// Everything after the front end for at most `target_length` frames, `[batch, n_frames, n_mels]`: the tokens after each
    /// block, `[batch, n_tokens, width]`, the input of the first one before them.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not fit.
    pub fn hidden_states(&self, log_mel: &Tensor) -> Result<Vec<Tensor>> {
        vit::hidden_states(&self.blocks, self.tokens(&self.init_bn.forward(log_mel)?)?)
    }

    /// From the normalised spectrogram of one window, `[batch, n_frames, n_mels]`, to the input of the first block.
    fn tokens(&self, x: &Tensor) -> Result<Tensor> {
        self.positions.add(&self.patch_embed.forward(x)?).context("CED")
    }

    /// From the normalised spectrogram of one window, `[batch, n_frames, n_mels]`, to the mean over its tokens, `[batch, width]`.
    fn embed(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.blocks.iter().try_fold(self.tokens(x)?, |x, block| block.forward(&x, None))?;
        Ok(self.norm.forward(&x)?.mean(1)?)
    }

    /// The windows of a clip of `n_frames` frames.
    fn windows(&self, n_frames: usize) -> Vec<Window> {
        let Config { target_length, patch: [_, patch], window_mean, .. } = self.config;
        let n_frames = if window_mean == WindowMean::TokensByLength { n_frames - n_frames % patch } else { n_frames };
        let window = |start: usize| {
            let length = target_length.min(n_frames - start);
            if matches!(window_mean, WindowMean::Scores | WindowMean::Tokens) {
                return Window { start, length, padded: target_length, weight: 1 };
            }
            let start = if length < patch { n_frames - patch } else { start };
            let length = length.max(patch);
            Window { start, length, padded: length, weight: length / patch }
        };
        (0..n_frames).step_by(target_length).map(window).collect()
    }

    /// Tags clips longer than a window from their normalised spectrograms, `[batch, n_frames, n_mels]`.
    fn forward_windows(&self, x: &Tensor, n_frames: usize) -> Result<TaggingOutput> {
        let windows = self.windows(n_frames);
        let embed = |window: &Window| {
            let cut = x.narrow(1, window.start, window.length)?;
            self.embed(&cut.pad_with_zeros(1, 0, window.padded - window.length)?.contiguous()?)
        };
        let embeddings = windows.iter().map(embed).collect::<Result<Vec<_>>>()?;
        let weights: Vec<usize> = windows.iter().map(|window| window.weight).collect();
        let embedding = weighted_mean(&embeddings, &weights)?;
        if matches!(self.config.window_mean, WindowMean::Tokens | WindowMean::TokensByLength) {
            return self.classify(&embedding);
        }
        let scores = embeddings.iter().map(|embedding| Ok(self.classify(embedding)?.clipwise_output));
        let clipwise_output = weighted_mean(&scores.collect::<Result<Vec<_>>>()?, &weights)?;
        let logits = OutputActivation::Sigmoid.logits(&clipwise_output)?;
        Ok(TaggingOutput::new(logits, clipwise_output, embedding))
    }
}

/// A window of a clip, in frames.
struct Window {
    start: usize,
    length: usize,
    /// The length including zero padding.
    padded: usize,
    weight: usize,
}

fn load_front_end(config: &Config, root: &Loader) -> Result<LogMel> {
    let log_mel = LogMel::new(&config.log_mel)?;
    if root.lacks(WINDOW) || root.lacks(FILTERS) {
        root.ignore("front_end.*");
        return Ok(log_mel);
    }
    let window = root.get_vec(WINDOW, &[config.log_mel.stft.win_length])?;
    let filters = root.get_array(FILTERS, [log_mel.mel().n_bins(), log_mel.mel().n_mels()])?;
    log_mel.with_tables(&window, filters.t())
}

impl TaggingModel for Ced {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        match &self.head {
            Some((norm, output)) => {
                let logits = output.forward(&norm.forward(embedding)?)?; // [batch, n_classes]
                TaggingOutput::multi_label(logits, embedding.clone())
            }
            None => vit::without_head(embedding),
        }
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.log_mel)
    }

    /// Takes log-mel in dB, with at least as many frames as a patch.
    fn forward_features(&self, log_mel: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.info.check(detail)?;
        self.run(log_mel).context("running CED")
    }
}
