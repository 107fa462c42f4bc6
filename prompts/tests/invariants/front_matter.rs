//! What holds for any bytes that are read as front matter.

use multiway_prompts::{PromptErrorKind, SamplingOptions, TaskFile};

use super::error::{ORIGIN, assert_error};

/// Reads front matter before a prompt that uses all inputs.
pub(crate) fn check(bytes: &[u8]) {
    let front_matter = bytes.strip_prefix(b"---\n").unwrap_or(bytes);
    let end = front_matter.windows(5).position(|window| window == b"\n---\n");
    let front_matter = end
        .and_then(|end| front_matter.get(..end))
        .unwrap_or(front_matter);
    let mut prompt = String::from("hello");
    let (task, file) = loop {
        let file = [b"---\n", front_matter, b"\n---\n", prompt.as_bytes()].concat();
        match TaskFile::parse(ORIGIN, &file) {
            Ok(task) => break (task, file),
            Err(error) => {
                assert_error(&error, &file);
                let PromptErrorKind::UnusedInput { name } = error.kind() else {
                    return;
                };
                prompt.push_str(&format!("{{{{ {name} }}}}"));
            }
        }
    };
    assert!(!task.name.is_empty() && !task.description.is_empty());
    let sampling = &task.decode.sampling;
    assert_eq!(sampling.check(), Ok(()));
    let written = serde_json::to_value(sampling).unwrap();
    assert_eq!(
        &serde_json::from_value::<SamplingOptions>(written).unwrap(),
        sampling
    );
    assert_eq!(
        &SamplingOptions::default().overlay(sampling.clone()),
        sampling,
        "{file:?}"
    );
}
