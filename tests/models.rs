//! Models against the reference implementations: outputs, batches and short clips.

mod common;

use candle_core::Device;
use clipwise::models::{cnn14, detect, leenet};
use clipwise::nn::Pooling;
use clipwise::{Detail, Error, ModelConfig, TaggingModel, TaggingOutput, Waveform, WaveformBatch, Weights};
use common::{assert_close, cnn14_tensors, golden, leenet_tensors, real, signal, values};

const CHANNELS: [usize; 6] = [4, 8, 8, 12, 16, 24];

fn narrow(preset: cnn14::Config, pooling: Pooling) -> cnn14::Cnn14 {
    let config = cnn14::Config { channels: CHANNELS, pooling, embedding_dim: 20, n_classes: 11, ..preset };
    cnn14::Cnn14::load(&config, &narrow_weights(), &Device::Cpu).unwrap()
}

fn narrow_weights() -> Weights {
    cnn14_tensors(CHANNELS, 20, 11, 20).weights()
}

fn assert_output(what: &str, output: &TaggingOutput, reference: &Weights, prefix: &str) {
    let reference = |name: &str| reference.to_vec(&format!("{prefix}{name}")).unwrap();
    let (scores, embedding) = (reference("clipwise_output"), reference("embedding"));
    let largest = embedding.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    assert_close(&format!("{what} clipwise_output"), &values(&output.clipwise_output), &scores, 1e-5, 0.0);
    assert_close(&format!("{what} embedding"), &values(&output.embedding), &embedding, 1e-4 * largest, 0.0);
}

#[test]
fn cnn14_equals_the_reference_at_every_stage() {
    use Pooling::{Avg, AvgMax, Max};
    for (name, preset, pooling) in [
        ("32k_avg", cnn14::Config::AUDIOSET_32K, Avg),
        ("32k_max", cnn14::Config::AUDIOSET_32K, Max),
        ("32k_avg_max", cnn14::Config::AUDIOSET_32K, AvgMax),
        ("32k_shortest", cnn14::Config::AUDIOSET_32K, Avg),
        ("16k_avg", cnn14::Config::AUDIOSET_16K, Avg),
        ("8k_avg", cnn14::Config::AUDIOSET_8K, Avg),
        ("48k_avg", cnn14::Config::AUDIOSET_48K, Avg),
    ] {
        let reference = golden(&format!("cnn14_{name}.safetensors"));
        let number = |key: &str| reference.metadata()[key].parse::<usize>().unwrap();
        let model = narrow(preset, pooling);
        let rate = model.info().sample_rate;
        let rows = (1..=number("batch") as u64).map(|seed| signal(number("n_samples"), rate, seed)).collect();
        let batch = WaveformBatch::new(rows, rate).unwrap();

        // Each stage runs on the reference's input, so that errors do not accumulate.
        let log_mel = reference.tensor("log_mel", &Device::Cpu).unwrap();
        for (stage, tensor) in model.stages(&log_mel).unwrap() {
            let expected = reference.to_vec(&stage).unwrap();
            assert_eq!(tensor.dims(), reference.shape(&stage).unwrap(), "{name} {stage}");
            // f32 rounding of at most 24 · 9 products per value, values up to about 10.
            assert_close(&format!("{name} {stage}"), &values(&tensor), &expected, 2e-5, 1e-5);
        }
        let output = model.forward(&batch, Detail::Clip).unwrap();
        assert_output(name, &output, &reference, "");
        assert_close(
            &format!("{name} logits"),
            &values(&output.logits),
            &reference.to_vec("logits").unwrap(),
            1e-4,
            0.0,
        );
        assert!(output.framewise_output.is_none());
        let own: Vec<f32> = batch.rows().iter().flat_map(|row| model.log_mel().compute(row).unwrap()).collect();
        assert_close(&format!("{name} log_mel"), &own, &reference.to_vec("log_mel").unwrap(), 1e-3, 0.0);
    }
}

#[test]
fn leenets_equal_the_reference() {
    let reference = golden("leenet.safetensors");
    for (name, config) in [("leenet11", leenet::Config::LEENET11), ("leenet24", leenet::Config::LEENET24)] {
        let weights = leenet_tensors(&config, 11).weights();
        let model = leenet::LeeNet::load(&config, &weights, &Device::Cpu).unwrap();
        for n in [1, 2187, 16001] {
            let waveform = Waveform::new(signal(n, 32_000, 3), 32_000);
            let output = model.forward(&WaveformBatch::from(&waveform), Detail::Clip).unwrap();
            assert_output(&format!("{name} {n} samples"), &output, &reference, &format!("{name}.{n}."));
        }
    }
}

#[test]
fn the_published_leenet11_equals_pytorch_on_a_real_recording() {
    let (Some(folder), Some(clip)) = (real("real/panns-leenet11"), real("audio/R9_ZSCveAHg_7s.wav")) else { return };
    let reference = Weights::open(folder.join("expected_R9.safetensors")).unwrap();
    let batch = WaveformBatch::from(&Waveform::open(clip).unwrap());
    for file in ["LeeNet11.pth", "leenet11.safetensors"] {
        let weights = Weights::open(folder.join(file)).unwrap();
        let detected = detect(&weights).unwrap();
        assert_eq!(detected.config, ModelConfig::LeeNet(leenet::Config::LEENET11));
        let model = detected.config.load(&weights, &Device::Cpu).unwrap();
        assert_output(file, &model.forward(&batch, Detail::Clip).unwrap(), &reference, "");
    }
}

#[test]
fn a_row_of_a_mixed_batch_equals_the_clip_alone() {
    let narrow = narrow(cnn14::Config::AUDIOSET_8K, Pooling::Avg);
    let config = leenet::Config { channels: [8; 9], embedding_dim: 12, n_classes: 5, ..leenet::Config::LEENET11 };
    let leenet = leenet::LeeNet::load(&config, &leenet_tensors(&config, 1).weights(), &Device::Cpu).unwrap();
    for model in [&narrow as &dyn TaggingModel, &leenet] {
        let rate = model.info().sample_rate;
        // Repeated lengths, two with the same number of frames, one below the minimum, out of order.
        let lengths = [5000, 2480, 1, 5000, 5003, 9000, 2479, 2481];
        let rows: Vec<Vec<f32>> = (0..).zip(lengths).map(|(seed, n)| signal(n, rate, seed)).collect();
        let together = model.forward(&WaveformBatch::new(rows.clone(), rate).unwrap(), Detail::Clip).unwrap();
        for (i, row) in rows.into_iter().enumerate() {
            let alone = model.forward(&WaveformBatch::new(vec![row], rate).unwrap(), Detail::Clip).unwrap();
            for (what, together, alone) in [
                ("clipwise_output", &together.clipwise_output, &alone.clipwise_output),
                ("embedding", &together.embedding, &alone.embedding),
                ("logits", &together.logits, &alone.logits),
            ] {
                let row = together.narrow(0, i, 1).unwrap();
                assert_close(
                    &format!("{} row {i} {what}", model.info().name),
                    &values(&row),
                    &values(alone),
                    1e-6,
                    1e-6,
                );
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let model = narrow(cnn14::Config::AUDIOSET_32K, Pooling::Avg);
    let batch = WaveformBatch::new(vec![signal(40_000, 32_000, 5)], 32_000).unwrap();
    let run = |threads: usize| {
        let threads = clipwise::device::Threads::new(threads).unwrap();
        let output = threads.run(|| model.forward(&batch, Detail::Clip).unwrap());
        (values(&output.logits), values(&output.embedding))
    };
    let one = run(1);
    for threads in [2, 3, 7] {
        assert_eq!(run(threads), one, "{threads} threads");
    }
}

#[test]
fn a_short_clip_is_the_same_as_its_zero_padded_form() {
    let model = narrow(cnn14::Config::AUDIOSET_32K, Pooling::Avg);
    assert_eq!(model.info().min_samples, 9_920);
    for n in [1, 512, 513, 9_919] {
        let clip = signal(n, 32_000, 2);
        let mut padded = clip.clone();
        padded.resize(9_920, 0.0);
        let scores = |clip: Vec<f32>| {
            let output = model.forward(&WaveformBatch::new(vec![clip], 32_000).unwrap(), Detail::Clip).unwrap();
            values(&output.clipwise_output)
        };
        assert_eq!(scores(clip), scores(padded), "{n} samples");
    }
}

#[test]
fn audio_that_cannot_be_tagged_is_a_typed_error() {
    let model = narrow(cnn14::Config::AUDIOSET_32K, Pooling::Avg);
    let forward = |samples: Vec<f32>, rate: u32| model.forward(&WaveformBatch::new(vec![samples], rate)?, Detail::Clip);
    assert!(matches!(forward(vec![], 32_000), Err(Error::TooShort { needed: 1, got: 0 })));
    assert!(matches!(forward(vec![0.0; 9], 16_000), Err(Error::SampleRate { expected: 32_000, got: 16_000 })));
    let with_nan = forward(vec![0.0, f32::NAN], 32_000);
    assert!(matches!(with_nan, Err(Error::NonFinite { index: 1, .. })), "{with_nan:?}");
    let too_few_frames = candle_core::Tensor::zeros((1, 31, 64), candle_core::DType::F32, &Device::Cpu).unwrap();
    let error = model.forward_features(&too_few_frames, Detail::Clip).unwrap_err();
    assert!(matches!(error, Error::TooShort { needed: 32, got: 31 }), "{error}");
    for shape in [(0, 32, 64), (1, 32, 63), (1, 32, 0)] {
        let tensor = candle_core::Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(model.forward_features(&tensor, Detail::Clip), Err(Error::Tensor { .. })), "{shape:?}");
    }
    // Loud, silent and constant clips are valid.
    for level in [0.0, 1.0, -1e30, f32::MIN_POSITIVE] {
        let scores = values(&forward(vec![level; 12_000], 32_000).unwrap().clipwise_output);
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{level}: {scores:?}");
    }
}

#[test]
fn invalid_configurations_are_typed_errors() {
    let base = cnn14::Config { channels: CHANNELS, embedding_dim: 20, n_classes: 11, ..cnn14::Config::AUDIOSET_32K };
    let mut few_mels = base.clone();
    few_mels.log_mel.mel.n_mels = 31;
    let mut no_hop = base.clone();
    no_hop.log_mel.stft.hop_length = 0;
    let no_channels = cnn14::Config { channels: [4, 8, 0, 12, 16, 24], ..base.clone() };
    let no_classes = cnn14::Config { n_classes: 0, ..base };
    for (field, config) in
        [("n_mels", few_mels), ("hop_length", no_hop), ("channels", no_channels), ("n_classes", no_classes)]
    {
        match cnn14::Cnn14::load(&config, &narrow_weights(), &Device::Cpu) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn parameter_counts_are_the_published_ones() {
    let count = |tensors: Vec<(String, candle_core::Tensor)>| -> usize {
        let trained = |name: &str| !name.contains("running_");
        tensors.iter().filter(|(name, _)| trained(name)).map(|(_, tensor)| tensor.elem_count()).sum()
    };
    // The hashed tensors are made from the configuration's sizes, and the loader expects exactly these.
    assert_eq!(count(leenet_tensors(&leenet::Config::LEENET11, 0).tensors()), 748_367);
    assert_eq!(count(leenet_tensors(&leenet::Config::LEENET24, 0).tensors()), 10_003_791);
    let config = cnn14::Config::AUDIOSET_32K;
    assert_eq!(count(cnn14_tensors(config.channels, config.embedding_dim, 527, 0).tensors()), 80_753_615);
}

#[test]
fn a_config_survives_json() {
    for preset in clipwise::models::presets() {
        let json = serde_json::to_string(&preset.config).unwrap();
        assert_eq!(serde_json::from_str::<ModelConfig>(&json).unwrap(), preset.config, "{json}");
    }
}
