//! The networks of PANNs (other than CNN14, Cnn6, Cnn10 and the LeeNets), and CNN14 with other mel bins, against the
//! reference's classes: batches, short clips and frames.

mod common;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use clipwise::frontend::LogMel;
use clipwise::models::{
    Cnn14, DaiNet, ModelConfig, PannsMobileNet, Res1dNet, ResNet, Wavegram, cnn14, dainet, detect, panns_mobilenet,
    presets, res1dnet, resnet, wavegram,
};
use clipwise::weights::{Loader, Parameters};
use clipwise::{Detail, Error, TaggingModel, WaveformBatch, Weights};
use common::{assert_close, golden, listed, panns_tensors, signal, values};

const SEED: u64 = 29;

/// A narrow network of `golden/panns.py`.
struct Case {
    name: &'static str,
    /// Start and end of the names of the residual blocks' last norms.
    damped: Option<(&'static str, &'static str)>,
    config: ModelConfig,
    /// Lengths in samples of the clips in the golden file: the shortest, the one with stages, others.
    lengths: &'static [usize],
    /// Samples per frame.
    step: usize,
}

const ON_LOG_MEL: &[usize] = &[31 * 320, 77 * 320 + 7, 39_584];
const ON_BOTH: &[usize] = &[10_236, 40 * 320 + 7, 80 * 320 - 4, 81 * 320 + 7];

fn cases() -> Vec<Case> {
    let resnet = |preset: &resnet::Config| {
        let (channels, first_channels, last_channels) = ([4, 8, 12, 16], 8, 24);
        resnet::Config { channels, first_channels, last_channels, embedding_dim: 20, n_classes: 11, ..preset.clone() }
    };
    let of_resnet = |name, last_norm, config| {
        let damped = Some(("resnet.", last_norm));
        Case { name, damped, config: resnet(config).into(), lengths: ON_LOG_MEL, step: 320 }
    };
    let of_cnn14 = |name, config: &cnn14::Config| {
        let channels = config.channels.map(|channels| channels / 16);
        let config = cnn14::Config { channels, embedding_dim: 20, n_classes: 11, ..config.clone() };
        Case { name, damped: None, config: config.into(), lengths: ON_LOG_MEL, step: 320 }
    };
    let of_mobilenet = |name, config: &panns_mobilenet::Config| {
        let channels = config.channels.iter().map(|channels| channels / 8).collect();
        let config = panns_mobilenet::Config { channels, embedding_dim: 20, n_classes: 11, ..config.clone() };
        Case { name, damped: None, config: config.into(), lengths: ON_LOG_MEL, step: 320 }
    };
    let of_res1dnet = |name, config: &res1dnet::Config| {
        let channels = config.channels.map(|channels| channels / 16);
        let config = res1dnet::Config { channels, embedding_dim: 20, n_classes: 11, ..config.clone() };
        let damped = Some(("resnet.", "bn2.weight"));
        Case { name, damped, config: config.into(), lengths: &[20_476, 39_584, 61_234], step: 20_480 }
    };
    let dainet19 = dainet::Config {
        first_channels: 8,
        channels: [8, 16, 32, 64],
        embedding_dim: 20,
        n_classes: 11,
        ..dainet::Config::DAINET19
    };
    let of_wavegram = |name, config: &wavegram::Config, columns: usize, lengths| {
        let (channels, wave_channels) = ([4, 8, 12, 16, 20, 24], [8, 8, 12, 2 * columns]);
        let config =
            wavegram::Config { channels, wave_channels, maps: 2, embedding_dim: 20, n_classes: 11, ..config.clone() };
        Case { name, damped: None, config: config.into(), lengths, step: 10_240 }
    };
    vec![
        of_resnet("resnet22", "bn2.weight", &resnet::Config::RESNET22),
        of_resnet("resnet38", "bn2.weight", &resnet::Config::RESNET38),
        of_resnet("resnet54", "bn3.weight", &resnet::Config::RESNET54),
        of_cnn14("cnn14-mel32", &cnn14::Config::MEL32),
        of_cnn14("cnn14-mel128", &cnn14::Config::MEL128),
        of_mobilenet("mobilenetv1", &panns_mobilenet::Config::V1),
        of_mobilenet("mobilenetv2", &panns_mobilenet::Config::V2),
        of_res1dnet("res1dnet31", &res1dnet::Config::RES1DNET31),
        of_res1dnet("res1dnet51", &res1dnet::Config::RES1DNET51),
        Case {
            name: "dainet19",
            damped: Some(("conv_block", "bn4.weight")),
            config: dainet19.into(),
            lengths: &[332, 9_999, 39_584],
            step: 256,
        },
        of_wavegram("wavegram-cnn14", &wavegram::Config::CNN14, 32, &[10_236, 39_584, 50_001]),
        of_wavegram("wavegram-logmel-cnn14", &wavegram::Config::LOGMEL_CNN14, 32, ON_BOTH),
        of_wavegram("wavegram-logmel128-cnn14", &wavegram::Config::LOGMEL128_CNN14, 64, ON_BOTH),
    ]
}

impl Case {
    fn weights(&self) -> Weights {
        let load = |weights: &Weights| self.config.load(weights, &Device::Cpu);
        Weights::from_tensors(panns_tensors(SEED, self.damped, load)).unwrap()
    }

    fn load(&self) -> Box<dyn TaggingModel> {
        self.config.load(&self.weights(), &Device::Cpu).unwrap()
    }

    fn build(&self, root: &Loader) -> Box<dyn TaggingModel> {
        match &self.config {
            ModelConfig::Cnn14(config) => Box::new(Cnn14::build(config, root).unwrap()),
            ModelConfig::ResNet(config) => Box::new(ResNet::build(config, root).unwrap()),
            ModelConfig::PannsMobileNet(config) => Box::new(PannsMobileNet::build(config, root).unwrap()),
            ModelConfig::Res1dNet(config) => Box::new(Res1dNet::build(config, root).unwrap()),
            ModelConfig::DaiNet(config) => Box::new(DaiNet::build(config, root).unwrap()),
            ModelConfig::Wavegram(config) => Box::new(Wavegram::build(config, root).unwrap()),
            other => panic!("{}", other.name()),
        }
    }

    /// The values after each stage, for a clip.
    fn stages(&self, samples: &[f32]) -> Vec<Tensor> {
        let (weights, mut stages) = (self.weights(), Vec::new());
        let mut keep = |_: usize, x: &dyn Fn() -> clipwise::Result<Tensor>| {
            stages.push(x()?);
            Ok(())
        };
        let x = Tensor::from_slice(samples, (1, 1, samples.len()), &Device::Cpu).unwrap();
        match &self.config {
            ModelConfig::Res1dNet(config) => {
                let model = Res1dNet::load(config, &weights, &Device::Cpu).unwrap();
                model.forward_observed(&x, Detail::Clip, &mut keep).unwrap();
            }
            ModelConfig::DaiNet(config) => {
                let model = DaiNet::load(config, &weights, &Device::Cpu).unwrap();
                model.forward_observed(&x, Detail::Clip, &mut keep).unwrap();
            }
            ModelConfig::Cnn14(config) => {
                let model = Cnn14::load(config, &weights, &Device::Cpu).unwrap();
                let log_mel = log_mel(model.log_mel(), samples).unsqueeze(1).unwrap();
                let blocks = model.stages(&log_mel).unwrap().into_iter().filter(|(name, _)| name.starts_with("block"));
                return blocks.map(|(_, x)| x).collect();
            }
            ModelConfig::ResNet(config) => {
                let model = ResNet::load(config, &weights, &Device::Cpu).unwrap();
                model.forward_observed(&log_mel(model.log_mel(), samples), Detail::Clip, &mut keep).unwrap();
            }
            ModelConfig::PannsMobileNet(config) => {
                let model = PannsMobileNet::load(config, &weights, &Device::Cpu).unwrap();
                model.forward_observed(&log_mel(model.log_mel(), samples), Detail::Clip, &mut keep).unwrap();
            }
            ModelConfig::Wavegram(config) => {
                let model = Wavegram::load(config, &weights, &Device::Cpu).unwrap();
                model.forward_observed(&[samples], Detail::Clip, &mut keep).unwrap();
            }
            other => panic!("{}", other.name()),
        }
        stages
    }
}

fn log_mel(front_end: &LogMel, samples: &[f32]) -> Tensor {
    let log_mel = front_end.compute(samples).unwrap();
    let shape = (1, log_mel.nrows(), log_mel.ncols());
    Tensor::from_iter(log_mel, &Device::Cpu).unwrap().reshape(shape).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 32_000, 3)).collect(), 32_000).unwrap()
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

#[test]
fn every_stage_equals_the_reference() {
    for case in cases() {
        let (name, golden, model) = (case.name, golden(&format!("panns_{}.safetensors", case.name)), case.load());
        for &n in case.lengths {
            let expected = |key: &str| golden.to_vec(&format!("{n}.{key}")).unwrap();
            let output = model.forward(&batch(&[n]), Detail::Clip).unwrap();
            let embedding = expected("embedding");
            let what = format!("{name} {n} scores");
            assert_close(&what, &values(&output.clipwise_output), &expected("clipwise_output"), 1e-5, 0.0);
            let what = format!("{name} {n} embedding");
            assert_close(&what, &values(&output.embedding), &embedding, 1e-5 * largest(&embedding), 0.0);
        }
        // `24647.stage1.1x16x39x32.40`: clip, stage, shape, and the step between the stored values.
        let n = case.lengths[1];
        let keys: Vec<&str> = golden.names().filter(|key| key.contains("stage")).collect();
        let stages = case.stages(&signal(n, 32_000, 3));
        assert_eq!(stages.len(), keys.len(), "{name}");
        for (i, stage) in stages.iter().enumerate() {
            let key = keys.iter().find(|key| key.starts_with(&format!("{n}.stage{i}."))).unwrap();
            let mut parts = key.split('.').skip(2);
            let shape: Vec<usize> = parts.next().unwrap().split('x').map(|size| size.parse().unwrap()).collect();
            let every = parts.next().unwrap().parse().unwrap();
            assert_eq!(stage.dims(), shape, "{name} {key}");
            let got: Vec<f32> = values(stage).into_iter().step_by(every).collect();
            let expected = golden.to_vec(key).unwrap();
            assert_close(&format!("{name} {key}"), &got, &expected, 1e-4 * largest(&expected), 0.0);
        }
    }
}

#[test]
fn rows_equal_clips_alone_and_short_clips_their_padded_form() {
    for case in cases() {
        let (name, model) = (case.name, case.load());
        let shortest = model.info().min_samples;
        assert_eq!(shortest, case.lengths[0], "{name}");
        let frames = model.info().frames.unwrap();
        assert_eq!(frames.step, case.step, "{name}");
        let lengths = [2 * shortest + 77, 1, shortest - 1, shortest, 2 * shortest + 77, 3 * shortest + 1];
        let together = model.forward(&batch(&lengths), Detail::Frames).unwrap();
        for (row, n) in lengths.into_iter().enumerate() {
            let alone = model.forward(&batch(&[n]), Detail::Frames).unwrap();
            let row_of = |x: &Tensor| values(&x.get(row).unwrap());
            assert_eq!(row_of(&together.logits), values(&alone.logits), "{name} {n}");
            assert_eq!(row_of(&together.embedding), values(&alone.embedding), "{name} {n}");
            let frames = values(&alone.framewise_output.unwrap());
            assert_eq!(row_of(together.framewise_output.as_ref().unwrap())[..frames.len()], frames, "{name} {n}");
            let classified = model.classify(&alone.embedding).unwrap();
            assert_eq!(values(&classified.logits), values(&alone.logits), "{name} {n}");
        }
        let clip = signal(shortest - 1, 32_000, 3);
        let padded = clip.iter().copied().chain([0.0]).collect();
        let forward = |clip| model.forward(&WaveformBatch::new(vec![clip], 32_000).unwrap(), Detail::Clip).unwrap();
        assert_eq!(values(&forward(clip).logits), values(&forward(padded).logits), "{name}");
        // A clip of one step has that step's result in each frame.
        let shortest = model.forward(&batch(&[shortest]), Detail::Frames).unwrap();
        let (clip, frames) = (values(&shortest.clipwise_output), values(&shortest.framewise_output.unwrap()));
        frames.chunks(11).for_each(|frame| assert_close(name, frame, &clip, 1e-6, 0.0));
        if let Some(front_end) = model.front_end() {
            let short = Tensor::zeros((1, 31, front_end.n_features()), DType::F32, &Device::Cpu).unwrap();
            let error = model.forward_features(&short, Detail::Clip).unwrap_err();
            assert!(matches!(error, Error::TooShort { needed: 32, got: 31 }), "{error}");
        }
    }
}

#[test]
fn checkpoints_are_detected_alone_and_below_a_prefix() {
    for name in cases().into_iter().map(|case| case.name) {
        let golden = golden(&format!("panns_{name}.safetensors"));
        let published: BTreeMap<String, Vec<usize>> = serde_json::from_str(&golden.metadata()["published"]).unwrap();
        for prefix in ["", "module.", "tagger.net."] {
            let tensors = published.iter().map(|(name, shape)| (format!("{prefix}{name}"), shape.as_slice()));
            let detected = detect(&listed(tensors)).unwrap();
            let preset = presets().find(|preset| preset.name() == name).unwrap();
            assert_eq!(detected.config, preset.config, "{prefix}{name}");
        }
    }
    for case in cases() {
        let detected = detect(&case.weights()).unwrap().config;
        let sizes = |config: &ModelConfig| {
            let mut sizes = serde_json::to_value(config).unwrap();
            sizes.as_object_mut().unwrap().remove("name");
            sizes
        };
        assert_eq!(sizes(&detected), sizes(&case.config), "{}", case.name);
        assert_ne!(detected.name(), case.name, "its widths are not those of the preset");
    }
}

#[test]
fn models_agree_with_and_without_kernels_and_all_layers_are_trained() {
    for case in cases() {
        let (name, weights, clips) = (case.name, case.weights(), batch(&[12_345, 300]));
        let loader = || weights.loader(&Device::Cpu);
        let outputs = [case.build(&loader()), case.build(&loader().without_kernels())].map(|model| {
            let output = model.forward(&clips, Detail::Frames).unwrap();
            [output.logits, output.embedding, output.framewise_output.unwrap()].map(|x| values(&x))
        });
        for (with, without) in outputs[0].iter().zip(&outputs[1]) {
            assert_close(name, without, with, 1e-5 * largest(with), 1e-5);
        }
        let parameters = Parameters::new(&Device::Cpu, 1);
        let model = case.build(&parameters.loader());
        parameters.set_training(true);
        let output = model.forward(&clips, Detail::Clip).unwrap();
        let gradients = output.logits.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for variable in parameters.vars() {
            let gradient = gradients.get(&variable).unwrap_or_else(|| panic!("{name}: {:?}", variable.dims()));
            assert!(values(gradient).iter().all(|x| x.is_finite()), "{name}");
        }
    }
}
