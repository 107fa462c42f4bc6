//! A thousand requests at once, many of whose clients go away or never read.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, join_all};
use multiway_model::testing::{random_inference_model, tiny_config};
use multiway_model::{ModelConfig, ProcessedImage};
use multiway_prompts::{Prompt, PromptPart};
use multiway_runtime::{Engine, Request, SamplingParams, StreamEvent, Tokenizer, sentencepiece_to_json};
use peak_alloc::PeakAlloc;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const REQUESTS: usize = 1000;
const BUDGET: usize = 600_000;
/// What a step computes with, and a thousand requests that wait with their pictures and streams.
const BESIDE: usize = 24 << 20;

fn config(tokenizer: &Tokenizer) -> ModelConfig {
    let mut config = tiny_config();
    config.vocab_size = tokenizer.vocab_size();
    config
}

fn below(random: &mut ChaCha8Rng, limit: usize) -> usize {
    random.next_u32() as usize % limit
}

/// Makes a request that writes exactly `tokens` tokens.
fn request(random: &mut ChaCha8Rng, image_size: usize, tokens: usize) -> Request {
    let shade = below(random, 9) as f32 / 9.0;
    let images: Vec<ProcessedImage> = (0..below(random, 3))
        .map(|_| ProcessedImage::from_pixels(vec![shade; 3 * image_size * image_size]))
        .collect();
    let mut prompt: Prompt = (0..images.len()).map(PromptPart::Image).collect();
    let words = 1 + below(random, 5);
    prompt.push(PromptPart::Text("a cat ".repeat(words)));
    let sampling = SamplingParams {
        max_new_tokens: tokens,
        min_new_tokens: tokens,
        temperature: below(random, 2) as f32,
        seed: Some(u64::from(random.next_u32())),
        ..SamplingParams::default()
    };
    Request {
        prompt,
        images,
        sampling,
        ..Request::default()
    }
}

/// What a client does, and whether it saw its request through.
fn client(engine: &Engine, index: usize, random: &mut ChaCha8Rng) -> BoxFuture<'static, bool> {
    let engine = engine.clone();
    let tokens = 1 + below(random, 20);
    let mut request = request(random, engine.config().image_size(), tokens);
    match index % 20 {
        // One in ten goes away after some tokens, or none.
        0 | 1 => {
            let read = below(random, tokens + 1);
            async move {
                let mut stream = engine.generate(request).await.unwrap();
                for _ in 0..read {
                    stream.next().await;
                }
                false
            }
            .boxed()
        }
        3 => async move { engine.embed(request).await.unwrap().value.len() == 16 }.boxed(),
        4 => {
            let names = ["a cat", "dog", "a cat sat"].map(str::to_owned).to_vec();
            async move { engine.score(request, names).await.unwrap().value.len() == 3 }.boxed()
        }
        5 => {
            (request.sampling.beams, request.sampling.temperature) = (3, 0.0);
            request.sampling.answers = 2;
            async move {
                let found = engine.search(request).await.unwrap().value;
                found.len() == 2 && found.iter().all(|answer| answer.tokens.len() == tokens)
            }
            .boxed()
        }
        6 => {
            (request.sampling.samples, request.sampling.temperature) = (3, 1.0);
            async move {
                let drawn = engine.samples(request).await.unwrap().value;
                drawn.len() == 3 && drawn.iter().all(|answer| answer.tokens.len() == tokens)
            }
            .boxed()
        }
        _ => async move {
            let mut stream = engine.generate(request).await.unwrap();
            let mut written = 0;
            let mut counted = None;
            while let Some(event) = stream.next().await {
                match event.unwrap() {
                    StreamEvent::Token { .. } => written += 1,
                    StreamEvent::Finished { usage, .. } => counted = Some(usage.new_tokens),
                    _ => {}
                }
            }
            written == tokens && counted == Some(tokens)
        }
        .boxed(),
    }
}

#[tokio::test]
async fn load_and_cancel() {
    let json = sentencepiece_to_json(include_bytes!("fixtures/tokenizer.model")).unwrap();
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    let config = config(&tokenizer);
    let model = Arc::new(random_inference_model(&config, 3).unwrap());
    let engine = Engine::builder_from_model(model, tokenizer)
        .max_batch(16)
        .queue_capacity(2 * REQUESTS)
        .encode_budget(256)
        .memory_budget(BUDGET)
        .reuse_budget(100_000)
        .build()
        .unwrap();
    let run = async |seed: u64| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        // One in twenty asks and never reads; what it was sent waits in its stream.
        let deaf = (0..REQUESTS).filter(|index| index % 20 == 2);
        let mut silent = Vec::new();
        for _ in deaf {
            let tokens = 1 + below(&mut random, 20);
            let request = request(&mut random, config.image_size(), tokens);
            silent.push((engine.generate(request).await.unwrap(), tokens));
        }
        let others = (0..REQUESTS).filter(|index| index % 20 != 2);
        let clients: Vec<_> = others
            .map(|index| (index, client(&engine, index, &mut random)))
            .collect();
        let (indices, clients): (Vec<usize>, Vec<_>) = clients.into_iter().unzip();
        let ended = join_all(clients.into_iter().map(tokio::spawn)).await;
        for (index, ended) in indices.into_iter().zip(ended) {
            assert_eq!(ended.unwrap(), index % 20 > 1, "request {index}");
        }
        for (stream, tokens) in silent {
            let answer = stream.wait().await.unwrap();
            assert_eq!(answer.tokens.len(), tokens, "it was written all the same");
        }
        // A request that comes last: what went before it is done with.
        while engine.stats().running + engine.stats().waiting > 0 {
            let last = Request::new(Prompt::from_text("a"), Vec::new());
            engine.embed(last).await.unwrap();
        }
    };
    // What is made once and kept, pools and thread-local stores, is made by the first run.
    run(1).await;
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    run(2).await;
    let (after, peak) = (ALLOCATOR.current_usage(), ALLOCATOR.peak_usage());
    let stats = engine.stats();
    assert_eq!((stats.free_slots, stats.memory_bytes), (16, 0));
    assert_eq!(stats.failed, 0);
    assert!(stats.cancelled > 0, "{stats:?}");
    assert!(
        stats.peak_memory_bytes <= BUDGET && stats.peak_memory_bytes > BUDGET / 2,
        "{} of {BUDGET} bytes",
        stats.peak_memory_bytes
    );
    assert!(after < before + (1 << 20), "{before} bytes before, {after} after");
    assert!(
        peak < before + BUDGET + BESIDE,
        "{before} bytes before, {peak} at most"
    );
}
