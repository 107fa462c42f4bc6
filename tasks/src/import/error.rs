//! Why a template is not imported, and what of it is not carried over.

use std::fmt;
use std::io;
use std::path::PathBuf;

use minijinja::Error;
use multiway_prompts::PromptError;
use serde::Serialize;
use thiserror::Error;

/// Says why a file or a template of another library is not imported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file or a folder cannot be read.
    #[error("cannot read '{path}'")]
    Read {
        /// The file or the folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is no YAML that this knows.
    #[error("{message}")]
    Yaml {
        /// What is wrong, and where.
        message: String,
    },
    /// A file has neither templates nor a prompt.
    #[error("{message}")]
    NoTemplate {
        /// What it is instead.
        message: String,
    },
    /// A template is no Jinja, or uses what Python alone has.
    #[error("the template cannot be read: {message}")]
    Jinja {
        /// What is wrong.
        message: String,
    },
    /// A template uses something that task files do not have.
    #[error("{what} has no counterpart in task files")]
    Construct {
        /// What it is.
        what: String,
    },
    /// Prompt and target cannot be told apart.
    #[error("{message}")]
    Separator {
        /// What is wrong.
        message: String,
    },
    /// A part of the task is Python code.
    #[error("`{key}` is the Python function `{function}`, which is not run")]
    Function {
        /// The key.
        key: String,
        /// The function.
        function: String,
    },
    /// The answers to choose from cannot be computed by a template.
    #[error("the answers to choose from: {message}")]
    Choices {
        /// What is wrong.
        message: String,
    },
    /// The kind of answer has no counterpart.
    #[error("the output type '{output}' has no counterpart{hint}")]
    Output {
        /// The kind.
        output: String,
        /// What could be done.
        hint: &'static str,
    },
    /// The task file that would be written is wrong.
    #[error(transparent)]
    TaskFile(#[from] PromptError),
}

impl ImportError {
    pub(super) fn jinja(error: &Error) -> Self {
        let detail = error
            .detail()
            .map_or_else(|| error.kind().to_string(), str::to_owned);
        let message = match error.line() {
            Some(line) => format!("line {line}: {detail}"),
            None => detail,
        };
        Self::Jinja { message }
    }

    /// Names the reason in a word or two, to count by.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::ImportError;
    ///
    /// let error = ImportError::Jinja { message: "line 1: unexpected end of input".to_owned() };
    /// assert_eq!(error.reason(), "jinja");
    /// ```
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Yaml { .. } => "yaml",
            Self::NoTemplate { .. } => "no template",
            Self::Jinja { .. } => "jinja",
            Self::Construct { .. } => "construct",
            Self::Separator { .. } => "separator",
            Self::Function { .. } => "function",
            Self::Choices { .. } => "choices",
            Self::Output { .. } => "output",
            Self::TaskFile(_) => "task file",
        }
    }
}

/// Says what a task file does not carry over from what it was imported from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImportNote {
    /// The key of the source, or what it is about.
    pub key: String,
    /// What is different.
    pub message: String,
}

impl ImportNote {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for ImportNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}
