//! What a caller asks for, and the checks that it passes before it may wait for a place.

use crate::constraint::{Compiled, Constraint};
use crate::engine::Digest;
use crate::error::RequestError;
use crate::stream::Timings;
use crate::tokenizer::{TokenId, Tokenizer};
use multiway_model::{ModelConfig, ProcessedImage};
use multiway_prompts::{Prompt, PromptPart};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The most bytes of text that a prompt may have; what is longer is refused before it is tokenized.
pub(crate) const MAX_TEXT_BYTES: usize = 1 << 20;
/// The most stop strings of a request, and the most bytes of each.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
/// The most beams of a search.
const MAX_BEAMS: usize = 64;
/// The most candidates that one call scores.
pub(crate) const MAX_CANDIDATES: usize = 1 << 16;

/// Asks the engine for something about a prompt.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The rendered prompt.
    pub prompt: Prompt,
    /// The pictures that the prompt's image parts point to.
    pub images: Vec<ProcessedImage>,
    /// How to write the answer.
    pub sampling: SamplingParams,
    /// Requests of a higher priority are admitted first; 0 is usual. A request that many others overtook goes first all the
    /// same.
    pub priority: i32,
    /// How long the answer may take, from the call to the end, waiting for a place in the queue included; then the request ends with
    /// [`RequestError::DeadlineExceeded`] before the engine's next step, or as soon as it has a place. `None` for ever.
    pub timeout: Option<Duration>,
    /// Where the engine puts how long the parts of the request took: before it answers a call that returns no stream, and of a
    /// stream, whose last event tells it too, when it ends, whatever the end is. Give each request its own.
    pub timings: Option<Arc<OnceLock<Timings>>>,
}

impl Request {
    /// Asks about a prompt, with default sampling.
    #[must_use]
    pub fn new(prompt: Prompt, images: Vec<ProcessedImage>) -> Self {
        Self {
            prompt,
            images,
            ..Self::default()
        }
    }
}

/// When a search with beams ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EarlyStopping {
    /// As soon as as many answers are complete as there are beams.
    AtOnce,
    /// When no running beam scores better at its present length than the worst complete answer.
    #[default]
    WhenNoBetter,
    /// When no running beam can ever score better than the worst complete answer.
    Never,
}

/// How an answer is written.
///
/// ```
/// use multiway_runtime::SamplingParams;
///
/// let greedy = SamplingParams { max_new_tokens: 16, ..SamplingParams::default() };
/// assert_eq!(greedy.temperature, 0.0);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingParams {
    /// The most tokens to write, the forced prefix not counted.
    pub max_new_tokens: usize,
    /// How far to flatten the distribution; 0 always takes the likeliest token.
    pub temperature: f32,
    /// Draw from this many of the likeliest tokens only; `None` for all.
    pub top_k: Option<usize>,
    /// Draw from the likeliest tokens that together have this probability; 1 for all.
    pub top_p: f32,
    /// Draw from those tokens only that have at least this share of the likeliest one's probability; 0 for all.
    ///
    /// It looks at the probabilities after the temperature, among what `top_k` and `top_p` leave.
    pub min_p: f32,
    /// Draw from the most typical tokens that together have this probability; 1 for all.
    ///
    /// A token is the more typical the nearer its information is to the entropy of what the parameters above leave.
    pub typical_p: f32,
    /// Where the random numbers start; `None` for a fresh start at every request.
    pub seed: Option<u64>,
    /// Makes tokens that were read before less likely, above 1, or more likely, below; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Taken from the logit of every token that the model wrote before, from -2 to 2. Neither the prompt nor the forced
    /// prefix counts.
    pub presence_penalty: f32,
    /// Taken from the logit of a token once for each time that the model wrote it before, from -2 to 2. Neither the
    /// prompt nor the forced prefix counts.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens at every step, before all penalties; from -100 to 100, at most 1024 tokens.
    pub logit_bias: BTreeMap<TokenId, f32>,
    /// Never writes the same sequence of this many tokens twice; 0 allows it.
    pub no_repeat_ngram_size: usize,
    /// Sequences of tokens, and what is added to the logit of the last one where the others were read just before; what a
    /// sequence of one token adds is added at every step. At most 1024 sequences of at most 64 tokens.
    pub sequence_bias: Vec<(Vec<TokenId>, f32)>,
    /// Sequences of tokens that are never completed. One that is an end alone counts for nothing. At most 16384 sequences of at
    /// most 64 tokens.
    pub bad_words_ids: Vec<Vec<TokenId>>,
    /// Tokens that are never written.
    pub suppress_tokens: Vec<TokenId>,
    /// Tokens that are not written first.
    pub begin_suppress_tokens: Vec<TokenId>,
    /// What is written first, whatever the model finds likely, where there is no prefix.
    pub forced_bos_token_id: Option<TokenId>,
    /// What is written last, where [`max_new_tokens`](Self::max_new_tokens) allows no more: the likeliest of these.
    pub forced_eos_token_id: Vec<TokenId>,
    /// After how many tokens `</s>` becomes likelier with each token, and by which factor.
    pub exponential_decay_length_penalty: Option<(usize, f32)>,
    /// Writes at least this many tokens before `</s>`.
    pub min_new_tokens: usize,
    /// How many continuations to follow at a time; 1 follows one, and only then are tokens sampled or streamed as they
    /// are written.
    pub beams: usize,
    /// The power of the length by which a beam's score is divided: longer answers are preferred above 0.
    pub length_penalty: f32,
    /// When a search with beams ends.
    pub early_stopping: EarlyStopping,
    /// How many answers [`Engine::search`](crate::Engine::search) returns, at most `beams`.
    pub answers: usize,
    /// How many answers [`Engine::samples`](crate::Engine::samples) returns, at most 64; more than one are drawn, so they
    /// need a temperature.
    pub samples: usize,
    /// How many answers [`Engine::samples`](crate::Engine::samples) draws to return the best; `None` for as many as it
    /// returns. The best has the highest log-probability per token, `</s>` included.
    pub best_of: Option<usize>,
    /// What the decoder starts with: names of special tokens, or plain text. It is not part of the answer.
    pub prefix: Vec<String>,
    /// Texts that end the answer where they would appear; they are not part of it.
    pub stop: Vec<String>,
    /// Whether special tokens that the model writes are shown by their names.
    pub show_special: bool,
    /// With each token, how many of the likeliest ones come along, with their log-probabilities; at most 20. Not with
    /// beams.
    pub top_log_probabilities: usize,
    /// What form the answer must have. It goes with one beam and no stop strings.
    pub constraint: Option<Constraint>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            max_new_tokens: 32,
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            seed: None,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            no_repeat_ngram_size: 0,
            sequence_bias: Vec::new(),
            bad_words_ids: Vec::new(),
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            forced_bos_token_id: None,
            forced_eos_token_id: Vec::new(),
            exponential_decay_length_penalty: None,
            min_new_tokens: 0,
            beams: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::WhenNoBetter,
            answers: 1,
            samples: 1,
            best_of: None,
            prefix: Vec::new(),
            stop: Vec::new(),
            show_special: false,
            top_log_probabilities: 0,
            constraint: None,
        }
    }
}

impl SamplingParams {
    pub(crate) fn check(&self) -> Result<(), RequestError> {
        let wrong = |name, found: String, expected| {
            Err(RequestError::Parameter {
                name,
                found,
                expected,
            })
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong(
                "temperature",
                self.temperature.to_string(),
                "a finite number of at least 0",
            );
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top_p", self.top_p.to_string(), "a number above 0 and at most 1");
        }
        if self.top_k == Some(0) {
            return wrong("top_k", "0".to_owned(), "at least 1, or none for all tokens");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            let expected = "a finite number above 0";
            return wrong(
                "repetition_penalty",
                self.repetition_penalty.to_string(),
                expected,
            );
        }
        if !self.length_penalty.is_finite() {
            return wrong(
                "length_penalty",
                self.length_penalty.to_string(),
                "a finite number",
            );
        }
        if self.beams == 0 || self.beams > MAX_BEAMS {
            return wrong("beams", self.beams.to_string(), "1 to 64");
        }
        if self.beams > 1 && self.temperature > 0.0 {
            let expected = "0 where there are several beams";
            return wrong("temperature", self.temperature.to_string(), expected);
        }
        if self.answers == 0 || self.answers > self.beams {
            return wrong("answers", self.answers.to_string(), "1 to the number of beams");
        }
        if self.min_new_tokens > self.max_new_tokens {
            return wrong(
                "min_new_tokens",
                self.min_new_tokens.to_string(),
                "at most max_new_tokens",
            );
        }
        if self.stop.len() > MAX_STOPS {
            return wrong(
                "stop",
                format!("{} strings", self.stop.len()),
                "at most 16 strings",
            );
        }
        if let Some(stop) = self
            .stop
            .iter()
            .find(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES)
        {
            return wrong(
                "stop",
                format!("a string of {} bytes", stop.len()),
                "strings of 1 to 256 bytes",
            );
        }
        self.check_truncation()?;
        self.check_penalties()?;
        self.check_sequences()?;
        self.check_drawn()?;
        self.check_alternatives()
    }
}

/// A request that has been checked and tokenized.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The encoder's text, `</s>` included.
    pub(crate) tokens: Vec<TokenId>,
    /// The pictures, in the order in which the prompt shows them.
    pub(crate) images: Vec<ProcessedImage>,
    /// What the decoder reads first: the start token and the forced prefix.
    pub(crate) start: Vec<TokenId>,
    pub(crate) sampling: SamplingParams,
    pub(crate) priority: i32,
    pub(crate) timeout: Option<Duration>,
    /// What tells the pictures from all others, once it was asked for.
    pub(crate) pictures: Option<Digest>,
    /// The compiled constraint, where the answer is to be written.
    pub(crate) constraint: Option<Arc<Compiled>>,
}

impl Prepared {
    /// Checks everything that does not depend on what the request is for.
    pub(crate) fn new(
        request: Request,
        tokenizer: &Tokenizer,
        config: &ModelConfig,
        decoder_start: TokenId,
    ) -> Result<Self, RequestError> {
        request.sampling.check()?;
        request
            .sampling
            .check_token_ids(tokenizer.vocab_size(), config.vocab_size)?;
        let images = images(&request, config)?;
        let bytes: usize = request.prompt.parts.iter().map(text_bytes).sum();
        if bytes > MAX_TEXT_BYTES {
            return Err(RequestError::PromptTooLarge {
                found: bytes,
                limit: MAX_TEXT_BYTES,
            });
        }
        let tokens = tokenizer.encode_prompt(&request.prompt)?;
        if config.writing_mask().is_some() && !tokens.is_empty() {
            return Err(RequestError::TextNotTaken);
        }
        // Every text ends in `</s>`.
        if tokens.len() < 2 && images.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        if tokens.len() > config.max_text_length {
            return Err(RequestError::PromptTooLong {
                found: tokens.len(),
                limit: config.max_text_length,
            });
        }
        let mut start = vec![decoder_start];
        for entry in &request.sampling.prefix {
            if multiway_prompts::is_special_form(entry) || tokenizer.special(entry).is_some() {
                start.push(tokenizer.require_special(entry)?);
            } else {
                let mut tokens = tokenizer.encode_text(entry)?;
                start.append(&mut tokens);
            }
        }
        Ok(Self {
            tokens,
            images,
            start,
            sampling: request.sampling,
            priority: request.priority,
            timeout: request.timeout,
            pictures: None,
            constraint: None,
        })
    }

    /// Checks that the answer fits into what the model can write.
    ///
    /// The decoder reads the start token, the prefix and all new tokens but the last.
    pub(crate) fn check_new_tokens(&self, config: &ModelConfig) -> Result<(), RequestError> {
        let (found, max_target_length) = (self.sampling.max_new_tokens, config.max_target_length);
        let prefix = self.start.len() - 1;
        let limit = max_target_length.saturating_sub(prefix);
        if found == 0 || found > limit {
            return Err(RequestError::MaxNewTokens {
                found,
                limit,
                max_target_length,
                prefix,
            });
        }
        Ok(())
    }

    /// Tokenizes candidates: the prefix, the candidate, and `</s>`, without the start token.
    pub(crate) fn targets(
        &self,
        candidates: &[String],
        tokenizer: &Tokenizer,
        config: &ModelConfig,
    ) -> Result<Vec<Vec<TokenId>>, RequestError> {
        if candidates.is_empty() || candidates.len() > MAX_CANDIDATES {
            return Err(RequestError::Candidates {
                found: candidates.len(),
                limit: MAX_CANDIDATES,
            });
        }
        let limit = config.max_target_length;
        let prefix = self.start.get(1..).unwrap_or_default();
        let target = |(index, candidate): (usize, &String)| {
            if candidate.len() > MAX_TEXT_BYTES {
                return Err(RequestError::PromptTooLarge {
                    found: candidate.len(),
                    limit: MAX_TEXT_BYTES,
                });
            }
            let mut target = prefix.to_vec();
            let mut tokens = tokenizer.encode_text(candidate)?;
            target.append(&mut tokens);
            target.push(config.eos_token_id);
            if target.len() > limit {
                return Err(RequestError::CandidateTooLong {
                    index,
                    found: target.len(),
                    limit,
                });
            }
            Ok(target)
        };
        candidates.iter().enumerate().map(target).collect()
    }

    /// Counts the rows that the encoder will see, class rows included.
    pub(crate) fn encoder_rows(&self, config: &ModelConfig) -> usize {
        self.tokens.len() + self.images.len() * (config.patches() + 1)
    }
}

fn text_bytes(part: &PromptPart) -> usize {
    match part {
        PromptPart::Text(text) | PromptPart::Special(text) => text.len(),
        PromptPart::Image(_) => 0,
    }
}

/// Puts the pictures into the order in which the prompt shows them.
fn images(request: &Request, config: &ModelConfig) -> Result<Vec<ProcessedImage>, RequestError> {
    let shown: Vec<usize> = request.prompt.images().collect();
    if shown.len() > config.max_images() {
        return Err(RequestError::TooManyImages {
            found: shown.len(),
            limit: config.max_images(),
        });
    }
    if let Some(index) = (0..request.images.len()).find(|index| !shown.contains(index)) {
        return Err(RequestError::UnusedImage { index });
    }
    let expected = config.image_values();
    let image = |index: usize| {
        let images = request.images.len();
        let image = request
            .images
            .get(index)
            .ok_or(RequestError::MissingImage { index, images })?;
        let found = image.pixels().len();
        if found != expected {
            return Err(RequestError::ForeignImage {
                index,
                found,
                expected,
            });
        }
        Ok(image.clone())
    };
    shown.into_iter().map(image).collect()
}
