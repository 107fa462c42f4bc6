//! Where the other files are that a task file names: the task that it extends, and what its templates import.

use std::io;

/// The most bytes that the path of an imported file may have.
const MAX_PATH_BYTES: usize = 200;

/// Gives the files that a task file names.
///
/// An implementation looks in one place, such as the folder of the task file, and never gives a file from
/// outside of it. Paths are checked before it is asked: they are relative, go down only, and have `/` between
/// their parts.
pub trait TaskSource {
    /// Reads the task file that `extends: name` means, or gives `None` when there is none.
    ///
    /// # Errors
    ///
    /// When there is one that cannot be read.
    fn task(&self, name: &str) -> io::Result<Option<SourceTask<'_>>>;

    /// Reads the file that a template imports or includes, or gives `None` when there is none.
    ///
    /// # Errors
    ///
    /// When there is one that cannot be read, or that lies outside of the place.
    fn template(&self, path: &str) -> io::Result<Option<SourceFile>>;
}

/// Holds a file that a task file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where the bytes come from, as messages name it.
    pub origin: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Holds a task file that another one extends.
pub struct SourceTask<'s> {
    /// The file.
    pub file: SourceFile,
    /// Where the files are that this task file names in turn.
    pub source: Box<dyn TaskSource + 's>,
}

/// Has no files: for a task file that comes as bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NoFiles;

impl TaskSource for NoFiles {
    fn task(&self, _: &str) -> io::Result<Option<SourceTask<'_>>> {
        Ok(None)
    }

    fn template(&self, _: &str) -> io::Result<Option<SourceFile>> {
        Ok(None)
    }
}

/// Says what is wrong with the path of an imported file, if anything.
pub(crate) fn path_fault(path: &str) -> Option<&'static str> {
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        return Some("a path has 1 to 200 bytes");
    }
    if path.starts_with('/') || path.contains([':', '\\']) {
        return Some("a path is relative to the folder of the task file, with '/' between its parts");
    }
    if path.chars().any(char::is_control) {
        return Some("a path has no control characters");
    }
    let goes_elsewhere = |part: &str| matches!(part, "" | "." | "..");
    path.split('/')
        .any(goes_elsewhere)
        .then_some("a path stays below the folder of the task file: no '..', no '.', no empty part")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_down_only() {
        for path in [
            "macros.jinja",
            "lib/macros.jinja",
            ".hidden",
            "a..b",
            "größe.jinja",
        ] {
            assert_eq!(path_fault(path), None, "{path}");
        }
        for path in [
            "",
            "/etc/passwd",
            "..",
            "../a",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "C:\\a",
            "a\\b",
            "c:a",
            "a\0b",
            "body:1",
        ] {
            assert!(path_fault(path).is_some(), "{path}");
        }
        assert!(path_fault(&"a".repeat(201)).is_some());
    }
}
