//! Checks of caller-supplied values: sizes in configurations (a few digits in a file must not decide how much memory is
//! allocated), finite samples, lengths of batches.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};

/// Limit on the width of a layer (channels, hidden states, embeddings). The largest published widths are 1,280 to
/// 5,120.
pub(crate) const MAX_WIDTH: usize = 1 << 16;
/// Limit on the number of layers of a kind; the deepest published models have about a hundred.
pub(crate) const MAX_LAYERS: usize = 1 << 10;
/// Limit on the number of classes or tokens; the largest vocabularies have about 250,000.
pub(crate) const MAX_CLASSES: usize = 1 << 20;
/// Limit on the shortest input of a model or front end, in samples: 17 minutes at 16 kHz, 64 MiB.
pub(crate) const MAX_MIN_SAMPLES: usize = 1 << 24;
/// Limit on the cells of a table that is computed from a configuration alone: 64 MiB as f32.
pub(crate) const MAX_CELLS: usize = 1 << 24;

/// The highest sample rate in Hz, the same as for audio files.
pub(crate) const MAX_SAMPLE_RATE: u32 = 100_000_000;

/// Rejects a size that is 0 or above `most`.
pub(crate) fn size(field: &'static str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::config(field, value, format!("expected 1 to {most}")))
}

/// [`size`] for several fields.
pub(crate) fn sizes(sizes: impl IntoIterator<Item = (&'static str, usize, usize)>) -> Result<()> {
    sizes.into_iter().try_for_each(|(field, value, most)| size(field, value, most))
}

/// Rejects a sample rate of 0 Hz or above [`MAX_SAMPLE_RATE`].
pub(crate) fn sample_rate(rate: u32) -> Result<()> {
    if (1..=MAX_SAMPLE_RATE).contains(&rate) {
        return Ok(());
    }
    Err(Error::config("sample_rate", rate, format!("expected 1 to {MAX_SAMPLE_RATE} Hz")))
}

/// Rejects a table of `rows` × `columns` cells with more than [`MAX_CELLS`]. The error names `field`, whose value is
/// `rows`.
pub(crate) fn cells(field: &'static str, rows: usize, columns: usize) -> Result<()> {
    if rows.checked_mul(columns).is_some_and(|cells| cells <= MAX_CELLS) {
        return Ok(());
    }
    let most = MAX_CELLS / columns.max(1);
    Err(Error::config(field, rows, format!("expected at most {most}, with {columns} values each")))
}

/// Rejects a model or front end whose shortest clip exceeds [`MAX_MIN_SAMPLES`], because shorter clips are padded to
/// it.
pub(crate) fn min_samples(field: &'static str, value: usize, samples: usize) -> Result<()> {
    if samples <= MAX_MIN_SAMPLES {
        return Ok(());
    }
    Err(Error::config(
        field,
        value,
        format!("expected a value for which the shortest clip has at most {MAX_MIN_SAMPLES} samples, got {samples}"),
    ))
}
/// Rejects NaN and infinite samples.
#[inline(always)]
pub(crate) fn check_finite(samples: &[f32]) -> Result<()> {
    check_finite_after(0, samples)
}

/// As [`check_finite`], for a block that follows `n_before` samples: the index in the error counts from the first of
/// those.
pub(crate) fn check_finite_after(n_before: u64, samples: &[f32]) -> Result<()> {
    // No early exit within a block, so that the loop can be vectorised.
    let finite = |block: &[f32]| block.iter().fold(true, |all, x| all & x.is_finite());
    if samples.chunks(4096).all(finite) {
        return Ok(());
    }
    let index = samples.iter().position(|x| !x.is_finite()).unwrap_or_default();
    Err(Error::NonFinite { index: index + n_before as usize, value: samples[index] })
}

/// Checks that there is one length per row of a batch, each in `range`.
pub(crate) fn check_lengths(lengths: &[usize], batch: usize, range: RangeInclusive<usize>) -> Result<()> {
    if lengths.len() == batch && lengths.iter().all(|length| range.contains(length)) {
        return Ok(());
    }
    let reason = format!("expected {batch} lengths between {} and {}", range.start(), range.end());
    Err(Error::argument("lengths", format!("{lengths:?}"), reason))
}
