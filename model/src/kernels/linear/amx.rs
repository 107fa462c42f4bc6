//! Weights in 8 bits on the matrix unit of AMX: sixteen rows by sixteen outputs in a register, sixty-four
//! inputs at a time.
//!
//! Sixteen lines of a panel are such a register of weights as they are, and so are sixteen rows of
//! activations. The sums are exact, hence those of every other kernel. A tile is two by two registers of
//! sums. Where it has fewer than 32 rows its halves overlap, and where it has one panel they are the same:
//! the products that are computed twice are equal.
//!
//! A thread uses the unit, whose registers the system has to save, no longer than it writes a block.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.

#![expect(unsafe_code, reason = "instructions that have no counterpart in Rust")]

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::int8::{FORMAT, avx512vnni};
use super::kernel::{Fallback, Kernel, Line, PANEL, Setup, Tile};
use crate::kernels::amx::{REGISTER_ROWS as ROWS, enter, is_granted, leave};

/// Registers of sums in a tile, two rows of them by two panels.
const SUMS: usize = 4;

pub(super) static KERNEL: Kernel = Kernel {
    name: "amx",
    format: FORMAT,
    widths: &[2; 2 * ROWS],
    detected: || (avx512vnni::KERNEL.detected)() && is_granted(),
    write,
    // Below, registers would be mostly empty.
    fallback: Some(Fallback {
        below: ROWS,
        kernel: &avx512vnni::KERNEL,
    }),
    setup: Some(Setup { enter, leave }),
};

/// The last inputs of a tile, fewer than a register has, and zeros behind them.
#[repr(C)]
struct Remainder {
    x: [[Line; ROWS]; 2],
    w: [[Line; ROWS]; 2],
}

/// Computes a tile of `rows`, 16 to 32, by `panels`, one or two.
///
/// # Safety
/// `enter` was called on this thread, and the tile's pointers reach as far as its sizes say.
#[target_feature(enable = "avx512f")]
unsafe fn write(tile: Tile, rows: usize, panels: usize) {
    let row = |row: usize| tile.x.wrapping_add(row * tile.row_words);
    // The second register of rows begins where it ends with the tile; the second panel may be the first.
    let (second, other) = (rows - ROWS, tile.lines * (panels - 1));
    let (x, w) = ([row(0), row(second)], [tile.w, tile.w.wrapping_add(other)]);
    let (steps, rest) = (tile.depth / ROWS, tile.depth % ROWS);
    let mut last = MaybeUninit::<Remainder>::uninit();
    if rest > 0 {
        let last = last.write(Remainder {
            x: [[Line([0; PANEL]); ROWS]; 2],
            w: [[Line([0; PANEL]); ROWS]; 2],
        });
        let first = steps * ROWS;
        for half in 0..2 {
            for (index, line) in last.x[half].iter_mut().enumerate() {
                let from = x[half].wrapping_add(index * tile.row_words + FORMAT.row_head + first);
                // SAFETY: a row has `depth` values behind its head, and a line room for them.
                unsafe { line.0.as_mut_ptr().copy_from_nonoverlapping(from, rest) };
            }
            let from = w[half].wrapping_add(FORMAT.head + first);
            // SAFETY: a panel has as many lines as `depth` needs.
            unsafe { last.w[half].as_mut_ptr().copy_from_nonoverlapping(from, rest) };
        }
    }
    let mut sums = MaybeUninit::<[[Line; ROWS]; SUMS]>::uninit();
    // SAFETY: the unit is set up for registers of 16 lines. Of `x` it reads whole lines of 16 rows, of the
    // panels the line that sums start from and 16 lines at a time, both up to `steps`; of `last`, where it is
    // written, and of `sums`, what is theirs.
    unsafe {
        asm!(
            // Each row of sums starts from the same line of its panel: no bytes from row to row.
            "xor {line:e}, {line:e}",
            "tileloadd tmm0, [{w0} + {line}*1]",
            "tileloadd tmm1, [{w1} + {line}*1]",
            "tileloadd tmm2, [{w0} + {line}*1]",
            "tileloadd tmm3, [{w1} + {line}*1]",
            "mov {line:e}, 64",
            "add {w0}, 64",
            "add {w1}, 64",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloadd tmm4, [{x0} + {stride}*1]",
            "tileloadd tmm6, [{w0} + {line}*1]",
            "tileloadd tmm7, [{w1} + {line}*1]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{x1} + {stride}*1]",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "add {x0}, 64",
            "add {x1}, 64",
            "add {w0}, 1024",
            "add {w1}, 1024",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "test {last}, {last}",
            "jz 4f",
            "tileloadd tmm4, [{last} + {line}*1]",
            "tileloadd tmm5, [{last} + {line}*1 + 1024]",
            "tileloadd tmm6, [{last} + {line}*1 + 2048]",
            "tileloadd tmm7, [{last} + {line}*1 + 3072]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "4:",
            "tilestored [{sums} + {line}*1], tmm0",
            "tilestored [{sums} + {line}*1 + 1024], tmm1",
            "tilestored [{sums} + {line}*1 + 2048], tmm2",
            "tilestored [{sums} + {line}*1 + 3072], tmm3",
            line = out(reg) _,
            stride = in(reg) tile.row_words * size_of::<u32>(),
            x0 = inout(reg) x[0].wrapping_add(FORMAT.row_head) => _,
            x1 = inout(reg) x[1].wrapping_add(FORMAT.row_head) => _,
            // The line of a head that sums start from is its last.
            w0 = inout(reg) w[0].wrapping_add(FORMAT.head - 1) => _,
            w1 = inout(reg) w[1].wrapping_add(FORMAT.head - 1) => _,
            steps = inout(reg) steps => _,
            last = in(reg) if rest > 0 { last.as_ptr() } else { std::ptr::null() },
            sums = in(reg) sums.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    // SAFETY: all four registers of sums were stored.
    let sums = unsafe { sums.assume_init_ref() };
    for index in 0..rows {
        let (half, place) = if index < ROWS {
            (0, index)
        } else {
            (1, index - second)
        };
        // SAFETY: a row begins with its scale.
        let scale = _mm512_set1_ps(f32::from_bits(unsafe { *row(index) }));
        for panel in 0..panels {
            // SAFETY: a panel begins with a line of scales.
            let scales = unsafe { _mm512_loadu_ps(w[panel].cast()) };
            // SAFETY: a line of sums is a register.
            let sum = unsafe { _mm512_loadu_si512(sums[2 * half + panel][place].0.as_ptr().cast()) };
            let y = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale), scales);
            let mask = u16::MAX >> (PANEL - (tile.width - panel * PANEL).min(PANEL));
            // SAFETY: a row of `y` has `width` values from this tile's first output; the mask leaves out what
            // is behind them.
            unsafe { _mm512_mask_storeu_ps(tile.y.add(index * tile.stride + panel * PANEL), mask, y) };
        }
    }
}
