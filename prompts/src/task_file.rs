//! A task file: read, checked, rendered.

use indexmap::IndexMap;
use serde::{Serialize, Serializer};

use crate::checked_inputs::CheckedInputs;
use crate::computed_choices::ComputedChoices;
use crate::error::{InputError, PromptError, PromptErrorKind};
use crate::front_matter::{Place, is_task_name};
use crate::infill::{MAX_GAPS, count_gaps};
use crate::input::{InputSpec, InputValue, Inputs, check_answers};
use crate::loader::load;
use crate::metric::Metric;
use crate::output::{Choices, OutputSpec};
use crate::patches::{NoPatches, PatchRange};
use crate::prompt::Prompt;
use crate::sandbox::too_many_gaps;
use crate::shots::{Shot, check_count, in_shot};
use crate::source::{NoFiles, TaskSource};
use crate::spec::{DecodeSpec, Example, FewShot, MetadataValue, Preprocessing};
use crate::suggest::{nearest, quoted};
use crate::target::{ANSWER_CHOICES, Target, check_text_bytes};
use crate::template::{MAX_PROMPT_BYTES, Template};

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
    /// The version of the file: a whole number, or three numbers as semantic versioning has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The name of the task that this one extends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extends: Option<String>,
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
    /// Whatever else the author says, such as `license`, `author` and `tags`.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub metadata: IndexMap<String, MetadataValue>,
    /// How pictures are prepared, by the name of the model family; others follow the checkpoint.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub preprocessing: IndexMap<String, Preprocessing>,
    /// Worked examples.
    pub examples: Vec<Example>,
    /// Few-shot examples, which are rendered before the prompt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub few_shot: Vec<FewShot>,
    #[serde(serialize_with = "source_of")]
    template: Template,
    #[serde(
        serialize_with = "source_of_target",
        skip_serializing_if = "Target::is_default"
    )]
    target: Target,
    #[serde(skip)]
    choices: Option<ComputedChoices>,
    #[serde(rename = "file")]
    origin: String,
}

fn source_of<S: Serializer>(template: &Template, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(template.source())
}

fn source_of_target<S: Serializer>(target: &Target, serializer: S) -> Result<S::Ok, S::Error> {
    source_of(&target.template, serializer)
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
        Self::parse_from(origin, bytes, &NoFiles)
    }

    /// Reads a task file that may name others: the task that it extends, and files that its template imports
    /// or includes, all of which `source` gives.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse); when a file is not there, cannot be read, or is wrong; when files name each
    /// other in a circle; and when they are too many or too large.
    pub fn parse_from(origin: &str, bytes: &[u8], source: &dyn TaskSource) -> Result<Self, PromptError> {
        let (front_matter, template) = load(origin, bytes, source)?;
        let name = match front_matter.name {
            Some(name) => name,
            None => name_from_origin(origin)?,
        };
        let task = Self {
            name,
            description: front_matter.description,
            version: front_matter.version,
            extends: front_matter.extends,
            inputs: front_matter.inputs,
            output: front_matter.output,
            decode: front_matter.decode,
            metrics: front_matter.metrics,
            languages: front_matter.languages,
            metadata: front_matter.metadata,
            preprocessing: front_matter.preprocessing,
            examples: front_matter.examples,
            few_shot: front_matter.few_shot,
            template,
            target: front_matter.target,
            choices: front_matter.choices,
            origin: origin.to_owned(),
        };
        task.check_names(&front_matter.input_places)?;
        Ok(task)
    }

    /// Says where the file comes from, as given to [`TaskFile::parse`].
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the template of the prompt, as it is written in the file.
    pub fn template(&self) -> &str {
        self.template.source()
    }

    /// Returns the template of what the model should write, as it is written in the file; without one,
    /// `{{ target }}`.
    pub fn target(&self) -> &str {
        self.target.template.source()
    }

    /// Lists the fields that the target is made of, beside the inputs.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiway_prompts::TaskFile;
    /// let file = "---\ndescription: Asks.\ninputs: {question: {type: text}}\ntarget: '{{ answer }} </s>'\n---\n{{ question }}";
    /// assert_eq!(TaskFile::parse("ask.task", file.as_bytes())?.target_fields(), ["answer"]);
    /// # Ok::<(), multiway_prompts::PromptError>(())
    /// ```
    pub fn target_fields(&self) -> &[String] {
        &self.target.fields
    }

    /// Renders what the model should write, for training and for scoring: from the inputs, and from the
    /// values of [`target_fields`](Self::target_fields), for a checkpoint that has `special_tokens`.
    ///
    /// # Errors
    ///
    /// As [`complete`](Self::complete), when a field is missing or unknown, and when the template fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_prompts::{Inputs, PromptPart, TaskFile};
    ///
    /// let file = "---\ndescription: Asks.\ninputs: {question: {type: text}}\ntarget: '<extra_id_0>{{ answer }}'\n---\n{{ question }}";
    /// let task = TaskFile::parse("ask.task", file.as_bytes())?;
    /// let inputs = Inputs::from([("question".to_owned(), "how many?".into())]);
    /// let reference = Inputs::from([("answer".to_owned(), "two </s>".into())]);
    ///
    /// let target = task.render_target(&inputs, &reference, &[])?;
    /// assert_eq!(target.parts, [PromptPart::Special("<extra_id_0>".into()), PromptPart::Text("two </s>".into())]);
    /// # Ok::<(), multiway_prompts::PromptError>(())
    /// ```
    pub fn render_target(
        &self,
        inputs: &Inputs,
        reference: &Inputs,
        special_tokens: &[&str],
    ) -> Result<Prompt, PromptError> {
        self.complete(inputs)?.render_target(reference, special_tokens)
    }

    /// Renders few-shot examples, each followed by its target and the task's separator, and then the prompt.
    /// All of them are rendered by the same template.
    ///
    /// # Errors
    ///
    /// When the inputs of a shot do not fit, a field of its target is missing or unknown, there are more than
    /// [`MAX_SHOTS`](crate::MAX_SHOTS), a template fails, or the prompt becomes too long.
    pub fn render_with_shots(
        &self,
        inputs: &CheckedInputs<'_>,
        shots: &[Shot],
        special_tokens: &[&str],
    ) -> Result<Prompt, PromptError> {
        check_count(&self.origin, shots)?;
        let prompt = inputs.render(special_tokens)?;
        if shots.is_empty() {
            return Ok(prompt);
        }
        let separator = self.target.separator.render(&Inputs::new(), special_tokens)?;
        let mut shown = Prompt::default();
        let mut bytes = prompt.text_bytes();
        for (index, shot) in shots.iter().enumerate() {
            let shot = self.render_shot(shot, special_tokens);
            let (asked, target) = shot.map_err(|error| in_shot(index + 1, &error))?;
            for piece in [asked, target, separator.clone()] {
                bytes += piece.text_bytes();
                if bytes > MAX_PROMPT_BYTES {
                    let limit = MAX_PROMPT_BYTES;
                    return Err(self.error(PromptErrorKind::OutputTooLong { limit }, None));
                }
                shown.append(piece);
            }
        }
        shown.append(prompt);
        Ok(shown)
    }

    fn render_shot(&self, shot: &Shot, special_tokens: &[&str]) -> Result<(Prompt, Prompt), PromptError> {
        let inputs = self.complete(&shot.inputs)?;
        let prompt = inputs.render(special_tokens)?;
        Ok((prompt, inputs.render_target(&shot.target, special_tokens)?))
    }

    /// Checks inputs, and adds the defaults of those that are not given.
    ///
    /// # Errors
    ///
    /// When an input is missing, unknown, of another type, or not allowed; when the inputs hold more than
    /// [`MAX_INPUT_BYTES`](crate::MAX_INPUT_BYTES) of text; when the text to fill in has no gap or more than
    /// [`MAX_GAPS`]; and when the answers to choose from are none, empty, or not all different.
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
        check_text_bytes(&self.origin, &complete)?;
        tracing::debug!(file = self.origin, inputs = complete.len(), "checked the inputs");
        Ok(CheckedInputs {
            origin: &self.origin,
            template: &self.template,
            target: &self.target,
            choices: self.choices_of(&complete)?,
            hidden_patches: self.check_output_input(&complete)?,
            values: complete,
        })
    }

    /// Finds the answers to choose from, or the closed set of labels.
    fn choices_of(&self, inputs: &Inputs) -> Result<Option<Vec<String>>, PromptError> {
        if let Some(computed) = &self.choices {
            return computed.render(&self.origin, inputs).map(Some);
        }
        Ok(match self.output.choices() {
            Some(Choices::Listed(choices)) => Some(choices.clone()),
            Some(Choices::FromInput(name)) => match inputs.get(name) {
                Some(InputValue::List(items)) => Some(items.clone()),
                _ => None,
            },
            _ => None,
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
    fn check_names(&self, input_places: &[Place]) -> Result<(), PromptError> {
        let mut variables = self.template.variables()?;
        if self.output.has_answer_choices() {
            variables.retain(|name| name != ANSWER_CHOICES);
        }
        self.check_defined(&self.template, &variables)?;
        if let Some(computed) = &self.choices {
            self.check_defined(&computed.template, &computed.template.variables()?)?;
        }
        // Not `variables`: minijinja leaves out some names, such as the one in `images[:2]`.
        let used = |name: &String| {
            self.template.place_of(name).is_some()
                || self.target.template.place_of(name).is_some()
                || (self.choices.as_ref()).is_some_and(|computed| computed.template.place_of(name).is_some())
                || self.output.uses_input() == Some(name.as_str())
        };
        if let Some((name, place)) = self.inputs.keys().zip(input_places).find(|(name, _)| !used(name)) {
            let name = name.clone();
            return Err(match place.origin.clone() {
                Some(from) => self.error(PromptErrorKind::UnusedInherited { name, from }, None),
                None => self.error(PromptErrorKind::UnusedInput { name }, place.line),
            });
        }
        self.check_fill()
    }

    /// Checks that the variables of a template are inputs.
    fn check_defined(&self, template: &Template, variables: &[String]) -> Result<(), PromptError> {
        let Some(name) = variables.iter().find(|name| !self.inputs.contains_key(*name)) else {
            return Ok(());
        };
        let kind = PromptErrorKind::Undefined {
            name: name.clone(),
            inputs: self.input_names(),
            suggestion: nearest(name, self.inputs.keys().map(String::as_str)),
        };
        Err(self.error_at_use(kind, template, name))
    }

    /// Checks that a task that fills gaps shows the text with its gaps.
    fn check_fill(&self) -> Result<(), PromptError> {
        let OutputSpec::Text { fill: Some(fill) } = &self.output else {
            return Ok(());
        };
        if self.template.uses_filter("gaps") && self.template.place_of(fill).is_some() {
            return Ok(());
        }
        let message =
            format!("the answer fills the gaps of '{fill}': write {{{{ {fill} | gaps }}}} in the prompt");
        Err(self.error_at_use(PromptErrorKind::Gaps { message }, &self.template, fill))
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

    /// Makes an error for the place where a template first uses a variable.
    fn error_at_use(&self, kind: PromptErrorKind, template: &Template, variable: &str) -> PromptError {
        match template.place_of(variable) {
            Some((origin, line)) => kind.at(origin, Some(line)),
            None => self.error(kind, None),
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
