//! A tiny engine, and constrained decoding and sampling without one, for tests, benches and examples.

use std::sync::Arc;

use multiway_model::testing::{random_inference_model, tiny_config};

use crate::constraint::{ConstraintState, Constraints, DrawContext};
use crate::engine::{Engine, EngineBuilder};
use crate::eos::EosTokens;
use crate::error::RequestError;
use crate::sampling::Sampler;
use crate::sampling_params::SamplingParams;
use crate::tokenizer::{TokenId, Tokenizer, sentencepiece_to_json};

/// The size of the constraint cache, in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// Builds an engine with a tiny model of random weights: its answers are fast and meaningless.
///
/// # Errors
/// If memory or threads cannot be allocated.
///
/// # Examples
///
/// ```
/// let engine = multiway_runtime::testing::tiny_engine()?;
/// assert!(engine.config().writes_text());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn tiny_engine() -> Result<Engine, Box<dyn std::error::Error>> {
    Ok(tiny_builder()?.threads(1).build()?)
}

/// Starts building an engine with a tiny model of random weights.
///
/// # Errors
/// If memory cannot be allocated.
///
/// # Examples
///
/// ```
/// let engine = multiway_runtime::testing::tiny_builder()?.max_batch(4).build()?;
/// assert_eq!(engine.stats().free_slots, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn tiny_builder() -> Result<EngineBuilder<'static>, Box<dyn std::error::Error>> {
    let tokenizer = sentencepiece_to_json(include_bytes!("../tests/fixtures/tokenizer.model"))?;
    let tokenizer = Tokenizer::from_json(&tokenizer)?;
    let mut config = tiny_config();
    config.vocab_size = tokenizer.vocab_size();
    config.max_target_length = 64;
    let model = Arc::new(random_inference_model(&config, 3)?);
    Ok(Engine::builder_from_model(model, tokenizer))
}

/// Compiles constraints for a vocabulary.
#[derive(Debug)]
pub struct ConstraintCompiler {
    constraints: Constraints,
    ends: EosTokens,
}

impl ConstraintCompiler {
    /// Creates a compiler for a tokenizer with the EOS token `end`.
    #[must_use]
    pub fn new(tokenizer: Tokenizer, end: TokenId) -> Self {
        let ends = EosTokens::one(end);
        Self {
            constraints: Constraints::new(tokenizer, ends.clone(), CACHE_BYTES),
            ends,
        }
    }

    /// Estimates the bytes of the constraint cache.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.constraints.cached_bytes()
    }

    /// Starts an answer; `None` if the parameters have no constraint.
    ///
    /// # Errors
    /// As [`Engine::generate`](crate::Engine::generate) if the constraint cannot be used.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_runtime::testing::ConstraintCompiler;
    /// use multiway_runtime::{Constraint, SamplingParams, Tokenizer};
    ///
    /// let compiler = ConstraintCompiler::new(Tokenizer::byt5()?, 1);
    /// let sampling = SamplingParams {
    ///     constraint: Some(Constraint::Regex("ab".to_owned())),
    ///     ..SamplingParams::default()
    /// };
    /// let mut answer = compiler.start(&sampling)?.unwrap();
    /// assert_eq!(answer.allowed()?, [100]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start(&self, sampling: &SamplingParams) -> Result<Option<ConstrainedAnswer>, RequestError> {
        self.constraints.check(sampling)?;
        let compiled = self.constraints.compile(sampling)?;
        Ok(compiled.map(|compiled| ConstrainedAnswer {
            state: compiled.start(),
            sampler: Sampler::new(sampling),
            ends: self.ends.clone(),
            step: 0,
            max_new_tokens: sampling.max_new_tokens,
        }))
    }
}

/// A constrained answer, decoded from logits that the caller provides.
#[derive(Debug)]
pub struct ConstrainedAnswer {
    state: ConstraintState,
    sampler: Sampler,
    ends: EosTokens,
    step: usize,
    max_new_tokens: usize,
}

impl ConstrainedAnswer {
    /// Returns the mask of the next step: the allowed tokens, in order.
    ///
    /// # Errors
    /// [`RequestError::Failed`] if the grammar turns out to be too complex.
    pub fn allowed(&mut self) -> Result<Vec<TokenId>, RequestError> {
        self.state
            .allowed()
            .map_err(|cause| RequestError::Failed { cause })
    }

    /// Chooses the next token by logits `[V]`; `None` once the answer has ended.
    ///
    /// # Errors
    /// [`RequestError::Failed`] if the logits are not finite or the grammar turns out to be too complex.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_runtime::testing::ConstraintCompiler;
    /// use multiway_runtime::{Constraint, SamplingParams, Tokenizer};
    ///
    /// let compiler = ConstraintCompiler::new(Tokenizer::byt5()?, 1);
    /// let sampling = SamplingParams {
    ///     constraint: Some(Constraint::Regex("ab".to_owned())),
    ///     ..SamplingParams::default()
    /// };
    /// let mut answer = compiler.start(&sampling)?.unwrap();
    /// assert_eq!(answer.draw(&[0.0; 384])?, Some(100));
    /// assert_eq!(answer.allowed()?, [101]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn draw(&mut self, logits: &[f32]) -> Result<Option<TokenId>, RequestError> {
        let left = self.max_new_tokens - self.step;
        if left == 0 {
            return Ok(None);
        }
        let draw = DrawContext {
            logits,
            processed: logits,
            sampler: &mut self.sampler,
            step: self.step,
            left,
            ends: &self.ends,
        };
        let (choice, _) = self
            .state
            .draw(draw)
            .map_err(|cause| RequestError::Failed { cause })?;
        self.step += 1;
        if self.ends.contains(choice.id) {
            self.max_new_tokens = self.step;
            return Ok(None);
        }
        Ok(Some(choice.id))
    }
}

/// Samples tokens from logits that the caller provides.
#[derive(Debug)]
pub struct Draws(Sampler);

impl Draws {
    /// Creates a sampler.
    #[must_use]
    pub fn new(sampling: &SamplingParams) -> Self {
        Self(Sampler::new(sampling))
    }

    /// Chooses the token of a step by logits `[V]`; `None` if they are not finite.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_runtime::SamplingParams;
    /// use multiway_runtime::testing::Draws;
    ///
    /// let mut greedy = Draws::new(&SamplingParams::default());
    /// assert_eq!(greedy.draw(&[0.5, 2.0, 1.0], 0), Some(1));
    /// ```
    pub fn draw(&mut self, logits: &[f32], step: usize) -> Option<TokenId> {
        self.0.sample(logits, step).map(|choice| choice.id)
    }
}
