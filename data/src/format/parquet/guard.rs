//! Calls code that is meant never to panic on any bytes, and may.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// The most characters of a message that are shown: some quote the bytes that they are about.
const SHOWN: usize = 300;

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` and makes a panic an error, without a message on standard error.
///
/// What `work` changed must not be used again after an error.
pub(super) fn guarded<T, E: ToString>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    install();
    IS_GUARDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(false);
    match result {
        Ok(result) => result.map_err(|error| shown(&error.to_string())),
        Err(panic) => Err(format!("the decoder gave up: {}", shown(message(&*panic)))),
    }
}

/// Has the hook of the program pass over panics that are expected here.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                before(panic);
            }
        }));
    });
}

fn message(panic: &(dyn Any + Send)) -> &str {
    match panic.downcast_ref::<String>() {
        Some(text) => text,
        None => panic.downcast_ref::<&str>().copied().unwrap_or("no message"),
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message_cut() {
        let error = guarded::<(), String>(|| panic!("{}", "x".repeat(1000))).unwrap_err();
        assert_eq!(error, format!("the decoder gave up: {}...", "x".repeat(SHOWN)));
        assert_eq!(guarded::<_, String>(|| Ok(1)), Ok(1));
        assert!(!IS_GUARDED.get());
    }
}
