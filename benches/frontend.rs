//! Log-mel of 10 s at 32 kHz (PANNs) on one thread: ours, its parts, and naive versions; resampling.
//!
//! `stft` ends at the power spectrum, which it writes to memory; the time that `log_mel` takes beyond it is about the
//! share of the filters and the logarithm. `naive` is the straightforward program: an f32 FFT planned once, a padded
//! copy of the clip, new buffers for each frame, a dense filter matrix, the standard `log10`. `dft_matrix` is the
//! transform as in torchlibrosa: two products with `[n_fft, n_bins]` matrices of window times cosine or sine. `realfft`
//! computes power spectra with that crate, in f64 like ours; with `-C target-cpu=native` the passes around it get the
//! vector instructions that ours selects at run time. Resampling is compared with `rubato`'s synchronous FFT resampler,
//! also in f64.

mod turns;

use std::hint::black_box;

use clipwise::audio::resample;
use clipwise::frontend::{Complex, LogMel, LogMelConfig, Stft, StftConfig};
use ndarray::{Array1, Array2, ArrayView1, s};
use rayon::ThreadPoolBuilder;
use realfft::{RealFftPlanner, RealToComplex};
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};
use turns::{compare, side};

const CONFIG: LogMelConfig = LogMelConfig::PANNS_32K;
const STFT: StftConfig = CONFIG.stft;

fn clip() -> Vec<f32> {
    // Noise from a linear congruential generator, so that no value is special.
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..320_000).map(|_| 0.1 * next()).collect()
}

/// The clip, reflected at its ends.
fn padded(samples: &[f32], margin: usize) -> Vec<f32> {
    let before = samples[1..=margin].iter().rev();
    let after = samples[samples.len() - 1 - margin..samples.len() - 1].iter().rev();
    before.chain(samples).chain(after).copied().collect()
}

fn to_db(mel: Array1<f32>) -> Array1<f32> {
    mel.mapv(|x| 10.0 * x.max(CONFIG.amin).log10())
}

fn naive(samples: &[f32], window: &[f32], filters: &Array2<f32>) -> Vec<Array1<f32>> {
    let plan = RealFftPlanner::<f32>::new().plan_fft_forward(STFT.n_fft);
    let frame = |frame: &[f32]| {
        let mut frame: Vec<f32> = frame.iter().zip(window).map(|(x, w)| x * w).collect();
        let mut spectrum = plan.make_output_vec();
        plan.process(&mut frame, &mut spectrum).expect("fitting buffers");
        let power: Array1<f32> = spectrum.iter().map(Complex::norm_sqr).collect();
        to_db(filters.dot(&power))
    };
    padded(samples, STFT.n_fft / 2).windows(STFT.n_fft).step_by(STFT.hop_length).map(frame).collect()
}

/// Power spectra of the frames of a reflected clip with `realfft`, in f64 like ours.
fn by_realfft(padded: &[f32], stft: &Stft, plan: &dyn RealToComplex<f64>) -> Vec<f32> {
    let (mut frame, mut spectrum) = (plan.make_input_vec(), plan.make_output_vec());
    let (mut scratch, mut power) = (plan.make_scratch_vec(), Vec::new());
    for samples in padded.windows(frame.len()).step_by(stft.config().hop_length) {
        let windowed = samples.iter().zip(stft.window()).map(|(&x, &w)| f64::from(x) * f64::from(w));
        frame.iter_mut().zip(windowed).for_each(|(out, x)| *out = x);
        plan.process_with_scratch(&mut frame, &mut spectrum, &mut scratch).expect("fitting buffers");
        power.extend(spectrum.iter().map(|x| x.norm_sqr() as f32));
    }
    power
}

/// `window * cos` and `-window * sin`, each `[n_bins, n_fft]`.
fn dft_matrices(window: &[f32]) -> [Array2<f32>; 2] {
    let angle = |k: usize, m: usize| std::f64::consts::TAU * (k * m % STFT.n_fft) as f64 / STFT.n_fft as f64;
    let shape = (STFT.n_fft / 2 + 1, STFT.n_fft);
    [
        Array2::from_shape_fn(shape, |(k, m)| window[m] * angle(k, m).cos() as f32),
        Array2::from_shape_fn(shape, |(k, m)| -window[m] * angle(k, m).sin() as f32),
    ]
}

fn dft_matrix(samples: &[f32], matrices: &[Array2<f32>; 2], filters: &Array2<f32>) -> Array2<f32> {
    let samples = padded(samples, STFT.n_fft / 2);
    let n_frames = (samples.len() - STFT.n_fft) / STFT.hop_length + 1;
    let mut frames = Array2::zeros((n_frames, STFT.n_fft));
    for (t, mut frame) in frames.rows_mut().into_iter().enumerate() {
        frame.assign(&ArrayView1::from(&samples).slice(s![t * STFT.hop_length..t * STFT.hop_length + STFT.n_fft]));
    }
    let [real, imag] = [frames.dot(&matrices[0].t()), frames.dot(&matrices[1].t())];
    let power = &real * &real + &imag * &imag;
    power.dot(&filters.t()).mapv(|x| 10.0 * x.max(CONFIG.amin).log10())
}

/// Resamples blocks of `n_in` samples to `n_out`, with a filter as long as a block.
fn by_rubato(samples: &[f32], n_in: usize, n_out: usize) -> Vec<f64> {
    let window = WindowFunction::BlackmanHarris2;
    let mut fft = Fft::<f64>::new_custom(n_in, n_out, n_in, 1, 1, window, FixedSync::Both).expect("even sizes");
    let mut output = Vec::new();
    for block in samples.chunks_exact(n_in) {
        let (block, start): (Vec<f64>, usize) = (block.iter().map(|&x| x.into()).collect(), output.len());
        output.resize(start + n_out, 0.0);
        let input = InterleavedSlice::new(&block, 1, n_in).expect("one channel");
        let mut part = InterleavedSlice::new_mut(&mut output[start..], 1, n_out).expect("one channel");
        fft.process_into_buffer(&input, &mut part, None).expect("fitting buffers");
    }
    output
}

fn main() {
    let samples = clip();
    let log_mel = LogMel::new(&CONFIG).expect("a preset");
    let stft = Stft::new(&STFT).expect("a preset");
    let filters = log_mel.mel().to_array();
    let matrices = dft_matrices(stft.window());
    let mut out = vec![0.0; log_mel.n_frames(samples.len()) * CONFIG.mel.n_mels];

    ThreadPoolBuilder::new().num_threads(1).build_global().expect("the first use of the pool");
    turns::title("log-mel of 10 s at 32 kHz");
    let sides = vec![
        side("log_mel", || log_mel.compute_into(black_box(&samples), &mut out)),
        side("stft", || stft.power(black_box(&samples))),
        side("naive", || naive(black_box(&samples), stft.window(), &filters)),
        side("dft_matrix", || dft_matrix(black_box(&samples), &matrices, &filters)),
    ];
    compare("log-mel", 25, sides);

    for n_fft in [400, 512, 1024, 2048] {
        let stft = Stft::new(&StftConfig { n_fft, win_length: n_fft, ..STFT }).expect("fitting sizes");
        let plan = RealFftPlanner::new().plan_fft_forward(n_fft);
        let padded = padded(&samples, n_fft / 2);
        let sides = vec![
            side("stft", || stft.power(black_box(&samples))),
            side("realfft", || by_realfft(black_box(&padded), &stft, &*plan)),
        ];
        compare(&format!("power spectra of {n_fft} samples"), 25, sides);
    }

    for (from, to, block) in [(44_100, 32_000, 882), (44_100, 16_000, 1_764), (48_000, 16_000, 1_536)] {
        let sides = vec![
            side("resample", || resample(black_box(&samples), from, to).expect("finite samples")),
            side("rubato", || by_rubato(black_box(&samples), block, block * to as usize / from as usize)),
        ];
        compare(&format!("resample {from} to {to} Hz"), 25, sides);
    }
}
