//! Ctrl-C: the work in hand is dropped, which cancels it, and the verb ends.

use std::future::Future;

use super::failure::{Failure, Outcome};

/// Runs `work` to its end, or until Ctrl-C.
///
/// Dropping the work cancels its requests and removes its temporary files.
pub(crate) async fn until_interrupted<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::select! {
        // The watch is set up before the work starts.
        biased;
        signal = tokio::signal::ctrl_c() => match signal {
            Ok(()) => Err(Failure::Interrupted),
            Err(error) => Err(Failure::runtime(anyhow::Error::new(error).context("cannot watch for Ctrl-C"))),
        },
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
        let dropped = std::cell::Cell::new(false);
        let outcome: Outcome = until_interrupted(async {
            let _told = Told(&dropped);
            let own = std::process::id().to_string();
            assert!(
                std::process::Command::new("kill")
                    .args(["-INT", &own])
                    .status()
                    .unwrap()
                    .success()
            );
            std::future::pending().await
        })
        .await;
        assert!(matches!(outcome, Err(Failure::Interrupted)));
        assert!(dropped.get());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn work_that_is_not_interrupted_ends_as_it_ends() {
        assert!(matches!(until_interrupted(async { Ok(7) }).await, Ok(7)));
    }
}
