//! From files to tags: detection, labels, resampling, batches and errors.

mod common;

use candle_core::{DType, Device, Tensor};
use clipwise::frontend::{LogMelConfig, MelConfig, MelScale, StftConfig};
use clipwise::models::probe::ProbeHead;
use clipwise::models::{OutputActivation, cnn14, detect, leenet};
use clipwise::{
    Assumption, Detail, Error, LabelSet, ModelConfig, OpenOptions, Tagger, TaggingModel, Waveform, WaveformBatch,
    Weights,
};
use common::{assert_close, cnn14_tensors, leenet_tensors, listed, max_difference, real, shipped, signal};

const CHANNELS: [usize; 6] = [4, 4, 4, 4, 4, 4];

/// A narrow CNN14 with the front-end tensors of a published file, made for `log_mel`.
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

#[test]
fn models_are_detected_from_checkpoints() {
    for log_mel in [LogMelConfig::PANNS_32K, LogMelConfig::PANNS_16K, LogMelConfig::PANNS_8K, LogMelConfig::PANNS_48K] {
        let weights = weights(with_front_end(&log_mel));
        let detected = detect(&weights).unwrap();
        let ModelConfig::Cnn14(config) = &detected.config else { panic!("{detected:?}") };
        assert_eq!((&*config.name, &config.log_mel), ("cnn14", &log_mel), "no preset has these widths");
        assert!(detected.assumptions.is_empty());
        assert_eq!(detected.config.load(&weights, &Device::Cpu).unwrap().info().name, "cnn14");
    }
    for (expected, config) in [("leenet11", leenet::Config::LEENET11), ("leenet24", leenet::Config::LEENET24)] {
        let detected = detect(&leenet_tensors(&config, 0).weights()).unwrap();
        assert_eq!((detected.config.name(), &detected.config), (expected, &ModelConfig::LeeNet(config)));
    }
}

/// A checkpoint gets a preset's name only if all sizes are the preset's; the head may differ.
#[test]
fn a_checkpoint_with_a_presets_sizes_gets_its_name() {
    for (expected, n_bins, n_mels, widest, embedding_dim) in [
        ("cnn14", 513, 64, 2048, 100),
        ("cnn14-16k", 257, 64, 2048, 512),
        ("cnn14-8k", 129, 64, 2048, 512),
        ("cnn14-48k", 1025, 64, 2048, 512),
        ("cnn14", 257, 64, 2047, 512),
        ("cnn14-mel32", 513, 32, 2048, 2048),
        ("cnn14-mel128", 513, 128, 2048, 2048),
        ("cnn14-emb512", 513, 64, 2048, 512),
        ("cnn14-emb128", 513, 64, 2048, 128),
        ("cnn14-emb32", 513, 64, 2048, 32),
        ("cnn14", 513, 65, 2048, 512),
    ] {
        let channels = [64, 128, 256, 512, 1024, widest];
        let mut shapes = vec![
            ("logmel_extractor.melW".to_string(), vec![n_bins, n_mels]),
            ("bn0.weight".to_string(), vec![n_mels]),
            ("conv_block6.conv2.weight".to_string(), vec![widest, widest, 3, 3]),
            ("fc1.weight".to_string(), vec![embedding_dim, widest]),
            ("fc_audioset.weight".to_string(), vec![50, embedding_dim]),
        ];
        for (i, (outputs, inputs)) in channels.into_iter().zip([1, 64, 128, 256, 512, 1024]).enumerate() {
            shapes.push((format!("conv_block{}.conv1.weight", i + 1), vec![outputs, inputs, 3, 3]));
        }
        let weights = listed(shapes.iter().map(|(name, shape)| (name.clone(), shape.as_slice())));
        let ModelConfig::Cnn14(config) = detect(&weights).unwrap().config else { panic!("{expected}") };
        assert_eq!((&*config.name, config.embedding_dim, config.n_classes), (expected, embedding_dim, 50));
    }
}

#[test]
fn a_cnn14_without_its_front_end_is_assumed_to_be_32_khz() {
    let detected = detect(&cnn14_tensors(CHANNELS, 8, 50, 3).weights()).unwrap();
    let ModelConfig::Cnn14(config) = &detected.config else { panic!("{detected:?}") };
    let expected = cnn14::Config { channels: CHANNELS, embedding_dim: 8, n_classes: 50, ..cnn14::Config::AUDIOSET_32K };
    assert_eq!(config, &expected);
    assert_eq!(detected.assumptions, [Assumption::SampleRate { model: "CNN14".to_string(), sample_rate: 32_000 }]);
    assert!(detected.assumptions[0].to_string().ends_with("32000 Hz is assumed"), "{}", detected.assumptions[0]);
}

#[test]
fn unknown_checkpoints_are_errors_with_a_guess() {
    for (tensor, guess) in [
        ("conv_block4.conv1.weight", "a PANNs network of four blocks"),
        ("gru.weight_hh_l0", "a GRU classifier"),
        ("something.else", "no supported model"),
    ] {
        let zero = Tensor::zeros((1,), DType::F32, &Device::Cpu).unwrap();
        let error = detect(&weights(vec![(tensor.to_string(), zero)])).unwrap_err();
        assert!(matches!(error, Error::UnknownModel(_)));
        assert!(error.to_string().contains(guess) && error.to_string().contains("leenet11"), "{error}");
    }
}

#[test]
fn a_checkpoint_with_another_front_end_is_rejected_and_a_fitting_preset_named() {
    // Another frame length has another shape. A symmetric window and the HTK scale have the same shapes and other
    // values.
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
fn one_report_lists_every_mismatch() {
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
fn absurd_sizes_and_values_are_rejected_in_bounded_memory() {
    // Shapes of a model of terabytes: mismatches are reported, not allocated.
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

    for (name, value, expected) in [
        ("fc1.bias", f32::NAN, "fc1.bias"),
        ("conv_block2.conv2.weight", f32::INFINITY, "conv_block2.conv2.weight"),
        ("conv_block1.bn1.running_var", -1.0, "running_var"),
    ] {
        let mut tensors = cnn14_tensors(CHANNELS, 8, 527, 3).tensors();
        let (_, tensor) = tensors.iter_mut().find(|(tensor, _)| tensor == name).unwrap();
        *tensor = (tensor.zeros_like().unwrap() + f64::from(value)).unwrap();
        let damaged = weights(tensors);
        let error = detect(&damaged).unwrap().config.load(&damaged, &Device::Cpu).err().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
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
    let expected: Vec<f32> = logits.iter().map(|logit| logit.exp() / sum).collect();
    assert_close("softmax", &scores, &expected, 1e-6, 0.0);
}

fn narrow_tagger(n_classes: usize) -> clipwise::Result<Tagger> {
    let config = leenet::Config { channels: [8; 9], embedding_dim: 12, n_classes, ..leenet::Config::LEENET11 };
    let model = leenet::LeeNet::load(&config, &leenet_tensors(&config, 1).weights(), &Device::Cpu)?;
    Tagger::new(model, ["Dog", "Cat", "Rain"].into_iter().collect())
}

#[test]
fn labels_must_match_the_head() {
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
    let as_named = Tagger::open_with(&checkpoint, &OpenOptions::new().model("leenet11")).unwrap();
    assert_eq!(as_named.model().info().name, "leenet11");
    let error = Tagger::open_with(&checkpoint, &OpenOptions::new().model("cnn14")).unwrap_err();
    assert!(matches!(error, Error::Weights(_)), "{error}");
    let error = Tagger::open_with(&checkpoint, &OpenOptions::new().model("cnn15")).unwrap_err();
    assert!(error.to_string().contains("cnn14-16k"), "{error}");
}

#[test]
fn decision_level_checkpoints_are_detected_by_file_name_or_tensors() {
    let folder = std::env::temp_dir().join(format!("clipwise-decision-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let clip = Waveform::new(signal(40_000, 32_000, 1), 32_000);
    let scores = |tagger: &Tagger| tagger.tag(&clip).unwrap().scores;
    let tensors: std::collections::HashMap<_, _> = cnn14_tensors(CHANNELS, 8, 50, 3).tensors().into_iter().collect();
    let mut seen = Vec::new();
    for (file, name, decision) in [
        ("Cnn14_mAP=0.431.safetensors", "cnn14", cnn14::Decision::Clip),
        ("Cnn14_DecisionLevelMax_mAP=0.385.safetensors", "cnn14-decision-max", cnn14::Decision::Max),
        ("Cnn14_DecisionLevelAvg_mAP=0.425.safetensors", "cnn14-decision-avg", cnn14::Decision::Avg),
    ] {
        let path = folder.join(file);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let tagger = Tagger::open(&path, &Device::Cpu).unwrap();
        let by_file_name = |it: &Assumption| matches!(it, Assumption::FileName { word, .. } if file.contains(word));
        assert_eq!(name != "cnn14", tagger.assumptions().iter().any(by_file_name));
        let detected = detect(&clipwise::Weights::open(&path).unwrap()).unwrap().config;
        assert!(matches!(&detected, ModelConfig::Cnn14(config) if config.decision == decision), "{detected:?}");
        assert_eq!(detected.name(), "cnn14", "no preset has these widths");
        // A requested name takes precedence over the file name.
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

/// A model that checks nothing itself.
struct Careless(clipwise::ModelInfo);

impl TaggingModel for Careless {
    fn info(&self) -> &clipwise::ModelInfo {
        &self.0
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn forward(&self, batch: &WaveformBatch, _: Detail) -> clipwise::Result<clipwise::TaggingOutput> {
        let zeros = Tensor::zeros((batch.rows().len(), 2), DType::F32, &Device::Cpu)?;
        clipwise::TaggingOutput::multi_label(zeros.clone(), zeros)
    }
}

#[test]
fn an_empty_clip_is_an_error_whatever_the_model_does() {
    let model = Careless(clipwise::ModelInfo::new("careless", 8_000, 2, 2));
    let tagger = Tagger::new(model, LabelSet::numbered(2)).unwrap();
    let clip = |n: usize| Waveform::new(vec![0.1; n], 8_000);
    assert!(tagger.tag(&clip(1)).is_ok());
    for clips in [vec![clip(0)], vec![clip(5), clip(0)]] {
        let error = tagger.tag_batch(&clips).unwrap_err();
        assert!(matches!(error, Error::TooShort { needed: 1, got: 0 }), "{error}");
    }
    let error = tagger.save(std::env::temp_dir().join("clipwise-never-written")).unwrap_err();
    assert!(error.to_string().contains("careless"), "{error}");
}

/// A head on CED-tiny and on a `.pth` tagger, saved as a folder: the folder alone gives bit-identical results.
#[test]
fn a_saved_probe_opens_as_the_same_tagger() {
    let folder = std::env::temp_dir().join(format!("clipwise-probe-{}", std::process::id()));
    let narrow = folder.join("narrow.safetensors");
    std::fs::create_dir_all(&folder).unwrap();
    let tensors = cnn14_tensors(CHANNELS, 8, 50, 3).tensors().into_iter().map(|(name, x)| (format!("net.{name}"), x));
    let beside = ("loss.weight".to_string(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
    candle_core::safetensors::save(&tensors.chain([beside]).collect(), &narrow).unwrap();
    let clip = Waveform::new(signal(50_000, 32_000, 1), 32_000);
    let labels = LabelSet::from_iter(["soft", "loud", "middle"]);
    for base in [shipped("ced-tiny"), Tagger::open(&narrow, &Device::Cpu).unwrap()] {
        let embedding = base.tag(&clip).unwrap().embedding.0;
        let rows = Tensor::new([embedding.clone(), embedding.iter().map(|x| 1.0 - x).collect()].concat(), &Device::Cpu);
        let head = ProbeHead::new(&rows.unwrap().reshape((2, embedding.len())).unwrap(), 3, 1).unwrap();
        let probe = base.with_probe(&head, OutputActivation::Softmax, labels.clone()).unwrap();
        let expected = probe.tag(&clip).unwrap();
        assert!((expected.scores.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert_eq!(expected.embedding.0, embedding);

        let saved = folder.join(&*base.model().info().name);
        probe.save(&saved).unwrap();
        let opened = Tagger::open(&saved, &Device::Cpu).unwrap();
        assert_eq!((opened.labels(), &*opened.model().info().name), (&labels, "linear-probe"));
        assert!(opened.assumptions().is_empty(), "{:?}", opened.assumptions());
        assert_eq!(opened.clone().tag(&clip).unwrap(), expected);
        let mut names: Vec<_> = std::fs::read_dir(&saved).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["config.json", "labels.json", "model.safetensors"]);

        // The tensors alone do not determine the output activation.
        let error = Tagger::open(saved.join("model.safetensors"), &Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("config.json"), "{error}");
        // A head for another base.
        let wide = ProbeHead::new(&Tensor::zeros((2, 1 + embedding.len()), DType::F32, &Device::Cpu).unwrap(), 3, 1);
        let error = base.with_probe(&wide.unwrap(), OutputActivation::Softmax, labels.clone()).unwrap_err();
        assert!(matches!(error, Error::Weights(_)), "{error}");
        // The base itself, saved and reopened.
        base.save(&saved).unwrap();
        assert_eq!(Tagger::open(&saved, &Device::Cpu).unwrap().tag(&clip).unwrap(), base.tag(&clip).unwrap());
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
