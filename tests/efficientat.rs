//! EfficientAT's MobileNets and the frame-wise ones against their references' classes: batches, short clips and frames.

mod common;

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use clipwise::frontend::{LogMel, LogMelConfig};
use clipwise::models::efficientat::{Block, Config, Head};
use clipwise::models::{MobileNet, detect};
use clipwise::{
    Assumption, Detail, Error, LabelSet, ModelConfig, Tagger, TaggingModel, Waveform, WaveformBatch, Weights,
};
use common::{Hashed, Kind, assert_close, complete, golden, hashed, real, signal, values};

const SEED: u64 = 29;
const LENGTHS: [usize; 3] = [514, 33 * 320 + 7, 39_584];
const EVERY: usize = 11;

fn narrow(head: Head) -> Config {
    Config { head, n_classes: 11, ..Config::MN01 }
}

/// The blocks of MN01 with the strides of another network.
fn stepped(other: Config) -> Cow<'static, [Block]> {
    let mut blocks = Config::MN01.blocks.to_vec();
    blocks.iter_mut().zip(other.blocks.iter()).for_each(|(block, other)| block.stride = other.stride);
    blocks.into()
}

fn convolutional() -> Config {
    Config { blocks: stepped(Config::MN10_FC_S2211), ..narrow(Head::FullyConvolutional) }
}

/// The DyMN blocks at width 0.1, where `is_dynamic` returns true.
fn dynamic(is_dynamic: impl Fn(usize) -> bool) -> Config {
    let mut blocks = Config::MN01.blocks.to_vec();
    for (i, block) in blocks.iter_mut().enumerate() {
        block.squeezed = 0;
        if is_dynamic(i) {
            // A quarter of the expanded channels, at least 8 and at most an eighth of 128.
            block.context = (block.expanded / 4 + 4) / 8 * 8;
            block.context = block.context.clamp(8, 16);
        }
    }
    Config { blocks: blocks.into(), ..narrow(Config::MN01.head) }
}

fn frame_wise() -> Config {
    let log_mel = LogMelConfig::EFFICIENT_SED_16K;
    Config { blocks: stepped(Config::FRAME_MN10), log_mel, ..narrow(Head::Frames) }
}

fn tensor(name: &str, shape: &[usize]) -> (String, Tensor) {
    let layer = name.rsplit('.').nth(1).unwrap();
    let given = |values: Vec<f32>| (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
    match name.rsplit('.').next().unwrap() {
        "head_weight" => return given(hashed(name, 3, 0.1, 0.6, SEED)),
        "weight" if shape.starts_with(&[1, 1, 4]) => {
            let high = if layer == "depth_conv" { 0.8 } else { 0.4 };
            return given(hashed(name, 4 * shape[3], -high, high, SEED));
        }
        _ => {}
    }
    let kind = match shape.len() {
        4 => Kind::Conv,
        _ if layer == "1" || layer.ends_with("norm") => Kind::Norm,
        _ => Kind::Linear,
    };
    let mut one = Hashed::new(SEED);
    one.tensor(name, shape, kind);
    one.tensors().pop().unwrap()
}

fn tensors(config: &Config) -> Vec<(String, Tensor)> {
    complete(Vec::new(), |weights| MobileNet::load(config, weights, &Device::Cpu), tensor)
}

fn weights(config: &Config) -> Weights {
    Weights::from_tensors(tensors(config)).unwrap()
}

fn load(config: &Config) -> MobileNet {
    MobileNet::load(config, &weights(config), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize], sample_rate: u32) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, sample_rate, 3)).collect(), sample_rate).unwrap()
}

fn every(values: &[f32]) -> Vec<f32> {
    values.iter().copied().step_by(EVERY).collect()
}

#[test]
fn the_front_ends_equal_the_references() {
    let golden = golden("efficientat.safetensors");
    for config in [LogMelConfig::EFFICIENT_AT_32K, LogMelConfig::EFFICIENT_SED_16K] {
        let features = LogMel::new(&config).unwrap().compute(&signal(LENGTHS[1], config.sample_rate, 3)).unwrap();
        let expected = golden.to_vec(&format!("mel.{}", config.sample_rate)).unwrap();
        // The features are a fifth of a logarithm, which the reference computes in f32; its rounding shows in nearly
        // silent bins.
        let tolerance = if config.sample_rate == 32_000 { 2e-5 } else { 1e-4 };
        assert_close("log-mel", &every(features.as_slice().unwrap()), &expected, tolerance, 0.0);
    }
}

#[test]
fn every_head_and_stage_equals_the_reference() {
    let golden = golden("efficientat.safetensors");
    for (name, config) in [
        ("mlp", narrow(Config::MN01.head)),
        ("convolutional", convolutional()),
        ("attention", narrow(Head::AttentionPooling(3))),
        ("dynamic", dynamic(|_| true)),
        ("mixed", dynamic(|block| (3..6).contains(&block) || block >= 10)),
    ] {
        let model = load(&config);
        for n in LENGTHS {
            if golden.shape(&format!("{name}.{n}.logits")).is_none() {
                continue;
            }
            let output = model.forward(&batch(&[n], 32_000), Detail::Clip).unwrap();
            for (key, got) in [("logits", &output.logits), ("embedding", &output.embedding)] {
                let expected = golden.to_vec(&format!("{name}.{n}.{key}")).unwrap();
                let largest = expected.iter().fold(1.0f32, |largest, x| largest.max(x.abs()));
                assert_close(&format!("{name} {n} {key}"), &values(got), &expected, 1e-5 * largest, 0.0);
            }
            let stages = [("mlp", "stage", EVERY), ("dynamic", "dynamic.stage", 3 * EVERY)];
            let stages = stages.into_iter().find(|(stages, ..)| (*stages, LENGTHS[1]) == (name, n));
            if let Some((_, key, every)) = stages {
                let mut n_stages = 0;
                let observe = |stage: usize, x: &dyn Fn() -> clipwise::Result<Tensor>| {
                    // The reference has mel before time.
                    let x: Vec<f32> = values(&x()?.transpose(2, 3).unwrap()).into_iter().step_by(every).collect();
                    let expected = golden.to_vec(&format!("{key}.{stage}")).unwrap();
                    let largest = expected.iter().fold(1.0f32, |largest, x| largest.max(x.abs()));
                    assert_close(&format!("{key} {stage}"), &x, &expected, 1e-5 * largest, 0.0);
                    n_stages += 1;
                    Ok(())
                };
                let features = model.log_mel().compute(&signal(n, 32_000, 3)).unwrap();
                let (rows, columns) = features.dim();
                let features = Tensor::from_vec(features.into_raw_vec_and_offset().0, (1, rows, columns), &Device::Cpu);
                model.forward_observed(&features.unwrap(), Detail::Clip, observe).unwrap();
                assert_eq!(n_stages, 17);
            }
        }
    }
}

#[test]
fn frame_wise_networks_equal_the_reference() {
    let golden = golden("efficientat.safetensors");
    let model = load(&frame_wise());
    for n in LENGTHS {
        let output = model.forward(&batch(&[n], 16_000), Detail::Frames).unwrap();
        let logits = golden.to_vec(&format!("frames.{n}")).unwrap();
        let scores: Vec<f32> = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
        // With these weights, logits reach 93.
        let tolerance = 1e-6 * logits.iter().fold(10.0f32, |largest, x| largest.max(x.abs()));
        assert_close(&format!("{n}"), &values(&output.framewise_output.unwrap()), &scores, tolerance, 0.0);
        let largest = |class: usize| scores.iter().skip(class).step_by(11).fold(0.0f32, |a, &b| a.max(b));
        let clip: Vec<f32> = (0..11).map(largest).collect();
        assert_close(&format!("{n}"), &values(&output.clipwise_output), &clip, tolerance, 0.0);
    }
    let frames = model.info().frames.unwrap();
    assert_eq!((frames.first, frames.step), (0, 640)); // 40 ms
    let ten_seconds = model.forward(&batch(&[160_000], 16_000), Detail::Frames).unwrap();
    assert_eq!(ten_seconds.framewise_output.unwrap().dims(), [1, 250, 11]);
}

#[test]
fn rows_and_their_frames_equal_those_of_the_clip_alone() {
    let taggers = [narrow(Config::MN01.head), convolutional(), narrow(Head::AttentionPooling(3)), dynamic(|_| true)];
    for config in taggers.into_iter().chain([frame_wise()]) {
        let model = load(&config);
        let (rate, shortest) = (model.info().sample_rate, model.info().min_samples);
        assert_eq!(shortest, if rate == 32_000 { 514 } else { 258 });
        let lengths = [20_000, 1, shortest - 1, shortest, 20_000, 33_333];
        let together = model.forward(&batch(&lengths, rate), Detail::Frames).unwrap();
        let clip_only = model.forward(&batch(&lengths, rate), Detail::Clip).unwrap();
        assert_eq!(values(&together.logits), values(&clip_only.logits));
        for (row, n) in lengths.into_iter().enumerate() {
            let alone = model.forward(&batch(&[n], rate), Detail::Frames).unwrap();
            let row_of = |x: &Tensor| values(&x.get(row).unwrap());
            assert_eq!(row_of(&together.logits), values(&alone.logits), "{n}");
            assert_eq!(row_of(&together.embedding), values(&alone.embedding), "{n}");
            let frames = values(&alone.framewise_output.unwrap());
            let n_frames = model.log_mel().n_frames(n.max(shortest));
            let per_frame = model.info().frames.unwrap().step / config.log_mel.stft.hop_length;
            assert_eq!(frames.len(), n_frames.div_ceil(per_frame) * 11, "{n}");
            assert_eq!(row_of(together.framewise_output.as_ref().unwrap())[..frames.len()], frames, "{n}");
        }
        let decided = model.classify(&together.embedding);
        match config.head {
            Head::Mlp(_) | Head::FullyConvolutional => {
                assert_close("classify", &values(&decided.unwrap().logits), &values(&together.logits), 1e-4, 1e-5);
            }
            _ => assert!(matches!(decided, Err(Error::Argument { name: "embedding", .. }))),
        }
        let none = Tensor::zeros((1, 0, 128), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(model.forward_features(&none, Detail::Clip), Err(Error::TooShort { needed: 1, got: 0 })));
    }
}

#[test]
fn checkpoints_are_detected() {
    for (config, name) in [
        (Config { n_classes: 50, ..Config::MN04 }, "mn04"),
        (narrow(Head::AttentionPooling(3)), "mn"),
        (Config::DYMN04, "dymn04"),
        (dynamic(|block| block > 4), "dymn"),
        (Config { n_classes: 9, ..Config::FRAME_MN06 }, "frame_mn06"),
    ] {
        let tensors = tensors(&config);
        let expected = Config { name: Cow::Borrowed(name), ..config };
        let detected = detect(&Weights::from_tensors(tensors.clone()).unwrap()).unwrap();
        assert_eq!(detected.config, ModelConfig::MobileNet(expected.clone()));
        // Below a prefix beside another tensor, and with EfficientSED's names.
        let other = ("loss.weight".to_string(), Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap());
        let renamed = |(name, tensor): (String, Tensor)| (format!("net.{}", name.replace("frame_mn.", "")), tensor);
        let prefixed = Weights::from_tensors(tensors.into_iter().map(renamed).chain([other])).unwrap();
        let detected = detect(&prefixed).unwrap();
        assert_eq!((&*detected.place, &detected.config), ("net", &ModelConfig::MobileNet(expected.clone())));
        detected.config.load(&prefixed, &Device::Cpu).unwrap();
        let json = serde_json::to_string(&expected).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), expected);
    }
    let count = |config: &Config| {
        let is_parameter = |(name, _): &(String, Tensor)| !name.contains("running_");
        tensors(config).into_iter().filter(is_parameter).map(|(_, tensor)| tensor.elem_count()).sum::<usize>()
    };
    // Equal to PyTorch's parameter counts of the reference.
    assert_eq!((count(&Config::MN04), count(&Config::MN10)), (983_599, 4_876_831));
    assert_eq!(count(&Config::DYMN04), 1_961_239);
}

#[test]
fn file_names_determine_what_tensors_do_not() {
    let folder = tempfile();
    for (file, expected) in [
        ("mn10_as_hop_5_mAP_475.safetensors", Config::MN10_HOP_5),
        ("mn10_as_mels_40_mAP_453.safetensors", Config::MN10_MELS_40),
        ("mn10_as_fc_s2221_mAP_466.safetensors", Config::MN10_FC_S2221),
        ("mn10_as_mAP_471.safetensors", Config::MN10),
    ] {
        let path = folder.join(file);
        candle_core::safetensors::save(&tensors(&expected).into_iter().collect(), &path).unwrap();
        let detected = detect(&Weights::open(&path).unwrap()).unwrap();
        assert_eq!(detected.config, ModelConfig::MobileNet(expected.clone()), "{file}");
        let named = detected.assumptions.iter().any(|it| matches!(it, Assumption::FileName { .. }));
        assert_eq!(named, expected != Config::MN10, "{file}");
        std::fs::remove_file(path).unwrap();
    }
    std::fs::remove_dir(folder).unwrap();
}

fn tempfile() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("clipwise-efficientat-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn invalid_configurations_are_rejected() {
    let block = Config::MN01.blocks[3];
    let with = |block: Block| Config { blocks: vec![block].into(), ..Config::MN01 };
    for (field, config) in [
        ("stem", Config { stem: 0, ..Config::MN01 }),
        ("blocks", Config { blocks: Vec::new().into(), ..Config::MN01 }),
        ("blocks", Config { blocks: vec![block; 300].into(), ..Config::MN01 }),
        ("kernel", with(Block { kernel: 4, ..block })),
        ("expanded", with(Block { expanded: 1 << 40, ..block })),
        ("squeezed", with(Block { squeezed: usize::MAX, ..block })),
        ("stride", with(Block { stride: [3, 1], ..block })),
        ("stride", Config { blocks: vec![Block { stride: [2, 2], ..block }; 40].into(), ..Config::MN01 }),
        ("head", Config { head: Head::AttentionPooling(0), ..Config::MN01 }),
        ("n_mels", Config { head: Head::Frames, ..Config::MN01 }),
    ] {
        let error = MobileNet::load(&config, &weights(&narrow(Config::MN01.head)), &Device::Cpu).unwrap_err();
        let named =
            matches!(error, Error::Config { field: named, .. } | Error::Argument { name: named, .. } if named == field);
        assert!(named, "{field}: {error}");
    }
}

/// The published mn04 in PyTorch, on real recordings.
#[test]
fn published_weights_give_the_scores_of_the_reference() {
    let (Some(checkpoint), golden) =
        (real("real/efficientat-mn04/mn04_as_mAP_432.pt"), golden("efficientat_mn04.safetensors"))
    else {
        return;
    };
    let tagger = Tagger::open(checkpoint, &Device::Cpu).unwrap();
    assert_eq!((&*tagger.model().info().name, tagger.labels()), ("mn04", &LabelSet::audioset()));
    for name in golden.names() {
        let waveform = Waveform::open(real(&format!("audio/{name}.wav")).unwrap()).unwrap();
        let tagging = tagger.tag(&waveform).unwrap();
        assert_close(name, &tagging.scores, &golden.to_vec(name).unwrap(), 1e-5, 0.0);
    }
    let recording = Waveform::open(real("audio/R9_ZSCveAHg_7s.wav").unwrap()).unwrap();
    assert_eq!(tagger.tag(&recording).unwrap().top_k(1)[0].label, "Speech");
}

/// The bundled small tagger: the published weights, rounded to 8 bits.
#[cfg(feature = "bundled-small")]
#[test]
fn the_bundled_network_is_the_published_one_rounded() {
    let bundled = Tagger::bundled_small(&Device::Cpu).unwrap();
    assert_eq!((&*bundled.model().info().name, bundled.labels()), ("mn04", &LabelSet::audioset()));
    assert!(bundled.assumptions().is_empty());
    let config: ModelConfig = serde_json::from_str(include_str!("../weights/efficientat-mn04/config.json")).unwrap();
    assert_eq!(config, ModelConfig::MobileNet(Config::MN04));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/efficientat-mn04");
    let opened = Tagger::open(folder, &Device::Cpu).unwrap();
    let golden = golden("efficientat_mn04.safetensors");
    for name in golden.names() {
        let Some(path) = real(&format!("audio/{name}.wav")) else { return };
        let waveform = Waveform::open(path).unwrap();
        let tagging = bundled.tag(&waveform).unwrap();
        assert_eq!(tagging, opened.tag(&waveform).unwrap());
        assert_close(name, &tagging.scores, &golden.to_vec(name).unwrap(), 0.03, 0.0);
    }
}
