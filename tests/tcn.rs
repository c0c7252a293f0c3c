//! The temporal convolutional network against locuslab/TCN, and its streams.

mod common;

use candle_core::{Device, Tensor};
use clipwise::frontend::features::{FeatureKind, FeaturesConfig};
use clipwise::frontend::{LogMelConfig, MelConfig, Normalize};
use clipwise::models::tcn::{AudioTcnClassifier, Config};
use clipwise::models::{OutputActivation, rnn::TimePooling};
use clipwise::nn::{Tcn, TcnConfig};
use clipwise::stream::FrameStream;
use clipwise::weights::Parameters;
use clipwise::{Detail, Error, ModelConfig, TaggingModel, Waveform, WaveformBatch, Weights};
use common::{assert_close, golden, hashed, signal, values};

const SEED: u64 = 37;
const CHANNELS: [usize; 3] = [6, 6, 9];
const LENGTHS: [usize; 3] = [40, 1, 23];

/// The tensors of golden/tcn.py, convolutions under weight norm.
fn weights() -> Weights {
    let mut tensors = Vec::new();
    let mut add = |name: &str, shape: &[usize]| {
        let name = format!("tcn.{name}");
        let (low, high) = if name.ends_with("weight_g") { (0.5, 1.5) } else { (-0.6, 0.6) };
        let values = hashed(&name, shape.iter().product(), low, high, SEED);
        tensors.push((name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap()));
    };
    let mut inputs = 5;
    for (i, outputs) in CHANNELS.into_iter().enumerate() {
        for (conv, inputs) in [("conv1", inputs), ("conv2", outputs)] {
            add(&format!("network.{i}.{conv}.weight_g"), &[outputs, 1, 1]);
            add(&format!("network.{i}.{conv}.weight_v"), &[outputs, inputs, 3]);
            add(&format!("network.{i}.{conv}.bias"), &[outputs]);
        }
        if inputs != outputs {
            add(&format!("network.{i}.downsample.weight"), &[outputs, inputs, 1]);
            add(&format!("network.{i}.downsample.bias"), &[outputs]);
        }
        inputs = outputs;
    }
    for (name, shape) in [("linear.weight", &[4, 9][..]), ("linear.bias", &[4])] {
        let values = hashed(name, shape.iter().product(), -0.6, 0.6, SEED);
        tensors.push((name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap()));
    }
    Weights::from_tensors(tensors).unwrap()
}

fn input() -> Tensor {
    Tensor::from_vec(hashed("x", 3 * 40 * 5, -2.0, 2.0, SEED), (3, 40, 5), &Device::Cpu).unwrap()
}

fn layers(n_levels: usize) -> TcnConfig {
    TcnConfig { inputs: 5, channels: CHANNELS[..n_levels].to_vec().into(), kernel: 3, dropout: 0.2 }
}

fn config(features: FeaturesConfig, pooling: TimePooling) -> Config {
    Config {
        name: "tcn".into(),
        features,
        channels: CHANNELS.to_vec().into(),
        kernel: 3,
        dropout: 0.0,
        pooling,
        n_classes: 4,
        head: OutputActivation::Softmax,
    }
}

fn five(normalize: Option<Normalize>) -> FeaturesConfig {
    let mel = MelConfig { n_mels: 5, ..LogMelConfig::SPEECH_16K.mel };
    let spectrum = FeatureKind::LogMel(LogMelConfig { mel, ..LogMelConfig::SPEECH_16K });
    FeaturesConfig { spectrum, deltas: None, normalize }
}

#[test]
fn every_level_equals_the_reference() {
    let wanted = golden("tcn.safetensors");
    for level in 0..CHANNELS.len() {
        let weights = weights();
        let tcn = Tcn::load(&weights.loader(&Device::Cpu).at("tcn"), layers(level + 1)).unwrap();
        let name = format!("level{level}");
        let (frames, _) = tcn.forward(&input(), None).unwrap();
        assert_close(&name, &values(&frames), &wanted.to_vec(&name).unwrap(), 1e-6, 1e-6);
        assert_eq!(tcn.config().receptive_field(), [5, 13, 29][level]);
    }
}

#[test]
fn the_classifier_pools_as_the_reference_and_ignores_what_follows_a_clip() {
    let wanted = golden("tcn.safetensors");
    let load = |pooling| AudioTcnClassifier::load(&config(five(None), pooling), &weights(), &Device::Cpu).unwrap();
    let output = load(TimePooling::Last).forward_padded(&input(), Some(&LENGTHS)).unwrap();
    for (row, length) in LENGTHS.into_iter().enumerate() {
        let rows = wanted.to_vec(&format!("last.{length}")).unwrap();
        let got = values(&output.logits.get(row).unwrap());
        assert_close(&format!("{length} frames"), &got, &rows[row * 4..][..4], 1e-6, 1e-6);
    }
    let output = load(TimePooling::Mean).forward_padded(&input(), None).unwrap();
    assert_close("mean", &values(&output.logits), &wanted.to_vec("mean").unwrap(), 1e-6, 1e-6);
    for lengths in [[0, 1, 1], [41, 1, 1]] {
        assert!(load(TimePooling::Last).forward_padded(&input(), Some(&lengths)).is_err());
    }
}

#[test]
fn gradients_equal_the_reference() {
    let wanted = golden("tcn.safetensors");
    let parameters = Parameters::new(&Device::Cpu, 1);
    let tcn = Tcn::load(&parameters.loader().at("tcn"), TcnConfig { dropout: 0.0, ..layers(3) }).unwrap();
    let start = weights();
    assert_eq!(parameters.restore(&start).unwrap(), 16);
    let (frames, _) = tcn.forward(&input(), None).unwrap();
    assert_close("level2", &values(&frames), &wanted.to_vec("level2").unwrap(), 1e-6, 1e-6);
    let weight = Tensor::from_vec(hashed("gradient", 3 * 40 * 9, -1.0, 1.0, SEED), (3, 40, 9), &Device::Cpu).unwrap();
    let gradients = (frames * weight).unwrap().sum_all().unwrap().backward().unwrap();
    let names = parameters.weights().unwrap().names().map(str::to_string).collect::<Vec<_>>();
    for (name, var) in names.iter().zip(parameters.vars()) {
        let gradient = values(gradients.get(&var).unwrap_or_else(|| panic!("{name} has no gradient")));
        assert_close(name, &gradient, &wanted.to_vec(&format!("gradient.{name}")).unwrap(), 2e-5, 1e-5);
    }
}

#[test]
fn a_row_of_a_mixed_batch_equals_the_clip_alone() {
    for pooling in [TimePooling::Last, TimePooling::Max] {
        let config = config(five(Some(Normalize::CMVN)), pooling);
        let model = AudioTcnClassifier::load(&config, &weights(), &Device::Cpu).unwrap();
        let rows: Vec<Vec<f32>> =
            (0..).zip([5000, 16_000, 1, 5000, 700, 16_001]).map(|(seed, n)| signal(n, 16_000, seed)).collect();
        let forward =
            |rows: Vec<Vec<f32>>| model.forward(&WaveformBatch::new(rows, 16_000).unwrap(), Detail::Clip).unwrap();
        let together = forward(rows.clone());
        for (i, row) in rows.into_iter().enumerate() {
            assert_eq!(values(&together.logits.get(i).unwrap()), values(&forward(vec![row]).logits), "row {i}");
        }
    }
}

#[test]
fn a_stream_gives_the_frames_of_the_whole_recording() {
    let features = five(Some(Normalize::DataSet { mean: vec![-30.0], std: vec![12.0] }));
    let model = AudioTcnClassifier::load(&config(features, TimePooling::Last), &weights(), &Device::Cpu).unwrap();
    for n_samples in [300, 16_123] {
        let clip = Waveform::new(signal(n_samples, 16_000, 7), 16_000);
        let whole = model.forward(&WaveformBatch::from(&clip), Detail::Frames).unwrap();
        let wanted = values(whole.framewise_output.as_ref().unwrap());
        assert_eq!(wanted[wanted.len() - 4..], values(&whole.clipwise_output)[..], "the last frame");
        let mut stream = FrameStream::new(&model, 16_000).unwrap();
        for size in [1, 160, 1009, 20_000] {
            let mut got = Vec::new();
            for block in clip.samples.chunks(size) {
                got.extend(stream.push(block).unwrap().scores);
            }
            got.extend(stream.finish().unwrap().scores);
            assert_eq!(got, wanted, "{n_samples} samples in blocks of {size}");
        }
    }
    let per_clip = config(five(Some(Normalize::CMVN)), TimePooling::Last);
    let model = AudioTcnClassifier::load(&per_clip, &weights(), &Device::Cpu).unwrap();
    assert!(matches!(FrameStream::new(&model, 16_000), Err(Error::Config { .. })));
}

#[test]
fn presets_have_the_size_that_they_say_and_take_sizes_from_a_checkpoint() {
    let parameters = Parameters::new(&Device::Cpu, 1);
    AudioTcnClassifier::build(&Config::TCN, &parameters.loader()).unwrap();
    assert_eq!(parameters.count(), 773_514);
    assert_eq!(Config::TCN.receptive_field(), 1021);
    let fitted = ModelConfig::by_name("tcn", &weights()).unwrap();
    let ModelConfig::Tcn(fitted) = fitted else { panic!("{fitted:?}") };
    assert_eq!((fitted.channels.as_ref(), fitted.kernel, fitted.n_classes), (&CHANNELS[..], 3, 4));
    // Nothing in the tensors tells the front end, so it is asked for.
    let error = clipwise::models::detect(&weights()).unwrap_err().to_string();
    assert!(error.contains("front end"), "{error}");
    for bad in [
        Config { channels: vec![].into(), ..Config::TCN },
        Config { channels: vec![8; 13].into(), ..Config::TCN },
        Config { kernel: 1, ..Config::TCN },
        Config { dropout: 1.0, ..Config::TCN },
    ] {
        assert!(matches!(AudioTcnClassifier::build(&bad, &parameters.loader()), Err(Error::Config { .. })), "{bad:?}");
    }
}
