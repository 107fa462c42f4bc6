//! `COMPATIBILITY.md`: what runs, and how that was checked. It is made of the recorded cases and of tests
//! that exist; `MULTIWAY_UPDATE=1` writes it anew.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

const FILE: &str = "COMPATIBILITY.md";

/// What is claimed, of which families, and the test that shows it: a file, and a function in it.
const CLAIMS: [(&str, &str, &str, &str); 34] = [
    (
        "a row alone gives the bits that it gives in a batch",
        "T5",
        "tests/parity/main.rs",
        "a_row_alone_gives_the_bits_that_it_gives_in_the_batch",
    ),
    (
        "decoding step by step writes the tokens of the whole pass",
        "T5",
        "tests/parity/main.rs",
        "greedy_decoding_step_by_step_writes_the_references_tokens",
    ),
    (
        "a sample alone gives the bits that it gives in a batch, its head's answer too",
        "BEiT-3",
        "tests/parity/main.rs",
        "a_sample_of_beit3_alone_gives_the_bits_that_it_gives_in_the_batch",
    ),
    (
        "a bias by distance in every layer (UMT5), with embeddings tied and not",
        "T5",
        "tests/parity/main.rs",
        "every_recorded_tensor_of_t5_is_the_references",
    ),
    (
        "the pre-training heads: masked words, masked patches, and both in one pass",
        "BEiT-3",
        "tests/parity/main.rs",
        "every_recorded_tensor_of_beit3_is_the_references",
    ),
    (
        "captions by beams, a picture encoded once",
        "BEiT-3",
        "tests/parity/main.rs",
        "every_recorded_caption_of_beit3_is_the_references",
    ),
    (
        "weights in `bf16` and in 8 bits move each layer by no more than a table says",
        "T5, BEiT-3",
        "tests/parity/narrow.rs",
        "narrow_weights_move_the_references_layers_as_far_as_the_table_says",
    ),
    (
        "the command line runs a T5 folder, with its tasks",
        "T5",
        "cli/tests/command_line.rs",
        "a_t5_of_transformers_runs_like_the_embedded_model",
    ),
    (
        "`run vqa`, with labels.txt or answer2label.txt",
        "BEiT-3",
        "cli/tests/beit3.rs",
        "a_question_is_answered_with_one_of_the_answers_in_the_side_file",
    ),
    (
        "`run reason`, two pictures",
        "BEiT-3",
        "cli/tests/beit3.rs",
        "two_pictures_are_compared_with_a_sentence",
    ),
    (
        "`run classify`",
        "BEiT-3",
        "cli/tests/beit3.rs",
        "a_picture_is_classified_alone",
    ),
    (
        "`run caption`",
        "BEiT-3",
        "cli/tests/beit3.rs",
        "a_caption_is_searched_for_with_beams_and_takes_no_text",
    ),
    (
        "`embed`, and so `search`",
        "BEiT-3",
        "cli/tests/beit3.rs",
        "pictures_and_texts_are_embedded_by_two_towers",
    ),
    (
        "`run infill` by the head for masked words",
        "BEiT-3",
        "cli/tests/beit3.rs",
        "masked_words_are_filled_in",
    ),
    (
        "`.pth` files, their kind told from their weights",
        "BEiT-3",
        "model/src/checkpoint/pth_tests.rs",
        "a_file_without_config_tells_what_it_is_for_every_task",
    ),
    (
        "shared attention and fusion layers (the giant)",
        "BEiT-3",
        "model/src/checkpoint/pth_tests.rs",
        "the_shared_attention_and_the_fusion_layers_of_the_giant_are_found",
    ),
    (
        "hostile `.pth` files are refused",
        "all",
        "model/src/checkpoint/pth_tests.rs",
        "what_pickles_can_do_beyond_describing_tensors_is_refused",
    ),
    (
        "beit3.spm in XLM-R's numbering, as transformers numbers it",
        "BEiT-3",
        "runtime/tests/tokenizer.rs",
        "beit3_numbers_its_pieces_as_xlm_r_does",
    ),
    (
        "spiece.model with `<extra_id_N>` behind it",
        "T5",
        "runtime/tests/tokenizer.rs",
        "the_gaps_of_t5_are_its_last_ids",
    ),
    (
        "ByT5's tokenizer",
        "T5",
        "runtime/tests/tokenizer.rs",
        "byt5_cuts_text_into_its_bytes",
    ),
    (
        "sampling draws from the tokens that transformers leaves: top_k, top_p, min_p, typical_p, at a temperature",
        "all",
        "runtime/src/sampling.rs",
        "what_is_left_to_be_drawn_is_what_transformers_leaves",
    ),
    (
        "generation_config.json",
        "all",
        "runtime/src/generation.rs",
        "every_key_has_its_meaning",
    ),
    (
        "random generation settings, greedy and with beams: 320 of 320 as transformers 4.57.6 (`scripts/check_generation.sh 320 1`)",
        "T5",
        "tests/generation_reference.rs",
        "answers_are_those_of_transformers_whatever_the_settings",
    ),
    (
        "checkpoints as people have them: added tokens, full dumps of configurations, generation keys",
        "T5",
        "cli/tests/wild.rs",
        "checkpoints_from_the_wild_are_answered_as_transformers_answers_them",
    ),
    (
        "tokenizer.json gives the ids and texts of the library `tokenizers`, whatever its parts",
        "all",
        "runtime/tests/tokenizer.rs",
        "every_pipeline_is_that_of_the_library",
    ),
    (
        "`convert`, compared afterwards",
        "all",
        "cli/tests/beit3.rs",
        "a_checkpoint_is_converted_with_its_provenance_and_runs_the_same",
    ),
    (
        "download from a hub, resumed and checked",
        "all",
        "model/tests/hub.rs",
        "a_download_that_breaks_off_goes_on_where_it_stopped",
    ),
    (
        "`.pth` files with what training scripts put beside the weights",
        "all",
        "model/src/checkpoint/foreign_tests.rs",
        "what_training_scripts_put_beside_the_weights_is_passed_over",
    ),
    (
        "`module.` and `model.` in front of every name",
        "all",
        "cli/tests/foreign.rs",
        "every_weight_may_carry_the_name_of_what_wrapped_the_model",
    ),
    (
        "embeddings under the name of encoder or decoder",
        "T5",
        "cli/tests/foreign.rs",
        "the_embeddings_of_a_t5_may_have_the_name_of_either_part",
    ),
    (
        "keys of training, and whole dumps of a `config.json`",
        "T5",
        "cli/tests/foreign.rs",
        "keys_of_training_and_whole_dumps_of_a_configuration_are_read",
    ),
    (
        "the hub's cache where `huggingface_hub` keeps it",
        "all",
        "model/src/hub/environment.rs",
        "the_cache_is_where_huggingface_hub_keeps_it",
    ),
    (
        "weights of PyTorch's in several files, with and without their index",
        "all",
        "model/src/checkpoint/foreign_tests.rs",
        "parts_of_weights_by_pytorch_are_read_with_and_without_their_index",
    ),
    (
        "weights in several files",
        "all",
        "model/src/checkpoint/tests.rs",
        "weights_in_several_files_are_one_checkpoint",
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Says what one case is, and how much of it is compared.
fn row(folder: &Path) -> String {
    let name = folder.file_name().unwrap().to_string_lossy();
    let (config, inputs) = (
        read(&folder.join("config.json")),
        read(&folder.join("inputs.json")),
    );
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let recorded =
        candle_core::safetensors::load(folder.join("activations.safetensors"), &candle_core::Device::Cpu);
    let compared = recorded
        .unwrap()
        .keys()
        .filter(|name| !name.starts_with("in."))
        .count();
    let libraries = [
        ("transformers", "transformers"),
        ("torchscale", "torchscale"),
        ("beit3-gml", "beit3_gml"),
    ];
    let versions = libraries.map(|(name, key)| (name, text(&inputs[key])));
    let used = versions.iter().filter(|(_, version)| !version.is_empty());
    let reference: Vec<_> = used.map(|(name, version)| format!("{name} {version}")).collect();
    let reference = reference.join(", ");
    let kind = match text(&config["task"]) {
        task if task.is_empty() => text(&config["model_type"]),
        task => format!("{}, {task}", text(&config["model_type"])),
    };
    let ways = inputs["generate"].as_array().map_or(0, Vec::len)
        + inputs["captions"].as_object().map_or(0, serde_json::Map::len);
    format!("| `{name}` | {kind} | {reference} | {compared} | {ways} |\n")
}

fn render() -> String {
    let mut text = "# Compatibility\n\nMade by a test from the recorded cases and from the tests that are named; \
         `MULTIWAY_UPDATE=1 cargo test --test parity compatibility` writes it anew.\n\n\
         ## Number for number\n\nSmall random models, run by other people's code. Every recorded tensor is compared, within \
         1e-4 of the largest value or four times the reference's own noise; every way of generating gives the same token \
         ids, and with beams T5 gives the same scores within 1e-4.\n\n\
         | case | model | reference | tensors | ways of generating |\n|---|---|---|---|---|\n"
        .to_owned();
    let mut folders: Vec<_> = std::fs::read_dir(root().join("tests/fixtures/parity"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders.iter().for_each(|folder| text.push_str(&row(folder)));
    text.push_str("\n## Features\n\n| what | families | shown by |\n|---|---|---|\n");
    let mut sources: HashMap<&str, String> = HashMap::new();
    for (what, families, file, test) in CLAIMS {
        let source = sources
            .entry(file)
            .or_insert_with(|| std::fs::read_to_string(root().join(file)).unwrap());
        assert!(
            source.contains(&format!("fn {test}(")),
            "{file} has no test '{test}'"
        );
        writeln!(text, "| {what} | {families} | `{file}`: `{test}` |").unwrap();
    }
    text.push_str(
        "\n## Not checked\n\nNo released weights were at hand: the sizes, names and prompts are theirs, the numbers in the cases are not. \
         Nothing was run on a GPU.\n",
    );
    text
}

#[test]
fn the_compatibility_table_is_what_cases_and_tests_show() {
    let (path, rendered) = (root().join(FILE), render());
    if std::env::var_os("MULTIWAY_UPDATE").is_some() {
        std::fs::write(&path, &rendered).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == rendered,
        "{FILE} is not up to date: run with MULTIWAY_UPDATE=1"
    );
}
