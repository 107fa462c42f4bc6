//! A product, cut into blocks that threads share, and these into tiles.

#![expect(
    unsafe_code,
    reason = "pointers to tiles, and disjoint parts of one output written from several threads"
)]

use std::ops::Range;

use super::kernel::{Kernel, Line, PANEL, Tile};
use crate::kernels::pool;

/// Rows of a block, the unit of work of a thread: small enough to stay in the second-level cache.
const BLOCK_ROWS: usize = 96;

/// Panels are shared out in multiples of this, the width of the widest tile.
const BLOCK_PANELS: usize = 8;

/// Steps, a word of one row and a line of one panel, from which a product is shared out over threads.
const PARALLEL_STEPS: usize = 6_000;

/// Steps that a block has, about.
const BLOCK_STEPS: usize = 15_000;

/// A product about to be computed.
pub(super) struct Operands<'a> {
    pub(super) kernel: &'static Kernel,
    pub(super) x: &'a [u32],       // [rows, row_head + depth]
    pub(super) panels: &'a [Line], // [ceil(out / PANEL), lines]
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) outputs: usize,
}

/// The output, shared by the threads that each write their own blocks of it.
#[derive(Clone, Copy)]
struct Output(*mut f32);

// SAFETY: the pointer is used only in `Operands::write_block`, and the blocks of a grid are disjoint.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    fn pointer(self) -> *mut f32 {
        self.0
    }
}

/// The output cut into blocks of rows by panels, which cover each element exactly once.
struct Grid {
    rows: usize,
    panels: usize,
    block_panels: usize,
}

impl Grid {
    fn new(operands: &Operands<'_>) -> Self {
        let (rows, panels) = (operands.rows, operands.outputs.div_ceil(PANEL));
        let panel_steps = (operands.depth * rows.min(BLOCK_ROWS)).max(1);
        let block_panels = (BLOCK_STEPS / panel_steps).max(1).next_multiple_of(BLOCK_PANELS);
        Self {
            rows,
            panels,
            block_panels,
        }
    }

    fn blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK_ROWS) * self.panels.div_ceil(self.block_panels)
    }

    /// The rows and the panels of a block; consecutive blocks share their rows.
    fn block(&self, index: usize) -> (Range<usize>, Range<usize>) {
        let columns = self.panels.div_ceil(self.block_panels);
        let (row, panel) = (
            (index / columns) * BLOCK_ROWS,
            (index % columns) * self.block_panels,
        );
        (
            row..self.rows.min(row + BLOCK_ROWS),
            panel..self.panels.min(panel + self.block_panels),
        )
    }
}

impl Operands<'_> {
    fn row_words(&self) -> usize {
        self.kernel.format.row_head + self.depth
    }

    fn lines(&self) -> usize {
        self.kernel.format.lines(self.depth)
    }

    /// Computes the product into `y`, `[rows, out]`, on several threads when that pays.
    ///
    /// # Panics
    /// When a slice is shorter than its shape says; `PackedLinear` has checked them.
    pub(super) fn multiply_into(&self, y: &mut [f32]) {
        assert!(self.x.len() >= self.rows * self.row_words());
        assert!(self.panels.len() >= self.outputs.div_ceil(PANEL) * self.lines());
        assert!(y.len() >= self.rows * self.outputs);
        let (grid, output) = (Grid::new(self), Output(y.as_mut_ptr()));
        let write = |index| {
            let (rows, panels) = grid.block(index);
            // SAFETY: the lengths are checked above, and the blocks of a grid lie inside it and are disjoint.
            unsafe { self.write_block(rows, panels, output) };
        };
        let steps = self.rows * self.depth * grid.panels;
        if steps < PARALLEL_STEPS || pool::threads() == 1 {
            (0..grid.blocks()).for_each(write);
        } else {
            pool::for_each(grid.blocks(), &write);
        }
    }

    /// Computes one block of the output.
    ///
    /// # Safety
    /// `x`, `panels` and `output` hold what their shapes say, `rows` and `panels` are inside them, and no other
    /// thread touches this part of the output.
    unsafe fn write_block(&self, rows: Range<usize>, panels: Range<usize>, output: Output) {
        let tile_rows = self.kernel.tile_rows(rows.len());
        let tile_panels = self.kernel.tile_panels(tile_rows);
        let mut panel = panels.start;
        while panel < panels.end {
            let width = if panel + tile_panels <= panels.end {
                tile_panels
            } else {
                1
            };
            let mut row = rows.start;
            while row < rows.end {
                let count = tile_rows.min(rows.end - row);
                // SAFETY: the caller's promise, for a part of its block.
                unsafe { self.write_tile(row..row + count, panel..panel + width, output) };
                row += count;
            }
            panel += width;
        }
    }

    /// Computes a tile of the output.
    ///
    /// # Safety
    /// As for `write_block`; `panels` is one panel or `tile_panels` of them, and `rows` at most `tile_rows`.
    unsafe fn write_tile(&self, rows: Range<usize>, panels: Range<usize>, output: Output) {
        let first = panels.start * PANEL;
        // SAFETY: the caller promises that rows and panels are inside the slices and the output.
        let tile = unsafe {
            Tile {
                x: self.x.as_ptr().add(rows.start * self.row_words()),
                w: self.panels.as_ptr().add(panels.start * self.lines()),
                y: output.pointer().add(rows.start * self.outputs + first),
                row_words: self.row_words(),
                depth: self.depth,
                lines: self.lines(),
                outputs: self.outputs,
                width: (panels.len() * PANEL).min(self.outputs - first),
            }
        };
        // SAFETY: only kernels of this machine are handed out, and the tile is inside its operands.
        unsafe { self.kernel.write(tile, rows.len(), panels.len()) };
    }
}
