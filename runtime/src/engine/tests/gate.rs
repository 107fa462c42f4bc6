//! A model whose steps the test lets through, one by one.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use multiway_model::testing::random_inference_model;
use multiway_model::{DecoderRow, ForwardError};

use super::super::Engine;
use super::super::builder::{CheckpointParts, Options, start};
use super::super::forward::{Forward, ModelForward};
use super::super::limits::Limits;
use super::super::readout::{EncodedPrompt, PromptToEncode};
use super::super::reuse::ReuseCounts;
use super::{TOKENIZER, config};
use crate::generation::GenerationConfig;

/// What a gated step may do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Permit {
    Run,
    Fail,
    Panic,
    /// Run this one; whatever gives a slot back afterwards panics, outside of any step.
    Break,
}

/// A real model whose steps tell the test what they are about to do, and then wait for a permit.
struct Gated {
    model: ModelForward,
    steps: Sender<Step>,
    permits: Receiver<Permit>,
    is_broken: bool,
    /// Whether each slice of an encoding waits too; else all are done at a time.
    slices: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Encode(usize),
    /// A slice of an encoding.
    Slice,
    /// The slots of the rows.
    Decode(Vec<usize>),
}

impl Gated {
    fn wait(&mut self, step: Step) -> Result<(), ForwardError> {
        drop(self.steps.send(step));
        // Without a test to ask, everything may run.
        match self.permits.recv().unwrap_or(Permit::Run) {
            Permit::Run => Ok(()),
            Permit::Fail => Err(ForwardError::EmptyBatch),
            Permit::Panic => panic!("the kernel tripped"),
            Permit::Break => {
                self.is_broken = true;
                Ok(())
            }
        }
    }
}

impl Forward for Gated {
    fn begin_encoding(&mut self, prompts: Vec<PromptToEncode>) -> Result<(), ForwardError> {
        self.wait(Step::Encode(prompts.len()))?;
        self.model.begin_encoding(prompts)
    }

    fn advance_encoding(&mut self, rows: usize) -> Result<Option<Vec<EncodedPrompt>>, ForwardError> {
        if self.slices {
            self.wait(Step::Slice)?;
            return self.model.advance_encoding(rows);
        }
        loop {
            let read = self.model.advance_encoding(rows)?;
            if read.is_some() {
                return Ok(read);
            }
        }
    }

    fn abandon_encoding(&mut self) {
        self.model.abandon_encoding();
    }

    fn decode_step(&mut self, rows: &[DecoderRow], logits: &mut Vec<f32>) -> Result<(), ForwardError> {
        self.wait(Step::Decode(rows.iter().map(|row| row.slot).collect()))?;
        self.model.decode_step(rows, logits)
    }

    fn copy_slot(&mut self, from: usize, to: usize) -> Result<(), ForwardError> {
        self.model.copy_slot(from, to)
    }

    fn clear_slot(&mut self, slot: usize) {
        if self.is_broken {
            panic!("the cache is in disorder");
        }
        self.model.clear_slot(slot);
    }

    fn reuse(&self) -> ReuseCounts {
        self.model.reuse()
    }
}

/// The test's side of the gate.
pub(super) struct Gate {
    pub(super) steps: Receiver<Step>,
    pub(super) permits: Sender<Permit>,
}

impl Gate {
    /// Waits until the engine stands before a step.
    pub(super) fn seen(&self) -> Step {
        self.steps.recv().unwrap()
    }

    pub(super) fn open(&self, permit: Permit) {
        self.permits.send(permit).unwrap();
    }

    pub(super) fn pass(&self) -> Step {
        let step = self.seen();
        self.open(Permit::Run);
        step
    }
}

pub(super) fn gated(max_batch: usize, queue_capacity: usize) -> (Engine, Gate) {
    let (engine, mut gates) = gated_replicas(1, max_batch, queue_capacity);
    (engine, gates.remove(0))
}

pub(super) fn gated_replicas(
    replicas: usize,
    max_batch: usize,
    queue_capacity: usize,
) -> (Engine, Vec<Gate>) {
    start_gated(replicas, max_batch, queue_capacity, false)
}

/// Starts an engine whose encodings wait at every slice.
pub(super) fn gated_slices(max_batch: usize) -> (Engine, Gate) {
    let (engine, mut gates) = start_gated(1, max_batch, 8, true);
    (engine, gates.remove(0))
}

fn start_gated(
    replicas: usize,
    max_batch: usize,
    queue_capacity: usize,
    slices: bool,
) -> (Engine, Vec<Gate>) {
    let options = Options {
        threads: Some(1),
        max_batch,
        queue_capacity,
        ..Options::default()
    };
    let model = Arc::new(random_inference_model(&config(), 5).unwrap());
    let limits = Limits::new(&model, max_batch, options.memory_budget).unwrap();
    let gated = (0..replicas).map(|_| {
        let (steps, seen) = channel();
        let (open, permits) = channel();
        let forward = Gated {
            model: ModelForward::new(Arc::clone(&model), &limits.capacity, options.reuse_budget).unwrap(),
            steps,
            permits,
            is_broken: false,
            slices,
        };
        let gate = Gate {
            steps: seen,
            permits: open,
        };
        (forward, gate)
    });
    let (forwards, gates): (Vec<Gated>, Vec<Gate>) = gated.unzip();
    let known = CheckpointParts {
        tokenizer: TOKENIZER.clone(),
        config: config(),
        generation: GenerationConfig::of_model(&config()),
        labels: None,
    };
    (start(forwards, known, limits, &options).unwrap(), gates)
}
