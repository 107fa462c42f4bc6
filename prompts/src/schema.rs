//! The JSON Schema of front matter, for editors. Its keys and its names are those that the parser knows.

use serde_json::{Map, Value, json};

use crate::field_names::field_names;
use crate::front_matter::{Keys, keys};
use crate::input::{BoxUnit, InputKind, MAX_ITEMS};
use crate::metric::Metric;
use crate::output::{GroundingDialect, LocationDialect, NumberLanguage, OutputSpec};
use crate::sampling::EarlyStopping;
use crate::shots::MAX_SHOTS;
use crate::spec::ImageFit;

/// Returns the JSON Schema (draft 2020-12) of the front matter of task files.
///
/// It knows every key, and the type of every value that is not free. What depends on other values, such as
/// whether a default is one of the choices, is left to [`TaskFile::parse`](crate::TaskFile::parse).
///
/// # Examples
///
/// ```
/// let schema = multiway_prompts::task_file_schema();
/// assert_eq!(schema["properties"]["description"]["type"], "string");
/// assert_eq!(schema["additionalProperties"], false);
/// ```
pub fn task_file_schema() -> Value {
    let Keys {
        front_matter,
        input,
        output,
        decode,
        example,
        shot,
        preprocessing,
    } = keys();
    let mut schema = object("", front_matter, |key| match key {
        "inputs" => json!({
            "type": "object",
            "description": "The inputs by name. `null` removes an input of the task that is extended.",
            "propertyNames": {"pattern": "^[A-Za-z][A-Za-z0-9_]*$"},
            "additionalProperties": input_schema(input),
        }),
        "output" => with_required(object("The kind of answer.", output, output_value), &["kind"]),
        "decode" => object(
            "How the answer is decoded; what the caller says wins.",
            decode,
            decode_value,
        ),
        "few_shot" => json!({
            "type": "array",
            "description": "Examples that are shown to the model before the prompt, their pictures as paths from the task file.",
            "maxItems": MAX_SHOTS,
            "items": object("", shot, example_value),
        }),
        "examples" => json!({
            "type": "array",
            "description": "Worked examples, which `multiway tasks check` runs, their pictures as paths from the task file.",
            "items": object("", example, example_value),
        }),
        "preprocessing" => json!({
            "type": "object",
            "description": "How pictures are prepared, by the name of the model family; others follow the checkpoint.",
            "additionalProperties": object("", preprocessing, preprocessing_value),
        }),
        key => front_matter_value(key),
    });
    if let Value::Object(schema) = &mut schema {
        schema.insert(
            "$schema".to_owned(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        schema.insert("title".to_owned(), json!("Front matter of a multiway task file"));
        schema.insert(
            "anyOf".to_owned(),
            json!([{"required": ["description"]}, {"required": ["extends"]}]),
        );
    }
    schema
}

/// Makes the schema of a mapping that has some keys and no others.
fn object(description: &str, keys: &[&str], value: impl Fn(&str) -> Value) -> Value {
    let properties: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), value(key))).collect();
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !description.is_empty() {
        schema["description"] = json!(description);
    }
    schema
}

fn with_required(mut schema: Value, keys: &[&str]) -> Value {
    schema["required"] = json!(keys);
    schema
}

fn front_matter_value(key: &str) -> Value {
    const TASK_NAME: &str = "^[a-z0-9_-]+$";
    match key {
        "name" => json!({
            "type": "string",
            "pattern": TASK_NAME,
            "description": "The task's name; without it, the stem of the file's name.",
        }),
        "description" => text("What the task does, in a sentence."),
        "version" => json!({
            "description": "A whole number from 1, or a text such as \"1.2.0\".",
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": "^[0-9]+\\.[0-9]+\\.[0-9]+([-+].*)?$"},
            ],
        }),
        "extends" => json!({
            "type": "string",
            "pattern": TASK_NAME,
            "description": "The name of a task whose keys and whose prompt this one takes over.",
        }),
        "target" => text(
            "A Jinja template of the text that the model should write, from inputs and reference fields.",
        ),
        "separator" => {
            text("What stands between few-shot examples, and before the prompt; a newline without it.")
        }
        "metrics" => json!({
            "type": "array",
            "description": "What answers are scored with.",
            "items": {"enum": Metric::ALL.map(Metric::name)},
        }),
        "languages" => json!({
            "type": "array",
            "description": "The languages that the task is meant for, as BCP 47 tags.",
            "items": {"type": "string", "pattern": "^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$"},
        }),
        "metadata" => json!({
            "type": "object",
            "description": "Whatever else there is to say, such as license, author and tags: texts and lists of texts.",
            "propertyNames": {"pattern": "^[A-Za-z0-9._-]{1,64}$"},
            "maxProperties": 32,
            "additionalProperties": {"anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "maxItems": 32},
            ]},
        }),
        _ => json!({}),
    }
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn texts(description: &str) -> Value {
    json!({"type": "array", "items": {"type": "string"}, "description": description})
}

fn number(description: &str) -> Value {
    json!({"type": "number", "description": description})
}

fn count(description: &str) -> Value {
    json!({"type": "integer", "minimum": 0, "description": description})
}

/// Makes the schema of an input, whose other keys go with its type.
fn input_schema(keys: &[&str]) -> Value {
    let mut schema = object("", keys, |key| match key {
        "type" => json!({"enum": InputKind::ALL, "description": "The type."}),
        "description" => text("What the input is for."),
        "default" => json!({"description": "The value that it has when the caller gives none."}),
        "choices" => json!({
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "uniqueItems": true,
            "description": "The texts of which it is one.",
        }),
        "min" => number("The least number, or the fewest items."),
        "max" => number("The greatest number, or the most items."),
        "max_length" => count("The most characters that the text, or each item, may have."),
        "unit" => json!({
            "enum": field_names::<BoxUnit>(),
            "description": "How the numbers of a box are measured; pixels without it.",
        }),
        _ => json!({}),
    });
    schema["type"] = json!(["object", "null"]);
    schema["required"] = json!(["type"]);
    schema["allOf"] = InputKind::ALL.into_iter().map(of_kind).collect();
    schema
}

/// Says which keys go with a type, and what its default is.
fn of_kind(kind: InputKind) -> Value {
    use InputKind::{Boolean, Box, Choice, Image, Images, Integer, Json, List, Number, Text};
    let default = match kind {
        Text | Choice => json!({"type": "string"}),
        Integer => json!({"type": "integer"}),
        Number => json!({"type": "number"}),
        Boolean => json!({"type": "boolean"}),
        List => json!({"type": "array", "items": {"type": "string"}, "maxItems": MAX_ITEMS}),
        Box => json!({"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}),
        Image | Images => json!(false),
        Json => json!(true),
    };
    let mut then = json!({"properties": {"default": default}});
    let owners = [
        ("choices", matches!(kind, Choice)),
        ("min", matches!(kind, Integer | Number | List | Images)),
        ("max", matches!(kind, Integer | Number | List | Images)),
        ("max_length", matches!(kind, Text | List)),
        ("unit", matches!(kind, Box)),
    ];
    for (key, _) in owners.iter().filter(|(_, goes)| !goes) {
        then["properties"][*key] = json!(false);
    }
    if kind == Choice {
        then["required"] = json!(["choices"]);
    }
    json!({"if": {"properties": {"type": {"const": kind}}, "required": ["type"]}, "then": then})
}

fn output_value(key: &str) -> Value {
    match key {
        "kind" => json!({"enum": OutputSpec::KINDS, "description": "The kind of answer."}),
        "choices" => json!({
            "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string", "pattern": "\\{\\{"}],
            "description": "The answers to choose from, or a template that gives them.",
        }),
        "choices_from" => text("The input of type list that has the answers to choose from."),
        "of_model" => json!({"type": "boolean", "description": "Whether the model's head has the answers."}),
        "fill" => text("The input whose gaps the answer fills."),
        "hidden" => text("The input of type list that says which patches are hidden."),
        "schema" => json!({"type": "object", "description": "The JSON schema that the answer fits."}),
        "method" => json!({
            "enum": ["likelihood", "trie"],
            "description": "Whether all choices are scored, or one is decoded token by token.",
        }),
        "normalization" => json!({
            "enum": ["none", "tokens", "characters", "unconditional"],
            "description": "What makes the log-likelihoods of answers of unlike lengths comparable.",
        }),
        "calibration" => json!({
            "type": "object",
            "properties": {"temperature": {"type": "number", "exclusiveMinimum": 0}},
            "required": ["temperature"],
            "additionalProperties": false,
            "description": "What log-probabilities are divided by before the softmax.",
        }),
        "yes" => text("The answer that means true."),
        "no" => text("The answer that means false."),
        "levels" => texts("The steps of the scale, the lowest first."),
        "values" => json!({
            "type": "array",
            "items": {"type": "number"},
            "description": "The numbers of the levels, which else count from 1.",
        }),
        "separator" => text("What stands between labels; a comma without it."),
        "language" => json!({
            "enum": NumberLanguage::ALL.map(NumberLanguage::tag),
            "description": "The language of number words and separators.",
        }),
        "integer" => json!({"type": "boolean", "description": "Whether the number is a whole one."}),
        "min" => json!({"type": "number", "description": "The least number."}),
        "max" => json!({"type": "number", "description": "The greatest number."}),
        "unit" => text("What may stand before or after the number."),
        "dialect" => {
            let mut names = LocationDialect::ALL.map(|(name, _)| name).to_vec();
            names.extend(GroundingDialect::ALL.map(|(name, _)| name));
            names.sort_unstable();
            names.dedup();
            json!({"enum": names, "description": "How locations in the picture are written."})
        }
        "target_from" => text("The input that holds the text to score."),
        _ => json!({}),
    }
}

fn decode_value(key: &str) -> Value {
    let token_ids = |description: &str| json!({"type": "array", "items": {"type": "integer", "minimum": 0}, "description": description});
    match key {
        "prefix" => text("Special tokens that every answer starts with."),
        "regex" => text("What the answer matches as a whole."),
        "lark" => text("The grammar that the answer is derived from."),
        "stop" => texts("Texts that end the answer."),
        "early_stopping" => json!({
            "enum": EarlyStopping::ALL.map(|(name, _)| name),
            "description": "When a beam search ends.",
        }),
        "logit_bias" => json!({
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]+$"},
            "additionalProperties": {"type": "number"},
            "description": "What is added to the logits of tokens, by their ids.",
        }),
        "show_special" => {
            json!({"type": "boolean", "description": "Whether special tokens are shown by their names."})
        }
        "suppress_tokens" => token_ids("Tokens that are never written."),
        "begin_suppress_tokens" => token_ids("Tokens that are not written first."),
        "forced_eos_token_id" => token_ids("The last token, at max_new_tokens."),
        "bad_words_ids" => {
            json!({"type": "array", "items": token_ids("A sequence that is never completed.")})
        }
        "sequence_bias" | "exponential_decay_length_penalty" => json!({"type": "array"}),
        "max_new_tokens" => count("The most tokens of an answer."),
        "min_new_tokens" => count("The fewest tokens of an answer."),
        "top_k" => count("Samples from the top k tokens."),
        "seed" => count("The seed of sampling."),
        "beams" => count("The number of beams."),
        "samples" => count("How many answers are sampled and returned."),
        "best_of" => count("How many answers are sampled for the best to be returned."),
        "no_repeat_ngram_size" => count("Bans repeating any n-gram of this size."),
        "forced_bos_token_id" => count("The token that is written first."),
        "top_log_probabilities" => count("How many alternatives come along with each token."),
        "temperature" => number("The sampling temperature; 0 is greedy."),
        "top_p" => number("Samples from the fewest most likely tokens of this probability together."),
        "min_p" => number("Samples from tokens of at least this share of the most likely one's probability."),
        "typical_p" => number("Samples from the most typical tokens of this probability together."),
        "length_penalty" => number("The exponent by which longer beams are favored."),
        "repetition_penalty" => number("Above 1, tokens of the decoder's input become less likely."),
        "presence_penalty" => number("Subtracted from the logit of every token that was generated before."),
        "frequency_penalty" => number("Subtracted from the logit of a token for each earlier occurrence."),
        _ => json!({}),
    }
}

fn example_value(key: &str) -> Value {
    match key {
        "inputs" => json!({"type": "object", "description": "The inputs, pictures as paths."}),
        "output" => text("The answer that they should get."),
        "target" => json!({"description": "What the target is made of: a value, or a mapping of fields."}),
        _ => json!({}),
    }
}

fn preprocessing_value(key: &str) -> Value {
    match key {
        "fit" => json!({
            "enum": field_names::<ImageFit>(),
            "description": "The whole picture squashed to a square, or the square in its middle.",
        }),
        _ => json!({}),
    }
}
