//! Selection of the vector instruction set at run time: AVX-512, AVX2 with FMA, or the target's baseline.

use std::sync::OnceLock;

use super::lanes::Lanes;

/// An operation that is compiled for every [`Isa`].
pub trait SimdOp {
    type Output;
    /// Mark implementations, and everything they call, `#[inline(always)]`.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// An instruction set that this machine has. Only [`Isa::available`] creates values other than `Portable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// The best available instruction set.
    #[inline]
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// All available instruction sets, the best first.
    pub fn available() -> Vec<Self> {
        let mut available = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if super::avx512::is_available() {
                available.push(Self(Kind::Avx512));
            }
            if super::avx2::is_available() {
                available.push(Self(Kind::Avx2));
            }
        }
        available.push(Self(Kind::Portable));
        available
    }

    /// Runs `op` compiled for this instruction set.
    #[inline]
    pub fn run<O: SimdOp>(self, op: O) -> O::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => super::avx512::run(op),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => super::avx2::run(op),
            Kind::Portable => op.run::<super::portable::Portable>(),
        }
    }
}
