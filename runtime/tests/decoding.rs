//! What a request says of decoding, through the engine with a small random model.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use futures_util::future::{join, join_all};
use multiway_model::testing::{random_inference_model, tiny_config};
use multiway_model::{DecoderBatch, DecoderRow, EncoderBatch, EncoderSample, Model, ModelConfig};
use multiway_prompts::Prompt;
use multiway_runtime::{
    Engine, Generation, Request, RequestError, SamplingParams, Tokenizer, sentencepiece_to_json,
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

fn engine(max_batch: usize) -> Engine {
    let builder = Engine::builder_from_model(Arc::clone(&MODEL), TOKENIZER.clone());
    builder.max_batch(max_batch).threads(1).build().unwrap()
}

fn ask(text: &str, change: impl FnOnce(&mut SamplingParams)) -> Request {
    let mut request = Request::new(Prompt::from_text(text), Vec::new());
    request.sampling.max_new_tokens = 12;
    change(&mut request.sampling);
    request
}

/// Writes the likeliest tokens by hand, one model step each, after `change` of the logits by what was
/// written.
fn by_hand(prompt: &str, prefix: &[u32], count: usize, change: impl Fn(&[u32], &mut [f32])) -> Vec<u32> {
    let config = config();
    let mut tokens = TOKENIZER.encode_text(prompt).unwrap();
    tokens.push(config.eos_token_id);
    let sample = EncoderSample {
        images: &[],
        tokens: &tokens,
    };
    let batch = EncoderBatch::new(&config, &[sample]).unwrap();
    let encoded = MODEL.encode(&batch).unwrap();
    let memory = MODEL.prompt_memory(&encoded).unwrap().remove(0);
    let mut cache = MODEL.new_cache(1, config.max_target_length).unwrap();
    let mut step = |token: u32| {
        let row = DecoderRow {
            token,
            slot: 0,
            memory: &memory,
        };
        let logits = MODEL.decode_step(&DecoderBatch { rows: &[row] }, &mut cache);
        logits.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let mut logits = step(config.decoder_start_token_id);
    prefix.iter().for_each(|token| logits = step(*token));
    let mut written = Vec::new();
    while written.len() < count {
        change(&written, &mut logits);
        // The first of equal ones.
        let best = (0_u32..).zip(&logits).min_by(|a, b| b.1.total_cmp(a.1));
        let token = best.unwrap().0;
        written.push(token);
        logits = step(token);
    }
    written
}

#[test]
fn penalties_count_what_the_model_wrote_and_neither_the_prompt_nor_the_prefix() {
    let engine = engine(2);
    let prefix = TOKENIZER.special("<extra_id_0>").unwrap();
    let plain = by_hand("a cat", &[prefix], 12, |_, _| {});
    assert!(
        plain.windows(2).any(|pair| pair[0] == pair[1]),
        "there is something to penalise: {plain:?}"
    );
    for (presence, frequency) in [(2.0, 0.0), (0.0, 0.5), (-0.5, 1.5)] {
        let expected = by_hand("a cat", &[prefix], 12, |written, logits| {
            for (id, logit) in (0..).zip(logits) {
                let count = written.iter().filter(|token| **token == id).count();
                if count > 0 {
                    *logit -= frequency * count as f32;
                    *logit -= presence;
                }
            }
        });
        let request = ask("a cat", |p| {
            p.prefix = vec!["<extra_id_0>".to_owned()];
            (p.presence_penalty, p.frequency_penalty) = (presence, frequency);
        });
        let found = engine.generate_blocking(request).unwrap().tokens;
        assert_eq!(found, expected, "{presence}, {frequency}");
        assert_ne!(found, plain, "{presence}, {frequency}");
    }
}

#[test]
fn a_bias_decides_what_is_written_alone_and_with_beams() {
    let engine = engine(4);
    let cat = *TOKENIZER.encode_text("cat").unwrap().last().unwrap();
    let biased = |beams: usize| {
        ask("a", |p| {
            p.logit_bias = [(cat, 100.0)].into();
            p.beams = beams;
        })
    };
    assert_eq!(engine.generate_blocking(biased(1)).unwrap().tokens, [cat; 12]);
    assert_eq!(
        engine.search(biased(3)).wait_blocking().unwrap().value[0].tokens,
        [cat; 12]
    );
}

#[test]
fn a_bias_for_a_token_that_does_not_exist_is_refused() {
    let id = u32::try_from(TOKENIZER.vocab_size()).unwrap();
    let request = ask("a", |p| p.logit_bias = [(id, 1.0)].into());
    let refused = engine(1).generate_blocking(request).unwrap_err();
    let expected = RequestError::UnknownToken {
        id,
        vocabulary: TOKENIZER.vocab_size(),
    };
    assert_eq!(refused, expected);
}

#[test]
fn beams_are_penalised_for_what_each_has_written() {
    let engine = engine(4);
    let cat = *TOKENIZER.encode_text("cat").unwrap().last().unwrap();
    let score = |frequency: f32, presence: f32| {
        let request = ask("a", |p| {
            // So likely that it is written whatever is taken from it.
            p.logit_bias = [(cat, 100.0)].into();
            p.prefix = vec!["cat".to_owned()];
            (p.frequency_penalty, p.presence_penalty) = (frequency, presence);
            (p.beams, p.max_new_tokens) = (2, 5);
        });
        let best = engine.search(request).wait_blocking().unwrap().value.remove(0);
        assert_eq!(best.tokens, [cat; 5]);
        best.score
    };
    let plain = score(0.0, 0.0);
    // 0 + 1 + 2 + 3 + 4 earlier ones, four steps with an earlier one, over five tokens.
    assert!((plain - score(1.5, 0.0) - 1.5 * 10.0 / 5.0).abs() < 1e-3);
    assert!((plain - score(0.0, 1.0) - 4.0 / 5.0).abs() < 1e-3);
}

#[test]
fn the_likeliest_tokens_come_along_and_the_greedy_choice_is_the_first_of_them() {
    let engine = engine(2);
    let request = |count: usize| {
        ask("a cat", |p| {
            (p.top_log_probabilities, p.presence_penalty) = (count, 0.5);
        })
    };
    let plain = engine.generate_blocking(request(0)).unwrap();
    assert!(plain.alternatives.is_empty());
    let told = engine.generate_blocking(request(4)).unwrap();
    assert_eq!(told.tokens, plain.tokens);
    assert_eq!(told.alternatives.len(), told.tokens.len());
    for (position, likeliest) in told.alternatives.iter().enumerate() {
        assert_eq!(likeliest.len(), 4);
        assert_eq!(likeliest[0].id, told.tokens[position]);
        let own = told.log_probabilities[position];
        assert_eq!(likeliest[0].log_probability.to_bits(), own.to_bits());
        assert!(likeliest.is_sorted_by(|a, b| a.log_probability >= b.log_probability));
    }
}

#[test]
fn a_drawn_token_is_told_with_the_likeliest_ones_and_drawn_as_without_them() {
    let engine = engine(1);
    let request = |count: usize| {
        ask("a cat", |p| {
            (p.top_log_probabilities, p.temperature, p.seed) = (count, 3.0, Some(1));
        })
    };
    let (plain, told) = (request(0), request(1));
    let plain = engine.generate_blocking(plain).unwrap();
    let told = engine.generate_blocking(told).unwrap();
    assert_eq!(told.tokens, plain.tokens);
    let likeliest: Vec<f32> = told
        .alternatives
        .iter()
        .map(|one| one[0].log_probability)
        .collect();
    let own = &told.log_probabilities;
    assert!(likeliest.iter().zip(own).all(|(most, own)| most >= own));
    assert!(
        likeliest.iter().zip(own).any(|(most, own)| most > own),
        "at this temperature other tokens are drawn"
    );
}

#[test]
fn beams_are_not_told_with_alternatives() {
    let with = |beams: usize| {
        ask("a", |p| {
            (p.beams, p.top_log_probabilities) = (beams, 2);
        })
    };
    let engine = engine(4);
    for refused in [
        engine.generate_blocking(with(2)).unwrap_err(),
        engine.search(with(1)).wait_blocking().unwrap_err(),
    ] {
        let name = "top_log_probabilities";
        assert!(
            matches!(&refused, RequestError::Parameter { name: found, .. } if *found == name),
            "{refused}"
        );
    }
}

fn bits(answers: &[Generation]) -> Vec<(Vec<u32>, Vec<u32>, String)> {
    let bits = |answer: &Generation| {
        let log_probabilities = answer.log_probabilities.iter().map(|x| x.to_bits()).collect();
        (answer.tokens.clone(), log_probabilities, answer.text.clone())
    };
    answers.iter().map(bits).collect()
}

/// Asks for answers of different lengths, with a prefix and penalties.
fn samples(seed: u64, count: usize) -> Request {
    ask("a cat", |p| {
        (p.samples, p.temperature, p.seed) = (count, 1.3, Some(seed));
        (p.top_k, p.frequency_penalty, p.min_new_tokens) = (Some(100), 0.5, 2);
        p.prefix = vec!["<extra_id_0>".to_owned()];
        p.logit_bias = [(config().eos_token_id, 4.0)].into();
    })
}

#[test]
fn a_sample_is_the_same_however_many_are_drawn_and_the_first_is_what_generate_writes() {
    let engine = engine(8);
    let eight = bits(&engine.samples(samples(5, 8)).wait_blocking().unwrap().value);
    for count in [1, 2, 5] {
        let fewer = bits(&engine.samples(samples(5, count)).wait_blocking().unwrap().value);
        assert_eq!(fewer, eight[..count]);
    }
    let alone = engine.generate_blocking(samples(5, 1)).unwrap();
    assert_eq!(bits(&[alone]), eight[..1]);
    let distinct: BTreeSet<&Vec<u32>> = eight.iter().map(|(tokens, ..)| tokens).collect();
    assert!(distinct.len() > 4, "{distinct:?}");
    let lengths: BTreeSet<usize> = distinct.iter().map(|tokens| tokens.len()).collect();
    assert!(lengths.len() > 1, "they end at different steps: {lengths:?}");
}

#[tokio::test]
async fn samples_are_the_same_alone_and_in_any_company() {
    let alone = engine(6);
    let mut expected = Vec::new();
    for n in 0..6_u32 {
        let request = samples(n.into(), 1 + n as usize);
        expected.push(bits(&alone.samples(request).await.unwrap().value));
    }
    let crowded = engine(16);
    let groups = join_all((0..6_u32).map(|n| crowded.samples(samples(n.into(), 1 + n as usize))));
    let others = join_all((0..6_u64).map(|n| {
        let crowded = &crowded;
        let request = samples(n, 1);
        async move { crowded.generate(request).await.unwrap().wait().await.unwrap() }
    }));
    let (groups, others) = join(groups, others).await;
    for ((group, other), expected) in groups.into_iter().zip(others).zip(expected) {
        assert_eq!(bits(&group.unwrap().value), expected);
        assert_eq!(bits(&[other]), expected[..1]);
    }
}

#[test]
fn the_best_of_many_have_the_highest_log_probability_per_token() {
    let engine = engine(8);
    let all = engine.samples(samples(3, 8)).wait_blocking().unwrap().value;
    let mean = |answer: &Generation| {
        let sum: f64 = answer.log_probabilities.iter().copied().map(f64::from).sum();
        sum / answer.tokens.len() as f64
    };
    let mut order: Vec<usize> = (0..8).collect();
    order.sort_by(|a, b| mean(&all[*b]).total_cmp(&mean(&all[*a])));
    assert_ne!(
        order[0], 0,
        "another than the first is the best, so that there is something to rank"
    );
    let drawn = bits(&all);
    let ranked: Vec<_> = order.iter().map(|sample| drawn[*sample].clone()).collect();
    for count in [1, 3, 8] {
        let mut request = samples(3, count);
        request.sampling.best_of = Some(8);
        let best = engine.samples(request).wait_blocking().unwrap().value;
        assert_eq!(bits(&best), ranked[..count]);
    }
}

#[test]
fn without_a_seed_samples_differ_from_each_other_and_from_call_to_call() {
    let engine = engine(4);
    let draw = || {
        let mut request = samples(0, 4);
        request.sampling.seed = None;
        bits(&engine.samples(request).wait_blocking().unwrap().value)
    };
    let (first, second) = (draw(), draw());
    assert_ne!(first, second);
    assert!(first.iter().any(|sample| *sample != first[0]));
}

#[test]
fn samples_that_cannot_be_drawn_are_refused() {
    let engine = engine(4);
    let with = |change: fn(&mut SamplingParams)| {
        let mut request = samples(0, 2);
        change(&mut request.sampling);
        engine.samples(request).wait_blocking().unwrap_err().to_string()
    };
    let refusals = [
        with(|p| p.samples = 5),
        with(|p| p.best_of = Some(5)),
        with(|p| p.best_of = Some(1)),
        with(|p| p.temperature = 0.0),
        with(|p| (p.samples, p.temperature, p.beams) = (1, 0.0, 2)),
        engine.generate_blocking(samples(0, 2)).unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}
