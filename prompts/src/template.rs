//! The body of a task file: checked once, rendered often.

use std::error::Error as _;
use std::sync::Arc;

use minijinja::{Error, ErrorKind, Value};

use crate::error::{PromptError, PromptErrorKind};
use crate::input::{InputValue, Inputs};
use crate::markers::{Markers, NoMarkerLeft};
use crate::prompt::{Prompt, PromptPart};
use crate::sandbox::{FILTERS, FUNCTIONS, Fault, MAX_FUEL, Picture, TESTS, environment, syntax};
use crate::scan::{BadSpecial, NameRole, Scan, SpecialSite, TooLarge};
use crate::special::SPECIAL_FORMS;
use crate::suggest::{did_you_mean, nearest, quoted};

/// The most bytes that a body may have. minijinja counts lines in 16 bits, and this keeps within them.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;

/// The most bytes that a rendered prompt may have.
pub(crate) const MAX_PROMPT_BYTES: usize = 1024 * 1024;

/// A template that compiles and uses nothing that it may not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    origin: Arc<str>,
    source: String,
    /// The lines of the file before the body.
    lines_before: usize,
    scan: Scan,
}

impl Template {
    /// Checks the syntax, the filters, and the calls of `special`.
    pub(crate) fn parse(origin: &str, source: &str, lines_before: usize) -> Result<Self, PromptError> {
        let mut template = Self {
            origin: origin.into(),
            source: source.to_owned(),
            lines_before,
            scan: Scan::default(),
        };
        let no_inputs = Inputs::new();
        let syntax = syntax().map_err(|error| template.translate(&error, &no_inputs))?;
        template.scan = Scan::new(source, syntax);
        template.check_size()?;
        let markers = template.markers(&no_inputs, &template.scan.specials)?;
        environment(&markers)
            .and_then(|env| env.template_from_named_str(origin, source).map(drop))
            .map_err(|error| template.translate(&error, &no_inputs))?;
        template.check_specials()?;
        template.check_names(NameRole::Filter, "filter", &FILTERS)?;
        template.check_names(NameRole::Test, "test", &TESTS)?;
        Ok(template)
    }

    /// Returns the template as it was written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Returns the line of the file on which a variable is first used.
    pub(crate) fn line_of(&self, variable: &str) -> Option<usize> {
        self.scan.line_of(variable).map(|line| line + self.lines_before)
    }

    /// Tells whether the template applies a filter.
    pub(crate) fn uses_filter(&self, filter: &str) -> bool {
        self.scan.uses_filter(filter)
    }

    /// Lists the variables that the template expects from outside, in the order of their first use.
    pub(crate) fn variables(&self) -> Result<Vec<String>, PromptError> {
        let no_inputs = Inputs::new();
        let markers = self.markers(&no_inputs, &self.scan.specials)?;
        let source = self.marked_source(&markers, &self.scan.specials);
        let undeclared = environment(&markers)
            .and_then(|env| {
                Ok(env
                    .template_from_named_str(&self.origin, &source)?
                    .undeclared_variables(false))
            })
            .map_err(|error| self.translate(&error, &no_inputs))?;
        let mut names: Vec<String> = undeclared.into_iter().collect();
        names.retain(|name| !FUNCTIONS.contains(&name.as_str()));
        names.sort_by_key(|name| (self.scan.line_of(name), name.clone()));
        Ok(names)
    }

    /// Renders the template with inputs that were checked, for a checkpoint whose special tokens are `names`.
    pub(crate) fn render(&self, inputs: &Inputs, names: &[&str]) -> Result<Prompt, PromptError> {
        let specials = self.scan.specials_with(&self.source, names);
        let markers = self.markers(inputs, &specials)?;
        let source = self.marked_source(&markers, &specials);
        let values = Value::from_pairs(
            inputs
                .iter()
                .map(|(name, value)| (name.as_str(), template_value(value, &markers))),
        );
        let rendered = environment(&markers)
            .and_then(|env| env.render_named_str(&self.origin, &source, values))
            .map_err(|error| self.translate(&error, inputs))?;
        if rendered.len() > MAX_PROMPT_BYTES {
            let limit = MAX_PROMPT_BYTES;
            return Err(PromptErrorKind::OutputTooLong { limit }.at(&self.origin, None));
        }
        tracing::debug!(file = &*self.origin, bytes = rendered.len(), "rendered a prompt");
        Ok(markers.cut(&rendered))
    }

    fn markers(&self, inputs: &Inputs, specials: &[SpecialSite]) -> Result<Arc<Markers>, PromptError> {
        let texts = inputs
            .values()
            .flat_map(texts_of)
            .map(String::as_str)
            .chain([self.source.as_str()]);
        let images = inputs.values().flat_map(|value| value.pictures().iter().copied());
        let specials = specials.iter().map(|site| site.token.as_str());
        let markers = Markers::choose(texts, images, specials).map_err(|NoMarkerLeft| {
            let message =
                "the inputs leave no private-use character to mark pictures with: give fewer pictures";
            let message = message.to_owned();
            PromptErrorKind::Render { message }.at(&self.origin, None)
        })?;
        Ok(Arc::new(markers))
    }

    /// Writes the template with every special token replaced by its marker. Lines stay where they are.
    fn marked_source(&self, markers: &Markers, specials: &[SpecialSite]) -> String {
        let mut marked = String::with_capacity(self.source.len());
        let mut position = 0;
        for site in specials {
            let Some(marker) = markers.character(&PromptPart::Special(site.token.clone())) else {
                continue;
            };
            marked.push_str(self.source.get(position..site.range.start).unwrap_or_default());
            if site.in_expression {
                marked.extend(['"', marker, '"']);
                let call = self.source.get(site.range.clone()).unwrap_or_default();
                marked.extend(call.matches('\n'));
            } else {
                marked.push(marker);
            }
            position = site.range.end;
        }
        marked.push_str(self.source.get(position..).unwrap_or_default());
        marked
    }

    fn check_size(&self) -> Result<(), PromptError> {
        let Some(TooLarge { line, what, limit }) = self.scan.too_large else {
            return Ok(());
        };
        let message = format!("expected at most {limit} {what}, found more");
        Err(self.syntax_error(line, message))
    }

    fn check_specials(&self) -> Result<(), PromptError> {
        let (line, message) = match (&self.scan.bad_special, self.scan.bad_escape) {
            (
                Some(BadSpecial {
                    line,
                    found: Some(found),
                }),
                _,
            ) => (
                *line,
                format!(
                    "expected a special token ({SPECIAL_FORMS}), found {}",
                    quoted(found)
                ),
            ),
            (Some(BadSpecial { line, found: None }), _) => {
                let message = "expected `special(\"<extra_id_0>\")`: the name `special` may only stand before one special \
                               token in quotes and brackets, so that no input can become a special token";
                (*line, message.to_owned())
            }
            (None, Some(line)) => {
                let message = "the escapes \\udb80 to \\udbff (private-use characters) are kept for rendering: write the \
                               character itself";
                (line, message.to_owned())
            }
            (None, None) => return Ok(()),
        };
        Err(self.syntax_error(line, message))
    }

    fn check_names(&self, role: NameRole, what: &str, known: &[&str]) -> Result<(), PromptError> {
        let unknown = self
            .scan
            .names
            .iter()
            .find(|site| site.role == role && !known.contains(&site.name.as_str()));
        let Some(site) = unknown else { return Ok(()) };
        let suggestion = nearest(&site.name, known.iter().copied());
        let message = format!(
            "there is no {what} '{}'{} ({what}s: {})",
            site.name,
            did_you_mean(suggestion.as_ref()),
            known.join(", ")
        );
        Err(self.syntax_error(site.line, message))
    }

    /// Makes an error for a line of the body.
    fn syntax_error(&self, line: usize, message: String) -> PromptError {
        PromptErrorKind::Syntax { message }.at(&self.origin, Some(line + self.lines_before))
    }

    /// Turns an error of minijinja into one of ours, with lines counted from the top of the file.
    fn translate(&self, error: &Error, inputs: &Inputs) -> PromptError {
        let line = chain(error)
            .filter_map(Error::line)
            .last()
            .map(|line| line + self.lines_before);
        let kind = kind_of(error, inputs);
        let line = match kind {
            PromptErrorKind::Syntax { .. } => line.or(Some(self.lines_before + 1)),
            _ => line,
        };
        kind.at(&self.origin, line)
    }
}

fn kind_of(error: &Error, inputs: &Inputs) -> PromptErrorKind {
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

fn texts_of(value: &InputValue) -> &[String] {
    match value {
        InputValue::Text(text) => std::slice::from_ref(text),
        InputValue::List(items) => items,
        InputValue::Integer(_)
        | InputValue::Number(_)
        | InputValue::Boolean(_)
        | InputValue::Image(_)
        | InputValue::Images(_) => &[],
    }
}

fn template_value(value: &InputValue, markers: &Markers) -> Value {
    let picture = |index: &usize| {
        let marker = markers.character(&PromptPart::Image(*index));
        marker.map_or(Value::UNDEFINED, |marker| Value::from_object(Picture { marker }))
    };
    match value {
        InputValue::Text(text) => Value::from(text.as_str()),
        InputValue::Integer(number) => Value::from(*number),
        InputValue::Number(number) => Value::from(*number),
        InputValue::Boolean(value) => Value::from(*value),
        InputValue::List(items) => Value::from(items.clone()),
        InputValue::Image(index) => picture(index),
        InputValue::Images(indices) => indices.iter().map(picture).collect::<Vec<Value>>().into(),
    }
}
