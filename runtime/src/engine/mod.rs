//! Answers requests of any kind from one set of weights, many at a time.
//!
//! One thread owns the model. Between two steps it forgets requests whose caller has gone, admits those that wait,
//! encodes their prompts in one packed batch, and then advances every running request by one token. So requests
//! join and leave between any two tokens, and none waits for another to end.
//!
//! A request's tokens and log-probabilities are the same alone and in any company: rows are computed
//! independently of each other, and random numbers depend on the request's seed and step only.

mod builder;
mod forward;
mod labels;
mod limits;
mod meters;
mod reading;
mod replica;
mod reuse;
mod row;
mod samples;
mod scoring;
mod search;
mod sequence;
mod stats;
mod submit;
mod telemetry;
#[cfg(test)]
mod tests;
mod worker;

pub use builder::EngineBuilder;
pub(crate) use reading::log_probabilities;
pub use stats::EngineStats;
pub use worker::Shutdown;

use crate::constraint::Constraints;
use crate::error::RequestError;
use crate::generation::GenerationConfig;
use crate::request::{Prepared, Request, SamplingParams};
use crate::stream::{ClassScore, CodeScore, Generation, Hypothesis, Score, TokenStream, WordScore, block_on};
use crate::tokenizer::Tokenizer;

use limits::Limits;
use meters::Metrics;
use multiway_model::{Checkpoint, Model, ModelConfig};
pub(crate) use reading::Digest;
use reading::Reading;
use replica::Replica;
use scoring::Scoring;
use search::SearchReply;
use std::fmt;
use std::sync::Arc;
use telemetry::Clock;
use tokio::sync::{Semaphore, oneshot};
use worker::Work;

/// A handle to a running engine. Cheap to clone; when the last handle is dropped, the engine stops.
///
/// Every operation comes in an asynchronous form, which needs no particular runtime, and in a blocking one, which is
/// not for use in asynchronous code.
///
/// ```no_run
/// use multiway_model::Checkpoint;
/// use multiway_prompts::Prompt;
/// use multiway_runtime::{Engine, Request, StreamEvent};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let checkpoint = Checkpoint::open("checkpoints/default")?;
/// let engine = Engine::builder(&checkpoint).threads(2).build()?;
/// let mut stream = engine.generate(Request::new(Prompt::from_text("a cat is a"), Vec::new())).await?;
/// while let Some(event) = stream.next().await {
///     if let StreamEvent::Token { text, .. } = event? {
///         print!("{text}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    metrics: Arc<Metrics>,
    tokenizer: Tokenizer,
    config: ModelConfig,
    generation: GenerationConfig,
    constraints: Arc<Constraints>,
    /// The names of the head's classes, where the model has such a head and the checkpoint names them.
    labels: Option<Arc<Vec<String>>>,
    /// The threads that share the weights; at least one.
    replicas: Vec<Replica>,
    /// Places for requests that wait; one is held from submission until admission.
    places: Arc<Semaphore>,
    queue_capacity: usize,
    /// What each replica can hold.
    limits: Limits,
    /// Whether what is made of prompts is kept.
    reuses: bool,
    /// How many rows of one score request may be in a step.
    score_rows: usize,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    /// Stops the threads before their next step and waits for them, so that no work goes on behind the caller's back; and for
    /// constraints that are being compiled.
    fn drop(&mut self) {
        self.replicas
            .iter()
            .for_each(|replica| replica.shutdown(Shutdown::Abort));
        self.places.close();
        self.replicas.iter_mut().for_each(Replica::join);
        block_on(self.constraints.idle());
    }
}

impl Engine {
    /// Starts building an engine for a checkpoint.
    pub fn builder(checkpoint: &Checkpoint) -> EngineBuilder<'_> {
        EngineBuilder::from_checkpoint(checkpoint)
    }

    /// Starts building an engine for a model that is in memory already, such as one in training.
    pub fn builder_from_model(model: Arc<Model>, tokenizer: Tokenizer) -> EngineBuilder<'static> {
        EngineBuilder::from_model(model, tokenizer)
    }

    /// Returns the tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// Returns the model's configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.shared.config
    }

    /// Says what the checkpoint's files ask for and the engine does not do: keys of `generation_config.json` that are not
    /// supported, each once, in words.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.shared.generation.warnings
    }

    /// Returns how the checkpoint wants answers written where nobody says otherwise: its `generation_config.json`.
    #[must_use]
    pub fn default_sampling(&self) -> &SamplingParams {
        &self.shared.generation.sampling
    }

    /// Tells what the engine is doing, as of its last step; all replicas together.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        let replicas = self
            .shared
            .replicas
            .iter()
            .map(|replica| replica.counters().read());
        replicas.fold(EngineStats::default(), EngineStats::plus)
    }

    /// Shuts the engine down for all handles: no request is accepted any more. Returns at once.
    ///
    /// Dropping the last handle waits for the engine's threads, but cuts a drain short. To wait for a drain, wait for
    /// the requests.
    pub fn shutdown(&self, how: Shutdown) {
        self.shared.places.close();
        self.shared
            .replicas
            .iter()
            .for_each(|replica| replica.shutdown(how));
    }

    /// Writes an answer, token by token. Waits while as many requests wait as the engine lets wait.
    ///
    /// # Errors
    /// [`RequestError`] where the request cannot be answered or the engine was shut down.
    pub async fn generate(&self, request: Request) -> Result<TokenStream, RequestError> {
        let mut clock = self.clock(&request);
        let mut prepared = self.prepare_generation(request, &mut clock)?;
        let mut place = self.place(clock).await?;
        self.compile_beside(&mut prepared, &mut place).await?;
        self.start_generation(prepared, place)
    }

    /// Writes an answer, token by token, or says at once that the engine is overloaded.
    ///
    /// A constraint that is new to the engine is compiled while the caller's thread waits, which takes milliseconds;
    /// [`generate`](Self::generate) compiles it on a thread of its own.
    ///
    /// # Errors
    /// [`RequestError::Overloaded`] where no place is free; else as [`generate`](Self::generate).
    pub fn try_generate(&self, request: Request) -> Result<TokenStream, RequestError> {
        let mut clock = self.clock(&request);
        let mut prepared = self.prepare_generation(request, &mut clock)?;
        let mut place = self.try_place(clock)?;
        self.compile(&mut prepared, &mut place)?;
        self.start_generation(prepared, place)
    }

    /// Writes an answer and returns it whole.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and where the request fails on the way.
    pub fn generate_blocking(&self, request: Request) -> Result<Generation, RequestError> {
        block_on(async { self.generate(request).await?.wait().await })
    }

    /// Follows several beams and returns the best answers with their scores, the best first.
    ///
    /// `beams` of the sampling parameters says how many are followed, `answers` how many are returned.
    ///
    /// # Errors
    /// [`RequestError`] where the request cannot be answered, fails, or the engine was shut down.
    pub async fn search(&self, request: Request) -> Result<Vec<Hypothesis>, RequestError> {
        let mut clock = self.clock(&request);
        let prepared = self.prepare_generation(request, &mut clock)?;
        let (beams, temperature) = (prepared.sampling.beams, prepared.sampling.temperature);
        if temperature > 0.0 {
            return Err(RequestError::Parameter {
                name: "temperature",
                found: temperature.to_string(),
                expected: "0 for a search",
            });
        }
        let alternatives = prepared.sampling.top_log_probabilities;
        if alternatives > 0 {
            return Err(RequestError::Parameter {
                name: "top_log_probabilities",
                found: alternatives.to_string(),
                expected: "0 for a search",
            });
        }
        if prepared.sampling.constraint.is_some() {
            return Err(RequestError::Parameter {
                name: "constraint",
                found: "given".to_owned(),
                expected: "none for a search",
            });
        }
        self.check_beams(beams)?;
        let place = self.place(clock).await?;
        let (reply, answers) = oneshot::channel();
        let reply = SearchReply::List(Some(reply));
        self.submit_search(prepared, reply, place)?;
        answers.await.unwrap_or(Err(RequestError::ShutDown))
    }

    /// Follows several beams, as [`search`](Self::search) does.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_blocking(&self, request: Request) -> Result<Vec<Hypothesis>, RequestError> {
        block_on(self.search(request))
    }

    /// Checks that the engine has a slot for each beam: a request gets all of them at once.
    fn check_beams(&self, beams: usize) -> Result<(), RequestError> {
        if beams > self.shared.limits.capacity.slots {
            return Err(RequestError::TooManyBeams {
                found: beams,
                limit: self.shared.limits.capacity.slots,
            });
        }
        Ok(())
    }

    /// Tells how likely each candidate is as the whole answer: its tokens and `</s>`, after the forced prefix.
    ///
    /// The prompt is encoded once; of the sampling parameters only `prefix` counts.
    ///
    /// # Errors
    /// [`RequestError`] where the request cannot be answered, fails, or the engine was shut down.
    pub async fn score(&self, request: Request, candidates: Vec<String>) -> Result<Vec<Score>, RequestError> {
        let mut clock = self.clock(&request);
        self.check_writes()?;
        let prepared = self.prepare(request, &mut clock)?;
        let targets = clock.prepare(|| prepared.targets(&candidates, self.tokenizer(), self.config()))?;
        let place = self.place(clock).await?;
        let (reply, answer) = oneshot::channel();
        let (start, prefix) = (self.shared.generation.decoder_start, prepared.start.len() - 1);
        // Fewer rows give the same scores.
        let longest = targets.iter().map(Vec::len).max().unwrap_or_default();
        let slots = targets.len().min(self.shared.score_rows);
        let slots = slots.min(self.shared.limits.rows(longest)).max(1);
        self.submit(
            prepared,
            Work::Score(Scoring::new(start, prefix, targets, reply)),
            slots,
            place,
        )?;
        answer.await.unwrap_or(Err(RequestError::ShutDown))
    }

    /// Tells how likely each candidate is, as [`score`](Self::score) does.
    ///
    /// # Errors
    /// As [`score`](Self::score).
    pub fn score_blocking(
        &self,
        request: Request,
        candidates: Vec<String>,
    ) -> Result<Vec<Score>, RequestError> {
        block_on(self.score(request, candidates))
    }

    /// Embeds a prompt for retrieval: a vector of unit length, made of its first picture, or of its text where it has none.
    ///
    /// # Errors
    /// [`RequestError`] where the request cannot be answered, fails, or the engine was shut down.
    pub async fn embed(&self, request: Request) -> Result<Vec<f32>, RequestError> {
        let mut clock = self.clock(&request);
        let prepared = self.prepare(request, &mut clock)?;
        let place = self.place(clock).await?;
        let (reply, answer) = oneshot::channel();
        self.submit_reading(prepared, Reading::Embedding, Work::Embed(Some(reply)), place)?;
        answer.await.unwrap_or(Err(RequestError::ShutDown))
    }

    /// Embeds a prompt for retrieval, as [`embed`](Self::embed) does.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub fn embed_blocking(&self, request: Request) -> Result<Vec<f32>, RequestError> {
        block_on(self.embed(request))
    }

    /// Scores the classes that the model's head knows, in their order, with their names: pictures, and a text where the
    /// head reads one.
    ///
    /// # Errors
    /// [`RequestError::NoHead`] and [`RequestError::NoLabels`] where the model cannot say; else as
    /// [`embed`](Self::embed).
    pub async fn classify(&self, request: Request) -> Result<Vec<ClassScore>, RequestError> {
        let mut clock = self.clock(&request);
        let classes = self.config().classes();
        if classes == 0 {
            return Err(RequestError::NoHead { head: "classes" });
        }
        let labels = self.shared.labels.clone();
        let labels = labels.ok_or(RequestError::NoLabels { classes })?;
        let prepared = self.prepare(request, &mut clock)?;
        // A head reads as many pictures as the model takes; what does not fit must not reach a batch with others.
        let (found, expected) = (prepared.images.len(), self.config().max_images());
        if found != expected {
            return Err(RequestError::HeadImages { found, expected });
        }
        if expected > 1 && prepared.tokens.is_empty() {
            return Err(RequestError::HeadText);
        }
        let place = self.place(clock).await?;
        let (reply, scores) = oneshot::channel();
        self.submit_reading(prepared, Reading::Classes, Work::Classify(Some(reply)), place)?;
        let scores = scores.await.unwrap_or(Err(RequestError::ShutDown))?;
        let scored = labels.iter().zip(scores);
        Ok(scored
            .map(|(label, score)| ClassScore {
                label: label.clone(),
                score,
            })
            .collect())
    }

    /// Scores the classes that the model's head knows, as [`classify`](Self::classify) does.
    ///
    /// # Errors
    /// As [`classify`](Self::classify).
    pub fn classify_blocking(&self, request: Request) -> Result<Vec<ClassScore>, RequestError> {
        block_on(self.classify(request))
    }

    /// Names the words that the tokens `<mask>` of a prompt stand for: for each, the likeliest ids with their
    /// log-probabilities, at most `count`, the likeliest first.
    ///
    /// # Errors
    /// [`RequestError::NoHead`] where the model has no head for masked words; else as [`embed`](Self::embed).
    pub async fn unmask(&self, request: Request, count: usize) -> Result<Vec<Vec<WordScore>>, RequestError> {
        let mut clock = self.clock(&request);
        let Some(mask) = self.config().word_mask() else {
            return Err(RequestError::NoHead { head: "masked words" });
        };
        let prepared = self.prepare(request, &mut clock)?;
        if !prepared.tokens.contains(&mask) {
            clock.answered();
            return Ok(Vec::new());
        }
        let place = self.place(clock).await?;
        let (reply, words) = oneshot::channel();
        let reading = Reading::Words {
            mask,
            count,
            vocabulary: self.tokenizer().vocab_size(),
        };
        self.submit_reading(prepared, reading, Work::Unmask(Some(reply)), place)?;
        words.await.unwrap_or(Err(RequestError::ShutDown))
    }

    /// Names masked words, as [`unmask`](Self::unmask) does.
    ///
    /// # Errors
    /// As [`unmask`](Self::unmask).
    pub fn unmask_blocking(
        &self,
        request: Request,
        count: usize,
    ) -> Result<Vec<Vec<WordScore>>, RequestError> {
        block_on(self.unmask(request, count))
    }

    /// Hides patches of the prompt's first picture from the encoder and names what they show: for each, in the order
    /// given, the likeliest visual codes with their log-probabilities, at most `count`, the likeliest first.
    ///
    /// Patches are counted row by row from the top left, as [`ModelConfig::patches`] counts them.
    ///
    /// # Errors
    /// [`RequestError::NoHead`] where the model has no head for masked patches, [`RequestError::NothingToHide`] and
    /// [`RequestError::Patch`] where there is no such patch; else as [`embed`](Self::embed).
    pub async fn uncover(
        &self,
        request: Request,
        hidden: Vec<usize>,
        count: usize,
    ) -> Result<Vec<Vec<CodeScore>>, RequestError> {
        let mut clock = self.clock(&request);
        if !self.config().names_patches() {
            return Err(RequestError::NoHead {
                head: "names for hidden patches",
            });
        }
        let prepared = self.prepare(request, &mut clock)?;
        if prepared.images.is_empty() {
            return Err(RequestError::NothingToHide);
        }
        let patches = self.config().patches();
        if let Some(&found) = hidden.iter().find(|patch| **patch >= patches) {
            return Err(RequestError::Patch { found, patches });
        }
        if hidden.is_empty() {
            clock.answered();
            return Ok(Vec::new());
        }
        let place = self.place(clock).await?;
        let (reply, codes) = oneshot::channel();
        let reading = Reading::Codes { hidden, count };
        self.submit_reading(prepared, reading, Work::Uncover(Some(reply)), place)?;
        codes.await.unwrap_or(Err(RequestError::ShutDown))
    }

    /// Names hidden patches, as [`uncover`](Self::uncover) does.
    ///
    /// # Errors
    /// As [`uncover`](Self::uncover).
    pub fn uncover_blocking(
        &self,
        request: Request,
        hidden: Vec<usize>,
        count: usize,
    ) -> Result<Vec<Vec<CodeScore>>, RequestError> {
        block_on(self.uncover(request, hidden, count))
    }

    fn check_writes(&self) -> Result<(), RequestError> {
        if self.config().writes_text() {
            return Ok(());
        }
        Err(RequestError::NoHead { head: "text" })
    }

    fn prepare(&self, request: Request, clock: &mut Clock) -> Result<Prepared, RequestError> {
        let start = self.shared.generation.decoder_start;
        clock.prepare(|| Prepared::new(request, self.tokenizer(), self.config(), start))
    }

    fn prepare_generation(&self, request: Request, clock: &mut Clock) -> Result<Prepared, RequestError> {
        self.check_writes()?;
        let prepared = self.prepare(request, clock)?;
        prepared.check_new_tokens(self.config())?;
        self.shared.constraints.check(&prepared.sampling)?;
        Ok(prepared)
    }
}
