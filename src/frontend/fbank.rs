//! Kaldi's filter-bank features: log-mel spectrograms of `compute-fbank-feats` and `torchaudio.compliance.kaldi.fbank`.
//!
//! Differences from [`LogMel`](super::LogMel): the mean of each frame is subtracted, then the frame is pre-emphasised
//! (`x[i] - 0.97 x[i - 1]`, where the first sample counts as its own predecessor) and windowed; the zeros that pad it
//! to `n_fft` are all at its end; the triangles are linear in mel instead of Hz and have height 1; the logarithm is
//! natural. Everything up to the final value is computed in f64. There is no dither: Kaldi's default adds noise of one
//! unit to the samples, so that features cannot be reproduced.

use std::fmt;

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::decibel::LogScale;
use super::frame_loop::for_each_frame;
use super::real_fft::{Bins, RealFft};
use super::stft::check_n_fft;
use super::{FrontEnd, MAX_N_FFT, MAX_N_MELS, MelFilterBank, MelScale, Spectrum, Window};
use crate::check;
use crate::error::{Error, Result};

/// Limit on the cells of the filter table.
const MAX_CELLS: usize = 1 << 24;

/// Settings of [`Fbank`]. Take a preset and change what differs. Fields that are missing in a file have the values of
/// [`KALDI_16K`](Self::KALDI_16K).
///
/// ```
/// use clipwise::frontend::FbankConfig;
///
/// let config = FbankConfig { n_mels: 80, ..FbankConfig::kaldi(8_000) };
/// assert_eq!((config.n_fft, config.win_length, config.hop_length), (256, 200, 80));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default = "FbankConfig::default_16k")]
pub struct FbankConfig {
    /// Sample rate in Hz.
    pub sample_rate: u32,
    /// Length of the transform in samples, at least `win_length`. Kaldi uses the next power of two.
    pub n_fft: usize,
    /// Length of a frame in samples, 2 or more.
    pub win_length: usize,
    /// Distance between frames in samples.
    pub hop_length: usize,
    /// Shape of the window.
    pub window: Window,
    /// Whether the window is periodic. Kaldi's windows are symmetric.
    pub periodic: bool,
    /// Factor of the previous sample that is subtracted from each sample, 0 to 1; 0 for no pre-emphasis.
    pub preemphasis: f64,
    /// Whether the mean of each frame is subtracted before anything else.
    pub remove_dc_offset: bool,
    /// If true, frame `t` begins at sample `t * hop_length`, and only whole frames count. If false, frame `t` is
    /// centred at `(t + 1/2) * hop_length`, and the clip is mirrored at its ends (repeating the end samples) as often
    /// as needed.
    pub snip_edges: bool,
    /// Factor applied to the samples, above 0: 1 for samples in -1.0..=1.0, 32768 for models that were trained on
    /// 16-bit integers, which Kaldi reads.
    pub sample_scale: f32,
    /// The spectrum that the filters are applied to.
    pub power: Spectrum,
    /// Number of mel filters.
    pub n_mels: usize,
    /// Lower edge of the first filter in Hz.
    pub fmin: f64,
    /// Upper edge of the last filter in Hz, at most half the sample rate; `None` is half the sample rate.
    pub fmax: Option<f64>,
    /// Whether to take the natural logarithm (`use_log_fbank`). Without it, powers of samples above about 1e15 exceed
    /// f32 and become infinite.
    pub log: bool,
    /// Added to each filter output before the logarithm; 0 or more.
    pub log_offset: f32,
    /// Lower bound of the filter outputs before the logarithm; above 0.
    pub amin: f32,
    /// Whether to add a first column with the natural logarithm of the frame's energy. In [`Mfcc`](super::Mfcc) it
    /// replaces the first coefficient.
    pub use_energy: bool,
    /// Whether the energy is measured before pre-emphasis and window (true) or after them.
    pub raw_energy: bool,
    /// Lower bound of the energy; 0 or more. (The f32 epsilon is a lower bound in any case.)
    pub energy_floor: f32,
    /// Whether the energy is the last column instead. In [`Mfcc`](super::Mfcc), whether the first coefficient comes
    /// last, multiplied by √2 if it is not the energy.
    pub htk_compat: bool,
}

impl FbankConfig {
    /// torchaudio's defaults at 16 kHz: window 25 ms, hop 10 ms, `n_fft` 512, Povey window, 23 mels from 20 Hz up,
    /// samples not scaled. Kaldi's own defaults differ in `dither` and `energy_floor` (0).
    pub const KALDI_16K: Self = Self::kaldi(16_000);

    /// SeamlessM4T and W2V-BERT 2.0: 80 mels of samples scaled to 16 bits. [`SeamlessM4t`](super::SeamlessM4t)
    /// normalises and stacks them.
    pub const SEAMLESS_M4T_16K: Self = Self { n_mels: 80, sample_scale: 32_768.0, ..Self::KALDI_16K };

    /// YAMNet: magnitudes with a periodic Hann window, 64 mels from 125 to 7500 Hz, `ln(x + 0.001)`.
    pub const YAMNET_16K: Self = Self {
        window: Window::Hann,
        periodic: true,
        preemphasis: 0.0,
        remove_dc_offset: false,
        power: Spectrum::Magnitude,
        n_mels: 64,
        fmin: 125.0,
        fmax: Some(7_500.0),
        log_offset: 0.001,
        ..Self::KALDI_16K
    };

    /// AST and EAT: 128 mels, a symmetric Hann window, samples not scaled.
    pub const AST_16K: Self = Self { n_mels: 128, window: Window::Hann, ..Self::KALDI_16K };

    /// BEATs: 128 mels of samples scaled to 16 bits.
    pub const BEATS_16K: Self = Self { n_mels: 128, sample_scale: 32_768.0, ..Self::KALDI_16K };

    /// As [`KALDI_16K`](Self::KALDI_16K) at another sample rate: window 25 ms and hop 10 ms, rounded down to samples.
    pub const fn kaldi(sample_rate: u32) -> Self {
        let win_length = (sample_rate as u64 * 25 / 1000) as usize;
        Self {
            sample_rate,
            n_fft: win_length.next_power_of_two(),
            win_length,
            hop_length: (sample_rate / 100) as usize,
            window: Window::Povey,
            periodic: false,
            preemphasis: 0.97,
            remove_dc_offset: true,
            snip_edges: true,
            sample_scale: 1.0,
            power: Spectrum::Power,
            n_mels: 23,
            fmin: 20.0,
            fmax: None,
            log: true,
            log_offset: 0.0,
            amin: f32::EPSILON,
            use_energy: false,
            raw_energy: true,
            energy_floor: 1.0,
            htk_compat: false,
        }
    }

    fn default_16k() -> Self {
        Self::KALDI_16K
    }

    fn check(&self) -> Result<()> {
        let Self { sample_rate, n_fft, win_length, hop_length, n_mels, fmin, .. } = *self;
        check_n_fft(n_fft)?;
        check::sample_rate(sample_rate)?;
        if win_length < 2 || win_length > n_fft {
            return Err(Error::config("win_length", win_length, format!("expected 2 to n_fft = {n_fft}")));
        }
        if hop_length == 0 || hop_length > MAX_N_FFT {
            return Err(Error::config("hop_length", hop_length, format!("expected 1 to {MAX_N_FFT}")));
        }
        let most = (MAX_CELLS / (n_fft / 2 + 1)).min(MAX_N_MELS);
        if n_mels == 0 || n_mels > most {
            return Err(Error::config("n_mels", n_mels, format!("expected 1 to {most} at n_fft = {n_fft}")));
        }
        let nyquist = f64::from(sample_rate) / 2.0;
        let fmax = self.fmax.unwrap_or(nyquist);
        if !(fmin.is_finite() && fmin >= 0.0) {
            return Err(Error::config("fmin", fmin, "expected 0 Hz or more"));
        }
        if !(fmax > fmin && fmax <= nyquist) {
            return Err(Error::config(
                "fmax",
                fmax,
                format!("expected a frequency above fmin = {fmin} Hz, at most {nyquist} Hz"),
            ));
        }
        if !(0.0..=1.0).contains(&self.preemphasis) {
            return Err(Error::config("preemphasis", self.preemphasis, "expected 0 to 1"));
        }
        for (field, value) in [("sample_scale", self.sample_scale), ("amin", self.amin)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::config(field, value, "expected a number above 0"));
            }
        }
        if self.log && self.power == Spectrum::Real {
            return Err(Error::config(
                "power",
                self.power,
                "expected magnitude or power if log is true, since the real part is signed",
            ));
        }
        for (field, value) in [("energy_floor", self.energy_floor), ("log_offset", self.log_offset)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::config(field, value, "expected 0 or more"));
            }
        }
        Ok(())
    }

    /// Builds triangles that are linear in mel. Their slopes are ratios of mel distances, so it does not matter that
    /// Kaldi defines mel as `1127 ln(1 + f / 700)`.
    fn filters(&self) -> Result<MelFilterBank> {
        let scale = MelScale::Htk;
        let fmax = self.fmax.unwrap_or(f64::from(self.sample_rate) / 2.0);
        let (low, high) = (scale.from_hz(self.fmin), scale.from_hz(fmax));
        let step = (high - low) / (self.n_mels + 1) as f64;
        let hz_per_bin = f64::from(self.sample_rate) / self.n_fft as f64;
        // As in Kaldi, the bin at half the sample rate (present if n_fft is even) belongs to no filter.
        let last_bin = (self.n_fft - 1) / 2;
        let mut weights = Array2::zeros((self.n_mels, self.n_fft / 2 + 1));
        for ((m, bin), weight) in weights.indexed_iter_mut().filter(|((_, bin), _)| *bin <= last_bin) {
            let position = (scale.from_hz(bin as f64 * hz_per_bin) - low) / step - m as f64; // 0 left, 1 peak, 2 right
            *weight = position.min(2.0 - position).max(0.0) as f32;
        }
        MelFilterBank::from_array(weights.view())
    }
}

/// A planned Kaldi front end.
///
/// ```
/// use clipwise::frontend::{Fbank, FbankConfig};
///
/// let fbank = Fbank::new(&FbankConfig { n_mels: 80, ..FbankConfig::KALDI_16K })?;
/// assert_eq!(fbank.compute(&vec![0.0; 16_000])?.dim(), (98, 80)); // [n_frames, n_mels]
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Clone)]
pub struct Fbank {
    config: FbankConfig,
    window: Vec<f64>,
    mel: MelFilterBank,
    fft: RealFft,
}

impl Fbank {
    /// Plans the transform and builds the filters.
    ///
    /// # Errors
    /// [`Error::Config`] if a field is out of range, or if the filter table has more than 2^24 cells.
    pub fn new(config: &FbankConfig) -> Result<Self> {
        config.check()?;
        Ok(Self {
            config: config.clone(),
            window: config.window.samples(config.win_length, config.periodic),
            mel: config.filters()?,
            fft: RealFft::new(config.n_fft),
        })
    }

    /// Replaces the mel filters by others of the same shape, `[n_mels, n_fft / 2 + 1]`, such as those in a checkpoint.
    ///
    /// # Errors
    /// [`Error::Argument`] if the shape differs or a value is not finite.
    pub fn with_filters(mut self, filters: ArrayView2<f32>) -> Result<Self> {
        self.mel = self.mel.replaced(filters)?;
        Ok(self)
    }

    /// The settings.
    pub fn config(&self) -> &FbankConfig {
        &self.config
    }

    /// The mel filters.
    pub fn mel(&self) -> &MelFilterBank {
        &self.mel
    }

    /// The number of columns of the result: the filters, and the energy if it is used.
    pub fn n_features(&self) -> usize {
        self.config.n_mels + usize::from(self.config.use_energy)
    }

    /// The number of frames of a clip; 0 if it is shorter than [`min_samples`](Self::min_samples).
    pub fn n_frames(&self, n_samples: usize) -> usize {
        let FbankConfig { win_length, hop_length, snip_edges, .. } = self.config;
        match snip_edges {
            true if n_samples < win_length => 0,
            true => 1 + (n_samples - win_length) / hop_length,
            // (n_samples + hop / 2) / hop, without overflow
            false => n_samples / hop_length + (n_samples % hop_length + hop_length / 2) / hop_length,
        }
    }

    /// The length of the shortest clip that has a frame: `win_length` samples with `snip_edges`, half a hop without.
    pub fn min_samples(&self) -> usize {
        match self.config.snip_edges {
            true => self.config.win_length,
            false => self.config.hop_length.div_ceil(2),
        }
    }

    /// Computes the features of mono samples at the configured rate: `[n_frames, n_mels]`, with one more column if
    /// `use_energy` is set.
    ///
    /// Within 1e-3 of torchaudio (1e-5 of torchaudio in f64).
    ///
    /// # Errors
    /// [`Error::TooShort`] for clips shorter than [`min_samples`](Self::min_samples); [`Error::NonFinite`] if a sample
    /// is NaN or infinite; [`Error::Argument`] if the result does not fit into memory.
    pub fn compute(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.frames(samples)
    }

    /// Computes frames of a clip from frame `first` on, one per row of `out`. The clip must have these frames.
    pub(super) fn rows(&self, samples: &[f32], first: usize, out: &mut [f32]) {
        for_each_frame(
            &self.fft,
            (out, self.n_features()),
            || (self.mel.spectrum(), vec![0.0; self.config.n_mels]),
            #[inline(always)]
            |index, frame| self.prepare(first + index, samples, frame),
            #[inline(always)]
            |bins, energy, (spectrum, mels), row| self.finish_frame(bins, energy, spectrum, mels, row),
        );
    }

    /// Samples from the start of frame `t` to `t * hop_length`; negative if the frame starts later.
    pub(super) fn before(&self) -> isize {
        let FbankConfig { win_length, hop_length, snip_edges, .. } = self.config;
        if snip_edges { 0 } else { (win_length / 2) as isize - (hop_length / 2) as isize }
    }

    /// Writes a frame as input of the transform, and returns its energy.
    #[inline(always)]
    fn prepare(&self, index: usize, samples: &[f32], frame: &mut [f64]) -> f64 {
        let config = &self.config;
        let (frame, padding) = frame.split_at_mut(config.win_length);
        padding.fill(0.0);
        self.cut(index, samples, frame);
        if config.remove_dc_offset {
            let mean = frame.iter().sum::<f64>() / frame.len() as f64;
            frame.iter_mut().for_each(|x| *x -= mean);
        }
        let mut energy = if config.raw_energy { sum_of_squares(frame) } else { 0.0 };
        if config.preemphasis > 0.0 {
            for i in (1..frame.len()).rev() {
                frame[i] -= config.preemphasis * frame[i - 1];
            }
            frame[0] -= config.preemphasis * frame[0];
        }
        frame.iter_mut().zip(&self.window).for_each(|(x, w)| *x *= w);
        if !config.raw_energy {
            energy = sum_of_squares(frame);
        }
        energy
    }

    /// Computes the features of a frame from its spectrum.
    #[inline(always)]
    fn finish_frame(&self, bins: Bins, energy: f64, spectrum: &mut [f64], mels: &mut [f64], row: &mut [f32]) {
        let config = &self.config;
        let first_mel = usize::from(config.use_energy && !config.htk_compat);
        if config.use_energy {
            let energy = energy.max(f64::from(f32::EPSILON)).max(f64::from(config.energy_floor));
            row[if config.htk_compat { config.n_mels } else { 0 }] = energy.ln() as f32;
        }
        let row = &mut row[first_mel..first_mel + config.n_mels];
        let n_bins = self.mel.n_bins();
        config.power.write(bins, &mut spectrum[..n_bins]);
        self.mel.apply_to_frame(spectrum, 0, mels);
        if config.log {
            mels.iter_mut().for_each(|x| *x += f64::from(config.log_offset));
            LogScale::Natural.apply(mels, f64::from(config.amin), 0.0, row);
        } else {
            row.iter_mut().zip(&*mels).for_each(|(out, &mel)| *out = mel as f32);
        }
    }

    /// Writes the scaled samples of one frame, mirrored beyond the ends of the clip.
    #[inline(always)]
    fn cut(&self, index: usize, samples: &[f32], frame: &mut [f64]) {
        let FbankConfig { win_length, hop_length, sample_scale, .. } = self.config;
        let scale = f64::from(sample_scale);
        let start = (index * hop_length) as isize - self.before();
        let inside = usize::try_from(start).ok().and_then(|start| samples.get(start..start + win_length));
        if let Some(inside) = inside {
            frame.iter_mut().zip(inside).for_each(|(out, &x)| *out = f64::from(x) * scale);
            return;
        }
        let n = samples.len() as isize;
        for (k, out) in frame.iter_mut().enumerate() {
            let index = (start + k as isize).rem_euclid(2 * n);
            *out = f64::from(samples[index.min(2 * n - 1 - index) as usize]) * scale;
        }
    }
}

#[inline(always)]
fn sum_of_squares(frame: &[f64]) -> f64 {
    frame.iter().map(|x| x * x).sum()
}

impl fmt::Debug for Fbank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fbank").field("config", &self.config).finish_non_exhaustive()
    }
}
