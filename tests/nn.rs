//! Layers against PyTorch's.

mod common;

use candle_core::{Device, Tensor};
use clipwise::nn::{
    Activation, ConvAxis, ConvConfig, ConvStack, LayerNorm, Linear, LpPool2d, NormPlace, Pool1d, Pool2d, Pooling,
    SelfAttention, TransformerBlock,
};
use clipwise::weights::{Loader, Parameters};
use clipwise::{Error, Weights};
use common::{Random, assert_close, golden, hashed, values};

const WIDTH: usize = 24;
const N_TOKENS: usize = 70;

fn block(place: NormPlace) -> TransformerBlock {
    block_of(WIDTH, 40, place)
}

fn block_of(width: usize, hidden: usize, place: NormPlace) -> TransformerBlock {
    let parameter = |name: &str, shape: &[usize]| {
        let (low, high) = if name.contains("norm") && name.ends_with("weight") { (0.5, 1.5) } else { (-0.3, 0.3) };
        hashed(name, shape.iter().product(), low, high, 5)
    };
    let linear = |weight: &str, bias: &str, inputs: usize, outputs: usize, activation| {
        let (weight, bias) = (parameter(weight, &[outputs, inputs]), parameter(bias, &[outputs]));
        Linear::new(weight, bias, activation, &Device::Cpu).unwrap()
    };
    let norm = |name: &str| {
        let tensors = ["weight", "bias"].map(|leaf| {
            let values = parameter(&format!("{name}.{leaf}"), &[width]);
            (leaf.to_string(), Tensor::from_vec(values, width, &Device::Cpu).unwrap())
        });
        LayerNorm::load(&Weights::from_tensors(tensors).unwrap().loader(&Device::Cpu), width, 1e-5).unwrap()
    };
    let none = Activation::Identity;
    let qkv = linear("self_attn.in_proj_weight", "self_attn.in_proj_bias", width, 3 * width, none);
    let output = linear("self_attn.out_proj.weight", "self_attn.out_proj.bias", width, width, none);
    TransformerBlock {
        place,
        norm1: norm("norm1"),
        attention: SelfAttention::new(qkv, output, 3).unwrap(),
        norm2: norm("norm2"),
        fc1: linear("linear1.weight", "linear1.bias", width, hidden, Activation::Gelu),
        fc2: linear("linear2.weight", "linear2.bias", hidden, width, none),
        dropout: None,
    }
}

fn input() -> Tensor {
    let x = hashed("x", 3 * N_TOKENS * WIDTH, -2.0, 2.0, 5);
    Tensor::from_vec(x, (3, N_TOKENS, WIDTH), &Device::Cpu).unwrap()
}

#[test]
fn a_transformer_block_equals_pytorch() {
    let (expected, x, lengths) = (golden("transformer.safetensors"), input(), [70, 1, 33]);
    for (name, place) in [("before", NormPlace::Before), ("after", NormPlace::After)] {
        let block = block(place);
        let y = values(&block.forward(&x, None).unwrap());
        assert_close(name, &y, &expected.to_vec(name).unwrap(), 1e-5, 1e-5);
        // With lengths, only the valid tokens are compared.
        let y = values(&block.forward(&x, Some(&lengths)).unwrap());
        let expected = expected.to_vec(&format!("{name}.lengths")).unwrap();
        for (row, length) in lengths.into_iter().enumerate() {
            let inside = row * N_TOKENS * WIDTH..(row * N_TOKENS + length) * WIDTH;
            assert_close(&format!("{name} {length}"), &y[inside.clone()], &expected[inside], 1e-5, 1e-5);
        }
    }
}

#[test]
fn a_transformer_block_equals_its_layers_one_by_one() {
    for (batch, n_tokens, width, hidden) in [(1, 150, 48, 80), (3, N_TOKENS, 48, 192), (2, 64, 96, 1024)] {
        let x = hashed("x", batch * n_tokens * width, -2.0, 2.0, 5);
        let x = Tensor::from_vec(x, (batch, n_tokens, width), &Device::Cpu).unwrap();
        for place in [NormPlace::Before, NormPlace::After] {
            let block = block_of(width, hidden, place);
            let TransformerBlock { norm1, attention, norm2, fc1, fc2, .. } = &block;
            for lengths in [None, Some(&[33, 1, 20][..batch])] {
                let expected = match place {
                    NormPlace::Before => {
                        let x = attention.forward_add(&norm1.forward(&x).unwrap(), lengths, &x).unwrap();
                        fc2.forward_add(&fc1.forward(&norm2.forward(&x).unwrap()).unwrap(), &x).unwrap()
                    }
                    _ => {
                        let x = norm1.forward(&attention.forward_add(&x, lengths, &x).unwrap()).unwrap();
                        norm2.forward(&fc2.forward_add(&fc1.forward(&x).unwrap(), &x).unwrap()).unwrap()
                    }
                };
                let y = block.forward(&x, lengths).unwrap();
                assert_eq!(values(&y), values(&expected), "{place:?} {batch} x {n_tokens}");
                // One sequence may be too short for the block as one operation.
                let alone = block.forward(&x.narrow(0, 0, 1).unwrap(), lengths.map(|lengths| &lengths[..1])).unwrap();
                assert_eq!(values(&alone), values(&y.narrow(0, 0, 1).unwrap()));
            }
        }
    }
}

#[test]
fn layers_reject_mismatched_shapes() {
    let block = block(NormPlace::Before);
    let x = input();
    for lengths in [vec![], vec![1, 1], vec![0, 1, 1], vec![1, 1, N_TOKENS + 1]] {
        let error = block.forward(&x, Some(&lengths)).unwrap_err();
        assert!(matches!(error, Error::Argument { name: "lengths", .. }), "{error}");
    }
    for shape in [(3, N_TOKENS, WIDTH - 1), (3, 0, WIDTH), (0, N_TOKENS, WIDTH)] {
        let x = Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(block.forward(&x, None), Err(Error::Tensor { .. })), "{shape:?}");
    }
    let linear = |weight: usize, bias: usize| {
        Linear::new(vec![0.0; weight], vec![0.0; bias], Activation::Identity, &Device::Cpu)
    };
    assert!(linear(7, 2).is_err() && linear(0, 1).is_err() && linear(1, 0).is_err());
    assert!(SelfAttention::new(linear(24, 6).unwrap(), linear(4, 2).unwrap(), 3).is_err());
}

/// A convolution, its norm and its input, with weights as in a checkpoint.
struct Convolution {
    /// Input and output channels.
    channels: (usize, usize),
    kernel: Vec<usize>,
    stride: usize,
    padding: usize,
    /// `[batch, in, …]`.
    shape: Vec<usize>,
}

impl Convolution {
    fn weights(&self) -> Vec<(String, Tensor)> {
        let (inputs, outputs) = self.channels;
        let shape = [&[outputs, inputs], &self.kernel[..]].concat();
        let tensor = |name: &str, shape: &[usize], low: f64| {
            let values = hashed(name, shape.iter().product(), low, 1.0, 9);
            (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        };
        let norm = ["weight", "bias", "running_mean", "running_var"].map(|leaf| format!("bn.{leaf}"));
        let norm = norm.iter().map(|name| tensor(name, &[outputs], if name.ends_with("var") { 0.5 } else { -1.0 }));
        [tensor("conv.weight", &shape, -1.0), tensor("conv.bias", &[outputs], -1.0)].into_iter().chain(norm).collect()
    }

    fn input(&self) -> Tensor {
        let n = self.shape.iter().product();
        Tensor::from_vec(hashed("x", n, -1.0, 1.0, 10), self.shape.as_slice(), &Device::Cpu).unwrap()
    }

    /// By definition, in f64; `None` if the padded map is smaller than the kernel.
    fn naive(&self) -> Option<Vec<f32>> {
        let values: Vec<Vec<f32>> = self.weights().iter().map(|(_, tensor)| values(tensor)).collect();
        let [filters, bias, scale, shift, mean, variance] = &values[..] else { unreachable!() };
        let (x, (inputs, outputs)) = (common::values(&self.input()), self.channels);
        // A sequence is a map of one column.
        let is_1d = self.kernel.len() == 1;
        let (kernel, padding) =
            if is_1d { ([self.kernel[0], 1], [self.padding, 0]) } else { ([self.kernel[0]; 2], [self.padding; 2]) };
        let (height, width) = (self.shape[2], if is_1d { 1 } else { self.shape[3] });
        let axis = |i: usize, n: usize| Some((n + 2 * padding[i]).checked_sub(kernel[i])? / self.stride + 1);
        let (rows, columns) = (axis(0, height)?, if is_1d { 1 } else { axis(1, width)? });
        let mut y = Vec::new();
        for place in 0..self.shape[0] * outputs * rows * columns {
            let (item, output) = (place / (outputs * rows * columns), place / (rows * columns) % outputs);
            let (row, column) = (place / columns % rows * self.stride, place % columns * self.stride);
            let mut sum = f64::from(bias[output]);
            for (input, i, j) in (0..inputs)
                .flat_map(|input| (0..kernel[0]).flat_map(move |i| (0..kernel[1]).map(move |j| (input, i, j))))
            {
                let (i_in, j_in) = ((row + i).wrapping_sub(padding[0]), (column + j).wrapping_sub(padding[1]));
                if i_in < height && j_in < width {
                    let filter = filters[((output * inputs + input) * kernel[0] + i) * kernel[1] + j];
                    sum += f64::from(filter) * f64::from(x[((item * inputs + input) * height + i_in) * width + j_in]);
                }
            }
            let scale = f64::from(scale[output]) / (f64::from(variance[output]) + 1e-5).sqrt();
            y.push(((sum - f64::from(mean[output])) * scale + f64::from(shift[output])) as f32);
        }
        Some(y)
    }

    /// The layer packed for the kernels, with and without a known width of its maps, and in training.
    fn check(&self) {
        let (what, expected, x) = (format!("{:?} {:?}", self.kernel, self.shape), self.naive(), self.input());
        let what = format!("{:?} {what} stride {} padding {}", self.channels, self.stride, self.padding);
        let packed = Weights::from_tensors(self.weights()).unwrap();
        let trained = Parameters::new(&Device::Cpu, 1);
        let made = self.forward(&trained.loader(), None, &x);
        assert_eq!((made.is_ok(), trained.restore(&packed).unwrap()), (expected.is_some(), 6), "{what}");
        for (mode, loader, width) in [
            ("packed", packed.loader(&Device::Cpu), None),
            ("packed for its width", packed.loader(&Device::Cpu), Some(*self.shape.last().unwrap())),
            ("trained", trained.loader(), None),
        ] {
            let y = self.forward(&loader, width, &x);
            match &expected {
                Some(expected) => {
                    let tolerance = 1e-4; // for sums of up to 300 products of values up to 1
                    assert_close(&format!("{mode} {what}"), &values(&y.unwrap()), expected, tolerance, 1e-5);
                }
                None => assert!(matches!(y, Err(Error::Tensor { .. })), "{mode} {what}"),
            }
        }
    }

    fn forward(&self, loader: &Loader, width: Option<usize>, x: &Tensor) -> clipwise::Result<Tensor> {
        let mut stack = if self.kernel.len() == 1 { ConvStack::on_sequences() } else { ConvStack::on_maps(width) };
        stack.conv(&loader.at("conv"), Some(&loader.at("bn")), self.config(), Activation::Identity)?;
        stack.forward(x)
    }

    fn config(&self) -> ConvConfig {
        let Self { channels: (inputs, outputs), stride, padding, .. } = *self;
        ConvConfig { stride, padding, bias: true, ..ConvConfig::new(inputs, outputs, self.kernel[0]) }
    }
}

#[test]
fn convolutions_of_narrow_maps_equal_their_definition() {
    let mut random = Random(3);
    for (kernel, stride, padding) in
        (1..=5).flat_map(|kernel| (1..=3).flat_map(move |stride| (0..=3).map(move |padding| (kernel, stride, padding))))
    {
        for width in 1..=4 {
            let channels = ([1, 3, 6, 18][random.below(4)], [1, 5, 20][random.below(3)]);
            let (batch, height) = (1 + random.below(2), 1 + random.below(7));
            let shape = vec![batch, channels.0, height, width];
            Convolution { channels, kernel: vec![kernel; 2], stride, padding, shape }.check();
            let shape = vec![batch, channels.0, width];
            Convolution { channels, kernel: vec![kernel], stride, padding, shape }.check();
        }
    }
}

/// Groups, other sizes along the width, one-sided padding, transposed filters and another ε: packed, with candle's
/// operations, and in training.
#[test]
fn convolutions_of_every_shape_equal_their_definition() {
    let wide = ConvAxis { kernel: 5, stride: 1, padding: 2, padding_after: None };
    let long = ConvAxis { kernel: 1, stride: 2, padding: 0, padding_after: Some(1) };
    let same = ConvConfig { stride: 2, padding: 0, padding_after: Some(1), ..ConvConfig::new(6, 20, 3) };
    for config in [
        ConvConfig::depthwise(20, 3),
        ConvConfig { stride: 2, ..ConvConfig::depthwise(20, 5) },
        ConvConfig { along_width: Some(wide), stride: 2, ..ConvConfig::depthwise(17, 3) },
        ConvConfig { along_width: Some(long), ..ConvConfig::depthwise(3, 4) },
        ConvConfig { groups: 20, in_channels: 20, ..same },
        same,
        ConvConfig { along_width: Some(wide), ..same },
        ConvConfig { along_width: Some(long), ..ConvConfig::new(6, 20, 1) },
        ConvConfig::new(20, 40, 1),
    ] {
        let ConvConfig { in_channels, out_channels, groups, .. } = config;
        let rows = ConvAxis {
            kernel: config.kernel,
            stride: config.stride,
            padding: config.padding,
            padding_after: config.padding_after,
        };
        let axes = [rows, config.along_width.unwrap_or(rows)];
        let (size, inputs) = ([8, 6], in_channels / groups);
        let [out_rows, out_columns] = [0, 1].map(|i| {
            let ConvAxis { kernel, stride, padding, padding_after } = axes[i];
            (size[i] + padding + padding_after.unwrap_or(padding) - kernel) / stride + 1
        });
        for swapped in [false, true] {
            let (k0, k1) = if swapped { (axes[1].kernel, axes[0].kernel) } else { (axes[0].kernel, axes[1].kernel) };
            let mut tensors = vec![("conv.weight".to_string(), vec![out_channels, inputs, k0, k1])];
            tensors.extend(
                ["weight", "bias", "running_mean", "running_var"]
                    .map(|leaf| (format!("bn.{leaf}"), vec![out_channels])),
            );
            let tensors = tensors.into_iter().map(|(name, shape)| {
                let low = if name.ends_with("var") { 0.01 } else { -1.0 };
                let values = hashed(&name, shape.iter().product(), low, 1.0, 4);
                (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
            });
            let tensors: Vec<_> = tensors.collect();
            let host: Vec<Vec<f32>> = tensors.iter().map(|(_, tensor)| values(tensor)).collect();
            let x = hashed("x", 2 * in_channels * size[0] * size[1], -1.0, 1.0, 4);
            let mut expected = Vec::new();
            for place in 0..2 * out_channels * out_rows * out_columns {
                let (item, output) =
                    (place / out_columns / out_rows / out_channels, place / out_columns / out_rows % out_channels);
                let at = [place / out_columns % out_rows, place % out_columns];
                let mut sum = 0.0;
                for tap in 0..inputs * k0 * k1 {
                    let (input, i, j) = (tap / k1 / k0, tap / k1 % k0, tap % k1);
                    let taps = if swapped { [j, i] } else { [i, j] };
                    let seen = [0, 1].map(|i| (at[i] * axes[i].stride + taps[i]).wrapping_sub(axes[i].padding));
                    if seen[0] < size[0] && seen[1] < size[1] {
                        let channel = if groups > 1 { output } else { input };
                        let x = x[((item * in_channels + channel) * size[0] + seen[0]) * size[1] + seen[1]];
                        sum += f64::from(x) * f64::from(host[0][output * inputs * k0 * k1 + tap]);
                    }
                }
                let [scale, shift, mean, variance] = [1, 2, 3, 4].map(|i| f64::from(host[i][output]));
                expected.push(((sum - mean) / (variance + 1e-3).sqrt() * scale + shift).clamp(0.0, 6.0) as f32);
            }
            let x = Tensor::from_vec(x, (2, in_channels, size[0], size[1]), &Device::Cpu).unwrap();
            let run = |loader: &Loader, width| {
                let mut stack = ConvStack::on_maps(width).with_norm_eps(1e-3);
                stack = if swapped { stack.with_swapped_filters() } else { stack };
                stack.conv(&loader.at("conv"), Some(&loader.at("bn")), config, Activation::Relu6).unwrap();
                stack
            };
            let weights = Weights::from_tensors(tensors).unwrap();
            let (trained, packed) = (Parameters::new(&Device::Cpu, 1), weights.loader(&Device::Cpu));
            let stacks = [
                run(&packed, None),
                run(&packed, Some(size[1])),
                run(&packed.clone().without_kernels(), None),
                run(&trained.loader(), None),
            ];
            assert_eq!(trained.restore(&weights).unwrap(), 5);
            for (mode, stack) in stacks.iter().enumerate() {
                let y = stack.forward(&x).unwrap();
                assert_eq!(y.dims(), [2, out_channels, out_rows, out_columns]);
                assert_close(&format!("{mode} {config:?}"), &values(&y), &expected, 1e-4, 1e-5);
            }
        }
    }
}

#[test]
fn a_padded_convolution_of_one_value_equals_pytorch() {
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    let weights = [
        ("conv.weight", tensor(&[2.0], &[1, 1, 1, 1])),
        ("bn.weight", tensor(&[(1.0f32 + 1e-5).sqrt()], &[1])),
        ("bn.bias", tensor(&[0.5], &[1])),
        ("bn.running_mean", tensor(&[0.0], &[1])),
        ("bn.running_var", tensor(&[1.0], &[1])),
    ];
    let weights = Weights::from_tensors(weights.map(|(name, tensor)| (name.to_string(), tensor))).unwrap();
    let loader = weights.loader(&Device::Cpu);
    for width in [None, Some(1)] {
        let config = ConvConfig { padding: 1, ..ConvConfig::new(1, 1, 1) };
        let mut stack = ConvStack::on_maps(width);
        stack.conv(&loader.at("conv"), Some(&loader.at("bn")), config, Activation::Identity).unwrap();
        let y = stack.forward(&tensor(&[3.0], &[1, 1, 1, 1])).unwrap();
        assert_eq!(y.dims(), [1, 1, 3, 3]);
        // torch.nn.functional.conv2d(x, 2, padding=1) + 0.5
        assert_close("3 x 3", &values(&y), &[0.5, 0.5, 0.5, 0.5, 6.5, 0.5, 0.5, 0.5, 0.5], 1e-6, 0.0);
    }
}

#[test]
fn convolutions_and_poolings_reject_mismatched_shapes() {
    let convolution = Convolution { channels: (2, 3), kernel: vec![3], stride: 1, padding: 1, shape: vec![1, 2, 4] };
    let weights = Weights::from_tensors(convolution.weights()).unwrap();
    let loader = weights.loader(&Device::Cpu);
    let good = convolution.config();
    let load = |config| {
        let mut stack = ConvStack::on_sequences();
        stack.conv(&loader.at("conv"), Some(&loader.at("bn")), config, Activation::Identity).map(|()| stack)
    };
    for (field, config) in [
        ("in_channels", ConvConfig { in_channels: 0, ..good }),
        ("out_channels", ConvConfig { out_channels: 0, ..good }),
        ("kernel", ConvConfig { kernel: 0, ..good }),
        ("stride", ConvConfig { stride: 0, ..good }),
        ("groups", ConvConfig { groups: 2, ..good }),
        ("groups", ConvConfig { groups: 0, ..good }),
        ("padding", ConvConfig { padding_after: Some(usize::MAX), ..good }),
        (
            "along_width",
            ConvConfig {
                along_width: Some(ConvAxis { kernel: 1, stride: 1, padding: 0, padding_after: None }),
                ..good
            },
        ),
    ] {
        let error = load(config).unwrap_err();
        assert!(
            matches!(error, Error::Config { field: named, .. } | Error::Argument { name: named, .. } if named == field),
            "{error}"
        );
    }
    let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    let conv = load(good).unwrap();
    for padding in [usize::MAX, usize::MAX / 2, usize::MAX / 4, 1 << 17] {
        let error = load(ConvConfig { padding, ..good }).unwrap_err();
        assert!(matches!(error, Error::Config { field: "padding", .. }), "{error}");
    }
    for shape in [[0, 2, 4], [1, 0, 4], [1, 2, 0], [1, 3, 4]] {
        assert!(matches!(conv.forward(&zeros(&shape)), Err(Error::Tensor { .. })), "{shape:?}");
    }
    // A sequence has no columns, even if a kernel could process it, and a map is not a sequence.
    for kernel in [3, 1] {
        let convolution = Convolution { kernel: vec![kernel], shape: vec![1, 2, 4], ..convolution };
        let weights = Weights::from_tensors(convolution.weights()).unwrap();
        for width in [1, 2] {
            let wide = convolution.forward(&weights.loader(&Device::Cpu), None, &zeros(&[1, 2, 4, width]));
            assert!(matches!(wide, Err(Error::Tensor { .. })), "kernel {kernel}");
        }
        let square = Convolution { kernel: vec![kernel; 2], ..convolution };
        let weights = Weights::from_tensors(square.weights()).unwrap();
        for x in [zeros(&[1, 2, 4]), zeros(&[1, 2, 4, 0]), zeros(&[1, 2, 0, 4])] {
            let refused = square.forward(&weights.loader(&Device::Cpu), None, &x);
            assert!(matches!(refused, Err(Error::Tensor { .. })), "kernel {kernel} of {:?}", x.dims());
        }
    }
    for pooling in [Pooling::Avg, Pooling::Max, Pooling::AvgMax] {
        for (shape, size) in [
            ([1, 0, 4, 4], (2, 2)),
            ([0, 1, 4, 4], (2, 2)),
            ([1, 1, 0, 4], (1, 1)),
            ([1, 1, 4, 0], (1, 1)),
            ([1, 1, 4, 4], (0, 1)),
            ([1, 1, 4, 4], (1, 0)),
            ([1, 1, 4, 4], (5, 1)),
            ([1, 1, 4, 4], (1, usize::MAX)),
        ] {
            let pooled = Pool2d { pooling, size }.forward(&zeros(&shape));
            assert!(matches!(pooled, Err(Error::Tensor { .. })), "{pooling:?} {size:?} of {shape:?}");
        }
    }
    // Without and with gradients.
    let variable = |shape: &[usize]| candle_core::Var::from_tensor(&zeros(shape)).unwrap().as_tensor().clone();
    for (shape, size) in
        [([1, 1, 4, 4], (0, 1)), ([1, 1, 4, 4], (1, 0)), ([1, 1, 4, 4], (5, 1)), ([1, 1, 0, 4], (1, 1))]
    {
        for x in [zeros(&shape), variable(&shape)] {
            let pooled = LpPool2d { power: 4, size }.forward(&x);
            assert!(matches!(pooled, Err(Error::Tensor { .. })), "{size:?} of {shape:?}");
            for pooling in [Pooling::Avg, Pooling::Max, Pooling::AvgMax] {
                assert!(matches!(Pool2d { pooling, size }.forward(&x), Err(Error::Tensor { .. })), "{size:?}");
            }
        }
    }
    for (length, size, padding) in [(0, 2, 1), (4, 0, 0), (4, 2, 2), (4, usize::MAX, usize::MAX / 2)] {
        let pooled = Pool1d { size, padding }.forward(&zeros(&[1, 2, length]));
        assert!(matches!(pooled, Err(Error::Tensor { .. })), "{size} {padding} of {length}");
    }
}

/// A stack with every layer that may stand between two convolutions, against candle's operations.
#[test]
fn a_stack_equals_its_layers_one_by_one() {
    let tensor = |name: &str, shape: &[usize], low: f64| {
        let values = hashed(name, shape.iter().product(), low, 1.0, 3);
        (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let norm = |name: &str, channels: usize| {
        ["weight", "bias", "running_mean", "running_var"]
            .map(|leaf| tensor(&format!("{name}.{leaf}"), &[channels], if leaf == "running_var" { 0.5 } else { -1.0 }))
    };
    let mut tensors = vec![tensor("a.weight", &[20, 2, 3, 3], -1.0), tensor("b.weight", &[40, 20, 3, 3], -0.3)];
    tensors.extend([tensor("b.bias", &[40], -1.0)].into_iter().chain(norm("an", 20)).chain(norm("n", 40)));
    let find = |name: &str| tensors.iter().find(|(full, _)| full == name).unwrap().1.clone();
    let affine = |x: &Tensor, norm: &str| {
        let part = |leaf: &str| find(&format!("{norm}.{leaf}")).reshape((1, (), 1, 1)).unwrap();
        let scale = (part("weight") / (part("running_var") + 1e-5).unwrap().sqrt().unwrap()).unwrap();
        let centred = x.broadcast_sub(&part("running_mean")).unwrap();
        centred.broadcast_mul(&scale).unwrap().broadcast_add(&part("bias")).unwrap()
    };
    let x = tensor("x", &[2, 2, 9, 8], -1.0).1;
    // By definition.
    let first = affine(&x.conv2d(&find("a.weight"), 1, 1, 1, 1).unwrap(), "an").relu().unwrap().max_pool2d(2).unwrap();
    let bias = find("b.bias").reshape((1, (), 1, 1)).unwrap();
    let twice = Tensor::stack(&[&first, &first], 2).unwrap().reshape((2, 40, 4, 4)).unwrap();
    let inner = first.conv2d(&find("b.weight"), 1, 1, 1, 1).unwrap().broadcast_add(&bias).unwrap();
    let second = affine(&affine(&(inner + twice).unwrap(), "n").relu().unwrap(), "n");
    let third = (second.sqr().unwrap().avg_pool2d(2).unwrap() * 4.0).unwrap().sqrt().unwrap();

    let weights = Weights::from_tensors(tensors.clone()).unwrap();
    let trained = Parameters::new(&Device::Cpu, 1);
    for (mode, loader) in [("packed", weights.loader(&Device::Cpu)), ("trained", trained.loader())] {
        let mut stack = ConvStack::on_maps(Some(8));
        let config = ConvConfig { padding: 1, ..ConvConfig::new(2, 20, 3) };
        stack.conv(&loader.at("a"), Some(&loader.at("an")), config, Activation::Relu).unwrap();
        stack.pool(Pool2d { pooling: Pooling::Max, size: (2, 2) });
        stack.end_stage();
        let config = ConvConfig { padding: 1, bias: true, ..ConvConfig::new(20, 40, 3) };
        stack.residual(2, |stack| stack.conv(&loader.at("b"), None, config, Activation::Identity)).unwrap();
        stack.batch_norm(&loader.at("n"), 40, Activation::Relu).unwrap();
        stack.batch_norm(&loader.at("n"), 40, Activation::Identity).unwrap();
        stack.end_stage();
        stack.lp_pool(LpPool2d { power: 2, size: (2, 2) });
        trained.restore(&weights).unwrap();
        let mut stages = Vec::new();
        let y = stack.forward_observed(&x, |i, x| {
            stages.push((i, x()?));
            Ok(())
        });
        stages.push((2, y.unwrap()));
        for ((i, got), expected) in stages.into_iter().zip([&first, &second, &third]) {
            assert_eq!(got.dims(), expected.dims(), "{mode} {i}");
            assert_close(&format!("{mode} {i}"), &values(&got), &values(expected), 1e-4, 1e-4);
        }
    }
}

/// An EfficientAT block: a squeeze-and-excitation inside a residual connection.
#[test]
fn a_squeeze_excitation_in_a_residual_block_equals_its_definition() {
    for (channels, height, width) in [(5, 3, 4), (40, 70, 13), (16, 1, 1)] {
        let tensor = |name: &str, shape: &[usize]| {
            let values = hashed(name, shape.iter().product(), -1.0, 1.0, 6);
            (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        };
        let tensors = [
            tensor("conv.weight", &[channels, channels, 1, 1]),
            tensor("fc1.weight", &[7, channels]),
            tensor("fc1.bias", &[7]),
            tensor("fc2.weight", &[channels, 7]),
            tensor("fc2.bias", &[channels]),
        ];
        let find = |name: &str| tensors.iter().find(|(full, _)| full == name).unwrap().1.clone();
        let x = tensor("x", &[2, channels, height, width]).1;
        let y = x.conv2d(&find("conv.weight"), 0, 1, 1, 1).unwrap();
        let layer = |x: &Tensor, name: &str| {
            let y = x.matmul(&find(&format!("{name}.weight")).t().unwrap()).unwrap();
            y.broadcast_add(&find(&format!("{name}.bias"))).unwrap()
        };
        let squeezed = layer(&y.mean((2, 3)).unwrap(), "fc1").relu().unwrap();
        let gates = (candle_nn::ops::sigmoid(&layer(&squeezed, "fc2"))).unwrap().reshape((2, channels, 1, 1)).unwrap();
        let expected = (y.broadcast_mul(&gates).unwrap() + &x).unwrap();
        let weights = Weights::from_tensors(tensors.clone()).unwrap();
        let (trained, packed) = (Parameters::new(&Device::Cpu, 1), weights.loader(&Device::Cpu));
        let stack = |loader: &Loader| {
            let mut stack = ConvStack::on_maps(None);
            // So that the residual branch begins with a map in blocks.
            stack.pool(Pool2d { pooling: Pooling::Max, size: (1, 1) });
            let add = |stack: &mut ConvStack| {
                stack.conv(&loader.at("conv"), None, ConvConfig::new(channels, channels, 1), Activation::Identity)?;
                stack.squeeze_excitation([&loader.at("fc1"), &loader.at("fc2")], channels, 7, Activation::Sigmoid)
            };
            stack.residual(1, add).unwrap();
            stack
        };
        let stacks = [stack(&packed), stack(&packed.clone().without_kernels()), stack(&trained.loader())];
        trained.restore(&weights).unwrap();
        for (mode, stack) in stacks.iter().enumerate() {
            let y = values(&stack.forward(&x).unwrap());
            assert_close(&format!("{mode} {channels}"), &y, &values(&expected), 2e-5, 1e-5);
            let alone = values(&stack.forward(&x.narrow(0, 1, 1).unwrap()).unwrap());
            // Without kernels (mode 1) and in training, products are the gemm crate's, which on aarch64 sums one row in another
            // order than two.
            if mode == 0 || cfg!(target_arch = "x86_64") {
                assert_eq!(&y[y.len() / 2..], alone, "{mode} {channels}");
            } else {
                assert_close(&format!("{mode} {channels} alone"), &alone, &y[y.len() / 2..], 1e-6, 1e-6);
            }
        }
    }
}

/// Sequences in a batch, with arbitrary padding after their ends, give the same as each alone.
#[test]
fn a_stack_of_vectors_ignores_the_padding_of_each_sequence() {
    for channels in [16, 5] {
        let tensor = |name: &str, shape: &[usize]| {
            let values = hashed(name, shape.iter().product(), -1.0, 1.0, 4);
            (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        };
        let weights = [tensor("a.weight", &[32, channels, 3]), tensor("b.weight", &[7, 32, 3])];
        let weights = Weights::from_tensors(weights).unwrap();
        let loader = weights.loader(&Device::Cpu);
        let mut stack = ConvStack::on_sequences();
        let config = ConvConfig { padding: 1, ..ConvConfig::new(channels, 32, 3) };
        stack.conv(&loader.at("a"), None, config, Activation::Gelu).unwrap();
        let config = ConvConfig { padding: 1, stride: 2, ..ConvConfig::new(32, 7, 3) };
        stack.conv(&loader.at("b"), None, config, Activation::Relu).unwrap();

        let (x, lengths) = (tensor("x", &[3, 9, channels]).1, [9, 4, 1]);
        let all = stack.forward_vectors(&x, Some(&lengths)).unwrap();
        assert_eq!(all.dims(), [3, 5, 7]);
        for (row, length) in lengths.into_iter().enumerate() {
            let alone = x.narrow(0, row, 1).unwrap().narrow(1, 0, length).unwrap();
            let expected = stack.forward(&alone.transpose(1, 2).unwrap()).unwrap().transpose(1, 2).unwrap();
            assert_eq!(values(&stack.forward_vectors(&alone, None).unwrap()), values(&expected));
            let got = all.narrow(0, row, 1).unwrap().narrow(1, 0, length.div_ceil(2)).unwrap();
            assert_close(&format!("{channels} {length}"), &values(&got), &values(&expected), 1e-6, 0.0);
        }
    }
}

/// Averaging before norm and activation, against separate layers.
#[test]
fn an_averaged_convolution_equals_a_pooling_before_its_norm() {
    let averaged = |averaged: usize, config: ConvConfig| ConvConfig { averaged, ..config };
    let padded = ConvConfig { padding: 1, ..ConvConfig::new(1, 20, 3) };
    for config in [
        averaged(2, padded),
        averaged(2, ConvConfig { in_channels: 20, ..padded }),
        averaged(2, ConvConfig::depthwise(20, 3)),
        averaged(3, ConvConfig::depthwise(17, 3)),
        averaged(2, ConvConfig::new(16, 20, 1)),
    ] {
        let ConvConfig { in_channels, out_channels, groups, kernel, .. } = config;
        let mut tensors = vec![("conv.weight".to_string(), vec![out_channels, in_channels / groups, kernel, kernel])];
        let norm = ["weight", "bias", "running_mean", "running_var"];
        tensors.extend(norm.map(|leaf| (format!("bn.{leaf}"), vec![out_channels])));
        let weights = Weights::from_tensors(tensors.into_iter().map(|(name, shape)| {
            let values = hashed(&name, shape.iter().product(), if name.ends_with("var") { 0.1 } else { -1.0 }, 1.0, 5);
            (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        }))
        .unwrap();
        let trained = Parameters::new(&Device::Cpu, 1);
        for (mode, loader, is_training) in [
            ("packed", weights.loader(&Device::Cpu), false),
            ("tensors", weights.loader(&Device::Cpu).without_kernels(), false),
            ("trained", trained.loader(), false),
            ("in training", trained.loader(), true),
        ] {
            for (height, width) in [(9, 8), (8, 7), (24, 12)] {
                let (conv, norm) = (loader.at("conv"), loader.at("bn"));
                let mut stacks = [ConvStack::on_maps(Some(width)), ConvStack::on_maps(None)];
                stacks[0].conv(&conv, Some(&norm), config, Activation::Relu6).unwrap();
                let size = (config.averaged, config.averaged);
                stacks[1].conv(&conv, None, averaged(1, config), Activation::Identity).unwrap();
                stacks[1].pool(Pool2d { pooling: Pooling::Avg, size });
                stacks[1].batch_norm(&norm, out_channels, Activation::Relu6).unwrap();
                trained.restore(&weights).unwrap();
                trained.set_training(is_training);
                let x = hashed("x", 2 * in_channels * height * width, -1.0, 1.0, 5);
                let x = Tensor::from_vec(x, (2, in_channels, height, width), &Device::Cpu).unwrap();
                let [got, expected] = stacks.each_ref().map(|stack| stack.forward(&x).unwrap());
                assert_eq!(got.dims(), expected.dims(), "{mode} {config:?}");
                assert_close(&format!("{mode} {config:?}"), &values(&got), &values(&expected), 2e-5, 1e-5);
            }
        }
    }
    let mut stack = ConvStack::on_sequences();
    let loader = Parameters::new(&Device::Cpu, 1);
    for config in [averaged(2, ConvConfig::new(1, 1, 3)), averaged(0, ConvConfig::new(1, 1, 3))] {
        let refused = stack.conv(&loader.loader(), None, config, Activation::Relu);
        assert!(matches!(refused, Err(Error::Config { field: "averaged", .. })), "{refused:?}");
    }
}

/// Shortcuts with and without layers, and an activation of the sum, before layers that read and layers that overwrite
/// their input.
#[test]
fn shortcuts_equal_their_definitions() {
    let tensor = |name: &str, shape: &[usize]| {
        let values = hashed(name, shape.iter().product(), -1.0, 1.0, 9);
        (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let tensors = [tensor("a.weight", &[20, 5, 3]), tensor("b.weight", &[20, 5, 1]), tensor("c.weight", &[20, 20, 3])];
    let find = |name: &str| tensors.iter().find(|(full, _)| full == name).unwrap().1.clone();
    let x = tensor("x", &[2, 5, 23]).1;
    let narrow = x.narrow(2, 0, 22).unwrap().reshape((2, 5, 11, 2)).unwrap();
    let connected = narrow.mean(3).unwrap().conv1d(&find("b.weight"), 0, 1, 1, 1).unwrap();
    let first = narrow.max(3).unwrap().conv1d(&find("a.weight"), 1, 1, 1, 1).unwrap();
    let first = (first + connected).unwrap().relu().unwrap();
    let second = (first.conv1d(&find("c.weight"), 1, 1, 1, 1).unwrap() + &first).unwrap().relu().unwrap();
    let second = (second - 1.0).unwrap();
    let third = (second.elu(1.0).unwrap() + &second).unwrap();

    let norm = [("weight", 1.0), ("bias", -1.0), ("running_mean", 0.0), ("running_var", 1.0 - 1e-5)];
    let norm = norm.map(|(leaf, x)| (format!("n.{leaf}"), Tensor::full(x as f32, 20, &Device::Cpu).unwrap()));
    let weights = Weights::from_tensors(tensors.clone().into_iter().chain(norm)).unwrap();
    let trained = Parameters::new(&Device::Cpu, 1);
    for (mode, loader) in [
        ("packed", weights.loader(&Device::Cpu)),
        ("tensors", weights.loader(&Device::Cpu).without_kernels()),
        ("trained", trained.loader()),
    ] {
        let mut stack = ConvStack::on_sequences();
        let conv = |stack: &mut ConvStack, name: &str, inputs: usize, kernel: usize| {
            let config = ConvConfig { padding: kernel / 2, ..ConvConfig::new(inputs, 20, kernel) };
            stack.conv(&loader.at(name), None, config, Activation::Identity)
        };
        let connect = |stack: &mut ConvStack| {
            stack.pool(Pool2d { pooling: Pooling::Avg, size: (2, 1) });
            conv(stack, "b", 5, 1)
        };
        let pool_and_conv = |stack: &mut ConvStack| {
            stack.pool(Pool1d { size: 2, padding: 0 });
            conv(stack, "a", 5, 3)
        };
        stack.shortcut(connect, pool_and_conv).unwrap();
        stack.activation(Activation::Relu);
        stack.residual(1, |stack| conv(stack, "c", 20, 3)).unwrap();
        stack.activation(Activation::Relu);
        stack.batch_norm(&loader.at("n"), 20, Activation::Identity).unwrap();
        let activate = |stack: &mut ConvStack| {
            stack.activation(Activation::Elu);
            Ok(())
        };
        stack.residual(1, activate).unwrap();
        trained.restore(&weights).unwrap();
        assert_close(mode, &values(&stack.forward(&x).unwrap()), &values(&third), 1e-5, 1e-5);
    }
}

/// SEANet's layers against candle's operations on sequences padded by hand.
#[test]
fn mirrored_sequences_activations_and_shortcuts_equal_their_definitions() {
    // Mirrors `before` and `after` positions; a sequence that is too short is first extended by zeros, which are
    // removed again.
    let mirrored = |x: &Tensor, before: usize, after: usize| {
        let length = x.dims()[2];
        let missing = (before.max(after) + 1).saturating_sub(length);
        let x = x.pad_with_zeros(2, 0, missing).unwrap();
        let place = |i: usize| (i as isize - before as isize).unsigned_abs();
        let fold = |i: usize| if i >= length + missing { 2 * (length + missing - 1) - i } else { i };
        let places: Vec<u32> = (0..before + length + after).map(|i| fold(place(i)) as u32).collect();
        x.index_select(&Tensor::new(places, &Device::Cpu).unwrap(), 2).unwrap()
    };
    for (channels, inner) in [(16, 32), (3, 5), (1, 2), (20, 16)] {
        let tensor = |name: &str, shape: &[usize], low: f64| {
            let values = hashed(name, shape.iter().product(), low, 1.0, 8);
            (name.to_string(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        };
        let tensors = vec![
            tensor("a.weight", &[inner, channels, 3], -1.0),
            tensor("a.bias", &[inner], -1.0),
            tensor("b.weight", &[channels, inner, 1], -1.0),
            tensor("c.weight", &[channels, channels, 1], -1.0),
            tensor("d.weight", &[7, channels, 10], -1.0),
            tensor("alpha", &[1, inner, 1], 0.5),
        ];
        let find = |name: &str| tensors.iter().find(|(full, _)| full == name).unwrap().1.clone();
        let weights = Weights::from_tensors(tensors.clone()).unwrap();
        let trained = Parameters::new(&Device::Cpu, 1);
        for (mode, loader) in [
            ("packed", weights.loader(&Device::Cpu)),
            ("tensors", weights.loader(&Device::Cpu).without_kernels()),
            ("trained", trained.loader()),
        ] {
            let mut stack = ConvStack::on_sequences();
            let a = ConvConfig { dilation: 4, bias: true, ..ConvConfig::new(channels, inner, 3) };
            let connect = |stack: &mut ConvStack| {
                stack.conv(&loader.at("c"), None, ConvConfig::new(channels, channels, 1), Activation::Identity)
            };
            stack
                .shortcut(connect, |stack| {
                    stack.activation(Activation::Elu);
                    stack.reflect_pad(&a)?;
                    stack.conv(&loader.at("a"), None, a, Activation::Elu)?;
                    stack.snake(&loader, inner)?;
                    stack.conv(&loader.at("b"), None, ConvConfig::new(inner, channels, 1), Activation::Identity)
                })
                .unwrap();
            let d = ConvConfig { stride: 5, ..ConvConfig::new(channels, 7, 10) };
            stack.reflect_pad(&d).unwrap();
            stack.conv(&loader.at("d"), None, d, Activation::Identity).unwrap();
            trained.restore(&weights).unwrap();
            for length in [1, 2, 4, 5, 9, 13, 250] {
                let x = (tensor("x", &[2, channels, length], -1.0).1 * 3.0).unwrap();
                let bias = find("a.bias").reshape((1, (), 1)).unwrap();
                let y = mirrored(&x.elu(1.0).unwrap(), 4, 4).conv1d(&find("a.weight"), 0, 1, 4, 1).unwrap();
                let y = y.broadcast_add(&bias).unwrap().elu(1.0).unwrap();
                let alpha = find("alpha");
                let sine = y.broadcast_mul(&alpha).unwrap().sin().unwrap().sqr().unwrap();
                let y =
                    (y + sine.broadcast_div(&alpha).unwrap()).unwrap().conv1d(&find("b.weight"), 0, 1, 1, 1).unwrap();
                let y = (y + x.conv1d(&find("c.weight"), 0, 1, 1, 1).unwrap()).unwrap();
                let y = mirrored(&y, 3, 2 + length.next_multiple_of(5) - length);
                let expected = y.conv1d(&find("d.weight"), 0, 5, 1, 1).unwrap();

                let got = stack.forward(&x).unwrap();
                assert_eq!(got.dims(), [2, 7, length.div_ceil(5)], "{mode} {channels} {length}");
                let largest = values(&expected).iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let what = format!("{mode} {channels} {length}");
                assert_close(&what, &values(&got), &values(&expected), 1e-6 * largest, 0.0);
                let vectors = stack.forward_vectors(&x.transpose(1, 2).unwrap().contiguous().unwrap(), None).unwrap();
                assert_close(
                    &what,
                    &values(&vectors.transpose(1, 2).unwrap()),
                    &values(&expected),
                    1e-6 * largest,
                    0.0,
                );
            }
        }
    }
    let mut stack = ConvStack::on_sequences();
    for config in [
        ConvConfig { stride: 4, ..ConvConfig::new(1, 1, 3) },
        ConvConfig { stride: 0, ..ConvConfig::new(1, 1, 3) },
        ConvConfig { dilation: usize::MAX, ..ConvConfig::new(1, 1, 3) },
        ConvConfig::new(1, 1, 0),
    ] {
        assert!(matches!(stack.reflect_pad(&config), Err(Error::Config { .. })), "{config:?}");
    }
    assert!(matches!(ConvStack::on_maps(None).reflect_pad(&ConvConfig::new(1, 1, 3)), Err(Error::Config { .. })));
    let weights = Weights::from_tensors([]).unwrap();
    for dilation in [0, 2] {
        let config = ConvConfig { dilation, ..ConvConfig::new(1, 1, 3) };
        let refused = ConvStack::on_maps(None).conv(&weights.loader(&Device::Cpu), None, config, Activation::Relu);
        assert!(matches!(refused, Err(Error::Config { field: "dilation", .. })));
    }
}
