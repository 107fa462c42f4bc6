//! Ctrl-C and SIGTERM: the work in hand is dropped, which cancels it, and the verb ends.

use std::future::Future;

use super::failure::{Failure, Outcome};

/// Ctrl-C, and SIGTERM where there is such a thing.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    pub(crate) fn watch() -> Outcome<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(Failure::runtime)?,
            terminate: signal(SignalKind::terminate()).map_err(Failure::runtime)?,
        })
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
    pub(crate) fn watch() -> Outcome<Self> {
        Ok(Self {})
    }

    #[cfg(unix)]
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Runs `work` to its end, or until Ctrl-C or SIGTERM, which a process that a container begins with would
/// else not hear.
///
/// Dropping the work cancels its requests and removes its temporary files.
pub(crate) async fn until_interrupted<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    // The watch is set up before the work starts.
    let mut signals = Signals::watch()?;
    tokio::select! {
        biased;
        () = signals.next() => Err(Failure::Interrupted),
        outcome = work => outcome,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn an_interrupt_drops_the_work_and_says_so() {
        struct Told<'a>(&'a std::cell::Cell<bool>);
        impl Drop for Told<'_> {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        for signal in ["-INT", "-TERM"] {
            let dropped = std::cell::Cell::new(false);
            let outcome: Outcome = until_interrupted(async {
                let _told = Told(&dropped);
                let own = std::process::id().to_string();
                let told = std::process::Command::new("kill").args([signal, &own]).status();
                assert!(told.is_ok_and(|status| status.success()));
                std::future::pending().await
            })
            .await;
            assert!(matches!(outcome, Err(Failure::Interrupted)), "{signal}");
            assert!(dropped.get());
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn work_that_is_not_interrupted_ends_as_it_ends() {
        assert!(matches!(until_interrupted(async { Ok(7) }).await, Ok(7)));
    }
}
