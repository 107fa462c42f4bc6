//! Waiting for futures where no asynchronous runtime is.

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

/// Waits for a future on this thread, which does nothing else meanwhile.
///
/// The engine's futures need no runtime, so this serves them anywhere; in asynchronous code, await them. Called inside of a
/// tokio task it holds that task's thread, and other tasks of the thread wait.
///
/// # Examples
///
/// ```
/// assert_eq!(multiway_runtime::block_on(async { 2 + 3 }), 5);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    // Inside of a tokio task, the task's budget would run out and end in a wait for a scheduler that is not running.
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
