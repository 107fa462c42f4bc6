//! Who runs: a plain data structure, without tensors, threads or clocks.

use std::collections::{BTreeMap, VecDeque};

/// Names a request inside one engine; later requests have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestId(u64);

impl RequestId {
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SequenceStatus {
    Waiting,
    Running,
    Finished,
}

/// What a request needs before it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Cache slots, all at once: one per row that it will decode in a step.
    pub(crate) slots: usize,
    /// Rows that the encoder will see.
    pub(crate) encoder_rows: usize,
}

/// A request that may start now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) id: RequestId,
    pub(crate) slots: Vec<usize>,
}

/// Admits requests first in, first out, while cache slots are free, and keeps the account of slots.
///
/// Nobody is overtaken: where the first in the queue does not fit, the others wait with it. A request gets all its
/// slots at once and keeps them to its end, so nothing is ever evicted.
#[derive(Debug)]
pub(crate) struct Scheduler {
    slots: usize,
    encode_budget: usize,
    next: u64,
    waiting: VecDeque<(RequestId, Demand)>,
    running: BTreeMap<RequestId, Vec<usize>>,
    free: Vec<usize>,
}

impl Scheduler {
    /// Keeps account of `slots` slots; a step encodes at most `encode_budget` rows, or one request if that has more.
    pub(crate) fn new(slots: usize, encode_budget: usize) -> Self {
        let free = (0..slots).rev().collect();
        Self {
            slots,
            encode_budget,
            next: 0,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            free,
        }
    }

    /// Puts a request at the end of the queue; one that wants more slots than there are gets them all.
    pub(crate) fn submit(&mut self, demand: Demand) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        let slots = demand.slots.min(self.slots);
        self.waiting.push_back((id, Demand { slots, ..demand }));
        id
    }

    /// Starts as many requests as fit, in order.
    pub(crate) fn admit(&mut self) -> Vec<Admission> {
        let mut admitted = Vec::new();
        let mut rows = 0_usize;
        while let Some((id, demand)) = self.waiting.front().copied() {
            rows = rows.saturating_add(demand.encoder_rows);
            if demand.slots > self.free.len() || (rows > self.encode_budget && !admitted.is_empty()) {
                break;
            }
            self.waiting.pop_front();
            let slots = self.free.split_off(self.free.len() - demand.slots);
            self.running.insert(id, slots.clone());
            admitted.push(Admission { id, slots });
        }
        admitted
    }

    /// Ends a request, running or waiting, and returns the slots that it had.
    pub(crate) fn finish(&mut self, id: RequestId) -> Vec<usize> {
        if let Some(slots) = self.running.remove(&id) {
            self.free.extend(slots.iter().rev());
            return slots;
        }
        self.waiting.retain(|(waiting, _)| *waiting != id);
        Vec::new()
    }

    pub(crate) fn status(&self, id: RequestId) -> SequenceStatus {
        if self.running.contains_key(&id) {
            SequenceStatus::Running
        } else if self.waiting.iter().any(|(waiting, _)| *waiting == id) {
            SequenceStatus::Waiting
        } else {
            SequenceStatus::Finished
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    pub(crate) fn free_slots(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn demand(slots: usize, encoder_rows: usize) -> Demand {
        Demand { slots, encoder_rows }
    }

    #[test]
    fn the_first_in_the_queue_is_not_overtaken() {
        let mut scheduler = Scheduler::new(4, 100);
        let a = scheduler.submit(demand(3, 1));
        let b = scheduler.submit(demand(2, 1));
        let c = scheduler.submit(demand(1, 1));
        assert_eq!(scheduler.admit().iter().map(|a| a.id).collect::<Vec<_>>(), [a]);
        assert_eq!(scheduler.status(c), SequenceStatus::Waiting);
        scheduler.finish(a);
        assert_eq!(scheduler.admit().iter().map(|a| a.id).collect::<Vec<_>>(), [b, c]);
        assert_eq!(scheduler.status(a), SequenceStatus::Finished);
        assert_eq!(scheduler.status(b), SequenceStatus::Running);
    }

    #[test]
    fn a_step_encodes_no_more_than_its_budget_unless_one_request_does() {
        let mut scheduler = Scheduler::new(8, 10);
        for rows in [6, 4, 1, 50, 2] {
            scheduler.submit(demand(1, rows));
        }
        let counts: Vec<usize> = (0..4).map(|_| scheduler.admit().len()).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
    }

    #[test]
    fn a_cancelled_request_leaves_the_queue() {
        let mut scheduler = Scheduler::new(1, 10);
        let a = scheduler.submit(demand(1, 1));
        let b = scheduler.submit(demand(1, 1));
        assert_eq!(scheduler.finish(a), Vec::<usize>::new());
        assert_eq!(
            scheduler.admit(),
            [Admission {
                id: b,
                slots: vec![0]
            }]
        );
    }

    #[derive(Clone, Debug)]
    enum Event {
        Submit(usize, usize),
        Admit,
        Finish(prop::sample::Index),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..6_usize, 0..30_usize).prop_map(|(slots, rows)| Event::Submit(slots, rows)),
            Just(Event::Admit),
            any::<prop::sample::Index>().prop_map(Event::Finish),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_slots_are_neither_lost_nor_shared_and_order_is_kept(
            events in prop::collection::vec(event(), 0..120),
        ) {
            let mut scheduler = Scheduler::new(5, 40);
            let mut held: BTreeMap<RequestId, Vec<usize>> = BTreeMap::new();
            let mut alive: Vec<RequestId> = Vec::new();
            let mut last_admitted = None;
            for event in events {
                match event {
                    Event::Submit(slots, rows) => alive.push(scheduler.submit(demand(slots, rows))),
                    Event::Admit => {
                        for admission in scheduler.admit() {
                            prop_assert!(Some(admission.id) > last_admitted, "overtaken");
                            last_admitted = Some(admission.id);
                            held.insert(admission.id, admission.slots);
                        }
                    }
                    Event::Finish(index) if !alive.is_empty() => {
                        let id = alive.swap_remove(index.index(alive.len()));
                        prop_assert_eq!(scheduler.finish(id), held.remove(&id).unwrap_or_default());
                        prop_assert_eq!(scheduler.status(id), SequenceStatus::Finished);
                    }
                    Event::Finish(_) => {}
                }
                let used: Vec<usize> = held.values().flatten().copied().collect();
                let distinct: BTreeSet<usize> = used.iter().copied().collect();
                prop_assert_eq!(distinct.len(), used.len(), "a slot is shared");
                prop_assert_eq!(used.len() + scheduler.free_slots(), 5, "a slot is lost");
                prop_assert_eq!(scheduler.running() + scheduler.waiting(), alive.len());
            }
            for id in alive {
                scheduler.finish(id);
            }
            prop_assert_eq!(scheduler.free_slots(), 5);
        }
    }
}
