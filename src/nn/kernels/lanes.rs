//! Vectors of f32, and which instructions work on them.
//!
//! Kernels that are worth more than what the compiler makes of a loop are written once over [`Lanes`] and compiled for
//! each [`Level`]: `avx512`, `avx2`, and `portable` for everything else. The level is chosen at run time.

use std::sync::OnceLock;

/// Channels in a block.
pub const LANES: usize = 16;

/// A register's worth of a block's channels: its `part`s 0 to `PARTS − 1` make up the block. Every operation works on each
/// lane by itself, with one rounding except where it says otherwise.
pub trait Lanes: Copy {
    /// Registers that make up a block.
    const PARTS: usize;
    /// Rows of the largest block of sums that [`super::tile`] keeps in registers …
    const ROWS: usize;
    /// … and its columns, in registers: one block or several.
    const COLUMNS: usize;

    fn splat(x: f32) -> Self;
    fn load(x: &[f32; LANES], part: usize) -> Self;
    fn store(self, y: &mut [f32; LANES], part: usize);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self · factor + term`, rounded once where the machine can and twice where it cannot.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// `max(self, 0)`; NaN stays NaN.
    fn relu(self) -> Self;
    /// The larger one; NaN if one is.
    fn max(self, other: Self) -> Self;
    /// `2^n` for `n` from -126 to 127, given as `n + 1.5 · 2^23`, whose low bits are `n`.
    fn power_of_two(self) -> Self;
    /// Asks for the cache line at `ahead`, which need not be an address that may be read.
    fn prefetch(ahead: *const f32);
}

/// Work that is compiled for every level.
pub trait Work {
    type Output;
    /// Mark it and all that it calls `#[inline(always)]`.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Instructions that this machine has. Only [`Level::available`] makes values other than `Portable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Level {
    /// The best one.
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
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

    /// Runs `work` with the instructions of this level.
    pub fn run<W: Work>(self, work: W) -> W::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => super::avx512::run(work),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => super::avx2::run(work),
            Kind::Portable => work.run::<super::portable::Portable>(),
        }
    }
}
