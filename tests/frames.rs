//! Frame-level results against the reference: decision-level CNN14s, and frames of clip-level models.

mod common;

use candle_core::{Device, Tensor};
use clipwise::models::{FrameGrid, OutputActivation, cnn14, leenet, m5};
use clipwise::{Detail, Error, TaggingModel, Waveform, WaveformBatch};
use common::{Hashed, Kind, assert_close, cnn14_tensors, golden, leenet_tensors, m5_tensors, shipped, signal, values};

const CHANNELS: [usize; 6] = [4, 8, 8, 12, 16, 24];
const LENGTHS: [usize; 2] = [31 * 320, 137 * 320 + 7];

fn narrow(preset: cnn14::Config) -> cnn14::Cnn14 {
    let config = cnn14::Config { channels: CHANNELS, embedding_dim: 20, n_classes: 11, ..preset };
    let hashed = cnn14_tensors(CHANNELS, 20, 11, 20);
    if config.decision == cnn14::Decision::Att {
        let tensors = hashed.tensors().into_iter().filter(|(name, _)| !name.starts_with("fc_audioset"));
        let mut block = Hashed::new(20);
        for layer in ["att", "cla"] {
            block.tensor(&format!("att_block.{layer}.weight"), &[11, 20, 1], Kind::Conv);
            block.tensor(&format!("att_block.{layer}.bias"), &[11], Kind::Conv);
        }
        block.norm("att_block.bn_att", 11);
        let all = tensors.chain(block.tensors()).collect::<Vec<_>>();
        return cnn14::Cnn14::load(&config, &clipwise::Weights::from_tensors(all).unwrap(), &Device::Cpu).unwrap();
    }
    cnn14::Cnn14::load(&config, &hashed.weights(), &Device::Cpu).unwrap()
}

fn clip(n: usize) -> WaveformBatch {
    WaveformBatch::new(vec![signal(n, 32_000, 5)], 32_000).unwrap()
}

#[test]
fn decision_level_models_equal_the_reference() {
    let expected = golden("decision.safetensors");
    for (way, preset) in [
        ("max", cnn14::Config::DECISION_MAX),
        ("avg", cnn14::Config::DECISION_AVG),
        ("att", cnn14::Config::DECISION_ATT),
    ] {
        let model = narrow(preset);
        assert_eq!(model.info().name, format!("cnn14-decision-{way}"));
        for n in LENGTHS {
            let output = model.forward(&clip(n), Detail::Clip).unwrap();
            let expected = |name: &str| expected.to_vec(&format!("{way}.{n}.{name}")).unwrap();
            let what = format!("{way} {n}");
            let frames = output.framewise_output.as_ref().unwrap();
            assert_eq!(frames.dims(), [1, n / 320 + 1, 11], "{what}");
            assert_close(&format!("{what} frames"), &values(frames), &expected("framewise_output"), 1e-5, 0.0);
            let clipwise = values(&output.clipwise_output);
            assert_close(&format!("{what} clipwise"), &clipwise, &expected("clipwise_output"), 1e-5, 0.0);
            assert_close(&format!("{what} embedding"), &values(&output.embedding), &expected("embedding"), 1e-4, 0.0);
            let of_logits: Vec<f32> = values(&output.logits).iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
            assert_close(&format!("{what} logits"), &of_logits, &clipwise, 1e-6, 0.0);
        }
    }
}

#[test]
fn frames_of_clip_level_models_equal_the_reference() {
    let expected = golden("decision.safetensors");
    let model = narrow(cnn14::Config::AUDIOSET_32K);
    assert_eq!(model.info().frames, Some(FrameGrid { first: 0, step: 320 }));
    for n in LENGTHS {
        let output = model.forward(&clip(n), Detail::Frames).unwrap();
        let frames = output.framewise_output.unwrap();
        assert_eq!(frames.dims(), [1, n / 320 + 1, 11]);
        let expected = expected.to_vec(&format!("cnn14.{n}.framewise_output")).unwrap();
        assert_close(&format!("cnn14 {n}"), &values(&frames), &expected, 1e-5, 0.0);
        let plain = model.forward(&clip(n), Detail::Clip).unwrap();
        assert!(plain.framewise_output.is_none());
        assert_eq!(values(&plain.logits), values(&output.logits));
        if n == LENGTHS[0] {
            // With one segment, every frame equals the clip's result.
            let clipwise = values(&plain.clipwise_output).repeat(32);
            assert_close("one segment", &values(&frames), &clipwise, 1e-6, 0.0);
        }
    }
    for (name, config, step) in
        [("leenet11", leenet::Config::LEENET11, 19_683), ("leenet24", leenet::Config::LEENET24, 6_561)]
    {
        let config = leenet::Config { n_classes: 11, ..config };
        let weights = leenet_tensors(&config, 20).weights();
        let model = leenet::LeeNet::load(&config, &weights, &Device::Cpu).unwrap();
        assert_eq!(model.info().frames, Some(FrameGrid { first: 0, step }));
        for n in [700, 60_001] {
            let frames = model.forward(&clip(n), Detail::Frames).unwrap().framewise_output.unwrap();
            assert_eq!(frames.dim(1).unwrap(), n.div_ceil(step), "{name}");
            let expected = expected.to_vec(&format!("{name}.{n}.framewise_output")).unwrap();
            assert_close(&format!("{name} {n}"), &values(&frames), &expected, 1e-5, 0.0);
        }
    }
}

#[test]
fn frames_of_m5_are_its_last_layer_applied_to_each_step() {
    let config = m5::Config { n_classes: 7, ..m5::Config::M5 };
    let model = m5::M5::load(&config, &m5_tensors(&config, 3).weights(), &Device::Cpu).unwrap();
    // A frame sees 6,848 samples; frames are 4,096 samples apart.
    assert_eq!(model.info().frames, Some(FrameGrid { first: 1376, step: 4096 }));
    let samples = signal(30_000, 8_000, 4);
    let x = Tensor::from_slice(&samples, (1, 1, 30_000), &Device::Cpu).unwrap();
    let (_, map) = model.stages(&x).unwrap().pop().unwrap(); // [1, 64, n_frames]
    let frames =
        model.forward(&WaveformBatch::new(vec![samples], 8_000).unwrap(), Detail::Frames).unwrap().framewise_output;
    let frames = frames.unwrap();
    let n_frames = map.dim(2).unwrap();
    assert_eq!(frames.dims(), [1, n_frames, 7]);
    let tensors = m5_tensors(&config, 3).weights();
    let (weight, bias) = (tensors.to_vec("fc1.weight").unwrap(), tensors.to_vec("fc1.bias").unwrap());
    let map = values(&map);
    for (frame, got) in values(&frames).chunks(7).enumerate() {
        let logit = |class: usize| {
            let row = &weight[class * 64..][..64];
            let sum: f64 = (0..64).map(|i| f64::from(row[i]) * f64::from(map[i * n_frames + frame])).sum();
            (sum + f64::from(bias[class])).exp()
        };
        let sum: f64 = (0..7).map(logit).sum();
        let expected: Vec<f32> = (0..7).map(|class| (logit(class) / sum) as f32).collect();
        assert_close(&format!("frame {frame}"), got, &expected, 1e-5, 0.0);
    }
}

#[test]
fn requesting_frames_from_a_model_without_them_is_an_error() {
    let tagger = shipped("ced-tiny");
    let clip = Waveform::new(vec![0.1; 16_000], 16_000);
    assert!(tagger.model().info().frames.is_none());
    let error = tagger.model().forward(&WaveformBatch::from(&clip), Detail::Frames).unwrap_err();
    assert!(
        matches!(error, Error::Argument { name: "detail", .. }) && error.to_string().contains("ced-tiny"),
        "{error}"
    );
    let config = cnn14::Config { head: OutputActivation::Softmax, ..cnn14::Config::DECISION_MAX };
    let weights = cnn14_tensors(CHANNELS, 20, 11, 20).weights();
    assert!(matches!(cnn14::Cnn14::load(&config, &weights, &Device::Cpu), Err(Error::Config { field: "head", .. })));
}

#[test]
fn classify_equals_the_output_of_the_model() {
    let cnn14 = narrow(cnn14::Config::AUDIOSET_32K);
    let ced = shipped("ced-tiny").into_model();
    let leenet = leenet::Config { channels: [8; 9], embedding_dim: 12, n_classes: 5, ..leenet::Config::LEENET11 };
    let leenet = leenet::LeeNet::load(&leenet, &leenet_tensors(&leenet, 1).weights(), &Device::Cpu).unwrap();
    for model in [&cnn14 as &dyn TaggingModel, &ced, &leenet] {
        let rate = model.info().sample_rate;
        let rows = vec![signal(20_000, rate, 1), signal(30_000, rate, 2)];
        let output = model.forward(&WaveformBatch::new(rows, rate).unwrap(), Detail::Clip).unwrap();
        let again = model.classify(&output.embedding).unwrap();
        assert_close(&model.info().name, &values(&again.logits), &values(&output.logits), 1e-6, 0.0);
    }
    let of_segments = narrow(cnn14::Config::DECISION_MAX);
    let embedding = of_segments.forward(&clip(LENGTHS[0]), Detail::Clip).unwrap().embedding;
    assert!(matches!(of_segments.classify(&embedding), Err(Error::Argument { name: "embedding", .. })));
}
