//! The scheduler under random schedules, driven as the engine's thread drives it.

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;

const CAPACITY: Resources = Resources {
    slots: 6,
    memory_tokens: 120,
    self_tokens: 90,
    constraint_bytes: 70,
};
const ENCODE_BUDGET: usize = 40;

fn demand(slots: usize, encoder_rows: usize) -> Demand {
    let resources = Resources {
        slots,
        ..Resources::default()
    };
    Demand {
        resources,
        encoder_rows,
        ..Demand::default()
    }
}

fn with_slots(slots: usize) -> Scheduler {
    let capacity = Resources { slots, ..CAPACITY };
    Scheduler::new(capacity, 100)
}

fn admitted(scheduler: &mut Scheduler) -> Vec<RequestId> {
    scheduler
        .admit()
        .into_iter()
        .map(|admission| admission.id)
        .collect()
}

#[test]
fn the_first_in_the_queue_is_not_overtaken_by_what_would_fit() {
    let mut scheduler = with_slots(4);
    let [a, b, c] = [3, 2, 1].map(|slots| scheduler.submit(demand(slots, 1)).unwrap());
    assert_eq!(admitted(&mut scheduler), [a]);
    assert_eq!(scheduler.status(c), SequenceStatus::Waiting);
    assert_eq!(scheduler.status(a), SequenceStatus::Encoding);
    scheduler.finish(a);
    assert_eq!(admitted(&mut scheduler), [b, c]);
    scheduler.encoded(b);
    assert_eq!(scheduler.status(a), SequenceStatus::Finished);
    assert_eq!(scheduler.status(b), SequenceStatus::Decoding);
    assert_eq!(scheduler.decoding().collect::<Vec<_>>(), [b]);
}

#[test]
fn a_step_encodes_no_more_than_its_budget_unless_one_request_does() {
    let mut scheduler = Scheduler::new(Resources { slots: 8, ..CAPACITY }, 10);
    for rows in [6, 4, 1, 50, 2] {
        scheduler.submit(demand(1, rows)).unwrap();
    }
    let next = |_| {
        let admitted = admitted(&mut scheduler);
        admitted.iter().for_each(|id| scheduler.encoded(*id));
        admitted.len()
    };
    assert_eq!((0..4).map(next).collect::<Vec<usize>>(), [2, 1, 1, 1]);
}

#[test]
fn nobody_starts_until_those_before_are_encoded_or_gone() {
    let mut scheduler = with_slots(4);
    let [a, b, c] = [0; 3].map(|_| scheduler.submit(demand(1, 60)).unwrap());
    assert_eq!(admitted(&mut scheduler), [a]);
    assert_eq!(admitted(&mut scheduler), []);
    scheduler.encoded(a);
    assert_eq!(admitted(&mut scheduler), [b]);
    assert_eq!(admitted(&mut scheduler), []);
    scheduler.finish(b);
    assert_eq!(admitted(&mut scheduler), [c]);
}

#[test]
fn memory_is_reserved_as_well_as_slots() {
    let mut scheduler = Scheduler::new(CAPACITY, 1000);
    let of = |memory_tokens, self_tokens| Demand {
        resources: Resources {
            slots: 1,
            memory_tokens,
            self_tokens,
            ..Resources::default()
        },
        ..Demand::default()
    };
    let a = scheduler.submit(of(100, 10)).unwrap();
    let b = scheduler.submit(of(30, 10)).unwrap();
    assert_eq!(admitted(&mut scheduler), [a], "20 rows are left, 30 are needed");
    scheduler.finish(a);
    let c = scheduler.submit(of(1, 81)).unwrap();
    assert_eq!(admitted(&mut scheduler), [b], "80 tokens are left, 81 are needed");
    scheduler.finish(b);
    assert_eq!(admitted(&mut scheduler), [c]);
    assert_eq!(scheduler.submit(of(121, 0)), None, "it would wait for ever");
}

#[test]
fn priority_goes_first_but_not_for_ever() {
    let mut scheduler = with_slots(1);
    let low = scheduler
        .submit(Demand {
            priority: -1,
            ..demand(1, 1)
        })
        .unwrap();
    let mut overtaken = 0;
    loop {
        let high = scheduler.submit(demand(1, 1)).unwrap();
        let first = admitted(&mut scheduler);
        scheduler.finish(first[0]);
        if first == [low] {
            break;
        }
        assert_eq!(first, [high]);
        overtaken += 1;
    }
    assert_eq!(overtaken, MAX_OVERTAKEN);
}

#[test]
fn those_that_were_overtaken_too_often_go_by_age_whatever_their_priorities() {
    let mut scheduler = with_slots(1);
    let of = |priority| Demand {
        priority,
        ..demand(1, 1)
    };
    let [low, middle] = [-1, 0].map(|priority| scheduler.submit(of(priority)).unwrap());
    for _ in 0..MAX_OVERTAKEN {
        let high = scheduler.submit(of(1)).unwrap();
        assert_eq!(admitted(&mut scheduler), [high]);
        scheduler.finish(high);
    }
    scheduler.submit(of(1)).unwrap();
    for next in [low, middle] {
        assert_eq!(admitted(&mut scheduler), [next]);
        scheduler.finish(next);
    }
}

#[test]
fn a_cancelled_request_leaves_the_queue() {
    let mut scheduler = with_slots(1);
    let a = scheduler.submit(demand(1, 1)).unwrap();
    let b = scheduler.submit(demand(1, 1)).unwrap();
    assert_eq!(scheduler.finish(a), Vec::<usize>::new());
    let slots = vec![0];
    assert_eq!(scheduler.admit(), [Admission { id: b, slots }]);
}

/// One thing that happens between two steps.
#[derive(Clone, Debug)]
enum Event {
    Arrive(Arrival),
    /// A client goes away: one of those that are there.
    Cancel(prop::sample::Index),
    /// Time passes.
    Wait(u8),
    /// The engine makes a step; its encoding or its decoding may fail. What it starts is encoded so many
    /// steps later.
    Step {
        encoding_takes: u8,
        encoding_fails: bool,
        decoding_fails: bool,
    },
}

#[derive(Clone, Debug)]
struct Arrival {
    /// One row, or as many as there are beams.
    rows: usize,
    encoder_rows: usize,
    new_tokens: usize,
    priority: i32,
    patience: Option<u8>,
}

fn arrival() -> impl Strategy<Value = Event> {
    let rows = prop_oneof![3 => Just(1_usize), 1 => 0..8_usize];
    let patience = prop_oneof![3 => Just(None), 1 => (0..30_u8).prop_map(Some)];
    let all = (rows, 0..70_usize, 1..16_usize, -1..2_i32, patience);
    all.prop_map(|(rows, encoder_rows, new_tokens, priority, patience)| {
        Event::Arrive(Arrival {
            rows,
            encoder_rows,
            new_tokens,
            priority,
            patience,
        })
    })
}

fn event() -> impl Strategy<Value = Event> {
    let fails = || prop::bool::weighted(0.05);
    prop_oneof![
        4 => arrival(),
        1 => any::<prop::sample::Index>().prop_map(Event::Cancel),
        1 => (1..10_u8).prop_map(Event::Wait),
        6 => (0..3_u8, fails(), fails()).prop_map(|(encoding_takes, encoding_fails, decoding_fails)| Event::Step {
            encoding_takes,
            encoding_fails,
            decoding_fails,
        }),
    ]
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    Failed,
    Expired,
    Cancelled,
}

/// What the test knows of a request.
#[derive(Debug)]
struct Known {
    demand: Demand,
    wanted: usize,
    slots: Option<Vec<usize>>,
    tokens: usize,
    ends: Vec<End>,
    overtaken: u32,
}

/// An engine without a model: it does with the scheduler what the engine's thread does.
struct Engine {
    scheduler: Scheduler,
    now: Duration,
    known: BTreeMap<RequestId, Known>,
    /// Clients that went away since the last step.
    gone: Vec<RequestId>,
    /// Requests that are being encoded, and for how many more steps.
    encoding: (Vec<RequestId>, u8),
}

impl Engine {
    fn new() -> Self {
        Self {
            scheduler: Scheduler::new(CAPACITY, ENCODE_BUDGET),
            now: Duration::ZERO,
            known: BTreeMap::new(),
            gone: Vec::new(),
            encoding: (Vec::new(), 0),
        }
    }

    fn alive(&self) -> Vec<RequestId> {
        let alive = self.known.iter().filter(|(_, known)| known.ends.is_empty());
        alive.map(|(id, _)| *id).collect()
    }

    fn happen(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Arrive(arrival) => self.arrive(&arrival),
            Event::Cancel(index) => {
                let alive = self.alive();
                if !alive.is_empty() {
                    self.gone.push(alive[index.index(alive.len())]);
                }
                Ok(())
            }
            Event::Wait(time) => {
                self.now += Duration::from_secs(time.into());
                Ok(())
            }
            Event::Step {
                encoding_takes,
                encoding_fails,
                decoding_fails,
            } => self.step(encoding_takes, encoding_fails, decoding_fails),
        }
    }

    fn arrive(&mut self, arrival: &Arrival) -> Result<(), TestCaseError> {
        let resources = Resources {
            slots: arrival.rows,
            memory_tokens: if arrival.rows > 0 { arrival.encoder_rows } else { 0 },
            self_tokens: arrival.rows * arrival.new_tokens,
            constraint_bytes: if arrival.priority > 0 {
                10 * arrival.rows
            } else {
                0
            },
        };
        let deadline = arrival
            .patience
            .map(|patience| self.now + Duration::from_secs(patience.into()));
        let demand = Demand {
            resources,
            encoder_rows: arrival.encoder_rows,
            priority: arrival.priority,
            deadline,
        };
        let id = self.scheduler.submit(demand);
        prop_assert_eq!(
            id.is_some(),
            CAPACITY.hold(&resources),
            "refused only what never fits"
        );
        if let Some(id) = id {
            let known = Known {
                demand,
                wanted: arrival.new_tokens,
                slots: None,
                tokens: 0,
                ends: Vec::new(),
                overtaken: 0,
            };
            prop_assert!(self.known.insert(id, known).is_none(), "a number is given twice");
        }
        Ok(())
    }

    fn end(&mut self, id: RequestId, end: End) -> Result<(), TestCaseError> {
        let slots = self.scheduler.finish(id);
        let known = self.known.get_mut(&id).unwrap();
        prop_assert_eq!(
            slots,
            known.slots.take().unwrap_or_default(),
            "it gives back what it got"
        );
        known.ends.push(end);
        prop_assert_eq!(self.scheduler.status(id), SequenceStatus::Finished);
        Ok(())
    }

    fn step(
        &mut self,
        encoding_takes: u8,
        encoding_fails: bool,
        decoding_fails: bool,
    ) -> Result<(), TestCaseError> {
        let free_before = self.scheduler.free();
        let mut freed = Resources::default();
        for id in std::mem::take(&mut self.gone) {
            if self.known[&id].ends.is_empty() {
                if self.known[&id].slots.is_some() {
                    freed.add(&self.known[&id].demand.resources);
                }
                self.end(id, End::Cancelled)?;
            }
        }
        let mut free = free_before;
        free.add(&freed);
        prop_assert_eq!(
            self.scheduler.free(),
            free,
            "what the cancelled had is there again"
        );
        for id in self.scheduler.expired(self.now) {
            prop_assert!(
                self.known[&id]
                    .demand
                    .deadline
                    .is_some_and(|deadline| deadline <= self.now)
            );
            self.end(id, End::Expired)?;
        }
        prop_assert!(self.scheduler.expired(self.now).is_empty());
        self.encode(encoding_takes, encoding_fails)?;
        self.decode(decoding_fails)
    }

    fn encode(&mut self, takes: u8, fails: bool) -> Result<(), TestCaseError> {
        let admitted = self.admit()?;
        let (ids, left) = &mut self.encoding;
        ids.retain(|id| self.known[id].ends.is_empty());
        if ids.is_empty() {
            (*ids, *left) = (admitted, takes);
        } else {
            prop_assert!(admitted.is_empty(), "one batch is encoded at a time");
        }
        if *left > 0 {
            *left -= 1;
            return Ok(());
        }
        for id in std::mem::take(ids) {
            if fails {
                self.end(id, End::Failed)?;
            } else if self.known[&id].demand.resources.slots == 0 {
                self.end(id, End::Answered)?;
            } else {
                self.scheduler.encoded(id);
            }
        }
        Ok(())
    }

    fn admit(&mut self) -> Result<Vec<RequestId>, TestCaseError> {
        let waited: Vec<RequestId> = self.alive();
        let admissions = self.scheduler.admit();
        let rows = |id: RequestId| self.known[&id].demand.encoder_rows;
        let encoded: usize = admissions.iter().map(|admission| rows(admission.id)).sum();
        prop_assert!(
            encoded <= ENCODE_BUDGET || admissions.len() == 1,
            "one budget, or one request"
        );
        let mut ids = Vec::new();
        for Admission { id, slots } in admissions {
            let known = self.known.get_mut(&id).unwrap();
            prop_assert!(
                known.ends.is_empty() && known.slots.is_none(),
                "admitted once, and alive"
            );
            prop_assert_eq!(slots.len(), known.demand.resources.slots);
            let priority = known.demand.priority;
            known.slots = Some(slots);
            ids.push(id);
            for other in waited.iter().filter(|other| **other < id) {
                let other = self.known.get_mut(other).unwrap();
                if other.slots.is_none() && other.ends.is_empty() {
                    other.overtaken += 1;
                    prop_assert!(other.demand.priority < priority, "order is kept among equals");
                    prop_assert!(other.overtaken <= MAX_OVERTAKEN, "nobody is overtaken for ever");
                }
            }
        }
        Ok(ids)
    }

    fn decode(&mut self, fails: bool) -> Result<(), TestCaseError> {
        for id in self.scheduler.decoding().collect::<Vec<_>>() {
            let known = self.known.get_mut(&id).unwrap();
            prop_assert!(known.ends.is_empty(), "a token after the end");
            known.tokens += 1;
            let tokens = known.tokens;
            if fails {
                self.end(id, End::Failed)?;
            } else if tokens == self.known[&id].wanted {
                self.end(id, End::Answered)?;
            }
        }
        Ok(())
    }

    /// What must hold whenever nothing is going on.
    fn check(&self) -> Result<(), TestCaseError> {
        let mut free = self.scheduler.free();
        let mut slots = BTreeSet::new();
        let mut running = 0;
        for (id, known) in &self.known {
            prop_assert!(known.ends.len() <= 1, "{id:?} ended twice");
            prop_assert!(
                known.ends != [End::Answered]
                    || known.demand.resources.slots == 0
                    || known.tokens == known.wanted
            );
            if let Some(own) = &known.slots {
                running += 1;
                prop_assert!(
                    own.iter()
                        .all(|slot| *slot < CAPACITY.slots && slots.insert(*slot)),
                    "a slot is shared"
                );
                free.add(&known.demand.resources);
            }
        }
        prop_assert_eq!(free, CAPACITY, "free and reserved make up the capacity");
        prop_assert_eq!(self.scheduler.running(), running);
        prop_assert_eq!(
            self.scheduler.running() + self.scheduler.waiting(),
            self.alive().len()
        );
        Ok(())
    }

    /// Lets everything run to its end.
    fn drain(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..10_000 {
            if self.alive().is_empty() {
                break;
            }
            self.step(0, false, false)?;
            self.check()?;
        }
        prop_assert!(self.alive().is_empty(), "some request never ended");
        prop_assert_eq!(self.scheduler.free(), CAPACITY);
        prop_assert!(
            self.known.values().all(|known| known.ends.len() == 1),
            "one end each"
        );
        prop_assert!(self.scheduler.deadlines.is_empty() && self.scheduler.queue.is_empty());
        // What was given back is used again: the largest request that there can be starts at once.
        let all = Demand {
            resources: CAPACITY,
            ..Demand::default()
        };
        let id = self.scheduler.submit(all).unwrap();
        prop_assert_eq!(admitted(&mut self.scheduler), [id]);
        Ok(())
    }
}

proptest! {
    #![proptest_config(Config { cases: 1000, ..Config::default() })]

    #[test]
    fn schedules(events in prop::collection::vec(event(), 0..150)) {
        let mut engine = Engine::new();
        for event in events {
            engine.happen(event)?;
            engine.check()?;
        }
        engine.drain()?;
    }
}
