//! A task file: read, checked, rendered.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::{Serialize, Serializer};

use crate::checked_inputs::CheckedInputs;
use crate::encoding::text_of_file;
use crate::error::{InputError, PromptError, PromptErrorKind};
use crate::front_matter::{FrontMatter, MAX_FRONT_MATTER_BYTES, is_task_name};
use crate::infill::{MAX_GAPS, count_gaps};
use crate::input::{InputSpec, InputValue, Inputs, check_answers};
use crate::output::OutputSpec;
use crate::patches::{NoPatches, PatchRange};
use crate::sandbox::too_many_gaps;
use crate::spec::{DecodeSpec, Example, Metric};
use crate::suggest::{nearest, quoted};
use crate::template::{MAX_BODY_BYTES, Template};

/// The most bytes of text that the inputs of one rendering may hold together.
pub const MAX_INPUT_BYTES: usize = 256 * 1024;

/// Holds a task: what it takes, how it asks, what it answers.
///
/// See the [crate documentation](crate) for how a task file is written. A value of this type was checked: its
/// template compiles, uses every input and nothing else, and its examples fit its inputs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TaskFile {
    /// The name: lower-case letters, digits, `-` and `_`.
    pub name: String,
    /// Says in a sentence what the task does.
    pub description: String,
    /// The inputs, in the order of the file.
    pub inputs: IndexMap<String, InputSpec>,
    /// The kind of answer.
    pub output: OutputSpec,
    /// How answers are decoded.
    pub decode: DecodeSpec,
    /// What answers are scored with.
    pub metrics: Vec<Metric>,
    /// The languages that the task is meant for, as BCP 47 tags.
    pub languages: Vec<String>,
    /// Worked examples.
    pub examples: Vec<Example>,
    #[serde(serialize_with = "source_of")]
    template: Template,
    #[serde(rename = "file")]
    origin: String,
}

fn source_of<S: Serializer>(template: &Template, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(template.source())
}

impl TaskFile {
    /// Reads a task file.
    ///
    /// `origin` says where the bytes come from, a path or `builtin:caption.task`. It is what error messages
    /// name, and its stem is the task's name unless the front matter has one. Line endings may be `\n` or
    /// `\r\n`; a byte order mark at the start is skipped.
    ///
    /// # Errors
    ///
    /// When the bytes are not a task file, with the line of the fault.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_prompts::TaskFile;
    ///
    /// let error = TaskFile::parse("greet.task", b"---\ndescription: Greets.\n---\nHello {{ nmae }}").unwrap_err();
    /// assert_eq!(error.to_string(), "greet.task:4: 'nmae' is not defined (inputs: none)");
    /// ```
    pub fn parse(origin: &str, bytes: &[u8]) -> Result<Self, PromptError> {
        check_size(
            origin,
            "file",
            bytes.len(),
            MAX_FRONT_MATTER_BYTES + MAX_BODY_BYTES,
        )?;
        let text = text_of_file(origin, bytes)?;
        let text = if text.contains('\r') {
            Cow::Owned(text.replace("\r\n", "\n"))
        } else {
            Cow::Borrowed(text)
        };
        let Sections {
            front_matter,
            body,
            lines_before,
        } = split(origin, &text)?;
        check_size(origin, "front matter", front_matter.len(), MAX_FRONT_MATTER_BYTES)?;
        check_size(origin, "body", body.len(), MAX_BODY_BYTES)?;
        let front_matter = FrontMatter::parse(origin, front_matter)?;
        if body.trim().is_empty() {
            return Err(PromptErrorKind::EmptyBody.at(origin, Some(lines_before + 1)));
        }
        let template = Template::parse(origin, body, lines_before)?;
        let name = match front_matter.name {
            Some(name) => name,
            None => name_from_origin(origin)?,
        };
        let task = Self {
            name,
            description: front_matter.description,
            inputs: front_matter.inputs,
            output: front_matter.output,
            decode: front_matter.decode,
            metrics: front_matter.metrics,
            languages: front_matter.languages,
            examples: front_matter.examples,
            template,
            origin: origin.to_owned(),
        };
        task.check_names(&front_matter.input_lines)?;
        Ok(task)
    }

    /// Says where the file comes from, as given to [`TaskFile::parse`].
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the template, as it is written in the file.
    pub fn template(&self) -> &str {
        self.template.source()
    }

    /// Checks inputs, and adds the defaults of those that are not given.
    ///
    /// # Errors
    ///
    /// When an input is missing, unknown, of another type, or not allowed; when the inputs hold more than
    /// [`MAX_INPUT_BYTES`] of text; when the text to fill in has no gap or more than [`MAX_GAPS`]; and when
    /// the answers to choose from are none, empty, or not all different.
    pub fn complete(&self, inputs: &Inputs) -> Result<CheckedInputs<'_>, PromptError> {
        if let Some(unknown) = inputs.keys().find(|name| !self.inputs.contains_key(*name)) {
            return Err(self.unknown_input(unknown));
        }
        let mut complete = Inputs::with_capacity(self.inputs.len());
        for (name, spec) in &self.inputs {
            let value = match inputs.get(name).or(spec.default.as_ref()) {
                Some(value) => value,
                None => return Err(self.missing_input(name, spec)),
            };
            spec.check(value).map_err(|error| self.input_error(name, error))?;
            complete.insert(name.clone(), value.clone());
        }
        let bytes = complete.values().map(InputValue::text_bytes).sum();
        if bytes > MAX_INPUT_BYTES {
            let limit = MAX_INPUT_BYTES;
            return Err(self.error(PromptErrorKind::InputsTooLarge { bytes, limit }, None));
        }
        tracing::debug!(file = self.origin, inputs = complete.len(), "checked the inputs");
        Ok(CheckedInputs {
            template: &self.template,
            output: &self.output,
            hidden_patches: self.check_output_input(&complete)?,
            values: complete,
        })
    }

    /// Reads the value of one input as the command line writes it: `name=value`.
    ///
    /// # Errors
    ///
    /// When there is no such input, or [`InputSpec::parse`] refuses the text.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_prompts::{InputValue, TaskFile};
    /// # let file = b"---\ndescription: Counts.\ninputs:\n  most: {type: integer, max: 9}\n---\nCount to {{ most }}";
    /// let task = TaskFile::parse("count.task", file)?;
    /// assert_eq!(task.parse_input("most", "7")?, InputValue::Integer(7));
    ///
    /// let error = task.parse_input("most", "12").unwrap_err();
    /// assert_eq!(error.to_string(), "count.task: input 'most': expected a number of at most 9, found 12");
    /// # Ok::<(), multiway_prompts::PromptError>(())
    /// ```
    pub fn parse_input(&self, name: &str, text: &str) -> Result<InputValue, PromptError> {
        let spec = self.inputs.get(name).ok_or_else(|| self.unknown_input(name))?;
        spec.parse(text).map_err(|error| self.input_error(name, error))
    }

    /// Checks that the template uses inputs that exist, and that no input is left unused.
    fn check_names(&self, input_lines: &[usize]) -> Result<(), PromptError> {
        let variables = self.template.variables()?;
        if let Some(name) = variables.iter().find(|name| !self.inputs.contains_key(*name)) {
            let kind = PromptErrorKind::Undefined {
                name: name.clone(),
                inputs: self.input_names(),
                suggestion: nearest(name, self.inputs.keys().map(String::as_str)),
            };
            return Err(self.error(kind, self.template.line_of(name)));
        }
        // Not `variables`: minijinja leaves out some names, such as the one in `images[:2]`.
        let used = |name: &String| {
            self.template.line_of(name).is_some() || self.output.uses_input() == Some(name.as_str())
        };
        if let Some((name, line)) = self.inputs.keys().zip(input_lines).find(|(name, _)| !used(name)) {
            let line = (*line > 0).then_some(line + 1);
            let name = name.clone();
            return Err(self.error(PromptErrorKind::UnusedInput { name }, line));
        }
        self.check_fill()
    }

    /// Checks that a task that fills gaps shows the text with its gaps.
    fn check_fill(&self) -> Result<(), PromptError> {
        let OutputSpec::Text { fill: Some(fill) } = &self.output else {
            return Ok(());
        };
        if self.template.uses_filter("gaps") && self.template.line_of(fill).is_some() {
            return Ok(());
        }
        let message =
            format!("the answer fills the gaps of '{fill}': write {{{{ {fill} | gaps }}}} in the prompt");
        Err(self.error(PromptErrorKind::Gaps { message }, self.template.line_of(fill)))
    }

    /// Checks the input that the answer itself uses, and returns the patches that it hides, if it does.
    fn check_output_input(&self, inputs: &Inputs) -> Result<Option<Vec<PatchRange>>, PromptError> {
        let Some(name) = self.output.uses_input() else {
            return Ok(None);
        };
        let of_input = |error| self.input_error(name, error);
        match (inputs.get(name), &self.output) {
            (Some(InputValue::List(items)), OutputSpec::Patches { .. }) => {
                read_patches(items).map(Some).map_err(of_input)
            }
            (Some(InputValue::List(items)), _) => check_answers(items).map(|()| None).map_err(of_input),
            (Some(InputValue::Text(text)), OutputSpec::Text { .. }) => {
                let message = match count_gaps(text) {
                    0 => format!(
                        "the input '{name}' has no gap to fill: mark each gap with ___, found {}",
                        quoted(text)
                    ),
                    1..=MAX_GAPS => return Ok(None),
                    _ => too_many_gaps(text),
                };
                Err(self.error(PromptErrorKind::Gaps { message }, None))
            }
            _ => Ok(None),
        }
    }

    fn error(&self, kind: PromptErrorKind, line: Option<usize>) -> PromptError {
        kind.at(&self.origin, line)
    }

    fn input_names(&self) -> Vec<String> {
        self.inputs.keys().cloned().collect()
    }

    fn input_error(&self, name: &str, error: InputError) -> PromptError {
        let name = name.to_owned();
        self.error(PromptErrorKind::Input { name, error }, None)
    }

    fn missing_input(&self, name: &str, spec: &InputSpec) -> PromptError {
        let kind = PromptErrorKind::MissingInput {
            name: name.to_owned(),
            expected: spec.expected(),
            inputs: self.input_names(),
        };
        self.error(kind, None)
    }

    fn unknown_input(&self, name: &str) -> PromptError {
        let kind = PromptErrorKind::UnknownInput {
            name: name.to_owned(),
            inputs: self.input_names(),
            suggestion: nearest(name, self.inputs.keys().map(String::as_str)),
        };
        self.error(kind, None)
    }
}

/// Reads which patches are meant; at least one has to be.
fn read_patches(items: &[String]) -> Result<Vec<PatchRange>, InputError> {
    if items.is_empty() {
        let found = String::new();
        return Err(NoPatches { found }.into());
    }
    items.iter().map(|item| Ok(item.parse()?)).collect()
}

struct Sections<'t> {
    front_matter: &'t str,
    body: &'t str,
    lines_before: usize,
}

/// Cuts a file at its two `---` lines.
fn split<'t>(origin: &str, text: &'t str) -> Result<Sections<'t>, PromptError> {
    let first = text.lines().next().unwrap_or_default();
    let rest = text.strip_prefix(first).unwrap_or_default();
    if first.trim_end() != "---" {
        let found = first.to_owned();
        return Err(PromptErrorKind::NoFrontMatter { found }.at(origin, Some(1)));
    }
    let rest = rest.strip_prefix('\n').unwrap_or(rest);
    let mut offset = 0;
    for (index, line) in rest.split_inclusive('\n').enumerate() {
        let end = offset + line.len();
        if line.trim_end() == "---" {
            let front_matter = rest.get(..offset).unwrap_or_default();
            return Ok(Sections {
                front_matter,
                body: rest.get(end..).unwrap_or_default(),
                lines_before: index + 2,
            });
        }
        offset = end;
    }
    Err(PromptErrorKind::UnclosedFrontMatter.at(origin, None))
}

fn check_size(origin: &str, part: &'static str, bytes: usize, limit: usize) -> Result<(), PromptError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(PromptErrorKind::TooLarge { part, bytes, limit }.at(origin, None))
}

/// Reads the name from a path: `tasks/caption.task` and `builtin:caption.task` are called `caption`.
fn name_from_origin(origin: &str) -> Result<String, PromptError> {
    let file = origin.rsplit(['/', '\\', ':']).next().unwrap_or_default();
    let stem = file.strip_suffix(".task").unwrap_or(file);
    if is_task_name(stem) {
        return Ok(stem.to_owned());
    }
    let message = format!(
        "the file's name makes no task name (lower-case letters, digits, '-' and '_'), found {}: rename the file, or write `name:`",
        quoted(stem)
    );
    let key = "name".to_owned();
    Err(PromptErrorKind::Invalid { key, message }.at(origin, None))
}
