//! Typed answers as JSON.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::answer::Answer;
use crate::parse::Form;

impl Answer {
    /// Returns the typed value under the name of its kind, as JSON; empty for text, choices, JSON, embeddings
    /// and patches, which have methods of their own.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::Answer;
    ///
    /// let answer = Answer::Predicate { value: true, probability: 0.9, choices: Vec::new() };
    /// assert_eq!(answer.typed()["predicate"]["value"], true);
    /// ```
    pub fn typed(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        match self {
            Self::Predicate {
                value, probability, ..
            } => {
                let predicate = json!({"value": value, "probability": probability});
                fields.insert("predicate".to_owned(), predicate);
            }
            Self::Level { expected, .. } => {
                let level = json!({"text": self.text(), "expected": expected});
                fields.insert("level".to_owned(), level);
            }
            Self::Labels { labels, .. } => {
                if let Value::Object(read) = to_json(labels) {
                    fields = read;
                }
            }
            Self::Number { number, .. } => drop(fields.insert("number".to_owned(), to_json(number))),
            Self::Located { form, objects, .. } => {
                let name = match form {
                    Form::Box => "boxes",
                    Form::Point => "points",
                    Form::Polygon => "polygons",
                };
                fields.insert(name.to_owned(), to_json(objects));
            }
            Self::Grounded { grounded, .. } => drop(fields.insert("grounded".to_owned(), to_json(grounded))),
            Self::Table { table, .. } => drop(fields.insert("table".to_owned(), to_json(table))),
            Self::Score {
                log_probability,
                tokens,
                ..
            } => {
                let score = json!({"log_probability": log_probability, "tokens": tokens});
                fields.insert("score".to_owned(), score);
            }
            Self::Text { .. }
            | Self::Choice { .. }
            | Self::Embedding(_)
            | Self::Json { .. }
            | Self::Patches(_) => {}
        }
        fields
    }
}

/// Writes a value as JSON. Its maps have names for keys, and its numbers are finite, so that this cannot
/// fail.
fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use multiway_prompts::{LocationDialect, NumberSpec};

    use super::*;
    use crate::parse::{PictureView, parse_labels, parse_locations, parse_number};

    #[test]
    fn typed_values_stand_under_the_name_of_their_kind() {
        let text = "cat<loc_0><loc_0><loc_999><loc_999>".to_owned();
        let view = PictureView::whole(1000, 500);
        let objects = parse_locations(&text, Form::Box, LocationDialect::Florence2, &view);
        let boxes = Answer::Located {
            form: Form::Box,
            objects,
            text,
        }
        .typed();
        assert_eq!(
            Value::Object(boxes),
            json!({"boxes": [{
                "label": "cat",
                "pixels": [0.5, 0.25, 999.5, 499.75],
                "fractions": [0.0005, 0.0005, 0.9995, 0.9995],
                "raw": "cat<loc_0><loc_0><loc_999><loc_999>"
            }]})
        );
        let number = parse_number("many", &NumberSpec::default());
        let number = Answer::Number {
            number,
            text: "many".to_owned(),
        }
        .typed();
        assert_eq!(
            Value::Object(number),
            json!({"number": {"value": null, "problem": "expected a number in English, found \"many\""}})
        );
        let labels = parse_labels("a,b", ",", Some(&["a".to_owned()]));
        let labels = Answer::Labels {
            labels,
            text: "a,b".to_owned(),
        }
        .typed();
        assert_eq!(Value::Object(labels), json!({"labels": ["a"], "unknown": ["b"]}));
    }
}
