//! Instruction sets, chosen at run time.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod isa;
pub mod lanes;
pub mod math;
mod portable;

use pulp::{Arch, Simd, WithSimd};

/// Runs `work` once, compiled for the best vector instructions of this machine (AVX-512, AVX2 with FMA, NEON, or the
/// build's own). Only what is inlined into `work` gains: mark the closure and all that it calls `#[inline(always)]`.
///
/// `FnMut`, because the mark of a closure does not reach the function by which it would be called as an `FnOnce`.
#[inline(always)]
pub fn dispatch<R>(work: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Work(work))
}

struct Work<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Work<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}
