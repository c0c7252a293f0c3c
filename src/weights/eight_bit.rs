//! 8-bit tensors with scales.

/// A row-major matrix of signed bytes in memory: `code · scale`, with one scale per row.
#[derive(Debug, Clone)]
pub(crate) struct EightBit {
    codes: Vec<i8>,
    scales: Vec<f32>,
}

impl EightBit {
    /// `codes` `[scales.len(), columns]`.
    pub fn new(codes: Vec<i8>, scales: Vec<f32>) -> Self {
        Self { codes, scales }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Whether all values are finite.
    pub fn is_finite(&self) -> bool {
        self.scales.iter().all(|scale| (scale * 128.0).is_finite())
    }

    /// The codes of a row and their scale. The row must exist.
    pub fn row(&self, row: usize) -> (&[i8], f32) {
        let columns = self.len() / self.scales.len();
        (&self.codes[row * columns..][..columns], self.scales[row])
    }

    /// Dequantises all values, row-major.
    pub fn to_vec(&self) -> Vec<f32> {
        let values = |row| {
            let (codes, scale) = self.row(row);
            codes.iter().map(move |&code| f32::from(code) * scale)
        };
        (0..self.scales.len()).flat_map(values).collect()
    }

    /// Appends the rows of `below`.
    pub fn join(mut self, below: Self) -> Self {
        self.codes.extend(below.codes);
        self.scales.extend(below.scales);
        self
    }
}
