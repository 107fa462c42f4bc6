//! What holds for any bytes that are read as a task file with the files that it extends and imports.

use std::io;

use multiway_prompts::{
    ExampleInput, InputKind, InputSpec, InputValue, Inputs, Prompt, PromptPart, Shot, SourceFile, SourceTask,
    TaskFile, TaskSource,
};

/// The name that the first file goes by.
const ORIGIN: &str = "fuzz.task";

/// What a line starts with that names the next file.
const NEXT_FILE: &str = "=== ";

/// The files of a folder, cut out of some bytes: a line `=== NAME` starts a file.
#[derive(Clone)]
struct Folder<'b> {
    files: Vec<(String, &'b [u8])>,
}

impl<'b> Folder<'b> {
    fn cut(bytes: &'b [u8]) -> Self {
        let mut files = vec![(ORIGIN.to_owned(), bytes)];
        let mut start = 0;
        let mut offset = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if let Some(name) = line.strip_prefix(NEXT_FILE.as_bytes()) {
                if let Some((_, file)) = files.last_mut() {
                    *file = &bytes[start..offset];
                }
                start = offset + line.len();
                files.push((
                    String::from_utf8_lossy(name).trim_end().to_owned(),
                    &bytes[start..],
                ));
            }
            offset += line.len();
        }
        Self { files }
    }

    fn read(&self, name: &str) -> Option<SourceFile> {
        let (origin, bytes) = self.files.iter().skip(1).find(|(other, _)| other == name)?;
        Some(SourceFile {
            origin: origin.clone(),
            bytes: bytes.to_vec(),
        })
    }
}

impl TaskSource for Folder<'_> {
    fn task(&self, name: &str) -> io::Result<Option<SourceTask<'_>>> {
        Ok(self.read(&format!("{name}.task")).map(|file| SourceTask {
            file,
            source: Box::new(self.clone()),
        }))
    }

    fn template(&self, path: &str) -> io::Result<Option<SourceFile>> {
        assert!(
            !path.starts_with('/') && !path.split('/').any(|part| part == ".."),
            "{path}"
        );
        Ok(self.read(path))
    }
}

/// Reads a task file with its folder, and renders its prompt, its shots and its target.
pub(crate) fn check(bytes: &[u8]) {
    let folder = Folder::cut(bytes);
    let task = match TaskFile::parse_from(ORIGIN, folder.files[0].1, &folder) {
        Ok(task) => task,
        Err(error) => {
            let named = |(origin, _): &(String, &[u8])| origin == error.origin();
            assert!(folder.files.iter().any(named), "{error}");
            assert!(error.to_string().len() <= 8 * bytes.len() + 8192, "{error}");
            return;
        }
    };
    let inputs: Inputs = task
        .inputs
        .iter()
        .map(|(name, spec)| (name.clone(), value(spec)))
        .collect();
    let target: Inputs = task
        .target_fields()
        .iter()
        .map(|field| (field.clone(), "<extra_id_7> </s>".into()))
        .collect();
    let shots: Vec<Shot> = task
        .few_shot
        .iter()
        .map(|shot| Shot {
            inputs: shot
                .inputs
                .iter()
                .map(|(name, value)| (name.clone(), opened(value)))
                .collect(),
            target: shot.target.clone(),
        })
        .collect();
    let Ok(checked) = task.complete(&inputs) else {
        return;
    };
    let rendered = [
        checked.render(&["<sep>"]),
        checked.render_target(&target, &["<sep>"]),
        task.render_with_shots(&checked, &shots, &["<sep>"]),
    ];
    for prompt in rendered.iter().flatten() {
        assert_parts_are_the_templates(prompt, bytes);
    }
}

/// Checks that special tokens come from the files, and pictures from the inputs.
fn assert_parts_are_the_templates(prompt: &Prompt, bytes: &[u8]) {
    let source = String::from_utf8_lossy(bytes);
    for part in &prompt.parts {
        let is_right = match part {
            PromptPart::Text(text) => !text.is_empty(),
            PromptPart::Special(token) => {
                let counted = source.contains("mask") || source.contains("gaps");
                source.contains(token.as_str()) || (token.starts_with("<extra_id_") && counted)
            }
            PromptPart::Image(index) => *index < 3,
        };
        assert!(is_right, "{part:?}");
    }
}

/// Makes a value for an input, which its bounds may still refuse.
fn value(spec: &InputSpec) -> InputValue {
    if let Some(value) = spec.default.clone() {
        return value;
    }
    match spec.kind {
        InputKind::Integer => InputValue::Integer(3),
        InputKind::Number => InputValue::Number(0.5),
        InputKind::Boolean => InputValue::Boolean(true),
        InputKind::List => InputValue::List(vec!["0:0".to_owned(), "</s>".to_owned()]),
        InputKind::Box => InputValue::Box([0.0, 0.0, 1.0, 1.0]),
        InputKind::Image => InputValue::Image(0),
        InputKind::Images => InputValue::Images(vec![1, 2]),
        _ => InputValue::Text(spec.choices.first().cloned().unwrap_or("a ___ </s>".to_owned())),
    }
}

/// Makes the input of a shot, without opening its picture.
fn opened(input: &ExampleInput) -> InputValue {
    match input {
        ExampleInput::Value(value) => value.clone(),
        ExampleInput::Picture(_) => InputValue::Image(0),
        ExampleInput::Pictures(paths) => InputValue::Images(paths.iter().map(|_| 1).collect()),
        _ => InputValue::Integer(0),
    }
}
