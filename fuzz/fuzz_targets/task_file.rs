//! Any bytes are a task file that reads the same twice and renders the same twice, or are refused with their
//! line.
#![no_main]

#[path = "../../prompts/tests/invariants/error.rs"]
mod error;
#[path = "../../prompts/tests/invariants/task_file.rs"]
mod invariants;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| invariants::check(data));
