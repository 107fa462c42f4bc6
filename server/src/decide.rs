//! Questions with closed answers, as both routes ask them.
//!
//! All questions run at a time: the engine batches them, and encodes pictures that they share once where
//! their encoding does not depend on the text.

use std::sync::Arc;

use multiway::engine::Usage;
use multiway::image::ProcessedImage;
use multiway::task::{AnswerScale, ClosedAnswer, ClosedQuestion, Decision, DecisionError, RequestTerms};
use multiway::{Engine, Task};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fetch::Fetcher;
use crate::message::Said;
use crate::pictures::{self, Given};

/// The most questions of a request.
const MOST_QUESTIONS: usize = 400;
/// The most pictures that all questions of a request show besides those that they are about: all are in
/// memory at a time.
const MOST_OWN_PICTURES: usize = 64;

/// Checks how many questions a request has.
pub(crate) fn check_count(count: usize) -> Result<(), ApiError> {
    if (1..=MOST_QUESTIONS).contains(&count) {
        return Ok(());
    }
    let message = format!("questions: expected 1 to {MOST_QUESTIONS} questions, found {count}");
    Err(ApiError::field("questions", message))
}

/// A question of a request.
#[derive(Debug)]
pub(crate) struct Question {
    /// Where it stands in the request, such as `questions[3]`.
    place: String,
    closed: ClosedQuestion,
    /// Pictures that are shown for this question alone.
    pictures: Vec<Given>,
}

impl Question {
    /// Checks a question, whose answers are in a `field` of it.
    pub(crate) fn new(
        place: String,
        said: Said,
        (field, scale): (&str, AnswerScale),
        answers: Vec<ClosedAnswer>,
    ) -> Result<Self, ApiError> {
        let closed = ClosedQuestion::new(said.text, scale, answers).map_err(|error| {
            let place = format!("{place}.{field}");
            let message = format!("{place}: {error}");
            ApiError::field(place, message)
        })?;
        Ok(Self {
            place,
            closed,
            pictures: said.pictures,
        })
    }

    /// Lists the texts of the answers.
    pub(crate) fn answers(&self) -> Vec<String> {
        let answers = self.closed.answers().iter();
        answers.map(|answer| answer.text.clone()).collect()
    }

    pub(crate) fn scale(&self) -> AnswerScale {
        self.closed.scale()
    }
}

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

/// Tells how far an answer can be trusted.
pub(crate) fn diagnostics(decision: &Decision) -> Value {
    json!({ "label_mass": decision.label_mass })
}

/// Answers questions.
pub(crate) async fn decide(
    engine: &Engine,
    task: &Task,
    asked: Asked,
    terms: RequestTerms,
    fetcher: &Arc<Fetcher>,
) -> Result<Decisions, ApiError> {
    let Asked {
        mut about,
        pictures,
        questions,
    } = asked;
    let own: usize = questions.iter().map(|question| question.pictures.len()).sum();
    if own > MOST_OWN_PICTURES {
        let message =
            format!("questions: expected at most {MOST_OWN_PICTURES} pictures of their own, found {own}");
        return Err(ApiError::field("questions", message));
    }
    let shown = std::mem::take(&mut about.pictures);
    let shown = open(engine, task, shown, (0, pictures), fetcher).await?;
    let about = &about;
    let mut runs = Vec::with_capacity(questions.len());
    for Question {
        place,
        closed,
        pictures,
    } in questions
    {
        let own = open(engine, task, pictures, (shown.len(), &place), fetcher).await?;
        let images = shown.iter().cloned().chain(own).collect();
        runs.push(async move {
            let decision = closed.decide(engine, task, &about.text, images, terms).await;
            decision.map_err(|error| refused(error, about.field, &place))
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
        is_calibrated: answers.iter().all(|answer| answer.is_calibrated),
        answers,
        usage,
    })
}

/// Says which part of a request is wrong: the model's task, what the questions are about, or a question.
fn refused(error: DecisionError, about: &str, place: &str) -> ApiError {
    let param = match error {
        DecisionError::Task(error) => return ApiError::from(error).within(place),
        DecisionError::NotRanked { .. } | DecisionError::ShowsTarget { .. } => "model",
        DecisionError::NoState { .. } => about,
        _ => place,
    };
    ApiError::field(param, format!("{param}: {error}"))
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
