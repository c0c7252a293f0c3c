//! Speech classifiers, and MMS's languages, from folders saved by transformers.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use clipwise::ctc::{CtcModel, OpenOptions};
use clipwise::encoders::{Encoder, EncoderConfig, Layers, SpeechEncoder};
use clipwise::models::{OutputActivation, SpeechClassifier};
use clipwise::{Detail, Error, ModelConfig, Tagger, Waveform, WaveformBatch, Weights};
use common::{assert_close, golden, hashed, signal, values};
use serde_json::Value;

const SEED: u64 = 31;

/// A folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("speech-classifier-{name}"));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, value: &Value) {
        std::fs::write(self.0.join(name), value.to_string()).unwrap();
    }

    fn save(&self, name: &str, shapes: &Value, seed: u64) {
        let tensors: HashMap<String, Tensor> =
            shapes.as_object().unwrap().iter().map(|(name, shape)| hashed_tensor(name, shape, seed)).collect();
        candle_core::safetensors::save(&tensors, self.0.join(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The values of a model as in tests/golden/wav2vec2.py, and of the adapters as in speech_classifier.py.
fn hashed_tensor(name: &str, shape: &Value, seed: u64) -> (String, Tensor) {
    let shape: Vec<usize> = shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    let (low, high) = match shape.len() {
        _ if name.ends_with("original0") => (0.5, 1.5),
        _ if name.ends_with("running_var") || name.ends_with("gru_rel_pos_const") => (0.8, 1.2),
        _ if name.ends_with("rel_attn_embed.weight") => (-2.0, 2.0),
        1 if name.ends_with("weight") => (0.8, 1.2),
        _ if seed != SEED => (-0.3, 0.3),
        1 => (-0.1, 0.1),
        _ => {
            let limit = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
            (-limit, limit)
        }
    };
    let values = hashed(name, shape.iter().product(), low, high, seed);
    (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
}

fn about(name: &str) -> Value {
    let text = std::fs::read_to_string("tests/golden/speech_classifier.json").unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[name].take()
}

/// The folder of a model.
fn folder(name: &str, about: &Value) -> Folder {
    let folder = Folder::new(name);
    folder.write("config.json", &about["config"]);
    folder.write("preprocessor_config.json", &about["preprocessor"]);
    folder.save("model.safetensors", &about["tensors"], SEED);
    folder
}

fn clip(n: usize) -> Waveform {
    Waveform::new(signal(n, 16_000, 5), 16_000)
}

#[test]
fn published_classifiers_open_with_their_labels_and_agree_with_transformers() {
    let golden = golden("speech_classifier.safetensors");
    for name in ["wav2vec2", "wav2vec2-large", "hubert", "wavlm", "whisper", "whisper-sum"] {
        let about = about(name);
        let folder = folder(name, &about);
        let tagger = Tagger::open(&folder.0, &Device::Cpu).unwrap();
        let labels: Vec<&str> = tagger.labels().iter().map(|label| label.name.as_str()).collect();
        let (expected, n_classes): (&[&str], usize) =
            if name == "wavlm" { (&["class 0", "class 1"], 2) } else { (&["yes", "no", "stop"], 3) };
        assert_eq!(labels, expected, "{name}");
        let sigmoid = name == "hubert";
        assert_eq!(tagger.model().info().activation == OutputActivation::Sigmoid, sigmoid);
        let clips = [clip(400), clip(9001)];
        for (clip, n) in clips.iter().zip([400, 9001]) {
            let batch = WaveformBatch::from(clip);
            let output = tagger.model().forward(&batch, Detail::Clip).unwrap();
            let key = format!("{name}.{n}");
            let logits = values(&output.logits);
            assert_close(&key, &logits, &golden.to_vec(&key).unwrap(), 2e-5, 1e-5);
            let scores = values(&output.clipwise_output);
            assert_eq!(scores.len(), n_classes);
            let sum: f32 = scores.iter().sum();
            assert!(sigmoid || (sum - 1.0).abs() < 1e-6, "{name}: {scores:?}");
            // The classified vector is the embedding.
            let again = tagger.model().classify(&output.embedding).unwrap();
            assert_eq!(values(&again.clipwise_output), scores);
        }
        // A row of a mixed batch is the clip alone.
        let together = tagger.tag_batch(&clips).unwrap();
        for (clip, together) in clips.iter().zip(&together) {
            assert_eq!(tagger.tag(clip).unwrap().scores, together.scores, "{name}");
        }
        // Without its config, the tensors determine everything except the activation and the normalisation of clips.
        let weights = Weights::open(folder.0.join("model.safetensors")).unwrap();
        let detected = clipwise::models::detect(&weights).unwrap();
        let ModelConfig::SpeechClassifier(config) = &detected.config else { panic!("{:?}", detected.config) };
        assert_eq!((config.n_classes, config.activation), (n_classes, OutputActivation::Softmax));
        assert_eq!(config.weighted_sum.is_some(), about["config"]["use_weighted_layer_sum"].as_bool().unwrap());

        let model = SpeechClassifier::open(&folder.0, &Device::Cpu).unwrap();
        assert_eq!(model.encoder().info().sample_rate, 16_000);
        // The encoder alone, from the folder and from the file.
        let encoder = Encoder::open(&folder.0, &Device::Cpu).unwrap();
        let encoded = encoder.encode(&clips[1], Layers::All).unwrap();
        assert_eq!(encoded.layers.len(), encoder.info().n_layers);
        assert_eq!(encoded.last.dims()[2], EncoderConfig::from_weights(&weights).unwrap().dim());
        Encoder::open(folder.0.join("model.safetensors"), &Device::Cpu).unwrap();
    }
}

#[test]
fn unsupported_classifiers_are_typed_errors() {
    let mut about = about("hubert");
    let folder = folder("refused", &about);
    about["config"]["problem_type"] = "regression".into();
    folder.write("config.json", &about["config"]);
    let error = Tagger::open(&folder.0, &Device::Cpu).unwrap_err();
    assert!(matches!(error, Error::Config { field: "problem_type", .. }), "{error}");
    about["config"]["problem_type"] = Value::Null;
    about["config"]["hidden_size"] = "wide".into();
    folder.write("config.json", &about["config"]);
    assert!(matches!(Tagger::open(&folder.0, &Device::Cpu), Err(Error::Config { field: "config.json", .. })));
    about["config"]["hidden_size"] = 24.into();
    about["config"]["classifier_proj_size"] = u64::MAX.into();
    folder.write("config.json", &about["config"]);
    assert!(matches!(Tagger::open(&folder.0, &Device::Cpu), Err(Error::Config { field: "hidden_dim", .. })));
    about["config"]["architectures"] = serde_json::json!(["HubertModel"]);
    folder.write("config.json", &about["config"]);
    assert!(matches!(SpeechClassifier::open(&folder.0, &Device::Cpu), Err(Error::UnknownModel(_))));
    about["config"]["model_type"] = "bert".into();
    folder.write("config.json", &about["config"]);
    let error = Encoder::open(&folder.0, &Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("wav2vec2") && error.to_string().contains("\"bert\""), "{error}");
}

#[test]
fn mms_switches_languages() {
    let golden = golden("speech_classifier.safetensors");
    let about = about("mms");
    let folder = folder("mms", &about);
    folder.write("vocab.json", &about["vocab"]);
    folder.write("tokenizer_config.json", &serde_json::json!({ "target_lang": "eng", "pad_token": "<pad>" }));
    folder.save("adapter.fra.safetensors", &about["adapter"], SEED + 1);
    assert_eq!(CtcModel::languages(&folder.0).unwrap(), ["fra"]);
    let logits = |model: &CtcModel| values(&model.forward(&WaveformBatch::from(&clip(9001))).unwrap().logits);

    let english = CtcModel::open(&folder.0, &Device::Cpu).unwrap();
    assert_close("eng", &logits(&english), &golden.to_vec("mms.eng").unwrap(), 2e-5, 1e-5);
    assert_eq!(english.vocabulary().unwrap().tokens(), ["<pad>", "|", "a", "b"]);
    let french = CtcModel::open_with(&folder.0, &OpenOptions::new().language("fra")).unwrap();
    assert_close("fra", &logits(&french), &golden.to_vec("mms.fra").unwrap(), 2e-5, 1e-5);
    let vocabulary = french.vocabulary().unwrap();
    assert_eq!((vocabulary.tokens()[3].as_str(), vocabulary.len(), vocabulary.blank()), ("é", 6, 0));

    for language in ["deu", "../fra", ""] {
        let error = CtcModel::open_with(&folder.0, &OpenOptions::new().language(language)).unwrap_err();
        assert!(matches!(error, Error::Argument { name: "language", .. }), "{error}");
        assert!(error.to_string().contains("1 languages: fra"), "{error}");
    }
    // A vocabulary per language, and no default language.
    folder.write("tokenizer_config.json", &serde_json::json!({ "pad_token": "<pad>" }));
    let error = CtcModel::open(&folder.0, &Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("expected one of 2 languages (eng, fra)"), "{error}");
}
