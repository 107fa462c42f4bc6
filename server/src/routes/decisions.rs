//! `POST /v1/decisions`: typed questions about texts and pictures, as OpenAI's clients ask them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use multiway::task::{AnswerScale, ClosedAnswer, Decision};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::body::JsonBody;
use crate::decide::{Asked, Question, check_count, decide, diagnostics};
use crate::error::ApiError;
use crate::message::{Content, Input, Said};
use crate::routes::responses::usage;
use crate::sampling::log_others;
use crate::shared::{Place, Shared};

/// A request for answers to questions.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct DecisionsRequest {
    #[serde(default)]
    model: Option<String>,
    input: Input,
    questions: Vec<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    others: Map<String, Value>,
}

/// A question as it is asked.
#[derive(Debug, Deserialize)]
struct AskedQuestion {
    #[serde(default)]
    name: Option<String>,
    instructions: Content,
    #[serde(flatten)]
    answers: AskedAnswers,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum AskedAnswers {
    Predicate,
    Choice { choices: Vec<AskedChoice> },
    Score { levels: Vec<AskedLevel> },
}

#[derive(Debug, Deserialize)]
struct AskedChoice {
    value: ChoiceValue,
    #[serde(default)]
    description: Option<String>,
}

#[derive(Debug, Deserialize)]
struct AskedLevel {
    label: String,
    #[serde(default)]
    description: Option<String>,
}

/// A text or a boolean; the answer repeats which of them it is.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
enum ChoiceValue {
    Flag(bool),
    Text(String),
}

impl ChoiceValue {
    fn text(&self) -> String {
        match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// Answers questions.
pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    _place: Place,
    JsonBody(request): JsonBody<DecisionsRequest>,
) -> Result<Json<Value>, ApiError> {
    log_others("/v1/decisions", &request.others);
    check_count(request.questions.len())?;
    let (model, task) = shared.model(request.model.as_deref())?;
    let task = task.unwrap_or_else(|| Arc::clone(&model.decide));
    let about = Said::by_anybody(Input::FIELD, request.input.messages()?)?;
    let asked = request.questions.into_iter().enumerate().map(read);
    let asked = asked.collect::<Result<Vec<_>, _>>()?;
    let (questions, forms): (Vec<Question>, Vec<Form>) = asked.into_iter().unzip();
    let terms = shared.terms(None, None);
    let asked = Asked {
        about,
        pictures: Input::FIELD,
        questions,
    };
    let decisions = decide(&model.engine, &task, asked, terms, &shared.fetcher).await?;
    let answers = forms.iter().zip(&decisions.answers);
    let answers: Vec<Value> = answers.map(|(form, decision)| form.told(decision)).collect();
    let diagnostics = decisions.answers.iter().map(diagnostics);
    Ok(Json(json!({
        "answers": answers,
        "model": request.model.unwrap_or_else(|| model.name.clone()),
        "usage": usage(&decisions.usage),
        "calibrated": decisions.is_calibrated,
        "diagnostics": diagnostics.collect::<Vec<_>>(),
    })))
}

/// Reads a question, and how its answer is told.
fn read((index, question): (usize, Value)) -> Result<(Question, Form), ApiError> {
    let place = format!("questions[{index}]");
    let asked: AskedQuestion = serde_json::from_value(question)
        .map_err(|error| ApiError::field(&place, format!("{place}: {error}")))?;
    let mut said = Said::nothing(Input::FIELD);
    said.add(&asked.instructions, &format!("{place}.instructions"))?;
    let name = asked.name;
    let (field, form, answers) = match asked.answers {
        AskedAnswers::Predicate => {
            let answers = ["yes", "no"].map(|text| ClosedAnswer::new(text, None));
            ("type", Form::Predicate { name }, Vec::from(answers))
        }
        AskedAnswers::Choice { choices } => {
            let values = choices.iter().map(|choice| choice.value.clone()).collect();
            let answer = |choice: AskedChoice| ClosedAnswer::new(choice.value.text(), choice.description);
            let answers = choices.into_iter().map(answer).collect();
            ("choices", Form::Choice { name, values }, answers)
        }
        AskedAnswers::Score { levels } => {
            let texts = levels.iter().map(|level| level.label.clone()).collect();
            let answer = |level: AskedLevel| ClosedAnswer::new(level.label, level.description);
            let answers = levels.into_iter().map(answer).collect();
            ("levels", Form::Score { name, levels: texts }, answers)
        }
    };
    let question = Question::new(place, said, (field, form.scale()), answers)?;
    Ok((question, form))
}

/// How an answer is told.
enum Form {
    Predicate {
        name: Option<String>,
    },
    Choice {
        name: Option<String>,
        values: Vec<ChoiceValue>,
    },
    Score {
        name: Option<String>,
        levels: Vec<String>,
    },
}

impl Form {
    fn scale(&self) -> AnswerScale {
        match self {
            Self::Predicate { .. } => AnswerScale::Predicate,
            Self::Choice { .. } => AnswerScale::Choice,
            Self::Score { .. } => AnswerScale::Level,
        }
    }

    fn told(&self, decision: &Decision) -> Value {
        let probabilities = decision.probabilities.iter();
        match self {
            Self::Predicate { name } => json!({
                "type": "predicate",
                "name": name,
                "probability": decision.probabilities.first(),
            }),
            Self::Choice { name, values } => {
                let told = |(value, probability)| json!({ "value": value, "probability": probability });
                json!({
                    "type": "choice",
                    "name": name,
                    "choice": values.get(decision.best()),
                    "confidence": decision.confidence(),
                    "probabilities": values.iter().zip(probabilities).map(told).collect::<Vec<_>>(),
                })
            }
            Self::Score { name, levels } => {
                let told = |(value, (label, probability))| json!({ "value": value, "label": label, "probability": probability });
                let levels = (0_usize..).zip(levels.iter().zip(probabilities));
                json!({
                    "type": "score",
                    "name": name,
                    "score": decision.expected(),
                    "confidence": decision.confidence(),
                    "probabilities": levels.map(told).collect::<Vec<_>>(),
                })
            }
        }
    }
}
