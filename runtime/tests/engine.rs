//! The engine with a small random model: the same answers alone and in company, and typed errors for bad
//! requests.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::{Arc, LazyLock};

use futures_util::{StreamExt, future::join_all};
use multiway_model::testing::{random_inference_model, tiny_config};
use multiway_model::{
    DecoderBatch, DecoderRow, EncoderBatch, EncoderSample, Model, ModelConfig, ProcessedImage,
};
use multiway_prompts::{Prompt, PromptPart};
use multiway_runtime::{
    Engine, EngineBuilder, EngineError, FinishReason, Generation, Request, RequestError, SamplingParams,
    StreamEvent, Tokenizer, sentencepiece_to_json,
};

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    Tokenizer::from_json(&sentencepiece_to_json(include_bytes!("fixtures/tokenizer.model")).unwrap()).unwrap()
});
static MODEL: LazyLock<Arc<Model>> =
    LazyLock::new(|| Arc::new(random_inference_model(&config(), 3).unwrap()));

fn config() -> ModelConfig {
    let mut config = tiny_config();
    config.vocab_size = TOKENIZER.vocab_size();
    config
}

fn builder() -> EngineBuilder<'static> {
    Engine::builder_from_model(Arc::clone(&MODEL), TOKENIZER.clone())
}

fn engine(max_batch: usize, threads: usize) -> Engine {
    builder().max_batch(max_batch).threads(threads).build().unwrap()
}

/// Makes a picture of smooth noise that depends on `seed`.
fn image(seed: u16) -> ProcessedImage {
    let side = config().image_size();
    let pixel = |i: usize| ((i as f32) * 0.37 * (f32::from(seed) + 1.0)).sin();
    ProcessedImage::from_pixels((0..3 * side * side).map(pixel).collect())
}

/// Makes requests of many kinds: with and without pictures, greedy and drawn, short and long.
fn request(n: u16) -> Request {
    let words = [
        "a cat",
        "what is it?",
        "le chat noir",
        "猫",
        "how many circles are there in the picture",
        "ok",
    ];
    let images: Vec<ProcessedImage> = (0..n % 3).map(|i| image(n + i)).collect();
    let mut prompt: Prompt = (0..images.len()).map(PromptPart::Image).collect();
    prompt.push(PromptPart::Text(format!(
        "{} {n}",
        words[usize::from(n) % words.len()]
    )));
    let sampling = SamplingParams {
        max_new_tokens: 1 + usize::from(n * 7 % 20),
        temperature: [0.0, 0.7, 1.3][usize::from(n / 3) % 3],
        top_k: (n % 4 == 1).then_some(50),
        top_p: if n % 5 == 2 { 0.8 } else { 1.0 },
        seed: Some(u64::from(n)),
        prefix: if n.is_multiple_of(2) {
            vec!["<extra_id_0>".to_owned()]
        } else {
            Vec::new()
        },
        ..SamplingParams::default()
    };
    Request {
        prompt,
        images,
        sampling,
        ..Request::default()
    }
}

fn text(text: &str) -> Request {
    Request::new(Prompt::from_text(text), Vec::new())
}

fn bits(answer: &Generation) -> (Vec<u32>, Vec<u32>, String, FinishReason) {
    let log_probabilities = answer.log_probabilities.iter().map(|x| x.to_bits()).collect();
    (
        answer.tokens.clone(),
        log_probabilities,
        answer.text.clone(),
        answer.finish_reason,
    )
}

#[tokio::test]
async fn a_request_is_answered_alone_as_among_63_others() {
    let alone = engine(1, 1);
    let expected: Vec<Generation> = (0..64)
        .map(|n| alone.generate_blocking(request(n)).unwrap())
        .collect();
    for (max_batch, threads) in [(64, 2), (7, 1)] {
        let crowded = engine(max_batch, threads);
        let answers = join_all((0..64).rev().map(|n| {
            let crowded = crowded.clone();
            async move { crowded.generate(request(n)).await.unwrap().wait().await.unwrap() }
        }));
        for (answer, expected) in answers.await.iter().rev().zip(&expected) {
            assert_eq!(bits(answer), bits(expected));
            assert_eq!(answer.usage, expected.usage);
        }
        let stats = crowded.stats();
        assert!(stats.rows > 3 * stats.steps, "requests share steps: {stats:?}");
    }
}

#[test]
fn requests_join_a_running_batch() {
    let engine = engine(8, 1);
    let expected = engine.generate_blocking(request(5)).unwrap();
    let mut long = engine.try_generate(request(2)).unwrap();
    assert!(matches!(
        long.next_blocking(),
        Some(Ok(StreamEvent::Token { .. }))
    ));
    let joined = engine.generate_blocking(request(5)).unwrap();
    assert_eq!(bits(&joined), bits(&expected));
    assert!(long.wait_blocking().is_ok());
}

#[tokio::test]
async fn the_streamed_texts_joined_are_the_answer_and_only_the_last_event_says_finished() {
    let engine = engine(4, 1);
    for n in 0..12 {
        let whole = engine.generate(request(n)).await.unwrap().wait().await.unwrap();
        let events: Vec<_> = engine.generate(request(n)).await.unwrap().collect().await;
        let (last, tokens) = events.split_last().unwrap();
        let mut joined = String::new();
        for event in tokens {
            match event {
                Ok(StreamEvent::Token { text, .. }) => joined.push_str(text),
                other => panic!("{other:?} before the end"),
            }
        }
        assert_eq!(joined, whole.text);
        assert_eq!(TOKENIZER.decode(&whole.tokens), whole.text);
        assert!(matches!(last, Ok(StreamEvent::Finished { usage, .. }) if usage.new_tokens == tokens.len()));
    }
}

#[test]
fn the_same_seed_draws_the_same_and_another_seed_something_else() {
    let engine = engine(4, 1);
    let draw = |seed| {
        let sampling = SamplingParams {
            temperature: 1.5,
            seed,
            max_new_tokens: 12,
            ..SamplingParams::default()
        };
        engine
            .generate_blocking(Request {
                sampling,
                ..text("a")
            })
            .unwrap()
            .tokens
    };
    assert_eq!(draw(Some(1)), draw(Some(1)));
    assert_ne!(draw(Some(1)), draw(Some(2)));
    assert_ne!(
        draw(None),
        draw(None),
        "without a seed each request starts afresh"
    );
}

#[test]
fn usage_counts_tokens_and_patches() {
    let engine = engine(1, 1);
    let prompt: Prompt = [
        PromptPart::Image(0),
        PromptPart::Image(0),
        PromptPart::Text("a cat".into()),
    ]
    .into_iter()
    .collect();
    let sampling = SamplingParams {
        max_new_tokens: 3,
        ..SamplingParams::default()
    };
    let answer = engine
        .generate_blocking(Request {
            prompt,
            images: vec![image(0)],
            sampling,
            ..Request::default()
        })
        .unwrap();
    assert_eq!(
        answer.usage.prompt_tokens,
        TOKENIZER.encode_text("a cat").unwrap().len() + 1
    );
    assert_eq!(answer.usage.image_patches, 2 * config().patches());
    assert_eq!(answer.usage.new_tokens, 3);
    assert!(answer.timings.total >= answer.timings.first_token);
}

/// Decodes a target by hand, one step per token, and lists the log-probabilities of its tokens after the
/// prefix.
fn forced(prompt: &str, prefix: &[u32], candidate: &[u32]) -> Vec<f64> {
    let config = config();
    let mut tokens = TOKENIZER.encode_text(prompt).unwrap();
    tokens.push(config.eos_token_id);
    let batch = EncoderBatch::new(
        &config,
        &[EncoderSample {
            images: &[],
            tokens: &tokens,
        }],
    )
    .unwrap();
    let memory = MODEL
        .prompt_memory(&MODEL.encode(&batch).unwrap())
        .unwrap()
        .remove(0);
    let mut cache = MODEL.new_cache(1, config.max_target_length).unwrap();
    let target: Vec<u32> = [prefix, candidate, &[config.eos_token_id]].concat();
    let mut input = config.decoder_start_token_id;
    let mut log_probabilities = Vec::new();
    for (position, &token) in target.iter().enumerate() {
        let rows = [DecoderRow {
            token: input,
            slot: 0,
            memory: &memory,
        }];
        let logits = MODEL
            .decode_step(&DecoderBatch { rows: &rows }, &mut cache)
            .unwrap();
        let logits: Vec<f64> = logits
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
            .into_iter()
            .map(f64::from)
            .collect();
        if position >= prefix.len() {
            let normalizer = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            log_probabilities.push(logits[token as usize] - normalizer);
        }
        input = token;
    }
    log_probabilities
}

#[test]
fn a_score_is_the_log_probability_of_forced_decoding_token_by_token() {
    let names = [
        "a cat",
        "a car",
        "a caterpillar",
        "",
        "a cat",
        "dog",
        "猫",
        "a",
        "a red car and a blue car",
    ];
    let candidates: Vec<String> = names.map(str::to_owned).to_vec();
    let prefix = TOKENIZER.special("<extra_id_0>").unwrap();
    let sampling = SamplingParams {
        prefix: vec!["<extra_id_0>".to_owned()],
        ..SamplingParams::default()
    };
    let ask = || Request {
        sampling: sampling.clone(),
        ..text("what is this?")
    };
    let together = engine(16, 1)
        .score(ask(), candidates.clone())
        .wait_blocking()
        .unwrap()
        .value;
    for (score, candidate) in together.iter().zip(&candidates) {
        let tokens = TOKENIZER.encode_text(candidate).unwrap();
        assert_eq!(score.tokens, [&tokens[..], &[config().eos_token_id]].concat());
        let expected = forced("what is this?", &[prefix], &tokens);
        assert_eq!(score.log_probabilities.len(), expected.len());
        for (found, expected) in score.log_probabilities.iter().zip(expected) {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-4,
                "{candidate}: {score:?}, {expected}"
            );
        }
        let sum: f64 = score.log_probabilities.iter().copied().map(f64::from).sum();
        assert!(
            (sum - f64::from(score.log_probability)).abs() < 1e-5,
            "{candidate}: {score:?}"
        );
    }
    // With one row at a time there are as many waves as candidates; the scores are the same bits.
    for max_batch in [1, 3] {
        let apart = engine(max_batch, 1)
            .score(ask(), candidates.clone())
            .wait_blocking()
            .unwrap()
            .value;
        assert_eq!(apart, together);
    }
}

#[test]
fn what_candidates_have_in_common_is_decoded_once() {
    let engine = engine(16, 1);
    let names: Vec<String> = ["cat", "dog", "car", "hat", "bus", "sun"]
        .map(|name| format!("a picture of a {name}"))
        .to_vec();
    let tokens: usize = names
        .iter()
        .map(|name| TOKENIZER.encode_text(name).unwrap().len() + 1)
        .sum();
    engine.score(text("?"), names).wait_blocking().unwrap();
    let rows = usize::try_from(engine.stats().rows).unwrap();
    assert!(2 * rows < tokens, "{rows} rows for {tokens} tokens");
}

#[tokio::test]
async fn embeddings_have_unit_length_and_do_not_depend_on_company() {
    let engine = engine(4, 1);
    let embed = |n: u16| {
        let request = request(n);
        engine.embed(request)
    };
    let together = join_all((0..9).map(embed)).await;
    for (n, embedding) in (0..9).zip(together) {
        let embedding = embedding.unwrap();
        assert_eq!(embedding.value.len(), config().embedding_size());
        let length: f32 = embedding.value.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
        assert_eq!(embed(n).await.unwrap().value, embedding.value);
    }
}

#[test]
fn a_picture_alone_is_a_prompt() {
    let request = Request::new(
        Prompt {
            parts: vec![PromptPart::Image(0)],
        },
        vec![image(1)],
    );
    assert!(engine(1, 1).embed(request).wait_blocking().is_ok());
}

#[test]
fn bad_requests_are_refused_with_what_was_expected() {
    let engine = engine(1, 1);
    let sampling = SamplingParams::default();
    let with = |sampling: SamplingParams| Request {
        sampling,
        ..text("a")
    };
    let shows = |count: usize, images: usize| {
        let prompt = (0..count).map(PromptPart::Image).collect();
        Request::new(prompt, (0..images).map(|_| image(0)).collect())
    };
    let special = Prompt {
        parts: vec![PromptPart::Special("<loc_3>".into())],
    };
    let foreign = ProcessedImage::from_pixels(vec![0.0; 3]);
    let cases = [
        text(""),
        text("  \n "),
        text(&"word ".repeat(100)),
        text(&"x".repeat(2 << 20)),
        shows(4, 4),
        shows(2, 1),
        shows(1, 2),
        Request::new(
            Prompt {
                parts: vec![PromptPart::Image(0)],
            },
            vec![foreign],
        ),
        Request::new(special, Vec::new()),
        with(SamplingParams {
            max_new_tokens: 0,
            ..sampling.clone()
        }),
        with(SamplingParams {
            max_new_tokens: 24,
            prefix: vec!["<extra_id_0>".into()],
            ..sampling.clone()
        }),
        with(SamplingParams {
            prefix: vec!["<extra_id_100>".into()],
            ..sampling.clone()
        }),
        with(SamplingParams {
            temperature: f32::NAN,
            ..sampling.clone()
        }),
        with(SamplingParams {
            temperature: -1.0,
            ..sampling.clone()
        }),
        with(SamplingParams {
            top_p: 0.0,
            ..sampling.clone()
        }),
        with(SamplingParams {
            top_k: Some(0),
            ..sampling.clone()
        }),
        with(SamplingParams {
            stop: vec![String::new()],
            ..sampling.clone()
        }),
    ];
    let mut messages: Vec<String> = cases
        .into_iter()
        .map(|request| engine.generate_blocking(request).unwrap_err().to_string())
        .collect();
    for candidates in [Vec::new(), vec!["ok".to_owned(), "word ".repeat(60)]] {
        messages.push(
            engine
                .score(text("a"), candidates)
                .wait_blocking()
                .unwrap_err()
                .to_string(),
        );
    }
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn options_out_of_range_are_refused() {
    let error = builder().max_batch(0).build().unwrap_err();
    assert!(
        matches!(
            error,
            EngineError::Option {
                option: "max_batch",
                found: 0,
                ..
            }
        ),
        "{error}"
    );
    let error = builder().threads(1 << 20).build().unwrap_err();
    insta::assert_snapshot!(error, @"engine option 'threads' is 1048576, expected 1 to 65536");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_requests_some_cancelled_the_others_are_complete() {
    let engine = engine(8, 1);
    let expected: Vec<usize> = (0..100).map(|n| request(n).sampling.max_new_tokens).collect();
    let tasks = (0..100_u16).map(|n| {
        let engine = engine.clone();
        tokio::spawn(async move {
            let mut stream = engine.generate(request(n)).await?;
            if n % 10 == 3 {
                drop(stream.next().await);
                return Ok(None);
            }
            stream.wait().await.map(Some)
        })
    });
    let answers: Vec<Result<Option<Generation>, RequestError>> =
        join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    for (answer, expected) in answers.into_iter().zip(expected) {
        if let Some(answer) = answer.unwrap() {
            assert_eq!(answer.tokens.len(), expected);
            assert_eq!(answer.finish_reason, FinishReason::Length);
        }
    }
}

fn search(n: u16, beams: usize) -> Request {
    let mut request = request(n);
    request.sampling = SamplingParams {
        max_new_tokens: 8,
        beams,
        answers: beams,
        prefix: request.sampling.prefix,
        ..SamplingParams::default()
    };
    request
}

#[tokio::test]
async fn a_search_finds_alone_what_it_finds_among_others() {
    let alone = engine(4, 1);
    let expected: Vec<_> = (0..8)
        .map(|n| {
            alone
                .search(search(n, 2 + usize::from(n % 3)))
                .wait_blocking()
                .unwrap()
                .value
        })
        .collect();
    let crowded = engine(16, 2);
    let searches = join_all((0..8).map(|n| crowded.search(search(n, 2 + usize::from(n % 3)))));
    let others = join_all((0..8).map(|n| {
        let crowded = crowded.clone();
        async move { crowded.generate(request(n)).await.unwrap().wait().await.unwrap() }
    }));
    let (searches, others) = futures_util::future::join(searches, others).await;
    assert_eq!(others.len(), 8);
    for (found, expected) in searches.into_iter().zip(expected) {
        assert_eq!(found.unwrap().value, expected);
    }
}

#[test]
fn a_search_ends_its_text_where_a_stop_string_appears() {
    let engine = engine(4, 1);
    let whole = engine
        .search(search(1, 3))
        .wait_blocking()
        .unwrap()
        .value
        .remove(0);
    let stop = whole
        .text
        .chars()
        .nth(whole.text.chars().count() / 2)
        .unwrap()
        .to_string();
    let mut cut = search(1, 3);
    cut.sampling.stop = vec![stop.clone()];
    let (before, _) = whole.text.split_once(&stop).unwrap();
    assert_eq!(
        engine.search(cut.clone()).wait_blocking().unwrap().value[0].text,
        before
    );
    let streamed = engine.generate_blocking(cut).unwrap();
    assert_eq!(
        (streamed.text.as_str(), streamed.finish_reason),
        (before, FinishReason::StopString)
    );
    assert!(streamed.tokens.len() <= whole.tokens.len());
    assert_eq!(streamed.usage.new_tokens, streamed.tokens.len());
}

#[test]
fn more_beams_than_the_engine_has_slots_are_refused() {
    let refused = engine(2, 1).search(search(1, 3)).wait_blocking().unwrap_err();
    assert!(
        matches!(refused, RequestError::TooManyBeams { found: 3, limit: 2 }),
        "{refused}"
    );
}
