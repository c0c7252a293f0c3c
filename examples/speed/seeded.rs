//! Random weights of a model, seeded: a safetensors file in memory, without a detour over tensors.
//!
//! Uniform values of He's variance before a ReLU (2 / inputs) and of 1 / inputs elsewhere, norms near the identity: sums
//! neither grow nor fade from layer to layer, so that no denormal number disturbs the times.

use clipwise::encoders::whisper;
use clipwise::models::{cnn14, leenet};
use clipwise::{Result, Weights};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

/// Values that one task makes.
const VALUES_PER_TASK: usize = 1 << 16;

/// The tensors so far.
#[derive(Default)]
struct Seeded {
    /// A safetensors header: name to type, shape and place.
    header: Map<String, Value>,
    /// Number of values and their range, in the order of the file.
    tensors: Vec<(usize, f32, f32)>,
    n_bytes: usize,
}

/// The weights of a CNN14 without its front end's tables.
pub fn cnn14(config: &cnn14::Config) -> Result<Weights> {
    let mut seeded = Seeded::default();
    let n_mels = [config.log_mel.mel.n_mels];
    seeded.tensor("bn0.weight", &n_mels, 0.9, 1.1);
    seeded.tensor("bn0.bias", &n_mels, -0.1, 0.1);
    // Log-mel of noise in dB.
    seeded.tensor("bn0.running_mean", &n_mels, -45.0, -35.0);
    seeded.tensor("bn0.running_var", &n_mels, 200.0, 300.0);
    let mut inputs = 1;
    for (i, outputs) in config.channels.into_iter().enumerate() {
        for (conv, inputs) in [(1, inputs), (2, outputs)] {
            seeded.conv(&format!("conv_block{}", i + 1), conv, &[outputs, inputs, 3, 3]);
        }
        inputs = outputs;
    }
    seeded.head(inputs, config.embedding_dim, config.n_classes);
    seeded.weights()
}

/// The weights of a LeeNet.
pub fn leenet(config: &leenet::Config) -> Result<Weights> {
    let mut seeded = Seeded::default();
    let mut inputs = 1;
    for (i, outputs) in config.channels.into_iter().enumerate() {
        for conv in 1..=config.convs_per_block {
            let inputs = if conv == 1 { inputs } else { outputs };
            seeded.conv(&format!("conv_block{}", i + 1), conv, &[outputs, inputs, 3]);
        }
        inputs = outputs;
    }
    seeded.head(inputs, config.embedding_dim, config.n_classes);
    seeded.weights()
}

/// The weights of an encoder of Whisper, under the names of transformers, without its table of positions.
pub fn whisper(config: &whisper::Config) -> Result<Weights> {
    let whisper::Config { n_mels, dim, n_blocks, ffn_dim, .. } = *config;
    let mut seeded = Seeded::default();
    for (conv, inputs) in [("conv1", n_mels), ("conv2", dim)] {
        seeded.weight(&format!("{conv}.weight"), &[dim, inputs, 3], 1.0);
        seeded.tensor(&format!("{conv}.bias"), &[dim], -0.05, 0.05);
    }
    for block in (0..n_blocks).map(|block| format!("layers.{block}")) {
        seeded.layer_norm(&format!("{block}.self_attn_layer_norm"), dim);
        for projection in ["q_proj", "v_proj", "out_proj"] {
            seeded.linear(&format!("{block}.self_attn.{projection}"), dim, dim);
        }
        seeded.weight(&format!("{block}.self_attn.k_proj.weight"), &[dim, dim], 1.0);
        seeded.layer_norm(&format!("{block}.final_layer_norm"), dim);
        seeded.linear(&format!("{block}.fc1"), dim, ffn_dim);
        seeded.linear(&format!("{block}.fc2"), ffn_dim, dim);
    }
    seeded.layer_norm("layer_norm", dim);
    seeded.weights()
}

impl Seeded {
    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.weight(&format!("{name}.weight"), &[outputs, inputs], 1.0);
        self.tensor(&format!("{name}.bias"), &[outputs], -0.05, 0.05);
    }

    fn layer_norm(&mut self, name: &str, channels: usize) {
        self.tensor(&format!("{name}.weight"), &[channels], 0.9, 1.1);
        self.tensor(&format!("{name}.bias"), &[channels], -0.1, 0.1);
    }

    /// Values in `low..high`.
    fn tensor(&mut self, name: &str, shape: &[usize], low: f32, high: f32) {
        let count = shape.iter().product();
        let end = self.n_bytes + 4 * count;
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [self.n_bytes, end] });
        self.header.insert(name.to_owned(), entry);
        self.tensors.push((count, low, high));
        self.n_bytes = end;
    }

    /// A weight `[outputs, inputs…]` of the given variance times its inputs.
    fn weight(&mut self, name: &str, shape: &[usize], variance: f32) {
        let inputs: usize = shape[1..].iter().product();
        let limit = (3.0 * variance / inputs as f32).sqrt(); // a uniform value in ±limit has the variance limit² / 3
        self.tensor(name, shape, -limit, limit);
    }

    /// A convolution without bias and the norm after it.
    fn conv(&mut self, block: &str, index: usize, shape: &[usize]) {
        self.weight(&format!("{block}.conv{index}.weight"), shape, 2.0);
        let norm = [("weight", 0.9, 1.1), ("bias", -0.1, 0.1), ("running_mean", -0.1, 0.1), ("running_var", 0.8, 1.2)];
        for (leaf, low, high) in norm {
            self.tensor(&format!("{block}.bn{index}.{leaf}"), &shape[..1], low, high);
        }
    }

    fn head(&mut self, inputs: usize, embedding_dim: usize, n_classes: usize) {
        for (name, inputs, outputs, variance) in
            [("fc1", inputs, embedding_dim, 2.0), ("fc_audioset", embedding_dim, n_classes, 1.0)]
        {
            self.weight(&format!("{name}.weight"), &[outputs, inputs], variance);
            self.tensor(&format!("{name}.bias"), &[outputs], -0.05, 0.05);
        }
    }

    /// Fills in the values.
    fn weights(self) -> Result<Weights> {
        let header = Value::Object(self.header).to_string();
        let mut file = vec![0; 8 + header.len() + self.n_bytes];
        file[..8].copy_from_slice(&(header.len() as u64).to_le_bytes());
        file[8..][..header.len()].copy_from_slice(header.as_bytes());
        let mut rest = &mut file[8 + header.len()..];
        for (index, (count, low, high)) in self.tensors.into_iter().enumerate() {
            let (values, after) = rest.split_at_mut(4 * count);
            let seed = hash(index as u32);
            values.par_chunks_mut(4 * VALUES_PER_TASK).enumerate().for_each(|(task, values)| {
                let first = seed.wrapping_add((task * VALUES_PER_TASK) as u32);
                for (i, value) in values.as_chunks_mut().0.iter_mut().enumerate() {
                    *value = (low + (high - low) * uniform01(first.wrapping_add(i as u32))).to_le_bytes();
                }
            });
            rest = after;
        }
        Weights::from_bytes(file)
    }
}

/// `n` samples of noise in -0.1..0.1.
pub fn noise(n: usize, seed: u32) -> Vec<f32> {
    let seed = hash(!seed);
    (0..n).map(|i| 0.2 * uniform01(seed.wrapping_add(i as u32)) - 0.1).collect()
}

/// A number in 0..1, a multiple of 2^-24.
fn uniform01(counter: u32) -> f32 {
    (hash(counter) >> 8) as f32 / (1 << 24) as f32
}

/// A permutation of the 32-bit numbers that mixes them well: shifts and odd multipliers in turn.
fn hash(counter: u32) -> u32 {
    let mut x = counter.wrapping_mul(0x9E37_79B9);
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}
