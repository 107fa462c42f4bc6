//! One file of a template: a body, or a file that bodies import. Checked once, marked for each rendering.

use std::sync::Arc;

use minijinja::Error;

use crate::error::{PromptError, PromptErrorKind};
use crate::input::Inputs;
use crate::markers::Markers;
use crate::prompt::PromptPart;
use crate::render_error::{kind_of, line_and_name};
use crate::sandbox::{FILTERS, TESTS, environment, syntax};
use crate::scan::{BadSpecial, ImportSite, NameRole, NameSite, Scan, SpecialSite, TooLarge};
use crate::special::SPECIAL_FORMS;
use crate::suggest::{did_you_mean, nearest, quoted};

/// A file that compiles and uses nothing that it may not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TemplateFile {
    /// What minijinja calls it.
    pub(crate) name: String,
    pub(crate) origin: Arc<str>,
    pub(crate) source: String,
    /// The lines of the file before the template.
    pub(crate) lines_before: usize,
    pub(crate) scan: Scan,
    /// The name of the body whose blocks this one overrides.
    pub(crate) extends: Option<String>,
}

impl TemplateFile {
    /// Checks the syntax, the filters, the imports, and the calls of `special`.
    pub(crate) fn parse(
        name: String,
        origin: &str,
        source: &str,
        lines_before: usize,
    ) -> Result<Self, PromptError> {
        let mut file = Self {
            name,
            origin: origin.into(),
            source: source.to_owned(),
            lines_before,
            scan: Scan::default(),
            extends: None,
        };
        let syntax = syntax().map_err(|error| file.translate(&error))?;
        file.scan = Scan::new(source, syntax);
        file.check_size()?;
        file.check_imports()?;
        let markers = Markers::none();
        environment(&Arc::new(markers))
            .and_then(|env| env.template_from_named_str(origin, source).map(drop))
            .map_err(|error| file.translate(&error))?;
        file.check_specials()?;
        file.check_self()?;
        file.check_names(NameRole::Filter, "filter", &FILTERS)?;
        file.check_names(NameRole::Test, "test", &TESTS)?;
        Ok(file)
    }

    /// Writes the file with every special token replaced by its marker, behind what it extends. Lines stay
    /// where they are.
    pub(crate) fn marked(&self, markers: &Markers, specials: &[SpecialSite]) -> String {
        let mut marked = String::with_capacity(self.source.len() + 32);
        if let Some(parent) = &self.extends {
            marked.push_str(&format!("{{% extends \"{parent}\" %}}"));
        }
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

    /// Returns the line of the file on which a variable is first used.
    pub(crate) fn line_of(&self, variable: &str) -> Option<usize> {
        self.scan.line_of(variable).map(|line| line + self.lines_before)
    }

    /// Makes an error for a line of the template.
    pub(crate) fn syntax_error(&self, line: usize, message: String) -> PromptError {
        PromptErrorKind::Syntax { message }.at(&self.origin, Some(line + self.lines_before))
    }

    /// Turns an error of compiling into one of ours, with lines counted from the top of the file.
    pub(crate) fn translate(&self, error: &Error) -> PromptError {
        let kind = kind_of(error, &Inputs::new());
        let line = line_and_name(error).map(|(line, _)| line + self.lines_before);
        let line = match kind {
            PromptErrorKind::Syntax { .. } => line.or(Some(self.lines_before + 1)),
            _ => line,
        };
        kind.at(&self.origin, line)
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

    /// Checks that files are imported by names that are written down, so that no input can choose one.
    fn check_imports(&self) -> Result<(), PromptError> {
        let bad = self.scan.imports.iter().find(|site| site.path.is_none());
        let Some(ImportSite { line, tag, .. }) = bad else {
            return Ok(());
        };
        let message = match *tag {
            "extends" => {
                "a task extends another by `extends:` and its name in the front matter: remove this tag"
            }
            "include" => {
                "expected `{% include \"file.jinja\" %}`, with the path of one file in quotes and nothing behind it"
            }
            "import" => "expected `{% import \"file.jinja\" as name %}`, with the path of one file in quotes",
            _ => "expected `{% from \"file.jinja\" import name %}`, with the path of one file in quotes",
        };
        Err(self.syntax_error(*line, message.to_owned()))
    }

    /// Checks that no block is called: a block that calls itself would need more stack than there is.
    fn check_self(&self) -> Result<(), PromptError> {
        let is_self = |site: &&NameSite| site.role == NameRole::Variable && site.name == "self";
        let Some(site) = self.scan.names.iter().find(is_self) else {
            return Ok(());
        };
        let message = "a block is written where it stands, and `self` cannot call it: use a macro instead";
        Err(self.syntax_error(site.line, message.to_owned()))
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
}
