//! Threads that compile constraints.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

/// The stack size of a compiling thread; pages are committed only as they are used.
///
/// It is large enough for rules that refer to each other in one long chain: the grammar library recurses on
/// them.
const STACK_BYTES: usize = 128 << 20;
/// How many constraints are compiled at a time for asynchronous callers.
const AT_ONCE: u32 = 2;

/// Compiles for asynchronous callers, a few constraints at a time.
#[derive(Debug)]
pub(super) struct Compiling {
    turns: Arc<Semaphore>,
}

impl Compiling {
    pub(super) fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE as usize)),
        }
    }

    /// Compiles on a thread of its own, once a permit is free.
    ///
    /// A future that is dropped before is never compiled.
    ///
    /// # Errors
    /// The error of `compile`; if no thread can be spawned; if `compile` panics.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        compile: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_closed| "the engine was shut down".to_owned())?;
        let (reply, answer) = oneshot::channel();
        let work = move || {
            let compiled = compile();
            drop(turn);
            drop(reply.send(compiled));
        };
        thread().spawn(work).map_err(|error| no_thread(&error))?;
        answer.await.unwrap_or_else(|_panicked| Err(failed()))
    }

    #[cfg(test)]
    pub(super) fn take_turns(&self) -> tokio::sync::OwnedSemaphorePermit {
        Arc::clone(&self.turns).try_acquire_many_owned(AT_ONCE).unwrap()
    }

    /// Waits until no compilation is running.
    pub(super) async fn idle(&self) {
        drop(self.turns.acquire_many(AT_ONCE).await);
    }
}

/// Compiles on a thread of its own, and blocks the caller's meanwhile.
///
/// # Errors
/// As [`Compiling::run`].
pub(super) fn with_stack<T: Send>(compile: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = thread()
            .spawn_scoped(scope, compile)
            .map_err(|error| no_thread(&error))?;
        thread.join().unwrap_or_else(|_panic| Err(failed()))
    })
}

fn thread() -> std::thread::Builder {
    std::thread::Builder::new()
        .name("multiway-grammar".to_owned())
        .stack_size(STACK_BYTES)
}

fn no_thread(error: &std::io::Error) -> String {
    format!("no thread to compile it on: {error}")
}

fn failed() -> String {
    "the grammar library failed on it".to_owned()
}
