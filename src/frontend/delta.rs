//! Deltas: derivatives of features over time.
//!
//! The slope of the least-squares line over a window of `2h + 1` frames is `Σ n c[t + n] / Σ n²` for `n` in `-h..=h`:
//! the regression formula of HTK and Kaldi. A Savitzky-Golay filter is the same with a polynomial of degree `order` and
//! its derivative of that order, so the two agree for the first order away from the ends. They differ in how they
//! extend the clip beyond its ends, and for the second order: the slope of the slopes over a wider window, or a fitted
//! parabola.

use ndarray::{Array2, ArrayView2, Axis, concatenate};
use serde::{Deserialize, Serialize};

use super::normalize::check_features;
use super::stft::array;
use crate::error::{Error, Result};

/// Limit on the width of the window: ten seconds of frames. The work grows with its square.
const MAX_WIDTH: usize = (1 << 10) + 1;

/// Limit on the order.
const MAX_ORDER: usize = 8;

/// How derivatives are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeltaMethod {
    /// The derivative of a fitted polynomial: `librosa.feature.delta`.
    SavitzkyGolay,
    /// The regression formula, applied once per order to the clip extended beyond its ends:
    /// `torchaudio.functional.compute_deltas`, HTK.
    Regression,
    /// The regression formula, where the clip is extended only once, by its first and last frame: Kaldi's `add-deltas`.
    /// Its `delta-window` is `(width - 1) / 2`.
    Kaldi,
}

/// How the clip is extended beyond its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeltaEdge {
    /// Not at all: the polynomial fitted to the outermost window applies within half a window of an end. Needs `width`
    /// frames; for [`DeltaMethod::SavitzkyGolay`] only.
    Interp,
    /// By repeating the first and the last frame (torchaudio's `replicate`).
    Nearest,
    /// By mirroring at the end frames, which are not repeated (torchaudio's `reflect`).
    Mirror,
    /// With zeros.
    Constant,
    /// Periodically (torchaudio's `circular`).
    Wrap,
}

/// Settings of [`delta`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeltaConfig {
    /// How derivatives are computed.
    pub method: DeltaMethod,
    /// Length of the window in frames: odd, 3 to 1025.
    pub width: usize,
    /// How the clip is extended beyond its ends. [`DeltaMethod::Kaldi`] requires [`DeltaEdge::Nearest`].
    pub edge: DeltaEdge,
}

impl DeltaConfig {
    /// `librosa.feature.delta` with its defaults. Clips need at least 9 frames.
    pub const LIBROSA: Self = Self { method: DeltaMethod::SavitzkyGolay, width: 9, edge: DeltaEdge::Interp };

    /// `torchaudio.functional.compute_deltas` with its defaults, and HTK's `DELTAWINDOW = 2`.
    pub const TORCHAUDIO: Self = Self { method: DeltaMethod::Regression, width: 5, edge: DeltaEdge::Nearest };

    /// Kaldi's `add-deltas` with its defaults.
    pub const KALDI: Self = Self { method: DeltaMethod::Kaldi, width: 5, edge: DeltaEdge::Nearest };

    fn check(&self, order: usize) -> Result<()> {
        let Self { method, width, edge } = *self;
        if width < 3 || width.is_multiple_of(2) || width > MAX_WIDTH {
            return Err(Error::config("width", width, format!("expected an odd number, 3 to {MAX_WIDTH}")));
        }
        let most = if method == DeltaMethod::SavitzkyGolay { MAX_ORDER.min(width - 1) } else { MAX_ORDER };
        if order == 0 || order > most {
            return Err(Error::config("order", order, format!("expected 1 to {most}")));
        }
        let (fits, expected) = match method {
            DeltaMethod::SavitzkyGolay => (true, "any"),
            DeltaMethod::Regression => (edge != DeltaEdge::Interp, "any but Interp"),
            DeltaMethod::Kaldi => (edge == DeltaEdge::Nearest, "Nearest"),
        };
        if !fits {
            let detail = format!("expected {expected} with the method {method:?}");
            return Err(Error::config("edge", format!("{edge:?}"), detail));
        }
        Ok(())
    }
}

/// Computes the derivative of the given order (1 for deltas, 2 for delta-deltas) of features `[n_frames, n_features]`
/// over time, in units per frame. The result has the same shape.
///
/// Computed in f64. A clip may be shorter than the window, except with [`DeltaEdge::Interp`], but not empty.
///
/// # Errors
/// [`Error::Config`] if a setting is out of range; [`Error::Argument`] if there are too few frames or a feature is not
/// finite.
pub fn delta(features: ArrayView2<f32>, order: usize, config: &DeltaConfig) -> Result<Array2<f32>> {
    config.check(order)?;
    let (n_frames, needed) = (features.nrows(), if config.edge == DeltaEdge::Interp { config.width } else { 1 });
    if n_frames < needed {
        return Err(Error::argument("n_frames", n_frames, format!("expected at least {needed}")));
    }
    check_features(features)?;
    let slope = derivative(config.width / 2, 1);
    let wide = features.mapv(f64::from);
    let deltas = match config.method {
        DeltaMethod::SavitzkyGolay => convolve(&wide, &derivative(config.width / 2, order), config.edge),
        DeltaMethod::Regression => (0..order).fold(wide, |x, _| convolve(&x, &slope, config.edge)),
        DeltaMethod::Kaldi => {
            let kernel = (1..order).fold(slope.clone(), |kernel, _| chain(&kernel, &slope));
            convolve(&wide, &kernel, DeltaEdge::Nearest)
        }
    };
    let values = deltas.iter();
    array(n_frames, features.ncols(), |out: &mut [f32]| {
        out.iter_mut().zip(values).for_each(|(out, &x)| *out = x as f32)
    })
}

/// Appends deltas up to order `orders` to features: `[n_frames, n_features * (orders + 1)]`. With `orders` 2, 13 MFCC
/// become 39 values; with 0, the result is the features alone.
///
/// ```
/// use clipwise::frontend::{DeltaConfig, Mfcc, MfccConfig, with_deltas};
///
/// let mfcc = Mfcc::new(&MfccConfig::SPEECH_16K)?.compute(&vec![0.0; 16_000])?;
/// assert_eq!(with_deltas(mfcc.view(), 2, &DeltaConfig::LIBROSA)?.dim(), (101, 39));
/// # Ok::<(), clipwise::Error>(())
/// ```
///
/// # Errors
/// As [`delta`].
pub fn with_deltas(features: ArrayView2<f32>, orders: usize, config: &DeltaConfig) -> Result<Array2<f32>> {
    let deltas: Vec<_> = (1..=orders).map(|order| delta(features, order, config)).collect::<Result<_>>()?;
    let mut parts = vec![features];
    parts.extend(deltas.iter().map(|delta| delta.view()));
    let n_features = features.ncols();
    concatenate(Axis(1), &parts).map_err(|e| Error::argument("n_features", n_features, e.to_string()))
}

/// The weights of the frames `-half..=half` for the derivative of order `order` of the least-squares polynomial of
/// degree `order`.
///
/// That derivative is the polynomial's leading coefficient times `order!`. The leading coefficient of a least-squares
/// fit is the projection onto the monic polynomial of that degree that is orthogonal to all lower ones on the same
/// frames. These polynomials follow from `g[k + 1](n) = n g[k](n) - |g[k]|² / |g[k - 1]|² g[k - 1](n)`. For order 1:
/// `n / Σ n²`.
fn derivative(half: usize, order: usize) -> Vec<f64> {
    let position = |i: usize| i as f64 - half as f64;
    let squares = |g: &[f64]| g.iter().map(|x| x * x).sum::<f64>();
    let (mut before, mut current) = (vec![0.0; 2 * half + 1], vec![1.0; 2 * half + 1]);
    let mut ratio = 0.0;
    for _ in 0..order {
        let next: Vec<f64> = (0..current.len()).map(|i| position(i) * current[i] - ratio * before[i]).collect();
        ratio = squares(&next) / squares(&current);
        (before, current) = (current, next);
    }
    let factorial: f64 = (1..=order).map(|k| k as f64).product();
    let scale = factorial / squares(&current);
    current.iter().map(|g| g * scale).collect()
}

/// The convolution of two kernels.
fn chain(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut both = vec![0.0; a.len() + b.len() - 1];
    for (i, x) in a.iter().enumerate() {
        b.iter().enumerate().for_each(|(j, y)| both[i + j] += x * y);
    }
    both
}

/// `Σ kernel[half + n] features[t + n]` for each frame `t`.
fn convolve(features: &Array2<f64>, kernel: &[f64], edge: DeltaEdge) -> Array2<f64> {
    let (n_frames, half) = (features.nrows(), (kernel.len() / 2) as isize);
    let mut out = Array2::zeros(features.dim());
    for (t, mut row) in out.rows_mut().into_iter().enumerate() {
        let middle = match edge {
            // The derivative of order `degree` is constant, so it is the same everywhere in the window.
            DeltaEdge::Interp => t.clamp(kernel.len() / 2, n_frames - 1 - kernel.len() / 2),
            _ => t,
        };
        for (k, &weight) in kernel.iter().enumerate() {
            if let Some(frame) = inside(middle as isize + k as isize - half, n_frames, edge) {
                row.scaled_add(weight, &features.row(frame));
            }
        }
    }
    out
}

/// The index of the frame at `index` of the extended clip; `None` for zeros.
fn inside(index: isize, n_frames: usize, edge: DeltaEdge) -> Option<usize> {
    let n = n_frames as isize;
    let frame = match edge {
        _ if (0..n).contains(&index) => index,
        DeltaEdge::Constant => return None,
        DeltaEdge::Interp | DeltaEdge::Nearest => index.clamp(0, n - 1),
        DeltaEdge::Wrap => index.rem_euclid(n),
        DeltaEdge::Mirror => {
            let period = (2 * (n - 1)).max(1);
            let index = index.rem_euclid(period);
            index.min(period - index)
        }
    };
    Some(frame as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_match_known_values() {
        let close = |got: Vec<f64>, expected: &[f64]| {
            assert_eq!(got.len(), expected.len());
            got.iter().zip(expected).for_each(|(g, e)| assert!((g - e).abs() < 1e-12, "{got:?} against {expected:?}"));
        };
        close(derivative(2, 1), &[-0.2, -0.1, 0.0, 0.1, 0.2]);
        // Savitzky and Golay's table: quadratic, five points, second derivative.
        close(derivative(2, 2), &[2.0 / 7.0, -1.0 / 7.0, -2.0 / 7.0, -1.0 / 7.0, 2.0 / 7.0]);
        close(derivative(1, 2), &[1.0, -2.0, 1.0]);
        close(chain(&[1.0, 2.0], &[3.0, 4.0]), &[3.0, 10.0, 8.0]);
    }

    #[test]
    fn derivatives_of_powers_are_exact() {
        for order in 1..=MAX_ORDER {
            let kernel = derivative(5, order);
            for degree in 0..=order {
                let sum: f64 = kernel.iter().enumerate().map(|(i, w)| w * (i as f64 - 5.0).powi(degree as i32)).sum();
                let factorial: f64 = (1..=order).map(|k| k as f64).product();
                let expected = if degree == order { factorial } else { 0.0 };
                assert!((sum - expected).abs() < 1e-9 * factorial.max(1.0), "order {order}, degree {degree}: {sum}");
            }
        }
    }
}
