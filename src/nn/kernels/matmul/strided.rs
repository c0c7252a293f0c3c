//! Safe wrapper around the `gemm` crate: products of strided views of slices.
#![allow(unsafe_code)] // the one raw call; that every element lies in its slice is asserted just above it

use crate::nn::kernels::workspace::is_inside;

/// A matrix in a slice: element `(i, j)` is at `i · row_stride + j · column_stride`.
#[derive(Clone, Copy)]
pub struct MatrixView<'a> {
    pub values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> MatrixView<'a> {
    /// Rows of `values` that lie `row_stride` apart, limited to their first `columns` values.
    pub fn rows(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    pub fn transposed(self) -> Self {
        let Self { values, rows, columns, row_stride, column_stride } = self;
        Self { values, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
    }

    fn is_inside(&self) -> bool {
        let fits = |stride: usize| isize::try_from(stride).is_ok();
        let empty = self.rows == 0 || self.columns == 0;
        fits(self.row_stride)
            && fits(self.column_stride)
            && (empty || {
                let last = [(self.rows - 1, self.row_stride), (self.columns - 1, self.column_stride)];
                is_inside(&last, self.values.len())
            })
    }
}

/// `y = a · b`, on the calling thread. Row `i` of `y`, `b.columns` long, starts at `i · row_stride`; values between
/// rows are not written.
pub fn strided_matmul(a: MatrixView, b: MatrixView, y: &mut [f32], row_stride: usize) {
    let y_inside = MatrixView::rows(y, a.rows, b.columns, row_stride).is_inside();
    assert!(a.columns == b.rows && row_stride >= b.columns, "expected matrices whose inner dimensions match");
    assert!(a.is_inside() && b.is_inside() && y_inside, "a matrix reaches outside its slice");
    // SAFETY: the asserts above put every element of the three matrices inside their slices (rows of `y` do not overlap,
    // `row_stride` being at least their length) and all strides into isize; `y` is borrowed mutably and so overlaps neither
    // `a` nor `b`.
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

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn matrices_that_reach_outside_or_overflow_are_rejected() {
        let values = [1.0f32; 6];
        let good = MatrixView::rows(&values, 3, 2, 2);
        let rejected = |a: MatrixView, b: MatrixView, row_stride: usize| {
            let mut y = [f32::NAN; 9];
            let rejected = catch_unwind(AssertUnwindSafe(|| strided_matmul(a, b, &mut y, row_stride))).is_err();
            assert!(rejected || y.iter().all(|&y| y == 2.0), "{y:?}");
            rejected
        };
        assert!(!rejected(good, good.transposed(), 3));
        let wraps = usize::MAX / 2 + 1; // doubled, it overflows to 0
        for bad in [
            MatrixView { row_stride: 3, ..good },
            MatrixView { row_stride: wraps, ..good },
            MatrixView { column_stride: 2, ..good },
            MatrixView { column_stride: usize::MAX, ..good },
            MatrixView { values: &values[..5], ..good },
        ] {
            assert!(rejected(bad, good.transposed(), 3) && rejected(good, bad.transposed(), 3));
        }
        for row_stride in [2, 4, wraps, usize::MAX] {
            assert!(rejected(good, good.transposed(), row_stride), "{row_stride}");
        }
        assert!(rejected(good, good, 3), "two columns by three rows");
    }
}
