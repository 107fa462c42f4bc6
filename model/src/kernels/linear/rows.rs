//! Products of rows with panels that live as long as an operation.

use super::kernel::Line;
use super::product::Operands;
use super::weight_type::WeightType;

/// Rows of `f32` numbers that do not touch each other.
#[derive(Clone, Copy)]
pub(crate) struct RowView<'a> {
    pub(crate) values: &'a [f32],
    /// How far apart rows begin.
    pub(crate) stride: usize,
    pub(crate) count: usize,
    /// How many numbers of a row count.
    pub(crate) width: usize,
}

/// Multiplies rows with panels of `f32`, `[ceil(out / PANEL), width]`, on this thread, as a
/// [`PackedLinear`](super::PackedLinear) does: the numbers of a row depend on that row alone. Writes rows of
/// `outputs` numbers that are `stride` apart.
///
/// # Panics
/// When a slice is shorter than its shape says.
pub(crate) fn multiply_rows(x: RowView, panels: &[Line], y: &mut [f32], outputs: usize, stride: usize) {
    Operands {
        kernel: WeightType::F32.kernel(),
        x: bytemuck::cast_slice(x.values),
        panels,
        rows: x.count,
        row_words: x.stride,
        depth: x.width,
        outputs,
        stride,
    }
    .multiply_here(y);
}
