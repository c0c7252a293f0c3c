//! From files to tags: detection, labels, resampling, batches, and what does not work.

mod common;

use candle_core::{DType, Device, Tensor};
use clipwise::frontend::{LogMelConfig, MelConfig, MelScale, StftConfig};
use clipwise::models::{Detected, cnn14, detect, leenet};
use clipwise::{Detail, Error, LabelSet, ModelConfig, Tagger, Waveform, WaveformBatch, Weights};
use common::{assert_close, cnn14_tensors, leenet_tensors, max_difference, real, signal};

const CHANNELS: [usize; 6] = [4, 4, 4, 4, 4, 4];

/// A narrow CNN14 with the front-end tensors that a published file carries, made for `log_mel`.
fn with_front_end(log_mel: &LogMelConfig) -> Vec<(String, Tensor)> {
    let mut tensors = cnn14_tensors(CHANNELS, 8, 527, 3).tensors();
    let (n_fft, n_bins) = (log_mel.stft.n_fft, log_mel.stft.n_fft / 2 + 1);
    let front_end = clipwise::frontend::LogMel::new(log_mel).unwrap();
    let mel_w: Vec<f32> = front_end.mel().to_array().t().iter().copied().collect();
    tensors.push(("logmel_extractor.melW".into(), Tensor::from_vec(mel_w, (n_bins, 64), &Device::Cpu).unwrap()));
    let window = front_end.stft().window();
    for (name, wave) in [("conv_real", f64::cos as fn(f64) -> f64), ("conv_imag", |phase: f64| -phase.sin())] {
        let phase = |bin: usize, i: usize| std::f64::consts::TAU * ((bin * i) % n_fft) as f64 / n_fft as f64;
        let values: Vec<f32> = (0..n_bins)
            .flat_map(|bin| (0..n_fft).map(move |i| (bin, i)))
            .map(|(bin, i)| (f64::from(window[i]) * wave(phase(bin, i))) as f32)
            .collect();
        let name = format!("spectrogram_extractor.stft.{name}.weight");
        tensors.push((name, Tensor::from_vec(values, (n_bins, 1, n_fft), &Device::Cpu).unwrap()));
    }
    tensors
}

fn weights(tensors: Vec<(String, Tensor)>) -> Weights {
    Weights::from_tensors(tensors).unwrap()
}

fn name(detected: &Detected) -> &'static str {
    match &detected.config {
        ModelConfig::Cnn14(config) => match config.log_mel.sample_rate {
            32_000 => "cnn14",
            16_000 => "cnn14-16k",
            8_000 => "cnn14-8k",
            _ => "cnn14-48k",
        },
        ModelConfig::LeeNet(config) if config.convs_per_block == 1 => "leenet11",
        ModelConfig::LeeNet(_) => "leenet24",
        _ => "another",
    }
}

#[test]
fn a_checkpoint_tells_its_model() {
    for (wanted, log_mel) in [
        ("cnn14", LogMelConfig::PANNS_32K),
        ("cnn14-16k", LogMelConfig::PANNS_16K),
        ("cnn14-8k", LogMelConfig::PANNS_8K),
        ("cnn14-48k", LogMelConfig::PANNS_48K),
    ] {
        let weights = weights(with_front_end(&log_mel));
        let detected = detect(&weights).unwrap();
        assert_eq!(name(&detected), wanted);
        assert!(detected.assumptions.is_empty());
        assert_eq!(detected.config.load(&weights, &Device::Cpu).unwrap().info().name, wanted);
    }
    for (wanted, config) in [("leenet11", leenet::Config::LEENET11), ("leenet24", leenet::Config::LEENET24)] {
        let detected = detect(&leenet_tensors(&config, 0).weights()).unwrap();
        assert_eq!((name(&detected), &detected.config), (wanted, &ModelConfig::LeeNet(config)));
    }
}

#[test]
fn a_cnn14_without_its_front_end_is_taken_as_32_khz_and_says_so() {
    let detected = detect(&cnn14_tensors(CHANNELS, 8, 50, 3).weights()).unwrap();
    let ModelConfig::Cnn14(config) = &detected.config else { panic!("{detected:?}") };
    let wanted = cnn14::Config { channels: CHANNELS, embedding_dim: 8, n_classes: 50, ..cnn14::Config::AUDIOSET_32K };
    assert_eq!(config, &wanted);
    assert!(detected.assumptions[0].contains("32 kHz is assumed"), "{:?}", detected.assumptions);
}

#[test]
fn what_no_model_has_is_named_with_a_guess() {
    for (tensor, guess) in [
        ("pre_conv0.weight", "Wavegram"),
        ("resnet.layer1.0.conv1.weight", "ResNet"),
        ("something.else", "no model of this version"),
    ] {
        let zero = Tensor::zeros((1,), DType::F32, &Device::Cpu).unwrap();
        let error = detect(&weights(vec![(tensor.to_string(), zero)])).unwrap_err();
        assert!(matches!(error, Error::UnknownModel(_)));
        assert!(error.to_string().contains(guess) && error.to_string().contains("leenet11"), "{error}");
    }
}

#[test]
fn a_checkpoint_with_another_front_end_is_refused_with_the_preset_that_fits() {
    // Other frame length: another shape. Symmetric window, HTK scale: the same shapes, other values.
    let made_for_16k = with_front_end(&LogMelConfig::PANNS_16K);
    let load = |config: &LogMelConfig, tensors: &[(String, Tensor)]| {
        let channels = CHANNELS;
        let config = cnn14::Config { log_mel: *config, channels, embedding_dim: 8, ..cnn14::Config::AUDIOSET_32K };
        cnn14::Cnn14::load(&config, &weights(tensors.to_vec()), &Device::Cpu)
    };
    assert!(load(&LogMelConfig::PANNS_16K, &made_for_16k).is_ok());
    let error = load(&LogMelConfig::PANNS_32K, &made_for_16k).unwrap_err();
    assert!(matches!(error, Error::FrontEnd { fitting: Some("cnn14-16k"), .. }), "{error}");
    assert!(error.to_string().contains("cnn14-16k"), "{error}");

    let symmetric =
        LogMelConfig { stft: StftConfig { periodic: false, ..LogMelConfig::PANNS_8K.stft }, ..LogMelConfig::PANNS_8K };
    let htk = LogMelConfig {
        mel: MelConfig { scale: MelScale::Htk, ..LogMelConfig::PANNS_8K.mel },
        ..LogMelConfig::PANNS_8K
    };
    let made_for_8k = with_front_end(&LogMelConfig::PANNS_8K);
    for wrong in [symmetric, htk] {
        let error = load(&wrong, &made_for_8k).unwrap_err();
        assert!(matches!(error, Error::FrontEnd { fitting: Some("cnn14-8k"), .. }), "{error}");
        let error = load(&LogMelConfig::PANNS_8K, &with_front_end(&wrong)).unwrap_err();
        assert!(matches!(error, Error::FrontEnd { fitting: None, .. }), "{error}");
    }
}

#[test]
fn everything_that_does_not_fit_is_in_one_report() {
    let mut tensors = cnn14_tensors(CHANNELS, 8, 527, 3).tensors();
    tensors.retain(|(name, _)| name != "conv_block3.bn2.running_var" && name != "fc1.bias");
    for (name, tensor) in &mut tensors {
        match name.as_str() {
            "conv_block2.conv1.weight" => *tensor = tensor.narrow(1, 0, 3).unwrap(),
            "bn0.bias" => *name = "bn0.biass".to_string(),
            _ => {}
        }
    }
    let weights = weights(tensors);
    let error = detect(&weights).unwrap().config.load(&weights, &Device::Cpu).err().unwrap();
    let text = error.to_string();
    for part in ["conv_block3.bn2.running_var", "fc1.bias", "conv_block2.conv1.weight", "bn0.bias", "bn0.biass"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let Error::Weights(report) = error else { panic!("{text}") };
    assert_eq!((report.missing.len(), report.unexpected.len(), report.wrong_shape.len()), (3, 1, 1));
}

#[test]
fn absurd_sizes_and_values_are_refused_in_bounded_memory() {
    // Shapes from which a model of terabytes would follow: what does not fit is reported, not allocated.
    let tensor =
        |name: &str, shape: &[usize]| (name.to_string(), Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap());
    let of_channels = |channels: usize| {
        let mut tensors = cnn14_tensors(CHANNELS, 8, 527, 3).tensors();
        tensors.retain(|(name, _)| name != "conv_block5.conv1.weight" && name != "conv_block6.conv1.weight");
        tensors.push(tensor("conv_block5.conv1.weight", &[channels, 1, 1, 1]));
        tensors.push(tensor("conv_block6.conv1.weight", &[channels, 1, 1, 1]));
        let huge = weights(tensors);
        detect(&huge).unwrap().config.load(&huge, &Device::Cpu).err().unwrap()
    };
    let error = of_channels(60_000);
    assert!(matches!(&error, Error::Weights(report) if report.stopped), "{error}");
    let error = of_channels(1_000_000);
    assert!(matches!(error, Error::Config { field: "channels", .. }), "{error}");

    for (name, value, wanted) in [
        ("fc1.bias", f32::NAN, "fc1.bias"),
        ("conv_block2.conv2.weight", f32::INFINITY, "conv_block2.conv2.weight"),
        ("conv_block1.bn1.running_var", -1.0, "running_var"),
    ] {
        let mut tensors = cnn14_tensors(CHANNELS, 8, 527, 3).tensors();
        let (_, tensor) = tensors.iter_mut().find(|(tensor, _)| tensor == name).unwrap();
        *tensor = (tensor.zeros_like().unwrap() + f64::from(value)).unwrap();
        let damaged = weights(tensors);
        let error = detect(&damaged).unwrap().config.load(&damaged, &Device::Cpu).err().unwrap();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[test]
fn a_fine_tuned_head_is_a_softmax_over_its_own_classes() {
    let mut hashed = cnn14_tensors(CHANNELS, 8, 527, 3);
    hashed.linear("fc_transfer", 8, 5);
    let prefixed = hashed.tensors().into_iter().map(|(name, tensor)| match name.starts_with("fc_transfer") {
        true => (name, tensor),
        false => (format!("base.{name}"), tensor),
    });
    let weights = weights(prefixed.collect());
    let detected = detect(&weights).unwrap();
    let model = detected.config.load(&weights, &Device::Cpu).unwrap();
    assert_eq!(model.info().n_classes, 5);
    let batch = WaveformBatch::new(vec![signal(20_000, 32_000, 1)], 32_000).unwrap();
    let output = model.forward(&batch, Detail::Clip).unwrap();
    let (scores, logits) = (common::values(&output.clipwise_output), common::values(&output.logits));
    let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
    let wanted: Vec<f32> = logits.iter().map(|logit| logit.exp() / sum).collect();
    assert_close("softmax", &scores, &wanted, 1e-6, 0.0);
}

fn narrow_tagger(n_classes: usize) -> clipwise::Result<Tagger> {
    let config = leenet::Config { channels: [8; 9], embedding_dim: 12, n_classes, ..leenet::Config::LEENET11 };
    let model = leenet::LeeNet::load(&config, &leenet_tensors(&config, 1).weights(), &Device::Cpu)?;
    Tagger::new(model, ["Dog", "Cat", "Rain"].into_iter().collect())
}

#[test]
fn labels_must_fit_the_head() {
    assert!(narrow_tagger(3).is_ok());
    assert!(matches!(narrow_tagger(4), Err(Error::LabelCount { n_classes: 4, n_labels: 3 })));
    let error = narrow_tagger(3).unwrap().with_labels(LabelSet::audioset()).unwrap_err();
    assert!(matches!(error, Error::LabelCount { n_classes: 3, n_labels: 527 }), "{error}");
}

#[test]
fn tag_batch_is_tag_for_each_clip_at_any_rate() {
    let tagger = narrow_tagger(3).unwrap();
    let clip = |n, sample_rate| Waveform::new(signal(n, sample_rate, 4), sample_rate);
    let clips = [clip(32_000, 32_000), clip(8_000, 8_000), clip(44_100, 44_100), clip(1, 16_000)];
    let together = tagger.tag_batch(&clips).unwrap();
    assert_eq!(together.len(), clips.len());
    for (clip, together) in clips.iter().zip(&together) {
        let alone = tagger.tag(clip).unwrap();
        assert!(max_difference(&alone.scores, &together.scores) <= 1e-6);
        assert!(max_difference(&alone.embedding, &together.embedding) <= 1e-6);
        assert_eq!(alone.labels.len(), 3);
    }
    assert!(tagger.tag_batch(&[]).unwrap().is_empty());
}

#[test]
fn clips_that_cannot_be_tagged_are_typed_errors() {
    let tagger = narrow_tagger(3).unwrap();
    let tag = |samples: Vec<f32>, sample_rate| tagger.tag(&Waveform::new(samples, sample_rate));
    for rate in [32_000, 44_100] {
        assert!(matches!(tag(vec![], rate), Err(Error::TooShort { needed: 1, got: 0 })));
        let error = tag(vec![0.0, 0.5, f32::INFINITY], rate).unwrap_err();
        assert!(matches!(error, Error::NonFinite { index: 2, .. }), "{error}");
    }
    assert!(tag(vec![0.5; 10], 0).is_err());
}

#[test]
fn the_published_leenet11_tags_a_real_recording() {
    let (Some(checkpoint), Some(clip)) = (real("real/panns-leenet11/LeeNet11.pth"), real("audio/R9_ZSCveAHg_7s.wav"))
    else {
        return;
    };
    let tagger = Tagger::open(&checkpoint, &Device::Cpu).unwrap();
    assert!(tagger.assumptions().is_empty());
    let tagging = tagger.tag(&Waveform::open(clip).unwrap()).unwrap();
    let first = &tagging.top_k(1)[0];
    assert_eq!((first.label.as_str(), first.id.as_deref()), ("Speech", Some("/m/09x0r")));
    assert!((first.score - 0.5436).abs() < 5e-5, "{}", first.score);
    let as_named = Tagger::open_as("leenet11", &checkpoint, &Device::Cpu).unwrap();
    assert_eq!(as_named.model().info().name, "leenet11");
    let error = Tagger::open_as("cnn14", &checkpoint, &Device::Cpu).unwrap_err();
    assert!(matches!(error, Error::Weights(_)), "{error}");
    let error = Tagger::open_as("cnn15", &checkpoint, &Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("cnn14-16k"), "{error}");
}

#[test]
fn a_decision_level_checkpoint_is_known_by_its_file_name_or_its_tensors() {
    let folder = std::env::temp_dir().join(format!("clipwise-decision-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let clip = Waveform::new(signal(40_000, 32_000, 1), 32_000);
    let scores = |tagger: &Tagger| tagger.tag(&clip).unwrap().scores;
    let tensors: std::collections::HashMap<_, _> = cnn14_tensors(CHANNELS, 8, 50, 3).tensors().into_iter().collect();
    let mut seen = Vec::new();
    for (file, name) in [
        ("Cnn14_mAP=0.431.safetensors", "cnn14"),
        ("Cnn14_DecisionLevelMax_mAP=0.385.safetensors", "cnn14-decision-max"),
        ("Cnn14_DecisionLevelAvg_mAP=0.425.safetensors", "cnn14-decision-avg"),
    ] {
        let path = folder.join(file);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let tagger = Tagger::open(&path, &Device::Cpu).unwrap();
        assert_eq!(tagger.model().info().name, name);
        assert_eq!(name != "cnn14", tagger.assumptions().iter().any(|line| line.contains("DecisionLevel")));
        // The name that is asked for counts more than the file's.
        for asked in ["cnn14", name] {
            let config = ModelConfig::by_name(asked, &clipwise::Weights::open(&path).unwrap()).unwrap();
            let ModelConfig::Cnn14(config) = config else { panic!("{config:?}") };
            assert_eq!(config.decision == cnn14::Decision::Clip, asked == "cnn14");
        }
        seen.push(scores(&tagger));
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2]);
}
