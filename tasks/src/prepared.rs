//! A prepared task: its inputs are checked, and its prompt is rendered.

use multiway_model::ProcessedImage;
use multiway_prompts::{Prompt, SamplingOptions};
use multiway_runtime::{Constraint, Engine, ExplainedAnswer, Explanation, Request, SamplingParams, TokenId};

use crate::error::TaskError;
use crate::inputs::RequestTerms;
use crate::run::{Shape, TaskRun};

/// Holds a task with checked inputs and a rendered prompt; [`Task::prepare`](crate::Task::prepare) returns
/// it.
#[derive(Debug, Clone)]
pub struct PreparedTask {
    pub(crate) name: String,
    /// The output kind, for messages.
    pub(crate) kind: &'static str,
    pub(crate) prompt: Prompt,
    /// Those of the few-shot examples first.
    pub(crate) images: Vec<ProcessedImage>,
    /// The number of pictures of each few-shot example.
    pub(crate) shot_images: Vec<usize>,
    pub(crate) shape: Shape,
    /// The forced first tokens of the decoder.
    pub(crate) prefix: Vec<String>,
    /// The sampling parameters of the task file.
    pub(crate) task_sampling: SamplingOptions,
    /// The sampling parameters of the caller, which override them.
    pub(crate) caller_sampling: SamplingOptions,
    pub(crate) constraint: Option<Constraint>,
    pub(crate) terms: RequestTerms,
}

impl PreparedTask {
    /// Returns the rendered prompt.
    pub fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    /// Returns the pictures that the prompt names, those of few-shot examples first.
    pub fn images(&self) -> &[ProcessedImage] {
        &self.images
    }

    /// Returns the forced first tokens of the decoder: special tokens by name, and texts.
    pub fn prefix(&self) -> &[String] {
        &self.prefix
    }

    /// Returns the answers to choose from, where the answer is one of a list.
    pub fn candidates(&self) -> Option<&[String]> {
        match (&self.shape, &self.constraint) {
            (Shape::Ranked(ranked), _) => Some(&ranked.candidates),
            (Shape::Trie, Some(Constraint::Choices(choices))) => Some(choices),
            _ => None,
        }
    }

    /// Starts the task on an engine; the request is sent at the first poll of the run.
    ///
    /// # Errors
    ///
    /// When several answers are requested from a task that does not generate text, and when the few-shot
    /// examples have more pictures than the model takes. Errors of the engine are returned by the run.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_runtime::{Engine, Tokenizer};
    /// use multiway_tasks::{TaskInputs, TaskLibrary};
    /// # let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
    ///
    /// let library = TaskLibrary::for_model(checkpoint.config())?;
    /// let tokenizer = Tokenizer::from_checkpoint(&checkpoint)?;
    /// let inputs = TaskInputs::new().with("text", "The ___ sat.");
    /// let prepared = library.get("infill")?.prepare(&tokenizer, &inputs)?;
    ///
    /// let engine = Engine::builder(&checkpoint).tokenizer(tokenizer).build()?;
    /// let outcome = prepared.run(&engine)?.wait_blocking()?;
    /// assert_eq!(outcome.usage.image_patches, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run(self, engine: &Engine) -> Result<TaskRun, TaskError> {
        self.check_pictures(engine.config().max_images())?;
        let sampling = self.sampling(engine);
        let shape = match self.shape {
            Shape::Filled(original) if engine.config().word_mask().is_some() => Shape::Masked(original),
            shape => shape,
        };
        if !shape.is_generated() && asks_for_several(&sampling) {
            return Err(TaskError::NothingDrawn {
                task: self.name,
                kind: self.kind,
            });
        }
        let request = request(self.prompt, self.images, sampling, self.terms);
        Ok(TaskRun::new(engine.clone(), self.name, request, shape))
    }

    /// Explains an answer to the prompt: where the model looked for each of its words, and which words of the
    /// prompt go with which patches of the pictures, in the order of [`pictures`](Self::pictures).
    ///
    /// `tokens` are those of [`TaskOutcome::answer_tokens`](crate::TaskOutcome::answer_tokens), `layer` is
    /// the decoder layer to show, or `None` for the mean of all.
    ///
    /// # Errors
    ///
    /// When there is nothing to explain, the layer does not exist, or the engine refuses the request or fails
    /// on it.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_runtime::{Engine, block_on};
    /// use multiway_tasks::{TaskInputs, TaskLibrary};
    /// # let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
    ///
    /// let engine = Engine::builder(&checkpoint).build()?;
    /// let task = TaskLibrary::for_model(checkpoint.config())?.get("caption")?.clone();
    /// let image = task.image_processor(checkpoint.config()).open("../examples/pictures/cat.png")?;
    /// let prepared = task.prepare(engine.tokenizer(), &TaskInputs::new().with_image(image))?;
    /// let outcome = prepared.clone().run(&engine)?.wait_blocking()?;
    /// let explanation = block_on(prepared.explain(&engine, outcome.answer_tokens, None))?;
    /// assert_eq!(explanation.answer[0].patches[0].len(), engine.config().patches());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn explain(
        self,
        engine: &Engine,
        tokens: Vec<TokenId>,
        layer: Option<usize>,
    ) -> Result<Explanation, TaskError> {
        self.check_pictures(engine.config().max_images())?;
        let sampling = self.sampling(engine);
        let request = request(self.prompt, self.images, sampling, self.terms);
        let answer = ExplainedAnswer { tokens, layer };
        Ok(engine.explain(request, answer).await?.value)
    }

    /// Lists the pictures in the order in which the prompt shows them: the place of each among the pictures
    /// of the inputs, or `None` for one of a few-shot example.
    pub fn pictures(&self) -> Vec<Option<usize>> {
        let of_shots: usize = self.shot_images.iter().sum();
        let shown = self.prompt.images();
        shown.map(|index| index.checked_sub(of_shots)).collect()
    }

    /// Returns the log-likelihood of a text as the whole answer, its end included.
    ///
    /// # Errors
    ///
    /// When the engine refuses the request or fails on it, or the likelihood is not a number.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_runtime::{Engine, block_on};
    /// use multiway_tasks::{TaskInputs, TaskLibrary};
    /// # let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
    ///
    /// let engine = Engine::builder(&checkpoint).build()?;
    /// let library = TaskLibrary::for_model(checkpoint.config())?;
    /// let inputs = TaskInputs::new().with("text", "The ___ sat.");
    /// let prepared = library.get("infill")?.prepare(engine.tokenizer(), &inputs)?;
    /// assert!(block_on(prepared.log_likelihood(&engine, "cat"))? < 0.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn log_likelihood(self, engine: &Engine, text: &str) -> Result<f32, TaskError> {
        self.check_pictures(engine.config().max_images())?;
        let sampling = self.sampling(engine);
        let request = request(self.prompt, self.images, sampling, self.terms);
        let scores = engine.score(request, vec![text.to_owned()]).await?.value;
        let value = scores.first().map_or(f32::NAN, |score| score.log_probability);
        if value.is_nan() {
            return Err(TaskError::NotANumber {
                task: self.name,
                choice: text.to_owned(),
                value,
            });
        }
        Ok(value)
    }

    /// Checks that the model takes the pictures of the few-shot examples beside those of the request.
    fn check_pictures(&self, limit: usize) -> Result<(), TaskError> {
        let of_shots: usize = self.shot_images.iter().sum();
        let pictures = self.images.len();
        if of_shots == 0 || pictures <= limit {
            return Ok(());
        }
        let mut room = limit.checked_sub(pictures.saturating_sub(of_shots));
        let fits = |count: &&usize| {
            room = room.and_then(|room| room.checked_sub(**count));
            room.is_some()
        };
        Err(TaskError::TooManyShotPictures {
            task: self.name.clone(),
            shots: self.shot_images.len(),
            pictures,
            limit,
            fit: self.shot_images.iter().take_while(fits).count(),
        })
    }

    /// Resolves the layers of sampling parameters: the caller's on the task file's on the checkpoint's.
    fn sampling(&self, engine: &Engine) -> SamplingParams {
        let layers = self.task_sampling.clone().overlay(self.caller_sampling.clone());
        let mut params = engine.default_sampling().clone().overlay(layers);
        // Beam search is deterministic: it overrides a temperature of the layers below.
        if params.beams > 1 && self.caller_sampling.temperature.is_none() {
            params.temperature = 0.0;
        }
        // Constrained decoding has no beam search: it overrides the checkpoint's default.
        if self.constraint.is_some() && self.task_sampling.beams.or(self.caller_sampling.beams).is_none() {
            params.beams = 1;
        }
        if let Shape::Read(reader) = &self.shape
            && reader.needs_special()
        {
            params.show_special = true;
        }
        params.prefix.clone_from(&self.prefix);
        params.constraint.clone_from(&self.constraint);
        if self.caller_sampling.max_new_tokens.is_none() {
            // The model's maximum length may be lower than the task file's.
            let limit = engine.config().max_target_length;
            let room = limit.saturating_sub(params.prefix.len()).max(1);
            // JSON is as long as its schema requires, and its constraint ends it.
            let is_open = matches!(self.shape, Shape::Json) && self.task_sampling.max_new_tokens.is_none();
            params.max_new_tokens = if is_open {
                room
            } else {
                params.max_new_tokens.min(room)
            };
        }
        if self.caller_sampling.min_new_tokens.is_none() {
            // A lower maximum of the caller or the model overrides the task file's minimum.
            params.min_new_tokens = params.min_new_tokens.min(params.max_new_tokens);
        }
        params
    }
}

fn request(
    prompt: Prompt,
    images: Vec<ProcessedImage>,
    sampling: SamplingParams,
    terms: RequestTerms,
) -> Request {
    Request {
        prompt,
        images,
        sampling,
        priority: terms.priority,
        timeout: terms.timeout,
    }
}

/// Returns whether more than one answer, or alternatives to its tokens, are requested.
fn asks_for_several(sampling: &SamplingParams) -> bool {
    sampling.samples > 1 || sampling.drawn() > 1 || sampling.top_log_probabilities > 0
}
