//! Any bytes are front matter whose parameters are within bounds, or are refused with their line.
#![no_main]

#[path = "../../prompts/tests/invariants/error.rs"]
mod error;
#[path = "../../prompts/tests/invariants/front_matter.rs"]
mod invariants;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| invariants::check(data));
