//! Window functions.
//!
//! With `D = length` (periodic) or `D = length - 1` (symmetric) and `x = 2πk / D`:
//!
//! | window | sample k |
//! |---|---|
//! | Hann | `0.5 - 0.5 cos x` |
//! | Hamming | `0.54 - 0.46 cos x` |
//! | Blackman | `0.42 - 0.5 cos x + 0.08 cos 2x` |
//! | Povey | Hann to the power 0.85 (from Kaldi, where it is always symmetric) |
//! | rectangular | 1 |

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

/// A window function, applied to a frame before its Fourier transform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Window {
    /// Raised cosine that reaches zero, as in librosa and PANNs.
    #[default]
    Hann,
    /// Raised cosine on a pedestal of 0.08.
    Hamming,
    /// Three cosine terms: lower side lobes, wider main lobe.
    Blackman,
    /// Hann to the power 0.85, from Kaldi.
    Povey,
    /// All ones.
    Rectangular,
}

impl Window {
    /// Computes the window of `length` samples, in `0.0..=1.0`.
    ///
    /// A periodic window is one period, for spectral analysis (scipy's `fftbins=True`, torch's `periodic=True`); a
    /// symmetric window has equal ends. A window of length 1 is `[1.0]`.
    pub fn samples(self, length: usize, periodic: bool) -> Vec<f64> {
        if length <= 1 {
            return vec![1.0; length];
        }
        let period = if periodic { length } else { length - 1 };
        // Evaluating k and period - k at the same angle makes the two halves identical to the last bit.
        (0..length).map(|k| self.at(TAU * k.min(period - k) as f64 / period as f64).clamp(0.0, 1.0)).collect()
    }

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Hann => 0.5 - 0.5 * x.cos(),
            Self::Hamming => 0.54 - 0.46 * x.cos(),
            Self::Blackman => 0.42 - 0.5 * x.cos() + 0.08 * (2.0 * x).cos(),
            Self::Povey => (0.5 - 0.5 * x.cos()).powf(0.85),
            Self::Rectangular => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Window; 5] = [Window::Hann, Window::Hamming, Window::Blackman, Window::Povey, Window::Rectangular];

    #[test]
    fn hand_computed_values() {
        let close = |got: Vec<f64>, expected: &[f64]| {
            assert_eq!(got.len(), expected.len());
            got.iter().zip(expected).for_each(|(g, e)| assert!((g - e).abs() < 1e-15, "{got:?} against {expected:?}"));
        };
        close(Window::Hann.samples(4, true), &[0.0, 0.5, 1.0, 0.5]);
        close(Window::Hann.samples(5, false), &[0.0, 0.5, 1.0, 0.5, 0.0]);
        close(Window::Hamming.samples(4, true), &[0.08, 0.54, 1.0, 0.54]);
        close(Window::Blackman.samples(5, false), &[0.0, 0.34, 1.0, 0.34, 0.0]);
        close(Window::Povey.samples(5, false), &[0.0, 0.5f64.powf(0.85), 1.0, 0.5f64.powf(0.85), 0.0]);
        close(Window::Rectangular.samples(3, true), &[1.0; 3]);
    }

    #[test]
    fn symmetry_and_edge_lengths() {
        for window in ALL {
            assert!(window.samples(0, true).is_empty());
            assert_eq!(window.samples(1, true), [1.0]);
            assert_eq!(window.samples(1, false), [1.0]);
            for length in [2, 3, 8, 251, 400] {
                let symmetric = window.samples(length, false);
                assert!((0..length).all(|k| symmetric[k] == symmetric[length - 1 - k]), "{window:?} {length}");
                // One period is the symmetric window of one sample more, without its last.
                let periodic = window.samples(length, true);
                assert_eq!(periodic, window.samples(length + 1, false)[..length], "{window:?} {length}");
            }
        }
    }
}
