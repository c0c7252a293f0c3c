//! Whisper-AT against the reference's encoder and head: in one file and in two, with and without the projection.

mod common;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use clipwise::encoders::{Layers, whisper};
use clipwise::models::{WhisperAt, detect, whisper_at};
use clipwise::{Detail, Error, ModelConfig, OpenOptions, Tagger, TaggingModel, Waveform, WaveformBatch, Weights};
use common::{assert_close, complete, golden, signal, transformer_tensor, values};

const SEED: u64 = 76;
const LENGTHS: [usize; 4] = [159, 30_000, 200_000, 500_000];

fn config(name: &str) -> whisper_at::Config {
    let encoder = whisper::Config {
        name: "whisper".into(),
        dim: 32,
        n_heads: 2,
        n_blocks: 3,
        ffn_dim: 128,
        ..whisper::Config::TINY
    };
    let low_dim = (name == "low").then_some(16);
    whisper_at::Config { encoder, low_dim, n_classes: 7, ..whisper_at::Config::LARGE }
}

/// The tensors with the names of openai/whisper.
fn tensors(config: &whisper_at::Config) -> Vec<(String, Tensor)> {
    // With these the model asks for the others by their names there.
    let given = [
        ("encoder.conv1.weight", vec![32, 80, 3]),
        ("encoder.conv2.weight", vec![32, 32, 3]),
        ("encoder.blocks.0.mlp.0.weight", vec![128, 32]),
        ("encoder.positional_embedding", vec![1500, 32]),
    ];
    let make = |name: &str, shape: &[usize]| transformer_tensor(name, shape, SEED);
    let given = given.iter().map(|(name, shape)| make(name, shape)).collect();
    complete(given, |weights| WhisperAt::load(config, weights, &Device::Cpu), make)
}

fn load(config: &whisper_at::Config, tensors: Vec<(String, Tensor)>) -> WhisperAt {
    WhisperAt::load(config, &Weights::from_tensors(tensors).unwrap(), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 16_000, 9)).collect(), 16_000).unwrap()
}

#[test]
fn it_equals_the_reference_with_and_without_the_projection() {
    let golden = golden("whisper_at.safetensors");
    for name in ["own", "low"] {
        let model = load(&config(name), tensors(&config(name)));
        for n in LENGTHS {
            let wanted = |key: &str| golden.to_vec(&format!("{name}.{n}.{key}")).unwrap();
            let output = model.forward(&batch(&[n]), Detail::Frames).unwrap();
            assert_close(&format!("{name} {n}"), &values(&output.clipwise_output), &wanted("scores"), 1e-5, 0.0);
            let embedding = wanted("embedding");
            let largest = embedding.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            assert_close(&format!("{name} {n}"), &values(&output.embedding), &embedding, 1e-4 * largest, 0.0);
            let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
            let frames: Vec<f32> = wanted("frames").into_iter().map(sigmoid).collect();
            assert_close(&format!("{name} {n}"), &values(&output.framewise_output.unwrap()), &frames, 1e-5, 0.0);
        }
        assert_eq!(model.info().frames.unwrap().step, 160_000);
    }
}

#[test]
fn every_stage_equals_the_reference() {
    let golden = golden("whisper_at.safetensors");
    let every = |n: usize, tensors: &[Tensor]| tensors.iter().flat_map(values).step_by(n).collect::<Vec<_>>();
    for name in ["own", "low"] {
        let model = load(&config(name), tensors(&config(name)));
        let close = |key: &str, got: &[f32], atol: f32| {
            assert_close(key, got, &golden.to_vec(&format!("{name}.30000.{key}")).unwrap(), atol, 1e-5);
        };
        let mel = model.encoder().mel().compute_padded(&signal(30_000, 16_000, 9)).unwrap();
        let mel = Tensor::from_iter(mel, &Device::Cpu).unwrap().reshape((1, 3000, 80)).unwrap();
        let [pooled, time, layers] = model.stages(&mel).unwrap();
        if name == "own" {
            close("mel", &every(101, std::slice::from_ref(&mel)), 1e-5);
            // The input of each block; the pooled layers show the output of the last.
            let encoded = model.encoder().forward_features(&mel, None, Layers::All).unwrap();
            let states = every(101, &encoded.layers[..3]);
            let wanted = golden.to_vec("own.30000.states").unwrap();
            assert_close("states", &states, &wanted[..states.len()], 2e-5, 1e-5);
            let by_layer = pooled.transpose(0, 1).unwrap().contiguous().unwrap();
            close("pooled", &every(5, &[by_layer]), 2e-5);
        }
        close("time", &every(5, &[time]), 2e-5);
        close("layers", &every(5, &[layers]), 2e-5);
    }
}

#[test]
fn a_row_equals_the_clip_alone() {
    let model = load(&config("own"), tensors(&config("own")));
    let lengths = [30_000, 1, 200_000, 160_159, 30_000, 480_159, 480_160];
    let together = model.forward(&batch(&lengths), Detail::Frames).unwrap();
    for ((row, n), n_windows) in lengths.into_iter().enumerate().zip([1, 1, 2, 1, 1, 3, 4]) {
        let alone = model.forward(&batch(&[n]), Detail::Frames).unwrap();
        assert_eq!(values(&together.logits.get(row).unwrap()), values(&alone.logits), "{n}");
        assert_eq!(values(&together.embedding.get(row).unwrap()), values(&alone.embedding), "{n}");
        let frames = alone.framewise_output.unwrap();
        assert_eq!(frames.dims(), [1, n_windows, 7]);
        let row = together.framewise_output.as_ref().unwrap().get(row).unwrap();
        assert_eq!(values(&row)[..7 * n_windows], values(&frames), "{n}");
        if n_windows == 1 {
            assert_eq!(values(&model.classify(&alone.embedding).unwrap().logits), values(&alone.logits));
        }
    }
}

#[test]
fn a_head_opens_with_its_encoder() {
    let config = config("low");
    let all = tensors(&config);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("whisper-at");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("encoder")).unwrap();
    let save = |name: &str, tensors: HashMap<String, Tensor>| {
        candle_core::safetensors::save(&tensors, folder.join(name)).unwrap();
    };
    let (head, mut encoder): (HashMap<_, _>, HashMap<_, _>) =
        all.iter().cloned().partition(|(name, _)| name.starts_with("at_model."));
    encoder.insert("decoder.ln.bias".to_string(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
    let mut whole: HashMap<_, _> = encoder.clone();
    whole.extend(head.clone());
    save("whole.safetensors", whole);
    save("head.safetensors", head);
    save("encoder/model.safetensors", encoder);

    let clip = Waveform::new(signal(30_000, 16_000, 9), 16_000);
    let whole = Tagger::open(folder.join("whole.safetensors"), &Device::Cpu).unwrap();
    let wanted = whole.tag(&clip).unwrap().scores;
    let reference = golden("whisper_at.safetensors").to_vec("low.30000.scores").unwrap();
    // The file does not tell that the heads of this encoder are shorter than those of Whisper.
    assert_ne!(wanted, reference);
    for encoder in ["encoder", "encoder/model.safetensors"] {
        let options = OpenOptions::new().encoder(folder.join(encoder));
        let tagger = Tagger::open_with(folder.join("head.safetensors"), &options).unwrap();
        assert_eq!(tagger.tag(&clip).unwrap().scores, wanted);
    }
    let error = Tagger::open(folder.join("head.safetensors"), &Device::Cpu).unwrap_err();
    assert!(matches!(&error, Error::UnknownModel(_)) && error.to_string().contains("--encoder"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_checkpoint_tells_that_it_is_one() {
    for name in ["own", "low"] {
        // Heads of the encoder have 64 values, as in every published size.
        let config = config(name);
        let encoder = whisper::Config { n_heads: 1, ..config.encoder.clone() };
        let weights = Weights::from_tensors(tensors(&config)).unwrap();
        let wanted = ModelConfig::WhisperAt(whisper_at::Config { encoder, ..config.clone() });
        assert_eq!(detect(&weights).unwrap().config, wanted);
        assert_eq!(ModelConfig::by_name("whisper-at", &weights).unwrap(), wanted);
        for (field, refused) in [
            ("layer_heads", whisper_at::Config { layer_heads: 5, ..config.clone() }),
            ("time_heads", whisper_at::Config { time_heads: 0, ..config.clone() }),
            ("low_dim", whisper_at::Config { low_dim: Some(0), ..config.clone() }),
            ("n_positions", {
                let encoder = whisper::Config { n_positions: 1499, ..config.encoder.clone() };
                whisper_at::Config { encoder, ..config.clone() }
            }),
        ] {
            match WhisperAt::load(&refused, &weights, &Device::Cpu) {
                Err(Error::Config { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
