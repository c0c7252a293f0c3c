//! Element-wise functions over [`Lanes`], and scalar functions and row reductions without branches and calls, so that
//! loops over them vectorise.

use super::lanes::Lanes;

/// Partial results of a row reduction, so that it vectorises.
const PARTIALS: usize = 16;

/// `max(x, 0)`; NaN stays NaN, as in PyTorch (and unlike `f32::max`).
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// `e^x` within 1 ulp, 2 without fused multiply-adds. Arguments are clamped to -87.3..=88.3.
#[inline(always)]
pub fn exp<L: Lanes>(x: L) -> L {
    let (less_one, power) = exp_parts(x);
    less_one.mul_add(power, power)
}

/// `x` for `x ≥ 0`, otherwise `e^x − 1`, within 2e-7. NaN stays NaN.
#[inline(always)]
pub fn elu<L: Lanes>(x: L) -> L {
    let (less_one, power) = exp_parts(x.at_most(L::splat(0.0)));
    x.relu().add(less_one.mul_add(power, power.sub(L::splat(1.0))))
}

/// `1 / (1 + e^-x)` within 2e-7, in 0..=1.
#[inline(always)]
pub fn sigmoid<L: Lanes>(x: L) -> L {
    let one = L::splat(1.0);
    one.div(one.add(exp(L::splat(0.0).sub(x))))
}

/// `tanh x` within 2e-7 and a relative error of 4e-7, in -1..=1.
///
/// Computed as `m / (m + 2)` with `m = e^2x − 1`, which stays accurate near 0.
#[inline(always)]
pub fn tanh<L: Lanes>(x: L) -> L {
    let (less_one, power) = exp_parts(x.add(x));
    let m = less_one.mul_add(power, power.sub(L::splat(1.0)));
    m.div(m.add(L::splat(2.0)))
}

/// `e^r − 1` and `2^n`, where `e^x = 2^n e^r`.
///
/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, and `e^r − 1 = r + r² q(r)`. The polynomial q of degree 4 is a minimax fit
/// (Remez algorithm) of the error relative to `e^r`: 4e-9 with coefficients in f32.
#[inline(always)]
fn exp_parts<L: Lanes>(x: L) -> (L, L) {
    const Q: [f32; 5] = [0.001_381_458_4, 0.008_368_724, 0.041_668_39, 0.166_665_21, 0.499_999_94];
    // ln 2 in two parts; the first is short enough that its product with n is exact (Cody and Waite).
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding this moves the nearest integer into the low bits of the sum.
    let to_integer = L::splat(12_582_912.0); // 1.5 · 2^23
    let x = x.at_least(L::splat(-87.3)).at_most(L::splat(88.3));
    let shifted = x.mul_add(L::splat(std::f32::consts::LOG2_E), to_integer);
    let n = shifted.sub(to_integer);
    let r = n.mul_add(L::splat(-LN_2_LOW), n.mul_add(L::splat(-LN_2_HIGH), x));
    let mut q = L::splat(Q[0]);
    for coefficient in &Q[1..] {
        q = q.mul_add(r, L::splat(*coefficient));
    }
    (q.mul_add(r.mul(r), r), shifted.power_of_two())
}

/// `x Φ(x)`, the exact form of GELU, within 2e-7 · max(1, |x|). NaN stays NaN.
///
/// `Φ(x) = 1/2 + y p(y²)` with `y = x / 1.35`, limited to -4..=4. The polynomial p of degree 14 is a minimax fit in
/// `y² / 8 − 1`, whose range is -1..=1; it is exactly 1/8 at the end, where Φ is 0 or 1. A rational approximation has
/// fewer terms, but its division takes longer than these.
#[inline(always)]
pub fn gelu<L: Lanes>(x: L) -> L {
    const P: [f32; 15] = [
        0.000_561_715_57,
        -0.001_416_280_6,
        0.001_091_769_8,
        -0.001_524_102_6,
        0.005_037_727,
        -0.009_147_556_5,
        0.012_976_973,
        -0.018_809_516,
        0.026_534_695,
        -0.034_767_542,
        0.043_355_76,
        -0.052_928_206,
        0.065_474_52,
        -0.088_192_9,
        0.176_752_95,
    ];
    let y = x.mul(L::splat(1.0 / 1.35)).at_least(L::splat(-4.0)).at_most(L::splat(4.0));
    let u = y.mul(y).mul_add(L::splat(0.125), L::splat(-1.0));
    let mut p = L::splat(P[0]);
    for coefficient in &P[1..] {
        p = p.mul_add(u, L::splat(*coefficient));
    }
    x.mul(y.mul_add(p, L::splat(0.5)))
}

/// Reduces a row: `combine` of `map(x)`, in a fixed order of `PARTIALS` partial results.
#[inline(always)]
pub fn fold(row: &[f32], start: f32, map: impl Fn(f32) -> f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; PARTIALS];
    let blocks = row.chunks_exact(PARTIALS);
    let rest = blocks.remainder();
    for block in blocks {
        for lane in 0..PARTIALS {
            lanes[lane] = combine(lanes[lane], map(block[lane]));
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        lanes[lane] = combine(lanes[lane], map(x));
    }
    // By halves, which are vectors; one after the other, the latencies would add up.
    let mut n = PARTIALS;
    while n > 1 {
        n /= 2;
        for lane in 0..n {
            lanes[lane] = combine(lanes[lane], lanes[lane + n]);
        }
    }
    lanes[0]
}
