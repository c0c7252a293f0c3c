//! AST against transformers: folders with their own labels, both naming schemes of transformers, and the original's
//! layout.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use clipwise::models::{Ast, OutputActivation, ast, detect};
use clipwise::{Detail, Error, ModelConfig, Tagger, TaggingModel, Waveform, WaveformBatch, Weights};
use common::{assert_close, complete, golden, signal, transformer_tensor, values};
use serde_json::{Value, json};

const SEED: u64 = 71;

/// The name of a tensor in transformers 5.
fn in_version_5(name: &str) -> String {
    let renamed = [
        ("encoder.layer.", "layers."),
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ];
    renamed.iter().fold(name.to_string(), |name, (from, to)| name.replace(from, to))
}

/// The tensors of a model, named as in transformers 4, with the values of those named as in transformers 5.
fn tensors(config: &ast::Config) -> Vec<(String, Tensor)> {
    complete(
        Vec::new(),
        |weights| Ast::load(config, weights, &Device::Cpu),
        |name, shape| (name.to_string(), transformer_tensor(&in_version_5(name), shape, SEED).1),
    )
}

/// The same tensors named as in YuanGongND/ast, where queries, keys and values are one tensor.
fn original(tensors: Vec<(String, Tensor)>, prefix: &str) -> Vec<(String, Tensor)> {
    let renamed = [
        ("audio_spectrogram_transformer.", "v."),
        ("embeddings.distillation_token", "dist_token"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("layers.", "blocks."),
        ("attention.o_proj", "attn.proj"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("v.layernorm.", "v.norm."),
        ("classifier.layernorm", "mlp_head.0"),
        ("classifier.dense", "mlp_head.1"),
    ];
    let by_name: HashMap<String, Tensor> =
        tensors.into_iter().map(|(name, tensor)| (in_version_5(&name), tensor)).collect();
    let rename = |name: &str| renamed.iter().fold(name.to_string(), |name, (from, to)| name.replace(from, to));
    let mut renamed: Vec<(String, Tensor)> = Vec::new();
    for (name, tensor) in &by_name {
        let Some((block, leaf)) = name.split_once("attention.q_proj") else {
            if !name.contains("k_proj") && !name.contains("v_proj") {
                renamed.push((format!("{prefix}{}", rename(name)), tensor.clone()));
            }
            continue;
        };
        let parts = ["q", "k", "v"].map(|part| &by_name[&format!("{block}attention.{part}_proj{leaf}")]);
        renamed.push((format!("{prefix}{}attn.qkv{leaf}", rename(block)), Tensor::cat(&parts, 0).unwrap()));
    }
    for head in ["head", "head_dist"] {
        renamed
            .push((format!("{prefix}v.{head}.bias"), Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap()));
    }
    renamed
}

fn config(name: &str) -> ast::Config {
    let narrow = ast::Config {
        mean: -5.5,
        std: 3.25,
        target_length: 64,
        width: 32,
        n_heads: 2,
        ffn_dim: 48,
        depth: 2,
        n_classes: 5,
        activation: OutputActivation::Softmax,
        ..ast::Config::AUDIOSET
    };
    match name {
        "single" => narrow,
        "strided" => ast::Config { patch_size: 8, stride: [12, 6], qkv_bias: false, n_classes: 3, ..narrow },
        _ => ast::Config { n_classes: 11, activation: OutputActivation::Sigmoid, eps: 1e-6, head_eps: 1e-5, ..narrow },
    }
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 16_000, 9)).collect(), 16_000).unwrap()
}

fn assert_equals_reference(name: &str, model: &dyn TaggingModel) {
    let golden = golden("ast.safetensors");
    for n in [400, 9001, 24_000] {
        let expected = |key: &str| golden.to_vec(&format!("{name}.{n}.{key}")).unwrap();
        let output = model.forward(&batch(&[n]), Detail::Clip).unwrap();
        assert_close(&format!("{name} {n}"), &values(&output.clipwise_output), &expected("scores"), 1e-5, 0.0);
        let embedding = expected("embedding");
        let largest = embedding.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert_close(&format!("{name} {n}"), &values(&output.embedding), &embedding, 1e-4 * largest, 0.0);
        if n < 24_000 {
            assert_close(&format!("{name} {n}"), &values(&output.logits), &expected("logits"), 2e-5, 1e-5);
        }
    }
}

#[test]
fn every_stage_equals_transformers() {
    let golden = golden("ast.safetensors");
    for name in ["single", "strided", "original"] {
        let config = config(name);
        let model = Ast::load(&config, &Weights::from_tensors(tensors(&config)).unwrap(), &Device::Cpu).unwrap();
        assert_equals_reference(name, &model);
        let features = model.front_end().unwrap().compute(&signal(9001, 16_000, 9)).unwrap();
        let mut padded: Vec<f32> = features.iter().copied().collect();
        padded.resize(64 * 128, 5.5 / 6.5);
        let every = |values: Vec<f32>, n: usize| -> Vec<f32> { values.into_iter().step_by(n).collect() };
        let expected = |key: &str| golden.to_vec(&format!("{name}.9001.{key}")).unwrap();
        // The extractor computes in f32.
        assert_close("features", &every(padded.clone(), 61), &expected("extractor"), 1e-3, 0.0);
        let features = Tensor::from_vec(padded, (1, 64, 128), &Device::Cpu).unwrap();
        let states: Vec<f32> = model.hidden_states(&features).unwrap().iter().flat_map(values).collect();
        assert_close("states", &every(states, 13), &expected("states"), 2e-5, 1e-5);
    }
}

#[test]
fn every_layout_is_detected_and_gives_the_same_scores() {
    for name in ["single", "original"] {
        let config = config(name);
        let version_4 = tensors(&config);
        let version_5 = version_4.iter().map(|(name, tensor)| (in_version_5(name), tensor.clone())).collect();
        let layouts = [version_4.clone(), version_5, original(version_4.clone(), ""), original(version_4, "module.")];
        for (layout, tensors) in layouts.into_iter().enumerate() {
            let weights = Weights::from_tensors(tensors).unwrap();
            assert_equals_reference(name, &Ast::load(&config, &weights, &Device::Cpu).unwrap());
            let ModelConfig::Ast(detected) = detect(&weights).unwrap().config else { panic!("{layout}") };
            let is_original = layout >= 2;
            assert_eq!(detected.eps, if is_original { 1e-6 } else { 1e-12 });
            assert_eq!(detected.head_eps, if is_original { 1e-5 } else { 1e-12 });
            assert_eq!(detected.activation, OutputActivation::Softmax);
            // 12 x 5 patches come from 64 frames; attention heads of 64 dimensions are assumed.
            let sizes = |it: &ast::Config| (it.width, it.ffn_dim, it.depth, it.n_classes, it.stride, it.target_length);
            assert_eq!(sizes(&detected), sizes(&config));
        }
    }
    // Published numbers of patches, with the strides and lengths that give them.
    for (rows, columns, stride, n_frames) in [
        (12, 101, 10, 1024),
        (10, 85, 12, 1024),
        (9, 73, 14, 1024),
        (8, 64, 16, 1024),
        (12, 12, 10, 128),
        (12, 50, 10, 512),
    ] {
        let config = ast::Config { stride: [stride; 2], target_length: n_frames, ..config("single") };
        let weights = Weights::from_tensors(tensors(&config)).unwrap();
        let ModelConfig::Ast(detected) = detect(&weights).unwrap().config else { panic!() };
        assert_eq!((detected.stride, detected.target_length), ([stride; 2], n_frames), "{rows} x {columns}");
        let is_speech = n_frames == 128;
        assert_eq!(
            detected.mean,
            if is_speech { ast::Config::SPEECH_COMMANDS.mean } else { ast::Config::AUDIOSET.mean }
        );
    }
}

#[test]
fn a_row_equals_the_clip_alone() {
    let config = config("single");
    let model = Ast::load(&config, &Weights::from_tensors(tensors(&config)).unwrap(), &Device::Cpu).unwrap();
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
    assert_eq!(values(&padded.logits), values(&together.logits.get(1).unwrap()));
    let again = model.classify(&padded.embedding).unwrap();
    assert_eq!(values(&again.clipwise_output), values(&padded.clipwise_output));
    assert!(model.forward(&batch(&[400]), Detail::Frames).is_err());
}

/// A folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, value: &Value) {
        std::fs::write(self.0.join(name), value.to_string()).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_folder_of_transformers_opens_with_its_labels_and_settings() {
    let mut about = json!({
        "architectures": ["ASTForAudioClassification"],
        "model_type": "audio-spectrogram-transformer",
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
        "max_length": 64, "patch_size": 8, "frequency_stride": 12, "time_stride": 6, "qkv_bias": false,
        "id2label": {"0": "yes", "1": "no", "2": "stop"},
    });
    let mut extractor = json!({
        "feature_extractor_type": "ASTFeatureExtractor",
        "sampling_rate": 16000, "num_mel_bins": 128, "max_length": 64, "mean": -5.5, "std": 3.25,
    });
    let folder = Folder::new("ast-folder");
    let tensors: HashMap<String, Tensor> = tensors(&config("strided")).into_iter().collect();
    candle_core::safetensors::save(&tensors, folder.0.join("model.safetensors")).unwrap();
    folder.write("config.json", &about);
    folder.write("preprocessor_config.json", &extractor);
    let open = || Tagger::open(&folder.0, &Device::Cpu);
    let tagger = open().unwrap();
    assert_equals_reference("strided", tagger.model());
    assert_eq!(tagger.labels().iter().map(|label| &*label.name).collect::<Vec<_>>(), ["yes", "no", "stop"]);
    let scores = tagger.tag(&Waveform::new(signal(9001, 16_000, 9), 16_000)).unwrap().scores;
    assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6);

    about["problem_type"] = "multi_label_classification".into();
    folder.write("config.json", &about);
    assert_eq!(open().unwrap().model().info().activation, OutputActivation::Sigmoid);
    extractor["do_normalize"] = false.into();
    folder.write("preprocessor_config.json", &extractor);
    let other = open().unwrap().tag(&Waveform::new(signal(9001, 16_000, 9), 16_000)).unwrap().scores;
    assert_ne!(other, scores);

    let assert_rejected = |field: &str| {
        let error = open().unwrap_err();
        assert!(matches!(&error, Error::Config { field: got, .. } if *got == field), "{field}: {error}");
    };
    extractor["max_length"] = 128.into();
    folder.write("preprocessor_config.json", &extractor);
    assert_rejected("max_length");
    folder.write("preprocessor_config.json", &json!({"mean": "loud"}));
    assert_rejected("preprocessor_config.json");
    folder.write("preprocessor_config.json", &json!({"std": 0.0}));
    assert_rejected("std");
    folder.write("preprocessor_config.json", &json!({}));
    for (field, value, rejected) in [
        ("max_length", json!(u64::MAX), "target_length"),
        ("max_length", json!(7), "target_length"),
        ("patch_size", json!([16, 8]), "patch_size"),
        ("patch_size", json!(0), "patch_size"),
        ("patch_size", json!(129), "n_mels"),
        ("time_stride", json!(0), "patch_stride"),
        ("hidden_size", json!(u64::MAX), "width"),
        ("num_hidden_layers", json!(1 << 20), "depth"),
        ("num_attention_heads", json!(5), "n_heads"),
        ("num_mel_bins", json!(1u64 << 40), "n_mels"),
        ("layer_norm_eps", json!(-1.0), "eps"),
        ("hidden_act", json!("relu"), "hidden_act"),
        ("hidden_size", json!("wide"), "config.json"),
        ("problem_type", json!("regression"), "problem_type"),
    ] {
        let mut about = about.clone();
        about[field] = value;
        folder.write("config.json", &about);
        assert_rejected(rejected);
    }
    about["hidden_size"] = 64.into();
    folder.write("config.json", &about);
    assert!(matches!(open(), Err(Error::Weights(_))));
}
