//! Answers in pieces.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::{AbortHandle, Abortable};
use multiway::TaskEvent;
use multiway::task::{TaskOutcome, TaskRun};
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use pyo3_async_runtimes::tokio::future_into_py;
use tokio::sync::Mutex as AsyncMutex;

use crate::answer::PyAnswer;
use crate::failure::Failure;
use crate::registry::Process;
use crate::wait::{Work, blocking};

/// The run of a task, from its start to its last piece.
enum State {
    /// Pictures are being decoded.
    Starting(tokio::task::JoinHandle<Result<TaskRun, Failure>>),
    Running(Abortable<TaskRun>),
    Ended,
}

/// The pieces of an answer, as they are written.
#[pyclass(name = "Stream", module = "multiway", frozen)]
pub(crate) struct PyStream {
    task: String,
    process: Process,
    shared: Arc<Shared>,
}

struct Shared {
    state: AsyncMutex<State>,
    /// Ends the run while a piece is awaited.
    abort: AbortHandle,
    registration: Mutex<Option<futures_util::stream::AbortRegistration>>,
    outcome: Mutex<Option<TaskOutcome>>,
}

impl Shared {
    /// Waits for the next piece; `None` at the end.
    async fn next(&self) -> Result<Option<String>, Failure> {
        let mut state = self.state.lock().await;
        if let State::Starting(starting) = &mut *state {
            let started = starting.await;
            let started = started.unwrap_or_else(|error| Err(Failure::Engine(error.to_string())));
            let registration = lock(&self.registration).take();
            *state = match (started, registration) {
                (Ok(run), Some(registration)) => State::Running(Abortable::new(run, registration)),
                (Ok(_), None) => State::Ended,
                (Err(failure), _) => {
                    *state = State::Ended;
                    return Err(failure);
                }
            };
        }
        let State::Running(run) = &mut *state else {
            return Ok(None);
        };
        loop {
            match run.next().await {
                Some(Ok(TaskEvent::Text(piece))) => return Ok(Some(piece)),
                Some(Ok(TaskEvent::Finished(outcome))) => {
                    *lock(&self.outcome) = Some(outcome);
                    break;
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    *state = State::Ended;
                    return Err(error.into());
                }
                None => break,
            }
        }
        *state = State::Ended;
        Ok(None)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PyStream {
    /// Starts a run on a thread of its own, where pictures are decoded.
    pub(crate) fn start(
        task: String,
        process: Process,
        start: impl FnOnce() -> Result<TaskRun, Failure> + Send + 'static,
    ) -> Self {
        let starting = pyo3_async_runtimes::tokio::get_runtime().spawn(blocking(start));
        let (abort, registration) = AbortHandle::new_pair();
        let shared = Shared {
            state: AsyncMutex::new(State::Starting(starting)),
            abort,
            registration: Mutex::new(Some(registration)),
            outcome: Mutex::new(None),
        };
        Self {
            task,
            process,
            shared: Arc::new(shared),
        }
    }
}

#[pymethods]
impl PyStream {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.process.check()?;
        let shared = Arc::clone(&self.shared);
        Work::start(async move { shared.next().await }).wait(py)
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.process.check()?;
        let shared = Arc::clone(&self.shared);
        future_into_py(py, async move {
            let piece = shared.next().await?;
            piece.ok_or_else(|| PyStopAsyncIteration::new_err(()))
        })
    }

    #[getter]
    fn answer(&self) -> Option<PyAnswer> {
        let outcome = lock(&self.shared.outcome).clone();
        outcome.map(|outcome| PyAnswer::new(self.task.clone(), outcome))
    }

    fn close(&self) {
        if self.process.check().is_err() {
            return;
        }
        self.shared.abort.abort();
        let shared = Arc::clone(&self.shared);
        // Whoever awaits a piece gives the state back first.
        drop(pyo3_async_runtimes::tokio::get_runtime().spawn(async move {
            *shared.state.lock().await = State::Ended;
        }));
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (_kind=None, _error=None, _trace=None))]
    fn __exit__(
        &self,
        _kind: Option<Bound<'_, PyAny>>,
        _error: Option<Bound<'_, PyAny>>,
        _trace: Option<Bound<'_, PyAny>>,
    ) {
        self.close();
    }
}
