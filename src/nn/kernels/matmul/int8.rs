//! Products of rows with a matrix of 8-bit weights.
//!
//! Both operands are symmetric 8-bit integers: a value is `code · scale`, with one scale per output of the matrix and one
//! per row of the input. Products of codes are summed exactly in i32, so all instruction sets give the same results:
//! `y = sum · (row_scale · scale)`, with f32 rounding at each operation.
#![allow(unsafe_code)] // reads and writes without bounds checks; what bounds them is asserted at the entry

use bytemuck::{cast_slice, cast_slice_mut};
use rayon::prelude::*;

use super::linear::{all_outputs, split_outputs};
use super::packed::near_equal_pieces;
use crate::nn::kernels::simd::dispatch;
use crate::nn::kernels::simd::dot::{Dot, DotOp, Level};
use crate::nn::kernels::simd::lanes::{CHANNEL_BLOCK, UNROLLED};
use crate::nn::kernels::workspace::{AlignedVec, Buffer, Workspace, is_inside};

/// Rows per task, if there are many rows.
const ROWS: usize = 56;
/// Bytes of a row of inputs that lie together. Rows follow each other at this distance, which is a constant in the
/// inner loop.
const BLOCK: usize = 64;
/// Bytes of the inputs of a step.
const STEP: usize = 4;
/// Largest magnitude of a code that is computed here. Stored codes may be -128.
const LARGEST: f32 = 127.0;
/// `1.5 · 2^23`: added to a small number, it rounds it to the nearest integer (ties to even), whose bits are then the
/// lowest of the sum.
const ROUND: f32 = 12_582_912.0;
/// Limit on the inputs of a matrix. Sums of products of two codes fit into an i32.
pub const MAX_INPUTS: usize = i32::MAX as usize / (128 * 127);

/// A packed matrix: `[panels][steps][16][inputs of a step]`, zero-padded.
#[derive(Debug)]
pub struct Int8Matrix {
    level: Level,
    inputs: usize,
    outputs: usize,
    /// Steps per panel, a multiple of [`UNROLLED`].
    steps: usize,
    /// Bytes per panel.
    panel: usize,
    weights: AlignedVec<i8>,
    /// Initial values of the sums, `[panels · 16]`.
    starts: Vec<i32>,
    /// `[panels · 16]`.
    scales: Vec<f32>,
}

/// The larger magnitude; NaN exceeds infinity. `largest` is not negative.
#[inline(always)]
fn larger(largest: f32, x: f32) -> f32 {
    // Of positive floats, the larger one has the larger bits.
    f32::from_bits(largest.to_bits().max(x.abs().to_bits()))
}

/// The scale of a row, and the factor that turns its values into codes; no factor if all codes are 0. The scale is NaN if a
/// value is not finite, and 0 if all values are below 1e-36.
#[inline(always)]
fn scale_of(x: &[f32]) -> (f32, Option<f32>) {
    let largest = x.iter().fold(0.0, |largest, &x| larger(largest, x));
    let factor = LARGEST / largest;
    match largest.is_finite() {
        true if factor.is_finite() => (largest / LARGEST, Some(factor)),
        true => (0.0, None),
        false => (f32::NAN, None),
    }
}

/// Writes the codes of `x`, which `code` takes from the bits of a number near [`ROUND`].
#[inline(always)]
fn write_codes<T: Copy>(x: &[f32], factor: Option<f32>, codes: &mut [T], code: impl Fn(u32) -> T) {
    match factor {
        Some(factor) => codes.iter_mut().zip(x).for_each(|(y, x)| *y = code((x * factor + ROUND).to_bits())),
        None => codes[..x.len()].fill(code(ROUND.to_bits())),
    }
}

/// Quantises the weights of an output; returns their scale.
pub fn quantize_weights(x: &[f32], codes: &mut [i8]) -> f32 {
    dispatch(
        #[inline(always)]
        || {
            let (scale, factor) = scale_of(x);
            write_codes(x, factor, codes, |bits| bits as i8);
            scale
        },
    )
}

impl Int8Matrix {
    /// Packs a matrix of at most [`MAX_INPUTS`] inputs for the best available level. `row` writes the codes of an output
    /// and returns their scale.
    pub fn pack(inputs: usize, outputs: usize, row: impl Fn(usize, &mut [i8]) -> f32 + Sync) -> Self {
        Self::pack_for(Level::best(), inputs, outputs, row)
    }

    fn pack_for(level: Level, inputs: usize, outputs: usize, row: impl Fn(usize, &mut [i8]) -> f32 + Sync) -> Self {
        assert!((1..=MAX_INPUTS).contains(&inputs), "expected at most {MAX_INPUTS} inputs, got {inputs}");
        let Layout { group, offset } = level.run(LayoutOf);
        let steps = inputs.div_ceil(group).next_multiple_of(UNROLLED);
        let panel = steps * group * CHANNEL_BLOCK;
        let panels = outputs.div_ceil(CHANNEL_BLOCK);
        let width = panels * CHANNEL_BLOCK;
        let mut weights = AlignedVec::<i8>::zeros(panels * panel);
        let (mut starts, mut scales) = (vec![0; width], vec![0.0; width]);
        let all = weights.par_chunks_mut(panel.max(1)).enumerate();
        let all = all.zip(starts.par_chunks_mut(CHANNEL_BLOCK)).zip(scales.par_chunks_mut(CHANNEL_BLOCK));
        all.for_each_init(
            || vec![0; inputs],
            |codes, (((index, panel), starts), scales)| {
                let n = CHANNEL_BLOCK.min(outputs - index * CHANNEL_BLOCK);
                for lane in 0..n {
                    scales[lane] = row(index * CHANNEL_BLOCK + lane, codes);
                    starts[lane] = codes.iter().map(|&code| i32::from(code)).sum::<i32>().wrapping_mul(-offset);
                    for (step, codes) in codes.chunks(group).enumerate() {
                        panel[(step * CHANNEL_BLOCK + lane) * group..][..codes.len()].copy_from_slice(codes);
                    }
                }
            },
        );
        Self { level, inputs, outputs, steps, panel, weights, starts, scales }
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of blocks of a row of inputs.
    fn blocks(&self) -> usize {
        (self.steps * STEP).div_ceil(BLOCK)
    }

    /// As [`PackedMatrix::multiply`](super::linear::PackedMatrix::multiply). A row with a value that is NaN or infinite
    /// gives NaN.
    pub fn multiply(
        &self,
        x: &[f32],
        y: &mut [f32],
        workspace: &Workspace,
        finish: impl Fn(&mut [f32], usize, usize) + Sync,
    ) {
        let rows = x.len() / self.inputs;
        if rows == 0 || self.outputs == 0 {
            return;
        }
        if rows >= 2 * ROWS {
            let tasks = y.par_chunks_mut(ROWS * self.outputs).zip(x.par_chunks(ROWS * self.inputs)).enumerate();
            tasks.for_each(|(task, (y, x))| {
                self.multiply_task(x, y, workspace, |sums, row| finish(sums, task * ROWS + row, 0));
            });
            return;
        }
        let product = self.product_of(x, workspace);
        split_outputs(y, (rows, self.outputs), workspace, product, finish);
    }

    /// As [`multiply`](Self::multiply), on the calling thread. `finish` gets all sums of a row.
    pub fn multiply_task(&self, x: &[f32], y: &mut [f32], workspace: &Workspace, finish: impl Fn(&mut [f32], usize)) {
        let size = (x.len() / self.inputs, self.outputs);
        all_outputs(y, size, workspace, self.product_of(x, workspace), finish);
    }

    /// The product of `x` with some panels, as [`split_outputs`] takes it.
    fn product_of(&self, x: &[f32], workspace: &Workspace) -> impl Fn((usize, usize), &mut [f32], usize) + Sync {
        let (codes, row_scales) = self.quantize(x, workspace);
        move |panels, y, stride| {
            let places = Places::matrix(row_scales.len(), stride);
            self.level.run(Product { matrix: self, codes: &codes, row_scales: &row_scales, panels, y, places });
        }
    }

    /// The codes of rows, and their scales.
    fn quantize(&self, x: &[f32], workspace: &Workspace) -> (Buffer, Buffer) {
        let (mut codes, mut scales) = self.buffers(x.len() / self.inputs, workspace);
        self.level.run(Quantize { x, inputs: self.inputs, codes: &mut codes, scales: &mut scales });
        (codes, scales)
    }
}

/// Products with the positions of a map: a 1x1 convolution.
impl Int8Matrix {
    /// Multiplies all lines of `x` `[line][block of 16 inputs][width][16]`, whose inputs are scaled by `factors` if given, on
    /// the calling thread. `y` is `[line][panel][width][16]`. `factors` are padded to whole blocks like the inputs.
    pub fn multiply_lines(
        &self,
        x: &[f32],
        factors: Option<&[f32]>,
        y: &mut [f32],
        width: usize,
        workspace: &Workspace,
    ) {
        let x_line = self.inputs.next_multiple_of(CHANNEL_BLOCK) * width;
        let panels = self.outputs.div_ceil(CHANNEL_BLOCK);
        let (rows, y_panel) = (x.len() / x_line.max(1) * width, width * CHANNEL_BLOCK);
        let (mut codes, mut scales) = self.buffers(rows, workspace);
        let (inputs, line) = (self.inputs, x_line);
        self.level.run(QuantizeLines { x, factors, inputs, width, line, codes: &mut codes, scales: &mut scales });
        let places = match width {
            1 => Places::matrix(rows, panels * CHANNEL_BLOCK),
            _ => Places { rows: width, line: panels * y_panel, row: CHANNEL_BLOCK, panel: y_panel },
        };
        let (codes, row_scales) = (&codes, &scales);
        self.level.run(Product { matrix: self, codes, row_scales, panels: (0, panels), y, places });
    }

    /// Buffers for the codes and scales of rows.
    fn buffers(&self, rows: usize, workspace: &Workspace) -> (Buffer, Buffer) {
        (workspace.take(self.blocks() * rows * BLOCK / size_of::<f32>()), workspace.take(rows))
    }
}

/// Properties of the packing that depend on the level.
struct Layout {
    group: usize,
    offset: i32,
}

struct LayoutOf;

impl DotOp for LayoutOf {
    type Output = Layout;

    #[inline(always)]
    fn run<D: Dot>(self) -> Layout {
        Layout { group: D::GROUP, offset: D::OFFSET }
    }
}

/// Quantises rows, to `[block of inputs][row][64 bytes]`.
struct Quantize<'a> {
    x: &'a [f32],
    inputs: usize,
    codes: &'a mut [f32],
    scales: &'a mut [f32],
}

impl DotOp for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self) {
        let rows = self.scales.len();
        let block = BLOCK / size_of::<D::Input>();
        let codes: &mut [D::Input] = cast_slice_mut(self.codes);
        for (row, (x, scale)) in self.x.chunks(self.inputs).zip(self.scales).enumerate() {
            let (of_row, factor) = scale_of(x);
            *scale = of_row;
            for (index, x) in x.chunks(block).enumerate() {
                let codes = &mut codes[(index * rows + row) * block..][..block];
                write_codes(x, factor, codes, D::input);
                codes[x.len()..].fill(D::input(ROUND.to_bits()));
            }
        }
    }
}

/// As [`Quantize`], for the positions of a map; see [`Int8Matrix::multiply_lines`].
struct QuantizeLines<'a> {
    x: &'a [f32],
    factors: Option<&'a [f32]>,
    inputs: usize,
    width: usize,
    /// Values per line.
    line: usize,
    codes: &'a mut [f32],
    scales: &'a mut [f32],
}

impl DotOp for QuantizeLines<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self) {
        match self.factors {
            Some(factors) => {
                let factors = factors.as_chunks::<CHANNEL_BLOCK>().0;
                self.rows::<D>(
                    #[inline(always)]
                    |block, x| std::array::from_fn(|lane| x[lane] * factors[block][lane]),
                );
            }
            None => self.rows::<D>(
                #[inline(always)]
                |_, x| *x,
            ),
        }
    }
}

impl QuantizeLines<'_> {
    #[inline(always)]
    fn rows<D: Dot>(self, scaled: impl Fn(usize, &[f32; CHANNEL_BLOCK]) -> [f32; CHANNEL_BLOCK]) {
        let rows = self.scales.len();
        let block = BLOCK / size_of::<D::Input>();
        let codes: &mut [D::Input] = cast_slice_mut(self.codes);
        for (row, of_row) in self.scales.iter_mut().enumerate() {
            let line = &self.x[row / self.width * self.line..][..self.line];
            let blocks = line.as_chunks::<CHANNEL_BLOCK>().0.iter().skip(row % self.width).step_by(self.width);
            let mut largest = [0.0; CHANNEL_BLOCK];
            for (index, x) in blocks.clone().enumerate() {
                let x = scaled(index, x);
                // Lanes beyond the inputs are not 0 after every activation. Their weights are.
                let lanes = CHANNEL_BLOCK.min(self.inputs - index * CHANNEL_BLOCK);
                match lanes {
                    CHANNEL_BLOCK => (0..CHANNEL_BLOCK).for_each(|i| largest[i] = larger(largest[i], x[i])),
                    _ => (0..lanes).for_each(|i| largest[i] = larger(largest[i], x[i])),
                }
            }
            let (scale, factor) = scale_of(&largest);
            *of_row = scale;
            for (index, x) in blocks.enumerate() {
                let first = index * CHANNEL_BLOCK;
                let codes = &mut codes[(first / block * rows + row) * block + first % block..][..CHANNEL_BLOCK];
                write_codes(&scaled(index, x), factor, codes, D::input);
            }
        }
    }
}

/// Where the outputs of rows go. Rows come in lines; those of a matrix are one line.
#[derive(Clone, Copy)]
struct Places {
    /// Rows per line.
    rows: usize,
    /// Distance between lines, between rows of a line, and between panels.
    line: usize,
    row: usize,
    panel: usize,
}

impl Places {
    /// Row-major.
    fn matrix(rows: usize, row: usize) -> Self {
        Self { rows, line: 0, row, panel: CHANNEL_BLOCK }
    }
}

/// All rows times some panels: the first, and their number.
struct Product<'a> {
    matrix: &'a Int8Matrix,
    codes: &'a [f32],
    row_scales: &'a [f32],
    panels: (usize, usize),
    y: &'a mut [f32],
    places: Places,
}

impl DotOp for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self) {
        let Self { matrix, codes, row_scales, panels: (first, panels), y, places } = self;
        let rows = row_scales.len();
        let (codes, weights) = (cast_slice::<f32, u8>(codes), &matrix.weights[..]);
        let steps = matrix.panel / (CHANNEL_BLOCK * D::GROUP);
        let blocks = (steps * STEP).div_ceil(BLOCK);
        assert!(
            steps.is_multiple_of(UNROLLED) && codes.len() >= blocks * rows * BLOCK,
            "expected whole blocks of codes"
        );
        assert!((first + panels) * matrix.panel <= weights.len(), "expected whole panels of weights");
        let lanes = first * CHANNEL_BLOCK..(first + panels) * CHANNEL_BLOCK;
        let (starts, scales) = (matrix.starts[lanes.clone()].as_chunks().0, matrix.scales[lanes].as_chunks().0);
        if rows == 0 || panels == 0 || places.rows == 0 {
            return;
        }
        let lines = rows / places.rows;
        let last = [(lines - 1, places.line), (places.rows - 1, places.row), (panels - 1, places.panel)];
        let last = [last[0], last[1], last[2], (CHANNEL_BLOCK - 1, 1)];
        assert!(rows == lines * places.rows && is_inside(&last, y.len()), "outputs reach outside their slice");
        // With few rows, use many columns: independent sums hide the latency of the products.
        let columns = D::TILES[places.rows.div_ceil(places.rows.div_ceil(D::TILES.len())) - 1];
        let tile_rows = D::TILES.iter().filter(|&&fit| fit >= columns).count();
        for (panel, n) in near_equal_pieces(panels, columns / D::PARTS) {
            let tiles = |line: usize| near_equal_pieces(places.rows, tile_rows).map(move |(row, m)| (line, row, m));
            for (line, in_line, m) in (0..lines).flat_map(tiles) {
                let row = line * places.rows + in_line;
                let y_start = line * places.line + in_line * places.row + panel * places.panel;
                let tile = Tile {
                    codes: codes[row * BLOCK..].as_ptr(),
                    block: rows * BLOCK,
                    steps,
                    weights: weights[(first + panel) * matrix.panel..].as_ptr(),
                    panel: matrix.panel,
                    starts: &starts[panel..panel + n],
                    scales: &scales[panel..panel + n],
                    row_scales: &row_scales[row..row + m],
                    y: y[y_start..].as_mut_ptr(),
                    places,
                };
                // SAFETY: the asserts above hold for every row, block and panel. `y` is borrowed mutably.
                unsafe { tile.multiply::<D>() };
            }
        }
    }
}

/// The arguments of one register tile.
#[derive(Clone, Copy)]
struct Tile<'a> {
    codes: *const u8,
    /// Distance between blocks of codes, in bytes.
    block: usize,
    steps: usize,
    weights: *const i8,
    panel: usize,
    starts: &'a [[i32; CHANNEL_BLOCK]],
    scales: &'a [[f32; CHANNEL_BLOCK]],
    row_scales: &'a [f32],
    y: *mut f32,
    places: Places,
}

impl Tile<'_> {
    /// # Safety
    /// As many rows of codes and outputs as there are row scales, and as many panels of weights and outputs as there are
    /// starts and scales, lie inside their slices.
    #[inline(always)]
    unsafe fn multiply<D: Dot>(self) {
        let (rows, columns) = (self.row_scales.len(), self.scales.len() * D::PARTS);
        debug_assert!((1..=D::TILES.len()).contains(&rows) && (1..=D::TILES[rows - 1]).contains(&columns));
        macro_rules! by_size {
            ($($m:literal: $($n:literal)*;)*) => {
                match (rows, columns) {
                    $($(($m, $n) => D::call(TileOf::<$m, $n>(self)),)*)*
                    _ => unreachable!("a tile of {rows} rows and {columns} registers"),
                }
            };
        }
        by_size! {
            1: 1 2 3 4 5 6 7 8; 2: 1 2 3 4 5 6 7 8; 3: 1 2 3 4; 4: 1 2 3 4; 5: 1 2 3 4; 6: 1 2 3 4; 7: 1 2; 8: 1 2; 9: 1 2;
            10: 1 2; 11: 1 2; 12: 1 2; 13: 1 2; 14: 1 2;
        }
    }
}

/// A tile of `M` rows and `N` registers. Only [`Tile::multiply`] makes one.
struct TileOf<'a, const M: usize, const N: usize>(Tile<'a>);

impl<const M: usize, const N: usize> DotOp for TileOf<'_, M, N> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self) {
        if M > D::TILES.len() || N > D::TILES[M - 1] || !N.is_multiple_of(D::PARTS) {
            return; // unreachable: spares the compiler tiles that no level uses
        }
        let Tile { codes, block, steps, weights, panel, starts, scales, row_scales, y, places } = self.0;
        // SAFETY: the caller of `Tile::multiply` guarantees it.
        unsafe {
            let mut sums: [[D; N]; M] =
                std::array::from_fn(|_| std::array::from_fn(|n| D::load(&starts[n / D::PARTS], n % D::PARTS)));
            let step_bytes = CHANNEL_BLOCK * D::GROUP;
            for index in 0..(steps * STEP).div_ceil(BLOCK) {
                let codes = codes.add(index * block);
                let first = index * (BLOCK / STEP);
                for step in (0..(BLOCK / STEP).min(steps - first)).step_by(UNROLLED) {
                    for i in 0..UNROLLED {
                        let weights = weights.add((first + step + i) * step_bytes);
                        let w: [D::Weights; N] =
                            std::array::from_fn(|n| D::weights(weights.add(n / D::PARTS * panel), n % D::PARTS));
                        for m in 0..M {
                            let x = D::inputs(codes.add(m * BLOCK + (step + i) * STEP).cast());
                            for n in 0..N {
                                sums[m][n] = sums[m][n].add_products(x, w[n]);
                            }
                        }
                    }
                }
            }
            for m in 0..M {
                for n in 0..N {
                    let y = y.add(m * places.row + n / D::PARTS * places.panel).cast::<[f32; CHANNEL_BLOCK]>();
                    sums[m][n].store_scaled(row_scales[m], &scales[n / D::PARTS], &mut *y, n % D::PARTS);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::kernels::workspace::Workspace;

    /// Pseudo-random numbers (xorshift).
    fn random(state: &mut u32) -> u32 {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        *state
    }

    /// The definition: the nearest multiples of the scale, ties to even, summed in i64.
    fn naive(x: &[f32], codes: &[i8], scales: &[f32], inputs: usize) -> Vec<f32> {
        let row = |x: &[f32]| -> Vec<f32> {
            let largest = x.iter().fold(0.0f32, |largest, x| if x.is_nan() { *x } else { largest.max(x.abs()) });
            let bad = x.iter().any(|x| !x.is_finite());
            let (scale, inverse) = (largest / 127.0, 127.0 / largest);
            let outputs = codes.chunks(inputs).zip(scales);
            let sum = |(weights, w_scale): (&[i8], &f32)| {
                if bad {
                    return f32::NAN;
                }
                if inverse.is_infinite() {
                    return 0.0;
                }
                let code = |x: f32| (x * inverse).round_ties_even() as i64;
                let sum: i64 = x.iter().zip(weights).map(|(&x, &w)| code(x) * i64::from(w)).sum();
                sum as f32 * (scale * w_scale)
            };
            outputs.map(sum).collect()
        };
        x.chunks(inputs).flat_map(row).collect()
    }

    fn bits(y: &[f32]) -> Vec<u32> {
        y.iter().map(|y| if y.is_nan() { f32::NAN.to_bits() } else { (y + 0.0).to_bits() }).collect()
    }

    #[test]
    fn every_level_equals_the_naive_product_exactly() {
        let state = &mut 1;
        let workspace = Workspace::default();
        let sizes = [(1, 1), (3, 5), (7, 16), (16, 33), (63, 17), (65, 48), (192, 200), (130, 7), (768, 31), (4100, 3)];
        for (inputs, outputs) in sizes {
            let mut codes: Vec<i8> = (0..inputs * outputs).map(|_| random(state) as i8).collect();
            codes.chunks_mut(inputs).step_by(5).for_each(|row| row.fill(-128));
            codes.chunks_mut(inputs).skip(1).step_by(5).for_each(|row| row.fill(127));
            let scales: Vec<f32> = (0..outputs).map(|i| 0.37 + i as f32 / 100.0).collect();
            for rows in [0, 1, 2, 3, 5, 8, 14, 15, 29, 57, 111, 112, 200] {
                let mut x: Vec<f32> =
                    (0..rows * inputs).map(|_| (random(state) as i32 as f32 / 2e9).powi(3) * 40.0).collect();
                for (i, row) in x.chunks_mut(inputs).enumerate() {
                    match i % 12 {
                        2 => row.fill(0.0),
                        3 => row.fill(-7.5),
                        4 => row.iter_mut().for_each(|x| *x *= 1e38),
                        5 => row.iter_mut().for_each(|x| *x *= 1e-38),
                        6 => row[inputs / 2] = f32::NAN,
                        7 => row[inputs - 1] = f32::NEG_INFINITY,
                        8 => (0..inputs).for_each(|i| row[i] = (i % 255) as f32 / 2.0 - 63.5), // ties
                        _ => {}
                    }
                }
                let expected = naive(&x, &codes, &scales, inputs);
                for level in Level::available() {
                    let matrix = Int8Matrix::pack_for(level, inputs, outputs, |output, row| {
                        row.copy_from_slice(&codes[output * inputs..][..inputs]);
                        scales[output]
                    });
                    for threads in [1, 3] {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                        let mut y = vec![7.0; rows * outputs];
                        pool.install(|| {
                            matrix.multiply(&x, &mut y, &workspace, |_, _, _| ());
                        });
                        if bits(&y) != bits(&expected) {
                            let i = (0..y.len()).find(|&i| bits(&y)[i] != bits(&expected)[i]).unwrap();
                            panic!(
                                "{inputs} -> {outputs}, {rows} rows, {level:?}: row {} output {}: {:e} {:e}",
                                i / outputs,
                                i % outputs,
                                y[i],
                                expected[i]
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn positions_of_a_map_are_rows() {
        let state = &mut 3;
        let workspace = Workspace::default();
        for (inputs, outputs, lines, width) in
            [(1usize, 1usize, 1, 1), (20, 40, 3, 5), (64, 17, 2, 1), (100, 33, 4, 31)]
        {
            let codes: Vec<i8> = (0..inputs * outputs).map(|_| random(state) as i8).collect();
            let scales: Vec<f32> = (0..outputs).map(|i| 0.37 + i as f32 / 100.0).collect();
            let x: Vec<f32> = (0..lines * width * inputs).map(|_| random(state) as i32 as f32 / 1e9).collect();
            let (blocks, panels) = (inputs.div_ceil(CHANNEL_BLOCK), outputs.div_ceil(CHANNEL_BLOCK));
            let mut factors = vec![1.0; blocks * CHANNEL_BLOCK];
            factors[..inputs].iter_mut().for_each(|factor| *factor = random(state) as f32 / 4e9);
            let place = |row: usize, channel: usize, blocks: usize| {
                let block = row / width * blocks + channel / CHANNEL_BLOCK;
                (block * width + row % width) * CHANNEL_BLOCK + channel % CHANNEL_BLOCK
            };
            let mut map = vec![1e9; lines * width * blocks * CHANNEL_BLOCK]; // padding may have any value
            for (i, &x) in x.iter().enumerate() {
                map[place(i / inputs, i % inputs, blocks)] = x;
            }
            let scaled: Vec<f32> = x.iter().enumerate().map(|(i, x)| x * factors[i % inputs]).collect();
            for (factors, x) in [(None, &x), (Some(&factors[..]), &scaled)] {
                let expected = naive(x, &codes, &scales, inputs);
                for level in Level::available() {
                    let matrix = Int8Matrix::pack_for(level, inputs, outputs, |output, row| {
                        row.copy_from_slice(&codes[output * inputs..][..inputs]);
                        scales[output]
                    });
                    let mut y = vec![7.0; lines * width * panels * CHANNEL_BLOCK];
                    matrix.multiply_lines(&map, factors, &mut y, width, &workspace);
                    let got = |i| y[place(i / outputs, i % outputs, panels)];
                    assert!(bits(&(0..expected.len()).map(got).collect::<Vec<_>>()) == bits(&expected), "{level:?}");
                }
            }
        }
    }

    #[test]
    fn weights_are_the_nearest_multiples_of_the_scale() {
        let x = [0.0, 31.75, -31.75, 0.375, -0.625, 15.874, f32::MIN_POSITIVE];
        let mut codes = [1; 7];
        let scale = quantize_weights(&x, &mut codes);
        assert_eq!((scale, codes), (0.25, [0, 127, -127, 2, -2, 63, 0]));
        assert_eq!((quantize_weights(&[0.0; 7], &mut codes), codes), (0.0, [0; 7]));
    }
}
