//! Every `cases/*.task` is read and rendered, and compared with its snapshot, error messages included.
//!
//! A case renders once for each line of the file beside it, `NAME.inputs`, or once without inputs. Such a
//! line is JSON: each key is an input, each value the text that the command line would give, or `{"image":
//! 0}`, `{"images": [0, 1]}`. With the key `$shots` the prompt has that many of the task's few-shot examples
//! before it, their pictures counted from 100; with the key `$target`, the fields of the target, it is
//! followed by the target.
//!
//! The folder beside a case, `NAME.files`, has the files that the case extends and imports.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use multiway_prompts::{
    ExampleInput, InputValue, Inputs, Prompt, PromptError, PromptPart, Shot, SourceFile, SourceTask,
    TaskFile, TaskSource,
};

/// Reads the files beside a case.
struct CaseFiles(PathBuf);

impl CaseFiles {
    fn read(&self, name: &str) -> io::Result<Option<SourceFile>> {
        match fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(Some(SourceFile {
                origin: name.to_owned(),
                bytes,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl TaskSource for CaseFiles {
    fn task(&self, name: &str) -> io::Result<Option<SourceTask<'_>>> {
        let file = self.read(&format!("{name}.task"))?;
        Ok(file.map(|file| SourceTask {
            file,
            source: Box::new(Self(self.0.clone())),
        }))
    }

    fn template(&self, path: &str) -> io::Result<Option<SourceFile>> {
        self.read(path)
    }
}

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
        if name.starts_with('$') {
            continue;
        }
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

/// Opens the task's few-shot examples, without pictures but with their numbers.
fn shots(task: &TaskFile, count: usize) -> Vec<Shot> {
    let mut pictures = 100..;
    let mut input = |input: &ExampleInput| match input {
        ExampleInput::Value(value) => value.clone(),
        ExampleInput::Picture(_) => InputValue::Image(pictures.next().unwrap()),
        ExampleInput::Pictures(paths) => InputValue::Images(pictures.by_ref().take(paths.len()).collect()),
        other => unreachable!("{other:?}"),
    };
    let shots = task.few_shot.iter().take(count);
    shots
        .map(|shot| Shot {
            inputs: shot
                .inputs
                .iter()
                .map(|(name, value)| (name.clone(), input(value)))
                .collect(),
            target: shot.target.clone(),
        })
        .collect()
}

fn show_prompt(shown: &mut String, prompt: &Prompt) {
    prompt.parts.iter().for_each(|part| match part {
        PromptPart::Text(text) => writeln!(shown, "text    {text:?}").unwrap(),
        PromptPart::Special(token) => writeln!(shown, "special {token}").unwrap(),
        PromptPart::Image(index) => writeln!(shown, "image   {index}").unwrap(),
    });
}

/// Renders a line of inputs, and its target if it has one.
fn render(task: &TaskFile, line: &str) -> Result<(Prompt, Option<Prompt>), PromptError> {
    let inputs = read_inputs(task, line)?;
    let given: serde_json::Value = serde_json::from_str(line).unwrap();
    let inputs = task.complete(&inputs)?;
    let shots = shots(task, given["$shots"].as_u64().unwrap_or(0).try_into().unwrap());
    let prompt = task.render_with_shots(&inputs, &shots, &[])?;
    let Some(fields) = given["$target"].as_object() else {
        return Ok((prompt, None));
    };
    let field = |(name, value): (&String, &serde_json::Value)| (name.clone(), value.as_str().unwrap().into());
    let target = inputs.render_target(&fields.iter().map(field).collect(), &[])?;
    Ok((prompt, Some(target)))
}

fn show(path: &Path) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    let files = CaseFiles(path.with_extension("files"));
    let task = match TaskFile::parse_from(name, &fs::read(path).unwrap(), &files) {
        Ok(task) => task,
        Err(error) => return format!("error: {error}"),
    };
    let lines = fs::read_to_string(path.with_extension("inputs")).unwrap_or_else(|_| "{}\n".to_owned());
    let mut shown = String::new();
    for line in lines.lines() {
        let short: String = line.chars().take(200).collect();
        writeln!(shown, "> {short}").unwrap();
        match render(&task, line) {
            Ok((prompt, target)) => {
                show_prompt(&mut shown, &prompt);
                if let Some(target) = target {
                    writeln!(shown, "target:").unwrap();
                    show_prompt(&mut shown, &target);
                }
            }
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
