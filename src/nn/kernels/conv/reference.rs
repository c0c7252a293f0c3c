//! Convolutions and pooling against naive implementations: over a table of sizes and random ones, with every
//! instruction set, and for any number of threads. One file, because all tests share the naive implementations.

use crate::nn::kernels::activation::Activation;
use crate::nn::kernels::blocked::{BlockedMap, Shape, Window};
use crate::nn::kernels::conv::causal::{CausalConv, CausalShape};
use crate::nn::kernels::conv::grouped::{GroupedConv, GroupedShape};
use crate::nn::kernels::conv::shape::ConvShape;
use crate::nn::kernels::conv::stream::{Step, stream};
use crate::nn::kernels::conv::{Conv, Filters, Input};
use crate::nn::kernels::matmul::panels::Storage;
use crate::nn::kernels::pooling::Pooling;
use crate::nn::kernels::simd::isa::Isa;
use crate::nn::kernels::workspace::Workspace;

/// A random number generator (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Values between −1 and 1.
    fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

/// One case: a convolution and its input.
#[derive(Clone)]
struct Case {
    conv_shape: ConvShape,
    is_depthwise: bool,
    shape: Shape,
    width: Option<usize>,
    activation: Activation,
    pool: Option<(Pooling, Window)>,
    storage: Storage,
    x: Vec<f32>,
    filters: Vec<f32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(conv_shape: ConvShape, (batch, height, width): (usize, usize, usize), random: &mut Random) -> Self {
        let ConvShape { in_channels, out_channels, kernel, .. } = conv_shape;
        let shape = Shape { batch, channels: in_channels, height, width };
        let x = random.values(batch * in_channels * height * width);
        let filters = random.values(out_channels * in_channels * kernel.0 * kernel.1);
        let (scale, bias) = (random.values(out_channels), random.values(out_channels));
        let (activation, pool, storage) = (Activation::Identity, None, Storage::F32);
        let (is_depthwise, width) = (false, Some(width));
        Self { conv_shape, is_depthwise, shape, width, activation, pool, storage, x, filters, scale, bias }
    }

    fn depthwise(conv_shape: ConvShape, size: (usize, usize, usize), random: &mut Random) -> Self {
        let case = Self::new(ConvShape { in_channels: 1, ..conv_shape }, size, random);
        let x = random.values(size.0 * conv_shape.in_channels * size.1 * size.2);
        let shape = Shape { channels: conv_shape.in_channels, ..case.shape };
        Self { conv_shape, is_depthwise: true, shape, x, ..case }
    }

    fn conv(&self) -> Conv {
        let Self { filters: values, scale, bias, activation, storage, .. } = self;
        let filters = Filters { values, scale, bias, activation: *activation, storage: *storage };
        match self.is_depthwise {
            true => Conv::pack_depthwise(self.conv_shape, filters),
            false => Conv::pack(self.conv_shape, self.width, filters),
        }
    }

    fn run(&self, conv: &Conv, isa: Isa, workspace: &Workspace) -> Vec<f32> {
        let planes = conv.forward(Input::Planes(&self.x, self.shape), self.pool, isa, workspace).unwrap();
        let map = BlockedMap::from_planes(&self.x, self.shape, workspace).unwrap();
        let blocks = conv.forward(Input::Map(&map), self.pool, isa, workspace).unwrap();
        let (y, again) = (planes.to_planes(), blocks.to_planes());
        assert!(y.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()) && planes.shape == blocks.shape);
        y
    }

    /// By definition, in f64.
    fn naive(&self) -> Vec<f64> {
        let ConvShape { in_channels, out_channels, kernel, stride, padding, .. } = self.conv_shape;
        let inputs = if self.is_depthwise { 1 } else { in_channels };
        let Shape { batch, height, width, .. } = self.shape;
        let (rows, columns) = self.conv_shape.output(height, width).unwrap();
        let mut y = Vec::new();
        for plane in 0..batch * out_channels {
            let (item, output) = (plane / out_channels, plane % out_channels);
            for row in 0..rows {
                for column in 0..columns {
                    let mut sum = 0.0;
                    for tap in 0..inputs * kernel.0 * kernel.1 {
                        let (input, i, j) = (tap / kernel.1 / kernel.0, tap / kernel.1 % kernel.0, tap % kernel.1);
                        let filter = self.filters[output * inputs * kernel.0 * kernel.1 + tap];
                        let input = if self.is_depthwise { output } else { input };
                        let (i, j) = (row * stride.0 + i, column * stride.1 + j);
                        if (padding.0..height + padding.0).contains(&i) && (padding.1..width + padding.1).contains(&j) {
                            let at = (item * in_channels + input) * height + i - padding.0;
                            sum += f64::from(self.x[at * width + j - padding.1]) * f64::from(filter);
                        }
                    }
                    sum = sum * f64::from(self.scale[output]) + f64::from(self.bias[output]);
                    y.push(match self.activation {
                        Activation::Relu => sum.max(0.0),
                        Activation::Hardswish => sum * (sum + 3.0).clamp(0.0, 6.0) / 6.0,
                        Activation::Relu6 => sum.clamp(0.0, 6.0),
                        _ => sum,
                    });
                }
            }
        }
        match self.pool {
            Some((pooling, window)) => naive_pool(&y, (rows, columns), pooling, window),
            None => y,
        }
    }

    /// Compares with every instruction set. The error of a sum of n products of values up to 1 grows with √n: direct
    /// sums stay within about 4 ε √n, and Winograd convolutions, on a million random outputs, within 30 ε √n. Weights in f16 round by up to 2^-12.
    fn check(&self) {
        let (conv, workspace, expected) = (self.conv(), Workspace::default(), self.naive());
        let inputs = if self.is_depthwise { 1 } else { self.conv_shape.in_channels };
        let taps = (inputs * self.conv_shape.kernel.0 * self.conv_shape.kernel.1) as f64;
        assert_eq!(conv.is_f16(), self.storage == Storage::F16, "{:?}", self.conv_shape);
        let unit = if conv.is_f16() { 0.1 * 2f64.powi(-12) } else { f64::from(f32::EPSILON) };
        let tolerance = 40.0 * unit * taps.sqrt().max(2.0);
        for isa in Isa::available() {
            let y = self.run(&conv, isa, &workspace);
            let what = format!("{:?} {:?} {isa:?}", self.conv_shape, self.shape);
            assert_eq!(y.len(), expected.len(), "{what}");
            let worst = y.iter().zip(&expected).map(|(&a, &b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
            assert!(worst <= tolerance && y.iter().all(|y| y.is_finite()), "{what}: off by {worst:e}");
        }
    }
}

fn naive_pool(x: &[f64], (height, width): (usize, usize), pooling: Pooling, window: Window) -> Vec<f64> {
    let (rows, columns) = window.output(height, width).unwrap();
    let (size, padding) = (window.size, window.padding);
    let mut y = Vec::new();
    for plane in x.chunks(height * width) {
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let inside = |i: &usize| (padding..height + padding).contains(i);
            let values: Vec<f64> = (row * size.0..(row + 1) * size.0)
                .filter(inside)
                .flat_map(|i| (column * size.1..(column + 1) * size.1).map(move |j| (i - padding, j)))
                .map(|(i, j)| plane[i * width + j])
                .collect();
            let mean = values.iter().sum::<f64>() / (size.0 * size.1) as f64;
            let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            y.push(match pooling {
                Pooling::Avg => mean,
                Pooling::Max => max,
                Pooling::AvgMax => mean + max,
            });
        }
    }
    y
}

fn three_by_three(in_channels: usize, out_channels: usize) -> ConvShape {
    ConvShape { in_channels, out_channels, kernel: (3, 3), stride: (1, 1), padding: (1, 1), padding_after: (1, 1) }
}

#[test]
fn convolutions_of_three_by_three_equal_their_naive_form() {
    let mut random = Random(1);
    for (batch, height, width) in [(1, 1, 1), (1, 3, 2), (2, 5, 4), (1, 17, 3), (3, 4, 8), (1, 9, 13), (2, 31, 2)] {
        for (inputs, outputs) in [(1, 5), (3, 64), (5, 16), (16, 17), (40, 33), (64, 48), (96, 200)] {
            let mut case = Case::new(three_by_three(inputs, outputs), (batch, height, width), &mut random);
            case.check();
            case.width = None;
            case.activation = Activation::Relu;
            for pooling in [Pooling::Avg, Pooling::Max, Pooling::AvgMax] {
                case.pool = Some((pooling, Window { size: (2, 2), padding: 0 })).filter(|_| height.min(width) > 1);
                case.check();
            }
        }
    }
}

#[test]
fn the_last_layers_of_cnn14_equal_their_naive_form() {
    let mut random = Random(2);
    // Filters so large that time is not transformed; narrow maps of one, two and four columns; odd numbers of rows.
    for (batch, height, width) in [(1, 5, 2), (3, 3, 1), (2, 4, 4)] {
        for pooled in [false, true] {
            let mut case = Case::new(three_by_three(512, 700), (batch, height, width), &mut random);
            if pooled && width > 1 {
                case.pool = Some((Pooling::Avg, Window { size: (2, 2), padding: 0 }));
            }
            case.check();
        }
    }
}

#[test]
fn convolutions_with_f16_weights_equal_their_naive_form() {
    let mut random = Random(21);
    let direct = |in_channels: usize, kernel: usize| ConvShape {
        kernel: (kernel, kernel),
        padding: (0, 0),
        padding_after: (0, 0),
        ..three_by_three(in_channels, 530)
    };
    for (conv_shape, size) in [
        (three_by_three(512, 700), (1, 5, 2)),
        (three_by_three(512, 700), (2, 4, 4)),
        (direct(24, 5), (1, 6, 7)),
        (direct(500, 1), (2, 3, 5)),
    ] {
        let case = Case::new(conv_shape, size, &mut random);
        Case { storage: Storage::F16, ..case }.check();
    }
}

#[test]
fn long_maps_are_cut_without_a_seam() {
    let mut random = Random(3);
    // More tiles than one task takes, in both loop orders, with several clips in a group.
    for ((inputs, outputs), (batch, height, width)) in
        [((16, 16), (2, 403, 9)), ((128, 144), (1, 700, 3)), ((144, 144), (5, 301, 2)), ((130, 160), (3, 261, 12))]
    {
        let mut case = Case::new(three_by_three(inputs, outputs), (batch, height, width), &mut random);
        case.check();
        case.pool = Some((Pooling::Max, Window { size: (2, 2), padding: 0 }));
        case.check();
    }
}

#[test]
fn sequences_equal_their_naive_form() {
    let mut random = Random(4);
    for (inputs, outputs, kernel, stride, padding) in
        [(1, 64, 3, 3, 1), (1, 32, 80, 16, 0), (16, 40, 3, 1, 1), (64, 64, 3, 1, 1), (5, 7, 9, 4, 2), (32, 16, 1, 1, 0)]
    {
        for (batch, length) in [(1, 80), (2, 333), (1, 20_000)] {
            let (kernel, stride, padding) = ((kernel, 1), (stride, 1), (padding, 0));
            let conv_shape = ConvShape {
                in_channels: inputs,
                out_channels: outputs,
                kernel,
                stride,
                padding,
                padding_after: padding,
            };
            let mut case = Case::new(conv_shape, (batch, length, 1), &mut random);
            case.check();
            case.pool = Some((Pooling::Max, Window { size: (3, 1), padding: 1 }));
            case.check();
        }
    }
}

#[test]
fn random_convolutions_equal_their_naive_form() {
    let mut random = Random(5);
    for _ in 0..150 {
        let kernel = (1 + random.below(5), 1 + random.below(5));
        let padding = (random.below(kernel.0 + 1), random.below(kernel.1 + 1));
        let conv_shape = ConvShape {
            in_channels: 1 + random.below(40),
            out_channels: 1 + random.below(60),
            kernel,
            stride: (1 + random.below(3), 1 + random.below(3)),
            padding,
            padding_after: if random.below(2) == 0 { padding } else { (random.below(3), random.below(3)) },
        };
        let size = (1 + random.below(3), kernel.0 + random.below(30), kernel.1 + random.below(20));
        Case::new(conv_shape, size, &mut random).check();
    }
}

#[test]
fn pointwise_convolutions_equal_their_naive_form() {
    let mut random = Random(12);
    for (inputs, outputs) in [(5, 3), (16, 64), (24, 40), (72, 72), (200, 17), (450, 100)] {
        for size in [(1, 1, 1), (2, 70, 1), (1, 3, 2), (2, 9, 4), (1, 40, 13), (1, 300, 64)] {
            let one = (1, 1);
            let conv_shape =
                ConvShape { kernel: one, padding: (0, 0), padding_after: (0, 0), ..three_by_three(inputs, outputs) };
            let mut case = Case::new(conv_shape, size, &mut random);
            case.check();
            case.activation = Activation::Hardswish;
            case.check();
            // With factors for the channels of each clip.
            let (conv, workspace, plane) = (case.conv(), Workspace::default(), size.1 * size.2);
            let factors = random.values(size.0 * inputs);
            let scaled: Vec<f32> = case.x.iter().enumerate().map(|(i, x)| x * factors[i / plane]).collect();
            let map = BlockedMap::from_planes(&case.x, case.shape, &workspace).unwrap();
            let expected = conv.forward(Input::Planes(&scaled, case.shape), None, Isa::best(), &workspace).unwrap();
            for isa in Isa::available() {
                let y = conv.forward_scaled(&map, &factors, isa, &workspace).unwrap();
                let pairs = y.to_planes().into_iter().zip(expected.to_planes());
                assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4), "{inputs} {outputs} {size:?}");
                assert!(conv.forward_scaled(&map, &factors[1..], isa, &workspace).is_none());
            }
        }
    }
}

#[test]
fn depthwise_convolutions_equal_their_naive_form() {
    let mut random = Random(11);
    for i in 0..600 {
        let (rows, columns) = ([3, 5, 7, 1 + random.below(9)], [3, 5, 7, 1 + random.below(9)]);
        let kernel = (rows[random.below(4)], columns[random.below(4)]);
        let padding = (random.below(kernel.0 + 1), random.below(kernel.1 + 1));
        let channels = 1 + random.below(50);
        let conv_shape = ConvShape {
            in_channels: channels,
            out_channels: channels,
            kernel,
            stride: (1 + random.below(3), 1 + random.below(3)),
            padding,
            padding_after: if i % 2 == 0 { padding } else { (random.below(4), random.below(4)) },
        };
        let (height, width) = (1 + random.below(30), 1 + random.below(40));
        let Some(output) = conv_shape.output(height, width) else { continue };
        let mut case = Case::depthwise(conv_shape, (1 + random.below(3), height, width), &mut random);
        case.filters.iter_mut().for_each(|filter| *filter *= 3.0); // some sums beyond 6
        case.activation = [Activation::Identity, Activation::Relu, Activation::Hardswish, Activation::Relu6][i % 4];
        case.check();
        if output.0 > 1 && output.1 > 1 {
            case.pool = Some((Pooling::Avg, Window { size: (2, 2), padding: 0 }));
            case.check();
        }
    }
    // More rows than one task takes.
    let conv_shape = ConvShape { kernel: (5, 3), padding: (2, 1), padding_after: (2, 1), ..three_by_three(40, 40) };
    Case::depthwise(conv_shape, (2, 200, 64), &mut random).check();
}

#[test]
fn streams_equal_their_convolutions_one_by_one() {
    let mut random = Random(14);
    let pools = [1, 3, 7].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    for i in 0..18 {
        let window = |kernel: (usize, usize), stride, channels| {
            let padding = (kernel.0 / 2, kernel.1 / 2);
            ConvShape { kernel, stride, padding, padding_after: padding, ..three_by_three(channels, channels) }
        };
        let one = |inputs, outputs| ConvShape { in_channels: inputs, ..window((1, 1), (1, 1), outputs) };
        let (narrow, wide) = (5 + random.below(20), 8 * (1 + random.below(6)));
        let (batch, height, width) = (1 + i % 2, [1, 2, 40, 150][random.below(4)], [3, 8, 30][random.below(3)]);
        let (k, s) = ([3, 5, 7][i % 3], 1 + random.below(2));
        // A convolution over planes; a residual around a depthwise convolution; expansion, a depthwise convolution,
        // projection.
        let shapes = [
            (ConvShape { in_channels: 2, ..window((3, 3), (2, 2), narrow) }, false),
            (window((k, 3), (1, 1), narrow), true),
            (one(narrow, narrow), false),
            (one(narrow, wide), false),
            (window((5, k), (s, 2), wide), true),
            (one(wide, narrow), false),
        ];
        let mut size = (batch, height, width);
        let mut first = None;
        let convs = shapes.map(|(shape, is_depthwise)| {
            let mut case = match is_depthwise {
                true => Case::depthwise(shape, size, &mut random),
                false => Case::new(shape, size, &mut random),
            };
            case.activation = [Activation::Identity, Activation::Hardswish, Activation::Relu][random.below(3)];
            (size.1, size.2) = shape.output(size.1, size.2).unwrap();
            let conv = case.conv();
            first.get_or_insert(case);
            conv
        });
        let (first, workspace) = (first.unwrap(), Workspace::default());
        let [a, b, c, d, e, f] = convs.each_ref().map(Step::Conv);
        let steps = [a, b, c, Step::Add(1), d, e, f];
        assert!(steps.iter().enumerate().all(|(i, step)| step.streams(i == 0)) && !a.streams(false));
        for isa in Isa::available() {
            let mut maps = vec![convs[0].forward(Input::Planes(&first.x, first.shape), None, isa, &workspace).unwrap()];
            for (i, conv) in convs.iter().enumerate().skip(1) {
                let mut map = conv.forward(Input::Map(&maps[i - 1]), None, isa, &workspace).unwrap();
                if i == 2 {
                    map.add(&maps[0], Activation::Identity, isa).unwrap();
                }
                maps.push(map);
            }
            let expected = maps[5].to_planes();
            for pool in &pools {
                let run =
                    |steps: &[Step], x: Input| pool.install(|| stream(steps, x, isa, &workspace)).unwrap().to_planes();
                assert_eq!(run(&steps, Input::Planes(&first.x, first.shape)), expected, "{i} {isa:?}");
                let rest = [b, c, Step::Add(0), d, e];
                assert_eq!(run(&rest, Input::Map(&maps[0])), maps[4].to_planes(), "{i} {isa:?}");
            }
        }
        let map = BlockedMap::from_planes(&first.x, first.shape, &workspace).unwrap();
        let rejected = |steps: &[Step]| stream(steps, Input::Map(&map), Isa::best(), &workspace).is_none();
        assert!(
            rejected(&[a, b])
                && rejected(&[])
                && rejected(&[Step::Add(0)])
                && rejected(&[b])
                && rejected(&[b, Step::Add(7)])
        );
    }
}

#[test]
fn mixtures_equal_the_convolution_of_the_mixed_filters() {
    let mut random = Random(15);
    let shares = [0.5f32, 0.125, 0.25, -0.125]; // sums of products with these are exact for short numbers
    for is_depthwise in [false, true] {
        let (kernel, padding) = if is_depthwise { ((3, 3), (1, 1)) } else { ((1, 1), (0, 0)) };
        let conv_shape = ConvShape { kernel, padding, padding_after: padding, ..three_by_three(40, 40) };
        let size = (2, 9, 7);
        let mut case = match is_depthwise {
            true => Case::depthwise(conv_shape, size, &mut random),
            false => Case::new(conv_shape, size, &mut random),
        };
        case.scale.fill(1.0);
        let sets: Vec<Vec<f32>> = shares
            .iter()
            .map(|_| random.values(case.filters.len()).iter().map(|x| (x * 64.0).round() / 64.0).collect())
            .collect();
        let convs: Vec<Conv> = sets.iter().map(|set| Case { filters: set.clone(), ..case.clone() }.conv()).collect();
        let mixed = |i: usize| sets.iter().zip(shares).map(|(set, share)| set[i] * share).sum::<f32>();
        case.filters = (0..case.filters.len()).map(mixed).collect();
        let workspace = Workspace::default();
        let mixture = Conv::mixture(&convs, &shares).unwrap();
        let y = case.run(&mixture, Isa::best(), &workspace);
        assert_eq!(y, case.run(&case.conv(), Isa::best(), &workspace));
        assert!(Conv::mixture(&convs, &shares[1..]).is_none() && Conv::mixture(&[], &[]).is_none());
    }
}

#[test]
fn axis_means_and_dynamic_activations_equal_their_naive_form() {
    let mut random = Random(16);
    for (channels, height, width) in [(1, 1, 1), (17, 3, 5), (40, 200, 13)] {
        let shape = Shape { batch: 1, channels, height, width };
        let x = random.values(channels * height * width);
        let [coefficients, rows, columns] = [4, height, width].map(|n| random.values(n * channels));
        let map = || BlockedMap::from_planes(&x, shape, &Workspace::default()).unwrap();
        for isa in Isa::available() {
            let (by_column, by_row) = map().axis_means(isa);
            for (means, n, of) in [(by_column, width, height), (by_row, height, width)] {
                for (i, mean) in means.into_iter().enumerate() {
                    let (position, channel) = (i / channels, i % channels);
                    let plane = &x[channel * height * width..][..height * width];
                    let seen = plane.iter().enumerate().filter(|(at, _)| match n == width && of == height {
                        true => at % width == position,
                        false => at / width == position,
                    });
                    let expected = seen.map(|(_, &x)| f64::from(x)).sum::<f64>() / of as f64;
                    assert!(
                        (f64::from(mean) - expected).abs() < 1e-5 || height == width,
                        "{shape:?} {isa:?}: {mean} {expected}"
                    );
                }
            }
            let mut weighted = map();
            weighted.activate_and_weight(&coefficients, &rows, &columns, isa).unwrap();
            for (i, y) in weighted.to_planes().into_iter().enumerate() {
                let (channel, row, column) = (i / width / height, i / width % height, i % width);
                let linear =
                    |n: usize| coefficients[n * channels + channel] * x[i] + coefficients[(n + 2) * channels + channel];
                let expected =
                    linear(0).max(linear(1)) * rows[row * channels + channel] * columns[column * channels + channel];
                assert!((y - expected).abs() < 1e-5, "{shape:?} {isa:?}: {y} {expected}");
            }
            assert!(weighted.activate_and_weight(&coefficients[1..], &rows, &columns, isa).is_none());
        }
    }
}

#[test]
fn channel_means_and_factors_equal_their_naive_form() {
    let mut random = Random(13);
    for (batch, channels, height, width) in [(1, 1, 1, 1), (2, 17, 3, 5), (3, 40, 200, 13), (1, 16, 900, 64)] {
        let (shape, plane) = (Shape { batch, channels, height, width }, height * width);
        let (x, factors) = (random.values(batch * channels * plane), random.values(batch * channels));
        let mut map = BlockedMap::from_planes(&x, shape, &Workspace::default()).unwrap();
        for isa in Isa::available() {
            for (mean, x) in map.means(isa).into_iter().zip(x.chunks(plane)) {
                let expected = x.iter().map(|&x| f64::from(x)).sum::<f64>() / plane as f64;
                assert!((f64::from(mean) - expected).abs() < 1e-6, "{shape:?} {isa:?}: {mean} {expected}");
            }
        }
        assert!(map.scale(&factors[1..]).is_none());
        map.scale(&factors).unwrap();
        let scaled = x.iter().enumerate().map(|(i, x)| x * factors[i / plane]);
        assert_eq!(map.to_planes(), scaled.collect::<Vec<_>>());
    }
}

#[test]
fn pooling_equals_its_naive_form() {
    let mut random = Random(6);
    for (height, width) in [(1, 1), (2, 2), (3, 5), (7, 4), (101, 64), (31, 2), (100, 1)] {
        for (batch, channels) in [(1, 1), (2, 17)] {
            let shape = Shape { batch, channels, height, width };
            let x = random.values(batch * channels * height * width);
            let workspace = Workspace::default();
            let map = BlockedMap::from_planes(&x, shape, &workspace).unwrap();
            assert_eq!(map.to_planes(), x);
            for size in [(1, 1), (2, 2), (1, 2), (2, 1), (3, 1), (3, 3)] {
                for padding in 0..=size.0 / 2 {
                    let window = Window { size, padding };
                    for pooling in [Pooling::Avg, Pooling::Max, Pooling::AvgMax] {
                        if window.output(height, width).is_none() || padding > 0 && pooling != Pooling::Max {
                            continue;
                        }
                        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                        let expected = naive_pool(&x, (height, width), pooling, window);
                        for isa in Isa::available() {
                            let y = map.pool(pooling, window, isa, &workspace).unwrap().to_planes();
                            let worst = y.iter().zip(&expected).map(|(&a, &b)| (f64::from(a) - b).abs());
                            // A mean of at most 9 values near 1 in f32.
                            assert!(
                                y.len() == expected.len() && worst.fold(0.0, f64::max) <= 1e-6,
                                "{shape:?} {window:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_threads_nor_on_the_batch() {
    let mut random = Random(7);
    let dense = |inputs, outputs, width, random: &mut Random| {
        Case::new(three_by_three(inputs, outputs), (3, 41, width), random)
    };
    for case in [
        dense(32, 48, 9, &mut random),
        dense(160, 160, 4, &mut random),
        dense(512, 700, 2, &mut random),
        Case::depthwise(three_by_three(160, 160), (3, 41, 9), &mut random),
    ] {
        let (conv, workspace, isa) = (case.conv(), Workspace::default(), Isa::best());
        let together = case.run(&conv, isa, &workspace);
        for threads in [1, 2, 3, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| case.run(&conv, isa, &workspace)), together, "{threads} threads");
        }
        let (item, plane) = (case.x.len() / 3, together.len() / 3);
        for clip in 0..3 {
            let shape = Shape { batch: 1, ..case.shape };
            let x = &case.x[clip * item..(clip + 1) * item];
            let alone = conv.forward(Input::Planes(x, shape), None, isa, &workspace).unwrap();
            assert_eq!(alone.to_planes(), together[clip * plane..(clip + 1) * plane], "clip {clip}");
        }
    }
}

#[test]
fn nan_and_infinity_propagate_and_mismatched_sizes_are_rejected() {
    let mut random = Random(8);
    let mut case = Case::new(three_by_three(16, 16), (1, 6, 6), &mut random);
    case.activation = Activation::Relu;
    case.pool = Some((Pooling::Max, Window { size: (2, 2), padding: 0 }));
    case.x[20] = f32::NAN;
    let conv = case.conv();
    for isa in Isa::available() {
        assert!(case.run(&conv, isa, &Workspace::default()).iter().any(|y| y.is_nan()), "{isa:?}");
    }
    let rejected = |conv: &Conv, shape: Shape| {
        let x = vec![0.0; shape.batch * shape.channels * shape.height * shape.width];
        conv.forward(Input::Planes(&x, shape), None, Isa::best(), &Workspace::default()).is_none()
    };
    assert!(rejected(&conv, Shape { channels: 15, ..case.shape }));
    assert!(rejected(&conv, Shape { height: 0, ..case.shape }));
    assert!(rejected(&conv, Shape { batch: 0, ..case.shape }));
    let pair = Case::new(three_by_three(16, 16), (1, 6, 2), &mut random);
    assert!(rejected(&pair.conv(), Shape { width: 3, ..pair.shape }) && !rejected(&pair.conv(), pair.shape));
    let long = ConvShape { kernel: (7, 1), padding: (0, 0), padding_after: (0, 0), ..three_by_three(16, 16) };
    assert!(rejected(&Case::new(long, (1, 9, 1), &mut random).conv(), Shape { width: 1, ..case.shape }));
    let shape = Shape { batch: 1, channels: 2, height: 4, width: 4 };
    let wide = BlockedMap::from_planes(&[0.0; 32], shape, &Workspace::default()).unwrap();
    for window in [
        Window { size: (5, 1), padding: 0 },
        Window { size: (0, 1), padding: 0 },
        Window { size: (1, 0), padding: 0 },
        Window { size: (2, 1), padding: 2 },
        Window { size: (usize::MAX, 1), padding: usize::MAX / 2 }, // the padded height overflows
    ] {
        let pooled = wide.pool(Pooling::Max, window, Isa::best(), &Workspace::default());
        assert!(pooled.is_none(), "{window:?}");
    }
    for empty in [Shape { batch: 0, ..shape }, Shape { channels: 0, ..shape }, Shape { height: 0, ..shape }] {
        assert!(BlockedMap::from_planes(&[], empty, &Workspace::default()).is_none(), "{empty:?}");
    }
}

/// Kernels, strides and paddings on narrow maps, where shortcuts go wrong: axes with one position, or with nothing but
/// padding.
#[test]
fn narrow_maps_equal_their_naive_form() {
    let mut random = Random(9);
    let pairs = |low: usize, high: usize| (low..=high).flat_map(move |a| (low..=high).map(move |b| (a, b)));
    let mut cases = 0;
    for (kernel, stride) in pairs(1, 4).flat_map(|kernel| pairs(1, 3).map(move |stride| (kernel, stride))) {
        for (padding, width) in pairs(0, 3).flat_map(|padding| (1..=4).map(move |width| (padding, width))) {
            // Planar and in blocks; one channel and more than a block of them.
            let in_channels = [1, 3, 5, 17][random.below(4)];
            let out_channels = [1, 4, 18][random.below(3)];
            // Some strides exceed map and padding, so that everything read may be padding.
            let longer = random.below(5);
            let stride = match stride {
                (3, 3) => (3 + longer, 3 + longer),
                stride => stride,
            };
            let conv_shape = ConvShape { in_channels, out_channels, kernel, stride, padding, padding_after: padding };
            let (batch, height) = (1 + random.below(2), 1 + random.below(6));
            let Some(output) = conv_shape.output(height, width) else { continue };
            let mut case = Case::new(conv_shape, (batch, height, width), &mut random);
            case.width = case.width.filter(|_| random.below(2) == 0);
            case.activation = [Activation::Identity, Activation::Relu][random.below(2)];
            case.check();
            let window = Window { size: (1 + random.below(2), 1 + random.below(2)), padding: 0 };
            if window.output(output.0, output.1).is_some() {
                case.pool = Some(([Pooling::Avg, Pooling::Max, Pooling::AvgMax][random.below(3)], window));
                case.check();
            }
            cases += 1;
        }
    }
    assert!(cases > 7000, "{cases}");
}

/// 1-D convolutions along a map's height, on short and on padded maps.
#[test]
fn short_sequences_equal_their_naive_form() {
    let mut random = Random(10);
    for (kernel, stride) in (1..=5).flat_map(|kernel| [1, 2, 3, 4, 9].map(|stride| (kernel, stride))) {
        // The last paddings are longer than the part of a line that a task takes.
        for (padding, length) in [0, 1, 2, 3, 7, 70].into_iter().flat_map(|p| [1, 2, 3, 4, 9].map(|l| (p, l))) {
            for (in_channels, out_channels) in [(1, 5), (4, 17), (5, 3), (33, 16)] {
                let (kernel, stride, padding) = ((kernel, 1), (stride, 1), (padding, 0));
                let conv_shape =
                    ConvShape { in_channels, out_channels, kernel, stride, padding, padding_after: padding };
                if conv_shape.output(length, 1).is_none() {
                    continue;
                }
                let mut case = Case::new(conv_shape, (1 + random.below(2), length, 1), &mut random);
                case.check();
                let window = Window { size: (2, 1), padding: random.below(2) };
                if window.output(conv_shape.output(length, 1).unwrap().0, 1).is_some() {
                    case.pool = Some((Pooling::Max, window));
                    case.check();
                }
            }
        }
    }
}

#[test]
fn sizes_beyond_the_address_space_are_rejected() {
    let huge = usize::MAX / 2;
    let rejected = |conv_shape: ConvShape, shape: Shape, x: &[f32]| {
        let values =
            vec![1.0; conv_shape.in_channels * conv_shape.out_channels * conv_shape.kernel.0 * conv_shape.kernel.1];
        let ones = vec![1.0; conv_shape.out_channels];
        let (activation, storage) = (Activation::Identity, Storage::F32);
        let filters = Filters { values: &values, scale: &ones, bias: &ones, activation, storage };
        let conv = Conv::pack(conv_shape, None, filters);
        Isa::available()
            .into_iter()
            .all(|isa| conv.forward(Input::Planes(x, shape), None, isa, &Workspace::default()).is_none())
    };
    let shape = Shape { batch: 1, channels: 1, height: 3, width: 2 };
    let conv_shape = three_by_three(1, 1);
    for (kernel, padding) in [(1, huge), (1, huge / 2), (3, huge + 1), (3, usize::MAX)] {
        let padded = |padding| ConvShape { kernel: (kernel, 1), padding, padding_after: padding, ..conv_shape };
        assert!(rejected(padded((padding, 0)), shape, &[0.0; 6]), "{kernel} {padding}");
        assert!(rejected(padded((0, padding)), shape, &[0.0; 6]), "{kernel} {padding}");
    }
    // Few output rows, but their patch of the padded map is huge.
    let padding = (huge - 2, huge - 2);
    let few = ConvShape { stride: (huge, huge), padding, padding_after: padding, kernel: (1, 1), ..conv_shape };
    assert_eq!(few.output(3, 2), Some((2, 2)));
    assert!(rejected(few, shape, &[0.0; 6]));
    assert!(rejected(ConvShape { in_channels: 5, ..few }, Shape { channels: 5, ..shape }, &[0.0; 30]));
    for shape in [
        Shape { batch: huge, channels: 1, height: 2, width: 2 },
        Shape { batch: 1, channels: usize::MAX, height: 1, width: 1 },
        Shape { batch: 1, channels: 1, height: 1 << (usize::BITS / 2), width: 1 << (usize::BITS / 2) },
    ] {
        assert!(shape.values().is_none() && BlockedMap::unwritten(shape, &Workspace::default()).is_none(), "{shape:?}");
    }
}

/// `y[n][o] = bias[o] + Σ_t Σ_i filters[o][i][t] x[n + t − padding][group of o][i]`.
#[test]
fn a_grouped_convolution_equals_its_naive_form() {
    let mut random = Random(7);
    for (batch, n, channels, groups, kernel, padding) in [
        (1, 1, 1, 1, 1, 0),
        (2, 5, 24, 4, 16, 8),
        (1, 300, 96, 2, 128, 64),
        (2, 130, 12, 12, 3, 1),
        (1, 40, 40, 1, 5, 4),
    ] {
        let width = channels / groups;
        let (x, filters) = (random.values(batch * n * channels), random.values(channels * width * kernel));
        let bias = random.values(channels);
        let shape = GroupedShape { channels, groups, kernel, padding };
        let conv = GroupedConv::pack(shape, &filters, bias.clone(), Activation::Relu);
        for isa in Isa::available() {
            let mut y = vec![f32::NAN; x.len()];
            conv.forward(&x, n, &mut y, isa, &Workspace::default());
            for (index, &got) in y.iter().enumerate() {
                let (row, output) = (index / channels, index % channels);
                let (sequence, row, group) = (row / n * n, row % n, output / width);
                let mut sum = f64::from(bias[output]);
                for tap in 0..kernel {
                    let Some(position) = (row + tap).checked_sub(padding).filter(|&position| position < n) else {
                        continue;
                    };
                    for i in 0..width {
                        let x = x[(sequence + position) * channels + group * width + i];
                        sum += f64::from(x) * f64::from(filters[(output * width + i) * kernel + tap]);
                    }
                }
                // Sums of up to 6,144 products of numbers below 1.
                assert!((f64::from(got) - sum.max(0.0)).abs() < 1e-4, "{shape:?}: {got} {sum}");
            }
        }
    }
}

/// `y[n][o] = bias[o] + Σ_t Σ_i filters[o][i][t] x[n − (kernel − 1 − t) · dilation][i]`.
#[test]
fn a_causal_convolution_equals_its_naive_form_whole_and_in_two_parts() {
    let mut random = Random(8);
    for (batch, n, inputs, outputs, kernel, dilation) in [
        (1, 1, 1, 1, 1, 1),
        (3, 40, 5, 6, 3, 4),
        (2, 130, 16, 33, 2, 64),
        (1, 200, 128, 128, 3, 128),
        (1, 65, 24, 8, 32, 3),
    ] {
        let shape = CausalShape { inputs, outputs, kernel, dilation };
        let (context, len) = (shape.context(), (shape.context() + n) * inputs);
        let (all, filters) = (random.values(batch * len), random.values(outputs * inputs * kernel));
        let bias = random.values(outputs);
        let conv = CausalConv::pack(shape, &filters, &bias, Activation::Relu);
        // Of each sequence, from one vector to another.
        let part = |start: usize, end: usize| {
            let rows = all.chunks(len).flat_map(|x| &x[start * inputs..end * inputs]);
            rows.copied().collect::<Vec<f32>>()
        };
        let (x, before) = (part(context, context + n), part(0, context));
        for (isa, before) in Isa::available().into_iter().flat_map(|isa| [(isa, None), (isa, Some(&before[..]))]) {
            let mut y = vec![f32::NAN; batch * n * outputs];
            conv.forward(&x, before, n, &mut y, isa, &Workspace::default());
            for (index, &got) in y.iter().enumerate() {
                let (sequence, row, output) = (index / outputs / n, index / outputs % n, index % outputs);
                let mut sum = f64::from(bias[output]);
                for tap in (0..kernel).filter(|tap| before.is_some() || row + tap * dilation >= context) {
                    for i in 0..inputs {
                        let x = all[sequence * len + (row + tap * dilation) * inputs + i];
                        sum += f64::from(x) * f64::from(filters[(output * inputs + i) * kernel + tap]);
                    }
                }
                // Sums of up to 768 products of numbers below 1.
                assert!((f64::from(got) - sum.max(0.0)).abs() < 1e-4, "{shape:?} {isa:?}: {got} {sum}");
            }
            // The second part, with the vectors before it.
            if before.is_none() {
                continue;
            }
            let (first, mut rest) = (n / 3, vec![f32::NAN; batch * (n - n / 3) * outputs]);
            let (x, before) = (part(context + first, context + n), part(first, first + context));
            conv.forward(&x, Some(&before), n - first, &mut rest, isa, &Workspace::default());
            for (y, rest) in y.chunks(n * outputs).zip(rest.chunks((n - first) * outputs)) {
                assert_eq!(rest, &y[first * outputs..], "{shape:?} {isa:?}");
            }
        }
    }
}
