//! SIMD: instruction sets, vectors and element-wise functions.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod dot;
pub mod isa;
pub mod lanes;
pub mod math;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon;
mod portable;

use isa::{Isa, SimdOp};
use lanes::Lanes;

/// Runs `work` once, compiled for the best [`Isa`] of this machine. Only inlined code benefits: mark the closure and
/// everything it calls `#[inline(always)]`.
///
/// `FnMut`, because a closure's inline attribute does not apply when it is called as an `FnOnce`.
#[inline]
pub fn dispatch<R>(work: impl FnMut() -> R) -> R {
    Isa::best().run(Vectorized(work))
}

/// A closure that the compiler vectorises.
struct Vectorized<F>(F);

impl<R, F: FnMut() -> R> SimdOp for Vectorized<F> {
    type Output = R;

    #[inline(always)]
    fn run<L: Lanes>(mut self) -> R {
        (self.0)()
    }
}
