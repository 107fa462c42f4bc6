//! What all verbs need: the checkpoint, the tasks, an engine, and an asynchronous runtime.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::path::Path;

#[cfg(feature = "hub")]
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use multiway::checkpoint::{Adapter, Device};
#[cfg(feature = "hub")]
use multiway::hub::{Hub, HubError, HubName};
#[cfg(feature = "serve")]
use multiway::task::WatchedLibrary;
use multiway::tokenizer::Tokenizer;
use multiway::{Checkpoint, Engine, TaskLibrary};

use super::device::DeviceChoice;
use super::engine::EngineArgs;
use super::failure::{Failure, Outcome};
use super::fingerprint::fingerprint;
use super::global::GlobalArgs;
use super::output::note;

/// Holds the options that every verb takes, and opens what they name.
#[derive(Debug)]
pub(crate) struct Context {
    args: GlobalArgs,
}

impl Context {
    /// Starts logging, if it was asked for.
    pub(crate) fn new(args: GlobalArgs) -> Outcome<Self> {
        if let Some(filter) = &args.log {
            let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|error| {
                Failure::Input(anyhow::anyhow!(
                    "--log: expected a filter such as `info` or `multiway_runtime=debug`, found '{filter}': {error}"
                ))
            })?;
            let terminal = io::stderr().is_terminal();
            tracing_subscriber::fmt()
                .with_ansi(terminal)
                .with_env_filter(filter)
                .with_writer(io::stderr)
                .init();
        }
        Ok(Self { args })
    }

    /// Tells whether only results and errors may be printed.
    pub(crate) fn quiet(&self) -> bool {
        self.args.quiet
    }

    /// Returns how many threads compute, where the caller says so.
    pub(crate) fn threads(&self) -> Option<usize> {
        self.args.threads.map(usize::from)
    }

    /// Returns the seed of sampling.
    pub(crate) fn seed(&self) -> Option<u64> {
        self.args.seed
    }

    /// Loads the built-in tasks that a checkpoint's model was made for, and those of the caller's folders.
    pub(crate) fn library(&self, checkpoint: &Checkpoint) -> Outcome<TaskLibrary> {
        let mut library = TaskLibrary::for_model(checkpoint.config()).map_err(Failure::runtime)?;
        for folder in &self.args.task_dirs {
            library.load_dir(folder).map_err(Failure::input)?;
        }
        Ok(library)
    }

    /// Loads the same tasks as [`Context::library`], those of the caller's folders so that files may change.
    #[cfg(feature = "serve")]
    pub(crate) fn watched_library(&self, checkpoint: &Checkpoint) -> Outcome<WatchedLibrary> {
        let library = TaskLibrary::for_model(checkpoint.config()).map_err(Failure::runtime)?;
        WatchedLibrary::open(library, &self.args.task_dirs).map_err(Failure::input)
    }

    /// Names the checkpoint: by the last part of its place, or as `embedded` says.
    #[cfg(feature = "serve")]
    pub(crate) fn name(&self, embedded: &str) -> String {
        let place = self.args.checkpoint.as_deref();
        let name = place
            .and_then(|place| place.file_name())
            .map(|name| name.to_string_lossy());
        let name = name.map(|name| name.split('@').next().unwrap_or_default().replace(':', "-"));
        name.filter(|name| !name.is_empty())
            .unwrap_or_else(|| embedded.to_owned())
    }

    /// Opens the checkpoint that the caller named, or the embedded one.
    pub(crate) fn checkpoint(&self) -> Outcome<Checkpoint> {
        match &self.args.checkpoint {
            Some(place) => self.open(place),
            None => self.adapted(embedded()?),
        }
    }

    /// Opens a checkpoint by its place, with the adapter that the caller named.
    pub(crate) fn open(&self, place: &Path) -> Outcome<Checkpoint> {
        self.adapted(self.open_plain(place)?)
    }

    /// Changes the weights of a checkpoint by the adapter that the caller named, if it is the checkpoint that
    /// the adapter was trained on.
    fn adapted(&self, checkpoint: Checkpoint) -> Outcome<Checkpoint> {
        let Some(folder) = &self.args.adapter else {
            return Ok(checkpoint);
        };
        let adapter = Adapter::open(folder).map_err(Failure::input)?;
        let found = fingerprint(&checkpoint)?;
        adapter.check_base(checkpoint.name(), &found).map_err(|error| {
            let error = anyhow::Error::new(error);
            Failure::Input(error.context(format!(
                "--adapter {}: name the checkpoint that it was trained on with --checkpoint",
                folder.display()
            )))
        })?;
        checkpoint.with_adapter(adapter).map_err(Failure::input)
    }

    /// Opens a folder or a file, or where there is neither, a checkpoint of the hub by its name.
    #[cfg(feature = "hub")]
    fn open_plain(&self, place: &Path) -> Outcome<Checkpoint> {
        let text = place.to_str().unwrap_or_default();
        let (name, is_local) = match text.strip_prefix(HUB_PREFIX) {
            Some(name) => (HubName::parse(name).map_err(Failure::input)?, false),
            None if is_local(place) => return Checkpoint::open(place).map_err(Failure::input),
            None => match HubName::parse(text) {
                Ok(name) => (name, true),
                Err(_) => return Checkpoint::open(place).map_err(Failure::input),
            },
        };
        let mut hub = Hub::from_env().map_err(Failure::runtime)?;
        if self.args.offline {
            hub = hub.only_cached();
        }
        let bar = progress_bar(self.quiet());
        let folder = hub.fetch(&name, &mut |download| {
            bar.set_length(download.total);
            bar.set_position(download.done);
            bar.set_message(download.file.to_owned());
        });
        bar.finish_and_clear();
        let folder = folder.map_err(|error| {
            let is_input = matches!(
                error,
                HubError::Name { .. }
                    | HubError::Offline { .. }
                    | HubError::Incomplete { .. }
                    | HubError::NotFound { .. }
                    | HubError::NoWeights { .. }
            );
            let mut error = anyhow::Error::new(error);
            if is_local {
                error = error.context(format!(
                    "there is no folder or file '{text}', and fetching it from the hub failed"
                ));
            }
            if is_input {
                Failure::Input(error)
            } else {
                Failure::Runtime(error)
            }
        })?;
        Checkpoint::open(folder).map_err(Failure::input)
    }

    /// Opens a folder or a file.
    #[cfg(not(feature = "hub"))]
    fn open_plain(&self, place: &Path) -> Outcome<Checkpoint> {
        Checkpoint::open(place).map_err(Failure::input)
    }

    /// Opens the device that computes. What only the CPU can do, packed checkpoints and narrow types, chooses
    /// the CPU, unless the caller names a GPU.
    pub(crate) fn device(&self, only_cpu: bool) -> Outcome<Device> {
        match self.args.device {
            DeviceChoice::Auto if only_cpu => Ok(Device::Cpu),
            choice => choice.open(self.args.quiet),
        }
    }

    /// Refuses a GPU for what computes on the CPU alone.
    pub(crate) fn require_cpu(&self, what: &str) -> Outcome {
        match self.args.device {
            DeviceChoice::Auto | DeviceChoice::Cpu => Ok(()),
            DeviceChoice::Cuda(ordinal) => Err(Failure::Input(anyhow::anyhow!(
                "--device cuda:{ordinal}: {what} computes on the CPU alone"
            ))),
        }
    }

    /// Loads a checkpoint into an engine.
    pub(crate) fn engine(&self, checkpoint: &Checkpoint, options: &EngineArgs) -> Outcome<Engine> {
        self.engine_with(checkpoint, tokenizer(checkpoint)?, options)
    }

    /// Loads a checkpoint, whose tokenizer was read already, into an engine.
    pub(crate) fn engine_with(
        &self,
        checkpoint: &Checkpoint,
        tokenizer: Tokenizer,
        options: &EngineArgs,
    ) -> Outcome<Engine> {
        let only_cpu = options.need_cpu() || checkpoint.packed().is_some();
        let builder = Engine::builder(checkpoint)
            .tokenizer(tokenizer)
            .device(self.device(only_cpu)?);
        let engine = options.build(builder, self.args.threads)?;
        if !self.args.quiet {
            engine
                .warnings()
                .iter()
                .for_each(|warning| note(&format!("warning: {warning}")));
        }
        Ok(engine)
    }

    /// Waits for `work` on this thread.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                Failure::runtime(anyhow::Error::new(error).context("cannot start the event loop"))
            })?;
        let outcome = runtime.block_on(work);
        // Does not wait for a file that is still being read after an interrupt.
        runtime.shutdown_background();
        outcome
    }
}

/// Says that a name is one of the hub, even where a folder has it too.
#[cfg(feature = "hub")]
const HUB_PREFIX: &str = "hf:";

/// Says whether a place is meant to be on this machine: it is there, it is called like a file, or its folder
/// is there.
#[cfg(feature = "hub")]
fn is_local(place: &Path) -> bool {
    let is_file = place.extension().is_some_and(|ending| {
        ["pth", "pt", "bin", "safetensors"]
            .iter()
            .any(|known| ending == *known)
    });
    let folder = place
        .components()
        .next()
        .map(|first| Path::new(first.as_os_str()).is_dir());
    place.exists() || is_file || folder == Some(true)
}

#[cfg(feature = "hub")]
fn progress_bar(quiet: bool) -> ProgressBar {
    let target = if quiet {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::with_draw_target(None, target);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Reads a checkpoint's tokenizer.
pub(crate) fn tokenizer(checkpoint: &Checkpoint) -> Outcome<Tokenizer> {
    Tokenizer::from_checkpoint(checkpoint).map_err(Failure::input)
}

#[cfg(feature = "embedded-checkpoint")]
fn embedded() -> Outcome<Checkpoint> {
    multiway::embedded_checkpoint().map_err(|error| match error {
        multiway::checkpoint::LoadError::MissingFile { .. } => no_checkpoint(),
        other => Failure::runtime(other),
    })
}

#[cfg(not(feature = "embedded-checkpoint"))]
fn embedded() -> Outcome<Checkpoint> {
    Err(no_checkpoint())
}

/// Says what to do where the binary carries no weights: it was built without them, or from a package of the
/// registry.
fn no_checkpoint() -> Failure {
    Failure::Input(anyhow::anyhow!(
        "this binary carries no checkpoint: name one with --checkpoint, a folder or OWNER/NAME on the hub"
    ))
}
