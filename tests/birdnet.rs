//! BirdNET against Keras' layers.

mod common;

use candle_core::{Device, Tensor};
use clipwise::models::BirdNet;
use clipwise::models::birdnet::Config;
use clipwise::{Detail, ModelConfig, TaggingModel, WaveformBatch, Weights};
use common::{assert_close, golden, hashed, signal, values};

const SEED: u64 = 53;
const CLASSES: usize = 13;
const WINDOW: usize = 144_000;
const LENGTHS: [usize; 2] = [50_000, 150_000];
const STAGES: [(usize, usize, usize, usize); 4] =
    [(3, 72, 36, 0), (4, 288, 72, 18), (5, 864, 108, 27), (4, 1536, 192, 48)];

/// Collects the tensors of golden/birdnet.py.
#[derive(Default)]
struct Tensors {
    tensors: Vec<(String, Tensor)>,
    n_convs: usize,
}

impl Tensors {
    fn add(&mut self, name: &str, shape: &[usize], limit: f64) {
        let values = hashed(name, shape.iter().product(), -limit, limit, SEED);
        self.tensors.push((name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap()));
    }

    fn conv(&mut self, kind: &str, shape: [usize; 4]) {
        let name = format!("{:02}.{kind}", self.n_convs);
        self.n_convs += 1;
        let fan_in = (shape[1] * shape[2] * shape[3]) as f64;
        self.add(&format!("{name}.weight"), &shape, (6.0 / fan_in).sqrt());
        self.add(&format!("{name}.bias"), &shape[..1], 0.05);
    }
}

/// The triangular filters of golden/birdnet.py.
fn filters(index: usize, n_bins: usize) -> Tensor {
    let weight = |i: usize| {
        let (m, bin) = ((i / n_bins) as f64, (i % n_bins) as f64);
        let peak = m * (3 - index) as f64 + (5 - index) as f64;
        (1.0 - (bin - peak).abs() / (1.5 + peak / 64.0)).max(0.0) as f32
    };
    Tensor::from_iter((0..96 * n_bins).map(weight), &Device::Cpu).unwrap().reshape((96, n_bins)).unwrap()
}

fn weights() -> Weights {
    let mut all = Tensors::default();
    all.conv("conv", [24, 2, 4, 8]);
    all.conv("conv", [24, 48, 1, 1]);
    let mut channels = 24;
    for (blocks, inside, outside, squeezed) in STAGES {
        for _ in 0..blocks {
            all.conv("conv", [inside, channels, 1, 1]);
            all.conv("depthwise", [inside, 1, 3, 3]);
            if squeezed > 0 {
                all.conv("conv", [squeezed, inside, 1, 1]);
                all.conv("conv", [inside, squeezed, 1, 1]);
            }
            all.conv("conv", [outside, inside, 1, 1]);
            channels = outside;
        }
    }
    all.conv("conv", [1024, 192, 3, 3]);
    all.add("02.fully_connected.weight", &[CLASSES, 1024], (3.0f64 / 1024.0).sqrt());
    all.add("02.fully_connected.bias", &[CLASSES], 0.05);
    all.add("03.mul", &[2], 0.5);
    all.add("01.add", &[2], 0.5);
    all.add("04.mul", &[192], 1.0);
    all.add("02.add", &[192], 0.5);
    for (index, (n_bins, power)) in [(1025, 0.23f32), (513, 0.19)].into_iter().enumerate() {
        all.tensors.push((format!("{index:02}.fully_connected.weight"), filters(index, n_bins)));
        all.tensors.push((format!("{index:02}.pow"), Tensor::new(power, &Device::Cpu).unwrap()));
    }
    Weights::from_tensors(all.tensors).unwrap()
}

fn batch(lengths: &[usize]) -> WaveformBatch {
    WaveformBatch::new(lengths.iter().map(|&n| signal(n, 48_000, 3)).collect(), 48_000).unwrap()
}

fn model() -> BirdNet {
    BirdNet::load(&Config { n_classes: CLASSES, ..Config::V2_4 }, &weights(), &Device::Cpu).unwrap()
}

#[test]
fn every_stage_equals_keras() {
    let (model, golden) = (model(), golden("birdnet.safetensors"));
    let every = |n: usize, values: Vec<f32>| values.into_iter().step_by(n).collect::<Vec<_>>();
    for n in LENGTHS {
        let expected = |key: &str| golden.to_vec(&format!("{n}.{key}")).unwrap();
        let output = model.forward(&batch(&[n]), Detail::Frames).unwrap();
        assert_close(&format!("{n}"), &values(&output.clipwise_output), &expected("clipwise_output"), 1e-5, 0.0);
        assert_close(&format!("{n}"), &values(&output.framewise_output.unwrap()), &expected("frames"), 1e-5, 0.0);
        let embedding = expected("embedding");
        let largest = embedding.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert_close(&format!("{n}"), &every(3, values(&output.embedding)), &embedding, 1e-5 * largest, 0.0);
        if n != LENGTHS[0] {
            continue;
        }
        let mut window = signal(n, 48_000, 3);
        window.resize(WINDOW, 0.0);
        let maps = model.spectrograms(&window).unwrap();
        assert_eq!(maps.dims(), [1, 2, 96, 511]);
        assert_close("spectrograms", &every(997, values(&maps)), &expected("spectrograms"), 2e-6, 1e-5);
        let observe = |stage: usize, x: &dyn Fn() -> clipwise::Result<Tensor>| {
            let name = format!("stage{stage}");
            assert_close(&name, &every([997, 499, 251, 97][stage], values(&x()?)), &expected(&name), 3e-6, 1e-5);
            Ok(())
        };
        model.embed_observed(&maps, observe).unwrap();
    }
}

#[test]
fn each_row_equals_the_clip_alone_and_checkpoints_are_detected() {
    let weights = weights();
    let detected = clipwise::models::detect(&weights).unwrap();
    assert_eq!(detected.config, ModelConfig::from(Config { n_classes: CLASSES, ..Config::V2_4 }));
    let model = detected.config.load(&weights, &Device::Cpu).unwrap();
    let lengths = [150_000, 1, 144_000, 200_000];
    let together = model.forward(&batch(&lengths), Detail::Clip).unwrap();
    for (row, n) in lengths.into_iter().enumerate() {
        let alone = model.forward(&batch(&[n]), Detail::Clip).unwrap();
        assert_eq!(values(&together.embedding.get(row).unwrap()), values(&alone.embedding), "{n}");
    }
    // A silent window has no range to normalise by.
    let silence = WaveformBatch::new(vec![vec![0.0; 1000]], 48_000).unwrap();
    let scores = values(&model.forward(&silence, Detail::Clip).unwrap().clipwise_output);
    assert!(scores.iter().all(|score| score.is_finite()));
}
