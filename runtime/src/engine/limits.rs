//! How much an engine holds at a time: what a budget in bytes makes of the model's sizes.

use multiway_model::{KvCache, Model, ModelConfig};

use crate::constraint::ANSWER_BYTES;
use crate::error::{EngineError, RequestError};
use crate::scheduler::Resources;

/// The least that an engine must hold to be of use: a prompt of so many encoder rows, or the longest that the model takes.
const USUAL_PROMPT: usize = 512;
/// Likewise for the tokens of an answer.
const USUAL_ANSWER: usize = 64;

/// What one replica can hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) capacity: Resources,
    /// Bytes that an encoder row takes which decoding attends to.
    memory_row_bytes: usize,
    /// Bytes that a token takes which was decoded.
    cache_token_bytes: usize,
}

impl Limits {
    /// Divides a budget: up to an eighth goes to following constraints, a sixteenth to [those that are kept](constraint_cache_bytes);
    /// of the rest up to half to what is written, and what is left to what was read. None gets more than `max_batch` of the
    /// longest requests could use.
    pub(super) fn new(model: &Model, max_batch: usize, memory_budget: usize) -> Result<Self, EngineError> {
        let config = model.config();
        if !config.writes_text() {
            let capacity = Resources {
                slots: max_batch,
                ..Resources::default()
            };
            return Ok(Self {
                capacity,
                memory_row_bytes: 0,
                cache_token_bytes: 0,
            });
        }
        let (row, token) = (model.memory_row_bytes(), model.cache_token_bytes());
        let longest = whole_blocks(config.max_target_length);
        let constraint_bytes = (max_batch * ANSWER_BYTES).min(memory_budget / 8);
        let tensors = memory_budget - constraint_bytes - constraint_cache_bytes(memory_budget);
        let written = (max_batch * longest).min(tensors / 2 / token.max(1));
        let self_tokens = written / KvCache::BLOCK * KvCache::BLOCK;
        let left = tensors.saturating_sub(self_tokens * token);
        let memory_tokens = (max_batch * longest_prompt(config)).min(left / row.max(1));
        let (prompt, answer) = (
            longest_prompt(config).min(USUAL_PROMPT),
            longest.min(USUAL_ANSWER),
        );
        if self_tokens < answer || memory_tokens < prompt {
            return Err(EngineError::MemoryBudget {
                found: memory_budget,
                // Thirteen sixteenths are left at least.
                needed: (2 * (answer * token).max(prompt * row) * 16).div_ceil(13) + 16,
            });
        }
        Ok(Self {
            capacity: Resources {
                slots: max_batch,
                memory_tokens,
                self_tokens,
                constraint_bytes,
            },
            memory_row_bytes: row,
            cache_token_bytes: token,
        })
    }

    /// Rounds tokens up to what the cache gives out.
    pub(super) fn whole_blocks(&self, tokens: usize) -> usize {
        whole_blocks(tokens)
    }

    /// Tells how many bytes some resources take.
    pub(super) fn bytes(&self, resources: &Resources) -> usize {
        let tensors =
            resources.memory_tokens * self.memory_row_bytes + resources.self_tokens * self.cache_token_bytes;
        tensors + resources.constraint_bytes
    }

    /// Refuses what would wait for ever.
    pub(super) fn check(&self, resources: &Resources) -> Result<(), RequestError> {
        if self.capacity.hold(resources) {
            return Ok(());
        }
        let reads = resources.memory_tokens > self.capacity.memory_tokens;
        let bytes = |resources: &Resources| {
            if reads {
                resources.memory_tokens * self.memory_row_bytes
            } else {
                resources.self_tokens * self.cache_token_bytes
            }
        };
        Err(RequestError::TooLarge {
            what: if reads { "reads" } else { "writes" },
            found: bytes(resources),
            limit: bytes(&self.capacity),
        })
    }

    /// Counts the rows of so many tokens each that fit at a time.
    pub(super) fn rows_that_fit(&self, tokens: usize) -> usize {
        self.capacity.self_tokens / whole_blocks(tokens).max(1)
    }
}

/// Tells how many bytes of a budget go to compiled constraints that are kept for further answers.
pub(super) fn constraint_cache_bytes(memory_budget: usize) -> usize {
    memory_budget / 16
}

fn whole_blocks(tokens: usize) -> usize {
    tokens.div_ceil(KvCache::BLOCK) * KvCache::BLOCK
}

/// Counts the encoder rows of the longest prompt.
fn longest_prompt(config: &ModelConfig) -> usize {
    config.max_text_length + config.max_images() * (config.patches() + 1)
}
