//! Runs every example.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use std::process::Command;

/// Runs an example that was built with this test, and returns what it printed.
fn run(name: &str) -> String {
    run_with(name, &[])
}

fn run_with(name: &str, arguments: &[&str]) -> String {
    // This test lies in `deps`, beside the folder of the examples.
    let test = std::env::current_exe().unwrap();
    let example = test
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples")
        .join(name)
        .with_extension(std::env::consts::EXE_EXTENSION);
    let output = Command::new(&example)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}: run `cargo test`, which builds the examples",
                example.display()
            )
        });
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    told
}

#[test]
fn caption_names_the_picture() {
    assert!(run("caption").contains("cat.png: "));
}

#[test]
fn stream_writes_a_line_for_each_language() {
    let told = run("stream");
    for language in ["English: ", "German: ", "French: ", "Japanese: "] {
        assert!(told.lines().any(|line| line.starts_with(language)), "{told}");
    }
}

#[test]
fn custom_task_answers_with_text_and_with_choices() {
    let told = run("custom_task");
    assert!(told.contains("the red shape: circle"), "{told}");
    let animals: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("the animal: "))
        .collect();
    assert_eq!(animals.len(), 8, "{told}");
    assert!(animals[0].starts_with("the animal: turtle "), "{told}");
}

#[test]
fn retrieval_finds_a_picture_by_itself() {
    let told = run("retrieval");
    let after = told.split("nearest to the picture of a cat:\n").nth(1).unwrap();
    assert!(after.starts_with("  1.000  cat.png"), "{told}");
}

#[test]
fn many_requests_gives_the_same_texts_together_and_alone() {
    assert!(run("many_requests").contains("64 requests: the same texts together and one at a time"));
}

#[test]
fn random_checkpoints_of_every_family_load_and_run() {
    for shape in ["t5-tiny", "beit3-tiny"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().to_str().unwrap();
        run_with("random_checkpoint", &[shape, folder]);
        let told: serde_json::Value = serde_json::from_str(&run_with("load_time", &[folder])).unwrap();
        assert!(told["load_seconds"].as_f64().unwrap() > 0.0, "{told}");
    }
}
