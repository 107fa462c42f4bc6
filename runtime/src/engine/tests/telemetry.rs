//! What is counted, measured and traced, for requests whose every step the test lets through.
#![expect(
    clippy::float_cmp,
    reason = "counts are whole numbers, which floats hold exactly"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use metrics::Unit;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::gate::Gate;
use super::*;

/// Reads the metrics of engines that are built for it.
#[derive(Default)]
struct Watch {
    recorder: DebuggingRecorder,
    /// What was read so far: a recorder of this kind starts again from zero when it is read.
    totals: BTreeMap<String, f64>,
}

impl Watch {
    fn build<T>(&self, build: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&self.recorder, build)
    }

    /// Reads all metrics by their names and labels: counters and gauges as they are, of histograms how many
    /// values there are.
    fn read(&mut self) -> &BTreeMap<String, f64> {
        for (key, _, _, value) in self.recorder.snapshotter().snapshot().into_vec() {
            let labels = key.key().labels();
            let labels: String = labels.map(|label| format!(" {}", label.value())).collect();
            let name = key.key().name().trim_start_matches("multiway_");
            let value = match value {
                DebugValue::Counter(count) => count as f64,
                DebugValue::Gauge(level) => level.0,
                DebugValue::Histogram(values) => values.len() as f64,
            };
            *self.totals.entry(format!("{name}{labels}")).or_default() += value;
        }
        &self.totals
    }
}

/// Builds an engine whose metrics a test can read.
fn watched(max_batch: usize, queue_capacity: usize) -> (Engine, Gate, Watch) {
    let watch = Watch::default();
    let (engine, gate) = watch.build(|| gated(max_batch, queue_capacity));
    (engine, gate, watch)
}

/// Picks some metrics out of all.
fn pick<const N: usize>(all: &BTreeMap<String, f64>, names: [&str; N]) -> [f64; N] {
    names.map(|name| *all.get(name).unwrap_or_else(|| panic!("no {name} in {all:?}")))
}

/// The counters of what can become of a call, in this order.
const OUTCOMES: [&str; 6] = [
    "requests_submitted_total",
    "requests_refused_total",
    "requests_finished_total",
    "requests_cancelled_total",
    "requests_expired_total",
    "requests_failed_total",
];

#[test]
fn every_call_is_counted_once_for_what_became_of_it_and_a_reused_prompt_is_a_hit() {
    let (engine, gate, mut watch) = watched(1, 2);
    let first = engine.try_generate(request("a", 3)).unwrap();
    // It has given its place in the queue back.
    assert_eq!(gate.seen(), Step::Encode(1));
    let again = engine.try_generate(request("a", 3)).unwrap();
    let dropped = engine.try_generate(request("c", 9)).unwrap();
    let refused = engine.try_generate(request("d", 9)).unwrap_err();
    assert_eq!(refused, RequestError::Overloaded { capacity: 2 });
    let refused = engine.try_generate(request("", 9)).unwrap_err();
    assert_eq!(refused, RequestError::EmptyPrompt);
    {
        let mut impatient = pin!(engine.generate(request("e", 9)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(impatient.as_mut().poll(&mut context).is_pending());
    }
    drop((dropped, gate));
    assert_eq!(first.wait_blocking().unwrap().tokens.len(), 3);
    let usage = again.wait_blocking().unwrap().usage;
    assert_eq!(usage.new_tokens, 3);
    drop(engine);
    let all = watch.read();
    assert_eq!(pick(all, OUTCOMES), [6.0, 2.0, 2.0, 2.0, 0.0, 0.0]);
    let reuse = [
        "reuse_hits_total prompt",
        "reuse_misses_total prompt",
        "reuse_hits_total pictures",
        "reuse_misses_total pictures",
    ];
    assert_eq!(pick(all, reuse), [1.0, 1.0, 0.0, 0.0]);
    let tokens = ["prompt_tokens_total", "image_patches_total", "new_tokens_total"];
    let read = 2.0 * usage.prompt_tokens as f64;
    assert_eq!(pick(all, tokens), [read, 0.0, 6.0]);
    let measured = [
        "queue_seconds",
        "encode_seconds",
        "time_to_first_token_seconds",
        "time_between_tokens_seconds",
        "decode_step_seconds",
        "decode_step_rows",
    ];
    assert_eq!(pick(all, measured), [2.0, 2.0, 2.0, 4.0, 6.0, 6.0]);
}

#[test]
fn a_caller_that_leaves_while_its_constraint_is_compiled_has_cancelled() {
    let (engine, gate, mut watch) = watched(1, 1);
    drop(gate);
    let _turns = engine.shared.constraints.take_turns();
    {
        let mut compiling = pin!(engine.generate(constrained("[a-z]{3}")));
        let mut context = Context::from_waker(Waker::noop());
        assert!(compiling.as_mut().poll(&mut context).is_pending());
    }
    let ends = ["requests_cancelled_total", "requests_refused_total"];
    let found = pick(watch.read(), ends);
    assert!(
        found.map(|count| count.to_bits()) == [1.0_f64, 0.0].map(f64::to_bits),
        "{found:?}"
    );
}

#[test]
fn requests_that_fail_or_run_out_of_time_are_counted_as_such() {
    let (engine, gate, mut watch) = watched(1, 8);
    let failing = engine.try_generate(request("a", 3)).unwrap();
    assert_eq!(gate.seen(), Step::Encode(1));
    let late = Request {
        timeout: Some(Duration::ZERO),
        ..request("b", 3)
    };
    let late = engine.try_generate(late).unwrap();
    gate.open(Permit::Fail);
    drop(gate);
    assert!(failing.wait_blocking().is_err() && late.wait_blocking().is_err());
    drop(engine);
    assert_eq!(pick(watch.read(), OUTCOMES), [2.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn each_picture_that_was_encoded_before_is_a_hit() {
    let mut config = config();
    config.attention_pattern = multiway_model::AttentionPattern::ImagePrefix;
    let model = Arc::new(random_inference_model(&config, 5).unwrap());
    let mut watch = Watch::default();
    let builder = Engine::builder_from_model(model, TOKENIZER.clone()).threads(1);
    let engine = watch.build(|| builder.build().unwrap());
    let side = config.image_size();
    for text in ["a", "b", "a"] {
        let mut asked = request(text, 1);
        asked.prompt = [multiway_prompts::PromptPart::Image(0)].into_iter().collect();
        asked
            .prompt
            .push(multiway_prompts::PromptPart::Text(text.to_owned()));
        let pixels = vec![0.5; 3 * side * side];
        asked.images = vec![multiway_model::ProcessedImage::from_pixels(pixels)];
        engine.generate_blocking(asked).unwrap();
    }
    drop(engine);
    let all = watch.read();
    let of_prompts = ["reuse_hits_total prompt", "reuse_misses_total prompt"];
    assert_eq!(pick(all, of_prompts), [1.0, 2.0]);
    let of_pictures = ["reuse_hits_total pictures", "reuse_misses_total pictures"];
    assert_eq!(pick(all, of_pictures), [1.0, 1.0]);
    let patches = 3.0 * config.patches() as f64;
    assert_eq!(pick(all, ["image_patches_total"]), [patches]);
}

#[test]
fn gauges_show_what_is_reserved_and_return_to_zero_with_the_engine() {
    let (engine, gate, mut watch) = watched(1, 8);
    let running = engine.try_generate(request("a", 4)).unwrap();
    assert_eq!(gate.seen(), Step::Encode(1));
    let waiting = engine.try_generate(request("b", 4)).unwrap();
    gate.open(Permit::Run);
    // The second request is seen in the turn after the first step, and shown at its end.
    assert_eq!(
        [gate.pass(), gate.pass()],
        [0, 0].map(|slot| Step::Decode(vec![slot]))
    );
    assert_eq!(gate.seen(), Step::Decode(vec![0]));
    let (stats, all) = (engine.stats(), watch.read().clone());
    let load = ["requests_queued", "requests_running", "rows_running"];
    assert_eq!(pick(&all, load), [1.0, 1.0, 1.0]);
    let tokens = [
        "cross_attention_tokens_reserved",
        "self_attention_tokens_reserved",
    ];
    let prompt = TOKENIZER.encode_prompt(&Prompt::from_text("a")).unwrap();
    let block = multiway_model::KvCache::BLOCK as f64;
    assert_eq!(pick(&all, tokens), [prompt.len() as f64, block]);
    let bytes = ["memory_bytes", "memory_budget_bytes", "reuse_bytes"];
    let [reserved, budget, kept] = pick(&all, bytes);
    assert_eq!(reserved, stats.memory_bytes as f64);
    assert!(0.0 < reserved && reserved < budget && kept == stats.reuse_bytes as f64);
    drop(gate);
    assert!(running.wait_blocking().is_ok() && waiting.wait_blocking().is_ok());
    drop(engine);
    let all = watch.read();
    assert_eq!(pick(all, load), [0.0; 3]);
    assert_eq!(pick(all, tokens), [0.0; 2]);
    assert_eq!(pick(all, bytes), [0.0; 3]);
}

#[test]
fn the_metrics_of_replicas_add_up() {
    let mut watch = Watch::default();
    let one = watch.build(|| gated_replicas(1, 1, 8).0);
    let [budget] = pick(watch.read(), ["memory_budget_bytes"]);
    let _three = watch.build(|| gated_replicas(3, 1, 8).0);
    assert_eq!(pick(watch.read(), ["memory_budget_bytes"]), [4.0 * budget]);
    drop(one);
    assert_eq!(pick(watch.read(), ["memory_budget_bytes"]), [3.0 * budget]);
}

#[test]
fn the_table_in_the_docs_lists_every_metric_with_its_kind_and_unit_and_no_other() {
    let (_engine, _gate, watch) = watched(1, 1);
    let registered = watch
        .recorder
        .snapshotter()
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, unit, about, value)| {
            assert!(
                about.is_some_and(|about| !about.is_empty()),
                "{key:?} is described"
            );
            let kind = match value {
                DebugValue::Counter(_) => "counter",
                DebugValue::Gauge(_) => "gauge",
                DebugValue::Histogram(_) => "histogram",
            };
            let unit = match unit {
                Some(Unit::Count) => "count",
                Some(Unit::Bytes) => "bytes",
                Some(Unit::Seconds) => "seconds",
                other => panic!("{key:?} is measured in {other:?}"),
            };
            format!("`{}` | {kind} | {unit}", key.key().name())
        });
    let registered: BTreeSet<String> = registered.collect();
    let rows = include_str!("../../lib.rs").lines();
    let rows = rows.filter_map(|line| {
        line.strip_prefix("//! | ")
            .filter(|row| row.contains("`multiway_"))
    });
    let row = |row: &str| row.splitn(4, " | ").take(3).collect::<Vec<_>>().join(" | ");
    assert_eq!(rows.map(row).collect::<BTreeSet<String>>(), registered);
}

#[test]
fn timings_and_usage_of_any_request_come_with_its_answer_and_times_do_not_overlap() {
    let (engine, gate) = gated(4, 8);
    drop(gate);
    let check = |timings: &Timings, steps: usize| {
        let parts = [
            timings.prepare,
            timings.queued,
            timings.encode,
            timings.decode,
            timings.select,
        ];
        assert!(parts.iter().sum::<Duration>() <= timings.total, "{timings:?}");
        assert!(timings.prepare > Duration::ZERO && timings.encode > Duration::ZERO);
        assert_eq!(timings.steps, steps, "{timings:?}");
        let is_decoded = steps > 0;
        assert_eq!(timings.decode > Duration::ZERO, is_decoded);
        assert_eq!(timings.select > Duration::ZERO, is_decoded);
    };
    let streamed = engine.generate_blocking(request("a", 4)).unwrap().timings;
    check(&streamed, 4);
    assert!(streamed.first_token > Duration::ZERO && streamed.first_token < streamed.total);
    for count in 1..40 {
        let mut asked = request("a", 1 + count % 3);
        (asked.sampling.temperature, asked.sampling.samples) = (1.0, 1 + count % 2);
        asked.sampling.min_new_tokens = asked.sampling.max_new_tokens;
        let of_samples = engine.samples(asked).wait_blocking().unwrap();
        check(&of_samples.timings, 1 + count % 3);
        assert_eq!(of_samples.usage.new_tokens, (1 + count % 2) * (1 + count % 3));
    }
    let of_embedding = engine.embed(request("a", 1)).wait_blocking().unwrap();
    check(&of_embedding.timings, 0);
    let of_scores = engine.score(request("a", 1), vec![String::new()]);
    let of_scores = of_scores.wait_blocking().unwrap();
    check(&of_scores.timings, 1);
    let mut asked = request("a", 3);
    asked.sampling.beams = 2;
    let of_search = engine.search(asked).wait_blocking().unwrap();
    check(&of_search.timings, 3);
    let read = TOKENIZER.encode_prompt(&Prompt::from_text("a")).unwrap().len();
    for (usage, new_tokens) in [
        (of_embedding.usage, 0),
        (of_scores.usage, 0),
        (of_search.usage, of_search.value[0].tokens.len()),
    ] {
        let expected = Usage {
            prompt_tokens: read,
            image_patches: 0,
            new_tokens,
        };
        assert_eq!(usage, expected);
    }
}

/// A span as a subscriber saw it.
#[derive(Debug, Default)]
struct Seen {
    name: String,
    parent: Option<String>,
    fields: BTreeMap<String, String>,
    /// The events in it, and the thread that each was on.
    events: Vec<(String, String)>,
    is_closed: bool,
}

impl tracing::field::Visit for Seen {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<(Id, Seen)>>>);

impl Capture {
    /// Takes the spans of a name, in the order in which they were opened.
    fn take(&self, name: &str) -> Vec<Seen> {
        let all = std::mem::take(&mut *self.0.lock().unwrap());
        let all = all.into_iter().map(|(_, seen)| seen);
        all.filter(|seen| seen.name == name).collect()
    }

    /// Changes what is known of a span. Names of spans that were closed are given again.
    fn change(&self, id: &Id, change: impl FnOnce(&mut Seen)) {
        let mut all = self.0.lock().unwrap();
        if let Some((_, seen)) = all.iter_mut().rfind(|(known, _)| known == id) {
            change(seen);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: LayerContext<'_, S>) {
        let parent = context.span(id).and_then(|span| span.parent());
        let mut seen = Seen {
            name: attributes.metadata().name().to_owned(),
            parent: parent.map(|parent| parent.name().to_owned()),
            ..Seen::default()
        };
        attributes.record(&mut seen);
        self.0.lock().unwrap().push((id.clone(), seen));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _context: LayerContext<'_, S>) {
        self.change(id, |seen| values.record(seen));
    }

    fn on_event(&self, event: &Event<'_>, context: LayerContext<'_, S>) {
        let mut fields = Seen::default();
        event.record(&mut fields);
        let message = fields.fields.remove("message").unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        if let Some(span) = context.event_span(event) {
            self.change(&span.id(), |seen| seen.events.push((message, thread)));
        }
    }

    fn on_close(&self, id: Id, _context: LayerContext<'_, S>) {
        self.change(&id, |seen| seen.is_closed = true);
    }
}

/// Runs something in the span of a caller, with an engine that holds two sequences. A second subscriber that
/// lives as long as the tests. Where there is only one, `tracing` asks the thread that comes to a span first
/// whether anybody wants it, and another test's thread would say no for all.
static SECOND: LazyLock<tracing::Dispatch> =
    LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::registry()));

fn traced<T>(capture: &Capture, work: impl FnOnce(&Engine, Gate) -> T) {
    LazyLock::force(&SECOND);
    let subscriber = tracing_subscriber::registry().with(capture.clone());
    tracing::subscriber::with_default(subscriber, || {
        let (engine, gate) = gated(2, 8);
        tracing::info_span!("caller").in_scope(|| work(&engine, gate));
    });
}

fn fields<const N: usize>(seen: &Seen, names: [&str; N]) -> [Option<String>; N] {
    names.map(|name| seen.fields.get(name).cloned())
}

#[test]
fn a_request_has_one_span_below_its_callers_that_the_engines_thread_enters() {
    let capture = Capture::default();
    traced(&capture, |engine, gate| {
        drop(gate);
        let asked = Request {
            priority: 7,
            ..request("a", 3)
        };
        engine.generate_blocking(asked).unwrap();
        assert!(engine.try_generate(request("", 2)).is_err());
    });
    let prompt = TOKENIZER.encode_prompt(&Prompt::from_text("a")).unwrap();
    let spans = capture.take("request");
    let [answered, refused] = spans.as_slice() else {
        panic!("two calls: {spans:?}");
    };
    for span in [answered, refused] {
        assert_eq!(span.parent.as_deref(), Some("caller"));
        assert!(span.is_closed);
    }
    let names = [
        "id",
        "prompt_tokens",
        "image_patches",
        "max_new_tokens",
        "priority",
    ];
    let expected = [0, prompt.len(), 0, 3, 7].map(|number| Some(number.to_string()));
    assert_eq!(fields(answered, names), expected);
    let expected = [None, None, None, Some("2".to_owned()), Some("0".to_owned())];
    assert_eq!(fields(refused, names), expected);
    let events: Vec<&str> = answered
        .events
        .iter()
        .map(|(message, _)| message.as_str())
        .collect();
    assert_eq!(
        events,
        [
            "tokenizing a prompt",
            "request accepted",
            "first token",
            "request finished"
        ]
    );
    // The caller's thread tokenizes; the engine's does the rest.
    let is_engines: Vec<bool> = answered
        .events
        .iter()
        .map(|(_, thread)| thread.starts_with("multiway-"))
        .collect();
    assert_eq!(is_engines, [false, true, true, true]);
}

#[test]
fn each_step_has_one_span_that_says_how_many_requests_it_encoded_and_rows_it_decoded() {
    let capture = Capture::default();
    traced(&capture, |engine, gate| {
        let first = engine.try_generate(request("a", 3)).unwrap();
        assert_eq!(gate.pass(), Step::Encode(1));
        assert_eq!(gate.seen(), Step::Decode(vec![0]));
        let second = engine.try_generate(request("b", 1)).unwrap();
        drop(gate);
        assert!(first.wait_blocking().is_ok() && second.wait_blocking().is_ok());
    });
    let steps: Vec<[Option<String>; 2]> = capture
        .take("step")
        .iter()
        .inspect(|step| assert!(step.parent.is_none() && step.is_closed, "{step:?}"))
        .map(|step| fields(step, ["encoded", "rows"]))
        .collect();
    let expected = [[Some("1"), Some("1")], [Some("1"), Some("2")], [None, Some("1")]];
    let expected = expected.map(|step| step.map(|number| number.map(str::to_owned)));
    assert_eq!(steps, expected);
}

#[test]
fn a_request_that_ends_early_says_so_in_its_span() {
    let capture = Capture::default();
    traced(&capture, |engine, gate| {
        let cancelled = engine.try_generate(request("a", 9)).unwrap();
        assert_eq!(gate.pass(), Step::Encode(1));
        assert_eq!(gate.seen(), Step::Decode(vec![0]));
        drop(cancelled);
        gate.open(Permit::Run);
        let failed = engine.try_generate(request("b", 9)).unwrap();
        assert_eq!(gate.seen(), Step::Encode(1));
        gate.open(Permit::Fail);
        assert!(failed.wait_blocking().is_err());
        drop(gate);
    });
    let spans = capture.take("request");
    let last = spans.iter().filter_map(|span| span.events.last());
    let last: Vec<&str> = last.map(|(message, _)| message.as_str()).collect();
    assert_eq!(last, ["request cancelled", "request failed"]);
}
