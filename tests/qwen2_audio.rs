//! The audio tower of Qwen2-Audio against transformers, and its checkpoints.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::{Optimizer, SGD};
use clipwise::ctc::{CtcConfig, CtcModel, Head, HeadConfig, LossConfig, ctc_loss};
use clipwise::encoders::qwen2_audio::Config;
use clipwise::encoders::{EncoderConfig, Layers, Qwen2AudioEncoder, SpeechEncoder};
use clipwise::weights::Parameters;
use clipwise::{Error, WaveformBatch, Weights};
use common::{assert_close, golden, golden_path, hashed, signal, values};

const SEED: u64 = 61;
const LENGTHS: [usize; 6] = [321, 480, 4801, 9000, 15_700, 16_000];

/// The configuration of `golden/qwen2_audio.py`.
fn config() -> Config {
    let json = std::fs::read_to_string("tests/golden/qwen2_audio_config.json").unwrap();
    Config::from_hugging_face(&serde_json::from_str(&json).unwrap()).unwrap()
}

fn hashed_tensor(name: &str, shape: &[usize]) -> (String, Tensor) {
    let (low, high) = match shape.len() {
        1 if name.ends_with("norm.weight") => (0.8, 1.2),
        1 => (-0.1, 0.1),
        _ => {
            let limit = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
            (-limit, limit)
        }
    };
    let values = hashed(name, shape.iter().product(), low, high, SEED);
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    (name.to_string(), tensor.to_dtype(DType::BF16).unwrap())
}

/// The tensors of the audio tower and of the projection under their published names, and some of a language model.
fn tensors() -> HashMap<String, Tensor> {
    let Config { n_mels, dim, n_positions, projection, .. } = config();
    let mut tensors = HashMap::from([
        hashed_tensor("audio_tower.conv1.weight", &[dim, n_mels, 3]),
        hashed_tensor("audio_tower.conv2.weight", &[dim, dim, 3]),
        hashed_tensor("audio_tower.embed_positions.weight", &[n_positions, dim]),
        hashed_tensor("multi_modal_projector.linear.weight", &[projection.unwrap(), dim]),
        hashed_tensor("language_model.model.norm.weight", &[64]),
        hashed_tensor("language_model.lm_head.weight", &[20, 64]),
    ]);
    let Err(Error::Weights(report)) = Qwen2AudioEncoder::load(&config(), &from(&tensors), &Device::Cpu) else {
        panic!("tensors are missing")
    };
    assert!(report.wrong_shape.is_empty() && report.unexpected.is_empty(), "{report}");
    tensors.extend(report.missing.iter().map(|tensor| hashed_tensor(&tensor.name, &tensor.shape)));
    tensors
}

fn from(tensors: &HashMap<String, Tensor>) -> Weights {
    Weights::from_tensors(tensors.clone()).unwrap()
}

fn load() -> Qwen2AudioEncoder {
    Qwen2AudioEncoder::load(&config(), &from(&tensors()), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 16_000, 7)).collect(), 16_000).unwrap()
}

/// Every 8th value of a tensor's frames.
fn some(x: &Tensor) -> Vec<f32> {
    values(x).into_iter().step_by(8).collect()
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn hidden_states_and_their_projection_equal_transformers() {
    let golden = golden("qwen2_audio.safetensors");
    let encoder = load();
    for n in LENGTHS {
        let output = encoder.encode(&batch(&[n]), Layers::All).unwrap();
        let n_tokens = n.div_ceil(160).div_ceil(2);
        assert_eq!((&output.n_tokens[..], &output.lengths[..]), (&[n_tokens][..], &[n_tokens / 2][..]));
        let projected = output.projected.unwrap();
        let names = (0..output.layers.len()).map(|layer| layer.to_string()).chain(["last".into(), "projected".into()]);
        let tensors = output.layers.iter().chain([&output.last_hidden, &projected]);
        assert_eq!(output.layers.len(), 2);
        for (name, tensor) in names.zip(tensors) {
            let key = format!("{n}.{name}");
            assert_eq!(tensor.dims()[1], golden.shape(&key).unwrap()[0], "{key}");
            // f32 rounding of sums of some hundred products, values up to 4.
            assert_close(&key, &some(tensor), &golden.to_vec(&key).unwrap(), 2e-5, 1e-5);
        }
        let last = encoder.encode(&batch(&[n]), Layers::Last).unwrap();
        assert_eq!((last.layers.len(), values(&last.last_hidden)), (0, values(&output.last_hidden)));

        // As an encoder: all layers have the frames of the last one.
        let encoded = encoder.forward(&batch(&[n]), Layers::All).unwrap();
        assert_eq!((encoded.layers.len(), encoder.info().n_layers, &encoded.lengths), (2, 2, &output.lengths));
        assert_eq!(values(&encoded.layers[1]), values(&output.last_hidden));
        let (got, tokens) = (values(&encoded.layers[0]), values(&output.layers[0]));
        for (i, x) in got.iter().enumerate() {
            let (frame, place) = (i / 64, i % 64);
            assert_eq!(*x, (tokens[2 * frame * 64 + place] + tokens[(2 * frame + 1) * 64 + place]) / 2.0);
        }
        let last = encoder.forward(&batch(&[n]), Layers::Last).unwrap();
        assert_eq!((last.layers.len(), values(&last.last)), (0, values(&output.last_hidden)));
    }
    assert_eq!((encoder.info().min_samples, encoder.info().frame_seconds), (321, 0.04));
}

#[test]
fn nf4_checkpoints_saved_by_transformers_open() {
    let golden = golden("qwen2_audio.safetensors");
    let weights = Weights::open(golden_path("qwen2_audio_nf4.safetensors")).unwrap();
    let encoder = Qwen2AudioEncoder::load(&config(), &weights, &Device::Cpu).unwrap();
    for n in [4801, 16_000] {
        let output = encoder.encode(&batch(&[n]), Layers::Last).unwrap();
        let expected = |name: &str| golden.to_vec(&format!("nf4.{n}.{name}")).unwrap();
        assert_close("last", &some(&output.last_hidden), &expected("last"), 2e-5, 1e-5);
        assert_close("projected", &some(output.projected.as_ref().unwrap()), &expected("projected"), 2e-5, 1e-5);

        // Weights kept as 4-bit codes give the same, with the kernels and with the tensor library.
        let kept = Weights::open(golden_path("qwen2_audio_nf4.safetensors")).unwrap().keep_four_bit();
        let kept = Qwen2AudioEncoder::load(&config(), &kept, &Device::Cpu).unwrap();
        let same = kept.encode(&batch(&[n]), Layers::Last).unwrap();
        assert_eq!(values(&same.projected.unwrap()), values(&output.projected.unwrap()));
    }
}

/// Of the language model's shards, only the headers need to be readable.
#[test]
fn shards_and_prefixes_are_handled() {
    let expected = values(&load().encode(&batch(&[4801]), Layers::Last).unwrap().projected.unwrap());
    let folder = folder("qwen2_audio");
    let (language, tower): (HashMap<_, _>, HashMap<_, _>) =
        tensors().into_iter().partition(|(name, _)| name.starts_with("language_model"));
    let (projector, tower): (HashMap<_, _>, HashMap<_, _>) =
        tower.into_iter().partition(|(name, _)| name.starts_with("multi_modal_projector"));
    let mut map = serde_json::Map::new();
    for (shard, tensors) in [("a.safetensors", &tower), ("b.safetensors", &projector), ("c.safetensors", &language)] {
        candle_core::safetensors::save(tensors, folder.join(shard)).unwrap();
        map.extend(tensors.keys().map(|name| (name.clone(), shard.into())));
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    let weights = Weights::open(folder.join("model.safetensors.index.json")).unwrap();
    assert_eq!(Config::from_weights(&weights).unwrap(), Config { n_heads: 1, ..config() });
    let projected = |weights: &Weights| {
        let encoder = Qwen2AudioEncoder::load(&config(), weights, &Device::Cpu).unwrap();
        values(&encoder.encode(&batch(&[4801]), Layers::Last).unwrap().projected.unwrap())
    };
    assert_eq!(projected(&weights), expected);
    std::fs::remove_dir_all(&folder).unwrap();

    // With the names of transformers 5.
    let renamed = tensors().into_iter().map(|(name, tensor)| match name.strip_prefix("language_model.") {
        Some("lm_head.weight") => ("lm_head.weight".to_string(), tensor),
        _ => (format!("model.{name}"), tensor),
    });
    assert_eq!(projected(&Weights::from_tensors(renamed).unwrap()), expected);

    // The encoder alone has no projection.
    let alone = Config { projection: None, ..config() };
    let encoder = load().encode(&batch(&[4801]), Layers::Last).unwrap().last_hidden;
    let bare = tensors().into_iter().filter_map(|(name, x)| Some((name.strip_prefix("audio_tower.")?.to_string(), x)));
    for weights in [Weights::from_tensors(bare).unwrap(), from(&tensors())] {
        let output = Qwen2AudioEncoder::load(&alone, &weights, &Device::Cpu).unwrap();
        let output = output.encode(&batch(&[4801]), Layers::Last).unwrap();
        assert!(output.projected.is_none());
        assert_eq!(values(&output.last_hidden), values(&encoder));
    }
}

#[test]
fn a_row_equals_the_clip_alone_and_short_clips_are_padded() {
    let encoder = load();
    let lengths = [4801, 1, 320, 16_000, 321, 9000, 15_900, 4801];
    let together = encoder.encode(&batch(&lengths), Layers::All).unwrap();
    for (row, n) in lengths.into_iter().enumerate() {
        let alone = encoder.encode(&batch(&[n]), Layers::All).unwrap();
        assert_eq!([together.n_tokens[row], together.lengths[row]], [alone.n_tokens[0], alone.lengths[0]]);
        let pairs = together.layers.iter().chain([&together.last_hidden]).chain(&together.projected);
        for (all, alone) in pairs.zip(alone.layers.iter().chain([&alone.last_hidden]).chain(&alone.projected)) {
            let row = all.get(row).unwrap();
            let (own, rest) = (alone.dims()[1], row.dims()[0] - alone.dims()[1]);
            assert_eq!(values(&row.narrow(0, 0, own).unwrap()), values(alone), "{n}");
            assert!(values(&row.narrow(0, own, rest).unwrap()).iter().all(|x| *x == 0.0));
        }
    }
    let long = encoder.forward(&batch(&[16_001]), Layers::Last);
    assert!(matches!(long, Err(Error::Argument { .. })), "{long:?}");
    let empty = WaveformBatch::new(vec![vec![]], 16_000).unwrap();
    assert!(matches!(encoder.forward(&empty, Layers::Last), Err(Error::TooShort { .. })));
}

/// A head is trained on the frozen encoder, which gets no gradients.
#[test]
fn a_head_is_trained_on_top() {
    let encoder = load();
    assert_eq!(HeadConfig::QWEN2_AUDIO.dim, Config::BASE.dim);
    let head = HeadConfig { dim: 64, hidden: Some(32), n_tokens: 5, ..HeadConfig::QWEN2_AUDIO };
    let parameters = Parameters::new(&Device::Cpu, 1);
    let model = Head::load(&head, &parameters.loader()).unwrap();
    let encoded = encoder.forward(&batch(&[16_000, 9000]), Layers::Last).unwrap();
    assert!(!encoded.last.track_op());
    let mut optimizer = SGD::new(parameters.vars(), 0.5).unwrap();
    let mut losses = Vec::new();
    for _ in 0..20 {
        let logits = model.forward(&encoded.last, Some(&encoded.lengths)).unwrap();
        let targets = [vec![1, 2, 3], vec![4]];
        let loss = ctc_loss(&logits, &encoded.lengths, &targets, &LossConfig::default()).unwrap();
        losses.push(loss.to_scalar::<f32>().unwrap());
        let gradients = loss.backward().unwrap();
        assert_eq!(gradients.get_ids().filter(|id| parameters.vars().iter().any(|var| var.id() == **id)).count(), 4);
        optimizer.step(&gradients).unwrap();
    }
    assert!(losses[19] < 0.7 * losses[0], "{losses:?}");

    // As one model from one checkpoint.
    let ctc = CtcConfig { encoder: config().into(), weighted_sum: None, head, vocabulary: Default::default() };
    let mut all: HashMap<String, Tensor> =
        tensors().into_iter().filter(|(name, _)| !name.starts_with("language_model")).collect();
    let trained = [("ctc_head.0.weight", &[32, 64][..]), ("ctc_head.0.bias", &[32]), ("ctc_head.3.weight", &[5, 32])];
    all.extend(
        trained.into_iter().chain([("ctc_head.3.bias", &[5][..])]).map(|(name, shape)| hashed_tensor(name, shape)),
    );
    let model = CtcModel::load(&ctc, &from(&all), &Device::Cpu).unwrap();
    assert_eq!(model.forward(&batch(&[16_000])).unwrap().logits.dims(), [1, 25, 5]);
}

#[test]
fn invalid_configurations_are_typed_errors() {
    let whole = serde_json::json!({"model_type": "qwen2_audio", "audio_config": {"model_type": "qwen2_audio_encoder"}});
    assert_eq!(Config::from_hugging_face(&whole).unwrap(), Config::BASE);
    let alone = serde_json::json!({"model_type": "qwen2_audio_encoder", "encoder_layers": 3});
    let expected = Config { n_blocks: 3, projection: None, ..Config::BASE };
    assert_eq!(Config::from_hugging_face(&alone).unwrap(), expected);
    let json = serde_json::to_string(&EncoderConfig::from(expected.clone())).unwrap();
    assert_eq!(serde_json::from_str::<EncoderConfig>(&json).unwrap(), EncoderConfig::Qwen2Audio(expected));
    for (field, config) in [
        ("n_heads", Config { n_heads: 7, ..config() }),
        ("dim", Config { dim: 0, ..config() }),
        ("n_positions", Config { n_positions: 1, ..config() }),
        ("n_positions", Config { n_positions: usize::MAX, ..config() }),
        ("projection", Config { projection: Some(0), ..config() }),
    ] {
        match Qwen2AudioEncoder::load(&config, &Weights::from_tensors([]).unwrap(), &Device::Cpu) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, field, "{config:?}"),
            other => panic!("{field}: {other:?}"),
        }
    }
    for broken in [
        serde_json::json!({"model_type": "qwen2_audio", "audio_config": {"activation_function": "relu"}}),
        serde_json::json!({"model_type": "qwen2_audio", "audio_config": {"d_model": "wide"}}),
        serde_json::json!({"model_type": "qwen2_audio", "audio_config": 5}),
        serde_json::json!({"model_type": "qwen2_audio", "text_config": {"hidden_size": -1}}),
    ] {
        assert!(matches!(Config::from_hugging_face(&broken), Err(Error::Config { .. })), "{broken}");
    }
    assert!(matches!(Config::from_weights(&Weights::from_tensors([]).unwrap()), Err(Error::UnknownModel(_))));
    let error = Qwen2AudioEncoder::build(&config(), &Parameters::new(&Device::Cpu, 1).loader()).unwrap_err();
    assert!(matches!(error, Error::Config { field: "encoder", .. }), "{error}");
}
