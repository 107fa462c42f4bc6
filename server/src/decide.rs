//! Decisions: questions with closed answers, each answered by the probability of every answer.
//!
//! A question becomes a task. The engine encodes its prompt once, and the decoder scores every answer as a
//! text that it could write there; the probabilities are the softmax of these log-likelihoods. All questions
//! run at a time: the engine batches them, and encodes pictures that they share once where their encoding
//! does not depend on the text.

mod question;
mod wording;

use std::sync::Arc;

use multiway::engine::{Request, Score, Usage};
use multiway::image::ProcessedImage;
use multiway::task::{RequestTerms, TaskInputs};
use multiway::{Engine, Task};
use serde_json::{Value, json};

pub(crate) use question::{Label, Question, Scale, check_count};
use wording::Method;
pub(crate) use wording::built_in;

use crate::error::ApiError;
use crate::fetch::Fetcher;
use crate::message::Said;
use crate::pictures::{self, Given};

/// The most pictures that all questions of a request show besides those that they are about: all are in memory
/// at a time.
const MOST_OWN_PICTURES: usize = 64;

/// Questions, and what they are about.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) about: Said,
    /// The field of the request that holds the pictures.
    pub(crate) pictures: &'static str,
    pub(crate) questions: Vec<Question>,
}

/// The answers to questions, in their order.
#[derive(Debug)]
pub(crate) struct Decisions {
    pub(crate) answers: Vec<Decision>,
    /// Whether the task file fits the probabilities to data.
    pub(crate) is_calibrated: bool,
    pub(crate) usage: Usage,
}

/// The answer to a question.
#[derive(Debug)]
pub(crate) struct Decision {
    /// The probability of each answer, in the question's order; they sum to 1.
    pub(crate) probabilities: Vec<f64>,
    /// The probability that the model gives any of the answers.
    label_mass: f64,
    usage: Usage,
}

impl Decision {
    /// Makes shares sum to 1, of which `mass` is the probability.
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
            usage,
        }
    }

    /// Tells how far the answer can be trusted.
    pub(crate) fn diagnostics(&self) -> Value {
        json!({ "label_mass": self.label_mass })
    }

    /// Returns the place of the most probable answer; the first one of a tie.
    pub(crate) fn best(&self) -> usize {
        let places = self.probabilities.iter().enumerate().rev();
        let best = places.max_by(|(_, a), (_, b)| a.total_cmp(b));
        best.map_or(0, |(place, _)| place)
    }

    /// Returns the mean place, weighted by the probabilities.
    pub(crate) fn expected(&self) -> f64 {
        let places = (0_u32..).zip(&self.probabilities);
        places
            .map(|(place, probability)| f64::from(place) * probability)
            .sum()
    }

    /// Says how concentrated the probabilities are: 1 less their entropy, as a share of that of uniform ones.
    pub(crate) fn confidence(&self) -> f64 {
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

/// Answers questions.
pub(crate) async fn decide(
    engine: &Engine,
    task: &Task,
    asked: Asked,
    terms: RequestTerms,
    fetcher: &Arc<Fetcher>,
) -> Result<Decisions, ApiError> {
    let method = wording::method(task)?;
    let Asked {
        mut about,
        pictures,
        questions,
    } = asked;
    let own: usize = questions
        .iter()
        .map(|question| question.said.pictures.len())
        .sum();
    if own > MOST_OWN_PICTURES {
        let message =
            format!("questions: expected at most {MOST_OWN_PICTURES} pictures of their own, found {own}");
        return Err(ApiError::field("questions", message));
    }
    let shown = std::mem::take(&mut about.pictures);
    let shown = open(engine, task, shown, (0, pictures), fetcher).await?;
    let mut runs = Vec::with_capacity(questions.len());
    for mut question in questions {
        let own = std::mem::take(&mut question.said.pictures);
        let own = open(engine, task, own, (shown.len(), &question.place), fetcher).await?;
        let inputs =
            wording::inputs(task, &about, &question).map_err(|error| error.within(&question.place))?;
        let mut inputs = inputs.with_terms(terms);
        inputs.images = shown.iter().cloned().chain(own).collect();
        let answers = Answers {
            texts: wording::answers(task, &question),
            place: question.place,
        };
        runs.push(async move {
            let answer = match method {
                Method::Ranked => rank(engine, task, &answers, inputs).await,
                Method::Scored(target) => score(engine, task, target, &answers, inputs).await,
            };
            answer.map_err(|error| error.within(&answers.place))
        });
    }
    let answers = futures_util::future::try_join_all(runs).await?;
    let mut usage = Usage::default();
    for answer in &answers {
        usage.prompt_tokens += answer.usage.prompt_tokens;
        usage.image_patches += answer.usage.image_patches;
        usage.new_tokens += answer.usage.new_tokens;
    }
    Ok(Decisions {
        answers,
        is_calibrated: wording::calibration(task).is_some(),
        usage,
    })
}

/// Opens pictures that are shown beside `others`.
async fn open(
    engine: &Engine,
    task: &Task,
    given: Vec<Given>,
    (others, place): (usize, &str),
    fetcher: &Arc<Fetcher>,
) -> Result<Vec<ProcessedImage>, ApiError> {
    pictures::check_count(others + given.len(), engine.config(), place)?;
    let processor = task.image_processor(engine.config());
    let mut images = Vec::with_capacity(given.len());
    for given in given {
        images.push(pictures::open(processor.clone(), given, fetcher).await?);
    }
    Ok(images)
}

/// The texts that answer a question.
struct Answers {
    texts: Vec<String>,
    place: String,
}

/// Reads the probabilities of answers from those that a task gives. Where it knows more, these are left out.
async fn rank(
    engine: &Engine,
    task: &Task,
    answers: &Answers,
    inputs: TaskInputs,
) -> Result<Decision, ApiError> {
    let outcome = task.run(engine, &inputs)?.wait().await?;
    let choices = outcome.answer.choices();
    let share = |text: &String| {
        let choice = choices.iter().find(|choice| choice.text == *text);
        choice.map(|choice| choice.probability).ok_or_else(|| {
            let (place, task) = (&answers.place, task.name());
            ApiError::field(
                place,
                format!("{place}: the task '{task}' has no answer '{text}'"),
            )
        })
    };
    let shares = answers.texts.iter().map(share).collect::<Result<Vec<f64>, _>>()?;
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
    answers: &Answers,
    inputs: TaskInputs,
) -> Result<Decision, ApiError> {
    let prepare = |text: &String| {
        let inputs = inputs.clone().with(target, text.as_str());
        task.prepare(engine.tokenizer(), &inputs)
    };
    let mut prepared = answers
        .texts
        .iter()
        .take(2)
        .map(prepare)
        .collect::<Result<Vec<_>, _>>()?;
    let (Some(other), Some(prepared)) = (prepared.pop(), prepared.pop()) else {
        return Err(ApiError::internal("a question has less than two answers"));
    };
    if prepared.prompt() != other.prompt() {
        let message = format!("model: the task '{}' shows the text that it scores", task.name());
        return Err(ApiError::field("model", message));
    }
    let mut request = Request::new(prepared.prompt().clone(), prepared.images().to_vec());
    request.sampling.prefix = prepared.prefix().to_vec();
    (request.priority, request.timeout) = (inputs.terms.priority, inputs.terms.timeout);
    let scored = engine.score(request, answers.texts.clone()).await?;
    let log_probability = |score: &Score| f64::from(score.log_probability);
    let values: Vec<f64> = scored.value.iter().map(log_probability).collect();
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Likelihoods that are too small for a number still have ratios.
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
