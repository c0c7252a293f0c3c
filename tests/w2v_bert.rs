//! W2V-BERT 2.0 against transformers: hidden states, names, batches and short clips.

mod common;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use clipwise::ctc::{CtcConfig, CtcModel, HeadConfig};
use clipwise::encoders::w2v_bert::{AdapterConfig, Config, Positions};
use clipwise::encoders::{EncoderConfig, Layers, SpeechEncoder, W2vBertEncoder, WeightedSumConfig};
use clipwise::frontend::{SeamlessM4t, SeamlessM4tConfig};
use clipwise::nn::Activation;
use clipwise::weights::{Loader, Parameters};
use clipwise::{Error, WaveformBatch, Weights};
use common::{assert_close, complete, golden, hashed, signal, values};

const SEED: u64 = 33;

fn narrow() -> Config {
    Config {
        name: "w2v_bert".into(),
        dim: 24,
        n_heads: 3,
        n_blocks: 2,
        ffn_dim: 40,
        conv_kernel: 7,
        positions: Positions::RelativeKey { left: 6, right: 3 },
        ..Config::W2V_BERT_2
    }
}

fn adapter() -> AdapterConfig {
    let (activation, feed_forward) = (Activation::Relu, true);
    AdapterConfig { dim: 12, n_layers: 2, kernel: 3, stride: 2, activation, feed_forward }
}

fn strides() -> AdapterConfig {
    let (activation, feed_forward) = (Activation::Swish, false);
    AdapterConfig { dim: 24, n_layers: 1, kernel: 3, stride: 4, activation, feed_forward }
}

/// Variants that differ in more than sizes.
fn forms() -> [(&'static str, Config); 6] {
    let of = |positions: Positions| Config { positions, ..narrow() };
    [
        ("relative_key", narrow()),
        ("relative", of(Positions::Relative)),
        ("rotary", of(Positions::Rotary { base: 500.0 })),
        ("none", Config { activation: Activation::Gelu, norm_eps: 1e-3, ..of(Positions::None) }),
        ("adapter", Config { adapter: Some(adapter()), ..narrow() }),
        ("strides", Config { adapter: Some(strides()), ..narrow() }),
    ]
}

fn hashed_tensor(name: &str, shape: &[usize]) -> (String, Tensor) {
    let (low, high) = match shape.len() {
        1 if name.ends_with("weight") => (0.8, 1.2),
        1 => (-0.1, 0.1),
        _ => {
            let limit = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
            (-limit, limit)
        }
    };
    let values = hashed(name, shape.iter().product(), low, high, SEED);
    (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
}

/// The tensors that the encoder asks for.
fn tensors(config: &Config) -> Vec<(String, Tensor)> {
    complete(Vec::new(), |weights| W2vBertEncoder::load(config, weights, &Device::Cpu), hashed_tensor)
}

fn load(config: &Config, tensors: Vec<(String, Tensor)>) -> W2vBertEncoder {
    W2vBertEncoder::load(config, &Weights::from_tensors(tensors).unwrap(), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 16_000, 5)).collect(), 16_000).unwrap()
}

#[test]
fn hidden_states_equal_transformers() {
    let golden = golden("w2v_bert.safetensors");
    for (name, config) in forms() {
        let encoder = load(&config, tensors(&config));
        assert_eq!((encoder.info().min_samples, encoder.info().n_layers), (560, 3));
        let seconds = if config.adapter.is_some() { 0.08 } else { 0.02 };
        assert_eq!((encoder.info().dim, encoder.info().frame_seconds), (config.output_dim(), seconds));
        for (n, n_steps) in [(560, 1), (720, 1), (5521, 16), (6001, 18)] {
            let encoded = encoder.forward(&batch(&[n]), Layers::All).unwrap();
            assert_eq!((encoded.layers.len(), encoded.layer_lengths.as_slice()), (3, &[n_steps][..]));
            // f32 rounding of features and of sums of some hundred products, values up to 4. With two frames the
            // normalised values are 1 / √2 and −1 / √2, however small their difference.
            let atol = if n < 1000 { 2e-4 } else { 4e-5 };
            let check = |key: &str, state: &Tensor| {
                assert_eq!(state.dims()[1..], *golden.shape(key).unwrap(), "{key}");
                assert_close(key, &values(state), &golden.to_vec(key).unwrap(), atol, 1e-5);
            };
            match config.adapter {
                Some(_) => check(&format!("{name}.{n}.last"), &encoded.last),
                None => {
                    for (layer, state) in encoded.layers.iter().enumerate() {
                        check(&format!("{name}.{n}.{layer}"), state);
                    }
                    assert_eq!(values(&encoded.last), values(&encoded.layers[2]));
                }
            }
            assert_eq!(encoded.lengths, [encoded.last.dim(1).unwrap()]);
            let last = encoder.forward(&batch(&[n]), Layers::Last).unwrap();
            assert!(last.layers.is_empty());
            assert_eq!(values(&last.last), values(&encoded.last));
        }
    }
}

#[test]
fn a_row_equals_the_clip_alone_and_short_clips_are_padded() {
    for (name, config) in forms() {
        let encoder = load(&config, tensors(&config));
        let lengths = [3000, 1, 559, 560, 3000, 6123, 720];
        let together = encoder.forward(&batch(&lengths), Layers::All).unwrap();
        for (row, n) in lengths.into_iter().enumerate() {
            let alone = encoder.forward(&batch(&[n]), Layers::All).unwrap();
            assert_eq!(
                (together.lengths[row], together.layer_lengths[row]),
                (alone.lengths[0], alone.layer_lengths[0])
            );
            let all = together.layers.iter().chain([&together.last]);
            for (all, alone) in all.zip(alone.layers.iter().chain([&alone.last])) {
                let row = all.get(row).unwrap();
                let (own, rest) = (alone.dims()[1], row.dims()[0] - alone.dims()[1]);
                assert_eq!(values(&row.narrow(0, 0, own).unwrap()), values(alone), "{name} {n}");
                assert!(values(&row.narrow(0, own, rest).unwrap()).iter().all(|x| *x == 0.0));
            }
        }
        let mut padded = signal(559, 16_000, 5);
        padded.push(0.0);
        let of = |clip: Vec<f32>| {
            values(&encoder.forward(&WaveformBatch::new(vec![clip], 16_000).unwrap(), Layers::Last).unwrap().last)
        };
        assert_eq!(of(padded), of(signal(559, 16_000, 5)));
    }
}

/// As on a GPU, where layers keep tensors and use the tensor library.
#[test]
fn states_are_the_same_without_kernels() {
    for (name, config) in forms() {
        let weights = Weights::from_tensors(tensors(&config)).unwrap();
        let states = |root: &Loader| {
            let encoder = W2vBertEncoder::build(&config, root).unwrap();
            let encoded = encoder.forward(&batch(&[5521, 900]), Layers::All).unwrap();
            encoded.layers.iter().chain([&encoded.last]).flat_map(values).collect::<Vec<f32>>()
        };
        let loader = || weights.loader(&Device::Cpu);
        assert_close(name, &states(&loader().without_kernels()), &states(&loader()), 2e-5, 1e-5);
    }
}

/// Features padded to those of a longer clip, with a mask, as in transformers.
#[test]
fn padded_features_with_lengths_equal_the_clips_alone() {
    let clips = [signal(5521, 16_000, 5), signal(3000, 16_000, 6)];
    for (name, config) in forms().into_iter().filter(|(_, config)| config.adapter.is_none()) {
        let encoder = load(&config, tensors(&config));
        let padded = encoder.front_end().compute_batch(&[&clips[0], &clips[1]]).unwrap();
        assert_eq!((padded.input_features.dim(), padded.lengths()), ((2, 17, 160), vec![16, 8]));
        let features = Tensor::from_iter(padded.input_features.iter().copied(), &Device::Cpu).unwrap();
        let features = features.reshape((2, 17, 160)).unwrap();
        let masked = encoder.forward_features(&features, Some(&padded.lengths()), Layers::All).unwrap();
        let clips = encoder.forward(&WaveformBatch::new(clips.to_vec(), 16_000).unwrap(), Layers::All).unwrap();
        for (masked, clips) in masked.layers.iter().zip(&clips.layers) {
            assert_close(name, &values(masked), &values(clips), 1e-5, 1e-5);
        }
        assert!(matches!(
            encoder.forward_features(&features, Some(&[18, 1]), Layers::Last),
            Err(Error::Argument { name: "lengths", .. })
        ));
    }
}

#[test]
fn sizes_are_detected_and_a_ctc_model_can_be_built() {
    for (name, config) in forms() {
        let tensors = tensors(&config);
        let weights = Weights::from_tensors(tensors.clone()).unwrap();
        let mut expected = Config { activation: Activation::Swish, norm_eps: 1e-5, ..config.clone() };
        match &mut expected.positions {
            // Of ten distances, 8 follow the query, as published.
            Positions::RelativeKey { left, right } => (*left, *right) = (1, 8),
            // `dim / 64` if neither the positions nor the preset determine it.
            Positions::Relative => {}
            positions => (*positions, expected.n_heads) = (Positions::None, 1),
        }
        if let Some(adapter) = &mut expected.adapter {
            (adapter.stride, adapter.activation) = (2, Activation::Relu);
        }
        assert_eq!(Config::from_weights(&weights).unwrap(), expected, "{name}");
        let json = serde_json::to_string(&EncoderConfig::from(config.clone())).unwrap();
        assert!(json.starts_with(r#"{"type":"w2v_bert""#), "{json}");
        assert_eq!(serde_json::from_str::<EncoderConfig>(&json).unwrap(), EncoderConfig::W2vBert(config.clone()));

        let dim = config.output_dim();
        let head = HeadConfig::linear(dim, 5);
        let ctc =
            CtcConfig { encoder: config.clone().into(), weighted_sum: None, head, vocabulary: Default::default() };
        let mut all: Vec<(String, Tensor)> =
            tensors.into_iter().map(|(name, tensor)| (format!("wav2vec2_bert.{name}"), tensor)).collect();
        // Leftovers of pre-training and of older versions beside the encoder.
        for name in ["masked_spec_embed", "encoder.embed_positions.pe"] {
            let tensor = Tensor::zeros(24, DType::F32, &Device::Cpu).unwrap();
            all.push((format!("wav2vec2_bert.{name}"), tensor));
        }
        all.extend([hashed_tensor("lm_head.weight", &[5, dim]), hashed_tensor("lm_head.bias", &[5])]);
        let model = CtcModel::load(&ctc, &Weights::from_tensors(all.clone()).unwrap(), &Device::Cpu).unwrap();
        let output = model.forward(&batch(&[5000, 900])).unwrap();
        let n_frames = if config.adapter.is_some() { [4, 1] } else { [14, 2] };
        assert_eq!((output.logits.dims(), output.lengths.as_slice()), (&[2, n_frames[0], 5][..], &n_frames[..]));

        // Layers at a different rate than the output cannot be summed in its place.
        if config.adapter.is_some() && dim == config.dim {
            all.push(hashed_tensor("layer_weights", &[3]));
            let ctc = CtcConfig { weighted_sum: Some(WeightedSumConfig::default()), ..ctc.clone() };
            let model = CtcModel::load(&ctc, &Weights::from_tensors(all).unwrap(), &Device::Cpu).unwrap();
            assert!(matches!(model.forward(&batch(&[5000])), Err(Error::Config { field: "weighted_sum", .. })));
        }
        let error = CtcModel::build(&ctc, &Parameters::new(&Device::Cpu, 1).loader()).unwrap_err();
        assert!(matches!(error, Error::Config { field: "encoder", .. }), "{error}");
    }
    assert!(matches!(Config::from_weights(&Weights::from_tensors([]).unwrap()), Err(Error::UnknownModel(_))));
}

#[test]
fn an_adapter_can_need_longer_clips() {
    // The adapter's convolution needs five steps for one, padded by a zero on either side; one frame suffices for the
    // last step.
    let config = Config { adapter: Some(AdapterConfig { kernel: 7, n_layers: 1, ..adapter() }), ..narrow() };
    let encoder = load(&config, tensors(&config));
    assert_eq!(encoder.info().min_samples, 400 + 8 * 160);
    let encoded = encoder.forward(&batch(&[1680, 1]), Layers::Last).unwrap();
    assert_eq!((encoded.last.dims(), encoded.lengths), (&[2, 1, 12][..], vec![1, 1]));
}

#[test]
fn invalid_configurations_are_typed_errors() {
    let good = Config { adapter: Some(adapter()), ..narrow() };
    let with = |adapter: AdapterConfig| Config { adapter: Some(adapter), ..good.clone() };
    let at = |positions: Positions| Config { positions, ..good.clone() };
    for (field, config) in [
        ("n_heads", Config { n_heads: 5, ..good.clone() }),
        ("n_heads", Config { n_heads: 0, ..good.clone() }),
        ("n_heads", Config { n_heads: 24, ..at(Positions::Rotary { base: 10.0 }) }),
        ("dim", Config { dim: 0, ..good.clone() }),
        ("dim", Config { dim: 27, ..at(Positions::Relative) }),
        ("n_blocks", Config { n_blocks: usize::MAX, ..good.clone() }),
        ("conv_kernel", Config { conv_kernel: 8, ..good.clone() }),
        ("norm_eps", Config { norm_eps: f32::NAN, ..good.clone() }),
        ("positions", at(Positions::RelativeKey { left: usize::MAX, right: 8 })),
        ("positions", at(Positions::Rotary { base: -1.0 })),
        ("stride", Config { front_end: SeamlessM4tConfig { stride: 0, ..good.front_end.clone() }, ..good.clone() }),
        ("adapter.dim", with(AdapterConfig { dim: 13, ..adapter() })),
        ("adapter.kernel", with(AdapterConfig { kernel: 0, ..adapter() })),
        ("adapter.stride", with(AdapterConfig { stride: 0, ..adapter() })),
        ("adapter.stride", with(AdapterConfig { n_layers: 1024, kernel: 1, ..adapter() })),
        ("adapter.n_layers", with(AdapterConfig { n_layers: 1024, kernel: 5, ..adapter() })),
        ("adapter.n_layers", with(AdapterConfig { n_layers: usize::MAX, ..adapter() })),
    ] {
        let none = Weights::from_tensors([]).unwrap();
        match W2vBertEncoder::load(&config, &none, &Device::Cpu) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, field, "{config:?}"),
            other => panic!("{field}: {other:?}"),
        }
    }
    let encoder = load(&narrow(), tensors(&narrow()));
    let empty = WaveformBatch::new(vec![vec![]], 16_000).unwrap();
    assert!(matches!(encoder.forward(&empty, Layers::Last), Err(Error::TooShort { .. })));
}

/// A folder of `Wav2Vec2BertForCTC` saved by transformers.
#[test]
fn a_folder_of_transformers_opens_as_a_ctc_model() {
    let golden = golden("w2v_bert.safetensors");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("w2v_bert");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let json = std::fs::read_to_string("tests/golden/w2v_bert_config.json").unwrap();
    write("config.json", &json);
    let config = Config { adapter: Some(adapter()), ..narrow() };
    let mut all: HashMap<String, Tensor> =
        tensors(&config).into_iter().map(|(name, tensor)| (format!("wav2vec2_bert.{name}"), tensor)).collect();
    all.insert("wav2vec2_bert.masked_spec_embed".to_string(), Tensor::zeros(24, DType::F32, &Device::Cpu).unwrap());
    all.extend([hashed_tensor("lm_head.weight", &[7, 12]), hashed_tensor("lm_head.bias", &[7])]);
    candle_core::safetensors::save(&all, folder.join("model.safetensors")).unwrap();
    let open = || CtcModel::open(&folder, &Device::Cpu);
    let check = |model: &CtcModel| {
        for n in [5521, 6001] {
            let logits = values(&model.forward(&batch(&[n])).unwrap().logits);
            assert_close("logits", &logits, &golden.to_vec(&format!("ctc.{n}")).unwrap(), 4e-5, 1e-5);
        }
    };
    check(&open().unwrap());
    // In either file; the padding token is the blank.
    let features = r#"{"feature_extractor_type": "SeamlessM4TFeatureExtractor", "num_mel_bins": 80, "padding_value": 1.0, "stride": 2}"#;
    write("vocab.json", r#"{"a": 0, "b": 1, "_": 2, "|": 3, "c": 4, "d": 5, "e": 6}"#);
    write("preprocessor_config.json", features);
    let model = open().unwrap();
    check(&model);
    let vocabulary = model.vocabulary().unwrap();
    assert_eq!((vocabulary.blank(), vocabulary.len(), vocabulary.word_delimiter()), (2, 7, Some(3)));
    std::fs::remove_file(folder.join("preprocessor_config.json")).unwrap();
    write("processor_config.json", &format!(r#"{{"feature_extractor": {features}}}"#));
    check(&open().unwrap());
    write("processor_config.json", &format!(r#"{{"feature_extractor": {}}}"#, features.replace("80", "40")));
    assert!(matches!(open().unwrap_err(), Error::Config { field: "feature_projection_input_dim", .. }));
    std::fs::remove_file(folder.join("processor_config.json")).unwrap();

    // Unsupported settings are rejected, not ignored.
    for (field, value) in [
        ("hidden_act", "\"tanh\""),
        ("adapter_act", "\"selu\""),
        ("position_embeddings_type", "\"absolute\""),
        ("conv_depthwise_kernel_size", "4"),
        ("add_adapter", "false"),
        ("hidden_size", "\"wide\""),
    ] {
        let mut config: serde_json::Value = serde_json::from_str(&json).unwrap();
        config[field] = serde_json::from_str(value).unwrap();
        write("config.json", &config.to_string());
        let error = open().unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{field}: {error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_published_configuration_is_the_default_of_transformers() {
    let config = serde_json::json!({"model_type": "wav2vec2-bert"});
    assert_eq!(Config::from_hugging_face(&config, None).unwrap(), Config::W2V_BERT_2);
    let front_end = SeamlessM4t::new(&Config::W2V_BERT_2.front_end).unwrap();
    assert_eq!((front_end.n_features(), front_end.min_samples()), (160, 560));
}
