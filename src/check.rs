//! Checks of what callers give: limits on the sizes of configurations, so that a few digits in a file do not decide how much
//! memory is taken; finite samples; lengths of batches.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};

/// The widest layer: channels, hidden states, embeddings. The largest published ones have 1,280 to 5,120.
pub(crate) const MAX_WIDTH: usize = 1 << 16;
/// The most layers of a kind; the deepest published models have some hundred.
pub(crate) const MAX_LAYERS: usize = 1 << 10;
/// The most classes or tokens; the largest vocabularies have a quarter of a million.
pub(crate) const MAX_CLASSES: usize = 1 << 20;
/// The most samples that a model or front end may need at once: 17 minutes at 16 kHz, 64 MiB.
pub(crate) const MAX_MIN_SAMPLES: usize = 1 << 24;
/// The most cells of a table that is computed from a configuration alone: 64 MiB as f32.
pub(crate) const MAX_CELLS: usize = 1 << 24;

/// The highest sample rate in Hz, as of audio files.
pub(crate) const MAX_SAMPLE_RATE: u32 = 100_000_000;

/// Refuses a size that is 0 or above `most`.
pub(crate) fn size(field: &'static str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::config(field, value, format!("expected 1 to {most}")))
}

/// [`size`] for several.
pub(crate) fn sizes(sizes: impl IntoIterator<Item = (&'static str, usize, usize)>) -> Result<()> {
    sizes.into_iter().try_for_each(|(field, value, most)| size(field, value, most))
}

/// Refuses a sample rate of 0 Hz, or above [`MAX_SAMPLE_RATE`].
pub(crate) fn sample_rate(rate: u32) -> Result<()> {
    if (1..=MAX_SAMPLE_RATE).contains(&rate) {
        return Ok(());
    }
    Err(Error::config("sample_rate", rate, format!("expected 1 to {MAX_SAMPLE_RATE} Hz")))
}

/// Refuses a table of `rows` times `columns` cells that has more than [`MAX_CELLS`]. The error names `field`, which is `rows`.
pub(crate) fn cells(field: &'static str, rows: usize, columns: usize) -> Result<()> {
    if rows.checked_mul(columns).is_some_and(|cells| cells <= MAX_CELLS) {
        return Ok(());
    }
    let most = MAX_CELLS / columns.max(1);
    Err(Error::config(field, rows, format!("expected at most {most} of {columns} values each")))
}

/// Refuses a model or front end whose shortest clip has more than [`MAX_MIN_SAMPLES`]: every shorter one is filled up to that.
pub(crate) fn min_samples(field: &'static str, value: usize, samples: usize) -> Result<()> {
    if samples <= MAX_MIN_SAMPLES {
        return Ok(());
    }
    Err(Error::config(field, value, format!("expected a shortest clip of at most {MAX_MIN_SAMPLES} samples")))
}
/// Refuses NaN and infinite samples.
#[inline(always)]
pub(crate) fn check_finite(samples: &[f32]) -> Result<()> {
    check_finite_after(0, samples)
}

/// As [`check_finite`], for samples that follow `n_before` others: the place counts from the first of those.
pub(crate) fn check_finite_after(n_before: u64, samples: &[f32]) -> Result<()> {
    // No early exit within a block, so that the loop can be vectorised.
    let finite = |block: &[f32]| block.iter().fold(true, |all, x| all & x.is_finite());
    if samples.chunks(4096).all(finite) {
        return Ok(());
    }
    let index = samples.iter().position(|x| !x.is_finite()).unwrap_or_default();
    Err(Error::NonFinite { index: index + n_before as usize, value: samples[index] })
}

/// Refuses lengths that are not one a row of a batch, each in `range`.
pub(crate) fn check_lengths(lengths: &[usize], batch: usize, range: RangeInclusive<usize>) -> Result<()> {
    if lengths.len() == batch && lengths.iter().all(|length| range.contains(length)) {
        return Ok(());
    }
    let reason = format!("expected {batch} lengths from {} to {}", range.start(), range.end());
    Err(Error::argument("lengths", format!("{lengths:?}"), reason))
}
