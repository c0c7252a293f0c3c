//! Recurrent layers and the models based on them against PyTorch.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use clipwise::device::Threads;
use clipwise::frontend::features::{FeatureKind, FeaturesConfig};
use clipwise::frontend::{LogMelConfig, MelConfig, StftConfig};
use clipwise::models::OutputActivation;
use clipwise::models::rnn::{AudioRnnClassifier, Config, TimePooling};
use clipwise::nn::{Activation, Cell, Linear, Rnn, RnnConfig, RnnState};
use clipwise::{Detail, Error, ModelConfig, TaggingModel, Waveform, WaveformBatch, Weights};
use common::{assert_close, golden, hashed, max_difference, real, signal, values};

const SEED: u64 = 31;
const BATCH: usize = 4;
const N_FRAMES: usize = 11;
const LENGTHS: [usize; BATCH] = [4, 11, 1, 11];
const BASE: RnnConfig =
    RnnConfig { cell: Cell::Gru, inputs: 5, hidden: 7, n_layers: 1, bidirectional: false, bias: true };

fn tensor(name: &str, shape: &[usize], high: f64) -> Tensor {
    Tensor::from_vec(hashed(name, shape.iter().product(), -high, high, SEED), shape, &Device::Cpu).unwrap()
}

fn input() -> Tensor {
    tensor("x", &[BATCH, N_FRAMES, BASE.inputs], 2.0)
}

fn parameter(config: RnnConfig, name: &str, shape: &[usize]) -> Tensor {
    tensor(name, shape, 1.0 / (config.hidden as f64).sqrt())
}

fn net(config: RnnConfig) -> Rnn {
    Rnn::new(config, |name, shape| Ok(parameter(config, name, shape))).unwrap()
}

/// The same weights as variables, which run through candle's operations.
fn trainable(config: RnnConfig) -> Rnn {
    let variable = |name: &str, shape: &[usize]| Var::from_tensor(&parameter(config, name, shape)).unwrap();
    Rnn::new(config, |name, shape| Ok(variable(name, shape).as_tensor().clone())).unwrap()
}

fn cells() -> [(&'static str, Cell); 2] {
    [("gru", Cell::Gru), ("lstm", Cell::Lstm)]
}

#[test]
fn recurrent_layers_equal_pytorch_by_kernels_and_by_candle() {
    let (expected, x) = (golden("rnn.safetensors"), input());
    let check = |what: &str, config: RnnConfig, lengths: Option<&[usize]>, state: Option<&RnnState>| {
        for (path, rnn) in [("kernels", net(config)), ("candle", trainable(config))] {
            let (frames, last) = rnn.forward(&x, lengths, state).unwrap();
            let mut parts = vec![("frames", &frames), ("h", &last.h)];
            parts.extend(last.c.iter().map(|c| ("c", c)));
            for (part, got) in parts {
                let name = format!("{what}.{part}");
                assert_eq!(Some(got.dims()), expected.shape(&name), "{name}");
                // At most 14 products and three layers of functions with a slope of at most 1.
                assert_close(&format!("{path} {name}"), &values(got), &expected.to_vec(&name).unwrap(), 2e-6, 0.0);
            }
        }
    };
    for (name, cell) in cells() {
        for n_layers in [1, 3] {
            for bidirectional in [false, true] {
                let config = RnnConfig { cell, n_layers, bidirectional, ..BASE };
                let case = format!("{name}.{n_layers}.{}", config.n_directions());
                check(&format!("{case}.plain"), config, None, None);
                check(&format!("{case}.lengths"), config, Some(&LENGTHS), None);
                if n_layers == 3 {
                    let state = |name: &str| tensor(name, &[3 * config.n_directions(), BATCH, BASE.hidden], 1.0);
                    let state = RnnState { h: state("h"), c: (cell == Cell::Lstm).then(|| state("c")) };
                    check(&format!("{case}.state"), config, Some(&LENGTHS), Some(&state));
                }
            }
        }
        let config = RnnConfig { cell, n_layers: 2, bidirectional: true, bias: false, ..BASE };
        check(&format!("{name}.2.2.no_bias"), config, Some(&LENGTHS), None);
    }
}

#[test]
fn gradients_equal_pytorch() {
    let expected = golden("rnn.safetensors");
    for (name, cell) in cells() {
        let config = RnnConfig { cell, n_layers: 2, bidirectional: true, ..BASE };
        let rnn = trainable(config);
        let (frames, _) = rnn.forward(&input(), Some(&LENGTHS), None).unwrap();
        let weights = tensor("gradient", frames.dims(), 1.0);
        let gradients = (frames * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let mut n_compared = 0;
        for (parameter, tensor) in rnn.parameters() {
            let gradient = values(gradients.get(tensor).unwrap_or_else(|| panic!("no gradient for {parameter}")));
            if let Ok(expected) = expected.to_vec(&format!("{name}.2.2.gradient.{parameter}")) {
                // Sums over 27 frames of values around 1.
                assert_close(&format!("{name} {parameter}"), &gradient, &expected, 2e-5, 1e-5);
                n_compared += 1;
            }
        }
        assert_eq!(n_compared, 8);
        // Kernels and operations give the same numbers, so a trained network can run on the kernels.
        let (y, fixed) =
            (rnn.forward(&input(), None, None).unwrap().0, net(config).forward(&input(), None, None).unwrap().0);
        assert!(max_difference(&values(&y), &values(&fixed)) < 1e-6);
    }
}

/// Sizes beyond one register, one panel and one chunk of frames.
fn large(cell: Cell) -> (Rnn, Tensor, Vec<usize>) {
    let config = RnnConfig { cell, inputs: 20, hidden: 37, n_layers: 2, bidirectional: true, bias: true };
    let lengths = vec![130, 1, 77, 200, 33, 32, 64, 199, 5, 100, 31];
    (net(config), tensor("large", &[lengths.len(), 200, 20], 1.0), lengths)
}

#[test]
fn results_do_not_depend_on_the_threads_nor_on_the_batch() {
    for (name, cell) in cells() {
        let (rnn, x, lengths) = large(cell);
        let run = |threads: usize| {
            let output = Threads::new(threads).unwrap().run(|| rnn.forward(&x, Some(&lengths), None).unwrap());
            (values(&output.0), values(&output.1.h))
        };
        let one = run(1);
        for threads in [2, 3, 7] {
            assert!(run(threads) == one, "{name} with {threads} threads");
        }
        let width = 200 * 74;
        for (row, &length) in lengths.iter().enumerate() {
            let alone = x.narrow(0, row, 1).unwrap().narrow(1, 0, length).unwrap();
            let (frames, state) = rnn.forward(&alone, None, None).unwrap();
            assert_eq!(values(&frames), one.0[row * width..][..length * 74], "{name} row {row}");
            assert!(one.0[row * width..(row + 1) * width][length * 74..].iter().all(|&y| y == 0.0), "{name} row {row}");
            let h: Vec<f32> = (0..4).flat_map(|i| one.1[(i * lengths.len() + row) * 37..][..37].to_vec()).collect();
            assert_eq!(values(&state.h), h, "{name} row {row}");
        }
    }
}

#[test]
fn a_stream_in_pieces_equals_the_whole() {
    for (name, cell) in cells() {
        let config = RnnConfig { cell, n_layers: 3, ..BASE };
        for rnn in [net(config), trainable(config)] {
            let (x, mut state) = (input(), None);
            let whole = rnn.forward(&x, None, None).unwrap();
            let mut pieces = Vec::new();
            for (start, length) in [(0, 1), (1, 1), (2, 5), (7, 4)] {
                let piece = x.narrow(1, start, length).unwrap();
                let (frames, last) = rnn.forward(&piece, None, state.as_ref()).unwrap();
                pieces.push(frames);
                state = Some(last);
            }
            let pieces = Tensor::cat(&pieces, 1).unwrap();
            assert!(max_difference(&values(&pieces), &values(&whole.0)) < 1e-6, "{name}");
            assert!(max_difference(&values(&state.unwrap().h), &values(&whole.1.h)) < 1e-6, "{name}");
        }
    }
}

#[test]
fn invalid_inputs_and_configurations_are_typed_errors() {
    let (rnn, x) = (net(BASE), input());
    for lengths in [&[][..], &[1, 1], &[0, 1, 1, 1], &[1, 1, 1, N_FRAMES + 1]] {
        let error = rnn.forward(&x, Some(lengths), None).unwrap_err();
        assert!(matches!(error, Error::Argument { name: "lengths", .. }), "{error}");
    }
    for shape in [&[BATCH, N_FRAMES, 6][..], &[BATCH, 0, 5], &[0, N_FRAMES, 5], &[N_FRAMES, 5]] {
        let x = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(rnn.forward(&x, None, None), Err(Error::Tensor { .. })), "{shape:?}");
    }
    assert!(rnn.forward(&x.to_dtype(DType::F64).unwrap(), None, None).is_err());
    let zeros = |shape: (usize, usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let good = zeros((1, BATCH, 7));
    for (h, c) in [(zeros((2, BATCH, 7)), None), (zeros((1, BATCH, 6)), None), (good.clone(), Some(good.clone()))] {
        assert!(matches!(rnn.forward(&x, None, Some(&RnnState { h, c })), Err(Error::Tensor { .. })));
    }
    let lstm = net(RnnConfig { cell: Cell::Lstm, ..BASE });
    assert!(lstm.forward(&x, None, Some(&RnnState { h: good, c: None })).is_err());
    for config in [
        RnnConfig { inputs: 0, ..BASE },
        RnnConfig { hidden: 0, ..BASE },
        RnnConfig { n_layers: 0, ..BASE },
        RnnConfig { hidden: usize::MAX, ..BASE },
        RnnConfig { n_layers: usize::MAX, ..BASE },
    ] {
        let made = Rnn::new(config, |_, _| panic!("sizes are checked first"));
        assert!(matches!(made, Err(Error::Config { .. })), "{config:?}");
    }
    assert!(Rnn::new(BASE, |_, _| Ok(input())).is_err());
    // Loud and NaN input does not panic, and NaN stays NaN.
    let loud = net(BASE).forward(&(&x * 1e30).unwrap(), None, None).unwrap().0;
    assert!(values(&loud).iter().all(|y| y.abs() <= 1.0));
    let nan = net(BASE).forward(&(&x * f64::NAN).unwrap(), None, None).unwrap().0;
    assert!(values(&nan).iter().all(|y| y.is_nan()));
}

/// A front end with five features per frame, for given features.
fn five() -> FeaturesConfig {
    let log_mel =
        LogMelConfig { mel: MelConfig { n_mels: 5, ..LogMelConfig::SPEECH_16K.mel }, ..LogMelConfig::SPEECH_16K };
    FeaturesConfig { spectrum: FeatureKind::LogMel(log_mel), deltas: None, normalize: None }
}

/// The weights of `Classifier` in golden/rnn.py.
fn classifier_weights(cell: Cell, bidirectional: bool) -> Weights {
    let config = RnnConfig { cell, n_layers: 2, bidirectional, ..BASE };
    let mut tensors = Vec::new();
    let recurrent = |name: &str, shape: &[usize]| {
        let name = format!("rnn.{name}");
        let tensor = parameter(config, &name, shape);
        tensors.push((name, tensor.clone()));
        Ok(tensor)
    };
    Rnn::new(config, recurrent).unwrap();
    for (name, inputs, outputs) in
        [("attention.0", config.outputs(), 6), ("attention.2", 6, 1), ("fc", config.outputs(), 3)]
    {
        let high = (3.0 / inputs as f64).sqrt();
        tensors.push((format!("{name}.weight"), tensor(&format!("{name}.weight"), &[outputs, inputs], high)));
        tensors.push((format!("{name}.bias"), tensor(&format!("{name}.bias"), &[outputs], 0.05)));
    }
    Weights::from_tensors(tensors).unwrap()
}

fn classifier(cell: Cell, bidirectional: bool, pooling: TimePooling, head: OutputActivation) -> AudioRnnClassifier {
    let config = Config {
        name: "rnn".into(),
        features: five(),
        cell,
        hidden: 7,
        n_layers: 2,
        bidirectional,
        pooling,
        n_classes: 3,
        head,
    };
    let mut weights = classifier_weights(cell, bidirectional);
    weights.retain(|name| pooling == TimePooling::Attention || !name.starts_with("attention"));
    AudioRnnClassifier::load(&config, &weights, &Device::Cpu).unwrap()
}

fn poolings() -> [(&'static str, TimePooling); 4] {
    use TimePooling::{Attention, Last, Max, Mean};
    [("last", Last), ("mean", Mean), ("max", Max), ("attention", Attention)]
}

#[test]
fn the_classifier_equals_pytorch_with_every_pooling() {
    let expected = golden("rnn.safetensors");
    for (name, cell) in cells() {
        for bidirectional in [false, true] {
            for (pooled, pooling) in poolings() {
                let model = classifier(cell, bidirectional, pooling, OutputActivation::Softmax);
                let output = model.forward_padded(&input(), Some(&LENGTHS)).unwrap();
                let case = format!("classifier.{name}.{}.{pooled}", 1 + usize::from(bidirectional));
                for (part, got) in [("embedding", &output.embedding), ("logits", &output.logits)] {
                    let name = format!("{case}.{part}");
                    assert_close(&name, &values(got), &expected.to_vec(&name).unwrap(), 3e-6, 0.0);
                }
                let scores = output.clipwise_output.sum(1).unwrap();
                assert_close(&case, &values(&scores), &[1.0; BATCH], 1e-6, 0.0);
                let sigmoid = classifier(cell, bidirectional, pooling, OutputActivation::Sigmoid);
                let sigmoid = sigmoid.forward_padded(&input(), Some(&LENGTHS)).unwrap();
                assert_eq!(values(&sigmoid.logits), values(&output.logits));
                let probability = |x: &f32| 1.0 / (1.0 + (-x).exp());
                let probabilities: Vec<f32> = values(&output.logits).iter().map(probability).collect();
                assert_close(&case, &values(&sigmoid.clipwise_output), &probabilities, 1e-6, 0.0);
            }
        }
    }
}

#[test]
fn a_row_of_a_mixed_batch_equals_the_clip_alone() {
    for (name, pooling) in poolings() {
        let model = classifier(Cell::Gru, true, pooling, OutputActivation::Softmax);
        let lengths = [5000, 16_000, 1, 5000, 700, 16_001];
        let rows: Vec<Vec<f32>> = (0..).zip(lengths).map(|(seed, n)| signal(n, 16_000, seed)).collect();
        let together = model.forward(&WaveformBatch::new(rows.clone(), 16_000).unwrap(), Detail::Clip).unwrap();
        for (i, row) in rows.into_iter().enumerate() {
            let alone = model.forward(&WaveformBatch::new(vec![row], 16_000).unwrap(), Detail::Clip).unwrap();
            let row = values(&together.logits.narrow(0, i, 1).unwrap());
            assert_close(&format!("{name} row {i}"), &row, &values(&alone.logits), 1e-6, 0.0);
        }
    }
}

#[test]
fn presets_load_the_described_sizes() {
    for (preset, config) in [("bigru", Config::BIGRU), ("bilstm-attention", Config::BILSTM_ATTENTION)] {
        let mut tensors = Vec::new();
        let rnn = config.rnn(true);
        let keep = |name: &str, shape: &[usize]| {
            let tensor = parameter(rnn, name, shape);
            tensors.push((format!("rnn.{name}"), tensor.clone()));
            Ok(tensor)
        };
        Rnn::new(rnn, keep).unwrap();
        let rest: [(&str, &[usize]); 4] = [
            ("fc.weight", &[10, 256]),
            ("fc.bias", &[10]),
            ("attention.0.weight", &[32, 256]),
            ("attention.2.weight", &[1, 32]),
        ];
        let rest = rest.into_iter().filter(|(name, _)| preset != "bigru" || !name.starts_with("attention"));
        tensors.extend(rest.map(|(name, shape)| (name.to_string(), tensor(name, shape, 0.1))));
        if preset == "bigru" {
            assert_eq!(tensors.iter().map(|(_, tensor)| tensor.elem_count()).sum::<usize>(), 448_010);
        }
        let weights = Weights::from_tensors(tensors).unwrap();
        let fitted = ModelConfig::by_name(preset, &weights).unwrap();
        assert_eq!(fitted, ModelConfig::Rnn(config));
        let model = fitted.load(&weights, &Device::Cpu).unwrap();
        let batch = WaveformBatch::new(vec![signal(16_000, 16_000, 1)], 16_000).unwrap();
        assert_eq!(model.forward(&batch, Detail::Clip).unwrap().embedding.dims(), [1, model.info().embedding_dim]);
        // The tensors do not determine the front end, so the name is required.
        let error = clipwise::models::detect(&weights).unwrap_err().to_string();
        assert!(error.contains("front end"), "{error}");
    }
}

#[test]
fn invalid_front_ends_are_typed_errors() {
    use clipwise::frontend::features::{Deltas, Features};
    use clipwise::frontend::{DeltaConfig, Normalize};
    let deltas =
        |orders: usize, config: DeltaConfig| FeaturesConfig { deltas: Some(Deltas { orders, config }), ..five() };
    let far = DeltaConfig { width: (1 << 40) + 1, ..DeltaConfig::LIBROSA };
    let statistics = Normalize::DataSet { mean: vec![0.0; 4], std: vec![1.0; 4] };
    for config in [
        deltas(9, DeltaConfig::LIBROSA),
        deltas(usize::MAX, DeltaConfig::TORCHAUDIO),
        deltas(1, DeltaConfig { width: 4, ..DeltaConfig::LIBROSA }),
        deltas(1, far),
        deltas(1, DeltaConfig { width: usize::MAX, ..DeltaConfig::LIBROSA }),
        FeaturesConfig { normalize: Some(statistics), ..five() },
    ] {
        assert!(matches!(Features::new(&config), Err(Error::Config { .. })), "{config:?}");
    }
    let features = Features::new(&deltas(2, DeltaConfig::LIBROSA)).unwrap();
    assert_eq!((features.config().n_features(), features.min_samples()), (15, 8 * 160));
    assert_eq!(features.compute(&signal(1280, 16_000, 1)).unwrap().dim(), (9, 15));
    assert!(matches!(features.compute(&[0.0; 1279]), Err(Error::TooShort { needed: 1280, got: 1279 })));
    assert_eq!(Features::new(&FeaturesConfig::MFCC_39).unwrap().compute(&[0.1; 16_000]).unwrap().dim(), (101, 39));
}

#[test]
fn the_published_speech_commands_lstm_equals_pytorch() {
    let Some(folder) = real("real/lstm-speech-commands") else { return };
    let expected = Weights::open(folder.join("expected_examples.safetensors")).unwrap();
    let words: Vec<String> =
        expected.names().filter_map(|name| Some(name.strip_suffix(".mfcc")?.to_string())).collect();
    assert_eq!(words.len(), 35);
    for file in ["kaggle.ckpt", "lstm_speechcmd.safetensors"] {
        let weights = Weights::open(folder.join(file)).unwrap();
        let config = ModelConfig::by_name("lstm-speech-commands", &weights).unwrap();
        assert_eq!(config, ModelConfig::Rnn(Config::SPEECH_COMMANDS));
        let model = AudioRnnClassifier::load(&Config::SPEECH_COMMANDS, &weights, &Device::Cpu).unwrap();
        for word in &words {
            let mfcc = expected.tensor(&format!("{word}.mfcc"), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
            let logits = expected.to_vec(&format!("{word}.logits")).unwrap();
            let got = values(&model.forward_padded(&mfcc, None).unwrap().logits);
            assert_close(word, &got, &logits, 1e-4, 0.0);
            let clip = Waveform::open(real(&format!("audio/speech-commands/{word}.wav")).unwrap()).unwrap();
            let got = values(&model.forward(&WaveformBatch::from(&clip), Detail::Clip).unwrap().logits);
            // From the recording: MFCC within 1e-3 of librosa's.
            assert_close(&format!("{word}, from the recording"), &got, &logits, 1e-4, 0.0);
        }
    }
}

#[test]
fn a_published_phoneme_network_equals_pytorch() {
    let Some(folder) = real("real/birnn-phoneme-jp") else { return };
    let weights = Weights::open(folder.join("snfa_jp.safetensors")).unwrap();
    let expected = Weights::open(folder.join("expected_jfk3s.safetensors")).unwrap();
    let root = weights.loader(&Device::Cpu);
    let pre = Linear::load(&root.at("pre"), 80, 256, Activation::Identity).unwrap();
    let config = RnnConfig { cell: Cell::Gru, inputs: 256, hidden: 128, n_layers: 2, bidirectional: true, bias: true };
    let rnn = Rnn::load(&root.at("bi_rnn"), config).unwrap();
    let fc = Linear::load(&root.at("fc"), 256, 38, Activation::Identity).unwrap();
    root.finish("a phoneme net").unwrap();
    // The file stores values by band, contrary to its shape.
    let mel = Tensor::from_vec(expected.to_vec("mel").unwrap(), (1, 80, 147), &Device::Cpu).unwrap();
    let mel = mel.transpose(1, 2).unwrap().contiguous().unwrap();
    let x = pre.forward(&mel).unwrap();
    let y = (rnn.forward(&x, None, None).unwrap().0 + x).unwrap();
    let logits = fc.forward(&y).unwrap();
    // Logits reach 13, where one f32 ulp is about 1e-6.
    assert_close("logits", &values(&logits), &expected.to_vec("logits").unwrap(), 1e-5, 1e-6);
}

#[test]
fn a_stream_carries_the_state_and_gives_the_frames_of_the_whole_recording() {
    use clipwise::frontend::{FbankConfig, MfccConfig, Normalize};
    use clipwise::stream::FrameStream;
    let log_mel =
        LogMelConfig { mel: MelConfig { n_mels: 12, ..LogMelConfig::SPEECH_16K.mel }, ..LogMelConfig::SPEECH_16K };
    let data_set = Normalize::DataSet { mean: vec![-30.0], std: vec![12.0] };
    let features =
        |spectrum: FeatureKind, normalize: Option<Normalize>| FeaturesConfig { spectrum, deltas: None, normalize };
    let uncentred = LogMelConfig { stft: StftConfig { center: false, ..log_mel.stft }, ..log_mel };
    let kaldi = FbankConfig { n_mels: 12, ..FbankConfig::KALDI_16K };
    let mel = clipwise::frontend::MelFeatures::LogMel(log_mel);
    for (what, front_end) in [
        ("log-mel", features(FeatureKind::LogMel(log_mel), Some(data_set))),
        ("uncentred", features(FeatureKind::LogMel(uncentred), None)),
        ("kaldi", features(FeatureKind::Fbank(kaldi.clone()), None)),
        ("kaldi, edges", features(FeatureKind::Fbank(FbankConfig { snip_edges: false, ..kaldi }), None)),
        ("mfcc", features(FeatureKind::Mfcc(MfccConfig { mel, n_mfcc: 12, ..MfccConfig::SPEECH_16K }), None)),
    ] {
        for (cell, pooling) in [(Cell::Gru, TimePooling::Last), (Cell::Lstm, TimePooling::Mean)] {
            let config = Config {
                name: "rnn".into(),
                features: front_end.clone(),
                cell,
                hidden: 9,
                n_layers: 2,
                bidirectional: false,
                pooling,
                n_classes: 4,
                head: OutputActivation::Softmax,
            };
            let net = config.rnn(true);
            let mut tensors = Vec::new();
            Rnn::new(net, |name, shape| {
                tensors.push((format!("rnn.{name}"), parameter(net, name, shape)));
                Ok(parameter(net, name, shape))
            })
            .unwrap();
            tensors.push(("fc.weight".to_string(), tensor("fc", &[4, 9], 1.0)));
            tensors.push(("fc.bias".to_string(), tensor("fc_bias", &[4], 1.0)));
            let model =
                AudioRnnClassifier::load(&config, &Weights::from_tensors(tensors).unwrap(), &Device::Cpu).unwrap();
            for n_samples in [300, 16_123] {
                let clip = Waveform::new(signal(n_samples, 16_000, 7), 16_000);
                let whole = model.forward(&WaveformBatch::from(&clip), Detail::Frames).unwrap();
                let expected = values(whole.framewise_output.as_ref().unwrap());
                if pooling == TimePooling::Last {
                    assert_eq!(
                        expected[expected.len() - 4..],
                        values(&whole.clipwise_output)[..],
                        "{what}: the last frame"
                    );
                }
                let mut stream = FrameStream::new(&model, 16_000).unwrap();
                for size in [1, 160, 1009, 20_000] {
                    if size == 1 && cell == Cell::Lstm {
                        continue;
                    }
                    let (mut got, mut end) = (Vec::new(), 0.0);
                    for (i, block) in clip.samples.chunks(size).enumerate() {
                        let frames = stream.push(block).unwrap();
                        assert!((frames.start - end).abs() < 1e-9, "{what}: frames follow each other");
                        end = frames.end;
                        let late = ((i + 1) * size) as f64 / 16_000.0 - end;
                        assert!(size == 20_000 || late <= stream.latency() + size as f64 / 16_000.0, "{what} {late}");
                        got.extend(frames.scores);
                    }
                    got.extend(stream.finish().unwrap().scores);
                    assert_eq!(got, expected, "{what} {cell:?} {n_samples} samples in blocks of {size}");
                }
            }
        }
    }
    // Features that depend on the end of the clip cannot be streamed.
    for config in [Config::BIGRU, Config::SPEECH_COMMANDS, Config { bidirectional: false, ..Config::BIGRU }] {
        let trainable = clipwise::weights::Parameters::new(&Device::Cpu, 1);
        let model = AudioRnnClassifier::build(&config, &trainable.loader()).unwrap();
        assert!(matches!(FrameStream::new(&model, 16_000), Err(Error::Config { .. })));
    }
}
