//! Short-time Fourier transform of real signals.
//!
//! `X[t, k] = Σ_m w[m] x[t · hop_length - margin + m] exp(-2πi k m / n_fft)` for `k` in `0..=n_fft / 2`, where `margin`
//! is `n_fft / 2` for centred frames and 0 otherwise. This is the convention of librosa and torchlibrosa, without
//! normalisation. The transform runs in f64 and the result is rounded once: the rounding noise of an f32 transform is
//! visible in mel bands that are nearly silent beside a loud tone, where torchlibrosa (f32) is off by up to 0.01 dB.

use std::fmt;

use ndarray::Array2;
use rustfft::num_complex::Complex;
use serde::{Deserialize, Serialize};

use super::Window;
use super::frame_loop::for_each_frame;
use super::framing::{Framing, PadMode};
use super::real_fft::{Bins, RealFft};
use crate::error::{Error, Result};

/// Limit on `n_fft`: 22 s at 48 kHz.
pub const MAX_N_FFT: usize = 1 << 20;

/// The real value that is taken of each bin of a complex spectrum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Spectrum {
    /// `|X|` (librosa's `power=1.0`).
    Magnitude,
    /// `|X|²` (librosa's `power=2.0`). The default.
    #[default]
    Power,
    /// The real part, which is signed: for [`Fbank`](super::Fbank) without logarithm (BirdNET).
    Real,
}

impl Spectrum {
    /// Writes the value of each bin.
    #[inline(always)]
    pub(super) fn write(self, bins: Bins, out: &mut [f64]) {
        match self {
            Self::Power => bins.write(out, |x| x.norm_sqr()),
            Self::Magnitude => bins.write(out, |x| x.norm_sqr().sqrt()),
            Self::Real => bins.write(out, |x| x.re),
        }
    }
}

/// Settings of the short-time Fourier transform. All lengths are in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StftConfig {
    /// Length of the transform, 1 to [`MAX_N_FFT`]. Numbers with small prime factors are fastest.
    pub n_fft: usize,
    /// Length of the window, 1 to `n_fft`. A shorter window is centred in the frame and padded with zeros.
    pub win_length: usize,
    /// Distance between the starts of neighbouring frames, 1 to [`MAX_N_FFT`].
    pub hop_length: usize,
    /// Shape of the window. Default when read from a file: Hann.
    #[serde(default)]
    pub window: Window,
    /// Whether the window is periodic (true, the default) or symmetric; see [`Window::samples`].
    #[serde(default = "yes")]
    pub periodic: bool,
    /// If true (the default), frame `t` is centred at sample `t * hop_length`, and the clip is padded by `n_fft / 2`
    /// samples at both ends. If false, frame `t` begins there, and only whole frames count.
    #[serde(default = "yes")]
    pub center: bool,
    /// The padding of clips with centred frames; otherwise ignored. Default: reflect, as in torchlibrosa.
    #[serde(default)]
    pub pad_mode: PadMode,
}

fn yes() -> bool {
    true
}

/// A planned short-time Fourier transform.
///
/// ```
/// use clipwise::frontend::{PadMode, Stft, StftConfig, Window};
///
/// let stft = Stft::new(&StftConfig {
///     n_fft: 512,
///     win_length: 400,
///     hop_length: 160,
///     window: Window::Hann,
///     periodic: true,
///     center: true,
///     pad_mode: PadMode::Reflect,
/// })?;
/// let power = stft.power(&vec![0.5; 16_000])?;
/// assert_eq!(power.dim(), (101, 257)); // [n_frames, n_bins]
/// # Ok::<(), clipwise::Error>(())
/// ```
#[derive(Clone)]
pub struct Stft {
    config: StftConfig,
    framing: Framing,
    /// The window, padded to `n_fft`.
    window: Vec<f64>,
    /// `window`, rounded to f32.
    window_f32: Vec<f32>,
    fft: RealFft,
}

impl Stft {
    /// Plans the transform.
    ///
    /// # Errors
    /// [`Error::Config`] if `n_fft` or `hop_length` is not between 1 and [`MAX_N_FFT`], or `win_length` not between 1
    /// and `n_fft`.
    pub fn new(config: &StftConfig) -> Result<Self> {
        let StftConfig { n_fft, win_length, hop_length, window, periodic, center, pad_mode } = *config;
        check_n_fft(n_fft)?;
        if win_length == 0 || win_length > n_fft {
            return Err(Error::config("win_length", win_length, format!("expected 1 to n_fft = {n_fft}")));
        }
        if hop_length == 0 || hop_length > MAX_N_FFT {
            return Err(Error::config("hop_length", hop_length, format!("expected 1 to {MAX_N_FFT}")));
        }
        let mut stft = Self {
            config: *config,
            framing: Framing {
                n_fft,
                hop_length,
                margin: if center { n_fft / 2 } else { 0 },
                pad_mode,
                preemphasis: 0.0,
            },
            window_f32: Vec::new(),
            window: Vec::new(),
            fft: RealFft::new(n_fft),
        };
        stft.set_window(&window.samples(win_length, periodic));
        Ok(stft)
    }

    /// Sets the `win_length` values of the window, centred in the frame.
    fn set_window(&mut self, window: &[f64]) {
        let StftConfig { n_fft, win_length, .. } = self.config;
        let before = (n_fft - win_length) / 2;
        self.window = vec![0.0; n_fft];
        self.window[before..before + win_length].copy_from_slice(window);
        self.window_f32 = self.window.iter().map(|&w| w as f32).collect();
    }

    /// Replaces the window by other `win_length` values, such as those in a checkpoint.
    ///
    /// # Errors
    /// [`Error::Argument`] if the number of values differs or a value is not finite.
    pub fn with_window(mut self, window: &[f32]) -> Result<Self> {
        let win_length = self.config.win_length;
        if window.len() != win_length || !window.iter().all(|w| w.is_finite()) {
            return Err(Error::argument("window.len()", window.len(), format!("expected {win_length} finite values")));
        }
        self.set_window(&window.iter().map(|&w| f64::from(w)).collect::<Vec<_>>());
        Ok(self)
    }

    /// Applies the transform to `x[i + 1] - preemphasis * x[i]`.
    pub(super) fn with_preemphasis(mut self, preemphasis: f64) -> Self {
        self.framing.preemphasis = preemphasis;
        self
    }

    /// The settings.
    pub fn config(&self) -> &StftConfig {
        &self.config
    }

    /// The window, padded with zeros to `n_fft` values.
    pub fn window(&self) -> &[f32] {
        &self.window_f32
    }

    /// The number of frequency bins, `n_fft / 2 + 1`. Bin `k` is at `k * sample_rate / n_fft` Hz.
    pub fn n_bins(&self) -> usize {
        self.config.n_fft / 2 + 1
    }

    /// The number of frames of a clip; 0 if it is shorter than [`min_samples`](Self::min_samples).
    pub fn n_frames(&self, n_samples: usize) -> usize {
        self.framing.n_frames(n_samples)
    }

    /// The length of the shortest accepted clip, in samples: `n_fft / 2 + 1` with reflect padding, 1 with other
    /// padding, `n_fft` if frames are not centred.
    pub fn min_samples(&self) -> usize {
        self.framing.min_samples()
    }

    /// Computes the power spectrum `|X|²`, `[n_frames, n_bins]`.
    ///
    /// # Errors
    /// [`Error::TooShort`] for clips shorter than [`min_samples`](Self::min_samples); [`Error::NonFinite`] if a sample
    /// is NaN or infinite; [`Error::Argument`] if the result does not fit into memory. Samples above about 1e16 can
    /// give infinite power, which is not an error.
    pub fn power(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.map(samples, |x| x.norm_sqr() as f32)
    }

    /// Computes the magnitude spectrum `|X|`, `[n_frames, n_bins]`.
    ///
    /// # Errors
    /// As [`power`](Self::power).
    pub fn magnitude(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.map(samples, |x| x.norm_sqr().sqrt() as f32)
    }

    /// Computes the complex spectrum `X`, `[n_frames, n_bins]`.
    ///
    /// # Errors
    /// As [`power`](Self::power).
    pub fn complex(&self, samples: &[f32]) -> Result<Array2<Complex<f32>>> {
        self.map(samples, |x| Complex::new(x.re as f32, x.im as f32))
    }

    fn map<T, F>(&self, samples: &[f32], value: F) -> Result<Array2<T>>
    where
        T: Clone + Default + Send,
        F: Fn(Complex<f64>) -> T + Sync,
    {
        let n_frames = self.framing.check(samples)?;
        array(n_frames, self.n_bins(), |out| {
            self.for_each_frame(
                samples,
                0,
                (out, self.n_bins()),
                || (),
                #[inline(always)]
                |bins, (), row| bins.write(row, &value),
            );
        })
    }

    pub(super) fn framing(&self) -> &Framing {
        &self.framing
    }

    /// Runs [`for_each_frame`] over the frames of a clip from frame `first` on, one per row of `out`. The clip must
    /// have these frames.
    pub(super) fn for_each_frame<T: Send, W>(
        &self,
        samples: &[f32],
        first: usize,
        (out, width): (&mut [T], usize),
        scratch: impl Fn() -> W + Sync,
        finish: impl Fn(Bins, &mut W, &mut [T]) + Sync,
    ) {
        for_each_frame(
            &self.fft,
            (out, width),
            scratch,
            #[inline(always)]
            |index, frame| self.framing.windowed(first + index, samples, &self.window, frame),
            #[inline(always)]
            |bins, (), work, row| finish(bins, work, row),
        );
    }
}

impl fmt::Debug for Stft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stft").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Rejects an `n_fft` that is not between 1 and [`MAX_N_FFT`].
pub(super) fn check_n_fft(n_fft: usize) -> Result<()> {
    if n_fft == 0 || n_fft > MAX_N_FFT {
        return Err(Error::config("n_fft", n_fft, format!("expected 1 to {MAX_N_FFT}")));
    }
    Ok(())
}

/// Allocates a `[n_rows, width]` array and fills it with `fill`. An error if it does not fit into memory.
pub(crate) fn array<T: Clone + Default>(n_rows: usize, width: usize, fill: impl FnOnce(&mut [T])) -> Result<Array2<T>> {
    let too_large = || {
        Error::argument(
            "n_frames",
            n_rows,
            format!("expected a result that fits into memory, got rows of {width} values"),
        )
    };
    let cells = n_rows.checked_mul(width).ok_or_else(too_large)?;
    let mut values = Vec::new();
    values.try_reserve_exact(cells).map_err(|_| too_large())?;
    values.resize(cells, T::default());
    fill(&mut values);
    Array2::from_shape_vec((n_rows, width), values).map_err(|_| too_large())
}
