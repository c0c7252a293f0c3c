//! Mel filter banks: triangles, evenly spaced on a scale of perceived pitch.
//!
//! Filter `m` rises from edge `m` to edge `m + 1` and falls to edge `m + 2`, where the `n_mels + 2` edges are evenly
//! spaced in mel between `fmin` and `fmax` and the triangle is drawn over frequency in Hz. As `librosa.filters.mel`.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::stft::{array, check_n_fft};
use crate::check;
use crate::error::{Error, Result};

/// The largest number of cells, `n_mels * (n_fft / 2 + 1)`, that is accepted.
pub const MAX_MEL_CELLS: usize = 1 << 24;

/// The largest `n_mels` that is accepted.
pub const MAX_N_MELS: usize = 1 << 16;

/// A formula for pitch in mel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MelScale {
    /// `3 f / 200` below 1 kHz, then 27 steps for each factor of 6.4: librosa's default, used by PANNs.
    #[default]
    Slaney,
    /// `2595 log10(1 + f / 700)` everywhere.
    Htk,
}

impl MelScale {
    /// Where Slaney's scale turns from linear to logarithmic: 1000 Hz, 15 mel.
    const KNEE: (f64, f64) = (1000.0, 15.0);

    /// Mel of a frequency in Hz.
    pub fn from_hz(self, hz: f64) -> f64 {
        let (knee_hz, knee_mel) = Self::KNEE;
        match self {
            Self::Htk => 2595.0 * (1.0 + hz / 700.0).log10(),
            Self::Slaney if hz < knee_hz => hz * 3.0 / 200.0,
            Self::Slaney => knee_mel + 27.0 * (hz / knee_hz).ln() / 6.4f64.ln(),
        }
    }

    /// Frequency in Hz of a mel value: the inverse of [`from_hz`](Self::from_hz).
    pub fn to_hz(self, mel: f64) -> f64 {
        let (knee_hz, knee_mel) = Self::KNEE;
        match self {
            Self::Htk => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
            Self::Slaney if mel < knee_mel => mel * 200.0 / 3.0,
            Self::Slaney => knee_hz * (6.4f64.ln() * (mel - knee_mel) / 27.0).exp(),
        }
    }
}

/// How the height of a triangle is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MelNorm {
    /// `2 / width in Hz`: equal areas (librosa's default).
    #[default]
    Slaney,
    /// Every triangle peaks at 1.
    None,
}

/// The axis over which the flanks of a triangle are straight.
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

/// The settings of a mel filter bank.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelConfig {
    /// Number of filters, 1 or more.
    pub n_mels: usize,
    /// Lower edge of the first filter in Hz, 0 or more. Default when read from a file: 0.
    #[serde(default)]
    pub fmin: f64,
    /// Upper edge of the last filter in Hz; `None` (the default) is half the sample rate. Filters beyond half the
    /// sample rate are allowed and stay empty.
    #[serde(default)]
    pub fmax: Option<f64>,
    /// Scale on which the filters are evenly spaced. Default: Slaney.
    #[serde(default, rename = "mel_scale")]
    pub scale: MelScale,
    /// Height of the filters. Default: Slaney.
    #[serde(default, rename = "mel_norm")]
    pub norm: MelNorm,
    /// The axis over which the triangles are drawn. Default: Hz.
    #[serde(default, rename = "mel_axis", skip_serializing_if = "MelAxis::is_hz")]
    pub axis: MelAxis,
}

/// A bank of filters over the bins of a spectrum, kept sparse: each filter is one run of weights.
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
    /// The weights of all filters, one after the other, each padded.
    weights: Vec<f32>,
}

/// Bins that a dot product takes at a time: filters are short, so that wider sums gain nothing.
const LANES: usize = 4;

/// `length` weights from `first_bin` on; they start at `offset` in the bank's weights and end in zeros that make them a
/// multiple of [`LANES`].
#[derive(Clone, Copy, Debug)]
struct Filter {
    first_bin: usize,
    offset: usize,
    length: usize,
}

impl MelFilterBank {
    /// Builds the triangles over the spectra of `n_fft` samples at `sample_rate` Hz, in f64, each weight rounded once.
    ///
    /// # Errors
    /// [`Error::Config`] for a sample rate of 0 or above 100 MHz, an `n_fft` outside 1 to [`MAX_N_FFT`](super::MAX_N_FFT), no filters, more than
    /// [`MAX_N_MELS`] filters or [`MAX_MEL_CELLS`] cells, `fmin` below 0 and `fmin >= fmax`.
    pub fn new(config: &MelConfig, sample_rate: u32, n_fft: usize) -> Result<Self> {
        let MelConfig { n_mels, fmin, fmax, scale, norm, axis } = *config;
        check_n_fft(n_fft)?;
        check::sample_rate(sample_rate)?;
        let fmax = fmax.unwrap_or(f64::from(sample_rate) / 2.0);
        let most = (MAX_MEL_CELLS / (n_fft / 2 + 1)).min(MAX_N_MELS);
        if n_mels == 0 || n_mels > most {
            return Err(Error::config("n_mels", n_mels, format!("must be 1 to {most} at n_fft = {n_fft}")));
        }
        if !(fmin.is_finite() && fmin >= 0.0) {
            return Err(Error::config("fmin", fmin, "must be 0 Hz or more"));
        }
        if !(fmax.is_finite() && fmax > fmin) {
            return Err(Error::config("fmax", fmax, format!("must be above fmin = {fmin} Hz")));
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

    /// As many filters over as many bins with other weights, `[n_mels, n_bins]`.
    pub(super) fn replaced(&self, weights: ArrayView2<f32>) -> Result<Self> {
        let expected = (self.n_mels(), self.n_bins());
        if weights.dim() != expected {
            return Err(Error::argument("filters", format!("{:?}", weights.dim()), format!("expected {expected:?}")));
        }
        Self::from_array(weights)
    }

    /// Filters given by their weights, `[n_mels, n_bins]`, such as those of a checkpoint.
    ///
    /// # Errors
    /// [`Error::Argument`] for no filters, no bins, more than [`MAX_N_MELS`] filters and weights that are not finite.
    pub fn from_array(weights: ArrayView2<f32>) -> Result<Self> {
        let (n_mels, n_bins) = weights.dim();
        if n_mels == 0 || n_bins == 0 || n_mels > MAX_N_MELS {
            return Err(Error::argument(
                "weights",
                format!("{:?}", weights.dim()),
                format!("1 to {MAX_N_MELS} filters"),
            ));
        }
        if !weights.iter().all(|w| w.is_finite()) {
            return Err(Error::argument("weights", "NaN or infinite", "must be finite"));
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

    /// Appends a filter whose positive weights all lie between the positions `left` and `right`, in bins.
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

    /// Number of filters.
    pub fn n_mels(&self) -> usize {
        self.filters.len()
    }

    /// Number of bins of a spectrum that the bank applies to.
    pub fn n_bins(&self) -> usize {
        self.n_bins
    }

    /// The filters without a bin, whose output is always 0: `n_fft` does not resolve that many filters, or `fmax` lies beyond
    /// half the sample rate.
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

    /// Filters the spectra `[n_frames, n_bins]` into `[n_frames, n_mels]`. A bin that is not finite can make filters NaN
    /// that lie beside it, as it makes all of them in a product of dense matrices.
    ///
    /// # Errors
    /// [`Error::Argument`] where the spectra have another number of bins.
    pub fn apply(&self, spectrum: &Array2<f32>) -> Result<Array2<f32>> {
        let (n_frames, n_bins) = spectrum.dim();
        if n_bins != self.n_bins {
            return Err(Error::argument("n_bins", n_bins, format!("expected {}, as the filters have", self.n_bins)));
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

    /// A spectrum buffer `[n_bins]` with zero padding for the filters' tails.
    pub(super) fn spectrum(&self) -> Vec<f64> {
        vec![0.0; self.n_bins + LANES]
    }

    /// Writes the outputs of the filters from `first` on for one [`spectrum`](Self::spectrum), as many as `mels` holds.
    #[inline(always)]
    pub(super) fn apply_to_frame(&self, spectrum: &[f64], first: usize, mels: &mut [f64]) {
        for (mel, filter) in mels.iter_mut().zip(&self.filters[first..]) {
            *mel = dot(&spectrum[filter.first_bin..], self.weights_of(filter));
        }
    }

    /// The weights of a filter with the zeros behind them.
    #[inline(always)]
    fn weights_of(&self, filter: &Filter) -> &[f32] {
        &self.weights[filter.offset..][..filter.length.next_multiple_of(LANES)]
    }
}

/// One sum per lane, for the vector units; their order is fixed, so the result is too.
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
