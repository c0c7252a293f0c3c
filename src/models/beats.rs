//! BEATs and OpenBEATs: transformers over spectrogram patches with gated relative position bias.
//!
//! Papers: Chen et al., "BEATs: Audio Pre-Training with Acoustic Tokenizers", 2022 (arXiv 2212.09058); Bharadwaj et
//! al., "OpenBEATs", 2025 (arXiv 2507.14129); Schmid et al., "Effective Pre-Training of Audio Transformers for Sound
//! Event Detection", 2024 (arXiv 2409.09546). References: microsoft/unilm, `beats/BEATs.py` and `backbone.py`; espnet
//! 202511, `espnet2/asr/encoder/beats_encoder.py` and `espnet2/cls/decoder/linear_decoder.py`; fschmid56/PretrainedSED,
//! `models/prediction_wrapper.py`. Checkpoint keys: those of BEATs, or below `encoder.` with `decoder.linear_out`
//! (ESPnet), or below `model.beats.` or `model.model.` with `strong_head` (PretrainedSED).
//!
//! waveform `[batch, n_samples]` at 16 kHz → Kaldi fbank of 16-bit samples `[batch, n_frames, 128]` → `(x − mean) / (2
//! std)` → patches of 16 frames x 16 mel bins, projected by a linear layer without bias: `[batch, n_tokens, 512]`, 8
//! tokens per 160 ms → norm, linear layer to `width` → plus a grouped convolution over 128 tokens with GELU → norm → 12
//! or 24 transformer blocks (post-norm, scaled residuals) → mean over the tokens (the embedding) → linear, sigmoid. The
//! reference applies the linear layer to each token before the mean, which gives the same result. An encoder without a
//! head has `n_classes` 0.
//!
//! A bias that depends on the query–key distance is added to the attention scores. All blocks share the table of biases; each block
//! multiplies it by a gate computed from the projected query.
//!
//! The references process clips of any length in one piece. Here a clip of more than 3,072 frames (31 s) is cut into
//! windows of that length, the last of which ends with the clip; scores and embedding are means over the windows,
//! weighted by the frames that each adds. Clips of fewer than 2,800 samples, which yield fewer than 16 frames, are
//! zero-padded at the end to that length. BEATs fails on such clips, and ESPnet repeats clips of fewer than 3,200
//! samples.
//!
//! # Classes
//! BEATs' class order is that of the checkpoint's `label_dict`, not AudioSet's. A `.pth` file with a `label_dict`
//! provides the names. Without one, as in ESPnet's checkpoints, the classes are numbered; pass the names yourself.
//!
//! # ESPnet's `config.yaml`
//! It is not read:
//! - `token_list` names the classes; the last entry, `<unk>`, has no output. Give the others as labels.
//! - `fbank_mean` and `fbank_std` belong to the training data. Set [`Config::mean`] and [`Config::std`] where they are not OpenBEATs'.
//! - All sizes in `beats_config` are inferred from the tensors. `deep_norm`, gated relative positions and a maximum distance of
//!   800 tokens are assumed to be those of BEATs.
//! - A decoder that does not pool by the mean, `max_layer`, `downsampling_rate` and `adapter_config` are not supported.
//!
//! # Frames
//! `beats-strong` classifies frames of 40 ms into the 447 classes of AudioSet-Strong. It runs on windows of 10 s, whose
//! 496 tokens are averaged to 250 frames; the last window is padded with silence. The score of a clip is the maximum
//! over its frames, and the embedding is the mean over the tokens.

mod config;

use candle_core::{Device, Tensor};

use super::vit::{self, BlockShape};
use super::{Detail, ModelInfo, OutputActivation, TaggingModel};
use crate::encoders::self_attention;
use crate::error::{Context, Error, Result};
use crate::frontend::FrontEnd;
use crate::frontend::features::Features;
use crate::labels::{Label, LabelSet};
use crate::nn::{
    Activation, DistanceGates, DistanceScores, GroupedConv1d, LayerNorm, Linear, NormPlace, PatchEmbedding,
    TransformerBlock,
};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};
pub use config::Config;

/// ε of all norms.
const EPS: f32 = 1e-5;
/// Frames per output step of the strong head, and the window of that head: 10 s, without its last two frames.
const STEP: usize = 4;
const WINDOW_HOP: usize = 1000;
const WINDOW: usize = WINDOW_HOP - 2;
const STEPS: usize = WINDOW_HOP / STEP;

/// A loaded BEATs.
#[derive(Debug)]
pub struct Beats {
    config: Config,
    info: ModelInfo,
    device: Device,
    front_end: Features,
    patches: PatchEmbedding,
    patch_norm: LayerNorm,
    projection: Option<Linear>,
    positions: GroupedConv1d,
    norm: LayerNorm,
    distances: DistanceScores,
    blocks: Vec<(TransformerBlock, DistanceGates)>,
    head: Option<Linear>,
    /// Averages the tokens of a window to the steps of the strong head.
    steps: Option<Linear>,
}

impl Beats {
    /// Builds the model from a checkpoint. Takes the class names from its `label_dict`, if it has one.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::Weights`] listing every tensor that is missing,
    /// unexpected or of the wrong shape.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let mut model = Self::build(config, &root)?;
        root.finish(&config.name)?;
        if let Some(labels) = labels(weights).filter(|labels| labels.len() == config.n_classes) {
            model.info.labels = Some(labels);
        }
        Ok(model)
    }

    /// Builds the model from the tensors of a loader.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, otherwise as [`Loader::get`].
    pub fn build(config: &Config, root: &Loader) -> Result<Self> {
        config.validate()?;
        let front_end = vit::front_end(&config.fbank, config.mean, config.std)?;
        vit::check_tokens(config.patches().grid(config.fbank.n_mels, config.target_length))?;
        let Config { patch_dim, width, n_heads, ffn_dim, depth, n_classes, .. } = *config;
        let place = match root.first_of(&["patch_embedding", "encoder.patch_embedding", "model"]) {
            "patch_embedding" => root.clone(),
            "model" => root.at("model").at(root.at("model").first_of(&["beats", "model"])),
            _ => root.at("encoder"),
        };
        let encoder = place.at("encoder");
        let first_attention = encoder.at("layers.0.self_attn");
        let alpha = (2.0 * depth as f64).powf(0.25) as f32;
        let norm = if config.deep_norm { NormPlace::AfterScaled(alpha) } else { NormPlace::After };
        let shape = BlockShape { width, n_heads, ffn_dim, place: norm, eps: EPS };
        let load_block = |index: usize| {
            let place = encoder.at("layers").at(index);
            let attention = place.at("self_attn");
            // All blocks share one table, of which each may store a copy.
            attention.ignore("relative_attention_bias.weight");
            let gates = DistanceGates::load(&attention, ["grep_linear", "grep_a"], width / n_heads, n_heads)?;
            let projections = ["q_proj", "k_proj", "v_proj", "out_proj"].map(|name| attention.at(name));
            let attention = self_attention(projections, width, n_heads, [true; 3])?;
            let layers = ["self_attn_layer_norm", "final_layer_norm", "fc1", "fc2"].map(|name| place.at(name));
            Ok::<_, Error>((vit::block(&shape, attention, layers)?, gates))
        };
        let conv = encoder.at("pos_conv.0");
        let filters = conv.get_vec("weight", &[width, width / config.position_groups, config.position_kernel])?;
        let positions = (filters, conv.get_vec("bias", &[width])?);
        let head = match config.strong {
            true => {
                root.ignore("weak_head.*");
                root.at("strong_head")
            }
            false if place.lacks("predictor.weight") && !root.lacks("decoder.linear_out.weight") => {
                root.at("decoder.linear_out")
            }
            false => place.at("predictor"),
        };
        let load_head = || Linear::load(&head.clone().in_f32(), width, n_classes, Activation::Identity);
        let project = || Linear::load(&place.at("post_extract_proj"), patch_dim, width, Activation::Identity);
        let n_tokens = config.patches().grid(config.fbank.n_mels, WINDOW).iter().product();
        let distances = (config.n_buckets, config.max_distance);
        Ok(Self {
            info: config.info(&front_end),
            device: root.device().clone(),
            front_end,
            patches: PatchEmbedding::load(&place.at("patch_embedding"), config.patches(), patch_dim)?,
            patch_norm: LayerNorm::load(&place.at("layer_norm"), patch_dim, EPS)?,
            projection: (patch_dim != width).then(project).transpose()?,
            positions: GroupedConv1d::new(positions.0, positions.1, config.position_groups, Activation::Gelu, &conv)?,
            norm: LayerNorm::load(&encoder.at("layer_norm"), width, EPS)?,
            distances: DistanceScores::load(&first_attention, "relative_attention_bias.weight", distances, n_heads)?,
            blocks: (0..depth).map(load_block).collect::<Result<_>>()?,
            head: (n_classes > 0).then(load_head).transpose()?,
            steps: config.strong.then(|| adaptive_average(n_tokens, root)).transpose()?,
            config: config.clone(),
        })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Hidden states of features `[batch, n_frames, n_mels]` of one window: the input of the first block, then the
    /// output of each block, `[batch, n_tokens, width]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not match, or if there are fewer frames than one patch.
    pub fn hidden_states(&self, features: &Tensor) -> Result<Vec<Tensor>> {
        let mut states = Vec::new();
        self.run_blocks(features, |state| states.push(state.clone()))?;
        Ok(states)
    }

    /// The output of the last block. Calls `keep` with the input of the first block and the output of each.
    fn run_blocks(&self, features: &Tensor, mut keep: impl FnMut(&Tensor)) -> Result<Tensor> {
        let x = self.patch_norm.forward(&self.patches.forward(features)?)?; // [batch, n_tokens, 512]
        let x = match &self.projection {
            Some(projection) => projection.forward(&x)?,
            None => x,
        };
        let mut x = self.norm.forward(&(&x + self.positions.forward(&x)?)?)?;
        let (width, distances) = (self.config.width, self.distances.of(x.dim(1)?)?);
        keep(&x);
        for (block, gates) in &self.blocks {
            let relative = |_: &Tensor, qkv: &Tensor| gates.scores(&distances, &qkv.narrow(2, 0, width)?);
            x = block.forward_relative(&x, None, &relative)?;
            keep(&x);
        }
        Ok(x)
    }

    /// The output of the last block, `[batch, n_tokens, width]`.
    fn tokens(&self, features: &Tensor) -> Result<Tensor> {
        self.run_blocks(features, |_| ())
    }

    /// Runs the strong head on windows of 10 s. The embedding is the mean over the tokens of all windows.
    fn classify_frames(&self, features: &Tensor, steps: &Linear, head: &Linear) -> Result<TaggingOutput> {
        let n_frames = features.dim(1)?;
        let silence = (f32::EPSILON.ln() - self.config.mean) / (2.0 * self.config.std);
        let (mut logits, mut embeddings, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for start in (0..n_frames).step_by(WINDOW_HOP) {
            let length = WINDOW.min(n_frames - start);
            let window = features.narrow(1, start, length)?.contiguous()?;
            let tokens = self.tokens(&vit::pad_frames(&window, WINDOW, silence)?)?; // [batch, n_tokens, width]
            let steps = steps.forward(&tokens.transpose(1, 2)?.contiguous()?)?; // [batch, width, 250]
            logits.push(head.forward(&steps.transpose(1, 2)?.contiguous()?)?); // [batch, 250, n_classes]
            embeddings.push(tokens.mean(1)?);
            weights.push(length);
        }
        let logits = Tensor::cat(&logits, 1)?;
        // The last frame begins before the clip ends; the difference of two hops covers the rest.
        let n_steps = (n_frames + WINDOW_HOP - WINDOW).div_ceil(STEP).min(logits.dim(1)?);
        let logits = logits.narrow(1, 0, n_steps)?.contiguous()?;
        let mut output = TaggingOutput::multi_label(logits.max(1)?, vit::weighted_mean(&embeddings, &weights)?)?;
        output.framewise_output = Some(candle_nn::ops::sigmoid(&logits)?);
        Ok(output)
    }

    fn run(&self, features: &Tensor) -> Result<TaggingOutput> {
        let (needed, n_frames) = (self.config.patch_size, features.dim(1)?);
        if n_frames < needed {
            return Err(Error::TooShort { needed, got: n_frames });
        }
        if let (Some(steps), Some(head)) = (&self.steps, &self.head) {
            return self.classify_frames(features, steps, head);
        }
        let tag = |window: &Tensor| self.classify(&self.tokens(window)?.mean(1)?);
        vit::in_windows(features, (self.config.target_length, false), OutputActivation::Sigmoid, &tag)
    }
}

/// The averaging of `n_tokens` tokens to the steps of the strong head as a linear layer, like PyTorch's
/// `adaptive_avg_pool1d`.
fn adaptive_average(n_tokens: usize, place: &Loader) -> Result<Linear> {
    let mut weights = vec![0.0; STEPS * n_tokens];
    for (step, row) in weights.chunks_mut(n_tokens).enumerate() {
        let (start, end) = (step * n_tokens / STEPS, ((step + 1) * n_tokens).div_ceil(STEPS));
        row[start..end].fill(1.0 / (end - start) as f32);
    }
    Linear::from_matrix(weights, vec![0.0; STEPS], Activation::Identity, &place.clone().in_f32())
}

/// The classes in a checkpoint's `label_dict`, with display names for those of AudioSet.
fn labels(weights: &Weights) -> Option<LabelSet> {
    let audioset = LabelSet::audioset();
    let label = |id: &str| match audioset.index_of(id) {
        Some(index) => audioset[index].clone(),
        None => Label { id: None, name: id.to_string(), parents: Vec::new() },
    };
    Some(weights.metadata().get("label_dict")?.split('\n').map(label).collect())
}

impl TaggingModel for Beats {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    /// Not supported by `beats-strong`, whose scores are maxima over frames.
    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        match &self.head {
            _ if self.config.strong => {
                Err(Error::argument("embedding", &self.info.name, "this model cannot classify an embedding"))
            }
            Some(head) => TaggingOutput::multi_label(head.forward(embedding)?, embedding.clone()),
            None => vit::without_head(embedding),
        }
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.front_end)
    }

    /// Takes the normalised fbank, with at least 16 frames.
    fn forward_features(&self, features: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.info.check(detail)?;
        self.run(features).context("running BEATs")
    }
}
