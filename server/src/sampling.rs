//! The sampling parameters of OpenAI's requests.

use multiway::Task;
use multiway::checkpoint::ModelConfig;
use multiway::engine::{Constraint, SamplingOptions};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::ApiError;

/// The most stop strings of a request.
const MOST_STOPS: usize = 4;
/// The most alternatives of a token.
const MOST_ALTERNATIVES: usize = 20;

/// One text or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// The parameters that chats, responses and completions share.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct Sampling {
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    min_tokens: Option<usize>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    pub(crate) n: Option<usize>,
    seed: Option<i64>,
    stop: Option<OneOrMany>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    repetition_penalty: Option<f32>,
    pub(crate) priority: Option<i32>,
    pub(crate) stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    response_format: Option<ResponseFormat>,
    structured_outputs: Option<StructuredOutputs>,
    /// What is not known here, accepted and named once.
    #[serde(flatten)]
    #[schema(ignore)]
    pub(crate) others: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// The form that an answer must have, as OpenAI says it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema { json_schema: NamedSchema },
}

/// A schema; its name changes nothing.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NamedSchema {
    #[serde(default)]
    schema: Value,
}

/// The form that a response must have: as [`ResponseFormat`], with the schema beside its type.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum TextFormat {
    Text,
    JsonObject,
    JsonSchema {
        #[serde(flatten)]
        json_schema: NamedSchema,
    },
}

impl From<TextFormat> for ResponseFormat {
    fn from(format: TextFormat) -> Self {
        match format {
            TextFormat::Text => Self::Text,
            TextFormat::JsonObject => Self::JsonObject,
            TextFormat::JsonSchema { json_schema } => Self::JsonSchema { json_schema },
        }
    }
}

/// The form that an answer must have, as vLLM says it.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct StructuredOutputs {
    regex: Option<String>,
    choice: Option<Vec<String>>,
    grammar: Option<String>,
    json: Option<Value>,
}

impl Sampling {
    /// Adds what a request for a response says by names of its own. It has one answer.
    #[must_use]
    pub(crate) fn of_response(mut self, most: Option<usize>, format: Option<TextFormat>) -> Self {
        self.max_completion_tokens = most.or(self.max_completion_tokens);
        self.response_format = format.map(Into::into).or(self.response_format);
        self.n = None;
        self
    }

    /// Tells whether the answer is to be streamed.
    pub(crate) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Tells whether a stream ends with the usage.
    pub(crate) fn include_usage(&self) -> bool {
        self.stream_options
            .as_ref()
            .is_some_and(|options| options.include_usage)
    }

    /// Tells whether a form was asked for.
    pub(crate) fn wants_json(&self) -> bool {
        matches!(
            self.response_format,
            Some(ResponseFormat::JsonObject | ResponseFormat::JsonSchema { .. })
        )
    }

    /// Returns the layer of sampling parameters of a task on a model; `alternatives` of each token are told.
    ///
    /// Clients send budgets of tokens that are meant for any model: they are cut to what this one can write,
    /// which changes no answer.
    pub(crate) fn options(
        &self,
        task: &Task,
        config: &ModelConfig,
        alternatives: Option<usize>,
    ) -> Result<SamplingOptions, ApiError> {
        let most = config
            .max_target_length
            .saturating_sub(task.file().decode.prefix.len());
        let stop = self.stop.clone().map(OneOrMany::into_vec).unwrap_or_default();
        if stop.len() > MOST_STOPS {
            let found = stop.len();
            return Err(ApiError::field(
                "stop",
                format!("stop: expected at most {MOST_STOPS} texts, found {found}"),
            ));
        }
        if let Some(found) = alternatives.filter(|count| *count > MOST_ALTERNATIVES) {
            return Err(ApiError::field(
                "top_logprobs",
                format!("top_logprobs: expected 0 to {MOST_ALTERNATIVES}, found {found}"),
            ));
        }
        Ok(SamplingOptions {
            max_new_tokens: self
                .max_completion_tokens
                .or(self.max_tokens)
                .map(|count| count.min(most)),
            min_new_tokens: self.min_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            // vLLM's clients send -1 for all.
            top_k: self.top_k.and_then(|count| usize::try_from(count).ok()),
            min_p: self.min_p,
            samples: self.n.filter(|count| *count != 1),
            seed: self.seed.map(i64::cast_unsigned),
            stop,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repetition_penalty: self.repetition_penalty,
            top_log_probabilities: alternatives.map(|count| count.max(1)),
            ..SamplingOptions::default()
        })
    }

    /// Returns the form that the answer must have.
    pub(crate) fn constraint(&self) -> Result<Option<Constraint>, ApiError> {
        let format = match &self.response_format {
            Some(ResponseFormat::JsonObject) => {
                Some(Constraint::JsonSchema(serde_json::json!({ "type": "object" })))
            }
            Some(ResponseFormat::JsonSchema { json_schema }) => {
                Some(Constraint::JsonSchema(json_schema.schema.clone()))
            }
            Some(ResponseFormat::Text) | None => None,
        };
        let structured = self.structured_outputs.as_ref();
        let mut forms = [
            format,
            structured
                .and_then(|forms| forms.regex.clone())
                .map(Constraint::Regex),
            structured
                .and_then(|forms| forms.choice.clone())
                .map(Constraint::Choices),
            structured
                .and_then(|forms| forms.grammar.clone())
                .map(Constraint::Lark),
            structured
                .and_then(|forms| forms.json.clone())
                .map(Constraint::JsonSchema),
        ]
        .into_iter()
        .flatten();
        let first = forms.next();
        match forms.next() {
            Some(_) => Err(ApiError::field(
                "structured_outputs",
                "structured_outputs: expected one form, found several, response_format among them",
            )),
            None => Ok(first),
        }
    }

    /// Names the fields that are accepted and change nothing, in the log.
    pub(crate) fn log_others(&self, route: &str) {
        log_others(route, &self.others);
    }
}

/// Names fields that are accepted and change nothing, in the log.
pub(crate) fn log_others(route: &str, others: &Map<String, Value>) {
    if !others.is_empty() {
        let names: Vec<&str> = others.keys().map(String::as_str).collect();
        tracing::debug!("{route}: fields that change nothing here: {}", names.join(", "));
    }
}
