//! A CTC model for discrete speech tokens: the codes of a neural codec, such as the first codebook of SpeechTokenizer.
//!
//! codes `[batch, n_frames]`, integers → embedding `[batch, n_frames, width]` → plus learned position embeddings →
//! transformer blocks (post-norm, ReLU) → linear layer: logits `[batch, n_frames, n_tokens]`.
//!
//! Checkpoint keys: `embedding` (or `emb`), `pos_encoding` (`pos_enc`), `transformer.layers.0` as of
//! `torch.nn.TransformerEncoder` (`encoder.layers.0`), `lm_head` (`head`).

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::CtcOutput;
use super::head::INIT;
use crate::check::{self, MAX_CLASSES, MAX_LAYERS, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::nn::{Activation, Dropout, LayerNorm, Linear, NormPlace, SelfAttention, TransformerBlock};
use crate::weights::{Init, Loader, Weights};

/// Epsilon of the layer norms.
const EPS: f32 = 1e-5;

/// Configuration of a [`TokenTransformer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenTransformerConfig {
    /// Number of input codes, 1 to 2^20.
    pub n_codes: usize,
    /// Width of a hidden state, 1 to 65,536.
    pub width: usize,
    /// Number of attention heads; must divide `width`.
    pub n_heads: usize,
    /// Number of transformer blocks, 1 to 1,024.
    pub n_blocks: usize,
    /// Width of the feed-forward layers, 1 to 65,536.
    pub ffn_dim: usize,
    /// Length of the longest sequence, 1 to 2^20.
    pub n_positions: usize,
    /// Dropout probability in training, after attention and after each feed-forward layer (not for attention weights);
    /// 0 or more and less than 1.
    pub dropout: f64,
    /// Number of output tokens, including the blank; 1 to 2^20.
    pub n_tokens: usize,
    /// The time from one code to the next, in seconds.
    pub frame_seconds: f64,
}

impl TokenTransformerConfig {
    /// For the first codebook of SpeechTokenizer (50 codes per second) and 43 phonemes: 2,377,003 parameters.
    pub const SPEECH_TOKENIZER: Self = Self {
        n_codes: 1024,
        width: 256,
        n_heads: 4,
        n_blocks: 2,
        ffn_dim: 1024,
        n_positions: 2048,
        dropout: 0.1,
        n_tokens: 43,
        frame_seconds: 0.02,
    };

    fn validate(&self) -> Result<()> {
        let Self { n_codes, width, n_heads, n_blocks, ffn_dim, n_positions, n_tokens, frame_seconds, .. } = *self;
        check::sizes([
            ("n_codes", n_codes, MAX_CLASSES),
            ("width", width, MAX_WIDTH),
            ("n_blocks", n_blocks, MAX_LAYERS),
            ("ffn_dim", ffn_dim, MAX_WIDTH),
            ("n_positions", n_positions, MAX_CLASSES),
            ("n_tokens", n_tokens, MAX_CLASSES),
        ])?;
        if n_heads == 0 || !width.is_multiple_of(n_heads) {
            return Err(Error::config("n_heads", n_heads, format!("expected a divisor of width = {width}")));
        }
        if !(frame_seconds.is_finite() && frame_seconds > 0.0) {
            return Err(Error::config("frame_seconds", frame_seconds, "expected a number above 0"));
        }
        Ok(())
    }
}

/// A transformer over the codes of a neural codec.
///
/// ```
/// use clipwise::Device;
/// use clipwise::ctc::{TokenTransformer, TokenTransformerConfig};
/// use clipwise::weights::Parameters;
///
/// let parameters = Parameters::new(&Device::Cpu, 1);
/// let model = TokenTransformer::build(&TokenTransformerConfig::SPEECH_TOKENIZER, &parameters.loader())?;
/// assert_eq!(parameters.count(), 2_377_003);
/// let output = model.forward(&[&[45, 12, 998], &[7]])?;
/// assert_eq!((output.logits.dims(), &output.lengths[..]), (&[2, 3, 43][..], &[3, 1][..]));
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Debug)]
pub struct TokenTransformer {
    config: TokenTransformerConfig,
    embedding: Tensor, // [n_codes, width]
    positions: Tensor, // [1, n_positions, width]
    blocks: Vec<TransformerBlock>,
    output: Linear,
}

impl TokenTransformer {
    /// Builds the model from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid; [`Error::Weights`] with all tensors that do not fit.
    pub fn load(config: &TokenTransformerConfig, weights: &Weights, device: &Device) -> Result<Self> {
        let root = weights.loader(device);
        let model = Self::build(config, &root)?;
        root.finish("a token transformer")?;
        Ok(model)
    }

    /// Builds the model from a loader of a checkpoint, or of parameters to train.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid; otherwise as [`Loader::get`].
    pub fn build(config: &TokenTransformerConfig, root: &Loader) -> Result<Self> {
        config.validate()?;
        let TokenTransformerConfig { n_codes, width, n_positions, n_tokens, .. } = *config;
        let [embedding, positions, blocks, output] = match root.first_of(&["embedding.weight", "emb.weight"]) {
            "emb.weight" => ["emb.weight", "pos_enc", "encoder.layers", "head"],
            _ => ["embedding.weight", "pos_encoding", "transformer.layers", "lm_head"],
        };
        let block = |index: usize| load_block(&root.at(blocks).at(index), config);
        Ok(Self {
            config: config.clone(),
            embedding: root.parameter(embedding, (n_codes, width), Init::Normal(1.0))?,
            positions: root.parameter(positions, (1, n_positions, width), Init::Constant(0.0))?,
            blocks: (0..config.n_blocks).map(block).collect::<Result<_>>()?,
            output: Linear::load_with(&root.at(output).in_f32(), width, n_tokens, Activation::Identity, INIT)?,
        })
    }

    /// The configuration of the model.
    pub fn config(&self) -> &TokenTransformerConfig {
        &self.config
    }

    /// Computes the output for sequences of codes, of any lengths.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no sequences, if a sequence is empty or longer than `n_positions`, or if a code
    /// is not below `n_codes`; [`Error::Tensor`] if a tensor operation fails on the device.
    pub fn forward(&self, sequences: &[&[u32]]) -> Result<CtcOutput> {
        self.run(sequences).context("running a token transformer")
    }

    fn run(&self, sequences: &[&[u32]]) -> Result<CtcOutput> {
        let TokenTransformerConfig { n_codes, width, n_positions, frame_seconds, .. } = self.config;
        for sequence in sequences {
            if !(1..=n_positions).contains(&sequence.len()) {
                return Err(Error::argument(
                    "sequence.len()",
                    sequence.len(),
                    format!("expected 1 to {n_positions} codes"),
                ));
            }
            if let Some(token) = sequence.iter().find(|&&token| token as usize >= n_codes) {
                return Err(Error::argument("token", token, format!("expected a code below {n_codes}")));
            }
        }
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.len()).collect();
        let Some(&longest) = lengths.iter().max() else {
            return Err(Error::argument("sequences.len()", 0, "expected at least one sequence"));
        };
        let padded = sequences.iter().flat_map(|sequence| (0..longest).map(|i| sequence.get(i).copied().unwrap_or(0)));
        let tokens = Tensor::from_iter(padded, self.embedding.device())?;
        let x = self.embedding.index_select(&tokens, 0)?.reshape((sequences.len(), longest, width))?;
        let mut x = x.broadcast_add(&self.positions.narrow(1, 0, longest)?)?;
        // Without padding no mask is needed.
        let masked = lengths.iter().any(|&length| length < longest).then_some(&lengths[..]);
        for block in &self.blocks {
            x = block.forward(&x, masked)?;
        }
        CtcOutput::new(self.output.forward(&x)?, lengths, frame_seconds)
    }
}

fn load_block(place: &Loader, config: &TokenTransformerConfig) -> Result<TransformerBlock> {
    let TokenTransformerConfig { width, n_heads, ffn_dim, .. } = *config;
    let attention = place.at("self_attn");
    // Uniform with the Glorot variance of the joined matrix, as in PyTorch.
    let init = [Init::Uniform((6.0 / (4 * width) as f64).sqrt()), Init::Constant(0.0)];
    let names = ["in_proj_weight", "in_proj_bias"];
    let qkv = Linear::load_named(&attention, names, [width, 3 * width], Activation::Identity, init)?;
    let output = Linear::load(&attention.at("out_proj"), width, width, Activation::Identity)?;
    Ok(TransformerBlock {
        place: NormPlace::After,
        norm1: LayerNorm::load(&place.at("norm1"), width, EPS)?,
        attention: SelfAttention::new(qkv, output, n_heads)?,
        norm2: LayerNorm::load(&place.at("norm2"), width, EPS)?,
        fc1: Linear::load(&place.at("linear1"), width, ffn_dim, Activation::Relu)?,
        fc2: Linear::load(&place.at("linear2"), ffn_dim, width, Activation::Identity)?,
        dropout: Some(Dropout::new(place, config.dropout)?),
    })
}
