//! The tokens that end an answer.

use std::sync::Arc;

use crate::tokenizer::TokenId;

/// The tokens that end an answer. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EosTokens(Arc<[TokenId]>);

impl EosTokens {
    /// Takes tokens, of which there is at least one.
    pub(crate) fn new(ids: Vec<TokenId>) -> Self {
        Self(ids.into())
    }

    /// One token.
    pub(crate) fn one(id: TokenId) -> Self {
        Self(Arc::new([id]))
    }

    pub(crate) fn contains(&self, id: TokenId) -> bool {
        self.0.contains(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = TokenId> {
        self.0.iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The token that is written where an answer is cut off.
    pub(crate) fn first(&self) -> TokenId {
        self.0.first().copied().unwrap_or_default()
    }
}
