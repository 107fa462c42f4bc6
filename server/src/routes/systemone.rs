//! `POST /v1/systemone`: typed questions about a state and pictures, as vLLM answers them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use indexmap::IndexMap;
use multiway::task::{AnswerScale, ClosedAnswer, Decision};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::body::JsonBody;
use crate::decide::{Asked, Question, check_count, decide, diagnostics};
use crate::error::ApiError;
use crate::message::Said;
use crate::pictures;
use crate::sampling::log_others;
use crate::shared::{Place, Shared, now};

/// The field that says what questions are about.
const STATE: &str = "state";
/// The field that holds pictures.
const IMAGES: &str = "images";

/// A request for answers to questions.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct SystemOneRequest {
    #[serde(default)]
    model: Option<String>,
    state: Value,
    #[schema(value_type = Object)]
    questions: IndexMap<String, Value>,
    #[serde(default)]
    instructions: Option<String>,
    #[serde(default)]
    images: Option<Vec<String>>,
    #[serde(default)]
    priority: Option<i32>,
    #[serde(flatten)]
    #[schema(ignore)]
    others: Map<String, Value>,
}

/// A question as it is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedQuestion {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    instructions: Value,
    #[serde(default)]
    criteria: Value,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Noul,
    Choice,
    Score,
}

/// What yes and no mean.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Meanings {
    #[serde(rename = "true")]
    yes: Value,
    #[serde(rename = "false")]
    no: Value,
}

/// Answers questions.
pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    _place: Place,
    JsonBody(request): JsonBody<SystemOneRequest>,
) -> Result<Json<Value>, ApiError> {
    log_others("/v1/systemone", &request.others);
    check_count(request.questions.len())?;
    let (model, task) = shared.model(request.model.as_deref())?;
    let task = task.unwrap_or_else(|| Arc::clone(&model.decide));
    let mut about = Said::nothing(STATE);
    about.add_text(&request.instructions.unwrap_or_default());
    about.add_text(&text(&request.state));
    for (index, url) in request.images.into_iter().flatten().enumerate() {
        about
            .pictures
            .push(pictures::read(&url, format!("{IMAGES}[{index}]"))?);
    }
    let mut questions = Vec::with_capacity(request.questions.len());
    let mut forms = Vec::with_capacity(request.questions.len());
    for (id, question) in request.questions {
        let question = read(&id, question)?;
        forms.push(Form {
            id,
            scale: question.scale(),
            labels: question.answers(),
        });
        questions.push(question);
    }
    let terms = shared.terms(request.priority, None);
    let asked = Asked {
        about,
        pictures: IMAGES,
        questions,
    };
    let decisions = decide(&model.engine, &task, asked, terms, &shared.fetcher).await?;
    let (mut answers, mut diagnosed) = (Map::new(), Map::new());
    for (form, decision) in forms.into_iter().zip(&decisions.answers) {
        answers.insert(form.id.clone(), form.told(decision));
        diagnosed.insert(form.id, diagnostics(decision));
    }
    let usage = decisions.usage;
    Ok(Json(json!({
        "id": shared.id("decision"),
        "object": "structured_decision",
        "created": now(),
        "model": request.model.unwrap_or_else(|| model.name.clone()),
        "answers": answers,
        "usage": {
            "input_tokens": usage.prompt_tokens + usage.image_patches,
            "output_tokens": usage.new_tokens,
        },
        "calibrated": decisions.is_calibrated,
        "diagnostics": diagnosed,
    })))
}

/// Writes what may be a text or other JSON as a text.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Reads a question.
fn read(id: &str, question: Value) -> Result<Question, ApiError> {
    let place = format!("questions.{id}");
    let wrong = |field: &str, error: serde_json::Error| {
        ApiError::field(format!("{place}{field}"), format!("{place}{field}: {error}"))
    };
    let asked: AskedQuestion = serde_json::from_value(question).map_err(|error| wrong("", error))?;
    let criteria = |error| wrong(".criteria", error);
    let described = |label: String, meaning: Value| ClosedAnswer::new(label, Some(text(&meaning)));
    let (scale, answers) = match asked.kind {
        Kind::Noul => {
            let meanings = serde_json::from_value::<Option<Meanings>>(asked.criteria).map_err(criteria)?;
            let Meanings { yes, no } = meanings.unwrap_or_default();
            let answers = vec![described("yes".to_owned(), yes), described("no".to_owned(), no)];
            (AnswerScale::Predicate, answers)
        }
        Kind::Choice => {
            let options =
                serde_json::from_value::<IndexMap<String, Value>>(asked.criteria).map_err(criteria)?;
            let answers = options
                .into_iter()
                .map(|(label, meaning)| described(label, meaning));
            (AnswerScale::Choice, answers.collect())
        }
        Kind::Score => {
            let levels = serde_json::from_value::<Vec<String>>(asked.criteria).map_err(criteria)?;
            let answers = levels.into_iter().map(|level| ClosedAnswer::new(level, None));
            (AnswerScale::Level, answers.collect())
        }
    };
    let mut said = Said::nothing(STATE);
    said.add_text(&text(&asked.instructions));
    Question::new(place, said, ("criteria", scale), answers)
}

/// How an answer is told.
struct Form {
    id: String,
    scale: AnswerScale,
    labels: Vec<String>,
}

impl Form {
    fn told(&self, decision: &Decision) -> Value {
        let by_label = self.labels.iter().cloned().zip(&decision.probabilities);
        let places = (0..self.labels.len()).map(|place| place.to_string());
        match self.scale {
            AnswerScale::Predicate => json!({
                "type": "noul",
                "noul": decision.probabilities.first(),
                "probabilities": by_label.collect::<IndexMap<_, _>>(),
                "confidence": decision.confidence(),
            }),
            AnswerScale::Choice => json!({
                "type": "choice",
                "choice": self.labels.get(decision.best()),
                "probabilities": by_label.collect::<IndexMap<_, _>>(),
                "confidence": decision.confidence(),
            }),
            AnswerScale::Level => json!({
                "type": "score",
                "score": decision.expected(),
                "legend": places.clone().zip(&self.labels).collect::<IndexMap<_, _>>(),
                "probabilities": places.zip(&decision.probabilities).collect::<IndexMap<_, _>>(),
                "confidence": decision.confidence(),
            }),
        }
    }
}
