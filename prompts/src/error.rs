//! What can go wrong with a task file, its inputs, and its rendering.

use std::error::Error;
use std::fmt;

use thiserror::Error;

use crate::patches::NoPatches;
use crate::suggest::{did_you_mean, listing, quoted};

/// Says why a task file could not be read or rendered, and where.
///
/// Each message names the file, the line where one is known (counted from the top of the *file*), what was
/// expected, what was found and, where it can be guessed, what was meant.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptError {
    origin: String,
    line: Option<usize>,
    kind: Box<PromptErrorKind>,
}

impl PromptError {
    /// Returns the file, as it was named when it was read.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the line, counted from the top of the file, where one is known.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// Returns what is wrong.
    pub fn kind(&self) -> &PromptErrorKind {
        &self.kind
    }
}

impl fmt::Display for PromptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let PromptErrorKind::FrontMatter { column, .. } = *self.kind {
            write!(f, ":{column}")?;
        }
        write!(f, ": {}", self.kind)
    }
}

impl Error for PromptError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

/// Says what is wrong with a task file, its inputs, or its rendering.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum PromptErrorKind {
    /// The file, or a part of it, is larger than a task file may be.
    #[error("the {part} has {bytes} bytes, and the most it may have is {limit}")]
    TooLarge {
        /// What is too large: `file`, `front matter`, `body` or `prompt with all files`.
        part: &'static str,
        /// Its size.
        bytes: usize,
        /// The most it may have.
        limit: usize,
    },
    /// The file is not UTF-8.
    #[error(
        "not UTF-8: the byte 0x{byte:02x} at offset {offset} does not continue a character; save the file as UTF-8"
    )]
    NotUtf8 {
        /// The offset of the offending byte from the start of the file.
        offset: usize,
        /// The offending byte.
        byte: u8,
    },
    /// The file is in UTF-16.
    #[error("it is in UTF-16, expected UTF-8; save the file as UTF-8")]
    Utf16,
    /// The file does not start with `---`.
    #[error(
        "expected a line `---` that opens the front matter, found {}; a task file looks like this:\n\n{EXAMPLE_FILE}",
        quoted(found)
    )]
    NoFrontMatter {
        /// The first line.
        found: String,
    },
    /// The front matter is not closed by a second `---`.
    #[error(
        "the front matter that line 1 opens is not closed: expected a second line `---` before the prompt; a task file looks like this:\n\n{EXAMPLE_FILE}"
    )]
    UnclosedFrontMatter,
    /// The front matter is not YAML, or not of the expected shape.
    #[error("front matter: {message}")]
    FrontMatter {
        /// The column.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A value in the front matter is not allowed.
    #[error("{key}: {message}")]
    Invalid {
        /// The key, with dots: `inputs.language.default`.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// The body is empty.
    #[error(
        "the prompt is empty: write it below the front matter, for example `{{{{ image }}}}Caption: <extra_id_0>`"
    )]
    EmptyBody,
    /// The body is not a Jinja template.
    #[error("{message}")]
    Syntax {
        /// What is wrong.
        message: String,
    },
    /// The body uses a name that is no input.
    #[error(
        "'{name}' is not defined{} (inputs: {})",
        did_you_mean(suggestion.as_ref()),
        listing(inputs)
    )]
    Undefined {
        /// The name, or the expression, that is not defined.
        name: String,
        /// The inputs that exist.
        inputs: Vec<String>,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// An input is declared and nowhere used.
    #[error(
        "the input '{name}' is declared but not used: write {{{{ {name} }}}} in the prompt, or remove it from `inputs`"
    )]
    UnusedInput {
        /// The input.
        name: String,
    },
    /// An input of a task that is extended is nowhere used.
    #[error(
        "the input '{name}' of '{from}' is not used: write {{{{ {name} }}}} in the prompt, or remove it by `{name}: null` in `inputs`"
    )]
    UnusedInherited {
        /// The input.
        name: String,
        /// The task file that declares it.
        from: String,
    },
    /// A required input is missing.
    #[error("the input '{name}' ({expected}) is missing (inputs: {})", listing(inputs))]
    MissingInput {
        /// The input.
        name: String,
        /// What it should be.
        expected: String,
        /// The inputs that exist.
        inputs: Vec<String>,
    },
    /// An input is given that the task does not have.
    #[error(
        "there is no input '{name}'{} (inputs: {})",
        did_you_mean(suggestion.as_ref()),
        listing(inputs)
    )]
    UnknownInput {
        /// The name that was given.
        name: String,
        /// The inputs that exist.
        inputs: Vec<String>,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// The value of an input is not allowed.
    #[error("input '{name}': {error}")]
    Input {
        /// The input.
        name: String,
        /// What is wrong with the value.
        #[source]
        error: InputError,
    },
    /// A field that the target is made of is missing.
    #[error("the field '{name}' of the target is missing (fields: {})", listing(fields))]
    MissingField {
        /// The field.
        name: String,
        /// The fields that the target is made of.
        fields: Vec<String>,
    },
    /// A field is given that the target does not use.
    #[error(
        "the target has no field '{name}'{} (fields: {})",
        did_you_mean(suggestion.as_ref()),
        listing(fields)
    )]
    UnknownField {
        /// The name that was given.
        name: String,
        /// The fields that the target is made of.
        fields: Vec<String>,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// Something is wrong with a few-shot example.
    #[error("shot {number}: {error}")]
    Shot {
        /// The number of the shot, counted from 1.
        number: usize,
        /// What is wrong.
        error: Box<Self>,
    },
    /// There are too many few-shot examples.
    #[error("expected at most {limit} shots, found {found}")]
    TooManyShots {
        /// How many there are.
        found: usize,
        /// The most that there may be.
        limit: usize,
    },
    /// The inputs hold too much text.
    #[error("the inputs hold {bytes} bytes of text, and the most they may hold together is {limit}")]
    InputsTooLarge {
        /// Their size together.
        bytes: usize,
        /// The most they may have.
        limit: usize,
    },
    /// A picture, or something else that is no text, stands where text is needed.
    #[error("{message}")]
    NotText {
        /// What stands where, and what to write instead.
        message: String,
    },
    /// The text to fill in has no gap, or too many.
    #[error("{message}")]
    Gaps {
        /// What is wrong.
        message: String,
    },
    /// The template ran for too long.
    #[error(
        "the prompt takes too many steps to render (more than {limit}): look for a loop that is too long"
    )]
    OutOfFuel {
        /// The most steps that rendering may take.
        limit: u64,
    },
    /// Macros call each other too deeply.
    #[error("the prompt recurses too deeply: look for a macro that calls itself")]
    TooDeep,
    /// The prompt is too long.
    #[error("the prompt is longer than {limit} bytes")]
    OutputTooLong {
        /// The most that a prompt may have.
        limit: usize,
    },
    /// Rendering failed for another reason.
    #[error("{message}")]
    Render {
        /// What is wrong.
        message: String,
    },
}

impl PromptErrorKind {
    /// Says where it is: in which file, and on which line where that is known.
    pub(crate) fn at(self, origin: &str, line: Option<usize>) -> PromptError {
        PromptError {
            origin: origin.to_owned(),
            line,
            kind: Box::new(self),
        }
    }
}

/// Says why a value is not allowed for an input.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum InputError {
    /// The value has another type.
    #[error("expected {expected}, found {found}")]
    Type {
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The value is not one of the choices.
    #[error(
        "expected one of {}, found {}{}",
        listing(choices),
        quoted(found),
        did_you_mean(suggestion.as_ref())
    )]
    Choice {
        /// The choices.
        choices: Vec<String>,
        /// What was found.
        found: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// The value, or the number of items, is too small or too large.
    #[error("expected {what} {bounds}, found {found}")]
    Range {
        /// What is counted: `a number`, `a count of items`.
        what: &'static str,
        /// The bounds, in words.
        bounds: String,
        /// What was found.
        found: String,
    },
    /// The text is too long.
    #[error("expected at most {limit} characters, found {found}")]
    TooLong {
        /// The most it may have.
        limit: usize,
        /// What it has.
        found: usize,
    },
    /// A list of texts to choose from has an item that is empty or comes twice.
    #[error(
        "expected texts that differ and are not empty, found {} at item {position}",
        quoted(found)
    )]
    Answers {
        /// The item.
        found: String,
        /// Its place, counted from 1.
        position: usize,
    },
    /// A list of patches has an item that names none, or no item at all.
    #[error(transparent)]
    Patches(#[from] NoPatches),
    /// Pictures cannot be written as text.
    #[error("expected a picture; a picture is given as a file, not as text")]
    Picture,
}

/// Shows what a task file looks like, for errors about its frame.
const EXAMPLE_FILE: &str = "\
---
description: Says what is in a picture.
inputs:
  image: {type: image}
output: {kind: text}
---
{{ image }}Caption: <extra_id_0>";
