//! [`Dot`] as one register of AVX-512, AVX2 or SSE2, with and without VNNI.
//!
//! VNNI multiplies unsigned by signed bytes. Without it, pairs of 16-bit integers are multiplied: the instruction for
//! bytes saturates.
#![allow(unsafe_code)] // intrinsics; sound because `call` is only reached on a machine that has them

use std::arch::x86_64::*;

use super::{Dot, DotOp};
use crate::nn::kernels::simd::lanes::CHANNEL_BLOCK;

/// Whether this machine has the features that [`Avx512Vnni`] enables beside those of AVX-512.
pub fn has_avx512_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

/// Whether this machine has the features that [`AvxVnni`] enables beside those of AVX2.
pub fn has_avx_vnni() -> bool {
    is_x86_feature_detected!("avxvnni")
}

/// The input of a VNNI step: signed bytes plus 128.
const UNSIGNED: i32 = 128;

/// Stores of a register of sums times the scales of its row and of its outputs.
macro_rules! stores {
    ($($name:ident: $register:ty, $set1:ident $load:ident $mul:ident $to_f32:ident $store:ident;)*) => {$(
        /// # Safety
        /// The instructions are there, and `scales` and `y` point to a register's number of values.
        #[inline(always)]
        unsafe fn $name(sums: $register, row_scale: f32, scales: *const f32, y: *mut f32) {
            // SAFETY: as the caller promises.
            unsafe { $store(y, $mul($to_f32(sums), $mul($set1(row_scale), $load(scales)))) }
        }
    )*};
}
stores! {
    store_512: __m512i, _mm512_set1_ps _mm512_loadu_ps _mm512_mul_ps _mm512_cvtepi32_ps _mm512_storeu_ps;
    store_256: __m256i, _mm256_set1_ps _mm256_loadu_ps _mm256_mul_ps _mm256_cvtepi32_ps _mm256_storeu_ps;
    store_128: __m128i, _mm_set1_ps _mm_loadu_ps _mm_mul_ps _mm_cvtepi32_ps _mm_storeu_ps;
}

// The fields are private, so that a value exists only inside `call`.
macro_rules! dot {
    (
        $(#[$doc:meta])* $name:ident: $register:ty, $features:literal, $parts:literal, $tiles:expr,
        inputs $group:literal $input:ty, $offset:expr, $to_input:expr,
        $load:ident, $splat:ident, |$at:ident| $weights:expr, |$sums:ident, $x:ident, $w:ident| $products:expr,
        $store:ident
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name($register);

        // SAFETY of every block below: the instructions are there, as a register exists only inside `call`; loads and
        // stores are unaligned ones inside arrays of sixteen, or of what the caller of an unsafe function promises.
        impl Dot for $name {
            const GROUP: usize = $group;
            const OFFSET: i32 = $offset;
            const PARTS: usize = $parts;
            const TILES: &'static [usize] = &$tiles;
            type Input = $input;
            type Inputs = $register;
            type Weights = $register;

            /// Called only by [`Level`](super::Level), after detection, or with a register.
            fn call<O: DotOp>(op: O) -> O::Output {
                #[inline(never)]
                #[target_feature(enable = $features)]
                fn inside<O: DotOp>(op: O) -> O::Output {
                    op.run::<$name>()
                }
                // SAFETY: see above.
                unsafe { inside(op) }
            }

            #[inline(always)]
            fn input(bits: u32) -> $input {
                let to_input: fn(u32) -> $input = $to_input;
                to_input(bits)
            }

            #[inline(always)]
            fn load(sums: &[i32; CHANNEL_BLOCK], part: usize) -> Self {
                let sums = &sums.as_chunks::<{ CHANNEL_BLOCK / $parts }>().0[part];
                // SAFETY: see above.
                Self(unsafe { $load(sums.as_ptr().cast()) })
            }

            #[inline(always)]
            unsafe fn inputs(inputs: *const $input) -> $register {
                // SAFETY: see above.
                unsafe { $splat(inputs.cast::<i32>().read_unaligned()) }
            }

            #[inline(always)]
            unsafe fn weights(weights: *const i8, part: usize) -> $register {
                // SAFETY: see above.
                unsafe {
                    let $at = weights.add(part * (CHANNEL_BLOCK / $parts) * $group);
                    $weights
                }
            }

            #[inline(always)]
            fn add_products(self, $x: $register, $w: $register) -> Self {
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
                let scales = scales.as_chunks::<{ CHANNEL_BLOCK / $parts }>().0[part].as_ptr();
                let y = y.as_chunks_mut::<{ CHANNEL_BLOCK / $parts }>().0[part].as_mut_ptr();
                // SAFETY: see above.
                unsafe { $store(self.0, row_scale, scales, y) }
            }
        }
    };
}

// At most 28 sums, 2 registers of weights, 1 of inputs: 31 of 32 registers.
const TILES_512: [usize; 14] = [8, 8, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2];
// At most 12 sums, 2 registers of weights, 1 of inputs: 15 of 16 registers.
const TILES_256: [usize; 6] = [8, 4, 2, 2, 2, 2];
// At most 8 sums, 4 registers of weights, 1 of inputs: 13 of 16 registers.
const TILES_128: [usize; 2] = [8, 4];

dot! {
    /// AVX-512 with VNNI.
    Avx512Vnni: __m512i, "avx512vnni,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma", 1, TILES_512,
    inputs 4 u8, UNSIGNED, |bits| bits as u8 ^ 0x80,
    _mm512_loadu_si512, _mm512_set1_epi32,
    |at| _mm512_loadu_si512(at.cast()),
    |sums, x, w| _mm512_dpbusd_epi32(sums, x, w),
    store_512
}

dot! {
    /// AVX-512 without VNNI.
    Avx512: __m512i, "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma", 1, TILES_512,
    inputs 2 i16, 0, |bits| bits as i16,
    _mm512_loadu_si512, _mm512_set1_epi32,
    |at| _mm512_cvtepi8_epi16(_mm256_loadu_si256(at.cast())),
    |sums, x, w| _mm512_add_epi32(sums, _mm512_madd_epi16(x, w)),
    store_512
}

dot! {
    /// AVX2 with AVX-VNNI.
    AvxVnni: __m256i, "avxvnni,avx2,fma", 2, TILES_256,
    inputs 4 u8, UNSIGNED, |bits| bits as u8 ^ 0x80,
    _mm256_loadu_si256, _mm256_set1_epi32,
    |at| _mm256_loadu_si256(at.cast()),
    |sums, x, w| _mm256_dpbusd_avx_epi32(sums, x, w),
    store_256
}

dot! {
    /// AVX2 without VNNI.
    Avx2: __m256i, "avx2,fma", 2, TILES_256,
    inputs 2 i16, 0, |bits| bits as i16,
    _mm256_loadu_si256, _mm256_set1_epi32,
    |at| _mm256_cvtepi8_epi16(_mm_loadu_si128(at.cast())),
    |sums, x, w| _mm256_add_epi32(sums, _mm256_madd_epi16(x, w)),
    store_256
}

dot! {
    /// SSE2, which every x86-64 processor has.
    Sse2: __m128i, "sse2", 4, TILES_128,
    inputs 2 i16, 0, |bits| bits as i16,
    _mm_loadu_si128, _mm_set1_epi32,
    |at| _mm_srai_epi16::<8>(_mm_unpacklo_epi8(_mm_setzero_si128(), _mm_loadl_epi64(at.cast()))),
    |sums, x, w| _mm_add_epi32(sums, _mm_madd_epi16(x, w)),
    store_128
}
