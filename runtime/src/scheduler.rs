//! Admission and accounting: a plain data structure, without tensors, threads or clocks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often a queued request may be overtaken by later ones of a higher priority before it goes ahead of
/// them: the bound on starvation.
const MAX_OVERTAKEN: u32 = 32;

/// The id of a request in its replica; later requests have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestId(u64);

impl RequestId {
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// The status of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SequenceStatus {
    /// In the queue.
    Waiting,
    /// Admitted: its prompt is being encoded.
    Encoding,
    /// Its rows are in every step.
    Decoding,
    /// Answered, failed, cancelled, or never seen.
    Finished,
}

/// What requests hold while they run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Cache slots: one per row that is decoded in a step.
    pub(crate) slots: usize,
    /// Encoder rows with keys and values for cross-attention.
    pub(crate) memory_tokens: usize,
    /// Tokens with keys and values for self-attention: rows times the most tokens of each.
    pub(crate) self_tokens: usize,
    /// Bytes of the answers' constraint state.
    pub(crate) constraint_bytes: usize,
}

impl Resources {
    /// Returns whether another fits into this.
    pub(crate) fn hold(&self, other: &Self) -> bool {
        other.slots <= self.slots
            && other.memory_tokens <= self.memory_tokens
            && other.self_tokens <= self.self_tokens
            && other.constraint_bytes <= self.constraint_bytes
    }

    fn subtract(&mut self, other: &Self) {
        self.slots -= other.slots;
        self.memory_tokens -= other.memory_tokens;
        self.self_tokens -= other.self_tokens;
        self.constraint_bytes -= other.constraint_bytes;
    }

    fn add(&mut self, other: &Self) {
        self.slots += other.slots;
        self.memory_tokens += other.memory_tokens;
        self.self_tokens += other.self_tokens;
        self.constraint_bytes += other.constraint_bytes;
    }
}

/// What a request needs to be admitted, and its terms in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// What it holds to its end.
    pub(crate) resources: Resources,
    /// Rows of the encoder's batch.
    pub(crate) encoder_rows: usize,
    /// Higher ones are admitted first.
    pub(crate) priority: i32,
    /// Its deadline, on the clock of [`Scheduler::expired`].
    pub(crate) deadline: Option<Duration>,
}

/// A request that is admitted, and its slots.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) id: RequestId,
    pub(crate) slots: Vec<usize>,
}

/// The order of the queue: first requests that were overtaken too often, by age; then the others by priority
/// and age.
type QueueOrder = (bool, Reverse<i32>, RequestId);

#[derive(Debug)]
struct Waiting {
    demand: Demand,
    overtaken: u32,
}

impl Waiting {
    fn order(&self, id: RequestId) -> QueueOrder {
        if self.overtaken < MAX_OVERTAKEN {
            (true, Reverse(self.demand.priority), id)
        } else {
            (false, Reverse(0), id)
        }
    }
}

#[derive(Debug)]
struct Running {
    demand: Demand,
    slots: Vec<usize>,
    encoded: bool,
}

/// Admits requests by priority, first in first out among equals, while all that they can need is free, and
/// accounts for it.
///
/// If the head of the queue does not fit, the others wait behind it; a request of a low priority is overtaken
/// by later ones a bounded number of times. A request reserves all that it can need at once and holds it to
/// its end, so nothing is ever preempted.
#[derive(Debug)]
pub(crate) struct Scheduler {
    capacity: Resources,
    free: Resources,
    free_slots: Vec<usize>,
    encode_budget: usize,
    next: u64,
    waiting: BTreeMap<RequestId, Waiting>,
    queue: BTreeSet<QueueOrder>,
    running: BTreeMap<RequestId, Running>,
    deadlines: BTreeSet<(Duration, RequestId)>,
}

impl Scheduler {
    /// Starts with a free capacity; a batch of the encoder has at most `encode_budget` rows, or one request
    /// if that has more.
    pub(crate) fn new(capacity: Resources, encode_budget: usize) -> Self {
        Self {
            capacity,
            free: capacity,
            free_slots: (0..capacity.slots).rev().collect(),
            encode_budget,
            next: 0,
            waiting: BTreeMap::new(),
            queue: BTreeSet::new(),
            running: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Queues a request; `None` if it exceeds the whole capacity.
    pub(crate) fn submit(&mut self, demand: Demand) -> Option<RequestId> {
        if !self.capacity.hold(&demand.resources) {
            return None;
        }
        let id = RequestId(self.next);
        self.next += 1;
        let waiting = Waiting { demand, overtaken: 0 };
        self.queue.insert(waiting.order(id));
        self.waiting.insert(id, waiting);
        self.deadlines
            .extend(demand.deadline.map(|deadline| (deadline, id)));
        Some(id)
    }

    /// Admits as many requests as fit, in order; none while the last batch is being encoded.
    pub(crate) fn admit(&mut self) -> Vec<Admission> {
        let mut admitted = Vec::new();
        if self.running.values().any(|running| !running.encoded) {
            return admitted;
        }
        let mut rows = 0_usize;
        while let Some(&(_, _, id)) = self.queue.first() {
            let Some(demand) = self.waiting.get(&id).map(|waiting| waiting.demand) else {
                break;
            };
            rows = rows.saturating_add(demand.encoder_rows);
            if !self.free.hold(&demand.resources) || (rows > self.encode_budget && !admitted.is_empty()) {
                break;
            }
            self.leave_queue(id);
            self.overtake(id);
            self.free.subtract(&demand.resources);
            let slots = self
                .free_slots
                .split_off(self.free_slots.len().saturating_sub(demand.resources.slots));
            let running = Running {
                demand,
                slots: slots.clone(),
                encoded: false,
            };
            self.running.insert(id, running);
            admitted.push(Admission { id, slots });
        }
        admitted
    }

    /// Counts for all older queued requests that they were overtaken.
    fn overtake(&mut self, by: RequestId) {
        for (id, waiting) in self.waiting.range_mut(..by) {
            let before = waiting.order(*id);
            waiting.overtaken += 1;
            let after = waiting.order(*id);
            if after != before {
                self.queue.remove(&before);
                self.queue.insert(after);
            }
        }
    }

    fn leave_queue(&mut self, id: RequestId) {
        if let Some(waiting) = self.waiting.remove(&id) {
            self.queue.remove(&waiting.order(id));
        }
    }

    /// Marks a request's prompt as encoded: from now on its rows are in every step.
    pub(crate) fn encoded(&mut self, id: RequestId) {
        if let Some(running) = self.running.get_mut(&id) {
            running.encoded = true;
        }
    }

    /// Lists the requests whose rows are in the next step, oldest first.
    pub(crate) fn decoding(&self) -> impl Iterator<Item = RequestId> {
        let decoding = self.running.iter().filter(|(_, running)| running.encoded);
        decoding.map(|(id, _)| *id)
    }

    /// Lists the requests, waiting or running, whose deadline has passed.
    pub(crate) fn expired(&self, now: Duration) -> Vec<RequestId> {
        let passed = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        passed.map(|(_, id)| *id).collect()
    }

    /// Removes a request, running or queued, and returns its slots.
    pub(crate) fn finish(&mut self, id: RequestId) -> Vec<usize> {
        let running = self.running.remove(&id);
        let demand = match &running {
            Some(running) => Some(running.demand),
            None => self.waiting.get(&id).map(|waiting| waiting.demand),
        };
        if let Some(deadline) = demand.and_then(|demand| demand.deadline) {
            self.deadlines.remove(&(deadline, id));
        }
        self.leave_queue(id);
        let Some(running) = running else { return Vec::new() };
        self.free.add(&running.demand.resources);
        self.free_slots.extend(running.slots.iter().rev());
        running.slots
    }

    pub(crate) fn status(&self, id: RequestId) -> SequenceStatus {
        match self.running.get(&id) {
            Some(running) if running.encoded => SequenceStatus::Decoding,
            Some(_) => SequenceStatus::Encoding,
            None if self.waiting.contains_key(&id) => SequenceStatus::Waiting,
            None => SequenceStatus::Finished,
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Returns what running requests have reserved.
    pub(crate) fn reserved(&self) -> Resources {
        let mut reserved = self.capacity;
        reserved.subtract(&self.free);
        reserved
    }

    /// Returns what is free.
    pub(crate) fn free(&self) -> Resources {
        self.free
    }
}

#[cfg(test)]
mod tests;
