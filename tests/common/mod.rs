//! Code shared by the tests: golden files, comparison, hashed weights and signals (equal to `golden/refcommon.py`), and
//! the folder of real checkpoints.
#![allow(dead_code)] // each test file uses a part

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use candle_core::{Device, Tensor};
use clipwise::{Tagger, Weights};

/// xorshift64*: a random number generator for tests.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }

    pub fn samples(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.below(1 << 16) as f32 / 32_768.0 - 1.0).collect()
    }
}

/// A folder of `weights`, opened: the bundled taggers too, without their features.
pub fn shipped(name: &str) -> Tagger {
    Tagger::open(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("weights").join(name), &Device::Cpu).unwrap()
}

/// A file of `tests/golden`.
pub fn golden(name: &str) -> Weights {
    Weights::open(golden_path(name)).unwrap()
}

pub fn golden_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A path below the folder named by `CLIPWISE_REAL`, which holds real checkpoints and audio. `None`, with a printed
/// reason, if it is not set. A folder that is named but missing is a failure.
pub fn real(path: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("CLIPWISE_REAL") else {
        println!("skipped: CLIPWISE_REAL is not set, so {path} is not at hand");
        return None;
    };
    let full = PathBuf::from(folder).join(path);
    assert!(full.exists(), "CLIPWISE_REAL is set, but {} is not there", full.display());
    Some(full)
}

/// Asserts `|got − expected| ≤ atol + rtol · |expected|` everywhere; otherwise prints the worst position.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], expected: &[f32], atol: f32, rtol: f32) {
    assert_eq!(got.len(), expected.len(), "{what}: number of values");
    let excess = |i: usize| (got[i] - expected[i]).abs() - (atol + rtol * expected[i].abs());
    let nan_is_worst = |x: f32| if x.is_nan() { f32::INFINITY } else { x };
    let worst = (0..got.len()).max_by(|&a, &b| nan_is_worst(excess(a)).total_cmp(&nan_is_worst(excess(b))));
    if let Some(i) = worst {
        assert!(
            nan_is_worst(excess(i)) <= 0.0,
            "{what}: at {i} of {}: got {}, expected {}, difference {:e}",
            got.len(),
            got[i],
            expected[i],
            got[i] - expected[i]
        );
    }
}

/// Largest absolute difference.
pub fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

/// All values of a tensor.
pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Value `index` of the sequence for `name`, in [0, 1).
fn uniform01(state: u64, index: usize) -> f64 {
    let mut z = state.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f64 / (1u64 << 24) as f64
}

fn state(name: &str, seed: u64) -> u64 {
    let fnv = |h: u64, byte: u8| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    name.bytes().fold(0xCBF2_9CE4_8422_2325, fnv) ^ seed
}

/// `n` values of `[low, high)`.
pub fn hashed(name: &str, n: usize, low: f64, high: f64, seed: u64) -> Vec<f32> {
    let state = state(name, seed);
    (0..n).map(|i| (low + (high - low) * uniform01(state, i)) as f32).collect()
}

/// The kind of layer that a tensor belongs to.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Conv,
    Linear,
    Norm,
}

/// Collects hashed tensors under the names of a checkpoint.
pub struct Hashed {
    seed: u64,
    tensors: Vec<(String, Tensor)>,
}

impl Hashed {
    pub fn new(seed: u64) -> Self {
        Self { seed, tensors: Vec::new() }
    }

    pub fn tensor(&mut self, name: &str, shape: &[usize], kind: Kind) {
        let leaf = name.rsplit('.').next().unwrap();
        let (low, high) = match (kind, leaf) {
            (Kind::Norm, "weight") => (0.8, 1.2),
            (Kind::Norm, "bias") => (-0.1, 0.1),
            (Kind::Norm, "running_mean") if name.starts_with("bn0.") => (-45.0, -35.0),
            (Kind::Norm, "running_mean") => (-0.1, 0.1),
            (Kind::Norm, _) if name.starts_with("bn0.") => (200.0, 300.0),
            (Kind::Norm, _) => (0.5, 1.5),
            (_, "bias") => (-0.05, 0.05),
            (kind, _) => {
                let fan_in = shape[1..].iter().product::<usize>() as f64;
                let limit = (if kind == Kind::Conv { 6.0 } else { 3.0 } / fan_in).sqrt();
                (-limit, limit)
            }
        };
        let values = hashed(name, shape.iter().product(), low, high, self.seed);
        self.tensors.push((name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap()));
    }

    pub fn norm(&mut self, name: &str, channels: usize) {
        for leaf in ["weight", "bias", "running_mean", "running_var"] {
            self.tensor(&format!("{name}.{leaf}"), &[channels], Kind::Norm);
        }
    }

    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.tensor(&format!("{name}.weight"), &[outputs, inputs], Kind::Linear);
        self.tensor(&format!("{name}.bias"), &[outputs], Kind::Linear);
    }

    pub fn tensors(self) -> Vec<(String, Tensor)> {
        self.tensors
    }

    pub fn weights(self) -> Weights {
        Weights::from_tensors(self.tensors).unwrap()
    }
}

/// The tensors of a CNN14 without its front end.
pub fn cnn14_tensors(channels: [usize; 6], embedding_dim: usize, n_classes: usize, seed: u64) -> Hashed {
    let mut hashed = Hashed::new(seed);
    hashed.norm("bn0", 64);
    let mut in_channels = 1;
    for (i, out_channels) in channels.into_iter().enumerate() {
        let block = format!("conv_block{}", i + 1);
        hashed.tensor(&format!("{block}.conv1.weight"), &[out_channels, in_channels, 3, 3], Kind::Conv);
        hashed.tensor(&format!("{block}.conv2.weight"), &[out_channels, out_channels, 3, 3], Kind::Conv);
        hashed.norm(&format!("{block}.bn1"), out_channels);
        hashed.norm(&format!("{block}.bn2"), out_channels);
        in_channels = out_channels;
    }
    hashed.linear("fc1", in_channels, embedding_dim);
    hashed.linear("fc_audioset", embedding_dim, n_classes);
    hashed
}

/// The tensors of a LeeNet.
pub fn leenet_tensors(config: &clipwise::models::leenet::Config, seed: u64) -> Hashed {
    let mut hashed = Hashed::new(seed);
    let mut in_channels = 1;
    for (i, out_channels) in config.channels.into_iter().enumerate() {
        for conv in 1..=config.convs_per_block {
            let (block, inputs) = (format!("conv_block{}", i + 1), if conv == 1 { in_channels } else { out_channels });
            hashed.tensor(&format!("{block}.conv{conv}.weight"), &[out_channels, inputs, 3], Kind::Conv);
            hashed.norm(&format!("{block}.bn{conv}"), out_channels);
        }
        in_channels = out_channels;
    }
    hashed.linear("fc1", in_channels, config.embedding_dim);
    hashed.linear("fc_audioset", config.embedding_dim, config.n_classes);
    hashed
}

/// The tensors of a network of the M5 family.
pub fn m5_tensors(config: &clipwise::models::m5::Config, seed: u64) -> Hashed {
    let mut hashed = Hashed::new(seed);
    let mut conv = |name: &str, norm: &str, inputs: usize, outputs: usize, kernel: usize| {
        hashed.tensor(&format!("{name}.weight"), &[outputs, inputs, kernel], Kind::Conv);
        hashed.tensor(&format!("{name}.bias"), &[outputs], Kind::Conv);
        hashed.norm(norm, outputs);
    };
    conv("conv1", "bn1", 1, config.channels, config.kernel);
    let (mut n, mut inputs, mut sums) = (0, config.channels, Vec::new());
    for stage in config.stages.iter() {
        for _ in 0..stage.layers {
            n += 1;
            if config.residual {
                let name = |leaf: &str| format!("block{n}.{leaf}");
                conv(&name("conv1"), &name("bn1"), inputs, stage.channels, 3);
                conv(&name("conv2"), &name("bn2"), stage.channels, stage.channels, 3);
                sums.push((name("bn3"), stage.channels));
            } else {
                conv(&format!("conv{}", n + 1), &format!("bn{}", n + 1), inputs, stage.channels, 3);
            }
            inputs = stage.channels;
        }
    }
    sums.into_iter().for_each(|(name, channels)| hashed.norm(&name, channels));
    hashed.linear("fc1", inputs, config.n_classes);
    hashed
}

/// The tensors of a CED without its front end, named as in RicherMans/CED, with the values of `golden/ced_windows.py`.
pub fn ced_tensors(config: &clipwise::models::ced::Config, seed: u64) -> Vec<(String, Tensor)> {
    let (width, n_mels, mut tensors) = (config.width, config.log_mel.mel.n_mels, Vec::new());
    let mut tensor = |name: &str, shape: &[usize]| {
        let (low, high) = match name.rsplit('.').next().unwrap() {
            "running_mean" => (-30.0, -10.0),
            "running_var" => (300.0, 600.0),
            "weight" if name.starts_with("init_bn") => (0.8, 1.2),
            "weight" if shape.len() == 1 => (0.5, 1.5),
            "bias" => (-0.1, 0.1),
            _ => (-0.5, 0.5),
        };
        let values = hashed(name, shape.iter().product(), low, high, seed);
        tensors.push((name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap()));
    };
    for leaf in ["weight", "bias", "running_mean", "running_var"] {
        tensor(&format!("init_bn.1.{leaf}"), &[n_mels]);
    }
    tensor("time_pos_embed", &[1, width, 1, config.target_length / 16]);
    tensor("freq_pos_embed", &[1, width, n_mels / 16, 1]);
    let mut layer = |name: &str, shape: &[usize]| {
        tensor(&format!("{name}.weight"), shape);
        tensor(&format!("{name}.bias"), &shape[..1]);
    };
    layer("patch_embed.proj", &[width, 1, 16, 16]);
    for block in (0..config.depth).map(|i| format!("blocks.{i}")) {
        layer(&format!("{block}.norm1"), &[width]);
        layer(&format!("{block}.attn.qkv"), &[3 * width, width]);
        layer(&format!("{block}.attn.proj"), &[width, width]);
        layer(&format!("{block}.norm2"), &[width]);
        layer(&format!("{block}.mlp.fc1"), &[4 * width, width]);
        layer(&format!("{block}.mlp.fc2"), &[width, 4 * width]);
    }
    layer("norm", &[width]);
    layer("outputlayer.0", &[width]);
    layer("outputlayer.1", &[config.n_classes, width]);
    tensors
}

/// A tensor of a transformer, filled as by `fill_transformer` of `golden/refcommon.py`.
pub fn transformer_tensor(name: &str, shape: &[usize], seed: u64) -> (String, Tensor) {
    let symmetric = |limit: f64| (-limit, limit);
    let (low, high) = match name.rsplit('.').next().unwrap() {
        "running_mean" => (-30.0, -10.0),
        "running_var" => (300.0, 600.0),
        "original0" | "weight_g" => (0.5, 1.5),
        "weight" if shape.len() == 1 => (0.8, 1.2),
        _ if shape.len() == 1 => symmetric(0.1),
        "weight" if name.contains("relative") => symmetric(2.0),
        "weight" | "original1" | "weight_v" => symmetric((3.0 / shape[1..].iter().product::<usize>() as f64).sqrt()),
        _ if name.contains("grep") => (0.8, 1.2),
        _ => symmetric(0.5),
    };
    let values = hashed(name, shape.iter().product(), low, high, seed);
    (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
}

/// The test signal of `golden/refcommon.py` as f32: triangle tones, noise bursts, near-silence, a click.
pub fn signal(n: usize, sample_rate: u32, seed: u64) -> Vec<f32> {
    let (rate, noise) = (f64::from(sample_rate), state("noise", seed));
    let sample = |i: usize| {
        let t = i as f64;
        let quarter = (t * 4.0 / rate).floor() as usize % 4;
        let mut x = 0.0;
        for (k, frequency) in [110.0, 440.0, 2500.0, 9000.0].into_iter().enumerate() {
            let phase = (t * frequency / rate) % 1.0;
            x += (0.12 / (k + 1) as f64) * (4.0 * (phase - 0.5f64).abs() - 1.0);
        }
        x *= [1.0, 1.0, 0.0, 1.0][quarter];
        x += (2.0 * uniform01(noise, i) - 1.0) * [0.5, 0.05, 0.0, 0.2][quarter];
        if n > 10 && i == n / 3 {
            x = 0.99;
        }
        ((x * 32767.0).round_ties_even().clamp(-32768.0, 32767.0) as f32) / 32768.0
    };
    (0..n).map(sample).collect()
}

/// `given` and all other tensors that `load` asks for; `make` creates one from its name and shape.
pub fn complete<T>(
    given: Vec<(String, Tensor)>,
    load: impl Fn(&Weights) -> clipwise::Result<T>,
    make: impl Fn(&str, &[usize]) -> (String, Tensor),
) -> Vec<(String, Tensor)> {
    let mut tensors = given;
    loop {
        match load(&Weights::from_tensors(tensors.clone()).unwrap()) {
            Ok(_) => return tensors,
            Err(clipwise::Error::Weights(report)) => {
                assert!(!report.missing.is_empty() && report.wrong_shape.is_empty(), "{report}");
                tensors.extend(report.missing.iter().map(|tensor| make(&tensor.name, &tensor.shape)));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The tensors that a PANNs network asks for, with `tests/golden/panns.py`'s scale on the last norms of residual
/// blocks, whose names begin and end as given by `damped`.
pub fn panns_tensors<T>(
    seed: u64,
    damped: Option<(&str, &str)>,
    load: impl Fn(&Weights) -> clipwise::Result<T>,
) -> Vec<(String, Tensor)> {
    let make = |name: &str, shape: &[usize]| {
        let kind = match (shape.len(), name.starts_with("fc")) {
            (1, false) => Kind::Norm,
            (1 | 2, _) => Kind::Linear,
            _ => Kind::Conv,
        };
        let mut hashed = Hashed::new(seed);
        hashed.tensor(name, shape, kind);
        let (name, tensor) = hashed.tensors().remove(0);
        let is_last = damped.is_some_and(|(start, end)| name.starts_with(start) && name.ends_with(end));
        (name, if is_last { (tensor * 0.25).unwrap() } else { tensor })
    };
    complete(Vec::new(), load, make)
}

/// A checkpoint with tensors of these shapes, in a sparse file.
pub fn listed<'a>(shapes: impl IntoIterator<Item = (String, &'a [usize])>) -> Weights {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in shapes {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert(name, serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = serde_json::Value::Object(header).to_string();
    let name = format!("clipwise-listed-{}-{}.safetensors", std::process::id(), FILES.fetch_add(1, Relaxed));
    let path = std::env::temp_dir().join(name);
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    std::fs::write(&path, &bytes).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len((bytes.len() + end) as u64).unwrap();
    let weights = Weights::open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    weights
}
