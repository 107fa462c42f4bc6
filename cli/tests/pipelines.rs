//! Every command of `docs/pipelines.md` runs, on small checkpoints in place of the released ones.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod common;

use std::fs;
use std::path::Path;

use common::TestFolder;

fn fixtures() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures"))
}

/// Puts a small BEiT-3 with a head into a folder, with a tokenizer of its kind and names for its answers.
fn beit3(place: &TestFolder, case: &str) {
    let folder = fixtures().join("parity").join(case);
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    config["mask_token_id"] = 85.into();
    place.write(&format!("{case}/config.json"), config.to_string());
    place.write(
        &format!("{case}/model.safetensors"),
        fs::read(folder.join("model.safetensors")).unwrap(),
    );
    place.write(
        &format!("{case}/beit3.spm"),
        include_bytes!("../../runtime/tests/fixtures/numbering/beit3.spm"),
    );
    let labels: String = (0..37).map(|label| format!("label {label}\n")).collect();
    place.write(&format!("{case}/labels.txt"), labels);
}

/// Cuts a command of a shell into its arguments; single quotes alone are known.
fn arguments(line: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => arguments.push(String::new()),
            c => arguments.last_mut().unwrap().push(c),
        }
    }
    arguments
}

#[test]
fn the_commands_for_pipelines_that_are_gone_run() {
    let place = TestFolder::new();
    let plain = fixtures().join("cases/checkpoints/plain");
    for file in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ] {
        place.write(&format!("t5/{file}"), fs::read(plain.join(file)).unwrap());
    }
    beit3(&place, "beit3_vqa");
    beit3(&place, "beit3_captioning");
    place.picture("cat.png");
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/pipelines.md")).unwrap();
    let commands: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("multiway "))
        .collect();
    assert_eq!(commands.len(), 6);
    for command in commands {
        let stand_ins = [
            ("google/flan-t5-small", "t5"),
            ("beit3_base_patch16_480_vqa.pth", "beit3_vqa"),
            ("beit3_base_patch16_480_coco_captioning.pth", "beit3_captioning"),
        ];
        let local = stand_ins.iter().fold(command.to_owned(), |line, (name, folder)| {
            line.replace(name, folder)
        });
        let arguments = arguments(local.strip_prefix("multiway ").unwrap());
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        arguments.push("--json");
        let ended = place.run(&arguments);
        assert_eq!(ended.code, Some(0), "{command}: {}", ended.told());
        assert!(ended.json()["text"].is_string(), "{command}");
    }
}
