//! Serving under load: requests that join and leave a running batch, against batches that stay as they are,
//! and one request at a time.
//!
//! `cargo bench -p multiway-runtime --bench serving` answers the same requests in each way, alternately in
//! one run after a warm-up, on the shape of T5 v1.1 small with random weights. Requests arrive as a Poisson
//! process of a fixed seed, whether or not earlier ones are answered, faster than they can be. It prints
//! medians of tokens per second, and of the time to the first token and between tokens; then the time between
//! the tokens of one running text, alone and while long prompts come in.
//!
//! A batch that stays as it is starts with the requests that wait, 32 at most, and ends with its longest
//! answer. Of two kinds: `static` computes every row to the end, as `generate` of `transformers` does; in
//! `static, rows leave` rows that are done cost nothing more, as in CTranslate2.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use multiway_model::testing::random_inference_model;
use multiway_model::{Model, ModelConfig};
use multiway_prompts::Prompt;
use multiway_runtime::{Engine, Request, SamplingParams, StreamEvent, Tokenizer, sentencepiece_to_json};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::sync::Notify;

const CLIENTS: usize = 32;
const REQUESTS: usize = 96;
const ROUNDS: usize = 3;
const THREADS: usize = 2;
const LONG_PROMPT: usize = 512;

/// The shape of T5 v1.1 small.
const CONFIG: &str = r#"{
    "model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6,
    "vocab_size": 32128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6,
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0
}"#;

/// A request of the load.
#[derive(Clone, Copy)]
struct Asked {
    /// When it comes, in units of the mean time between two.
    at: f64,
    words: usize,
    new_tokens: usize,
}

/// How requests are put together.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Continuous,
    Static { rows_leave: bool },
    OneByOne,
}

const WAYS: [(&str, Way); 4] = [
    ("continuous", Way::Continuous),
    ("static, rows leave", Way::Static { rows_leave: true }),
    ("static", Way::Static { rows_leave: false }),
    ("one at a time", Way::OneByOne),
];

/// What was seen of a run.
#[derive(Default)]
struct Seen {
    /// Seconds from arrival to the first token.
    first: Vec<f64>,
    /// Seconds between two tokens of a text.
    between: Vec<f64>,
    tokens: usize,
}

fn uniform(random: &mut ChaCha8Rng) -> f64 {
    (f64::from(random.next_u32()) + 0.5) / 2_f64.powi(32)
}

fn between(random: &mut ChaCha8Rng, low: usize, high: usize) -> usize {
    low + random.next_u32() as usize % (high - low + 1)
}

/// Draws the load: Poisson arrivals, prompts of 8 to 48 words, answers of 4 to 64 tokens.
fn load() -> Vec<Asked> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut at = 0.0;
    let mut one = || {
        at -= uniform(&mut random).ln();
        Asked {
            at,
            words: between(&mut random, 8, 48),
            new_tokens: between(&mut random, 4, 64),
        }
    };
    (0..REQUESTS).map(|_| one()).collect()
}

fn request(words: usize, new_tokens: usize) -> Request {
    let text: Vec<&str> = ["cat", "dog", "red", "on", "a", "table"]
        .into_iter()
        .cycle()
        .take(words)
        .collect();
    let sampling = SamplingParams {
        max_new_tokens: new_tokens,
        min_new_tokens: new_tokens,
        ..SamplingParams::default()
    };
    Request {
        sampling,
        ..Request::new(Prompt::from_text(text.join(" ")), Vec::new())
    }
}

/// Asks, and notes when the tokens come; of `computed` tokens the client wants the first `wanted`.
async fn ask(
    engine: &Engine,
    words: usize,
    (wanted, computed): (usize, usize),
    since: Instant,
    seen: &RefCell<Seen>,
) {
    let mut stream = engine.generate(request(words, computed)).await.unwrap();
    let mut last: Option<Instant> = None;
    let mut count = 0;
    while let Some(event) = stream.next().await {
        let StreamEvent::Token { .. } = event.unwrap() else {
            continue;
        };
        count += 1;
        if count > wanted {
            continue;
        }
        let now = Instant::now();
        let mut seen = seen.borrow_mut();
        seen.tokens += 1;
        match last.replace(now) {
            Some(last) => seen.between.push((now - last).as_secs_f64()),
            None => seen.first.push((now - since).as_secs_f64()),
        }
    }
    assert_eq!(count, computed);
}

/// Answers all requests in one way; `rate` is in requests per second. Returns what was seen and the seconds
/// that it took.
async fn answer(engine: &Engine, load: &[Asked], rate: f64, way: Way) -> (Seen, f64) {
    let seen = RefCell::new(Seen::default());
    let start = Instant::now();
    let due = |asked: &Asked| start + Duration::from_secs_f64(asked.at / rate);
    if way == Way::Continuous {
        join_all(load.iter().map(async |asked| {
            tokio::time::sleep_until(due(asked).into()).await;
            let counts = (asked.new_tokens, asked.new_tokens);
            ask(engine, asked.words, counts, due(asked), &seen).await;
        }))
        .await;
    } else {
        let size = if way == Way::OneByOne { 1 } else { CLIENTS };
        let queue = (RefCell::new(VecDeque::new()), Notify::new());
        let arrivals = async {
            for asked in load {
                tokio::time::sleep_until(due(asked).into()).await;
                queue.0.borrow_mut().push_back(*asked);
                queue.1.notify_one();
            }
        };
        let batches = async {
            let mut answered = 0;
            while answered < load.len() {
                let waiting = queue.0.borrow().len();
                if waiting == 0 {
                    queue.1.notified().await;
                    continue;
                }
                let batch: Vec<Asked> = queue.0.borrow_mut().drain(..waiting.min(size)).collect();
                let longest = batch.iter().map(|asked| asked.new_tokens).max().unwrap();
                join_all(batch.iter().map(async |asked| {
                    let computed = match way {
                        Way::Static { rows_leave: false } => longest,
                        _ => asked.new_tokens,
                    };
                    ask(
                        engine,
                        asked.words,
                        (asked.new_tokens, computed),
                        due(asked),
                        &seen,
                    )
                    .await;
                }))
                .await;
                answered += batch.len();
            }
        };
        join(arrivals, batches).await;
    }
    (seen.take(), start.elapsed().as_secs_f64())
}

/// Writes one text after another for some seconds, while long prompts come in at `rate` a second; returns the
/// times between tokens.
async fn running_text(engine: &Engine, seconds: f64, rate: Option<f64>) -> Vec<f64> {
    let seen = RefCell::new(Seen::default());
    let others = RefCell::new(Seen::default());
    let start = Instant::now();
    let is_over = || start.elapsed().as_secs_f64() > seconds;
    let texts = async {
        while !is_over() {
            ask(engine, 16, (64, 64), Instant::now(), &seen).await;
        }
    };
    let prompts = async {
        let Some(rate) = rate else { return };
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let mut at = 0.0;
        let mut due = Vec::new();
        while at < seconds {
            at -= uniform(&mut random).ln() / rate;
            due.push(start + Duration::from_secs_f64(at));
        }
        join_all(due.into_iter().map(async |due| {
            tokio::time::sleep_until(due.into()).await;
            ask(engine, LONG_PROMPT, (2, 2), due, &others).await;
        }))
        .await;
    };
    join(texts, prompts).await;
    seen.take().between
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let below = values
        .iter()
        .zip(1..)
        .find(|(_, count)| f64::from(*count) >= q * values.len() as f64);
    *below.unwrap().0
}

fn median(mut values: Vec<f64>) -> f64 {
    quantile(&mut values, 0.5)
}

fn engine(model: &Arc<Model>, tokenizer: &Tokenizer) -> Engine {
    let builder = Engine::builder_from_model(Arc::clone(model), tokenizer.clone());
    // Equal prompts would be encoded once: the words repeat.
    builder
        .threads(THREADS)
        .max_batch(CLIENTS)
        .reuse_budget(0)
        .build()
        .unwrap()
}

async fn throughput(engine: &Engine) {
    let load = load();
    let tokens: usize = load.iter().map(|asked| asked.new_tokens).sum();
    // All at once: what the engine can do at most.
    let (_, seconds) = answer(engine, &load, 1e9, Way::Continuous).await;
    let rate = 2.0 * REQUESTS as f64 / seconds;
    println!(
        "{REQUESTS} requests at {rate:.1} a second, {tokens} new tokens, at most {CLIENTS} at a time, {THREADS} threads; medians of {ROUNDS} rounds"
    );
    let mut runs: Vec<Vec<[f64; 5]>> = vec![Vec::new(); WAYS.len()];
    for _ in 0..ROUNDS {
        for ((_, way), runs) in WAYS.iter().zip(&mut runs) {
            let (mut seen, seconds) = answer(engine, &load, rate, *way).await;
            assert_eq!(seen.tokens, tokens);
            let ms = |values: &mut [f64], q| 1e3 * quantile(values, q);
            runs.push([
                tokens as f64 / seconds,
                ms(&mut seen.first, 0.5),
                ms(&mut seen.first, 0.99),
                ms(&mut seen.between, 0.5),
                ms(&mut seen.between, 0.99),
            ]);
        }
    }
    let medians: Vec<[f64; 5]> = runs
        .iter()
        .map(|runs| std::array::from_fn(|i| median(runs.iter().map(|run| run[i]).collect())))
        .collect();
    println!("| way | tokens/s | of continuous | first token p50 | p99 | between tokens p50 | p99 |");
    println!("|---|---|---|---|---|---|---|");
    for ((name, _), [speed, first, late, gap, long]) in WAYS.iter().zip(&medians) {
        println!(
            "| {name} | {speed:.1} | 1/{:.2} | {first:.0} ms | {late:.0} ms | {gap:.1} ms | {long:.1} ms |",
            medians[0][0] / speed
        );
    }
}

async fn gaps(engine: &Engine) {
    let seconds = 8.0;
    running_text(engine, 1.0, None).await;
    // Long prompts, one after the other, take about half of the time.
    let since = Instant::now();
    ask(engine, LONG_PROMPT, (2, 2), since, &RefCell::new(Seen::default())).await;
    let rate = 0.5 / since.elapsed().as_secs_f64();
    let (mut idle, mut busy): (Vec<[f64; 2]>, Vec<[f64; 2]>) = Default::default();
    for _ in 0..ROUNDS {
        for (rate, runs) in [(None, &mut idle), (Some(rate), &mut busy)] {
            let mut values = running_text(engine, seconds, rate).await;
            runs.push([0.5, 0.99].map(|q| 1e3 * quantile(&mut values, q)));
        }
    }
    let of = |runs: &[[f64; 2]], i: usize| median(runs.iter().map(|run| run[i]).collect());
    println!();
    println!(
        "between the tokens of a running text: alone p50 {:.1} ms, p99 {:.1} ms; while prompts of {LONG_PROMPT} words come in, {rate:.1} a second: p50 {:.1} ms, p99 {:.1} ms; ratio of p99 {:.2}",
        of(&idle, 0),
        of(&idle, 1),
        of(&busy, 0),
        of(&busy, 1),
        of(&busy, 1) / of(&idle, 1)
    );
}

fn main() {
    let json = sentencepiece_to_json(include_bytes!("../tests/fixtures/tokenizer.model")).unwrap();
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    let config = ModelConfig::from_json(CONFIG.as_bytes()).unwrap();
    let model = Arc::new(random_inference_model(&config, 1).unwrap());
    let engine = engine(&model, &tokenizer);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        throughput(&engine).await;
        gaps(&engine).await;
    });
}
