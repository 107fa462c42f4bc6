//! `multiway bench`: what its lines hold, and what it refuses. How fast anything is stays out of here.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod common;

use insta::assert_snapshot;
use multiway_model::{Checkpoint, Device, ModelConfig, initialise};
use serde_json::{Value, json};

use common::{Ended, TestFolder};

/// What every line of a case holds, in this order.
const CASE_FIELDS: [&str; 13] = [
    "engine",
    "dtype",
    "cache",
    "model",
    "threads",
    "batch",
    "src",
    "pictures",
    "beam",
    "new_tokens",
    "encode_ms",
    "decode_tokens_per_s",
    "rss_mb",
];

/// What every line of growth holds, in this order, but for the lines of the machine.
const GROWTH_FIELDS: [&str; 15] = [
    "engine",
    "dtype",
    "cache",
    "model",
    "threads",
    "stage",
    "batch",
    "src",
    "tokens",
    "new_tokens",
    "ms",
    "predicted_ms",
    "ratio",
    "tokens_per_s",
    "predicted_tokens_per_s",
];

/// What a line of the machine holds.
const MACHINE_FIELDS: [&str; 7] = [
    "engine",
    "threads",
    "memory_gb_s",
    "cache_gb_s",
    "f32_gflop_s",
    "bf16_gflop_s",
    "int8_gop_s",
];

/// Writes a small checkpoint with random weights into `place`, without a tokenizer.
fn checkpoint(place: &TestFolder, name: &str, config: &Value) {
    let config = ModelConfig::from_json(config.to_string().as_bytes()).unwrap();
    let tensors = initialise(&config, 1, &Device::Cpu)
        .unwrap()
        .into_iter()
        .collect();
    Checkpoint::save(place.path(name), &config, &tensors, &[]).unwrap();
}

fn t5(place: &TestFolder) {
    let config = json!({
        "model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 4,
        "vocab_size": 96, "tie_word_embeddings": false, "feed_forward_proj": "gated-gelu",
    });
    checkpoint(place, "t5", &config);
}

fn beit3(place: &TestFolder) {
    let config = json!({
        "model_type": "beit3", "task": "vqa", "num_classes": 7, "encoder_embed_dim": 32, "encoder_attention_heads": 4,
        "encoder_ffn_embed_dim": 48, "encoder_layers": 1, "normalize_output": false, "max_source_positions": 64,
        "vocab_size": 96, "img_size": 32, "patch_size": 16,
    });
    checkpoint(place, "beit3", &config);
}

/// Runs `multiway bench` and reads its lines.
fn lines(place: &TestFolder, args: &str) -> Vec<Value> {
    let ended = run(place, args);
    assert_eq!(ended.code, Some(0), "{}", ended.told());
    let lines = ended.stdout.lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn run(place: &TestFolder, args: &str) -> Ended {
    let args: Vec<&str> = ["bench"].into_iter().chain(args.split_whitespace()).collect();
    place.run(&args)
}

fn keys(line: &Value) -> Vec<&str> {
    line.as_object().unwrap().keys().map(String::as_str).collect()
}

fn is_positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number > 0.0)
}

#[test]
fn decoding_prints_the_fixed_fields_of_a_case() {
    let place = TestFolder::new();
    t5(&place);
    let args = "decode --checkpoint t5 --dtype f32 --threads 2 --batch 8 --source-length 5 --new-tokens 6 --beams 1 \
                --repeats 3 --json";
    let [line] = lines(&place, args).try_into().unwrap();
    assert_eq!(keys(&line), CASE_FIELDS);
    let fixed = [
        "engine",
        "dtype",
        "cache",
        "model",
        "threads",
        "batch",
        "src",
        "pictures",
        "beam",
        "new_tokens",
    ];
    assert_eq!(
        fixed.map(|field| line[field].clone()),
        [
            json!("multiway"),
            json!("f32"),
            json!("f32"),
            json!("t5"),
            json!(2),
            json!(8),
            json!(5),
            json!(0),
            json!(1),
            json!(6)
        ]
    );
    assert!(
        ["encode_ms", "decode_tokens_per_s"]
            .iter()
            .all(|field| is_positive(&line[field]))
    );
    assert!(line["rss_mb"].is_null() || is_positive(&line["rss_mb"]));
}

#[test]
fn lists_make_a_case_of_each_value_with_each_other() {
    let place = TestFolder::new();
    t5(&place);
    let args = "decode --checkpoint t5 --batch 1,2 --source-length 4,6 --beams 1,3 --new-tokens 2 --repeats 1 --json";
    let cases = lines(&place, args);
    let found: Vec<_> = cases
        .iter()
        .map(|line| [&line["batch"], &line["src"], &line["beam"]].map(|value| value.as_u64().unwrap()))
        .collect();
    let expected = [
        [1, 4, 1],
        [1, 4, 3],
        [1, 6, 1],
        [1, 6, 3],
        [2, 4, 1],
        [2, 4, 3],
        [2, 6, 1],
        [2, 6, 3],
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_same_seed_writes_the_same_tokens_on_any_number_of_threads() {
    let place = TestFolder::new();
    t5(&place);
    let tokens = |options: &str| {
        let args = format!(
            "decode --checkpoint t5 --batch 2 --new-tokens 5 --repeats 1 --json --show-tokens {options}"
        );
        lines(&place, &args)[0]["tokens"].clone()
    };
    let first = tokens("--seed 3 --threads 1");
    assert_eq!(first.as_array().unwrap().len(), 2);
    assert!(
        first
            .as_array()
            .unwrap()
            .iter()
            .all(|answer| answer.as_array().unwrap().len() == 5)
    );
    assert_eq!(first, tokens("--seed 3 --threads 2"));
}

#[test]
fn keys_and_values_are_kept_as_the_case_says() {
    let place = TestFolder::new();
    t5(&place);
    let bytes = |cache: &str| {
        let args = format!(
            "kernels --checkpoint t5 --batch 2 --source-length 40 --repeats 1 --json --cache-dtype {cache}"
        );
        let kernels = lines(&place, &args);
        let attention = kernels
            .iter()
            .find(|line| line["kernel"] == "cross_attention")
            .unwrap();
        assert_eq!(attention["cache"], cache);
        // 10^9 bytes a second, times microseconds.
        attention["gb_s"].as_f64().unwrap() * attention["us"].as_f64().unwrap() * 1e3
    };
    // 80 rows of keys and values in 4 heads of 8, and what goes in and out: 64 numbers each.
    for (cache, row) in [("f32", 64 * 4), ("bf16", 64 * 2), ("int8", 64 + 8 * 4)] {
        let expected = f64::from(80 * row + 2 * 64 * 4);
        assert!(
            (bytes(cache) / expected - 1.0).abs() < 0.01,
            "{cache}: {}",
            bytes(cache)
        );
        let args = format!(
            "decode --checkpoint t5 --batch 2 --new-tokens 3 --repeats 1 --json --cache-dtype {cache}"
        );
        assert_eq!(lines(&place, &args)[0]["cache"], cache);
    }
}

#[test]
fn encoding_takes_pictures_where_the_model_sees_them() {
    let place = TestFolder::new();
    beit3(&place);
    let [both] = lines(
        &place,
        "encode --checkpoint beit3 --source-length 6 --repeats 1 --json",
    )
    .try_into()
    .unwrap();
    assert_eq!(keys(&both), CASE_FIELDS);
    assert_eq!((&both["pictures"], &both["src"]), (&json!(1), &json!(6)));
    assert!(is_positive(&both["encode_ms"]));
    assert!(
        ["beam", "new_tokens", "decode_tokens_per_s"]
            .iter()
            .all(|field| both[field].is_null())
    );
    let [picture] = lines(
        &place,
        "encode --checkpoint beit3 --source-length 0 --repeats 1 --json",
    )
    .try_into()
    .unwrap();
    assert_eq!(picture["src"], 0);
    let [text] = lines(
        &place,
        "encode --checkpoint beit3 --pictures 0 --repeats 1 --source-length 9 --json",
    )
    .try_into()
    .unwrap();
    assert_eq!(text["pictures"], 0);
}

#[test]
fn loading_is_timed_up_to_the_first_token() {
    let place = TestFolder::new();
    t5(&place);
    beit3(&place);
    for model in ["t5", "beit3"] {
        let [line] = lines(
            &place,
            &format!("load --checkpoint {model} --source-length 8 --json"),
        )
        .try_into()
        .unwrap();
        let fields = [
            "engine",
            "dtype",
            "cache",
            "model",
            "threads",
            "src",
            "pictures",
            "load_s",
            "first_token_s",
            "rss_mb",
        ];
        assert_eq!(keys(&line), fields);
        assert!(line["first_token_s"].as_f64().unwrap() > line["load_s"].as_f64().unwrap());
    }
}

#[test]
fn each_kernel_has_a_line_and_with_the_roofline_a_share() {
    let place = TestFolder::new();
    t5(&place);
    let kernels = lines(
        &place,
        "kernels --checkpoint t5 --batch 2 --source-length 4 --repeats 1 --json",
    );
    let fields = [
        "engine", "dtype", "cache", "model", "threads", "batch", "src", "stage", "kernel", "shape", "us",
        "gflop_s", "gb_s",
    ];
    assert!(kernels.iter().all(|line| keys(line) == fields));
    let shape = |stage: &str, kernel: &str| {
        let found = kernels
            .iter()
            .find(|line| line["stage"] == stage && line["kernel"] == kernel);
        found.unwrap_or_else(|| panic!("{stage} {kernel}"))["shape"].clone()
    };
    assert_eq!(shape("encode", "query_key_value"), "8x32x96");
    assert_eq!(shape("decode", "feed_forward_up"), "2x32x96");
    assert_eq!(shape("decode", "logits"), "2x32x96");
    assert_eq!(shape("decode", "cross_attention"), "2x4x4x8");

    let roofline = lines(
        &place,
        "roofline --checkpoint t5 --batch 2 --source-length 4 --repeats 1 --json",
    );
    assert_eq!(keys(&roofline[0]), MACHINE_FIELDS);
    assert!(
        MACHINE_FIELDS[1..5]
            .iter()
            .all(|field| is_positive(&roofline[0][field]))
    );
    assert_eq!(roofline.len(), 1 + kernels.len());
    assert!(roofline[1..].iter().all(|line| is_positive(&line["share"])));
    assert_eq!(lines(&place, "roofline --machine --json").len(), 1);
}

#[test]
fn growth_measures_steps_and_encodings_on_one_thread_and_on_all_beside_a_prediction() {
    let place = TestFolder::new();
    t5(&place);
    let args = "growth --checkpoint t5 --dtype int8 --cache-dtype bf16 --threads 2 --batch 1,3,5 --source-length 4,40,90 \
                --new-tokens 2 --texts 3 --repeats 1 --json";
    let lines = lines(&place, args);
    let (machines, cases): (Vec<&Value>, Vec<&Value>) =
        lines.iter().partition(|line| line.get("stage").is_none());
    assert!(machines.iter().all(|line| keys(line) == MACHINE_FIELDS));
    assert!(cases.iter().all(|line| keys(line) == GROWTH_FIELDS));
    let numbers = [&GROWTH_FIELDS[4..5], &GROWTH_FIELDS[8..9], &GROWTH_FIELDS[10..]].concat();
    let is_whole = |line: &&Value| numbers.iter().all(|field| is_positive(&line[field]));
    assert!(cases.iter().all(is_whole), "{cases:?}");
    let are_narrow = |line: &&Value| line["dtype"] == "int8" && line["cache"] == "bf16";
    assert!(cases.iter().all(are_narrow), "{cases:?}");

    let number = |line: &Value, field: &str| line[field].as_u64();
    for threads in [1, 2] {
        let of_stage = |stage: &str| -> Vec<&Value> {
            let found = cases.iter().copied();
            let found = found.filter(|line| line["threads"] == threads && line["stage"] == stage);
            found.collect()
        };
        let steps = of_stage("decode");
        let shapes: Vec<_> = steps
            .iter()
            .map(|line| ["batch", "src", "new_tokens"].map(|field| number(line, field).unwrap()))
            .collect();
        assert_eq!(shapes, [[1, 4, 2], [3, 4, 2], [5, 4, 2], [1, 40, 2], [1, 90, 2]]);
        let predicted = |index: usize| steps[index]["predicted_ms"].as_f64().unwrap();
        let (batches, sources) = ([0, 1, 2], [0, 3, 4]);
        for order in [batches, sources] {
            assert!(order.map(predicted).is_sorted_by(|less, more| less < more));
        }
        let lengths: Vec<_> = of_stage("encode")
            .iter()
            .map(|line| number(line, "src"))
            .collect();
        assert_eq!(lengths, [16, 64, 128, 256].map(Some));
        let [ragged] = of_stage("ragged").try_into().unwrap();
        assert_eq!((number(ragged, "batch"), &ragged["src"]), (Some(3), &Value::Null));
        let tokens = number(ragged, "tokens").unwrap();
        assert!((3 * 16..=3 * 256).contains(&tokens));
    }
}

/// The words of each row of what ended well and printed a table.
fn table(ended: &Ended) -> Vec<Vec<&str>> {
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let rows = ended.stdout.lines();
    rows.map(|row| row.split_whitespace().collect()).collect()
}

#[test]
fn growth_goes_as_far_as_the_model_takes_texts_and_has_no_steps_without_a_decoder() {
    let place = TestFolder::new();
    beit3(&place);
    let cases = lines(
        &place,
        "growth --checkpoint beit3 --threads 1 --texts 2 --repeats 1 --json",
    );
    let shapes: Vec<_> = cases
        .iter()
        .skip(1)
        .map(|line| (line["stage"].as_str().unwrap(), line["src"].as_u64()))
        .collect();
    assert_eq!(
        shapes,
        [("encode", Some(16)), ("encode", Some(62)), ("ragged", None)]
    );
}

#[test]
fn the_table_of_growth_has_a_head_for_the_machine_and_one_for_the_cases() {
    let place = TestFolder::new();
    t5(&place);
    let ended = run(
        &place,
        "growth --checkpoint t5 --threads 1 --batch 2 --source-length 4 --new-tokens 1 --texts 1 --repeats 1 --quiet",
    );
    let rows = table(&ended);
    // The machine, an empty line, the head, a step, four lengths and the ragged batch.
    assert_eq!(rows.len(), 2 + 1 + 1 + 1 + 4 + 1);
    assert_eq!(rows[0], MACHINE_FIELDS[1..]);
    assert!(rows[3..].iter().all(|row| row.len() == rows[3].len()));
    assert_eq!(rows[3][..4], ["stage", "threads", "batch", "src"]);
    assert_eq!(rows[4][..4], ["decode", "1", "2", "4"]);
    assert_eq!(rows[9][..4], ["ragged", "1", "1", "-"]);
}

#[test]
fn a_table_has_a_row_for_each_case_under_the_names_of_its_columns() {
    let place = TestFolder::new();
    t5(&place);
    let ended = run(
        &place,
        "decode --checkpoint t5 --batch 1,2 --new-tokens 2 --repeats 1 --quiet",
    );
    let rows = table(&ended);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0], CASE_FIELDS);
    assert!(rows.iter().all(|row| row.len() == CASE_FIELDS.len()));
}

#[test]
fn what_cannot_be_measured_is_refused_and_told() {
    let place = TestFolder::new();
    t5(&place);
    beit3(&place);
    let refusal = |args: &str| {
        let ended = run(&place, args);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(2), ""),
            "{}",
            ended.told()
        );
        ended.stderr
    };
    assert_snapshot!("no_batch", refusal("decode --batch 1,0"));
    assert_snapshot!("growth_over_no_batch", refusal("growth --batch 1,0"));
    assert_snapshot!("list_with_a_word", refusal("encode --source-length 64,long"));
    assert_snapshot!("other_dtype", refusal("decode --dtype int4"));
    assert_snapshot!("other_cache", refusal("decode --cache-dtype int4"));
    assert_snapshot!(
        "cache_of_a_model_that_writes_nothing",
        refusal("encode --checkpoint beit3 --cache-dtype int8")
    );
    assert_snapshot!("no_words", refusal("decode --checkpoint beit3 --repeats 1"));
    assert_snapshot!(
        "pictures_for_a_text_model",
        refusal("encode --checkpoint t5 --pictures 1")
    );
    assert_snapshot!(
        "source_too_long",
        refusal("encode --checkpoint beit3 --source-length 100")
    );
    assert_snapshot!(
        "nothing_to_encode",
        refusal("encode --checkpoint t5 --source-length 0")
    );
    assert_snapshot!(
        "tokens_in_a_table",
        refusal("decode --checkpoint t5 --show-tokens")
    );
    let missing = run(&place, "encode --checkpoint nowhere.safetensors --json");
    assert_eq!(missing.code, Some(2));
    assert_eq!(missing.json()["error"]["kind"], "input");
}
