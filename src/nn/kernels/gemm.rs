//! A safe face of the `gemm` crate: products of strided views of slices.
#![allow(unsafe_code)] // the one raw call; that every element lies in its slice is asserted just above it

/// A matrix in a slice: element `(i, j)` is at `i · row_stride + j · column_stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// The rows of `values`, each `row_stride` long, of which the first `columns` count.
    pub fn rows(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    pub fn transposed(self) -> Self {
        let Self { values, rows, columns, row_stride, column_stride } = self;
        Self { values, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
    }

    fn is_inside(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride < self.values.len()
    }
}

/// `y = a · b` on the calling thread. Row `i` of `y`, `b.columns` long, starts at `i · row_stride`; what lies between
/// the rows is left alone.
pub fn product(a: Matrix, b: Matrix, y: &mut [f32], row_stride: usize) {
    let y_inside = Matrix::rows(y, a.rows, b.columns, row_stride).is_inside();
    assert!(a.columns == b.rows && row_stride >= b.columns, "a product of matrices that do not fit");
    assert!(a.is_inside() && b.is_inside() && y_inside, "a matrix reaches outside its slice");
    // SAFETY: the asserts above put every element of the three matrices inside their slices (rows of `y` do not overlap,
    // `row_stride` being at least their length), `y` is borrowed mutably and so overlaps neither `a` nor `b`, and all
    // strides fit isize as they are offsets inside a slice or belong to a dimension of at most one.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            y.as_mut_ptr(),
            1,
            row_stride as isize,
            false,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
