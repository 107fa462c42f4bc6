//! The server itself: models, a listener, and an end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use multiway::Engine;
use multiway::engine::Shutdown;
use multiway::index::VectorIndex;
use multiway::prompt::PromptError;
use multiway::task::WatchedLibrary;
use tokio::net::TcpListener;
use tokio_io_timeout::TimeoutStream;

use crate::routes::router;
use crate::search::ServedIndex;
use crate::shared::{Metrics, ServedModel, ServerOptions, Shared};

/// How often task files are looked at, and measurements summed up.
const WATCH: Duration = Duration::from_secs(1);
/// The largest head of a request.
const MOST_HEAD_BYTES: usize = 64 << 10;

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
    /// Two indexes have one name.
    #[error("two indexes are named '{name}': expected a name for each")]
    SameIndex {
        /// The name.
        name: String,
    },
    /// An index belongs to a model that is not served.
    #[error("the index '{index}' needs the model '{model}', which is not served")]
    NoModelOfIndex {
        /// The name of the index.
        index: String,
        /// The name of the model.
        model: String,
    },
    /// There is no model to serve.
    #[error("there is no model to serve: expected at least one")]
    NoModel,
    /// An own task file is wrong: a defect.
    #[error("the task of plain prompts cannot be read")]
    Plain(#[from] PromptError),
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

    /// Adds an index of pictures, which `model` made and makes the vectors of queries for. Clients that have
    /// a key can read the files of the pictures, as far as the index says where they are.
    ///
    /// # Errors
    ///
    /// Fails where another index has the name, or no model has that of `model`.
    pub fn with_index(
        mut self,
        name: impl Into<String>,
        model: impl Into<String>,
        index: VectorIndex,
    ) -> Result<Self, ServerError> {
        let (name, model) = (name.into(), model.into());
        if !self.shared.models.contains_key(&model) {
            return Err(ServerError::NoModelOfIndex { index: name, model });
        }
        if self.shared.indexes.contains_key(&name) {
            return Err(ServerError::SameIndex { name });
        }
        let index = Arc::new(index);
        self.shared.indexes.insert(name, ServedIndex { model, index });
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
    /// Fails where there is no model.
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
        let connections = accept(listener, &shared, stop).await;
        shared.drain();
        // What still runs after this time is cut off.
        let _ = tokio::time::timeout(shared.options.drain, connections.shutdown()).await;
        watch.abort();
        for model in shared.models.values() {
            model.engine.shutdown(Shutdown::Abort);
        }
        Ok(())
    }
}

/// Listens on an address, and returns the one that it is; port 0 takes a free one. Tokens are sent as they
/// are written, rather than gathered by Nagle's algorithm.
///
/// # Errors
///
/// Fails where the address cannot be listened on.
pub async fn listen(address: SocketAddr) -> io::Result<(impl Listener<Addr = SocketAddr>, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "tokens may be late");
        }
    });
    Ok((listener, address))
}

/// Takes connections until `stop`, and returns those that are open then.
async fn accept<L>(
    mut listener: L,
    shared: &Arc<Shared>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> GracefulShutdown
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(shared.options.head_timeout)
        .max_buf_size(MOST_HEAD_BYTES);
    let router = router(Arc::clone(shared));
    let connections = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return connections,
        };
        let service = TowerToHyperService::new(router.clone());
        let mut stream = TimeoutStream::new(stream);
        // Else a client that reads nothing would keep its place.
        stream.set_write_timeout(Some(shared.options.write_timeout));
        let stream = TokioIo::new(Box::pin(stream));
        let connection = connections.watch(http.serve_connection(stream, service));
        tokio::spawn(async move {
            // A client that leaves or sends no HTTP is no failure of the server.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
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
