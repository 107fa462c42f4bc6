//! The library of tasks: the built-in ones, and those from the caller's folders.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use multiway_model::{ModelConfig, TaskGroup, model_types};
use multiway_prompts::TaskFile;

use crate::error::TaskError;
use crate::sources::{BuiltinSource, Files, FolderSource, read_bounded};
use crate::task::Task;

macro_rules! builtin {
    ($($file:literal),*) => {
        const { &[$((concat!("builtin:", $file), include_bytes!(concat!("../library/", $file)).as_slice())),*] }
    };
}

/// The built-in task files of the native model, whose checkpoints say which of them they were trained on.
const NATIVE: Files = builtin![
    "caption.task",
    "vqa.task",
    "classify.task",
    "retrieve.task",
    "infill.task",
    "patches.task",
    "describe.task",
    "alt-text.task",
    "keywords.task",
    "closed-vqa.task",
    "multiple-choice.task",
    "count.task",
    "match.task",
    "entail.task",
    "reason.task",
    "verify.task",
    "compare.task",
    "read.task",
    "detect.task",
    "refer.task",
    "ground.task",
    "ask.task",
    "answer.task",
    "summarize.task",
    "translate.task"
];

/// The built-in task files of T5: the prompts that T5 and Flan-T5 were trained on. T5 v1.1 and mT5 are
/// trained on `infill` only, until they are fine-tuned.
const T5: Files = builtin![
    "t5/translate.task",
    "t5/summarize.task",
    "t5/answer.task",
    "t5/entail.task",
    "t5/text2text.task",
    "t5/infill.task"
];

/// The built-in task files of ByT5, whose vocabulary has no sentinel tokens for gaps.
const BYT5: Files = builtin![
    "t5/translate.task",
    "t5/summarize.task",
    "t5/answer.task",
    "t5/entail.task",
    "t5/text2text.task"
];

/// Returns the task files for a model's family and head.
fn builtin_files(config: &ModelConfig) -> Files {
    match config.task_group {
        TaskGroup::Native => NATIVE,
        TaskGroup::T5 => T5,
        TaskGroup::ByT5 => BYT5,
        TaskGroup::Vqa => builtin!["beit3/vqa.task"],
        TaskGroup::Nlvr2 => builtin!["beit3/reason.task"],
        TaskGroup::ImageClassification => builtin!["beit3/classify.task"],
        TaskGroup::Retrieval => builtin!["beit3/retrieve.task"],
        TaskGroup::Captioning => builtin!["beit3/caption.task"],
        TaskGroup::Pretraining => builtin!["beit3/infill.task", "beit3/patches.task"],
        _ => &[],
    }
}

/// Holds tasks by name.
///
/// # Examples
///
/// ```
/// use multiway_tasks::TaskLibrary;
///
/// let library = TaskLibrary::builtin()?;
/// assert_eq!(library.get("caption")?.name(), "caption");
///
/// let error = library.get("captoin").unwrap_err();
/// assert!(error.to_string().starts_with("unknown task 'captoin': did you mean 'caption'? (tasks: caption, vqa,"));
/// # Ok::<(), multiway_tasks::TaskError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct TaskLibrary {
    tasks: IndexMap<String, Task>,
    /// The built-in files, which loaded ones may extend.
    builtin: Files,
}

impl TaskLibrary {
    /// Creates an empty library.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiway_tasks::TaskLibrary::new().iter().count(), 0);
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a library of the built-in tasks of the native model.
    ///
    /// # Errors
    ///
    /// When a built-in file is wrong, which a test excludes.
    ///
    /// # Examples
    ///
    /// ```
    /// let library = multiway_tasks::TaskLibrary::builtin()?;
    /// let names: Vec<&str> = library.iter().map(|task| task.name()).collect();
    /// assert_eq!(names[..6], ["caption", "vqa", "classify", "retrieve", "infill", "patches"]);
    /// # Ok::<(), multiway_tasks::TaskError>(())
    /// ```
    pub fn builtin() -> Result<Self, TaskError> {
        Self::of_files(NATIVE)
    }

    /// Creates a library of the built-in tasks that a model's family and head can answer.
    ///
    /// # Errors
    ///
    /// When a built-in file is wrong, which a test excludes.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_model::Checkpoint;
    /// use multiway_tasks::TaskLibrary;
    ///
    /// let checkpoint = Checkpoint::open("../checkpoints/default")?;
    /// assert!(TaskLibrary::for_model(checkpoint.config())?.get("caption").is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn for_model(config: &ModelConfig) -> Result<Self, TaskError> {
        Self::of_files(builtin_files(config))
    }

    fn of_files(files: Files) -> Result<Self, TaskError> {
        let mut library = Self {
            tasks: IndexMap::new(),
            builtin: files,
        };
        for &(origin, bytes) in files.iter().filter(|(origin, _)| origin.ends_with(".task")) {
            let task = TaskFile::parse_from(origin, bytes, &BuiltinSource { files })?;
            let task = Task::new(checked_families(task)?);
            library.tasks.insert(task.name().to_owned(), task);
        }
        Ok(library)
    }

    /// Loads the `*.task` files of a folder in the order of their names, and returns the names of their
    /// tasks.
    ///
    /// A file overrides a built-in task of the same name. If any file is wrong, the library is left
    /// unchanged.
    ///
    /// # Errors
    ///
    /// When the folder or a file cannot be read, when a file is not a task file, and when two loaded files
    /// define the same task.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut library = multiway_tasks::TaskLibrary::new();
    /// let names = library.load_dir("library/beit3")?;
    /// assert!(names.contains(&"reason".to_owned()));
    /// # Ok::<(), multiway_tasks::TaskError>(())
    /// ```
    pub fn load_dir(&mut self, folder: impl AsRef<Path>) -> Result<Vec<String>, TaskError> {
        let folder = folder.as_ref();
        let files = task_files(folder).map_err(|source| TaskError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let mut loaded = self.clone();
        let names = files
            .iter()
            .map(|path| loaded.add_file(path))
            .collect::<Result<_, _>>()?;
        *self = loaded;
        Ok(names)
    }

    /// Loads one task file, and returns the name of its task. It overrides a built-in task of the same name.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is not a task file, or defines the same task as another loaded file.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut library = multiway_tasks::TaskLibrary::builtin()?;
    /// assert_eq!(library.load_file("library/caption.task")?, "caption");
    /// assert_eq!(library.get("caption")?.origin(), "library/caption.task");
    /// # Ok::<(), multiway_tasks::TaskError>(())
    /// ```
    pub fn load_file(&mut self, path: impl AsRef<Path>) -> Result<String, TaskError> {
        self.add_file(path.as_ref())
    }

    /// Reads a task file as if it had these bytes and were at a path, next to the files that it extends and
    /// imports. The library does not get the task.
    ///
    /// # Errors
    ///
    /// When the bytes are not a task file.
    ///
    /// # Examples
    ///
    /// ```
    /// let library = multiway_tasks::TaskLibrary::builtin()?;
    /// let file = b"---\nextends: match\noutput: {kind: predicate, calibration: {temperature: 2}}\n---\n";
    /// assert_eq!(library.parse_file("mine.task", file)?.name(), "mine");
    /// # Ok::<(), multiway_tasks::TaskError>(())
    /// ```
    pub fn parse_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> Result<Task, TaskError> {
        let path = path.as_ref();
        task_at(path, bytes, &FolderSource::new(path, self.builtin))
    }

    /// Returns the task of a name.
    ///
    /// # Errors
    ///
    /// When there is none; the error suggests the nearest name and lists all.
    ///
    /// # Examples
    ///
    /// ```
    /// let library = multiway_tasks::TaskLibrary::builtin()?;
    /// assert!(library.get("vqa").is_ok());
    /// assert!(library.get("chess").is_err());
    /// # Ok::<(), multiway_tasks::TaskError>(())
    /// ```
    pub fn get(&self, name: &str) -> Result<&Task, TaskError> {
        self.tasks.get(name).ok_or_else(|| TaskError::UnknownTask {
            name: name.to_owned(),
            suggestion: nearest(name, self.tasks.keys()),
            known: self.tasks.keys().cloned().collect(),
        })
    }

    /// Iterates over the tasks: the built-in ones first, then the loaded ones.
    pub fn iter(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

    fn add_file(&mut self, path: &Path) -> Result<String, TaskError> {
        let task = self.read_file(path, &FolderSource::new(path, self.builtin))?;
        self.insert(task)
    }

    /// Reads a task file, with what it extends and imports.
    pub(crate) fn read_file(&self, path: &Path, source: &FolderSource) -> Result<Task, TaskError> {
        let bytes = read_bounded(path).map_err(|source| TaskError::File {
            path: path.to_owned(),
            source,
        })?;
        task_at(path, &bytes, source)
    }

    /// Returns the built-in files, which loaded ones may extend.
    pub(crate) fn builtin_files(&self) -> Files {
        self.builtin
    }

    /// Adds a task, in place of a built-in one of its name, and returns its name.
    ///
    /// # Errors
    ///
    /// When a loaded file defines a task of that name.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::{Task, TaskLibrary};
    ///
    /// let mut library = TaskLibrary::builtin()?;
    /// assert_eq!(library.insert(Task::plain_prompt()?)?, "prompt");
    /// # Ok::<(), multiway_tasks::TaskError>(())
    /// ```
    pub fn insert(&mut self, task: Task) -> Result<String, TaskError> {
        let name = task.name().to_owned();
        if let Some(first) = self.tasks.get(&name).filter(|first| !first.is_builtin()) {
            return Err(TaskError::Duplicate {
                name,
                first: first.origin().to_owned(),
                second: task.origin().to_owned(),
            });
        }
        let origin = task.origin().to_owned();
        if self.tasks.insert(name.clone(), task).is_some() {
            tracing::info!(task = name, file = origin, "overrides a built-in task");
        }
        Ok(name)
    }
}

/// Reads the bytes of the task file at a path, with what it extends and imports.
fn task_at(path: &Path, bytes: &[u8], source: &FolderSource) -> Result<Task, TaskError> {
    let file = TaskFile::parse_from(&path.display().to_string(), bytes, source)?;
    Ok(Task::from_file(checked_families(file)?, path))
}

/// Checks that the families that a task has settings for exist.
fn checked_families(file: TaskFile) -> Result<TaskFile, TaskError> {
    let is_known = |family: &String| model_types().any(|known| known == family);
    let Some(unknown) = file.preprocessing.keys().find(|family| !is_known(family)) else {
        return Ok(file);
    };
    let known: Vec<String> = model_types().map(str::to_owned).collect();
    Err(TaskError::UnknownFamily {
        origin: file.origin().to_owned(),
        suggestion: nearest(unknown, known.iter()),
        name: unknown.clone(),
        known,
    })
}

/// Lists the task files of a folder in the order of their names.
pub(crate) fn task_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "task") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Finds the known name nearest to `name`, if one is near enough to suggest.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    let name = name.to_lowercase();
    known
        .map(|candidate| (strsim::damerau_levenshtein(&name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.clone())
}
