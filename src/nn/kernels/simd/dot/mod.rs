//! Dot products of 8-bit integers, and the instruction sets that have them.
//!
//! Kernels are written once over [`Dot`] and compiled for each [`Level`]. All levels give the same sums, since integers
//! are added exactly.

#![allow(unsafe_code)] // declares unsafe functions

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon;
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

use bytemuck::Pod;

use super::isa::{Isa, Kind as IsaKind};
use super::lanes::CHANNEL_BLOCK;

/// One register of sums; its `part`s 0 to `PARTS − 1` make up a channel block. A step multiplies [`GROUP`](Self::GROUP)
/// inputs of a row by their weights for each output of the register.
pub trait Dot: Copy {
    /// Inputs per step. Together they fill 32 bits.
    const GROUP: usize;
    /// Value that is added to each input, because the instruction takes unsigned ones. The sums are corrected by their
    /// initial value.
    const OFFSET: i32;
    /// Registers per channel block.
    const PARTS: usize;
    /// The register tiles: registers per row for a tile of 1, 2, … rows, each at least one channel block.
    const TILES: &'static [usize];
    /// Type of an input.
    type Input: Pod;
    /// The inputs of a step, for every output.
    type Inputs: Copy;
    /// The weights of a step.
    type Weights: Copy;

    /// Runs `op` as a separate function compiled for this level.
    fn call<O: DotOp>(op: O) -> O::Output;
    /// The input whose value is `1.5 · 2^23 + n` in f32, of which `bits` are the bits, plus the offset.
    fn input(bits: u32) -> Self::Input;
    fn load(sums: &[i32; CHANNEL_BLOCK], part: usize) -> Self;
    /// # Safety
    /// `inputs` points to `GROUP` inputs.
    unsafe fn inputs(inputs: *const Self::Input) -> Self::Inputs;
    /// # Safety
    /// `weights` points to `[16][GROUP]` weights.
    unsafe fn weights(weights: *const i8, part: usize) -> Self::Weights;
    /// `self + Σ inputs · weights`, modulo 2³².
    fn add_products(self, inputs: Self::Inputs, weights: Self::Weights) -> Self;
    /// Writes `sums · (row_scale · scales)`; the sums and both products are rounded to f32.
    fn store_scaled(self, row_scale: f32, scales: &[f32; CHANNEL_BLOCK], y: &mut [f32; CHANNEL_BLOCK], part: usize);
}

/// An operation that is compiled for every [`Level`].
pub trait DotOp {
    type Output;
    /// Mark implementations, and everything they call, `#[inline(always)]`.
    fn run<D: Dot>(self) -> Self::Output;
}

/// An instruction set for dot products that this machine has: only [`Level::of`] and [`Level::available`] create values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Sse2,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    NeonDot,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon,
    #[cfg(any(test, not(target_arch = "x86_64")))]
    Portable,
}

impl Level {
    /// The best available level of [`Isa::best`].
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| Self::of(Isa::best()))
    }

    /// The best available level of `isa`.
    fn of(isa: Isa) -> Self {
        Self(match isa.kind() {
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 if x86::has_avx512_vnni() => Kind::Avx512Vnni,
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512 => Kind::Avx512,
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2 if x86::has_avx_vnni() => Kind::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2 => Kind::Avx2,
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            IsaKind::Neon if neon::has_dot_product() => Kind::NeonDot,
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            IsaKind::Neon => Kind::Neon,
            #[cfg(target_arch = "x86_64")]
            IsaKind::Portable => Kind::Sse2,
            #[cfg(not(target_arch = "x86_64"))]
            IsaKind::Portable => Kind::Portable,
        })
    }

    /// All available levels, the best first.
    #[cfg(test)]
    pub fn available() -> Vec<Self> {
        let mut available = Vec::new();
        for isa in Isa::available() {
            available.push(Self::of(isa));
            match isa.kind() {
                #[cfg(target_arch = "x86_64")]
                IsaKind::Avx512 => available.push(Self(Kind::Avx512)),
                #[cfg(target_arch = "x86_64")]
                IsaKind::Avx2 => available.push(Self(Kind::Avx2)),
                #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
                IsaKind::Neon => available.push(Self(Kind::Neon)),
                IsaKind::Portable => available.push(Self(Kind::Portable)),
            }
        }
        available.dedup();
        available
    }

    /// Runs `op` compiled for this level.
    pub fn run<O: DotOp>(self, op: O) -> O::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => x86::Avx512Vnni::call(op),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => x86::Avx512::call(op),
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni => x86::AvxVnni::call(op),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => x86::Avx2::call(op),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Kind::NeonDot => neon::NeonDot::call(op),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Kind::Neon => neon::Neon::call(op),
            #[cfg(target_arch = "x86_64")]
            Kind::Sse2 => x86::Sse2::call(op),
            #[cfg(any(test, not(target_arch = "x86_64")))]
            Kind::Portable => op.run::<portable::Portable>(),
        }
    }
}
