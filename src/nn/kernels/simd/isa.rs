//! Which vector instructions a kernel is compiled for, chosen at run time: AVX-512, AVX2 with FMA, or what every machine of
//! the target has.

use std::sync::OnceLock;

use super::lanes::Lanes;

/// Work that is compiled for every [`Isa`].
pub trait SimdOp {
    type Output;
    /// Mark it and all that it calls `#[inline(always)]`.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Instructions that this machine has. Only [`Isa::available`] makes values other than `Portable`.
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
    /// The best one.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// All, the best first.
    pub fn available() -> Vec<Self> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            // A hypervisor may show the one without the others.
            if avx2 && is_x86_feature_detected!("avx512f") {
                levels.push(Self(Kind::Avx512));
            }
            if avx2 {
                levels.push(Self(Kind::Avx2));
            }
        }
        levels.push(Self(Kind::Portable));
        levels
    }

    /// Runs `work` with these instructions.
    pub fn run<W: SimdOp>(self, work: W) -> W::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => super::avx512::run(work),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => super::avx2::run(work),
            Kind::Portable => work.run::<super::portable::Portable>(),
        }
    }
}
