//! Answers requests of any kind from one set of weights, many at a time.
//!
//! Continuous batching: one thread owns the model. Between two steps it drops requests whose caller has gone,
//! admits queued ones, encodes their prompts in one packed batch (prefill), and then advances every running
//! request by one token. So requests join and leave between any two tokens, and none waits for another to
//! end.
//!
//! Answers are batch-invariant: rows are computed independently of each other, and random numbers depend on
//! the request's seed and step only.

mod builder;
mod call;
mod command;
mod decode;
mod digest;
mod explain;
mod explaining;
mod forward;
mod job;
mod labels;
mod limits;
mod logits_row;
mod meters;
mod pending;
mod prepared;
mod readout;
mod replica;
mod reply;
mod reuse;
mod samples;
mod scoring;
mod search;
mod sequence;
mod shared;
mod stats;
mod telemetry;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt;
use std::sync::Arc;

use multiway_model::{Checkpoint, Model, ModelConfig};

use crate::answer::{Answered, ClassScore, CodeScore, Generation, Hypothesis, Score, Usage, WordScore};
use crate::blocking::block_on;
use crate::error::RequestError;
use crate::request::Request;
use crate::sampling::fresh_seed;
use crate::sampling_params::SamplingParams;
use crate::stream::TokenStream;
use crate::tokenizer::{TokenId, Tokenizer};
use crate::top_k::TopK;
pub use builder::EngineBuilder;
use call::{Call, DecoderRows, QueuedCall};
pub use command::Shutdown;
pub use pending::Pending;
use prepared::PreparedRequest;
use readout::{Readout, ReadoutValue};
use samples::Samples;
use scoring::CandidateScoring;
use search::{Search, SearchReply};
use shared::Shared;
pub use stats::EngineStats;

/// A handle to a running engine. Cheap to clone; when the last handle is dropped, the engine stops.
///
/// No particular asynchronous runtime is needed: await a [`Pending`] answer, or block on it.
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

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts building an engine for a checkpoint.
    pub fn builder(checkpoint: &Checkpoint) -> EngineBuilder<'_> {
        EngineBuilder::from_checkpoint(checkpoint)
    }

    /// Starts building an engine for a model that is in memory already, such as one in training.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use multiway_model::testing::{random_inference_model, tiny_config};
    /// use multiway_runtime::{Engine, Tokenizer};
    ///
    /// let tokenizer = Tokenizer::byt5()?;
    /// let mut config = tiny_config();
    /// config.vocab_size = tokenizer.vocab_size();
    /// let model = Arc::new(random_inference_model(&config, 3)?);
    /// let engine = Engine::builder_from_model(model, tokenizer).threads(1).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder_from_model(model: Arc<Model>, tokenizer: Tokenizer) -> EngineBuilder<'static> {
        EngineBuilder::from_model(model, tokenizer)
    }

    /// Returns the tokenizer.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// let ids = engine.tokenizer().encode_text("a cat")?;
    /// assert_eq!(engine.tokenizer().decode(&ids), "a cat");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// Returns the model's configuration.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// assert!(engine.config().writes_text());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.shared.config
    }

    /// Lists the keys of the checkpoint's `generation_config.json` that are not supported, as messages.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.shared.generation.warnings
    }

    /// Returns the checkpoint's defaults: its `generation_config.json`.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// assert_eq!(engine.default_sampling().beams, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn default_sampling(&self) -> &SamplingParams {
        &self.shared.generation.sampling
    }

    /// Returns a snapshot of the engine's load and totals as of its last step, summed over the replicas.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// let answer = engine.generate_blocking(Request::new(Prompt::from_text("a cat"), Vec::new()))?;
    /// let stats = engine.stats();
    /// assert_eq!(stats.tokens, answer.tokens.len() as u64);
    /// assert!(stats.rows >= stats.steps);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        let replicas = self
            .shared
            .replicas
            .iter()
            .map(|replica| replica.counters().snapshot());
        replicas.fold(EngineStats::default(), EngineStats::plus)
    }

    /// Shuts the engine down for all handles: no request is accepted any more. Returns immediately.
    ///
    /// Dropping the last handle waits for the engine's threads, but aborts a drain. To wait for a drain, wait
    /// for the requests.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// use multiway_runtime::Shutdown;
    ///
    /// engine.shutdown(Shutdown::Drain);
    /// let refused = engine.generate_blocking(Request::new(Prompt::from_text("a cat"), Vec::new()));
    /// assert_eq!(refused.unwrap_err(), RequestError::ShutDown);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(&self, how: Shutdown) {
        self.shared.places.close();
        self.shared
            .replicas
            .iter()
            .for_each(|replica| replica.shutdown(how));
    }

    /// Generates an answer as a stream of tokens. Waits while the queue is full.
    ///
    /// # Errors
    /// [`RequestError`] if the request cannot be answered or the engine was shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// # multiway_runtime::block_on(async {
    /// let mut stream = engine.generate(Request::new(Prompt::from_text("a cat"), Vec::new())).await?;
    /// let mut answer = String::new();
    /// while let Some(event) = stream.next().await {
    ///     if let StreamEvent::Token { text, .. } = event? {
    ///         answer.push_str(&text);
    ///     }
    /// }
    /// # Ok::<(), RequestError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn generate(&self, request: Request) -> Result<TokenStream, RequestError> {
        let mut queued = self.call_to_stream(request)?.queue().await?;
        queued.compile_beside().await?;
        self.stream(queued)
    }

    /// Generates an answer as a stream of tokens, or fails at once if the queue is full.
    ///
    /// A constraint that is not cached is compiled on the caller's thread, which takes milliseconds;
    /// [`generate`](Self::generate) compiles it on another.
    ///
    /// # Errors
    /// [`RequestError::Overloaded`] if the queue is full; else as [`generate`](Self::generate).
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// let stream = engine.try_generate(Request::new(Prompt::from_text("a cat"), Vec::new()))?;
    /// assert!(!stream.wait_blocking()?.tokens.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_generate(&self, request: Request) -> Result<TokenStream, RequestError> {
        let mut queued = self.call_to_stream(request)?.try_queue()?;
        queued.compile()?;
        self.stream(queued)
    }

    /// Generates an answer, and blocks until it is complete; not for use in asynchronous code.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and if the request fails while it runs.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// let mut request = Request::new(Prompt::from_text("a cat"), Vec::new());
    /// request.sampling.max_new_tokens = 5;
    /// let answer = engine.generate_blocking(request)?;
    /// assert_eq!(answer.tokens.len(), answer.usage.new_tokens);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generate_blocking(&self, request: Request) -> Result<Generation, RequestError> {
        block_on(async { self.generate(request).await?.wait().await })
    }

    /// Runs a beam search and returns the best answers with their scores, the best first.
    ///
    /// Of the sampling parameters, `beams` is the width and `answers` the number of answers. The usage counts
    /// the tokens of these answers.
    ///
    /// # Errors
    /// [`RequestError`] if the request cannot be answered or fails, or the engine was shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// let mut request = Request::new(Prompt::from_text("a cat"), Vec::new());
    /// (request.sampling.beams, request.sampling.answers) = (4, 2);
    /// let found = engine.search(request).wait_blocking()?.value;
    /// assert!(found[0].score >= found[1].score);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn search(&self, request: Request) -> Pending<'_, Vec<Hypothesis>> {
        Pending::new(async move {
            let call = self.call_to_write(request)?;
            let sampling = &call.prepared.sampling;
            let wrong = |name, found: String, expected: &'static str| {
                Err(RequestError::Parameter {
                    name,
                    found,
                    expected: expected.into(),
                })
            };
            if sampling.temperature > 0.0 {
                return wrong("temperature", sampling.temperature.to_string(), "0 for a search");
            }
            if sampling.top_log_probabilities > 0 {
                let found = sampling.top_log_probabilities.to_string();
                return wrong("top_log_probabilities", found, "0 for a search");
            }
            if sampling.constraint.is_some() {
                return wrong("constraint", "given".to_owned(), "none for a search");
            }
            self.check_beams(sampling.beams)?;
            let rows = DecoderRows {
                count: sampling.beams,
                tokens: call.prepared.longest_input(),
            };
            let search =
                |prepared: &PreparedRequest, reply| self.beam_search(prepared, SearchReply::List(reply));
            call.decode(rows, search).await
        })
    }

    /// Samples several answers to one prompt, which is encoded once.
    ///
    /// Of the sampling parameters, `samples` is the number of answers. Sample `i` depends on the seed and `i`
    /// alone, not on how many there are; the first is the answer of [`generate`](Self::generate). With
    /// `best_of`, that many are sampled, and those with the highest mean log-probability per token are
    /// returned, the best first. The usage counts the tokens of the answers that are returned.
    ///
    /// # Errors
    /// [`RequestError`] if the request cannot be answered or fails, or the engine was shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// let mut request = Request::new(Prompt::from_text("a cat"), Vec::new());
    /// (request.sampling.samples, request.sampling.temperature) = (3, 1.0);
    /// assert_eq!(engine.samples(request).wait_blocking()?.value.len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn samples(&self, request: Request) -> Pending<'_, Vec<Generation>> {
        Pending::new(async move {
            let mut call = self.call_to_write(request)?;
            let drawn = self.check_samples(&call.prepared.sampling)?;
            // All samples draw from streams of the same seed.
            call.prepared.sampling.seed.get_or_insert_with(fresh_seed);
            let sampling = &call.prepared.sampling;
            let (samples, best_of) = (sampling.samples, sampling.best_of);
            let mut queued = call.queue().await?;
            queued.compile_beside().await?;
            let (listeners, streams): (Vec<_>, Vec<_>) = (0..drawn).map(|_| TokenStream::open()).unzip();
            let prepared = queued.prepared();
            let rows = DecoderRows {
                count: drawn,
                tokens: prepared.longest_input(),
            };
            let ends = &self.shared.generation.ends;
            let group = Samples::new(prepared, self.tokenizer(), ends, listeners);
            queued.submit_decoding(group, rows)?;
            let mut answers = Vec::with_capacity(drawn);
            for stream in streams {
                answers.push(stream.wait().await?);
            }
            if best_of.is_some() {
                answers.sort_by(|a, b| b.mean_log_probability().total_cmp(&a.mean_log_probability()));
            }
            answers.truncate(samples);
            Ok(together(answers))
        })
    }

    /// Returns the log-likelihood of each candidate as the whole answer: its tokens and `</s>`, after the
    /// forced prefix.
    ///
    /// The prompt is encoded once; of the sampling parameters only `prefix` is used.
    ///
    /// # Errors
    /// [`RequestError`] if the request cannot be answered or fails, or the engine was shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// let request = Request::new(Prompt::from_text("what is it?"), Vec::new());
    /// let candidates = ["a cat", "a dog"].map(str::to_owned).to_vec();
    /// let scored = engine.score(request, candidates).wait_blocking()?;
    /// assert!(scored.value.iter().all(|score| score.log_probability < 0.0));
    /// assert!(scored.usage.prompt_tokens > 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn score(&self, request: Request, candidates: Vec<String>) -> Pending<'_, Vec<Score>> {
        Pending::new(async move {
            let (mut call, ()) = self.call(request, || self.check_writes())?;
            let targets =
                call.prepare(|prepared| prepared.targets(&candidates, self.tokenizer(), self.config()))?;
            // The decoder reads the start token, and all of a target but its last token.
            let tokens = targets.iter().map(Vec::len).max().unwrap_or_default();
            // Fewer rows give the same scores.
            let most = self
                .shared
                .score_rows
                .min(self.shared.limits.rows_that_fit(tokens));
            let rows = DecoderRows {
                count: targets.len().min(most).max(1),
                tokens,
            };
            let start = self.shared.generation.decoder_start;
            let scoring = |prepared: &PreparedRequest, reply| {
                CandidateScoring::new(start, prepared.start.len() - 1, targets, reply)
            };
            call.decode(rows, scoring).await
        })
    }

    /// Embeds a prompt for retrieval: a vector of unit length, of its first picture, or of its text if it has
    /// none.
    ///
    /// # Errors
    /// [`RequestError`] if the request cannot be answered or fails, or the engine was shut down.
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// let embedding = engine.embed(Request::new(Prompt::from_text("a cat"), Vec::new()));
    /// let vector = embedding.wait_blocking()?.value;
    /// let length: f32 = vector.iter().map(|x| x * x).sum();
    /// assert!((length - 1.0).abs() < 1e-4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn embed(&self, request: Request) -> Pending<'_, Vec<f32>> {
        Pending::new(async move {
            let (call, ()) = self.call(request, || Ok(()))?;
            call.read_out(Readout::Embedding, ReadoutValue::vector).await
        })
    }

    /// Classifies pictures, and a text where the head reads one: returns the name and logit of each class, in
    /// the head's order.
    ///
    /// # Errors
    /// [`RequestError::NoHead`] and [`RequestError::NoLabels`] if the model has no such head, or no names for
    /// it; else as [`embed`](Self::embed).
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// # use multiway_prompts::Prompt;
    /// # use multiway_runtime::{Request, RequestError, SamplingParams, StreamEvent};
    /// let refused = engine.classify(Request::new(Prompt::from_text("a cat"), Vec::new()));
    /// assert_eq!(refused.wait_blocking().unwrap_err(), RequestError::NoHead { head: "classes" });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn classify(&self, request: Request) -> Pending<'_, Vec<ClassScore>> {
        Pending::new(async move {
            let (call, labels) = self.call(request, || self.labels())?;
            // A head reads exactly `max_images` pictures; a request that differs must not reach a batch with
            // others.
            let (found, expected) = (call.prepared.images.len(), self.config().max_images());
            if found != expected {
                return Err(RequestError::HeadImages { found, expected });
            }
            if expected > 1 && call.prepared.tokens.is_empty() {
                return Err(RequestError::HeadText);
            }
            let scores = call.read_out(Readout::Classes, ReadoutValue::vector).await?;
            let class = |(label, score): (&String, f32)| ClassScore {
                label: label.clone(),
                score,
            };
            Ok(scores.map(|scores| labels.iter().zip(scores).map(class).collect()))
        })
    }

    /// Predicts the tokens at the `<mask>` tokens of a prompt: for each mask the top `count` tokens with
    /// their log-probabilities, the highest first.
    ///
    /// # Errors
    /// [`RequestError::NoHead`] where the model has no head for masked words; else as [`embed`](Self::embed).
    pub fn unmask(&self, request: Request, count: usize) -> Pending<'_, Vec<Vec<WordScore>>> {
        Pending::new(async move {
            let (call, mask) = self.call(request, || self.word_mask())?;
            if !call.prepared.tokens.contains(&mask) {
                return Ok(call.answer(Vec::new()));
            }
            let readout = Readout::Words {
                mask,
                count,
                vocabulary: self.tokenizer().vocab_size(),
            };
            let places = call.read_out(readout, ReadoutValue::top_k).await?;
            let word = |(id, log_probability)| WordScore { id, log_probability };
            Ok(places.map(|places| each(places, word)))
        })
    }

    /// Masks patches of the prompt's first picture and predicts them: for each, in the order given, the top
    /// `count` visual codes with their log-probabilities, the highest first.
    ///
    /// Patches are counted row by row from the top left, as [`ModelConfig::patches`] counts them.
    ///
    /// # Errors
    /// [`RequestError::NoHead`] where the model has no head for masked patches,
    /// [`RequestError::NothingToHide`] and [`RequestError::Patch`] where there is no such patch; else as
    /// [`embed`](Self::embed).
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// use multiway_model::ProcessedImage;
    /// use multiway_prompts::PromptPart;
    /// use multiway_runtime::Request;
    ///
    /// let side = engine.config().image_size();
    /// let image = ProcessedImage::from_pixels(vec![0.5; 3 * side * side]);
    /// let request = Request::new([PromptPart::Image(0)].into_iter().collect(), vec![image]);
    /// let patches = engine.uncover(request, vec![0, 5], 3).wait_blocking()?.value;
    /// assert_eq!((patches.len(), patches[0].len()), (2, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn uncover(
        &self,
        request: Request,
        hidden: Vec<usize>,
        count: usize,
    ) -> Pending<'_, Vec<Vec<CodeScore>>> {
        Pending::new(async move {
            let (call, ()) = self.call(request, || self.check_names_patches())?;
            if call.prepared.images.is_empty() {
                return Err(RequestError::NothingToHide);
            }
            let patches = self.config().patches();
            if let Some(&found) = hidden.iter().find(|patch| **patch >= patches) {
                return Err(RequestError::Patch { found, patches });
            }
            if hidden.is_empty() {
                return Ok(call.answer(Vec::new()));
            }
            let readout = Readout::Codes { hidden, count };
            let places = call.read_out(readout, ReadoutValue::top_k).await?;
            let code = |(code, log_probability)| CodeScore {
                code,
                log_probability,
            };
            Ok(places.map(|places| each(places, code)))
        })
    }

    /// Starts a call that `needs` something of the model.
    fn call<T>(
        &self,
        request: Request,
        needs: impl FnOnce() -> Result<T, RequestError>,
    ) -> Result<(Call<'_>, T), RequestError> {
        Call::start(&self.shared, request, needs)
    }

    /// Starts a call that decodes.
    fn call_to_write(&self, request: Request) -> Result<Call<'_>, RequestError> {
        let (call, ()) = self.call(request, || self.check_writes())?;
        call.prepared.check_new_tokens(self.config())?;
        self.shared.constraints.check(&call.prepared.sampling)?;
        Ok(call)
    }

    /// Starts a call that streams its answer.
    fn call_to_stream(&self, request: Request) -> Result<Call<'_>, RequestError> {
        let call = self.call_to_write(request)?;
        let sampling = &call.prepared.sampling;
        let samples = sampling.drawn();
        if samples > 1 {
            return Err(RequestError::OneStream { samples });
        }
        self.check_beams(sampling.beams)?;
        Ok(call)
    }

    /// Submits a queued call, and returns its stream.
    fn stream(&self, queued: QueuedCall<'_>) -> Result<TokenStream, RequestError> {
        let (events, stream) = TokenStream::open();
        let prepared = queued.prepared();
        let rows = DecoderRows {
            count: prepared.sampling.beams,
            tokens: prepared.longest_input(),
        };
        if rows.count > 1 {
            let search = self.beam_search(prepared, SearchReply::Stream(Some(events)));
            queued.submit_decoding(search, rows)?;
        } else {
            let ends = &self.shared.generation.ends;
            let sample = Samples::new(prepared, self.tokenizer(), ends, vec![events]);
            queued.submit_decoding(sample, rows)?;
        }
        Ok(stream)
    }

    fn beam_search(&self, prepared: &PreparedRequest, reply: SearchReply) -> Search {
        let ends = &self.shared.generation.ends;
        Search::new(prepared, self.tokenizer(), self.config(), ends, reply)
    }

    fn check_writes(&self) -> Result<(), RequestError> {
        if self.config().writes_text() {
            return Ok(());
        }
        Err(RequestError::NoHead { head: "text" })
    }

    fn check_names_patches(&self) -> Result<(), RequestError> {
        if self.config().names_patches() {
            return Ok(());
        }
        let head = "names for hidden patches";
        Err(RequestError::NoHead { head })
    }

    fn word_mask(&self) -> Result<TokenId, RequestError> {
        let mask = self.config().word_mask();
        mask.ok_or(RequestError::NoHead { head: "masked words" })
    }

    /// Returns the names of the classes that the model's head knows, in the order of its scores.
    ///
    /// # Errors
    /// [`RequestError::NoHead`] where the model has no such head, [`RequestError::NoLabels`] where its
    /// checkpoint does not name them.
    ///
    /// # Examples
    ///
    /// ```
    /// let engine = multiway_runtime::testing::tiny_engine()?;
    /// assert!(engine.labels().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn labels(&self) -> Result<Arc<Vec<String>>, RequestError> {
        let classes = self.config().classes();
        if classes == 0 {
            return Err(RequestError::NoHead { head: "classes" });
        }
        let labels = self.shared.labels.clone();
        labels.ok_or(RequestError::NoLabels { classes })
    }

    /// Checks that the engine has a slot for each beam: a request gets all of them at once.
    fn check_beams(&self, found: usize) -> Result<(), RequestError> {
        let limit = self.shared.limits.capacity.slots;
        if found > limit {
            return Err(RequestError::TooManyBeams { found, limit });
        }
        Ok(())
    }

    /// Checks that the engine has a slot for each sample, and counts them: a request gets all of them at
    /// once.
    fn check_samples(&self, sampling: &SamplingParams) -> Result<usize, RequestError> {
        if sampling.beams > 1 {
            return Err(RequestError::Parameter {
                name: "beams",
                found: sampling.beams.to_string(),
                expected: "1 for samples".into(),
            });
        }
        let (found, limit) = (sampling.drawn(), self.shared.limits.capacity.slots);
        if found > limit {
            return Err(RequestError::TooManySamples { found, limit });
        }
        Ok(found)
    }
}

/// Sums the new tokens, and takes the timings of the answer that ended last. The prompt is counted once.
fn together(answers: Vec<Generation>) -> Answered<Vec<Generation>> {
    let last = answers.iter().max_by_key(|answer| answer.timings.total);
    let (usage, timings) = last.map(|last| (last.usage, last.timings)).unwrap_or_default();
    let new_tokens = answers.iter().map(|answer| answer.usage.new_tokens).sum();
    Answered::new(answers, Usage { new_tokens, ..usage }, timings)
}

/// Turns the top k of each place into scores.
fn each<T>(places: Vec<TopK>, score: impl Fn((u32, f32)) -> T) -> Vec<Vec<T>> {
    let one = |place: TopK| place.into_iter().map(&score).collect();
    places.into_iter().map(one).collect()
}
