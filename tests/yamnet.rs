//! YAMNet against Keras' layers and the TensorFlow Lite runtime.

mod common;

use candle_core::{Device, Tensor};
use clipwise::models::YamNet;
use clipwise::models::yamnet::Config;
use clipwise::{Detail, LabelSet, ModelConfig, Tagger, TaggingModel, Waveform, WaveformBatch, Weights};
use common::{assert_close, golden, hashed, real, signal, values};

const SEED: u64 = 43;
const LENGTHS: [usize; 3] = [15_600, 15_601, 40_000];
const CHANNELS: [usize; 14] = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024];

/// The tensors of golden/yamnet.py under a prefix, with the given name of the last layer.
fn weights(prefix: &str, dense: &str) -> Weights {
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize], limit: f64| {
        let values = hashed(&name, shape.iter().product(), -limit, limit, SEED);
        let name = format!("{prefix}{}", name.replace("dense", dense));
        tensors.push((name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap()));
    };
    let mut conv = |name: String, shape: [usize; 4]| {
        let fan_in = (shape[1] * shape[2] * shape[3]) as f64;
        add(format!("{name}.weight"), &shape, (6.0 / fan_in).sqrt());
        add(format!("{name}.bias"), &shape[..1], 0.05);
    };
    conv("00.conv".to_string(), [CHANNELS[0], 1, 3, 3]);
    for i in 0..13 {
        conv(format!("{:02}.depthwise", 2 * i + 1), [CHANNELS[i], 1, 3, 3]);
        conv(format!("{:02}.conv", 2 * i + 2), [CHANNELS[i + 1], CHANNELS[i], 1, 1]);
    }
    add("dense.weight".to_string(), &[521, 1024], (3.0f64 / 1024.0).sqrt());
    add("dense.bias".to_string(), &[521], 0.05);
    Weights::from_tensors(tensors).unwrap()
}

fn model() -> YamNet {
    YamNet::load(&Config::YAMNET, &weights("", "dense"), &Device::Cpu).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 16_000, 3)).collect(), 16_000).unwrap()
}

fn every(n: usize, values: Vec<f32>) -> Vec<f32> {
    values.into_iter().step_by(n).collect()
}

#[test]
fn every_stage_equals_keras() {
    let (model, golden) = (model(), golden("yamnet.safetensors"));
    for n in LENGTHS {
        let expected = |key: &str| golden.to_vec(&format!("{n}.{key}")).unwrap();
        let output = model.forward(&batch(&[n]), Detail::Frames).unwrap();
        let scores = every(3, values(&output.clipwise_output));
        assert_close(&format!("{n} scores"), &scores, &expected("clipwise_output"), 1e-5, 0.0);
        let embedding = every(5, values(&output.embedding));
        assert_close(&format!("{n} embedding"), &embedding, &expected("embedding"), 2e-5, 1e-5);
        let frames = values(output.framewise_output.as_ref().unwrap());
        let n_patches = 1 + (n - 15_600).div_ceil(7680);
        assert_eq!(frames.len(), n_patches * 521);
        let frames: Vec<f32> = frames.chunks(521).flat_map(|row| row.iter().step_by(16).copied()).collect();
        assert_close(&format!("{n} frames"), &frames, &expected("frames"), 1e-5, 0.0);
        let mut samples = signal(n, 16_000, 3);
        samples.resize(15_600 + (n_patches - 1) * 7680, 0.0);
        let log_mel = every(41, model.fbank().compute(&samples).unwrap().into_iter().collect());
        assert_close(&format!("{n} log-mel"), &log_mel, &expected("log_mel"), 1e-5, 0.0);
        if n != LENGTHS[0] {
            continue;
        }
        let log_mel = model.fbank().compute(&samples).unwrap();
        let log_mel = Tensor::from_iter(log_mel, &Device::Cpu).unwrap().reshape((1, 1, 96, 64)).unwrap();
        let observe = |layer: usize, x: &dyn Fn() -> clipwise::Result<Tensor>| {
            if let Some((_, step)) = [(0, 101), (6, 61), (12, 31), (26, 7)].iter().find(|(at, _)| *at == layer) {
                let name = format!("{layer:02}.conv");
                assert_close(&name, &every(*step, values(&x()?)), &expected(&name), 2e-5, 1e-5);
            }
            Ok(())
        };
        model.convs_observed(&log_mel, observe).unwrap();
    }
}

#[test]
fn rows_short_clips_and_frames_equal_those_of_the_clip_alone() {
    let model = model();
    let lengths = [16_000, 100, 15_600, 47_123, 16_000, 1];
    let together = model.forward(&batch(&lengths), Detail::Frames).unwrap();
    for (row, n) in lengths.into_iter().enumerate() {
        let alone = model.forward(&batch(&[n]), Detail::Frames).unwrap();
        assert_eq!(values(&together.clipwise_output.get(row).unwrap()), values(&alone.clipwise_output), "{n}");
        let frames = values(&alone.framewise_output.unwrap());
        assert_eq!(values(&together.framewise_output.as_ref().unwrap().get(row).unwrap())[..frames.len()], frames[..]);
    }
    let mut padded = signal(100, 16_000, 3);
    padded.resize(15_600, 0.0);
    let padded = WaveformBatch::new(vec![padded], 16_000).unwrap();
    let short = values(&model.forward(&batch(&[100]), Detail::Clip).unwrap().embedding);
    assert_eq!(values(&model.forward(&padded, Detail::Clip).unwrap().embedding), short);
    // A long clip, whose patches are computed in several passes.
    let long = model.forward(&batch(&[15_600 + 70 * 7680]), Detail::Frames).unwrap();
    assert_eq!(long.framewise_output.unwrap().dims(), [1, 71, 521]);
}

#[test]
fn checkpoints_are_detected_in_both_layouts_and_below_a_prefix() {
    let expected = values(&model().forward(&batch(&[16_000]), Detail::Clip).unwrap().clipwise_output);
    for (prefix, dense) in [("", "dense"), ("", "03.fully_connected"), ("net.", "dense")] {
        let weights = weights(prefix, dense);
        let detected = clipwise::models::detect(&weights).unwrap();
        assert_eq!(detected.config, ModelConfig::from(Config::YAMNET));
        let model = detected.config.load(&weights, &Device::Cpu).unwrap();
        assert_eq!(values(&model.forward(&batch(&[16_000]), Detail::Clip).unwrap().clipwise_output), expected);
        assert_eq!(model.info().labels, Some(LabelSet::yamnet()));
    }
    let labels = LabelSet::yamnet();
    assert_eq!(
        (labels.len(), labels.index_of("Speech"), labels.index_of("Field recording")),
        (521, Some(0), Some(520))
    );
}

#[test]
fn the_published_file_equals_its_runtime_and_an_evaluation_in_f32() {
    let (Some(file), Some(audio)) = (real("real/yamnet/yamnet.tflite"), real("audio")) else { return };
    let tagger = Tagger::open(&file, &Device::Cpu).unwrap();
    let golden = golden("yamnet.safetensors");
    for (clip, best) in [("R9_ZSCveAHg_7s", "Speech"), ("jfk", "Speech")] {
        let clip_16k = Waveform::open(audio.join(format!("{clip}.wav"))).unwrap();
        let mut samples = clip_16k.samples;
        if clip_16k.sample_rate == 32_000 {
            samples = samples.as_chunks::<2>().0.iter().map(|[a, b]| (a + b) / 2.0).collect();
        }
        samples.truncate((samples.len() - 15_600) / 7680 * 7680 + 15_600);
        let tagging = tagger.tag(&Waveform::new(samples, 16_000)).unwrap();
        assert_eq!(tagging.top_k(1)[0].label, best);
        let expected = |key: &str| golden.to_vec(&format!("{clip}.{key}")).unwrap();
        assert_close(clip, &tagging.scores, &expected("scores"), 1e-5, 0.0);
        // The runtime rounds activations to 8 bits: it differs from an f32 evaluation by 0.0226 on the first clip,
        // 0.0104 on the second.
        assert_close(clip, &tagging.scores, &expected("runtime"), 0.023, 0.0);
        assert_close(clip, &every(5, tagging.embedding().to_vec()), &expected("embedding"), 2e-5, 1e-5);
    }
}
