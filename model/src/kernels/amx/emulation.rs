//! The unit's instructions in software: tests run what is written in them on machines that have AVX-512
//! alone.
//!
//! An instruction that a processor does not know raises a signal. The handler does what the instruction would
//! have done, and the program goes on behind it; what is not of this unit ends the process, as ever.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, section 2.3 for the
//! encoding, and the pages of the five instructions for what they do.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};

use super::shapes::{REGISTER_ROWS, SHAPES, Shapes};

/// Bytes of a row of a register.
const ROW_BYTES: usize = 64;

/// The general registers by their numbers in instructions.
const GENERAL: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// The registers of a machine word.
type Words = [libc::greg_t; 23];

type Register = [[u8; ROW_BYTES]; REGISTER_ROWS];

/// The unit as a thread sees it.
struct Unit {
    ready: bool,
    registers: [Register; 8],
}

thread_local! {
    static UNIT: UnsafeCell<Unit> = const {
        UnsafeCell::new(Unit {
            ready: false,
            registers: [[[0; ROW_BYTES]; REGISTER_ROWS]; 8],
        })
    };
}

/// Emulates the unit for this process from now on, and tells whether it can.
pub(super) fn install() -> bool {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handle;
    // SAFETY: of zeros, an action is one without flags; the handler touches nothing but its own thread's
    // registers, and what the instruction would have touched.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGILL, &raw const action, std::ptr::null_mut()) == 0
    }
}

extern "C" fn handle(signal: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes the state of the thread that it has interrupted.
    let words = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    match UNIT.with(|unit| {
        // SAFETY: only this function, which does not interrupt itself, takes the thread's unit.
        let unit = unsafe { &mut *unit.get() };
        unit.step(words)
    }) {
        Some(length) => words[libc::REG_RIP as usize] += length,
        // Met once more, the instruction ends the process.
        // SAFETY: sets what the system does by itself.
        None => _ = unsafe { libc::signal(signal, libc::SIG_DFL) },
    }
}

/// An instruction, decoded as far as all of them go.
struct Instruction {
    opcode: u8,
    prefix: u8,
    /// The three fields that name registers: of `ModRM`, `reg` and `rm`, and of the prefix.
    reg: u8,
    rm: u8,
    third: u8,
    memory: Option<Memory>,
    length: libc::greg_t,
}

/// An operand in memory: where it begins, and how far apart the rows of a register are.
#[derive(Clone, Copy)]
struct Memory {
    start: usize,
    stride: usize,
}

impl Instruction {
    /// Decodes the instruction that a thread stands before; none where it is of another form.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a general register holds a pointer"
    )]
    fn decode(words: &Words) -> Option<Self> {
        let code = words[libc::REG_RIP as usize] as *const u8;
        // SAFETY: a byte is read only where those before it say that the instruction goes on.
        let byte = |at: usize| unsafe { code.add(at).read() };
        // The prefix of three bytes, and the second map of opcodes.
        if byte(0) != 0xC4 || byte(1) & 0x1F != 2 {
            return None;
        }
        let (extensions, last) = (!byte(1), byte(2));
        let general = |low: u8, extension: u8| {
            let high = extensions >> extension & 1;
            words[GENERAL[usize::from(low | high << 3)] as usize] as usize
        };
        let mode = byte(4);
        let (kind, rm) = (mode >> 6, mode & 7);
        let mut length = 5;
        let memory = if kind == 3 {
            None
        } else {
            let (mut base, mut stride) = (rm, 0);
            if rm == 4 {
                let scaled = byte(length);
                length += 1;
                base = scaled & 7;
                if scaled >> 3 & 7 != 4 || extensions >> 6 & 1 == 1 {
                    stride = general(scaled >> 3 & 7, 6) << (scaled >> 6);
                }
            }
            let displacement = match kind {
                0 if base == 5 => return None,
                0 => 0,
                1 => isize::from(byte(length).cast_signed()),
                _ => {
                    let bytes = [0, 1, 2, 3].map(|at| byte(length + at));
                    i32::from_le_bytes(bytes) as isize
                }
            };
            length += [0, 1, 4][usize::from(kind)];
            let start = general(base, 5).wrapping_add_signed(displacement);
            Some(Memory { start, stride })
        };
        Some(Self {
            opcode: byte(3),
            prefix: last & 3,
            reg: mode >> 3 & 7,
            rm,
            third: !last >> 3 & 7,
            memory,
            length: length as libc::greg_t,
        })
    }
}

impl Unit {
    /// Does the instruction that a thread stands before, and returns its length; none where it is not of this
    /// unit.
    fn step(&mut self, words: &Words) -> Option<libc::greg_t> {
        let instruction = Instruction::decode(words)?;
        let register = usize::from(instruction.reg);
        match (instruction.opcode, instruction.prefix, instruction.memory) {
            // ldtilecfg
            (0x49, 0, Some(memory)) => {
                // SAFETY: the instruction reads as many bytes from there.
                let shapes = unsafe { (memory.start as *const [u8; size_of::<Shapes>()]).read() };
                // SAFETY: shapes have no padding.
                let known = unsafe { &*(&raw const SHAPES).cast::<[u8; size_of::<Shapes>()]>() };
                if shapes != *known {
                    return None;
                }
                self.registers = [[[0; ROW_BYTES]; REGISTER_ROWS]; 8];
                self.ready = true;
            }
            // tilerelease
            (0x49, 0, None) => self.ready = false,
            _ if !self.ready => return None,
            // tileloadd
            (0x4B, 3, Some(memory)) => {
                for (index, row) in self.registers[register].iter_mut().enumerate() {
                    let from = memory.start.wrapping_add(memory.stride.wrapping_mul(index)) as *const u8;
                    // SAFETY: the instruction reads a row from there.
                    unsafe { from.copy_to(row.as_mut_ptr(), ROW_BYTES) };
                }
            }
            // tilestored
            (0x4B, 2, Some(memory)) => {
                for (index, row) in self.registers[register].iter().enumerate() {
                    let to = memory.start.wrapping_add(memory.stride.wrapping_mul(index)) as *mut u8;
                    // SAFETY: the instruction writes a row to there.
                    unsafe { to.copy_from(row.as_ptr(), ROW_BYTES) };
                }
            }
            // tdpbusd
            (0x5E, 1, None) => {
                let (x, w) = (usize::from(instruction.rm), usize::from(instruction.third));
                self.registers[register] =
                    summed(&self.registers[register], &self.registers[x], &self.registers[w]);
            }
            _ => return None,
        }
        Some(instruction.length)
    }
}

/// Adds to sums in 32 bits the products of unsigned bytes, four of a row at a time, by the signed ones of a
/// row of `w`.
fn summed(sums: &Register, x: &Register, w: &Register) -> Register {
    let mut result = *sums;
    for (sums, x) in result.iter_mut().zip(x) {
        for (x, w) in x.chunks_exact(4).zip(w) {
            for (sum, w) in sums.chunks_exact_mut(4).zip(w.chunks_exact(4)) {
                let products = x
                    .iter()
                    .zip(w)
                    .map(|(x, w)| i32::from(*x) * i32::from(w.cast_signed()));
                let before = i32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]);
                let after = products.fold(before, i32::wrapping_add);
                sum.copy_from_slice(&after.to_le_bytes());
            }
        }
    }
    result
}
