//! The front end against librosa in float64, torchlibrosa and plain formulas.
//!
//! `tests/golden/frontend.py` makes the data and documents each tensor. Signals are regenerated here, bit for bit.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::f64::consts::TAU;
use std::path::{Path, PathBuf};

use clipwise::Error;
use clipwise::frontend::*;
use common::signal;
use ndarray::{Array2, Array3, Axis};
use safetensors::{Dtype, SafeTensors};

/// One golden file.
struct Golden {
    name: String,
    config: LogMelConfig,
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Golden {
    fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
        let values = |dtype, data: &[u8]| match dtype {
            Dtype::F32 => data.chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
            Dtype::I64 => data.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
            other => panic!("{other:?}"),
        };
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            config: serde_json::from_str(&metadata["config"]).unwrap(),
            tensors: tensors
                .iter()
                .map(|(name, t)| (name.to_owned(), (t.shape().to_vec(), values(t.dtype(), t.data()))))
                .collect(),
            metadata,
        }
    }

    fn all() -> Vec<Self> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("frontend_") && name.ends_with(".safetensors")
        });
        paths.sort();
        assert!(paths.len() >= 12, "golden files are missing");
        paths.iter().map(|path| Self::open(path)).collect()
    }

    fn values(&self, name: &str) -> &[f64] {
        &self.tensors[name].1
    }

    fn integers(&self, name: &str) -> Vec<usize> {
        self.values(name).iter().map(|&x| x as usize).collect()
    }

    fn matrix(&self, name: &str) -> Array2<f64> {
        let (shape, values) = &self.tensors[name];
        Array2::from_shape_vec((shape[0], shape[1]), values.clone()).unwrap()
    }

    /// Name and samples of each case that has `tensor`.
    fn cases(&self, tensor: &str) -> Vec<(String, Vec<f32>)> {
        let case_names = self.tensors.keys().filter_map(|key| key.strip_suffix(tensor)?.strip_suffix('.'));
        let cases: Vec<_> = case_names
            .map(|case| {
                let (kind, count) = case.split_once('.').unwrap();
                (case.to_owned(), clip(kind, count.parse().unwrap(), self.config.sample_rate))
            })
            .collect();
        assert!(!cases.is_empty(), "{}: no {tensor}", self.name);
        cases
    }
}

/// The seed of `frontend.py`.
const SEED: u64 = 9;

fn clip(kind: &str, count: usize, sample_rate: u32) -> Vec<f32> {
    let sample = |t: usize| match kind {
        "tone" => 1.0 - ((t % 32) as f32 - 16.0).abs() / 8.0,
        "click" => f32::from(t == count / 3),
        "silence" => 0.0,
        other => panic!("{other}"),
    };
    match kind {
        "mixed" => signal(count, sample_rate, SEED),
        "faint" => signal(count, sample_rate, SEED).iter().map(|x| x * 2f32.powi(-12)).collect(),
        _ => (0..count).map(sample).collect(),
    }
}

/// The largest difference between two matrices; fails above `bar` and names the position.
fn assert_close(what: &str, got: &Array2<f32>, expected: &Array2<f64>, bar: f64) -> f64 {
    assert_eq!(got.dim(), expected.dim(), "{what}: shape");
    let mut worst = (0.0, (0, 0));
    for (index, &e) in expected.indexed_iter() {
        let distance = (f64::from(got[index]) - e).abs();
        assert!(distance.is_finite(), "{what} at {index:?}: {} against {e}", got[index]);
        if distance > worst.0 {
            worst = (distance, index);
        }
    }
    let (distance, index) = worst;
    assert!(distance <= bar, "{what} at {index:?}: {} against {}, off by {distance:e}", got[index], expected[index]);
    distance
}

#[test]
fn log_mel_equals_librosa() {
    let mut worst = 0f64;
    for golden in Golden::all() {
        let log_mel = LogMel::new(&golden.config).unwrap();
        for (case, samples) in golden.cases("log_mel") {
            let what = format!("{} {case}", golden.name);
            let got = log_mel.compute(&samples).unwrap();
            assert_eq!(got.nrows(), log_mel.n_frames(samples.len()), "{what}");
            // The project's bar is 1e-3 dB; this tighter one is the rounding of two f32 values.
            worst = worst.max(assert_close(&what, &got, &golden.matrix(&format!("{case}.log_mel")), 2e-5));
        }
    }
    println!("log-mel: off by {worst:e} dB at most");
}

#[test]
fn log_mel_equals_torchlibrosa_within_its_rounding() {
    let (mut worst, mut seen) = (0f64, 0);
    for golden in Golden::all() {
        let errors: HashMap<String, f64> = serde_json::from_str(&golden.metadata["torchlibrosa_error"]).unwrap();
        if errors.is_empty() {
            continue;
        }
        let log_mel = LogMel::new(&golden.config).unwrap();
        for (case, samples) in golden.cases("log_mel_torchlibrosa") {
            let what = format!("{} {case} against torchlibrosa", golden.name);
            let expected = golden.matrix(&format!("{case}.log_mel_torchlibrosa"));
            // On pure tones, torchlibrosa's f32 arithmetic is off by up to 0.01 dB.
            let exact = errors[&case] < 5e-4;
            let bar = if exact { 1e-3 } else { errors[&case] + 1e-3 };
            let got = log_mel.compute(&samples).unwrap();
            worst = worst.max(assert_close(&what, &got, &expected, bar));
            let mut distances: Vec<_> = got.iter().zip(&expected).map(|(g, e)| (f64::from(*g) - e).abs()).collect();
            distances.sort_by(f64::total_cmp);
            let median = distances[distances.len() / 2];
            assert!(!exact || median < 1e-4, "{what}: the median is {median:e}");
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen} cases");
    println!("log-mel: off torchlibrosa's by {worst:e} dB at most");
}

#[test]
fn spectra_equal_librosa() {
    let mut worst = 0f64;
    for golden in Golden::all() {
        let stft = Stft::new(&golden.config.stft).unwrap();
        for (case, samples) in golden.cases("power") {
            let what = format!("{} {case}", golden.name);
            let expected = golden.matrix(&format!("{case}.power"));
            let frames = golden.integers(&format!("{case}.frames"));
            let got = stft.power(&samples).unwrap().select(Axis(0), &frames);
            let magnitude = stft.magnitude(&samples).unwrap().select(Axis(0), &frames);
            for t in 0..frames.len() {
                let (got, expected) = (got.select(Axis(0), &[t]), expected.select(Axis(0), &[t]));
                let largest = expected.iter().copied().fold(1e-30, f64::max);
                // The project's bar is 1e-4 of the frame's maximum.
                worst = worst.max(assert_close(&what, &got, &expected, 2e-7 * largest) / largest);
                let magnitude = magnitude.select(Axis(0), &[t]);
                assert_close(&what, &magnitude, &expected.mapv(f64::sqrt), 2e-7 * largest.sqrt());
            }
        }
        for (case, samples) in golden.cases("complex") {
            let what = format!("{} {case}", golden.name);
            let (shape, values) = &golden.tensors[&format!("{case}.complex")];
            let expected = Array3::from_shape_vec((shape[0], shape[1], 2), values.clone()).unwrap();
            let got = stft.complex(&samples).unwrap().select(Axis(0), &golden.integers(&format!("{case}.frames")));
            let largest = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
            assert_close(&what, &got.mapv(|x| x.re), &expected.index_axis(Axis(2), 0).to_owned(), 2e-7 * largest);
            assert_close(&what, &got.mapv(|x| x.im), &expected.index_axis(Axis(2), 1).to_owned(), 2e-7 * largest);
        }
    }
    println!("power: off by {worst:e} of the frame's maximum at most");
}

#[test]
fn windows_and_filters_equal_librosa() {
    for golden in Golden::all() {
        let log_mel = LogMel::new(&golden.config).unwrap();
        for (k, (&got, &expected)) in log_mel.stft().window().iter().zip(golden.values("window")).enumerate() {
            assert!((f64::from(got) - expected).abs() <= 6e-8, "{} window {k}: {got}, {expected}", golden.name);
        }
        assert_eq!(log_mel.mel().empty_filters(), golden.integers("empty"), "{}", golden.name);

        let mut expected = Array2::zeros((log_mel.mel().n_mels(), log_mel.mel().n_bins()));
        let (first, length) = (golden.integers("mel.first"), golden.integers("mel.length"));
        let mut weights = golden.values("mel.weights").iter();
        for m in 0..first.len() {
            (first[m]..first[m] + length[m]).for_each(|k| expected[(m, k)] = *weights.next().unwrap());
        }
        let largest = expected.iter().copied().fold(0.0, f64::max);
        // librosa rounds the triangle to f32 before and after scaling it.
        assert_close(&golden.name, &log_mel.mel().to_array(), &expected, 1.2e-7 * largest);
    }
}

#[test]
fn dft_kernels_equal_the_published_ones() {
    let golden = Golden::all().into_iter().find(|golden| golden.name == "frontend_panns_8k").unwrap();
    let stft = Stft::new(&golden.config.stft).unwrap();
    let (real, imag) = (golden.matrix("kernel.real"), golden.matrix("kernel.imag"));
    for (row, k) in golden.integers("kernel.bins").into_iter().enumerate() {
        for (m, &w) in stft.window().iter().enumerate() {
            let angle = TAU * (k * m % 256) as f64 / 256.0;
            assert!((real[(row, m)] - f64::from(w) * angle.cos()).abs() < 1e-6, "bin {k}, sample {m}");
            assert!((imag[(row, m)] + f64::from(w) * angle.sin()).abs() < 1e-6, "bin {k}, sample {m}");
        }
    }
}

#[test]
fn every_transform_length_equals_the_dft() {
    let samples = signal(300, 16_000, SEED);
    for n_fft in [1usize, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 31, 45, 64, 97, 101, 128, 255, 256] {
        let (win_length, window) = (n_fft.div_ceil(2), Window::Rectangular);
        let config = StftConfig {
            n_fft,
            win_length,
            hop_length: 37,
            window,
            periodic: true,
            center: false,
            pad_mode: PadMode::Constant,
        };
        let spectrum = Stft::new(&config).unwrap().complex(&samples).unwrap();
        assert_eq!(spectrum.dim(), ((300 - n_fft) / 37 + 1, n_fft / 2 + 1));
        let before = (n_fft - win_length) / 2;
        for ((t, k), got) in spectrum.indexed_iter() {
            let mut expected = Complex::new(0.0, 0.0);
            for m in before..before + win_length {
                let angle = -TAU * (k * m % n_fft) as f64 / n_fft as f64;
                expected += Complex::from_polar(f64::from(samples[t * 37 + m]), angle);
            }
            let distance = (expected - Complex::new(f64::from(got.re), f64::from(got.im))).norm();
            assert!(distance < 1e-5, "n_fft {n_fft}, frame {t}, bin {k}: {got} against {expected}");
        }
    }
}

#[test]
fn sparse_filters_equal_the_dense_matrix() {
    let bank = MelFilterBank::new(&LogMelConfig::PANNS_16K.mel, 16_000, 512).unwrap();
    let spectrum = Stft::new(&LogMelConfig::PANNS_16K.stft).unwrap().power(&signal(4000, 16_000, SEED)).unwrap();
    let dense = spectrum.mapv(f64::from).dot(&bank.to_array().mapv(f64::from).t());
    let largest = dense.iter().copied().fold(0.0, f64::max);
    assert_close("row-major", &bank.apply(&spectrum).unwrap(), &dense, 1e-7 * largest);
    let columns_first = spectrum.t().as_standard_layout().into_owned().reversed_axes();
    assert_close("column-major", &bank.apply(&columns_first).unwrap(), &dense, 1e-7 * largest);
    assert!(bank.apply(&Array2::zeros((3, 256))).is_err());
    assert_eq!(bank.apply(&Array2::zeros((0, 257))).unwrap().dim(), (0, 64));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let samples = signal(100_000, 32_000, SEED);
    let config = LogMelConfig { top_db: Some(60.0), ..LogMelConfig::PANNS_32K };
    let log_mel = LogMel::new(&config).unwrap();
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| (log_mel.compute(&samples).unwrap(), log_mel.stft().power(&samples).unwrap()))
    };
    assert_eq!(on(1), on(3));
    let mut out = vec![f32::NAN; log_mel.n_frames(samples.len()) * 64];
    log_mel.compute_into(&samples, &mut out).unwrap();
    assert_eq!(Some(out.as_slice()), on(2).0.as_slice());
}

/// The setting named by an error.
fn refused<T>(result: clipwise::Result<T>) -> &'static str {
    match result.err() {
        Some(Error::Config { field, .. } | Error::Argument { name: field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn invalid_settings_are_rejected() {
    let good = LogMelConfig::PANNS_16K;
    let stft = |stft: StftConfig| LogMelConfig { stft, ..good };
    let mel = |mel: MelConfig| LogMelConfig { mel, ..good };
    for (field, config) in [
        ("n_fft", stft(StftConfig { n_fft: 0, win_length: 0, ..good.stft })),
        ("n_fft", stft(StftConfig { n_fft: usize::MAX, ..good.stft })),
        ("n_fft", stft(StftConfig { n_fft: MAX_N_FFT + 1, ..good.stft })),
        ("win_length", stft(StftConfig { win_length: 0, ..good.stft })),
        ("win_length", stft(StftConfig { win_length: 513, ..good.stft })),
        ("hop_length", stft(StftConfig { hop_length: 0, ..good.stft })),
        ("sample_rate", LogMelConfig { sample_rate: 0, mel: MelConfig { fmax: None, fmin: 0.0, ..good.mel }, ..good }),
        ("n_mels", mel(MelConfig { n_mels: 0, ..good.mel })),
        ("n_mels", mel(MelConfig { n_mels: usize::MAX, ..good.mel })),
        ("n_mels", mel(MelConfig { n_mels: MAX_N_MELS + 1, ..good.mel })),
        (
            "n_mels",
            LogMelConfig {
                stft: StftConfig { n_fft: MAX_N_FFT, ..good.stft },
                mel: MelConfig { n_mels: MAX_MEL_CELLS / (MAX_N_FFT / 2), ..good.mel },
                ..good
            },
        ),
        ("fmin", mel(MelConfig { fmin: -1.0, ..good.mel })),
        ("fmin", mel(MelConfig { fmin: f64::NAN, ..good.mel })),
        ("fmax", mel(MelConfig { fmin: 8000.0, ..good.mel })),
        ("fmax", mel(MelConfig { fmin: 9000.0, fmax: None, ..good.mel })),
        ("fmax", mel(MelConfig { fmax: Some(f64::NAN), ..good.mel })),
        ("fmax", mel(MelConfig { fmax: Some(f64::INFINITY), ..good.mel })),
        ("amin", LogMelConfig { amin: 0.0, ..good }),
        ("amin", LogMelConfig { amin: f32::NAN, ..good }),
        ("reference", LogMelConfig { reference: -1.0, ..good }),
        ("reference", LogMelConfig { reference: f32::INFINITY, ..good }),
        ("top_db", LogMelConfig { top_db: Some(-1.0), ..good }),
        ("top_db", LogMelConfig { top_db: Some(f32::NAN), ..good }),
    ] {
        assert_eq!(refused(LogMel::new(&config)), field, "{config:?}");
    }
    let error = LogMel::new(&stft(StftConfig { win_length: 600, ..good.stft })).unwrap_err();
    assert_eq!(error.to_string(), "win_length = 600: expected 1 to n_fft = 512");
}

#[test]
fn clips_that_are_too_short_are_rejected() {
    for golden in Golden::all() {
        let log_mel = LogMel::new(&golden.config).unwrap();
        let lengths: Vec<usize> = serde_json::from_str(&golden.metadata["refused"]).unwrap();
        for length in lengths.into_iter().chain([0, log_mel.min_samples() - 1]) {
            assert_eq!(log_mel.n_frames(length), 0);
            let error = log_mel.compute(&vec![0.1; length]).unwrap_err();
            assert!(
                matches!(error, Error::TooShort { needed, got } if (needed, got) == (log_mel.min_samples(), length))
            );
            assert!(log_mel.compute_into(&vec![0.1; length], &mut []).is_err());
        }
        let shortest = vec![0.1; log_mel.min_samples()];
        assert!(log_mel.compute(&shortest).unwrap().nrows() >= 1, "{}", golden.name);
    }
}

#[test]
fn hostile_samples_are_rejected_or_harmless() {
    let log_mel = LogMel::new(&LogMelConfig::PANNS_8K).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in [0, 4095, 4096, 9999] {
            let mut samples = vec![0.5; 10_000];
            samples[place] = bad;
            let error = log_mel.compute(&samples).unwrap_err();
            assert!(matches!(error, Error::NonFinite { index, .. } if index == place), "{error}");
            assert!(matches!(log_mel.stft().power(&samples), Err(Error::NonFinite { .. })));
        }
    }
    for huge in [f32::MAX, -f32::MAX, f32::MIN_POSITIVE, 1e-45] {
        let out = log_mel.compute(&vec![huge; 10_000]).unwrap();
        assert!(out.iter().all(|x| x.is_finite()), "{huge}");
        assert!(log_mel.stft().power(&vec![huge; 10_000]).is_ok());
    }
    assert_eq!(refused(log_mel.compute_into(&[0.0; 800], &mut [0.0; 63])), "out.len()");
}

#[test]
fn settings_survive_json() {
    let presets = [LogMelConfig::PANNS_32K, LogMelConfig::PANNS_16K, LogMelConfig::PANNS_8K, LogMelConfig::PANNS_48K];
    for preset in presets {
        let json = serde_json::to_string(&preset).unwrap();
        assert_eq!(serde_json::from_str::<LogMelConfig>(&json).unwrap(), preset);
        let (stft, mel) = (serde_json::to_string(&preset.stft).unwrap(), serde_json::to_string(&preset.mel).unwrap());
        assert_eq!(serde_json::from_str::<StftConfig>(&stft).unwrap(), preset.stft);
        assert_eq!(serde_json::from_str::<MelConfig>(&mel).unwrap(), preset.mel);
    }
    let sizes = r#""sample_rate": 16000, "n_fft": 512, "win_length": 512, "hop_length": 160, "n_mels": 64"#;
    let read: LogMelConfig = serde_json::from_str(&format!("{{{sizes}}}")).unwrap();
    let whole_band = MelConfig { fmin: 0.0, fmax: None, ..LogMelConfig::PANNS_16K.mel };
    assert_eq!(read, LogMelConfig { mel: whole_band, ..LogMelConfig::PANNS_16K });
    let refused =
        |more: &str| serde_json::from_str::<LogMelConfig>(&format!("{{{sizes}, {more}}}")).unwrap_err().to_string();
    assert!(refused(r#""hop": 1"#).contains("unknown field `hop`"));
    assert!(refused(r#""scale": "htk""#).contains("unknown field `scale`"));
    assert!(refused(r#""n_fft": 256"#).contains("duplicate field `n_fft`"));
    let missing = serde_json::from_str::<LogMelConfig>(r#"{"sample_rate": 16000, "n_mels": 64}"#).unwrap_err();
    assert!(missing.to_string().contains("missing field `n_fft`"), "{missing}");
    // One flat object, the format of config files.
    let flat =
        r#"{"sample_rate":32000,"n_fft":1024,"win_length":1024,"hop_length":320,"window":"hann","periodic":true,"#
            .to_string()
            + r#""center":true,"pad_mode":"reflect","power":"power","n_mels":64,"fmin":50.0,"fmax":14000.0,"#
            + r#""mel_scale":"slaney","mel_norm":"slaney","log":"decibel","reference":1.0,"amin":1e-10,"top_db":null}"#;
    assert_eq!(serde_json::to_string(&LogMelConfig::PANNS_32K).unwrap(), flat);
    let renamed = flat.replace("reference", "ref").replace("1024,\"hop", "1024, \"hop");
    assert_eq!(serde_json::from_str::<LogMelConfig>(&renamed).unwrap(), LogMelConfig::PANNS_32K);
}

#[test]
fn front_ends_are_send_and_sync() {
    fn check<T: Send + Sync + Clone + std::fmt::Debug + 'static>() {}
    check::<Stft>();
    check::<MelFilterBank>();
    check::<LogMel>();
}
