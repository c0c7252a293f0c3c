//! Vectors of f32.
//!
//! Kernels that are worth more than what the compiler makes of a loop are written once over [`Lanes`] and compiled for
//! each [`Isa`](super::isa::Isa).

use super::isa::SimdOp;

/// Channels in a block.
pub const CHANNEL_BLOCK: usize = 16;

/// A register's worth of a block's channels: its `part`s 0 to `PARTS − 1` make up the block. Every operation works on each
/// lane by itself, with one rounding except where it says otherwise.
pub trait Lanes: Copy {
    /// Registers that make up a block.
    const PARTS: usize;
    /// The register tiles of `matmul::packed`: registers per row of a tile of 1, 2, … rows, each at least one block of
    /// channels. Two multiply-adds per cycle, each of which takes four, keep eight sums busy.
    const TILES: &'static [usize];

    /// Runs `op` with the instructions of these lanes, as a function of its own: the compiler runs out of registers where
    /// many large loops share one.
    fn call<O: SimdOp>(op: O) -> O::Output;
    fn splat(x: f32) -> Self;
    fn load(x: &[f32; CHANNEL_BLOCK], part: usize) -> Self;
    fn store(self, y: &mut [f32; CHANNEL_BLOCK], part: usize);
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
