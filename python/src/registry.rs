//! The engines of a process: one for each checkpoint.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use multiway::checkpoint::{CacheType, WeightType};
use multiway::{Checkpoint, Engine};

use crate::failure::Failure;

/// A process, as a fork copies it: with the memory of an engine, and without its threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(u32);

impl Process {
    fn current() -> Self {
        Self(std::process::id())
    }

    fn is_current(self) -> bool {
        self.0 == std::process::id()
    }

    /// Checks that this is the process that loaded an engine, rather than a fork of it.
    pub(crate) fn check(self) -> Result<(), Failure> {
        if self.is_current() {
            return Ok(());
        }
        Err(Failure::Engine(format!(
            "this process ({}) was forked from one ({}) that had opened an engine, whose threads a fork does not \
             have: start workers with multiprocessing's 'spawn' or 'forkserver', or open engines in workers alone",
            std::process::id(),
            self.0
        )))
    }
}

/// How an engine is built; what is `None` is left to the engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BuildOptions {
    pub(crate) dtype: Option<WeightType>,
    pub(crate) cache_dtype: Option<CacheType>,
    pub(crate) threads: Option<usize>,
    pub(crate) memory_budget: Option<usize>,
    pub(crate) reuse_budget: Option<usize>,
}

impl BuildOptions {
    /// Names an option that says something else than `opened`, which may say more.
    fn conflict(&self, opened: &Self) -> Option<&'static str> {
        fn differs<T: PartialEq>(asked: Option<T>, opened: Option<T>) -> bool {
            asked.is_some() && asked != opened
        }
        [
            ("dtype", differs(self.dtype, opened.dtype)),
            ("cache_dtype", differs(self.cache_dtype, opened.cache_dtype)),
            ("threads", differs(self.threads, opened.threads)),
            ("memory_budget", differs(self.memory_budget, opened.memory_budget)),
            ("reuse_budget", differs(self.reuse_budget, opened.reuse_budget)),
        ]
        .into_iter()
        .find_map(|(name, differs)| differs.then_some(name))
    }
}

/// An engine of this process.
pub(crate) struct Loaded {
    /// There until this is dropped.
    engine: Option<Engine>,
    /// Its name: that of the folder.
    pub(crate) name: String,
    options: BuildOptions,
    pub(crate) process: Process,
}

impl Loaded {
    /// Returns the engine, unless this is a fork of the process that loaded it.
    pub(crate) fn engine(&self) -> Result<&Engine, Failure> {
        self.process.check()?;
        let gone = || Failure::Engine("the engine was closed".to_owned());
        self.engine.as_ref().ok_or_else(gone)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // In a fork there is no thread to stop, and waiting for one would never end.
        if !self.process.is_current() {
            std::mem::forget(self.engine.take());
        }
    }
}

/// The engines by the folder of their checkpoint; `None` is the one that the module carries.
type Engines = HashMap<Option<PathBuf>, Weak<Loaded>>;

static ENGINES: LazyLock<Mutex<Engines>> = LazyLock::new(Mutex::default);
/// The process that opened the first one.
static OPENED: OnceLock<Process> = OnceLock::new();

/// Opens a checkpoint, or returns the engine that the process has for it.
pub(crate) fn open(path: Option<&Path>, options: BuildOptions) -> Result<Arc<Loaded>, Failure> {
    let folder = path.map(|path| path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    // Before the lock, which a fork may have copied while another thread had it.
    OPENED.get_or_init(Process::current).check()?;
    // Held while weights are loaded, so that two threads do not load them twice.
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = engines.get(&folder).and_then(Weak::upgrade) {
        if let Some(option) = options.conflict(&loaded.options) {
            return Err(Failure::Input(format!(
                "{option}: this process has opened '{}' with another {option}; a process has one engine for a \
                 checkpoint: open it with the same options, or leave them out",
                loaded.name
            )));
        }
        return Ok(loaded);
    }
    let loaded = Arc::new(load(folder.as_deref(), options)?);
    engines.insert(folder, Arc::downgrade(&loaded));
    Ok(loaded)
}

fn load(folder: Option<&Path>, options: BuildOptions) -> Result<Loaded, Failure> {
    let checkpoint = match folder {
        Some(folder) => Checkpoint::open(folder)?,
        None => multiway::embedded_checkpoint()?,
    };
    let name = folder
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned());
    let mut builder = Engine::builder(&checkpoint);
    if let Some(threads) = options.threads {
        builder = builder.threads(threads);
    }
    if let Some(bytes) = options.memory_budget {
        builder = builder.memory_budget(bytes);
    }
    if let Some(bytes) = options.reuse_budget {
        builder = builder.reuse_budget(bytes);
    }
    if let Some(weights) = options.dtype {
        builder = builder.weights(weights);
    }
    if let Some(cache) = options.cache_dtype {
        builder = builder.cache(cache);
    }
    Ok(Loaded {
        engine: Some(builder.build()?),
        name: name.unwrap_or_else(|| "default".to_owned()),
        options,
        process: Process::current(),
    })
}
