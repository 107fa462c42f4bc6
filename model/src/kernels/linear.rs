//! Linear layers whose rows do not influence each other, not even in the last bit.
//!
//! A general matrix multiplication picks its algorithm by the number of rows, and different algorithms sum in
//! different orders; so a request's numbers would depend on the requests that happen to share its batch.
//! [`PackedLinear`] fixes the order instead. Of weights in `f32`, each output element is, by definition,
//!
//! ```text
//! acc = 0;  for k in 0..in { acc = fma(x[row, k], weight[output, k], acc) };  y[row, output] = acc
//! ```
//!
//! with one rounding per step, whatever the number of rows, the position of the row, the instruction set and
//! the number of threads. Vector lanes run over outputs, never over `k`, so that no sum is ever split.
//! With weights in `bf16` both factors are rounded to it, and their products added in a fixed order, two
//! after each other (`bfloat`); in 8 bits, sums are exact (`int8`).
//!
//! The weight is stored as panels of `PANEL` outputs, `[out / PANEL, lines, PANEL]`, zero-padded. A line is
//! 64 bytes and has of each output one `f32`, two `bf16` or four 8-bit weights of neighbouring inputs. A tile
//! of rows by panels lives in registers. All instruction sets read the same panels, so that they can be kept
//! in a file ([`LAYOUT`]).
//!
//! Instruction sets are chosen at run time: AVX-512, AVX2 with FMA, for `bf16` AVX512-BF16, and for 8 bits
//! AMX, AVX-512-VNNI, AVX-VNNI and AVX2. Elsewhere a portable form runs, which the compiler vectorises; NEON
//! has no form of its own yet.
//!
//! Source: the register-tile scheme of Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication" (ACM TOMS 34(3), 2008), section 4, without its blocking of `k`.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod bfloat;
mod int8;
mod kernel;
mod packed;
mod panels;
mod product;
mod rounded;
mod rows;
mod single;
#[cfg(test)]
mod tests;
mod weight_type;
mod words;

pub(crate) use bfloat::multiplies_bf16;
pub(crate) use kernel::{Line, PANEL};
pub use packed::PackedLinear;
pub(crate) use panels::SharedBytes;
pub use rounded::Factor;
pub(crate) use rounded::multiply_rounded;
pub(crate) use rows::{RowView, multiply_rows};
pub(crate) use weight_type::LAYOUT;
pub use weight_type::WeightType;
