//! Whole target texts, which the decoder reads at once.

use std::ops::Range;

use crate::error::ForwardError;

/// Whole target texts for training: each answers one sample of an encoded batch.
#[derive(Clone, Debug, Default)]
pub struct TargetBatch {
    pub(crate) tokens: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    /// The sample that each target answers, and its rows.
    pub(crate) targets: Vec<(usize, Range<usize>)>,
}

impl TargetBatch {
    /// Adds the decoder's input tokens (the start token first) for one sample; a sample may have several.
    pub fn push(&mut self, sample: usize, tokens: &[u32]) {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions
            .extend((0u32..).zip(tokens).map(|(position, _)| position));
        self.targets.push((sample, start..self.tokens.len()));
    }

    /// Counts the packed rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Checks that each target has a sample, and at most `limit` tokens.
    pub(crate) fn check(&self, limit: usize, samples: usize) -> Result<(), ForwardError> {
        if self.tokens.is_empty() {
            return Err(ForwardError::EmptyBatch);
        }
        for (sample, range) in &self.targets {
            if *sample >= samples {
                return Err(ForwardError::EmptySample { sample: *sample });
            }
            if range.len() > limit {
                let found = range.len();
                return Err(ForwardError::TextTooLong {
                    sample: *sample,
                    found,
                    limit,
                });
            }
        }
        Ok(())
    }
}
