//! Errors of minijinja in our words.

use std::error::Error as _;

use minijinja::{Error, ErrorKind};

use crate::error::PromptErrorKind;
use crate::input::Inputs;
use crate::sandbox::{Fault, MAX_FUEL};
use crate::suggest::nearest;

/// Finds the line and the template in which an error arose.
pub(crate) fn line_and_name(error: &Error) -> Option<(usize, String)> {
    let place = |error: &Error| Some((error.line()?, error.name().unwrap_or_default().to_owned()));
    chain(error).filter_map(place).last()
}

/// Says what is wrong with a template that has `inputs`.
pub(crate) fn kind_of(error: &Error, inputs: &Inputs) -> PromptErrorKind {
    match fault(error) {
        Some(Fault::NotText(message)) => return PromptErrorKind::NotText { message },
        Some(Fault::Gaps(message)) => return PromptErrorKind::Gaps { message },
        None => {}
    }
    if chain(error).any(|error| error.kind() == ErrorKind::OutOfFuel) {
        return PromptErrorKind::OutOfFuel { limit: MAX_FUEL };
    }
    if chain(error).any(|error| error.detail() == Some("recursion limit exceeded")) {
        return PromptErrorKind::TooDeep;
    }
    let error = first_cause(error);
    match error.kind() {
        ErrorKind::SyntaxError => PromptErrorKind::Syntax {
            message: error.detail().unwrap_or("syntax error").to_owned(),
        },
        ErrorKind::UndefinedError => {
            let name = undefined_name(error);
            let inputs: Vec<String> = inputs.keys().cloned().collect();
            let suggestion = nearest(&name, inputs.iter().map(String::as_str));
            PromptErrorKind::Undefined {
                name,
                inputs,
                suggestion,
            }
        }
        _ => PromptErrorKind::Render {
            message: describe(error),
        },
    }
}

/// Lists the minijinja errors that caused an error, the error itself first.
fn chain(error: &Error) -> impl Iterator<Item = &Error> {
    std::iter::successors(Some(error), cause)
}

fn cause<'e>(error: &&'e Error) -> Option<&'e Error> {
    let error: &'e Error = error;
    error.source()?.downcast_ref()
}

/// Finds what went wrong inside of a block or an included file.
fn first_cause(error: &Error) -> &Error {
    let is_frame = |error: &Error| matches!(error.kind(), ErrorKind::BadInclude | ErrorKind::EvalBlock);
    chain(error).find(|error| !is_frame(error)).unwrap_or(error)
}

fn fault(error: &Error) -> Option<Fault> {
    chain(error).find_map(|error| error.source()?.downcast_ref::<Fault>().cloned())
}

/// Reads the expression from minijinja's "`images[5]` is undefined".
fn undefined_name(error: &Error) -> String {
    let detail = error.detail().unwrap_or_default();
    let quoted = detail
        .split_once('`')
        .and_then(|(_, rest)| rest.split_once('`'))
        .map(|(name, _)| name);
    quoted.unwrap_or("a value").to_owned()
}

fn describe(error: &Error) -> String {
    match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{}: {}", error.kind(), detail),
        None => error.kind().to_string(),
    }
}
