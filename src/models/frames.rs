//! Results per frame: where frames lie, and what the heads of convolutional models make of the steps of their last map.

use candle_core::Tensor;

use super::Detail;
use crate::error::Result;
use crate::output::{OutputActivation, TaggingOutput};

/// Where the frames of `framewise_output` lie in a clip, in samples at the model's rate: frame `i` stands for the samples from
/// `first + i · step` up to `first + (i + 1) · step`.
///
/// What a frame says depends on more samples than these, all around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameGrid {
    /// The first sample of frame 0.
    pub first: usize,
    /// Samples of a frame, at least 1.
    pub step: usize,
}

/// What stands beyond the ends of a clip in a mean over neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// Zeros, as PyTorch's `avg_pool1d` has it by default.
    Zeros,
    /// Nothing: there are fewer values.
    Cut,
}

/// Max + mean of each step with its two neighbours: `x` `[batch, channels, n_steps]` to `[batch, n_steps, channels]`.
pub(super) fn max_plus_mean_of_neighbours(x: &Tensor, edge: Edge) -> candle_core::Result<Tensor> {
    let n_steps = x.dim(2)?;
    let three = |x: &Tensor| Ok::<_, candle_core::Error>((x.narrow(2, 0, n_steps)?, x.narrow(2, 2, n_steps)?));
    // A repeated edge value never changes a maximum in which the edge stands itself.
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

/// The output of a model that tags the segments of a clip by themselves: means over the segments of `scores`
/// `[batch, n_segments, n_classes]` and of `embeddings` `[batch, n_segments, embedding_dim]`. The segments are the frames.
pub(super) fn mean_of_segments(scores: Tensor, embeddings: &Tensor, detail: Detail) -> Result<TaggingOutput> {
    let clipwise_output = scores.mean(1)?;
    let logits = OutputActivation::Sigmoid.logits(&clipwise_output)?;
    let mut output = TaggingOutput::new(logits, clipwise_output, embeddings.mean(1)?);
    output.framewise_output = (detail == Detail::Frames).then_some(scores);
    Ok(output)
}

/// Each of `segments` `[batch, n_segments, n_classes]` for `length` frames, the last for all that are left:
/// `[batch, n_frames, n_classes]`.
pub(super) fn repeat_to_frames(segments: &Tensor, length: usize, n_frames: usize) -> candle_core::Result<Tensor> {
    let last = segments.dim(1)?.saturating_sub(1);
    let index = (0..n_frames).map(|frame| (frame / length).min(last) as u32);
    segments.index_select(&Tensor::from_iter(index, segments.device())?, 1)
}
