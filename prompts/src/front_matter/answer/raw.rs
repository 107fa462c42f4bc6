//! `output` as it is written.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::front_matter::problem::line;

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawOutput {
    pub(super) kind: Spanned<String>,
    pub(super) choices: Option<Spanned<RawChoices>>,
    pub(super) choices_from: Option<Spanned<String>>,
    pub(super) of_model: Option<Spanned<bool>>,
    pub(super) method: Option<Spanned<String>>,
    pub(super) normalization: Option<Spanned<String>>,
    pub(super) calibration: Option<Spanned<RawCalibration>>,
    pub(super) yes: Option<Spanned<String>>,
    pub(super) no: Option<Spanned<String>>,
    pub(super) levels: Option<Spanned<Vec<String>>>,
    pub(super) values: Option<Spanned<Vec<f64>>>,
    pub(super) separator: Option<Spanned<String>>,
    pub(super) language: Option<Spanned<String>>,
    pub(super) integer: Option<Spanned<bool>>,
    pub(super) min: Option<Spanned<f64>>,
    pub(super) max: Option<Spanned<f64>>,
    pub(super) unit: Option<Spanned<String>>,
    pub(super) dialect: Option<Spanned<String>>,
    pub(super) target_from: Option<Spanned<String>>,
    pub(super) fill: Option<Spanned<String>>,
    pub(super) hidden: Option<Spanned<String>>,
    pub(super) schema: Option<Spanned<serde_json::Value>>,
}

/// The answers to choose from: a list, or a template.
#[derive(Debug)]
pub(super) enum RawChoices {
    Listed(Vec<String>),
    Computed(String),
}

impl RawChoices {
    /// Returns the answers that are listed.
    pub(super) fn listed(&self) -> &[String] {
        match self {
            Self::Listed(answers) => answers,
            Self::Computed(_) => &[],
        }
    }
}

impl<'de> Deserialize<'de> for RawChoices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RawChoices;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list, written `[a, b]`, or a template")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawChoices, E> {
                Ok(RawChoices::Computed(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<RawChoices, A::Error> {
                let items = SeqAccessDeserializer::new(items);
                Vec::deserialize(items).map(RawChoices::Listed)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCalibration {
    pub(super) temperature: Spanned<f64>,
}

/// What has ranked answers.
const RANKED: &[&str] = &["choice", "predicate", "level"];
/// What has locations in a picture.
pub(super) const LOCATED: &[&str] = &["boxes", "points", "polygons", "grounded"];

/// An option of an output.
pub(super) struct RawOption {
    pub(super) name: &'static str,
    /// The line of its value, if it is given.
    pub(super) found: Option<Option<usize>>,
    /// The kinds that have it.
    pub(super) owners: &'static [&'static str],
}

impl RawOption {
    fn new<T>(name: &'static str, value: Option<&Spanned<T>>, owners: &'static [&'static str]) -> Self {
        let found = value.map(line);
        Self { name, found, owners }
    }
}

impl RawOutput {
    /// Returns the line of `choices`.
    pub(crate) fn choices_line(&self) -> Option<usize> {
        self.choices.as_ref().and_then(line)
    }

    /// Lists the options that task files may have.
    pub(super) fn options(&self) -> [RawOption; 21] {
        [
            RawOption::new("choices", self.choices.as_ref(), &["choice", "labels"]),
            RawOption::new("choices_from", self.choices_from.as_ref(), &["choice", "labels"]),
            RawOption::new("of_model", self.of_model.as_ref(), &["choice"]),
            RawOption::new("method", self.method.as_ref(), &["choice"]),
            RawOption::new("normalization", self.normalization.as_ref(), RANKED),
            RawOption::new("calibration", self.calibration.as_ref(), RANKED),
            RawOption::new("yes", self.yes.as_ref(), &["predicate"]),
            RawOption::new("no", self.no.as_ref(), &["predicate"]),
            RawOption::new("levels", self.levels.as_ref(), &["level"]),
            RawOption::new("values", self.values.as_ref(), &["level"]),
            RawOption::new("separator", self.separator.as_ref(), &["labels"]),
            RawOption::new("language", self.language.as_ref(), &["number"]),
            RawOption::new("integer", self.integer.as_ref(), &["number"]),
            RawOption::new("min", self.min.as_ref(), &["number"]),
            RawOption::new("max", self.max.as_ref(), &["number"]),
            RawOption::new("unit", self.unit.as_ref(), &["number"]),
            RawOption::new("dialect", self.dialect.as_ref(), LOCATED),
            RawOption::new("target_from", self.target_from.as_ref(), &["score"]),
            RawOption::new("fill", self.fill.as_ref(), &["text"]),
            RawOption::new("hidden", self.hidden.as_ref(), &["patches"]),
            RawOption::new("schema", self.schema.as_ref(), &["json"]),
        ]
    }
}
