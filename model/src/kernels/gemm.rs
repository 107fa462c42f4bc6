//! Small single-threaded matrix products on strided views, by the `gemm` crate.

/// A read-only strided matrix.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

/// A writable row-major matrix, possibly some columns of a wider one.
pub(crate) struct MatrixMut<'a> {
    values: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

fn fits(length: usize, rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> bool {
    rows == 0 || columns == 0 || (rows - 1) * row_stride + (columns - 1) * column_stride < length
}

impl<'a> Matrix<'a> {
    pub(crate) fn whole(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self {
            values,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// Views columns `offset..offset + columns` of rows that are `width` long.
    pub(crate) fn columns(
        values: &'a [f32],
        rows: usize,
        width: usize,
        offset: usize,
        columns: usize,
    ) -> Self {
        Self {
            values: &values[offset..],
            rows,
            columns,
            row_stride: width,
            column_stride: 1,
        }
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

impl<'a> MatrixMut<'a> {
    pub(crate) fn whole(values: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self {
            values,
            rows,
            columns,
            row_stride: columns,
        }
    }

    pub(crate) fn columns(
        values: &'a mut [f32],
        rows: usize,
        width: usize,
        offset: usize,
        columns: usize,
    ) -> Self {
        Self {
            values: &mut values[offset..],
            rows,
            columns,
            row_stride: width,
        }
    }
}

/// Computes `c = a b`, or `c += a b` where `add` is set.
///
/// # Panics
/// Where the shapes do not fit together or reach outside their slices: a defect of the caller.
#[expect(
    unsafe_code,
    reason = "the gemm crate takes raw pointers; every extent is asserted first"
)]
#[expect(
    clippy::cast_possible_wrap,
    reason = "strides are far below the limit of isize: they index slices"
)]
pub(crate) fn multiply(c: &mut MatrixMut, a: Matrix, b: Matrix, add: bool) {
    assert!(
        a.rows == c.rows && b.columns == c.columns && a.columns == b.rows,
        "shapes of a matrix product"
    );
    assert!(
        fits(a.values.len(), a.rows, a.columns, a.row_stride, a.column_stride),
        "left matrix"
    );
    assert!(
        fits(b.values.len(), b.rows, b.columns, b.row_stride, b.column_stride),
        "right matrix"
    );
    assert!(
        fits(c.values.len(), c.rows, c.columns, c.row_stride, 1),
        "product"
    );
    // SAFETY: the three matrices lie inside their slices (asserted above), and `c` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            c.rows,
            c.columns,
            a.columns,
            c.values.as_mut_ptr(),
            1,
            c.row_stride as isize,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            f32::from(add),
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
