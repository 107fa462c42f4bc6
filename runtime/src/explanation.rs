//! What a model looked at: attention and alignment, word by word.

use std::ops::Range;

use multiway_model::TransportPlan;
use serde::Serialize;

use crate::error::RequestError;
use crate::tokenizer::{TokenId, TokenWord};

/// The answer that is to be explained.
///
/// # Examples
///
/// ```
/// use multiway_runtime::ExplainedAnswer;
///
/// let answer = ExplainedAnswer { tokens: vec![5, 6, 1], ..ExplainedAnswer::default() };
/// assert_eq!(answer.layer, None); // the mean of all layers
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExplainedAnswer {
    /// The tokens that the model wrote, or may have written, without the forced prefix; none to align the
    /// prompt alone.
    pub tokens: Vec<TokenId>,
    /// The decoder layer whose cross-attention is shown, counted from 0; `None` for the mean of all.
    pub layer: Option<usize>,
}

/// What a model looked at when it read a prompt and wrote an answer.
///
/// Attention and alignment say where numbers came from, not why they are what they are: a patch that is
/// looked at need not decide the answer, and one that decides it may have been read through its neighbours.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// How many patches each picture has along one side; patches are counted row by row from the top left.
    pub grid: usize,
    /// How many pictures the prompt shows.
    pub pictures: usize,
    /// The words of the answer; empty where there is none, or the model has no cross-attention.
    pub answer: Vec<AttendedWord>,
    /// The log-probability of each token of the answer, from the same pass as the attention.
    pub log_probabilities: Vec<f32>,
    /// Which words of the prompt go with which patches; `None` where the prompt has no text.
    pub alignment: Option<WordPatchAlignment>,
}

/// Where cross-attention looked when the model wrote a word: the mean over the word's tokens and the heads of
/// all layers, or of one. All shares add up to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AttendedWord {
    /// The word.
    pub text: String,
    /// The share of each patch, for each picture.
    pub patches: Vec<Vec<f32>>,
    /// The share of the class rows of the pictures, which stand for no place.
    pub class_share: f32,
    /// The share of the prompt's text.
    pub text_share: f32,
}

impl AttendedWord {
    /// Returns the share of all patches of all pictures.
    #[must_use]
    pub fn picture_share(&self) -> f32 {
        self.patches.iter().flatten().sum()
    }
}

/// The word-patch alignment of a prompt: optimal transport between its words and the patches of its pictures,
/// over the cosine distances of the encoder's output.
///
/// Source: word-region alignment of UNITER (Chen et al. 2020, arXiv 1909.11740, section 3.2), word-patch
/// alignment of ViLT (Kim et al. 2021, arXiv 2102.03334, section 3.2).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WordPatchAlignment {
    /// The mean cosine distance over which the plan transports.
    pub distance: f64,
    /// The words of the prompt, special tokens left out.
    pub words: Vec<AlignedWord>,
}

/// Where a word of the prompt goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AlignedWord {
    /// The word.
    pub text: String,
    /// The share of the word that goes to each patch, for each picture; all add up to 1.
    pub patches: Vec<Vec<f32>>,
}

/// The answer to explain, as the decoder reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AnswerTokens {
    /// The start token, the forced prefix, and the answer.
    pub(crate) tokens: Vec<TokenId>,
    /// How many of these come before the answer.
    pub(crate) before: usize,
    /// The decoder layer to show, or all.
    pub(crate) layer: Option<usize>,
    /// How many of the model's logits are in the tokenizer's vocabulary.
    pub(crate) vocabulary: usize,
}

/// The numbers of an explanation, by tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExplainedTokens {
    /// The attention that wrote each token of the answer, `[T][S]`.
    pub(crate) attention: Vec<Vec<f32>>,
    pub(crate) log_probabilities: Vec<f32>,
    /// Of each text row to each patch, `[n][m]`; for a model that reads pictures apart, one for each.
    pub(crate) distances: Vec<Vec<Vec<f32>>>,
}

/// The prompt of an explanation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExplainedPrompt {
    pub(crate) grid: usize,
    pub(crate) pictures: usize,
}

impl ExplainedTokens {
    pub(crate) fn bytes(&self) -> usize {
        let rows = self.attention.iter().chain(self.distances.iter().flatten());
        rows.map(|row| size_of_val(row.as_slice())).sum()
    }

    /// Joins tokens to words; none where a distance is not finite.
    pub(crate) fn of_words(
        self,
        prompt: ExplainedPrompt,
        answer: Vec<TokenWord>,
        text: Vec<TokenWord>,
    ) -> Option<Explanation> {
        let answer = answer
            .into_iter()
            .filter_map(|word| prompt.attended(word, &self.attention));
        Some(Explanation {
            grid: prompt.grid,
            pictures: prompt.pictures,
            answer: answer.collect(),
            log_probabilities: self.log_probabilities,
            alignment: align(prompt, text, &self.distances)?,
        })
    }
}

impl ExplainedPrompt {
    /// Checks that there is something to show on a picture: an answer that attends to it, or words.
    pub(crate) fn check(self, attends: bool, text: &[TokenWord]) -> Result<(), RequestError> {
        let problem = match (self.pictures, text.iter().any(|word| !word.is_special)) {
            (0, _) => "the prompt shows no image",
            (_, false) if !attends => {
                "the model has no cross-attention or the answer no tokens, and the prompt has no text to align with the \
                 image"
            }
            _ => return Ok(()),
        };
        Err(RequestError::NothingToExplain { problem })
    }

    /// Counts the patches of a picture.
    fn patches(self) -> usize {
        self.grid * self.grid
    }

    /// Takes the mean of a word's tokens, and tells pictures from class rows and text.
    fn attended(self, word: TokenWord, attention: &[Vec<f32>]) -> Option<AttendedWord> {
        let mean = mean(attention.get(word.tokens)?)?;
        let (pictures, text) = mean.split_at_checked(self.pictures * (self.patches() + 1))?;
        let rows = || pictures.chunks_exact(self.patches() + 1);
        Some(AttendedWord {
            text: word.text,
            patches: rows()
                .map(|rows| rows.iter().skip(1).copied().collect())
                .collect(),
            class_share: rows().filter_map(<[f32]>::first).sum(),
            text_share: text.iter().sum(),
        })
    }
}

/// Takes the mean of rows; none where there are none.
fn mean(rows: &[Vec<f32>]) -> Option<Vec<f32>> {
    let mut sum = rows.first()?.clone();
    for row in rows.iter().skip(1) {
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    let count = rows.len() as f32;
    Some(sum.into_iter().map(|sum| sum / count).collect())
}

/// Aligns the words that are no special tokens: `Some(None)` where there are none or no distances, and `None`
/// where a distance is not finite.
#[expect(clippy::option_option, reason = "the outer one is a failure")]
fn align(
    prompt: ExplainedPrompt,
    words: Vec<TokenWord>,
    distances: &[Vec<Vec<f32>>],
) -> Option<Option<WordPatchAlignment>> {
    let words: Vec<TokenWord> = words.into_iter().filter(|word| !word.is_special).collect();
    if words.is_empty() || distances.is_empty() {
        return Some(None);
    }
    let mut plans = Vec::with_capacity(distances.len());
    for distances in distances {
        let spoken = words.iter().filter_map(|word| distances.get(word.tokens.clone()));
        let spoken: Vec<Vec<f32>> = spoken.flatten().cloned().collect();
        plans.push(TransportPlan::new(&spoken)?);
    }
    let mut next = 0;
    let mut aligned = Vec::with_capacity(words.len());
    for word in words {
        let rows = next..next + word.tokens.len();
        next = rows.end;
        aligned.push(AlignedWord {
            text: word.text,
            patches: prompt.aligned(&plans, &rows),
        });
    }
    let count = plans.len() as f64;
    Some(Some(WordPatchAlignment {
        distance: plans.iter().map(TransportPlan::cost).sum::<f64>() / count,
        words: aligned,
    }))
}

impl ExplainedPrompt {
    /// Adds up what goes from some rows of the plans to each patch, as shares of these rows.
    fn aligned(self, plans: &[TransportPlan], rows: &Range<usize>) -> Vec<Vec<f32>> {
        let mut patches = Vec::new();
        let mut total = 0.0;
        for plan in plans {
            let rows = plan.rows().get(rows.clone()).unwrap_or_default();
            let columns = rows.first().map_or(0, Vec::len);
            let sum = |column: usize| rows.iter().filter_map(|row| row.get(column)).sum::<f64>();
            let sums: Vec<f64> = (0..columns).map(sum).collect();
            total += sums.iter().sum::<f64>();
            patches.extend(sums);
        }
        #[expect(clippy::cast_possible_truncation, reason = "shares are given out in 32 bits")]
        let share = |mass: &f64| (mass / total) as f32;
        let pictures = patches.chunks(self.patches().max(1));
        pictures
            .map(|picture| picture.iter().map(share).collect())
            .collect()
    }
}
