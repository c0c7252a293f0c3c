//! Random weights of a model, seeded: a safetensors file in memory, without a detour over tensors.
//!
//! Uniform values of the variance 1 / inputs, norms near the identity: sums neither grow from block to block, which would make gates
//! of 1e-40, nor fade below the biases. Denormal numbers would disturb the times.

use std::collections::BTreeMap;

use clipwise::{Error, Result, Weights};
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

/// Weights with all tensors that `load` asks for.
pub fn weights(load: impl Fn(&Weights) -> Result<()>) -> Result<Weights> {
    let mut tensors = BTreeMap::new();
    loop {
        let mut seeded = Seeded::default();
        tensors.iter().for_each(|(name, shape): (&String, &Vec<usize>)| seeded.tensor_of(name, shape));
        let weights = seeded.weights()?;
        match load(&weights) {
            Err(Error::Weights(report)) if !report.missing.is_empty() => {
                tensors.extend(report.missing.into_iter().map(|tensor| (tensor.name, tensor.shape)));
            }
            loaded => return loaded.map(|()| weights),
        }
    }
}

impl Seeded {
    fn tensor_of(&mut self, name: &str, shape: &[usize]) {
        // Of log-mel of noise in dB.
        let on_decibels = name.starts_with("bn0.") || name.contains("init_bn");
        let inputs: usize = shape.iter().skip(1).product();
        let (low, high) = match name.rsplit('.').next() {
            Some("running_mean") if on_decibels => (-45.0, -35.0),
            Some("running_var") if on_decibels => (200.0, 300.0),
            Some("running_var") => (0.8, 1.2),
            Some("weight" | "gamma" | "alpha" | "weight_g" | "original0") if shape.len() == 1 => (0.9, 1.1),
            _ if shape.len() < 2 => (-0.1, 0.1),
            _ => {
                let limit = (3.0 / inputs as f32).sqrt(); // a uniform value in ±limit has the variance limit² / 3
                (-limit, limit)
            }
        };
        self.tensor(name, shape, low, high);
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
