//! The commands that the README and the guides show: each is one that the binary knows, and prints what they
//! say it prints.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Lists the pages, the README first.
fn pages() -> Vec<PathBuf> {
    let mut guides: Vec<_> = fs::read_dir(Path::new(ROOT).join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    guides.sort();
    guides.retain(|path| path.is_file());
    assert!(guides.iter().all(|path| path.extension().unwrap() == "md"));
    [Path::new(ROOT).join("README.md")]
        .into_iter()
        .chain(guides)
        .collect()
}

/// Cuts the fenced blocks of a language out of a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(found) = line.strip_prefix("```") {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            if found == language {
                blocks.push(block.join("\n"));
            }
        }
    }
    blocks
}

/// Runs a line of shell in the root of the repository. `multiway` is the binary, with `more` after its
/// arguments; `cargo run ... --` is the same; set-up and the network are left out.
fn shell(line: &str, more: &str) -> (bool, String, String) {
    let script = format!(
        r#"set -o pipefail
        multiway() {{ "$MULTIWAY" "$@" {more}; }}
        cargo() {{ while [ "$1" != -- ]; do [ $# -gt 0 ] || return 0; shift; done; shift; multiway "$@"; }}
        curl() {{ :; }}
        cat() {{ :; }}
        setup() {{ :; }}
        {}"#,
        line.replace("./setup.sh", "setup")
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("MULTIWAY", env!("CARGO_BIN_EXE_multiway"))
        .current_dir(ROOT)
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn commands_print_what_the_pages_say_they_print() {
    let mut count = 0;
    for page in pages() {
        for block in blocks(&fs::read_to_string(&page).unwrap(), "console") {
            let commands: Vec<_> = block.split_inclusive('\n').collect();
            let mut commands = commands.into_iter().peekable();
            while let Some(command) = commands.next() {
                let command = command.strip_prefix("$ ").unwrap().trim_end();
                let mut expected = String::new();
                while let Some(line) = commands.next_if(|line| !line.starts_with("$ ")) {
                    expected.push_str(line);
                }
                let (succeeded, found, _) = shell(command, "2>&1");
                assert!(succeeded, "{}: {command}: {found}", page.display());
                assert_eq!(
                    found.trim_end(),
                    expected.trim_end(),
                    "{}: {command}",
                    page.display()
                );
                count += 1;
            }
        }
    }
    assert!(count >= 4, "{count} commands with output");
}

#[test]
fn every_command_of_the_pages_is_one_that_the_binary_knows() {
    let mut count = 0;
    for page in pages() {
        for block in blocks(&fs::read_to_string(&page).unwrap(), "sh") {
            for line in block
                .lines()
                .filter(|line| line.contains("multiway ") || line.contains(" -- "))
            {
                // Help is printed once all before it has been parsed.
                let (succeeded, found, told) = shell(line, "--help");
                assert!(
                    succeeded && found.contains("Usage:"),
                    "{}: {line}: {told}",
                    page.display()
                );
                count += 1;
            }
        }
    }
    assert!(count >= 40, "{count} commands");
}

/// Lists the task files that are printed in the pages, with the page and the text.
fn printed_tasks() -> Vec<(PathBuf, String)> {
    let mut tasks = Vec::new();
    for page in pages() {
        let blocks = blocks(&fs::read_to_string(&page).unwrap(), "text").into_iter();
        let printed = blocks.filter(|block| block.starts_with("---\n"));
        tasks.extend(printed.map(|block| (page.clone(), block)));
    }
    tasks
}

#[test]
fn every_task_file_of_the_pages_is_an_example_and_answers() {
    let examples = Path::new(ROOT).join("examples/tasks");
    let mut run: BTreeMap<String, String> = BTreeMap::new();
    for (page, text) in printed_tasks() {
        let mut files = fs::read_dir(&examples)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let file = files.find(|path| fs::read_to_string(path).unwrap().trim_end() == text);
        let file = file.unwrap_or_else(|| unreachable!("{}: no example is\n{text}", page.display()));
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let asked = match name.as_str() {
            "animal" => "--image examples/pictures/turtle.png",
            "which-shape" => "--image examples/pictures/green-triangle.jpg --set color=green",
            "red-shape" => "--image examples/pictures/red-circle.png",
            "statement" => "--image examples/pictures/red-circle.png --set sentence='there is a red circle'",
            name => unreachable!("no request to the task '{name}' is here"),
        };
        let line = format!("multiway --task-dir examples/tasks run {name} {asked} --json");
        let (succeeded, found, told) = shell(&line, "");
        assert!(succeeded, "{line}: {told}");
        let answer: Value = serde_json::from_str(&found).unwrap();
        run.insert(name, answer["text"].as_str().unwrap().to_owned());
        let (succeeded, checked, told) = shell(&format!("multiway tasks check {}", file.display()), "");
        assert!(succeeded, "{checked}{told}");
    }
    insta::assert_debug_snapshot!(run, @r#"
    {
        "animal": "turtle",
        "red-shape": "circle",
        "statement": "true",
        "which-shape": "triangle",
    }
    "#);
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let short = blocks(&readme, "text")
        .into_iter()
        .find(|block| block.starts_with("---\n"));
    assert!(short.unwrap().lines().count() < 15);
}
