//! [`Lanes`] as an array of four values, which the compiler vectorises with the target's baseline instructions.

use super::isa::SimdOp;
use super::lanes::{CHANNEL_BLOCK, Lanes};

/// Four values: one SSE2, NEON or wasm SIMD register.
#[derive(Clone, Copy)]
pub struct Portable([f32; WIDTH]);

const WIDTH: usize = 4;
/// Whether the target always has fused multiply-add; elsewhere `f32::mul_add` is a function call.
const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut y = self.0;
        for lane in 0..WIDTH {
            y[lane] = f(y[lane], other.0[lane]);
        }
        Self(y)
    }
}

impl Lanes for Portable {
    const PARTS: usize = CHANNEL_BLOCK / WIDTH;
    // 8 sums, 4 registers of weights and 1 of the input: 13 of 16 registers.
    const TILES: &'static [usize] = &[8, 4];

    #[inline(never)]
    fn call<O: SimdOp>(op: O) -> O::Output {
        op.run::<Self>()
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; WIDTH])
    }

    #[inline(always)]
    fn load(x: &[f32; CHANNEL_BLOCK], part: usize) -> Self {
        Self(x.as_chunks().0[part])
    }

    #[inline(always)]
    fn load_f16(x: &[u16; CHANNEL_BLOCK], part: usize) -> Self {
        // Exponents of f16 have another bias, which a product corrects, also for subnormal numbers.
        const BIAS: f32 = (1u128 << 112) as f32;
        Self(x.as_chunks().0[part].map(|bits| {
            let (sign, rest) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff) << 13);
            f32::from_bits(sign | rest) * BIAS
        }))
    }

    #[inline(always)]
    fn store(self, y: &mut [f32; CHANNEL_BLOCK], part: usize) {
        y.as_chunks_mut().0[part] = self.0;
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        let mut y = term.0;
        for lane in 0..WIDTH {
            let (x, factor) = (self.0[lane], factor.0[lane]);
            y[lane] = if FUSED { x.mul_add(factor, y[lane]) } else { x * factor + y[lane] };
        }
        Self(y)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b || a.is_nan() { a } else { b })
    }

    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        self.zip(bound, |x, bound| if x < bound { bound } else { x })
    }

    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        self.zip(bound, |x, bound| if x > bound { bound } else { x })
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        self.zip(self, |x, _| f32::from_bits((x.to_bits() << 23).wrapping_add(1f32.to_bits())))
    }

    #[inline(always)]
    fn prefetch(_: *const f32) {}
}
