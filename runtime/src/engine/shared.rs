//! The state that all handles of an engine share.

use std::sync::Arc;

use multiway_model::ModelConfig;
use tokio::sync::Semaphore;

use super::command::Shutdown;
use super::limits::Limits;
use super::meters::Metrics;
use super::replica::Replica;
use crate::blocking::block_on;
use crate::constraint::Constraints;
use crate::error::RequestError;
use crate::generation::GenerationConfig;
use crate::tokenizer::Tokenizer;

/// The state behind an [`Engine`](super::Engine).
pub(super) struct Shared {
    pub(super) metrics: Arc<Metrics>,
    pub(super) tokenizer: Tokenizer,
    pub(super) config: ModelConfig,
    pub(super) generation: GenerationConfig,
    pub(super) constraints: Arc<Constraints>,
    /// The names of the head's classes, where the model has such a head and the checkpoint names them.
    pub(super) labels: Option<Arc<Vec<String>>>,
    /// The threads that share the weights; at least one.
    pub(super) replicas: Vec<Replica>,
    /// Places in the queue; a request holds one from submission until admission.
    pub(super) places: Arc<Semaphore>,
    pub(super) queue_capacity: usize,
    /// What each replica can hold.
    pub(super) limits: Limits,
    /// Whether the reuse cache is on.
    pub(super) reuses: bool,
    /// The most rows of one score request in a step, so that it leaves room for others.
    pub(super) score_rows: usize,
}

impl Shared {
    /// Chooses the least loaded replica that is alive; the first of equals.
    pub(super) fn replica(&self) -> Result<&Replica, RequestError> {
        let alive = self.replicas.iter().filter(|replica| replica.poison().is_none());
        let idlest = alive.min_by_key(|replica| replica.counters().unfinished());
        idlest.ok_or_else(|| {
            let mut causes = self.replicas.iter().filter_map(Replica::poison);
            let cause = causes.next().unwrap_or_default().to_owned();
            RequestError::Poisoned { cause }
        })
    }
}

impl Drop for Shared {
    /// Stops the threads before their next step, and waits for them and for constraints that are being
    /// compiled, so that nothing runs on after the last handle is gone.
    fn drop(&mut self) {
        self.replicas
            .iter()
            .for_each(|replica| replica.shutdown(Shutdown::Abort));
        self.places.close();
        self.replicas.iter_mut().for_each(Replica::join);
        block_on(self.constraints.idle());
    }
}
