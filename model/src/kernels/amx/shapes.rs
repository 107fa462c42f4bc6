//! The shapes of the registers.

/// Rows of a register.
pub(crate) const REGISTER_ROWS: usize = 16;

/// How the unit is set up: the shapes of its registers.
#[repr(C, align(64))]
pub(super) struct Shapes {
    pub(super) palette: u8,
    pub(super) start: u8,
    pub(super) reserved: [u8; 14],
    pub(super) row_bytes: [u16; 16],
    pub(super) rows: [u8; 16],
}

/// Eight registers of 16 rows of 64 bytes.
pub(super) static SHAPES: Shapes = Shapes {
    palette: 1,
    start: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};
