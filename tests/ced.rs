//! CED against the published graph; the bundled model; folders.

mod common;

use std::path::PathBuf;

use candle_core::{Device, Tensor};
use clipwise::models::ced::WindowMean;
use clipwise::models::{Ced, ced, detect};
use clipwise::{Detail, Error, LabelSet, ModelConfig, Tagger, TaggingModel, Waveform, WaveformBatch, Weights};
use common::{assert_close, ced_tensors, golden, max_difference, real, shipped, signal, values};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("weights/ced-tiny")
}

fn tiny() -> Ced {
    let weights = Weights::open(folder().join("model.safetensors")).unwrap();
    let config: ModelConfig = serde_json::from_slice(&std::fs::read(folder().join("config.json")).unwrap()).unwrap();
    let ModelConfig::Ced(config) = config else { panic!("{config:?}") };
    Ced::load(&config, &weights, &Device::Cpu).unwrap()
}

fn batch(clips: Vec<Vec<f32>>) -> WaveformBatch {
    WaveformBatch::new(clips, 16_000).unwrap()
}

#[test]
fn scores_equal_those_of_the_published_graph() {
    let (reference, model) = (golden("ced.safetensors"), tiny());
    for n in [2400, 4959, 40_000, 161_439] {
        let output = model.forward(&batch(vec![signal(n, 16_000, 7)]), Detail::Clip).unwrap();
        let (scores, pooled) = (values(&output.clipwise_output), values(&output.embedding));
        assert_close(&format!("{n} scores"), &scores, &reference.to_vec(&format!("{n}.scores")).unwrap(), 1e-5, 0.0);
        let reference = reference.to_vec(&format!("{n}.pooled")).unwrap();
        let largest = reference.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert_close(&format!("{n} embedding"), &pooled, &reference, 1e-4 * largest, 0.0);
    }
}

#[test]
fn dequantised_values_equal_the_graph_bit_for_bit() {
    let reference = golden("ced.safetensors");
    let weights = Weights::open(folder().join("model.safetensors")).unwrap();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let same = |name: &str, golden: &str, n: usize| {
        let (got, reference) = (weights.to_vec(name).unwrap(), reference.to_vec(golden).unwrap());
        assert_eq!(bits(got[..n].to_vec()), bits(reference[..n].to_vec()), "{name}");
    };
    same("front_end.0.spectrogram.window", "window", 512);
    same("front_end.0.mel_scale.fb", "filters", 257 * 64);
    same("blocks.0.mlp.fc1.weight", "fc1", 20 * 192);
    assert!(weights.names().all(|name| !name.ends_with(".scale")));
    assert_eq!(weights.dtype("blocks.0.mlp.fc1.weight"), Some(clipwise::weights::Dtype::I8));
}

#[test]
fn real_recordings_get_the_scores_of_onnxruntime() {
    let Some(expected) = real("real/ced-tiny/expected.safetensors") else { return };
    let (expected, exact, model) = (Weights::open(expected).unwrap(), golden("ced.safetensors"), tiny());
    for file in ["R9_ZSCveAHg_7s.wav", "jfk.wav", "sample-music.wav", "sample-typing.wav"] {
        let rounded = expected.to_vec(&format!("{file}.scores")).unwrap();
        let reference = exact.to_vec(&format!("{file}.scores")).unwrap();
        let waveform = expected.to_vec(&format!("{file}.waveform_16k")).unwrap();
        let scores = values(&model.forward(&batch(vec![waveform]), Detail::Clip).unwrap().clipwise_output);
        assert_close(file, &scores, &reference, 1e-5, 0.0);
        // The expected scores were made with onnxruntime's optimisations, which round activations to 8 bits: they
        // differ from the graph's own scores by up to 3.01e-3.
        assert_close(file, &scores, &rounded, 3.1e-3, 0.0);
    }
}

/// The small CED of `golden/ced_windows.py`.
fn small_config(window_mean: WindowMean) -> ced::Config {
    ced::Config { width: 16, n_heads: 2, depth: 2, n_classes: 11, window_mean, ..ced::Config::TINY }
}

/// All tensors of the bundled model, named as in RicherMans/CED.
fn tiny_tensors() -> Vec<(String, Tensor)> {
    let weights = Weights::open(folder().join("model.safetensors")).unwrap();
    let tensor = |name: &str| (name.replace("init_bn.", "init_bn.1."), weights.tensor(name, &Device::Cpu).unwrap());
    weights.names().map(tensor).collect()
}

/// The same, named as in the Hugging Face conversions.
fn converted(tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    let own = tensors.into_iter().filter(|(name, _)| !name.starts_with("front_end"));
    let renamed = own.map(|(name, tensor)| match name.starts_with("outputlayer") {
        true => (name, tensor),
        false => (format!("encoder.{}", name.replace("init_bn.1", "init_bn")), tensor),
    });
    renamed.collect()
}

/// Compares a file's scores, resampled by this crate, with those of librosa and onnxruntime.
fn equals_librosa(file: &str, tagger: &Tagger, expected: &Weights) {
    let mut clip = Waveform::open(real(&format!("audio/{file}")).unwrap()).unwrap();
    clip.samples.truncate(10 * clip.sample_rate as usize);
    let (tagging, reference) = (tagger.tag(&clip).unwrap(), expected.to_vec(file).unwrap());
    let apart = max_difference(&tagging.scores, &reference);
    println!("{file}, {} Hz: off by {apart:.5}", clip.sample_rate);
    // soxr's quality VHQ instead of HQ changes them by up to 0.0059.
    assert!(apart < 0.002, "{file}: {apart}");
    let ours: Vec<usize> = tagging.top_k(5).iter().map(|tag| tag.index).collect();
    let mut order: Vec<usize> = (0..527).collect();
    order.sort_by(|&a, &b| reference[b].total_cmp(&reference[a]));
    assert_eq!(ours, order[..5], "{file}");
}

#[test]
fn files_get_the_scores_of_librosa_and_onnxruntime() {
    let (expected, tagger) = (golden("ced_librosa.safetensors"), shipped("ced-tiny"));
    let (clips, recordings): (Vec<&str>, Vec<&str>) = expected.names().partition(|name| name.ends_with(".ogg"));
    assert_eq!((clips.len(), recordings.len()), (25, 4));
    if real("audio").is_none() {
        return;
    }
    recordings.into_iter().for_each(|file| equals_librosa(file, &tagger, &expected));
    #[cfg(feature = "symphonia")]
    clips.into_iter().for_each(|file| equals_librosa(file, &tagger, &expected));
}

#[test]
fn long_clips_equal_both_references() {
    let reference = golden("ced_windows.safetensors");
    let small = ced_tensors(&small_config(WindowMean::Scores), 61);
    for (name, tensors) in [("small", small), ("tiny", tiny_tensors())] {
        for (layout, window_mean) in [("ced", WindowMean::Scores), ("hf", WindowMean::Tokens)] {
            let tensors = if layout == "hf" { converted(tensors.clone()) } else { tensors.clone() };
            let weights = Weights::from_tensors(tensors).unwrap();
            let config = match name {
                "small" => small_config(window_mean),
                _ => match detect(&weights).unwrap().config {
                    ModelConfig::Ced(config) => config,
                    other => panic!("{other:?}"),
                },
            };
            assert_eq!(config.window_mean, window_mean, "{name} {layout}");
            let model = Ced::load(&config, &weights, &Device::Cpu).unwrap();
            for n in [161_920, 176_000, 192_000, 240_000, 323_840, 336_000] {
                let what = format!("{name}.{layout}.{n}");
                let output = model.forward(&batch(vec![signal(n, 16_000, 11)]), Detail::Clip).unwrap();
                let reference = |part: &str| reference.to_vec(&format!("{what}.{part}")).unwrap();
                assert_close(&what, &values(&output.clipwise_output), &reference("scores"), 1e-5, 0.0);
                let largest = reference("embedding").iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                assert_close(&what, &values(&output.embedding), &reference("embedding"), 1e-4 * largest, 0.0);
                let sigmoid: Vec<f32> = values(&output.logits).iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
                assert_close("logits", &sigmoid, &values(&output.clipwise_output), 1e-6, 0.0);
                let classified = values(&model.classify(&output.embedding).unwrap().clipwise_output);
                let same = classified == values(&output.clipwise_output);
                assert_eq!(same, window_mean == WindowMean::Tokens, "{what}: the head of the mean embedding");
            }
        }
    }
}

#[test]
fn a_whole_last_window_counts() {
    let (reference, n) = (golden("ced_windows.safetensors"), (2 * 1012 - 1) * 160);
    let of = |part: &str| reference.to_vec(&format!("small.ced.{n}.{part}")).unwrap();
    // The reference drops it.
    assert_close("the reference", &of("scores"), &of("window0"), 1e-6, 0.0);
    let mean: Vec<f32> = of("window0").iter().zip(of("window1")).map(|(a, b)| (a + b) / 2.0).collect();
    assert!(max_difference(&mean, &of("scores")) > 1e-3);
    for window_mean in [WindowMean::Scores, WindowMean::ScoresByLength, WindowMean::Tokens] {
        let config = small_config(window_mean);
        let weights = Weights::from_tensors(ced_tensors(&config, 61)).unwrap();
        let model = Ced::load(&config, &weights, &Device::Cpu).unwrap();
        let clip = signal(n, 16_000, 11);
        let scores = values(&model.forward(&batch(vec![clip.clone()]), Detail::Clip).unwrap().clipwise_output);
        if window_mean != WindowMean::Tokens {
            assert_close(&format!("{window_mean:?}"), &scores, &mean, 1e-5, 0.0);
            continue;
        }
        let log_mel = model.log_mel().compute(&clip).unwrap();
        let embedding = |start: usize| {
            let rows: Vec<f32> = log_mel.slice(ndarray::s![start..start + 1012, ..]).iter().copied().collect();
            let rows = Tensor::from_vec(rows, (1, 1012, 64), &Device::Cpu).unwrap();
            model.forward_features(&rows, Detail::Clip).unwrap().embedding
        };
        let embedding = ((embedding(0) + embedding(1012)).unwrap() / 2.0).unwrap();
        let reference = values(&model.classify(&embedding).unwrap().clipwise_output);
        assert_close("both windows' tokens", &scores, &reference, 1e-6, 0.0);
    }
}

#[test]
fn a_long_clip_in_a_batch_equals_the_clip_alone() {
    for window_mean in [WindowMean::Scores, WindowMean::ScoresByLength, WindowMean::Tokens] {
        let config = small_config(window_mean);
        let weights = Weights::from_tensors(ced_tensors(&config, 61)).unwrap();
        let model = Ced::load(&config, &weights, &Device::Cpu).unwrap();
        let lengths = [170_000, 20_000, 170_050, 336_000, 170_000];
        let clips: Vec<Vec<f32>> = (0..).zip(lengths).map(|(seed, n)| signal(n, 16_000, seed)).collect();
        let together = model.forward(&batch(clips.clone()), Detail::Clip).unwrap();
        for (i, clip) in clips.into_iter().enumerate() {
            let alone = model.forward(&batch(vec![clip]), Detail::Clip).unwrap();
            for (row, alone) in [
                (together.clipwise_output.get(i), alone.clipwise_output),
                (together.embedding.get(i), alone.embedding),
                (together.logits.get(i), alone.logits),
            ] {
                assert_close(&format!("{window_mean:?} {i}"), &values(&row.unwrap()), &values(&alone), 1e-6, 0.0);
            }
        }
    }
}

#[test]
fn the_rule_for_long_clips_is_in_the_config_and_has_a_default() {
    let stored = std::fs::read_to_string(folder().join("config.json")).unwrap();
    let read = |json: &str| match serde_json::from_str(json) {
        Ok(ModelConfig::Ced(config)) => Ok(config.window_mean),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    let with = |name: &str| stored.replace("\"window_mean\": \"scores\"", &format!("\"window_mean\": \"{name}\""));
    assert_eq!(read(&stored).unwrap(), WindowMean::Scores);
    let older = stored.replace("  \"window_mean\": \"scores\",\n", "");
    assert!(!older.contains("window_mean"));
    assert_eq!(read(&older).unwrap(), WindowMean::Scores);
    for (name, window_mean) in [("tokens", WindowMean::Tokens), ("scores_by_length", WindowMean::ScoresByLength)] {
        assert_eq!(read(&with(name)).unwrap(), window_mean);
        assert_eq!(serde_json::to_value(window_mean).unwrap(), name);
    }
    assert!(read(&with("median")).unwrap_err().to_string().contains("median"));

    let named = |tensors| match ModelConfig::by_name("ced-tiny", &Weights::from_tensors(tensors).unwrap()) {
        Ok(ModelConfig::Ced(config)) => config.window_mean,
        other => panic!("{other:?}"),
    };
    assert_eq!(named(tiny_tensors()), WindowMean::Scores);
    assert_eq!(named(converted(tiny_tensors())), WindowMean::Tokens);
}

#[test]
fn windows_can_be_weighted_by_their_length() {
    let config = ced::Config { window_mean: WindowMean::ScoresByLength, ..tiny().config().clone() };
    let weights = Weights::open(folder().join("model.safetensors")).unwrap();
    let model = Ced::load(&config, &weights, &Device::Cpu).unwrap();
    let scores =
        |clip: &[f32]| values(&model.forward(&batch(vec![clip.to_vec()]), Detail::Clip).unwrap().clipwise_output);
    let window = |log_mel: &ndarray::Array2<f32>, start: usize, end: usize| {
        let rows: Vec<f32> = log_mel.slice(ndarray::s![start..end, ..]).iter().copied().collect();
        let rows = candle_core::Tensor::from_vec(rows, (1, end - start, 64), &Device::Cpu).unwrap();
        values(&model.forward_features(&rows, Detail::Clip).unwrap().clipwise_output)
    };
    // Number of frames, and for each window its first and last frame and its number of patches in time.
    for (n_frames, windows) in [
        (1012, vec![(0, 1012, 63.0)]),
        (1013, vec![(0, 1012, 63.0), (1013 - 16, 1013, 1.0)]),
        (1012 + 15, vec![(0, 1012, 63.0), (1027 - 16, 1027, 1.0)]),
        (1012 + 333, vec![(0, 1012, 63.0), (1012, 1345, 20.0)]),
        (2 * 1012, vec![(0, 1012, 63.0), (1012, 2024, 63.0)]),
    ] {
        let clip = signal((n_frames - 1) * 160, 16_000, 3);
        let log_mel = model.log_mel().compute(&clip).unwrap();
        assert_eq!(log_mel.nrows(), n_frames);
        let total: f32 = windows.iter().map(|(_, _, weight)| weight).sum();
        let mut reference = vec![0.0; 527];
        for &(start, end, weight) in &windows {
            let part = window(&log_mel, start, end);
            reference.iter_mut().zip(part).for_each(|(sum, p)| *sum += p * weight / total);
        }
        assert_close(&format!("{n_frames} frames"), &scores(&clip), &reference, 1e-6, 0.0);
    }
    let output = model.forward(&batch(vec![signal(400_000, 16_000, 3)]), Detail::Clip).unwrap();
    let sigmoid: Vec<f32> = values(&output.logits).iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
    assert_close("logits of a mean", &sigmoid, &values(&output.clipwise_output), 1e-6, 0.0);
}

#[test]
fn results_are_independent_of_batch_threads_and_padding() {
    let model = tiny();
    assert_eq!(model.info().min_samples, 2400);
    let clips: Vec<Vec<f32>> =
        (0..).zip([20_000, 1, 2400, 20_000, 20_100]).map(|(s, n)| signal(n, 16_000, s)).collect();
    let together = model.forward(&batch(clips.clone()), Detail::Clip).unwrap();
    let mut padded = clips[1].clone();
    padded.resize(2400, 0.0);
    for (i, clip) in [&clips[0], &padded, &clips[2], &clips[3], &clips[4]].into_iter().enumerate() {
        let alone = model.forward(&batch(vec![clip.clone()]), Detail::Clip).unwrap();
        let row = values(&together.clipwise_output.get(i).unwrap());
        assert_close(&format!("row {i}"), &row, &values(&alone.clipwise_output), 1e-6, 0.0);
    }
    let run = |threads: usize| {
        let threads = clipwise::device::Threads::new(threads).unwrap();
        values(&threads.run(|| model.forward(&batch(clips.clone()), Detail::Clip).unwrap()).logits)
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn invalid_configurations_are_typed_errors() {
    let weights = Weights::open(folder().join("model.safetensors")).unwrap();
    let tiny = ced::Config::TINY;
    let mut odd_mels = tiny.clone();
    odd_mels.log_mel.mel.n_mels = 60;
    for (field, config) in [
        ("n_mels", odd_mels),
        ("n_heads", ced::Config { n_heads: 5, ..tiny.clone() }),
        ("depth", ced::Config { depth: 0, ..tiny.clone() }),
        ("target_length", ced::Config { target_length: 15, ..tiny.clone() }),
    ] {
        match Ced::load(&config, &weights, &Device::Cpu) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert!(matches!(Ced::load(&ced::Config::BASE, &weights, &Device::Cpu), Err(Error::Weights(_))));
    let detected = detect(&weights).unwrap();
    assert_eq!(detected.config, ModelConfig::Ced(tiny), "top_db is not determined by the tensors");
}

/// A folder for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("clipwise-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::copy(folder().join("model.safetensors"), path.join("model.safetensors")).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(feature = "bundled")]
#[test]
fn the_bundled_tagger_is_the_one_in_the_folder() {
    let clip = Waveform::new(signal(30_000, 16_000, 1), 16_000);
    let bundled = Tagger::bundled(&Device::Cpu).unwrap();
    assert_eq!(bundled.tag(&clip).unwrap(), shipped("ced-tiny").tag(&clip).unwrap());
}

#[test]
fn a_folder_opens_without_further_options() {
    let shipped = shipped("ced-tiny");
    assert_eq!((&*shipped.model().info().name, shipped.labels()), ("ced-tiny", &LabelSet::audioset()));

    // Without a config, and with the config of another library: detected from the tensors.
    let scratch = Scratch::new("folder");
    let open = || Tagger::open(&scratch.0, &Device::Cpu);
    assert_eq!(open().unwrap().model().info().name, "ced-tiny");
    let names: Vec<String> = (0..527).map(|i| format!("\"{i}\": \"sound {i}\"")).collect();
    scratch.write("config.json", &format!("{{\"model_type\": \"ced\", \"id2label\": {{{}}}}}", names.join(", ")));
    assert_eq!(open().unwrap().labels()[526].name, "sound 526");
    scratch.write("labels.txt", &(0..527).map(|i| format!("name {i}\n")).collect::<String>());
    assert_eq!(open().unwrap().labels()[0].name, "name 0");
    scratch.write("labels.txt", "one\n");
    assert!(matches!(open(), Err(Error::LabelCount { n_classes: 527, n_labels: 1 })));

    for (config, reason) in [
        ("{", "EOF"),
        ("{\"model\": \"cnn99\"}", "cnn99"),
        ("{\"model\": \"ced\", \"width\": 192}", "missing field"),
        ("{\"model\": \"ced\", \"widht\": 192}", "widht"),
    ] {
        scratch.write("config.json", config);
        let error = open().unwrap_err().to_string();
        assert!(error.contains("config.json") && error.contains(reason), "{error}");
    }
    std::fs::remove_file(scratch.0.join("model.safetensors")).unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("expected model.safetensors"), "{error}");
}
