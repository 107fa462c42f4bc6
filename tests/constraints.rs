//! Answers of the embedded model that must have a form: every one has it, and probabilities are what they are
//! said to be.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use futures_util::future::join_all;
use multiway::checkpoint::{DType, Device};
use multiway::engine::{Constraint, FinishReason, Generation, RequestError};
use multiway::prompt::{InputValue, Prompt, TaskFile};
use multiway::tokenizer::TokenId;
use multiway::{Engine, Request, SamplingParams, Task, TaskInputs, embedded_checkpoint};
use multiway_model::{DecoderBatch, DecoderRow, EncoderBatch, EncoderSample, Model, PromptMemory};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

/// Makes schemas of all that is known, from a seed.
struct Schemas(ChaCha8Rng);

impl Schemas {
    fn below(&mut self, bound: u32) -> u32 {
        self.0.next_u32() % bound
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(u32::try_from(of.len()).unwrap()) as usize]
    }

    fn object(&mut self, depth: u32) -> Value {
        let names = ["name", "color", "size", "n", "is big", "été", "tag\"s", "k"];
        let mut properties = Map::new();
        for _ in 0..=self.below(3) {
            let name = self.pick(&names);
            properties.insert(name.to_owned(), self.value(depth + 1));
        }
        let required: Vec<&String> = properties.keys().filter(|_| self.chance(50)).collect();
        let required = json!(required);
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": self.chance(20)})
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.below(if depth < 3 { 13 } else { 8 }) {
            0 => json!({"type": "boolean"}),
            1 => self.string(),
            2 => {
                let minimum = i64::from(self.below(400)) - 200;
                json!({"type": "integer", "minimum": minimum, "maximum": minimum + i64::from(self.below(2000))})
            }
            3 => json!({"type": "integer"}),
            4 => self.number(),
            5 => json!({"enum": [self.pick(&["red", "green"]), "blue", 7, Value::Null, [1, {"a": "b"}]]}),
            6 => {
                let kind = self.pick(&["string", "number", "integer", "boolean"]);
                json!({"type": [kind, "null"]})
            }
            7 => json!({"const": self.pick(&["cat", "ein Hund", "猫"])}),
            8 | 9 => {
                let least = self.below(3);
                let most = least + self.below(3);
                json!({"type": "array", "items": self.value(depth + 1), "minItems": least, "maxItems": most})
            }
            10 => json!({"anyOf": [self.value(depth + 1), self.value(depth + 1)]}),
            11 => json!({"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
            _ => self.object(depth),
        }
    }

    fn string(&mut self) -> Value {
        match self.below(4) {
            0 => json!({"type": "string"}),
            1 => json!({"type": "string", "pattern": self.pick(&["^[A-Z]{2}-\\d+$", "b", "^(a|bc)*$"])}),
            _ => {
                let least = self.below(4);
                json!({"type": "string", "minLength": least, "maxLength": least + self.below(12)})
            }
        }
    }

    fn number(&mut self) -> Value {
        match self.below(6) {
            0 => json!({"type": "number"}),
            4 => json!({"type": "integer", "minimum": i64::MIN, "maximum": u64::MAX}),
            5 => json!({"type": "number", "minimum": -1e308, "exclusiveMaximum": 0.1 + 0.2}),
            1 => json!({"type": "number", "minimum": 0, "maximum": 1}),
            2 => json!({"type": "number", "exclusiveMinimum": -1.5, "maximum": 20.25}),
            _ => json!({"type": "number", "exclusiveMinimum": 0}),
        }
    }
}

/// Asks for JSON, drawn with a temperature of 1.
async fn write(
    engine: &Engine,
    number: u64,
    schema: Value,
    max_new_tokens: usize,
) -> Result<Generation, RequestError> {
    let sampling = SamplingParams {
        max_new_tokens,
        temperature: 1.0,
        // One answer in eight is drawn from all tokens; sorting them takes most of the time without
        // optimisation.
        top_k: (!number.is_multiple_of(8)).then_some(40),
        seed: Some(number),
        constraint: Some(Constraint::JsonSchema(schema)),
        ..SamplingParams::default()
    };
    let request = Request {
        sampling,
        ..Request::new(Prompt::from_text(format!("describe thing {number}")), Vec::new())
    };
    engine.generate(request).await?.wait().await
}

#[tokio::test]
async fn json_always_parses() {
    const WANTED: usize = 1000;
    let engine = Engine::builder(&embedded_checkpoint().unwrap())
        .max_batch(64)
        .build()
        .unwrap();
    let mut schemas = Schemas(ChaCha8Rng::seed_from_u64(5));
    let (mut answered, mut refused, mut number) = (0, 0, 0);
    while answered < WANTED {
        // Sizes from generous to hardly any: some answers have to be cut short everywhere.
        let asked: Vec<(u64, Value, usize)> = (number..number + 64)
            .map(|number| (number, schemas.object(0), 20 + schemas.below(44) as usize))
            .collect();
        number += 64;
        let written = join_all(
            asked
                .iter()
                .map(|(number, schema, most)| write(&engine, *number, schema.clone(), *most)),
        );
        for ((_, schema, most), answer) in asked.iter().zip(written.await) {
            match answer {
                Ok(answer) => {
                    let value: Value = serde_json::from_str(&answer.text)
                        .unwrap_or_else(|error| panic!("{error} in {} of {schema}", answer.text));
                    assert!(jsonschema::is_valid(schema, &value), "{value} is not of {schema}");
                    assert_eq!(answer.finish_reason, FinishReason::Stop);
                    assert!(answer.tokens.len() <= *most);
                    answered += 1;
                }
                // Even the shortest answer would be longer.
                Err(RequestError::ConstraintTooLong { found, limit, .. }) if found > limit => refused += 1,
                Err(error) => panic!("{error}: {schema}"),
            }
        }
    }
    assert!(
        refused < answered / 2,
        "most schemas have an answer of that size: {refused} have none"
    );
}

/// The embedded model, one token after the other.
struct Plain {
    model: Model,
    memory: PromptMemory,
}

impl Plain {
    fn new(engine: &Engine, prompt: &Prompt) -> Self {
        let model = Model::load(&embedded_checkpoint().unwrap(), &Device::Cpu, DType::F32).unwrap();
        let tokens = engine.tokenizer().encode_prompt(prompt).unwrap();
        let sample = EncoderSample {
            images: &[],
            tokens: &tokens,
        };
        let batch = EncoderBatch::new(model.config(), &[sample]).unwrap();
        let memory = model
            .prompt_memory(&model.encode(&batch).unwrap())
            .unwrap()
            .remove(0);
        Self { model, memory }
    }

    /// Returns the log-probabilities `[T, V]` of each place of a target, in 64 bits.
    fn log_probabilities(&self, target: &[TokenId]) -> Vec<Vec<f64>> {
        let config = self.model.config();
        let mut cache = self.model.new_cache(1, config.max_target_length).unwrap();
        let mut input = config.decoder_start_token_id;
        let step = |token: &TokenId| {
            let row = DecoderRow {
                token: input,
                slot: 0,
                memory: &self.memory,
            };
            let logits = self
                .model
                .decode_step(&DecoderBatch { rows: &[row] }, &mut cache)
                .unwrap();
            input = *token;
            let logits: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
            let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
            logits.iter().map(|logit| f64::from(*logit) - sum.ln()).collect()
        };
        target.iter().map(step).collect()
    }
}

/// Closed sets with all that makes them hard: beginnings of each other, many tokens, other scripts.
fn closed_sets() -> Vec<Vec<String>> {
    let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let colors = ["red", "dark red", "green", "blue", "light blue"];
    let things = ["cat", "cat face", "cats", "dog", "Katze", "猫", "кошка", "🐱"];
    let products = colors
        .iter()
        .flat_map(|color| things.iter().map(move |thing| format!("{color} {thing}")));
    vec![
        own(&things),
        products.collect(),
        own(&[
            "a",
            "an",
            "ant",
            "ants",
            "anti",
            "antique",
            "antiques and more of them",
            "été",
            "étés",
            "é",
        ]),
    ]
}

#[test]
fn choice_probabilities_are_exact() {
    let engine = Engine::builder(&embedded_checkpoint().unwrap()).build().unwrap();
    let file = b"---\ndescription: Chooses.\ninputs:\n  question: {type: text}\n  choices: {type: list}\noutput: {kind: choice, choices_from: choices}\n---\n{{ question }}";
    let task = Task::new(TaskFile::parse("choose.task", file).unwrap());
    for candidates in closed_sets() {
        let inputs = TaskInputs::new().with("question", "what is in the picture?");
        let inputs = inputs.with("choices", InputValue::List(candidates.clone()));
        let prepared = task.prepare(engine.tokenizer(), &inputs).unwrap();
        let plain = Plain::new(&engine, prepared.prompt());
        let end = engine.config().eos_token_id;
        let targets: Vec<Vec<TokenId>> = candidates
            .iter()
            .map(|candidate| [engine.tokenizer().encode_text(candidate).unwrap(), vec![end]].concat())
            .collect();
        let places: Vec<Vec<Vec<f64>>> = targets
            .iter()
            .map(|target| plain.log_probabilities(target))
            .collect();
        let likelihoods = targets.iter().zip(&places).map(|(target, places)| {
            target
                .iter()
                .zip(places)
                .map(|(token, all)| all[*token as usize])
                .sum::<f64>()
                .exp()
        });
        let likelihoods: Vec<f64> = likelihoods.collect();
        let total: f64 = likelihoods.iter().sum();

        let outcome = task.run(&engine, &inputs).unwrap().wait_blocking().unwrap();
        assert_eq!(outcome.answer.choices().len(), candidates.len());
        for choice in outcome.answer.choices() {
            let place = candidates.iter().position(|text| *text == choice.text).unwrap();
            let expected = likelihoods[place] / total;
            assert!(
                (choice.probability - expected).abs() < 1e-5,
                "{}: {} for {expected}",
                choice.text,
                choice.probability
            );
        }
        decoded_within_the_trie(&engine, &plain, &candidates, &targets, &places);
    }
}

/// Decodes choices, and compares each step's probability with the model's share of the token among those that
/// lead to a choice.
fn decoded_within_the_trie(
    engine: &Engine,
    plain: &Plain,
    candidates: &[String],
    targets: &[Vec<TokenId>],
    places: &[Vec<Vec<f64>>],
) {
    let prompt = Prompt::from_text("what is in the picture?");
    assert_eq!(Plain::new(engine, &prompt).memory.length(), plain.memory.length());
    for seed in 0..12 {
        let sampling = SamplingParams {
            temperature: 1.0,
            seed: Some(seed),
            constraint: Some(Constraint::Choices(candidates.to_vec())),
            ..SamplingParams::default()
        };
        let request = Request {
            sampling,
            ..Request::new(prompt.clone(), Vec::new())
        };
        let answer = engine.generate_blocking(request).unwrap();
        let chosen = targets
            .iter()
            .position(|target| *target == answer.tokens)
            .unwrap();
        assert_eq!(answer.text, candidates[chosen]);
        for (step, (token, found)) in answer.tokens.iter().zip(&answer.log_probabilities).enumerate() {
            let mut allowed: Vec<TokenId> = targets
                .iter()
                .filter(|target| target.starts_with(&answer.tokens[..step]))
                .map(|target| target[step])
                .collect();
            allowed.sort_unstable();
            allowed.dedup();
            let model = &places[chosen][step];
            let share: f64 = allowed.iter().map(|id| model[*id as usize].exp()).sum();
            let expected = model[*token as usize].exp() / share;
            assert!(
                (f64::from(*found).exp() - expected).abs() < 1e-5,
                "{} at {step}",
                answer.text
            );
        }
    }
}
