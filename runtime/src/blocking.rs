//! Blocking on futures outside of an asynchronous runtime.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to completion on this thread, and blocks it meanwhile.
///
/// The engine's futures need no runtime, so this works on any thread. In asynchronous code, await them
/// instead: called in a tokio task, this blocks the worker thread and the other tasks on it.
///
/// # Examples
///
/// ```
/// assert_eq!(multiway_runtime::block_on(async { 2 + 3 }), 5);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    // In a tokio task whose cooperative budget is exhausted, tokio's primitives stay pending until the
    // scheduler runs again, which this thread prevents.
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
