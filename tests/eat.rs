//! EAT against the reference's blocks, in the layouts of fairseq and of Hugging Face.

mod common;

use candle_core::{DType, Device, Tensor};
use clipwise::models::{Eat, OutputActivation, detect, eat};
use clipwise::{Detail, ModelConfig, TaggingModel, WaveformBatch, Weights};
use common::{assert_close, complete, golden, signal, transformer_tensor, values};

const SEED: u64 = 73;

fn narrow() -> eat::Config {
    eat::Config {
        target_length: 64,
        max_columns: 12,
        width: 32,
        n_heads: 2,
        ffn_dim: 128,
        depth: 2,
        n_classes: 7,
        ..eat::Config::BASE
    }
}

/// The tensors in the Hugging Face layout.
fn tensors(config: &eat::Config) -> Vec<(String, Tensor)> {
    complete(
        Vec::new(),
        |weights| Eat::load(config, weights, &Device::Cpu),
        |name, shape| transformer_tensor(name, shape, SEED),
    )
}

/// The same in fairseq's layout, with the encoder below a prefix.
fn fairseq(tensors: &[(String, Tensor)], prefix: &str) -> Vec<(String, Tensor)> {
    let renamed = |name: &str| match name.split('.').next().unwrap() {
        "head" | "fc_norm" => name.to_string(),
        "blocks" => format!("{prefix}{name}"),
        "pre_norm" => format!("{prefix}modality_encoders.IMAGE.{}", name.replace("pre_norm", "context_encoder.norm")),
        _ => format!("{prefix}modality_encoders.IMAGE.{name}"),
    };
    let extra = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let leftover = (format!("{prefix}modality_encoders.IMAGE.decoder.blocks.0.0.bias"), extra);
    tensors.iter().map(|(name, tensor)| (renamed(name), tensor.clone())).chain([leftover]).collect()
}

fn load(config: &eat::Config, tensors: Vec<(String, Tensor)>) -> Eat {
    Eat::load(config, &Weights::from_tensors(tensors).unwrap(), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 16_000, 9)).collect(), 16_000).unwrap()
}

#[test]
fn both_layouts_equal_the_reference() {
    let golden = golden("eat.safetensors");
    let hugging_face = tensors(&narrow());
    for (layout, tensors) in [("hf", hugging_face.clone()), ("fairseq", fairseq(&hugging_face, "model."))] {
        let head_eps = if layout == "hf" { 1e-5 } else { 1e-6 };
        let model = load(&eat::Config { head_eps, ..narrow() }, tensors);
        for n in [400, 9001, 24_000] {
            let expected = |key: &str| golden.to_vec(&format!("{layout}.{n}.{key}")).unwrap();
            let output = model.forward(&batch(&[n]), Detail::Clip).unwrap();
            assert_close(&format!("{layout} {n}"), &values(&output.clipwise_output), &expected("scores"), 1e-5, 0.0);
            let embedding = expected("embedding");
            let largest = embedding.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            assert_close(&format!("{layout} {n}"), &values(&output.embedding), &embedding, 1e-4 * largest, 0.0);
        }
        let features = model.front_end().unwrap().compute(&signal(9001, 16_000, 9)).unwrap();
        let features =
            Tensor::from_iter(features.iter().copied(), &Device::Cpu).unwrap().reshape((1, (), 128)).unwrap();
        let states: Vec<f32> = model.hidden_states(&features).unwrap().iter().flat_map(values).step_by(13).collect();
        assert_close("states", &states, &golden.to_vec("hf.9001.states").unwrap(), 2e-5, 1e-5);
    }
}

#[test]
fn a_row_equals_the_clip_alone() {
    for n_classes in [7, 0] {
        let kept =
            |(name, _): &(String, Tensor)| n_classes > 0 || !name.starts_with("head") && !name.starts_with("fc_norm");
        let config = eat::Config { n_classes, activation: OutputActivation::Softmax, ..narrow() };
        let model = load(&config, tensors(&narrow()).into_iter().filter(kept).collect());
        assert_eq!(model.info().min_samples, 400);
        let lengths = [9001, 1, 24_000, 400, 9001, 24_003];
        let together = model.forward(&batch(&lengths), Detail::Clip).unwrap();
        for (row, n) in lengths.into_iter().enumerate() {
            let alone = model.forward(&batch(&[n]), Detail::Clip).unwrap();
            assert_eq!(values(&together.logits.get(row).unwrap()), values(&alone.logits), "{n}");
            assert_eq!(values(&together.embedding.get(row).unwrap()), values(&alone.embedding), "{n}");
        }
        let mut padded = signal(1, 16_000, 9);
        padded.resize(400, 0.0);
        let padded = model.forward(&WaveformBatch::new(vec![padded], 16_000).unwrap(), Detail::Clip).unwrap();
        assert_eq!(values(&padded.embedding), values(&together.embedding.get(1).unwrap()));
    }
}

#[test]
fn checkpoints_are_detected() {
    let zeros = |config: &eat::Config| {
        complete(
            Vec::new(),
            |weights| Eat::load(config, weights, &Device::Cpu),
            |name, shape| (name.to_string(), Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()),
        )
    };
    let config = eat::Config { depth: 2, name: "eat".into(), ..eat::Config::BASE };
    let tensors = zeros(&config);
    let encoder = tensors.iter().filter(|(name, _)| !name.starts_with("head") && !name.starts_with("fc_norm"));
    let encoder: Vec<_> = encoder.cloned().collect();
    let lightning = fairseq(&tensors, "model.").into_iter().map(|(name, tensor)| (format!("net.{name}"), tensor));
    let loss = ("loss.weight".to_string(), Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap());
    for (tensors, n_classes, head_eps) in [
        (fairseq(&tensors, "model."), 527, 1e-6),
        (fairseq(&encoder, ""), 0, 1e-6),
        (lightning.chain([loss]).collect(), 527, 1e-6),
        (encoder, 0, 1e-5),
        (tensors, 527, 1e-5),
    ] {
        let weights = Weights::from_tensors(tensors).unwrap();
        let detected = detect(&weights).unwrap().config;
        assert_eq!(detected, ModelConfig::Eat(eat::Config { n_classes, head_eps, ..config.clone() }));
        detected.load(&weights, &Device::Cpu).unwrap();
    }
    let shallow = eat::Config { depth: 1, n_classes: 50, activation: OutputActivation::Softmax, ..eat::Config::LARGE };
    let weights = Weights::from_tensors(fairseq(&zeros(&shallow), "model.")).unwrap();
    let expected = eat::Config { name: "eat".into(), ..shallow };
    assert_eq!(detect(&weights).unwrap().config, ModelConfig::Eat(expected));
    let ModelConfig::Eat(named) = ModelConfig::by_name("sslam", &weights).unwrap() else { panic!() };
    assert_eq!((&*named.name, named.width, named.n_heads, named.n_classes), ("sslam", 1024, 16, 50));
}
