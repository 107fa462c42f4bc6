//! Any text is a template that renders as minijinja does and gives no part to the caller, or is refused with
//! its line.
#![no_main]

#[path = "../../prompts/tests/invariants/error.rs"]
mod error;
#[path = "../../prompts/tests/invariants/template.rs"]
mod invariants;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| invariants::check(data));
