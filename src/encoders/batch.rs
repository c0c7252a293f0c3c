//! Batches of clips of different lengths.

use candle_core::{Device, Tensor};
use ndarray::{Array2, ArrayView1, Axis};

use super::Encoded;
use crate::batch;
use crate::error::{Context, Result};
use crate::nn::mask;

/// The samples of a clip, `[n_samples, 1]`.
pub fn column(samples: &[f32]) -> Array2<f32> {
    ArrayView1::from(samples).insert_axis(Axis(1)).to_owned()
}

/// Stacks clips of one shape, `[n_frames, n_features]`, to a tensor `[batch, n_frames, n_features]`.
pub fn stack(clips: &[&Array2<f32>], device: &Device) -> Result<Tensor> {
    let (n_frames, n_features) = clips.first().map_or((0, 0), |clip| clip.dim());
    let values: Vec<f32> = clips.iter().copied().flatten().copied().collect();
    Tensor::from_vec(values, (clips.len(), n_frames, n_features), device).context("copying a batch to the device")
}

/// Calls `run` with groups of clips `[n_frames, n_features]` of equal length, each of at most `at_once` frames (or a
/// single longer clip), and joins the results in the order of the clips, padding shorter ones with zeros.
///
/// Each row thus equals the result for the clip alone: nothing is padded to the length of another clip.
pub fn by_length(
    clips: &[Array2<f32>],
    at_once: usize,
    run: impl Fn(&[&Array2<f32>]) -> Result<Encoded>,
) -> Result<Encoded> {
    let sub_batches =
        batch::sub_batches(clips.iter().map(Array2::nrows), |rows| at_once / clips[rows[0]].nrows().max(1));
    let run = |rows: &Vec<usize>| run(&rows.iter().map(|&row| &clips[row]).collect::<Vec<_>>());
    let parts = sub_batches.iter().map(run).collect::<Result<Vec<_>>>()?;
    let lengths = |of: &dyn Fn(&Encoded) -> &[usize]| {
        let mut lengths = vec![0; clips.len()];
        for (rows, part) in sub_batches.iter().zip(&parts) {
            rows.iter().zip(of(part)).for_each(|(&row, &length)| lengths[row] = length);
        }
        lengths
    };
    let n_layers = parts.first().map_or(0, |part| part.layers.len());
    let join = |of: &dyn Fn(&Encoded) -> Tensor| {
        let parts: Vec<Tensor> = parts.iter().map(of).collect();
        batch::join(&parts.iter().collect::<Vec<_>>(), &sub_batches).context("joining the rows of a batch")
    };
    let layers = (0..n_layers).map(|index| join(&|part| part.layers[index].clone())).collect::<Result<_>>()?;
    let layer_lengths = lengths(&|part| &part.layer_lengths);
    let last = join(&|part| part.last.clone())?;
    Ok(Encoded { layer_lengths, ..Encoded::new(layers, last, lengths(&|part| &part.lengths)) })
}

/// Cuts each clip to its first `lengths[b]` frames, followed by zeros up to the longest of them.
pub fn cut(encoded: Encoded, lengths: Vec<usize>) -> Result<Encoded> {
    let cut = encoded.try_map(|x| cut_tensor(x, &lengths)).context("cutting a batch")?;
    Ok(Encoded::new(cut.layers, cut.last, lengths))
}

/// As [`cut`], for `x` `[batch, n_frames, …]`.
pub fn cut_tensor(x: &Tensor, lengths: &[usize]) -> candle_core::Result<Tensor> {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let x = x.narrow(1, 0, longest)?.contiguous()?;
    if lengths.iter().all(|&length| length == longest) { Ok(x) } else { mask(&x, lengths) }
}
