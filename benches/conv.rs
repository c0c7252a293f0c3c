//! Each convolution of CNN14 on 10 s, compared with plain candle and with the matrix product equivalent to a direct
//! convolution: `cargo bench --bench conv`.
//!
//! Rates are in GFLOP/s of *direct* work, 2 · in · out · 9 · positions, whatever the algorithm. `product` is candle's
//! matrix product of that size, `[positions, 9 in] x [9 in, out]`, with patches already laid out: an upper bound for a
//! direct convolution based on it. `RAYON_NUM_THREADS` and `CANDLE_NUM_THREADS` set the number of threads.

mod turns;

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use clipwise::Weights;
use clipwise::nn::{Activation, ConvConfig, ConvStack, Pool2d, Pooling};
use turns::{medians, selected, side};

/// Name, rows, columns, input and output channels, whether pooled.
const LAYERS: [(&str, usize, usize, usize, usize, bool); 12] = [
    ("block1.conv1", 1001, 64, 1, 64, false),
    ("block1.conv2", 1001, 64, 64, 64, true),
    ("block2.conv1", 500, 32, 64, 128, false),
    ("block2.conv2", 500, 32, 128, 128, true),
    ("block3.conv1", 250, 16, 128, 256, false),
    ("block3.conv2", 250, 16, 256, 256, true),
    ("block4.conv1", 125, 8, 256, 512, false),
    ("block4.conv2", 125, 8, 512, 512, true),
    ("block5.conv1", 62, 4, 512, 1024, false),
    ("block5.conv2", 62, 4, 1024, 1024, true),
    ("block6.conv1", 31, 2, 1024, 2048, false),
    ("block6.conv2", 31, 2, 2048, 2048, false),
];

fn main() {
    turns::title("convolutions of CNN14, 10 s");
    println!("{:14} {:>24} {:>20} {:>10} {:>10}", "", "ours", "plain candle", "product", "candle /");
    let columns = ["layer", "ms", "GFLOP/s", "ms", "GFLOP/s", "GFLOP/s", "ours"];
    let [layer, ms, rate, candle_ms, candle_rate, product, ratio] = columns;
    println!("{layer:14} {ms:>12} {rate:>11} {candle_ms:>10} {candle_rate:>9} {product:>10} {ratio:>10}");
    let mut total = [0.0; 2];
    for (name, rows, columns, inputs, outputs, pooled) in LAYERS {
        if !selected(name) {
            continue;
        }
        let medians = layer_times((rows, columns), (inputs, outputs), pooled);
        let work = 2e-9 * (rows * columns * inputs * outputs * 9) as f64;
        let [ours, candle, product] = [0, 1, 2].map(|i| work / (medians[i] * 1e-3));
        println!(
            "{name:14} {:12.2} {ours:11.0} {:10.2} {candle:9.0} {product:10.0} {:10.1}",
            medians[0],
            medians[1],
            medians[1] / medians[0]
        );
        (total[0], total[1]) = (total[0] + medians[0], total[1] + medians[1]);
    }
    println!("{:14} {:12.2} {:22.2} {:30.1}", "all", total[0], total[1], total[1] / total[0]);
}

/// Median times of ours, of plain candle (both with batch norm, ReLU and pooling) and of the product.
fn layer_times((rows, columns): (usize, usize), (inputs, outputs): (usize, usize), pooled: bool) -> Vec<f64> {
    let device = Device::Cpu;
    let random =
        |shape: &[usize], scale: f64| Tensor::rand(-scale as f32, scale as f32, shape, &device).expect("a tensor");
    let weight = random(&[outputs, inputs, 3, 3], (3.0 / (9 * inputs) as f64).sqrt());
    let constant =
        |value: f64| (Tensor::ones(outputs, DType::F32, &device).expect("a tensor") * value).expect("a tensor");
    let tensors = [
        ("conv.weight", weight.clone()),
        ("bn.weight", constant(1.0)),
        ("bn.bias", constant(0.1)),
        ("bn.running_mean", constant(0.0)),
        ("bn.running_var", constant(1.0)),
    ];
    let weights = Weights::from_tensors(tensors.map(|(name, tensor)| (name.to_string(), tensor))).expect("weights");
    let loader = weights.loader(&device);
    let mut ours = ConvStack::on_maps(Some(columns));
    if inputs > 1 {
        // Within a stack, maps are already in blocks. A 1x1 pooling, which is not timed, converts the input.
        ours.pool(Pool2d { pooling: Pooling::Max, size: (1, 1) });
    }
    ours.end_stage();
    let config = ConvConfig { padding: 1, ..ConvConfig::new(inputs, outputs, 3) };
    ours.conv(&loader.at("conv"), Some(&loader.at("bn")), config, Activation::Relu).expect("a layer");
    if pooled {
        ours.pool(Pool2d { pooling: Pooling::Avg, size: (2, 2) });
    }
    ours.end_stage();
    let norm = candle_nn::BatchNorm::new(outputs, constant(0.0), constant(1.0), constant(1.0), constant(0.1), 1e-5);
    let norm = norm.expect("a norm");

    let x = random(&[1, inputs, rows, columns], 1.0);
    let timed = || {
        let mut ends = Vec::new();
        let observe = |_, _: &dyn Fn() -> _| {
            ends.push(Instant::now());
            Ok(())
        };
        ours.forward_observed(&x, observe).expect("maps");
        ends[1] - ends[0]
    };
    let candle = || {
        let y = x.conv2d(&weight, 1, 1, 1, 1)?;
        let y = candle_core::ModuleT::forward_t(&norm, &y, false)?.relu()?;
        if pooled { y.avg_pool2d(2) } else { Ok(y) }
    };
    let patches = random(&[rows * columns, 9 * inputs], 1.0);
    let filters = random(&[9 * inputs, outputs], 1.0);
    let sides = &mut [
        ("ours", Box::new(timed) as Box<dyn FnMut() -> _>),
        side("candle", move || candle().expect("a convolution")),
        side("product", move || patches.matmul(&filters).expect("a product")),
    ];
    medians(7, sides)
}
