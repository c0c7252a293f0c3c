//! [`Lanes`] as one AVX-512 register.
#![allow(unsafe_code)] // intrinsics; sound because `run` is only called on a machine that has them

use std::arch::x86_64::*;

use super::isa::SimdOp;
use super::lanes::{CHANNEL_BLOCK, Lanes};

/// Private to this file, so that a value exists only inside [`run`].
#[derive(Clone, Copy)]
struct Register(__m512);

/// Whether this machine has all features that [`run`] enables: x86-64-v4, the AVX-512 of Skylake-X and Zen 4. Those
/// beyond F let the compiler vectorise loops with integers and with shorter vectors. A machine without them uses AVX2.
pub fn is_available() -> bool {
    super::avx2::is_available()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// Runs `op` with AVX-512. Called only by [`super::isa::Isa`], after detection.
pub fn run<O: SimdOp>(op: O) -> O::Output {
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c")]
    fn inside<O: SimdOp>(op: O) -> O::Output {
        op.run::<Register>()
    }
    debug_assert!(is_available());
    // SAFETY: `Isa` creates this kind only if `is_available` returns true.
    unsafe { inside(op) }
}

// SAFETY of every block below: the instructions are there, as a `Register` exists only inside `run`; loads and stores are
// unaligned ones on arrays of sixteen.
impl Lanes for Register {
    const PARTS: usize = 1;
    // At most 28 sums, 2 registers of weights, 1 of the input: 31 of 32 registers.
    const TILES: &'static [usize] = &[8, 8, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2];

    #[inline(always)]
    fn call<O: SimdOp>(op: O) -> O::Output {
        run(op)
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    fn load(x: &[f32; CHANNEL_BLOCK], _: usize) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_ps(x.as_ptr()) })
    }

    #[inline(always)]
    fn load_f16(x: &[u16; CHANNEL_BLOCK], _: usize) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) })
    }

    #[inline(always)]
    fn store(self, y: &mut [f32; CHANNEL_BLOCK], _: usize) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(y.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let larger = _mm512_max_ps(self.0, other.0); // `other` if one is NaN
            let keep = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            Self(_mm512_mask_mov_ps(larger, keep, self.0))
        }
    }

    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        // The instruction gives its second operand if one is NaN.
        // SAFETY: see above.
        Self(unsafe { _mm512_max_ps(bound.0, self.0) })
    }

    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        // As in `at_least`.
        // SAFETY: see above.
        Self(unsafe { _mm512_min_ps(bound.0, self.0) })
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(self.0));
            Self(_mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_castps_si512(_mm512_set1_ps(1.0)))))
        }
    }

    #[inline(always)]
    fn prefetch(ahead: *const f32) {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.cast()) }
    }
}
