//! SpeechTokenizer against the package speechtokenizer: codes, names, batches and short clips.

mod common;

use std::path::Path;

use candle_core::{Device, Tensor};
use clipwise::ctc::{TokenTransformer, TokenTransformerConfig};
use clipwise::encoders::speech_tokenizer::{Activation, Config};
use clipwise::encoders::{EncoderConfig, Layers, SpeechEncoder, SpeechTokenizer};
use clipwise::weights::Parameters;
use clipwise::{Error, WaveformBatch, Weights};
use common::{assert_close, golden, golden_path, hashed, signal, values};
use ndarray::Array2;

const SEED: u64 = 41;
const LENGTHS: [usize; 6] = [1, 2, 9, 64, 333, 2001];

/// The configurations of `golden/speech_tokenizer.py`.
fn configs() -> [(&'static str, Config); 4] {
    let elu = Config {
        name: "speech-tokenizer".into(),
        n_filters: 4,
        strides: vec![4, 2].into(),
        dim: 12,
        n_codes: 32,
        n_codebooks: 4,
        ..Config::BASE
    };
    let snake = Config {
        n_filters: 6,
        strides: vec![5, 3, 2].into(),
        dim: 10,
        bidirectional: false,
        dilation_base: 3,
        residual_kernel: 4,
        n_residual_layers: 2,
        n_lstm_layers: 1,
        activation: Activation::Snake,
        n_codes: 20,
        n_codebooks: 3,
        ..elu.clone()
    };
    let wide = Config {
        n_filters: 16,
        strides: vec![8, 5].into(),
        dim: 16,
        bidirectional: false,
        n_residual_layers: 3,
        n_lstm_layers: 0,
        n_codes: 50,
        n_codebooks: 8,
        ..elu.clone()
    };
    let file = Config {
        n_filters: 2,
        strides: vec![3].into(),
        dim: 6,
        n_lstm_layers: 1,
        n_codes: 8,
        n_codebooks: 2,
        ..elu.clone()
    };
    [("elu", elu), ("snake", snake), ("wide", wide), ("file", file)]
}

/// The published form of a configuration, with some of the unrelated fields beside it.
fn published(config: &Config) -> String {
    let activation = if config.activation == Activation::Snake { "Snake" } else { "ELU" };
    format!(
        r#"{{"batch_size": 60, "learning_rate": 0.0001, "sampling_rate": 16000, "sample_rate": 16000, "n_filters": {},
            "strides": {:?}, "dimension": {}, "semantic_dimension": 5, "bidirectional": {}, "dilation_base": {},
            "residual_kernel_size": {}, "n_residual_layers": {}, "lstm_layers": {}, "activation": "{activation}",
            "codebook_size": {}, "n_q": {}}}"#,
        config.n_filters,
        config.strides,
        config.dim,
        config.bidirectional,
        config.dilation_base,
        config.residual_kernel,
        config.n_residual_layers,
        config.n_lstm_layers,
        config.n_codes,
        config.n_codebooks,
    )
}

fn hashed_tensor(name: &str, shape: &[usize]) -> (String, Tensor) {
    let (low, high) = match shape.len() {
        _ if name.ends_with("weight_g") || name.ends_with("alpha") => (0.5, 1.5),
        _ if name.ends_with("embed") => (-0.5, 0.5),
        1 => (-0.1, 0.1),
        _ => {
            let limit = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
            (-limit, limit)
        }
    };
    let values = hashed(name, shape.iter().product(), low, high, SEED);
    (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
}

/// The tensors that the tokenizer asks for, with weight norms named as in the package.
fn tensors(config: &Config) -> Vec<(String, Tensor)> {
    let none = Weights::from_tensors([]).unwrap();
    let Err(Error::Weights(report)) = SpeechTokenizer::load(config, &none, &Device::Cpu) else { panic!("no tensors") };
    let of = |name: &str, shape: &[usize]| match name.strip_suffix(".weight") {
        None => vec![hashed_tensor(name, shape)],
        Some(conv) => vec![
            hashed_tensor(&format!("{conv}.weight_g"), &[shape[0], 1, 1]),
            hashed_tensor(&format!("{conv}.weight_v"), shape),
        ],
    };
    report.missing.iter().flat_map(|tensor| of(&tensor.name, &tensor.shape)).collect()
}

fn load(config: &Config) -> SpeechTokenizer {
    SpeechTokenizer::load(config, &Weights::from_tensors(tensors(config)).unwrap(), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 16_000, 6)).collect(), 16_000).unwrap()
}

/// The codes of the package.
fn expected(golden: &Weights, key: &str) -> Array2<u32> {
    let codes: Vec<u32> = golden.to_vec(key).unwrap().into_iter().map(|code| code as u32).collect();
    let &[n_q, n_frames] = golden.shape(key).unwrap() else { panic!("{key}") };
    Array2::from_shape_vec((n_q, n_frames), codes).unwrap()
}

#[test]
fn codes_equal_the_package_and_hidden_states_are_close() {
    let golden = golden("speech_tokenizer.safetensors");
    for (name, config) in configs() {
        let tokenizer = load(&config);
        for n in LENGTHS {
            let key = format!("{name}.{n}");
            let encoded = tokenizer.forward(&batch(&[n]), Layers::Last).unwrap();
            assert_eq!(encoded.lengths, [config.n_frames(n)]);
            assert_eq!(encoded.last.dims()[1..], *golden.shape(&key).unwrap(), "{key}");
            let states = golden.to_vec(&key).unwrap();
            let largest = states.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            assert_close(&key, &values(&encoded.last), &states, 1e-5 * largest.max(1.0), 0.0);
            assert_eq!(tokenizer.encode(&batch(&[n])).unwrap(), [expected(&golden, &format!("{key}.codes"))], "{key}");
        }
    }
}

#[test]
fn the_published_files_open() {
    let [.., (_, config)] = configs();
    let golden = golden("speech_tokenizer.safetensors");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("speech_tokenizer");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(golden_path("speech_tokenizer.pt"), folder.join("SpeechTokenizer.pt")).unwrap();
    std::fs::write(folder.join("config.json"), published(&config)).unwrap();
    let tokenizer = SpeechTokenizer::open(&folder, &Device::Cpu).unwrap();
    assert_eq!(tokenizer.config(), &config);
    assert_eq!(tokenizer.encode(&batch(&[2001])).unwrap(), [expected(&golden, "file.2001.codes")]);
    // AnyGPT's tokenizer has another file name.
    std::fs::rename(folder.join("SpeechTokenizer.pt"), folder.join("ckpt.dev")).unwrap();
    SpeechTokenizer::open(&folder, &Device::Cpu).unwrap();

    for (broken, field) in [("\"Tanh\"", "\"ELU\""), ("\"two\"", "2"), ("-1", "8")] {
        std::fs::write(folder.join("config.json"), published(&config).replace(field, broken)).unwrap();
        let error = SpeechTokenizer::open(&folder, &Device::Cpu).unwrap_err();
        assert!(matches!(error, Error::Config { field: "config.json", .. }), "{error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_row_equals_the_clip_alone() {
    for (name, config) in configs() {
        let tokenizer = load(&config);
        let lengths = [700, 1, 333, 64, 700, 1500];
        let states = tokenizer.forward(&batch(&lengths), Layers::All).unwrap();
        let codes = tokenizer.encode(&batch(&lengths)).unwrap();
        assert_eq!((states.layers.len(), tokenizer.info().n_layers), (1, 1));
        for (row, n) in lengths.into_iter().enumerate() {
            let alone = tokenizer.forward(&batch(&[n]), Layers::Last).unwrap();
            assert_eq!(states.lengths[row], config.n_frames(n));
            let row_states = states.layers[0].get(row).unwrap();
            let (own, all) = (states.lengths[row], row_states.dims()[0]);
            assert_eq!(values(&row_states.narrow(0, 0, own).unwrap()), values(&alone.last), "{name} {n}");
            assert!(values(&row_states.narrow(0, own, all - own).unwrap()).iter().all(|x| *x == 0.0));
            assert_eq!(codes[row], tokenizer.encode(&batch(&[n])).unwrap()[0]);
        }
    }
}

/// Layers that use only the tensor library, as on a GPU, give the same.
#[test]
fn codes_are_the_same_without_kernels() {
    for (name, config) in configs() {
        let weights = Weights::from_tensors(tensors(&config)).unwrap();
        let loader = weights.loader(&Device::Cpu).without_kernels();
        let other = SpeechTokenizer::build(&config, &loader).unwrap();
        let tokenizer = load(&config);
        for n in [1, 9, 333, 2001] {
            assert_eq!(other.encode(&batch(&[n])).unwrap(), tokenizer.encode(&batch(&[n])).unwrap(), "{name} {n}");
        }
    }
}

#[test]
fn sizes_are_detected_from_a_checkpoint() {
    for (_, config) in configs() {
        let weights = Weights::from_tensors(tensors(&config)).unwrap();
        assert_eq!(Config::from_weights(&weights).unwrap(), Config { dilation_base: 2, ..config.clone() });
        let json = serde_json::to_string(&EncoderConfig::from(config.clone())).unwrap();
        assert_eq!(
            serde_json::from_str::<EncoderConfig>(&json).unwrap(),
            EncoderConfig::SpeechTokenizer(config.clone())
        );
        let json = serde_json::from_str(&published(&config)).unwrap();
        assert_eq!(Config::from_published(&json).unwrap(), config);
    }
    for preset in [Config::BASE, Config::SNAKE] {
        let json = serde_json::from_str(&published(&preset)).unwrap();
        assert_eq!(Config::from_published(&json).unwrap(), preset);
    }
    assert!(matches!(Config::from_weights(&Weights::from_tensors([]).unwrap()), Err(Error::UnknownModel(_))));
}

#[test]
fn the_first_codebook_feeds_a_token_transformer() {
    let [(_, config), ..] = configs();
    let tokenizer = load(&config);
    let head = TokenTransformerConfig {
        n_codes: config.n_codes,
        width: 16,
        n_heads: 2,
        n_blocks: 1,
        ffn_dim: 32,
        n_positions: 300,
        frame_seconds: tokenizer.info().frame_seconds,
        ..TokenTransformerConfig::SPEECH_TOKENIZER
    };
    let head = TokenTransformer::build(&head, &Parameters::new(&Device::Cpu, 1).loader()).unwrap();
    let codes = tokenizer.encode(&batch(&[2001, 333])).unwrap();
    let semantic: Vec<Vec<u32>> = codes.iter().map(|codes| codes.row(0).to_vec()).collect();
    let output = head.forward(&[&semantic[0], &semantic[1]]).unwrap();
    assert_eq!((output.logits.dims(), &output.lengths[..]), (&[2, 251, 43][..], &[251, 42][..]));
    assert_eq!(output.frame_seconds, 8.0 / 16_000.0);
}

#[test]
fn invalid_configurations_are_typed_errors() {
    let [(_, good), ..] = configs();
    for (field, config) in [
        ("sample_rate", Config { sample_rate: 0, ..good.clone() }),
        ("n_filters", Config { n_filters: 1, ..good.clone() }),
        ("n_filters", Config { n_filters: 40_000, ..good.clone() }),
        ("n_filters", Config { strides: vec![1; 70].into(), ..good.clone() }),
        ("strides", Config { strides: vec![].into(), ..good.clone() }),
        ("strides", Config { strides: vec![4, 0].into(), ..good.clone() }),
        ("strides", Config { strides: vec![usize::MAX, 3].into(), ..good.clone() }),
        ("dim", Config { dim: 0, ..good.clone() }),
        ("residual_kernel", Config { residual_kernel: 0, ..good.clone() }),
        ("n_residual_layers", Config { n_residual_layers: usize::MAX, ..good.clone() }),
        ("dilation_base", Config { n_residual_layers: 7, ..good.clone() }),
        ("dilation_base", Config { dilation_base: 0, n_residual_layers: 2, ..good.clone() }),
        ("n_lstm_layers", Config { n_lstm_layers: 65, ..good.clone() }),
        ("bidirectional", Config { n_lstm_layers: 0, ..good.clone() }),
        ("n_codebooks", Config { n_codebooks: 0, ..good.clone() }),
        ("n_codes", Config { n_codes: usize::MAX, ..good.clone() }),
    ] {
        match SpeechTokenizer::load(&config, &Weights::from_tensors([]).unwrap(), &Device::Cpu) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, field, "{config:?}"),
            other => panic!("{field}: {other:?}"),
        }
    }
    let tokenizer = load(&good);
    let empty = WaveformBatch::new(vec![vec![]], 16_000).unwrap();
    assert!(matches!(tokenizer.encode(&empty), Err(Error::TooShort { needed: 1, got: 0 })));
    let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(matches!(tokenizer.forward_samples(&zeros(&[1, 0, 1])), Err(Error::TooShort { .. })));
    assert!(matches!(tokenizer.forward_samples(&zeros(&[1, 9, 2])), Err(Error::Tensor { .. })));
    assert!(matches!(tokenizer.quantize(&zeros(&[3, 11])), Err(Error::Argument { name: "states", .. })));
    assert_eq!(tokenizer.quantize(&zeros(&[0, 12])).unwrap().dim(), (4, 0));
    let error = SpeechTokenizer::build(&good, &Parameters::new(&Device::Cpu, 1).loader()).unwrap_err();
    assert!(matches!(error, Error::Config { field: "encoder", .. }), "{error}");
}
