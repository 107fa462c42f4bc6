//! The server itself: models, a listener, and an end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use multiway::Engine;
use multiway::engine::Shutdown;
use multiway::prompt::PromptError;
use multiway::task::WatchedLibrary;

use crate::routes::router;
use crate::shared::{Metrics, ServedModel, ServerOptions, Shared};

/// How often task files are looked at, and measurements summed up.
const WATCH: Duration = Duration::from_secs(1);

/// What can go wrong in serving.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Two models have one name.
    #[error("two models are named '{name}': expected a name for each")]
    SameName {
        /// The name.
        name: String,
    },
    /// There is no model to serve.
    #[error("there is no model to serve: expected at least one")]
    NoModel,
    /// An own task file is wrong: a defect.
    #[error("the task of plain prompts cannot be read")]
    Plain(#[from] PromptError),
    /// Accepting connections failed.
    #[error("cannot accept connections")]
    Accept(#[from] std::io::Error),
}

/// A server that is being put together.
pub struct Server {
    shared: Shared,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("models", &self.shared.models.keys())
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Begins a server.
    #[must_use]
    pub fn new(options: ServerOptions) -> Self {
        Self {
            shared: Shared::new(options),
        }
    }

    /// Adds a model; requests that name none go to the first.
    ///
    /// # Errors
    ///
    /// Fails where another model has the name.
    pub fn with_model(
        mut self,
        name: impl Into<String>,
        engine: Engine,
        library: WatchedLibrary,
    ) -> Result<Self, ServerError> {
        let name = name.into();
        if self.shared.models.contains_key(&name) {
            return Err(ServerError::SameName { name });
        }
        let model = ServedModel::new(name.clone(), engine, library)?;
        self.shared.models.insert(name, model);
        Ok(self)
    }

    /// Serves what engines measure as `/metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Option<Metrics>) -> Self {
        self.shared.metrics = metrics;
        self
    }

    /// Makes the service alone, for a program that has a server already. Task files that change are not taken
    /// up, and [`Metrics`] are best left to that server: nothing sums them up.
    ///
    /// # Errors
    ///
    /// Fails where there is no model.
    pub fn into_router(self) -> Result<Router, ServerError> {
        if self.shared.models.is_empty() {
            return Err(ServerError::NoModel);
        }
        Ok(router(Arc::new(self.shared)))
    }

    /// Serves until `stop`: then no new requests are taken, and those that run may finish for as long as
    /// [`ServerOptions::drain`] says.
    ///
    /// # Errors
    ///
    /// Fails where there is no model, or connections cannot be accepted.
    pub async fn serve<L>(
        self,
        listener: L,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServerError>
    where
        L: Listener,
        L::Addr: std::fmt::Debug,
    {
        if self.shared.models.is_empty() {
            return Err(ServerError::NoModel);
        }
        let shared = Arc::new(self.shared);
        let watch = tokio::spawn(watch(Arc::clone(&shared)));
        let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
        let drained = Arc::clone(&shared);
        let stop = async move {
            stop.await;
            drained.drain();
            let _ = stopping.send(());
        };
        let serving = axum::serve(listener, router(Arc::clone(&shared))).with_graceful_shutdown(stop);
        let limit = async {
            let _ = stopped.await;
            tokio::time::sleep(shared.options.drain).await;
        };
        let served = tokio::select! {
            served = serving.into_future() => served,
            () = limit => Ok(()),
        };
        watch.abort();
        for model in shared.models.values() {
            model.engine.shutdown(Shutdown::Abort);
        }
        Ok(served?)
    }
}

/// Reads task files again that changed, and sums up what was measured.
async fn watch(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(WATCH).await;
        let shared = Arc::clone(&shared);
        let work = move || {
            shared.reload();
            shared.metrics.iter().for_each(Metrics::sum_up);
        };
        let _ = tokio::task::spawn_blocking(work).await;
    }
}
