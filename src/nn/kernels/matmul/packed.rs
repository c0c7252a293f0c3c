//! Products of rows with panels of packed weights: the inner loop of convolutions and linear layers.
//!
//! `y[r][o] = Σ_s Σ_k x[r · row_stride + segments[s] + k] · w[s][k][o]`, for the sixteen outputs `o` of a panel. The inputs
//! of a row are a list of runs of `run` consecutive values ("segments"), which describes patches of a map without
//! copying them; the weights lie in the order in which they are read. A block of [`Lanes::ROWS`] rows times
//! [`Lanes::COLUMNS`] registers of outputs is summed in registers, always in the order of `s` and `k`: a row's result depends on nothing else.
#![allow(unsafe_code)] // reads and writes without bounds checks; what bounds them is asserted at the entry

use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, Lanes};
use crate::nn::kernels::workspace::{count, is_inside};

/// Segments that are summed over all rows before the next ones: their weights (2 panels x 24 segments x 16 values, 48 KiB)
/// then come from the first-level cache or the one below for all rows but the first.
const SEGMENTS_AT_ONCE: usize = 24;
/// How far ahead weights are asked for, in values. They are read once, in order, often from memory, and the hardware does
/// not look beyond a page: late layers of CNN14 gain 15 to 30 %.
const AHEAD: usize = 256;
/// Inputs of a row that the loop takes at a time: with AVX2 its own instructions cost a tenth otherwise.
const UNROLLED: usize = 4;

/// The inputs of a row.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub x: &'a [f32],
    /// From a row to the next.
    pub row_stride: usize,
    /// Where each segment starts, from the start of the row.
    pub segments: &'a [usize],
    /// Values in a segment.
    pub run: usize,
}

/// Rows that follow each other in steps of `row_stride` in `x` and in `y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Start of the first row in `x`.
    pub x: usize,
    /// Start of the first row in a panel of `y`.
    pub y: usize,
    pub rows: usize,
}

/// Where sums go: row `r` of panel `p` is the sixteen values at `p · panel_stride + r · row_stride`.
pub struct Outputs<'a> {
    pub y: &'a mut [f32],
    pub row_stride: usize,
    pub panel_stride: usize,
}

/// All rows of `spans` times all panels of `weights` (`[panels][segments][run][16]`).
pub fn packed_matmul(isa: Isa, inputs: Inputs, spans: &[Span], weights: &[f32], outputs: Outputs) {
    isa.run(Product { inputs, spans, weights, outputs });
}

struct Product<'a> {
    inputs: Inputs<'a>,
    spans: &'a [Span],
    weights: &'a [f32],
    outputs: Outputs<'a>,
}

impl SimdOp for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        all_blocks::<L>(self.inputs, self.spans, self.weights, self.outputs);
    }
}

#[inline(always)]
fn all_blocks<L: Lanes>(inputs: Inputs, spans: &[Span], weights: &[f32], outputs: Outputs) {
    let Inputs { x, row_stride, segments, run } = inputs;
    if segments.is_empty() || run == 0 || weights.is_empty() || spans.iter().all(|span| span.rows == 0) {
        return;
    }
    let panel = count(&[segments.len(), run, CHANNEL_BLOCK]).filter(|&panel| weights.len().is_multiple_of(panel));
    let Some(panel) = panel else { panic!("weights that are not whole panels") };
    let panels = weights.len() / panel;
    let furthest = segments.iter().max().map_or(0, |start| start.saturating_add(run - 1));
    for span in spans.iter().filter(|span| span.rows > 0) {
        let last = span.rows - 1;
        let inputs = [(span.x, 1), (last, row_stride), (furthest, 1)];
        assert!(is_inside(&inputs, x.len()), "inputs outside their slice");
        let strides =
            [(span.y, 1), (last, outputs.row_stride), (panels - 1, outputs.panel_stride), (CHANNEL_BLOCK - 1, 1)];
        assert!(is_inside(&strides, outputs.y.len()), "outputs outside their slice");
    }
    let mut first_panel = 0;
    while first_panel < panels {
        let n = (L::COLUMNS / L::PARTS).min(panels - first_panel);
        for (chunk, segments) in segments.chunks(SEGMENTS_AT_ONCE).enumerate() {
            let weights = &weights[first_panel * panel + chunk * SEGMENTS_AT_ONCE * run * CHANNEL_BLOCK..];
            for span in spans.iter().filter(|span| span.rows > 0) {
                // Blocks of nearly equal size rather than full ones and a small rest.
                let blocks = span.rows.div_ceil(L::ROWS);
                let (least, longer) = (span.rows / blocks, span.rows % blocks);
                for block in 0..blocks {
                    let start = block * least + block.min(longer);
                    let rows = least + usize::from(block < longer);
                    let y = first_panel * outputs.panel_stride + span.y + start * outputs.row_stride;
                    let block = Block {
                        x: x[span.x + start * row_stride..].as_ptr(),
                        row_stride,
                        segments,
                        run,
                        weights: weights.as_ptr(),
                        panel,
                        y: outputs.y[y..].as_mut_ptr(),
                        y_row_stride: outputs.row_stride,
                        y_panel_stride: outputs.panel_stride,
                        add: chunk > 0,
                    };
                    // SAFETY: the asserts above hold for every row of the span and every panel: the inputs of row `r`
                    // end at `span.x + r · row_stride + furthest`, its outputs in panel `p` at `span.y + …`, and
                    // the panels `first_panel..first_panel + n` lie inside `weights`. `y` is borrowed mutably.
                    unsafe { block.sum::<L>(rows, n) };
                }
            }
        }
        first_panel += n;
    }
}

/// The arguments of one block of sums.
#[derive(Clone, Copy)]
struct Block<'a> {
    x: *const f32,
    row_stride: usize,
    segments: &'a [usize],
    run: usize,
    weights: *const f32,
    panel: usize,
    y: *mut f32,
    y_row_stride: usize,
    y_panel_stride: usize,
    /// Onto what `y` holds.
    add: bool,
}

impl Block<'_> {
    /// # Safety
    /// `rows` rows of inputs and outputs and `panels` panels of weights can be reached as [`all_blocks`] lays down.
    #[inline(always)]
    unsafe fn sum<L: Lanes>(self, rows: usize, panels: usize) {
        let columns = panels * L::PARTS;
        debug_assert!((1..=L::ROWS).contains(&rows) && (1..=L::COLUMNS).contains(&columns));
        macro_rules! by_rows {
            ($($n:literal)*) => {
                match (rows, columns) {
                    // SAFETY: the caller's promise.
                    $(($n, 1) => unsafe { self.sum_of::<L, $n, 1>() },
                      ($n, 2) => unsafe { self.sum_of::<L, $n, 2>() },
                      ($n, 4) => unsafe { self.sum_of::<L, $n, 4>() },)*
                    _ => unreachable!("a block of {rows} rows and {columns} registers"),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }

    /// # Safety
    /// As [`Block::sum`], for `M` rows and `N` registers.
    #[inline(always)]
    unsafe fn sum_of<L: Lanes, const M: usize, const N: usize>(self) {
        if M > L::ROWS || N > L::COLUMNS || !N.is_multiple_of(L::PARTS) {
            return; // never called: spares the compiler what no level has
        }
        // The usual distance between rows, a block of channels, as a constant saves registers for addresses.
        // SAFETY: the caller's promise.
        unsafe {
            match (self.row_stride, self.run) {
                (CHANNEL_BLOCK, CHANNEL_BLOCK) => self.sum_with::<L, M, N>(CHANNEL_BLOCK, CHANNEL_BLOCK),
                (CHANNEL_BLOCK, run) => self.sum_with::<L, M, N>(CHANNEL_BLOCK, run),
                (row_stride, run) => self.sum_with::<L, M, N>(row_stride, run),
            }
        }
    }

    /// # Safety
    /// As [`Block::sum_of`].
    #[inline(always)]
    unsafe fn sum_with<L: Lanes, const M: usize, const N: usize>(self, row_stride: usize, run: usize) {
        // SAFETY: rows, segments, panels and outputs as the caller promises.
        unsafe {
            let mut sums = [[L::splat(0.0); N]; M];
            let y = |m: usize, n: usize| {
                self.y.add(m * self.y_row_stride + n / L::PARTS * self.y_panel_stride).cast::<[f32; CHANNEL_BLOCK]>()
            };
            let whole = run - run % UNROLLED;
            let mut weights = self.weights;
            for &segment in self.segments {
                let x = self.x.add(segment);
                for k in (0..whole).step_by(UNROLLED) {
                    for k in k..k + UNROLLED {
                        self.step(&mut sums, x.add(k), row_stride, weights.add(k * CHANNEL_BLOCK));
                    }
                }
                for k in whole..run {
                    self.step(&mut sums, x.add(k), row_stride, weights.add(k * CHANNEL_BLOCK));
                }
                weights = weights.add(run * CHANNEL_BLOCK);
            }
            for m in 0..M {
                for n in 0..N {
                    // Sums of a few hundred products, added up: the error grows with the square root of either number.
                    let sum = if self.add { L::load(&*y(m, n), n % L::PARTS).add(sums[m][n]) } else { sums[m][n] };
                    sum.store(&mut *y(m, n), n % L::PARTS);
                }
            }
        }
    }

    /// Adds the products of one input of each row, `row_stride` apart, with its weights.
    ///
    /// # Safety
    /// As [`Block::sum_of`], with `x` in the inputs of the first row and `weights` in the first panel.
    #[inline(always)]
    unsafe fn step<L: Lanes, const M: usize, const N: usize>(
        &self,
        sums: &mut [[L; N]; M],
        x: *const f32,
        row_stride: usize,
        weights: *const f32,
    ) {
        // SAFETY: rows and panels as the caller promises.
        unsafe {
            let mut w = [L::splat(0.0); N];
            for n in 0..N {
                let at = weights.add(n / L::PARTS * self.panel);
                w[n] = L::load(&*at.cast::<[f32; CHANNEL_BLOCK]>(), n % L::PARTS);
                if n % L::PARTS == 0 {
                    L::prefetch(at.wrapping_add(AHEAD));
                }
            }
            for m in 0..M {
                let x = L::splat(*x.add(m * row_stride));
                for n in 0..N {
                    sums[m][n] = x.mul_add(w[n], sums[m][n]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Three rows of four inputs, in two segments, by three panels, all close together.
    struct Sizes {
        row_stride: usize,
        segments: Vec<usize>,
        run: usize,
        span: Span,
        y_row_stride: usize,
        y_panel_stride: usize,
    }

    impl Sizes {
        fn new() -> Self {
            let span = Span { x: 0, y: 0, rows: 3 };
            Self {
                row_stride: 4,
                segments: vec![0, 2],
                run: 2,
                span,
                y_row_stride: CHANNEL_BLOCK,
                y_panel_stride: 3 * CHANNEL_BLOCK,
            }
        }

        /// Whether the product is refused, at every level.
        fn refused(&self) -> bool {
            let refused = |isa: Isa| {
                let (x, weights, mut y) =
                    (vec![1.0; 12], vec![0.5; 3 * 4 * CHANNEL_BLOCK], vec![f32::NAN; 9 * CHANNEL_BLOCK]);
                let inputs = Inputs { x: &x, row_stride: self.row_stride, segments: &self.segments, run: self.run };
                let (row_stride, panel_stride) = (self.y_row_stride, self.y_panel_stride);
                let outputs = Outputs { y: &mut y, row_stride, panel_stride };
                let run = AssertUnwindSafe(|| packed_matmul(isa, inputs, &[self.span], &weights, outputs));
                let refused = catch_unwind(run).is_err();
                assert!(refused || y.iter().all(|&y| y == 2.0), "{isa:?}: {y:?}");
                refused
            };
            let refused: Vec<bool> = Isa::available().into_iter().map(refused).collect();
            assert!(refused.iter().all(|&one| one == refused[0]));
            refused[0]
        }
    }

    #[test]
    fn sizes_that_reach_outside_or_wrap_around_are_refused() {
        let span = Sizes::new().span;
        assert!(!Sizes::new().refused());
        let wraps = usize::MAX / 2 + 1; // twice that is 0 without its carry
        for sizes in [
            Sizes { row_stride: 5, ..Sizes::new() },
            Sizes { row_stride: wraps, ..Sizes::new() },
            Sizes { segments: vec![0, 3], ..Sizes::new() },
            Sizes { segments: vec![usize::MAX, 2], ..Sizes::new() },
            Sizes { segments: vec![0], run: wraps, ..Sizes::new() },
            Sizes { segments: vec![0], run: usize::MAX / CHANNEL_BLOCK + 5, ..Sizes::new() }, // panels of 64 values, were they to wrap
            Sizes { span: Span { x: 1, ..span }, ..Sizes::new() },
            Sizes { span: Span { x: usize::MAX - 3, ..span }, ..Sizes::new() },
            Sizes { span: Span { y: 1, ..span }, ..Sizes::new() },
            Sizes { span: Span { y: usize::MAX - 15, ..span }, ..Sizes::new() },
            Sizes { span: Span { rows: 4, ..span }, ..Sizes::new() },
            Sizes { span: Span { rows: usize::MAX, ..span }, ..Sizes::new() },
            Sizes { y_row_stride: CHANNEL_BLOCK + 1, ..Sizes::new() },
            Sizes { y_row_stride: wraps, ..Sizes::new() },
            Sizes { y_panel_stride: 3 * CHANNEL_BLOCK + 1, ..Sizes::new() },
            Sizes { y_panel_stride: wraps, ..Sizes::new() },
        ] {
            assert!(sizes.refused());
        }
    }
}
