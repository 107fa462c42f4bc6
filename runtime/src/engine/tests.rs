//! The engine under failures, cancellations and full queues, with a model whose steps the test lets through.

mod gate;
mod needle;
mod samples;
mod slices;
mod telemetry;

use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use multiway_model::testing::{random_inference_model, tiny_config};
use multiway_model::{CacheType, DecoderRow, ForwardError};
use multiway_prompts::Prompt;

use super::builder::{CheckpointParts, Options, start};
use super::forward::{Forward, ModelForward};
use super::limits::{Limits, constraint_cache_bytes};
use super::logits_row::LogitsRow;
use super::sequence::Sequence;
use super::*;
use crate::answer::{FinishReason, Timings, Usage};
use crate::constraint::{ANSWER_BYTES, Constraint};
use crate::eos::EosTokens;
use crate::error::EngineError;
use crate::sampling_params::SamplingParams;
use crate::stream::{StreamEvent, TokenEvent};
use crate::tokenizer::sentencepiece_to_json;
use gate::{Permit, Step, gated, gated_replicas};

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let json = sentencepiece_to_json(include_bytes!("../../tests/fixtures/tokenizer.model")).unwrap();
    Tokenizer::from_json(&json).unwrap()
});

fn config() -> ModelConfig {
    let mut config = tiny_config();
    config.vocab_size = TOKENIZER.vocab_size();
    config
}

fn request(text: &str, max_new_tokens: usize) -> Request {
    let sampling = SamplingParams {
        max_new_tokens,
        ..SamplingParams::default()
    };
    Request {
        prompt: Prompt::from_text(text),
        sampling,
        ..Request::default()
    }
}

#[test]
fn a_full_queue_is_overloaded_at_once_and_waiting_for_a_place_works() {
    let (engine, gate) = gated(1, 1);
    let running = engine.try_generate(request("a", 2)).unwrap();
    // The first request stands before its encoding: it has given its place back.
    assert_eq!(gate.seen(), Step::Encode(1));
    let waiting = engine.try_generate(request("b", 2)).unwrap();
    let error = engine.try_generate(request("c", 2)).unwrap_err();
    assert_eq!(error, RequestError::Overloaded { capacity: 1 });
    let mut patient = pin!(engine.generate(request("c", 2)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(patient.as_mut().poll(&mut context).is_pending());
    drop(gate);
    assert_eq!(running.wait_blocking().unwrap().tokens.len(), 2);
    assert_eq!(waiting.wait_blocking().unwrap().tokens.len(), 2);
    let patient = block_on(patient).unwrap();
    assert_eq!(patient.wait_blocking().unwrap().tokens.len(), 2);
}

fn constrained(pattern: &str) -> Request {
    let mut request = request("a", 9);
    request.sampling.constraint = Some(Constraint::Regex(pattern.to_owned()));
    request
}

#[test]
fn a_constraint_is_compiled_beside_its_caller_who_has_a_place_and_leaves_it_by_leaving() {
    let (engine, gate) = gated(1, 1);
    drop(gate);
    let turns = engine.shared.constraints.take_turns();
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut compiling = pin!(engine.generate(constrained("[a-z]{2}")));
        assert!(compiling.as_mut().poll(&mut context).is_pending());
        let error = engine.try_generate(request("b", 2)).unwrap_err();
        assert_eq!(error, RequestError::Overloaded { capacity: 1 });
    }
    let other = engine.try_generate(request("b", 2)).unwrap();
    assert_eq!(other.wait_blocking().unwrap().tokens.len(), 2);
    let mut compiling = pin!(engine.generate(constrained("[a-z]{2}")));
    assert!(compiling.as_mut().poll(&mut context).is_pending());
    drop(turns);
    let answer = block_on(compiling).unwrap().wait_blocking().unwrap();
    assert_eq!(answer.text.len(), 2);
    // What is known needs no turn.
    let _turns = engine.shared.constraints.take_turns();
    let mut known = pin!(engine.generate(constrained("[a-z]{2}")));
    assert!(known.as_mut().poll(&mut context).is_ready());
}

#[test]
fn a_running_constraint_is_in_the_account_of_the_memory() {
    let (engine, gate) = gated(2, 8);
    let bytes = |request: Request| {
        let answer = engine.try_generate(request).unwrap();
        assert_eq!(gate.pass(), Step::Encode(1));
        assert!(matches!(gate.seen(), Step::Decode(_)));
        let bytes = engine.stats().memory_bytes;
        drop(answer);
        gate.open(Permit::Run);
        bytes
    };
    let (free, constrained) = (bytes(request("a", 9)), bytes(constrained("[a-z]{2}")));
    assert_eq!(constrained - free, ANSWER_BYTES);
    let limits = engine.shared.limits;
    assert_eq!(limits.capacity.constraint_bytes, 2 * ANSWER_BYTES);
    let model = random_inference_model(&config(), 5).unwrap();
    for budget in [1 << 20, 5_000_000, 1 << 26] {
        let limits = Limits::new(&model, 32, budget).unwrap();
        assert!(limits.bytes(&limits.capacity) + constraint_cache_bytes(budget) <= budget);
    }
}

#[test]
fn nothing_is_compiled_for_a_request_that_has_no_place() {
    let (engine, gate) = gated(1, 1);
    let _running = engine.try_generate(request("a", 2)).unwrap();
    assert_eq!(gate.seen(), Step::Encode(1));
    let _waiting = engine.try_generate(request("b", 2)).unwrap();
    let error = engine.try_generate(constrained("(")).unwrap_err();
    assert_eq!(error, RequestError::Overloaded { capacity: 1 });
    let mut patient = pin!(engine.generate(constrained("(")));
    let mut context = Context::from_waker(Waker::noop());
    assert!(patient.as_mut().poll(&mut context).is_pending());
    drop(gate);
    let error = block_on(patient).unwrap_err();
    assert!(matches!(error, RequestError::Constraint { .. }), "{error}");
}

#[test]
fn a_cancelled_request_frees_its_cache_slot_before_the_next_step() {
    let (engine, gate) = gated(2, 8);
    let first = engine.try_generate(request("a", 9)).unwrap();
    let second = engine.try_generate(request("b", 9)).unwrap();
    let third = engine.try_generate(request("c", 9)).unwrap();
    // Depending on when the thread looks, the first two are encoded together or one by one.
    let mut step = gate.seen();
    while step != Step::Decode(vec![0, 1]) {
        gate.open(Permit::Run);
        step = gate.seen();
    }
    drop(first);
    gate.open(Permit::Run);
    assert_eq!(gate.pass(), Step::Encode(1));
    assert_eq!(
        gate.pass(),
        Step::Decode(vec![1, 0]),
        "the third request runs in the first one's slot"
    );
    drop(gate);
    assert_eq!(second.wait_blocking().unwrap().tokens.len(), 9);
    assert_eq!(third.wait_blocking().unwrap().tokens.len(), 9);
    assert_eq!(engine.stats().cancelled, 1);
}

#[test]
fn a_waiting_request_that_is_cancelled_never_runs() {
    let (engine, gate) = gated(1, 8);
    let first = engine.try_generate(request("a", 3)).unwrap();
    assert_eq!(gate.seen(), Step::Encode(1));
    drop(engine.try_generate(request("b", 3)).unwrap());
    let scores = engine.score(request("d", 1), vec!["x".to_owned()]);
    drop(scores);
    let last = engine.try_generate(request("c", 3)).unwrap();
    gate.open(Permit::Run);
    drop(gate.permits);
    assert!(first.wait_blocking().is_ok() && last.wait_blocking().is_ok());
    let steps: Vec<Step> = gate.steps.try_iter().collect();
    let encodings = steps
        .iter()
        .filter(|step| matches!(step, Step::Encode(_)))
        .count();
    assert_eq!(
        encodings, 1,
        "only the last request is encoded after the first: {steps:?}"
    );
}

#[test]
fn a_failed_or_panicking_step_fails_only_its_requests_and_the_engine_goes_on() {
    let alone = {
        let (engine, gate) = gated(2, 8);
        drop(gate);
        engine.generate_blocking(request("c", 4)).unwrap()
    };
    for permit in [Permit::Fail, Permit::Panic] {
        let (engine, gate) = gated(1, 8);
        let first = engine.try_generate(request("a", 4)).unwrap();
        let second = engine.try_generate(request("b", 4)).unwrap();
        let third = engine.try_generate(request("c", 4)).unwrap();
        assert_eq!(gate.pass(), Step::Encode(1));
        assert_eq!(gate.pass(), Step::Decode(vec![0]));
        assert_eq!(gate.seen(), Step::Decode(vec![0]));
        gate.open(permit);
        // The second request fails while its prompt is encoded.
        assert_eq!(gate.seen(), Step::Encode(1));
        gate.open(permit);
        drop(gate);
        let cause = match permit {
            Permit::Panic => "the model panicked: the kernel tripped",
            _ => "the batch is empty",
        };
        let failed = RequestError::Failed {
            cause: cause.to_owned(),
        };
        assert_eq!(first.wait_blocking().unwrap_err(), failed);
        assert_eq!(second.wait_blocking().unwrap_err(), failed);
        let third = third.wait_blocking().unwrap();
        assert_eq!(
            (third.tokens, third.log_probabilities),
            (alone.tokens.clone(), alone.log_probabilities.clone())
        );
        assert_eq!(engine.stats().failed, 2);
    }
}

#[test]
fn a_broken_engine_says_so_to_those_that_are_there_and_to_those_that_come() {
    let (engine, gate) = gated(1, 8);
    let first = engine.try_generate(request("a", 2)).unwrap();
    assert_eq!(gate.pass(), Step::Encode(1));
    assert_eq!(gate.seen(), Step::Decode(vec![0]));
    let second = engine.try_generate(request("b", 2)).unwrap();
    gate.open(Permit::Break);
    drop(gate);
    assert!(first.wait_blocking().is_ok(), "it was answered before the fault");
    let poisoned = RequestError::Poisoned {
        cause: "the cache is in disorder".to_owned(),
    };
    assert_eq!(second.wait_blocking().unwrap_err(), poisoned);
    assert_eq!(engine.generate_blocking(request("c", 2)).unwrap_err(), poisoned);
    assert_eq!(
        engine.embed(request("c", 2)).wait_blocking().unwrap_err(),
        poisoned
    );
}

#[test]
fn a_broken_replica_leaves_the_work_to_the_others() {
    let (engine, mut gates) = gated_replicas(2, 1, 8);
    let first = engine.try_generate(request("a", 2)).unwrap();
    let second = engine.try_generate(request("b", 2)).unwrap();
    let [one, other] = [gates.remove(0), gates.remove(0)];
    assert_eq!([one.pass(), other.seen()], [Step::Encode(1), Step::Encode(1)]);
    one.open(Permit::Break);
    drop((one, other));
    assert!(first.wait_blocking().is_ok() && second.wait_blocking().is_ok());
    while engine.shared.replicas[0].poison().is_none() {
        std::thread::yield_now();
    }
    for _ in 0..3 {
        assert!(engine.generate_blocking(request("c", 2)).is_ok());
    }
}

#[test]
fn a_request_of_a_higher_priority_is_admitted_first() {
    let (engine, gate) = gated(1, 8);
    let first = engine.try_generate(request("a", 1)).unwrap();
    assert_eq!(gate.seen(), Step::Encode(1));
    let low = engine.try_generate(request("b", 1)).unwrap();
    let high = Request {
        priority: 1,
        ..request("c", 1)
    };
    let mut high = engine.try_generate(high).unwrap();
    // Encode and decode the first, encode and decode the one of a higher priority.
    gate.open(Permit::Run);
    (0..3).for_each(|_| drop(gate.pass()));
    assert!(high.next_blocking().is_some_and(|event| event.is_ok()));
    assert_eq!(gate.seen(), Step::Encode(1), "the other one is still to come");
    drop(gate);
    assert!(first.wait_blocking().is_ok() && low.wait_blocking().is_ok());
}

#[test]
fn a_request_whose_time_runs_out_ends_waiting_or_running() {
    let (engine, gate) = gated(1, 8);
    let after = |millis| Some(Duration::from_millis(millis));
    let running = Request {
        timeout: after(300),
        ..request("a", 20)
    };
    let submitted = Instant::now();
    let mut running = engine.try_generate(running).unwrap();
    // On a machine that stands still for so long, it ends before it runs at all.
    if gate.steps.recv_timeout(Duration::from_secs(2)).is_ok() {
        let waiting = Request {
            timeout: after(0),
            ..request("b", 2)
        };
        let waiting = engine.try_generate(waiting).unwrap();
        gate.open(Permit::Run);
        assert_eq!(gate.seen(), Step::Decode(vec![0]));
        gate.open(Permit::Run);
        let error = waiting.wait_blocking().unwrap_err();
        assert_eq!(
            error,
            RequestError::DeadlineExceeded {
                after: Duration::ZERO
            }
        );
        while submitted.elapsed() < Duration::from_millis(301) {
            std::thread::yield_now();
        }
    }
    drop(gate);
    let ended = loop {
        match running.next_blocking() {
            Some(Ok(StreamEvent::Token { .. })) => {}
            Some(Err(error)) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        ended,
        RequestError::DeadlineExceeded {
            after: Duration::from_millis(300)
        }
    );
    assert!(engine.stats().expired >= 1);
    assert!(
        engine.generate_blocking(request("c", 2)).is_ok(),
        "its slot is free"
    );
}

#[test]
fn what_could_never_start_is_refused_and_what_must_wait_for_memory_waits() {
    let model = Arc::new(random_inference_model(&config(), 5).unwrap());
    let most = config().max_target_length;
    let build = |bytes| {
        let builder = Engine::builder_from_model(Arc::clone(&model), TOKENIZER.clone());
        builder.threads(1).memory_budget(bytes).build()
    };
    insta::assert_snapshot!(build(1000).unwrap_err());
    let least = match build(0).unwrap_err() {
        EngineError::MemoryBudget { needed, .. } => needed,
        other => panic!("{other}"),
    };
    let engine = build(least).unwrap();
    let beams = Request {
        sampling: SamplingParams {
            beams: 32,
            max_new_tokens: most,
            ..SamplingParams::default()
        },
        ..request("a", 1)
    };
    insta::assert_snapshot!(engine.generate_blocking(beams).unwrap_err());
    let answers: Vec<_> = (0..12)
        .map(|_| engine.try_generate(request("a cat", most)).unwrap())
        .collect();
    let first = engine.generate_blocking(request("a cat", most)).unwrap();
    for answer in answers {
        assert_eq!(answer.wait_blocking().unwrap().tokens, first.tokens);
    }
    let stats = engine.stats();
    let at_once = engine.shared.limits.rows_that_fit(most) as u64;
    assert!(
        at_once < 12 && stats.rows <= at_once * stats.steps,
        "{at_once} fit: {stats:?}"
    );
}

#[test]
fn narrow_caches_let_more_requests_run_at_a_time_in_the_same_memory() {
    let most = config().max_target_length;
    let limits = |cache: CacheType, bytes: usize| {
        let model = random_inference_model(&config(), 5).unwrap();
        Limits::new(&model.with_cache(cache).unwrap(), 32, bytes)
    };
    let least = match limits(CacheType::F32, 0).unwrap_err() {
        EngineError::MemoryBudget { needed, .. } => needed,
        other => panic!("{other}"),
    };
    let [single, half, eighth] = CacheType::ALL.map(|cache| limits(cache, least).unwrap());
    // The tiny model's heads are 16 numbers wide, so that a scale of 4 bytes counts: 20 bytes instead of 64.
    for (narrow, times) in [(half, 2.0), (eighth, 3.2)] {
        for (found, of) in [
            (narrow.capacity.self_tokens, single.capacity.self_tokens),
            (narrow.capacity.memory_tokens, single.capacity.memory_tokens),
        ] {
            let ratio = found as f64 / of as f64;
            assert!((0.8..1.25).contains(&(ratio / times)), "{found} and {of}");
        }
        assert!(narrow.bytes(&narrow.capacity) <= least);
        assert!(narrow.rows_that_fit(most) > single.rows_that_fit(most));
    }
}

#[test]
fn dropping_the_last_handle_ends_streams_and_waiting_calls_with_a_typed_error() {
    let (engine, gate) = gated(1, 1);
    let mut running = engine.try_generate(request("a", 20)).unwrap();
    assert_eq!(gate.pass(), Step::Encode(1));
    assert_eq!(gate.seen(), Step::Decode(vec![0]));
    let waiting = engine.try_generate(request("b", 20)).unwrap();
    let places = Arc::clone(&engine.shared.places);
    let dropper = std::thread::spawn(move || drop(engine));
    // The places close once the thread has been told to stop.
    assert!(block_on(places.acquire()).is_err());
    gate.open(Permit::Run);
    dropper.join().unwrap();
    assert!(matches!(
        running.next_blocking(),
        Some(Ok(StreamEvent::Token { .. }))
    ));
    assert_eq!(running.next_blocking(), Some(Err(RequestError::ShutDown)));
    assert_eq!(running.next_blocking(), None, "an error is the last event");
    assert_eq!(waiting.wait_blocking().unwrap_err(), RequestError::ShutDown);
    assert!(
        gate.steps.recv().is_err(),
        "no step goes on behind the caller's back"
    );
}

#[test]
fn a_drain_finishes_what_was_accepted_and_refuses_the_rest() {
    let (engine, gate) = gated(1, 4);
    let running = engine.try_generate(request("a", 3)).unwrap();
    let waiting = engine.try_generate(request("b", 3)).unwrap();
    engine.shutdown(Shutdown::Drain);
    assert_eq!(
        engine.try_generate(request("c", 3)).unwrap_err(),
        RequestError::ShutDown
    );
    assert_eq!(
        engine.embed(request("c", 3)).wait_blocking().unwrap_err(),
        RequestError::ShutDown
    );
    drop(gate.permits);
    assert_eq!(running.wait_blocking().unwrap().tokens.len(), 3);
    assert_eq!(waiting.wait_blocking().unwrap().tokens.len(), 3);
}

#[test]
fn an_abort_ends_requests_before_the_next_step() {
    let (engine, gate) = gated(1, 4);
    let running = engine.try_generate(request("a", 9)).unwrap();
    assert_eq!(gate.seen(), Step::Encode(1));
    engine.shutdown(Shutdown::Abort);
    drop(gate.permits);
    assert_eq!(running.wait_blocking().unwrap_err(), RequestError::ShutDown);
    // The engine was told while it stood before the encoding; the step that follows in the same turn still
    // runs.
    assert!(gate.steps.into_iter().count() <= 1);
}

#[test]
fn scores_run_beside_a_stream_without_stopping_it() {
    let (engine, gate) = gated(4, 8);
    let stream = engine.try_generate(request("a", 6)).unwrap();
    let candidates: Vec<String> = ["cat", "car", "dog", "a cat", "a car"]
        .map(str::to_owned)
        .to_vec();
    let mut scores = pin!(engine.score(request("b", 1), candidates));
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(gate.seen(), Step::Encode(1));
    assert!(scores.as_mut().poll(&mut context).is_pending());
    drop(gate.permits);
    assert_eq!(stream.wait_blocking().unwrap().tokens.len(), 6);
    assert_eq!(block_on(scores).unwrap().value.len(), 5);
    let mut decodes = gate.steps.try_iter().filter_map(|step| match step {
        Step::Decode(slots) => Some(slots),
        Step::Encode(_) | Step::Slice => None,
    });
    assert!(
        decodes.by_ref().take(6).all(|slots| slots.first() == Some(&0)),
        "the stream is in each of the first steps"
    );
}

/// Feeds made-up logits to one answer and collects its events.
fn write(sampling: SamplingParams, tokens: &[u32]) -> (Vec<String>, Option<FinishReason>) {
    let request = Request {
        sampling,
        ..request("x", 1)
    };
    let prepared = PreparedRequest::new(request, &TOKENIZER, &config(), 0).unwrap();
    let (events, mut stream) = TokenStream::open();
    let mut sequence = Sequence::new(&prepared, &TOKENIZER, &EosTokens::one(1), events);
    for _ in 1..prepared.start.len() {
        assert_eq!(
            sequence.consume_logits(LogitsRow::default()),
            Ok(None),
            "a forced token needs no logits"
        );
    }
    let mut finished = None;
    for token in tokens {
        let mut logits = vec![0.0; TOKENIZER.vocab_size()];
        logits[*token as usize] = 20.0;
        finished = sequence.consume_logits(LogitsRow::new(&logits, None)).unwrap();
        if finished.is_some() {
            break;
        }
    }
    drop(sequence);
    let mut texts = Vec::new();
    while let Some(Ok(StreamEvent::Token { text, .. })) = stream.next_blocking() {
        texts.push(text);
    }
    (texts, finished)
}

fn ids(text: &str) -> Vec<u32> {
    let mut ids = TOKENIZER.encode_text(text).unwrap();
    ids.push(1);
    ids
}

#[test]
fn an_answer_ends_at_the_end_token_and_shows_neither_it_nor_the_prefix() {
    let prefix = vec!["<extra_id_0>".to_owned()];
    let (texts, reason) = write(
        SamplingParams {
            prefix,
            ..SamplingParams::default()
        },
        &ids("a red cat"),
    );
    assert_eq!(
        (texts.concat().as_str(), reason),
        ("a red cat", Some(FinishReason::Stop))
    );
}

#[test]
fn an_answer_that_is_cut_off_inside_a_character_ends_in_a_replacement_character() {
    let bird = ids("a 𓅯");
    let (texts, reason) = write(
        SamplingParams {
            max_new_tokens: bird.len() - 2,
            ..SamplingParams::default()
        },
        &bird,
    );
    assert_eq!(
        (texts.concat().as_str(), reason),
        ("a \u{fffd}", Some(FinishReason::Length))
    );
}

#[test]
fn a_stop_string_across_tokens_ends_the_answer_before_it() {
    let stop = vec!["d cat".to_owned()];
    let sampling = SamplingParams {
        stop,
        ..SamplingParams::default()
    };
    let (texts, reason) = write(sampling.clone(), &ids("a red cat sat"));
    assert_eq!(
        (texts.concat().as_str(), reason),
        ("a re", Some(FinishReason::StopString))
    );
    let (texts, reason) = write(sampling, &ids("a red"));
    assert_eq!(
        (texts.concat().as_str(), reason),
        ("a red", Some(FinishReason::Stop)),
        "what was held back comes out"
    );
}

#[test]
fn special_tokens_are_shown_only_if_asked_for() {
    let mut tokens = ids("cat");
    tokens.insert(0, TOKENIZER.special("<extra_id_7>").unwrap());
    let (texts, _) = write(SamplingParams::default(), &tokens);
    assert_eq!(texts.concat(), "cat");
    let (texts, _) = write(
        SamplingParams {
            show_special: true,
            ..SamplingParams::default()
        },
        &tokens,
    );
    assert_eq!(texts.concat(), "<extra_id_7> cat");
}

#[test]
fn an_answer_that_has_ended_does_not_end_again() {
    let prepared = PreparedRequest::new(request("x", 1), &TOKENIZER, &config(), 0).unwrap();
    let (events, mut stream) = TokenStream::open();
    let mut sequence = Sequence::new(&prepared, &TOKENIZER, &EosTokens::one(1), events);
    sequence.finish(FinishReason::Stop, Usage::default(), Timings::default());
    sequence.fail(RequestError::ShutDown);
    let end = stream.next_blocking();
    assert!(matches!(end, Some(Ok(StreamEvent::Finished { .. }))), "{end:?}");
    assert_eq!(stream.next_blocking(), None);
}

#[test]
fn a_stream_whose_engine_is_gone_tells_so_once_after_the_last_token() {
    let (events, mut stream) = TokenStream::open();
    events.send(TokenEvent {
        id: 5,
        text: "cat".to_owned(),
        log_probability: -1.0,
        alternatives: Vec::new(),
    });
    drop(events);
    let token = stream.next_blocking();
    assert!(
        matches!(token, Some(Ok(StreamEvent::Token { id: 5, .. }))),
        "{token:?}"
    );
    assert_eq!(stream.next_blocking(), Some(Err(RequestError::ShutDown)));
    assert_eq!(stream.next_blocking(), None);
}

#[test]
fn logits_that_are_no_numbers_fail_the_request() {
    let prepared = PreparedRequest::new(request("x", 1), &TOKENIZER, &config(), 0).unwrap();
    let mut sequence = Sequence::new(&prepared, &TOKENIZER, &EosTokens::one(1), TokenStream::open().0);
    insta::assert_snapshot!(sequence.consume_logits(LogitsRow::new(&[f32::NAN; 8], None)).unwrap_err(), @"the model's logits are not finite numbers; its weights may be damaged");
}
