//! Every `cases/*.task` is read and rendered, and compared with its snapshot, error messages included.
//!
//! A case renders once for each line of the file beside it, `NAME.inputs`, or once without inputs. Such a
//! line is JSON: each key is an input, each value the text that the command line would give, or `{"image":
//! 0}`, `{"images": [0, 1]}`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use multiway_prompts::{InputValue, Inputs, PromptError, PromptPart, TaskFile};

fn case_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "task"));
    files.sort();
    files
}

fn read_inputs(task: &TaskFile, line: &str) -> Result<Inputs, PromptError> {
    let given: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
    let mut inputs = Inputs::new();
    for (name, value) in given {
        let index = |value: &serde_json::Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        let value = match &value {
            serde_json::Value::String(text) => task.parse_input(&name, text)?,
            value if value.get("image").is_some() => InputValue::Image(index(&value["image"])),
            value => InputValue::Images(value["images"].as_array().unwrap().iter().map(index).collect()),
        };
        inputs.insert(name, value);
    }
    Ok(inputs)
}

fn show(path: &Path) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    let task = match TaskFile::parse(name, &fs::read(path).unwrap()) {
        Ok(task) => task,
        Err(error) => return format!("error: {error}"),
    };
    let lines = fs::read_to_string(path.with_extension("inputs")).unwrap_or_else(|_| "{}\n".to_owned());
    let mut shown = String::new();
    for line in lines.lines() {
        let short: String = line.chars().take(200).collect();
        writeln!(shown, "> {short}").unwrap();
        match read_inputs(&task, line).and_then(|inputs| task.complete(&inputs)?.render(&[])) {
            Ok(prompt) => prompt.parts.iter().for_each(|part| match part {
                PromptPart::Text(text) => writeln!(shown, "text    {text:?}").unwrap(),
                PromptPart::Special(token) => writeln!(shown, "special {token}").unwrap(),
                PromptPart::Image(index) => writeln!(shown, "image   {index}").unwrap(),
            }),
            Err(error) => writeln!(shown, "error: {error}").unwrap(),
        }
    }
    shown
}

#[test]
fn every_case_reads_and_renders_as_its_snapshot_says() {
    let files = case_files();
    assert!(files.len() > 50, "the cases are missing");
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots");
    for path in files {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        settings.bind(|| insta::assert_snapshot!(stem, show(&path)));
    }
}

#[test]
fn every_snapshot_and_every_inputs_file_has_its_case() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let stems: Vec<_> = case_files()
        .iter()
        .map(|path| path.file_stem().unwrap().to_owned())
        .collect();
    for entry in fs::read_dir(folder.join("snapshots"))
        .unwrap()
        .chain(fs::read_dir(folder.join("cases")).unwrap())
    {
        let path = entry.unwrap().path();
        assert!(
            stems.iter().any(|stem| path.file_stem() == Some(stem)),
            "{} has no case",
            path.display()
        );
    }
}
