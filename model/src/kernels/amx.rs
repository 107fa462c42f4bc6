//! The matrix unit of AMX: eight registers of sixteen rows of 64 bytes, and sums of products of 8-bit
//! numbers.
//!
//! Rust has no stable functions for it, so the instructions are written out. A process asks the system for
//! leave to use it, and each thread sets it up before and gives it back afterwards.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and the Linux
//! kernel's documentation of dynamically enabled features (`arch/x86/xstate.rst`).

#![expect(unsafe_code, reason = "instructions that have no counterpart in Rust")]

#[cfg(test)]
mod emulation;
mod shapes;

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

pub(crate) use shapes::REGISTER_ROWS;
use shapes::SHAPES;

/// Products that [`products`] sums in a round: four times a register of rows by a register of columns, 64
/// deep.
pub(crate) const PRODUCTS_A_ROUND: u32 = 4 * 16 * 16 * 64;

/// Asks whether the machine has the unit, and the system for leave to use it, once. Unit tests emulate it
/// where there is none.
pub(crate) fn is_granted() -> bool {
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| {
        if cfg!(miri) {
            return false;
        }
        let granted = is_there() && ask();
        #[cfg(test)]
        let granted = granted || emulation::install();
        granted
    })
}

fn is_there() -> bool {
    const TILES_AND_INT8: u32 = 0b11 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILES_AND_INT8 == TILES_AND_INT8
}

/// Asks the system for leave to use the registers.
fn ask() -> bool {
    /// `ARCH_REQ_XCOMP_PERM`, of the data of tiles.
    const ASK: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: a call that reads and writes no memory; a system that does not know it says no.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ASK, TILE_DATA) == 0 }
}

/// Sets up the unit for this thread.
///
/// # Safety
/// The machine has it, and the system has granted it.
pub(crate) unsafe fn enter() {
    // SAFETY: the caller's promise; shapes are 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, readonly, preserves_flags)) }
}

/// Gives the unit back.
///
/// # Safety
/// As for `enter`.
pub(crate) unsafe fn leave() {
    // SAFETY: the caller's promise.
    unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
}

/// Multiplies registers of zeros and adds to four others, in turn, for `rounds` rounds: what the unit can do
/// at most.
///
/// # Safety
/// As for `enter`.
pub(crate) unsafe fn products(rounds: u32) {
    // SAFETY: the caller's promise; registers are zeros once they are set up, and no memory is touched.
    unsafe {
        enter();
        asm!(
            "test {rounds:e}, {rounds:e}",
            "jz 3f",
            "2:",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "dec {rounds:e}",
            "jnz 2b",
            "3:",
            rounds = inout(reg) rounds => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, nomem),
        );
        leave();
    }
}
