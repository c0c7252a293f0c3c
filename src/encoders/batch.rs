//! Batches of clips of different lengths.

use std::collections::BTreeMap;

use candle_core::Tensor;
use ndarray::Array2;

use super::Encoded;
use crate::error::{Context, Result};
use crate::nn::mask;

/// Calls `run` with clips, `[n_frames, n_features]`, that have the same number of frames, at most `at_once` frames together
/// unless one alone has more, and puts the rows of the results in the order of the clips.
///
/// A row thus equals the clip alone: nothing is ever padded to the length of a neighbour.
pub fn by_length(
    clips: Vec<Array2<f32>>,
    at_once: usize,
    run: impl Fn(&[Array2<f32>]) -> Result<Encoded>,
) -> Result<Encoded> {
    let mut groups: BTreeMap<usize, Vec<(usize, Array2<f32>)>> = BTreeMap::new();
    for (row, clip) in clips.into_iter().enumerate() {
        groups.entry(clip.nrows()).or_default().push((row, clip));
    }
    let (mut parts, mut order) = (Vec::new(), Vec::new());
    for (n_frames, group) in groups {
        let (rows, clips): (Vec<usize>, Vec<Array2<f32>>) = group.into_iter().unzip();
        for clips in clips.chunks((at_once / n_frames.max(1)).max(1)) {
            parts.push(run(clips)?);
        }
        order.extend(rows);
    }
    if parts.len() == 1 && order.is_sorted() {
        return Ok(parts.swap_remove(0));
    }
    join(&parts, &order).context("joining the rows of a batch")
}

/// Joins parts whose rows stand at `order[i]` of the batch, with zeros behind the shorter ones.
fn join(parts: &[Encoded], order: &[usize]) -> candle_core::Result<Encoded> {
    let mut place = vec![0; order.len()];
    for (i, &row) in order.iter().enumerate() {
        place[row] = i as u32;
    }
    let lengths: Vec<usize> = parts.iter().flat_map(|part| part.lengths.iter().copied()).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let layer = |index: usize| {
        let padded = parts.iter().map(|part| {
            let layer = &part.layers[index];
            layer.pad_with_zeros(1, 0, longest - layer.dim(1)?)
        });
        let layer = Tensor::cat(&padded.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        layer.index_select(&Tensor::new(place.as_slice(), layer.device())?, 0)
    };
    let n_layers = parts.first().map_or(0, |part| part.layers.len());
    Ok(Encoded {
        layers: (0..n_layers).map(layer).collect::<candle_core::Result<_>>()?,
        lengths: place.iter().map(|&i| lengths[i as usize]).collect(),
    })
}

/// Leaves of each clip its first `lengths[b]` frames, and zeros up to the longest of them.
pub fn cut(encoded: Encoded, lengths: Vec<usize>) -> Result<Encoded> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let layer = |layer: &Tensor| {
        let layer = layer.narrow(1, 0, longest)?.contiguous()?;
        if lengths.iter().all(|&length| length == longest) { Ok(layer) } else { mask(&layer, &lengths) }
    };
    let layers = encoded.layers.iter().map(layer).collect::<candle_core::Result<_>>().context("cutting a batch")?;
    Ok(Encoded { layers, lengths })
}
