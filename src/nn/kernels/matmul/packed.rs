//! Products of rows with panels of packed weights: the inner loop of convolutions and linear layers.
//!
//! `y[r][o] = Σ_s Σ_k x[r · row_stride + segments[s] + k] · w[s][k][o]`, for the sixteen outputs `o` of a panel. The
//! inputs of a row are a list of segments of `segment_len` consecutive values, so that a patch of a map is described,
//! not copied. Weights are stored in reading order. A register tile ([`Lanes::TILES`]) sums some rows times some
//! registers of outputs, always in the order of `s` and `k`, so a row's result does not depend on the other rows.
#![allow(unsafe_code)] // reads and writes without bounds checks; what bounds them is asserted at the entry

use super::panels::Panels;
use crate::nn::kernels::simd::isa::{Isa, SimdOp};
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, Lanes, UNROLLED};
use crate::nn::kernels::workspace::{count, is_inside};

/// Segments summed over all rows before the next ones. The weights of a tile of many rows (2 panels x 24 segments x 16
/// values: 48 KiB) then stay in the first- or second-level cache.
const SEGMENTS_AT_ONCE: usize = 24;
/// Prefetch distance of the weights, in values. They often come from memory, and the hardware prefetcher stops at page
/// boundaries: late layers of CNN14 gain 15 to 30 %.
const PREFETCH_DISTANCE: usize = 256;

/// The inputs of a row.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub x: &'a [f32],
    /// Distance between rows.
    pub row_stride: usize,
    /// Offset of each segment in a row.
    pub segments: &'a [usize],
    /// Values per segment.
    pub segment_len: usize,
}

/// Rows that lie `row_stride` apart in `x` and in `y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first row in `x`.
    pub x: usize,
    /// Offset of the first row in a panel of `y`.
    pub y: usize,
    pub rows: usize,
}

/// The packed matrix.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// `[panels][segments][segment_len][16]`.
    pub panels: Panels<'a>,
    /// Initial value of the sums, `[panels][16]`; zeros if `None`.
    pub bias: Option<&'a [f32]>,
}

/// The destination: row `r` of panel `p` is the sixteen values at `p · panel_stride + r · row_stride`.
pub struct Outputs<'a> {
    pub y: &'a mut [f32],
    pub row_stride: usize,
    pub panel_stride: usize,
}

/// Multiplies all rows of `spans` by all panels of `weights`, on the calling thread.
pub fn packed_matmul(isa: Isa, inputs: Inputs, spans: &[Span], weights: Weights, outputs: Outputs) {
    let bias = weights.bias;
    match weights.panels {
        Panels::F32(panels) => isa.run(Product { inputs, spans, panels, bias, outputs }),
        Panels::F16(panels) => isa.run(Product { inputs, spans, panels, bias, outputs }),
    }
}

/// A stored weight.
trait Weight: Copy {
    fn load<L: Lanes>(weights: &[Self; CHANNEL_BLOCK], part: usize) -> L;
}

impl Weight for f32 {
    #[inline(always)]
    fn load<L: Lanes>(weights: &[Self; CHANNEL_BLOCK], part: usize) -> L {
        L::load(weights, part)
    }
}

/// The bits of a finite f16.
impl Weight for u16 {
    #[inline(always)]
    fn load<L: Lanes>(weights: &[Self; CHANNEL_BLOCK], part: usize) -> L {
        L::load_f16(weights, part)
    }
}

struct Product<'a, W> {
    inputs: Inputs<'a>,
    spans: &'a [Span],
    panels: &'a [W],
    bias: Option<&'a [f32]>,
    outputs: Outputs<'a>,
}

impl<W: Weight> SimdOp for Product<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        all_tiles::<L, W>(self);
    }
}

/// Splits `n` into pieces (start and size) of at most `most`, nearly equal in size, which is faster than full pieces
/// and a small rest.
#[inline(always)]
pub fn near_equal_pieces(n: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let pieces = n.div_ceil(most);
    let (least, longer) = (n / pieces.max(1), n % pieces.max(1));
    (0..pieces).map(move |i| (i * least + i.min(longer), least + usize::from(i < longer)))
}

#[inline(always)]
fn all_tiles<L: Lanes, W: Weight>(product: Product<W>) {
    let Product { inputs, spans, panels: weights, bias, outputs } = product;
    let Inputs { x, row_stride, segments, segment_len } = inputs;
    let most_rows = spans.iter().map(|span| span.rows).max().unwrap_or(0);
    if segments.is_empty() || segment_len == 0 || weights.is_empty() || most_rows == 0 {
        return;
    }
    let panel =
        count(&[segments.len(), segment_len, CHANNEL_BLOCK]).filter(|&panel| weights.len().is_multiple_of(panel));
    let Some(panel) = panel else { panic!("expected whole panels of weights") };
    let panels = weights.len() / panel;
    assert!(bias.is_none_or(|bias| bias.len() == panels * CHANNEL_BLOCK), "expected one bias per output");
    let furthest = segments.iter().max().map_or(0, |start| start.saturating_add(segment_len - 1));
    for span in spans.iter().filter(|span| span.rows > 0) {
        let last = span.rows - 1;
        let inputs = [(span.x, 1), (last, row_stride), (furthest, 1)];
        assert!(is_inside(&inputs, x.len()), "inputs reach outside their slice");
        let strides =
            [(span.y, 1), (last, outputs.row_stride), (panels - 1, outputs.panel_stride), (CHANNEL_BLOCK - 1, 1)];
        assert!(is_inside(&strides, outputs.y.len()), "outputs reach outside their slice");
    }
    // With few rows, use many columns: independent sums hide the latency of the multiply-adds.
    let columns = L::TILES[most_rows.div_ceil(most_rows.div_ceil(L::TILES.len())) - 1];
    let tile_rows = L::TILES.iter().filter(|&&fit| fit >= columns).count();
    for (first_panel, n) in near_equal_pieces(panels, columns / L::PARTS) {
        for (chunk, segments) in segments.chunks(SEGMENTS_AT_ONCE).enumerate() {
            let start = match bias {
                _ if chunk > 0 => Start::Sums,
                Some(bias) => Start::Bias(bias[first_panel * CHANNEL_BLOCK..].as_ptr()),
                None => Start::Zero,
            };
            let weights = &weights[first_panel * panel + chunk * SEGMENTS_AT_ONCE * segment_len * CHANNEL_BLOCK..];
            for span in spans.iter().filter(|span| span.rows > 0) {
                for (first_row, rows) in near_equal_pieces(span.rows, tile_rows) {
                    let y = first_panel * outputs.panel_stride + span.y + first_row * outputs.row_stride;
                    let tile = Tile {
                        x: x[span.x + first_row * row_stride..].as_ptr(),
                        row_stride,
                        segments,
                        segment_len,
                        weights: weights.as_ptr(),
                        panel,
                        y: outputs.y[y..].as_mut_ptr(),
                        y_row_stride: outputs.row_stride,
                        y_panel_stride: outputs.panel_stride,
                        start,
                    };
                    // SAFETY: the asserts above hold for every row of the span and every panel: the inputs of row `r`
                    // end at `span.x + r · row_stride + furthest`, its outputs in panel `p` at `span.y + …`, and
                    // the panels `first_panel..first_panel + n` lie inside `weights` and the bias. `y` is borrowed mutably.
                    unsafe { tile.sum::<L>(rows, n) };
                }
            }
        }
    }
}

/// Initial value of the sums of a tile.
#[derive(Clone, Copy)]
enum Start {
    Zero,
    /// Sixteen values per panel.
    Bias(*const f32),
    /// The current values of `y`.
    Sums,
}

/// The arguments of one register tile.
#[derive(Clone, Copy)]
struct Tile<'a, W> {
    x: *const f32,
    row_stride: usize,
    segments: &'a [usize],
    segment_len: usize,
    weights: *const W,
    panel: usize,
    y: *mut f32,
    y_row_stride: usize,
    y_panel_stride: usize,
    start: Start,
}

impl<W: Weight> Tile<'_, W> {
    /// # Safety
    /// `rows` rows of inputs and outputs and `panels` panels of weights and bias lie inside their slices, as [`all_tiles`]
    /// asserts.
    #[inline(always)]
    unsafe fn sum<L: Lanes>(self, rows: usize, panels: usize) {
        let columns = panels * L::PARTS;
        debug_assert!((1..=L::TILES.len()).contains(&rows) && (1..=L::TILES[rows - 1]).contains(&columns));
        macro_rules! by_size {
            ($($m:literal: $($n:literal)*;)*) => {
                match (rows, columns) {
                    $($(($m, $n) => L::call(TileOf::<W, $m, $n>(self)),)*)*
                    _ => unreachable!("a tile of {rows} rows and {columns} registers"),
                }
            };
        }
        by_size! {
            1: 1 2 3 4 5 6 7 8; 2: 1 2 3 4 5 6 7 8; 3: 1 2 3 4; 4: 1 2 3 4; 5: 1 2 3 4; 6: 1 2 3 4; 7: 1 2; 8: 1 2; 9: 1 2;
            10: 1 2; 11: 1 2; 12: 1 2; 13: 1 2; 14: 1 2;
        }
    }

    /// # Safety
    /// As [`Tile::sum`], for `M` rows and `N` registers.
    #[inline(always)]
    unsafe fn sum_with<L: Lanes, const M: usize, const N: usize>(self, row_stride: usize, segment_len: usize) {
        // SAFETY: rows, segments, panels, bias and outputs as the caller promises.
        unsafe {
            let mut sums = [[L::splat(0.0); N]; M];
            if let Start::Bias(bias) = self.start {
                for n in 0..N {
                    let bias = bias.add(n / L::PARTS * CHANNEL_BLOCK).cast::<[f32; CHANNEL_BLOCK]>();
                    for m in 0..M {
                        sums[m][n] = L::load(&*bias, n % L::PARTS);
                    }
                }
            }
            let y = |m: usize, n: usize| {
                self.y.add(m * self.y_row_stride + n / L::PARTS * self.y_panel_stride).cast::<[f32; CHANNEL_BLOCK]>()
            };
            let whole = segment_len - segment_len % UNROLLED;
            let mut weights = self.weights;
            for &segment in self.segments {
                let x = self.x.add(segment);
                for k in (0..whole).step_by(UNROLLED) {
                    for i in 0..UNROLLED {
                        self.step(
                            &mut sums,
                            weights.add((k + i) * CHANNEL_BLOCK),
                            #[inline(always)]
                            |m| L::splat_of(&*x.add(m * row_stride + k).cast(), i),
                        );
                    }
                }
                for k in whole..segment_len {
                    self.step(
                        &mut sums,
                        weights.add(k * CHANNEL_BLOCK),
                        #[inline(always)]
                        |m| L::splat(*x.add(m * row_stride + k)),
                    );
                }
                weights = weights.add(segment_len * CHANNEL_BLOCK);
            }
            for m in 0..M {
                for n in 0..N {
                    // Partial sums of a few hundred products each: the error grows with the square root of either
                    // number.
                    let sum = match self.start {
                        Start::Sums => L::load(&*y(m, n), n % L::PARTS).add(sums[m][n]),
                        _ => sums[m][n],
                    };
                    sum.store(&mut *y(m, n), n % L::PARTS);
                }
            }
        }
    }

    /// Adds the products of one `input` of each row with its weights.
    ///
    /// # Safety
    /// As [`Tile::sum_with`], with `weights` in the first panel.
    #[inline(always)]
    unsafe fn step<L: Lanes, const M: usize, const N: usize>(
        &self,
        sums: &mut [[L; N]; M],
        weights: *const W,
        input: impl Fn(usize) -> L,
    ) {
        // SAFETY: panels as the caller promises.
        unsafe {
            let mut w = [L::splat(0.0); N];
            for n in 0..N {
                let at = weights.add(n / L::PARTS * self.panel);
                w[n] = W::load(&*at.cast::<[W; CHANNEL_BLOCK]>(), n % L::PARTS);
                // With one or two rows, loads are the limit, and the hardware prefetcher alone is faster.
                if M > 2 && n % L::PARTS == 0 {
                    L::prefetch(at.wrapping_add(PREFETCH_DISTANCE).cast());
                }
            }
            for m in 0..M {
                let x = input(m);
                for n in 0..N {
                    sums[m][n] = x.mul_add(w[n], sums[m][n]);
                }
            }
        }
    }
}

/// A tile of `M` rows and `N` registers. Only [`Tile::sum`] makes one.
struct TileOf<'a, W, const M: usize, const N: usize>(Tile<'a, W>);

impl<W: Weight, const M: usize, const N: usize> SimdOp for TileOf<'_, W, M, N> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        if M > L::TILES.len() || N > L::TILES[M - 1] || !N.is_multiple_of(L::PARTS) {
            return; // unreachable: spares the compiler tiles that no instruction set uses
        }
        // A constant for the usual row distance saves address registers.
        // SAFETY: the caller of `Tile::sum` guarantees it.
        unsafe {
            match (self.0.row_stride, self.0.segment_len) {
                (CHANNEL_BLOCK, CHANNEL_BLOCK) => self.0.sum_with::<L, M, N>(CHANNEL_BLOCK, CHANNEL_BLOCK),
                (CHANNEL_BLOCK, segment_len) => self.0.sum_with::<L, M, N>(CHANNEL_BLOCK, segment_len),
                (row_stride, segment_len) => self.0.sum_with::<L, M, N>(row_stride, segment_len),
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
        segment_len: usize,
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
                segment_len: 2,
                span,
                y_row_stride: CHANNEL_BLOCK,
                y_panel_stride: 3 * CHANNEL_BLOCK,
            }
        }

        /// Whether the product is rejected, with every instruction set.
        fn rejected(&self) -> bool {
            let rejected = |isa: Isa| {
                let (x, weights, mut y) =
                    (vec![1.0; 12], vec![0.5; 3 * 4 * CHANNEL_BLOCK], vec![f32::NAN; 9 * CHANNEL_BLOCK]);
                let inputs = Inputs {
                    x: &x,
                    row_stride: self.row_stride,
                    segments: &self.segments,
                    segment_len: self.segment_len,
                };
                let (row_stride, panel_stride) = (self.y_row_stride, self.y_panel_stride);
                let outputs = Outputs { y: &mut y, row_stride, panel_stride };
                let run = AssertUnwindSafe(|| {
                    let weights = Weights { panels: Panels::F32(&weights), bias: None };
                    packed_matmul(isa, inputs, &[self.span], weights, outputs)
                });
                let rejected = catch_unwind(run).is_err();
                assert!(rejected || y.iter().all(|&y| y == 2.0), "{isa:?}: {y:?}");
                rejected
            };
            let rejected: Vec<bool> = Isa::available().into_iter().map(rejected).collect();
            assert!(rejected.iter().all(|&one| one == rejected[0]));
            rejected[0]
        }
    }

    #[test]
    fn sizes_that_reach_outside_or_overflow_are_rejected() {
        let span = Sizes::new().span;
        assert!(!Sizes::new().rejected());
        let wraps = usize::MAX / 2 + 1; // doubled, it overflows to 0
        for sizes in [
            Sizes { row_stride: 5, ..Sizes::new() },
            Sizes { row_stride: wraps, ..Sizes::new() },
            Sizes { segments: vec![0, 3], ..Sizes::new() },
            Sizes { segments: vec![usize::MAX, 2], ..Sizes::new() },
            Sizes { segments: vec![0], segment_len: wraps, ..Sizes::new() },
            Sizes { segments: vec![0], segment_len: usize::MAX / CHANNEL_BLOCK + 5, ..Sizes::new() }, // overflows to panels of 64 values
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
            assert!(sizes.rejected());
        }
    }
}
