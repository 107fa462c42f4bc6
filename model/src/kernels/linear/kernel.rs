//! Register tiles: a few rows by a few panels, summed over the inputs in order.
//!
//! A kernel is one kind of weights on one instruction set. They differ in how a line of weights becomes
//! vectors and in one multiplying instruction; the loops around are written once, by the macro [`kernel`].

#![expect(
    unsafe_code,
    reason = "pointers to the operands of a tile, which a grid has checked"
)]

/// Outputs in a panel of packed weights: one AVX-512 register of 32-bit words.
pub(crate) const PANEL: usize = 16;

/// A cache line of a panel: for each of its outputs as many weights as 32 bits hold. No load of a vector
/// touches two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; PANEL]);

/// How the words of rows and of panels are laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// Words of a row of `x` before its values.
    pub(super) row_head: usize,
    /// Lines of a panel before its weights.
    pub(super) head: usize,
    /// Words of a panel that one word of a row meets.
    pub(super) step: usize,
}

impl Format {
    /// Counts the lines of a panel whose rows have `depth` values.
    pub(super) fn lines(self, depth: usize) -> usize {
        self.head + (depth * self.step).div_ceil(PANEL)
    }
}

/// A tile's operands.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) x: *const u32, // rows of `row_words`, of which `depth` behind the head are values
    pub(super) w: *const Line, // panels of `lines`
    /// The next panels, of which the tile prefetches the first `ahead` while it sums: at most as many as it
    /// has.
    pub(super) next: *const Line,
    pub(super) ahead: usize,
    pub(super) y: *mut f32, // rows `stride` apart, of which `width` are written
    pub(super) row_words: usize,
    pub(super) depth: usize,
    pub(super) lines: usize,
    pub(super) stride: usize,
    pub(super) width: usize,
}

/// A way to compute tiles of one kind of weights; only those that this machine can run are handed out.
pub(super) struct Kernel {
    pub(super) name: &'static str,
    pub(super) format: Format,
    /// Panels of a tile of one row, of two rows, and so on to the most that fit into registers. From half of
    /// the most rows on it is one number: tiles of a block, cut evenly, have as many panels.
    pub(super) widths: &'static [usize],
    pub(super) detected: fn() -> bool,
    pub(super) write: unsafe fn(Tile, usize, usize),
    /// The fallback kernel for blocks of few rows, of the same format.
    pub(super) fallback: Option<Fallback>,
    pub(super) setup: Option<Setup>,
}

/// Another kernel, for blocks of few rows.
#[derive(Clone, Copy)]
pub(super) struct Fallback {
    /// It computes blocks of fewer rows than this.
    pub(super) below: usize,
    pub(super) kernel: &'static Kernel,
}

/// Calls of a thread before and after it writes tiles.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub(super) enter: unsafe fn(),
    pub(super) leave: unsafe fn(),
}

/// A thread that may write tiles of a kernel, until this is dropped.
pub(super) struct Ready(Option<Setup>);

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(setup) = self.0 {
            // SAFETY: `Kernel::ready` has called `enter` on this thread, as it promises that the machine can.
            unsafe { (setup.leave)() }
        }
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Kernel {
    /// Returns the rows of a tile when `rows` are to be cut evenly.
    pub(super) fn tile_rows(&self, rows: usize) -> usize {
        let most = self.widths.len().max(1);
        rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
    }

    /// Returns the panels of a tile: enough for the sums in flight, few enough to stay in registers.
    pub(super) fn tile_panels(&self, tile_rows: usize) -> usize {
        self.widths.get(tile_rows - 1).copied().unwrap_or(1)
    }

    /// Returns the kernel for a block of `rows` rows: this one, or its fallback, which runs wherever this one
    /// does.
    pub(super) fn for_rows(&'static self, rows: usize) -> &'static Self {
        match self.fallback {
            Some(Fallback { below, kernel }) if rows < below => kernel,
            _ => self,
        }
    }

    /// Makes this thread ready to write tiles.
    ///
    /// # Safety
    /// The kernel was handed out on this machine, and no kernel that needs a setup is ready on this thread.
    pub(super) unsafe fn ready(&self) -> Ready {
        if let Some(setup) = self.setup {
            // SAFETY: the caller's promise.
            unsafe { (setup.enter)() }
        }
        Ready(self.setup)
    }

    /// Computes a tile of `rows` by `panels`.
    ///
    /// # Safety
    /// The kernel was handed out on this machine and is ready on this thread, `rows` is what `tile_rows`
    /// gives, `panels` is one or what `tile_panels` gives, and the tile's pointers reach as far as its sizes
    /// say.
    pub(super) unsafe fn write(&self, tile: Tile, rows: usize, panels: usize) {
        // SAFETY: the caller's promise.
        unsafe { (self.write)(tile, rows, panels) }
    }
}

/// Writes a module with the kernel of one instruction set.
///
/// A macro, not a generic function over a trait of vectors, because a `#[target_feature]` function is how the
/// compiler is told to keep the whole loop in that instruction set's registers.
///
/// `tiles` lists rows and the panels that go with them, from one row upwards. `start` makes a sum, given the
/// panel and the first lane; `finish` makes `f32` of it, given the row as well; both may read the heads.
/// `fetch` prefetches a line of the next panels while this tile is summed.
macro_rules! kernel {
    (
        $isa:ident, detected: $detected:expr, $(features: $features:literal,)? vector: $lanes:literal,
        format: $format:expr,
        start: $start:expr, load: $load:expr, splat: $splat:expr, dot: $dot:expr,
        finish: $finish:expr, store: $store:expr, fetch: $fetch:expr,
        tiles: { $($rows:literal: $panels:literal),* $(,)? }
    ) => {
        pub(super) mod $isa {
            use super::super::kernel::{Format, Kernel, PANEL, Tile};
            #[allow(clippy::allow_attributes, unused_imports, reason = "the portable kernel names no intrinsic")]
            #[cfg(target_arch = "x86_64")]
            use std::arch::x86_64::*;

            const FORMAT: Format = $format;

            pub(in super::super) static KERNEL: Kernel = Kernel {
                name: stringify!($isa),
                format: FORMAT,
                widths: &[$($panels),*],
                detected: $detected,
                write,
                fallback: None,
                setup: None,
            };

            /// Computes a tile of `rows` by `panels`.
            ///
            /// # Safety
            /// The machine has the instruction set, and the tile's pointers reach as far as its sizes say.
            $(#[target_feature(enable = $features)])?
            unsafe fn write(tile: Tile, rows: usize, panels: usize) {
                match (rows, panels) {
                    // SAFETY: the caller's promise.
                    $(($rows, 1) => unsafe { sum::<$rows, 1>(tile) },)*
                    // SAFETY: as above.
                    $(($rows, panels) if panels == $panels => unsafe { sum::<$rows, $panels>(tile) },)*
                    _ => unreachable!("no tile of {rows} rows by {panels} panels: see Kernel::tile_panels"),
                }
            }

            /// Sums in the order of the inputs.
            ///
            /// # Safety
            /// As for `write`.
            $(#[target_feature(enable = $features)])?
            unsafe fn sum<const R: usize, const P: usize>(tile: Tile) {
                const VECTORS: usize = PANEL / $lanes;
                let panel = |p: usize| tile.w.wrapping_add(p * tile.lines).cast::<u32>();
                let row = |r: usize| tile.x.wrapping_add(r * tile.row_words);
                let starts: [[_; VECTORS]; P] =
                    std::array::from_fn(|p| std::array::from_fn(|v| $start(panel(p), v * $lanes)));
                let mut acc = [starts; R];
                // In place of panels that it must not prefetch stand its own, which are in the cache: no
                // branch in the loop.
                let next: [_; P] = std::array::from_fn(|p| {
                    if p < tile.ahead { tile.next.wrapping_add(p * tile.lines).cast() } else { panel(p) }
                });
                for k in 0..tile.depth {
                    let step = FORMAT.head * PANEL + k * FORMAT.step;
                    let weights: [[_; VECTORS]; P] = std::array::from_fn(|p| {
                        std::array::from_fn(|v| {
                            let from = step + v * $lanes * FORMAT.step / PANEL;
                            // SAFETY: a panel has as many lines as `depth` needs.
                            unsafe { $load(panel(p).add(from)) }
                        })
                    });
                    if tile.ahead > 0 {
                        next.iter().for_each(|next| $fetch(next.wrapping_add(k * FORMAT.step)));
                    }
                    for r in 0..R {
                        // SAFETY: a row has `depth` values behind its head.
                        let x = $splat(unsafe { *row(r).add(FORMAT.row_head + k) });
                        for p in 0..P {
                            for v in 0..VECTORS {
                                acc[r][p][v] = $dot(acc[r][p][v], x, weights[p][v]);
                            }
                        }
                    }
                }
                for r in 0..R {
                    for p in 0..P {
                        for v in 0..VECTORS {
                            let sum = $finish(acc[r][p][v], panel(p), v * $lanes, row(r));
                            let column = p * PANEL + v * $lanes;
                            if column + $lanes <= tile.width {
                                // SAFETY: a row of `y` has `width` values from this tile's first output.
                                unsafe { $store(tile.y.add(r * tile.stride + column), sum) };
                            } else if column < tile.width {
                                let mut lanes = [0.0_f32; $lanes];
                                // SAFETY: `lanes` holds one vector; only the outputs that exist are copied.
                                unsafe {
                                    $store(lanes.as_mut_ptr(), sum);
                                    let y = tile.y.add(r * tile.stride + column);
                                    y.copy_from_nonoverlapping(lanes.as_ptr(), tile.width - column);
                                }
                            }
                        }
                    }
                }
            }
        }
    };
}

pub(super) use kernel;
