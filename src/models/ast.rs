//! AST: a vision transformer over overlapping patches of a log-mel spectrogram.
//!
//! Paper: Gong, Chung and Glass, "AST: Audio Spectrogram Transformer", 2021 (arXiv 2104.01778). References:
//! `ASTForAudioClassification` and `ASTFeatureExtractor` of transformers 5.24; YuanGongND/ast,
//! `src/models/ast_models.py`. Checkpoint keys: those of transformers 4 (`encoder.layer.N.attention.attention.query`)
//! or 5 (`layers.N.attention.q_proj`), or of the original (`v.blocks.N.attn.qkv`, `mlp_head`). The two differ in the ε
//! of their layer norms.
//!
//! waveform `[batch, n_samples]` at 16 kHz → Kaldi fbank (Hann window) `[batch, n_frames, 128]` → zero-padded to 1024
//! frames → `(x − mean) / (2 std)` → patches of 16 mel bins x 16 frames with a stride of 10 on both axes, projected by
//! a linear layer: 12 x 101 tokens → a class and a distillation token prepended, position table added → 12 transformer
//! blocks (pre-norm) → norm → mean of the first two tokens (the embedding) → norm, linear, sigmoid or softmax.
//!
//! Both references cut a clip to 1024 frames (10.2 s) and ignore the rest. Here a longer clip is cut into windows of
//! that length, the last of which ends with the clip; scores and embedding are means over the windows, weighted by the
//! frames that each adds. Clips of fewer than 400 samples, for which transformers fails, are zero-padded at the end to
//! that length.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::family::Family;
use super::vit::{self, BlockShape};
use super::{Detail, ModelInfo, OutputActivation, TaggingModel};
use crate::assumption::Assumption;
use crate::check;
use crate::encoders::self_attention;
use crate::error::{Context, Error, Result};
use crate::frontend::features::Features;
use crate::frontend::{FbankConfig, FrontEnd};
use crate::nn::{Activation, LayerNorm, Linear, NormPlace, PatchAxes, PatchConfig, PatchEmbedding, TransformerBlock};
use crate::output::TaggingOutput;
use crate::weights::{Loader, Weights};

/// Class name and `model_type` in transformers' `config.json`.
const CLASS: &str = "ASTForAudioClassification";
const MODEL_TYPE: &str = "audio-spectrogram-transformer";
/// Prefix of the encoder's tensors in transformers' checkpoints and in the original ones.
const HUGGING_FACE: &str = "audio_spectrogram_transformer";
const ORIGINAL: &str = "v";
/// Class and distillation tokens, which precede the patches.
const EXTRA_TOKENS: usize = 2;
/// Strides of the published checkpoints, which are told apart by their number of patches.
const STRIDES: [usize; 4] = [10, 12, 14, 16];

/// The configuration of an AST.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The preset's name, or your own. Default when read from a file: `ast`.
    #[serde(default = "ast")]
    pub name: Cow<'static, str>,
    /// The spectrogram. At least `patch_size` mel bins, at most 4,096.
    pub fbank: FbankConfig,
    /// Mean of the training spectrograms.
    pub mean: f32,
    /// Standard deviation of the training spectrograms, above 0. Features are divided by twice this value.
    pub std: f32,
    /// Frames per window, `patch_size` to 65,536. Shorter clips are padded, longer ones cut into windows.
    pub target_length: usize,
    /// Height in mel bins and width in frames of a patch, 1 to 65,536.
    pub patch_size: usize,
    /// Stride of the patches in mel bins and in frames, 1 to 65,536.
    pub stride: [usize; 2],
    /// Token dimension, 1 to 65,536.
    pub width: usize,
    /// Attention heads; a divisor of `width`.
    pub n_heads: usize,
    /// Width of a block's feed-forward layer, 1 to 65,536.
    pub ffn_dim: usize,
    /// Transformer blocks, 1 to 1,024.
    pub depth: usize,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// ε of the layer norms, 0 or more.
    pub eps: f32,
    /// ε of the layer norm before the last layer, 0 or more.
    pub head_eps: f32,
    /// Outputs of the last layer, 1 to 2^20.
    pub n_classes: usize,
    /// The function that turns the outputs into probabilities.
    pub activation: OutputActivation,
}

/// The default name, also for configurations that match no preset.
fn ast() -> Cow<'static, str> {
    Cow::Borrowed("ast")
}

impl Config {
    /// `MIT/ast-finetuned-audioset-10-10-0.4593`: 86.6 M parameters.
    pub const AUDIOSET: Self = Self {
        name: Cow::Borrowed("ast"),
        fbank: FbankConfig::AST_16K,
        mean: -4.267_739_3,
        std: 4.568_997_4,
        target_length: 1024,
        patch_size: 16,
        stride: [10, 10],
        width: 768,
        n_heads: 12,
        ffn_dim: 3072,
        depth: 12,
        qkv_bias: true,
        eps: 1e-12,
        head_eps: 1e-12,
        n_classes: 527,
        activation: OutputActivation::Sigmoid,
    };

    /// `MIT/ast-finetuned-speech-commands-v2`: clips of 1 s, 35 words.
    pub const SPEECH_COMMANDS: Self = Self {
        name: Cow::Borrowed("ast-speech-commands"),
        mean: -6.845_978,
        std: 5.565_452_6,
        target_length: 128,
        n_classes: 35,
        activation: OutputActivation::Softmax,
        ..Self::AUDIOSET
    };

    /// Reads the `config.json` and the `preprocessor_config.json` of a model saved by transformers; `None` for another
    /// kind of model. Without a `problem_type`, 527 classes are taken to be AudioSet's (sigmoid); any other number gets
    /// a softmax.
    ///
    /// # Errors
    /// [`Error::Config`] for a field of the wrong type, for settings that this crate does not support, for a
    /// preprocessor whose length or number of mel bins differs from the model's, and for a regression model
    /// (`problem_type` `regression`).
    pub fn from_hugging_face(config: &Value, preprocessor: Option<&Value>) -> Result<Option<Self>> {
        let mut classes = config.get("architectures").and_then(Value::as_array).into_iter().flatten();
        if config.get("model_type").and_then(Value::as_str) != Some(MODEL_TYPE) || !classes.any(|class| class == CLASS)
        {
            return Ok(None);
        }
        let unreadable =
            |file: &'static str| move |error: serde_json::Error| Error::config(file, "unreadable", error.to_string());
        let fields = Fields::deserialize(config).map_err(unreadable("config.json"))?;
        let extractor = preprocessor.map_or_else(|| Ok(Extractor::default()), Extractor::deserialize);
        let extractor = extractor.map_err(unreadable("preprocessor_config.json"))?;
        for (field, value, expected) in [
            ("max_length", extractor.max_length, fields.max_length),
            ("num_mel_bins", extractor.num_mel_bins, fields.num_mel_bins),
        ] {
            if value.is_some_and(|value| value != expected) {
                let reason = format!("expected {expected}, as in config.json");
                return Err(Error::config(field, value.unwrap_or_default(), reason));
            }
        }
        if fields.hidden_act != "gelu" {
            return Err(Error::config("hidden_act", fields.hidden_act, "expected gelu"));
        }
        let patch_size = match fields.patch_size {
            PatchSize::One(size) => size,
            PatchSize::Two([height, width]) if height == width => height,
            PatchSize::Two(sizes) => {
                return Err(Error::config("patch_size", format!("{sizes:?}"), "expected square patches"));
            }
        };
        let n_labels = config.get("id2label").and_then(Value::as_object).map(serde_json::Map::len);
        let n_classes = n_labels.or(fields.num_labels).unwrap_or(2);
        // The published AudioSet models do not set `problem_type` to multi-label.
        let is_audioset =
            config.get("problem_type").is_none_or(Value::is_null) && n_classes == Self::AUDIOSET.n_classes;
        let (mean, std) = if extractor.do_normalize { (extractor.mean, extractor.std) } else { (0.0, 0.5) };
        Ok(Some(Self {
            name: ast(),
            fbank: FbankConfig {
                n_mels: fields.num_mel_bins,
                window: FbankConfig::AST_16K.window,
                ..FbankConfig::kaldi(extractor.sampling_rate)
            },
            mean,
            std,
            target_length: fields.max_length,
            patch_size,
            stride: [fields.frequency_stride, fields.time_stride],
            width: fields.hidden_size,
            n_heads: fields.num_attention_heads,
            ffn_dim: fields.intermediate_size,
            depth: fields.num_hidden_layers,
            qkv_bias: fields.qkv_bias,
            eps: fields.layer_norm_eps,
            head_eps: fields.layer_norm_eps,
            n_classes,
            activation: match is_audioset {
                true => OutputActivation::Sigmoid,
                false => OutputActivation::of_hugging_face(config)?,
            },
        }))
    }

    fn patches(&self) -> PatchConfig {
        PatchConfig { stride: self.stride, ..PatchConfig::square(self.patch_size, PatchAxes::MelsFirst) }
    }

    fn validate(&self) -> Result<()> {
        vit::check_sizes([self.width, self.n_heads, self.ffn_dim], self.depth, self.n_classes)?;
        check::size("n_classes", self.n_classes, check::MAX_CLASSES)?;
        self.patches().check(self.fbank.n_mels)?;
        vit::check_target_length(self.target_length, self.patch_size)?;
        for (field, eps) in [("eps", self.eps), ("head_eps", self.head_eps)] {
            if !(eps.is_finite() && eps >= 0.0) {
                return Err(Error::config(field, eps, "expected at least 0"));
            }
        }
        Ok(())
    }

    /// A stride and a number of frames for which 128 mel bins give `n_patches` patches of 16 x 16: a published stride
    /// with 1024 frames if one fits, otherwise the first stride that divides evenly, with a multiple of 16 frames if
    /// possible.
    fn stride_and_length(n_patches: usize) -> Option<(usize, usize)> {
        let fits = |stride: usize, n_frames: usize| {
            let patches = PatchConfig { stride: [stride; 2], ..PatchConfig::square(16, PatchAxes::MelsFirst) };
            patches.grid(128, n_frames).iter().product::<usize>() == n_patches
        };
        let shortest = |&stride: &usize| {
            let rows = (128 - 16) / stride + 1;
            let shortest = (n_patches / rows).checked_sub(1)?.checked_mul(stride)?.checked_add(16)?;
            let round = shortest.checked_next_multiple_of(16)?;
            let length = if fits(stride, round) { round } else { shortest };
            fits(stride, length).then_some((stride, length))
        };
        let published = STRIDES.iter().find(|&&stride| fits(stride, 1024)).map(|&stride| (stride, 1024));
        published.or_else(|| STRIDES.iter().find_map(shortest))
    }
}

/// Fields of `config.json`, with transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Fields {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    layer_norm_eps: f32,
    patch_size: PatchSize,
    qkv_bias: bool,
    frequency_stride: usize,
    time_stride: usize,
    max_length: usize,
    num_mel_bins: usize,
    num_labels: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PatchSize {
    One(usize),
    Two([usize; 2]),
}

impl Default for Fields {
    fn default() -> Self {
        let Config { width, depth, n_heads, ffn_dim, eps, patch_size, qkv_bias, stride, target_length, .. } =
            Config::AUDIOSET;
        Self {
            hidden_size: width,
            num_hidden_layers: depth,
            num_attention_heads: n_heads,
            intermediate_size: ffn_dim,
            hidden_act: "gelu".to_string(),
            layer_norm_eps: eps,
            patch_size: PatchSize::One(patch_size),
            qkv_bias,
            frequency_stride: stride[0],
            time_stride: stride[1],
            max_length: target_length,
            num_mel_bins: FbankConfig::AST_16K.n_mels,
            num_labels: None,
        }
    }
}

/// Fields of `preprocessor_config.json`, with transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Extractor {
    sampling_rate: u32,
    num_mel_bins: Option<usize>,
    max_length: Option<usize>,
    do_normalize: bool,
    mean: f32,
    std: f32,
}

impl Default for Extractor {
    fn default() -> Self {
        let Config { fbank, mean, std, .. } = Config::AUDIOSET;
        Self { sampling_rate: fbank.sample_rate, num_mel_bins: None, max_length: None, do_normalize: true, mean, std }
    }
}

impl Family for Config {
    const PRESETS: &'static [(Self, &'static str)] = &[
        (Self::AUDIOSET, "AST, 16 kHz Kaldi fbank, AudioSet mAP 0.459"),
        (Self::SPEECH_COMMANDS, "AST, 16 kHz Kaldi fbank, 35 words of Speech Commands"),
    ];
    const SIGNATURES: &'static [&'static [&'static str]] = &[
        &["audio_spectrogram_transformer.embeddings.distillation_token", "classifier.dense.weight"],
        &["v.dist_token", "mlp_head.1.weight"],
    ];

    fn name(&self) -> &str {
        &self.name
    }

    /// The tensors do not determine the mean, the standard deviation and the activation. 527 classes get AudioSet's;
    /// the window length of Speech Commands gets that data set's; anything else gets AudioSet's mean and a softmax. If
    /// several strides and lengths give the same number of patches, the published one is taken.
    fn detect(weights: &Weights) -> Result<Option<(Self, Vec<Assumption>)>> {
        if !Self::SIGNATURES.iter().any(|names| names.iter().all(|name| weights.contains(name))) {
            return Ok(None);
        }
        let mut config = Self::AUDIOSET;
        config.fit(weights);
        if config.n_classes != Self::AUDIOSET.n_classes {
            (config.name, config.activation) = (ast(), OutputActivation::Softmax);
        }
        if config.target_length == Self::SPEECH_COMMANDS.target_length {
            (config.mean, config.std) = (Self::SPEECH_COMMANDS.mean, Self::SPEECH_COMMANDS.std);
        }
        Ok(Some((config, Vec::new())))
    }

    /// The sizes that the tensors determine, and the ε that belongs to the layout.
    fn fit(&mut self, weights: &Weights) {
        let is_original = weights.contains("v.dist_token");
        if is_original {
            (self.eps, self.head_eps) = (1e-6, 1e-5);
        }
        let names = if is_original {
            ["v.pos_embed", "v.blocks.{}.mlp.fc1.weight", "mlp_head.1.weight"]
        } else {
            [
                "audio_spectrogram_transformer.embeddings.position_embeddings",
                "audio_spectrogram_transformer.encoder.layer.{}.intermediate.dense.weight",
                "classifier.dense.weight",
            ]
        };
        if let Some(&[n_classes, _]) = weights.shape(names[2]) {
            self.n_classes = n_classes;
        }
        let in_version_5 = "audio_spectrogram_transformer.layers.{}.mlp.fc1.weight";
        let fc1 = |index: usize| {
            let shape = |name: &str| weights.shape(&name.replace("{}", &index.to_string()));
            shape(names[1]).or_else(|| shape(in_version_5))
        };
        if let Some(&[ffn_dim, width]) = fc1(0) {
            if width != self.width {
                self.n_heads = (width / 64).max(1);
            }
            (self.width, self.ffn_dim) = (width, ffn_dim);
            self.depth = (0..check::MAX_LAYERS).take_while(|&index| fc1(index).is_some()).count();
        }
        let n_patches = match weights.shape(names[0]) {
            Some(&[1, n_tokens, _]) => n_tokens.checked_sub(EXTRA_TOKENS),
            _ => None,
        };
        if let Some(n_patches) = n_patches
            && self.patches().grid(self.fbank.n_mels, self.target_length).iter().product::<usize>() != n_patches
            && let Some((stride, target_length)) = Self::stride_and_length(n_patches)
        {
            (self.stride, self.target_length) = ([stride; 2], target_length);
        }
    }

    fn load(&self, weights: &Weights, device: &Device) -> Result<Box<dyn TaggingModel>> {
        Ok(Box::new(Ast::load(self, weights, device)?))
    }
}

/// A loaded AST.
#[derive(Debug)]
pub struct Ast {
    config: Config,
    info: ModelInfo,
    device: Device,
    front_end: Features,
    patches: PatchEmbedding,
    first_tokens: Tensor, // [1, 2, width]
    positions: Tensor,    // [1, 2 + n_patches, width]
    blocks: Vec<TransformerBlock>,
    norm: LayerNorm,
    head_norm: LayerNorm,
    head: Linear,
}

impl Ast {
    /// Builds the model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::Weights`] listing every tensor that is missing,
    /// unexpected or of the wrong shape.
    pub fn load(config: &Config, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let model = Self::build(config, &root)?;
        root.finish(&config.name)?;
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
        let Config { width, head_eps, n_classes, .. } = *config;
        let is_original = root.first_of(&[HUGGING_FACE, ORIGINAL]) == ORIGINAL;
        let (encoder, embeddings, patches) = match is_original {
            true => (root.at(ORIGINAL), root.at(ORIGINAL), "patch_embed.proj"),
            false => {
                let encoder = root.at(HUGGING_FACE);
                (encoder.clone(), encoder.at("embeddings"), "patch_embeddings.projection")
            }
        };
        let [norm, head_norm, head] = match is_original {
            true => [encoder.at("norm"), root.at("mlp_head.0"), root.at("mlp_head.1")],
            false => [encoder.at("layernorm"), root.at("classifier.layernorm"), root.at("classifier.dense")],
        };
        if is_original {
            // timm's ImageNet heads, unused.
            encoder.ignore("head.*");
            encoder.ignore("head_dist.*");
        }
        let (distillation, positions) =
            if is_original { ("dist_token", "pos_embed") } else { ("distillation_token", "position_embeddings") };
        let first_tokens = ["cls_token", distillation].map(|name| embeddings.get(name, (1, 1, width)));
        let [class, distillation] = first_tokens;
        let n_patches: usize = config.patches().grid(config.fbank.n_mels, config.target_length).iter().product();
        Ok(Self {
            info: ModelInfo {
                min_samples: front_end.min_samples(),
                activation: config.activation,
                ..ModelInfo::new(config.name.clone(), config.fbank.sample_rate, n_classes, width)
            },
            device: root.device().clone(),
            front_end,
            patches: PatchEmbedding::load(&embeddings.at(patches), config.patches(), width)?,
            first_tokens: Tensor::cat(&[class?, distillation?], 1)
                .context("concatenating the class and distillation tokens")?,
            positions: embeddings.get(positions, (1, EXTRA_TOKENS + n_patches, width))?,
            blocks: load_blocks(config, &encoder, is_original)?,
            norm: LayerNorm::load(&norm, width, config.eps)?,
            head_norm: LayerNorm::load(&head_norm, width, head_eps)?,
            head: Linear::load(&head.in_f32(), width, n_classes, Activation::Identity)?,
            config: config.clone(),
        })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Hidden states of features `[batch, n_frames, n_mels]` of at most `target_length` frames: the input of the first
    /// block, then the output of each block, `[batch, n_tokens, width]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the shape or the device does not match.
    pub fn hidden_states(&self, features: &Tensor) -> Result<Vec<Tensor>> {
        vit::hidden_states(&self.blocks, self.tokens(features).context("running AST")?)
    }

    fn tokens(&self, features: &Tensor) -> Result<Tensor> {
        let silence = -self.config.mean / (2.0 * self.config.std);
        let x = vit::pad_frames(features, self.config.target_length, silence)?;
        let x = vit::prepend(&self.first_tokens, &self.patches.forward(&x)?)?;
        Ok(x.broadcast_add(&self.positions)?)
    }

    fn tag(&self, features: &Tensor) -> Result<TaggingOutput> {
        let x = self.tokens(features)?;
        let x = self.blocks.iter().try_fold(x, |x, block| block.forward(&x, None))?;
        let first = self.norm.forward(&x.narrow(1, 0, EXTRA_TOKENS)?)?;
        self.classify(&first.mean(1)?)
    }
}

fn load_blocks(config: &Config, encoder: &Loader, is_original: bool) -> Result<Vec<TransformerBlock>> {
    let Config { width, n_heads, ffn_dim, depth, eps, qkv_bias, .. } = *config;
    let shape = BlockShape { width, n_heads, ffn_dim, place: NormPlace::Before, eps };
    if is_original {
        let blocks = encoder.at("blocks");
        return (0..depth).map(|index| vit::load_block(&blocks.at(index), &shape)).collect();
    }
    let is_version_5 = encoder.first_of(&["encoder.layer", "layers"]) == "layers";
    let blocks = encoder.at(if is_version_5 { "layers" } else { "encoder.layer" });
    let (projections, fc1, fc2) = match is_version_5 {
        true => (["q_proj", "k_proj", "v_proj", "o_proj"], "mlp.fc1", "mlp.fc2"),
        false => {
            let projections = ["attention.query", "attention.key", "attention.value", "output.dense"];
            (projections, "intermediate.dense", "output.dense")
        }
    };
    let load = |index: usize| {
        let place = blocks.at(index);
        let projections = projections.map(|name| place.at("attention").at(name));
        let attention = self_attention(projections, width, n_heads, [qkv_bias; 3])?;
        vit::block(&shape, attention, ["layernorm_before", "layernorm_after", fc1, fc2].map(|name| place.at(name)))
    };
    (0..depth).map(load).collect()
}

impl TaggingModel for Ast {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn classify(&self, embedding: &Tensor) -> Result<TaggingOutput> {
        let logits = self.head.forward(&self.head_norm.forward(embedding)?)?; // [batch, n_classes]
        self.config.activation.output(logits, embedding.clone())
    }

    fn front_end(&self) -> Option<&dyn FrontEnd> {
        Some(&self.front_end)
    }

    /// Takes the normalised fbank, with at least one frame.
    fn forward_features(&self, features: &Tensor, detail: Detail) -> Result<TaggingOutput> {
        self.info.check(detail)?;
        let tag = |window: &Tensor| self.tag(window);
        vit::in_windows(features, (self.config.target_length, true), self.config.activation, &tag)
            .context("running AST")
    }
}
