//! Schemas that refer to themselves: answers end in time, fit, and nest within bounds.

use super::*;
use crate::constraint::nesting::MAX_NESTING;

fn linked_list() -> Value {
    json!({
        "$defs": {"Node": {
            "type": "object",
            "properties": {
                "v": {"type": "integer", "minimum": 0, "maximum": 9},
                "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
            },
            "required": ["v", "next"],
            "additionalProperties": false,
        }},
        "$ref": "#/$defs/Node",
    })
}

/// Schemas that refer to themselves in every way, each with its shortest answer.
fn recursive() -> Vec<(Value, &'static str)> {
    vec![
        (linked_list(), r#"{"v":0,"next":null}"#),
        (
            json!({
                "$defs": {"tree": {
                    "type": "object",
                    "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}, "leaf": {"type": "boolean"}},
                    "required": ["children", "leaf"],
                }},
                "$ref": "#/$defs/tree",
            }),
            r#"{"children":[],"leaf":true}"#,
        ),
        (
            json!({
                "type": "object",
                "properties": {"own": {"$ref": "#/$defs/a"}},
                "required": ["own"],
                "$defs": {
                    "a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/b"}}, "required": ["b"]},
                    "b": {"type": "object", "properties": {"a": {"oneOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}, "required": ["a"]},
                },
            }),
            r#"{"own":{"b":{"a":null}}}"#,
        ),
        (
            json!({"type": "object", "properties": {
                "name": {"enum": ["x"]},
                "parent": {"$ref": "#"},
                "others": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
            }}),
            "{}",
        ),
        (
            json!({"anyOf": [{"type": "array", "items": {"$ref": "#"}, "minItems": 2}, {"type": "boolean"}]}),
            "true",
        ),
        (
            json!({
                "$defs": {"value": {"anyOf": [
                    {"type": "object", "properties": {"op": {"const": "+"}, "of": {"$ref": "#/$defs/values"}}, "required": ["op", "of"]},
                    {"type": "object", "properties": {"op": {"const": "-"}, "of": {"$ref": "#/$defs/value"}}, "required": ["op", "of"]},
                    {"type": "integer"},
                ]}, "values": {"type": "array", "items": {"$ref": "#/$defs/value"}, "minItems": 1}},
                "$ref": "#/$defs/value",
            }),
            "0",
        ),
        // Which of two it is shows only at the end.
        (
            json!({"$defs": {"t": {"anyOf": [
                {"type": "object", "properties": {"t": {"$ref": "#/$defs/t"}, "end": {"const": "a"}}, "required": ["end"]},
                {"type": "object", "properties": {"t": {"$ref": "#/$defs/t"}, "end": {"const": "b"}}, "required": ["end"]},
            ]}}, "$ref": "#/$defs/t"}),
            r#"{"end":"a"}"#,
        ),
    ]
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(properties) => 1 + properties.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Writes an answer from logits to which some are added for what begins with one of some characters.
fn write_liking(constraints: &Constraints, params: &SamplingParams, seed: u64, liked: &str) -> String {
    let compiled = compile(constraints, params).unwrap();
    let mut state = compiled.start();
    let mut sampler = Sampler::new(params);
    let mut ids: Vec<TokenId> = Vec::new();
    let vocabulary = constraints.vocabulary().unwrap();
    for step in 0..params.max_new_tokens {
        let mut logits = logits(seed, step, constraints.tokenizer.vocab_size());
        for (id, logit) in logits.iter_mut().enumerate() {
            let bytes = vocabulary.bytes(TokenId::try_from(id).unwrap());
            if bytes.first().is_some_and(|byte| liked.as_bytes().contains(byte)) {
                *logit += 9.0;
            }
        }
        let draw = DrawContext {
            logits: &logits,
            processed: &logits,
            sampler: &mut sampler,
            step,
            left: params.max_new_tokens - step,
            ends: &constraints.ends,
        };
        let (choice, _) = state.draw(draw).unwrap();
        if constraints.ends.contains(choice.id) {
            return constraints.tokenizer.decode(&ids);
        }
        ids.push(choice.id);
    }
    panic!("cut off: {}", constraints.tokenizer.decode(&ids));
}

#[test]
fn answers_to_a_schema_that_refers_to_itself_fit_it_however_few_tokens_they_have() {
    for (schema, shortest) in recursive() {
        let params = |most| sampling(Constraint::JsonSchema(schema.clone()), most);
        let needed = compile(&BYT5, &params(200)).unwrap().needed();
        assert_eq!(needed, shortest.len() + 1, "{shortest}");
        let mut deepest = 0;
        for constraints in [&*OWN, &*BYT5] {
            for most in (needed..needed + 40).step_by(3).chain([120, 180]) {
                let text = write_liking(constraints, &params(most), most as u64, "[{,\"notpvcb");
                let value: Value = serde_json::from_str(&text).unwrap();
                assert!(jsonschema::is_valid(&schema, &value), "{text}");
                deepest = deepest.max(depth(&value));
            }
        }
        assert!(deepest > 2, "{shortest}: an answer nests as far as there is room");
        assert!(compile(&BYT5, &params(needed - 1)).is_err());
    }
}

#[test]
fn an_answer_that_would_nest_without_end_is_nested_a_hundred_deep_and_closed() {
    let arrays = json!({"type": "array", "items": {"$ref": "#"}});
    for (schema, opens) in [(arrays, "["), (linked_list(), "{")] {
        let params = sampling(Constraint::JsonSchema(schema.clone()), 4000);
        let text = write_liking(&BYT5, &params, 1, opens);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(jsonschema::is_valid(&schema, &value), "{text}");
        let deepest = text.bytes().fold((0_usize, 0), |(depth, most), byte| match byte {
            b'[' | b'{' => (depth + 1, most.max(depth + 1)),
            b']' | b'}' => (depth - 1, most),
            _ => (depth, most),
        });
        assert_eq!(deepest.1, MAX_NESTING);
    }
}

#[test]
fn what_no_finite_answer_has_is_left_out() {
    let endless =
        json!({"type": "object", "properties": {"own": {"$ref": "#/$defs/endless"}}, "required": ["own"]});
    let cases = [
        (json!({"anyOf": [{"$ref": "#/$defs/endless"}, {"const": 7}]}), "7"),
        (
            json!({"type": "array", "items": {"$ref": "#/$defs/endless"}}),
            "[]",
        ),
        (
            json!({"type": "object", "properties": {"a": {"const": 1}, "e": {"$ref": "#/$defs/endless"}}, "required": ["a"]}),
            r#"{"a":1}"#,
        ),
        // A circle with nothing around says nothing of its own.
        (json!({"anyOf": [{"$ref": "#"}, {"const": 7}]}), "7"),
        (json!({"anyOf": [{"$ref": "#/$defs/one"}]}), "7"),
    ];
    for (mut schema, answer) in cases {
        schema["$defs"] = json!({
            "endless": endless,
            "one": {"anyOf": [{"$ref": "#/$defs/other"}, {"$ref": "#/$defs/other"}]},
            "other": {"anyOf": [{"$ref": "#/$defs/one"}, {"const": 7}]},
        });
        for seed in 0..5 {
            let params = sampling(Constraint::JsonSchema(schema.clone()), 30);
            assert_eq!(write(&BYT5, &params, seed), Ok((answer.to_owned(), true)));
        }
    }
}

#[test]
fn definitions_in_a_circle_mean_the_same() {
    let schema = json!({"$defs": {
        "a": {"anyOf": [{"$ref": "#/$defs/b"}, {"const": 1}]},
        "b": {"anyOf": [{"$ref": "#/$defs/a"}, {"const": 2}]},
    }, "type": "array", "items": {"$ref": "#/$defs/b"}, "minItems": 1, "maxItems": 1});
    let params = sampling(Constraint::JsonSchema(schema), 30);
    let seen: std::collections::BTreeSet<String> = (0..20)
        .map(|seed| write(&BYT5, &params, seed).unwrap().0)
        .collect();
    assert_eq!(seen, ["[1]".to_owned(), "[2]".to_owned()].into());
}

#[test]
fn a_schema_none_of_whose_answers_ends_is_refused_with_the_place() {
    let defs = json!({
        "node": {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}, "required": ["v", "next"]},
        "a": {"type": "array", "items": {"$ref": "#/$defs/b"}, "minItems": 1},
        "b": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]},
        "either": {"anyOf": [{"$ref": "#/$defs/either"}, {"$ref": "#/$defs/node"}]},
    });
    let schemas = [
        json!({"$ref": "#/$defs/node"}),
        json!({"type": "object", "properties": {"list": {"$ref": "#/$defs/a"}}, "required": ["list"]}),
        json!({"$ref": "#/$defs/either"}),
        json!({"$ref": "#"}),
        json!({"type": "array", "items": {"$ref": "#"}, "minItems": 2}),
        json!({"oneOf": [{"$ref": "#"}, {"type": "null"}]}),
    ];
    let refusals = schemas.map(|mut schema| {
        schema["$defs"] = defs.clone();
        refusal(Constraint::JsonSchema(schema))
    });
    insta::assert_snapshot!(refusals.join("\n"));
}

/// Schemas whose references would be as good as endless if each were followed on its own.
fn hostile() -> Vec<Value> {
    let of = |count: usize, definition: &dyn Fn(String) -> Value| {
        let mut schema = json!({"$ref": format!("#/$defs/{count}"), "$defs": {"0": {"type": "integer"}}});
        for n in 0..count {
            schema["$defs"][(n + 1).to_string()] = definition(format!("#/$defs/{n}"));
        }
        schema
    };
    let (first, last) = ("#/$defs/1", "#/$defs/30");
    vec![
        // Each refers twice to the one before, and to the first or last of all.
        of(
            30,
            &|inner| json!({"type": "object", "properties": {"a": {"$ref": inner}, "b": {"$ref": inner}, "c": {"$ref": last}}, "required": ["a", "b"]}),
        ),
        of(
            30,
            &|inner| json!({"anyOf": [{"$ref": inner}, {"type": "array", "items": {"$ref": inner}}, {"type": "array", "items": {"$ref": last}}]}),
        ),
        of(
            30,
            &|inner| json!({"anyOf": [{"$ref": inner}, {"$ref": last}, {"$ref": first}, {"type": "array", "items": {"$ref": inner}, "minItems": 2}]}),
        ),
        // A chain as long as may be, with a way back from each.
        of(
            330,
            &|inner| json!({"type": "object", "properties": {"n": {"$ref": inner}, "o": {"$ref": "#/$defs/330"}}, "required": ["n"]}),
        ),
        of(
            330,
            &|inner| json!({"anyOf": [{"$ref": inner}, {"type": "null"}]}),
        ),
        of(
            30,
            &|inner| json!({"type": "array", "items": {"$ref": inner}, "minItems": 65_535}),
        ),
        // Every answer can be read in as many ways as it has brackets.
        json!({"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}]}),
        json!({"anyOf": (0..20).map(|n| json!({"type": "array", "items": {"$ref": "#"}, "minItems": n})).collect::<Vec<_>>()}),
        json!({"type": "object", "properties": {"long name ".repeat(90): {"$ref": "#"}, "other name ".repeat(90): {"$ref": "#"}}}),
    ]
}

#[test]
fn hostile_references_take_little_time_and_end_in_time() {
    for schema in hostile() {
        for opens in ["[{", "[{\"ln,"] {
            let params = sampling(Constraint::JsonSchema(schema.clone()), 150);
            if let Err(refusal) = compile(&OWN, &params) {
                let refusal = refusal.to_string();
                assert!(!refusal.contains("no answer ends"), "{refusal}");
                continue;
            }
            let text = write_liking(&OWN, &params, 3, opens);
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(depth(&value) <= MAX_NESTING);
        }
    }
}
