//! Kaldi's filter-bank features: log-mel spectrograms as `compute-fbank-feats` and `torchaudio.compliance.kaldi.fbank`.
//!
//! What differs from [`LogMel`](super::LogMel): each frame by itself loses its mean, is pre-emphasised
//! (`x[i] - 0.97 x[i - 1]`, where the first sample precedes itself) and windowed; the zeros that pad it to `n_fft` all
//! follow it; the triangles are drawn over mel instead of Hz and all peak at 1; the logarithm is natural. Everything
//! up to the final value is computed in f64. Without dither: Kaldi's own default adds noise of one unit to the samples,
//! which makes features that no second run repeats.

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

/// The largest table of filters that is built, in cells.
const MAX_CELLS: usize = 1 << 24;

/// The settings of a Kaldi front end. Take a preset and change what differs. Read from a file, a missing field has the
/// value of [`KALDI_16K`](Self::KALDI_16K).
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
    /// In Hz.
    pub sample_rate: u32,
    /// Length of the transform in samples, at least `win_length`. Kaldi takes the next power of two.
    pub n_fft: usize,
    /// Length of a frame in samples, 2 or more.
    pub win_length: usize,
    /// Distance between frames in samples.
    pub hop_length: usize,
    /// Shape of the window.
    pub window: Window,
    /// Whether the window is periodic. Kaldi's are symmetric.
    pub periodic: bool,
    /// Share of the previous sample that is subtracted from each one, 0 to 1; 0 for no pre-emphasis.
    pub preemphasis: f64,
    /// Whether the mean of each frame is subtracted before anything else.
    pub remove_dc_offset: bool,
    /// Whether only whole frames count, frame `t` from sample `t * hop_length` on. Otherwise the middle of frame `t` is
    /// at `(t + 1/2) * hop_length`, and the clip is mirrored at its ends, end samples repeated, as often as needed.
    pub snip_edges: bool,
    /// Samples are multiplied with this: 1 for samples in -1.0..=1.0 as they are, 32768 for the 16-bit numbers that Kaldi
    /// reads. Above 0.
    pub sample_scale: f32,
    /// What the filters are applied to.
    pub power: Spectrum,
    /// Number of mel filters.
    pub n_mels: usize,
    /// Lower edge of the first filter in Hz.
    pub fmin: f64,
    /// Upper edge of the last filter in Hz, at most half the sample rate; `None` is half the sample rate.
    pub fmax: Option<f64>,
    /// Whether the natural logarithm is taken (`use_log_fbank`). Without it, powers of samples beyond about 1e15 exceed f32 and
    /// become infinite.
    pub log: bool,
    /// Added to each filter output before the logarithm, 0 or more.
    pub log_offset: f32,
    /// Smaller values count as this one before the logarithm; above 0.
    pub amin: f32,
    /// Whether one more column, before the filters, holds the natural logarithm of the frame's energy. In
    /// [`Mfcc`](super::Mfcc), it replaces the first coefficient.
    pub use_energy: bool,
    /// Whether the energy is measured before pre-emphasis and window (true) or after.
    pub raw_energy: bool,
    /// Smaller energies count as this one, 0 or more. (The f32 epsilon is a floor in any case.)
    pub energy_floor: f32,
    /// Whether the energy follows the filters instead; in [`Mfcc`](super::Mfcc), whether the first coefficient comes last,
    /// times √2 if it is not the energy.
    pub htk_compat: bool,
}

impl FbankConfig {
    /// torchaudio's defaults at 16 kHz: 25 ms in 512, 10 ms, Povey window, 23 mels from 20 Hz up, samples as they are. Kaldi's
    /// own differ in `dither` and `energy_floor` (0).
    pub const KALDI_16K: Self = Self::kaldi(16_000);

    /// SeamlessM4T and W2V-BERT 2.0: 80 mels of 16-bit samples. [`SeamlessM4t`](super::SeamlessM4t) normalises and stacks them.
    pub const SEAMLESS_M4T_16K: Self = Self { n_mels: 80, sample_scale: 32_768.0, ..Self::KALDI_16K };

    /// YAMNet: magnitudes under a periodic Hann window, 64 mels from 125 to 7500 Hz, `ln(x + 0.001)`.
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

    /// AST and EAT: 128 mels, a symmetric Hann window, samples as they are.
    pub const AST_16K: Self = Self { n_mels: 128, window: Window::Hann, ..Self::KALDI_16K };

    /// BEATs: 128 mels of 16-bit samples.
    pub const BEATS_16K: Self = Self { n_mels: 128, sample_scale: 32_768.0, ..Self::KALDI_16K };

    /// As [`KALDI_16K`](Self::KALDI_16K) at another rate: 25 ms and 10 ms, rounded down to samples.
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
            return Err(Error::config("win_length", win_length, format!("must be 2 to n_fft = {n_fft}")));
        }
        if hop_length == 0 || hop_length > MAX_N_FFT {
            return Err(Error::config("hop_length", hop_length, format!("must be 1 to {MAX_N_FFT}")));
        }
        let most = (MAX_CELLS / (n_fft / 2 + 1)).min(MAX_N_MELS);
        if n_mels == 0 || n_mels > most {
            return Err(Error::config("n_mels", n_mels, format!("must be 1 to {most} at n_fft = {n_fft}")));
        }
        let nyquist = f64::from(sample_rate) / 2.0;
        let fmax = self.fmax.unwrap_or(nyquist);
        if !(fmin.is_finite() && fmin >= 0.0) {
            return Err(Error::config("fmin", fmin, "must be 0 Hz or more"));
        }
        if !(fmax > fmin && fmax <= nyquist) {
            return Err(Error::config("fmax", fmax, format!("must be above fmin = {fmin} Hz, at most {nyquist} Hz")));
        }
        if !(0.0..=1.0).contains(&self.preemphasis) {
            return Err(Error::config("preemphasis", self.preemphasis, "must be 0 to 1"));
        }
        for (field, value) in [("sample_scale", self.sample_scale), ("amin", self.amin)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::config(field, value, "must be above 0"));
            }
        }
        if self.log && self.power == Spectrum::Real {
            return Err(Error::config("power", self.power, "expected another one before a logarithm: it has a sign"));
        }
        for (field, value) in [("energy_floor", self.energy_floor), ("log_offset", self.log_offset)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::config(field, value, "must be 0 or more"));
            }
        }
        Ok(())
    }

    /// Triangles over mel. Their slopes are ratios of mel distances, so it does not matter that Kaldi writes its scale
    /// `1127 ln(1 + f / 700)`.
    fn filters(&self) -> Result<MelFilterBank> {
        let scale = MelScale::Htk;
        let fmax = self.fmax.unwrap_or(f64::from(self.sample_rate) / 2.0);
        let (low, high) = (scale.from_hz(self.fmin), scale.from_hz(fmax));
        let step = (high - low) / (self.n_mels + 1) as f64;
        let hz_per_bin = f64::from(self.sample_rate) / self.n_fft as f64;
        // The bin at half the sample rate, which only an even n_fft has, belongs to no filter.
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
    /// [`Error::Config`] for a field outside its range, and for more than 2^24 cells in the table of filters.
    pub fn new(config: &FbankConfig) -> Result<Self> {
        config.check()?;
        Ok(Self {
            config: config.clone(),
            window: config.window.samples(config.win_length, config.periodic),
            mel: config.filters()?,
            fft: RealFft::new(config.n_fft),
        })
    }

    /// The same with these filters, `[n_mels, n_fft / 2 + 1]`, as some checkpoints carry them.
    ///
    /// # Errors
    /// [`Error::Argument`] for another shape or values that are not finite.
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

    /// Columns of the result: the filters, and the energy if it is used.
    pub fn n_features(&self) -> usize {
        self.config.n_mels + usize::from(self.config.use_energy)
    }

    /// Frames of a clip; 0 below [`min_samples`](Self::min_samples).
    pub fn n_frames(&self, n_samples: usize) -> usize {
        let FbankConfig { win_length, hop_length, snip_edges, .. } = self.config;
        match snip_edges {
            true if n_samples < win_length => 0,
            true => 1 + (n_samples - win_length) / hop_length,
            // (n_samples + hop / 2) / hop, which could overflow
            false => n_samples / hop_length + (n_samples % hop_length + hop_length / 2) / hop_length,
        }
    }

    /// The shortest clip that has a frame: `win_length` samples with `snip_edges`, half a hop without.
    pub fn min_samples(&self) -> usize {
        match self.config.snip_edges {
            true => self.config.win_length,
            false => self.config.hop_length.div_ceil(2),
        }
    }

    /// The features of mono samples at the configured rate: `[n_frames, n_mels]`, one column more with `use_energy`.
    ///
    /// Within 1e-3 of torchaudio (1e-5 of torchaudio in f64).
    ///
    /// # Errors
    /// [`Error::TooShort`] below [`min_samples`](Self::min_samples), [`Error::NonFinite`], [`Error::Argument`] for a result
    /// that does not fit into memory.
    pub fn compute(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.frames(samples)
    }

    /// Frames of a clip from its frame `first` on, as many as `out` has rows. The clip must have these frames.
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

    /// Samples from the start of frame `t` to `t * hop_length`; negative where the frame starts later.
    pub(super) fn before(&self) -> isize {
        let FbankConfig { win_length, hop_length, snip_edges, .. } = self.config;
        if snip_edges { 0 } else { (win_length / 2) as isize - (hop_length / 2) as isize }
    }

    /// Writes a frame as it is transformed, and returns its energy.
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

    /// From a transformed frame to its features.
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
