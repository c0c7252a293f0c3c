//! Instruction sets, chosen at run time.

/// Runs `work` compiled for the best vector instructions of this machine (AVX-512, AVX2 with FMA, NEON, or the build's
/// own). Only what is inlined into `work` gains: mark the closure and all that it calls `#[inline(always)]`.
#[inline(always)]
pub fn dispatch<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
