//! Explaining answers: the calls of a handle.

use super::Engine;
use super::pending::Pending;
use super::prepared::PreparedRequest;
use super::readout::{Readout, ReadoutValue};
use crate::answer::Answered;
use crate::error::{NOT_FINITE, RequestError};
use crate::explanation::{AnswerTokens, ExplainedAnswer, ExplainedPrompt, Explanation};
use crate::request::Request;
use crate::tokenizer::{TokenId, TokenWord};

impl Engine {
    /// Explains an answer to a prompt about pictures: where cross-attention looked for each word of the
    /// answer, and which words of the prompt go with which patches.
    ///
    /// The answer is read again in one pass beside running requests, after the prompt is encoded; of the
    /// sampling parameters only `prefix` is used. A model without cross-attention gives the alignment alone.
    ///
    /// # Errors
    /// [`RequestError::NothingToExplain`] and [`RequestError::ExplainedLayer`] if there is no picture,
    /// neither answer nor text, or no such layer; [`RequestError::CandidateTooLong`] if the answer is longer
    /// than the model writes; else as [`embed`](Self::embed).
    ///
    /// # Examples
    ///
    /// ```
    /// # let engine = multiway_runtime::testing::tiny_engine()?;
    /// use multiway_model::ProcessedImage;
    /// use multiway_prompts::{Prompt, PromptPart};
    /// use multiway_runtime::{ExplainedAnswer, Request};
    ///
    /// let side = engine.config().image_size();
    /// let image = ProcessedImage::from_pixels(vec![0.5; 3 * side * side]);
    /// let mut prompt: Prompt = [PromptPart::Image(0)].into_iter().collect();
    /// prompt.push(PromptPart::Text("what is it?".to_owned()));
    /// let request = Request::new(prompt, vec![image]);
    /// let tokens = engine.tokenizer().encode_text("a cat")?;
    ///
    /// let answer = ExplainedAnswer { tokens, ..ExplainedAnswer::default() };
    /// let explanation = engine.explain(request, answer).wait_blocking()?.value;
    /// let cat = &explanation.answer[1];
    /// assert_eq!(cat.text, "cat");
    /// let shares = cat.picture_share() + cat.class_share + cat.text_share;
    /// assert!((shares - 1.0).abs() < 1e-4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn explain(&self, request: Request, answer: ExplainedAnswer) -> Pending<'_, Explanation> {
        Pending::new(async move {
            let (call, ()) = self.call(request, || self.check_layer(answer.layer))?;
            let config = self.config();
            let prompt = ExplainedPrompt {
                grid: config.grid(),
                pictures: call.prepared.images.len(),
            };
            let text = self.tokenizer().words(&call.prepared.tokens);
            let attends = config.decoder.is_some() && !answer.tokens.is_empty();
            prompt.check(attends, &text)?;
            let words = self.answer_words(&answer.tokens);
            let readout = Readout::Explanation(self.answer_tokens(&call.prepared, &answer)?);
            let explained = call.read_out(readout, ReadoutValue::explanation).await?;
            let Answered {
                value,
                usage,
                timings,
                ..
            } = explained;
            let value = value.of_words(prompt, words, text).ok_or_else(not_finite)?;
            Ok(Answered::new(value, usage, timings))
        })
    }

    /// Groups an answer into words, without the tokens that end it.
    fn answer_words(&self, tokens: &[TokenId]) -> Vec<TokenWord> {
        let ends = &self.shared.generation.ends;
        let is_end = |index: usize| tokens.get(index).is_some_and(|id| ends.contains(*id));
        let words = self.tokenizer().words(tokens).into_iter();
        words.filter(|word| !is_end(word.tokens.start)).collect()
    }

    /// Puts an answer behind what the decoder reads before it.
    fn answer_tokens(
        &self,
        prepared: &PreparedRequest,
        answer: &ExplainedAnswer,
    ) -> Result<AnswerTokens, RequestError> {
        let tokens = [prepared.start.as_slice(), &answer.tokens].concat();
        // The start token is not written, and the last one not read.
        let (found, limit) = (tokens.len() - 1, self.config().max_target_length);
        if found > limit && !answer.tokens.is_empty() {
            let index = 0;
            return Err(RequestError::CandidateTooLong { index, found, limit });
        }
        Ok(AnswerTokens {
            before: prepared.start.len(),
            tokens,
            layer: answer.layer,
            vocabulary: self.tokenizer().vocab_size(),
        })
    }

    fn check_layer(&self, layer: Option<usize>) -> Result<(), RequestError> {
        let layers = self.config().decoder.map_or(0, |decoder| decoder.layers);
        match layer {
            Some(found) if found >= layers => Err(RequestError::ExplainedLayer { found, layers }),
            _ => Ok(()),
        }
    }
}

fn not_finite() -> RequestError {
    let cause = NOT_FINITE.to_owned();
    RequestError::Failed { cause }
}
