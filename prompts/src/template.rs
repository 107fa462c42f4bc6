//! The body of a task file, with the bodies that it extends and the files that it imports: checked once,
//! rendered often.

use std::borrow::Cow;
use std::sync::Arc;

use minijinja::{Environment, Error, Output, State, Value};

use crate::error::{PromptError, PromptErrorKind};
use crate::input::{InputValue, Inputs};
use crate::json_value;
use crate::markers::{Markers, NoMarkerLeft};
use crate::prompt::{Prompt, PromptPart};
use crate::render_error::{kind_of, line_and_name};
use crate::sandbox::{FUNCTIONS, Picture, environment};
use crate::scan::SpecialSite;
use crate::template_file::TemplateFile;

/// The most bytes that a body may have. minijinja counts lines in 16 bits, and this keeps within them.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;

/// The most bytes that a rendered prompt may have.
pub(crate) const MAX_PROMPT_BYTES: usize = 1024 * 1024;

/// A template that compiles and uses nothing that it may not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    /// What is rendered.
    body: TemplateFile,
    /// What the body extends and imports.
    others: Vec<TemplateFile>,
}

impl Template {
    /// Puts a body and the files that it needs together.
    pub(crate) fn new(body: TemplateFile, others: Vec<TemplateFile>) -> Self {
        Self { body, others }
    }

    /// Reads a template that needs no other files.
    pub(crate) fn parse(origin: &str, source: &str, lines_before: usize) -> Result<Self, PromptError> {
        let body = TemplateFile::parse("body:0".to_owned(), origin, source, lines_before)?;
        if let Some(import) = body.scan.imports.first() {
            let message = format!(
                "`{{% {} %}}` goes in the prompt below the front matter",
                import.tag
            );
            return Err(body.syntax_error(import.line, message));
        }
        Ok(Self::new(body, Vec::new()))
    }

    /// Returns the body as it was written.
    pub(crate) fn source(&self) -> &str {
        &self.body.source
    }

    fn files(&self) -> impl Iterator<Item = &TemplateFile> {
        std::iter::once(&self.body).chain(&self.others)
    }

    /// Finds the file and the line on which a variable is first used.
    pub(crate) fn place_of(&self, variable: &str) -> Option<(&str, usize)> {
        self.files()
            .find_map(|file| Some((&*file.origin, file.line_of(variable)?)))
    }

    /// Tells whether the template applies a filter.
    pub(crate) fn uses_filter(&self, filter: &str) -> bool {
        self.files().any(|file| file.scan.uses_filter(filter))
    }

    /// Lists the variables that the template expects from outside, in the order of their first use.
    ///
    /// A file that is imported sees what is set where it is imported: of its names only those are listed that
    /// no other file has.
    pub(crate) fn variables(&self) -> Result<Vec<String>, PromptError> {
        let no_inputs = Inputs::new();
        let (env, _) = self.environment(&no_inputs, &[])?;
        let mut variables = Vec::new();
        for file in self.files() {
            let undeclared = env
                .get_template(&file.name)
                .map_err(|error| self.translate(&error, &no_inputs))?
                .undeclared_variables(false);
            let is_body = file.name.starts_with(BODY);
            let mut names: Vec<String> = undeclared.into_iter().collect();
            names.retain(|name| {
                let elsewhere = || {
                    self.files()
                        .any(|other| other.name != file.name && other.scan.line_of(name).is_some())
                };
                !FUNCTIONS.contains(&name.as_str())
                    && name != "super"
                    && !variables.contains(name)
                    && (is_body || !elsewhere())
            });
            names.sort_by_key(|name| (file.scan.line_of(name), name.clone()));
            variables.extend(names);
        }
        Ok(variables)
    }

    /// Renders the template with inputs that were checked, for a checkpoint whose special tokens are `names`.
    pub(crate) fn render(&self, inputs: &Inputs, names: &[&str]) -> Result<Prompt, PromptError> {
        let (env, markers) = self.environment(inputs, names)?;
        let rendered = self.run(&env, inputs, &markers)?;
        if rendered.len() > MAX_PROMPT_BYTES {
            let limit = MAX_PROMPT_BYTES;
            return Err(PromptErrorKind::OutputTooLong { limit }.at(&self.body.origin, None));
        }
        tracing::debug!(
            file = &*self.body.origin,
            bytes = rendered.len(),
            "rendered a prompt"
        );
        Ok(markers.cut(&rendered))
    }

    /// Runs the template for what its `{{ }}` hold, which `collect` takes, and gives what marks special
    /// tokens in it.
    pub(crate) fn evaluate(
        &self,
        inputs: &Inputs,
        collect: impl Fn(&mut Output, &mut State, &Value) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<Arc<Markers>, PromptError> {
        let (mut env, markers) = self.environment(inputs, &[])?;
        env.set_formatter(collect);
        self.run(&env, inputs, &markers)?;
        Ok(markers)
    }

    fn run(
        &self,
        env: &Environment<'static>,
        inputs: &Inputs,
        markers: &Markers,
    ) -> Result<String, PromptError> {
        let values = Value::from_pairs(
            inputs
                .iter()
                .map(|(name, value)| (name.as_str(), template_value(value, markers))),
        );
        env.get_template(&self.body.name)
            .and_then(|template| template.render(values))
            .map_err(|error| self.translate(&error, inputs))
    }

    /// Makes the environment of one rendering, which has all files, marked.
    fn environment(
        &self,
        inputs: &Inputs,
        names: &[&str],
    ) -> Result<(Environment<'static>, Arc<Markers>), PromptError> {
        let specials: Vec<Cow<'_, [SpecialSite]>> = self
            .files()
            .map(|file| file.scan.specials_with(&file.source, names))
            .collect();
        let markers = self.markers(inputs, &specials)?;
        let mut env = environment(&markers).map_err(|error| self.translate(&error, inputs))?;
        env.set_path_join_callback(|name, parent| Cow::Owned(joined(name, parent)));
        for (file, specials) in self.files().zip(&specials) {
            env.add_template_owned(file.name.clone(), file.marked(&markers, specials))
                .map_err(|error| self.translate(&error, inputs))?;
        }
        Ok((env, markers))
    }

    fn markers(
        &self,
        inputs: &Inputs,
        specials: &[Cow<'_, [SpecialSite]>],
    ) -> Result<Arc<Markers>, PromptError> {
        let texts = inputs
            .values()
            .flat_map(texts_of)
            .chain(self.files().map(|file| file.source.as_str()));
        let images = inputs.values().flat_map(|value| value.pictures().iter().copied());
        let specials = specials
            .iter()
            .flat_map(|sites| sites.iter())
            .map(|site| site.token.as_str());
        let markers = Markers::choose(texts, images, specials).map_err(|NoMarkerLeft| {
            let message =
                "the inputs leave no private-use character to mark pictures with: give fewer pictures";
            let message = message.to_owned();
            PromptErrorKind::Render { message }.at(&self.body.origin, None)
        })?;
        Ok(Arc::new(markers))
    }

    /// Turns an error of minijinja into one of ours, with lines counted from the top of the file.
    fn translate(&self, error: &Error, inputs: &Inputs) -> PromptError {
        let place = line_and_name(error);
        let named = |name: &str| self.files().find(|file| file.name == name);
        let file = place
            .as_ref()
            .and_then(|(_, name)| named(name))
            .unwrap_or(&self.body);
        let line = place.map(|(line, _)| line + file.lines_before);
        let kind = kind_of(error, inputs);
        let line = match kind {
            PromptErrorKind::Syntax { .. } => line.or(Some(file.lines_before + 1)),
            _ => line,
        };
        kind.at(&file.origin, line)
    }
}

/// What the names of bodies start with; no path of an imported file may have a colon.
pub(crate) const BODY: &str = "body:";

/// Finds what a template means by the name of another. Each body has the files of its own task beside it.
fn joined(name: &str, parent: &str) -> String {
    if name.starts_with(BODY) {
        return name.to_owned();
    }
    let level = match parent.strip_prefix(BODY) {
        Some(level) => level,
        None => parent.split('/').next().unwrap_or_default(),
    };
    format!("{level}/{name}")
}

fn texts_of(value: &InputValue) -> Vec<&str> {
    match value {
        InputValue::Text(text) => vec![text.as_str()],
        InputValue::List(items) => items.iter().map(String::as_str).collect(),
        InputValue::Json(value) => json_value::texts(value),
        InputValue::Integer(_)
        | InputValue::Number(_)
        | InputValue::Boolean(_)
        | InputValue::Box(_)
        | InputValue::Image(_)
        | InputValue::Images(_) => Vec::new(),
    }
}

/// Gives a number that is written without a point where it is a whole one.
fn number(number: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole, and within the sides of a box"
    )]
    let whole = number as i64;
    if number.fract() == 0.0 {
        Value::from(whole)
    } else {
        Value::from(number)
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
        InputValue::Box(sides) => sides
            .iter()
            .map(|side| number(*side))
            .collect::<Vec<Value>>()
            .into(),
        InputValue::Image(index) => picture(index),
        InputValue::Images(indices) => indices.iter().map(picture).collect::<Vec<Value>>().into(),
        InputValue::Json(value) => json_value::template_value(value),
    }
}
