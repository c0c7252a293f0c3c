//! [`Lanes`] as one NEON register.
#![allow(unsafe_code)] // intrinsics; sound because this file is only compiled for targets that have them

use std::arch::aarch64::*;
use std::arch::asm;

use super::isa::SimdOp;
use super::lanes::{CHANNEL_BLOCK, Lanes, UNROLLED};

#[derive(Clone, Copy)]
pub struct Register(float32x4_t);

macro_rules! binary {
    ($($name:ident: $instruction:ident)*) => {
        $(
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { $instruction(self.0, other.0) })
            }
        )*
    };
}

// SAFETY of every block below: the target has NEON; loads and stores are on arrays of four.
impl Lanes for Register {
    const PARTS: usize = 4;
    // At most 20 sums, 4 registers of weights, 5 of inputs: 29 of 32 registers.
    const TILES: &'static [usize] = &[8, 8, 4, 4, 4];

    // `at_least` and `at_most`: these instructions give NaN if either operand is.
    binary! {
        add: vaddq_f32 sub: vsubq_f32 mul: vmulq_f32 div: vdivq_f32 max: vmaxq_f32 at_least: vmaxq_f32 at_most: vminq_f32
    }

    #[inline(never)]
    fn call<O: SimdOp>(op: O) -> O::Output {
        op.run::<Self>()
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vdupq_n_f32(x) })
    }

    /// The compiler loads `x` once and multiplies by a lane of it.
    #[inline(always)]
    fn splat_of(x: &[f32; UNROLLED], i: usize) -> Self {
        // SAFETY: see above.
        unsafe {
            let x = vld1q_f32(x.as_ptr());
            Self(match i {
                0 => vdupq_laneq_f32::<0>(x),
                1 => vdupq_laneq_f32::<1>(x),
                2 => vdupq_laneq_f32::<2>(x),
                _ => vdupq_laneq_f32::<3>(x),
            })
        }
    }

    #[inline(always)]
    fn load(x: &[f32; CHANNEL_BLOCK], part: usize) -> Self {
        let quarter = &x.as_chunks::<4>().0[part];
        // SAFETY: see above.
        Self(unsafe { vld1q_f32(quarter.as_ptr()) })
    }

    #[inline(always)]
    fn load_f16(x: &[u16; CHANNEL_BLOCK], part: usize) -> Self {
        let quarter = &x.as_chunks::<4>().0[part];
        let mut y: float32x4_t;
        // The intrinsic is not stable in the oldest supported compiler.
        // SAFETY: see above; the instruction reads and writes these registers only.
        unsafe {
            let x = vld1_u16(quarter.as_ptr());
            asm!("fcvtl {y:v}.4s, {x:v}.4h", y = out(vreg) y, x = in(vreg) x, options(pure, nomem, nostack, preserves_flags));
        }
        Self(y)
    }

    #[inline(always)]
    fn store(self, y: &mut [f32; CHANNEL_BLOCK], part: usize) {
        let quarter = &mut y.as_chunks_mut::<4>().0[part];
        // SAFETY: see above.
        unsafe { vst1q_f32(quarter.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vfmaq_f32(term.0, self.0, factor.0) })
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let exponent = vshlq_n_s32::<23>(vreinterpretq_s32_f32(self.0));
            Self(vreinterpretq_f32_s32(vaddq_s32(exponent, vreinterpretq_s32_f32(vdupq_n_f32(1.0)))))
        }
    }

    /// The intrinsic is unstable.
    #[inline(always)]
    fn prefetch(_: *const f32) {}
}
