//! Capacity: how a budget in bytes is divided among slots, KV cache, memories and constraints.

use multiway_model::{KvCache, Model, ModelConfig};

use crate::constraint::ANSWER_BYTES;
use crate::error::{EngineError, RequestError};
use crate::scheduler::Resources;

/// The encoder rows that the smallest budget must hold, or those of the longest prompt if that is shorter.
const USUAL_PROMPT: usize = 512;
/// The new tokens that the smallest budget must hold, or the longest answer's.
const USUAL_ANSWER: usize = 64;

/// The capacity of one replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) capacity: Resources,
    /// Bytes of the keys and values of an encoder row.
    memory_row_bytes: usize,
    /// Bytes of the keys and values of a decoded token.
    cache_token_bytes: usize,
}

impl Limits {
    /// Divides a budget: up to an eighth goes to the constraints of running answers, a sixteenth to the
    /// [constraint cache](constraint_cache_bytes); of the rest, up to half to self-attention's keys and
    /// values, and what is left to cross-attention's. None gets more than `max_batch` requests of the longest
    /// kind could use.
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
                // At least 13/16 are left for tensors.
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

    /// Rounds tokens up to whole blocks of the KV cache.
    pub(super) fn whole_blocks(&self, tokens: usize) -> usize {
        whole_blocks(tokens)
    }

    /// Returns the bytes of some resources.
    pub(super) fn bytes(&self, resources: &Resources) -> usize {
        let tensors =
            resources.memory_tokens * self.memory_row_bytes + resources.self_tokens * self.cache_token_bytes;
        tensors + resources.constraint_bytes
    }

    /// Refuses a request that could never be admitted.
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

    /// Counts the rows of `tokens` tokens each that fit at a time.
    pub(super) fn rows_that_fit(&self, tokens: usize) -> usize {
        self.capacity.self_tokens / whole_blocks(tokens).max(1)
    }
}

/// Returns the share of a budget that the cache of compiled constraints gets.
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
