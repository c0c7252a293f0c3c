//! Resource limits: a few digits in a configuration must not decide how much memory or time is used. Every number of
//! every configuration is replaced by huge ones, which must cause an error or do no harm. One test, so that nothing
//! else runs in its process.

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clipwise::augment::{Mixup, Random, SpecAugment};
use clipwise::ctc::{
    self, BeamSearch, CtcConfig, CtcModel, HeadConfig, LanguageModel, TokenTransformer, TokenTransformerConfig,
    Vocabulary, beam,
};
use clipwise::encoders::{
    EncoderConfig, RecurrentEncoder, W2vBertEncoder, Wav2Vec2Encoder, WeightedSumConfig, WhisperEncoder, recurrent,
    w2v_bert, wav2vec2, whisper,
};
use clipwise::events::{EventConfig, EventDetector, Smoothing};
use clipwise::frontend::features::{Features, FeaturesConfig};
use clipwise::frontend::{
    FbankConfig, LogMel, LogMelConfig, MelConfig, MelFilterBank, Mfcc, MfccConfig, Normalize, SeamlessM4t,
    SeamlessM4tConfig, Stft, StftConfig, WhisperMel, WhisperMelConfig,
};
use clipwise::models::{M5, ModelConfig, cnn14, leenet, m5, presets, rnn};
use clipwise::weights::{LoadReport, Parameters};
use clipwise::{Detail, Device, Error, LabelSet, Tagger, Waveform, WaveformBatch, Weights, WindowConfig, fusion};
use common::{cnn14_tensors, hashed, leenet_tensors, m5_tensors};
use ndarray::Array2;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

type Outcome = Result<(), String>;

/// Replacements for each number.
fn values() -> Vec<Value> {
    vec![
        json!(0),
        json!(1),
        json!(1_000_000_000u64),
        json!(u32::MAX),
        json!(usize::MAX / 2),
        json!(usize::MAX),
        json!(1 << 16),
        json!(1 << 20),
        json!(-1.0),
        json!(1e-300),
        json!(1e300),
    ]
}

/// The paths of all numbers in a value.
fn numbers(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(place.to_string()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| numbers(item, &format!("{place}/{i}"), found));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| numbers(field, &format!("{place}/{name}"), found));
        }
        _ => {}
    }
}

/// Peak memory of this process in bytes, if the system reports it.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// Resets the measured peak, if the system supports it.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Runs `work`, which may use at most this many megabytes and seconds.
fn bounded<T>(what: &str, megabytes: u64, seconds: u64, work: impl FnOnce() -> T) -> T {
    forget_peak();
    let (before, begun) = (peak(), Instant::now());
    let result = work();
    let elapsed = begun.elapsed();
    assert!(elapsed < Duration::from_secs(seconds), "{what}: {elapsed:?}");
    if let (Some(before), Some(after)) = (before, peak()) {
        let grown = after.saturating_sub(before) >> 20;
        assert!(grown < megabytes, "{what}: {grown} MB");
    }
    result
}

/// Tries a configuration with each of its numbers replaced. Returns how many could be read, and how many of these
/// worked.
fn sweep<C: Serialize + DeserializeOwned>(name: &str, config: &C, try_it: impl Fn(&C) -> Outcome) -> (usize, usize) {
    let whole = serde_json::to_value(config).unwrap();
    let mut places = Vec::new();
    numbers(&whole, "", &mut places);
    assert!(!places.is_empty(), "{name} has no numbers");
    let (mut n_read, mut n_worked) = (0, 0);
    for place in &places {
        for value in values() {
            let mut changed = whole.clone();
            *changed.pointer_mut(place).unwrap() = value.clone();
            let Ok(changed) = serde_json::from_value::<C>(changed) else { continue };
            n_read += 1;
            let outcome = bounded(&format!("{name}{place} = {value}"), 200, 10, || try_it(&changed));
            match outcome {
                Ok(()) => n_worked += 1,
                Err(reason) => assert!(!reason.is_empty()),
            }
        }
    }
    eprintln!("{name}: {} numbers, {n_read} configurations, {n_worked} work", places.len());
    (n_read, n_worked)
}

fn outcome<T>(result: clipwise::Result<T>) -> Outcome {
    result.map(drop).map_err(|error| {
        assert!(!matches!(error, Error::Tensor { .. }), "{error}");
        error.to_string()
    })
}

fn nothing() -> Weights {
    Weights::from_tensors([]).unwrap()
}

fn tone() -> Vec<f32> {
    hashed("tone", 2_000, -0.5, 0.5, 1)
}

/// A folder with `config.json` and a checkpoint without tensors.
fn case(name: &str, config: &Value) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("limits").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    folder
}

fn report(error: Error) -> LoadReport {
    match error {
        Error::Weights(report) => *report,
        other => panic!("{other}"),
    }
}

/// Folders of some hundred bytes that once crashed the process or used a gigabyte.
fn small_folders_that_ask_for_much() {
    let config_error = |error: Error, expected: &str| {
        assert!(
            matches!(&error, Error::Config { field, .. } | Error::Argument { name: field, .. } if *field == expected),
            "{error}"
        );
        assert!(error.to_string().contains("expected 1 to 1024"), "{error}");
    };
    let log_mel = json!({"sample_rate": 16000, "n_fft": 512, "win_length": 512, "hop_length": 160, "n_mels": 16});
    let ced = json!({
        "model": "ced", "width": 1, "n_heads": 1, "depth": 1_000_000_000, "target_length": 16, "n_classes": 1,
        "log_mel": log_mel,
    });
    config_error(Tagger::open(case("ced-depth", &ced), &Device::Cpu).unwrap_err(), "depth");

    let stages = vec![json!({"channels": 1, "layers": 65536}); 100];
    let m5 = json!({
        "model": "m5", "sample_rate": 8000, "channels": 1, "kernel": 80, "stride": 16, "padded": true, "pool": 1,
        "pool_last": false, "residual": false, "stages": stages, "n_classes": 35, "head": "softmax",
    });
    config_error(Tagger::open(case("m5-layers", &m5), &Device::Cpu).unwrap_err(), "stages");
    let stages = vec![json!({"channels": 1, "layers": 1000}); 3];
    let m5 = json!({
        "model": "m5", "sample_rate": 8000, "channels": 1, "kernel": 80, "stride": 16, "padded": true, "pool": 1,
        "pool_last": false, "residual": false, "stages": stages, "n_classes": 35, "head": "softmax",
    });
    let error = Tagger::open(case("m5-stages", &m5), &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("stages = 3000") && error.contains("at most 1024 layers"), "{error}");

    let whisper = json!({
        "encoder": {
            "type": "whisper", "n_mels": 1, "dim": 2, "n_heads": 1, "n_blocks": 1_000_000_000, "ffn_dim": 1, "n_positions": 1,
        },
        "head": {"dim": 2, "n_tokens": 3},
    });
    let folder = case("whisper-blocks", &whisper);
    std::fs::write(folder.join("vocab.json"), r#"{"<pad>":0,"a":1,"b":2}"#).unwrap();
    config_error(CtcModel::open(folder, &Device::Cpu).unwrap_err(), "n_blocks");

    let cnn14 = json!({
        "model": "cnn14", "channels": [8, 8, 8, 8, 3700, 3700], "pooling": "avg", "embedding_dim": 8, "n_classes": 8,
        "head": "audioset",
        "log_mel": {"sample_rate": 16000, "n_fft": 512, "win_length": 512, "hop_length": 160, "n_mels": 64},
    });
    let report = report(Tagger::open(case("cnn14-zeros", &cnn14), &Device::Cpu).unwrap_err());
    assert!(report.stopped && report.missing.len() > 20, "{report}");
    let text = report.to_string();
    assert_eq!(text.matches("\n  missing: ").count(), 21, "{text}");
    assert!(text.contains(&format!("missing: {} more", report.missing.len() - 20)), "{text}");
    assert!(text.contains("were not compared"), "{text}");
    std::fs::remove_dir_all(Path::new(env!("CARGO_TARGET_TMPDIR")).join("limits")).unwrap();
}

/// A model all of whose tensors are missing, more than loading tolerates.
fn deep_models_without_tensors() {
    let deep = m5::Config {
        stages: vec![m5::Stage { channels: 1, layers: 1024 }].into(),
        channels: 1,
        pool: 1,
        ..m5::Config::M5
    };
    let deep = m5::Config { padded: true, ..deep };
    let report = report(M5::load(&deep, &nothing(), &Device::Cpu).unwrap_err());
    assert!(report.stopped && (1000..1010).contains(&report.missing.len()), "{}", report.missing.len());
}

/// All tensors of a `.pth` may share one storage, so a small file could describe a large model.
fn one_storage_for_all_tensors() {
    let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let int = |value: i64| [&b"\x8a\x08"[..], &value.to_le_bytes()].concat();
    let n = 1_000_000i64;
    let storage = [&b"("[..], &text("storage"), b"ctorch\nBoolStorage\n", &text("0"), &text("cpu"), &int(n), b"tQ"];
    let sizes = |size: i64| [&b"("[..], &int(size), b"t"].concat();
    let tensor =
        [b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage.concat()[..], &int(0), &sizes(n), &sizes(1), b"\x89}tR"];
    let entries: Vec<u8> =
        (0..100).flat_map(|i| [&text(&format!("t{i}"))[..], &tensor.concat(), b"s"].concat()).collect();
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    file.extend([&b"\x80\x02}"[..], &entries, b".\x80\x02]", &text("0"), b"a.", &n.to_le_bytes()].concat());
    file.resize(file.len() + n as usize, 1);
    let weights = Weights::from_bytes(file).unwrap();
    assert_eq!(weights.len(), 100);
    let loader = weights.loader(&Device::Cpu);
    let mut held = Vec::new();
    let stopped = (0..100).find_map(|i| match loader.get_vec(&format!("t{i}"), &[n as usize]) {
        Ok(values) => {
            held.push(values);
            None
        }
        Err(error) => Some(error.to_string()),
    });
    assert!(
        stopped.is_some_and(|error| error.contains("tensors share bytes")) && (2..=4).contains(&held.len()),
        "{}",
        held.len()
    );
}

fn models() {
    let names = [
        "cnn14",
        "cnn14-decision-att",
        "ced-tiny",
        "resnet54",
        "mobilenetv2",
        "res1dnet51",
        "dainet19",
        "wavegram-logmel-cnn14",
        "leenet11",
        "m5",
        "m34-res",
        "crnn",
        "bilstm-attention",
        "lstm-speech-commands",
        "mn04",
    ];
    for name in names {
        let preset = presets().find(|preset| preset.name() == name).unwrap();
        let (_, n_worked) = sweep(name, &preset.config, |config| outcome(config.load(&nothing(), &Device::Cpu)));
        assert_eq!(n_worked, 0, "{name}: no model is loaded from nothing");
    }
    // Matching checkpoints, and a clip for every model that still loads.
    let tag = |config: &ModelConfig, weights: &Weights| {
        config.load(weights, &Device::Cpu).and_then(|model| {
            let clip = WaveformBatch::new(vec![tone()], model.info().sample_rate)?;
            model.forward(&clip, Detail::Clip)
        })
    };
    let narrow =
        cnn14::Config { channels: [2, 2, 2, 2, 2, 2], embedding_dim: 3, n_classes: 4, ..cnn14::Config::AUDIOSET_8K };
    let weights = cnn14_tensors(narrow.channels, 3, 4, 1).weights();
    sweep("narrow cnn14", &ModelConfig::Cnn14(narrow), |config| outcome(tag(config, &weights)));
    let narrow = leenet::Config { channels: [2; 9], embedding_dim: 3, n_classes: 4, ..leenet::Config::LEENET11 };
    let weights = leenet_tensors(&narrow, 1).weights();
    sweep("narrow leenet", &ModelConfig::LeeNet(narrow), |config| outcome(tag(config, &weights)));
    for narrow in [
        m5::Config { channels: 4, ..m5::Config::M5 },
        m5::Config {
            stages: vec![m5::Stage { channels: 4, layers: 2 }].into(),
            channels: 2,
            ..m5::Config::M34_RES_PAPER
        },
    ] {
        let weights = m5_tensors(&narrow, 1).weights();
        sweep("narrow m5", &ModelConfig::M5(narrow), |config| outcome(tag(config, &weights)));
    }
    let narrow = rnn::Config { hidden: 4, n_layers: 1, ..rnn::Config::BILSTM_ATTENTION };
    let parameters = Parameters::new(&Device::Cpu, 1);
    clipwise::models::AudioRnnClassifier::build(&narrow, &parameters.loader()).unwrap();
    let weights = parameters.weights().unwrap();
    sweep("narrow rnn", &ModelConfig::Rnn(narrow), |config| outcome(tag(config, &weights)));
}

fn speech() {
    let whisper = whisper::Config {
        name: "whisper".into(),
        n_mels: 8,
        dim: 4,
        n_heads: 2,
        n_blocks: 1,
        ffn_dim: 4,
        n_positions: 8,
        pad: true,
        keep_padding: false,
    };
    sweep("whisper", &whisper, |config| outcome(WhisperEncoder::load(config, &nothing(), &Device::Cpu)));
    sweep("whisper large", &whisper::Config::LARGE_V3, |config| {
        outcome(WhisperEncoder::load(config, &nothing(), &Device::Cpu))
    });
    for preset in [wav2vec2::Config::BASE, wav2vec2::Config::XLS_R_2B] {
        sweep(&preset.name, &preset, |config| outcome(Wav2Vec2Encoder::load(config, &nothing(), &Device::Cpu)));
    }
    let adapter = w2v_bert::AdapterConfig {
        dim: 1024,
        n_layers: 1,
        kernel: 3,
        stride: 2,
        activation: clipwise::nn::Activation::Relu,
        feed_forward: false,
    };
    let with_adapter = w2v_bert::Config { adapter: Some(adapter), ..w2v_bert::Config::W2V_BERT_2 };
    for config in [w2v_bert::Config::W2V_BERT_2, with_adapter] {
        sweep("w2v-bert", &config, |config| outcome(W2vBertEncoder::load(config, &nothing(), &Device::Cpu)));
    }
    sweep("recurrent", &recurrent::Config::BIGRU, |config| {
        outcome(RecurrentEncoder::load(config, &nothing(), &Device::Cpu))
    });
    let ctc = CtcConfig {
        encoder: EncoderConfig::Recurrent(recurrent::Config { hidden: 4, ..recurrent::Config::BIGRU }),
        weighted_sum: Some(WeightedSumConfig::default()),
        head: HeadConfig { hidden: Some(3), ..HeadConfig::linear(8, 5) },
        vocabulary: ctc::vocabulary::Config { blank: Some(ctc::vocabulary::TokenRef::Index(0)), ..Default::default() },
    };
    let parameters = Parameters::new(&Device::Cpu, 1);
    CtcModel::build(&ctc, &parameters.loader()).unwrap();
    let weights = parameters.weights().unwrap();
    let (_, n_worked) = sweep("ctc", &ctc, |config| {
        outcome(CtcModel::load(config, &weights, &Device::Cpu).and_then(|model| {
            let vocabulary = Vocabulary::with_config(["<pad>", "a", "b", "c", "d"], &config.vocabulary)?;
            model.forward(&WaveformBatch::new(vec![tone()], model.sample_rate())?)?;
            model.with_vocabulary(vocabulary)
        }))
    });
    assert!(n_worked > 0);
    let small = TokenTransformerConfig {
        n_codes: 4,
        width: 4,
        n_heads: 2,
        n_blocks: 1,
        ffn_dim: 4,
        n_positions: 4,
        n_tokens: 3,
        ..TokenTransformerConfig::SPEECH_TOKENIZER
    };
    sweep("token transformer", &small, |config| outcome(TokenTransformer::load(config, &nothing(), &Device::Cpu)));

    let vocabulary = Vocabulary::new(["<pad>", "a", "|"]).unwrap();
    let frames = Array2::from_elem((3, 3), (1.0f32 / 3.0).ln());
    let decode =
        |search: clipwise::Result<BeamSearch>| outcome(search.and_then(|search| search.decode(frames.view(), 0.02)));
    for n_best in [1, 100] {
        let config = beam::Config { n_best, ..beam::Config::default() };
        sweep("beam search", &config, |config| decode(BeamSearch::new(&vocabulary, config.clone())));
    }
    let arpa = "\\data\\\nngram 1=3\n\n\\1-grams:\n-0.5\t<unk>\n-1.0\ta\n-99\t<s>\n\n\\end\\\n";
    let model = LanguageModel::read(arpa.as_bytes()).unwrap();
    sweep("language model", &beam::LanguageModelConfig::default(), |config| {
        let search = BeamSearch::new(&vocabulary, beam::Config::default());
        decode(search.and_then(|search| search.with_language_model(&model, config.clone())))
    });
    sweep("fusion", &fusion::Config::default(), |config| {
        let member =
            || fusion::Member { logits: frames.view(), vocabulary: &vocabulary, frame_seconds: 0.02, weight: 1.0 };
        outcome(fusion::fuse_frames(&[member(), member()], config))
    });
}

/// Without a checkpoint, only the configurations' own limits apply.
fn untrained() {
    let huge = |config: &ModelConfig| {
        let (parameters, text) = (Parameters::new(&Device::Cpu, 1), serde_json::to_string(config).unwrap());
        let is_huge = ["1000000000", "4294967295", "9223372036854775807", "18446744073709551615"];
        if !is_huge.iter().any(|number| text.contains(number)) {
            return Ok(());
        }
        outcome(match config {
            ModelConfig::M5(config) => M5::build(config, &parameters.loader()).map(drop),
            ModelConfig::Cnn14(config) => clipwise::models::Cnn14::build(config, &parameters.loader()).map(drop),
            ModelConfig::Rnn(config) => {
                clipwise::models::AudioRnnClassifier::build(config, &parameters.loader()).map(drop)
            }
            _ => Ok(()),
        })
    };
    let narrow = cnn14::Config { channels: [2; 6], embedding_dim: 2, n_classes: 2, ..cnn14::Config::AUDIOSET_8K };
    sweep("untrained cnn14", &ModelConfig::Cnn14(narrow), huge);
    sweep("untrained m5", &ModelConfig::M5(m5::Config::M5), huge);
    sweep("untrained rnn", &ModelConfig::Rnn(rnn::Config::BIGRU), huge);
    let wide = m5::Config {
        channels: 65_536,
        stages: vec![m5::Stage { channels: 65_536, layers: 1 }].into(),
        ..m5::Config::M5
    };
    let parameters = Parameters::new(&Device::Cpu, 1);
    let error = M5::build(&wide, &parameters.loader()).unwrap_err().to_string();
    assert!(error.contains("conv2.weight") && error.contains("at most 536870912 values"), "{error}");
}

fn front_ends() {
    let samples = tone();
    sweep("stft", &LogMelConfig::PANNS_8K.stft, |config: &StftConfig| {
        outcome(Stft::new(config).and_then(|stft| stft.power(&samples)))
    });
    sweep("mel", &LogMelConfig::PANNS_8K.mel, |config: &MelConfig| {
        outcome(MelFilterBank::new(config, 8_000, 256).map(|bank| bank.to_array()))
    });
    for config in [LogMelConfig::PANNS_8K, LogMelConfig::LIBROSA_22K, LogMelConfig::TORCHAUDIO_16K] {
        sweep("log-mel", &config, |config| outcome(LogMel::new(config).and_then(|mel| mel.compute(&samples))));
    }
    for config in [FbankConfig::KALDI_16K, FbankConfig { snip_edges: false, ..FbankConfig::SEAMLESS_M4T_16K }] {
        sweep("fbank", &config, |config| {
            outcome(clipwise::frontend::Fbank::new(config).and_then(|fbank| fbank.compute(&samples)))
        });
    }
    for config in [MfccConfig::KALDI_16K, MfccConfig::LIBROSA_22K] {
        sweep("mfcc", &config, |config| outcome(Mfcc::new(config).and_then(|mfcc| mfcc.compute(&samples))));
    }
    for config in [
        FeaturesConfig::MFCC_39,
        FeaturesConfig { deltas: None, normalize: Some(Normalize::SEAMLESS_M4T), ..FeaturesConfig::LOG_MEL_64 },
    ] {
        sweep("features", &config, |config| outcome(Features::new(config).and_then(|f| f.compute(&samples))));
    }
    sweep("whisper's front end", &WhisperMelConfig { max_frames: 100, ..WhisperMelConfig::MELS_80 }, |config| {
        outcome(WhisperMel::new(config).and_then(|mel| mel.compute_padded(&samples)))
    });
    sweep("seamless", &SeamlessM4tConfig::SEAMLESS_M4T_16K, |config| {
        outcome(SeamlessM4t::new(config).and_then(|front_end| front_end.compute(&samples)))
    });
}

fn windows_and_events() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/m5-spoken-digits");
    let tagger = Tagger::open(weights, &Device::Cpu).unwrap();
    let clip = Waveform::new(tone().repeat(3), 8_000);
    for (pad_last, framewise) in [(false, false), (true, false), (false, true), (true, true)] {
        let config = WindowConfig { length: 2.0, hop: 0.5, pad_last, framewise, ..WindowConfig::default() };
        let (_, n_worked) = sweep("windows", &config, |config| {
            outcome(
                tagger
                    .windows(clip.clone(), config)
                    .and_then(|windows| windows.take(50).collect::<clipwise::Result<Vec<_>>>()),
            )
        });
        assert!(n_worked > 0);
    }
    // 6.4 GB of zeros.
    for length in [1e5, 1e4] {
        let config = WindowConfig { length, hop: 1.0, pad_last: true, ..WindowConfig::default() };
        let error = tagger.windows(clip.clone(), &config).map(drop).unwrap_err().to_string();
        assert!(error.contains("with pad_last"), "{error}");
        assert!(tagger.stream(8_000, &config).is_err());
        let config = WindowConfig { pad_last: false, ..config };
        let windows = bounded("a long window", 100, 10, || tagger.windows(clip.clone(), &config).unwrap().count());
        assert_eq!(windows, 1);
    }
    for rate in [0, 1, 1_000_000_000, u32::MAX] {
        bounded("a stream", 100, 10, || outcome(tagger.stream(rate, &WindowConfig::default()))).ok();
    }
    let labels: LabelSet = ["a", "b"].into_iter().collect();
    let config = EventConfig { smoothing: Smoothing::Median(3), ..EventConfig::default() };
    sweep("events", &config, |config| {
        outcome(EventDetector::new(config, &labels).and_then(|mut detector| {
            (0..10).try_for_each(|i| {
                let start = f64::from(i);
                detector.push_segment(start, start + 1.0, &[0.5, 0.1]).map(drop)
            })?;
            Ok(detector.finish())
        }))
    });
}

fn augmentation() {
    sweep("spec augment", &SpecAugment::PANNS, |config| {
        outcome(config.apply(&mut Array2::ones((20, 8)), &mut Random::new(1)))
    });
    sweep("mixup", &Mixup::PANNS, |config| outcome(config.plan(4, &mut Random::new(1))));
}

#[test]
fn configurations_take_bounded_memory_and_time() {
    let begun = Instant::now();
    small_folders_that_ask_for_much();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    match peak() {
        Some(peak) => {
            eprintln!("{} MB at most for folders that ask for much, in {:?}", peak >> 20, begun.elapsed());
            assert!(peak < 100 << 20, "{peak} bytes");
        }
        None => eprintln!("skipped: this system does not report peak memory"),
    }
    bounded("a deep model", 50, 5, deep_models_without_tensors);
    bounded("shared storages", 50, 5, one_storage_for_all_tensors);
    models();
    speech();
    untrained();
    front_ends();
    windows_and_events();
    augmentation();
}
