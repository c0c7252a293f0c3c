//! Weights of a recurrent layer in the order in which they are read, and their product with rows.
//!
//! A matrix `[gates, hidden, inputs]` lies as panels of as many hidden values as a vector register has lanes: `[panels,
//! inputs, gates, lanes]`. An output is one lane of one register, summed over the inputs in their order, starting from the
//! bias: it does not depend on how many rows are multiplied together.

use pulp::{Simd, WithSimd};

/// The widths of rows of outputs are multiples of this, whatever the registers.
const WIDTH: usize = 16;
/// Bytes at whose multiples panels start, so that no register is loaded from two cache lines.
const ALIGNMENT: usize = 64;

/// Weights and bias.
#[derive(Debug)]
pub struct GateWeights {
    /// `[panels, inputs, gates, lanes]` from `start` on.
    values: Vec<f32>,
    start: usize,
    bias: Vec<f32>, // [gates, width]
    gates: usize,
    inputs: usize,
    n_panels: usize,
    width: usize,
    lanes: usize,
}

/// Rows to multiply, each `inputs` long.
#[derive(Clone, Copy)]
pub struct Rows<F> {
    pub count: usize,
    pub get: F,
}

impl GateWeights {
    /// From `weight` `[gates, hidden, inputs]` and `bias` `[gates, hidden]`, zero where there is none; 3 or 4 gates.
    pub fn new(weight: &[f32], bias: Option<&[f32]>, (gates, hidden, inputs): (usize, usize, usize)) -> Self {
        Self::with_lanes(weight, bias, (gates, hidden, inputs), pulp::Arch::new().dispatch(Lanes))
    }

    fn with_lanes(
        weight: &[f32],
        bias: Option<&[f32]>,
        (gates, hidden, inputs): (usize, usize, usize),
        lanes: usize,
    ) -> Self {
        let (width, n_panels) = (hidden.next_multiple_of(WIDTH), hidden.div_ceil(lanes));
        let count = n_panels * inputs * gates * lanes;
        let mut values = vec![0.0; count + ALIGNMENT / size_of::<f32>()];
        let start = values.as_ptr().align_offset(ALIGNMENT).min(values.len() - count);
        for (panel, values) in values[start..][..count].chunks_mut(inputs * gates * lanes).enumerate() {
            for (i, value) in values.iter_mut().enumerate() {
                let (input, gate, unit) = (i / lanes / gates, i / lanes % gates, panel * lanes + i % lanes);
                if unit < hidden {
                    *value = weight[(gate * hidden + unit) * inputs + input];
                }
            }
        }
        let mut padded = vec![0.0; gates * width];
        if let Some(bias) = bias {
            padded.chunks_mut(width).zip(bias.chunks(hidden)).for_each(|(to, from)| to[..hidden].copy_from_slice(from));
        }
        Self { values, start, bias: padded, gates, inputs, n_panels, width, lanes }
    }

    /// Columns of the matrix.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Length of a gate's outputs: `hidden` and padding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Length of a row of outputs, `gates · width`.
    pub fn stride(&self) -> usize {
        self.gates * self.width
    }

    /// Panel `i`, an array per input.
    #[inline(always)]
    fn panel<S: Simd, const GATES: usize>(&self, i: usize) -> &[[S::f32s; GATES]] {
        let length = self.inputs * GATES * S::F32_LANES;
        let values = &self.values[self.start + i * length..][..length];
        &S::as_simd_f32s(values).0.as_chunks::<GATES>().0[..self.inputs]
    }
}

/// `y[r][g][u] = bias[g][u] + Σ_i weight[g][u][i] rows[r][i]`, in the order of `i`. `y` is `[rows, gates, width]`; what it
/// holds beyond `hidden` means nothing.
pub fn gate_matmul<'a>(panels: &GateWeights, rows: Rows<impl Fn(usize) -> &'a [f32]>, y: &mut [f32]) {
    pulp::Arch::new().dispatch(Product { panels, rows, y });
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

struct Product<'p, 'y, F> {
    panels: &'p GateWeights,
    rows: Rows<F>,
    y: &'y mut [f32],
}

impl<'a, F: Fn(usize) -> &'a [f32]> WithSimd for Product<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.panels.gates == 3 { self.run::<S, 3>(simd) } else { self.run::<S, 4>(simd) }
    }
}

impl<'a, F: Fn(usize) -> &'a [f32]> Product<'_, '_, F> {
    /// Tiles of as many rows as there are registers for, then of what is left. Few rows take several panels at once, or
    /// each sum would wait for the one before.
    #[inline(always)]
    fn run<S: Simd, const GATES: usize>(mut self, simd: S) {
        assert_eq!((self.panels.gates, self.panels.lanes), (GATES, S::F32_LANES), "panels made for other registers");
        let fits = |rows: usize| (rows + 1) * GATES < S::REGISTER_COUNT;
        let mut done = 0;
        if fits(8) {
            done = self.rows::<S, GATES, 8, 1>(simd, done);
        }
        if fits(4) {
            done = self.rows::<S, GATES, 4, 1>(simd, done);
        }
        done = self.rows::<S, GATES, 2, 2>(simd, done);
        if fits(4) {
            self.rows::<S, GATES, 1, 4>(simd, done);
        } else {
            self.rows::<S, GATES, 1, 2>(simd, done);
        }
    }

    /// As many tiles of `ROWS` rows as there are from row `done` on, panel by panel; how many rows are done then.
    #[inline(always)]
    fn rows<S: Simd, const GATES: usize, const ROWS: usize, const PANELS: usize>(
        &mut self,
        simd: S,
        done: usize,
    ) -> usize {
        let end = done + (self.rows.count - done) / ROWS * ROWS;
        if end == done {
            return done;
        }
        let (n_panels, mut panel) = (self.panels.n_panels, 0);
        while panel < n_panels {
            let several = panel + PANELS <= n_panels;
            for first in (done..end).step_by(ROWS) {
                if several {
                    self.tile::<S, GATES, ROWS, PANELS>(simd, first, panel);
                } else {
                    self.tile::<S, GATES, ROWS, 1>(simd, first, panel);
                }
            }
            panel += if several { PANELS } else { 1 };
        }
        end
    }

    #[inline(always)]
    fn tile<S: Simd, const GATES: usize, const ROWS: usize, const PANELS: usize>(
        &mut self,
        simd: S,
        first: usize,
        panel: usize,
    ) {
        let (width, inputs) = (self.panels.width, self.panels.inputs);
        let place = |p: usize, gate: usize| gate * width + (panel + p) * S::F32_LANES;
        let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
        for r in 0..ROWS {
            rows[r] = &(self.rows.get)(first + r)[..inputs];
        }
        let mut weights: [&[[S::f32s; GATES]]; PANELS] = [&[]; PANELS];
        let mut sums = [[[simd.splat_f32s(0.0); GATES]; PANELS]; ROWS];
        for p in 0..PANELS {
            weights[p] = self.panels.panel::<S, GATES>(panel + p);
            for gate in 0..GATES {
                let bias = S::as_simd_f32s(&self.panels.bias[place(p, gate)..][..S::F32_LANES]).0[0];
                for r in 0..ROWS {
                    sums[r][p][gate] = bias;
                }
            }
        }
        for i in 0..inputs {
            for p in 0..PANELS {
                let weights = weights[p][i];
                for r in 0..ROWS {
                    let x = simd.splat_f32s(rows[r][i]);
                    for gate in 0..GATES {
                        sums[r][p][gate] = simd.mul_add_e_f32s(weights[gate], x, sums[r][p][gate]);
                    }
                }
            }
        }
        let stride = GATES * width;
        for r in 0..ROWS {
            let y = &mut self.y[(first + r) * stride..][..stride];
            for p in 0..PANELS {
                for gate in 0..GATES {
                    S::as_mut_simd_f32s(&mut y[place(p, gate)..][..S::F32_LANES]).0[0] = sums[r][p][gate];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 500.0 - 1.0).collect()
    }

    /// Runs a table of sizes with one instruction set; a row must not depend on how many there are.
    fn check<S: Simd>(simd: S) {
        for (gates, hidden, inputs) in
            [(3, 1, 1), (4, 5, 3), (3, 16, 7), (4, 33, 64), (3, 70, 20), (3, 256, 64), (4, 64, 12)]
        {
            let (weight, bias) = (values(gates * hidden * inputs), values(gates * hidden));
            let panels = GateWeights::with_lanes(&weight, Some(&bias), (gates, hidden, inputs), S::F32_LANES);
            let run = |x: &[f32]| {
                let rows = Rows { count: x.len() / inputs, get: |row: usize| &x[row * inputs..][..inputs] };
                let mut y = vec![f32::NAN; rows.count * panels.stride()];
                simd.vectorize(Product { panels: &panels, rows, y: &mut y });
                y
            };
            let x = values(19 * inputs);
            for count in [1, 2, 3, 4, 7, 8, 15, 16, 19] {
                let y = run(&x[..count * inputs]);
                for (row, y) in y.chunks(panels.stride()).enumerate() {
                    let x = &x[row * inputs..][..inputs];
                    let alone = run(x);
                    for gate in 0..gates {
                        for unit in 0..hidden {
                            let i = gate * hidden + unit;
                            let products = x.iter().zip(&weight[i * inputs..]);
                            let sum: f64 = products.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                            let (got, wanted) = (y[gate * panels.width + unit], sum + f64::from(bias[i]));
                            // 64 products of values up to 1 in f32.
                            assert!(
                                (f64::from(got) - wanted).abs() < 1e-5,
                                "{gates} {hidden} {inputs}: {got} {wanted}"
                            );
                            assert_eq!(got, alone[gate * panels.width + unit]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_product_equals_its_naive_form_with_every_instruction_set() {
        check(pulp::Scalar);
        #[cfg(target_arch = "x86_64")]
        {
            pulp::x86::V3::try_new().into_iter().for_each(check);
            pulp::x86::V4::try_new().into_iter().for_each(check);
        }
        #[cfg(target_arch = "aarch64")]
        pulp::aarch64::Neon::try_new().into_iter().for_each(check);
    }
}
