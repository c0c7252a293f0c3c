//! [`Dot`] as one NEON register, with and without the dot-product instructions.
#![allow(unsafe_code)] // intrinsics; sound because `NeonDot::call` is only reached on a machine that has them

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{Dot, DotOp};
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;

/// Whether this machine has `sdot`.
pub fn has_dot_product() -> bool {
    is_aarch64_feature_detected!("dotprod")
}

// The fields are private, so that a value exists only inside `call`.
macro_rules! dot {
    ($(#[$doc:meta])* $name:ident, $(#[$feature:meta])? |$sums:ident, $x:ident, $w:ident| $products:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(int32x4_t);

        // SAFETY of every block below: the target has NEON, and a register of `NeonDot` exists only inside `call`; loads
        // and stores are on arrays of four, or on what the caller of an unsafe function promises.
        impl Dot for $name {
            const GROUP: usize = 4;
            const OFFSET: i32 = 0;
            const PARTS: usize = 4;
            // At most 20 sums, 4 registers of weights, 1 of inputs: 25 of 32 registers.
            const TILES: &'static [usize] = &[8, 8, 4, 4, 4];
            type Input = i8;
            type Inputs = int8x16_t;
            type Weights = int8x16_t;

            /// Called only by [`Level`](super::Level), after detection, or with a register.
            fn call<O: DotOp>(op: O) -> O::Output {
                #[inline(never)]
                $(#[$feature])?
                fn inside<O: DotOp>(op: O) -> O::Output {
                    op.run::<$name>()
                }
                // SAFETY: see above.
                #[allow(unused_unsafe)]
                unsafe {
                    inside(op)
                }
            }

            #[inline(always)]
            fn input(bits: u32) -> i8 {
                bits as i8
            }

            #[inline(always)]
            fn load(sums: &[i32; CHANNEL_BLOCK], part: usize) -> Self {
                // SAFETY: see above.
                Self(unsafe { vld1q_s32(sums.as_chunks::<4>().0[part].as_ptr()) })
            }

            #[inline(always)]
            unsafe fn inputs(inputs: *const i8) -> int8x16_t {
                // SAFETY: see above.
                unsafe { vreinterpretq_s8_s32(vdupq_n_s32(inputs.cast::<i32>().read_unaligned())) }
            }

            #[inline(always)]
            unsafe fn weights(weights: *const i8, part: usize) -> int8x16_t {
                // SAFETY: see above.
                unsafe { vld1q_s8(weights.add(part * 16)) }
            }

            #[inline(always)]
            fn add_products(self, $x: int8x16_t, $w: int8x16_t) -> Self {
                let $sums = self.0;
                // SAFETY: see above.
                Self(unsafe { $products })
            }

            #[inline(always)]
            fn store_scaled(
                self,
                row_scale: f32,
                scales: &[f32; CHANNEL_BLOCK],
                y: &mut [f32; CHANNEL_BLOCK],
                part: usize,
            ) {
                let (scales, y) = (&scales.as_chunks::<4>().0[part], &mut y.as_chunks_mut::<4>().0[part]);
                // SAFETY: see above.
                unsafe {
                    let scales = vmulq_f32(vdupq_n_f32(row_scale), vld1q_f32(scales.as_ptr()));
                    vst1q_f32(y.as_mut_ptr(), vmulq_f32(vcvtq_f32_s32(self.0), scales));
                }
            }
        }
    };
}

dot! {
    /// With `sdot`, whose intrinsic is unstable.
    NeonDot, #[target_feature(enable = "dotprod")] |sums, x, w| {
        let mut sums = sums;
        asm!(
            "sdot {sums:v}.4s, {x:v}.16b, {w:v}.16b",
            sums = inout(vreg) sums, x = in(vreg) x, w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags)
        );
        sums
    }
}

dot! {
    /// Without it: two products of bytes fit into 16 bits.
    Neon, |sums, x, w| {
        let low = vmull_s8(vget_low_s8(x), vget_low_s8(w));
        let high = vmull_high_s8(x, w);
        vpadalq_s16(sums, vpaddq_s16(low, high))
    }
}
