//! 1-D Winograd transforms for three taps with stride 1 and padding 1: F(4,3), the two-column case, and none.
//!
//! Each [`Axis`] transforms a tile of inputs (`forward`), the filters (`filter`), and their products back to a tile of
//! outputs (`inverse`). Without a transform, a convolution needs three products per output.
//!
//! | axis | outputs per tile | products per tile | products per output | growth of the filters |
//! |---|---|---|---|---|
//! | [`F43`] | 4 | 6 | 1.5 | 2 x |
//! | [`TwoColumns`] | 2, the whole axis | 3 | 1.5 | 1 x |
//! | [`Untransformed`] | 1 | the tap itself, summed over taps | 3 (or 1 where the filter has one tap) | 1 x |
//!
//! `F43` is the Toom-Cook/Winograd form F(4,3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
//! 2015, arXiv 1509.09308) on the points 0, ±A, ±B and infinity: it computes the product of two polynomials from their
//! values at these points. `TwoColumns` is for maps with two columns, which have padding on both sides: `y0 = k1 a + k2
//! b`, `y1 = k0 a + k1 b` is a product with a 2 x 2 Toeplitz matrix, which takes three multiplications: `k1 (a + b)`,
//! `(k2 − k1) b`, `(k0 − k1) a`.

use crate::nn::kernels::simd::lanes::Lanes;

/// Maximum number of inputs and products of a tile.
pub const MAX_POINTS: usize = 6;
/// Maximum number of outputs of a tile.
pub const MAX_OUTPUTS: usize = 4;

/// One axis of a convolution.
pub trait Axis {
    /// Inputs per tile.
    const INPUTS: usize;
    /// Products per tile.
    const PRODUCTS: usize;
    /// Outputs per tile, and the distance between tiles.
    const OUTPUTS: usize;
    /// Inputs before the first output.
    const BEFORE: usize;

    /// Transforms the first `INPUTS` values of `x` to the first `PRODUCTS`.
    fn forward<L: Lanes>(x: [L; MAX_POINTS]) -> [L; MAX_POINTS];
    /// Transforms the first `PRODUCTS` values of `m` to the first `OUTPUTS`.
    fn inverse<L: Lanes>(m: [L; MAX_POINTS]) -> [L; MAX_OUTPUTS];
    /// The coefficients of the three taps in the factor of product `product`.
    fn filter(product: usize) -> [f64; 3];
}

/// Four outputs from six products.
pub struct F43;

/// The points of [`F43`] other than 0 and infinity. Of the pairs tried (multiples of 1/16, on CNN14's layers with
/// random values), these give about the smallest f32 error; the textbook's 1 and 2 give twice as much.
const A: f64 = 0.625;
const B: f64 = 1.5;

impl Axis for F43 {
    const INPUTS: usize = 6;
    const PRODUCTS: usize = 6;
    const OUTPUTS: usize = 4;
    const BEFORE: usize = 1;

    #[inline(always)]
    fn forward<L: Lanes>(x: [L; MAX_POINTS]) -> [L; MAX_POINTS] {
        let of = |value: f64| L::splat(value as f32);
        let (aa, bb) = (A * A, B * B);
        // x (x² − A²) (x² − B²) without the root at the point, applied to the inputs. ± share the even and odd parts.
        let (sum, product) = (of(-(aa + bb)), of(aa * bb));
        let even_a = x[2].mul_add(of(-bb), x[4]);
        let odd_a = x[1].mul_add(of(-bb), x[3]);
        let even_b = x[2].mul_add(of(-aa), x[4]);
        let odd_b = x[1].mul_add(of(-aa), x[3]);
        [
            x[0].mul_add(product, x[2].mul_add(sum, x[4])),
            odd_a.mul_add(of(A), even_a),
            odd_a.mul_add(of(-A), even_a),
            odd_b.mul_add(of(B), even_b),
            odd_b.mul_add(of(-B), even_b),
            x[1].mul_add(product, x[3].mul_add(sum, x[5])),
        ]
    }

    #[inline(always)]
    fn inverse<L: Lanes>(m: [L; MAX_POINTS]) -> [L; MAX_OUTPUTS] {
        let of = |value: f64| L::splat(value as f32);
        let (sum_a, difference_a) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (sum_b, difference_b) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(sum_a).add(sum_b),
            difference_b.mul_add(of(B), difference_a.mul(of(A))),
            sum_b.mul_add(of(B * B), sum_a.mul(of(A * A))),
            difference_b.mul_add(of(B * B * B), difference_a.mul_add(of(A * A * A), m[5])),
        ]
    }

    fn filter(product: usize) -> [f64; 3] {
        let point = match product {
            0 => 0.0,
            1 => A,
            2 => -A,
            3 => B,
            4 => -B,
            _ => return [0.0, 0.0, 1.0],
        };
        // Divided by the product of the differences to the other points.
        let others = [0.0, A, -A, B, -B].into_iter().filter(|&other| other != point);
        let scale: f64 = others.map(|other| point - other).product();
        [1.0 / scale, point / scale, point * point / scale]
    }
}

/// An axis with two positions.
pub struct TwoColumns;

impl Axis for TwoColumns {
    const INPUTS: usize = 2;
    const PRODUCTS: usize = 3;
    const OUTPUTS: usize = 2;
    const BEFORE: usize = 0;

    #[inline(always)]
    fn forward<L: Lanes>(x: [L; MAX_POINTS]) -> [L; MAX_POINTS] {
        let [a, b, ..] = x;
        [a.add(b), b, a, a, a, a]
    }

    #[inline(always)]
    fn inverse<L: Lanes>(m: [L; MAX_POINTS]) -> [L; MAX_OUTPUTS] {
        [m[0].add(m[1]), m[0].add(m[2]), m[0], m[0]]
    }

    fn filter(product: usize) -> [f64; 3] {
        match product {
            0 => [0.0, 1.0, 0.0],
            1 => [0.0, -1.0, 1.0],
            _ => [1.0, -1.0, 0.0],
        }
    }
}

/// No transform: an axis without taps, or one whose taps the matrix product sums.
pub struct Untransformed;

impl Axis for Untransformed {
    const INPUTS: usize = 1;
    const PRODUCTS: usize = 1;
    const OUTPUTS: usize = 1;
    const BEFORE: usize = 0;

    #[inline(always)]
    fn forward<L: Lanes>(x: [L; MAX_POINTS]) -> [L; MAX_POINTS] {
        x
    }

    #[inline(always)]
    fn inverse<L: Lanes>(m: [L; MAX_POINTS]) -> [L; MAX_OUTPUTS] {
        [m[0]; MAX_OUTPUTS]
    }

    fn filter(_: usize) -> [f64; 3] {
        [0.0, 1.0, 0.0]
    }
}
