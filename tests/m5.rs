//! The M5 family against PyTorch: layers, checkpoints and invalid configurations.

mod common;

use candle_core::{Device, Tensor};
use clipwise::models::m5::{Config, M5, Stage};
use clipwise::models::{detect, presets};
use clipwise::{Assumption, Detail, Error, ModelConfig, TaggingModel, WaveformBatch, Weights};
use common::{assert_close, golden, hashed, m5_tensors, real, signal, values};

const SEED: u64 = 17;

/// A preset with its widths divided, and 7 classes.
fn narrow(preset: Config, by: usize) -> Config {
    let narrow = |stage: &Stage| Stage { channels: stage.channels / by, ..*stage };
    let stages = preset.stages.iter().map(narrow).collect();
    Config { channels: preset.channels / by, stages, n_classes: 7, ..preset }
}

fn model(config: &Config) -> M5 {
    M5::load(config, &m5_tensors(config, SEED).weights(), &Device::Cpu).unwrap()
}

#[test]
fn every_layer_equals_pytorch() {
    let reference = golden("m5.safetensors");
    for (name, config, lengths) in [
        ("m5", Config::M5, &[6848, 8000][..]),
        ("m3", narrow(Config::M3_PAPER, 16), &[2000]),
        ("m5-paper", narrow(Config::M5_PAPER, 16), &[2000]),
        ("m11", narrow(Config::M11_PAPER, 16), &[2000]),
        ("m18", narrow(Config::M18_PAPER, 16), &[2000]),
        ("m34-res", narrow(Config::M34_RES_PAPER, 16), &[2000]),
    ] {
        let model = model(&config);
        assert_eq!(model.info().name, name);
        for &n in lengths {
            let clip = signal(n, 8_000, 1);
            let x = Tensor::from_slice(&clip, (1, 1, n), &Device::Cpu).unwrap();
            let mut stages = model.stages(&x).unwrap();
            let output = model.forward(&WaveformBatch::new(vec![clip], 8_000).unwrap(), Detail::Clip).unwrap();
            stages.push(("embedding".into(), output.embedding));
            stages.push(("logits".into(), output.logits));
            stages.push(("clipwise_output".into(), output.clipwise_output));
            let mut compared = 0;
            for (stage, got) in stages {
                let key = format!("{name}.{n}.{stage}");
                let Some(shape) = reference.shape(&key) else { continue };
                let expected = reference.to_vec(&key).unwrap();
                assert_eq!(got.dims(), shape, "{key}");
                // f32 rounding in up to 35 layers, relative to the layer's largest value.
                let largest = expected.iter().fold(1.0f32, |largest, x| largest.max(x.abs()));
                assert_close(&key, &values(&got), &expected, 1e-5 * largest, 0.0);
                compared += 1;
            }
            assert!(compared >= if n == 8000 { 3 } else { 5 }, "{name}: {compared} stages");
        }
    }
}

#[test]
fn published_parameter_counts_and_shortest_clips() {
    for (config, parameters, min_samples) in [
        (Config::M5, 26_915, 6_848),
        (Config::M3_PAPER, 221_194, 64),
        (Config::M5_PAPER, 559_114, 1_024),
        (Config::M11_PAPER, 1_786_442, 1_024),
        (Config::M18_PAPER, 3_683_786, 1_024),
        (Config::M34_RES_PAPER, 3_984_154, 1_024),
    ] {
        // The loader expects exactly these tensors.
        let tensors = m5_tensors(&config, 1).tensors();
        let trained = tensors.iter().filter(|(name, _)| !name.contains("running_"));
        assert_eq!(trained.map(|(_, tensor)| tensor.elem_count()).sum::<usize>(), parameters);
        let weights = Weights::from_tensors(tensors).unwrap();
        let model = M5::load(&config, &weights, &Device::Cpu).unwrap();
        assert_eq!(model.info().min_samples, min_samples, "{}", model.info().name);
        assert_eq!(detect(&weights).unwrap().config, ModelConfig::M5(config.clone()));
        let preset = presets().find(|preset| preset.name() == model.info().name).unwrap();
        assert_eq!(preset.config, ModelConfig::M5(config));

        // With one sample fewer, the clip is padded to the same; one frame comes out.
        let x = |n: usize| Tensor::from_vec(signal(n, 8_000, 2), (1, 1, n), &Device::Cpu).unwrap();
        assert!(model.forward_samples(&x(min_samples)).is_ok());
        let error = model.forward_samples(&x(min_samples - 1)).unwrap_err();
        assert!(matches!(error, Error::TooShort { needed, got } if needed == min_samples && got == needed - 1));
        let mut clip = signal(min_samples - 1, 8_000, 2);
        let scores = |clip: &[f32]| {
            values(
                &model.forward(&WaveformBatch::new(vec![clip.to_vec()], 8_000).unwrap(), Detail::Clip).unwrap().logits,
            )
        };
        let short = scores(&clip);
        clip.push(0.0);
        assert_eq!(short, scores(&clip));
        assert!(scores(&[0.5]).iter().all(|x| x.is_finite()));
    }
}

#[test]
fn a_row_of_a_mixed_batch_equals_the_clip_alone_for_any_number_of_threads() {
    for config in [Config::M5, narrow(Config::M34_RES_PAPER, 16)] {
        let model = model(&config);
        let rows: Vec<Vec<f32>> = [8000, 1, 7000, 8000, 8001].into_iter().map(|n| signal(n, 8_000, n as u64)).collect();
        let forward =
            |rows: Vec<Vec<f32>>| model.forward(&WaveformBatch::new(rows, 8_000).unwrap(), Detail::Clip).unwrap();
        let together = values(&forward(rows.clone()).logits);
        for threads in [1, 3] {
            let threads = clipwise::device::Threads::new(threads).unwrap();
            let alone = rows.iter().flat_map(|row| threads.run(|| values(&forward(vec![row.clone()]).logits)));
            assert_eq!(alone.collect::<Vec<_>>(), together);
        }
    }
}

/// A published M5 whose layers form a `Sequential`, against its definition in f64 (the checkpoint is published without
/// outputs).
#[test]
fn a_published_checkpoint_loads_and_equals_its_definition() {
    let Some(folder) = real("real/m5-cat-sounds") else { return };
    let weights = Weights::open(folder.join("m5_catsound.safetensors")).unwrap();
    let detected = detect(&weights).unwrap();
    let ModelConfig::M5(config) = &detected.config else { panic!("{:?}", detected.config) };
    let stages = [(64, 1), (128, 1), (128, 1)].map(|(channels, layers)| Stage { channels, layers });
    assert_eq!(*config, Config { channels: 64, stages: stages.to_vec().into(), n_classes: 10, ..Config::M5 });
    let model = "M5".to_string();
    let assumed =
        [Assumption::SampleRate { model: model.clone(), sample_rate: 8_000 }, Assumption::Stride { model, stride: 16 }];
    assert_eq!(detected.assumptions, assumed);
    let model = M5::load(config, &weights, &Device::Cpu).unwrap();
    let x = hashed("x", 20_000, -1.0, 1.0, SEED);
    let output = model.forward(&WaveformBatch::new(vec![x.clone()], 8_000).unwrap(), Detail::Clip).unwrap();
    let reference = by_definition(&weights, &x);
    assert_close("logits", &values(&output.logits), &reference, 1e-4, 1e-5);
}

/// Four times convolution, norm, ReLU and max pooling over 4; then mean and linear layer.
fn by_definition(weights: &Weights, samples: &[f32]) -> Vec<f32> {
    let get = |name: &str| -> Vec<f64> { weights.to_vec(name).unwrap().into_iter().map(f64::from).collect() };
    let mut x: Vec<Vec<f64>> = vec![samples.iter().map(|&x| f64::from(x)).collect()];
    for place in [0, 5, 10, 15] {
        let part = |layer: usize, leaf: &str| get(&format!("model.{}.{leaf}", place + layer));
        let shape = weights.shape(&format!("model.{place}.weight")).unwrap();
        let (inputs, kernel, step) = (shape[1], shape[2], if place == 0 { 16 } else { 1 });
        let (filters, bias) = (part(0, "weight"), part(0, "bias"));
        let (scale, shift, mean, variance) =
            (part(1, "weight"), part(1, "bias"), part(1, "running_mean"), part(1, "running_var"));
        let length = (x[0].len() - kernel) / step + 1;
        let value = |output: usize, at: usize| {
            let sum: f64 = (0..inputs)
                .flat_map(|input| (0..kernel).map(move |k| (input, k)))
                .map(|(input, k)| filters[(output * inputs + input) * kernel + k] * x[input][at * step + k])
                .sum();
            let y = (sum + bias[output] - mean[output]) / (variance[output] + 1e-5).sqrt();
            (y * scale[output] + shift[output]).max(0.0)
        };
        let row = |output: usize| -> Vec<f64> {
            let row: Vec<f64> = (0..length).map(|at| value(output, at)).collect();
            row.chunks_exact(4).map(|window| window.iter().copied().fold(0.0, f64::max)).collect()
        };
        x = (0..shape[0]).map(row).collect();
    }
    let mean: Vec<f64> = x.iter().map(|row| row.iter().sum::<f64>() / row.len() as f64).collect();
    let (weight, bias) = (get("fc.weight"), get("fc.bias"));
    let dot = |row: &[f64]| row.iter().zip(&mean).map(|(a, b)| a * b).sum::<f64>();
    weight.chunks(mean.len()).zip(bias).map(|(row, bias)| (dot(row) + bias) as f32).collect()
}

#[test]
fn invalid_configurations_are_typed_errors() {
    let stages = |channels: usize, layers: usize| vec![Stage { channels, layers }; 3].into();
    let many = vec![Stage { channels: 1, layers: 1 }; 40].into();
    for (field, config) in [
        ("kernel", Config { kernel: 0, ..Config::M5 }),
        ("stride", Config { stride: 0, ..Config::M5 }),
        ("pool", Config { pool: 0, ..Config::M5 }),
        ("channels", Config { channels: usize::MAX, ..Config::M5 }),
        ("n_classes", Config { n_classes: 0, ..Config::M5 }),
        ("sample_rate", Config { sample_rate: 0, ..Config::M5 }),
        ("stages", Config { stages: stages(0, 1), ..Config::M5 }),
        ("stages", Config { stages: stages(1, usize::MAX), ..Config::M5 }),
        ("stages", Config { stages: many, ..Config::M5 }),
        ("stages", Config { stages: stages(50, 1), ..Config::M34_RES_PAPER }),
        ("residual", Config { padded: false, ..Config::M34_RES_PAPER }),
    ] {
        match M5::load(&config, &m5_tensors(&Config::M5, 1).weights(), &Device::Cpu) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, field, "{config:?}"),
            other => panic!("{field}: {other:?}"),
        }
    }
    let error = M5::load(&Config::M3_PAPER, &m5_tensors(&Config::M5, 1).weights(), &Device::Cpu).unwrap_err();
    assert!(matches!(error, Error::Weights(_)), "{error}");
}

#[test]
fn a_config_survives_json() {
    for config in [Config::M5, Config::M34_RES_PAPER].map(ModelConfig::M5) {
        let json = serde_json::to_string(&config).unwrap();
        assert!(json.starts_with("{\"model\":\"m5\""), "{json}");
        assert_eq!(serde_json::from_str::<ModelConfig>(&json).unwrap(), config);
    }
}
