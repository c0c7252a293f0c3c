//! Short-time Fourier transform of real signals.
//!
//! `X[t, k] = Σ_m w[m] x[t · hop_length - margin + m] exp(-2πi k m / n_fft)` for `k` in `0..=n_fft / 2`, where `margin` is
//! `n_fft / 2` for centred frames and 0 otherwise: the convention of librosa and torchlibrosa, not normalised. The
//! transform runs in f64 and the result is rounded once. The rounding noise of an f32 transform shows in mel bands that
//! are nearly silent beside a loud tone: torchlibrosa, in f32, is up to 0.01 dB off there.

use std::fmt;

use ndarray::Array2;
use rustfft::num_complex::Complex;
use serde::{Deserialize, Serialize};

use super::Window;
use super::frame_loop::for_each_frame;
use super::framing::{Framing, PadMode};
use super::real_fft::{Bins, RealFft};
use crate::error::{Error, Result};

/// The largest `n_fft` that is accepted: 22 s at 48 kHz.
pub const MAX_N_FFT: usize = 1 << 20;

/// The real value taken of each bin of a complex spectrum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Spectrum {
    /// `|X|` (librosa's `power=1.0`).
    Magnitude,
    /// `|X|²` (librosa's `power=2.0`). The default.
    #[default]
    Power,
}

/// How a clip is cut into frames and weighted. All lengths are in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StftConfig {
    /// Length of the transform: any number from 1 to [`MAX_N_FFT`]; small prime factors are fastest.
    pub n_fft: usize,
    /// Length of the window, 1 to `n_fft`. A shorter window lies in the middle of the frame, between zeros.
    pub win_length: usize,
    /// Distance between the starts of neighbouring frames, 1 or more.
    pub hop_length: usize,
    /// Shape of the window. Default when read from a file: Hann.
    #[serde(default)]
    pub window: Window,
    /// Whether the window is periodic (true, the default) or symmetric: see [`Window::samples`].
    #[serde(default = "yes")]
    pub periodic: bool,
    /// Whether frame `t` has its middle at sample `t * hop_length`, with `n_fft / 2` samples of padding at both ends of
    /// the clip (true, the default); otherwise it starts there, and only whole frames count.
    #[serde(default = "yes")]
    pub center: bool,
    /// The padding of centred frames; ignored for others. Default: reflect, as in torchlibrosa.
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
    /// Padded to `n_fft`.
    window: Vec<f64>,
    /// `window`, rounded.
    window_f32: Vec<f32>,
    fft: RealFft,
}

impl Stft {
    /// Plans the transform.
    ///
    /// # Errors
    /// [`Error::Config`] for `n_fft` outside 1..=[`MAX_N_FFT`], `win_length` outside 1..=`n_fft` and `hop_length` outside
    /// 1..=[`MAX_N_FFT`].
    pub fn new(config: &StftConfig) -> Result<Self> {
        let StftConfig { n_fft, win_length, hop_length, window, periodic, center, pad_mode } = *config;
        check_n_fft(n_fft)?;
        if win_length == 0 || win_length > n_fft {
            return Err(Error::config("win_length", win_length, format!("must be 1 to n_fft = {n_fft}")));
        }
        if hop_length == 0 || hop_length > MAX_N_FFT {
            return Err(Error::config("hop_length", hop_length, format!("must be 1 to {MAX_N_FFT}")));
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

    /// Takes the `win_length` values of a window, centred in the frame.
    fn set_window(&mut self, window: &[f64]) {
        let StftConfig { n_fft, win_length, .. } = self.config;
        let before = (n_fft - win_length) / 2;
        self.window = vec![0.0; n_fft];
        self.window[before..before + win_length].copy_from_slice(window);
        self.window_f32 = self.window.iter().map(|&w| w as f32).collect();
    }

    /// The same transform with another window of `win_length` values, such as that of a checkpoint.
    ///
    /// # Errors
    /// [`Error::Argument`] for another number of values, or a value that is not finite.
    pub fn with_window(mut self, window: &[f32]) -> Result<Self> {
        let win_length = self.config.win_length;
        if window.len() != win_length || !window.iter().all(|w| w.is_finite()) {
            return Err(Error::argument("window.len()", window.len(), format!("expected {win_length} finite values")));
        }
        self.set_window(&window.iter().map(|&w| f64::from(w)).collect::<Vec<_>>());
        Ok(self)
    }

    /// The same transform of `x[i + 1] - preemphasis * x[i]`.
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

    /// Frequency bins of a spectrum, `n_fft / 2 + 1`; bin `k` lies at `k * sample_rate / n_fft` Hz.
    pub fn n_bins(&self) -> usize {
        self.config.n_fft / 2 + 1
    }

    /// Frames of a clip; 0 where the clip is shorter than [`min_samples`](Self::min_samples).
    pub fn n_frames(&self, n_samples: usize) -> usize {
        self.framing.n_frames(n_samples)
    }

    /// The shortest clip that is accepted: `n_fft / 2 + 1` samples with reflect padding, 1 with another padding,
    /// `n_fft` for frames that are not centred.
    pub fn min_samples(&self) -> usize {
        self.framing.min_samples()
    }

    /// The power spectrum `|X|²`, `[n_frames, n_bins]`.
    ///
    /// # Errors
    /// [`Error::TooShort`] below [`min_samples`](Self::min_samples), [`Error::NonFinite`], [`Error::Argument`] for a
    /// result that does not fit into memory. A sample beyond about 1e16 can give infinite power, without an error.
    pub fn power(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.map(samples, |x| x.norm_sqr() as f32)
    }

    /// The magnitude spectrum `|X|`, `[n_frames, n_bins]`.
    ///
    /// # Errors
    /// As [`power`](Self::power).
    pub fn magnitude(&self, samples: &[f32]) -> Result<Array2<f32>> {
        self.map(samples, |x| x.norm_sqr().sqrt() as f32)
    }

    /// The complex spectrum `X`, `[n_frames, n_bins]`.
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

    /// [`for_each_frame`] over the frames of a clip from its frame `first` on, as many as `out` has rows. The clip must have
    /// these frames.
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

/// Refuses an `n_fft` outside 1..=[`MAX_N_FFT`].
pub(super) fn check_n_fft(n_fft: usize) -> Result<()> {
    if n_fft == 0 || n_fft > MAX_N_FFT {
        return Err(Error::config("n_fft", n_fft, format!("must be 1 to {MAX_N_FFT}")));
    }
    Ok(())
}

/// A `[n_rows, width]` array that `fill` writes; an error if it does not fit into memory.
pub(crate) fn array<T: Clone + Default>(n_rows: usize, width: usize, fill: impl FnOnce(&mut [T])) -> Result<Array2<T>> {
    let too_large = || Error::argument("n_frames", n_rows, format!("rows of {width} values do not fit into memory"));
    let cells = n_rows.checked_mul(width).ok_or_else(too_large)?;
    let mut values = Vec::new();
    values.try_reserve_exact(cells).map_err(|_| too_large())?;
    values.resize(cells, T::default());
    fill(&mut values);
    Array2::from_shape_vec((n_rows, width), values).map_err(|_| too_large())
}
