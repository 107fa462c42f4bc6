//! What a client is told when something is wrong: a status, and OpenAI's object around a message.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use multiway::engine::RequestError;
use multiway::prompt::{InputError, PromptError};
use multiway::task::TaskError;
use serde_json::{Value, json};

/// How long a client is asked to wait when all places are taken.
const RETRY_AFTER_SECONDS: &str = "1";

/// An error of a request.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    /// The field that is wrong.
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// The request is wrong.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field of the request is wrong.
    pub(crate) fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::bad(message)
        }
    }

    pub(crate) fn no_key() -> Self {
        Self {
            code: Some("invalid_api_key"),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "expected an API key of this server, as `Authorization: Bearer KEY`",
            )
        }
    }

    pub(crate) fn foreign() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "a page of another site may not ask this server; --cors-origin lists those that may",
        )
    }

    pub(crate) fn no_model(message: impl Into<String>) -> Self {
        Self {
            param: Some("model".to_owned()),
            code: Some("model_not_found"),
            ..Self::new(StatusCode::NOT_FOUND, message)
        }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn no_method(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than {limit} bytes, which is what this server takes"),
        )
    }

    pub(crate) fn slow_body(seconds: u64) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body was not complete after {seconds} seconds"),
        )
    }

    pub(crate) fn overloaded(places: usize) -> Self {
        Self {
            code: Some("overloaded"),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "{places} requests are being answered or wait, which is what this server takes; try again later"
                ),
            )
        }
    }

    pub(crate) fn draining() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down")
    }

    /// Something failed that the request is not at fault for.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// Says which part of the request is wrong, unless that is said.
    pub(crate) fn within(mut self, place: &str) -> Self {
        if self.status == StatusCode::BAD_REQUEST && self.param.is_none() {
            self.message = format!("{place}: {}", self.message);
            self.param = Some(place.to_owned());
        }
        self
    }

    /// The object that tells in a response why it failed.
    pub(crate) fn to_failure(&self) -> Value {
        let code = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_exceeded",
            status if status.is_client_error() => "invalid_prompt",
            _ => "server_error",
        };
        json!({ "code": code, "message": self.message, "param": self.param })
    }

    /// The object that a client reads, also in the middle of a stream.
    pub(crate) fn to_json(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.to_json())).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Writes an error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !message.contains(&cause_text) {
            message = format!("{message}: {cause_text}");
        }
        source = cause.source();
    }
    message
}

impl From<TaskError> for ApiError {
    fn from(error: TaskError) -> Self {
        if let TaskError::Request(error) = error {
            return error.into();
        }
        let status = match error.is_input() {
            true => StatusCode::BAD_REQUEST,
            false => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, chain(&error))
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let status = match &error {
            RequestError::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
            RequestError::DeadlineExceeded { .. } => StatusCode::GATEWAY_TIMEOUT,
            RequestError::ShutDown => StatusCode::SERVICE_UNAVAILABLE,
            error if error.is_caller_fault() => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, chain(&error))
    }
}

impl From<PromptError> for ApiError {
    fn from(error: PromptError) -> Self {
        Self::bad(chain(&error))
    }
}

impl ApiError {
    /// An input of a task is wrong.
    pub(crate) fn input(name: &str, error: &InputError) -> Self {
        Self::field(format!("inputs.{name}"), format!("input '{name}': {error}"))
    }
}
