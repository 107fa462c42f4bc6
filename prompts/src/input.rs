//! Typed inputs: what a task declares, and what a caller gives.

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::error::InputError;
use crate::json_value;
use crate::suggest::{nearest, quoted};

/// Holds what a caller gives: values by the names of the task's inputs.
pub type Inputs = IndexMap<String, InputValue>;

/// The most items a list, or pictures a request, may have.
pub(crate) const MAX_ITEMS: usize = 4_096;

/// Names the type of an input, as task files write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InputKind {
    /// Any text.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One of a few texts that the task lists.
    Choice,
    /// A list of texts.
    List,
    /// A rectangle in a picture.
    Box,
    /// One picture.
    Image,
    /// Several pictures.
    Images,
    /// Any JSON: texts, numbers, booleans, nothing, and lists and mappings of them.
    Json,
}

impl InputKind {
    /// Lists all types.
    pub const ALL: [Self; 10] = [
        Self::Text,
        Self::Integer,
        Self::Number,
        Self::Boolean,
        Self::Choice,
        Self::List,
        Self::Box,
        Self::Image,
        Self::Images,
        Self::Json,
    ];

    /// Tells whether the input is one or more pictures, which are given as files.
    pub fn is_picture(self) -> bool {
        matches!(self, Self::Image | Self::Images)
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Text | Self::Choice => "text",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::List => "a list of texts",
            Self::Box => "a box of four numbers: left, top, right, bottom",
            Self::Image => "a picture",
            Self::Images => "a list of pictures",
            Self::Json => "JSON",
        }
    }
}

impl fmt::Display for InputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Choice => "choice",
            Self::List => "list",
            Self::Box => "box",
            Self::Image => "image",
            Self::Images => "images",
            Self::Json => "json",
        })
    }
}

/// Holds the value of an input.
///
/// Pictures are indices into the request's images: the pixels travel beside the prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum InputValue {
    /// Any text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A list of texts.
    List(Vec<String>),
    /// A rectangle in a picture: left, top, right, bottom.
    Box([f64; 4]),
    /// One picture: its index among the request's images.
    Image(usize),
    /// Several pictures: their indices among the request's images.
    Images(Vec<usize>),
    /// Any JSON. All texts in it are the caller's, those of keys too.
    Json(serde_json::Value),
}

impl InputValue {
    /// Names the type of the value; that of a choice is text.
    pub fn kind(&self) -> InputKind {
        match self {
            Self::Text(_) => InputKind::Text,
            Self::Integer(_) => InputKind::Integer,
            Self::Number(_) => InputKind::Number,
            Self::Boolean(_) => InputKind::Boolean,
            Self::List(_) => InputKind::List,
            Self::Box(_) => InputKind::Box,
            Self::Image(_) => InputKind::Image,
            Self::Images(_) => InputKind::Images,
            Self::Json(_) => InputKind::Json,
        }
    }

    /// Counts the bytes of text that the value holds.
    pub(crate) fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(items) => items.iter().map(String::len).sum(),
            Self::Json(value) => json_value::texts(value).iter().map(|text| text.len()).sum(),
            Self::Integer(_)
            | Self::Number(_)
            | Self::Boolean(_)
            | Self::Box(_)
            | Self::Image(_)
            | Self::Images(_) => 0,
        }
    }

    /// Lists the pictures that the value names.
    pub(crate) fn pictures(&self) -> &[usize] {
        match self {
            Self::Image(index) => std::slice::from_ref(index),
            Self::Images(indices) => indices,
            Self::Text(_)
            | Self::Integer(_)
            | Self::Number(_)
            | Self::Boolean(_)
            | Self::List(_)
            | Self::Box(_)
            | Self::Json(_) => &[],
        }
    }

    /// Says in words what the value is, for error messages.
    fn found(&self) -> String {
        match self {
            Self::Text(text) => format!("the text {}", quoted(text)),
            Self::Integer(value) => format!("the number {value}"),
            Self::Number(value) => format!("the number {value}"),
            Self::Boolean(value) => value.to_string(),
            Self::List(_) => "a list of texts".to_owned(),
            Self::Box(_) => "a box".to_owned(),
            Self::Image(_) => "a picture".to_owned(),
            Self::Images(_) => "a list of pictures".to_owned(),
            Self::Json(value) => format!("the JSON {}", quoted(&value.to_string())),
        }
    }
}

impl From<serde_json::Value> for InputValue {
    fn from(value: serde_json::Value) -> Self {
        Self::Json(value)
    }
}

impl From<&str> for InputValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for InputValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Says how the four numbers of a box are measured. The top left corner of the picture is 0, 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxUnit {
    /// In pixels of the picture as the caller has it, before it is resized.
    #[default]
    Pixels,
    /// In fractions of the picture's width and height, from 0 to 1.
    Fractions,
}

/// Declares an input: its type, and which values it may have.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct InputSpec {
    /// The type.
    #[serde(rename = "type")]
    pub kind: InputKind,
    /// What the input is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The value that it has when the caller gives none. Without one, the input is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<InputValue>,
    /// The texts of which it is one; only an input of type choice has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// The least number, or the fewest items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The greatest number, or the most items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The most characters that the text, or each item, may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// How the numbers of a box are measured; only an input of type box has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<BoxUnit>,
}

impl InputSpec {
    /// Declares an input that may have any value of its type.
    pub fn new(kind: InputKind) -> Self {
        Self {
            kind,
            description: None,
            default: None,
            choices: Vec::new(),
            min: None,
            max: None,
            max_length: None,
            unit: (kind == InputKind::Box).then(BoxUnit::default),
        }
    }

    /// Tells whether the caller must give this input.
    pub fn is_required(&self) -> bool {
        self.default.is_none()
    }

    /// Reads a value as the command line writes it, and checks it.
    ///
    /// A list is either a JSON array of strings, `["a", "b, c"]`, or its items with commas between them, `a,
    /// b`. A box is its left, top, right and bottom with commas between them. `true`, `false`, `yes` and `no`
    /// are booleans. An input of type json is JSON, and what is no JSON is a text.
    ///
    /// # Errors
    ///
    /// When the text is not a value of this type, when the value is not allowed, and always for pictures,
    /// which are given as files.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_prompts::{InputKind, InputSpec, InputValue};
    ///
    /// let spec = InputSpec::new(InputKind::List);
    /// assert_eq!(spec.parse("cat, dog")?, InputValue::List(vec!["cat".into(), "dog".into()]));
    /// # Ok::<(), multiway_prompts::InputError>(())
    /// ```
    pub fn parse(&self, text: &str) -> Result<InputValue, InputError> {
        let mistyped = || self.mistyped(format!("the text {}", quoted(text)));
        let value = match self.kind {
            InputKind::Text | InputKind::Choice => InputValue::Text(text.to_owned()),
            InputKind::Integer => InputValue::Integer(text.trim().parse().map_err(|_| mistyped())?),
            InputKind::Number => InputValue::Number(text.trim().parse().map_err(|_| mistyped())?),
            InputKind::Boolean => InputValue::Boolean(parse_boolean(text.trim()).ok_or_else(mistyped)?),
            InputKind::List => InputValue::List(parse_list(text)?),
            InputKind::Box => InputValue::Box(parse_box(text).ok_or_else(mistyped)?),
            InputKind::Json => InputValue::Json(json_value::parse(text)),
            InputKind::Image | InputKind::Images => return Err(InputError::Picture),
        };
        self.check(&value)?;
        Ok(value)
    }

    /// Checks that a value has this type and is allowed.
    ///
    /// A whole number is allowed where any number is.
    ///
    /// # Errors
    ///
    /// When it is not, saying what was expected and what was found.
    pub fn check(&self, value: &InputValue) -> Result<(), InputError> {
        match (self.kind, value) {
            (InputKind::Text, InputValue::Text(text)) => self.check_length(text),
            (InputKind::Choice, InputValue::Text(text)) => self.check_choice(text),
            (InputKind::Box, InputValue::Box(sides)) => self.check_box(*sides),
            (InputKind::Integer | InputKind::Number, InputValue::Integer(number)) => {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "bounds are small; only numbers beyond 2^53 are rounded"
                )]
                let rounded = *number as f64;
                self.check_range("a number", rounded, number.to_string())
            }
            (InputKind::Number, InputValue::Number(number)) => {
                if !number.is_finite() {
                    return Err(self.mistyped(format!("{number}")));
                }
                self.check_range("a number", *number, number.to_string())
            }
            (InputKind::Boolean, InputValue::Boolean(_)) | (InputKind::Image, InputValue::Image(_)) => Ok(()),
            (InputKind::List, InputValue::List(items)) => {
                self.check_count("a number of items", items.len())?;
                items.iter().try_for_each(|item| self.check_length(item))
            }
            (InputKind::Images, InputValue::Images(indices)) => {
                self.check_count("a number of pictures", indices.len())
            }
            (InputKind::Json, InputValue::Json(value)) => json_value::check(value),
            (_, other) => Err(self.mistyped(other.found())),
        }
    }

    /// Reads a value that is written as JSON or YAML, and checks it.
    ///
    /// # Errors
    ///
    /// When it is of another type or not allowed, and always for pictures, which are given as files.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_prompts::{InputKind, InputSpec, InputValue};
    ///
    /// let spec = InputSpec::new(InputKind::List);
    /// assert_eq!(spec.parse_json(&serde_json::json!(["cat"]))?, InputValue::List(vec!["cat".into()]));
    /// # Ok::<(), multiway_prompts::InputError>(())
    /// ```
    pub fn parse_json(&self, value: &serde_json::Value) -> Result<InputValue, InputError> {
        use serde_json::Value;
        let read = match (self.kind, value) {
            (InputKind::Text | InputKind::Choice, Value::String(text)) => {
                Some(InputValue::Text(text.clone()))
            }
            (InputKind::Integer, Value::Number(number)) => number.as_i64().map(InputValue::Integer),
            (InputKind::Number, Value::Number(number)) => number.as_f64().map(InputValue::Number),
            (InputKind::Boolean, Value::Bool(value)) => Some(InputValue::Boolean(*value)),
            (InputKind::List, Value::Array(items)) => texts(items).map(InputValue::List),
            (InputKind::Box, Value::Array(items)) => sides(items).map(InputValue::Box),
            (InputKind::Json, value) => Some(InputValue::Json(value.clone())),
            _ => None,
        };
        let value = read.ok_or_else(|| self.mistyped(self.found_in_yaml(value)))?;
        self.check(&value)?;
        Ok(value)
    }

    /// Says in words what the input should be: `text, one of a, b`.
    pub(crate) fn expected(&self) -> String {
        let mut expected = self.kind.expected().to_owned();
        if !self.choices.is_empty() {
            expected.push_str(", one of ");
            expected.push_str(&crate::suggest::listing(&self.choices));
        }
        expected
    }

    fn mistyped(&self, found: String) -> InputError {
        InputError::Type {
            expected: self.expected(),
            found,
        }
    }

    fn found_in_yaml(&self, value: &serde_json::Value) -> String {
        use serde_json::Value;
        let quotes = if matches!(self.kind, InputKind::Text | InputKind::Choice) {
            " (put it in quotes to make it text)"
        } else {
            ""
        };
        match value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("{value}{quotes}"),
            Value::Number(number) => format!("the number {number}{quotes}"),
            Value::String(text) => format!("the text {}", quoted(text)),
            Value::Array(items) if self.kind != InputKind::Box && texts(items).is_none() => {
                "a list with an item that is not text".to_owned()
            }
            Value::Array(items) => format!("a list of {} items", items.len()),
            Value::Object(_) => "a mapping".to_owned(),
        }
    }

    fn check_choice(&self, text: &str) -> Result<(), InputError> {
        if self.choices.iter().any(|choice| choice == text) {
            return Ok(());
        }
        Err(InputError::Choice {
            choices: self.choices.clone(),
            found: text.to_owned(),
            suggestion: nearest(text, self.choices.iter().map(String::as_str)),
        })
    }

    /// Checks that a box has an area, and lies in the picture as far as that is known.
    fn check_box(&self, sides: [f64; 4]) -> Result<(), InputError> {
        let [left, top, right, bottom] = sides;
        let (most, bound) = match self.unit.unwrap_or_default() {
            BoxUnit::Pixels => (f64::from(u32::MAX), "in pixels"),
            BoxUnit::Fractions => (1.0, "in fractions from 0 to 1"),
        };
        let inside = sides.iter().all(|side| (0.0..=most).contains(side));
        if inside && left < right && top < bottom {
            return Ok(());
        }
        Err(InputError::Type {
            expected: format!(
                "a box of left, top, right, bottom {bound}, with left before right and top above bottom"
            ),
            found: format!("{left}, {top}, {right}, {bottom}"),
        })
    }

    fn check_length(&self, text: &str) -> Result<(), InputError> {
        match self.max_length.map(|limit| (limit, text.chars().count())) {
            Some((limit, found)) if found > limit => Err(InputError::TooLong { limit, found }),
            _ => Ok(()),
        }
    }

    fn check_count(&self, what: &'static str, count: usize) -> Result<(), InputError> {
        if count > MAX_ITEMS {
            return Err(InputError::Range {
                what,
                bounds: format!("of at most {MAX_ITEMS}"),
                found: count.to_string(),
            });
        }
        #[expect(clippy::cast_precision_loss, reason = "at most MAX_ITEMS")]
        let number = count as f64;
        self.check_range(what, number, count.to_string())
    }

    fn check_range(&self, what: &'static str, number: f64, found: String) -> Result<(), InputError> {
        let below = self.min.is_some_and(|min| number < min);
        let above = self.max.is_some_and(|max| number > max);
        if !below && !above {
            return Ok(());
        }
        let bounds = match (self.min, self.max) {
            (Some(min), Some(max)) => format!("from {min} to {max}"),
            (Some(min), None) => format!("of at least {min}"),
            (None, Some(max)) => format!("of at most {max}"),
            (None, None) => return Ok(()),
        };
        Err(InputError::Range { what, bounds, found })
    }
}

fn parse_boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "yes" => Some(true),
        "false" | "no" => Some(false),
        _ => None,
    }
}

fn parse_list(text: &str) -> Result<Vec<String>, InputError> {
    let trimmed = text.trim();
    if trimmed.starts_with('[') {
        return serde_json::from_str(trimmed).map_err(|error| InputError::Type {
            expected: "a JSON array of strings, or items with commas between them".to_owned(),
            found: format!("{} ({error})", quoted(trimmed)),
        });
    }
    if trimmed.is_empty() {
        return Ok(Vec::new());
    }
    let items: Vec<String> = trimmed.split(',').map(|item| item.trim().to_owned()).collect();
    match items.iter().position(String::is_empty) {
        Some(position) => Err(InputError::Type {
            expected: "items with commas between them".to_owned(),
            found: format!("nothing at item {} of {}", position + 1, quoted(trimmed)),
        }),
        None => Ok(items),
    }
}

fn parse_box(text: &str) -> Option<[f64; 4]> {
    let inner = text.trim();
    let inner = inner
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(inner);
    let mut sides = inner.split(',').map(|side| side.trim().parse().ok());
    let read = [sides.next()??, sides.next()??, sides.next()??, sides.next()??];
    sides.next().is_none().then_some(read)
}

fn sides(items: &[serde_json::Value]) -> Option<[f64; 4]> {
    let sides: Vec<f64> = items
        .iter()
        .map(serde_json::Value::as_f64)
        .collect::<Option<_>>()?;
    sides.try_into().ok()
}

fn texts(items: &[serde_json::Value]) -> Option<Vec<String>> {
    items
        .iter()
        .map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// Checks a list of answers to choose from: not empty, no item empty, no item twice.
pub(crate) fn check_answers(answers: &[String]) -> Result<(), InputError> {
    if answers.is_empty() {
        return Err(InputError::Range {
            what: "texts to choose from:",
            bounds: "at least 1".to_owned(),
            found: "0".to_owned(),
        });
    }
    let mut seen = std::collections::HashSet::new();
    match answers
        .iter()
        .position(|answer| answer.trim().is_empty() || !seen.insert(answer.as_str()))
    {
        Some(index) => Err(InputError::Answers {
            found: answers.get(index).cloned().unwrap_or_default(),
            position: index + 1,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec_of(kind: InputKind) -> InputSpec {
        let mut spec = InputSpec::new(kind);
        spec.choices = vec!["a".into()];
        spec
    }

    fn value_of(kind: InputKind) -> InputValue {
        match kind {
            InputKind::Text | InputKind::Choice => InputValue::Text("a".into()),
            InputKind::Integer => InputValue::Integer(1),
            InputKind::Number => InputValue::Number(1.5),
            InputKind::Boolean => InputValue::Boolean(true),
            InputKind::List => InputValue::List(vec!["a".into()]),
            InputKind::Box => InputValue::Box([0.0, 0.0, 1.0, 0.5]),
            InputKind::Image => InputValue::Image(0),
            InputKind::Images => InputValue::Images(vec![0, 1]),
            InputKind::Json => InputValue::Json(serde_json::json!({"a": [1]})),
        }
    }

    #[test]
    fn a_value_is_allowed_for_its_own_type_and_a_whole_number_for_any_number_too() {
        for kind in InputKind::ALL {
            for other in InputKind::ALL {
                let allowed = value_of(kind).kind() == value_of(other).kind()
                    || (kind, other) == (InputKind::Number, InputKind::Integer);
                assert_eq!(
                    spec_of(kind).check(&value_of(other)).is_ok(),
                    allowed,
                    "{kind} given {other}"
                );
            }
        }
    }

    #[test]
    fn a_mistyped_value_is_described_in_words() {
        let message = |kind, other| {
            InputSpec::new(kind)
                .check(&value_of(other))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(InputKind::Image, InputKind::Images),
            "expected a picture, found a list of pictures"
        );
        assert_eq!(
            message(InputKind::Text, InputKind::Number),
            "expected text, found the number 1.5"
        );
        assert_eq!(
            message(InputKind::List, InputKind::Text),
            "expected a list of texts, found the text \"a\""
        );
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(
                InputSpec::new(InputKind::Number)
                    .check(&InputValue::Number(number))
                    .is_err()
            );
        }
    }

    #[test]
    fn lists_and_pictures_are_limited_in_number() {
        let many = vec![0; MAX_ITEMS + 1];
        assert!(
            InputSpec::new(InputKind::Images)
                .check(&InputValue::Images(many))
                .is_err()
        );
        let many = vec![String::new(); MAX_ITEMS + 1];
        assert!(
            InputSpec::new(InputKind::List)
                .check(&InputValue::List(many))
                .is_err()
        );
        assert!(
            InputSpec::new(InputKind::List)
                .parse(&",".repeat(2 * MAX_ITEMS))
                .is_err()
        );
    }

    #[test]
    fn a_box_has_four_sides_in_order_within_its_unit() {
        let mut spec = InputSpec::new(InputKind::Box);
        assert_eq!(
            spec.parse("1, 2, 30,40.5").unwrap(),
            InputValue::Box([1.0, 2.0, 30.0, 40.5])
        );
        assert_eq!(
            spec.parse("[1,2,3,4]").unwrap(),
            InputValue::Box([1.0, 2.0, 3.0, 4.0])
        );
        for wrong in [
            "",
            "1,2,3",
            "1,2,3,4,5",
            "3,2,1,4",
            "1,4,3,4",
            "-1,2,3,4",
            "nan,2,3,4",
            "1,2,inf,4",
        ] {
            assert!(spec.parse(wrong).is_err(), "{wrong}");
        }
        spec.unit = Some(BoxUnit::Fractions);
        assert!(spec.parse("0,0,1,1").is_ok());
        assert_eq!(
            spec.parse("0,0,1,2").unwrap_err().to_string(),
            "expected a box of left, top, right, bottom in fractions from 0 to 1, with left before right and top \
             above bottom, found 0, 0, 1, 2"
        );
    }

    #[test]
    fn a_list_is_read_from_commas_or_from_json() {
        let spec = InputSpec::new(InputKind::List);
        let list = |items: &[&str]| InputValue::List(items.iter().map(|item| (*item).to_owned()).collect());
        assert_eq!(spec.parse(" a , b ").unwrap(), list(&["a", "b"]));
        assert_eq!(spec.parse("[\"a, b\", \"\"]").unwrap(), list(&["a, b", ""]));
        assert_eq!(spec.parse("").unwrap(), list(&[]));
        assert!(spec.parse("[\"a\"").is_err());
    }
}
