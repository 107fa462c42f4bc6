//! Texts that are written while prompts are encoded.

use super::gate::{Permit, Step, gated_slices};
use super::*;

/// So long a slice takes: longer than any step.
const LONG: Duration = Duration::from_millis(20);

#[test]
fn running_texts_go_on_while_a_prompt_is_encoded() {
    let (engine, gate) = gated_slices(2);
    let first = engine.try_generate(request("a", 12)).unwrap();
    let mut step = gate.pass();
    while step != Step::Decode(vec![0]) {
        step = gate.pass();
    }
    let second = engine.try_generate(request("b", 2)).unwrap();
    let mut steps = Vec::new();
    while steps.last() != Some(&Step::Decode(vec![0, 1])) {
        let step = gate.seen();
        if step == Step::Slice {
            std::thread::sleep(LONG);
        }
        steps.push(step);
        gate.open(Permit::Run);
    }
    drop(gate);
    let is_slice = |step: &Step| *step == Step::Slice;
    let begin = steps.iter().position(is_slice).unwrap();
    let end = steps.iter().rposition(is_slice).unwrap();
    let between = steps[begin..end]
        .iter()
        .filter(|step| **step == Step::Decode(vec![0]));
    assert!(between.count() > 0, "{steps:?}");
    assert_eq!(first.wait_blocking().unwrap().tokens.len(), 12);
    assert_eq!(second.wait_blocking().unwrap().tokens.len(), 2);
}

#[test]
fn a_prompt_that_nobody_waits_for_is_not_encoded_to_its_end() {
    let (engine, gate) = gated_slices(1);
    let first = engine.try_generate(request("a", 2)).unwrap();
    assert_eq!(gate.pass(), Step::Encode(1));
    assert_eq!(gate.seen(), Step::Slice);
    drop(first);
    let second = engine.try_generate(request("b", 2)).unwrap();
    gate.open(Permit::Run);
    assert_eq!(
        gate.pass(),
        Step::Encode(1),
        "the second follows after one slice of the first"
    );
    drop(gate);
    assert_eq!(second.wait_blocking().unwrap().tokens.len(), 2);
    assert_eq!(engine.stats().cancelled, 1);
}

#[test]
fn a_slice_that_fails_fails_its_requests_and_no_others() {
    for permit in [Permit::Fail, Permit::Panic] {
        let (engine, gate) = gated_slices(2);
        let first = engine.try_generate(request("a", 3)).unwrap();
        let mut step = gate.pass();
        while step != Step::Decode(vec![0]) {
            step = gate.pass();
        }
        let second = engine.try_generate(request("b", 3)).unwrap();
        while gate.seen() != Step::Slice {
            gate.open(Permit::Run);
        }
        gate.open(permit);
        drop(gate);
        assert_eq!(first.wait_blocking().unwrap().tokens.len(), 3);
        assert!(matches!(second.wait_blocking(), Err(RequestError::Failed { .. })));
        assert_eq!(engine.stats().failed, 1);
        assert!(engine.generate_blocking(request("c", 3)).is_ok());
    }
}
