//! A request that has been checked and tokenized.

use std::sync::Arc;
use std::time::Duration;

use multiway_model::{ModelConfig, ProcessedImage};
use multiway_prompts::PromptPart;

use super::digest::Digest;
use crate::constraint::Compiled;
use crate::error::RequestError;
use crate::request::{MAX_CANDIDATES, MAX_TEXT_BYTES, Request};
use crate::sampling_params::SamplingParams;
use crate::tokenizer::{TokenId, Tokenizer};

/// A request that has been checked and tokenized.
#[derive(Debug)]
pub(crate) struct PreparedRequest {
    /// The encoder's text tokens, including `</s>`.
    pub(crate) tokens: Vec<TokenId>,
    /// The pictures, in the order in which the prompt shows them.
    pub(crate) images: Vec<ProcessedImage>,
    /// What the decoder reads first: the start token and the forced prefix.
    pub(crate) start: Vec<TokenId>,
    pub(crate) sampling: SamplingParams,
    pub(crate) priority: i32,
    pub(crate) timeout: Option<Duration>,
    /// The hash of the pictures, if the reuse cache is on.
    pub(crate) pictures: Option<Digest>,
    /// The compiled constraint, if the answer is decoded under one.
    pub(crate) constraint: Option<Arc<Compiled>>,
}

impl PreparedRequest {
    /// Checks everything that all operations have in common.
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
        start.append(&mut tokenizer.encode_prefix(&request.sampling.prefix)?);
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

    /// Checks that `max_new_tokens` fits into the model's target length.
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

    /// Counts the most tokens that the decoder reads: the start tokens and all new tokens but the last.
    pub(super) fn longest_input(&self) -> usize {
        self.start.len() + self.sampling.max_new_tokens - 1
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

    /// Counts the encoder's rows, including class rows.
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
