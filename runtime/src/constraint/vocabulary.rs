//! The vocabulary as bytes: what each token adds to the shown text.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::api::ParserLimits;
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

use super::language::ByteSet;
use crate::eos::EosTokens;
use crate::tokenizer::{TokenId, TokenText, Tokenizer};

/// The longest token that is allowed under a constraint; longer ones are runs of spaces or the like.
const MAX_TOKEN_BYTES: usize = 128;

/// The most states of a lexer.
pub(super) const MAX_LEXER_STATES: usize = 50_000;

/// Limits of grammars: what one may cost to compile, and a step to compute.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 1000,
        initial_lexer_fuel: 300_000,
        step_lexer_fuel: 100_000,
        step_max_items: 20_000,
        max_lexer_states: MAX_LEXER_STATES,
        max_grammar_size: 50_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}

/// A trie of the vocabulary's bytes, built once for all requests of an engine.
pub(super) struct Vocabulary {
    environment: TokEnv,
    factory: ParserFactory,
    leading_space: bool,
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary").finish_non_exhaustive()
    }
}

impl Vocabulary {
    /// Spells every token of a tokenizer.
    ///
    /// # Errors
    /// What the grammar library says; for a vocabulary that was loaded there is no known reason.
    pub(super) fn new(tokenizer: &Tokenizer, ends: &EosTokens) -> Result<Self, String> {
        if !tokenizer.spells_bytes() {
            return Err("the decoder of tokenizer.json joins tokens in a way of its own, so that no answer can be held to a form".to_owned());
        }
        let count = TokenId::try_from(tokenizer.vocab_size()).map_err(|error| error.to_string())?;
        let info = TokRxInfo::new(count, ends.first());
        let leading_space = tokenizer.drops_leading_space();
        let words: Vec<Vec<u8>> = spellings(tokenizer, count);
        let ends: Vec<TokenId> = ends.iter().filter(|id| *id < count).collect();
        if ends.is_empty() {
            return Err("the vocabulary has no token that ends an answer".to_owned());
        }
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        // The model chooses the tokens of forced text.
        let capabilities = InferenceCapabilities {
            ff_tokens: false,
            backtrack: false,
            ..InferenceCapabilities::default()
        };
        let slices = llguidance::earley::SlicedBiasComputer::json_slices();
        let mut factory =
            ParserFactory::new(&environment, capabilities, &slices).map_err(|error| error.to_string())?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self {
            environment,
            factory,
            leading_space,
        })
    }

    pub(super) fn factory(&self) -> &ParserFactory {
        &self.factory
    }

    /// Returns whether a leading space is dropped.
    pub(super) fn drops_leading_space(&self) -> bool {
        self.leading_space
    }

    /// Lists the bytes that are tokens.
    pub(super) fn single_bytes(&self) -> ByteSet {
        let trie = self.environment.tok_trie();
        let mut set = ByteSet::default();
        for byte in (0..u8::MAX).filter(|byte| trie.token_id_at_bytes(&[*byte]).is_some()) {
            set.insert(byte, byte);
        }
        set
    }

    /// Returns the bytes of a token; empty for a special token.
    pub(super) fn bytes(&self, id: TokenId) -> &[u8] {
        let trie = self.environment.tok_trie();
        let known = (id as usize) < trie.vocab_size() && !trie.is_special_token(id);
        if known { trie.token(id) } else { &[] }
    }

    /// Tokenizes a text into as few tokens as possible.
    ///
    /// # Errors
    /// The first character that no token spells.
    pub(super) fn cut(&self, text: &[u8]) -> Result<Vec<TokenId>, String> {
        let trie = self.environment.tok_trie();
        // For each place, how many tokens lead there, and the last of them.
        let mut best: Vec<Option<(usize, TokenId, usize)>> = vec![None; text.len() + 1];
        let mut reached = 0;
        for start in 0..text.len() {
            let count = match (start, best.get(start).copied().flatten()) {
                (0, _) => 0,
                (_, Some((count, ..))) => count,
                _ => continue,
            };
            reached = start;
            let mut node = trie.root();
            for (offset, byte) in text.iter().skip(start).enumerate() {
                let Some(next) = trie.child_at_byte(node, *byte) else {
                    break;
                };
                node = next;
                let Some(id) = node.token_id() else { continue };
                if let Some(place) = best.get_mut(start + offset + 1)
                    && place.is_none_or(|(known, ..)| count + 1 < known)
                {
                    *place = Some((count + 1, id, start));
                }
            }
        }
        let mut tokens = Vec::new();
        let mut end = text.len();
        while end > 0 {
            let Some((_, id, start)) = best.get(end).copied().flatten() else {
                return Err(character_at(text, reached));
            };
            tokens.push(id);
            end = start;
        }
        tokens.reverse();
        Ok(tokens)
    }
}

fn character_at(text: &[u8], place: usize) -> String {
    let rest = String::from_utf8_lossy(text.get(place..).unwrap_or_default()).into_owned();
    rest.chars().next().map(String::from).unwrap_or_default()
}

/// Spells all tokens; a spelling that may not be written is empty.
fn spellings(tokenizer: &Tokenizer, count: TokenId) -> Vec<Vec<u8>> {
    let spelling = |id| match tokenizer.token_text(id) {
        Some(TokenText::Special(name)) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat(),
        // A byte that no UTF-8 has marks special tokens.
        Some(TokenText::Bytes(bytes)) if bytes.len() <= MAX_TOKEN_BYTES && !bytes.contains(&0xff) => bytes,
        _ => Vec::new(),
    };
    let mut words: Vec<Vec<u8>> = (0..count).map(spelling).collect();
    // A byte piece is for bytes that nothing else spells. One that is a space would be shown where a leading
    // space is not.
    let mut spelt = [false; 256];
    for (id, word) in (0..count).zip(&words) {
        if let ([byte], false) = (word.as_slice(), tokenizer.is_byte(id))
            && let Some(spelt) = spelt.get_mut(usize::from(*byte))
        {
            *spelt = true;
        }
    }
    if tokenizer.drops_leading_space() {
        spelt[usize::from(b' ')] = true;
    }
    for (id, word) in (0..count).zip(&mut words) {
        if let [byte] = word.as_slice()
            && tokenizer.is_byte(id)
            && spelt.get(usize::from(*byte)) == Some(&true)
        {
            word.clear();
        }
    }
    words
}
