//! Noise and time shifts on samples.

use serde::{Deserialize, Serialize};

use super::Random;
use crate::check::check_finite;
use crate::error::{Error, Result};

/// Adds Gaussian noise, scaled so that this clip (not the average over clips) has exactly the given signal-to-noise
/// ratio.
///
/// `snr_db` is `10 log10(energy of the clip / energy of the noise)`, at least -100. A silent clip stays silent, and an
/// infinite `snr_db` adds nothing. The result may exceed -1.0..=1.0.
///
/// ```
/// use clipwise::augment::{Random, add_gaussian_noise};
///
/// let mut clip = vec![0.5; 8000];
/// add_gaussian_noise(&mut clip, 20.0, &mut Random::new(1))?;
/// # Ok::<(), clipwise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] if `snr_db` is below -100 or NaN; [`Error::NonFinite`] if a sample is not finite.
pub fn add_gaussian_noise(samples: &mut [f32], snr_db: f64, random: &mut Random) -> Result<()> {
    let noise: Vec<f64> = samples.iter().map(|_| random.normal()).collect();
    check(samples, snr_db)?;
    mix(samples, &noise, snr_db);
    Ok(())
}

/// As [`add_gaussian_noise`], with a recording as noise. The recording is repeated, from its first sample, to the
/// length of the clip. A silent recording adds nothing.
///
/// # Errors
/// As [`add_gaussian_noise`], for both clip and noise; [`Error::TooShort`] if the noise is empty.
pub fn add_noise(samples: &mut [f32], noise: &[f32], snr_db: f64) -> Result<()> {
    check(samples, snr_db)?;
    check_finite(noise)?;
    if noise.is_empty() {
        return Err(Error::TooShort { needed: 1, got: 0 });
    }
    let noise: Vec<f64> = noise.iter().map(|&x| f64::from(x)).cycle().take(samples.len()).collect();
    mix(samples, &noise, snr_db);
    Ok(())
}

fn check(samples: &[f32], snr_db: f64) -> Result<()> {
    if snr_db.is_nan() || snr_db < -100.0 {
        return Err(Error::argument("snr_db", snr_db, "expected at least -100 dB"));
    }
    check_finite(samples)
}

fn mix(samples: &mut [f32], noise: &[f64], snr_db: f64) {
    let energy = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let signal = energy(&mut samples.iter().map(|&x| f64::from(x)));
    let scale = (signal / energy(&mut noise.iter().copied()) / 10f64.powf(snr_db / 10.0)).sqrt();
    if !scale.is_finite() {
        return;
    }
    for (x, noise) in samples.iter_mut().zip(noise) {
        *x = (f64::from(*x) + scale * noise).clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
    }
}

/// What replaces the samples that a shift moves out of the clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ShiftFill {
    /// Zeros.
    Zeros,
    /// The samples that left the clip at the other end.
    Wrap,
}

/// Shifts all samples by `by` samples: later if positive, earlier if negative. The length stays the same.
///
/// ```
/// use clipwise::augment::{ShiftFill, shift};
///
/// let mut clip = [1.0, 2.0, 3.0];
/// shift(&mut clip, 1, ShiftFill::Zeros);
/// assert_eq!(clip, [0.0, 1.0, 2.0]);
/// ```
pub fn shift(samples: &mut [f32], by: isize, fill: ShiftFill) {
    let n = samples.len();
    if n == 0 {
        return;
    }
    let distance = by.unsigned_abs();
    if fill == ShiftFill::Zeros && distance >= n {
        return samples.fill(0.0);
    }
    let distance = distance % n;
    if by >= 0 {
        samples.rotate_right(distance);
    } else {
        samples.rotate_left(distance);
    }
    if fill == ShiftFill::Zeros {
        let gone = if by >= 0 { 0..distance } else { n - distance..n };
        samples[gone].fill(0.0);
    }
}

/// [`shift`] by a number of samples drawn uniformly from `-most..=most`, which is returned.
pub fn random_shift(samples: &mut [f32], most: usize, fill: ShiftFill, random: &mut Random) -> isize {
    let most = most.min(isize::MAX as usize / 2);
    let by = random.below(2 * most + 1) as isize - most as isize;
    shift(samples, by, fill);
    by
}
