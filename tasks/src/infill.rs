//! Infilling: splits an answer `<extra_id_0> span <extra_id_1> span` into the spans of a text's gaps.

use multiway_prompts::{count_gaps, fill_gaps};
use multiway_runtime::{TokenId, Tokenizer};

use crate::answer::Answer;

/// The text of a gap that the answer leaves open.
const UNFILLED: &str = "___";

/// Holds a text whose gaps an answer fills.
#[derive(Debug, Clone)]
pub(crate) struct Gaps {
    original: String,
    /// The gap that the first generated token belongs to.
    first: Option<usize>,
}

impl Gaps {
    /// Creates the gaps of a text, for answers that start with the forced tokens of `prefix`.
    pub(crate) fn new(original: String, prefix: &[String]) -> Self {
        let first = prefix.last().and_then(|token| gap_of(token));
        Self { original, first }
    }

    /// Fills the gaps with the decoder's tokens. The first span of a gap counts; a gap without a span stays
    /// open.
    pub(crate) fn fill(&self, tokenizer: &Tokenizer, tokens: &[TokenId]) -> Answer {
        let cut = cut_spans(self.first, tokens, |token| gap_of(tokenizer.piece(token)?));
        let spans = (0..count_gaps(&self.original))
            .map(|gap| match cut.iter().find(|(found, _)| *found == gap) {
                Some((_, tokens)) => tokenizer.decode(tokens).trim().to_owned(),
                None => UNFILLED.to_owned(),
            })
            .collect::<Vec<_>>();
        Answer::Text {
            text: fill_gaps(&self.original, &spans),
            spans,
        }
    }
}

/// Parses the number of `<extra_id_N>`.
fn gap_of(token: &str) -> Option<usize> {
    token.strip_prefix("<extra_id_")?.strip_suffix('>')?.parse().ok()
}

/// Splits tokens at the sentinels that open gaps, and drops the tokens before the first one.
fn cut_spans(
    first: Option<usize>,
    tokens: &[TokenId],
    gap_of: impl Fn(TokenId) -> Option<usize>,
) -> Vec<(usize, Vec<TokenId>)> {
    let mut spans: Vec<(usize, Vec<TokenId>)> = first.map(|gap| (gap, Vec::new())).into_iter().collect();
    for token in tokens {
        match (gap_of(*token), spans.last_mut()) {
            (Some(gap), _) => spans.push((gap, Vec::new())),
            (None, Some((_, span))) => span.push(*token),
            (None, None) => {}
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sentinels are 90 and up: 90 opens gap 0.
    fn cut(first: Option<usize>, tokens: &[TokenId]) -> Vec<(usize, Vec<TokenId>)> {
        cut_spans(first, tokens, |token| {
            usize::try_from(token).ok()?.checked_sub(90)
        })
    }

    #[test]
    fn an_answer_is_split_at_its_sentinels() {
        assert_eq!(cut(Some(0), &[5, 6, 91, 7]), [(0, vec![5, 6]), (1, vec![7])]);
        assert_eq!(cut(None, &[4, 90, 5]), [(0, vec![5])]);
        assert_eq!(cut(None, &[]), []);
        assert_eq!(cut(Some(0), &[90, 5]), [(0, vec![]), (0, vec![5])]);
    }

    #[test]
    fn only_sentinels_open_gaps() {
        assert_eq!(gap_of("<extra_id_12>"), Some(12));
        assert_eq!(gap_of("</s>"), None);
        assert_eq!(gap_of("<extra_id_x>"), None);
    }
}
