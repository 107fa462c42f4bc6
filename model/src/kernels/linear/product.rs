//! A product, cut into blocks that threads share, and these into tiles.

#![expect(
    unsafe_code,
    reason = "pointers to tiles, and disjoint parts of one output written from several threads"
)]

use std::ops::Range;

use super::kernel::{Kernel, Line, PANEL, Tile};
use crate::kernels::pool;

/// Bytes of the rows of a block, the unit of work of a thread: they stay in the second-level cache while the
/// panels go by.
const BLOCK_BYTES: usize = 320 << 10;

/// Rows of a block are a multiple of this or of the height of a kernel's tallest tile, which divides it or is
/// more.
const TALLEST: usize = 12;

/// The most rows of a block: rows in too few blocks cannot be distributed evenly.
const MOST_ROWS: usize = 192;

/// Up to this many rows a product is bound by memory bandwidth anyway: the next panels are not prefetched.
const FEW_ROWS: usize = 4;

/// Panels are distributed in multiples of this, the width of the widest tile.
const BLOCK_PANELS: usize = 8;

/// Steps, a word of one row and a line of one panel, from which a product is distributed over threads.
const PARALLEL_STEPS: usize = 6_000;

/// Steps that a block has, about.
const BLOCK_STEPS: usize = 15_000;

/// A product about to be computed.
pub(super) struct Operands<'a> {
    pub(super) kernel: &'static Kernel,
    pub(super) x: &'a [u32], // rows of row_head + depth, each `row_words` after the one before
    pub(super) panels: &'a [Line], // [ceil(out / PANEL), lines]
    pub(super) rows: usize,
    pub(super) row_words: usize,
    pub(super) depth: usize,
    pub(super) outputs: usize,
    /// How far apart rows of the output are.
    pub(super) stride: usize,
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
    block_rows: usize,
    block_panels: usize,
}

impl Grid {
    fn new(operands: &Operands<'_>) -> Self {
        let (rows, panels) = (operands.rows, operands.outputs.div_ceil(PANEL));
        let row_bytes = (operands.row_words * size_of::<u32>()).max(1);
        let tallest = operands.kernel.widths.len().max(TALLEST);
        let most = (BLOCK_BYTES / row_bytes).clamp(2 * tallest, MOST_ROWS);
        // Blocks of about the same height.
        let block_rows = rows
            .div_ceil(rows.div_ceil(most).max(1))
            .next_multiple_of(tallest)
            .max(1);
        let panel_steps = (operands.depth * rows.min(block_rows)).max(1);
        let block_panels = (BLOCK_STEPS / panel_steps).max(1).next_multiple_of(BLOCK_PANELS);
        Self {
            rows,
            panels,
            block_rows,
            block_panels,
        }
    }

    fn blocks(&self) -> usize {
        self.rows.div_ceil(self.block_rows) * self.panels.div_ceil(self.block_panels)
    }

    /// The rows and the panels of a block; consecutive blocks share their rows.
    fn block(&self, index: usize) -> (Range<usize>, Range<usize>) {
        let columns = self.panels.div_ceil(self.block_panels);
        let (row, panel) = (
            (index / columns) * self.block_rows,
            (index % columns) * self.block_panels,
        );
        (
            row..self.rows.min(row + self.block_rows),
            panel..self.panels.min(panel + self.block_panels),
        )
    }
}

impl Operands<'_> {
    fn lines(&self) -> usize {
        self.kernel.format.lines(self.depth)
    }

    /// Panics where a slice is shorter than its shape says, or rows of the output run into each other.
    fn check(&self, y: &[f32]) {
        let Some(last) = self.rows.checked_sub(1) else {
            return;
        };
        let row = self.kernel.format.row_head + self.depth;
        assert!(self.x.len() >= last * self.row_words + row);
        assert!(self.panels.len() >= self.outputs.div_ceil(PANEL) * self.lines());
        assert!(self.stride >= self.outputs && y.len() >= last * self.stride + self.outputs);
    }

    /// Computes the product into `y`, `[rows, out]`, on this thread.
    ///
    /// # Panics
    /// When a slice is shorter than its shape says.
    pub(super) fn multiply_here(&self, y: &mut [f32]) {
        self.check(y);
        let (rows, panels) = (0..self.rows, 0..self.outputs.div_ceil(PANEL));
        // SAFETY: the lengths are checked above, and `y` is borrowed exclusively.
        unsafe { self.write_block(rows, panels, Output(y.as_mut_ptr())) };
    }

    /// Computes the product into `y`, `[rows, out]`, on several threads when that pays.
    ///
    /// # Panics
    /// When a slice is shorter than its shape says; `PackedLinear` has checked them.
    pub(super) fn multiply_into(&self, y: &mut [f32]) {
        self.check(y);
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
    /// `x`, `panels` and `output` hold what their shapes say, `rows` and `panels` are inside them, and no
    /// other thread touches this part of the output.
    unsafe fn write_block(&self, rows: Range<usize>, panels: Range<usize>, output: Output) {
        let kernel = self.kernel.for_rows(rows.len());
        let tile_rows = kernel.tile_rows(rows.len());
        let tile_panels = kernel.tile_panels(tile_rows);
        // SAFETY: only kernels of this machine are handed out, and blocks are not written inside blocks.
        let ready = unsafe { kernel.ready() };
        let mut panel = panels.start;
        while panel < panels.end {
            let width = if panel + tile_panels <= panels.end {
                tile_panels
            } else {
                1
            };
            let after = panel + width;
            let next = match rows.len() {
                0..=FEW_ROWS => after..after,
                _ => after..panels.end.min(after + width).max(after),
            };
            let tiles = rows.len().div_ceil(tile_rows).max(1);
            let (mut row, mut tile) = (rows.start, 0);
            while row < rows.end {
                // Tiles of about the same height: a low one could not have as many panels.
                let count = kernel.tile_rows(rows.end - row);
                let share = |tile: usize| next.start + next.len() * tile / tiles;
                let ahead = share(tile)..share(tile + 1);
                // Each tile of these panels prefetches a part of the next ones, so that the load on memory is
                // even. SAFETY: the caller's promise, for a part of its block.
                unsafe { self.write_tile(kernel, row..row + count, panel..panel + width, ahead, output) };
                row += count;
                tile += 1;
            }
            panel += width;
        }
        drop(ready);
    }

    /// Computes a tile of the output, and prefetches the panels `next` meanwhile.
    ///
    /// # Safety
    /// As for `write_block`; `kernel` is ready on this thread; `panels` is one panel or `tile_panels` of
    /// them, and `rows` what `tile_rows` gives; `next` are panels, as many as `panels` at most.
    unsafe fn write_tile(
        &self,
        kernel: &Kernel,
        rows: Range<usize>,
        panels: Range<usize>,
        next: Range<usize>,
        output: Output,
    ) {
        let first = panels.start * PANEL;
        // SAFETY: the caller promises that rows and panels are inside the slices and the output.
        let tile = unsafe {
            Tile {
                x: self.x.as_ptr().add(rows.start * self.row_words),
                w: self.panels.as_ptr().add(panels.start * self.lines()),
                next: self.panels.as_ptr().add(next.start * self.lines()),
                ahead: next.len(),
                y: output.pointer().add(rows.start * self.stride + first),
                row_words: self.row_words,
                depth: self.depth,
                lines: self.lines(),
                stride: self.stride,
                width: (panels.len() * PANEL).min(self.outputs - first),
            }
        };
        // SAFETY: only kernels of this machine are handed out, and the tile is inside its operands.
        unsafe { kernel.write(tile, rows.len(), panels.len()) };
    }
}
