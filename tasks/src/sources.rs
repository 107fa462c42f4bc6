//! Where the files are that a task file names: its folder, and the built-in task files.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use multiway_prompts::{SourceFile, SourceTask, TaskSource};

/// The maximum number of bytes read from a file; the parser's own limit is lower.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Files that are part of the program: task files in the order in which they are listed, and what they
/// import.
pub(crate) type Files = &'static [(&'static str, &'static [u8])];

/// What the origin of a built-in file starts with.
pub(crate) const BUILTIN: &str = "builtin:";

/// Gives built-in files to built-in task files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BuiltinSource {
    pub(crate) files: Files,
}

impl BuiltinSource {
    fn file(self, matches: impl Fn(&str) -> bool) -> Option<SourceFile> {
        let (origin, bytes) = self.files.iter().find(|(origin, _)| matches(origin))?;
        Some(SourceFile {
            origin: (*origin).to_owned(),
            bytes: bytes.to_vec(),
        })
    }
}

impl TaskSource for BuiltinSource {
    fn task(&self, name: &str) -> io::Result<Option<SourceTask<'_>>> {
        // Those of other families are in folders: `builtin:t5/infill.task`.
        let is_named = |origin: &str| {
            let file = origin.rsplit(['/', ':']).next();
            file.and_then(|file| file.strip_suffix(".task")) == Some(name)
        };
        Ok(self.file(is_named).map(|file| SourceTask {
            file,
            source: Box::new(*self),
        }))
    }

    fn template(&self, path: &str) -> io::Result<Option<SourceFile>> {
        Ok(self.file(|origin| origin.strip_prefix(BUILTIN) == Some(path)))
    }
}

/// Gives the files of a folder to a task file that is in it, and the built-in tasks.
#[derive(Debug, Clone)]
pub(crate) struct FolderSource {
    folder: PathBuf,
    /// The name of the task file's own file, which means a built-in task when the file itself uses it.
    own: String,
    builtin: Files,
    /// What was looked for.
    seen: Rc<RefCell<Vec<PathBuf>>>,
}

impl FolderSource {
    /// Looks in the folder of the task file at `path`.
    pub(crate) fn new(path: &Path, builtin: Files) -> Self {
        Self {
            folder: path.parent().unwrap_or(Path::new("")).to_owned(),
            own: path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            builtin,
            seen: Rc::default(),
        }
    }

    /// Lists the files that were looked for, whether they are there or not.
    pub(crate) fn seen(&self) -> Vec<PathBuf> {
        self.seen.borrow().clone()
    }

    /// Reads a file of the folder that is no link to a place outside of it.
    fn read(&self, path: &str) -> io::Result<Option<SourceFile>> {
        let place = self.folder.join(path);
        self.seen.borrow_mut().push(place.clone());
        let folder = if self.folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &self.folder
        };
        let found = match place.canonicalize() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !found.starts_with(folder.canonicalize()?) {
            return Err(io::Error::other(
                "it is a link to a file outside of the folder of the task file",
            ));
        }
        Ok(Some(SourceFile {
            origin: place.display().to_string(),
            bytes: read_bounded(&found)?,
        }))
    }
}

impl TaskSource for FolderSource {
    fn task(&self, name: &str) -> io::Result<Option<SourceTask<'_>>> {
        if name != self.own
            && let Some(file) = self.read(&format!("{name}.task"))?
        {
            let source = Self {
                own: name.to_owned(),
                ..self.clone()
            };
            return Ok(Some(SourceTask {
                file,
                source: Box::new(source),
            }));
        }
        let builtin = BuiltinSource { files: self.builtin };
        let found = builtin.task(name)?;
        Ok(found.map(|SourceTask { file, .. }| SourceTask {
            file,
            source: Box::new(builtin),
        }))
    }

    fn template(&self, path: &str) -> io::Result<Option<SourceFile>> {
        self.read(path)
    }
}

/// Reads a regular file as far as it may be long; a pipe would be waited for.
pub(crate) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use multiway_prompts::{Inputs, TaskFile};

    use super::*;

    const FILES: Files = &[
        (
            "builtin:t5/base.task",
            b"---\ndescription: Base.\n---\n{% include \"parts/head.jinja\" %}{% block rest %}rest{% endblock %}",
        ),
        ("builtin:parts/head.jinja", b"head</s> "),
        (
            "builtin:t5/child.task",
            b"---\nextends: base\n---\n{% block rest %}{{ super() }} and more{% endblock %}",
        ),
    ];

    #[test]
    fn built_in_tasks_extend_and_import_each_other() {
        let (origin, bytes) = FILES[2];
        let task = TaskFile::parse_from(origin, bytes, &BuiltinSource { files: FILES }).unwrap();
        let prompt = task.complete(&Inputs::new()).unwrap().render(&[]).unwrap();
        assert_eq!(prompt.text(), "head rest and more");
        assert_eq!(prompt.parts.len(), 3);
    }

    #[test]
    fn a_file_of_the_callers_extends_the_built_in_task_of_its_own_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("child.task");
        fs::write(&path, "---\nextends: child\ndescription: Mine.\n---\n").unwrap();
        let source = FolderSource::new(&path, FILES);
        let task = TaskFile::parse_from("child.task", &fs::read(&path).unwrap(), &source).unwrap();
        assert_eq!(task.description, "Mine.");
        assert!(task.template().contains("and more"));
        assert_eq!(source.seen(), Vec::<PathBuf>::new());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leaves_the_folder_is_refused_and_one_that_stays_is_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.jinja"), "secret").unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("real.jinja"), "real").unwrap();
        std::os::unix::fs::symlink(
            outside.path().join("secret.jinja"),
            folder.path().join("out.jinja"),
        )
        .unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("out")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("real.jinja"), folder.path().join("in.jinja")).unwrap();
        let source = FolderSource::new(&folder.path().join("a.task"), &[]);
        for leaving in ["out.jinja", "out/secret.jinja"] {
            let error = source.template(leaving).unwrap_err().to_string();
            assert!(error.contains("outside of the folder"), "{error}");
        }
        assert_eq!(source.template("in.jinja").unwrap().unwrap().bytes, b"real");
        assert_eq!(source.template("none.jinja").unwrap(), None);
        assert!(source.template("out").is_err());
    }
}
