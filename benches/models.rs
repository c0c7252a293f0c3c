//! Models compared with plain candle: `cargo bench --bench models`.
//!
//! Plain candle is the model as one would write it with candle-nn: convolution, batch norm, ReLU and pooling as
//! separate operations. `RAYON_NUM_THREADS` and `CANDLE_NUM_THREADS` set the number of threads, for both sides.

#[path = "../tests/common/mod.rs"]
mod common;
mod turns;

use candle_core::{Device, Module, ModuleT, Result, Tensor};
use candle_nn::{BatchNorm, Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Linear, VarBuilder};
use clipwise::encoders::{Layers, SpeechEncoder, W2vBertEncoder, Wav2Vec2Encoder, w2v_bert, wav2vec2};
use clipwise::frontend::{LogMel, SeamlessM4t, SeamlessM4tConfig};
use clipwise::models::{cnn14, leenet, m5};
use clipwise::nn::{Cell, Rnn, RnnConfig};
use clipwise::{Detail, TaggingModel, WaveformBatch, Weights};
use common::{cnn14_tensors, complete, hashed, leenet_tensors, m5_tensors, max_difference, signal, values};
use turns::{compare, side};

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
            bn0: candle_nn::batch_norm(config.log_mel.mel.n_mels, 1e-5, weights.pp("bn0"))?,
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

fn cnn14() {
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

    // Check that both sides compute the same.
    let ours = model.forward_features(&log_mel.squeeze(1).unwrap(), Detail::Clip).unwrap().clipwise_output;
    assert!(max_difference(&values(&ours), &values(&plain.forward(&log_mel).unwrap())) < 1e-5);

    let trunk = vec![
        side("ours", || model.forward_features(&log_mel.squeeze(1).unwrap(), Detail::Clip).unwrap()),
        side("plain candle", || plain.forward(&log_mel).unwrap()),
    ];
    compare("cnn14 10 s, trunk", 7, trunk);
    // Plain candle has no front end, so it uses ours.
    let whole_of_candle = || {
        let log_mel = model.log_mel().compute(&batch.rows()[0]).unwrap();
        plain.forward(&Tensor::from_iter(log_mel, &device).unwrap().reshape(shape).unwrap()).unwrap()
    };
    let whole =
        vec![side("ours", || model.forward(&batch, Detail::Clip).unwrap()), side("plain candle", whole_of_candle)];
    compare("cnn14 10 s, whole", 7, whole);
}

/// LeeNet11 written with candle-nn.
struct PlainLeeNet11 {
    blocks: Vec<(Conv1d, BatchNorm)>,
    fc1: Linear,
    fc_audioset: Linear,
}

impl PlainLeeNet11 {
    fn load(config: &leenet::Config, weights: VarBuilder) -> Result<Self> {
        let mut blocks = Vec::new();
        let mut inputs = 1;
        for (i, outputs) in config.channels.into_iter().enumerate() {
            let block = weights.pp(format!("conv_block{}", i + 1));
            let stride = if i == 0 { 3 } else { 1 };
            let conv = Conv1dConfig { padding: 1, stride, ..Default::default() };
            let conv = candle_nn::conv1d_no_bias(inputs, outputs, 3, conv, block.pp("conv1"))?;
            blocks.push((conv, candle_nn::batch_norm(outputs, 1e-5, block.pp("bn1"))?));
            inputs = outputs;
        }
        Ok(Self {
            blocks,
            fc1: candle_nn::linear(inputs, config.embedding_dim, weights.pp("fc1"))?,
            fc_audioset: candle_nn::linear(config.embedding_dim, config.n_classes, weights.pp("fc_audioset"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, (conv, norm)) in self.blocks.iter().enumerate() {
            x = norm.forward_t(&conv.forward(&x)?, false)?.relu()?;
            if i > 0 {
                x = x.pad_with_zeros(2, 1, 1)?.unsqueeze(2)?.max_pool2d((1, 3))?.squeeze(2)?;
            }
        }
        let x = (x.max(2)? + x.mean(2)?)?;
        let x = self.fc1.forward(&x)?.relu()?;
        candle_nn::ops::sigmoid(&self.fc_audioset.forward(&x)?)
    }
}

fn ced_tiny() {
    let tagger = common::shipped("ced-tiny");
    let batch = WaveformBatch::new(vec![signal(160_000, 16_000, 1)], 16_000).unwrap();
    // candle has no CED, so it is timed alone.
    compare("ced-tiny 10 s, whole", 15, vec![side("ours", || tagger.model().forward(&batch, Detail::Clip).unwrap())]);
}

/// Random tensors for every weight that an encoder asks for.
fn encoder_weights<T>(load: impl Fn(&Weights) -> clipwise::Result<T>) -> Weights {
    let make = |name: &str, shape: &[usize]| {
        let limit = 1.0 / (shape.last().copied().unwrap_or(1) as f64).sqrt();
        let values = hashed(name, shape.iter().product(), -limit, limit, 1);
        (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    Weights::from_tensors(complete(Vec::new(), load, make)).unwrap()
}

/// The large speech encoders with one and with two blocks; the difference is the time of a block.
fn speech_encoders() {
    let clip = signal(160_000, 16_000, 1);
    let batch = WaveformBatch::new(vec![clip.clone()], 16_000).unwrap();
    for n_blocks in [1, 2] {
        let config = wav2vec2::Config { n_blocks, ..wav2vec2::Config::BASE };
        let weights = encoder_weights(|weights| Wav2Vec2Encoder::load(&config, weights, &Device::Cpu));
        let encoder = Wav2Vec2Encoder::load(&config, &weights, &Device::Cpu).unwrap();
        let ours = side("ours", || encoder.forward(&batch, Layers::Last).unwrap());
        compare(&format!("wav2vec2-base 10 s, convolutions and {n_blocks} of 12 blocks"), 9, vec![ours]);
    }
    let front_end = SeamlessM4t::new(&SeamlessM4tConfig::SEAMLESS_M4T_16K).unwrap();
    let ours = side("ours", || front_end.compute(&clip).unwrap());
    compare("w2v-bert-2.0 10 s, front end", 9, vec![ours]);
    for n_blocks in [1, 2] {
        let config = w2v_bert::Config { n_blocks, ..w2v_bert::Config::W2V_BERT_2 };
        let weights = encoder_weights(|weights| W2vBertEncoder::load(&config, weights, &Device::Cpu));
        let encoder = W2vBertEncoder::load(&config, &weights, &Device::Cpu).unwrap();
        let ours = side("ours", || encoder.forward(&batch, Layers::Last).unwrap());
        compare(&format!("w2v-bert-2.0 10 s, front end and {n_blocks} of 24 blocks"), 9, vec![ours]);
    }
}

fn leenet11() {
    let config = leenet::Config::LEENET11;
    let tensors = leenet_tensors(&config, 1).tensors();
    let weights = VarBuilder::from_tensors(tensors.iter().cloned().collect(), candle_core::DType::F32, &Device::Cpu);
    let plain = PlainLeeNet11::load(&config, weights).unwrap();
    let weights = clipwise::Weights::from_tensors(tensors).unwrap();
    let model = leenet::LeeNet::load(&config, &weights, &Device::Cpu).unwrap();
    let batch = WaveformBatch::new(vec![signal(320_000, 32_000, 1)], 32_000).unwrap();
    let x = Tensor::new(batch.rows()[0].as_slice(), &Device::Cpu).unwrap().reshape((1, 1, 320_000)).unwrap();
    let ours = values(&model.forward(&batch, Detail::Clip).unwrap().clipwise_output);
    assert!(max_difference(&ours, &values(&plain.forward(&x).unwrap())) < 1e-5);
    let sides = vec![
        side("ours", || model.forward(&batch, Detail::Clip).unwrap()),
        side("plain candle", || plain.forward(&x).unwrap()),
    ];
    compare("leenet11 10 s, whole", 9, sides);
}

/// M5 of the PyTorch tutorial, written with candle-nn.
struct PlainM5 {
    layers: Vec<(Conv1d, BatchNorm)>,
    fc1: Linear,
}

impl PlainM5 {
    fn load(config: &m5::Config, weights: VarBuilder) -> Result<Self> {
        let mut layers = Vec::new();
        let mut inputs = 1;
        let first = (config.channels, config.kernel, config.stride);
        let others = config.stages.iter().map(|stage| (stage.channels, 3, 1));
        for (i, (outputs, kernel, stride)) in std::iter::once(first).chain(others).enumerate() {
            let conv = Conv1dConfig { stride, ..Default::default() };
            let conv = candle_nn::conv1d(inputs, outputs, kernel, conv, weights.pp(format!("conv{}", i + 1)))?;
            layers.push((conv, candle_nn::batch_norm(outputs, 1e-5, weights.pp(format!("bn{}", i + 1)))?));
            inputs = outputs;
        }
        Ok(Self { layers, fc1: candle_nn::linear(inputs, config.n_classes, weights.pp("fc1"))? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (conv, norm) in &self.layers {
            x = norm.forward_t(&conv.forward(&x)?, false)?.relu()?;
            x = x.unsqueeze(2)?.max_pool2d((1, 4))?.squeeze(2)?;
        }
        candle_nn::ops::softmax(&self.fc1.forward(&x.mean(2)?)?, 1)
    }
}

fn m5() {
    let config = m5::Config::M5;
    let tensors = m5_tensors(&config, 1).tensors();
    let weights = VarBuilder::from_tensors(tensors.iter().cloned().collect(), candle_core::DType::F32, &Device::Cpu);
    let plain = PlainM5::load(&config, weights).unwrap();
    let weights = clipwise::Weights::from_tensors(tensors).unwrap();
    let model = m5::M5::load(&config, &weights, &Device::Cpu).unwrap();
    for batch in [1, 64] {
        let x = Tensor::from_vec(signal(batch * 8000, 8000, 1), (batch, 1, 8000), &Device::Cpu).unwrap();
        let ours = values(&model.forward_samples(&x).unwrap().clipwise_output);
        assert!(max_difference(&ours, &values(&plain.forward(&x).unwrap())) < 1e-5);
        let sides = vec![
            side("ours", || model.forward_samples(&x).unwrap()),
            side("plain candle", || plain.forward(&x).unwrap()),
        ];
        compare(&format!("m5 1 s, batch {batch}, from the samples"), 15, sides);
    }
}

/// Two stacked candle-nn layers, which are unidirectional.
fn plain_recurrent(rnn: &Rnn, x: &Tensor) -> Result<Tensor> {
    use candle_nn::rnn::{GRUConfig, LSTMConfig, RNN};
    // candle-nn's GRU only reads the tensors of the first layer, and its states are concatenated along the batch.
    let parameters = |layer: usize, as_first: bool| {
        let of_layer = rnn.parameters().filter_map(|(name, tensor)| {
            let name = name.strip_suffix(&format!("_l{layer}"))?;
            Some((format!("{name}_l{}", if as_first { 0 } else { layer }), tensor.clone()))
        });
        VarBuilder::from_tensors(of_layer.collect(), candle_core::DType::F32, &Device::Cpu)
    };
    let config = *rnn.config();
    let mut x = x.clone();
    for layer in 0..config.n_layers {
        let inputs = if layer == 0 { config.inputs } else { config.hidden };
        x = match config.cell {
            Cell::Gru => {
                let gru = candle_nn::gru(inputs, config.hidden, GRUConfig::default(), parameters(layer, true))?;
                let states: Vec<Tensor> = gru.seq(&x)?.into_iter().map(|state| state.h).collect();
                Tensor::stack(&states, 1)?
            }
            Cell::Lstm => {
                let lstm = LSTMConfig { layer_idx: layer, ..Default::default() };
                let lstm = candle_nn::lstm(inputs, config.hidden, lstm, parameters(layer, false))?;
                lstm.states_to_tensor(&lstm.seq(&x)?)?
            }
        };
    }
    Ok(x)
}

fn recurrent() {
    for (name, cell) in [("gru", Cell::Gru), ("lstm", Cell::Lstm)] {
        for batch in [1, 16] {
            let x =
                Tensor::from_vec(hashed("x", batch * 64_000, -1.0, 1.0, 1), (batch, 1000, 64), &Device::Cpu).unwrap();
            for bidirectional in [false, true] {
                let config = RnnConfig { cell, inputs: 64, hidden: 256, n_layers: 2, bidirectional, bias: true };
                let parameter = |name: &str, shape: &[usize]| {
                    let values = hashed(name, shape.iter().product(), -0.06, 0.06, 1);
                    Ok(Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
                };
                let rnn = Rnn::new(config, parameter).unwrap();
                let directions = if bidirectional { "both directions" } else { "one direction" };
                let mut sides = vec![side("ours", || rnn.forward(&x, None, None).unwrap())];
                if !bidirectional {
                    let ours = values(&rnn.forward(&x, None, None).unwrap().0);
                    assert!(max_difference(&ours, &values(&plain_recurrent(&rnn, &x).unwrap())) < 1e-5);
                    sides.push(side("plain candle", || plain_recurrent(&rnn, &x).unwrap()));
                }
                compare(&format!("{name} 2 x 256, 1000 frames of 64, batch {batch}, {directions}"), 7, sides);
            }
        }
    }
}

fn main() {
    turns::title("models");
    [cnn14, leenet11, ced_tiny, m5, recurrent, speech_encoders].into_iter().for_each(|case| case());
}
