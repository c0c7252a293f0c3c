//! Whisper's front end and encoder against transformers, and on real speech.

mod common;

use candle_core::{Device, Tensor};
use candle_nn::Optimizer;
use clipwise::ctc::{CtcConfig, CtcModel, HeadConfig, LossConfig, RecurrentConfig, ctc_loss};
use clipwise::encoders::whisper::Config;
use clipwise::encoders::{Layers, SpeechEncoder, WeightedSumConfig, WhisperEncoder};
use clipwise::frontend::{WhisperMel, WhisperMelConfig};
use clipwise::nn::Cell;
use clipwise::{Error, Waveform, WaveformBatch, Weights};
use common::{Hashed, Kind, assert_close, golden, hashed, max_difference, real, signal, values};

const SEED: u64 = 8;
const NARROW_80: Config = Config {
    name: std::borrow::Cow::Borrowed("whisper"),
    n_mels: 80,
    dim: 128,
    n_heads: 2,
    n_blocks: 2,
    ffn_dim: 256,
    n_positions: 25,
    pad: false,
    keep_padding: false,
};
const NARROW_128: Config = Config {
    name: std::borrow::Cow::Borrowed("whisper"),
    n_mels: 128,
    dim: 64,
    n_heads: 1,
    n_blocks: 1,
    ffn_dim: 96,
    n_positions: 20,
    pad: false,
    keep_padding: false,
};

/// Hashed tensors under the names of transformers.
fn tensors(config: &Config) -> Vec<(String, Tensor)> {
    let Config { n_mels, dim, ffn_dim, n_blocks, n_positions, .. } = *config;
    let mut hashed_tensors = Hashed::new(SEED);
    for (conv, inputs) in [("conv1", n_mels), ("conv2", dim)] {
        hashed_tensors.tensor(&format!("{conv}.weight"), &[dim, inputs, 3], Kind::Conv);
        hashed_tensors.tensor(&format!("{conv}.bias"), &[dim], Kind::Conv);
    }
    let norm = |hashed_tensors: &mut Hashed, name: &str| {
        hashed_tensors.tensor(&format!("{name}.weight"), &[dim], Kind::Norm);
        hashed_tensors.tensor(&format!("{name}.bias"), &[dim], Kind::Norm);
    };
    for block in 0..n_blocks {
        let name = |leaf: &str| format!("layers.{block}.{leaf}");
        for projection in ["q_proj", "v_proj", "out_proj"] {
            hashed_tensors.linear(&name(&format!("self_attn.{projection}")), dim, dim);
        }
        hashed_tensors.tensor(&name("self_attn.k_proj.weight"), &[dim, dim], Kind::Linear);
        norm(&mut hashed_tensors, &name("self_attn_layer_norm"));
        norm(&mut hashed_tensors, &name("final_layer_norm"));
        hashed_tensors.linear(&name("fc1"), dim, ffn_dim);
        hashed_tensors.linear(&name("fc2"), ffn_dim, dim);
    }
    norm(&mut hashed_tensors, "layer_norm");
    let mut tensors = hashed_tensors.tensors();
    let positions = hashed("embed_positions.weight", n_positions * dim, -1.0, 1.0, SEED);
    let positions = Tensor::from_vec(positions, (n_positions, dim), &Device::Cpu).unwrap();
    tensors.push(("embed_positions.weight".to_string(), positions));
    tensors
}

/// The tensor's name in OpenAI's checkpoints.
fn openai(name: &str) -> String {
    let mut name = name.replace("embed_positions.weight", "positional_embedding");
    if let Some(rest) = name.strip_prefix("layer_norm.") {
        name = format!("ln_post.{rest}");
    }
    for (from, to) in [
        ("layers.", "blocks."),
        ("self_attn_layer_norm", "attn_ln"),
        ("self_attn.", "attn."),
        ("q_proj", "query"),
        ("k_proj", "key"),
        ("v_proj", "value"),
        ("out_proj", "out"),
        ("final_layer_norm", "mlp_ln"),
        ("fc1", "mlp.0"),
        ("fc2", "mlp.2"),
    ] {
        name = name.replace(from, to);
    }
    format!("encoder.{name}")
}

fn renamed(tensors: Vec<(String, Tensor)>, name: impl Fn(&str) -> String) -> Weights {
    Weights::from_tensors(tensors.into_iter().map(|(old, tensor)| (name(&old), tensor))).unwrap()
}

fn narrow(config: &Config) -> WhisperEncoder {
    WhisperEncoder::load(config, &renamed(tensors(config), str::to_string), &Device::Cpu).unwrap()
}

fn batch(clips: Vec<Vec<f32>>) -> WaveformBatch {
    WaveformBatch::new(clips, 16_000).unwrap()
}

#[test]
fn features_equal_transformers() {
    let expected = golden("whisper.safetensors");
    let expected = |name: &str| expected.to_vec(name).unwrap();
    let mel = |n_mels: usize| WhisperMel::new(&WhisperMelConfig { n_mels, ..WhisperMelConfig::MELS_80 }).unwrap();
    for (n_mels, n) in [(80, 1), (80, 161), (80, 4000), (128, 2400)] {
        let mel = mel(n_mels);
        let clip = signal(n, 16_000, SEED);
        let (own, padded) = (mel.compute(&clip).unwrap(), mel.compute_padded(&clip).unwrap());
        assert_eq!((own.nrows(), padded.nrows()), (n.div_ceil(160), 3000));
        let name = format!("mel.{n_mels}.{n}");
        assert_close(&name, own.as_slice().unwrap(), &expected(&name), 1e-6, 0.0);
        assert_eq!(padded.slice(ndarray::s![..own.nrows(), ..]), own, "zeros after a clip change nothing in it");
        let silence = padded[(2999, 0)];
        assert!(
            padded.iter().all(|&x| x >= silence)
                && padded.slice(ndarray::s![-2500.., ..]).iter().all(|&x| x == silence)
        );
    }

    let mel = mel(80);
    let whole = mel.compute(&signal(480_000, 16_000, SEED)).unwrap();
    let some = whole.rows().into_iter().enumerate().filter(|(t, _)| t % 150 == 0 || *t == 2999);
    let some: Vec<f32> = some.flat_map(|(_, row)| row.to_vec()).collect();
    assert_close("30 s", &some, &expected("mel.80.480000"), 1e-6, 0.0);

    // The loudest frame is after the clip's own frames, or after the last frame of 30 s.
    for (name, n) in [("click", 1121), ("end", 480_000)] {
        let mut clip: Vec<f32> = signal(n, 16_000, SEED).iter().map(|x| x * 1e-3).collect();
        clip[n - 1] = 1.0;
        let own = mel.compute(&clip).unwrap();
        let last = own.slice(ndarray::s![-5.., ..]).iter().copied().collect::<Vec<_>>();
        assert_close(name, &last, &expected(&format!("mel.80.{name}")), 1e-6, 0.0);
    }
}

#[test]
fn hidden_states_equal_transformers() {
    let golden = golden("whisper.safetensors");
    for (name, config) in [("narrow80", &NARROW_80), ("narrow128", &NARROW_128)] {
        let n_frames = 2 * config.n_positions;
        let features = hashed("features", config.n_mels * n_frames, -1.0, 1.5, SEED);
        let features = Tensor::from_vec(features, (1, config.n_mels, n_frames), &Device::Cpu).unwrap();
        let features = features.transpose(1, 2).unwrap().contiguous().unwrap();
        let short = features.narrow(1, 0, 18).unwrap();
        for weights in [
            renamed(tensors(config), str::to_string),
            renamed(tensors(config), openai),
            renamed(tensors(config), |name| format!("model.encoder.{name}")),
        ] {
            assert_eq!(Config::from_weights(&weights).unwrap(), *config);
            let encoder = WhisperEncoder::load(config, &weights, &Device::Cpu).unwrap();
            let all = encoder.forward_features(&features, None, Layers::All).unwrap();
            assert_eq!((all.layers.len(), encoder.info().n_layers), (config.n_blocks + 1, config.n_blocks + 1));
            for (i, state) in all.layers.iter().enumerate() {
                let expected = golden.to_vec(&format!("{name}.{i}")).unwrap();
                assert_close(&format!("{name}, state {i}"), &values(state), &expected, 2e-5, 1e-5);
            }
            let last = encoder.forward_features(&features, None, Layers::Last).unwrap();
            assert!(last.layers.is_empty());
            assert_eq!(values(&last.last), values(&all.layers[config.n_blocks]));
            assert_eq!(values(&all.last), values(&last.last));
            let cut = encoder.forward_features(&short, None, Layers::Last).unwrap();
            let expected = golden.to_vec(&format!("{name}.short")).unwrap();
            assert_close("18 frames", &values(&cut.last), &expected, 2e-5, 1e-5);
            assert_eq!(cut.lengths, [9]);
        }
    }
}

#[test]
fn a_row_of_a_batch_equals_the_clip_alone() {
    let lengths = [3000, 1, 8000, 1600, 3000];
    let clips: Vec<Vec<f32>> = lengths.iter().map(|&n| signal(n, 16_000, n as u64)).collect();
    for pad in [false, true] {
        let encoder = narrow(&Config { pad, ..NARROW_80 });
        let together = encoder.forward(&batch(clips.clone()), Layers::All).unwrap();
        assert_eq!(together.lengths, [10, 1, 25, 5, 10]);
        for (row, clip) in clips.iter().enumerate() {
            let alone = encoder.forward(&batch(vec![clip.clone()]), Layers::All).unwrap();
            assert_eq!(alone.lengths, together.lengths[row..=row]);
            for (alone, together) in alone.layers.iter().zip(&together.layers) {
                let (own, all) = (values(alone), values(&together.get(row).unwrap()));
                assert_eq!(all.len(), 25 * 128);
                assert_eq!(own, all[..own.len()], "row {row}, pad {pad}");
                assert!(all[own.len()..].iter().all(|&x| x == 0.0));
            }
        }
    }
    // With padding, attention covers all positions.
    let encoder = narrow(&Config { pad: true, ..NARROW_80 });
    let features = encoder.mel().compute_padded(&clips[0]).unwrap();
    let features = Tensor::from_iter(features, &Device::Cpu).unwrap().reshape((1, 50, 80)).unwrap();
    let whole = encoder.forward_features(&features, None, Layers::Last).unwrap();
    let own = encoder.forward(&batch(vec![clips[0].clone()]), Layers::Last).unwrap();
    assert_eq!(whole.lengths, [25]);
    assert_eq!(values(&own.last), values(&whole.last)[..10 * 128]);

    // With a mask, instead of sub-batches of one length.
    let encoder = narrow(&NARROW_80);
    let features = hashed("masked", 3 * 50 * 80, -1.0, 1.5, SEED);
    let features = Tensor::from_vec(features, (3, 50, 80), &Device::Cpu).unwrap();
    let lengths = [50, 1, 23];
    let masked = encoder.forward_features(&features, Some(&lengths), Layers::All).unwrap();
    assert_eq!(masked.lengths, [25, 1, 12]);
    for (row, length) in lengths.into_iter().enumerate() {
        let alone = features.narrow(0, row, 1).unwrap().narrow(1, 0, length).unwrap();
        let alone = encoder.forward_features(&alone, None, Layers::All).unwrap();
        for (alone, masked) in alone.layers.iter().zip(&masked.layers) {
            let (own, all) = (values(alone), values(&masked.get(row).unwrap()));
            assert_close(&format!("row {row}"), &all[..own.len()], &own, 1e-5, 0.0);
            assert!(all[own.len()..].iter().all(|&x| x == 0.0));
        }
    }
}

#[test]
fn invalid_configurations_and_inputs_are_errors() {
    let encoder = narrow(&NARROW_80);
    let forward = |clip: Vec<f32>| encoder.forward(&batch(vec![clip]), Layers::Last).map(|encoded| encoded.lengths);
    assert_eq!(forward(vec![0.0; 8000]).unwrap(), [25]);
    let error = forward(vec![0.0; 8001]).unwrap_err().to_string();
    assert!(error.contains("8001") && error.contains("0.5 s") && error.contains("cut"), "{error}");
    assert!(matches!(forward(vec![]), Err(Error::TooShort { needed: 1, got: 0 })));
    assert!(matches!(forward(vec![0.0, f32::NAN]), Err(Error::NonFinite { index: 1, .. })));
    let other_rate = WaveformBatch::new(vec![vec![0.0; 8000]], 8000).unwrap();
    let error = encoder.forward(&other_rate, Layers::Last).unwrap_err();
    assert!(matches!(error, Error::SampleRate { expected: 16_000, got: 8000 }));

    let features = |n_frames: usize, n_mels: usize| {
        Tensor::zeros((2, n_frames, n_mels), candle_core::DType::F32, &Device::Cpu).unwrap()
    };
    let of = |x: &Tensor, lengths: Option<&[usize]>| encoder.forward_features(x, lengths, Layers::Last).map(|_| ());
    assert!(matches!(of(&features(51, 80), None), Err(Error::Argument { name: "n_frames", .. })));
    assert!(matches!(of(&features(0, 80), None), Err(Error::Argument { name: "n_frames", .. })));
    assert!(matches!(of(&features(50, 79), None), Err(Error::Tensor { .. })));
    for lengths in [&[1, 2, 3][..], &[1, 51], &[0, 1]] {
        assert!(
            matches!(of(&features(50, 80), Some(lengths)), Err(Error::Argument { name: "lengths", .. })),
            "{lengths:?}"
        );
    }

    let load =
        |config: &Config, tensors| WhisperEncoder::load(config, &renamed(tensors, openai), &Device::Cpu).map(|_| ());
    let mut fewer = tensors(&NARROW_80);
    fewer.retain(|(name, _)| name != "layers.1.self_attn.q_proj.bias");
    let error = load(&NARROW_80, fewer).unwrap_err().to_string();
    assert!(error.contains("encoder.blocks.1.attn.query.bias"), "{error}");
    assert!(matches!(load(&Config { n_blocks: 1, ..NARROW_80 }, tensors(&NARROW_80)), Err(Error::Weights(_))));
    assert!(matches!(load(&Config { n_blocks: 1000, ..NARROW_80 }, tensors(&NARROW_80)), Err(Error::Weights(_))));
    for config in [
        Config { n_blocks: usize::MAX, ..NARROW_80 },
        Config { n_heads: 3, ..NARROW_80 },
        Config { n_blocks: 0, ..NARROW_80 },
        Config { n_positions: usize::MAX, ..NARROW_80 },
        Config { n_mels: 0, ..NARROW_80 },
    ] {
        assert!(matches!(load(&config, tensors(&NARROW_80)), Err(Error::Config { .. })), "{config:?}");
    }
    let nothing = Weights::from_tensors([("x".to_string(), Tensor::new(1f32, &Device::Cpu).unwrap())]).unwrap();
    assert!(matches!(Config::from_weights(&nothing), Err(Error::UnknownModel(_))));
    let parameters = clipwise::weights::Parameters::new(&Device::Cpu, 1);
    let error = WhisperEncoder::build(&NARROW_80, &parameters.loader()).unwrap_err().to_string();
    assert!(error.contains("checkpoint"), "{error}");
}

#[test]
fn real_speech_gets_the_hidden_states_of_transformers() {
    let Some(folder) = real("real/whisper-tiny-en") else { return };
    let weights = Weights::open(folder.join("encoder.safetensors")).unwrap();
    let expected = Weights::open(folder.join("expected_jfk.safetensors")).unwrap();
    let config = Config::from_weights(&weights).unwrap();
    assert_eq!(config, Config::TINY);
    let encoder = WhisperEncoder::load(&config, &weights, &Device::Cpu).unwrap();
    let speech = Waveform::open(real("audio/jfk.wav").unwrap()).unwrap();
    assert_eq!(speech.sample_rate, 16_000);

    let features = encoder.mel().compute_padded(&speech.samples).unwrap();
    let across = expected.to_vec("mel").unwrap(); // [80, 3000]
    let across: Vec<f32> = (0..3000 * 80).map(|i| across[i % 80 * 3000 + i / 80]).collect();
    // The stored features were rounded to half precision, by up to 2^-11 of the value; the hidden states were not made
    // from them.
    assert!(across.iter().all(|&x| half::f16::from_f32(x).to_f32() == x));
    assert_close("log-mel", features.as_slice().unwrap(), &across, 1e-5, 1.0 / 2048.0);

    let features = Tensor::from_iter(features, &Device::Cpu).unwrap().reshape((1, 3000, 80)).unwrap();
    let states = encoder.forward_features(&features, None, Layers::Last).unwrap();
    let states: Vec<f32> = values(&states.last).chunks(384).step_by(10).flatten().copied().collect();
    let expected = expected.to_vec("hidden_every_10th").unwrap();
    println!("hidden states: {:e}", max_difference(&states, &expected));
    assert_close("hidden states", &states, &expected, 1e-3, 0.0);

    // The computed sinusoids equal the checkpoint's table, which is in half precision.
    let names = weights.names().filter(|name| !name.ends_with("embed_positions.weight"));
    let rest: Vec<_> = names.map(|name| (name.to_string(), weights.tensor(name, &Device::Cpu).unwrap())).collect();
    let without = WhisperEncoder::load(&config, &Weights::from_tensors(rest).unwrap(), &Device::Cpu).unwrap();
    let second = batch(vec![speech.samples[..16_000].to_vec()]);
    let states = |encoder: &WhisperEncoder| values(&encoder.forward(&second, Layers::All).unwrap().layers[0]);
    assert!(max_difference(&states(&encoder), &states(&without)) < 5e-4);
}

/// Tones of three pitches, 150 ms each, and their labels.
fn tones() -> (Vec<Vec<f32>>, Vec<Vec<u32>>) {
    let melodies: [&[u32]; 8] = [&[1, 2], &[2, 3], &[3, 1], &[1, 2, 3], &[3, 2, 1], &[2, 1], &[1, 3, 2], &[3, 2]];
    let tone = |pitch: u32| {
        let step = [300.0, 900.0, 2500.0][pitch as usize - 1] * std::f64::consts::TAU / 16_000.0;
        (0..2400)
            .map(move |i| ((f64::from(i) * step).sin() * (f64::from(i) / 2400.0 * std::f64::consts::PI).sin()) as f32)
    };
    let clip = |melody: &&[u32]| melody.iter().flat_map(|&pitch| tone(pitch)).collect();
    (melodies.iter().map(clip).collect(), melodies.iter().map(|melody| melody.to_vec()).collect())
}

/// Digits spoken by two people, and their spelling.
fn digits(folder: &std::path::Path) -> (Vec<Vec<f32>>, Vec<Vec<u32>>) {
    let words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let clip = |(digit, speaker): (usize, &str)| {
        let clip = Waveform::open(folder.join(format!("{digit}_{speaker}_7.wav"))).unwrap();
        let letters = words[digit].bytes().map(|letter| u32::from(letter - b'a') + 1).collect();
        (clip.resample(16_000).unwrap().samples, letters)
    };
    (0..10).flat_map(|digit| ["jackson", "theo"].map(|speaker| (digit, speaker))).map(clip).unzip()
}

#[test]
fn a_head_learns_on_the_frozen_encoder() {
    let narrow_weights = renamed(tensors(&NARROW_80), str::to_string);
    let mut cases = vec![(NARROW_80, narrow_weights, tones(), 4, 60)];
    if let (Some(weights), Some(folder)) = (real("real/whisper-tiny-en"), real("audio/spoken-digits")) {
        let weights = Weights::open(weights.join("encoder.safetensors")).unwrap();
        cases.push((Config::TINY, weights, digits(&folder), 27, 40));
    }
    for (whisper, weights, (clips, targets), n_tokens, n_steps) in cases {
        let encoder = WhisperEncoder::load(&whisper, &weights, &Device::Cpu).unwrap();
        let recurrent = RecurrentConfig { cell: Cell::Gru, hidden: 32, n_layers: 1, bidirectional: true };
        let config = CtcConfig {
            encoder: whisper.clone().into(),
            weighted_sum: Some(WeightedSumConfig { normalize: true }),
            head: HeadConfig { recurrent: Some(recurrent), ..HeadConfig::linear(whisper.dim, n_tokens) },
            vocabulary: Default::default(),
        };
        let parameters = clipwise::weights::Parameters::new(&Device::Cpu, 1);
        let model = CtcModel::build_on(Box::new(encoder), &config, &parameters.loader()).unwrap();
        let on_top = parameters.weights().unwrap();
        assert!(
            on_top.names().all(|name| ["rnn.", "lm_head.", "layer_weights"].iter().any(|top| name.starts_with(top)))
        );

        let clips = batch(clips);
        let states = || model.encoder().forward(&clips, Layers::All).unwrap().layers;
        let before = states();
        // The frozen encoder's output is not connected to any variable.
        assert!(before.iter().all(|layer| !layer.track_op() && !layer.is_variable()));
        let params = candle_nn::ParamsAdamW { lr: 0.01, ..Default::default() };
        let mut optimiser = candle_nn::AdamW::new(parameters.vars(), params).unwrap();
        parameters.set_training(true);
        let loss = || {
            let output = model.forward(&clips).unwrap();
            ctc_loss(&output.logits, &output.lengths, &targets, &LossConfig::default()).unwrap()
        };
        let first = loss().to_scalar::<f32>().unwrap();
        for _ in 0..n_steps {
            let gradients = loss().backward().unwrap();
            assert!(parameters.vars().iter().all(|var| gradients.get(var).is_some()));
            optimiser.step(&gradients).unwrap();
        }
        let last = loss().to_scalar::<f32>().unwrap();
        println!("{}: loss per token {first} to {last}", whisper.name);
        assert!(last < 0.2 * first, "{first} {last}");
        for (before, after) in before.iter().zip(states()) {
            assert_eq!(values(before), values(&after), "the encoder does not change");
        }

        parameters.set_training(false);
        let loaded =
            CtcModel::load_with_encoder(&config, &parameters.weights().unwrap(), &weights, &Device::Cpu).unwrap();
        let (loaded, trained) = (loaded.forward(&clips).unwrap(), model.forward(&clips).unwrap());
        for clip in 0..clips.rows().len() {
            let (loaded, trained) = (loaded.clip(clip).unwrap(), trained.clip(clip).unwrap());
            assert_close("loaded", loaded.as_slice().unwrap(), trained.as_slice().unwrap(), 1e-3, 1e-4);
        }
    }
}
