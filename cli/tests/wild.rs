//! Checkpoints as people have them: each was read by `transformers`, and is to be answered with the same
//! tokens here.
//!
//! `tests/fixtures/cases/checkpoints/expected.json` has for each case the ids of the prompt and of the
//! answer, and says which files make the checkpoint, since most of them are shared.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use common::TestFolder;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/cases");

#[derive(Deserialize)]
struct Case {
    case: String,
    task: String,
    text: String,
    max_new_tokens: Option<usize>,
    prompt_ids: Vec<u32>,
    /// The start token first.
    decoder_ids: Vec<u32>,
    text_out: String,
    files: BTreeMap<String, String>,
}

impl Case {
    fn arguments(&self) -> Vec<String> {
        let set: Vec<String> = match (self.task.as_str(), self.text.split_once(" <sep> ")) {
            ("sep", Some((text, rest))) => vec![format!("text={text}"), format!("rest={rest}")],
            ("infill", _) => {
                vec![format!(
                    "text={}",
                    self.text
                        .replace("<extra_id_0>", "___")
                        .replace("<extra_id_1>", "___")
                )]
            }
            _ => vec![format!("text={}", self.text)],
        };
        let mut arguments = vec!["--checkpoint".to_owned(), self.case.clone()];
        arguments.extend(["--task-dir".to_owned(), format!("{CASES}/tasks")]);
        arguments.extend(["run".to_owned(), self.task.clone(), "--json".to_owned()]);
        for value in set {
            arguments.extend(["--set".to_owned(), value]);
        }
        if let Some(tokens) = self.max_new_tokens {
            arguments.extend(["--max-new-tokens".to_owned(), tokens.to_string()]);
        }
        arguments
    }
}

#[test]
fn checkpoints_from_the_wild_are_answered_as_transformers_answers_them() {
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(Path::new(CASES).join("checkpoints/expected.json")).unwrap())
            .unwrap();
    assert!(cases.len() >= 15);
    let mut wrong = Vec::new();
    for case in &cases {
        let place = TestFolder::new();
        for (name, file) in &case.files {
            let bytes = std::fs::read(Path::new(CASES).join("checkpoints").join(file)).unwrap();
            place.write(&format!("{}/{name}", case.case), bytes);
        }
        let arguments = case.arguments();
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // Alternatives, which name the tokens, do not go with beams.
        let has_beams = case.case == "generation-in-config-alone";
        if !has_beams {
            arguments.extend(["--top-log-probabilities", "1"]);
        }
        let ended = place.run(&arguments);
        if ended.code != Some(0) {
            wrong.push(format!("{}: {}", case.case, ended.told()));
            continue;
        }
        let json = ended.json();
        // What fills gaps starts with `<extra_id_0>`, which is no part of the answer.
        let forced = if case.task == "infill" { 2 } else { 1 };
        let expected = case.decoder_ids.get(forced..).unwrap();
        let tokens: Vec<u32> = json["tokens"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|token| u32::try_from(token["id"].as_u64().unwrap()).unwrap())
            .collect();
        let same_tokens = has_beams || tokens == expected;
        let same_counts = json["usage"]["prompt_tokens"] == case.prompt_ids.len()
            && json["usage"]["new_tokens"] == expected.len();
        // Theirs is stripped, and has the start token where that is no special one.
        let text = json["text"].as_str().unwrap().trim();
        let same_text = case.task == "infill" || case.decoder_ids[0] != 0 || text == case.text_out;
        if !(same_tokens && same_counts && same_text) {
            wrong.push(format!(
                "{}: expected {expected:?} {:?}, found {json}",
                case.case, case.text_out
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn what_config_json_says_of_generating_and_the_added_tokens_go_with_a_converted_checkpoint() {
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(Path::new(CASES).join("checkpoints/expected.json")).unwrap())
            .unwrap();
    for name in ["generation-in-config-alone", "added-beside-spiece"] {
        let case = cases.iter().find(|case| case.case == name).unwrap();
        let place = TestFolder::new();
        for (name, file) in &case.files {
            let bytes = std::fs::read(Path::new(CASES).join("checkpoints").join(file)).unwrap();
            place.write(&format!("{}/{name}", case.case), bytes);
        }
        let arguments = case.arguments();
        let original: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let answer = place.run(&original).json();
        assert_eq!(place.run(&["convert", name, "out"]).code, Some(0));
        let converted: Vec<&str> = original
            .iter()
            .map(|part| if *part == name { "out" } else { part })
            .collect();
        let again = place.run(&converted).json();
        assert_eq!(
            (&again["text"], &again["usage"]),
            (&answer["text"], &answer["usage"]),
            "{name}"
        );
    }
}
