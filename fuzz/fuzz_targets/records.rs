//! Any bytes are data of every format, whose records are within bounds, and reading goes on from any of them.
#![no_main]

#[path = "../../data/tests/invariants/records.rs"]
mod invariants;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| invariants::check(data));
