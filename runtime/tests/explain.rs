//! Explanations through the engine: of the answers that it gives, word by word.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::{Arc, LazyLock};

use multiway_model::testing::{random_inference_model, random_quantized_model, tiny_config};
use multiway_model::{
    CacheType, EncoderBatch, EncoderSample, Model, ModelConfig, ProcessedImage, TransportPlan, WeightType,
};
use multiway_prompts::{Prompt, PromptPart};
use multiway_runtime::{
    Engine, ExplainedAnswer, Explanation, Request, RequestError, SamplingParams, Tokenizer,
    sentencepiece_to_json,
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

fn engine() -> Engine {
    let builder = Engine::builder_from_model(Arc::clone(&MODEL), TOKENIZER.clone());
    builder.threads(1).build().unwrap()
}

fn image(seed: u16) -> ProcessedImage {
    let side = config().image_size();
    let pixel = |i: usize| ((i as f32) * 0.37 * (f32::from(seed) + 1.0)).sin();
    ProcessedImage::from_pixels((0..3 * side * side).map(pixel).collect())
}

fn request(pictures: u16, text: &str) -> Request {
    let mut prompt: Prompt = (0..usize::from(pictures)).map(PromptPart::Image).collect();
    prompt.push(PromptPart::Text(text.to_owned()));
    let mut request = Request::new(prompt, (0..pictures).map(image).collect());
    request.sampling = SamplingParams {
        max_new_tokens: 12,
        prefix: vec!["<extra_id_0>".to_owned()],
        ..SamplingParams::default()
    };
    request
}

fn of(tokens: &[u32]) -> ExplainedAnswer {
    ExplainedAnswer {
        tokens: tokens.to_vec(),
        layer: None,
    }
}

fn explain(engine: &Engine, request: Request, answer: ExplainedAnswer) -> Explanation {
    engine.explain(request, answer).wait_blocking().unwrap().value
}

#[track_caller]
fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let farthest = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(farthest <= tolerance, "{farthest}");
}

#[test]
fn the_explained_answer_is_as_probable_as_when_it_was_written() {
    let narrow = random_quantized_model(&config(), 3, WeightType::Int8).unwrap();
    let narrow = Arc::new(narrow.with_cache(CacheType::Int8).unwrap());
    let narrow = Engine::builder_from_model(narrow, TOKENIZER.clone());
    // Keys and values of the narrow cache are rounded, those of the explanation are not.
    for (engine, tolerance) in [(engine(), 1e-4), (narrow.build().unwrap(), 0.05)] {
        for pictures in [1, 2] {
            let request = request(pictures, "what is it?");
            let answer = engine.generate_blocking(request.clone()).unwrap();
            let explanation = explain(&engine, request, of(&answer.tokens));
            assert_close(
                &explanation.log_probabilities,
                &answer.log_probabilities,
                tolerance,
            );
        }
    }
}

#[test]
fn a_word_attends_as_its_tokens_do_in_the_mean_of_heads_and_layers() {
    let engine = engine();
    let request = request(2, "how many?");
    let answer = TOKENIZER.encode_text("a xylophonist twice").unwrap();
    let words = TOKENIZER.words(&answer);
    let start = [0, TOKENIZER.special("<extra_id_0>").unwrap()];
    let read = [&start[..], &answer[..answer.len() - 1]].concat();
    let tokens = TOKENIZER.encode_prompt(&request.prompt).unwrap();
    let sample = EncoderSample {
        images: &request.images,
        tokens: &tokens,
    };
    let encoded = MODEL
        .encode(&EncoderBatch::new(&config(), &[sample]).unwrap())
        .unwrap();
    let weights = MODEL.explain(&encoded, 0, &read).unwrap().cross_attention;
    let (layers, heads, _, sources) = weights.dims4().unwrap();
    let weights: Vec<f32> = weights.flatten_all().unwrap().to_vec1().unwrap();
    let weight = |layer: usize, head: usize, token: usize, source: usize| {
        weights[((layer * heads + head) * read.len() + token) * sources + source]
    };
    let patches = config().patches();
    for layer in [None, Some(0), Some(1)] {
        let answer = ExplainedAnswer {
            tokens: answer.clone(),
            layer,
        };
        let explanation = explain(&engine, request.clone(), answer);
        assert_eq!((explanation.grid, explanation.pictures), (4, 2));
        assert_eq!(explanation.answer.len(), 3);
        let shown = layer.map_or(0..layers, |layer| layer..layer + 1);
        for (word, tokens) in explanation.answer.iter().zip(&words) {
            assert_eq!(word.text, tokens.text);
            // A token was written by the row of the token before it, behind the start token.
            let mean = |source: usize| {
                let mut sum = 0.0;
                for token in tokens.tokens.clone() {
                    for layer in shown.clone() {
                        sum += (0..heads)
                            .map(|head| weight(layer, head, token + 1, source))
                            .sum::<f32>();
                    }
                }
                sum / (tokens.tokens.len() * shown.len() * heads) as f32
            };
            for (picture, found) in word.patches.iter().enumerate() {
                let first = picture * (patches + 1) + 1;
                let expected: Vec<f32> = (first..first + patches).map(mean).collect();
                assert_close(found, &expected, 1e-5);
            }
            assert!((word.class_share - mean(0) - mean(patches + 1)).abs() < 1e-5);
            let shares = word.picture_share() + word.class_share + word.text_share;
            assert!((shares - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn the_alignment_is_optimal_transport_between_the_words_and_the_patches() {
    let engine = engine();
    let request = request(1, "how many cats");
    let tokens = TOKENIZER.encode_prompt(&request.prompt).unwrap();
    let sample = EncoderSample {
        images: &request.images,
        tokens: &tokens,
    };
    let encoded = MODEL
        .encode(&EncoderBatch::new(&config(), &[sample]).unwrap())
        .unwrap();
    let mut distances: Vec<Vec<f32>> = encoded.text_patch_distances(0).unwrap().to_vec2().unwrap();
    // The closing </s> is no word.
    distances.pop();
    let plan = TransportPlan::new(&distances).unwrap();
    let explanation = explain(&engine, request, ExplainedAnswer::default());
    assert!(explanation.answer.is_empty() && explanation.log_probabilities.is_empty());
    let alignment = explanation.alignment.unwrap();
    assert!((alignment.distance - plan.cost()).abs() < 1e-5);
    let texts: Vec<&str> = alignment.words.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(texts, ["how", "many", "cats"]);
    for (word, tokens) in alignment.words.iter().zip(TOKENIZER.words(&tokens)) {
        let count = tokens.tokens.len() as f64;
        let of_patch = |patch: usize| {
            let mass: f64 = plan.rows()[tokens.tokens.clone()]
                .iter()
                .map(|row| row[patch])
                .sum();
            let share = mass * distances.len() as f64 / count;
            #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
            let share = share as f32;
            share
        };
        let expected: Vec<f32> = (0..config().patches()).map(of_patch).collect();
        assert_close(&word.patches.concat(), &expected, 1e-4);
        assert!((word.patches.iter().flatten().sum::<f32>() - 1.0).abs() < 1e-5);
    }
}

#[test]
fn cached_pictures_and_running_requests_change_nothing() {
    let engine = engine();
    let answer = of(&TOKENIZER.encode_text("a cat").unwrap());
    let alone = explain(&engine, request(2, "what is it?"), answer.clone());
    let running = engine.try_generate(request(2, "how many?")).unwrap();
    let again = explain(&engine, request(2, "what is it?"), answer);
    running.wait_blocking().unwrap();
    assert_eq!(alone.answer.len(), again.answer.len());
    for (a, b) in alone.answer.iter().zip(&again.answer) {
        assert_close(&a.patches.concat(), &b.patches.concat(), 1e-6);
    }
}

#[test]
fn the_end_of_an_answer_is_no_word_and_special_tokens_are() {
    let engine = engine();
    let gap = TOKENIZER.special("<extra_id_1>").unwrap();
    let tokens = [TOKENIZER.encode_text("cat").unwrap(), vec![gap, 1]].concat();
    let explanation = explain(&engine, request(1, "a"), of(&tokens));
    let texts: Vec<&str> = explanation.answer.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(texts, ["cat", "<extra_id_1>"]);
    assert_eq!(explanation.log_probabilities.len(), tokens.len());
}

#[test]
fn what_cannot_be_explained_is_refused_with_the_reason() {
    let engine = engine();
    let refused = |request, answer| engine.explain(request, answer).wait_blocking().unwrap_err();
    let nothing = refused(request(0, "what is it?"), of(&[5, 1]));
    assert_eq!(
        nothing.to_string(),
        "there is nothing to explain: the prompt shows no image"
    );
    let layer = ExplainedAnswer {
        tokens: vec![5, 1],
        layer: Some(2),
    };
    assert_eq!(
        refused(request(1, "a"), layer),
        RequestError::ExplainedLayer { found: 2, layers: 2 }
    );
    let long = refused(request(1, "a"), of(&[5; 40]));
    assert!(matches!(long, RequestError::CandidateTooLong { found: 41, .. }));
    assert!(long.is_caller_fault() && nothing.is_caller_fault());
    let mut picture = request(1, "");
    picture.prompt = [PromptPart::Image(0)].into_iter().collect();
    let empty = refused(picture, ExplainedAnswer::default());
    assert!(matches!(empty, RequestError::NothingToExplain { .. }));
}
