//! What became of one template.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::error::{ImportError, ImportNote};

/// What became of one template.
///
/// # Examples
///
/// ```
/// use multiway_tasks::import_text;
///
/// let yaml = "dataset: imdb\ntemplates:\n  1: !Template\n    name: Sentiment\n    jinja: '{{text}} Good? ||| {{answer_choices[label]}}'\n    answer_choices: no ||| yes\n";
/// let imports = import_text("templates.yaml", yaml);
/// let file = imports[0].result.as_ref().map_err(ToString::to_string)?;
/// assert!(file.contains("{{ text }} Good?"));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Import {
    /// Where the template comes from: a file, and the name of the template if the file has several.
    pub source: String,
    /// The name of the task.
    pub name: String,
    /// The text of the task file, or why there is none.
    pub result: Result<String, ImportError>,
    /// What is not carried over.
    pub notes: Vec<ImportNote>,
}

impl Import {
    /// Writes the task file to a folder, and returns its path. A file that is there is not overwritten.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; an import that failed gives `None`.
    pub fn write(&self, folder: &Path) -> io::Result<Option<PathBuf>> {
        let Ok(text) = &self.result else {
            return Ok(None);
        };
        let path = folder.join(format!("{}.task", self.name));
        let mut file = File::options().write(true).create_new(true).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(Some(path))
    }
}
