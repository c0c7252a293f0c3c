//! Models beside plain candle, in one run: `cargo bench --bench models`.
//!
//! Plain candle is CNN14 as one would write it with candle-nn: convolution, batch norm, ReLU and pooling as separate
//! operations. Set `RAYON_NUM_THREADS` and `CANDLE_NUM_THREADS` for a given number of threads; they hold for both sides.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Duration;

use candle_core::{D, Device, Module, ModuleT, Result, Tensor};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Linear, VarBuilder};
use clipwise::frontend::LogMel;
use clipwise::models::{cnn14, leenet};
use clipwise::{TaggingModel, WaveformBatch};
use common::{cnn14_tensors, leenet_tensors, signal};
use criterion::{Criterion, criterion_group, criterion_main};

/// CNN14 after its front end, written with candle-nn.
struct PlainCnn14 {
    bn0: BatchNorm,
    blocks: Vec<[(Conv2d, BatchNorm); 2]>,
    fc1: Linear,
    fc_audioset: Linear,
}

impl PlainCnn14 {
    fn load(config: &cnn14::Config, weights: VarBuilder) -> Result<Self> {
        let convs = Conv2dConfig { padding: 1, ..Default::default() };
        let mut blocks = Vec::new();
        let mut inputs = 1;
        for (i, outputs) in config.channels.into_iter().enumerate() {
            let block = weights.pp(format!("conv_block{}", i + 1));
            let layer = |i: usize, inputs: usize| {
                let conv = candle_nn::conv2d_no_bias(inputs, outputs, 3, convs, block.pp(format!("conv{i}")))?;
                Ok::<_, candle_core::Error>((conv, candle_nn::batch_norm(outputs, 1e-5, block.pp(format!("bn{i}")))?))
            };
            blocks.push([layer(1, inputs)?, layer(2, outputs)?]);
            inputs = outputs;
        }
        Ok(Self {
            bn0: candle_nn::batch_norm(config.log_mel.n_mels, 1e-5, weights.pp("bn0"))?,
            blocks,
            fc1: candle_nn::linear(inputs, config.embedding_dim, weights.pp("fc1"))?,
            fc_audioset: candle_nn::linear(config.embedding_dim, config.n_classes, weights.pp("fc_audioset"))?,
        })
    }

    fn forward(&self, log_mel: &Tensor) -> Result<Tensor> {
        let x = log_mel.transpose(1, 3)?;
        let mut x = self.bn0.forward_t(&x, false)?.transpose(1, 3)?.contiguous()?;
        for (i, block) in self.blocks.iter().enumerate() {
            for (conv, norm) in block {
                x = norm.forward_t(&conv.forward(&x)?, false)?.relu()?;
            }
            if i < 5 {
                x = x.avg_pool2d(2)?;
            }
        }
        let x = x.mean(3)?;
        let x = (x.max(2)? + x.mean(2)?)?;
        let x = self.fc1.forward(&x)?.relu()?;
        candle_nn::ops::sigmoid(&self.fc_audioset.forward(&x)?)
    }
}

fn cnn14(criterion: &mut Criterion) {
    let device = Device::Cpu;
    let config = cnn14::Config::AUDIOSET_32K;
    let tensors = cnn14_tensors(config.channels, config.embedding_dim, config.n_classes, 1).tensors();
    let map = tensors.iter().cloned().collect();
    let plain = PlainCnn14::load(&config, VarBuilder::from_tensors(map, candle_core::DType::F32, &device)).unwrap();
    let weights = clipwise::Weights::from_tensors(tensors).unwrap();
    let model = cnn14::Cnn14::load(&config, &weights, &device).unwrap();
    drop(weights);

    let clip = signal(320_000, 32_000, 1);
    let log_mel = LogMel::new(&config.log_mel).unwrap().compute(&clip).unwrap();
    let shape = (1, 1, log_mel.nrows(), log_mel.ncols());
    let log_mel = Tensor::from_iter(log_mel, &device).unwrap().reshape(shape).unwrap();
    let batch = WaveformBatch::new(vec![clip], 32_000).unwrap();

    // Both sides must compute the same thing.
    let ours = model.forward_features(&log_mel).unwrap().clipwise_output;
    let difference = (ours - plain.forward(&log_mel).unwrap()).unwrap().abs().unwrap();
    let difference = difference.max(D::Minus1).unwrap().to_vec1::<f32>().unwrap()[0];
    assert!(difference < 1e-5, "{difference}");

    let mut group = criterion.benchmark_group("cnn14 10 s");
    group.sample_size(10).warm_up_time(Duration::from_secs(3)).measurement_time(Duration::from_secs(25));
    group.bench_function("trunk", |b| b.iter(|| black_box(model.forward_features(&log_mel).unwrap())));
    group.bench_function("trunk, plain candle", |b| b.iter(|| black_box(plain.forward(&log_mel).unwrap())));
    group.bench_function("whole", |b| b.iter(|| black_box(model.forward(&batch).unwrap())));
    group.finish();
}

fn leenet11(criterion: &mut Criterion) {
    let config = leenet::Config::LEENET11;
    let model = leenet::LeeNet::load(&config, &leenet_tensors(&config, 1).weights(), &Device::Cpu).unwrap();
    let batch = WaveformBatch::new(vec![signal(320_000, 32_000, 1)], 32_000).unwrap();
    let mut group = criterion.benchmark_group("leenet11 10 s");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("whole", |b| b.iter(|| black_box(model.forward(&batch).unwrap())));
    group.finish();
}

criterion_group!(benches, cnn14, leenet11);
criterion_main!(benches);
