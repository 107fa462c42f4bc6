//! The inputs of one run of a task, checked once.

use std::borrow::Cow;

use crate::error::PromptError;
use crate::input::{InputValue, Inputs};
use crate::patches::PatchRange;
use crate::prompt::Prompt;
use crate::target::{ANSWER_CHOICES, Target};
use crate::template::Template;

/// Holds inputs that fit a task, with the defaults of those that were not given.
///
/// Only [`TaskFile::complete`](crate::TaskFile::complete) makes one, so that what renders a prompt need not
/// check again.
///
/// # Examples
///
/// ```
/// # use multiway_prompts::{Inputs, TaskFile};
/// let file = b"---\ndescription: Greets.\ninputs: {name: {type: text, default: Ada}}\n---\nHello {{ name }}";
/// let task = TaskFile::parse("greet.task", file)?;
/// let inputs = task.complete(&Inputs::new())?;
/// assert_eq!(inputs.render(&[])?.text(), "Hello Ada");
/// # Ok::<(), multiway_prompts::PromptError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedInputs<'t> {
    /// Where the task file comes from.
    pub(crate) origin: &'t str,
    /// Of the task.
    pub(crate) template: &'t Template,
    /// Of the task.
    pub(crate) target: &'t Target,
    /// The answers to choose from, or the closed set of labels.
    pub(crate) choices: Option<Vec<String>>,
    /// A value for every input of the task.
    pub(crate) values: Inputs,
    /// The patches that the inputs hide, where the answer is about patches.
    pub(crate) hidden_patches: Option<Vec<PatchRange>>,
}

impl CheckedInputs<'_> {
    /// Returns the value of every input of the task.
    pub fn values(&self) -> &Inputs {
        &self.values
    }

    /// Renders the prompt for a checkpoint. Where the template spells one of its `special_tokens`, the prompt
    /// has that token, beside those that every template may spell. What inputs spell stays text.
    ///
    /// # Errors
    ///
    /// When the template fails.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_prompts::{Inputs, PromptPart, TaskFile};
    /// let task = TaskFile::parse("pair.task", b"---\ndescription: Pairs.\n---\none <sep> two")?;
    /// let prompt = task.complete(&Inputs::new())?.render(&["<sep>"])?;
    /// assert_eq!(prompt.parts[1], PromptPart::Special("<sep>".into()));
    /// # Ok::<(), multiway_prompts::PromptError>(())
    /// ```
    pub fn render(&self, special_tokens: &[&str]) -> Result<Prompt, PromptError> {
        let values = self.values_for(self.template);
        self.template.render(&values, special_tokens)
    }

    /// Renders what the model should write, as
    /// [`TaskFile::render_target`](crate::TaskFile::render_target) does.
    ///
    /// # Errors
    ///
    /// When a field of the target is missing or unknown, and when the template fails.
    pub fn render_target(&self, reference: &Inputs, special_tokens: &[&str]) -> Result<Prompt, PromptError> {
        let values = self.values_for(&self.target.template);
        self.target
            .render(self.origin, &values, reference, special_tokens)
    }

    /// Returns what a template sees: the inputs, and the answers to choose from if it names them.
    fn values_for(&self, template: &Template) -> Cow<'_, Inputs> {
        match &self.choices {
            Some(choices) if template.place_of(ANSWER_CHOICES).is_some() => {
                let mut values = self.values.clone();
                values.insert(ANSWER_CHOICES.to_owned(), InputValue::List(choices.clone()));
                Cow::Owned(values)
            }
            _ => Cow::Borrowed(&self.values),
        }
    }

    /// Returns the answers to choose from, or the closed set of labels; `None` when the task file and its
    /// inputs name none.
    pub fn choices(&self) -> Option<&[String]> {
        self.choices.as_deref()
    }

    /// Returns the patches of the first picture to hide, or `None` when the task gives another kind of
    /// answer.
    pub fn hidden_patches(&self) -> Option<&[PatchRange]> {
        self.hidden_patches.as_deref()
    }
}
