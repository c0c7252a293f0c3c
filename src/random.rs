//! Random numbers that are identical on every machine and in every version of this crate.

use std::f64::consts::TAU;

/// A seeded random number generator: xoshiro256++ (Blackman and Vigna, 2019), seeded by SplitMix64. Not cryptographic.
///
/// ```
/// use clipwise::augment::Random;
///
/// let mut random = Random::new(7);
/// assert!(random.below(10) < 10);
/// assert_eq!(Random::new(7).uniform(), Random::new(7).uniform());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// Creates a generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self::stream(seed, 0)
    }

    /// Creates the generator of stream `index` of a seed. With one stream per example or worker, results do not depend
    /// on the order in which examples are processed.
    pub fn stream(seed: u64, index: u64) -> Self {
        let mut fill = seed;
        let mut from = split_mix(&mut fill) ^ index;
        Self { state: std::array::from_fn(|_| split_mix(&mut from)) }
    }

    /// A uniform 64-bit number.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A uniform number in `0.0..1.0`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A uniform number in `0..bound`, without modulo bias; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        if bound == 0 {
            return 0;
        }
        // Lemire's method: take the upper half of the product, and reject the lower halves that would bias the result.
        let unfair = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= unfair {
                return (product >> 64) as usize;
            }
        }
    }

    /// A Gaussian number with mean 0 and variance 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (TAU * self.uniform()).cos()
    }

    /// A Beta-distributed number in `0.0..=1.0`, of density proportional to `x^(a - 1) (1 - x)^(b - 1)`. NaN unless `a`
    /// and `b` are finite and above 0.
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        if !(a.is_finite() && a > 0.0 && b.is_finite() && b > 0.0) {
            return f64::NAN;
        }
        let (x, y) = (self.log_gamma(a), self.log_gamma(b));
        1.0 / (1.0 + (y - x).exp())
    }

    /// A uniform random permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }

    /// The logarithm of a gamma-distributed number. For a small shape the number itself would underflow.
    ///
    /// Marsaglia and Tsang (2000) for shapes of at least 1; below, `gamma(shape) = gamma(shape + 1) u^(1 / shape)`.
    fn log_gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let log_u = (1.0 - self.uniform()).ln();
            return self.log_gamma(shape + 1.0) + log_u / shape;
        }
        let d = shape - 1.0 / 3.0;
        let c = (9.0 * d).sqrt().recip();
        loop {
            let x = self.normal();
            let log_v = 3.0 * (1.0 + c * x).ln(); // NaN for negative v, which the test below rejects
            if (1.0 - self.uniform()).ln() < 0.5 * x * x + d - d * log_v.exp() + d * log_v {
                return d.ln() + log_v;
            }
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sequences_of_the_generators() {
        let mut random = Random { state: [1, 2, 3, 4] };
        let expected =
            [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386, 9_228_616_714_210_784_205];
        assert_eq!(expected.map(|_| random.next_u64()), expected);
        let mut state = 1_234_567;
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(expected.map(|_| split_mix(&mut state)), expected);
    }
}
