//! A CUDA device against the CPU. Run on a machine with a device: `cargo test --features cuda --test cuda -- --ignored`.

mod common;

use candle_core::Tensor;
use clipwise::encoders::{Encoder, Layers, SpeechEncoder};
use clipwise::models::{cnn14, leenet};
use clipwise::{Detail, ModelConfig, TaggingModel, WaveformBatch, Weights, device, encoders, models};
use common::{assert_close, cnn14_tensors, complete, hashed, leenet_tensors, real, signal, values};

/// CUDA against the CPU: scores within 1e-4, embeddings within 1e-3 of the largest value.
fn assert_same(config: &ModelConfig, weights: &Weights, lengths: &[usize]) {
    let on = |device: &device::Device| {
        let model: Box<dyn TaggingModel> = config.load(weights, device).unwrap();
        let rate = model.info().sample_rate;
        let rows = (1..).zip(lengths).map(|(seed, &n)| signal(n, rate, seed)).collect();
        let output = model.forward(&WaveformBatch::new(rows, rate).unwrap(), Detail::Clip).unwrap();
        (values(&output.clipwise_output), values(&output.embedding))
    };
    let (cpu, cuda) = (on(&device::cpu()), on(&device::cuda(0).unwrap()));
    assert_close(&format!("{}: clipwise_output", config.name()), &cuda.0, &cpu.0, 1e-4, 0.0);
    assert_close(&format!("{}: embedding", config.name()), &cuda.1, &cpu.1, 1e-3 * largest(&cpu.1), 0.0);
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// Random weights for everything that `load` asks for. Norms are near the identity, and sums of products near the variance
/// of their inputs.
fn random<T>(load: impl Fn(&Weights) -> clipwise::Result<T>) -> Weights {
    let make = |name: &str, shape: &[usize]| {
        let on_decibels = name.starts_with("bn0.") || name.contains("init_bn");
        let limit = (3.0 / shape.iter().skip(1).product::<usize>() as f64).sqrt();
        let (low, high) = match name.rsplit('.').next() {
            Some("running_mean") if on_decibels => (-45.0, -35.0),
            Some("running_var") if on_decibels => (200.0, 300.0),
            Some("running_var") => (0.8, 1.2),
            Some("weight" | "gamma" | "alpha" | "weight_g" | "original0") if shape.len() == 1 => (0.9, 1.1),
            _ if shape.len() < 2 => (-0.1, 0.1),
            _ => (-limit, limit),
        };
        let values = hashed(name, shape.iter().product(), low, high, 5);
        (name.to_string(), Tensor::from_vec(values, shape, &device::cpu()).unwrap())
    };
    Weights::from_tensors(complete(Vec::new(), load, make)).unwrap()
}

#[test]
#[ignore = "needs a CUDA device"]
fn every_registered_model_equals_the_cpu() {
    for preset in models::presets() {
        let weights = random(|weights| preset.config.load(weights, &device::cpu()));
        assert_same(&preset.config, &weights, &[64_000, 48_000]);
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn every_registered_encoder_equals_the_cpu() {
    for preset in encoders::presets() {
        let weights = random(|weights| Encoder::load(&preset.config, weights, &device::cpu()));
        let on = |device: &device::Device| {
            let encoder = Encoder::load(&preset.config, &weights, device).unwrap();
            let rate = encoder.info().sample_rate;
            let rows = vec![signal(32_000, rate, 1), signal(20_000, rate, 2)];
            encoder.forward(&WaveformBatch::new(rows, rate).unwrap(), Layers::Last).unwrap()
        };
        let (cpu, cuda) = (on(&device::cpu()), on(&device::cuda(0).unwrap()));
        assert_eq!(cpu.lengths, cuda.lengths);
        let (cpu, cuda) = (values(&cpu.last), values(&cuda.last));
        assert_close(preset.name(), &cuda, &cpu, 1e-3 * largest(&cpu), 0.0);
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn best_selects_the_cuda_device() {
    let choice = device::choose("auto").unwrap();
    assert_eq!(device::name(&choice.device), "cuda:0", "{}", choice.reason);
    assert!(device::cuda(99).is_err());
}

#[test]
#[ignore = "needs a CUDA device"]
fn cnn14_equals_the_cpu() {
    for pooling in [clipwise::nn::Pooling::Avg, clipwise::nn::Pooling::Max, clipwise::nn::Pooling::AvgMax] {
        let channels = [8, 16, 16, 32, 32, 64];
        let config =
            cnn14::Config { channels, embedding_dim: 32, n_classes: 20, pooling, ..cnn14::Config::AUDIOSET_32K };
        let weights = cnn14_tensors(channels, 32, 20, 5).weights();
        assert_same(&ModelConfig::Cnn14(config), &weights, &[64_000, 1, 64_000, 40_000]);
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn full_width_cnn14_equals_the_cpu() {
    let config = cnn14::Config::AUDIOSET_32K;
    let weights = cnn14_tensors(config.channels, config.embedding_dim, config.n_classes, 5).weights();
    assert_same(&ModelConfig::Cnn14(config), &weights, &[320_000]);
}

#[test]
#[ignore = "needs a CUDA device"]
fn leenets_equal_the_cpu() {
    for config in [leenet::Config::LEENET11, leenet::Config::LEENET24] {
        let weights = leenet_tensors(&config, 5).weights();
        assert_same(&ModelConfig::LeeNet(config), &weights, &[64_000, 1, 2187]);
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn recurrent_layers_equal_the_cpu() {
    use candle_core::{Device, Tensor};
    use clipwise::nn::{Cell, Rnn, RnnConfig};
    for cell in [Cell::Gru, Cell::Lstm] {
        let config = RnnConfig { cell, inputs: 12, hidden: 24, n_layers: 2, bidirectional: true, bias: true };
        let on = |device: &Device| {
            let random = |name: &str, shape: &[usize]| {
                let values = common::hashed(name, shape.iter().product(), -0.2, 0.2, 1);
                Tensor::from_vec(values, shape, device).unwrap()
            };
            let rnn = Rnn::new(config, |name, shape| Ok(random(name, shape))).unwrap();
            let (frames, state) = rnn.forward(&random("x", &[3, 40, 12]), Some(&[40, 1, 17]), None).unwrap();
            (values(&frames), values(&state.h))
        };
        let (cpu, cuda) = (on(&device::cpu()), on(&device::cuda(0).unwrap()));
        assert_close("frames", &cuda.0, &cpu.0, 1e-5, 0.0);
        assert_close("states", &cuda.1, &cpu.1, 1e-5, 0.0);
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn the_published_crnn_equals_the_cpu() {
    let Some(checkpoint) = real("real/crnn-audioset/teacher1.pth") else { return };
    let weights = Weights::open(checkpoint).unwrap();
    assert_same(&ModelConfig::Crnn(clipwise::models::crnn::Config::GPVAD_TEACHER1), &weights, &[154_350]);
}

#[test]
#[ignore = "needs a CUDA device"]
fn the_published_leenet11_equals_the_cpu() {
    let Some(checkpoint) = real("real/panns-leenet11/LeeNet11.pth") else { return };
    let weights = Weights::open(checkpoint).unwrap();
    assert_same(&ModelConfig::LeeNet(leenet::Config::LEENET11), &weights, &[224_000]);
}
