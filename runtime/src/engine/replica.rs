//! A handle to one of the threads that share an engine's weights.

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use super::command::{Command, Shutdown, Submission};
use super::stats::Counters;
use crate::error::RequestError;

/// Why a thread has panicked outside of a step, if it has.
pub(super) type Poison = Arc<OnceLock<String>>;

/// A handle to an engine's thread.
#[derive(Debug)]
pub(super) struct Replica {
    commands: UnboundedSender<Command>,
    counters: Arc<Counters>,
    poison: Poison,
    thread: Option<JoinHandle<()>>,
}

impl Replica {
    pub(super) fn new(
        commands: UnboundedSender<Command>,
        counters: Arc<Counters>,
        poison: Poison,
        thread: JoinHandle<()>,
    ) -> Self {
        Self {
            commands,
            counters,
            poison,
            thread: Some(thread),
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns why the thread panicked outside of a step, if it did.
    pub(super) fn poison(&self) -> Option<&str> {
        self.poison.get().map(String::as_str)
    }

    pub(super) fn submit(&self, submission: Submission) -> Result<(), RequestError> {
        self.counters.submitted();
        let command = Command::Submit(Box::new(submission));
        self.commands.send(command).map_err(|_stopped| {
            self.counters.refused();
            match self.poison() {
                Some(cause) => RequestError::Poisoned {
                    cause: cause.to_owned(),
                },
                None => RequestError::ShutDown,
            }
        })
    }

    /// Tells the thread to stop; no-op if it has stopped already.
    pub(super) fn shutdown(&self, how: Shutdown) {
        drop(self.commands.send(Command::Shutdown(how)));
    }

    pub(super) fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("an engine's thread panicked while it ended");
        }
    }
}
