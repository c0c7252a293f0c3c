//! Vectors of f32.
//!
//! Kernels that need more than the compiler's auto-vectorisation are written once over [`Lanes`] and compiled for each
//! [`Isa`](super::isa::Isa).

use super::isa::SimdOp;

/// Channels in a block.
pub const CHANNEL_BLOCK: usize = 16;
/// Inputs of a row per iteration of `matmul::packed`. With AVX2, the loop overhead would otherwise take a tenth of the
/// time; with NEON, four inputs fill a register.
pub const UNROLLED: usize = 4;

/// The largest number of registers per channel block.
pub const MAX_PARTS: usize = 4;

/// One vector register of a channel block; its `part`s 0 to `PARTS − 1` make up the block. Every operation works on
/// each lane separately, with one rounding unless stated otherwise.
pub trait Lanes: Copy {
    /// Registers per channel block.
    const PARTS: usize;
    /// The register tiles of `matmul::packed`: registers per row for a tile of 1, 2, … rows, each at least one channel
    /// block. With a latency of four cycles and two multiply-adds per cycle, eight sums keep the units busy.
    const TILES: &'static [usize];

    /// Runs `op` as a separate function compiled for this instruction set. With many large loops in one function, the
    /// compiler spills registers.
    fn call<O: SimdOp>(op: O) -> O::Output;
    fn splat(x: f32) -> Self;
    /// All lanes `x[i]`, where `i` is a constant after inlining.
    #[inline(always)]
    fn splat_of(x: &[f32; UNROLLED], i: usize) -> Self {
        Self::splat(x[i])
    }
    fn load(x: &[f32; CHANNEL_BLOCK], part: usize) -> Self;
    /// [`load`](Self::load) of the bits of f16 values, all finite.
    fn load_f16(x: &[u16; CHANNEL_BLOCK], part: usize) -> Self;
    fn store(self, y: &mut [f32; CHANNEL_BLOCK], part: usize);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self · factor + term`, rounded once if the instruction set has FMA, otherwise twice.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// The maximum; NaN if either is NaN.
    fn max(self, other: Self) -> Self;
    /// `max(self, bound)` for a `bound` that is not NaN; NaN stays NaN.
    fn at_least(self, bound: Self) -> Self;
    /// `min(self, bound)` for a `bound` that is not NaN; NaN stays NaN.
    fn at_most(self, bound: Self) -> Self;
    /// `max(self, 0)`; NaN stays NaN.
    #[inline(always)]
    fn relu(self) -> Self {
        self.at_least(Self::splat(0.0))
    }
    /// `2^n` for `n` from -126 to 127, given as `n + 1.5 · 2^23`, whose low bits are `n`.
    fn power_of_two(self) -> Self;
    /// Prefetches the cache line at `ahead`, which may be any address.
    fn prefetch(ahead: *const f32);
}

/// `y = f(x, y)`, element by element: `f` maps the lanes of each `x` and each `y` to those of each `y`. All slices must
/// have the same length.
#[inline(always)]
pub fn map_lanes<L: Lanes, const X: usize, const Y: usize>(
    x: [&[f32]; X],
    mut y: [&mut [f32]; Y],
    f: impl Fn([L; X], [L; Y]) -> [L; Y],
) {
    let n = y[0].len();
    assert!(x.iter().all(|x| x.len() == n) && y.iter().all(|y| y.len() == n), "slices of different lengths");
    map_blocks(x.map(|x| x.as_chunks().0), y.each_mut().map(|y| y.as_chunks_mut().0), &f);
    let rest = n / CHANNEL_BLOCK * CHANNEL_BLOCK..n;
    if rest.is_empty() {
        return;
    }
    let (mut last_x, mut last_y) = ([[0.0; CHANNEL_BLOCK]; X], [[0.0; CHANNEL_BLOCK]; Y]);
    for i in 0..X {
        last_x[i][..rest.len()].copy_from_slice(&x[i][rest.clone()]);
    }
    for i in 0..Y {
        last_y[i][..rest.len()].copy_from_slice(&y[i][rest.clone()]);
    }
    map_blocks(last_x.each_ref().map(std::slice::from_ref), last_y.each_mut().map(std::slice::from_mut), &f);
    for i in 0..Y {
        y[i][rest.clone()].copy_from_slice(&last_y[i][..rest.len()]);
    }
}

#[inline(always)]
fn map_blocks<L: Lanes, const X: usize, const Y: usize>(
    x: [&[[f32; CHANNEL_BLOCK]]; X],
    y: [&mut [[f32; CHANNEL_BLOCK]]; Y],
    f: &impl Fn([L; X], [L; Y]) -> [L; Y],
) {
    for block in 0..y[0].len() {
        for part in 0..L::PARTS {
            let (mut of_x, mut of_y) = ([L::splat(0.0); X], [L::splat(0.0); Y]);
            for i in 0..X {
                of_x[i] = L::load(&x[i][block], part);
            }
            for i in 0..Y {
                of_y[i] = L::load(&y[i][block], part);
            }
            let values = f(of_x, of_y);
            for i in 0..Y {
                values[i].store(&mut y[i][block], part);
            }
        }
    }
}
