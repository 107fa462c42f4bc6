//! Tasks: every task file is a route with typed inputs and outputs.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use multiway::checkpoint::ModelConfig;
use multiway::engine::SamplingOptions;
use multiway::image::ProcessedImage;
use multiway::prompt::{InputKind, InputValue};
use multiway::task::{OutcomeReport, PreparedTask, TaskEvent, TaskInputs, TaskOutcome};
use multiway::{Engine, Task};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::body::{JsonBody, PathOf, QueryOf};
use crate::error::ApiError;
use crate::events::{self, Sent};
use crate::message::fields_of;
use crate::pictures;
use crate::shared::{Place, Shared};

/// Which checkpoint's tasks are meant.
#[derive(Debug, Deserialize)]
pub(crate) struct OfModel {
    pub(crate) model: Option<String>,
}

/// Lists the tasks of a checkpoint.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    QueryOf(of): QueryOf<OfModel>,
) -> Result<Json<Value>, ApiError> {
    let (model, _) = shared.model(of.model.as_deref())?;
    let library = model.library.snapshot();
    let tasks = library.iter().map(|task| {
        json!({
            "name": task.name(),
            "description": task.description(),
            "model": model.name,
            "trained": task.is_trained_in(model.engine.config()),
            "inputs": task.file().inputs,
            "output": task.file().output,
        })
    });
    let broken = model.library.broken();
    let broken = broken.iter().map(|(path, error)| {
        // Where it lies on this machine is not for clients.
        let file = path
            .file_name()
            .map(|name| name.to_string_lossy())
            .unwrap_or_default();
        let error = error.to_string().replace(&*path.to_string_lossy(), &file);
        json!({ "file": file, "error": error })
    });
    Ok(Json(json!({
        "object": "list",
        "data": tasks.collect::<Vec<_>>(),
        "broken": broken.collect::<Vec<_>>(),
    })))
}

/// Shows a task file.
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    PathOf(name): PathOf<String>,
    QueryOf(of): QueryOf<OfModel>,
) -> Result<Json<Value>, ApiError> {
    let (model, _) = shared.model(of.model.as_deref())?;
    let task = model.task(&name)?;
    let file = serde_json::to_value(task.file()).map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(Json(file))
}

/// A task that is to be run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskRequest {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    #[schema(value_type = Object)]
    inputs: Map<String, Value>,
    #[serde(default)]
    #[schema(value_type = Object)]
    sampling: SamplingOptions,
    #[serde(default)]
    priority: Option<i32>,
    /// In seconds.
    #[serde(default)]
    timeout: Option<f64>,
    #[serde(default)]
    stream: bool,
    /// Whether to tell where the model looked for each word of the answer.
    #[serde(default)]
    explain: bool,
}

/// Runs a task.
pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    place: Place,
    PathOf(name): PathOf<String>,
    JsonBody(request): JsonBody<TaskRequest>,
) -> Result<Response, ApiError> {
    let (model, _) = shared.model(request.model.as_deref())?;
    let task = model.task(&name)?;
    let timeout = request.timeout.map(Duration::try_from_secs_f64).transpose();
    let timeout = timeout.map_err(|error| ApiError::field("timeout", format!("timeout: {error}")))?;
    let inputs = inputs(&shared, &task, model.engine.config(), request.inputs).await?;
    let inputs = inputs
        .with_sampling(request.sampling)
        .with_terms(shared.terms(request.priority, timeout));
    if request.explain && inputs.images.is_empty() {
        let message = "explain: expected a picture among the inputs, over which attention can be shown";
        return Err(ApiError::field("explain", message));
    }
    let prepared = task.prepare(model.engine.tokenizer(), &inputs)?;
    let explained = request.explain.then(|| Explained {
        engine: model.engine.clone(),
        prepared: prepared.clone(),
        visible: inputs.images.iter().map(visible).collect(),
    });
    let teller = Arc::new(Teller { name, explained });
    let run = prepared.run(&model.engine)?;
    if !request.stream {
        let outcome = run.wait().await?;
        return Ok(Json(teller.report(&outcome).await?).into_response());
    }
    let sent = run.then(move |event| {
        let teller = Arc::clone(&teller);
        async move {
            Sent::Data(match event {
                Ok(TaskEvent::Text(text)) => json!({ "type": "text", "text": text }),
                Ok(TaskEvent::Finished(outcome)) => match teller.report(&outcome).await {
                    Ok(report) => json!({ "type": "finished", "outcome": report }),
                    Err(error) => error.to_json(),
                },
                Ok(_) => Value::Null,
                Err(error) => ApiError::from(error).to_json(),
            })
        }
    });
    Ok(events::respond(sent.chain(stream::iter([Sent::Done])), place))
}

/// Tells the outcome of a task.
struct Teller {
    name: String,
    explained: Option<Explained>,
}

/// What an explanation is made with.
struct Explained {
    engine: Engine,
    prepared: PreparedTask,
    /// The part of each picture of the inputs that the encoder sees.
    visible: Vec<[f64; 4]>,
}

/// Returns the part of a picture that the encoder sees, as left, top, right and bottom in shares of its
/// sides.
fn visible(image: &ProcessedImage) -> [f64; 4] {
    let (width, height) = image.original_size();
    let (width, height) = (f64::from(width.max(1)), f64::from(height.max(1)));
    let [left, top, right, bottom] = image.visible();
    [left / width, top / height, right / width, bottom / height]
}

impl Teller {
    async fn report(&self, outcome: &TaskOutcome) -> Result<Value, ApiError> {
        let internal = |error: serde_json::Error| ApiError::internal(error.to_string());
        let mut report = serde_json::to_value(OutcomeReport::new(&self.name, outcome)).map_err(internal)?;
        if let Some(explained) = &self.explained {
            // Which picture of the inputs each one in the prompt is; those of few-shot examples are none.
            let pictures = explained.prepared.pictures();
            let visible = pictures.iter().map(|index| explained.visible.get((*index)?));
            let visible: Vec<Option<&[f64; 4]>> = visible.collect();
            let explaining = explained.prepared.clone();
            let tokens = outcome.answer_tokens.clone();
            let explanation = explaining.explain(&explained.engine, tokens, None).await?;
            let mut explanation = serde_json::to_value(explanation).map_err(internal)?;
            explanation["inputs"] = json!(pictures);
            explanation["visible"] = json!(visible);
            report["explanation"] = explanation;
        }
        Ok(report)
    }
}

/// Reads inputs: pictures as URLs, everything else as the task file declares it.
async fn inputs(
    shared: &Shared,
    task: &Task,
    config: &ModelConfig,
    mut fields: Map<String, Value>,
) -> Result<TaskInputs, ApiError> {
    let processor = task.image_processor(config);
    let mut images: Vec<ProcessedImage> = Vec::new();
    let mut inputs = TaskInputs::new();
    for (name, spec) in task
        .file()
        .inputs
        .iter()
        .filter(|(_, spec)| spec.kind.is_picture())
    {
        let Some(value) = fields.remove(name) else {
            continue;
        };
        let param = format!("inputs.{name}");
        let urls = match (spec.kind, value) {
            (_, Value::String(url)) => vec![url],
            (InputKind::Images, Value::Array(urls)) => {
                let urls = urls.into_iter().map(|url| match url {
                    Value::String(url) => Ok(url),
                    other => Err(not_a_picture(&param, &other)),
                });
                urls.collect::<Result<_, _>>()?
            }
            (_, other) => return Err(not_a_picture(&param, &other)),
        };
        let first = images.len();
        pictures::check_count(first + urls.len(), config, &param)?;
        for url in urls {
            let given = pictures::read(&url, &param)?;
            images.push(pictures::open(processor.clone(), given, &shared.fetcher).await?);
        }
        let value = match spec.kind {
            InputKind::Image => InputValue::Image(first),
            _ => InputValue::Images((first..images.len()).collect()),
        };
        inputs = inputs.with(name.clone(), value);
    }
    inputs.images = images;
    fields_of(task, fields, inputs)
}

fn not_a_picture(param: &str, found: &Value) -> ApiError {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    ApiError::field(
        param,
        format!("{param}: expected a picture as `data:image/png;base64,...`, found {kind}"),
    )
}
