//! A closed set of answers, as a trie of their tokens.

use std::collections::BTreeMap;

use crate::eos::EosTokens;
use crate::request::{MAX_CANDIDATES, MAX_TEXT_BYTES};
use crate::tokenizer::{TokenId, Tokenizer};

/// The bytes of a map's smallest piece, which has room for eleven entries.
const MAP_BYTES: usize = 11 * (size_of::<TokenId>() + size_of::<usize>()) + 32;

/// The tokens of all answers, with common prefixes shared.
#[derive(Debug)]
pub(super) struct ChoiceTrie {
    nodes: Vec<Node>,
    ends: EosTokens,
    /// The tokens of the longest answer, EOS included.
    longest: usize,
}

#[derive(Debug, Default)]
struct Node {
    next: BTreeMap<TokenId, usize>,
    is_end: bool,
}

impl ChoiceTrie {
    /// Tokenizes the answers.
    ///
    /// # Errors
    /// An answer cannot be tokenized, or there are too many.
    pub(super) fn new(choices: &[String], tokenizer: &Tokenizer, ends: &EosTokens) -> Result<Self, String> {
        if choices.is_empty() || choices.len() > MAX_CANDIDATES {
            return Err(format!(
                "{} answers, expected 1 to {MAX_CANDIDATES}",
                choices.len()
            ));
        }
        if choices.iter().map(String::len).sum::<usize>() > MAX_TEXT_BYTES {
            return Err(format!("more than {MAX_TEXT_BYTES} bytes of answers"));
        }
        let mut trie = Self {
            nodes: vec![Node::default()],
            ends: ends.clone(),
            longest: 0,
        };
        for choice in choices {
            let tokens = tokenizer.encode_text(choice).map_err(|error| error.to_string())?;
            let shown = tokenizer.decode_without_spaced_words(&tokens);
            if choice.is_empty() || shown != *choice {
                return Err(format!(
                    "the answer {choice:?} cannot be written: it would be shown as {shown:?}"
                ));
            }
            trie.insert(&tokens);
        }
        Ok(trie)
    }

    fn insert(&mut self, tokens: &[TokenId]) {
        let mut place = 0;
        for token in tokens {
            let fresh = self.nodes.len();
            let Some(node) = self.nodes.get_mut(place) else {
                return;
            };
            place = *node.next.entry(*token).or_insert(fresh);
            if place == fresh {
                self.nodes.push(Node::default());
            }
        }
        if let Some(node) = self.nodes.get_mut(place) {
            node.is_end = true;
        }
        self.longest = self.longest.max(tokens.len() + 1);
    }

    /// Estimates its bytes: of each node, and of the map of its children.
    pub(super) fn bytes(&self) -> usize {
        self.nodes.len() * (2 * size_of::<Node>() + MAP_BYTES)
    }

    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Lists the allowed tokens at a node: its children, and the EOS tokens where an answer is complete.
    pub(super) fn allowed(&self, place: usize) -> impl Iterator<Item = TokenId> {
        let node = self.nodes.get(place);
        let next = node.into_iter().flat_map(|node| node.next.keys().copied());
        let ends = node.filter(|node| node.is_end).map(|_| self.ends.iter());
        next.chain(ends.into_iter().flatten())
    }

    /// Returns the child of a token; EOS stays at the node.
    pub(super) fn step(&self, place: usize, token: TokenId) -> usize {
        let node = self.nodes.get(place);
        let next = node.and_then(|node| node.next.get(&token));
        next.copied().unwrap_or(place)
    }
}
