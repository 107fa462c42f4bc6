//! What is kept of encoded prompts changes how much is computed, and nothing else.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::{Arc, LazyLock};

use futures_util::future::{BoxFuture, FutureExt, join_all};
use multiway_model::testing::{random_inference_model, tiny_config};
use multiway_model::{AttentionPattern, CacheType, Model, ModelConfig, ProcessedImage};
use multiway_prompts::{Prompt, PromptPart};
use multiway_runtime::{Engine, Request, SamplingParams, Tokenizer, sentencepiece_to_json};

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    Tokenizer::from_json(&sentencepiece_to_json(include_bytes!("fixtures/tokenizer.model")).unwrap()).unwrap()
});

fn config(pattern: AttentionPattern) -> ModelConfig {
    let mut config = tiny_config();
    config.vocab_size = TOKENIZER.vocab_size();
    config.attention_pattern = pattern;
    config
}

fn image(which: u16) -> ProcessedImage {
    let side = tiny_config().image_size();
    let pixel = |i: usize| ((i as f32) * 0.37 * (f32::from(which) + 1.0)).sin();
    ProcessedImage::from_pixels((0..3 * side * side).map(pixel).collect())
}

/// Makes the `n`-th of requests that often show the same pictures in the same or another order, and often ask
/// the same.
fn request(n: u16) -> Request {
    let shown: &[u16] = [&[0][..], &[1], &[0, 1], &[1, 0], &[], &[0, 0]][usize::from(n % 6)];
    let texts = ["what is it?", "a cat", "how many?", "le chat"];
    let mut prompt: Prompt = (0..shown.len()).map(PromptPart::Image).collect();
    prompt.push(PromptPart::Text(texts[usize::from(n / 6 % 4)].to_owned()));
    let sampling = SamplingParams {
        max_new_tokens: 1 + usize::from(n % 7),
        temperature: f32::from(n / 5 % 2),
        seed: Some(n.into()),
        ..SamplingParams::default()
    };
    Request {
        prompt,
        images: shown.iter().map(|which| image(*which)).collect(),
        sampling,
        ..Request::default()
    }
}

/// Everything that an answer to the `n`-th request says, as bits.
fn ask(engine: &Engine, n: u16) -> BoxFuture<'_, Vec<u32>> {
    let mut request = request(n);
    async move {
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        match n % 11 {
            0 => bits(&engine.embed(request).await.unwrap().value),
            1 => {
                let names = vec!["a cat".to_owned(), "dog".to_owned()];
                let scores = engine.score(request, names).await.unwrap().value;
                bits(
                    &scores
                        .iter()
                        .map(|score| score.log_probability)
                        .collect::<Vec<_>>(),
                )
            }
            2 if !request.images.is_empty() => {
                let codes = engine.uncover(request, vec![1, 7], 3).await.unwrap().value;
                let each = codes.iter().flatten();
                each.flat_map(|code| [code.code, code.log_probability.to_bits()])
                    .collect()
            }
            3 => {
                (request.sampling.beams, request.sampling.temperature) = (3, 0.0);
                let found = engine.search(request).await.unwrap().value;
                found.iter().flat_map(|answer| answer.tokens.clone()).collect()
            }
            _ => {
                let answer = engine.generate(request).await.unwrap().wait().await.unwrap();
                let scores = bits(&answer.log_probabilities);
                answer.tokens.into_iter().chain(scores).collect()
            }
        }
    }
    .boxed()
}

#[tokio::test]
async fn prefix_reuse_changes_nothing() {
    for (pattern, cache) in [
        (AttentionPattern::ImagePrefix, CacheType::F32),
        (AttentionPattern::Joint, CacheType::F32),
        (AttentionPattern::ImagePrefix, CacheType::Bf16),
        (AttentionPattern::ImagePrefix, CacheType::Int8),
    ] {
        let model = random_inference_model(&config(pattern), 6).unwrap();
        let model: Arc<Model> = Arc::new(model.with_cache(cache).unwrap());
        let build = |bytes: usize, max_batch: usize| {
            let builder = Engine::builder_from_model(Arc::clone(&model), TOKENIZER.clone());
            builder
                .threads(1)
                .max_batch(max_batch)
                .reuse_budget(bytes)
                .build()
                .unwrap()
        };
        let without = build(0, 8);
        let mut expected = Vec::new();
        for n in 0..120 {
            expected.push(ask(&without, n).await);
        }
        let stats = without.stats();
        assert_eq!(
            (stats.reused_prompts, stats.reused_pictures, stats.reuse_bytes),
            (0, 0, 0)
        );
        // All is kept; a little is, and most is forgotten and made again; few at a time, and many at once.
        for (bytes, max_batch) in [(64 << 20, 3), (64 << 20, 32), (40_000, 8)] {
            let with = build(bytes, max_batch);
            for round in 0..2 {
                let answers = join_all((0..120).map(|n| ask(&with, n))).await;
                for (n, (answer, expected)) in answers.iter().zip(&expected).enumerate() {
                    assert_eq!(
                        answer, expected,
                        "request {n}, round {round}, {bytes} bytes, {pattern:?}, {cache}"
                    );
                }
            }
            // Two questions about one picture, one after the other: the budget is enough for one.
            for n in [6, 18] {
                assert_eq!(ask(&with, n).await, expected[usize::from(n)]);
            }
            let stats = with.stats();
            assert!(stats.reused_prompts > 50 || bytes == 40_000, "{stats:?}");
            let pictures = stats.reused_pictures > 0;
            assert_eq!(pictures, pattern == AttentionPattern::ImagePrefix, "{stats:?}");
            assert!(stats.reuse_bytes <= bytes && stats.reuse_bytes > 0, "{stats:?}");
        }
    }
}

#[test]
fn the_same_pixels_are_the_same_picture_and_others_are_not() {
    let model = Arc::new(random_inference_model(&config(AttentionPattern::ImagePrefix), 6).unwrap());
    let engine = Engine::builder_from_model(model, TOKENIZER.clone())
        .threads(1)
        .build()
        .unwrap();
    let ask = |which: u16, text: &str| {
        let mut prompt: Prompt = [PromptPart::Image(0)].into_iter().collect();
        prompt.push(PromptPart::Text(text.to_owned()));
        let mut request = Request::new(prompt, vec![image(which)]);
        request.sampling.max_new_tokens = 2;
        engine.generate_blocking(request).unwrap();
        // An answer may come before its step is counted; whatever comes later is counted after it.
        engine
            .embed(Request::new(Prompt::from_text(text), Vec::new()))
            .wait_blocking()
            .unwrap();
        engine.stats().reused_pictures
    };
    assert_eq!(ask(0, "one"), 0);
    assert_eq!(ask(0, "two"), 1);
    assert_eq!(ask(1, "two"), 1);
    assert_eq!(ask(0, "three"), 2);
}
