//! What the model should write, and what stands between few-shot examples.

use crate::error::{PromptError, PromptErrorKind};
use crate::input::{InputValue, Inputs};
use crate::prompt::Prompt;
use crate::suggest::nearest;
use crate::template::Template;

/// The template of a task that declares no target: one field, written as it is.
pub(crate) const DEFAULT_TARGET: &str = "{{ target }}";

/// The field of that template.
pub(crate) const DEFAULT_FIELD: &str = "target";

/// What templates of a task with answers to choose from know these by.
pub(crate) const ANSWER_CHOICES: &str = "answer_choices";

/// The target of a task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    pub(crate) template: Template,
    /// The names that the template uses and that are no inputs.
    pub(crate) fields: Vec<String>,
    /// What stands between few-shot examples.
    pub(crate) separator: Template,
}

impl Target {
    /// Tells whether the task file declares none.
    pub(crate) fn is_default(&self) -> bool {
        self.template.source() == DEFAULT_TARGET
    }

    /// Renders the target of a task file that comes from `origin`.
    pub(crate) fn render(
        &self,
        origin: &str,
        inputs: &Inputs,
        reference: &Inputs,
        special_tokens: &[&str],
    ) -> Result<Prompt, PromptError> {
        let fields = &self.fields;
        if let Some(unknown) = reference.keys().find(|name| !fields.contains(name)) {
            let kind = PromptErrorKind::UnknownField {
                name: unknown.clone(),
                fields: fields.clone(),
                suggestion: nearest(unknown, fields.iter().map(String::as_str)),
            };
            return Err(kind.at(origin, None));
        }
        if let Some(missing) = fields.iter().find(|field| !reference.contains_key(*field)) {
            let (name, fields) = (missing.clone(), fields.clone());
            return Err(PromptErrorKind::MissingField { name, fields }.at(origin, None));
        }
        let mut values = inputs.clone();
        values.retain(|_, value| !value.kind().is_picture());
        values.extend(reference.clone());
        if let Some((name, _)) = values.iter().find(|(_, value)| value.kind().is_picture()) {
            let message = format!("the target is text, and the field '{name}' is a picture");
            return Err(PromptErrorKind::NotText { message }.at(origin, None));
        }
        check_text_bytes(origin, &values)?;
        self.template.render(&values, special_tokens)
    }
}

/// The most bytes of text that the inputs of one rendering may hold together.
pub const MAX_INPUT_BYTES: usize = 256 * 1024;

/// Checks how much text some inputs hold.
pub(crate) fn check_text_bytes(origin: &str, inputs: &Inputs) -> Result<(), PromptError> {
    let bytes = inputs.values().map(InputValue::text_bytes).sum();
    if bytes <= MAX_INPUT_BYTES {
        return Ok(());
    }
    let limit = MAX_INPUT_BYTES;
    Err(PromptErrorKind::InputsTooLarge { bytes, limit }.at(origin, None))
}
