//! Tasks: every task file is a route with typed inputs and outputs.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use multiway::Task;
use multiway::checkpoint::ModelConfig;
use multiway::engine::SamplingOptions;
use multiway::image::ProcessedImage;
use multiway::prompt::{InputKind, InputValue};
use multiway::task::{OutcomeReport, TaskEvent, TaskInputs};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::body::JsonBody;
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
    Query(of): Query<OfModel>,
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
    let broken = broken
        .iter()
        .map(|(path, error)| json!({ "file": path.file_name().map(|name| name.to_string_lossy()), "error": error.to_string() }));
    Ok(Json(json!({
        "object": "list",
        "data": tasks.collect::<Vec<_>>(),
        "broken": broken.collect::<Vec<_>>(),
    })))
}

/// Shows a task file.
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Query(of): Query<OfModel>,
) -> Result<Json<Value>, ApiError> {
    let (model, _) = shared.model(of.model.as_deref())?;
    let task = model.task(&name)?;
    let file = serde_json::to_value(task.file()).map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(Json(file))
}

/// A task that is to be run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskRequest {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    inputs: Map<String, Value>,
    #[serde(default)]
    sampling: SamplingOptions,
    #[serde(default)]
    priority: Option<i32>,
    /// In seconds.
    #[serde(default)]
    timeout: Option<f64>,
    #[serde(default)]
    stream: bool,
}

/// Runs a task.
pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    place: Place,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<TaskRequest>,
) -> Result<Response, ApiError> {
    let (model, _) = shared.model(request.model.as_deref())?;
    let task = model.task(&name)?;
    let timeout = request.timeout.map(Duration::try_from_secs_f64).transpose();
    let timeout = timeout.map_err(|error| ApiError::field("timeout", format!("timeout: {error}")))?;
    let inputs = inputs(&task, model.engine.config(), request.inputs).await?;
    let inputs = inputs
        .with_sampling(request.sampling)
        .with_terms(shared.terms(request.priority, timeout));
    let run = task.run(&model.engine, &inputs)?;
    if !request.stream {
        let outcome = run.wait().await?;
        return Ok(Json(report(&name, &outcome)?).into_response());
    }
    let sent = run.map(move |event| {
        Sent::Data(match event {
            Ok(TaskEvent::Text(text)) => json!({ "type": "text", "text": text }),
            Ok(TaskEvent::Finished(outcome)) => match report(&name, &outcome) {
                Ok(report) => json!({ "type": "finished", "outcome": report }),
                Err(error) => error.to_json(),
            },
            Ok(_) => Value::Null,
            Err(error) => ApiError::from(error).to_json(),
        })
    });
    Ok(events::respond(sent.chain(stream::iter([Sent::Done])), place))
}

fn report(name: &str, outcome: &multiway::task::TaskOutcome) -> Result<Value, ApiError> {
    serde_json::to_value(OutcomeReport::new(name, outcome))
        .map_err(|error| ApiError::internal(error.to_string()))
}

/// Reads inputs: pictures as data URLs, everything else as the task file declares it.
async fn inputs(
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
            let bytes = pictures::decode(&url, &param)?;
            images.push(pictures::open(processor.clone(), bytes, &param).await?);
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
    ApiError::field(
        param,
        format!("{param}: expected a picture as `data:image/png;base64,...`, found {found}"),
    )
}
