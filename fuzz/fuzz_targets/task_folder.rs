//! Any bytes are a task file with the files that it extends and imports, which renders with parts of its
//! templates alone, or are refused with the file that is wrong.
#![no_main]

#[path = "../../prompts/tests/invariants/task_folder.rs"]
mod invariants;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| invariants::check(data));
