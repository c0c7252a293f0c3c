//! Dasheng against the reference's class, as an encoder and with a head.

mod common;

use candle_core::{Device, Tensor};
use clipwise::models::ced::WindowMean;
use clipwise::models::{Ced, ced, detect};
use clipwise::{Detail, ModelConfig, Tagger, TaggingModel, Waveform, WaveformBatch, Weights};
use common::{assert_close, complete, golden, signal, transformer_tensor, values};

const SEED: u64 = 72;
const LENGTHS: [usize; 3] = [480, 9001, 24_000];

fn narrow() -> ced::Config {
    ced::Config { width: 32, depth: 2, n_heads: 2, target_length: 96, n_classes: 7, ..ced::Config::DASHENG_BASE }
}

/// The tensors below `dashengmodel` and `classifier`.
fn tensors(config: &ced::Config) -> Vec<(String, Tensor)> {
    let renamed = |name: &str| match name.strip_prefix("outputlayer") {
        Some(rest) => format!("classifier{rest}"),
        None => format!("dashengmodel.{}", name.replace("init_bn.", "init_bn.1.")),
    };
    let tensors = complete(
        Vec::new(),
        |weights| Ced::load(config, weights, &Device::Cpu),
        |name, shape| (name.to_string(), transformer_tensor(&renamed(name), shape, SEED).1),
    );
    tensors.into_iter().map(|(name, tensor)| (renamed(&name), tensor)).collect()
}

fn load(config: &ced::Config, tensors: Vec<(String, Tensor)>) -> Ced {
    Ced::load(config, &Weights::from_tensors(tensors).unwrap(), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 16_000, 9)).collect(), 16_000).unwrap()
}

#[test]
fn it_equals_the_reference_in_every_layout() {
    let golden = golden("dasheng.safetensors");
    let classifier = tensors(&narrow());
    let rename = |encoder: &str, head: &str| {
        let rename = |(name, tensor): &(String, Tensor)| {
            (name.replace("dashengmodel.", encoder).replace("classifier", head), tensor.clone())
        };
        classifier.iter().map(rename).collect::<Vec<_>>()
    };
    let published = rename("", "outputlayer");
    let encoder: Vec<_> = published.iter().filter(|(name, _)| !name.starts_with("outputlayer")).cloned().collect();
    let converted: Vec<_> = encoder.iter().map(|(name, tensor)| (format!("encoder.{name}"), tensor.clone())).collect();
    for (layout, tensors) in [classifier.clone(), published, encoder, converted].into_iter().enumerate() {
        let has_head = layout < 2;
        let config = ced::Config { n_classes: if has_head { 7 } else { 0 }, ..narrow() };
        let model = load(&config, tensors);
        for n in LENGTHS {
            let wanted = |key: &str| golden.to_vec(&format!("narrow.{n}.{key}")).unwrap();
            let output = model.forward(&batch(&[n]), Detail::Clip).unwrap();
            let embedding = wanted("embedding");
            let largest = embedding.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            assert_close(&format!("{layout} {n}"), &values(&output.embedding), &embedding, 1e-4 * largest, 0.0);
            assert_eq!(output.logits.dims(), [1, config.n_classes]);
            if has_head {
                assert_close(&format!("{layout} {n}"), &values(&output.clipwise_output), &wanted("scores"), 1e-5, 0.0);
                let logits = wanted("logits");
                assert_close(&format!("{layout} {n}"), &values(&output.logits), &logits, 2e-5, 1e-5);
                let again = values(&model.classify(&output.embedding).unwrap().clipwise_output);
                assert_eq!(again, values(&output.clipwise_output));
            }
        }
        let every_7th = |tensors: &[Tensor]| tensors.iter().flat_map(values).step_by(7).collect::<Vec<_>>();
        let log_mel = model.log_mel().compute(&signal(9001, 16_000, 9)).unwrap();
        let log_mel = Tensor::from_iter(log_mel, &Device::Cpu).unwrap().reshape((1, (), 64)).unwrap();
        let wanted = |key: &str| golden.to_vec(&format!("narrow.9001.{key}")).unwrap();
        assert_close("log_mel", &every_7th(std::slice::from_ref(&log_mel)), &wanted("log_mel"), 2e-4, 0.0);
        assert_close("states", &every_7th(&model.hidden_states(&log_mel).unwrap()), &wanted("states"), 2e-5, 1e-5);
    }
}

#[test]
fn a_row_equals_the_clip_alone_with_and_without_a_head() {
    for n_classes in [7, 0] {
        let config = ced::Config { n_classes, ..narrow() };
        let tensors =
            tensors(&narrow()).into_iter().filter(|(name, _)| n_classes > 0 || !name.starts_with("classifier"));
        let model = load(&config, tensors.collect());
        assert_eq!(model.info().min_samples, 480);
        let lengths = [9001, 1, 24_000, 480, 9001, 479, 15_520];
        let together = model.forward(&batch(&lengths), Detail::Clip).unwrap();
        for (row, n) in lengths.into_iter().enumerate() {
            let alone = model.forward(&batch(&[n]), Detail::Clip).unwrap();
            assert_eq!(values(&together.embedding.get(row).unwrap()), values(&alone.embedding), "{n}");
            assert_eq!(together.clipwise_output.get(row).unwrap().elem_count(), n_classes);
        }
    }
}

#[test]
fn a_checkpoint_tells_that_it_is_one() {
    // The tables and patches tell: no block is needed.
    let small = |config: &ced::Config| ced::Config { depth: 1, ..config.clone() };
    for preset in [ced::Config::DASHENG_BASE, ced::Config::DASHENG_06B] {
        let config = small(&preset);
        let tensors = complete(
            Vec::new(),
            |weights| Ced::load(&config, weights, &Device::Cpu),
            |name, shape| (name.to_string(), Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap()),
        );
        let detected = detect(&Weights::from_tensors(tensors.clone()).unwrap()).unwrap();
        assert_eq!(detected.config, ModelConfig::Ced(preset.clone()));
        let converted = tensors.into_iter().map(|(name, tensor)| (format!("encoder.{name}"), tensor));
        let detected = detect(&Weights::from_tensors(converted).unwrap()).unwrap();
        assert_eq!(detected.config, ModelConfig::Ced(preset.clone()));
        let json = serde_json::to_string(&preset).unwrap();
        assert_eq!(serde_json::from_str::<ced::Config>(&json).unwrap(), preset);
    }
    assert_eq!(serde_json::to_value(WindowMean::TokensByLength).unwrap(), "tokens_by_length");
}

#[test]
fn a_tagger_without_classes_gives_embeddings() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("dasheng.safetensors");
    let config = ced::Config { depth: 12, ..ced::Config::DASHENG_BASE };
    let sizes = ced::Config { width: 32, n_heads: 2, ..config };
    let tensors = complete(
        Vec::new(),
        |weights| Ced::load(&sizes, weights, &Device::Cpu),
        |name, shape| transformer_tensor(name, shape, SEED),
    );
    let tensors: std::collections::HashMap<_, _> = tensors.into_iter().collect();
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let model = Ced::load(&sizes, &Weights::open(&path).unwrap(), &Device::Cpu).unwrap();
    let tagger = Tagger::new(model, clipwise::LabelSet::numbered(0)).unwrap();
    let tagging = tagger.tag(&Waveform::new(signal(9001, 16_000, 9), 16_000)).unwrap();
    assert_eq!((tagging.scores.len(), tagging.embedding().len(), tagging.top_k(5).len()), (0, 32, 0));
    std::fs::remove_file(path).unwrap();
}
