//! The interface between the engine's loop and a request that decodes.

use std::fmt::Debug;

use super::logits_row::LogitsRow;
use crate::answer::{Timings, Usage};
use crate::error::RequestError;
use crate::tokenizer::TokenId;

/// Decodes the answers to one request in one or more rows of the batch.
pub(crate) trait Decode: Debug + Send {
    /// Assigns the cache slots that the scheduler reserved: as many as there are rows at most.
    fn start(&mut self, slots: Vec<usize>);

    /// Returns whether the caller has gone.
    fn is_cancelled(&self) -> bool;

    /// Adds the rows of the next step.
    fn push_rows(&self, rows: &mut Vec<StepRow>);

    /// Returns the `k` of the top-k logits that the step has to find for each row, beside the log-sum-exp;
    /// none where the logits are processed first, or not used.
    fn top_logits(&self) -> Option<usize>;

    /// Chooses the next tokens by the logits of the rows, in their order.
    ///
    /// # Errors
    /// The logits are not finite, or ban every token; the caller then [fails](Self::fail) the request.
    fn consume_logits(&mut self, rows: &[LogitsRow<'_>]) -> Result<StepOutcome, String>;

    /// Sends the answers that the last step completed, if any.
    fn send_completed(&mut self, usage: Usage, timings: Timings);

    /// Returns whether all answers are complete.
    fn is_done(&self) -> bool;

    /// Ends all answers that are not complete with an error.
    fn fail(&mut self, error: RequestError);
}

/// A row of the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepRow {
    /// The decoder's input.
    pub(crate) token: TokenId,
    /// The cache slot that it extends.
    pub(crate) slot: usize,
}

/// What a request chose in a step, and what the KV cache needs for it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StepOutcome {
    /// How many tokens were chosen.
    pub(crate) written: usize,
    /// Cache slots to copy, from and to, before any is cleared.
    pub(crate) copies: Vec<(usize, usize)>,
    /// Cache slots to clear.
    pub(crate) clears: Vec<usize>,
}
