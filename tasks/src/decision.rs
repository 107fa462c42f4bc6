//! Decisions: questions with closed answers, each answered by the probability of every answer.
//!
//! A question becomes a task. The engine encodes its prompt once, and the decoder scores every answer as a
//! text that it could write there; the probabilities are the softmax of these log-likelihoods.

mod error;
mod question;
mod wording;

use multiway_model::{ModelConfig, ProcessedImage};
use multiway_prompts::{PromptError, TaskFile};
use multiway_runtime::{Engine, Request, Score, Usage};

use crate::inputs::{RequestTerms, TaskInputs};
use crate::task::Task;

pub use error::DecisionError;
pub use question::{AnswerScale, ClosedAnswer, ClosedQuestion};
use wording::Method;

/// Holds the answer to a question.
///
/// # Examples
///
/// ```
/// use multiway_runtime::Engine;
/// use multiway_tasks::{ClosedQuestion, RequestTerms, Task};
/// # let checkpoint = multiway_model::Checkpoint::open("../checkpoints/default")?;
///
/// let engine = Engine::builder(&checkpoint).build()?;
/// let task = Task::decision(checkpoint.config())?;
/// let question = ClosedQuestion::choice("which colour is it?", ["red", "blue"])?;
/// let decided = question.decide(&engine, &task, "It is blue.", Vec::new(), RequestTerms::default());
/// let decision = multiway_runtime::block_on(decided)?;
/// assert_eq!(decision.probabilities.len(), 2);
/// assert!((decision.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decision {
    /// The probability of each answer, in the question's order; they sum to 1.
    pub probabilities: Vec<f64>,
    /// The probability that the model gives any of the answers: low where it misses the question.
    pub label_mass: f64,
    /// Whether the task file calibrates the probabilities.
    pub is_calibrated: bool,
    /// The tokens and patches of the prompt, and the tokens of the most probable answer.
    pub usage: Usage,
}

impl Decision {
    /// Normalizes `shares`, whose total probability is `mass`.
    fn new(shares: &[f64], mass: f64, usage: Usage) -> Self {
        let sum: f64 = shares.iter().sum();
        let share = |share: &f64| {
            if sum > 0.0 {
                share / sum
            } else {
                // All answers are impossible: their probabilities are uniform.
                1.0 / shares.len() as f64
            }
        };
        Self {
            probabilities: shares.iter().map(share).collect(),
            label_mass: mass.clamp(0.0, 1.0),
            is_calibrated: false,
            usage,
        }
    }

    /// Returns the index of the most probable answer; the first one of a tie.
    pub fn best(&self) -> usize {
        let indexed = self.probabilities.iter().enumerate().rev();
        let best = indexed.max_by(|(_, a), (_, b)| a.total_cmp(b));
        best.map_or(0, |(index, _)| index)
    }

    /// Returns the mean index, weighted by the probabilities.
    pub fn expected(&self) -> f64 {
        let indexed = (0_u32..).zip(&self.probabilities);
        indexed
            .map(|(index, probability)| f64::from(index) * probability)
            .sum()
    }

    /// Returns how concentrated the probabilities are: 1 less their entropy, as a share of that of uniform
    /// ones.
    pub fn confidence(&self) -> f64 {
        let information = |probability: &f64| {
            if *probability > 0.0 {
                -probability * probability.ln()
            } else {
                0.0
            }
        };
        let entropy: f64 = self.probabilities.iter().map(information).sum();
        (1.0 - entropy / (self.probabilities.len() as f64).ln()).clamp(0.0, 1.0)
    }
}

impl Task {
    /// Creates the task that words a closed question as a model was trained to read questions. It takes
    /// pictures, a text that the question is about, the question, and its answers with their meanings.
    ///
    /// # Errors
    ///
    /// When its file is wrong, which a test excludes.
    pub fn decision(config: &ModelConfig) -> Result<Self, PromptError> {
        let file = wording::built_in(config);
        TaskFile::parse("plain decision", file.as_bytes()).map(Self::new)
    }
}

impl ClosedQuestion {
    /// Answers the question by a task: [`Task::decision`], or another one that ranks or scores answers.
    ///
    /// The question is about the text `state`, which may be empty, and about `images`.
    ///
    /// # Errors
    ///
    /// When the task cannot answer the question, and when it fails.
    pub async fn decide(
        &self,
        engine: &Engine,
        task: &Task,
        state: &str,
        images: Vec<ProcessedImage>,
        terms: RequestTerms,
    ) -> Result<Decision, DecisionError> {
        let method = wording::method(task)?;
        let mut inputs = wording::inputs(task, state, self)?.with_terms(terms);
        inputs.images = images;
        let answers = wording::answers(task, self);
        let mut decision = match method {
            Method::Ranked => rank(engine, task, &answers, inputs).await?,
            Method::Scored(target) => score(engine, task, target, answers, inputs).await?,
        };
        decision.is_calibrated = wording::calibration(task).is_some();
        Ok(decision)
    }
}

/// Reads the probabilities of answers from those that a task gives. Other answers of the task are left out.
async fn rank(
    engine: &Engine,
    task: &Task,
    answers: &[String],
    inputs: TaskInputs,
) -> Result<Decision, DecisionError> {
    let outcome = task.run(engine, &inputs)?.wait().await?;
    let choices = outcome.answer.choices();
    let share = |text: &String| {
        let choice = choices.iter().find(|choice| choice.text == *text);
        let probability = choice.map(|choice| choice.probability);
        probability.ok_or_else(|| DecisionError::NoSuchAnswer {
            task: task.name().to_owned(),
            answer: text.clone(),
        })
    };
    let shares = answers.iter().map(share).collect::<Result<Vec<f64>, _>>()?;
    let known: f64 = shares.iter().sum();
    // A head of classes gives one of its classes, and nothing else.
    let mass = known * outcome.candidate_mass.unwrap_or(1.0);
    Ok(Decision::new(&shares, mass, outcome.usage))
}

/// Scores each answer as the text that a task scores, its input `target`.
async fn score(
    engine: &Engine,
    task: &Task,
    target: &str,
    answers: Vec<String>,
    inputs: TaskInputs,
) -> Result<Decision, DecisionError> {
    let prepare = |text: &String| {
        let inputs = inputs.clone().with(target, text.as_str());
        task.prepare(engine.tokenizer(), &inputs)
    };
    let mut prepared = answers
        .iter()
        .take(2)
        .map(prepare)
        .collect::<Result<Vec<_>, _>>()?;
    let (Some(other), Some(prepared)) = (prepared.pop(), prepared.pop()) else {
        let (most, what) = (usize::MAX, "answers");
        return Err(DecisionError::AnswerCount {
            most,
            what,
            found: answers.len(),
        });
    };
    if prepared.prompt() != other.prompt() {
        let task = task.name().to_owned();
        return Err(DecisionError::ShowsTarget { task });
    }
    let mut request = Request::new(prepared.prompt().clone(), prepared.images().to_vec());
    request.sampling.prefix = prepared.prefix().to_vec();
    (request.priority, request.timeout) = (inputs.terms.priority, inputs.terms.timeout);
    let scored = engine.score(request, answers).await?;
    let log_probability = |score: &Score| f64::from(score.log_probability);
    let values: Vec<f64> = scored.value.iter().map(log_probability).collect();
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Likelihoods that underflow still have ratios.
    let shares: Vec<f64> = values.iter().map(|value| (value - most).exp()).collect();
    let mass = values.iter().map(|value| value.exp()).sum();
    let mut decision = Decision::new(&shares, mass, scored.usage);
    let best = scored.value.get(decision.best());
    decision.usage.new_tokens = best.map_or(0, |score| score.tokens.len());
    Ok(decision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(shares: &[f64]) -> Decision {
        Decision::new(shares, 0.5, Usage::default())
    }

    #[test]
    fn confidence_is_1_for_one_answer_and_0_for_all_alike() {
        assert!((decision(&[0.0, 3.0, 0.0]).confidence() - 1.0).abs() < 1e-12);
        assert!(decision(&[2.0; 7]).confidence().abs() < 1e-12);
        let between = decision(&[0.9, 0.1]).confidence();
        // 1 less the entropy in bits.
        assert!((between - 0.531_004_406).abs() < 1e-6, "{between}");
    }

    #[test]
    fn impossible_answers_are_alike_and_the_first_of_a_tie_is_the_best() {
        let impossible = decision(&[0.0; 4]);
        assert!((impossible.probabilities[3] - 0.25).abs() < 1e-12);
        assert_eq!((impossible.best(), decision(&[1.0, 2.0, 2.0]).best()), (0, 1));
        assert!((decision(&[1.0, 0.0, 3.0]).expected() - 1.5).abs() < 1e-12);
    }
}
