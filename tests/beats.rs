//! BEATs against the classes of PretrainedSED and ESPnet: both heads, labels, and frames.

mod common;

use candle_core::{DType, Device, Tensor};
use clipwise::models::{Beats, beats, detect};
use clipwise::{Assumption, Detail, Error, ModelConfig, TaggingModel, WaveformBatch, Weights};
use common::{assert_close, complete, golden, golden_path, signal, transformer_tensor, values};

const SEED: u64 = 74;
const PREDICTOR: [&str; 2] = ["", "predictor"];
const ESPNET: [&str; 2] = ["encoder.", "decoder.linear_out"];
const STRONG: [&str; 2] = ["model.beats.", "strong_head"];

fn narrow(preset: beats::Config) -> beats::Config {
    beats::Config {
        target_length: 128,
        patch_dim: 24,
        width: 32,
        n_heads: 4,
        ffn_dim: 48,
        depth: 2,
        position_kernel: 16,
        position_groups: 4,
        n_buckets: 32,
        max_distance: 60,
        n_classes: if preset.strong { 5 } else { 7 },
        ..preset
    }
}

/// The tensors of a model in one layout, with the values of another. Weight norms have the given names.
fn tensors(
    config: &beats::Config,
    layout: [&str; 2],
    values_of: [&str; 2],
    weight_norm: [&str; 2],
) -> Vec<(String, Tensor)> {
    let name_in = |[encoder, head]: [&str; 2], name: &str| match name.strip_prefix("predictor") {
        Some(leaf) => format!("{head}{leaf}"),
        None => format!("{encoder}{name}"),
    };
    let make = |name: &str, shape: &[usize]| {
        (name_in(layout, name), transformer_tensor(&name_in(values_of, name), shape, SEED).1)
    };
    let given = [(weight_norm[0], vec![1, 1, 16]), (weight_norm[1], vec![32, 8, 16])];
    let given = given.map(|(leaf, shape)| make(&format!("encoder.pos_conv.0.{leaf}"), &shape)).to_vec();
    let plain = |name: &str| match name.strip_prefix(layout[1]) {
        Some(leaf) => format!("predictor{leaf}"),
        None => name.strip_prefix(layout[0]).unwrap().to_string(),
    };
    // Given one tensor of the layout, the model asks for the others by that layout's names.
    let patches = make("patch_embedding.weight", &[24, 1, 16, 16]);
    let head = make("predictor.weight", &[config.n_classes, 32]);
    let given =
        if config.n_classes > 0 { [given, vec![patches, head]].concat() } else { [given, vec![patches]].concat() };
    complete(
        given,
        |weights| Beats::load(config, weights, &Device::Cpu),
        |name, shape| (name.to_string(), transformer_tensor(&name_in(values_of, &plain(name)), shape, SEED).1),
    )
}

const NEW_NORM: [&str; 2] = ["parametrizations.weight.original0", "parametrizations.weight.original1"];
const OLD_NORM: [&str; 2] = ["weight_g", "weight_v"];

fn load(config: &beats::Config, tensors: Vec<(String, Tensor)>) -> Beats {
    Beats::load(config, &Weights::from_tensors(tensors).unwrap(), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 16_000, 9)).collect(), 16_000).unwrap()
}

fn assert_equals_reference(name: &str, model: &Beats, lengths: &[usize]) {
    let golden = golden("beats.safetensors");
    for &n in lengths {
        let expected = |key: &str| golden.to_vec(&format!("{name}.{n}.{key}")).unwrap();
        let output = model.forward(&batch(&[n]), Detail::Clip).unwrap();
        if model.info().n_classes > 0 {
            assert_close(&format!("{name} {n}"), &values(&output.clipwise_output), &expected("scores"), 1e-5, 0.0);
        }
        let embedding = expected("embedding");
        let largest = embedding.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert_close(&format!("{name} {n}"), &values(&output.embedding), &embedding, 1e-4 * largest, 0.0);
    }
    let features = model.front_end().unwrap().compute(&signal(9001, 16_000, 9)).unwrap();
    let features = Tensor::from_iter(features.iter().copied(), &Device::Cpu).unwrap().reshape((1, (), 128)).unwrap();
    let states: Vec<f32> = model.hidden_states(&features).unwrap().iter().flat_map(values).step_by(13).collect();
    assert_close("states", &states, &golden.to_vec(&format!("{name}.9001.states")).unwrap(), 2e-5, 1e-5);
}

#[test]
fn every_layout_equals_both_references() {
    let config = narrow(beats::Config::BASE);
    let published = tensors(&config, PREDICTOR, PREDICTOR, NEW_NORM);
    let model = load(&config, published.clone());
    assert_equals_reference("beats", &model, &[2800, 9001, 40_000]);
    let output = model.forward(&batch(&[9001]), Detail::Clip).unwrap();
    let again = model.classify(&output.embedding).unwrap();
    assert_eq!(values(&again.clipwise_output), values(&output.clipwise_output));

    // The table of distances in every block, as in a state dict.
    let (_, table) = published.iter().find(|(name, _)| name.contains("relative_attention_bias")).unwrap().clone();
    let repeated = ("encoder.layers.1.self_attn.relative_attention_bias.weight".to_string(), table);
    let repeated = load(&config, published.into_iter().chain([repeated]).collect());
    assert_eq!(values(&repeated.forward(&batch(&[9001]), Detail::Clip).unwrap().logits), values(&output.logits));

    let open = beats::Config { target_length: 3072, ..narrow(beats::Config::OPEN_BASE) };
    let values_of = ["", "decoder.linear_out"];
    assert_equals_reference("open", &load(&open, tensors(&open, ESPNET, values_of, OLD_NORM)), &[9001, 40_000]);
    let encoder = beats::Config { n_classes: 0, ..open };
    assert_equals_reference(
        "open",
        &load(&encoder, tensors(&encoder, PREDICTOR, PREDICTOR, OLD_NORM)),
        &[9001, 40_000],
    );
}

#[test]
fn the_strong_head_classifies_frames_of_40_ms() {
    let golden = golden("beats.safetensors");
    let config = narrow(beats::Config::STRONG);
    let all = tensors(&config, STRONG, STRONG, NEW_NORM);
    // Named as in the published file, including an unused head.
    let mut published: Vec<_> =
        all.iter().map(|(name, x)| (name.replace("model.beats", "model.model"), x.clone())).collect();
    published.push(("weak_head.bias".to_string(), Tensor::zeros(5, DType::F32, &Device::Cpu).unwrap()));
    for tensors in [all, published] {
        let model = load(&config, tensors);
        assert_eq!(model.info().min_samples, 160_000);
        assert_eq!(model.info().frames.unwrap().step, 640);
        for n in [160_000, 250_000] {
            let output = model.forward(&batch(&[n]), Detail::Frames).unwrap();
            let frames = output.framewise_output.unwrap();
            assert_eq!(frames.dims(), [1, n.div_ceil(640), 5]);
            let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
            let expected: Vec<f32> =
                golden.to_vec(&format!("strong.{n}.frames")).unwrap().into_iter().map(sigmoid).collect();
            let got: Vec<f32> = values(&frames).into_iter().step_by(7).collect();
            assert_close("frames", &got, &expected, 1e-5, 0.0);
            let expected = golden.to_vec(&format!("strong.{n}.scores")).unwrap();
            assert_close("scores", &values(&output.clipwise_output), &expected, 1e-5, 0.0);
        }
        let lengths = [250_000, 30_000, 160_000];
        let together = model.forward(&batch(&lengths), Detail::Frames).unwrap();
        for (row, n) in lengths.into_iter().enumerate() {
            let alone = model.forward(&batch(&[n]), Detail::Frames).unwrap();
            assert_eq!(values(&together.logits.get(row).unwrap()), values(&alone.logits), "{n}");
            let frames = values(&alone.framewise_output.unwrap());
            let row = values(&together.framewise_output.as_ref().unwrap().get(row).unwrap());
            assert_eq!(row[..frames.len()], frames, "{n}");
        }
        // A model that classifies frames returns them for any detail.
        let shortest = model.forward(&batch(&[1]), Detail::Clip).unwrap();
        assert_eq!(shortest.framewise_output.unwrap().dims(), [1, 250, 5]);
        assert!(model.classify(&together.embedding).is_err());
    }
}

#[test]
fn a_row_equals_the_clip_alone() {
    let config = narrow(beats::Config::BASE);
    let model = load(&config, tensors(&config, PREDICTOR, PREDICTOR, OLD_NORM));
    assert_eq!(model.info().min_samples, 2800);
    let lengths = [9001, 1, 40_000, 2800, 9001, 40_003, 2799];
    let together = model.forward(&batch(&lengths), Detail::Clip).unwrap();
    for (row, n) in lengths.into_iter().enumerate() {
        let alone = model.forward(&batch(&[n]), Detail::Clip).unwrap();
        assert_eq!(values(&together.logits.get(row).unwrap()), values(&alone.logits), "{n}");
        assert_eq!(values(&together.embedding.get(row).unwrap()), values(&alone.embedding), "{n}");
    }
    let short = Tensor::zeros((1, 15, 128), DType::F32, &Device::Cpu).unwrap();
    let error = model.forward_features(&short, Detail::Clip).unwrap_err();
    assert!(matches!(error, Error::TooShort { needed: 16, got: 15 }), "{error}");
}

#[test]
fn classes_are_in_the_order_of_the_checkpoint() {
    let path = golden_path("beats_labels.pth");
    assert_eq!(Weights::open(&path).unwrap().metadata()["label_dict"], "/m/0bt9lr\n/m/09x0r\nmy own");
    assert!(Weights::open(golden_path("beats_labels_gap.pth")).unwrap().metadata().is_empty());
    let config = beats::Config { n_classes: 3, ..narrow(beats::Config::BASE) };
    let tensors = tensors(&config, PREDICTOR, PREDICTOR, NEW_NORM);
    // The same tensors with the labels from the file's metadata.
    let weights = Weights::open(&path).unwrap().overlaid(&Weights::from_tensors(tensors.clone()).unwrap());
    let model = Beats::load(&config, &weights, &Device::Cpu).unwrap();
    let labels = model.info().labels.clone().unwrap();
    assert_eq!(labels.iter().map(|label| &*label.name).collect::<Vec<_>>(), ["Dog", "Speech", "my own"]);
    assert_eq!(labels[0].id.as_deref(), Some("/m/0bt9lr"));
    assert!(detect(&weights).unwrap().assumptions.is_empty());
    // Without labels, AudioSet's order would be wrong.
    let weights = Weights::from_tensors(tensors).unwrap();
    assert_eq!(detect(&weights).unwrap().assumptions, [Assumption::NumberedLabels { n_classes: 3 }]);
    let model = Beats::load(&config, &weights, &Device::Cpu).unwrap();
    assert_eq!(model.info().labels.as_ref().unwrap()[2].name, "class 2");
}

#[test]
fn checkpoints_are_detected() {
    for (preset, layout) in [
        (beats::Config::BASE, PREDICTOR),
        (beats::Config::OPEN_BASE, ESPNET),
        (beats::Config::STRONG, STRONG),
        (beats::Config::OPEN_BASE, ["encoder.", "none"]),
    ] {
        let n_classes = if layout[1] == "none" { 0 } else { preset.n_classes };
        let preset = beats::Config { n_classes, ..preset };
        let small = beats::Config { depth: 1, name: "beats".into(), ..preset.clone() };
        let zeros =
            |name: &str, shape: &[usize]| (name.to_string(), Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap());
        let given = [
            zeros(&format!("{}patch_embedding.weight", layout[0]), &[512, 1, 16, 16]),
            zeros(&format!("{}.weight", layout[1]), &[n_classes.max(1), 768]),
        ];
        let given = given[..if n_classes > 0 { 2 } else { 1 }].to_vec();
        let tensors = complete(given, |weights| Beats::load(&small, weights, &Device::Cpu), zeros);
        let weights = Weights::from_tensors(tensors).unwrap();
        let detected = detect(&weights).unwrap();
        let is_strong = small.strong;
        assert_eq!(detected.config, ModelConfig::Beats(small));
        assert_eq!(detected.assumptions.len(), usize::from(n_classes > 0 && !is_strong));
        let model = detected.config.load(&weights, &Device::Cpu).unwrap();
        assert_eq!(model.info().labels.as_ref().unwrap().index_of("Speech").is_some(), is_strong);
        let ModelConfig::Beats(named) = ModelConfig::by_name(&preset.name, &weights).unwrap() else { panic!() };
        assert_eq!(named, beats::Config { depth: 1, ..preset });
    }
}
