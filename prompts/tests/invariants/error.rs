//! What holds for every error about a task file.

use multiway_prompts::{PromptError, PromptErrorKind};

/// The name that the files go by.
pub(crate) const ORIGIN: &str = "fuzz.task";

/// Checks that an error names a line that the file has, where it must name one, and grows no faster than the
/// file.
pub(crate) fn assert_error(error: &PromptError, file: &[u8]) {
    let message = error.to_string();
    assert_eq!(error.origin(), ORIGIN);
    assert!(message.starts_with(ORIGIN), "{message}");
    assert!(message.len() <= 8 * file.len() + 8192, "{} bytes", message.len());
    // YAML ends lines at `\r` too, and what is missing at the end is missed on the line after the last.
    let ends = file.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    let lines = ends + 2;
    match error.line() {
        Some(line) => assert!((1..=lines).contains(&line), "{message}"),
        None => assert!(!has_line(error.kind()), "{message}"),
    }
}

fn has_line(kind: &PromptErrorKind) -> bool {
    matches!(
        kind,
        PromptErrorKind::NotUtf8 { .. }
            | PromptErrorKind::NoFrontMatter { .. }
            | PromptErrorKind::FrontMatter { .. }
            | PromptErrorKind::EmptyBody
            | PromptErrorKind::Syntax { .. }
    )
}
