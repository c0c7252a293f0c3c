//! PaSST against the reference's spectrogram and network.

mod common;

use candle_core::{DType, Device, Tensor};
use clipwise::models::{OutputActivation, Passt, detect, passt};
use clipwise::{Detail, Error, ModelConfig, TaggingModel, WaveformBatch, Weights};
use common::{assert_close, complete, golden, signal, transformer_tensor, values};

const SEED: u64 = 75;

fn narrow(name: &str) -> passt::Config {
    let narrow = passt::Config {
        n_columns: 10,
        target_length: 100,
        width: 32,
        n_heads: 2,
        depth: 2,
        n_classes: 7,
        ..passt::Config::S10
    };
    match name {
        "s10" => narrow,
        _ => passt::Config { stride: 16, n_columns: 6, ..narrow },
    }
}

fn tensors(config: &passt::Config) -> Vec<(String, Tensor)> {
    let second_head = ("head_dist.bias".to_string(), Tensor::zeros(7, DType::F32, &Device::Cpu).unwrap());
    complete(
        vec![second_head],
        |weights| Passt::load(config, weights, &Device::Cpu),
        |name, shape| transformer_tensor(name, shape, SEED),
    )
}

fn load(config: &passt::Config) -> Passt {
    Passt::load(config, &Weights::from_tensors(tensors(config)).unwrap(), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 32_000, 9)).collect(), 32_000).unwrap()
}

#[test]
fn every_stage_equals_the_reference() {
    let golden = golden("passt.safetensors");
    for name in ["s10", "s16"] {
        let model = load(&narrow(name));
        for n in [4801, 20_000, 60_000] {
            let expected = |key: &str| golden.to_vec(&format!("{name}.{n}.{key}")).unwrap();
            let output = model.forward(&batch(&[n]), Detail::Clip).unwrap();
            assert_close(&format!("{name} {n}"), &values(&output.clipwise_output), &expected("scores"), 1e-5, 0.0);
            let embedding = expected("embedding");
            let largest = embedding.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            assert_close(&format!("{name} {n}"), &values(&output.embedding), &embedding, 1e-4 * largest, 0.0);
        }
        let expected = |key: &str| golden.to_vec(&format!("{name}.20000.{key}")).unwrap();
        let log_mel = model.log_mel().compute(&signal(20_000, 32_000, 9)).unwrap();
        let by_mel: Vec<f32> = log_mel.t().iter().copied().step_by(61).collect();
        assert_close("log_mel", &by_mel, &expected("log_mel"), 5e-5, 0.0); // the reference's tables are f32
        let log_mel = Tensor::from_iter(log_mel.iter().copied(), &Device::Cpu).unwrap().reshape((1, (), 128)).unwrap();
        let states: Vec<f32> = model.hidden_states(&log_mel).unwrap().iter().flat_map(values).step_by(13).collect();
        assert_close("states", &states, &expected("states"), 2e-5, 1e-5);
    }
}

#[test]
fn a_row_equals_the_clip_alone() {
    let model = load(&narrow("s10"));
    assert_eq!(model.info().min_samples, 4801);
    let lengths = [20_000, 1, 60_000, 4801, 20_000, 60_003, 4800];
    let together = model.forward(&batch(&lengths), Detail::Clip).unwrap();
    for (row, n) in lengths.into_iter().enumerate() {
        let alone = model.forward(&batch(&[n]), Detail::Clip).unwrap();
        assert_eq!(values(&together.logits.get(row).unwrap()), values(&alone.logits), "{n}");
        assert_eq!(values(&together.embedding.get(row).unwrap()), values(&alone.embedding), "{n}");
        let again = model.classify(&alone.embedding).unwrap();
        assert!(n >= 60_000 || values(&again.logits) == values(&alone.logits));
    }
    let short = Tensor::zeros((1, 15, 128), DType::F32, &Device::Cpu).unwrap();
    let error = model.forward_features(&short, Detail::Clip).unwrap_err();
    assert!(matches!(error, Error::TooShort { needed: 16, got: 15 }), "{error}");
}

#[test]
fn checkpoints_are_detected() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    for preset in [
        passt::Config::S10,
        passt::Config::S16,
        passt::Config::S20,
        passt::Config::S30,
        passt::Config::HOP160,
        passt::Config::HOP100,
    ] {
        let shallow = passt::Config { depth: 1, ..preset.clone() };
        let zeros =
            |name: &str, shape: &[usize]| (name.to_string(), Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap());
        let tensors = complete(Vec::new(), |weights| Passt::load(&shallow, weights, &Device::Cpu), zeros);
        let path = folder.join(if *preset.name == *"passt-hop160" { "passt-stfthop160.st" } else { "passt.st" });
        let tensors: std::collections::HashMap<_, _> = tensors.into_iter().collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let weights = Weights::open(&path).unwrap();
        let detected = detect(&weights).unwrap();
        assert_eq!(detected.config, ModelConfig::Passt(shallow));
        assert_eq!(detected.assumptions.len(), usize::from(*preset.name == *"passt-hop160"));
        std::fs::remove_file(path).unwrap();
    }
    let weights = Weights::from_tensors(tensors(&narrow("s10"))).unwrap();
    let ModelConfig::Passt(detected) = detect(&weights).unwrap().config else { panic!() };
    let expected = passt::Config { activation: OutputActivation::Softmax, n_heads: 1, ..narrow("s10") };
    assert_eq!(detected, expected);
    let refused = passt::Config { target_length: 116, ..narrow("s10") };
    let error = Passt::load(&refused, &weights, &Device::Cpu).unwrap_err();
    assert!(matches!(error, Error::Config { field: "target_length", .. }), "{error}");
}
