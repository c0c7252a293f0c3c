//! Splits mixed batches into sub-batches that a model runs at once, and joins the results in the order of the rows.

use std::borrow::Cow;
use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::audio::WaveformBatch;
use crate::check::check_finite;
use crate::error::{Error, Result};

/// The clips of a batch. Clips shorter than `min_samples` are padded with zeros at the end.
///
/// # Errors
/// [`Error::SampleRate`] if the batch is not at `sample_rate`; [`Error::TooShort`] if a clip is empty;
/// [`Error::NonFinite`] if a sample is NaN or infinite.
pub(crate) fn checked_clips(
    batch: &WaveformBatch,
    sample_rate: u32,
    min_samples: usize,
) -> Result<Vec<Cow<'_, [f32]>>> {
    if batch.sample_rate() != sample_rate {
        return Err(Error::SampleRate { expected: sample_rate, got: batch.sample_rate() });
    }
    let mut clips = Vec::with_capacity(batch.rows().len());
    for clip in batch.rows() {
        if clip.is_empty() {
            return Err(Error::TooShort { needed: 1, got: 0 });
        }
        check_finite(clip)?;
        let mut clip = Cow::Borrowed(clip.as_slice());
        if clip.len() < min_samples {
            clip.to_mut().resize(min_samples, 0.0);
        }
        clips.push(clip);
    }
    Ok(clips)
}

/// Groups rows by key, in ascending order. A group of `rows` is split into sub-batches of at most `at_once(rows)`, at
/// least one.
pub(crate) fn sub_batches<K: Ord>(
    keys: impl Iterator<Item = K>,
    at_once: impl Fn(&[usize]) -> usize,
) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (row, key) in keys.enumerate() {
        groups.entry(key).or_default().push(row);
    }
    let cut = |rows: Vec<usize>| rows.chunks(at_once(&rows).max(1)).map(<[usize]>::to_vec).collect::<Vec<_>>();
    groups.into_values().flat_map(cut).collect()
}

/// Joins the results of [`sub_batches`] in the order of the rows. Each part is `[rows, n, …]`; shorter ones are padded
/// with zeros to the longest `n`.
pub(crate) fn join(parts: &[&Tensor], sub_batches: &[Vec<usize>]) -> candle_core::Result<Tensor> {
    let order = sub_batches.concat();
    if let [part] = parts
        && order.is_sorted()
    {
        return Ok((*part).clone());
    }
    let mut index = vec![0u32; order.len()];
    for (i, &row) in order.iter().enumerate() {
        index[row] = i as u32;
    }
    let lengths = parts.iter().map(|part| part.dim(1)).collect::<candle_core::Result<Vec<_>>>()?;
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let padded = parts.iter().zip(lengths).map(|(part, length)| part.pad_with_zeros(1, 0, longest - length));
    let joined = Tensor::cat(&padded.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
    joined.index_select(&Tensor::new(index, joined.device())?, 0)
}
