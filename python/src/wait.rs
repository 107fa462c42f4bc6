//! Work beside the interpreter: it runs without the interpreter's lock, and Ctrl-C ends it.

use std::future::Future;
use std::num::NonZero;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::available_parallelism;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3_async_runtimes::tokio::get_runtime;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::failure::Failure;

/// How often a thread that waits looks for signals.
const SLICE: Duration = Duration::from_millis(50);

/// Work that is under way; dropping it ends it.
pub(crate) struct Work<T> {
    result: Receiver<Result<T, Failure>>,
    task: AbortHandle,
}

impl<T: Send + 'static> Work<T> {
    /// Starts work.
    pub(crate) fn start(work: impl Future<Output = Result<T, Failure>> + Send + 'static) -> Self {
        let (sender, result) = sync_channel(1);
        let task = get_runtime().spawn(async move {
            // Nobody may wait for it any more.
            drop(sender.send(work.await));
        });
        Self {
            result,
            task: task.abort_handle(),
        }
    }

    /// Waits for the result without the interpreter's lock. A signal whose handler raises, as that of Ctrl-C
    /// does, ends the work.
    pub(crate) fn wait(mut self, py: Python<'_>) -> PyResult<T> {
        loop {
            let (received, work) = py.detach(move || (self.result.recv_timeout(SLICE), self));
            self = work;
            match received {
                Ok(result) => return Ok(result?),
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(RecvTimeoutError::Disconnected) => {
                    let message =
                        "a thread of the engine ended: please report this, with its message on stderr";
                    return Err(Failure::Engine(message.to_owned()).into());
                }
            }
        }
    }
}

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs work that keeps a thread busy, such as decoding pictures: as much at a time as there are cores, since
/// a small file may hold many pixels.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    static BUSY: LazyLock<Semaphore> =
        LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, NonZero::get)));
    let _place = BUSY.acquire().await;
    let done = get_runtime().spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure::Engine(error.to_string())))
}
