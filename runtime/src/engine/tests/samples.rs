//! Groups of samples: what they share, and how they end.

use std::collections::BTreeSet;

use futures_util::FutureExt;

use super::gate::Gate;
use super::*;
use crate::answer::Generation;
use crate::engine::decode::Decode;
use crate::engine::samples::Samples;

/// Asks for samples that end by themselves only as far as `end` makes it likely.
fn group(samples: usize, max_new_tokens: usize, end: f32) -> Request {
    let mut request = request("a cat", max_new_tokens);
    let sampling = &mut request.sampling;
    (sampling.samples, sampling.temperature, sampling.seed) = (samples, 1.0, Some(3));
    sampling.logit_bias = [(config().eos_token_id, end)].into();
    request
}

/// Returns the slots of the rows of a decoding step.
fn slots(step: &Step) -> Vec<usize> {
    match step {
        Step::Decode(slots) => slots.clone(),
        Step::Encode(_) | Step::Slice => panic!("expected a decoding step, found {step:?}"),
    }
}

/// Draws samples and lists the slots of each decoding step.
fn decoded(engine: &Engine, gate: Gate, request: Request) -> (Vec<Generation>, Vec<Vec<usize>>) {
    let Gate { steps, permits } = gate;
    drop(permits);
    let answers = engine.samples(request).wait_blocking().unwrap().value;
    let decoded = steps.try_iter().filter_map(|step| match step {
        Step::Decode(slots) => Some(slots),
        Step::Encode(prompts) => {
            assert_eq!(prompts, 1);
            None
        }
        Step::Slice => None,
    });
    (answers, decoded.collect())
}

#[test]
fn a_group_of_samples_reads_the_prompt_and_the_prefix_once() {
    let (engine, gate) = gated(4, 8);
    let mut request = group(3, 3, -100.0);
    request.sampling.prefix = vec!["<extra_id_0>".to_owned()];
    let mut samples = pin!(engine.samples(request));
    let mut context = Context::from_waker(Waker::noop());
    assert!(samples.as_mut().poll(&mut context).is_pending());
    assert_eq!(gate.pass(), Step::Encode(1));
    let rows = [(); 4].map(|()| slots(&gate.pass()));
    assert_eq!(rows.each_ref().map(Vec::len), [1, 1, 3, 3]);
    assert_eq!(rows[0], rows[1]);
    assert_eq!(rows[2], rows[3]);
    assert_eq!(
        BTreeSet::from_iter(&rows[2]).len(),
        3,
        "each has a slot of its own"
    );
    assert_eq!(block_on(samples).unwrap().value.len(), 3);
    assert!(gate.steps.try_recv().is_err());
}

#[test]
fn a_sample_that_has_ended_is_in_no_further_step() {
    let (engine, gate) = gated(8, 8);
    let (answers, decoded) = decoded(&engine, gate, group(8, 12, 6.5));
    let lengths: Vec<usize> = answers.iter().map(|answer| answer.tokens.len()).collect();
    let longest = *lengths.iter().max().unwrap();
    assert!(lengths.iter().min() < Some(&longest), "{lengths:?}");
    assert_eq!(decoded.len(), longest);
    assert_eq!(decoded[0].len(), 1);
    for (step, rows) in decoded.iter().enumerate().skip(1) {
        let running = lengths.iter().filter(|length| **length > step).count();
        assert_eq!(rows.len(), running, "step {step}");
        let before = &decoded[step - 1];
        assert!(step == 1 || rows.iter().all(|slot| before.contains(slot)));
    }
    assert_eq!(
        engine.stats().tokens,
        u64::try_from(lengths.iter().sum::<usize>()).unwrap()
    );
    for answer in &answers {
        assert_eq!(answer.usage.new_tokens, answer.tokens.len());
    }
}

/// Lists the rows of the next step: a token and a slot each.
fn rows(samples: &Samples) -> Vec<(u32, usize)> {
    let mut rows = Vec::new();
    samples.push_rows(&mut rows);
    rows.into_iter().map(|row| (row.token, row.slot)).collect()
}

#[test]
fn the_slot_of_a_sample_is_copied_when_the_first_tokens_are_drawn_and_emptied_when_it_ends() {
    let prepared = PreparedRequest::new(group(8, 9, 0.0), &TOKENIZER, &config(), 0).unwrap();
    let (listeners, mut streams): (Vec<_>, Vec<_>) = (0..8).map(|_| TokenStream::open()).unzip();
    let mut samples = Samples::new(&prepared, &TOKENIZER, &EosTokens::one(1), listeners);
    samples.start((10..18).collect());
    assert_eq!(rows(&samples), [(config().decoder_start_token_id, 10)]);
    // Half of the samples end, half write token 5.
    let mut logits = vec![-100.0; TOKENIZER.vocab_size()];
    (logits[1], logits[5]) = (1.0, 1.0);
    let step = samples.consume_logits(&[LogitsRow::new(&logits, None)]).unwrap();
    assert_eq!(step.written, 8);
    let mut ended = Vec::new();
    for (slot, stream) in (10..).zip(&mut streams) {
        let Some(Some(Ok(StreamEvent::Token { id, .. }))) = stream.next().now_or_never() else {
            panic!("the sample in slot {slot} wrote nothing");
        };
        assert!(id == 1 || id == 5);
        if id == 1 {
            ended.push(slot);
        }
    }
    let running: Vec<usize> = (10..18).filter(|slot| !ended.contains(slot)).collect();
    assert!(!ended.is_empty() && !running.is_empty(), "{ended:?}");
    let copied: Vec<(usize, usize)> = running.iter().map(|slot| (10, *slot)).collect();
    let copied: Vec<(usize, usize)> = copied.into_iter().filter(|(from, to)| from != to).collect();
    assert_eq!((step.copies, step.clears), (copied, ended));
    assert_eq!(
        rows(&samples),
        running.iter().map(|slot| (5, *slot)).collect::<Vec<_>>()
    );
    let next: Vec<LogitsRow> = running.iter().map(|_| LogitsRow::new(&logits, None)).collect();
    assert_eq!(samples.consume_logits(&next).unwrap().copies, []);
}

#[test]
fn a_group_that_nobody_waits_for_leaves_its_slots_to_others() {
    let (engine, gate) = gated(3, 8);
    let mut samples = Box::pin(engine.samples(group(3, 9, -100.0)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(samples.as_mut().poll(&mut context).is_pending());
    assert_eq!(gate.pass(), Step::Encode(1));
    assert_eq!(slots(&gate.pass()).len(), 1);
    assert_eq!(slots(&gate.seen()).len(), 3);
    drop(samples);
    let next = engine.try_generate(request("b", 2)).unwrap();
    gate.open(Permit::Run);
    // The group held all slots.
    assert_eq!(gate.pass(), Step::Encode(1));
    assert_eq!(slots(&gate.pass()).len(), 1);
    drop(gate);
    assert_eq!(next.wait_blocking().unwrap().tokens.len(), 2);
    assert_eq!(engine.stats().cancelled, 1);
}

#[test]
fn a_failed_step_fails_the_group_and_the_engine_goes_on() {
    let (engine, gate) = gated(2, 8);
    let mut samples = Box::pin(engine.samples(group(2, 9, -100.0)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(samples.as_mut().poll(&mut context).is_pending());
    assert_eq!(gate.pass(), Step::Encode(1));
    assert_eq!(slots(&gate.pass()).len(), 1);
    assert_eq!(slots(&gate.seen()).len(), 2);
    gate.open(Permit::Fail);
    let failed = RequestError::Failed {
        cause: "the batch is empty".to_owned(),
    };
    assert_eq!(block_on(samples).unwrap_err(), failed);
    drop(gate);
    assert_eq!(
        engine
            .samples(group(2, 3, -100.0))
            .wait_blocking()
            .unwrap()
            .value
            .len(),
        2
    );
    assert_eq!(engine.stats().failed, 1);
}
