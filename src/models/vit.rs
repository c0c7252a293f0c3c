//! Code shared by transformers over spectrograms: front end, blocks, and windows of long clips.
//!
//! A clip longer than a model's window is cut into consecutive windows; the last one ends with the clip and overlaps
//! the one before. Scores and embedding are means over the windows, weighted by the frames that each adds; the logits
//! are computed from the mean scores.

use candle_core::Tensor;

use crate::check::{self, MAX_CLASSES, MAX_LAYERS, MAX_WIDTH};
use crate::error::{Context, Error, Result};
use crate::frontend::features::{FeatureKind, Features, FeaturesConfig};
use crate::frontend::{FbankConfig, Normalize};
use crate::nn::{Activation, LayerNorm, Linear, NormPlace, SelfAttention, TransformerBlock};
use crate::output::{OutputActivation, TaggingOutput};
use crate::weights::Loader;

/// Maximum window length: 11 minutes at 100 frames per second. Attention takes time quadratic in the length.
pub(super) const MAX_TARGET_LENGTH: usize = 1 << 16;

/// Total frames of the windows in one forward pass: 41 s at 100 frames per second.
const MAX_FRAMES_AT_ONCE: usize = 4096;
/// Maximum number of tokens of a window.
const MAX_TOKENS: usize = 1 << 17;

/// Kaldi's fbank, normalised as `(x − mean) / (2 std)`.
pub(super) fn front_end(fbank: &FbankConfig, mean: f32, std: f32) -> Result<Features> {
    Features::new(&FeaturesConfig {
        spectrum: FeatureKind::Fbank(fbank.clone()),
        deltas: None,
        normalize: Some(Normalize::DataSet { mean: vec![mean], std: vec![2.0 * std] }),
    })
}

/// The output of a model without a head: the embedding, and no classes.
pub(super) fn without_head(embedding: &Tensor) -> Result<TaggingOutput> {
    let none = Tensor::zeros((embedding.dim(0)?, 0), embedding.dtype(), embedding.device())?;
    Ok(TaggingOutput::new(none.clone(), none, embedding.clone()))
}

/// The shape that all blocks of a model share.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockShape {
    pub width: usize,
    pub n_heads: usize,
    pub ffn_dim: usize,
    pub place: NormPlace,
    pub eps: f32,
}

/// Checks the ranges of the sizes.
pub(super) fn check_sizes([width, n_heads, ffn_dim]: [usize; 3], depth: usize, n_classes: usize) -> Result<()> {
    check::sizes([("width", width, MAX_WIDTH), ("ffn_dim", ffn_dim, MAX_WIDTH), ("depth", depth, MAX_LAYERS)])?;
    if n_classes > MAX_CLASSES {
        return Err(Error::config("n_classes", n_classes, format!("expected at most {MAX_CLASSES}")));
    }
    if n_heads == 0 || !width.is_multiple_of(n_heads) {
        return Err(Error::config("n_heads", n_heads, format!("expected a divisor of the width {width}")));
    }
    Ok(())
}

/// Checks that a window has at most 2^17 tokens.
pub(super) fn check_tokens([rows, columns]: [usize; 2]) -> Result<()> {
    match rows.checked_mul(columns) {
        Some(1..=MAX_TOKENS) => Ok(()),
        _ => Err(Error::config("patch_stride", format!("{rows} x {columns} patches"), "expected 1 to 131,072 patches")),
    }
}

/// Checks that a window has `shortest` to 65,536 frames.
pub(super) fn check_target_length(target_length: usize, shortest: usize) -> Result<()> {
    if !(shortest..=MAX_TARGET_LENGTH).contains(&target_length) {
        let reason = format!("expected {shortest} to {MAX_TARGET_LENGTH} frames");
        return Err(Error::config("target_length", target_length, reason));
    }
    Ok(())
}

/// `tokens` `[batch, n_tokens, width]`, then the output of each block.
pub(super) fn hidden_states(blocks: &[TransformerBlock], tokens: Tensor) -> Result<Vec<Tensor>> {
    let mut states = vec![tokens];
    for (index, block) in blocks.iter().enumerate() {
        states.push(block.forward(&states[index], None)?);
    }
    Ok(states)
}

/// Loads a block with the given attention from the places of `norm1`, `norm2`, `fc1` and `fc2`.
pub(super) fn block(
    shape: &BlockShape,
    attention: SelfAttention,
    [norm1, norm2, fc1, fc2]: [Loader; 4],
) -> Result<TransformerBlock> {
    let BlockShape { width, ffn_dim, place, eps, .. } = *shape;
    Ok(TransformerBlock {
        place,
        norm1: LayerNorm::load(&norm1, width, eps)?,
        attention,
        norm2: LayerNorm::load(&norm2, width, eps)?,
        fc1: Linear::load(&fc1, width, ffn_dim, Activation::Gelu)?,
        fc2: Linear::load(&fc2, ffn_dim, width, Activation::Identity)?,
        dropout: None,
    })
}

/// Loads a block with the tensor names of timm's `VisionTransformer`.
pub(super) fn load_block(weights: &Loader, shape: &BlockShape) -> Result<TransformerBlock> {
    let (width, attention) = (shape.width, weights.at("attn"));
    let qkv = Linear::load(&attention.at("qkv"), width, 3 * width, Activation::Identity)?;
    let output = Linear::load(&attention.at("proj"), width, width, Activation::Identity)?;
    let attention = SelfAttention::new(qkv, output, shape.n_heads)?;
    block(shape, attention, ["norm1", "norm2", "mlp.fc1", "mlp.fc2"].map(|name| weights.at(name)))
}

/// Appends frames of `value` to `x` `[batch, n_frames, n_features]` up to `n_frames`, if it has fewer.
pub(super) fn pad_frames(x: &Tensor, n_frames: usize, value: f32) -> candle_core::Result<Tensor> {
    let (batch, present, n_features) = x.dims3()?;
    match n_frames.checked_sub(present) {
        None | Some(0) => Ok(x.clone()),
        Some(missing) => Tensor::cat(&[x, &Tensor::full(value, (batch, missing, n_features), x.device())?], 1),
    }
}

/// Prepends `tokens` `[1, n, width]` to each clip of `x` `[batch, n_tokens, width]`.
pub(super) fn prepend(tokens: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
    let (batch, _, width) = x.dims3()?;
    Tensor::cat(&[&tokens.broadcast_as((batch, tokens.dim(1)?, width))?.contiguous()?, x], 1)
}

/// Separate position tables for time and frequency, for tokens ordered by mel band, then time.
#[derive(Debug)]
pub(super) struct GridPositions {
    time: Tensor,      // [1, 1, columns, width]
    frequency: Tensor, // [1, rows, 1, width]
}

impl GridPositions {
    /// Reads the tables `[1, width, 1, columns]` and `[1, width, rows, 1]`.
    pub fn load(weights: &Loader, names: [&str; 2], [rows, columns]: [usize; 2], width: usize) -> Result<Self> {
        let table = |name: &str, rows: usize, columns: usize| {
            let table = weights.get(name, (1, width, rows, columns))?;
            table.permute((0, 2, 3, 1))?.contiguous().context("transposing a position table")
        };
        Ok(Self { time: table(names[0], 1, columns)?, frequency: table(names[1], rows, 1)? })
    }

    /// Adds the positions to `x` `[batch, n_tokens, width]`, using the beginning of the time table.
    pub fn add(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (_, n_tokens, width) = x.dims3()?;
        let time = self.time.narrow(2, 0, n_tokens / self.frequency.dim(1)?)?;
        let positions = time.broadcast_add(&self.frequency)?; // [1, rows, columns, width]
        x.broadcast_add(&positions.reshape((1, n_tokens, width))?)
    }
}

/// The start of each window, and the number of frames that it adds.
fn windows(n_frames: usize, longest: usize) -> Vec<(usize, usize)> {
    let window = |start: usize| (start.min(n_frames.saturating_sub(longest)), longest.min(n_frames - start));
    (0..n_frames).step_by(longest).map(window).collect()
}

/// Runs `tag` on `features` `[batch, n_frames, n_features]`, in windows if clips have more than `longest` frames. Each
/// call of `tag` gets clips with at most 4,096 frames in total, or a single clip. `filled` means that `tag` pads
/// shorter clips to `longest` frames, so each counts as that many.
pub(super) fn in_windows(
    features: &Tensor,
    (longest, filled): (usize, bool),
    activation: OutputActivation,
    tag: &dyn Fn(&Tensor) -> Result<TaggingOutput>,
) -> Result<TaggingOutput> {
    let (batch, n_frames, _) = features.dims3().context("reading the shape of the features")?;
    let at_once = (MAX_FRAMES_AT_ONCE / if filled { longest } else { longest.min(n_frames).max(1) }).max(1);
    if batch > at_once {
        let rows = |first: usize| {
            let rows = features.narrow(0, first, at_once.min(batch - first))?.contiguous()?;
            in_windows(&rows, (longest, filled), activation, tag)
        };
        let outputs = (0..batch).step_by(at_once).map(rows).collect::<Result<Vec<_>>>()?;
        let join = |part: fn(&TaggingOutput) -> &Tensor| Tensor::cat(&outputs.iter().map(part).collect::<Vec<_>>(), 0);
        let (logits, scores) = (join(|output| &output.logits)?, join(|output| &output.clipwise_output)?);
        return Ok(TaggingOutput::new(logits, scores, join(|output| &output.embedding)?));
    }
    if n_frames <= longest {
        return tag(features);
    }
    let windows = windows(n_frames, longest);
    let run = |&(start, _): &(usize, usize)| tag(&features.narrow(1, start, longest)?.contiguous()?);
    let outputs = windows.iter().map(run).collect::<Result<Vec<_>>>()?;
    let weights: Vec<usize> = windows.iter().map(|&(_, new)| new).collect();
    let mean = |part: fn(&TaggingOutput) -> &Tensor| {
        weighted_mean(&outputs.iter().map(|output| part(output).clone()).collect::<Vec<_>>(), &weights)
    };
    let scores = mean(|output| &output.clipwise_output)?;
    Ok(TaggingOutput::new(activation.logits(&scores)?, scores, mean(|output| &output.embedding)?))
}

/// The weighted mean of the windows' outputs, each `[batch, n]`.
pub(super) fn weighted_mean(parts: &[Tensor], weights: &[usize]) -> candle_core::Result<Tensor> {
    let total: usize = weights.iter().sum();
    let shares: Vec<f32> = weights.iter().map(|&weight| (weight as f64 / total as f64) as f32).collect();
    let parts = Tensor::stack(parts, 0)?; // [n_windows, batch, n]
    parts.broadcast_mul(&Tensor::from_vec(shares, (weights.len(), 1, 1), parts.device())?)?.sum(0)
}

#[cfg(test)]
mod tests {
    use super::windows;

    #[test]
    fn windows_cover_a_clip_and_the_last_one_ends_with_it() {
        assert_eq!(windows(7, 10), [(0, 7)]);
        assert_eq!(windows(10, 10), [(0, 10)]);
        assert_eq!(windows(11, 10), [(0, 10), (1, 1)]);
        assert_eq!(windows(20, 10), [(0, 10), (10, 10)]);
        assert_eq!(windows(24, 10), [(0, 10), (10, 10), (14, 4)]);
    }
}
