//! CTC heads, the token transformer and the weighted sum of layers against PyTorch; complete CTC models.

mod common;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use clipwise::ctc::{
    CtcConfig, CtcModel, CtcOutput, FrameTimes, Head, HeadConfig, RecurrentConfig, TokenTransformer,
    TokenTransformerConfig, Vocabulary,
};
use clipwise::encoders::{Encoded, EncoderInfo, Layers, SpeechEncoder, WeightedSum, WeightedSumConfig};
use clipwise::nn::Cell;
use clipwise::weights::Parameters;
use clipwise::{Error, Result, WaveformBatch, Weights};
use common::{Hashed, Kind, assert_close, golden, hashed, values};

const SEED: u64 = 9;
const CPU: Device = Device::Cpu;

fn input(name: &str, shape: &[usize], bound: f64) -> Tensor {
    Tensor::from_vec(hashed(name, shape.iter().product(), -bound, bound, SEED), shape, &CPU).unwrap()
}

/// Hashed as `0.weight` …, under other names.
fn layers(sizes: &[(&str, &str, usize, usize)]) -> Weights {
    let mut names = Vec::new();
    let mut tensors = Hashed::new(SEED);
    for (hashed_as, name, inputs, outputs) in sizes {
        let hashed_as =
            |leaf: &str| if hashed_as.is_empty() { leaf.to_string() } else { format!("{hashed_as}.{leaf}") };
        tensors.tensor(&hashed_as("weight"), &[*outputs, *inputs], Kind::Linear);
        tensors.tensor(&hashed_as("bias"), &[*outputs], Kind::Linear);
        names.extend(["weight", "bias"].map(|leaf| format!("{name}.{leaf}")));
    }
    let tensors = tensors.tensors().into_iter().zip(names).map(|((_, tensor), name)| (name, tensor));
    Weights::from_tensors(tensors).unwrap()
}

fn load(config: &HeadConfig, weights: &Weights) -> Result<Head> {
    let root = weights.loader(&CPU);
    let head = Head::load(config, &root)?;
    root.finish("head").map(|()| head)
}

#[test]
fn the_error_for_an_unknown_head_lists_the_known_ones() {
    let error = HeadConfig::by_name("mlp").unwrap_err().to_string();
    assert_eq!(error, r#"expected a head called w2v-bert, whisper-small, qwen2-audio, got "mlp""#);
}

#[test]
fn heads_equal_pytorch_under_every_name() {
    let golden = golden("ctc_head.safetensors");
    for (name, config, parameters) in [
        ("w2v_bert", HeadConfig::W2V_BERT, 44_075),
        ("whisper_small", HeadConfig::WHISPER_SMALL, 33_067),
        ("qwen2_audio", HeadConfig::QWEN2_AUDIO, 677_931),
    ] {
        let trainable = Parameters::new(&CPU, 3);
        Head::load(&config, &trainable.loader()).unwrap();
        assert_eq!(trainable.count(), parameters);
        assert_eq!(HeadConfig::by_name(&name.replace('_', "-")).unwrap(), config);

        let dim = config.dim;
        let namings: Vec<Weights> = match name {
            "w2v_bert" => ["lm_head", "ctc_head", "ctc_head.0"].map(|to| layers(&[("", to, dim, 43)])).into(),
            "whisper_small" => ["lm_head", "ctc_head", "lm_head.1"].map(|to| layers(&[("1", to, dim, 43)])).into(),
            _ => [("lm_head", "3"), ("ctc_head", "3"), ("lm_head", "2")]
                .map(|(to, last)| {
                    let (first, last) = (format!("{to}.0"), format!("{to}.{last}"));
                    layers(&[("0", &first, dim, 512), ("3", &last, 512, 43)])
                })
                .into(),
        };
        let (hidden, expected) =
            (input("hidden", &[2, 3, dim], 1.0), golden.to_vec(&format!("{name}.logits")).unwrap());
        for weights in &namings {
            let logits = load(&config, weights).unwrap().forward(&hidden, None).unwrap();
            assert_eq!(logits.dims(), [2, 3, 43]);
            assert_close(name, &values(&logits), &expected, 5e-6, 1e-6);
        }
        let wrong = HeadConfig { n_tokens: 44, ..config.clone() };
        assert!(matches!(load(&wrong, &namings[0]), Err(Error::Weights(_))));
    }
    let good = HeadConfig::QWEN2_AUDIO;
    for config in [
        HeadConfig { dim: 0, ..good.clone() },
        HeadConfig { hidden: Some(0), ..good.clone() },
        HeadConfig { dropout: 1.0, ..good.clone() },
        HeadConfig { dropout: f64::NAN, ..good.clone() },
        HeadConfig { n_tokens: 0, ..good },
    ] {
        assert!(
            matches!(Head::load(&config, &Parameters::new(&CPU, 1).loader()), Err(Error::Config { .. })),
            "{config:?}"
        );
    }
}

#[test]
fn a_head_can_be_trained() {
    let trainable = Parameters::new(&CPU, 3);
    let config = HeadConfig { dropout: 0.5, ..HeadConfig::W2V_BERT };
    let head = Head::load(&config, &trainable.loader()).unwrap();
    let weights = trainable.weights().unwrap();
    let weight = weights.to_vec("lm_head.weight").unwrap();
    let n = weight.len() as f64;
    let mean = weight.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let deviation = (weight.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n).sqrt();
    let beyond = weight.iter().filter(|x| x.abs() > 0.04).count() as f64 / n;
    // 44,032 draws: the tolerances are more than four standard errors.
    assert!(
        mean.abs() < 4e-4 && (deviation - 0.02).abs() < 3e-4 && (beyond - 0.0455).abs() < 0.004,
        "{mean} {deviation} {beyond}"
    );
    assert!(weights.to_vec("lm_head.bias").unwrap().iter().all(|&x| x == 0.0));

    // Dropout is active in training only; a trained head loads for inference.
    let hidden = input("hidden", &[2, 3, 1024], 1.0);
    let forward = |head: &Head| values(&head.forward(&hidden, None).unwrap());
    let before = forward(&head);
    assert_close("loaded", &forward(&load(&config, &weights).unwrap()), &before, 1e-5, 0.0);
    trainable.set_training(true);
    assert!(common::max_difference(&forward(&head), &before) > 0.1);

    // Gradients of a small head.
    let golden = golden("ctc_head.safetensors");
    let config = HeadConfig { hidden: Some(5), dropout: 0.1, ..HeadConfig::linear(6, 4) };
    let trainable = Parameters::new(&CPU, 3);
    let head = Head::load(&config, &trainable.loader()).unwrap();
    trainable.restore(&layers(&[("0", "lm_head.0", 6, 5), ("3", "lm_head.3", 5, 4)])).unwrap();
    let logits = head.forward(&input("hidden", &[2, 3, 6], 1.0), None).unwrap();
    let loss = (input("c", &[2, 3, 4], 1.0) * logits).unwrap().sum_all().unwrap();
    assert_gradients(&loss, &trainable, |name| golden.to_vec(&name.replace("lm_head", "mlp")).unwrap());
}

#[test]
fn recurrent_heads_equal_pytorch() {
    let golden = golden("ctc_head.safetensors");
    let recurrent = |cell, n_layers, bidirectional| Some(RecurrentConfig { cell, hidden: 5, n_layers, bidirectional });
    let gru = HeadConfig { recurrent: recurrent(Cell::Gru, 2, true), ..HeadConfig::linear(6, 4) };
    let lstm = recurrent(Cell::Lstm, 1, false);
    let lstm = HeadConfig { recurrent: lstm, hidden: Some(3), dropout: 0.1, ..HeadConfig::linear(6, 4) };
    let states = input("states", &[2, 7, 6], 1.0);
    for (name, config, linear) in [
        ("gru", gru, layers(&[("lm_head", "lm_head", 10, 4)])),
        ("lstm", lstm, layers(&[("lm_head.0", "lm_head.0", 5, 3), ("lm_head.3", "lm_head.3", 3, 4)])),
    ] {
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<HeadConfig>(&json).unwrap(), config);
        let trainable = Parameters::new(&CPU, 3);
        let head = Head::load(&config, &trainable.loader()).unwrap();
        let mut tensors = Vec::new();
        for tensor in trainable.weights().unwrap().names().filter(|tensor| tensor.starts_with("rnn.")) {
            let weights = trainable.weights().unwrap();
            tensors.push((tensor.to_string(), input(tensor, weights.shape(tensor).unwrap(), 0.5)));
        }
        tensors.extend(linear.names().map(|name| (name.to_string(), linear.tensor(name, &CPU).unwrap())));
        let weights = Weights::from_tensors(tensors).unwrap();
        assert_eq!(trainable.restore(&weights).unwrap(), weights.len());

        // Trained and loaded, in a batch and alone; padding after a clip has no effect.
        let loaded = load(&config, &weights).unwrap();
        for (head, exact) in [(&head, false), (&loaded, true)] {
            let together = head.forward(&states, Some(&[7, 4])).unwrap();
            for (row, length) in [(0, 7), (1, 4)] {
                let own = values(&together.get(row).unwrap().narrow(0, 0, length).unwrap());
                assert_close(name, &own, &golden.to_vec(&format!("{name}.{row}")).unwrap(), 2e-6, 1e-5);
                let alone = states.narrow(0, row, 1).unwrap().narrow(1, 0, length).unwrap();
                let alone = values(&head.forward(&alone, None).unwrap());
                if exact { assert_eq!(own, alone) } else { assert_close(name, &own, &alone, 1e-6, 0.0) }
            }
            for lengths in [&[7][..], &[7, 8], &[7, 0]] {
                let error = head.forward(&states, Some(lengths)).unwrap_err();
                assert!(matches!(error, Error::Argument { name: "lengths", .. }), "{error}");
            }
        }

        let logits = head.forward(&states, Some(&[7, 4])).unwrap();
        let c = input("c", &[2, 7, 4], 1.0);
        let sum = |row: usize, length: usize| {
            let own = |x: &Tensor| x.get(row).unwrap().narrow(0, 0, length).unwrap();
            (own(&c) * own(&logits)).unwrap().sum_all().unwrap()
        };
        let loss = (sum(0, 7) + sum(1, 4)).unwrap();
        assert_gradients(&loss, &trainable, |tensor| golden.to_vec(&format!("{name}.{tensor}")).unwrap());
        for hidden in [0, usize::MAX] {
            let recurrent = config.recurrent.clone().map(|recurrent| RecurrentConfig { hidden, ..recurrent });
            let wrong = HeadConfig { recurrent, ..config.clone() };
            assert!(matches!(load(&wrong, &weights), Err(Error::Config { .. })), "{wrong:?}");
        }
        let other = HeadConfig { recurrent: None, ..config.clone() };
        assert!(matches!(load(&other, &weights), Err(Error::Weights(_))));
    }
}

fn assert_gradients(loss: &Tensor, trainable: &Parameters, expected: impl Fn(&str) -> Vec<f32>) {
    let gradients = loss.backward().unwrap();
    let (weights, vars) = (trainable.weights().unwrap(), trainable.vars());
    assert_eq!(weights.len(), vars.len());
    for (name, var) in weights.names().zip(&vars) {
        let gradient = gradients.get(var.as_tensor()).unwrap_or_else(|| panic!("no gradient of {name}"));
        assert_close(name, &values(gradient), &expected(name), 2e-5, 1e-5);
    }
}

#[test]
fn weighted_sums_equal_s3prl() {
    let golden = golden("ctc_head.safetensors");
    let states: Vec<Tensor> = {
        let all = input("layers", &[25, 2, 3, 8], 3.0);
        (0..25).map(|i| all.get(i).unwrap()).collect()
    };
    let alpha = hashed("alpha", 25, -2.0, 2.0, SEED);
    for (name, normalize) in [("sum", false), ("sum.normalized", true)] {
        let config = WeightedSumConfig { normalize };
        let expected = golden.to_vec(name).unwrap();
        for key in ["layer_weights", "featurizer.weights", "Featurizer.weights", "weights"] {
            let tensor = Tensor::new(alpha.as_slice(), &CPU).unwrap();
            let weights = Weights::from_tensors([(key.to_string(), tensor)]).unwrap();
            let root = weights.loader(&CPU);
            let sum = WeightedSum::load(&root, 25, &config).unwrap();
            root.finish("a sum").unwrap();
            assert_close(name, &values(&sum.forward(&states).unwrap()), &expected, 2e-6, 1e-6);
            assert!((sum.weights().unwrap().iter().sum::<f64>() - 1.0).abs() < 1e-12);

            assert!(matches!(sum.forward(&states[1..]), Err(Error::Argument { name: "layers.len()", .. })));
            let fewer = weights.loader(&CPU);
            WeightedSum::load(&fewer, 24, &config).unwrap();
            assert!(matches!(fewer.finish("a sum"), Err(Error::Weights(_))));
        }

        // In training: zero weights at first, and PyTorch's gradient.
        let trainable = Parameters::new(&CPU, 1);
        let sum = WeightedSum::load(&trainable.loader(), 25, &config).unwrap();
        assert!(sum.weights().unwrap().iter().all(|weight| (weight - 0.04).abs() < 1e-9));
        trainable.vars()[0].set(&Tensor::new(alpha.as_slice(), &CPU).unwrap()).unwrap();
        let total = sum.forward(&states).unwrap();
        assert_close(name, &values(&total), &expected, 2e-6, 1e-6);
        let loss = (input("c", &[2, 3, 8], 1.0) * &total).unwrap().sum_all().unwrap();
        assert_gradients(&loss, &trainable, |_| golden.to_vec(&format!("{name}.alpha")).unwrap());

        // Trainable states get gradients through the norm too.
        let vars: Vec<Var> = states.iter().map(|state| Var::from_tensor(state).unwrap()).collect();
        let trained: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let total = sum.forward(&trained).unwrap();
        assert_close(name, &values(&total), &expected, 2e-6, 1e-6);
        let gradients = total.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert!(vars.iter().all(|var| gradients.get(var.as_tensor()).is_some()));
    }
    let config = WeightedSumConfig::default();
    // One part of what s3prl saves.
    let file = common::golden_path("ctc_s3prl.pth");
    let featurizer = Weights::open_part(&file, "Featurizer").unwrap();
    assert_eq!(featurizer.names().collect::<Vec<_>>(), ["weights"]);
    let sum = WeightedSum::load(&featurizer.loader(&CPU), 25, &config).unwrap();
    assert_close("s3prl", &values(&sum.forward(&states).unwrap()), &golden.to_vec("sum").unwrap(), 2e-6, 1e-6);
    let downstream = Weights::open_part(&file, "Downstream").unwrap();
    assert!(downstream.contains("lm_head.weight") && !downstream.contains("weights"));
    for (path, key) in [(file.clone(), "Step"), (file, "Upstream"), (common::golden_path("ctc_head.safetensors"), "x")]
    {
        let error = Weights::open_part(path, key).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
    let uniform = WeightedSum::uniform(4, &config, &CPU).unwrap();
    assert_eq!(uniform.weights().unwrap(), [0.25; 4]);
    for alpha in [&[][..], &[0.0, f32::NAN]] {
        assert!(matches!(WeightedSum::new(alpha, &config, &CPU), Err(Error::Argument { name: "alpha", .. })));
    }
    assert!(WeightedSum::uniform(0, &config, &CPU).is_err());
    assert!(WeightedSum::load(&Parameters::new(&CPU, 1).loader(), 0, &config).is_err());
}

fn token_tensors(config: &TokenTransformerConfig) -> Vec<(String, Tensor)> {
    let TokenTransformerConfig { n_codes, width, n_blocks, ffn_dim, n_positions, n_tokens, .. } = *config;
    let mut tensors = vec![
        ("embedding.weight".to_string(), input("embedding.weight", &[n_codes, width], 0.5)),
        ("pos_encoding".to_string(), input("pos_encoding", &[1, n_positions, width], 0.5)),
    ];
    let mut linear = Hashed::new(SEED);
    for block in 0..n_blocks {
        let name = |leaf: &str| format!("transformer.layers.{block}.{leaf}");
        linear.tensor(&name("self_attn.in_proj_weight"), &[3 * width, width], Kind::Linear);
        tensors.push((name("self_attn.in_proj_bias"), input(&name("self_attn.in_proj_bias"), &[3 * width], 0.05)));
        linear.linear(&name("self_attn.out_proj"), width, width);
        linear.linear(&name("linear1"), width, ffn_dim);
        linear.linear(&name("linear2"), ffn_dim, width);
        for norm in ["norm1", "norm2"] {
            linear.tensor(&format!("{}.weight", name(norm)), &[width], Kind::Norm);
            linear.tensor(&format!("{}.bias", name(norm)), &[width], Kind::Norm);
        }
    }
    linear.linear("lm_head", width, n_tokens);
    tensors.extend(linear.tensors());
    tensors
}

fn codes(n: usize, n_codes: usize) -> Vec<u32> {
    hashed("tokens", n, 0.0, n_codes as f64, SEED).into_iter().map(|x| x as u32).collect()
}

#[test]
fn the_token_transformer_equals_pytorch() {
    let golden = golden("ctc_head.safetensors");
    let config = TokenTransformerConfig::SPEECH_TOKENIZER;
    let tensors = token_tensors(&config);
    assert_eq!(tensors.iter().map(|(_, tensor)| tensor.elem_count()).sum::<usize>(), 2_377_003);
    let other = |name: &str| {
        let name = name.replace("transformer.layers", "encoder.layers").replace("embedding.", "emb.");
        name.replace("pos_encoding", "pos_enc").replace("lm_head", "head")
    };
    let tokens = codes(14, 1024);
    for naming in [&(|name: &str| name.to_string()) as &dyn Fn(&str) -> String, &other] {
        let weights = tensors.iter().map(|(name, tensor)| (naming(name), tensor.clone()));
        let model = TokenTransformer::load(&config, &Weights::from_tensors(weights).unwrap(), &CPU).unwrap();
        let output = model.forward(&[&tokens[..7], &tokens[7..11]]).unwrap();
        assert_eq!((output.lengths.as_slice(), output.frame_seconds), (&[7, 4][..], 0.02));
        for (row, length) in [(0, 7), (1, 4)] {
            let logits = output.logits.get(row).unwrap().narrow(0, 0, length).unwrap();
            assert_close("logits", &values(&logits), &golden.to_vec(&format!("tokens.{row}")).unwrap(), 1e-5, 1e-5);
            let alone = model.forward(&[&tokens[7 * row..][..length]]).unwrap().logits;
            assert_eq!(values(&alone), values(&logits), "a row of a batch is the sequence alone");
        }

        let error = |sequences: &[&[u32]]| model.forward(sequences).unwrap_err().to_string();
        assert!(error(&[&[0; 2049]]).contains("2049") && error(&[&[0; 2049]]).contains("2048"));
        assert!(error(&[&[0], &[]]).contains("1 to 2048"));
        assert!(error(&[&[1023, 1024]]).contains("below 1024"));
        assert!(matches!(model.forward(&[]), Err(Error::Argument { .. })));
        assert_eq!(model.forward(&[&[5; 2048]]).unwrap().lengths, [2048]);
    }
    let wrong = TokenTransformerConfig { n_heads: 3, ..config };
    assert!(matches!(TokenTransformer::build(&wrong, &Parameters::new(&CPU, 1).loader()), Err(Error::Config { .. })));
}

#[test]
fn a_token_transformer_can_be_trained() {
    let golden = golden("ctc_head.safetensors");
    let config = TokenTransformerConfig {
        n_codes: 11,
        width: 8,
        n_heads: 2,
        n_blocks: 1,
        ffn_dim: 12,
        n_positions: 9,
        dropout: 0.3,
        n_tokens: 4,
        frame_seconds: 0.02,
    };
    let trainable = Parameters::new(&CPU, 1);
    let model = TokenTransformer::build(&config, &trainable.loader()).unwrap();
    let weights = Weights::from_tensors(token_tensors(&config)).unwrap();
    assert_eq!(trainable.restore(&weights).unwrap(), weights.len());
    let tokens = codes(10, 11);
    let logits = || model.forward(&[&tokens[..5], &tokens[5..]]).unwrap().logits;
    let loss = (input("c", &[2, 5, 4], 1.0) * logits()).unwrap().sum_all().unwrap();
    assert_gradients(&loss, &trainable, |name| golden.to_vec(&format!("tokens.{name}")).unwrap());
    let inference = TokenTransformer::load(&config, &trainable.weights().unwrap(), &CPU).unwrap();
    let same = inference.forward(&[&tokens[..5], &tokens[5..]]).unwrap().logits;
    assert_close("loaded", &values(&same), &values(&logits()), 1e-5, 0.0);
    let still = values(&logits());
    trainable.set_training(true);
    assert!(common::max_difference(&values(&logits()), &still) > 1e-2, "dropout");
}

/// An encoder for tests: frame `t` of layer `l` holds the mean of 100 samples, plus `l`.
struct Means(EncoderInfo);

fn means() -> Box<Means> {
    let mut info = EncoderInfo::new("means", 8000, 2, 0.0125);
    (info.n_layers, info.min_samples) = (3, 100);
    Box::new(Means(info))
}

impl SpeechEncoder for Means {
    fn info(&self) -> &EncoderInfo {
        &self.0
    }

    fn device(&self) -> &Device {
        &CPU
    }

    fn forward(&self, waveforms: &WaveformBatch, layers: Layers) -> Result<Encoded> {
        let lengths: Vec<usize> = waveforms.lengths().iter().map(|n| n / 100).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let layer = |layer: usize| {
            let rows = waveforms.rows().iter().flat_map(|row| {
                (0..longest * 2).map(move |i| match row.get(i / 2 * 100..i / 2 * 100 + 100) {
                    Some(frame) => frame.iter().sum::<f32>() / 100.0 + layer as f32,
                    None => 0.0,
                })
            });
            Tensor::from_iter(rows, &CPU).unwrap().reshape((waveforms.len(), longest, 2)).unwrap()
        };
        let states = if layers == Layers::All { (0..3).map(layer).collect() } else { Vec::new() };
        Ok(Encoded::new(states, layer(2), lengths))
    }
}

#[test]
fn a_model_is_an_encoder_a_sum_and_a_head() {
    let config = HeadConfig::linear(2, 3);
    let head = || {
        let tensors = [
            ("lm_head.weight".to_string(), Tensor::new(&[[1f32, 0.0], [0.0, -1.0], [0.5, 0.5]], &CPU).unwrap()),
            ("lm_head.bias".to_string(), Tensor::new(&[0f32, 1.0, 0.0], &CPU).unwrap()),
        ];
        load(&config, &Weights::from_tensors(tensors).unwrap()).unwrap()
    };
    let sum = |n_layers: usize| WeightedSum::uniform(n_layers, &WeightedSumConfig::default(), &CPU).unwrap();
    let clips = WaveformBatch::new(vec![vec![0.5; 250], vec![-0.25; 100]], 8000).unwrap();
    for (model, offset) in [
        (CtcModel::new(means(), None, head()).unwrap(), 2.0),
        (CtcModel::new(means(), Some(sum(3)), head()).unwrap(), 1.0),
    ] {
        let output = model.forward(&clips).unwrap();
        assert_eq!((output.logits.dims(), output.frame_seconds), (&[2, 2, 3][..], 0.0125));
        assert_eq!(output.lengths, [2, 1]);
        let ends = [250.0 / 8000.0, 100.0 / 8000.0];
        assert_eq!(output.times, ends.map(|end| FrameTimes::new(0.0125).until(end)));
        for (row, x) in [(0, 0.5 + offset), (1, -0.25 + offset)] {
            let logits: [f32; 3] = [x, 1.0 - x, x];
            let norm = logits.iter().map(|x| x.exp()).sum::<f32>().ln();
            let expected: Vec<f32> = logits.iter().map(|x| x - norm).collect();
            let clip = output.clip(row).unwrap();
            assert_eq!(clip.dim(), (output.lengths[row], 3));
            clip.rows().into_iter().for_each(|frame| assert_close("frame", &frame.to_vec(), &expected, 1e-6, 0.0));
        }
        assert!(matches!(output.clip(2), Err(Error::Argument { name: "index", .. })));
        let names = Vocabulary::new(["<blank>", "a", "b"]).unwrap();
        assert_eq!(model.with_vocabulary(names).unwrap().vocabulary().unwrap().blank(), 0);
    }
    let model = CtcModel::new(means(), None, head()).unwrap();
    assert!(model.with_vocabulary(Vocabulary::new(["<blank>", "a"]).unwrap()).is_err());
    assert!(matches!(CtcModel::new(means(), Some(sum(4)), head()), Err(Error::Config { .. })));
    let wide = Head::load(&HeadConfig { dim: 3, ..config }, &Parameters::new(&CPU, 1).loader()).unwrap();
    assert!(matches!(CtcModel::new(means(), None, wide), Err(Error::Config { field: "head.dim", .. })));
    let logits = Tensor::zeros((2, 3, 4), DType::F32, &CPU).unwrap();
    for lengths in [vec![3], vec![3, 4]] {
        assert!(matches!(CtcOutput::new(logits.clone(), lengths, 0.02), Err(Error::Argument { name: "lengths", .. })));
    }
}

#[test]
fn a_folder_opens() {
    let folder = std::env::temp_dir().join(format!("clipwise-ctc-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let config = |head: &str| {
        let encoder = r#"{"type": "whisper", "n_mels": 80, "dim": 64, "n_heads": 1, "n_blocks": 1, "ffn_dim": 32, "n_positions": 50}"#;
        format!(r#"{{"encoder": {encoder}, "weighted_sum": {{}}, "head": {head}}}"#)
    };
    let good = config(r#"{"dim": 64, "n_tokens": 4, "dropout": 0.1}"#);
    let whisper: CtcConfig = serde_json::from_str(&good).unwrap();
    assert_eq!(serde_json::from_value::<CtcConfig>(serde_json::to_value(&whisper).unwrap()).unwrap(), whisper);
    let mut tensors = Hashed::new(SEED);
    for (name, shape) in [("conv1", [64, 80, 3]), ("conv2", [64, 64, 3])] {
        tensors.tensor(&format!("encoder.{name}.weight"), &shape, Kind::Conv);
        tensors.tensor(&format!("encoder.{name}.bias"), &shape[..1], Kind::Conv);
    }
    for norm in ["layers.0.self_attn_layer_norm", "layers.0.final_layer_norm", "layer_norm"] {
        tensors.tensor(&format!("encoder.{norm}.weight"), &[64], Kind::Norm);
        tensors.tensor(&format!("encoder.{norm}.bias"), &[64], Kind::Norm);
    }
    for projection in ["q_proj", "v_proj", "out_proj"] {
        tensors.linear(&format!("encoder.layers.0.self_attn.{projection}"), 64, 64);
    }
    tensors.tensor("encoder.layers.0.self_attn.k_proj.weight", &[64, 64], Kind::Linear);
    tensors.linear("encoder.layers.0.fc1", 64, 32);
    tensors.linear("encoder.layers.0.fc2", 32, 64);
    tensors.linear("lm_head", 64, 4);
    let mut tensors: HashMap<_, _> = tensors.tensors().into_iter().collect();
    tensors.insert("layer_weights".to_string(), input("layer_weights", &[2], 1.0));
    tensors.insert("decoder.layers.0.fc1.weight".to_string(), input("decoder", &[2], 1.0)); // not read
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    write("config.json", &good);

    let model = CtcModel::open(&folder, &CPU).unwrap();
    assert!(model.vocabulary().is_none());
    write("vocab.json", r#"{"[PAD]": 0, "a": 1, "b": 2, "|": 3, "<s>": 4, "</s>": 5}"#);
    let named = CtcModel::open(&folder, &CPU).unwrap();
    assert_eq!(named.vocabulary().unwrap().tokens(), ["[PAD]", "a", "b", "|"]);
    assert_eq!((named.n_tokens(), named.sample_rate(), &*named.encoder().info().name), (4, 16_000, "whisper"));
    let clips =
        WaveformBatch::new(vec![common::signal(3000, 16_000, 1), common::signal(16_000, 16_000, 2)], 16_000).unwrap();
    let output = named.forward(&clips).unwrap();
    assert_eq!((output.lengths.as_slice(), output.logits.dims()), (&[10, 50][..], &[2, 50, 4][..]));
    assert_eq!(values(&output.logits), values(&model.forward(&clips).unwrap().logits));
    let sums: Vec<f32> =
        output.clip(0).unwrap().rows().into_iter().map(|row| row.iter().map(|x| x.exp()).sum()).collect();
    assert_close("probabilities", &sums, &[1.0; 10], 1e-6, 0.0);

    // The sum and the head alone, with an encoder in a separate file or folder that has a head of its own.
    let elsewhere = folder.join("published");
    std::fs::create_dir_all(&elsewhere).unwrap();
    let published = elsewhere.join("model.safetensors");
    let (on_top, mut rest): (HashMap<_, _>, HashMap<_, _>) =
        tensors.into_iter().partition(|(name, _)| name.starts_with("lm_head") || name == "layer_weights");
    rest.insert("lm_head.weight".to_string(), input("another", &[7, 64], 1.0));
    candle_core::safetensors::save(&rest, &published).unwrap();
    candle_core::safetensors::save(&on_top, folder.join("model.safetensors")).unwrap();
    for encoder in [&elsewhere, &published] {
        let model = CtcModel::open_with_encoder(&folder, encoder, &CPU).unwrap();
        assert_eq!(model.vocabulary(), named.vocabulary());
        assert_eq!(values(&output.logits), values(&model.forward(&clips).unwrap().logits));
    }
    let error = CtcModel::open(&folder, &CPU).unwrap_err().to_string();
    assert!(error.contains("encoder whisper") && error.contains("CtcModel::open_with_encoder"), "{error}");
    let error = CtcModel::open_with_encoder(&folder, folder.join("model.safetensors"), &CPU).unwrap_err();
    assert!(matches!(error, Error::Weights(_)), "{error}");
    let error = CtcModel::open_with_encoder(&elsewhere, &published, &CPU).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    rest.extend(on_top);
    candle_core::safetensors::save(&rest, folder.join("model.safetensors")).unwrap();

    write("vocab.json", r#"{"[PAD]": 0, "a": 1}"#);
    assert!(matches!(CtcModel::open(&folder, &CPU), Err(Error::LabelCount { n_classes: 4, n_labels: 2 })));
    for (text, reason) in [
        ("{", "EOF"),
        (r#"{"encoder": {"type": "parrot"}}"#, "parrot"),
        (&config(r#"{"dim": 64}"#), "n_tokens"),
        (&config(r#"{"dim": 64, "n_tokens": 4, "drop": 1}"#), "drop"),
        (&config(r#"{"dim": 63, "n_tokens": 4}"#), "expected 64, the width of the encoder"),
        (&config(r#"{"dim": 64, "n_tokens": 5}"#), "lm_head"),
    ] {
        write("config.json", text);
        let error = CtcModel::open(&folder, &CPU).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(matches!(CtcModel::open(&folder, &CPU), Err(Error::Io { .. })));
}
