//! Any text is read as every kind of answer, in bounded time, and nothing in it is guessed.
#![no_main]

#[path = "../../tasks/tests/invariants/answers.rs"]
mod invariants;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| invariants::check(data));
