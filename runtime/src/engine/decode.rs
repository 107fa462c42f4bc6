//! What the engine's thread asks of a request whose answer is decoded.

use std::fmt::Debug;

use super::logits_row::LogitsRow;
use crate::answer::{Timings, Usage};
use crate::error::RequestError;
use crate::tokenizer::TokenId;

/// Decodes the answers to one request, step by step, in one or more rows of the batch.
pub(crate) trait Decode: Debug + Send {
    /// Starts in the cache slots that the request was given, one for each row at most.
    fn start(&mut self, slots: Vec<usize>);

    /// Tells whether nobody waits for the answer any more.
    fn is_cancelled(&self) -> bool;

    /// Adds the rows of the next step.
    fn push_rows(&self, rows: &mut Vec<StepRow>);

    /// Tells how many of the highest logits of each row the next step has to find, beside their log-sum-exp; none where the
    /// logits are changed before they are compared, or not looked at.
    fn top_logits(&self) -> Option<usize>;

    /// Chooses the next tokens by the logits of the rows, in their order.
    ///
    /// # Errors
    /// What is wrong with the logits; then the request is to be [failed](Self::fail).
    fn consume_logits(&mut self, rows: &[LogitsRow<'_>]) -> Result<StepOutcome, String>;

    /// Sends the answers that the last step has completed, if any.
    fn send_completed(&mut self, usage: Usage, timings: Timings);

    /// Tells whether all answers are complete.
    fn is_done(&self) -> bool;

    /// Sends an error in place of all that was not sent yet.
    fn fail(&mut self, error: RequestError);
}

/// A row of the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepRow {
    /// What the decoder reads.
    pub(crate) token: TokenId,
    /// The cache slot that it goes on with.
    pub(crate) slot: usize,
}

/// What a request made of a step.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StepOutcome {
    /// How many tokens were written.
    pub(crate) written: usize,
    /// Cache slots to copy, from and to, before any is cleared.
    pub(crate) copies: Vec<(usize, usize)>,
    /// Cache slots to clear.
    pub(crate) clears: Vec<usize>,
}
