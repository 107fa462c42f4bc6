//! A library whose files may change while it is used.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use indexmap::IndexSet;

use crate::error::TaskError;
use crate::library::{TaskLibrary, task_files};
use crate::sources::FolderSource;
use crate::task::Task;

/// Holds a library over folders of task files that may change while it is used, as in a server.
///
/// [`reload`](Self::reload) reads again what has changed: files that another modification time or size has,
/// and those that extend or import such a file. A file that has become wrong keeps its last good version.
/// Nothing watches by itself: a server calls `reload` from a thread of its own, once in a while.
///
/// # Examples
///
/// ```
/// use multiway_tasks::{FileChange, TaskLibrary, WatchedLibrary};
///
/// let folder = tempfile::tempdir()?;
/// let library = WatchedLibrary::open(TaskLibrary::builtin()?, [folder.path()])?;
/// let before = library.snapshot();
///
/// std::fs::write(folder.path().join("hello.task"), "---\ndescription: Greets.\n---\nHello")?;
/// let reports = library.reload();
/// assert!(matches!(&reports[0].change, FileChange::Added { task } if task == "hello"));
///
/// assert!(library.snapshot().get("hello").is_ok());
/// assert!(before.get("hello").is_err(), "who has taken a snapshot keeps it");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct WatchedLibrary {
    base: TaskLibrary,
    folders: Vec<PathBuf>,
    state: Mutex<State>,
    current: RwLock<Arc<TaskLibrary>>,
}

/// Reports what happened to a file, or to a folder, since the last reload.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FileReport {
    /// The file, or the folder that cannot be read.
    pub path: PathBuf,
    /// What happened.
    pub change: FileChange,
}

/// Says what happened to a file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FileChange {
    /// A file that was not there defines a task.
    Added {
        /// The task.
        task: String,
    },
    /// The file, or one that it extends or imports, has changed.
    Changed {
        /// The task.
        task: String,
    },
    /// The file is gone, and so is its task.
    Removed {
        /// The task.
        task: String,
    },
    /// The file is wrong.
    Broken {
        /// The task whose last good version stays in use, if there was one.
        kept: Option<String>,
        /// What is wrong.
        error: Arc<TaskError>,
    },
}

/// What is known of the folders.
#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Watched>,
    /// The folders that cannot be read.
    unreadable: BTreeMap<PathBuf, Arc<TaskError>>,
}

/// What is known of a file.
#[derive(Debug, Default)]
struct Watched {
    /// The file and those that it extends or imports, as they were when it was read.
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    /// The last version that was good.
    task: Option<Task>,
    /// What is wrong with the present version.
    error: Option<Arc<TaskError>>,
    /// Says that another file defines the same task.
    duplicate: Option<Arc<TaskError>>,
}

/// Tells versions of a file apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

impl Stamp {
    /// Looks at a file; `None` where there is none.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
        })
    }
}

impl Watched {
    fn has_changed(&self) -> bool {
        self.stamps.is_empty() || self.stamps.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    /// Reads the file at `path`.
    fn read(&mut self, path: &Path, base: &TaskLibrary) {
        let source = FolderSource::new(path, base.builtin_files());
        // Before it is read: a change that comes while it is being read is seen the next time.
        let stamp = Stamp::of(path);
        let read = base.read_file(path, &source);
        self.stamps = vec![(path.to_owned(), stamp)];
        self.stamps.extend(source.seen().into_iter().map(|path| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        }));
        match read {
            Ok(task) => (self.task, self.error) = (Some(task), None),
            Err(error) => self.error = Some(Arc::new(error)),
        }
    }

    fn name(&self) -> Option<String> {
        self.task.as_ref().map(|task| task.name().to_owned())
    }

    /// Reports what reading the file has given.
    fn report(&self, path: &Path, was_there: bool) -> Option<FileReport> {
        let change = match (&self.error, self.name()) {
            (Some(error), kept) => FileChange::Broken {
                kept,
                error: Arc::clone(error),
            },
            (None, Some(task)) if was_there => FileChange::Changed { task },
            (None, Some(task)) => FileChange::Added { task },
            (None, None) => return None,
        };
        Some(FileReport::new(path, change))
    }
}

impl WatchedLibrary {
    /// Adds the task files of some folders to a library, which has the built-in ones.
    ///
    /// # Errors
    ///
    /// When a folder or a file cannot be read, when a file is wrong, and when two files define the same task.
    pub fn open(
        base: TaskLibrary,
        folders: impl IntoIterator<Item = impl Into<PathBuf>>,
    ) -> Result<Self, TaskError> {
        let folders: Vec<PathBuf> = folders.into_iter().map(Into::into).collect();
        let mut loaded = base.clone();
        for folder in &folders {
            loaded.load_dir(folder)?;
        }
        let library = Self {
            current: RwLock::new(Arc::new(base.clone())),
            base,
            folders,
            state: Mutex::default(),
        };
        // What has become wrong since is reported by the next reload, as it is without a good version.
        library.reload();
        Ok(library)
    }

    /// Returns the tasks as they are now. It is cheap, and does not change any more.
    pub fn snapshot(&self) -> Arc<TaskLibrary> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Reads what has changed, and reports what happened, in the order of the paths.
    ///
    /// It looks at each file, and reads those that have changed; one call at a time does so.
    pub fn reload(&self) -> Vec<FileReport> {
        let mut state = self.lock();
        let mut reports = Vec::new();
        let present = self.present(&mut state, &mut reports);
        state.files.retain(|path, file| {
            let stays = present.contains(path);
            if let Some(task) = file.name().filter(|_| !stays && file.duplicate.is_none()) {
                reports.push(FileReport::new(path, FileChange::Removed { task }));
            }
            stays
        });
        for path in &present {
            let file = state.files.entry(path.clone()).or_default();
            if file.has_changed() {
                let was_there = file.task.is_some();
                file.read(path, &self.base);
                reports.extend(file.report(path, was_there));
            }
        }
        let library = self.assembled(&present, &mut state, &mut reports);
        reports.sort_by(|one, other| one.path.cmp(&other.path));
        if !reports.is_empty() {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(library);
        }
        for FileReport { path, change } in &reports {
            tracing::info!(file = %path.display(), ?change, "reloaded a task file");
        }
        reports
    }

    /// Lists the files and folders that are wrong now, with what is wrong with each.
    pub fn broken(&self) -> Vec<(PathBuf, Arc<TaskError>)> {
        let state = self.lock();
        let of_file = |(path, file): (&PathBuf, &Watched)| {
            let error = file.error.as_ref().or(file.duplicate.as_ref())?;
            Some((path.clone(), Arc::clone(error)))
        };
        let folders = state
            .unreadable
            .iter()
            .map(|(path, error)| (path.clone(), Arc::clone(error)));
        folders.chain(state.files.iter().filter_map(of_file)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the task files that there are. A folder that cannot be read has those that it had.
    fn present(&self, state: &mut State, reports: &mut Vec<FileReport>) -> IndexSet<PathBuf> {
        let mut present = IndexSet::new();
        for folder in &self.folders {
            match task_files(folder) {
                Ok(files) => {
                    state.unreadable.remove(folder);
                    present.extend(files);
                }
                Err(source) => {
                    let known = state.files.keys().filter(|path| path.parent() == Some(folder));
                    present.extend(known.cloned());
                    state.unreadable.entry(folder.clone()).or_insert_with(|| {
                        let path = folder.clone();
                        let error = Arc::new(TaskError::Folder { path, source });
                        let change = FileChange::Broken {
                            kept: None,
                            error: Arc::clone(&error),
                        };
                        reports.push(FileReport::new(folder, change));
                        error
                    });
                }
            }
        }
        present
    }

    /// Puts the last good versions together. Of files that define the same task the first one does.
    fn assembled(
        &self,
        present: &IndexSet<PathBuf>,
        state: &mut State,
        reports: &mut Vec<FileReport>,
    ) -> TaskLibrary {
        let mut library = self.base.clone();
        for path in present {
            let Some(file) = state.files.get_mut(path) else {
                continue;
            };
            let Some(task) = file.task.clone() else { continue };
            let had_to_wait = file.duplicate.is_some();
            match library.insert(task) {
                Ok(task) if had_to_wait => {
                    file.duplicate = None;
                    reports.retain(|report| report.path != *path);
                    reports.push(FileReport::new(path, FileChange::Added { task }));
                }
                Ok(_) => {}
                Err(error) => {
                    let error = Arc::new(error);
                    let has_changed = reports.iter().any(|report| report.path == *path);
                    file.duplicate = Some(Arc::clone(&error));
                    if has_changed || !had_to_wait {
                        reports.retain(|report| report.path != *path);
                        let change = FileChange::Broken { kept: None, error };
                        reports.push(FileReport::new(path, change));
                    }
                }
            }
        }
        library
    }
}

impl FileReport {
    fn new(path: &Path, change: FileChange) -> Self {
        Self {
            path: path.to_owned(),
            change,
        }
    }
}
