//! Cutting normalised text into the most likely pieces, with the same ids as SentencePiece, ties included.
//!
//! Source: <https://github.com/google/sentencepiece>, `Model::EncodeOptimized` in `src/unigram_model.cc`. Scores are
//! summed over the whole text in 32 bits there, and rounding decides between equally likely cuts (`aa a` or `a aa`);
//! the `tokenizers` crate sums in 64 bits, word by word, and cuts such text differently. Hence this module.

use super::normalizer::Normalizer;
use super::trie::Trie;
use super::vocabulary::{PieceKind, Vocabulary};
use super::{LeadingSpace, TokenId, leading_space};

/// How much less likely than the rarest piece an unknown character is.
const UNKNOWN_PENALTY: f32 = 10.0;

/// A unigram language model over pieces, and the normaliser that goes before it.
#[derive(Debug)]
pub(crate) struct Unigram {
    normalizer: Normalizer,
    trie: Trie,
    unknown_score: f32,
    /// The highest score; user-defined pieces are worth this for each byte.
    max_score: f32,
}

/// The best way to cut the text up to some place: its score and its last piece.
#[derive(Clone, Copy)]
struct Best {
    score: f32,
    start: usize,
    /// Nothing for a character that no piece covers.
    id: Option<TokenId>,
}

impl Unigram {
    /// Builds the model; the vocabulary's special, byte and unused pieces cannot be reached by text.
    pub(crate) fn new(vocabulary: &Vocabulary, mut normalizer: Normalizer) -> Self {
        let of_kind = |wanted: PieceKind| {
            let pieces = (0..)
                .zip(vocabulary.pieces())
                .filter(move |(_, piece)| piece.kind == wanted);
            pieces.map(|(id, piece)| (piece.text.as_bytes(), id))
        };
        normalizer.verbatim = Trie::new(of_kind(PieceKind::UserDefined));
        let trie = Trie::new(of_kind(PieceKind::Normal).chain(of_kind(PieceKind::UserDefined)));
        let normal = vocabulary
            .pieces()
            .iter()
            .filter(|piece| piece.kind == PieceKind::Normal);
        let (min, max) = normal.fold((f32::MAX, f32::MIN_POSITIVE), |(min, max), piece| {
            (min.min(piece.score), max.max(piece.score))
        });
        Self {
            normalizer,
            trie,
            unknown_score: min - UNKNOWN_PENALTY,
            max_score: max,
        }
    }

    /// Says which spaces at the start of decoded text are the normaliser's.
    pub(crate) fn leading_space(&self) -> LeadingSpace {
        leading_space(
            self.normalizer.remove_extra_whitespaces,
            self.normalizer.add_dummy_prefix,
        )
    }

    /// Cuts a text into ids.
    pub(crate) fn encode(&self, vocabulary: &Vocabulary, text: &str) -> Vec<TokenId> {
        let normalized = self.normalizer.normalize(text);
        let mut cuts = Vec::new();
        let best = self.best(vocabulary, &normalized);
        let mut end = normalized.len();
        while let Some(Some(last)) = best.get(end).filter(|_| end > 0) {
            cuts.push((last.id, last.start..end));
            end = last.start;
        }
        let mut ids = Vec::with_capacity(cuts.len());
        let mut after_unknown = false;
        for (id, range) in cuts.into_iter().rev() {
            let unknown = id.is_none();
            match id {
                Some(id) => ids.push(id),
                None => {
                    let bytes = normalized.as_bytes().get(range).unwrap_or_default();
                    vocabulary.push_unknown(bytes, after_unknown, &mut ids);
                }
            }
            after_unknown = unknown;
        }
        ids
    }

    /// Finds for every place in the text the best cut that ends there.
    fn best(&self, vocabulary: &Vocabulary, text: &str) -> Vec<Option<Best>> {
        let mut best: Vec<Option<Best>> = vec![None; text.len() + 1];
        for (start, first) in text.char_indices() {
            let until_here = best.get(start).copied().flatten().map_or(0.0, |b| b.score);
            let mut single = false;
            let rest = text.as_bytes().get(start..).unwrap_or_default();
            for (length, id) in self.trie.prefixes(rest) {
                let score = self.score(vocabulary, id, length) + f64::from(until_here);
                offer(&mut best, start + length, score, start, Some(id));
                single |= length == first.len_utf8();
            }
            if !single {
                let score = f64::from(self.unknown_score + until_here);
                offer(&mut best, start + first.len_utf8(), score, start, None);
            }
        }
        best
    }

    fn score(&self, vocabulary: &Vocabulary, id: TokenId, length: usize) -> f64 {
        match vocabulary.get(id) {
            Some(piece) if piece.kind == PieceKind::UserDefined => {
                // A piece's length is far below 2^24, where 32-bit floats stop being exact.
                let length = u16::try_from(length).map_or(f32::MAX, f32::from);
                f64::from(length * self.max_score) - 0.1
            }
            Some(piece) => f64::from(piece.score),
            None => f64::NEG_INFINITY,
        }
    }
}

/// Keeps a cut if it is better than the one found before.
#[expect(
    clippy::cast_possible_truncation,
    reason = "SentencePiece compares in 64 bits and stores 32"
)]
fn offer(best: &mut [Option<Best>], end: usize, score: f64, start: usize, id: Option<TokenId>) {
    if let Some(place) = best.get_mut(end)
        && place.is_none_or(|old| score > f64::from(old.score))
    {
        *place = Some(Best {
            score: score as f32,
            start,
            id,
        });
    }
}
