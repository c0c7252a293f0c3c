//! The recurrent encoder against PyTorch, in training, at inference, and as part of a CTC model.

mod common;

use candle_core::{Device, Tensor};
use clipwise::ctc::{CtcConfig, CtcModel, HeadConfig};
use clipwise::encoders::recurrent::{Config, RecurrentEncoder};
use clipwise::encoders::{EncoderConfig, Layers, SpeechEncoder};
use clipwise::frontend::features::{FeatureKind, FeaturesConfig};
use clipwise::frontend::{LogMelConfig, MelConfig};
use clipwise::nn::Cell;
use clipwise::weights::Parameters;
use clipwise::{Error, WaveformBatch, Weights};
use common::{assert_close, golden, hashed, max_difference, signal, values};

const LENGTHS: [usize; 3] = [17, 24, 1];

fn config(cell: Cell, bidirectional: bool) -> Config {
    let log_mel =
        LogMelConfig { mel: MelConfig { n_mels: 8, ..LogMelConfig::SPEECH_16K.mel }, ..LogMelConfig::SPEECH_16K };
    let features = FeaturesConfig { spectrum: FeatureKind::LogMel(log_mel), ..FeaturesConfig::LOG_MEL_64 };
    Config { features, cell, bidirectional, hidden: 6, ..Config::BIGRU }
}

/// The golden file's weights of one encoder.
fn weights(name: &str, below: &str) -> Weights {
    let golden = golden("recurrent.safetensors");
    let prefix = format!("{name}.weights.");
    let names: Vec<&str> = golden.names().filter(|key| key.starts_with(&prefix)).collect();
    let tensor = |key: &&str| (format!("{below}{}", &key[prefix.len()..]), golden.tensor(key, &Device::Cpu).unwrap());
    Weights::from_tensors(names.iter().map(tensor)).unwrap()
}

fn features() -> Tensor {
    let mut values = hashed("features", 3 * 24 * 8, -2.0, 2.0, 43);
    for (row, length) in LENGTHS.into_iter().enumerate() {
        values[(row * 24 + length) * 8..(row + 1) * 24 * 8].fill(0.0);
    }
    Tensor::from_vec(values, (3, 24, 8), &Device::Cpu).unwrap()
}

#[test]
fn states_equal_pytorch() {
    let golden = golden("recurrent.safetensors");
    for (name, cell, bidirectional) in [("gru", Cell::Gru, true), ("lstm", Cell::Lstm, false)] {
        let config = config(cell, bidirectional);
        let encoder = RecurrentEncoder::load(&config, &weights(name, ""), &Device::Cpu).unwrap();
        // The same tensors as parameters, with differentiable operations.
        let parameters = Parameters::new(&Device::Cpu, 1);
        let trained = RecurrentEncoder::build(&config, &parameters.loader()).unwrap();
        assert_eq!(parameters.restore(&weights(name, "")).unwrap(), weights(name, "").len());
        for (kind, encoder) in [("loaded", &encoder), ("trained", &trained)] {
            let encoded = encoder.forward_features(&features(), &LENGTHS, Layers::All).unwrap();
            assert_eq!((encoded.layers.len(), encoded.lengths), (3, vec![6, 8, 1]));
            for (i, state) in encoded.layers.iter().enumerate() {
                let expected = golden.to_vec(&format!("{name}.states.{i}")).unwrap();
                assert_close(&format!("{name}, {kind}, states {i}"), &values(state), &expected, 2e-6, 1e-6);
            }
            let last = encoder.forward_features(&features(), &LENGTHS, Layers::Last).unwrap();
            assert!(last.layers.is_empty());
            assert_eq!(values(&last.last), values(&encoded.layers[2]));
            // The first sequence gives the same alone.
            let alone = features().narrow(0, 0, 1).unwrap().narrow(1, 0, 17).unwrap();
            let alone = values(&encoder.forward_features(&alone, &[17], Layers::Last).unwrap().last);
            assert!(max_difference(&alone, &values(&last.last)[..alone.len()]) < 1e-6);
        }
    }
}

fn clips() -> Vec<Vec<f32>> {
    [20_000, 1, 33_333, 400, 20_000].into_iter().enumerate().map(|(i, n)| signal(n, 16_000, i as u64)).collect()
}

#[test]
fn a_row_of_a_batch_equals_the_clip_alone() {
    let config = CtcConfig {
        encoder: EncoderConfig::Recurrent(config(Cell::Gru, true)),
        weighted_sum: None,
        head: HeadConfig::linear(12, 5),
        vocabulary: Default::default(),
    };
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<CtcConfig>(&json).unwrap(), config);
    let parameters = Parameters::new(&Device::Cpu, 7);
    CtcModel::build(&config, &parameters.loader()).unwrap();
    let model = CtcModel::load(&config, &parameters.weights().unwrap(), &Device::Cpu).unwrap();
    let info = model.encoder().info();
    assert_eq!((&info.name, info.dim, info.n_layers, info.sample_rate), (&config.encoder.name().into(), 12, 3, 16_000));
    assert_eq!(info.frame_seconds, 0.03);

    let batch = WaveformBatch::new(clips(), 16_000).unwrap();
    let output = model.forward(&batch).unwrap();
    let frames = |n: usize| (n / 160 + 1).div_ceil(3); // centred frames every 10 ms, every third
    assert_eq!(output.lengths, batch.lengths().iter().map(|&n| frames(n)).collect::<Vec<_>>());
    for (row, clip) in clips().into_iter().enumerate() {
        let alone = model.forward(&WaveformBatch::new(vec![clip], 16_000).unwrap()).unwrap();
        assert_eq!(alone.clip(0).unwrap(), output.clip(row).unwrap(), "row {row}");
    }
    let encoded = model.encoder().forward(&batch, Layers::All).unwrap();
    for layer in &encoded.layers {
        let beyond = layer.get(1).unwrap().narrow(0, 1, layer.dim(1).unwrap() - 1).unwrap();
        assert!(values(&beyond).iter().all(|&x| x == 0.0));
    }
}

#[test]
fn invalid_configurations_and_inputs_are_errors() {
    let good = config(Cell::Gru, true);
    let field = |config: &Config| match RecurrentEncoder::build(config, &Parameters::new(&Device::Cpu, 1).loader()) {
        Err(Error::Config { field, .. } | Error::Argument { name: field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(&Config { kernel: 4, ..good.clone() }), "kernel");
    assert_eq!(field(&Config { stride: 6, ..good.clone() }), "stride");
    assert_eq!(field(&Config { stride: 0, ..good.clone() }), "stride");
    assert_eq!(field(&Config { hidden: usize::MAX, ..good.clone() }), "hidden");
    assert_eq!(field(&Config { n_layers: 0, ..good.clone() }), "n_layers");
    assert_eq!(field(&Config { dropout: 1.0, ..good.clone() }), "p");
    let encoder = RecurrentEncoder::build(&good, &Parameters::new(&Device::Cpu, 1).loader()).unwrap();
    let run = |clip: Vec<f32>, rate: u32| encoder.forward(&WaveformBatch::new(vec![clip], rate).unwrap(), Layers::Last);
    assert!(matches!(run(vec![0.0; 16_000], 8_000), Err(Error::SampleRate { expected: 16_000, got: 8_000 })));
    assert!(matches!(run(vec![], 16_000), Err(Error::TooShort { needed: 1, got: 0 })));
    assert!(matches!(run(vec![0.0, f32::NAN], 16_000), Err(Error::NonFinite { index: 1, .. })));
    assert!(matches!(encoder.forward_features(&features(), &[25, 1, 1], Layers::Last), Err(Error::Argument { .. })));
    let wrong = RecurrentEncoder::load(&Config { hidden: 7, ..good }, &weights("gru", ""), &Device::Cpu);
    assert!(matches!(wrong, Err(Error::Weights(_))));
}
