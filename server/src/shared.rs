//! What all requests share: the models, the options, and the places.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use indexmap::IndexMap;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use multiway::prompt::PromptError;
use multiway::task::{RequestTerms, TaskLibrary, WatchedLibrary};
use multiway::{Engine, Task};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;
use crate::fetch::{FetchOptions, Fetcher};
use crate::search::ServedIndex;

/// The settings of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Keys of which a request has to bring one; none are needed where there are none.
    pub keys: Vec<String>,
    /// Requests that are answered or wait at a time; more are refused.
    pub max_requests: usize,
    /// Bytes of the body of a request.
    pub max_body_bytes: usize,
    /// Origins whose pages may ask, `*` for all; none may where there are none.
    pub cors_origins: Vec<String>,
    /// How long a request may take, where it does not say less.
    pub timeout: Option<Duration>,
    /// How long a client may take for the head of a request, also of the next one on an open connection.
    pub head_timeout: Duration,
    /// How long a client may leave unread what it is sent; then its connection is closed, and its place free.
    pub write_timeout: Duration,
    /// How long running requests may take after the server was told to stop.
    pub drain: Duration,
    /// The path that a proxy puts before all routes, such as `/multiway`.
    pub root_path: String,
    /// Pictures by URL: from which hosts they are fetched.
    pub fetch: FetchOptions,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            max_requests: 512,
            max_body_bytes: 20_000_000,
            cors_origins: Vec::new(),
            timeout: None,
            head_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            root_path: String::new(),
            fetch: FetchOptions::default(),
        }
    }
}

/// Counters of the engines, as Prometheus reads them.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Collects what engines measure from here on, in all of the program; none where something else does so
    /// already. Engines that were built before are not counted.
    #[must_use]
    pub fn install() -> Option<Self> {
        let handle = PrometheusBuilder::new().install_recorder().ok()?;
        Some(Self { handle })
    }

    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }

    /// Sums up what was measured since the last call, which else takes more and more memory.
    pub(crate) fn sum_up(&self) {
        self.handle.run_upkeep();
    }
}

/// A checkpoint that is served.
pub(crate) struct ServedModel {
    pub(crate) name: String,
    pub(crate) engine: Engine,
    pub(crate) library: WatchedLibrary,
    /// What a prompt without a task is.
    pub(crate) plain: Arc<Task>,
    /// What a question with closed answers is without a task.
    pub(crate) decide: Arc<Task>,
}

impl ServedModel {
    pub(crate) fn new(name: String, engine: Engine, library: WatchedLibrary) -> Result<Self, PromptError> {
        let plain = Task::plain_prompt()?;
        let decide = Task::decision(engine.config())?;
        Ok(Self {
            name,
            engine,
            library,
            plain: Arc::new(plain),
            decide: Arc::new(decide),
        })
    }

    /// Finds a task by its name.
    pub(crate) fn task(&self, name: &str) -> Result<Arc<Task>, ApiError> {
        let library: Arc<TaskLibrary> = self.library.snapshot();
        let found = library.get(name).map(|task| Arc::new(task.clone()));
        found.map_err(|error| ApiError::not_found(error.to_string()))
    }
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) models: IndexMap<String, ServedModel>,
    pub(crate) indexes: IndexMap<String, ServedIndex>,
    pub(crate) options: ServerOptions,
    pub(crate) metrics: Option<Metrics>,
    pub(crate) fetcher: Arc<Fetcher>,
    places: Arc<Semaphore>,
    is_draining: AtomicBool,
    /// When the server started, in seconds since 1970.
    pub(crate) started: u64,
    requests: AtomicU64,
}

impl Shared {
    pub(crate) fn new(options: ServerOptions) -> Self {
        Self {
            models: IndexMap::new(),
            indexes: IndexMap::new(),
            places: Arc::new(Semaphore::new(options.max_requests)),
            fetcher: Arc::new(Fetcher::new(&options.fetch)),
            options,
            metrics: None,
            is_draining: AtomicBool::new(false),
            started: now(),
            requests: AtomicU64::new(0),
        }
    }

    /// Finds the model that a request names as `model` or `model:task`, and its task; the first model where
    /// it names none.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<(&ServedModel, Option<Arc<Task>>), ApiError> {
        let name = name.unwrap_or_default();
        let first = self.models.first().map(|(_, model)| model);
        if let Some(model) = self.models.get(name).or(first.filter(|_| name.is_empty())) {
            return Ok((model, None));
        }
        if let Some((model, task)) = name.rsplit_once(':')
            && let Some(model) = self.models.get(model)
        {
            return Ok((model, Some(model.task(task)?)));
        }
        let known: Vec<&str> = self.models.keys().map(String::as_str).collect();
        Err(ApiError::no_model(format!(
            "there is no model '{name}': expected {}, or one of them with a task, as in '{}:caption'",
            known.join(", "),
            known.first().copied().unwrap_or_default()
        )))
    }

    /// Takes a place for a request, until what is returned is dropped.
    fn place(&self) -> Result<Place, ApiError> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        permit
            .map(Place)
            .map_err(|_| ApiError::overloaded(self.options.max_requests))
    }

    /// Counts the requests that are answered or wait.
    pub(crate) fn taken(&self) -> usize {
        self.options.max_requests - self.places.available_permits()
    }

    /// Returns on which terms a request runs.
    pub(crate) fn terms(&self, priority: Option<i32>, timeout: Option<Duration>) -> RequestTerms {
        let longest = self.options.timeout;
        RequestTerms {
            priority: priority.unwrap_or_default(),
            timeout: match (timeout, longest) {
                (Some(asked), Some(longest)) => Some(asked.min(longest)),
                (asked, longest) => asked.or(longest),
            },
        }
    }

    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Makes a name that no other request of this server has.
    pub(crate) fn id(&self, prefix: &str) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}-{:x}{number:08x}", self.started)
    }

    /// Reads task files that changed, and tells what became of them.
    pub(crate) fn reload(&self) {
        for model in self.models.values() {
            for report in model.library.reload() {
                let path: PathBuf = report.path.clone();
                tracing::info!(model = %model.name, path = %path.display(), change = ?report.change, "task file");
            }
        }
    }
}

/// A place among the requests that are answered or wait. Handlers take it before they read the body, so that
/// the bodies in memory are bounded, too.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl FromRequestParts<Arc<Shared>> for Place {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, shared: &Arc<Shared>) -> Result<Self, ApiError> {
        shared.place()
    }
}

/// Returns the seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).unwrap_or_default()
}
