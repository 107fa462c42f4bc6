//! The messages of a chat, and how they become the inputs of a task.

use multiway::Task;
use multiway::checkpoint::ModelConfig;
use multiway::prompt::{InputKind, InputSpec, InputValue};
use multiway::task::TaskInputs;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::pictures;

/// A message.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    role: String,
    #[serde(default)]
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message; which fields it has depends on its type.
#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    image_url: Option<ImageUrl>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ImageUrl {
    Url(String),
    Object { url: String },
}

/// What messages say: a text, and the bytes of pictures in their order.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) pictures: Vec<Vec<u8>>,
}

impl Said {
    /// Reads the messages of a request: what the system says, and one turn of the user.
    pub(crate) fn of(messages: Vec<Message>) -> Result<Self, ApiError> {
        let mut said = Self::default();
        let mut turns = 0;
        for (index, message) in messages.into_iter().enumerate() {
            match message.role.as_str() {
                "user" => turns += 1,
                "system" | "developer" => {}
                other => {
                    return Err(ApiError::field(
                        format!("messages[{index}].role"),
                        format!(
                            "messages[{index}].role: expected 'user', 'system' or 'developer', found '{other}': these models answer one message and have no turns"
                        ),
                    ));
                }
            }
            match message.content {
                Some(Content::Text(text)) => said.add_text(&text),
                Some(Content::Parts(parts)) => {
                    for (part_index, part) in parts.into_iter().enumerate() {
                        said.add_part(part, &format!("messages[{index}].content[{part_index}]"))?;
                    }
                }
                None => {}
            }
        }
        if turns != 1 {
            return Err(ApiError::field(
                "messages",
                format!(
                    "messages: expected one message of the user, found {turns}: these models answer one message and have no turns"
                ),
            ));
        }
        Ok(said)
    }

    fn add_text(&mut self, text: &str) {
        if !self.text.is_empty() && !text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
    }

    fn add_part(&mut self, part: Part, place: &str) -> Result<(), ApiError> {
        match (part.kind.as_str(), part.text, part.image_url) {
            ("text" | "input_text", Some(text), _) => self.add_text(&text),
            ("image_url" | "input_image", _, Some(ImageUrl::Url(url) | ImageUrl::Object { url })) => {
                self.pictures
                    .push(pictures::decode(&url, &format!("{place}.image_url"))?);
            }
            ("text" | "input_text" | "image_url" | "input_image", _, _) => {
                return Err(ApiError::field(
                    place,
                    format!(
                        "{place}: a part of type '{}' without what it is to hold",
                        part.kind
                    ),
                ));
            }
            (other, _, _) => {
                return Err(ApiError::field(
                    format!("{place}.type"),
                    format!("{place}.type: expected 'text' or 'image_url', found '{other}'"),
                ));
            }
        }
        Ok(())
    }
}

/// Makes the inputs of a task of what was said: pictures in their order, and the text as the one input that
/// has to be given, or as a JSON object of inputs.
pub(crate) async fn bind(task: &Task, config: &ModelConfig, said: Said) -> Result<TaskInputs, ApiError> {
    pictures::check_count(said.pictures.len(), config, "messages")?;
    let processor = task.image_processor(config);
    let mut inputs = TaskInputs::new();
    for (index, bytes) in said.pictures.into_iter().enumerate() {
        let image = pictures::open(processor.clone(), bytes, &format!("picture {index}")).await?;
        inputs = inputs.with_image(image);
    }
    let text = said.text.trim();
    if let Some(name) = plain_input(task) {
        let spec = task.file().inputs.get(name).map(|spec| spec.parse(&said.text));
        if let Some(value) = spec {
            inputs = inputs.with(name, value.map_err(|error| ApiError::input(name, &error))?);
        }
    } else if let Ok(Value::Object(fields)) = serde_json::from_str(text) {
        inputs = fields_of(task, fields, inputs)?;
    } else if !text.is_empty() {
        let names: Vec<&str> = values(task).map(|(name, _)| name).collect();
        let expected = match names.as_slice() {
            [] => "no text beside the pictures".to_owned(),
            names => format!("a JSON object of the inputs {}, or nothing", names.join(", ")),
        };
        return Err(ApiError::field(
            "messages",
            format!(
                "messages: the task '{}' takes {expected}, found a text",
                task.name()
            ),
        ));
    }
    Ok(inputs)
}

/// Lists the inputs that are no pictures.
fn values(task: &Task) -> impl Iterator<Item = (&str, &InputSpec)> {
    let inputs = task.file().inputs.iter();
    inputs
        .filter(|(_, spec)| !spec.kind.is_picture())
        .map(|(name, spec)| (name.as_str(), spec))
}

/// Names the input that a plain text is for: the one that has to be given, or the only one that is a text.
fn plain_input(task: &Task) -> Option<&str> {
    let mut required = values(task).filter(|(_, spec)| spec.is_required());
    match (required.next(), required.next()) {
        (Some((name, _)), None) => Some(name),
        (None, _) => {
            let mut all = values(task);
            match (all.next(), all.next()) {
                (Some((name, spec)), None) if spec.kind == InputKind::Text => Some(name),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Reads inputs that are no pictures from the fields of an object.
pub(crate) fn fields_of(
    task: &Task,
    fields: Map<String, Value>,
    mut inputs: TaskInputs,
) -> Result<TaskInputs, ApiError> {
    for (name, value) in fields {
        let Some(spec) = task.file().inputs.get(&name) else {
            let known: Vec<&str> = task.file().inputs.keys().map(String::as_str).collect();
            return Err(ApiError::field(
                format!("inputs.{name}"),
                format!(
                    "the task '{}' has no input '{name}': expected {}",
                    task.name(),
                    known.join(", ")
                ),
            ));
        };
        let value: InputValue = spec
            .parse_json(&value)
            .map_err(|error| ApiError::input(&name, &error))?;
        inputs = inputs.with(name, value);
    }
    Ok(inputs)
}
