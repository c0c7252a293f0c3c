//! ConvNeXt against the reference's class: batches, short clips and frames.

mod common;

use candle_core::{Device, Tensor};
use clipwise::models::convnext::{Config, Stem};
use clipwise::models::{ConvNext, detect};
use clipwise::{Detail, Error, ModelConfig, TaggingModel, WaveformBatch, Weights};
use common::{Hashed, Kind, assert_close, golden, hashed, signal, values};

const SEED: u64 = 47;
const LENGTHS: [usize; 3] = [23 * 320, 61 * 320 + 7, 39_584];
const WIDE: Stem = Stem { kernel: [9, 2], stride: [9, 2], padding: 4 };

fn weights(config: &Config, seed: u64) -> Weights {
    let mut tensors = Hashed::new(seed);
    let Config { stem, depths, channels, .. } = config;
    tensors.norm("bn0", 224);
    let layer_norm = |tensors: &mut Hashed, name: String, channels: usize| {
        for leaf in ["weight", "bias"] {
            tensors.tensor(&format!("{name}.{leaf}"), &[channels], Kind::Norm);
        }
    };
    let conv = |tensors: &mut Hashed, name: String, shape: &[usize]| {
        tensors.tensor(&format!("{name}.weight"), shape, Kind::Conv);
        tensors.tensor(&format!("{name}.bias"), &shape[..1], Kind::Conv);
    };
    let mut gammas = Vec::new();
    for (i, (&depth, &width)) in depths.iter().zip(channels).enumerate() {
        let [norm, layer] = [usize::from(i == 0), usize::from(i > 0)].map(|at| format!("downsample_layers.{i}.{at}"));
        let before = if i == 0 { 1 } else { channels[i - 1] };
        let kernel = if i == 0 { stem.kernel } else { [2, 2] };
        layer_norm(&mut tensors, norm, if i == 0 { width } else { before });
        conv(&mut tensors, layer, &[width, before, kernel[0], kernel[1]]);
        for block in (0..depth).map(|block| format!("stages.{i}.{block}")) {
            conv(&mut tensors, format!("{block}.dwconv"), &[width, 1, 7, 7]);
            layer_norm(&mut tensors, format!("{block}.norm"), width);
            tensors.linear(&format!("{block}.pwconv1"), width, 4 * width);
            tensors.linear(&format!("{block}.pwconv2"), 4 * width, width);
            gammas.push((format!("{block}.gamma"), width));
        }
    }
    layer_norm(&mut tensors, "norm".to_string(), channels[3]);
    tensors.linear("head_audioset", channels[3], config.n_classes);
    let mut tensors = tensors.tensors();
    for (name, width) in gammas {
        let gamma = Tensor::new(hashed(&name, width, 0.5, 1.5, seed), &Device::Cpu).unwrap();
        tensors.push((name, gamma));
    }
    Weights::from_tensors(tensors).unwrap()
}

fn narrow(stem: Stem) -> Config {
    Config { stem, depths: [1, 1, 2, 1], channels: [8, 16, 24, 40], n_classes: 11, ..Config::TINY }
}

fn load(stem: Stem) -> ConvNext {
    ConvNext::load(&narrow(stem), &weights(&narrow(stem), SEED), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 32_000, 3)).collect(), 32_000).unwrap()
}

#[test]
fn every_stage_equals_the_reference() {
    let golden = golden("convnext.safetensors");
    for (name, stem) in [("narrow", Stem::STEPS_252), ("wide", WIDE)] {
        let model = load(stem);
        for n in LENGTHS {
            if name == "wide" && n != LENGTHS[2] {
                continue;
            }
            let expected = |key: &str| golden.to_vec(&format!("{name}.{n}.{key}")).unwrap();
            let output = model.forward(&batch(&[n]), Detail::Clip).unwrap();
            let what = format!("{name} {n}");
            assert_close(&what, &values(&output.clipwise_output), &expected("clipwise_output"), 1e-5, 0.0);
            assert_close(&what, &values(&output.embedding), &expected("embedding"), 1e-4, 0.0);
            if (name, n) != ("narrow", LENGTHS[1]) {
                continue;
            }
            let every = |n: usize, values: Vec<f32>| values.into_iter().step_by(n).collect::<Vec<_>>();
            let log_mel = model.log_mel().compute(&signal(n, 32_000, 3)).unwrap();
            assert_close("log-mel", &every(29, log_mel.iter().copied().collect()), &expected("log_mel"), 1e-3, 0.0);
            let log_mel = Tensor::from_iter(log_mel.clone(), &Device::Cpu).unwrap().reshape((1, (), 224)).unwrap();
            let mut n_stages = 0;
            let observe = |stage: usize, x: &Tensor| {
                let key = format!("stage{stage}");
                assert_close(&key, &every(5, values(x)), &expected(&key), 2e-5, 1e-5);
                n_stages += 1;
                Ok(())
            };
            model.forward_observed(&log_mel, Detail::Clip, observe).unwrap();
            assert_eq!(n_stages, 4);
        }
    }
}

#[test]
fn rows_short_clips_and_frames_equal_those_of_the_clip_alone() {
    let model = load(Stem::STEPS_252);
    assert_eq!(model.info().min_samples, 7360);
    let lengths = [16_000, 39_584, 1, 16_000];
    let together = model.forward(&batch(&lengths), Detail::Frames).unwrap();
    for (row, n) in lengths.into_iter().enumerate() {
        let alone = model.forward(&batch(&[n]), Detail::Frames).unwrap();
        assert_eq!(values(&together.clipwise_output.get(row).unwrap()), values(&alone.clipwise_output), "{n}");
        let frames = alone.framewise_output.unwrap();
        assert_eq!(frames.dims()[1], 1 + n.max(7360) / 320);
    }
    // In a clip of one step, the frames equal the clip's result.
    let short = model.forward(&batch(&[7360]), Detail::Frames).unwrap();
    let frames = values(&short.framewise_output.unwrap());
    assert_close("one step", &frames[..11], &values(&short.clipwise_output), 1e-6, 0.0);
    let short = Tensor::zeros((1, 23, 224), candle_core::DType::F32, &Device::Cpu).unwrap();
    let error = model.forward_features(&short, Detail::Clip);
    assert!(matches!(error, Err(Error::TooShort { needed: 24, got: 23 })), "{error:?}");
}

#[test]
fn checkpoints_are_detected() {
    for (stem, prefix) in [(Stem::STEPS_252, ""), (WIDE, "net.")] {
        let expected = Config { name: "convnext".into(), ..narrow(stem) };
        let weights = weights(&expected, SEED);
        let named =
            weights.names().map(|name| (format!("{prefix}{name}"), weights.tensor(name, &Device::Cpu).unwrap()));
        let weights = Weights::from_tensors(named).unwrap();
        let detected = detect(&weights).unwrap();
        assert_eq!(
            (detected.config.clone(), &*detected.place),
            (ModelConfig::from(expected), prefix.trim_end_matches('.'))
        );
        detected.config.load(&weights, &Device::Cpu).unwrap();
    }
    let bad = [
        Config { depths: [3, 3, 257, 3], ..Config::TINY },
        Config { stem: Stem { stride: [0, 4], ..Stem::STEPS_252 }, ..Config::TINY },
        Config { stem: Stem { kernel: [4, 4], stride: [4, 64], padding: 4 }, ..Config::TINY },
    ];
    for config in bad {
        let error = ConvNext::load(&config, &weights(&narrow(Stem::STEPS_252), SEED), &Device::Cpu);
        assert!(matches!(error, Err(Error::Config { .. })), "{error:?}");
    }
}
