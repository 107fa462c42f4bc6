//! Errors of the engine as exceptions.

use std::error::Error;

use multiway::checkpoint::LoadError;
use multiway::engine::{EngineError as BuildError, RequestError};
use multiway::task::{DecisionError, TaskError};
use multiway::tokenizer::TokenizerError;
use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;

create_exception!(
    multiway,
    InputError,
    PyValueError,
    "What was given is wrong: another task, input, picture or option would work."
);
create_exception!(
    multiway,
    EngineError,
    PyRuntimeError,
    "The engine failed on a request."
);

/// Why something failed, which becomes an exception once the interpreter's lock is held.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was given is wrong.
    Input(String),
    /// A request exceeded its timeout.
    Timeout(String),
    /// The engine failed.
    Engine(String),
}

impl Failure {
    /// What was given is wrong; the message has what caused it.
    pub(crate) fn input(error: &dyn Error) -> Self {
        Self::Input(chain(error))
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Input(message) => InputError::new_err(message),
            Failure::Timeout(message) => PyTimeoutError::new_err(message),
            Failure::Engine(message) => EngineError::new_err(message),
        }
    }
}

/// Writes an error with what caused it.
fn chain(error: &dyn Error) -> String {
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

fn sorted(error: &dyn Error, is_input: bool) -> Failure {
    match is_input {
        true => Failure::Input(chain(error)),
        false => Failure::Engine(chain(error)),
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::DeadlineExceeded { .. } => Self::Timeout(chain(&error)),
            error => sorted(&error, error.is_caller_fault()),
        }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Request(error) => error.into(),
            error => sorted(&error, error.is_input()),
        }
    }
}

impl From<DecisionError> for Failure {
    fn from(error: DecisionError) -> Self {
        match error {
            DecisionError::Task(error) => error.into(),
            error => sorted(&error, error.is_input()),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::input(&error)
    }
}

impl From<TokenizerError> for Failure {
    fn from(error: TokenizerError) -> Self {
        Self::input(&error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let is_input = matches!(
            error,
            BuildError::Load(_)
                | BuildError::Tokenizer(_)
                | BuildError::Labels { .. }
                | BuildError::Generation { .. }
                | BuildError::Option { .. }
                | BuildError::MemoryBudget { .. }
        );
        sorted(&error, is_input)
    }
}
