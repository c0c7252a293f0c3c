//! MFCC, Kaldi fbank, deltas, natural-log mel, normalisation and SeamlessM4T features against librosa, torchaudio and
//! transformers.
//!
//! `tests/golden/features.py` makes the data, in float64 if the reference supports it, and documents each tensor.

mod common;

use std::collections::BTreeMap;

use clipwise::frontend::*;
use clipwise::ndarray::{Array2, ArrayView2, Axis, array, s};
use clipwise::{Error, Waveform, Weights};
use common::signal;
use serde::de::DeserializeOwned;

/// The seed of `features.py`.
const SEED: u64 = 9;

struct Golden {
    cases: BTreeMap<String, serde_json::Value>,
    tensors: Weights,
}

impl Golden {
    fn open(name: &str) -> Self {
        let tensors = common::golden(&format!("features_{name}.safetensors"));
        Self { cases: serde_json::from_str(&tensors.metadata()["cases"]).unwrap(), tensors }
    }

    fn number(&self, case: &str, field: &str) -> usize {
        self.cases[case][field].as_u64().unwrap() as usize
    }

    fn matrix(&self, name: &str) -> Array2<f32> {
        matrix(&self.tensors, name)
    }

    fn config<T: DeserializeOwned>(&self, case: &str) -> T {
        serde_json::from_value(self.cases[case]["config"].clone()).unwrap()
    }
}

/// A tensor with all axes except the last flattened into one.
fn matrix(tensors: &Weights, name: &str) -> Array2<f32> {
    let columns = *tensors.shape(name).unwrap().last().unwrap();
    let values = tensors.to_vec(name).unwrap();
    Array2::from_shape_vec((values.len() / columns, columns), values).unwrap()
}

/// The largest difference; fails above `bar + rtol |expected|`.
#[track_caller]
fn close(what: &str, got: ArrayView2<f32>, expected: ArrayView2<f32>, bar: f32, rtol: f32) -> f32 {
    assert_eq!(got.dim(), expected.dim(), "{what}: shape");
    let mut worst = 0f32;
    for (index, &e) in expected.indexed_iter() {
        let distance = (got[index] - e).abs();
        assert!(distance <= bar + rtol * e.abs(), "{what} at {index:?}: {} against {e}", got[index]);
        worst = worst.max(distance);
    }
    worst
}

/// The setting named by an error.
#[track_caller]
fn refused<T>(result: clipwise::Result<T>) -> &'static str {
    match result.err() {
        Some(Error::Config { field, .. } | Error::Argument { name: field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn fbank_equals_kaldi() {
    let golden = Golden::open("fbank");
    let (mut worst, mut worst_f32) = (0f32, 0f32);
    for case in golden.cases.keys() {
        let config: FbankConfig = golden.config(case);
        let fbank = Fbank::new(&config).unwrap();
        let samples = signal(golden.number(case, "n_samples"), config.sample_rate, SEED);
        let got = fbank.compute(&samples).unwrap();
        assert_eq!(got.dim(), (fbank.n_frames(samples.len()), fbank.n_features()), "{case}");
        // torchaudio rounds its filters to f32, and so do we, but in a different order of operations.
        let distance = close(case, got.view(), golden.matrix(case).view(), 2e-5, 1e-5);
        if config.log {
            worst = worst.max(distance);
        }
        if golden.tensors.contains(&format!("{case}.f32")) {
            let expected = golden.matrix(&format!("{case}.f32"));
            worst_f32 = worst_f32.max(close(case, got.view(), expected.view(), 1e-4, 0.0));
        }
    }
    assert_eq!(golden.config::<FbankConfig>("default"), FbankConfig::KALDI_16K);
    println!("fbank: off torchaudio's by {worst:e} (f64), {worst_f32:e} (f32) at most");
}

#[test]
fn seamless_features_equal_transformers() {
    let golden = Golden::open("fbank");
    let front_end = SeamlessM4t::new(&SeamlessM4tConfig::SEAMLESS_M4T_16K).unwrap();
    let clips: Vec<_> = [2800, 1871, 1680].iter().map(|&n| signal(n, 16_000, SEED)).collect();
    let rows: Vec<&[f32]> = clips.iter().map(|clip| clip.as_slice()).collect();
    let mut worst = 0f32;
    for (name, rows) in [("seamless", &rows[..]), ("seamless_odd", &rows[2..])] {
        let batch = front_end.compute_batch(rows).unwrap();
        let (n_rows, n_steps, n_features) = batch.input_features.dim();
        assert_eq!(golden.tensors.shape(&format!("{name}.input_features")).unwrap(), [n_rows, n_steps, n_features]);
        let flat = batch.input_features.to_shape((n_rows * n_steps, n_features)).unwrap();
        let expected = golden.matrix(&format!("{name}.input_features"));
        worst = worst.max(close(name, flat.view(), expected.view(), 1e-4, 0.0));
        let mask = golden.matrix(&format!("{name}.attention_mask"));
        assert_eq!(batch.attention_mask.mapv(f32::from), mask, "{name}");
        for (index, row) in rows.iter().enumerate() {
            let alone = front_end.compute(row).unwrap();
            assert_eq!(alone, batch.input_features.slice(s![index, ..alone.nrows(), ..]), "{name} row {index}");
            assert_eq!(batch.lengths()[index], front_end.length(row.len()));
        }
    }
    let raw = SeamlessM4tConfig { normalize: None, ..SeamlessM4tConfig::SEAMLESS_M4T_16K };
    let got = SeamlessM4t::new(&raw).unwrap().compute(rows[2]).unwrap();
    close("raw", got.view(), golden.matrix("seamless_raw.input_features").view(), 1e-4, 0.0);
    println!("SeamlessM4T features: off transformers' by {worst:e} at most");
}

#[test]
fn mfcc_equals_librosa_torchaudio_and_kaldi() {
    let golden = Golden::open("mfcc");
    let mut worst = 0f32;
    for case in golden.cases.keys().filter(|case| golden.cases[*case]["config"].get("mel").is_some()) {
        let config: MfccConfig = golden.config(case);
        let sample_rate = match &config.mel {
            MelFeatures::LogMel(mel) => mel.sample_rate,
            MelFeatures::Fbank(mel) => mel.sample_rate,
            other => panic!("{other:?}"),
        };
        let mfcc = Mfcc::new(&config).unwrap();
        let samples = signal(golden.number(case, "n_samples"), sample_rate, SEED);
        let got = mfcc.compute(&samples).unwrap();
        assert_eq!(got.dim(), (mfcc.n_frames(samples.len()), config.n_mfcc), "{case}");
        // Values reach hundreds; the bar of 1e-3 is a hundred times the rounding of f32 log-mel values.
        worst = worst.max(close(case, got.view(), golden.matrix(case).view(), 1e-4, 1e-6));
    }
    for (case, preset) in [
        ("librosa", MfccConfig::LIBROSA_22K),
        ("librosa_16k", MfccConfig::SPEECH_COMMANDS_16K),
        ("torchaudio", MfccConfig::TORCHAUDIO_16K),
        ("torchaudio_ln", MfccConfig::TORCHAUDIO_LN_16K),
        ("kaldi", MfccConfig::KALDI_16K),
    ] {
        assert_eq!(golden.config::<MfccConfig>(case), preset);
    }
    println!("MFCC: off by {worst:e} at most");
}

#[test]
fn natural_log_mel_equals_librosa() {
    let golden = Golden::open("mfcc");
    assert_eq!(golden.config::<LogMelConfig>("crnn"), LogMelConfig::CRNN_22K);
    for case in ["crnn", "natural"] {
        let config: LogMelConfig = golden.config(case);
        let samples = signal(golden.number(case, "n_samples"), config.sample_rate, SEED);
        let got = LogMel::new(&config).unwrap().compute(&samples).unwrap();
        close(case, got.view(), golden.matrix(case).view(), 4e-6, 0.0);
    }
    let silence = LogMel::new(&LogMelConfig::CRNN_22K).unwrap().compute(&[0.0; 882]).unwrap();
    assert!(silence.iter().all(|x| (x - 2.2e-16f32.ln()).abs() < 1e-5));
}

#[test]
fn a_spectrogram_gives_the_same_mfcc_as_its_clip() {
    let (samples, config) = (signal(20_000, 16_000, SEED), MfccConfig::SPEECH_16K);
    let log_mel = LogMel::new(&LogMelConfig::SPEECH_16K).unwrap().compute(&samples).unwrap();
    let mfcc = Mfcc::new(&config).unwrap();
    let got = mfcc.apply(log_mel.view()).unwrap();
    assert_eq!(got, mfcc.compute(&samples).unwrap());
    // The orthonormal transform with all coefficients preserves the norm of every frame.
    let all = Mfcc::new(&MfccConfig { n_mfcc: 80, ..config }).unwrap().apply(log_mel.view()).unwrap();
    for (frame, cepstrum) in log_mel.rows().into_iter().zip(all.rows()) {
        let length = |row: ndarray::ArrayView1<f32>| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        assert!((length(frame) / length(cepstrum) - 1.0).abs() < 1e-6);
    }
    assert_eq!(mfcc.apply(Array2::zeros((0, 80)).view()).unwrap().dim(), (0, 13));
    assert_eq!(refused(mfcc.apply(Array2::zeros((3, 79)).view())), "n_mels");
    assert_eq!(refused(mfcc.apply(Array2::from_elem((3, 80), f32::NAN).view())), "features");
}

#[test]
fn deltas_equal_librosa_torchaudio_and_kaldi() {
    let golden = Golden::open("delta");
    let features = golden.matrix("features");
    for case in golden.cases.keys() {
        let (n_frames, order) = (golden.number(case, "n_frames"), golden.number(case, "order"));
        let config: DeltaConfig = golden.config(case);
        let got = delta(features.slice(s![..n_frames, ..]), order, &config).unwrap();
        close(case, got.view(), golden.matrix(case).view(), 1e-6, 1e-6);
    }
    assert!(golden.cases.len() > 80);
}

#[test]
fn deltas_are_appended_to_the_features() {
    let features = Golden::open("delta").matrix("features");
    let all = with_deltas(features.view(), 2, &DeltaConfig::KALDI).unwrap();
    assert_eq!(all.dim(), (17, 6));
    assert_eq!(all.slice(s![.., ..2]), features);
    for order in [1, 2] {
        let one = delta(features.view(), order, &DeltaConfig::KALDI).unwrap();
        assert_eq!(all.slice(s![.., 2 * order..2 * order + 2]), one);
    }
    assert_eq!(with_deltas(features.view(), 0, &DeltaConfig::KALDI).unwrap(), features);
}

#[test]
fn frames_beyond_the_ends_are_mirrored_as_often_as_needed() {
    let config = FbankConfig { snip_edges: false, ..FbankConfig::KALDI_16K };
    let (fbank, whole) = (Fbank::new(&config).unwrap(), Fbank::new(&FbankConfig::KALDI_16K).unwrap());
    for n in [80usize, 81, 100, 239, 240, 399, 401, 1000] {
        let samples = signal(n, 16_000, SEED);
        let got = fbank.compute(&samples).unwrap();
        assert_eq!(got.nrows(), (n + 80) / 160);
        for (t, row) in got.rows().into_iter().enumerate() {
            // Begins 120 samples early; 20 n is a multiple of the period.
            let place = |k: usize| (t * 160 + k + 20 * n - 120) % (2 * n);
            let frame: Vec<f32> = (0..400).map(|k| samples[place(k).min(2 * n - 1 - place(k))]).collect();
            assert_eq!(row, whole.compute(&frame).unwrap().row(0), "{n} samples, frame {t}");
        }
    }
    assert_eq!((fbank.min_samples(), fbank.n_frames(79), fbank.n_frames(80)), (80, 0, 1));
    assert!(matches!(fbank.compute(&[0.1; 79]), Err(Error::TooShort { needed: 80, got: 79 })));
}

#[test]
fn normalisation_per_clip() {
    let golden = Golden::open("delta");
    let features = golden.matrix("features");
    for normalize in [Normalize::CMN, Normalize::CMVN, Normalize::SEAMLESS_M4T] {
        let mut got = features.clone();
        normalize.apply(&mut got).unwrap();
        for (column, original) in got.columns().into_iter().zip(features.columns()) {
            let mean = column.iter().map(|&x| f64::from(x)).sum::<f64>() / 17.0;
            assert!(mean.abs() < 1e-6);
            let squares = |column: ndarray::ArrayView1<f32>, mean: f64| {
                column.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>()
            };
            let expected = match &normalize {
                Normalize::MeanVariance { ddof, .. } => (17 - ddof) as f64,
                _ => squares(original, original.iter().map(|&x| f64::from(x)).sum::<f64>() / 17.0),
            };
            assert!((squares(column, mean) / expected - 1.0).abs() < 1e-5, "{normalize:?}");
        }
    }
    // A constant feature becomes 0, even if the mean of equal values is rounded; so does a single frame.
    for normalize in [Normalize::CMVN, Normalize::SEAMLESS_M4T, Normalize::MeanVariance { ddof: 5, eps: 0.0 }] {
        for n_frames in [0, 1, 3, 7] {
            let mut constant = Array2::from_elem((n_frames, 2), -11.1f32);
            normalize.apply(&mut constant).unwrap();
            assert!(constant.iter().all(|x| *x == 0.0), "{normalize:?}");
        }
    }
}

#[test]
fn statistics_of_a_data_set() {
    let clips: Vec<_> =
        (0..5).map(|k| common::hashed("clip", 3 * (k * k + 1), -40.0, -30.0 + k as f64, SEED)).collect();
    let clips: Vec<_> = clips.into_iter().map(|x| Array2::from_shape_vec((x.len() / 3, 3), x).unwrap()).collect();
    let mut statistics = FeatureStatistics::new(3);
    clips.iter().for_each(|clip| statistics.push(clip.view()).unwrap());
    statistics.push(Array2::zeros((0, 3)).view()).unwrap();
    let views: Vec<_> = clips.iter().map(|clip| clip.view()).collect();
    let mut all = ndarray::concatenate(Axis(0), &views).unwrap();
    assert_eq!(statistics.n_frames(), all.nrows() as u64);
    let wide = all.mapv(f64::from);
    let (mean, std) = (wide.mean_axis(Axis(0)).unwrap(), wide.std_axis(Axis(0), 0.0));
    for k in 0..3 {
        assert!((statistics.mean()[k] - mean[k]).abs() < 1e-10 && (statistics.std()[k] - std[k]).abs() < 1e-10);
    }
    let whole = all.clone();
    statistics.normalize().apply(&mut all).unwrap();
    let (mean, std) = (all.mean_axis(Axis(0)).unwrap(), all.std_axis(Axis(0), 0.0));
    assert!(mean.iter().all(|x| x.abs() < 1e-5) && std.iter().all(|x| (x - 1.0).abs() < 1e-5));
    let Normalize::DataSet { mean, std } = statistics.normalize_as_one() else { panic!() };
    let (one_mean, one_std) = (whole.mapv(f64::from).mean().unwrap(), whole.mapv(f64::from).std(0.0));
    assert!((f64::from(mean[0]) - one_mean).abs() < 1e-5 && (f64::from(std[0]) - one_std).abs() < 1e-5);
    assert_eq!((mean.len(), std.len()), (1, 1));

    assert_eq!(refused(statistics.push(Array2::zeros((1, 2)).view())), "n_features");
    assert_eq!(refused(statistics.push(array![[0.0, f32::NAN, 0.0]].view())), "features");
    // Before the first frame, and for constant features, there is no division by 0.
    let mut zeros = Array2::zeros((2, 3));
    FeatureStatistics::new(3).normalize().apply(&mut zeros).unwrap();
    assert_eq!(zeros, Array2::<f32>::zeros((2, 3)));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let samples = signal(50_000, 16_000, SEED);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let front_end = SeamlessM4t::new(&SeamlessM4tConfig::SEAMLESS_M4T_16K).unwrap();
            let mfcc = |config| Mfcc::new(&config).unwrap().compute(&samples).unwrap();
            let (kaldi, librosa) = (mfcc(MfccConfig::KALDI_16K), mfcc(MfccConfig::SPEECH_COMMANDS_16K));
            (front_end.compute(&samples).unwrap(), kaldi, librosa)
        })
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn invalid_settings_are_rejected() {
    let good = FbankConfig::KALDI_16K;
    for (field, config) in [
        ("n_fft", FbankConfig { n_fft: 0, ..good }),
        ("n_fft", FbankConfig { n_fft: usize::MAX, ..good }),
        ("win_length", FbankConfig { win_length: 1, ..good }),
        ("win_length", FbankConfig { win_length: 513, ..good }),
        ("hop_length", FbankConfig { hop_length: 0, ..good }),
        ("hop_length", FbankConfig { hop_length: usize::MAX, ..good }),
        ("sample_rate", FbankConfig { sample_rate: 0, ..good }),
        ("n_mels", FbankConfig { n_mels: 0, ..good }),
        ("n_mels", FbankConfig { n_mels: usize::MAX, ..good }),
        ("n_mels", FbankConfig { n_fft: MAX_N_FFT, n_mels: 64, ..good }),
        ("fmin", FbankConfig { fmin: -1.0, ..good }),
        ("fmin", FbankConfig { fmin: f64::NAN, ..good }),
        ("fmax", FbankConfig { fmax: Some(f64::NAN), ..good }),
        ("fmax", FbankConfig { fmax: Some(8000.5), ..good }),
        ("fmax", FbankConfig { fmax: Some(20.0), ..good }),
        ("preemphasis", FbankConfig { preemphasis: 1.1, ..good }),
        ("preemphasis", FbankConfig { preemphasis: f64::NAN, ..good }),
        ("sample_scale", FbankConfig { sample_scale: 0.0, ..good }),
        ("amin", FbankConfig { amin: f32::INFINITY, ..good }),
        ("energy_floor", FbankConfig { energy_floor: -1.0, ..good }),
        ("sample_rate", FbankConfig::kaldi(0)),
        ("hop_length", FbankConfig::kaldi(99)),
    ] {
        assert_eq!(refused(Fbank::new(&config)), field, "{config:?}");
        let mfcc = MfccConfig { mel: MelFeatures::Fbank(config), ..MfccConfig::KALDI_16K };
        assert_eq!(refused(Mfcc::new(&mfcc)), field, "{mfcc:?}");
    }
    let good = MfccConfig::KALDI_16K;
    let linear = MelFeatures::Fbank(FbankConfig { log: false, ..FbankConfig::KALDI_16K });
    for (field, config) in [
        ("n_mfcc", MfccConfig { n_mfcc: 0, ..good.clone() }),
        ("n_mfcc", MfccConfig { n_mfcc: 24, ..good.clone() }),
        ("n_mfcc", MfccConfig { n_mfcc: usize::MAX, ..good.clone() }),
        ("lifter", MfccConfig { lifter: Lifter::Kaldi(0.0), ..good.clone() }),
        ("lifter", MfccConfig { lifter: Lifter::Librosa(f64::NAN), ..good.clone() }),
        ("lifter", MfccConfig { lifter: Lifter::Librosa(-1.0), ..good.clone() }),
        ("log", MfccConfig { mel: linear, ..good.clone() }),
    ] {
        assert_eq!(refused(Mfcc::new(&config)), field, "{config:?}");
    }
    let good = SeamlessM4tConfig::SEAMLESS_M4T_16K;
    assert_eq!(refused(SeamlessM4t::new(&SeamlessM4tConfig { stride: 0, ..good.clone() })), "stride");
    assert_eq!(
        refused(SeamlessM4t::new(&SeamlessM4tConfig { padding_value: f32::NAN, ..good.clone() })),
        "padding_value"
    );

    let features = Array2::zeros((8, 2));
    let good = DeltaConfig::KALDI;
    for (field, order, config) in [
        ("width", 1, DeltaConfig { width: 1, ..good }),
        ("width", 1, DeltaConfig { width: 4, ..good }),
        ("width", 1, DeltaConfig { width: usize::MAX, ..good }),
        ("order", 0, good.clone()),
        ("order", usize::MAX, good.clone()),
        ("order", 3, DeltaConfig { width: 3, ..DeltaConfig::LIBROSA }),
        ("edge", 1, DeltaConfig { edge: DeltaEdge::Wrap, ..good }),
        ("edge", 1, DeltaConfig { edge: DeltaEdge::Interp, ..DeltaConfig::TORCHAUDIO }),
        ("n_frames", 1, DeltaConfig::LIBROSA),
    ] {
        assert_eq!(refused(delta(features.view(), order, &config)), field, "{config:?}");
    }
    assert_eq!(refused(delta(Array2::zeros((0, 2)).view(), 1, &good)), "n_frames");
    assert_eq!(refused(delta(array![[f32::INFINITY]].view(), 1, &good)), "features");
    assert_eq!(delta(Array2::zeros((3, 0)).view(), 1, &good).unwrap().dim(), (3, 0));

    for (field, normalize) in [
        ("eps", Normalize::MeanVariance { ddof: 0, eps: -1.0 }),
        ("eps", Normalize::MeanVariance { ddof: 0, eps: f64::NAN }),
        ("mean", Normalize::DataSet { mean: vec![0.0; 3], std: vec![1.0; 2] }),
        ("mean", Normalize::DataSet { mean: vec![f32::NAN], std: vec![1.0] }),
        ("std", Normalize::DataSet { mean: vec![0.0], std: vec![] }),
        ("std", Normalize::DataSet { mean: vec![0.0], std: vec![1.0, 0.0] }),
    ] {
        assert_eq!(refused(normalize.apply(&mut features.clone())), field, "{normalize:?}");
    }
    assert_eq!(refused(Normalize::CMN.apply(&mut array![[f32::NAN]])), "features");
}

#[test]
fn hostile_samples_are_rejected_or_harmless() {
    let configs = [MfccConfig::KALDI_16K, MfccConfig::SPEECH_COMMANDS_16K, MfccConfig::TORCHAUDIO_LN_16K];
    for mfcc in configs.map(|config| Mfcc::new(&config).unwrap()) {
        for n_samples in [0, mfcc.min_samples() - 1] {
            let error = mfcc.compute(&vec![0.1; n_samples]).unwrap_err();
            assert!(
                matches!(error, Error::TooShort { needed, got } if (needed, got) == (mfcc.min_samples(), n_samples))
            );
        }
        assert!(mfcc.compute(&vec![0.1; mfcc.min_samples()]).unwrap().nrows() >= 1);
        let mut samples = vec![0.5; 5000];
        samples[4321] = f32::NAN;
        assert!(matches!(mfcc.compute(&samples), Err(Error::NonFinite { index: 4321, .. })));
        for value in [0.0, 1e-45, f32::MAX, -f32::MAX] {
            assert!(mfcc.compute(&vec![value; 5000]).unwrap().iter().all(|x| x.is_finite()));
        }
    }
    let front_end = SeamlessM4t::new(&SeamlessM4tConfig::SEAMLESS_M4T_16K).unwrap();
    assert!(matches!(front_end.compute(&[0.1; 559]), Err(Error::TooShort { needed: 560, got: 559 })));
    assert!(front_end.compute(&[0.1; 560]).unwrap().iter().all(|x| *x == 0.0));
    assert_eq!(refused(front_end.compute_batch(&[])), "clips.len()");
    assert!(matches!(front_end.compute_batch(&[&[0.1; 900], &[]]), Err(Error::TooShort { .. })));
    let loud = Fbank::new(&FbankConfig { sample_scale: f32::MAX, use_energy: true, ..FbankConfig::KALDI_16K }).unwrap();
    let samples: Vec<f32> = signal(1000, 16_000, SEED).into_iter().map(|x| x * f32::MAX).collect();
    assert!(loud.compute(&samples).unwrap().iter().all(|x| x.is_finite()));
    assert_eq!(loud.n_frames(usize::MAX), 1 + (usize::MAX - 400) / 160);
    let mirrored = Fbank::new(&FbankConfig { snip_edges: false, ..FbankConfig::KALDI_16K }).unwrap();
    assert_eq!(mirrored.n_frames(usize::MAX), usize::MAX / 160 + 1);
}

#[test]
fn settings_survive_json() {
    fn survives<T: serde::Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
        assert_eq!(serde_json::from_str::<T>(&serde_json::to_string(&value).unwrap()).unwrap(), value);
    }
    [MfccConfig::LIBROSA_22K, MfccConfig::SPEECH_16K, MfccConfig::TORCHAUDIO_LN_16K, MfccConfig::KALDI_16K]
        .into_iter()
        .for_each(survives);
    [FbankConfig::KALDI_16K, FbankConfig::SEAMLESS_M4T_16K, FbankConfig::kaldi(44_100)].into_iter().for_each(survives);
    [DeltaConfig::LIBROSA, DeltaConfig::TORCHAUDIO, DeltaConfig::KALDI].into_iter().for_each(survives);
    [Normalize::CMN, Normalize::CMVN, Normalize::DataSet { mean: vec![1.5], std: vec![2.0] }]
        .into_iter()
        .for_each(survives);
    survives(SeamlessM4tConfig::SEAMLESS_M4T_16K);
    survives(LogMelConfig::CRNN_22K);
    assert_eq!(serde_json::from_str::<FbankConfig>("{}").unwrap(), FbankConfig::KALDI_16K);
    assert!(serde_json::from_str::<FbankConfig>(r#"{"dither": 1.0}"#).is_err());
}

#[test]
fn front_ends_are_send_and_sync() {
    fn check<T: Send + Sync + Clone + std::fmt::Debug + 'static>() {}
    check::<Mfcc>();
    check::<Fbank>();
    check::<SeamlessM4t>();
    check::<FeatureStatistics>();
}

#[test]
fn speech_commands_mfcc_equal_those_of_the_published_model() {
    let Some(path) = common::real("real/lstm-speech-commands/expected_examples.safetensors") else { return };
    let expected = Weights::open(path).unwrap();
    let mfcc = Mfcc::new(&MfccConfig::SPEECH_COMMANDS_16K).unwrap();
    let (mut worst, mut seen) = (0f32, 0);
    for word in expected.names().filter_map(|name| name.strip_suffix(".mfcc")) {
        let clip = Waveform::open(common::real(&format!("audio/speech-commands/{word}.wav")).unwrap()).unwrap();
        assert_eq!(clip.sample_rate, 16_000);
        let got = mfcc.compute(&clip.samples).unwrap();
        worst = worst.max(close(word, got.view(), matrix(&expected, &format!("{word}.mfcc")).view(), 1e-3, 0.0));
        seen += 1;
    }
    assert_eq!(seen, 35);
    println!("MFCC of speech commands: off by {worst:e} at most");
}

#[test]
fn log_mel_equals_that_of_the_published_crnn() {
    let Some(path) = common::real("real/crnn-audioset/expected_R9.safetensors") else { return };
    let expected = matrix(&Weights::open(path).unwrap(), "log_mel");
    let clip = Waveform::open(common::real("audio/R9_ZSCveAHg_7s.wav").unwrap()).unwrap().resample(22_050).unwrap();
    let got = LogMel::new(&LogMelConfig::CRNN_22K).unwrap().compute(&clip.samples).unwrap();
    assert_eq!(got.dim(), (351, 64));
    // librosa's log-mel of soxr's resampling equals the expected one. Our resampling differs from soxr's in the
    // transition band just below 11025 Hz, which affects the last two filters, and by its ringing in nearly silent
    // frames.
    let apart = (&got - &expected).mapv(f32::abs);
    let (below, last) = apart.view().split_at(Axis(1), 62);
    let worst = |part: ArrayView2<f32>| part.iter().copied().fold(0.0, f32::max);
    let mut distances: Vec<f32> = below.iter().copied().collect();
    distances.sort_by(f32::total_cmp);
    let (median, above) = (distances[distances.len() / 2], distances.iter().filter(|x| **x > 1e-3).count());
    println!("CRNN log-mel, mels 0 to 61: median {median:e}, {above} of {} above 1e-3", distances.len());
    println!("at most {:e}; the last two mels: {:e}", worst(below), worst(last));
    assert!(median < 2e-6 && above < distances.len() / 100 && worst(below) < 2e-2 && worst(last) < 0.15);
}
