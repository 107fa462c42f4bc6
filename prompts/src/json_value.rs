//! Inputs that are JSON: rows of data sets, whose fields are lists and mappings.

use minijinja::Value;
use serde_json::Value as Json;

use crate::error::InputError;

/// How deeply lists and mappings may nest in an input.
pub(crate) const MAX_DEPTH: usize = 32;

/// The most values that an input may have, those inside of lists and mappings counted.
pub(crate) const MAX_VALUES: usize = 10_000;

/// Reads JSON as the command line writes it. What is no JSON is a text, so that a plain one needs no quotes.
pub(crate) fn parse(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned()))
}

/// Checks how deep and how large a value is.
///
/// A value is walked without recursion: a program may give one of any depth.
pub(crate) fn check(value: &Json) -> Result<(), InputError> {
    let mut count = 0_usize;
    let mut open = vec![(value, 0)];
    while let Some((value, depth)) = open.pop() {
        count += 1;
        if depth > MAX_DEPTH {
            return Err(InputError::Range {
                what: "JSON with lists and mappings inside each other",
                bounds: format!("at most {MAX_DEPTH} deep"),
                found: "more".to_owned(),
            });
        }
        if count + open.len() > MAX_VALUES {
            return Err(InputError::Range {
                what: "JSON of",
                bounds: format!("at most {MAX_VALUES} values"),
                found: "more".to_owned(),
            });
        }
        open.extend(children(value).map(|child| (child, depth + 1)));
    }
    Ok(())
}

/// Lists all texts of a value, its keys too.
pub(crate) fn texts(value: &Json) -> Vec<&str> {
    let mut texts = Vec::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Json::String(text) => texts.push(text.as_str()),
            Json::Object(map) => texts.extend(map.keys().map(String::as_str)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) => {}
        }
        open.extend(children(value));
    }
    texts
}

fn children(value: &Json) -> Box<dyn Iterator<Item = &Json> + '_> {
    match value {
        Json::Array(items) => Box::new(items.iter()),
        Json::Object(map) => Box::new(map.values()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Box::new(std::iter::empty()),
    }
}

/// Gives a value that was checked to a template.
pub(crate) fn template_value(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => template_number(number),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(template_value).collect::<Vec<Value>>().into(),
        Json::Object(map) => Value::from_pairs(
            map.iter()
                .map(|(name, value)| (name.as_str(), template_value(value))),
        ),
    }
}

fn template_number(number: &serde_json::Number) -> Value {
    if let Some(whole) = number.as_i64() {
        return Value::from(whole);
    }
    match number.as_u64() {
        Some(whole) => Value::from(whole),
        None => Value::from(number.as_f64().unwrap_or(f64::NAN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nested(depth: usize) -> Json {
        (0..depth).fold(json!("x"), |inner, _| json!([inner]))
    }

    #[test]
    fn depth_and_number_of_values_are_limited() {
        assert!(check(&nested(MAX_DEPTH)).is_ok());
        assert!(check(&nested(MAX_DEPTH + 1)).is_err());
        assert!(check(&json!(vec![0; MAX_VALUES - 1])).is_ok());
        assert!(check(&json!(vec![0; MAX_VALUES])).is_err());
    }

    #[test]
    fn texts_are_those_of_keys_and_of_values() {
        let value = json!({"a": ["b", {"c": "d", "e": 1}], "f": null});
        let mut found = texts(&value);
        found.sort_unstable();
        assert_eq!(found, ["a", "b", "c", "d", "e", "f"]);
    }

    #[test]
    fn what_is_no_json_is_a_text() {
        assert_eq!(parse("[1, \"a\"]"), json!([1, "a"]));
        assert_eq!(parse("a cat"), json!("a cat"));
        assert_eq!(parse("[1"), json!("[1"));
    }
}
