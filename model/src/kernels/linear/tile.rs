//! Register tiles: a few rows by a few panels, summed over `k` in order, for each instruction set.

#![expect(
    unsafe_code,
    reason = "vector loads, and disjoint parts of one output written from several threads"
)]

use std::ops::Range;

use crate::kernels::pool;

/// Outputs in a panel of packed weights: one AVX-512 register.
pub(super) const PANEL: usize = 16;

/// Rows of a block, the unit of work of a thread: small enough to stay in the second-level cache.
const BLOCK_ROWS: usize = 96;

/// Panels are shared out in multiples of this, the width of the widest tile.
const BLOCK_PANELS: usize = 8;

/// Floating-point operations from which a product is shared out over threads.
const PARALLEL_FLOPS: usize = 200_000;

/// Floating-point operations that a block has, about.
const BLOCK_FLOPS: usize = 500_000;

/// An instruction set that this machine has; only [`Isa::detect`] and [`Isa::available`] make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Isa(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// Finds the fastest instruction set of this machine.
    pub(super) fn detect() -> Self {
        Self::available().next().unwrap_or(Self(Kind::Portable))
    }

    /// Lists what this machine can run, the fastest first.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        [
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512, is_x86_feature_detected!("avx512f")),
            #[cfg(target_arch = "x86_64")]
            (
                Kind::Avx2,
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            ),
            (Kind::Portable, true),
        ]
        .into_iter()
        .filter_map(|(kind, found)| found.then_some(Self(kind)))
    }
}

/// A product about to be computed.
pub(super) struct Operands<'a> {
    pub(super) isa: Isa,
    pub(super) x: &'a [f32],      // [rows, in]
    pub(super) panels: &'a [f32], // [ceil(out / PANEL), in, PANEL]
    pub(super) rows: usize,
    pub(super) inputs: usize,
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
        let panel_flops = (2 * PANEL * operands.inputs * rows.min(BLOCK_ROWS)).max(1);
        let block_panels = (BLOCK_FLOPS / panel_flops).max(1).next_multiple_of(BLOCK_PANELS);
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
    /// Computes the product into `y`, `[rows, out]`, on several threads when that pays.
    ///
    /// # Panics
    /// When a slice is shorter than its shape says; `PackedLinear` has checked them.
    pub(super) fn multiply_into(&self, y: &mut [f32]) {
        assert!(self.x.len() >= self.rows * self.inputs);
        assert!(self.panels.len() >= self.outputs.div_ceil(PANEL) * self.inputs * PANEL);
        assert!(y.len() >= self.rows * self.outputs);
        let (grid, output) = (Grid::new(self), Output(y.as_mut_ptr()));
        let write = |index| {
            let (rows, panels) = grid.block(index);
            // SAFETY: the lengths are checked above, and the blocks of a grid lie inside it and are disjoint.
            unsafe { self.write_block(rows, panels, output) };
        };
        let flops = 2 * self.rows * self.inputs * self.outputs;
        if flops < PARALLEL_FLOPS || pool::threads() == 1 {
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
        let tile_rows = self.isa.tile_rows(rows.len());
        let tile_panels = self.isa.tile_panels(tile_rows);
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
}
impl Isa {
    /// The rows of a tile when `rows` are to be cut evenly.
    fn tile_rows(self, rows: usize) -> usize {
        let most = match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 12,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 6,
            Kind::Portable => 4,
        };
        rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
    }

    /// The panels of a tile: enough for eight sums in flight, few enough to stay in registers.
    fn tile_panels(self, tile_rows: usize) -> usize {
        match (self.0, tile_rows) {
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512, 1) => 8,
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512, 2..=4) => 4,
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512, _) => 2,
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx2, 1) => 4,
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx2, 2..=3) => 2,
            _ => 1,
        }
    }
}

impl Operands<'_> {
    /// Computes a tile of the output.
    ///
    /// # Safety
    /// As for `write_block`; `panels` is one panel or `tile_panels` of them, and `rows` at most `tile_rows`.
    unsafe fn write_tile(&self, rows: Range<usize>, panels: Range<usize>, output: Output) {
        let first = panels.start * PANEL;
        // SAFETY: the caller promises that rows and panels are inside the slices and the output.
        let tile = unsafe {
            Tile {
                x: self.x.as_ptr().add(rows.start * self.inputs),
                w: self.panels.as_ptr().add(panels.start * self.inputs * PANEL),
                y: output.pointer().add(rows.start * self.outputs + first),
                inputs: self.inputs,
                outputs: self.outputs,
                width: (panels.len() * PANEL).min(self.outputs - first),
            }
        };
        // SAFETY: `Isa` holds only what this machine has, and the tile is inside its operands.
        unsafe {
            match self.isa.0 {
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => avx512::write(tile, rows.len(), panels.len()),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => avx2::write(tile, rows.len(), panels.len()),
                Kind::Portable => portable::write(tile, rows.len(), panels.len()),
            }
        }
    }
}

/// Where a tile's operands begin.
#[derive(Clone, Copy)]
struct Tile {
    x: *const f32, // rows of `inputs`
    w: *const f32, // panels of `inputs * PANEL`
    y: *mut f32,   // rows of `outputs`, of which `width` are written
    inputs: usize,
    outputs: usize,
    width: usize,
}

/// Writes the kernel of one instruction set: `tile<R, P>`, and `write`, which finds the `R` and `P` asked for.
///
/// A macro, not a generic function over a trait of vectors, because a `#[target_feature]` function is how the
/// compiler is told to keep the whole loop in that instruction set's registers.
macro_rules! kernel {
    (
        $isa:ident, $(features: $features:literal,)? vector: $lanes:literal,
        zero: $zero:expr, load: $load:expr, splat: $splat:expr, fma: $fma:expr, store: $store:expr,
        tiles: { $($panels:literal => [$($rows:literal)*],)* }
    ) => {
        mod $isa {
            use super::{PANEL, Tile};
            #[allow(clippy::allow_attributes, unused_imports, reason = "the portable kernel names no intrinsic")]
            #[cfg(target_arch = "x86_64")]
            use std::arch::x86_64::*;

            /// Computes a tile of `rows` by `panels`.
            ///
            /// # Safety
            /// The machine has the instruction set, and the tile's pointers reach as far as its sizes say.
            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn write(tile: Tile, rows: usize, panels: usize) {
                match (panels, rows) {
                    // SAFETY: the caller's promise.
                    $($(($panels, $rows) => unsafe { sum::<$rows, $panels>(tile) },)*)*
                    _ => unreachable!("no tile of {rows} rows by {panels} panels: see Isa::tile_panels"),
                }
            }

            /// Sums over `k` in order, with one fused multiply-add per step and output.
            ///
            /// # Safety
            /// As for `write`.
            $(#[target_feature(enable = $features)])?
            unsafe fn sum<const R: usize, const P: usize>(tile: Tile) {
                const VECTORS: usize = PANEL / $lanes;
                let mut acc = [[[$zero; VECTORS]; P]; R];
                for k in 0..tile.inputs {
                    let mut weights = [[$zero; VECTORS]; P];
                    for p in 0..P {
                        for v in 0..VECTORS {
                            let at = (p * tile.inputs + k) * PANEL + v * $lanes;
                            // SAFETY: a panel has `inputs * PANEL` values.
                            weights[p][v] = unsafe { $load(tile.w.add(at)) };
                        }
                    }
                    for r in 0..R {
                        // SAFETY: a row of `x` has `inputs` values.
                        let x = $splat(unsafe { *tile.x.add(r * tile.inputs + k) });
                        for p in 0..P {
                            for v in 0..VECTORS {
                                acc[r][p][v] = $fma(x, weights[p][v], acc[r][p][v]);
                            }
                        }
                    }
                }
                for (r, sums) in acc.iter().enumerate() {
                    for (v, &sum) in sums.as_flattened().iter().enumerate() {
                        let column = v * $lanes;
                        if column + $lanes <= tile.width {
                            // SAFETY: a row of `y` has `width` values from this tile's first output.
                            unsafe { $store(tile.y.add(r * tile.outputs + column), sum) };
                        } else if column < tile.width {
                            let mut lanes = [0.0_f32; $lanes];
                            // SAFETY: `lanes` holds one vector; only the outputs that exist are copied.
                            unsafe {
                                $store(lanes.as_mut_ptr(), sum);
                                let y = tile.y.add(r * tile.outputs + column);
                                y.copy_from_nonoverlapping(lanes.as_ptr(), tile.width - column);
                            }
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernel! {
    avx512, features: "avx512f", vector: 16,
    zero: _mm512_setzero_ps(), load: _mm512_loadu_ps, splat: _mm512_set1_ps, fma: _mm512_fmadd_ps,
    store: _mm512_storeu_ps,
    tiles: {
        1 => [1 2 3 4 5 6 7 8 9 10 11 12],
        2 => [1 2 3 4 5 6 7 8 9 10 11 12],
        4 => [1 2 3 4],
        8 => [1],
    }
}

#[cfg(target_arch = "x86_64")]
kernel! {
    avx2, features: "avx2,fma", vector: 8,
    zero: _mm256_setzero_ps(), load: _mm256_loadu_ps, splat: _mm256_set1_ps, fma: _mm256_fmadd_ps,
    store: _mm256_storeu_ps,
    tiles: {
        1 => [1 2 3 4 5 6],
        2 => [1 2 3],
        4 => [1],
    }
}

// On a machine without a fused multiply-add this is slow, as `mul_add` is a library call; it is never wrong.
kernel! {
    portable, vector: 16,
    zero: [0.0_f32; 16],
    load: |from: *const f32| from.cast::<[f32; 16]>().read_unaligned(),
    splat: |x: f32| x,
    fma: |x: f32, w: [f32; 16], acc: [f32; 16]| std::array::from_fn(|lane| x.mul_add(w[lane], acc[lane])),
    store: |to: *mut f32, sum: [f32; 16]| to.cast::<[f32; 16]>().write_unaligned(sum),
    tiles: { 1 => [1 2 3 4], }
}
