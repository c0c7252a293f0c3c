//! Encoders of the wav2vec 2.0 family against transformers: hidden states, names, batches and short clips.

mod common;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Optimizer};
use clipwise::ctc::{CtcConfig, CtcModel, HeadConfig, LossConfig, OpenOptions, ctc_loss};
use clipwise::encoders::wav2vec2::{Config, ConvLayer, ConvNorm, PositionBias};
use clipwise::encoders::{Encoded, EncoderConfig, Layers, SpeechEncoder, Wav2Vec2Encoder};
use clipwise::weights::Parameters;
use clipwise::{Error, WaveformBatch, Weights};
use common::{assert_close, complete, golden, hashed, signal, values};

const SEED: u64 = 31;
const G: &str = "encoder.pos_conv_embed.conv.parametrizations.weight.original0";
const V: &str = "encoder.pos_conv_embed.conv.parametrizations.weight.original1";
const FOLDED: &str = "encoder.pos_conv_embed.conv.weight";

fn narrow(preset: Config) -> Config {
    let convs: Vec<ConvLayer> = preset.convs.iter().map(|conv| ConvLayer { channels: 16, ..*conv }).collect();
    let (position_kernel, position_groups) = (16, 4);
    Config {
        name: "wav2vec2".into(),
        convs: convs.into(),
        dim: 24,
        n_heads: 3,
        n_blocks: 2,
        ffn_dim: 40,
        position_kernel,
        position_groups,
        ..preset
    }
}

/// Variants that differ in more than sizes.
fn forms() -> [(&'static str, Config); 7] {
    let hubert = Config { projection_norm: false, ..narrow(Config::HUBERT_BASE) };
    let adapter = Config { adapter_dim: Some(5), ..narrow(Config::MMS_1B) };
    let batch = Config { position_batch_norm: true, ..narrow(Config::LARGE) };
    // Few buckets, so that the longest clip reaches the last ones.
    let position_bias = Some(PositionBias { n_buckets: 12, max_distance: 20 });
    let [wavlm, wavlm_large] = [Config::WAVLM_BASE, Config::WAVLM_LARGE].map(|preset| {
        assert_eq!(preset.position_bias, Some(PositionBias { n_buckets: 320, max_distance: 800 }));
        Config { normalize: true, position_bias, ..narrow(preset) }
    });
    [
        ("group", narrow(Config::BASE)),
        ("layer", narrow(Config::LARGE)),
        ("adapter", adapter),
        ("hubert", hubert),
        ("batch", batch),
        ("wavlm", wavlm),
        ("wavlm-large", wavlm_large),
    ]
}

/// The hidden states of all layers, and the output if it differs from the last.
fn all_states(encoded: &Encoded) -> impl Iterator<Item = &Tensor> {
    let is_another = encoded.layers.last().is_some_and(|layer| values(layer) != values(&encoded.last));
    encoded.layers.iter().chain(is_another.then_some(&encoded.last))
}

fn hashed_tensor(name: &str, shape: &[usize]) -> (String, Tensor) {
    let (low, high) = match shape.len() {
        _ if name == G => (0.5, 1.5),
        _ if name.ends_with("running_var") || name.ends_with("gru_rel_pos_const") => (0.8, 1.2),
        _ if name.ends_with("rel_attn_embed.weight") => (-2.0, 2.0),
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

/// The tensors that the encoder asks for, named as in transformers, with weight norms as in PyTorch 2.
fn tensors(config: &Config) -> Vec<(String, Tensor)> {
    let Config { dim, position_kernel, position_groups, .. } = *config;
    let mut positions = Vec::new();
    if !config.position_batch_norm {
        positions.push(hashed_tensor(G, &[1, 1, position_kernel]));
        positions.push(hashed_tensor(V, &[dim, dim / position_groups, position_kernel]));
    }
    complete(positions, |weights| Wav2Vec2Encoder::load(config, weights, &Device::Cpu), hashed_tensor)
}

fn load(config: &Config, tensors: Vec<(String, Tensor)>) -> Wav2Vec2Encoder {
    Wav2Vec2Encoder::load(config, &Weights::from_tensors(tensors).unwrap(), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 16_000, 5)).collect(), 16_000).unwrap()
}

#[test]
fn hidden_states_equal_transformers() {
    let golden = golden("wav2vec2.safetensors");
    for (name, config) in forms() {
        let encoder = load(&config, tensors(&config));
        assert_eq!((encoder.info().min_samples, encoder.info().frame_seconds), (400, 0.02));
        for n in [400, 719, 9001] {
            let encoded = encoder.forward(&batch(&[n]), Layers::All).unwrap();
            assert_eq!((encoded.layers.len(), encoded.lengths.as_slice()), (3, &[config.n_frames(n)][..]));
            assert_eq!(all_states(&encoded).count(), if config.norm_first { 4 } else { 3 });
            for (layer, state) in all_states(&encoded).enumerate() {
                let key = format!("{name}.{n}.{layer}");
                assert_eq!(state.dims()[1..], *golden.shape(&key).unwrap());
                // f32 rounding of sums of some hundred products, values up to 4.
                assert_close(&key, &values(state), &golden.to_vec(&key).unwrap(), 2e-5, 1e-5);
            }
            let last = encoder.forward(&batch(&[n]), Layers::Last).unwrap();
            assert!(last.layers.is_empty());
            assert_eq!(values(&last.last), values(&encoded.last));
        }
    }
}

/// The name of a transformers tensor in fairseq, or in the WavLM authors' code.
fn fairseq(name: &str, config: &Config) -> String {
    if name.starts_with("encoder.layers.") {
        let name = name.replace(".layer_norm.", ".self_attn_layer_norm.");
        return [
            (".attention.rel_attn_embed", ".self_attn.relative_attention_bias"),
            (".attention.gru_rel_pos_linear", ".self_attn.grep_linear"),
            (".attention.gru_rel_pos_const", ".self_attn.grep_a"),
            (".attention.", ".self_attn."),
            (".feed_forward.intermediate_dense", ".fc1"),
            (".feed_forward.output_dense", ".fc2"),
        ]
        .iter()
        .fold(name, |name, (from, to)| name.replace(from, to));
    }
    if name.starts_with("feature_extractor.") {
        let norm = if config.conv_norm == ConvNorm::Layer { ".2.1." } else { ".2." };
        return name.replace(".conv.", ".0.").replace(".layer_norm.", norm);
    }
    let positions = format!("encoder.pos_conv.{}", usize::from(config.position_batch_norm));
    name.replace("feature_projection.projection", "post_extract_proj")
        .replace("feature_projection.layer_norm", "layer_norm")
        .replace("encoder.pos_conv_embed.batch_norm", "encoder.pos_conv.0")
        .replace("encoder.pos_conv_embed.conv", &positions)
        .replace("parametrizations.weight.original0", "weight_g")
        .replace("parametrizations.weight.original1", "weight_v")
}

#[test]
fn fairseqs_layout_gives_the_same() {
    for (form, config) in forms().into_iter().filter(|(_, config)| config.adapter_dim.is_none()) {
        let plain = tensors(&config);
        let run = |tensors: Vec<(String, Tensor)>| {
            values(&load(&config, tensors).forward(&batch(&[5000]), Layers::Last).unwrap().last)
        };
        for prefix in ["", "w2v_encoder.w2v_model."] {
            let rename =
                |(name, tensor): &(String, Tensor)| (format!("{prefix}{}", fairseq(name, &config)), tensor.clone());
            let mut renamed: Vec<_> = plain.iter().map(rename).collect();
            let zeros = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
            for rest in ["mask_emb", "final_proj.weight", "label_embs_concat", "quantizer.vars", "project_q.bias"] {
                renamed.push((format!("{prefix}{rest}"), zeros(3)));
            }
            let detected = Config::from_weights(&Weights::from_tensors(renamed.clone()).unwrap()).unwrap();
            // fairseq's models with layer norms normalise clips.
            assert_eq!(detected.normalize, config.conv_norm == ConvNorm::Layer, "{form}");
            assert_eq!(
                (detected.dim, detected.n_blocks, detected.position_batch_norm),
                (24, 2, config.position_batch_norm)
            );
            assert_eq!(run(renamed), run(plain.clone()), "{form}");
        }
    }
}

#[test]
fn every_naming_scheme_gives_the_same() {
    let (_, config) = &forms()[0];
    let plain = tensors(config);
    let run = |tensors: Vec<(String, Tensor)>| {
        values(&load(config, tensors).forward(&batch(&[5000]), Layers::Last).unwrap().last)
    };
    let expected = run(plain.clone());
    let renamed = |rename: &dyn Fn(&str) -> String| -> Vec<(String, Tensor)> {
        plain.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
    };
    let old = |name: &str| {
        name.replace("parametrizations.weight.original0", "weight_g")
            .replace("parametrizations.weight.original1", "weight_v")
    };
    assert_eq!(run(renamed(&old)), expected);
    for prefix in ["wav2vec2.", "hubert."] {
        let mut below = renamed(&|name| format!("{prefix}{}", old(name)));
        // Leftovers of pre-training beside the encoder.
        below.push((format!("{prefix}masked_spec_embed"), Tensor::zeros(24, DType::F32, &Device::Cpu).unwrap()));
        below.push(("quantizer.codevectors".to_string(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap()));
        assert_eq!(run(below), expected);
    }
    // Folded by hand: w = g v / ‖v‖ per tap.
    let find = |name: &str| values(&plain.iter().find(|(other, _)| other == name).unwrap().1);
    let (g, mut v) = (find(G), find(V));
    for tap in 0..16 {
        let norm = v.iter().skip(tap).step_by(16).map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        v.iter_mut().skip(tap).step_by(16).for_each(|x| *x = (f64::from(*x) * f64::from(g[tap]) / norm) as f32);
    }
    let mut folded: Vec<_> = plain.iter().filter(|(name, _)| name != G && name != V).cloned().collect();
    folded.push((FOLDED.to_string(), Tensor::from_vec(v, (24, 6, 16), &Device::Cpu).unwrap()));
    assert_close("folded", &run(folded), &expected, 1e-6, 1e-6);
}

#[test]
fn a_row_equals_the_clip_alone_and_short_clips_are_padded() {
    for (name, config) in forms() {
        let encoder = load(&config, tensors(&config));
        let lengths = [3000, 1, 399, 400, 3000, 8123];
        let together = encoder.forward(&batch(&lengths), Layers::All).unwrap();
        for (row, n) in lengths.into_iter().enumerate() {
            let alone = encoder.forward(&batch(&[n]), Layers::All).unwrap();
            assert_eq!(together.lengths[row], config.n_frames(n.max(400)));
            for (all, alone) in all_states(&together).zip(all_states(&alone)) {
                let row = all.get(row).unwrap();
                let (own, rest) = (alone.dims()[1], row.dims()[0] - alone.dims()[1]);
                assert_eq!(values(&row.narrow(0, 0, own).unwrap()), values(alone), "{name} {n}");
                assert!(values(&row.narrow(0, own, rest).unwrap()).iter().all(|x| *x == 0.0));
            }
        }
        let mut padded = signal(399, 16_000, 5);
        padded.push(0.0);
        let of = |clip: Vec<f32>| {
            values(&encoder.forward(&WaveformBatch::new(vec![clip], 16_000).unwrap(), Layers::Last).unwrap().last)
        };
        assert_eq!(of(padded), of(signal(399, 16_000, 5)));
    }
}

#[test]
fn sizes_are_detected_and_a_ctc_model_can_be_built() {
    for (_, config) in forms() {
        let tensors = tensors(&config);
        let weights = Weights::from_tensors(tensors.clone()).unwrap();
        // `dim / 64` if no preset has this width; what the tensors do not determine is as published.
        let detected = Config::from_weights(&weights).unwrap();
        match config.position_bias {
            Some(bias) => {
                let position_bias = Some(PositionBias { max_distance: 800, ..bias });
                let normalize = config.conv_norm == ConvNorm::Layer;
                assert_eq!(detected, Config { normalize, position_bias, ..config.clone() });
            }
            None => assert_eq!(detected, Config { n_heads: 1, ..config.clone() }),
        }
        let json = serde_json::to_string(&EncoderConfig::from(config.clone())).unwrap();
        assert_eq!(serde_json::from_str::<EncoderConfig>(&json).unwrap(), EncoderConfig::Wav2vec2(config.clone()));

        let head = HeadConfig::linear(24, 5);
        let ctc =
            CtcConfig { encoder: config.clone().into(), weighted_sum: None, head, vocabulary: Default::default() };
        let mut all: Vec<(String, Tensor)> =
            tensors.into_iter().map(|(name, tensor)| (format!("wav2vec2.{name}"), tensor)).collect();
        all.extend([hashed_tensor("lm_head.weight", &[5, 24]), hashed_tensor("lm_head.bias", &[5])]);
        let model = CtcModel::load(&ctc, &Weights::from_tensors(all).unwrap(), &Device::Cpu).unwrap();
        let output = model.forward(&batch(&[5000, 900])).unwrap();
        assert_eq!(output.logits.dims(), [2, config.n_frames(5000), 5]);
        assert_eq!(output.lengths, [config.n_frames(5000), config.n_frames(900)]);

        let error = CtcModel::build(&ctc, &Parameters::new(&Device::Cpu, 1).loader()).unwrap_err();
        assert!(matches!(error, Error::Config { field: "encoder", .. }), "{error}");
    }
}

/// The adapters and the head of a language are trained inside a frozen encoder; the saved file opens as that language.
#[test]
fn adapters_of_a_language_are_trained() {
    let config = Config { adapter_dim: Some(8), ..narrow(Config::MMS_1B) };
    let published: HashMap<String, Tensor> =
        tensors(&config).into_iter().map(|(name, tensor)| (format!("wav2vec2.{name}"), tensor)).collect();
    let weights = Weights::from_tensors(published.clone()).unwrap();
    let head = HeadConfig::linear(24, 4);
    let ctc = CtcConfig { encoder: config.clone().into(), weighted_sum: None, head, vocabulary: Default::default() };
    let parameters = Parameters::new(&Device::Cpu, 3);
    let root = weights.loader(&Device::Cpu);
    let encoder = Wav2Vec2Encoder::build_with_adapters(&config, &root, &parameters.loader()).unwrap();
    root.finish("the frozen part").unwrap();
    let model = CtcModel::build_on(Box::new(encoder), &ctc, &parameters.loader()).unwrap();
    // Two blocks with a norm and two linear layers each, and the head.
    assert_eq!(parameters.vars().len(), 2 * 6 + 2);

    let (clips, targets) = (batch(&[8000, 5000]), [vec![1, 2, 3, 1], vec![3, 2]]);
    let mut optimizer = AdamW::new_lr(parameters.vars(), 0.02).unwrap();
    let mut losses = Vec::new();
    for _ in 0..40 {
        let output = model.forward(&clips).unwrap();
        let loss = ctc_loss(&output.logits, &output.lengths, &targets, &LossConfig::default()).unwrap();
        losses.push(loss.to_scalar::<f32>().unwrap());
        let gradients = loss.backward().unwrap();
        assert!(parameters.vars().iter().all(|var| gradients.get(var).is_some()), "every adapter has a gradient");
        optimizer.step(&gradients).unwrap();
    }
    assert!(losses[39] < 0.3 * losses[0], "{losses:?}");

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wav2vec2-adapters");
    std::fs::create_dir_all(&folder).unwrap();
    candle_core::safetensors::save(&published, folder.join("model.safetensors")).unwrap();
    std::fs::write(folder.join("config.json"), serde_json::to_string(&ctc).unwrap()).unwrap();
    parameters.save(folder.join("adapter.abc.safetensors")).unwrap();
    let opened = CtcModel::open_with(&folder, &OpenOptions::new().language("abc")).unwrap();
    let logits = |model: &CtcModel| values(&model.forward(&batch(&[8000])).unwrap().logits);
    assert_close("opened", &logits(&opened), &logits(&model), 2e-5, 1e-5);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn invalid_configurations_are_typed_errors() {
    let good = narrow(Config::BASE);
    let wide = vec![ConvLayer { channels: 16, kernel: 3, stride: 1 << 15 }];
    let biased = |n_buckets, max_distance| Config {
        position_bias: Some(PositionBias { n_buckets, max_distance }),
        ..narrow(Config::WAVLM_BASE)
    };
    for (field, config) in [
        ("n_heads", Config { n_heads: 5, ..good.clone() }),
        ("n_heads", Config { n_heads: 0, ..good.clone() }),
        ("position_groups", Config { position_groups: 7, ..good.clone() }),
        ("position_kernel", Config { position_kernel: 0, ..good.clone() }),
        ("convs", Config { convs: Vec::new().into(), ..good.clone() }),
        ("convs", Config { convs: wide.into(), ..good.clone() }),
        ("dim", Config { dim: 0, ..good.clone() }),
        ("position_bias.n_buckets", biased(6, 20)),
        ("position_bias.n_buckets", biased(0, 20)),
        ("position_bias.max_distance", biased(12, 3)),
        ("position_bias.max_distance", biased(12, usize::MAX)),
        ("adapter_dim", Config { adapter_dim: Some(16), ..good.clone() }),
        ("adapter_dim", Config { adapter_dim: Some(0), ..narrow(Config::LARGE) }),
        ("n_blocks", Config { n_blocks: usize::MAX, ..good.clone() }),
    ] {
        let none = Weights::from_tensors([]).unwrap();
        match Wav2Vec2Encoder::load(&config, &none, &Device::Cpu) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, field, "{config:?}"),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert_eq!(good.conv_norm, ConvNorm::Group);
    let encoder = load(&good, tensors(&good));
    let short = Tensor::zeros((1, 399, 1), DType::F32, &Device::Cpu).unwrap();
    let error = encoder.forward_samples(&short, Layers::Last).unwrap_err();
    assert!(matches!(error, Error::TooShort { needed: 400, got: 399 }), "{error}");
    let empty = WaveformBatch::new(vec![vec![]], 16_000).unwrap();
    assert!(matches!(encoder.forward(&empty, Layers::Last), Err(Error::TooShort { .. })));
}

/// A folder of `Wav2Vec2ForCTC` saved by transformers, with either file name of the weights.
#[test]
fn a_folder_of_transformers_opens_as_a_ctc_model() {
    let golden = golden("wav2vec2.safetensors");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wav2vec2");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let json = std::fs::read_to_string("tests/golden/wav2vec2_config.json").unwrap();
    write("config.json", &json);
    let config = narrow(Config::BASE);
    let mut all: HashMap<String, Tensor> =
        tensors(&config).into_iter().map(|(name, tensor)| (format!("wav2vec2.{name}"), tensor)).collect();
    all.insert("wav2vec2.masked_spec_embed".to_string(), Tensor::zeros(24, DType::F32, &Device::Cpu).unwrap());
    for (name, limit, shape) in
        [("lm_head.weight", (3.0f64 / 24.0).sqrt(), vec![7, 24]), ("lm_head.bias", 0.1, vec![7])]
    {
        let values = hashed(name, shape.iter().product(), -limit, limit, SEED);
        all.insert(name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
    }
    candle_core::safetensors::save(&all, folder.join("pytorch_model.bin")).unwrap();
    let open = || CtcModel::open(&folder, &Device::Cpu);
    let logits = |model: &CtcModel| values(&model.forward(&batch(&[9001])).unwrap().logits);

    // Without a preprocessor_config.json, clips are normalised.
    let model = open().unwrap();
    assert_eq!(&*model.encoder().info().name, "wav2vec2");
    assert!(model.vocabulary().is_none());
    let normalized = golden.to_vec("ctc.normalized").unwrap();
    assert_close("normalized", &logits(&model), &normalized, 2e-5, 1e-5);
    write("preprocessor_config.json", r#"{"do_normalize": false, "feature_size": 1, "sampling_rate": 16000}"#);
    assert_close("raw", &logits(&open().unwrap()), &golden.to_vec("ctc.raw").unwrap(), 2e-5, 1e-5);
    write("preprocessor_config.json", r#"{"do_normalize": true}"#);
    std::fs::rename(folder.join("pytorch_model.bin"), folder.join("model.safetensors")).unwrap();
    // The padding token is the blank; tokens without an output are dropped.
    write("vocab.json", r#"{"a": 0, "b": 1, "_": 2, "|": 3, "c": 4, "d": 5, "e": 6, "<s>": 7, "</s>": 8}"#);
    let model = open().unwrap();
    assert_close("safetensors", &logits(&model), &normalized, 2e-5, 1e-5);
    let vocabulary = model.vocabulary().unwrap();
    assert_eq!((vocabulary.blank(), vocabulary.len(), vocabulary.word_delimiter()), (2, 7, Some(3)));

    // Unsupported settings are rejected, not ignored.
    for (field, value) in
        [("add_adapter", "true"), ("hidden_act", "\"relu\""), ("layer_norm_eps", "1e-6"), ("conv_stride", "[5, 2]")]
    {
        let mut config: serde_json::Value = serde_json::from_str(&json).unwrap();
        config[field] = serde_json::from_str(value).unwrap();
        write("config.json", &config.to_string());
        let error = open().unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{field}: {error}");
    }
    write("config.json", &json.replace("\"hidden_size\": 24", "\"hidden_size\": \"wide\""));
    assert!(matches!(open().unwrap_err(), Error::Config { field: "config.json", .. }));
    std::fs::remove_dir_all(&folder).unwrap();
}
