//! The naive twin of each kernel, and the comparison over a table of geometries.

use super::pool::Geometry;
use super::{linear, pointwise, pool};
use crate::nn::Pooling;

/// Values that repeat nowhere near, positive and negative.
fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 500.0 - 1.0).collect()
}

fn naive_pool(x: &[f32], (height, width): (usize, usize), pooling: Pooling, geometry: Geometry) -> Vec<f32> {
    let ((kh, kw), padding) = (geometry.size, geometry.padding);
    let (rows, columns) = ((height - kh) / kh + 1, (width + 2 * padding - kw) / kw + 1);
    let mut y = Vec::new();
    for plane in x.chunks(height * width) {
        for row in 0..rows {
            for column in 0..columns {
                let inside = |i: &usize| (padding..width + padding).contains(i);
                let window: Vec<f32> = (row * kh..row * kh + kh)
                    .flat_map(|i| (column * kw..column * kw + kw).filter(inside).map(move |j| (i, j - padding)))
                    .map(|(i, j)| plane[i * width + j])
                    .collect();
                let mean = window.iter().map(|&v| f64::from(v)).sum::<f64>() / (kh * kw) as f64;
                let max = window.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                y.push(match pooling {
                    Pooling::Avg => mean as f32,
                    Pooling::Max => max,
                    Pooling::AvgMax => mean as f32 + max,
                });
            }
        }
    }
    y
}

#[test]
fn pooling_equals_its_naive_form() {
    for (height, width) in [(1, 1), (2, 2), (3, 5), (7, 4), (1001, 64), (31, 2), (1, 100)] {
        for planes in [1, 3, 70] {
            for size in [(1, 1), (2, 2), (1, 2), (2, 1), (1, 3), (3, 3)] {
                for padding in 0..=size.1 / 2 {
                    for pooling in [Pooling::Avg, Pooling::Max, Pooling::AvgMax] {
                        let geometry = Geometry { size, padding };
                        let output = geometry.output(height, width);
                        let Some((rows, columns)) = output.filter(|_| pooling == Pooling::Max || padding == 0) else {
                            continue;
                        };
                        let x = values(planes * height * width);
                        let mut y = vec![f32::NAN; planes * rows * columns];
                        pool::pool(&x, (height, width), &mut y, pooling, geometry);
                        let wanted = naive_pool(&x, (height, width), pooling, geometry);
                        let worst = y.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        // A mean of at most 9 values near 1 in f32.
                        assert!(y.len() == wanted.len() && worst <= 1e-6, "{height}x{width} {geometry:?}: {worst}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_linear_layer_equals_its_naive_form_and_a_row_does_not_depend_on_the_batch() {
    for (inputs, outputs) in [(1, 1), (5, 3), (16, 33), (100, 64), (2048, 70)] {
        let weight = values(inputs * outputs);
        for batch in [1, 2, 5] {
            let x = values(batch * inputs);
            let mut y = vec![f32::NAN; batch * outputs];
            linear::linear(&x, &weight, inputs, &mut y, |sum, output| sum + output as f32);
            for row in 0..batch {
                let x = &x[row * inputs..][..inputs];
                let mut alone = vec![f32::NAN; outputs];
                linear::linear(x, &weight, inputs, &mut alone, |sum, output| sum + output as f32);
                for output in 0..outputs {
                    let products = x.iter().zip(&weight[output * inputs..]);
                    let wanted = products.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() + output as f64;
                    let got = y[output * batch + row];
                    // 2048 products of values up to 1 in f32.
                    assert!((f64::from(got) - wanted).abs() < 1e-3, "{inputs}->{outputs} {got} {wanted}");
                    assert_eq!(got, alone[output]);
                }
            }
        }
    }
}

#[test]
fn pointwise_kernels_equal_their_naive_form() {
    for (batch, channels, plane) in [(1, 1, 1), (2, 3, 5), (3, 64, 1), (2, 7, 70_000)] {
        let (x, bias) = (values(batch * channels * plane), values(channels));
        let mut y = x.clone();
        pointwise::bias_activation(&mut y, &bias, plane, |y| y.max(0.0));
        let wanted: Vec<f32> = (0..x.len()).map(|i| (x[i] + bias[i / plane % channels]).max(0.0)).collect();
        assert_eq!(y, wanted);

        let (x, shift) = (values(batch * plane * channels), values(channels + 1));
        let mut y = vec![f32::NAN; x.len()];
        pointwise::affine_last(&x, &bias, &shift[1..], &mut y);
        let wanted: Vec<f32> = (0..x.len()).map(|i| x[i] * bias[i % channels] + shift[i % channels + 1]).collect();
        assert_eq!(y, wanted);
    }
}
