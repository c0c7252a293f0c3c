//! Mel filter banks: triangular filters, evenly spaced on the mel scale.
//!
//! Filter `m` rises from edge `m` to edge `m + 1` and falls to edge `m + 2`. The `n_mels + 2` edges are evenly spaced
//! in mel between `fmin` and `fmax`; the triangles are linear in Hz. Reference: `librosa.filters.mel`.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::stft::{array, check_n_fft};
use crate::check;
use crate::error::{Error, Result};

/// Limit on the number of cells of a filter bank, `n_mels * (n_fft / 2 + 1)`.
pub const MAX_MEL_CELLS: usize = 1 << 24;

/// Limit on `n_mels`.
pub const MAX_N_MELS: usize = 1 << 16;

/// A formula for the mel scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MelScale {
    /// `3 f / 200` below 1 kHz, then 27 steps per factor of 6.4. librosa's default, used by PANNs.
    #[default]
    Slaney,
    /// `2595 log10(1 + f / 700)` at all frequencies.
    Htk,
}

impl MelScale {
    /// The point where Slaney's scale changes from linear to logarithmic: 1000 Hz, 15 mel.
    const KNEE: (f64, f64) = (1000.0, 15.0);

    /// Converts a frequency in Hz to mel.
    pub fn from_hz(self, hz: f64) -> f64 {
        let (knee_hz, knee_mel) = Self::KNEE;
        match self {
            Self::Htk => 2595.0 * (1.0 + hz / 700.0).log10(),
            Self::Slaney if hz < knee_hz => hz * 3.0 / 200.0,
            Self::Slaney => knee_mel + 27.0 * (hz / knee_hz).ln() / 6.4f64.ln(),
        }
    }

    /// Converts mel to a frequency in Hz. The inverse of [`from_hz`](Self::from_hz).
    pub fn to_hz(self, mel: f64) -> f64 {
        let (knee_hz, knee_mel) = Self::KNEE;
        match self {
            Self::Htk => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
            Self::Slaney if mel < knee_mel => mel * 200.0 / 3.0,
            Self::Slaney => knee_hz * (6.4f64.ln() * (mel - knee_mel) / 27.0).exp(),
        }
    }
}

/// Normalisation of the height of the triangles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MelNorm {
    /// `2 / width in Hz`, for equal areas (librosa's default).
    #[default]
    Slaney,
    /// Height 1.
    None,
}

/// The frequency axis on which the flanks of a triangle are linear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MelAxis {
    /// Frequency in Hz, as in librosa and torchaudio's transforms. The default.
    #[default]
    Hz,
    /// Mel, as in Kaldi.
    Mel,
}

impl MelAxis {
    fn is_hz(&self) -> bool {
        *self == Self::Hz
    }
}

/// Settings of a mel filter bank.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelConfig {
    /// Number of filters, 1 or more.
    pub n_mels: usize,
    /// Lower edge of the first filter in Hz, 0 or more. Default when read from a file: 0.
    #[serde(default)]
    pub fmin: f64,
    /// Upper edge of the last filter in Hz; `None` (the default) is half the sample rate. Filters above half the sample
    /// rate are allowed and stay empty.
    #[serde(default)]
    pub fmax: Option<f64>,
    /// The scale on which the filters are evenly spaced. Default: Slaney.
    #[serde(default, rename = "mel_scale")]
    pub scale: MelScale,
    /// Height of the filters. Default: Slaney.
    #[serde(default, rename = "mel_norm")]
    pub norm: MelNorm,
    /// The axis on which the triangles are linear. Default: Hz.
    #[serde(default, rename = "mel_axis", skip_serializing_if = "MelAxis::is_hz")]
    pub axis: MelAxis,
}

/// A bank of filters over the bins of a spectrum, stored sparsely: each filter is one run of weights.
///
/// ```
/// use clipwise::frontend::{LogMelConfig, MelFilterBank};
///
/// let bank = MelFilterBank::new(&LogMelConfig::PANNS_32K.mel, 32_000, 1024)?;
/// assert_eq!(bank.to_array().dim(), (64, 513)); // [n_mels, n_bins]
/// assert!(bank.empty_filters().is_empty());
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MelFilterBank {
    n_bins: usize,
    filters: Vec<Filter>,
    /// The weights of all filters, concatenated, each padded.
    weights: Vec<f32>,
}

/// Number of bins per step of a dot product. Filters are short, so wider sums gain nothing.
const LANES: usize = 4;

/// A filter of `length` weights from `first_bin` on. They begin at `offset` in the bank's weights and are padded with
/// zeros to a multiple of [`LANES`].
#[derive(Clone, Copy, Debug)]
struct Filter {
    first_bin: usize,
    offset: usize,
    length: usize,
}

impl MelFilterBank {
    /// Builds triangular filters for spectra of `n_fft` samples at `sample_rate` Hz. Computed in f64 and rounded once.
    ///
    /// # Errors
    /// [`Error::Config`] if the sample rate is 0 or above 100 MHz, if `n_fft` is not between 1 and
    /// [`MAX_N_FFT`](super::MAX_N_FFT), if there are no filters, more than [`MAX_N_MELS`] filters or more than
    /// [`MAX_MEL_CELLS`] cells, if `fmin` is below 0, or if `fmax` is not above `fmin`.
    pub fn new(config: &MelConfig, sample_rate: u32, n_fft: usize) -> Result<Self> {
        let MelConfig { n_mels, fmin, fmax, scale, norm, axis } = *config;
        check_n_fft(n_fft)?;
        check::sample_rate(sample_rate)?;
        let fmax = fmax.unwrap_or(f64::from(sample_rate) / 2.0);
        let most = (MAX_MEL_CELLS / (n_fft / 2 + 1)).min(MAX_N_MELS);
        if n_mels == 0 || n_mels > most {
            return Err(Error::config("n_mels", n_mels, format!("expected 1 to {most} at n_fft = {n_fft}")));
        }
        if !(fmin.is_finite() && fmin >= 0.0) {
            return Err(Error::config("fmin", fmin, "expected 0 Hz or more"));
        }
        if !(fmax.is_finite() && fmax > fmin) {
            return Err(Error::config("fmax", fmax, format!("expected a frequency above fmin = {fmin} Hz")));
        }
        let (low, high) = (scale.from_hz(fmin), scale.from_hz(fmax));
        let edge = |m: usize| scale.to_hz(low + (high - low) * m as f64 / (n_mels + 1) as f64);
        let hz_per_bin = f64::from(sample_rate) / n_fft as f64;

        let mut bank = Self::with_bins(n_fft / 2 + 1);
        for m in 0..n_mels {
            let (left, peak, right) = (edge(m), edge(m + 1), edge(m + 2));
            let height = match norm {
                MelNorm::Slaney => 2.0 / (right - left),
                MelNorm::None => 1.0,
            };
            bank.push(left / hz_per_bin, right / hz_per_bin, |bin| {
                let hz = bin as f64 * hz_per_bin;
                let place = match axis {
                    MelAxis::Hz => ((hz - left) / (peak - left)).min((right - hz) / (right - peak)),
                    MelAxis::Mel => {
                        let place = (scale.from_hz(hz) - low) / (high - low) * (n_mels + 1) as f64 - m as f64;
                        place.min(2.0 - place)
                    }
                };
                height * place
            });
        }
        Ok(bank)
    }

    /// Replaces the weights by others of the same shape, `[n_mels, n_bins]`.
    pub(super) fn replaced(&self, weights: ArrayView2<f32>) -> Result<Self> {
        let expected = (self.n_mels(), self.n_bins());
        if weights.dim() != expected {
            return Err(Error::argument("filters", format!("{:?}", weights.dim()), format!("expected {expected:?}")));
        }
        Self::from_array(weights)
    }

    /// Creates a filter bank from its weights `[n_mels, n_bins]`, such as those in a checkpoint.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no filters or bins, more than [`MAX_N_MELS`] filters, or a weight that is not
    /// finite.
    pub fn from_array(weights: ArrayView2<f32>) -> Result<Self> {
        let (n_mels, n_bins) = weights.dim();
        if n_mels == 0 || n_bins == 0 || n_mels > MAX_N_MELS {
            return Err(Error::argument(
                "weights",
                format!("{:?}", weights.dim()),
                format!("expected 1 to {MAX_N_MELS} filters of at least 1 bin"),
            ));
        }
        if !weights.iter().all(|w| w.is_finite()) {
            return Err(Error::argument("weights", "NaN or infinite", "expected a finite number"));
        }
        let mut bank = Self::with_bins(n_bins);
        for row in weights.rows() {
            let first_bin = row.iter().position(|&w| w != 0.0).unwrap_or(0);
            let end = row.iter().rposition(|&w| w != 0.0).map_or(first_bin, |last| last + 1);
            bank.filters.push(Filter { first_bin, offset: bank.weights.len(), length: end - first_bin });
            bank.weights.extend(row.iter().skip(first_bin).take(end - first_bin));
            bank.pad();
        }
        Ok(bank)
    }

    fn with_bins(n_bins: usize) -> Self {
        Self { n_bins, filters: Vec::new(), weights: Vec::new() }
    }

    /// Appends a filter. All its positive weights lie between `left` and `right`, in bins.
    fn push(&mut self, left: f64, right: f64, weight: impl Fn(usize) -> f64) {
        let offset = self.weights.len();
        // `as` saturates: an edge far above the last bin leaves an empty range.
        let mut first_bin = (left as usize).min(self.n_bins);
        for bin in first_bin..(right.ceil() as usize).saturating_add(1).min(self.n_bins) {
            match weight(bin) as f32 {
                w if w > 0.0 => self.weights.push(w),
                _ if self.weights.len() == offset => first_bin = bin + 1,
                _ => break,
            }
        }
        self.filters.push(Filter { first_bin, offset, length: self.weights.len() - offset });
        self.pad();
    }

    fn pad(&mut self) {
        self.weights.resize(self.weights.len().next_multiple_of(LANES), 0.0);
    }

    /// The number of filters.
    pub fn n_mels(&self) -> usize {
        self.filters.len()
    }

    /// The number of bins of the spectra that the bank applies to.
    pub fn n_bins(&self) -> usize {
        self.n_bins
    }

    /// Indices of filters that cover no frequency bin, so their output is always 0. The cause is an `n_fft` that is too
    /// short for the number of filters, or an `fmax` above half the sample rate.
    pub fn empty_filters(&self) -> Vec<usize> {
        (0..self.n_mels()).filter(|&m| self.filters[m].length == 0).collect()
    }

    /// The weights as a dense matrix, `[n_mels, n_bins]`.
    pub fn to_array(&self) -> Array2<f32> {
        let mut dense = Array2::zeros((self.n_mels(), self.n_bins));
        for (m, filter) in self.filters.iter().enumerate() {
            for (k, &w) in self.weights_of(filter)[..filter.length].iter().enumerate() {
                dense[(m, filter.first_bin + k)] = w;
            }
        }
        dense
    }

    /// Applies the filters to spectra `[n_frames, n_bins]`; the result is `[n_frames, n_mels]`. A bin that is not
    /// finite can make the outputs of filters beside it NaN, as it makes all outputs NaN in a dense matrix product.
    ///
    /// # Errors
    /// [`Error::Argument`] if the spectra have another number of bins.
    pub fn apply(&self, spectrum: &Array2<f32>) -> Result<Array2<f32>> {
        let (n_frames, n_bins) = spectrum.dim();
        if n_bins != self.n_bins {
            return Err(Error::argument(
                "n_bins",
                n_bins,
                format!("expected {}, the number of bins of the filters", self.n_bins),
            ));
        }
        let mut bins = self.spectrum();
        let mut mels = vec![0.0; self.n_mels()];
        array(n_frames, self.n_mels(), |out| {
            for (row, out) in spectrum.rows().into_iter().zip(out.chunks_exact_mut(self.n_mels())) {
                bins.iter_mut().zip(row).for_each(|(bin, &x)| *bin = f64::from(x));
                self.apply_to_frame(&bins, 0, &mut mels);
                out.iter_mut().zip(&mels).for_each(|(out, &mel)| *out = mel as f32);
            }
        })
    }

    /// A spectrum buffer `[n_bins]`, padded with zeros for the ends of padded filters.
    pub(super) fn spectrum(&self) -> Vec<f64> {
        vec![0.0; self.n_bins + LANES]
    }

    /// Writes the outputs of the filters from `first` on, for one [`spectrum`](Self::spectrum), to `mels`.
    #[inline(always)]
    pub(super) fn apply_to_frame(&self, spectrum: &[f64], first: usize, mels: &mut [f64]) {
        for (mel, filter) in mels.iter_mut().zip(&self.filters[first..]) {
            *mel = dot(&spectrum[filter.first_bin..], self.weights_of(filter));
        }
    }

    /// The weights of a filter, with padding.
    #[inline(always)]
    fn weights_of(&self, filter: &Filter) -> &[f32] {
        &self.weights[filter.offset..][..filter.length.next_multiple_of(LANES)]
    }
}

/// A dot product with one sum per lane, so that it vectorises. The order of summation is fixed.
#[inline(always)]
fn dot(values: &[f64], weights: &[f32]) -> f64 {
    let mut sums = [0.0; LANES];
    for (v, w) in values.as_chunks::<LANES>().0.iter().zip(weights.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            sums[lane] += v[lane] * f64::from(w[lane]);
        }
    }
    (sums[0] + sums[2]) + (sums[1] + sums[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_at_known_points() {
        for (scale, hz, mel) in [
            (MelScale::Slaney, 60.0, 0.9),
            (MelScale::Slaney, 1000.0, 15.0),
            (MelScale::Slaney, 6400.0, 42.0),
            (MelScale::Htk, 0.0, 0.0),
            (MelScale::Htk, 6300.0, 2595.0),
        ] {
            assert!((scale.from_hz(hz) - mel).abs() < 1e-9, "{scale:?} {hz}");
            assert!((scale.to_hz(mel) - hz).abs() < 1e-9, "{scale:?} {mel}");
        }
    }

    #[test]
    fn dot_products_of_every_length() {
        for length in (0..5).map(|n| n * LANES) {
            let values: Vec<f64> = (0..length + 3).map(|k| k as f64 + 0.5).collect();
            let weights: Vec<f32> = (0..length).map(|k| 1.0 + k as f32).collect();
            let plain: f64 = values.iter().zip(&weights).map(|(&v, &w)| v * f64::from(w)).sum();
            assert_eq!(dot(&values, &weights), plain);
        }
    }
}
