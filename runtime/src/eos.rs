//! EOS tokens: those that end an answer.

use std::sync::Arc;

use crate::tokenizer::TokenId;

/// The EOS tokens of a checkpoint; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EosTokens(Arc<[TokenId]>);

impl EosTokens {
    /// Takes at least one token.
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

    /// The token that ends an answer which is cut off.
    pub(crate) fn first(&self) -> TokenId {
        self.0.first().copied().unwrap_or_default()
    }
}
