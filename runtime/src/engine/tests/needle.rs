//! One request among random neighbours gives what it gives alone, to the bit; and the test that says so can
//! fail.

use std::collections::HashMap;

use futures_util::future::{FutureExt, LocalBoxFuture, join_all};
use multiway_model::testing::inference_model;
use multiway_model::{CacheType, ProcessedImage, Tensor, initialise};
use multiway_prompts::PromptPart;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::json;

use super::*;
use crate::answer::{Generation, Hypothesis, Score};
use crate::engine::readout::{EncodedPrompt, PromptToEncode};
use crate::engine::reuse::ReuseCounts;
use crate::generation::GenerationConfig;
use crate::scheduler::Resources;

type Random = rand_chacha::ChaCha8Rng;

/// A way of answering, with everything that can be set about it.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Greedy,
    Temperature,
    TopK,
    TopP,
    MinP,
    Typical,
    Penalties,
    NoRepeat,
    Minimum,
    Bias,
    Stop,
    Alternatives,
    Beams,
    Samples,
    BestOf,
    Choices,
    Regex,
    JsonSchema,
    Lark,
    ConstrainedSamples,
    Score,
    Embed,
}

const MODES: [Mode; 22] = [
    Mode::Greedy,
    Mode::Temperature,
    Mode::TopK,
    Mode::TopP,
    Mode::MinP,
    Mode::Typical,
    Mode::Penalties,
    Mode::NoRepeat,
    Mode::Minimum,
    Mode::Bias,
    Mode::Stop,
    Mode::Alternatives,
    Mode::Beams,
    Mode::Samples,
    Mode::BestOf,
    Mode::Choices,
    Mode::Regex,
    Mode::JsonSchema,
    Mode::Lark,
    Mode::ConstrainedSamples,
    Mode::Score,
    Mode::Embed,
];

/// Everything that an answer says, as bits.
type Bits = Vec<u32>;

fn below(random: &mut Random, limit: usize) -> usize {
    random.next_u32() as usize % limit
}

/// Makes a prompt of up to three pictures and some words.
fn prompt(random: &mut Random) -> Request {
    let words = [
        "a cat",
        "what is it?",
        "le chat noir",
        "猫",
        "how many circles are there",
        "ok",
    ];
    let images: Vec<ProcessedImage> = (0..below(random, 4)).map(|_| picture(below(random, 3))).collect();
    let mut prompt: Prompt = (0..images.len()).map(PromptPart::Image).collect();
    for _ in 0..=below(random, 3) {
        prompt.push(PromptPart::Text(words[below(random, 6)].to_owned()));
    }
    Request {
        prompt,
        images,
        ..Request::default()
    }
}

/// Makes one of a few pictures.
fn picture(which: usize) -> ProcessedImage {
    let side = config().image_size();
    let pixel = |i: usize| ((i as f32) * 0.37 * (which as f32 + 1.0)).sin();
    ProcessedImage::from_pixels((0..3 * side * side).map(pixel).collect())
}

/// Makes one of two constraints of the mode's kind: neighbours have what was compiled in common, or something
/// else.
fn constraint(mode: Mode, random: &mut Random) -> Option<Constraint> {
    let which = below(random, 2);
    let choices = [["cat", "cat face", "dog"], ["a cat", "a car", "猫"]];
    let patterns = ["[a-z]{2,5}( [a-z]+)*", "(le|a) (chat|cat)s?[0-9]{1,6}"];
    let schemas = [
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 1}),
        json!({"type": "object", "properties": {"n": {"type": "number"}, "ok": {"type": "boolean"}}, "required": ["n"]}),
    ];
    let grammars = [
        "start: /[a-z]+/ (\", \" /[a-z]+/)*",
        "start: item\nitem: /[a-z0-9]/ | \"(\" item+ \")\"",
    ];
    Some(match mode {
        Mode::Choices => Constraint::Choices(choices[which].map(str::to_owned).to_vec()),
        Mode::Regex | Mode::ConstrainedSamples => Constraint::Regex(patterns[which].to_owned()),
        Mode::JsonSchema => Constraint::JsonSchema(schemas[which].clone()),
        Mode::Lark => Constraint::Lark(grammars[which].to_owned()),
        _ => return None,
    })
}

/// Makes a constrained answer greedy or drawn, and long enough for every constraint, but not for what most
/// would become.
fn constrain(p: &mut SamplingParams, mode: Mode, random: &mut Random) {
    p.constraint = constraint(mode, random);
    p.max_new_tokens = 10 + below(random, 10);
    p.temperature = [0.0, 1.2][below(random, 2)];
    p.repetition_penalty = [1.0, 1.3][below(random, 2)];
    p.top_log_probabilities = 3;
}

fn sampling(mode: Mode, random: &mut Random) -> SamplingParams {
    let mut p = SamplingParams {
        max_new_tokens: 1 + below(random, 16),
        seed: Some(u64::from(random.next_u32())),
        ..SamplingParams::default()
    };
    if below(random, 2) == 0 {
        p.prefix = vec!["<extra_id_0>".to_owned()];
    }
    let drawn = |p: &mut SamplingParams| p.temperature = 1.2;
    match mode {
        Mode::Greedy | Mode::Score | Mode::Embed => {}
        Mode::Temperature => drawn(&mut p),
        Mode::TopK => (p.temperature, p.top_k) = (0.9, Some(7)),
        Mode::TopP => (p.temperature, p.top_p) = (1.1, 0.7),
        Mode::MinP => (p.temperature, p.min_p) = (1.3, 0.2),
        Mode::Typical => (p.temperature, p.typical_p) = (1.0, 0.8),
        Mode::Penalties => {
            drawn(&mut p);
            (p.repetition_penalty, p.presence_penalty, p.frequency_penalty) = (1.3, 0.4, 0.3);
        }
        Mode::NoRepeat => p.no_repeat_ngram_size = 2,
        Mode::Minimum => p.min_new_tokens = p.max_new_tokens.min(5),
        Mode::Bias => p.logit_bias = [(17, 1.5), (1, -2.0)].into(),
        Mode::Stop => {
            drawn(&mut p);
            p.stop = vec!["e".to_owned(), "an".to_owned()];
        }
        Mode::Alternatives => p.top_log_probabilities = 4,
        Mode::Beams => (p.beams, p.answers, p.length_penalty) = (3, 2, 0.8),
        Mode::Samples => {
            drawn(&mut p);
            p.samples = 3;
        }
        Mode::BestOf => {
            drawn(&mut p);
            (p.samples, p.best_of) = (1, Some(3));
        }
        Mode::Choices | Mode::Regex | Mode::JsonSchema | Mode::Lark => constrain(&mut p, mode, random),
        Mode::ConstrainedSamples => {
            constrain(&mut p, mode, random);
            (p.temperature, p.samples) = (1.2, 3);
        }
    }
    p
}

fn generation(answer: &Generation) -> Bits {
    let told = answer.alternatives.iter().flatten();
    let alternatives = told.flat_map(|other| [other.id, other.log_probability.to_bits()]);
    let tokens = answer.tokens.iter().copied();
    let scores = answer.log_probabilities.iter().map(|p| p.to_bits());
    let text = answer.text.bytes().map(u32::from);
    tokens.chain(scores).chain(text).chain(alternatives).collect()
}

fn hypothesis(answer: &Hypothesis) -> Bits {
    let tokens = answer.tokens.iter().copied();
    tokens.chain([answer.score.to_bits()]).collect()
}

fn score(score: &Score) -> Bits {
    let each = score.log_probabilities.iter().map(|p| p.to_bits());
    each.chain([score.log_probability.to_bits()]).collect()
}

/// Asks, in a way that depends on `seed` alone.
fn ask(engine: &Engine, mode: Mode, seed: u64) -> LocalBoxFuture<'_, Bits> {
    let mut random = Random::seed_from_u64(seed);
    let mut request = prompt(&mut random);
    request.sampling = sampling(mode, &mut random);
    async move {
        match mode {
            Mode::Beams => engine
                .search(request)
                .await
                .unwrap()
                .value
                .iter()
                .flat_map(hypothesis)
                .collect(),
            Mode::Samples | Mode::BestOf | Mode::ConstrainedSamples => engine
                .samples(request)
                .await
                .unwrap()
                .value
                .iter()
                .flat_map(generation)
                .collect(),
            Mode::Score => {
                let names = ["a cat", "a car", "dog", "a cat sat", "猫"].map(str::to_owned);
                engine
                    .score(request, names.to_vec())
                    .await
                    .unwrap()
                    .value
                    .iter()
                    .flat_map(score)
                    .collect()
            }
            Mode::Embed => engine
                .embed(request)
                .await
                .unwrap()
                .value
                .iter()
                .map(|x| x.to_bits())
                .collect(),
            _ => generation(&engine.generate(request).await.unwrap().wait().await.unwrap()),
        }
    }
    .boxed_local()
}

/// Asks for a token and goes away.
async fn leave(engine: &Engine, seed: u64) {
    let mut random = Random::seed_from_u64(seed);
    let mut request = prompt(&mut random);
    let mode = [Mode::Temperature, Mode::Lark][below(&mut random, 2)];
    request.sampling = sampling(mode, &mut random);
    let mut stream = engine.generate(request).await.unwrap();
    drop(futures_util::StreamExt::next(&mut stream).await);
}

/// Hides a request among random neighbours, over and over, and lists the ways of answering that gave
/// something else than they give alone.
fn find(alone: &Engine, crowds: &[Engine], rounds: usize) -> Vec<Mode> {
    let mut random = Random::seed_from_u64(20);
    let mut found = Vec::new();
    for round in 0..rounds {
        let engine = &crowds[below(&mut random, crowds.len())];
        let (mode, seed) = (MODES[round % MODES.len()], u64::from(random.next_u32()));
        let expected = block_on(ask(alone, mode, seed));
        let neighbours = 1 + below(&mut random, 12);
        let place = below(&mut random, neighbours + 1);
        let crowd = (0..=neighbours).map(|index| {
            let other = (
                MODES[below(&mut random, MODES.len())],
                u64::from(random.next_u32()),
            );
            if index == place {
                ask(engine, mode, seed)
            } else if below(&mut random, 6) == 0 {
                leave(engine, other.1).map(|()| Bits::new()).boxed_local()
            } else {
                ask(engine, other.0, other.1)
            }
        });
        let crowd: Vec<_> = crowd.collect();
        if block_on(join_all(crowd))[place] != expected {
            found.push(mode);
        }
    }
    found
}

fn engines(build: impl Fn(Options) -> Engine) -> (Engine, Vec<Engine>) {
    let options = |max_batch, threads, encode_budget| Options {
        max_batch,
        threads: Some(threads),
        encode_budget,
        ..Options::default()
    };
    let alone = build(options(4, 1, 2048));
    let crowds = [
        options(3, 1, 2048),
        options(8, 2, 40),
        options(32, 2, 2048),
        options(32, 1, 90),
    ];
    (alone, crowds.map(build).into())
}

fn engine_of<F: Forward + Send + 'static>(
    model: &Arc<Model>,
    options: Options,
    forward: impl Fn(&Limits) -> F,
) -> Engine {
    let limits = Limits::new(model, options.max_batch, options.memory_budget).unwrap();
    let known = CheckpointParts {
        tokenizer: TOKENIZER.clone(),
        config: config(),
        generation: GenerationConfig::of_model(&config()),
        labels: None,
    };
    start(vec![forward(&limits)], known, limits, &options).unwrap()
}

fn find_needles(cache: CacheType, rounds: usize) {
    let model = random_inference_model(&config(), 8)
        .unwrap()
        .with_cache(cache)
        .unwrap();
    let model = Arc::new(model);
    let (alone, crowds) = engines(|options| {
        engine_of(&model, options, |limits| {
            ModelForward::new(Arc::clone(&model), &limits.capacity, 100_000).unwrap()
        })
    });
    let found = find(&alone, &crowds, rounds);
    assert!(
        found.is_empty(),
        "{cache}: other bits in company than alone: {found:?}"
    );
    let steps: Vec<EngineStats> = crowds.iter().map(Engine::stats).collect();
    assert!(
        steps.iter().all(|stats| stats.rows > stats.steps),
        "nobody had company: {steps:?}"
    );
}

#[test]
fn needle() {
    find_needles(CacheType::F32, 12 * MODES.len());
}

#[test]
fn needle_in_narrow_caches() {
    for cache in [CacheType::Bf16, CacheType::Int8] {
        find_needles(cache, 6 * MODES.len());
    }
}

/// A model whose sums are made in an order that depends on how many rows a step has: the inner units of its
/// feed-forward layers are turned around by so many places, which is the same function but for rounding.
struct Mutant {
    /// By how far the units are turned.
    turned: Vec<ModelForward>,
}

impl Mutant {
    fn new(tensors: &[(String, Tensor)], capacity: &Resources) -> Self {
        let turned = (0..4).map(|by| {
            let tensors: HashMap<String, Tensor> = tensors
                .iter()
                .map(|(name, tensor)| (name.clone(), turn(name, tensor, 5 * by)))
                .collect();
            let model = inference_model(&config(), &tensors).unwrap();
            ModelForward::new(Arc::new(model), capacity, 0).unwrap()
        });
        Self {
            turned: turned.collect(),
        }
    }

    fn hand_cache(&mut self, from: usize, to: usize) {
        let cache = self.turned[from].cache.take();
        self.turned[to].cache = cache;
    }
}

fn turn(name: &str, tensor: &Tensor, by: usize) -> Tensor {
    let inner = config().intermediate_size;
    let turned = |part: usize| (0..inner).map(move |i| part * inner + (i + by) % inner);
    let (dimension, rows): (usize, Vec<usize>) = if name.ends_with("gate_up.weight") {
        (0, turned(0).chain(turned(1)).collect())
    } else if name.ends_with("ffn.inner_norm.weight") {
        (0, turned(0).collect())
    } else if name.ends_with("ffn.down.weight") {
        (1, turned(0).collect())
    } else {
        return tensor.clone();
    };
    let rows: Vec<u32> = rows.into_iter().map(|row| u32::try_from(row).unwrap()).collect();
    let rows = Tensor::new(rows, tensor.device()).unwrap();
    tensor.index_select(&rows, dimension).unwrap()
}

impl Forward for Mutant {
    fn begin_encoding(&mut self, prompts: Vec<PromptToEncode>) -> Result<(), ForwardError> {
        self.turned[0].begin_encoding(prompts)
    }

    fn advance_encoding(&mut self, rows: usize) -> Result<Option<Vec<EncodedPrompt>>, ForwardError> {
        self.turned[0].advance_encoding(rows)
    }

    fn abandon_encoding(&mut self) {
        self.turned[0].abandon_encoding();
    }

    fn decode_step(&mut self, rows: &[DecoderRow], logits: &mut Vec<f32>) -> Result<(), ForwardError> {
        let by = rows.len() % self.turned.len();
        // The cache goes along with whoever makes the step.
        self.hand_cache(0, by);
        let step = self.turned[by].decode_step(rows, logits);
        self.hand_cache(by, 0);
        step
    }

    fn copy_slot(&mut self, from: usize, to: usize) -> Result<(), ForwardError> {
        self.turned[0].copy_slot(from, to)
    }

    fn clear_slot(&mut self, slot: usize) {
        self.turned[0].clear_slot(slot);
    }

    fn reuse(&self) -> ReuseCounts {
        self.turned[0].reuse()
    }
}

#[test]
fn needle_catches_a_mutant() {
    let tensors = initialise(&config(), 8, &multiway_model::Device::Cpu).unwrap();
    let model = Arc::new(random_inference_model(&config(), 8).unwrap());
    let (alone, crowds) =
        engines(|options| engine_of(&model, options, |limits| Mutant::new(&tensors, &limits.capacity)));
    let rounds = 3 * MODES.len();
    let found = find(&alone, &crowds, rounds);
    assert!(
        found.len() > 10,
        "only {} of {rounds} needles were found out: {found:?}",
        found.len()
    );
    // The mutant is no other model: what it says alone is what the model says, but for rounding.
    let right = engine_of(&model, Options::default(), |limits| {
        ModelForward::new(Arc::clone(&model), &limits.capacity, 100_000).unwrap()
    });
    for seed in 0..5 {
        let [mutant, right] = [&alone, &right].map(|engine| block_on(ask(engine, Mode::Embed, seed)));
        assert_eq!(mutant, right);
    }
    let names: Vec<String> = ["a cat", "dog"].map(str::to_owned).into();
    let score = |engine: &Engine| {
        engine
            .score(request("a", 1), names.clone())
            .wait_blocking()
            .unwrap()
            .value
    };
    for (mutant, right) in score(&alone).iter().zip(score(&right)) {
        assert!((mutant.log_probability - right.log_probability).abs() < 1e-3);
    }
}
