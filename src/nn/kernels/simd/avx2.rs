//! [`Lanes`] as one AVX register, with AVX2, FMA and F16C.
#![allow(unsafe_code)] // intrinsics; sound because `run` is only called on a machine that has them

use std::arch::x86_64::*;

use super::isa::SimdOp;
use super::lanes::{CHANNEL_BLOCK, Lanes};

/// Private to this file, so that a value exists only inside [`run`].
#[derive(Clone, Copy)]
struct Register(__m256);

/// Whether this machine has all features that [`run`] enables. A hypervisor may expose one without the other.
pub fn is_available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Runs `op` with AVX2 and FMA. Called only by [`super::isa::Isa`], after detection.
pub fn run<O: SimdOp>(op: O) -> O::Output {
    #[inline(never)]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn inside<O: SimdOp>(op: O) -> O::Output {
        op.run::<Register>()
    }
    debug_assert!(is_available());
    // SAFETY: `Isa` creates this kind only if `is_available` returns true.
    unsafe { inside(op) }
}

// SAFETY of every block below: the instructions are there, as a `Register` exists only inside `run`; loads and stores are
// unaligned ones on halves of arrays of sixteen.
impl Lanes for Register {
    const PARTS: usize = 2;
    // At most 12 sums, 2 registers of weights, 1 of the input: 15 of 16 registers.
    const TILES: &'static [usize] = &[8, 4, 2, 2, 2, 2];

    #[inline(always)]
    fn call<O: SimdOp>(op: O) -> O::Output {
        run(op)
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    fn load(x: &[f32; CHANNEL_BLOCK], part: usize) -> Self {
        let half = &x.as_chunks::<8>().0[part];
        // SAFETY: see above.
        Self(unsafe { _mm256_loadu_ps(half.as_ptr()) })
    }

    #[inline(always)]
    fn load_f16(x: &[u16; CHANNEL_BLOCK], part: usize) -> Self {
        let half = &x.as_chunks::<8>().0[part];
        // SAFETY: see above.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(half.as_ptr().cast())) })
    }

    #[inline(always)]
    fn store(self, y: &mut [f32; CHANNEL_BLOCK], part: usize) {
        let half = &mut y.as_chunks_mut::<8>().0[part];
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(half.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let larger = _mm256_max_ps(self.0, other.0); // `other` if one is NaN
            Self(_mm256_blendv_ps(larger, self.0, _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0)))
        }
    }

    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        // The instruction gives its second operand if one is NaN.
        // SAFETY: see above.
        Self(unsafe { _mm256_max_ps(bound.0, self.0) })
    }

    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        // As in `at_least`.
        // SAFETY: see above.
        Self(unsafe { _mm256_min_ps(bound.0, self.0) })
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.0));
            Self(_mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_castps_si256(_mm256_set1_ps(1.0)))))
        }
    }

    #[inline(always)]
    fn prefetch(ahead: *const f32) {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.cast()) }
    }
}
