//! What the handles of an engine share.

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

/// What all handles of an engine share.
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
    /// Places for requests that wait; one is held from submission until admission.
    pub(super) places: Arc<Semaphore>,
    pub(super) queue_capacity: usize,
    /// What each replica can hold.
    pub(super) limits: Limits,
    /// Whether what is made of prompts is kept.
    pub(super) reuses: bool,
    /// How many rows of one score request may be in a step.
    pub(super) score_rows: usize,
}

impl Shared {
    /// Chooses the replica that has the least to do; the first of equals.
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
    /// Stops the threads before their next step and waits for them, so that no work goes on behind the caller's back; and for
    /// constraints that are being compiled.
    fn drop(&mut self) {
        self.replicas
            .iter()
            .for_each(|replica| replica.shutdown(Shutdown::Abort));
        self.places.close();
        self.replicas.iter_mut().for_each(Replica::join);
        block_on(self.constraints.idle());
    }
}
