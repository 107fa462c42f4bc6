//! Constraints on answers that are drawn from logits without a model, with vocabularies of every kind.

mod recursion;

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::sampling::Sampler;
use crate::tokenizer::{TokenId, sentencepiece_to_json};

/// Bytes as a fallback, one space dropped.
static OWN: LazyLock<Constraints> = LazyLock::new(|| {
    let json = sentencepiece_to_json(include_bytes!("../../tests/fixtures/tokenizer.model")).unwrap();
    constraints(Tokenizer::from_json(&json).unwrap())
});
/// No bytes, all leading spaces dropped, as T5's.
static T5: LazyLock<Constraints> = LazyLock::new(|| {
    let model = include_bytes!("../../tests/fixtures/numbering/spiece.model");
    constraints(Tokenizer::from_t5_sentencepiece(model).unwrap())
});
static BEIT3: LazyLock<Constraints> = LazyLock::new(|| {
    let model = include_bytes!("../../tests/fixtures/numbering/beit3.spm");
    constraints(Tokenizer::from_xlmr_sentencepiece(model).unwrap())
});
static BYT5: LazyLock<Constraints> = LazyLock::new(|| constraints(Tokenizer::byt5().unwrap()));

fn constraints(tokenizer: Tokenizer) -> Constraints {
    let end = EosTokens::one(tokenizer.special("</s>").unwrap());
    Constraints::new(tokenizer, end, 64 << 20)
}

fn sampling(constraint: Constraint, max_new_tokens: usize) -> SamplingParams {
    SamplingParams {
        constraint: Some(constraint),
        max_new_tokens,
        temperature: 1.0,
        seed: Some(7),
        ..SamplingParams::default()
    }
}

/// Checks and compiles a constraint.
fn compile(constraints: &Constraints, params: &SamplingParams) -> Result<Arc<Compiled>, RequestError> {
    constraints.check(params)?;
    Ok(constraints.compile(params)?.unwrap())
}

/// Spreads numbers between -4 and 4, so that any token may be drawn.
fn logits(seed: u64, step: usize, count: usize) -> Vec<f32> {
    let mut state = seed ^ (step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 * 8.0 - 4.0
    };
    (0..count).map(|_| next()).collect()
}

/// Draws one answer; returns it as it is shown, and whether it was finished.
fn write(constraints: &Constraints, params: &SamplingParams, seed: u64) -> Result<(String, bool), String> {
    let compiled = constraints.compile(params).unwrap().unwrap();
    let mut state = compiled.start();
    let params = SamplingParams {
        seed: Some(seed),
        ..params.clone()
    };
    let mut sampler = Sampler::new(&params);
    let mut ids: Vec<TokenId> = Vec::new();
    for step in 0..params.max_new_tokens {
        let logits = logits(seed, step, constraints.tokenizer.vocab_size());
        let draw = DrawContext {
            logits: &logits,
            processed: &logits,
            sampler: &mut sampler,
            step,
            left: params.max_new_tokens - step,
            ends: &constraints.ends,
        };
        let (choice, _) = state.draw(draw)?;
        if constraints.ends.contains(choice.id) {
            return Ok((constraints.tokenizer.decode(&ids), true));
        }
        ids.push(choice.id);
    }
    Ok((constraints.tokenizer.decode(&ids), false))
}

fn refusal(constraint: Constraint) -> String {
    compile(&OWN, &sampling(constraint, 32)).unwrap_err().to_string()
}

#[test]
fn a_regular_expression_is_about_the_text_that_is_shown() {
    let cases = [
        (&OWN, "cat|dog", "[0-9]"),
        (&T5, "the|bird", "[a-e]"),
        (&BEIT3, "the|bird", "[a-e]"),
        (&BYT5, "cat|été", "[0-9]"),
    ];
    for (constraints, words, end) in cases {
        let params = sampling(Constraint::Regex(format!("({words}) {end}{{1,3}}")), 12);
        for seed in 0..40 {
            let (text, finished) = write(constraints, &params, seed).unwrap();
            let (word, rest) = text.split_once(' ').unwrap();
            assert!(
                finished && words.split('|').any(|known| known == word),
                "{text:?}"
            );
            assert!((1..=3).contains(&rest.len()) && !rest.contains(' '), "{text:?}");
        }
    }
}

#[test]
fn a_groups_name_means_nothing() {
    for name in ["stop", "word"] {
        let pattern = format!("c(?P<{name}>a(?<inner>t)){{1,2}}(?P<last>s)?");
        let params = sampling(Constraint::Regex(pattern), 12);
        let mut seen: Vec<String> = (0..60)
            .map(|seed| write(&BYT5, &params, seed).unwrap().0)
            .collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["cat", "catat", "catats", "cats"]);
    }
    let params = sampling(Constraint::Regex("(?P<stop>cat)".to_owned()), 12);
    assert_eq!(write(&BYT5, &params, 0), Ok(("cat".to_owned(), true)));
}

#[test]
fn the_first_word_may_be_written_with_its_space_or_without() {
    let compiled = OWN
        .compile(&sampling(Constraint::Regex("cat|dog".to_owned()), 8))
        .unwrap()
        .unwrap();
    let ids = compiled.start().allowed().unwrap();
    let allowed: Vec<&str> = ids.iter().map(|id| OWN.tokenizer.piece(*id).unwrap()).collect();
    let canonical = OWN.tokenizer.encode_text("cat").unwrap()[0];
    assert!(
        allowed.contains(&OWN.tokenizer.piece(canonical).unwrap()),
        "{allowed:?}"
    );
    assert!(
        allowed.contains(&"c") && !allowed.contains(&"<0x20>") && !allowed.contains(&"</s>"),
        "{allowed:?}"
    );
}

#[test]
fn an_answer_may_end_exactly_where_it_is_one() {
    for (pattern, text, ends) in [("ab?", "a", true), ("ab", "a", false), ("(a|ab)c?", "ab", true)] {
        let compiled = BYT5
            .compile(&sampling(Constraint::Regex(pattern.to_owned()), 8))
            .unwrap()
            .unwrap();
        let mut state = compiled.start();
        let mut sampler = Sampler::new(&SamplingParams::default());
        let ids = BYT5.tokenizer.encode_text(text).unwrap();
        for (step, id) in ids.iter().enumerate() {
            let mut logits = vec![0.0; BYT5.tokenizer.vocab_size()];
            logits[*id as usize] = 9.0;
            let draw = DrawContext {
                logits: &logits,
                processed: &logits,
                sampler: &mut sampler,
                step,
                left: 8 - step,
                ends: &BYT5.ends,
            };
            assert_eq!(state.draw(draw).unwrap().0.id, *id);
        }
        let allowed = state.allowed().unwrap();
        assert_eq!(allowed.contains(&1), ends, "/{pattern}/ after {text}");
    }
}

#[test]
fn an_answer_is_completed_however_few_tokens_it_may_have() {
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string", "minLength": 2}, "minItems": 1},
        "size": {"type": ["number", "null"]}, "kind": {"enum": ["a rather long kind", "b"]},
    }, "required": ["name", "tags", "kind"]});
    let shortest = BYT5
        .compile(&sampling(Constraint::JsonSchema(schema.clone()), 500))
        .unwrap()
        .unwrap()
        .needed();
    for constraints in [&*OWN, &*BYT5] {
        for max_new_tokens in shortest..shortest + 30 {
            let params = sampling(Constraint::JsonSchema(schema.clone()), max_new_tokens);
            let (text, finished) = write(constraints, &params, max_new_tokens as u64).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(finished && jsonschema::is_valid(&schema, &value), "{text}");
        }
    }
    let params = sampling(Constraint::JsonSchema(schema), shortest - 1);
    let refusal = BYT5.compile(&params).map(|_| ()).unwrap_err();
    insta::assert_snapshot!(refusal, @"max_new_tokens is 36, but the shortest answer that the constraint (JSON schema) allows has 37 tokens with the end; raise it, or allow shorter answers");
}

#[test]
fn a_regular_expression_is_completed_in_time_and_a_grammar_may_be_cut_off() {
    let params = sampling(Constraint::Regex("[a-z]{2,} end".to_owned()), 9);
    for seed in 0..30 {
        let (text, finished) = write(&BYT5, &params, seed).unwrap();
        assert!(finished && text.ends_with(" end"), "{text}");
    }
    let grammar = "start: word (\" \" word)*\nword: /[a-z]+/".to_owned();
    let params = sampling(Constraint::Lark(grammar), 9);
    let answers: Vec<(String, bool)> = (0..30).map(|seed| write(&OWN, &params, seed).unwrap()).collect();
    assert!(answers.iter().any(|(_, finished)| !finished));
    for (text, _) in answers {
        assert!(
            !text.is_empty() && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_lowercase()),
            "{text:?}"
        );
    }
}

#[test]
fn choices_are_written_as_the_tokenizer_cuts_them() {
    let choices = ["cat", "cat face", "猫", "été"].map(str::to_owned);
    let params = sampling(Constraint::Choices(choices.to_vec()), 12);
    let mut seen: Vec<String> = (0..60)
        .map(|seed| write(&OWN, &params, seed).unwrap().0)
        .collect();
    seen.sort();
    seen.dedup();
    let mut expected = choices.to_vec();
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn penalties_give_way_to_the_constraint() {
    let params = sampling(Constraint::Regex("aa".to_owned()), 8);
    let mut state = BYT5.compile(&params).unwrap().unwrap().start();
    let logits = vec![0.0; BYT5.tokenizer.vocab_size()];
    let banned = vec![f32::NEG_INFINITY; BYT5.tokenizer.vocab_size()];
    let choice = state.draw(DrawContext {
        logits: &logits,
        processed: &banned,
        sampler: &mut Sampler::new(&params),
        step: 0,
        left: 8,
        ends: &BYT5.ends,
    });
    assert_eq!(choice.unwrap().0.id, u32::from(b'a') + 3);
}

#[test]
fn what_cannot_be_used_is_refused_with_what_is_wrong() {
    let refusals = [
        Constraint::Regex("(cat".to_owned()),
        Constraint::Regex(r"\bcat".to_owned()),
        Constraint::Regex("[a-z]{9999999}".to_owned()),
        Constraint::Regex("x".repeat(100_000)),
        Constraint::Regex(r"[a&&b]".to_owned()),
        Constraint::Choices(Vec::new()),
        Constraint::Choices(vec!["cat".to_owned(), String::new()]),
        Constraint::Choices(vec!["two  spaces ".to_owned()]),
        Constraint::Lark("begin: \"a\"".to_owned()),
        Constraint::Lark("start: (".to_owned()),
        Constraint::Lark("(".repeat(10_000)),
        Constraint::Lark("start: missing".to_owned()),
        Constraint::JsonSchema(json!(7)),
        Constraint::JsonSchema(json!(false)),
        Constraint::JsonSchema(json!({"type": "text"})),
        Constraint::JsonSchema(
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
        ),
        Constraint::JsonSchema(json!({"type": "string", "pattern": "a", "maxLength": 3})),
        Constraint::JsonSchema(json!({"type": "array", "items": {"type": "integer"}, "uniqueItems": true})),
        Constraint::JsonSchema(json!({"type": "array", "minItems": 3, "maxItems": 2})),
        Constraint::JsonSchema(json!({"type": "integer", "minimum": 3, "maximum": 2})),
        Constraint::JsonSchema(json!({"type": "number", "minimum": 1e300})),
        Constraint::JsonSchema(
            json!({"type": "integer", "minimum": 9_007_199_254_740_991_i64, "maximum": 9_007_199_254_740_993_i64}),
        ),
        Constraint::JsonSchema(json!({"type": "integer", "multipleOf": 1000, "minimum": 1, "maximum": 999})),
        Constraint::JsonSchema(json!({"type": "number", "multipleOf": 0.1})),
        Constraint::JsonSchema(json!({"type": "number", "minimum": 1, "exclusiveMinimum": true})),
        Constraint::JsonSchema(json!({"type": "string", "minLength": 65_536})),
        Constraint::JsonSchema(json!({"type": "string", "maxLength": -1})),
        Constraint::JsonSchema(json!({"$ref": "#"})),
        Constraint::JsonSchema(json!({"$ref": "https://example.com/schema"})),
        Constraint::JsonSchema(json!({"oneOf": [{"type": "string"}, {"type": "string", "minLength": 2}]})),
        Constraint::JsonSchema(json!({"allOf": [{"type": "string"}]})),
        Constraint::JsonSchema(json!({"type": "object", "additionalProperties": {"type": "string"}})),
    ];
    let refusals: Vec<String> = refusals.into_iter().map(refusal).collect();
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn a_constraint_goes_with_one_beam_and_no_stop_strings() {
    let constraint = Constraint::Regex("cat".to_owned());
    let beams = SamplingParams {
        beams: 2,
        temperature: 0.0,
        ..sampling(constraint.clone(), 9)
    };
    insta::assert_snapshot!(compile(&OWN, &beams).unwrap_err(), @"sampling parameter 'beams' is 2, expected 1 where the answer is constrained");
    let stop = SamplingParams {
        stop: vec!["x".to_owned()],
        ..sampling(constraint, 9)
    };
    insta::assert_snapshot!(compile(&OWN, &stop).unwrap_err(), @r#"sampling parameter 'stop' is ["x"], expected no stop strings where the answer is constrained"#);
}

#[test]
fn a_vocabulary_without_a_character_that_is_needed_is_refused() {
    let schema = Constraint::JsonSchema(json!({"const": "𓅯"}));
    let refusal = T5
        .compile(&sampling(schema, 32))
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("this model's vocabulary cannot spell"),
        "{refusal}"
    );
}

#[test]
fn hostile_constraints_are_answered_quickly_and_without_panics() {
    let deep = (0..500).fold(
        json!({"type": "string"}),
        |inner, _| json!({"type": "array", "items": inner}),
    );
    let wide: serde_json::Map<String, Value> = (0..900)
        .map(|n| (format!("p{n}"), json!({"type": "string"})))
        .collect();
    // Each definition refers twice to the one before: a million schemas, references followed.
    let mut doubling = json!({"$ref": "#/$defs/20", "$defs": {"0": {"type": "integer"}}});
    for n in 0..20 {
        let inner = json!({"$ref": format!("#/$defs/{n}")});
        doubling["$defs"][(n + 1).to_string()] = json!({"anyOf": [inner, {"type": "array", "items": inner}]});
    }
    let hostile = [
        Constraint::Regex("(((a{1,1000}){1,1000}){1,1000})b".to_owned()),
        Constraint::Regex("(a*)*(a|aa)+(a?){500}a{500}".to_owned()),
        Constraint::Regex(format!("{}a{}", "(".repeat(30_000), ")".repeat(30_000))),
        Constraint::Regex(r"(?:\p{L}{1,60000}|\w{2,60000})+".to_owned()),
        Constraint::JsonSchema(deep),
        Constraint::JsonSchema(json!({"type": "object", "properties": wide})),
        Constraint::JsonSchema(doubling),
        Constraint::JsonSchema(json!({"type": "string", "maxLength": 65_535, "minLength": 65_535})),
        Constraint::Lark("start: start start | start \"a\" | \"a\"".to_owned()),
        Constraint::Lark(format!("start: {}", "\"a\"? ".repeat(3000))),
        Constraint::Lark(
            (0..1300)
                .map(|n| format!("r{n}: r{}\n", n + 1))
                .collect::<String>()
                + "start: r0\nr1300: \"a\"",
        ),
    ];
    for constraint in hostile {
        let params = sampling(constraint, 20);
        // Refused or not: an answer that can be started can be written to its end or limit.
        if let Ok(compiled) = compile(&OWN, &params) {
            drop(compiled);
            let written = std::panic::catch_unwind(|| write(&OWN, &params, 3));
            assert!(written.is_ok(), "{:.80}", format!("{:?}", params.constraint));
        }
    }
}

/// Makes a grammar in which an answer that begins with `z` uses up what a step of the lexer may cost, since
/// what follows depends on each of the last hundred letters; other answers need next to nothing.
fn greedy() -> Constraint {
    let far = (b'a'..=b'y').map(|letter| format!("{}[a-z]{{{letter}}}", char::from(letter)));
    let far: Vec<String> = far.collect();
    Constraint::Lark(format!("start: /x{{3}}|z[a-z]*({})/", far.join("|")))
}

/// Writes the tokens of a text.
fn write_text(constraints: &Constraints, state: &mut ConstraintState, text: &str) -> Result<(), String> {
    let params = SamplingParams::default();
    let mut sampler = Sampler::new(&params);
    for (step, byte) in text.char_indices().map(|(at, c)| (at, c.to_string())) {
        let bytes = constraints.vocabulary().unwrap().cut(byte.as_bytes()).unwrap();
        for id in bytes {
            let mut logits = vec![0.0; constraints.tokenizer.vocab_size()];
            logits[id as usize] = 9.0;
            let draw = DrawContext {
                logits: &logits,
                processed: &logits,
                sampler: &mut sampler,
                step,
                left: 900,
                ends: &constraints.ends,
            };
            state.draw(draw)?;
        }
    }
    Ok(())
}

#[test]
fn an_answer_that_uses_up_the_lexer_fails_alone() {
    let json = sentencepiece_to_json(include_bytes!("../../tests/fixtures/tokenizer.model")).unwrap();
    let fresh = constraints(Tokenizer::from_json(&json).unwrap());
    let params = sampling(greedy(), 900);
    let start = || compile(&fresh, &params).unwrap().start();
    let (mut beside, mut unstarted) = (start(), start());
    write_text(&fresh, &mut beside, "x").unwrap();
    let letters: Vec<char> = ('a'..='z').collect();
    let letter = |n: u32| letters[(n.wrapping_mul(2_654_435_761) >> 16) as usize % 26];
    let text: String = (0..400).map(letter).collect();
    let failure = write_text(&fresh, &mut start(), &format!("z{text}")).unwrap_err();
    assert!(failure.contains("cannot be followed further"), "{failure}");
    write_text(&fresh, &mut beside, "xx").unwrap();
    write_text(&fresh, &mut unstarted, "xxx").unwrap();
    write_text(&fresh, &mut start(), "xxx").unwrap();
    let ends =
        |state: &mut ConstraintState| state.allowed().unwrap() == fresh.ends.iter().collect::<Vec<_>>();
    assert!(ends(&mut beside) && ends(&mut unstarted));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_grammar_and_the_language_of_a_schema_are_the_same(seed: u64) {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "integer", "minimum": -40, "maximum": 1200},
            "b": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "c": {"type": "array", "items": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "boolean"}]}, "maxItems": 3},
            "d": {"type": "string", "pattern": "^[A-Z]\\d{2}$"},
        }, "required": ["b", "d"]});
        let params = sampling(Constraint::JsonSchema(schema.clone()), 200);
        let (text, finished) = write(&OWN, &params, seed).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        prop_assert!(finished && jsonschema::is_valid(&schema, &value), "{}", text);
    }
}

#[test]
fn compiled_constraints_are_kept_within_a_budget_of_bytes() {
    let words = |n: usize| sampling(Constraint::Regex(format!("[a-z]{{{n}}}")), 40);
    let large = (0..200).map(|n| format!("thing {n}")).collect();
    let large = sampling(Constraint::Choices(large), 40);
    let one = {
        compile(&OWN, &words(7)).unwrap();
        OWN.known(&words(7).constraint.unwrap().key().unwrap())
            .unwrap()
            .bytes()
    };
    let end = OWN.ends.clone();
    let small = Constraints::new(OWN.tokenizer.clone(), end, 3 * one);
    for n in 1..9 {
        assert_eq!(write(&small, &words(n), 1).unwrap().0.len(), n);
        // What answers found out counts when the constraint is asked for again.
        compile(&small, &words(n)).unwrap();
        assert!(
            (1..=3 * one).contains(&small.cached_bytes()),
            "{}",
            small.cached_bytes()
        );
    }
    let is_kept = |params: &SamplingParams| {
        small
            .known(&params.constraint.as_ref().unwrap().key().unwrap())
            .is_some()
    };
    assert!(is_kept(&words(8)) && is_kept(&words(7)) && !is_kept(&words(1)));
    let none = Constraints::new(OWN.tokenizer.clone(), OWN.ends.clone(), 1000);
    assert!(write(&none, &large, 1).unwrap().0.starts_with("thing "));
    assert_eq!(none.cached_bytes(), 0, "it alone has more bytes");
}

#[test]
fn what_two_requests_compile_at_once_is_kept_once() {
    let own = Constraints::new(OWN.tokenizer.clone(), OWN.ends.clone(), 1 << 24);
    let constraint = Constraint::Regex("[a-z]{7}".to_owned());
    let key = constraint.key().unwrap();
    let one = own.compile_new(key.clone(), &constraint).unwrap();
    let bytes = own.cached_bytes();
    let other = own.compile_new(key, &constraint).unwrap();
    assert!(Arc::ptr_eq(&one, &other), "both start from the same");
    assert_eq!(own.cached_bytes(), bytes);
}

/// Tells why a constraint is refused, or nothing.
fn refused(constraint: Constraint) -> Option<String> {
    let compiled = compile(&OWN, &sampling(constraint, 20));
    compiled.err().map(|error| error.to_string())
}

#[test]
fn long_chains_are_followed_on_a_small_stack() {
    let patterns = [
        format!("(?:{}|b)c", "a".repeat(8000)),
        format!("{}c", "a?".repeat(400)),
    ];
    for pattern in patterns {
        let mut language = Language::new(OWN.vocabulary().unwrap().single_bytes());
        let small = std::thread::Builder::new().stack_size(1 << 18);
        let body = language.regex(&regex::parse(&pattern).unwrap()).unwrap();
        let followed = small.spawn(move || {
            let after = language.derivative(body, b'a');
            (
                language.derivative(after, b'a') != Expression::NEVER,
                language.derivative(body, b'x'),
            )
        });
        assert_eq!(followed.unwrap().join().unwrap(), (true, Expression::NEVER));
    }
}

#[test]
fn a_text_that_could_begin_with_a_space_that_is_not_shown_is_refused() {
    for pattern in [".{3}", " cat", "( |a)b", ".*"] {
        let why = refused(Constraint::Regex(pattern.to_owned()));
        assert!(
            why.is_some_and(|why| why.contains("begins with a space")),
            "{pattern}"
        );
    }
    assert_eq!(refused(Constraint::Regex("\\S.{0,2}".to_owned())), None);
}

#[test]
fn literals_are_of_their_type_and_the_order_of_properties_counts() {
    let words = |schema: Value| {
        let answers = (0..12).map(|seed| {
            let params = sampling(Constraint::JsonSchema(schema.clone()), 20);
            write(&OWN, &params, seed).unwrap().0
        });
        answers.collect::<std::collections::BTreeSet<String>>()
    };
    let red = words(json!({"type": "string", "enum": ["red", null, 3]}));
    assert_eq!(red, ["\"red\"".to_owned()].into());
    assert!(refused(Constraint::JsonSchema(json!({"type": "integer", "const": "x"}))).is_some());
    let of = |names: [&str; 2]| {
        let properties: serde_json::Map<_, _> = names
            .map(|name| (name.to_owned(), json!({"const": 1})))
            .into_iter()
            .collect();
        words(json!({"type": "object", "properties": properties, "required": names}))
    };
    assert_eq!(of(["a", "b"]), ["{\"a\":1,\"b\":1}".to_owned()].into());
    assert_eq!(of(["b", "a"]), ["{\"b\":1,\"a\":1}".to_owned()].into());
}
