//! Answers to choose from that a template computes from the inputs.

use std::sync::{Arc, Mutex, PoisonError};

use minijinja::machinery::{Token, tokenize};
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Output, State, Value};

use crate::error::{PromptError, PromptErrorKind};
use crate::input::{Inputs, MAX_ITEMS, check_answers};
use crate::sandbox::{require_text, syntax};
use crate::target::MAX_INPUT_BYTES;
use crate::template::Template;

/// The tags that such a template may have, besides a `set` with `=`.
const TAGS: [&str; 7] = ["if", "elif", "else", "endif", "for", "endfor", "set"];

/// A template each of whose `{{ }}` gives answers: a list of texts, or one text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ComputedChoices {
    pub(crate) template: Template,
    /// The line of the file on which the template starts.
    line: Option<usize>,
}

impl ComputedChoices {
    /// Reads the template of the key `output.choices`, which writes nothing else.
    pub(crate) fn parse(origin: &str, source: &str, line: Option<usize>) -> Result<Self, PromptError> {
        let template = Template::parse(origin, source, line.map_or(0, |line| line.saturating_sub(1)))?;
        let this = Self { template, line };
        match fault(source) {
            Some(message) => Err(this.error(origin, message)),
            None => Ok(this),
        }
    }

    /// Computes the answers: at least one, all different and none empty.
    pub(crate) fn render(&self, origin: &str, inputs: &Inputs) -> Result<Vec<String>, PromptError> {
        let answers = Arc::new(Mutex::new(Answers::default()));
        let collected = Arc::clone(&answers);
        let collect = move |_: &mut Output, state: &mut State, value: &Value| {
            let mut answers = collected.lock().unwrap_or_else(PoisonError::into_inner);
            answers.add(state, value)
        };
        let markers = self.template.evaluate(inputs, collect)?;
        let answers = std::mem::take(&mut *answers.lock().unwrap_or_else(PoisonError::into_inner)).texts;
        if answers.iter().any(|answer| markers.marks(answer)) {
            let message = "an answer is text, without special tokens and pictures".to_owned();
            return Err(self.error(origin, message));
        }
        check_answers(&answers).map_err(|error| self.error(origin, error.to_string()))?;
        Ok(answers)
    }

    fn error(&self, origin: &str, message: String) -> PromptError {
        let key = "output.choices".to_owned();
        PromptErrorKind::Invalid { key, message }.at(origin, self.line)
    }
}

/// Says what such a template must not have.
fn fault(source: &str) -> Option<String> {
    let syntax = syntax().ok()?;
    let tokens: Vec<Token<'_>> = tokenize(source, false, syntax)
        .map_while(Result::ok)
        .map(|(token, _)| token)
        .collect();
    if !tokens.iter().any(|token| matches!(token, Token::VariableStart)) {
        return Some(
            "expected a list of answers, or a template that gives them, such as `{{ options }}`".to_owned(),
        );
    }
    let text = tokens.iter().find_map(|token| match token {
        Token::TemplateData(text) if !text.trim().is_empty() => Some(text.trim()),
        _ => None,
    });
    if let Some(text) = text {
        let text = crate::suggest::quoted(text);
        return Some(format!("expected answers in `{{{{ }}}}` alone, found {text}"));
    }
    let tags = tokens.split(|token| matches!(token, Token::BlockStart)).skip(1);
    tags.filter_map(|tag| match tag.first() {
        Some(Token::Ident(name)) => {
            let end = tag.iter().position(|token| matches!(token, Token::BlockEnd));
            let words = tag.get(..end.unwrap_or(tag.len())).unwrap_or_default();
            let captures = *name == "set" && !words.iter().any(|token| matches!(token, Token::Assign));
            (captures || !TAGS.contains(name)).then(|| (*name).to_owned())
        }
        _ => None,
    })
    .next()
    .map(|name| format!("expected `if`, `for` and `set NAME = VALUE` around answers, found `{{% {name} %}}`"))
}

/// The answers that a template has given so far.
#[derive(Debug, Default)]
struct Answers {
    texts: Vec<String>,
    bytes: usize,
}

impl Answers {
    /// Adds a text, or the texts of a list.
    fn add(&mut self, state: &State, value: &Value) -> Result<(), Error> {
        if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
            return self.add_text(state, value);
        }
        for item in value.try_iter()? {
            self.add_text(state, &item)?;
        }
        Ok(())
    }

    fn add_text(&mut self, state: &State, value: &Value) -> Result<(), Error> {
        require_text(value, "an answer is text")?;
        let text = value.to_string();
        state.consume_fuel(1 + text.len() as u64 / 64)?;
        self.bytes += text.len();
        if self.texts.len() == MAX_ITEMS || self.bytes > MAX_INPUT_BYTES {
            let message = format!(
                "expected at most {MAX_ITEMS} answers of {MAX_INPUT_BYTES} bytes together, found more"
            );
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        self.texts.push(text);
        Ok(())
    }
}
