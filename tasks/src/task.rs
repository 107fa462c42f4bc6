//! A task: a task file that can be run.

use std::path::{Path, PathBuf};

use multiway_prompts::{
    CheckedInputs, Choices, InputKind, InputSpec, InputValue, Inputs, OutputSpec, Prompt, SamplingOptions,
    TaskFile,
};
use multiway_runtime::{Constraint, Engine, Request, RequestError, SamplingParams, Tokenizer};

use crate::error::TaskError;
use crate::inputs::{TaskInputs, bind_pictures};
use crate::run::{Shape, TaskRun};

/// Holds a task file that can be run on an engine.
#[derive(Debug, Clone)]
pub struct Task {
    file: TaskFile,
    folder: Option<PathBuf>,
}

/// What running a task needs: the request, and how its answer is made.
pub(crate) struct Prepared {
    pub(crate) request: Request,
    pub(crate) shape: Shape,
}

impl Task {
    /// Makes a task of a parsed task file.
    pub fn new(file: TaskFile) -> Task {
        Task { file, folder: None }
    }

    /// Makes a task of a task file that lies at `path`, beside the pictures of its examples.
    pub(crate) fn from_file(file: TaskFile, path: &Path) -> Task {
        Task {
            file,
            folder: Some(path.parent().unwrap_or(Path::new("")).to_owned()),
        }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// Says in a sentence what the task does.
    pub fn description(&self) -> &str {
        &self.file.description
    }

    /// Says where the task file comes from: a path, or `builtin:` and a name.
    pub fn origin(&self) -> &str {
        self.file.origin()
    }

    /// Returns the task file.
    pub fn file(&self) -> &TaskFile {
        &self.file
    }

    /// Returns the folder of the task file, to which the pictures of its examples are relative. A task that is built in,
    /// or was made from bytes, has none.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    pub(crate) fn is_builtin(&self) -> bool {
        self.origin().starts_with("builtin:")
    }

    /// Checks the inputs and renders the prompt.
    ///
    /// # Errors
    ///
    /// When the inputs are not what the task file declares, or the template fails.
    pub fn request(&self, inputs: &TaskInputs) -> Result<Request, TaskError> {
        self.prepare(inputs, &SamplingParams::default(), &[])
            .map(|prepared| prepared.request)
    }

    /// Checks the inputs and renders the prompt for a tokenizer, whose special tokens the template may spell.
    ///
    /// # Errors
    ///
    /// As [`Task::request`].
    pub fn prompt(&self, tokenizer: &Tokenizer, inputs: &TaskInputs) -> Result<Prompt, TaskError> {
        self.prepare(inputs, &SamplingParams::default(), &tokenizer.special_names())
            .map(|prepared| prepared.request.prompt)
    }

    /// Starts the task on an engine. The inputs are checked at once; the request is sent when the run is first polled.
    ///
    /// # Errors
    ///
    /// When the inputs are not what the task file declares, or the template fails. What the engine says of the request
    /// comes out of the run.
    pub fn run(&self, engine: &Engine, inputs: &TaskInputs) -> Result<TaskRun, TaskError> {
        let tokenizer = engine.tokenizer();
        for token in &self.file.decode.prefix {
            tokenizer.require_special(token).map_err(RequestError::from)?;
        }
        let mut prepared = self.prepare(inputs, engine.default_sampling(), &tokenizer.special_names())?;
        if inputs.sampling.max_new_tokens.is_none() {
            // What a task file asks for is the most that is useful; what the model can write may be less.
            let sampling = &mut prepared.request.sampling;
            let room = engine
                .config()
                .max_target_length
                .saturating_sub(sampling.prefix.len())
                .max(1);
            // Of JSON nobody knows how long it should be, and it ends by itself.
            let is_open =
                matches!(prepared.shape, Shape::Json) && self.file.decode.sampling.max_new_tokens.is_none();
            sampling.max_new_tokens = if is_open {
                room
            } else {
                sampling.max_new_tokens.min(room)
            };
        }
        if inputs.sampling.min_new_tokens.is_none() {
            // Nor is the file's minimum a reason to refuse what the caller or the model wants shorter.
            let sampling = &mut prepared.request.sampling;
            sampling.min_new_tokens = sampling.min_new_tokens.min(sampling.max_new_tokens);
        }
        if let Shape::Filled(original) = &prepared.shape
            && engine.config().word_mask().is_some()
        {
            prepared.shape = Shape::Masked(original.clone());
        }
        if !matches!(prepared.shape, Shape::Text | Shape::Filled(_) | Shape::Json)
            && tells_several(&prepared.request.sampling)
        {
            return Err(TaskError::NothingDrawn {
                task: self.name().to_owned(),
                kind: self.file.output.kind(),
            });
        }
        Ok(TaskRun::new(engine.clone(), self.name().to_owned(), prepared))
    }

    fn prepare(
        &self,
        inputs: &TaskInputs,
        defaults: &SamplingParams,
        special_tokens: &[&str],
    ) -> Result<Prepared, TaskError> {
        let checked = self.file.complete(&bind_pictures(&self.file, inputs)?)?;
        self.check_one_thing(checked.values())?;
        let request = Request {
            prompt: checked.render(special_tokens)?,
            images: inputs.images.clone(),
            sampling: self.sampling(&inputs.sampling, defaults.clone()),
            priority: inputs.terms.priority,
            timeout: inputs.terms.timeout,
        };
        let shape = self.shape(&checked);
        self.constrain(request, shape, inputs)
    }

    /// Gives the answer the form that the caller wants, else the one of the task file.
    fn constrain(
        &self,
        mut request: Request,
        shape: Shape,
        inputs: &TaskInputs,
    ) -> Result<Prepared, TaskError> {
        let (decode, wanted) = (&self.file.decode, inputs.constraint.clone());
        let own = match &self.file.output {
            OutputSpec::Json { schema } => Some(Constraint::JsonSchema(schema.clone())),
            _ => {
                let regex = decode.regex.clone().map(Constraint::Regex);
                regex.or_else(|| decode.lark.clone().map(Constraint::Lark))
            }
        };
        if wanted.is_some() && self.file.output != (OutputSpec::Text { fill: None }) {
            return Err(TaskError::FormNotTaken {
                task: self.name().to_owned(),
                kind: self.file.output.kind(),
            });
        }
        let constraint = wanted.or(own);
        let shape = match constraint {
            Some(Constraint::JsonSchema(_)) => Shape::Json,
            _ => shape,
        };
        // A checkpoint that likes to follow several beams cannot do so here.
        if constraint.is_some() && decode.sampling.beams.or(inputs.sampling.beams).is_none() {
            request.sampling.beams = 1;
        }
        request.sampling.constraint = constraint;
        Ok(Prepared { request, shape })
    }

    fn shape(&self, inputs: &CheckedInputs<'_>) -> Shape {
        if let Some(candidates) = inputs.choices() {
            return Shape::Choice(candidates.to_vec());
        }
        if let Some(hidden) = inputs.hidden_patches() {
            return Shape::Patches(hidden.to_vec());
        }
        match &self.file.output {
            OutputSpec::Choice(Choices::OfModel) => Shape::Class,
            OutputSpec::Embedding => Shape::Embedding,
            OutputSpec::Text { fill: Some(name) } => match inputs.values().get(name) {
                Some(InputValue::Text(original)) => Shape::Filled(original.clone()),
                _ => Shape::Text,
            },
            _ => Shape::Text,
        }
    }

    /// Resolves the layers of sampling parameters: the caller's on the task file's on the checkpoint's.
    fn sampling(&self, caller: &SamplingOptions, checkpoint: SamplingParams) -> SamplingParams {
        let decode = &self.file.decode;
        let mut params = checkpoint.overlay(decode.sampling.clone().overlay(caller.clone()));
        // Several beams ask for the likeliest answer, whatever the layers below say about sampling one.
        if params.beams > 1 && caller.temperature.is_none() {
            params.temperature = 0.0;
        }
        params.prefix.clone_from(&decode.prefix);
        params
    }

    /// Checks that a task that makes a vector of whichever input it is given is given exactly one.
    ///
    /// Such a task is one whose inputs may all be left out.
    fn check_one_thing(&self, values: &Inputs) -> Result<(), TaskError> {
        let inputs = &self.file.inputs;
        if self.file.output != OutputSpec::Embedding
            || inputs.is_empty()
            || !inputs.values().all(may_be_left_out)
        {
            return Ok(());
        }
        let (task, wanted) = (self.name().to_owned(), one_of(inputs.keys()));
        match values.values().filter(|value| !is_empty(value)).count() {
            0 => Err(TaskError::NothingGiven { task, wanted }),
            1 => Ok(()),
            _ => Err(TaskError::TooMuchGiven { task, wanted }),
        }
    }
}

/// Tells whether more is asked for than one answer.
fn tells_several(sampling: &SamplingParams) -> bool {
    sampling.samples > 1 || sampling.drawn() > 1 || sampling.top_log_probabilities > 0
}

fn may_be_left_out(spec: &InputSpec) -> bool {
    spec.kind == InputKind::Images || !spec.is_required()
}

fn is_empty(value: &InputValue) -> bool {
    match value {
        InputValue::Text(text) => text.trim().is_empty(),
        InputValue::List(items) => items.is_empty(),
        InputValue::Images(indices) => indices.is_empty(),
        _ => false,
    }
}

/// Lists names: `image or text`.
fn one_of<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(" or ")
}
