//! Frame-level output: the position of frames, and the per-frame heads of convolutional models.

use candle_core::Tensor;

use super::Detail;
use crate::error::Result;
use crate::output::{OutputActivation, TaggingOutput};

/// The position of the frames of `framewise_output`, in samples at the model's rate: frame `i` covers the samples from
/// `first + i · step` up to `first + (i + 1) · step`.
///
/// A frame's value also depends on samples around this interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameGrid {
    /// The first sample covered by frame 0.
    pub first: usize,
    /// Samples per frame, at least 1.
    pub step: usize,
}

/// How a mean over neighbouring steps treats the ends of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// Pads with zeros that count in the mean, the default of PyTorch's `avg_pool1d`.
    Zeros,
    /// Averages only the steps that exist.
    Cut,
}

/// Max + mean of each step with its two neighbours: `x` `[batch, channels, n_steps]` to `[batch, n_steps, channels]`.
pub(super) fn max_plus_mean_of_neighbours(x: &Tensor, edge: Edge) -> candle_core::Result<Tensor> {
    let n_steps = x.dim(2)?;
    let three = |x: &Tensor| Ok::<_, candle_core::Error>((x.narrow(2, 0, n_steps)?, x.narrow(2, 2, n_steps)?));
    // Repeating the edge value does not change a maximum that already includes it.
    let (before, after) = three(&x.pad_with_same(2, 1, 1)?)?;
    let max = x.maximum(&before)?.maximum(&after)?;
    let (before, after) = three(&x.pad_with_zeros(2, 1, 1)?)?;
    let sum = ((before + x)? + after)?;
    let count = |step: usize| match edge {
        Edge::Zeros => 3.0,
        Edge::Cut => 1.0 + f32::from(u8::from(step > 0)) + f32::from(u8::from(step + 1 < n_steps)),
    };
    let counts = Tensor::from_iter((0..n_steps).map(count), x.device())?.reshape((1, 1, n_steps))?;
    (max + sum.broadcast_div(&counts)?)?.transpose(1, 2)?.contiguous()
}

/// Averages a clip's segments, which were tagged independently: `scores` `[batch, n_segments, n_classes]` and
/// `embeddings` `[batch, n_segments, embedding_dim]`. The segments are the frames of the output.
pub(super) fn mean_of_segments(scores: Tensor, embeddings: &Tensor, detail: Detail) -> Result<TaggingOutput> {
    let clipwise_output = scores.mean(1)?;
    let logits = OutputActivation::Sigmoid.logits(&clipwise_output)?;
    let mut output = TaggingOutput::new(logits, clipwise_output, embeddings.mean(1)?);
    output.framewise_output = (detail == Detail::Frames).then_some(scores);
    Ok(output)
}

/// Repeats each of `segments` `[batch, n_segments, n_classes]` for `length` frames, and the last one for all remaining
/// frames: `[batch, n_frames, n_classes]`.
pub(super) fn repeat_to_frames(segments: &Tensor, length: usize, n_frames: usize) -> candle_core::Result<Tensor> {
    let last = segments.dim(1)?.saturating_sub(1);
    let index = (0..n_frames).map(|frame| (frame / length).min(last) as u32);
    segments.index_select(&Tensor::from_iter(index, segments.device())?, 1)
}
