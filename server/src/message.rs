//! The messages of a request, and how they become the inputs of a task.

use std::sync::Arc;

use multiway::Task;
use multiway::checkpoint::ModelConfig;
use multiway::prompt::InputValue;
use multiway::task::TaskInputs;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::fetch::Fetcher;
use crate::pictures::{self, Given};

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Message {
    role: String,
    #[serde(default)]
    content: Option<Content>,
}

impl Message {
    /// Makes a message that is a text.
    pub(crate) fn new(role: &str, text: String) -> Self {
        Self {
            role: role.to_owned(),
            content: Some(Content::Text(text)),
        }
    }
}

/// What a message holds.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message; which fields it has depends on its type.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    image_url: Option<ImageUrl>,
    /// JSON that is shown as text.
    #[serde(default)]
    data: Option<Value>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum ImageUrl {
    Url(String),
    Object { url: String },
}

/// A text, or items, of which messages are taken.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Input {
    Text(String),
    Items(Vec<Value>),
}

impl Input {
    /// The field of a request that holds it.
    pub(crate) const FIELD: &'static str = "input";

    /// Reads the messages; a text is one of the user.
    pub(crate) fn messages(self) -> Result<Vec<Message>, ApiError> {
        match self {
            Self::Text(text) => Ok(vec![Message::new("user", text)]),
            Self::Items(items) => items.into_iter().enumerate().map(message).collect(),
        }
    }
}

fn message((index, item): (usize, Value)) -> Result<Message, ApiError> {
    let place = format!("{}[{index}]", Input::FIELD);
    if let Some(kind) = item.get("type").filter(|kind| *kind != "message") {
        let message = format!("{place}.type: expected 'message', found {kind}: these models call no tools");
        return Err(ApiError::field(format!("{place}.type"), message));
    }
    serde_json::from_value(item).map_err(|error| ApiError::field(&place, format!("{place}: {error}")))
}

/// What messages say: a text, and pictures in their order.
#[derive(Debug)]
pub(crate) struct Said {
    /// The field of the request that says it.
    pub(crate) field: &'static str,
    pub(crate) text: String,
    pub(crate) pictures: Vec<Given>,
}

impl Said {
    /// Begins with nothing.
    pub(crate) const fn nothing(field: &'static str) -> Self {
        Self {
            field,
            text: String::new(),
            pictures: Vec::new(),
        }
    }

    /// Reads the messages of a field of a request: what the system says, and one turn of the user.
    pub(crate) fn of(field: &'static str, messages: Vec<Message>) -> Result<Self, ApiError> {
        let turns = messages.iter().filter(|message| message.role == "user").count();
        let roles = ["user", "system", "developer"];
        let why = "these models answer one message and have no turns";
        let said = Self::all(field, messages, &roles, &format!(": {why}"))?;
        if turns != 1 {
            let message = format!("{field}: expected one message of the user, found {turns}: {why}");
            return Err(ApiError::field(field, message));
        }
        Ok(said)
    }

    /// Reads all that messages say, whoever says it.
    pub(crate) fn by_anybody(field: &'static str, messages: Vec<Message>) -> Result<Self, ApiError> {
        Self::all(field, messages, &["user", "system", "developer", "assistant"], "")
    }

    /// Reads messages of some `roles`; a message of another is an error, which ends in `why`.
    fn all(field: &'static str, messages: Vec<Message>, roles: &[&str], why: &str) -> Result<Self, ApiError> {
        let mut said = Self::nothing(field);
        for (index, message) in messages.into_iter().enumerate() {
            if !roles.contains(&message.role.as_str()) {
                let (place, role) = (format!("{field}[{index}].role"), &message.role);
                let expected = roles.join("', '");
                let message = format!("{place}: expected one of '{expected}', found '{role}'{why}");
                return Err(ApiError::field(place, message));
            }
            if let Some(content) = &message.content {
                said.add(content, &format!("{field}[{index}].content"))?;
            }
        }
        Ok(said)
    }

    /// Adds what a field holds.
    pub(crate) fn add(&mut self, content: &Content, place: &str) -> Result<(), ApiError> {
        match content {
            Content::Text(text) => self.add_text(text),
            Content::Parts(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    self.add_part(part, &format!("{place}[{index}]"))?;
                }
            }
        }
        Ok(())
    }

    /// Adds a text on a line of its own.
    pub(crate) fn add_text(&mut self, text: &str) {
        if !self.text.is_empty() && !text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text);
    }

    fn add_part(&mut self, part: &Part, place: &str) -> Result<(), ApiError> {
        match (part.kind.as_str(), part) {
            ("text" | "input_text" | "output_text", Part { text: Some(text), .. }) => self.add_text(text),
            (
                "image_url" | "input_image",
                Part {
                    image_url: Some(ImageUrl::Url(url) | ImageUrl::Object { url }),
                    ..
                },
            ) => {
                let given = pictures::read(url, format!("{place}.image_url"))?;
                self.pictures.push(given);
            }
            ("input_json", Part { data: Some(data), .. }) => self.add_text(&data.to_string()),
            (
                kind @ ("text" | "input_text" | "output_text" | "image_url" | "input_image" | "input_json"),
                _,
            ) => {
                let message = format!("{place}: a part of type '{kind}' without what it is to hold");
                return Err(ApiError::field(place, message));
            }
            (other, _) => {
                let place = format!("{place}.type");
                let message = format!("{place}: expected a text or a picture, found '{other}'");
                return Err(ApiError::field(place, message));
            }
        }
        Ok(())
    }
}

/// Makes the inputs of a task of what was said: pictures in their order, and the text as the one input that
/// has to be given, or as a JSON object of inputs.
pub(crate) async fn bind(
    task: &Task,
    config: &ModelConfig,
    said: Said,
    fetcher: &Arc<Fetcher>,
) -> Result<TaskInputs, ApiError> {
    pictures::check_count(said.pictures.len(), config, said.field)?;
    let processor = task.image_processor(config);
    let mut inputs = TaskInputs::new();
    for given in said.pictures {
        let image = pictures::open(processor.clone(), given, fetcher).await?;
        inputs = inputs.with_image(image);
    }
    let text = said.text.trim();
    if let Some((name, spec)) = task.plain_input(&[]) {
        let value = spec.parse(&said.text);
        inputs = inputs.with(name, value.map_err(|error| ApiError::input(name, &error))?);
    } else if let Ok(Value::Object(fields)) = serde_json::from_str(text) {
        inputs = fields_of(task, fields, inputs)?;
    } else if !text.is_empty() {
        let values = task.file().inputs.iter();
        let values = values.filter(|(_, spec)| !spec.kind.is_picture());
        let names: Vec<&str> = values.map(|(name, _)| name.as_str()).collect();
        let expected = match names.as_slice() {
            [] => "no text beside the pictures".to_owned(),
            names => format!("a JSON object of the inputs {}, or nothing", names.join(", ")),
        };
        let (field, task) = (said.field, task.name());
        let message = format!("{field}: the task '{task}' takes {expected}, found a text");
        return Err(ApiError::field(field, message));
    }
    Ok(inputs)
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
