//! The routes as an OpenAPI document: schemas of requests from their types, and of each task from its file.

use multiway::prompt::{InputKind, InputSpec};
use multiway::task::TaskLibrary;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::access::HEALTH;
use crate::error::ApiError;
use crate::routes::bodies::{
    ChatRequest, CompletionRequest, DecisionsRequest, DetokenizeRequest, EmbeddingRequest, ResponsesRequest,
    SearchRequest, SystemOneRequest, TaskRequest, TokenizeRequest,
};
use crate::shared::Shared;

/// The schemas of what routes take.
#[derive(OpenApi)]
#[openapi(
    info(title = "multiway"),
    components(schemas(
        ChatRequest,
        CompletionRequest,
        DecisionsRequest,
        DetokenizeRequest,
        EmbeddingRequest,
        ResponsesRequest,
        SearchRequest,
        SystemOneRequest,
        TaskRequest,
        TokenizeRequest,
    ))
)]
struct Requests;

/// Writes the document; the tasks are those of the first model.
pub(crate) fn document(shared: &Shared) -> Result<Value, ApiError> {
    let internal = |error: serde_json::Error| ApiError::internal(error.to_string());
    let mut document = serde_json::to_value(Requests::openapi()).map_err(internal)?;
    let mut paths = fixed();
    if let Some((_, model)) = shared.models.first() {
        add_tasks(&mut paths, &model.library.snapshot());
    }
    document["paths"] = Value::Object(paths);
    let root = shared.options.root_path.trim_end_matches('/');
    document["servers"] = json!([{ "url": if root.is_empty() { "/" } else { root } }]);
    document["components"]["schemas"]["Error"] = object(&[(
        "error",
        object(&[
            ("message", json!({ "type": "string" })),
            ("type", json!({ "type": "string" })),
            ("param", json!({ "type": ["string", "null"] })),
            ("code", json!({ "type": ["string", "null"] })),
        ]),
    )]);
    if !shared.options.keys.is_empty() {
        document["components"]["securitySchemes"] = json!({ "key": { "type": "http", "scheme": "bearer" }, "header": { "type": "apiKey", "in": "header", "name": "x-api-key" } });
        document["security"] = json!([{ "key": [] }, { "header": [] }]);
        document["paths"][HEALTH]["get"]["security"] = json!([]);
    }
    Ok(document)
}

/// The schema of an object that has these fields, and maybe others.
fn object(fields: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> = fields
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn list_of(items: &Value) -> Value {
    object(&[
        ("object", json!({ "const": "list" })),
        ("data", json!({ "type": "array", "items": items })),
    ])
}

fn named(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// What a route answers.
struct Answers {
    description: &'static str,
    content: Value,
}

impl Answers {
    fn json(description: &'static str, schema: &Value) -> Self {
        Self {
            description,
            content: json!({ "application/json": { "schema": schema } }),
        }
    }

    /// Answers whole, or as a stream of events.
    fn or_events(description: &'static str, schema: &Value) -> Self {
        let mut answers = Self::json(description, schema);
        answers.content["text/event-stream"] = json!({});
        answers
    }

    fn other(description: &'static str, kind: &str) -> Self {
        Self {
            description,
            content: json!({ kind: {} }),
        }
    }

    fn responses(self) -> Value {
        json!({
            "200": { "description": self.description, "content": self.content },
            "default": {
                "description": "what is wrong",
                "content": { "application/json": { "schema": named("Error") } },
            },
        })
    }
}

fn get(answers: Answers, parameters: &[Value]) -> Value {
    json!({ "get": { "summary": answers.description, "parameters": parameters, "responses": answers.responses() } })
}

fn post(request: &Value, answers: Answers) -> Value {
    json!({ "post": {
        "summary": answers.description,
        "requestBody": { "required": true, "content": { "application/json": { "schema": request } } },
        "responses": answers.responses(),
    } })
}

/// A part of the path.
fn part(name: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

/// Which checkpoint is meant.
fn of_model() -> Value {
    json!({ "name": "model", "in": "query", "required": false, "schema": { "type": "string" } })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn number() -> Value {
    json!({ "type": "integer" })
}

fn objects() -> Value {
    json!({ "type": "array", "items": { "type": "object" } })
}

/// The routes that every server has.
fn fixed() -> Map<String, Value> {
    let all = status().into_iter().chain(openai()).chain(own());
    all.map(|(path, item)| (path.to_owned(), item)).collect()
}

fn status() -> Vec<(&'static str, Value)> {
    let health = object(&[("status", text())]);
    let version = object(&[("version", text())]);
    let model = object(&[("id", text()), ("object", json!({ "const": "model" }))]);
    vec![
        (
            "/",
            get(Answers::other("a page for the browser", "text/html"), &[]),
        ),
        ("/health", get(Answers::json("requests are taken", &health), &[])),
        ("/version", get(Answers::json("the version", &version), &[])),
        (
            "/metrics",
            get(Answers::other("counters for Prometheus", "text/plain"), &[]),
        ),
        (
            "/v1/models",
            get(Answers::json("the checkpoints", &list_of(&model)), &[]),
        ),
        (
            "/v1/models/{name}",
            get(Answers::json("a checkpoint", &model), &[part("name", &text())]),
        ),
    ]
}

/// Routes that clients of others ask.
fn openai() -> Vec<(&'static str, Value)> {
    let completion = |kind: &str| {
        object(&[
            ("id", text()),
            ("object", json!({ "const": kind })),
            ("choices", objects()),
            ("usage", json!({ "type": "object" })),
        ])
    };
    let response = object(&[
        ("id", text()),
        ("object", json!({ "const": "response" })),
        ("status", json!({ "enum": ["completed", "incomplete"] })),
        ("output", objects()),
    ]);
    let decisions = object(&[("answers", objects()), ("usage", json!({ "type": "object" }))]);
    let by_id = object(&[
        ("answers", json!({ "type": "object" })),
        ("usage", json!({ "type": "object" })),
    ]);
    let vector = json!({ "oneOf": [{ "type": "array", "items": { "type": "number" } }, text()] });
    let vectors = list_of(&object(&[("index", number()), ("embedding", vector)]));
    let answer = "an answer to a message";
    let probabilities = "the probability of every answer";
    vec![
        (
            "/v1/chat/completions",
            post(
                &named("ChatRequest"),
                Answers::or_events(answer, &completion("chat.completion")),
            ),
        ),
        (
            "/v1/completions",
            post(
                &named("CompletionRequest"),
                Answers::or_events("what the decoder writes", &completion("text_completion")),
            ),
        ),
        (
            "/v1/responses",
            post(&named("ResponsesRequest"), Answers::or_events(answer, &response)),
        ),
        (
            "/v1/decisions",
            post(
                &named("DecisionsRequest"),
                Answers::json(probabilities, &decisions),
            ),
        ),
        (
            "/v1/systemone",
            post(&named("SystemOneRequest"), Answers::json(probabilities, &by_id)),
        ),
        (
            "/v1/embeddings",
            post(&named("EmbeddingRequest"), Answers::json("vectors", &vectors)),
        ),
    ]
}

/// Routes of our own, but for those of tasks, and the tokenizer.
fn own() -> Vec<(&'static str, Value)> {
    let tasks = list_of(&object(&[("name", text())]));
    let indexes = list_of(&object(&[("id", text()), ("pictures", number())]));
    let found = list_of(&object(&[
        ("key", text()),
        ("score", json!({ "type": "number" })),
    ]));
    let ids = object(&[
        ("count", number()),
        ("tokens", json!({ "type": "array", "items": number() })),
    ]);
    let place = [
        part("index", &text()),
        part("position", &json!({ "type": "integer", "minimum": 0 })),
    ];
    let search = merged(
        get(Answers::json("the indexes", &indexes), &[]),
        post(
            &named("SearchRequest"),
            Answers::json("the nearest pictures", &found),
        ),
    );
    let written = Answers::json("a text", &object(&[("prompt", text())]));
    let tokenizer = Answers::json("the tokenizer", &object(&[("vocab_size", number())]));
    vec![
        (
            "/v1/tasks",
            get(Answers::json("the task files", &tasks), &[of_model()]),
        ),
        ("/v1/search", search),
        (
            "/v1/search/{index}/{position}",
            get(Answers::other("the file of a picture", "image/*"), &place),
        ),
        (
            "/tokenize",
            post(&named("TokenizeRequest"), Answers::json("token ids", &ids)),
        ),
        ("/detokenize", post(&named("DetokenizeRequest"), written)),
        ("/tokenizer_info", get(tokenizer, &[of_model()])),
    ]
}

fn merged(mut item: Value, other: Value) -> Value {
    if let (Value::Object(item), Value::Object(other)) = (&mut item, other) {
        item.extend(other);
    }
    item
}

/// Adds a route for each task, with the inputs that its file declares.
fn add_tasks(paths: &mut Map<String, Value>, library: &TaskLibrary) {
    for task in library.iter() {
        let inputs = &task.file().inputs;
        let properties: Map<String, Value> = inputs
            .iter()
            .map(|(name, spec)| (name.clone(), input(spec)))
            .collect();
        let required: Vec<&String> = inputs
            .iter()
            .filter(|(_, spec)| spec.is_required())
            .map(|(name, _)| name)
            .collect();
        let typed = json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false });
        let request = json!({ "allOf": [
            named("TaskRequest"),
            { "type": "object", "properties": { "inputs": typed } },
        ] });
        let outcome = object(&[
            ("task", json!({ "const": task.name() })),
            ("usage", json!({ "type": "object" })),
        ]);
        let mut item = merged(
            get(
                Answers::json("the task file", &json!({ "type": "object" })),
                &[of_model()],
            ),
            post(&request, Answers::or_events("the outcome of the task", &outcome)),
        );
        item["post"]["summary"] = json!(task.description());
        paths.insert(format!("/v1/tasks/{}", task.name()), item);
    }
}

/// The schema of an input.
fn input(spec: &InputSpec) -> Value {
    let picture = json!({ "type": "string", "description": "a picture as data:image/png;base64,..., or its URL where the server fetches from that host" });
    let mut schema = match spec.kind {
        InputKind::Text => json!({ "type": "string", "maxLength": spec.max_length }),
        InputKind::Integer => json!({ "type": "integer", "minimum": spec.min, "maximum": spec.max }),
        InputKind::Number => json!({ "type": "number", "minimum": spec.min, "maximum": spec.max }),
        InputKind::Boolean => json!({ "type": "boolean" }),
        InputKind::Choice => json!({ "enum": spec.choices }),
        InputKind::List => {
            json!({ "type": "array", "items": { "type": "string", "maxLength": spec.max_length } })
        }
        InputKind::Image => picture,
        InputKind::Images => json!({ "oneOf": [picture, { "type": "array", "items": picture }] }),
        _ => json!({}),
    };
    if let Value::Object(fields) = &mut schema {
        fields.retain(|_, value| !value.is_null());
    }
    if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
        items.retain(|_, value| !value.is_null());
    }
    if let Some(description) = &spec.description {
        schema["description"] = json!(description);
    }
    if let Some(default) = &spec.default {
        schema["default"] = json!(default);
    }
    schema
}
