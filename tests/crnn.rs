//! The CRNN against PyTorch.

mod common;

use candle_core::{Device, Tensor};
use clipwise::models::{crnn, detect};
use clipwise::nn::{Cell, Rnn, RnnConfig};
use clipwise::{Detail, Error, LabelSet, ModelConfig, Tagger, TaggingModel, Waveform, WaveformBatch, Weights};
use common::{Hashed, Kind, assert_close, golden, hashed, max_difference, real, signal, values};

const SEED: u64 = 41;

fn narrow() -> crnn::Config {
    crnn::Config { channels: [3, 5, 6, 5, 7], hidden: 9, n_classes: 4, ..crnn::Config::GPVAD_TEACHER1 }
}

/// The weights of golden/crnn.py.
fn weights(config: &crnn::Config) -> Weights {
    let mut tensors = Hashed::new(SEED);
    let mut inputs = 1;
    for (place, outputs) in [0, 2, 3, 5, 6].into_iter().zip(config.channels) {
        tensors.norm(&format!("features.{place}.block.0"), inputs);
        tensors.tensor(&format!("features.{place}.block.1.weight"), &[outputs, inputs, 3, 3], Kind::Conv);
        inputs = outputs;
    }
    tensors.linear("outputlayer", 2 * config.hidden, config.n_classes);
    let mut tensors = tensors.tensors();
    let hidden = config.hidden;
    let gru = RnnConfig { cell: Cell::Gru, inputs, hidden, n_layers: 1, bidirectional: true, bias: true };
    let high = 1.0 / (config.hidden as f64).sqrt();
    let parameter = |name: &str, shape: &[usize]| {
        let name = format!("gru.{name}");
        let values = hashed(&name, shape.iter().product(), -high, high, SEED);
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        tensors.push((name, tensor.clone()));
        Ok(tensor)
    };
    Rnn::new(gru, parameter).unwrap();
    Weights::from_tensors(tensors).unwrap()
}

fn model() -> crnn::Crnn {
    crnn::Crnn::load(&narrow(), &weights(&narrow()), &Device::Cpu).unwrap()
}

#[test]
fn every_stage_equals_pytorch() {
    let (reference, model) = (golden("crnn.safetensors"), model());
    let x = hashed("log_mel", 2 * 23 * 64, -20.0, 5.0, SEED);
    let x = Tensor::from_vec(x, (2, 1, 23, 64), &Device::Cpu).unwrap();
    let mut stages = model.stages(&x).unwrap();
    let output = model.forward_features(&x.squeeze(1).unwrap(), Detail::Clip).unwrap();
    stages.push(("framewise_output".to_string(), output.framewise_output.unwrap()));
    stages.push(("clipwise_output".to_string(), output.clipwise_output.clone()));
    for (stage, got) in stages {
        let expected = reference.to_vec(&stage).unwrap();
        assert_eq!(Some(got.dims()), reference.shape(&stage), "{stage}");
        // Maps hold values up to about 50, and fourth powers of them are summed: four times the error of the
        // convolutions.
        assert_close(&stage, &values(&got), &expected, 1e-5, 1e-5);
    }
    let probability = |x: &f32| 1.0 / (1.0 + (-x).exp());
    let from_logits: Vec<f32> = values(&output.logits).iter().map(probability).collect();
    assert_close("logits", &from_logits, &values(&output.clipwise_output), 1e-6, 0.0);
}

#[test]
fn a_row_of_a_mixed_batch_equals_the_clip_alone() {
    let model = model();
    assert_eq!(model.info().min_samples, 3 * 441);
    let lengths = [9000, 22_050, 1, 9000, 9001, 1500];
    let rows: Vec<Vec<f32>> = (0..).zip(lengths).map(|(seed, n)| signal(n, 22_050, seed)).collect();
    let together = model.forward(&WaveformBatch::new(rows.clone(), 22_050).unwrap(), Detail::Clip).unwrap();
    let frames = together.framewise_output.unwrap(); // [batch, n_frames, n_classes]
    assert_eq!(frames.dims(), [6, 51, 4]);
    for (i, row) in rows.into_iter().enumerate() {
        let alone = model.forward(&WaveformBatch::new(vec![row], 22_050).unwrap(), Detail::Clip).unwrap();
        let row = |tensor: &Tensor| values(&tensor.get(i).unwrap());
        assert_close(&format!("row {i}"), &row(&together.logits), &values(&alone.logits), 1e-5, 0.0);
        let alone = values(&alone.framewise_output.unwrap());
        let (own, beyond) = (&row(&frames)[..alone.len()], &row(&frames)[alone.len()..]);
        assert_close(&format!("row {i} frames"), own, &alone, 1e-6, 0.0);
        assert!(beyond.iter().all(|&y| y == 0.0), "row {i}");
    }
}

#[test]
fn invalid_inputs_and_configurations_are_typed_errors() {
    let zeros = |shape: (usize, usize, usize)| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    let model = model();
    let error = model.forward_features(&zeros((1, 3, 64)), Detail::Clip).unwrap_err();
    assert!(matches!(error, Error::TooShort { needed: 4, got: 3 }), "{error}");
    for shape in [(0, 8, 64), (1, 8, 15), (1, 8, 0)] {
        assert!(model.forward_features(&zeros(shape), Detail::Clip).is_err(), "{shape:?}");
    }
    let mut few_mels = narrow();
    few_mels.log_mel.mel.n_mels = 63;
    let no_window = crnn::Config { pooling: [(2, 0), (2, 4), (1, 4)], ..narrow() };
    let no_channels = crnn::Config { channels: [3, 0, 6, 5, 7], ..narrow() };
    let no_classes = crnn::Config { n_classes: 0, ..narrow() };
    for (field, config) in
        [("n_mels", few_mels), ("pooling", no_window), ("channels", no_channels), ("n_classes", no_classes)]
    {
        match crnn::Crnn::load(&config, &weights(&narrow()), &Device::Cpu) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn the_published_crnn_equals_pytorch_and_detects_a_telephone() {
    let (Some(folder), Some(clip)) = (real("real/crnn-audioset"), real("audio/R9_ZSCveAHg_7s.wav")) else { return };
    let weights = Weights::open(folder.join("teacher1.pth")).unwrap();
    let reference = Weights::open(folder.join("expected_R9.safetensors")).unwrap();
    let detected = detect(&weights).unwrap();
    assert_eq!(detected.config, ModelConfig::Crnn(crnn::Config::GPVAD_TEACHER1));
    let model = crnn::Crnn::load(&crnn::Config::GPVAD_TEACHER1, &weights, &Device::Cpu).unwrap();
    let log_mel = reference.tensor("log_mel", &Device::Cpu).unwrap().reshape((1, 351, 64)).unwrap();
    let output = model.forward_features(&log_mel, Detail::Clip).unwrap();
    let (clip_scores, frames) = (reference.to_vec("clipwise_output").unwrap(), output.framewise_output.unwrap());
    assert_close("clipwise_output", &values(&output.clipwise_output), &clip_scores, 1e-5, 0.0);
    let every_10th: Vec<f32> = values(&frames).chunks(527).step_by(10).flatten().copied().collect();
    assert_close("frames", &every_10th, &reference.to_vec("framewise_every_10th").unwrap(), 1e-5, 0.0);

    let clip = Waveform::open(clip).unwrap();
    let tagger = Tagger::open(folder.join("teacher1.pth"), &Device::Cpu).unwrap();
    assert_eq!(tagger.labels(), &LabelSet::audioset_by_name());
    assert_eq!(tagger.assumptions().len(), 1, "{:?}", tagger.assumptions());
    let tagging = tagger.tag(&clip).unwrap();
    let names: Vec<String> = tagging.top_k(2).into_iter().map(|tag| tag.label).collect();
    assert_eq!(names, ["Speech", "Telephone bell ringing"]);
    // Resampled from 32 kHz; the reference's waveform comes from soxr.
    println!("from the recording: off by {:e}", max_difference(&tagging.scores, &clip_scores));
    assert_close("from the recording", &tagging.scores, &clip_scores, 2e-4, 0.0);
}
