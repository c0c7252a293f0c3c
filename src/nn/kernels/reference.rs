//! A naive implementation of each kernel, and comparisons over tables of sizes.

use super::activation::Activation;
use super::attention::{Heads, Keys, Relative, Softmax, attention};
use super::blocked::{BlockedMap, Shape, Window};
use super::depthwise::Depthwise;
use super::rnn::{self, Direction, Gates};
use super::row_blocks::RowBlocks;
use super::simd::math;
use super::workspace::Workspace;
use super::{lp_pool, pointwise};
use crate::nn::kernels::matmul::linear::PackedMatrix;
use crate::nn::kernels::matmul::panels::Storage;
use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{Lanes, map_lanes};

/// Positive and negative values whose pattern repeats only over a long period.
fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 500.0 - 1.0).collect()
}

#[test]
fn power_average_pooling_equals_its_naive_form() {
    let workspace = Workspace::default();
    for (height, width) in [(1, 1), (2, 4), (3, 5), (7, 64), (351, 64)] {
        for (channels, power, size) in
            [(1, 4, (1, 1)), (3, 4, (2, 4)), (5, 2, (1, 4)), (2, 6, (3, 2)), (20, 4, (2, 2)), (1, 2, (0, 1))]
        {
            let shape = Shape { batch: 2, channels, height, width };
            let x = values(2 * channels * height * width);
            let map = BlockedMap::from_planes(&x, shape, &workspace).unwrap();
            let pooled = lp_pool::lp_pool(&map, power, Window { size, padding: 0 }, &workspace);
            let (Some(rows @ 1..), Some(columns @ 1..)) = (height.checked_div(size.0), width.checked_div(size.1))
            else {
                assert!(pooled.is_none());
                continue;
            };
            let pooled = pooled.unwrap();
            assert_eq!(pooled.shape, Shape { height: rows, width: columns, ..shape });
            for (i, &got) in pooled.to_planes().iter().enumerate() {
                let (plane, row, column) = (i / columns / rows, i / columns % rows, i % columns);
                let positions =
                    (0..size.0).flat_map(|r| (0..size.1).map(move |c| (row * size.0 + r, column * size.1 + c)));
                let value = |(r, c)| f64::from(x[(plane * height + r) * width + c]).powi(power as i32);
                let expected = positions.map(value).sum::<f64>().powf(1.0 / f64::from(power));
                // A sum of at most 8 values near 1 and roots of it.
                assert!(
                    (f64::from(got) - expected).abs() < 1e-6,
                    "{height}x{width} {power} {size:?}: {got} {expected}"
                );
            }
        }
    }
}

#[test]
fn a_linear_layer_equals_its_naive_form_and_a_row_does_not_depend_on_the_others() {
    let workspace = Workspace::default();
    for (inputs, outputs) in [(1, 1), (5, 3), (16, 33), (64, 17), (192, 576), (1024, 30), (2048, 300), (40, 1024)] {
        let weight = values(inputs * outputs);
        let matrix = PackedMatrix::pack(&weight, inputs, outputs);
        for (rows, isa) in [1, 2, 5, 63, 127, 128, 200]
            .into_iter()
            .flat_map(|rows| Isa::available().into_iter().map(move |isa| (rows, isa)))
        {
            let multiply = |x: &[f32]| {
                let mut y = vec![f32::NAN; x.len() / inputs * outputs];
                matrix.multiply(x, &mut y, isa, &workspace, |y, _, first| {
                    (0..y.len()).for_each(|i| y[i] += (first + i) as f32);
                });
                y
            };
            let x = values(rows * inputs);
            let y = multiply(&x);
            for row in [0, rows / 2, rows - 1] {
                let x = &x[row * inputs..][..inputs];
                let got = &y[row * outputs..][..outputs];
                assert_eq!(multiply(x), got, "{inputs}->{outputs} {rows} {isa:?}");
                for output in 0..outputs {
                    let products = x.iter().zip(&weight[output * inputs..]).map(|(&a, &b)| f64::from(a) * f64::from(b));
                    let size = products.clone().map(f64::abs).sum::<f64>() + output as f64;
                    let error = (f64::from(got[output]) - products.sum::<f64>() - output as f64).abs();
                    // Partial sums of 384 products, of which up to 6 are added.
                    assert!(error <= 1e-6 * size.max(1.0), "{inputs}->{outputs} {isa:?}: {error:e} of {size}");
                }
            }
        }
    }
}

#[test]
fn products_with_f16_weights_equal_those_with_the_same_weights_in_f32() {
    let workspace = Workspace::default();
    let (inputs, outputs) = (516, 530);
    // With subnormal numbers of f16 and values that round.
    let mut weight: Vec<f32> = values(inputs * outputs).iter().map(|x| x * x * x * 0.1).collect();
    weight[..4].copy_from_slice(&[6e-8, -3e-5, 65_504.0, -0.0]);
    let pack = |storage, weight: &[f32]| {
        PackedMatrix::pack_as(storage, inputs, outputs, |output, row| {
            row.copy_from_slice(&weight[output * inputs..][..inputs]);
        })
    };
    let rounded: Vec<f32> = weight.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect();
    let (halves, full) = (pack(Storage::F16, &weight), pack(Storage::F32, &rounded));
    assert!(halves.is_f16() && !full.is_f16());
    for rows in [1, 2, 3, 5, 6, 13, 14, 15, 130] {
        let x = values(rows * inputs);
        for isa in Isa::available() {
            let multiply = |matrix: &PackedMatrix| {
                let mut y = vec![f32::NAN; rows * outputs];
                matrix.multiply(&x, &mut y, isa, &workspace, |_, _, _| ());
                y
            };
            assert_eq!(multiply(&halves), multiply(&full), "{rows} {isa:?}");
        }
    }
    weight[7] = 65_520.0; // rounds to infinity
    assert!(!pack(Storage::F16, &weight).is_f16());
    assert!(!PackedMatrix::pack_as(Storage::F16, 496, 512, |_, row| row.fill(0.5)).is_f16(), "too few weights");
}

#[test]
fn rows_of_a_packed_matrix_equal_their_naive_form_for_every_tile() {
    for (inputs, outputs) in [(1, 1), (5, 15), (16, 21), (7, 48), (64, 132), (20, 210), (64, 768), (12, 256), (40, 90)]
    {
        let (weight, bias) = (values(inputs * outputs), values(outputs));
        let matrix = PackedMatrix::pack(&weight, inputs, outputs).with_bias(&bias);
        let (padded, width) = (matrix.padded_inputs(), matrix.width());
        let mut x = values(19 * padded);
        x.chunks_mut(padded).for_each(|row| row[inputs..].fill(0.0));
        for isa in Isa::available() {
            let multiply = |x: &[f32]| {
                let mut y = vec![f32::NAN; x.len() / padded * width];
                matrix.multiply_rows(x, &mut y, isa);
                y
            };
            let alone: Vec<f32> = x.chunks(padded).flat_map(multiply).collect();
            for (i, &got) in alone.iter().enumerate().filter(|(i, _)| i % width < outputs) {
                let (row, output) = (i / width, i % width);
                let products = x[row * padded..].iter().zip(&weight[output * inputs..][..inputs]);
                let sum: f64 = products.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                // 64 products of values up to 1 in f32.
                let error = (f64::from(got) - sum - f64::from(bias[output])).abs();
                assert!(error < 1e-5, "{inputs}->{outputs} {isa:?}: {got}, off by {error:e}");
            }
            for rows in 2..=19 {
                assert_eq!(multiply(&x[..rows * padded]), alone[..rows * width], "{inputs}->{outputs} {rows} {isa:?}");
            }
        }
    }
}

#[test]
fn recurrent_layers_equal_their_naive_form_and_sequences_are_independent() {
    for (gates, inputs, hidden, lengths) in [
        (Gates::Gru, 3, 5, vec![4, 1, 2]),
        (Gates::Lstm, 1, 16, vec![1]),
        (Gates::Gru, 20, 33, vec![40, 7, 77, 64, 33]),
        (Gates::Lstm, 16, 20, vec![70, 3, 100]),
    ] {
        let (rows, batch, n_frames) = (gates.count() * hidden, lengths.len(), *lengths.iter().max().unwrap());
        let scaled = |n: usize, scale: f32| values(n).iter().map(|x| x * scale).collect::<Vec<_>>();
        let weights: Vec<[Vec<f32>; 4]> = [0.3, -0.2]
            .map(|w| {
                [scaled(rows * inputs, w), scaled(rows * hidden, w), scaled(rows, w), scaled(rows + 1, w)[1..].to_vec()]
            })
            .to_vec();
        let pack = |[input, recurrent, input_bias, recurrent_bias]: &[Vec<f32>; 4]| Direction {
            input: PackedMatrix::pack(input, inputs, rows).with_bias(input_bias),
            recurrent: PackedMatrix::pack(recurrent, hidden, rows).with_bias(recurrent_bias),
        };
        let directions: Vec<Direction> = weights.iter().map(pack).collect();
        let x = values(batch * n_frames * inputs);
        let run = |x: &[f32], lengths: &[usize], isa: Isa| {
            let mut y = vec![0.0; x.len() / inputs * 2 * hidden];
            let state = vec![0.0; 2 * lengths.len() * hidden];
            let (mut h, mut c) = (state.clone(), if gates == Gates::Lstm { state } else { Vec::new() });
            rnn::layer(gates, &directions, x, lengths, (&mut h, &mut c), &mut y, isa);
            y
        };
        for isa in Isa::available() {
            let y = run(&x, &lengths, isa);
            for (row, &length) in lengths.iter().enumerate() {
                let (x, y) = (&x[row * n_frames * inputs..], &y[row * n_frames * 2 * hidden..][..length * 2 * hidden]);
                assert_eq!(run(&x[..length * inputs], &[length], isa), y, "{gates:?} {hidden} {isa:?}");
                for (direction, weights) in weights.iter().enumerate() {
                    let frame = |step: usize| if direction == 0 { step } else { length - 1 - step };
                    let (mut h, mut c) = (vec![0.0; hidden], vec![0.0; hidden]);
                    for step in 0..length {
                        let x: Vec<f64> = x[frame(step) * inputs..][..inputs].iter().map(|&x| f64::from(x)).collect();
                        naive_step(gates, weights, &x, &mut h, &mut c);
                        let got = &y[(frame(step) * 2 + direction) * hidden..][..hidden];
                        // Sums of up to 33 products of values below 1, through functions of slope 1 at most.
                        let worst = got.iter().zip(&h).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
                        assert!(worst < 2e-6, "{gates:?} {hidden} {isa:?}, step {step}: off by {worst:e}");
                    }
                }
            }
        }
    }
}

/// One step by definition, in f64.
fn naive_step(gates: Gates, weights: &[Vec<f32>; 4], x: &[f64], h: &mut [f64], c: &mut [f64]) {
    let n = h.len();
    let product = |weight: &[f32], bias: &[f32], x: &[f64], row: usize| {
        let products = weight[row * x.len()..].iter().zip(x).map(|(&w, x)| f64::from(w) * x);
        products.sum::<f64>() + f64::from(bias[row])
    };
    let of_x: Vec<f64> = (0..gates.count() * n).map(|row| product(&weights[0], &weights[2], x, row)).collect();
    let of_h: Vec<f64> = (0..gates.count() * n).map(|row| product(&weights[1], &weights[3], h, row)).collect();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for u in 0..n {
        let sum = |gate: usize| of_x[gate * n + u] + of_h[gate * n + u];
        match gates {
            Gates::Gru => {
                let new = (of_x[2 * n + u] + sigmoid(sum(0)) * of_h[2 * n + u]).tanh();
                h[u] = (1.0 - sigmoid(sum(1))) * new + sigmoid(sum(1)) * h[u];
            }
            Gates::Lstm => {
                c[u] = sigmoid(sum(1)) * c[u] + sigmoid(sum(0)) * sum(2).tanh();
                h[u] = sigmoid(sum(3)) * c[u].tanh();
            }
        }
    }
}

#[test]
fn pointwise_kernels_equal_their_naive_form() {
    for (batch, channels, plane) in [(1, 1, 1), (2, 3, 5), (3, 64, 1), (2, 7, 70_000)] {
        let (x, bias) = (values(batch * channels * plane), values(channels));
        let shift = values(channels + 1);
        let mut y = vec![f32::NAN; x.len()];
        pointwise::affine_planes(&x, &bias, &shift[1..], plane, &mut y);
        let expected: Vec<f32> =
            (0..x.len()).map(|i| x[i] * bias[i / plane % channels] + shift[i / plane % channels + 1]).collect();
        assert_eq!(y, expected);
        let shape = Shape { batch, channels, height: 1, width: plane };
        let mut map = BlockedMap::from_planes(&x, shape, &Workspace::default()).unwrap();
        assert_eq!((map.affine(&bias, &shift), map.affine(&bias, &shift[1..])), (None, Some(())));
        assert_eq!(map.to_planes(), expected);

        let mut y = vec![f32::NAN; x.len()];
        pointwise::affine_last(&x, &bias, &shift[1..], &mut y);
        let expected: Vec<f32> = (0..x.len()).map(|i| x[i] * bias[i % channels] + shift[i % channels + 1]).collect();
        assert_eq!(y, expected);
    }
}

#[test]
fn gelu_is_accurate_with_every_isa() {
    for isa in Isa::available() {
        let x: Vec<f32> = (-12_000..=12_000).map(|i| i as f32 / 1000.0).collect();
        for (&x, got) in x.iter().zip(map(Function::Gelu, x.iter().copied(), isa)) {
            let (x, got) = (f64::from(x), f64::from(got));
            let expected = x * 0.5 * (1.0 + naive_erf(x / 2f64.sqrt()));
            assert!((got - expected).abs() < 2e-7 * x.abs().max(1.0), "gelu({x}) = {got}, expected {expected}");
        }
        let ends = map(Function::Gelu, [-1e30, -100.0, 0.0, 1e30, f32::INFINITY, f32::NAN], isa);
        assert_eq!(ends[..5], [0.0, 0.0, 0.0, 1e30, f32::INFINITY]);
        assert!(ends[5].is_nan());
    }
}

#[derive(Clone, Copy)]
enum Function {
    Exp,
    Sigmoid,
    Tanh,
    Gelu,
}

/// An element-wise function.
struct Map<'a>(Function, &'a mut [f32]);

impl SimdOp for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        map_lanes::<L, 0, 1>(
            [],
            [self.1],
            #[inline(always)]
            |_, [x]| match self.0 {
                Function::Exp => [math::exp(x)],
                Function::Sigmoid => [math::sigmoid(x)],
                Function::Tanh => [math::tanh(x)],
                Function::Gelu => [math::gelu(x)],
            },
        );
    }
}

fn map(function: Function, x: impl IntoIterator<Item = f32>, isa: Isa) -> Vec<f32> {
    let mut y: Vec<f32> = x.into_iter().collect();
    isa.run(Map(function, &mut y));
    y
}

#[test]
fn exp_is_accurate_with_every_isa() {
    for isa in Isa::available() {
        let x: Vec<f32> = (-873_000..=883_000).map(|i| i as f32 / 10_000.0).collect();
        let mut worst = 0.0f64;
        for (&x, y) in x.iter().zip(map(Function::Exp, x.iter().copied(), isa)) {
            let expected = f64::from(x).exp();
            let unit = f64::from((expected as f32).next_up() - expected as f32);
            worst = worst.max((f64::from(y) - expected).abs() / unit);
        }
        let portable = Isa::available()[Isa::available().len() - 1];
        let fused = isa != portable || cfg!(any(target_feature = "fma", target_arch = "aarch64"));
        assert!(worst < if fused { 1.0 } else { 2.0 }, "{isa:?}: off by {worst} units in the last place");
        let ends = map(Function::Exp, [0.0, f32::NEG_INFINITY, -100.0, f32::INFINITY, f32::NAN], isa);
        assert!(ends[0] == 1.0 && ends[1] == ends[2] && (0.0..2e-38).contains(&ends[1]), "{isa:?}: {ends:?}");
        assert!(ends[3] > 2e38 && ends[4].is_nan(), "{isa:?}: {ends:?}");
    }
}

#[test]
fn sigmoid_and_tanh_are_accurate_with_every_isa() {
    for isa in Isa::available() {
        let x: Vec<f32> = (-100_000..=100_000).map(|i| i as f32 / 1000.0).collect();
        for (&x, got) in x.iter().zip(map(Function::Sigmoid, x.iter().copied(), isa)) {
            let (got, expected) = (f64::from(got), 1.0 / (1.0 + (-f64::from(x)).exp()));
            assert!(
                (got - expected).abs() < 2e-7 && (0.0..=1.0).contains(&got),
                "sigmoid({x}) = {got}, expected {expected}"
            );
        }
        for scale in [1.0, 1e-4, 1e-9] {
            let x: Vec<f32> = x.iter().map(|x| x * scale).collect();
            for (&x, got) in x.iter().zip(map(Function::Tanh, x.iter().copied(), isa)) {
                let (got, expected) = (f64::from(got), f64::from(x).tanh());
                let error = (got - expected).abs();
                assert!(error < 2e-7 && error <= 4e-7 * expected.abs(), "tanh({x}) = {got}, expected {expected}");
            }
        }
        let ends = [f32::INFINITY, f32::NEG_INFINITY, 0.0, f32::NAN];
        let (sigmoids, tanhs) = (map(Function::Sigmoid, ends, isa), map(Function::Tanh, ends, isa));
        assert_eq!((&tanhs[..3], sigmoids[0], sigmoids[2]), (&[1.0, -1.0, 0.0][..], 1.0, 0.5));
        assert!((0.0..1e-38).contains(&sigmoids[1]) && sigmoids[3].is_nan() && tanhs[3].is_nan());
    }
}

/// The series `2/√π Σ (−1)^n x^(2n+1) / (n! (2n+1))`, summed in f64 where it converges well, 1 beyond.
fn naive_erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut sum, mut power) = (0.0, x);
    for n in 0..200 {
        sum += power / f64::from(2 * n + 1);
        power *= -x * x / f64::from(n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn layer_norm_equals_its_naive_form_with_every_activation() {
    let naive = |activation: Activation, x: f64| match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu { slope } => x.max(f64::from(slope) * x),
        Activation::Gelu => x * 0.5 * (1.0 + naive_erf(x / 2f64.sqrt())),
        Activation::Swish => x / (1.0 + (-x).exp()),
        Activation::Elu => {
            if x > 0.0 {
                x
            } else {
                x.exp_m1()
            }
        }
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Hardsigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::Hardswish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    };
    let activations = [
        Activation::Identity,
        Activation::Relu,
        Activation::LeakyRelu { slope: 0.25 },
        Activation::Gelu,
        Activation::Swish,
        Activation::Elu,
        Activation::Relu6,
        Activation::Hardsigmoid,
        Activation::Hardswish,
        Activation::Sigmoid,
    ];
    for (channels, activation) in [1, 3, 16, 17, 192, 1000].into_iter().flat_map(|n| activations.map(|a| (n, a))) {
        for rows in [1, 5, 300] {
            let (x, weight, bias) = (values(rows * channels), values(channels + 1), values(channels + 2));
            let mut y = vec![f32::NAN; x.len()];
            pointwise::layer_norm(&x, (&weight[1..], &bias[2..]), 1e-5, activation, &mut y);
            for (x, y) in x.chunks(channels).zip(y.chunks(channels)) {
                let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / channels as f64;
                let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / channels as f64;
                for c in 0..channels {
                    let expected = naive(
                        activation,
                        (f64::from(x[c]) - mean) / (variance + 1e-5).sqrt() * f64::from(weight[c + 1])
                            + f64::from(bias[c + 2]),
                    );
                    // Values up to about 4 in f32; the rounding of the mean is scaled up by at most 1 / √ε if all
                    // values are equal.
                    assert!(
                        (f64::from(y[c]) - expected).abs() < 2e-5,
                        "{activation:?} {channels}: {} {expected}",
                        y[c]
                    );
                }
            }
        }
    }
}

#[test]
fn gates_equal_their_naive_form() {
    for (rows, channels) in [(1, 1), (3, 16), (5, 21), (700, 24)] {
        let x: Vec<f32> = values(rows * 2 * channels).iter().map(|x| x * 20.0).collect();
        for isa in Isa::available() {
            let mut y = vec![f32::NAN; rows * channels];
            pointwise::gated(&x, channels, &mut y, isa);
            for (i, y) in y.into_iter().enumerate() {
                let [a, b] = [0, channels].map(|half| f64::from(x[i / channels * 2 * channels + half + i % channels]));
                // Values up to 20 times a sigmoid within 2e-7.
                assert!((f64::from(y) - a / (1.0 + (-b).exp())).abs() < 5e-6, "{rows} {channels} {isa:?}: {y}");
            }
        }
    }
}

#[test]
fn a_depthwise_convolution_equals_its_naive_form() {
    for (channels, kernel, before) in [(1, 1, 0), (16, 31, 30), (21, 4, 3), (40, 5, 2), (3, 9, 20), (17, 3, 0)] {
        let filters = values(channels * kernel);
        let conv = Depthwise::pack(&filters, kernel, before);
        for (n_frames, isa) in
            [1, 7, 8, 127, 300].into_iter().flat_map(|n| Isa::available().into_iter().map(move |isa| (n, isa)))
        {
            let x = values(2 * n_frames * channels);
            let mut y = vec![f32::NAN; x.len()];
            conv.forward(&x, n_frames, &mut y, isa);
            for (i, y) in y.into_iter().enumerate() {
                let (sequence, frame, channel) = (i / channels / n_frames, i / channels % n_frames, i % channels);
                let product = |k: usize| match (frame + k).checked_sub(before).filter(|&frame| frame < n_frames) {
                    Some(frame) => {
                        let x = x[(sequence * n_frames + frame) * channels + channel];
                        f64::from(x) * f64::from(filters[channel * kernel + k])
                    }
                    None => 0.0,
                };
                let expected: f64 = (0..kernel).map(product).sum();
                // A sum of at most 31 products up to 1.
                assert!(
                    (f64::from(y) - expected).abs() < 1e-5,
                    "{channels} {kernel} {n_frames} {isa:?}: {y} {expected}"
                );
            }
        }
    }
}

#[test]
fn attention_equals_its_naive_form() {
    let workspace = Workspace::default();
    for (n_tokens, n_heads, head_dim) in [(1, 1, 1), (5, 2, 3), (64, 3, 8), (65, 1, 64), (200, 4, 16), (450, 2, 20)] {
        let (batch, width) = (2, n_heads * head_dim);
        let qkv: Vec<f32> = values(batch * n_tokens * 3 * width).iter().map(|x| x * 3.0).collect();
        let heads = Heads { n_tokens, n_heads, head_dim };
        let lengths = [n_tokens, n_tokens.div_ceil(2)];
        let rows = values(batch * n_tokens * n_heads * 7);
        let (gates, all_distances) = (values(batch * n_tokens * n_heads), values(n_heads * (2 * n_tokens - 1)));
        let clamped = Relative { rows: &rows, gates: None, n_distances: 7, left: 2 };
        let gated =
            Relative { rows: &all_distances, gates: Some(&gates), n_distances: 2 * n_tokens - 1, left: n_tokens - 1 };
        for (lengths, relative) in [
            (None, None),
            (Some(&lengths[..]), None),
            (Some(&lengths[..]), Some(clamped)),
            (None, Some(gated)),
            (None, Some(Relative { n_distances: 1, left: 0, ..clamped })),
        ] {
            let keys = Keys { lengths, relative };
            for isa in Isa::available() {
                let mut y = vec![f32::NAN; batch * n_tokens * width];
                attention(&qkv, heads, keys, &mut y, isa, &workspace);
                check_attention(&qkv, heads, keys, &y);
                if let Keys { lengths: Some(lengths), relative: None } = keys {
                    // The second sequence alone, cut to its length.
                    let (n_tokens, second) = (lengths[1], &qkv[n_tokens * 3 * width..]);
                    let mut alone = vec![f32::NAN; n_tokens * width];
                    let heads = Heads { n_tokens, ..heads };
                    attention(&second[..n_tokens * 3 * width], heads, Keys::default(), &mut alone, isa, &workspace);
                    assert_eq!(alone, y[y.len() / 2..][..alone.len()]);
                }
            }
        }
    }
}

fn check_attention(qkv: &[f32], heads: Heads, keys: Keys, y: &[f32]) {
    let Heads { n_tokens, n_heads, head_dim } = heads;
    let width = n_heads * head_dim;
    let value = |b: usize, token: usize, part: usize, head: usize, i: usize| {
        f64::from(qkv[((b * n_tokens + token) * 3 + part) * width + head * head_dim + i])
    };
    let relative = |b: usize, query: usize, head: usize, key: usize| {
        let Some(Relative { rows, gates, n_distances, left }) = keys.relative else { return 0.0 };
        let distance = (key as isize - query as isize + left as isize).clamp(0, n_distances as isize - 1) as usize;
        let position = (b * n_tokens + query) * n_heads + head;
        match gates {
            Some(gates) => f64::from(gates[position]) * f64::from(rows[head * n_distances + distance]),
            None => f64::from(rows[position * n_distances + distance]),
        }
    };
    for b in 0..y.len() / (n_tokens * width) {
        let n_keys = keys.lengths.map_or(n_tokens, |lengths| lengths[b]);
        for (query, head) in (0..n_tokens).flat_map(|query| (0..n_heads).map(move |head| (query, head))) {
            let product =
                |key| (0..head_dim).map(|i| value(b, query, 0, head, i) * value(b, key, 1, head, i)).sum::<f64>();
            let score = |key| product(key) / (head_dim as f64).sqrt() + relative(b, query, head, key);
            let weights: Vec<f64> = (0..n_keys).map(|key| score(key).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for i in 0..head_dim {
                let expected = (0..n_keys).map(|key| weights[key] / sum * value(b, key, 2, head, i)).sum::<f64>();
                let got = f64::from(y[(b * n_tokens + query) * width + head * head_dim + i]);
                // Scores reach about 9 · head_dim / √head_dim; their f32 rounding scales the result.
                assert!((got - expected).abs() < 1e-4, "{n_tokens} {n_heads} {head_dim}: {got} {expected}");
            }
        }
    }
}

#[test]
fn softmax_equals_its_naive_form() {
    for isa in Isa::available() {
        for n_keys in [1usize, 3, 16, 100, 161] {
            let keys = n_keys.next_multiple_of(16);
            let mut given: Vec<f32> = values(2 * keys).iter().map(|x| x * 60.0).collect();
            given[0] = -1e30;
            let (mut blocks, mut inverse) = (RowBlocks::copy_all(&given, keys, &Workspace::default()), [0.0; 2]);
            isa.run(Softmax { scores: &mut blocks, n_keys, scale: 0.5, inverse: &mut inverse });
            let scores: Vec<f32> =
                (0..2).flat_map(|row| blocks.row_mut(row).flatten().map(|x| *x).collect::<Vec<_>>()).collect();
            for (row, inverse) in inverse.into_iter().enumerate() {
                let given = &given[row * keys..][..n_keys];
                let max = given.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let powers: Vec<f64> = given.iter().map(|&x| (0.5 * (f64::from(x) - f64::from(max))).exp()).collect();
                let sum: f64 = powers.iter().sum();
                for (got, power) in
                    scores[row * keys..][..keys].iter().zip(powers.iter().chain(std::iter::repeat(&0.0)))
                {
                    let (got, expected) = (f64::from(got * inverse), power / sum);
                    // The rounding of arguments of up to 60 · log2 e scales the result.
                    assert!((got - expected).abs() <= 1e-37 + 1e-5 * expected, "{n_keys}: {got:e} {expected:e}");
                }
            }
        }
    }
}
