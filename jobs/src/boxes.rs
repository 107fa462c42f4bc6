//! The boxes that a record says should be found.

use multiway_prompts::BoxUnit;
use multiway_tasks::metrics::BoundingBox;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A box that should be found, as rows hold it.
///
/// Its edges are left, top, right and bottom, in pixels of the picture as the data has it or in fractions of
/// its width and height: the two ways in which answers hold theirs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RightBox {
    /// What it holds; empty if the data does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Its edges.
    #[serde(flatten)]
    pub edges: Edges,
    /// Whether it is a region of many things, which need not be found.
    #[serde(default, skip_serializing_if = "is_false")]
    pub crowd: bool,
}

/// The edges of a box.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Edges {
    /// In pixels of the picture.
    Pixels([f64; 4]),
    /// In fractions of the picture, from 0 to 1.
    Fractions([f64; 4]),
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

impl Edges {
    fn new(edges: [f64; 4], unit: BoxUnit) -> Self {
        match unit {
            BoxUnit::Pixels => Self::Pixels(edges),
            _ => Self::Fractions(edges),
        }
    }

    /// Returns the box that they are of.
    pub(crate) fn bounds(self) -> BoundingBox {
        let (Self::Pixels(edges) | Self::Fractions(edges)) = self;
        BoundingBox::new(edges)
    }
}

/// Reads the boxes of a field: a list of objects, one object, or a text that is such JSON. `unit` is that of
/// `box` and of `x0`, `y0`, `x1`, `y1`, which do not name theirs.
///
/// The error says what is wrong with the value.
pub(crate) fn read_boxes(value: &Value, unit: BoxUnit) -> Result<Vec<RightBox>, String> {
    let boxes = match value {
        Value::Array(items) => items.iter().map(|item| read_box(item, unit)).collect(),
        Value::Object(_) => read_box(value, unit).map(|found| vec![found]),
        Value::String(text) => {
            let inner: Value = serde_json::from_str(text).map_err(|_| expected(value))?;
            return match inner {
                Value::String(_) => Err(expected(value)),
                inner => read_boxes(&inner, unit),
            };
        }
        _ => Err(expected(value)),
    };
    let boxes: Vec<RightBox> = boxes?;
    let pixels = boxes
        .iter()
        .filter(|found| matches!(found.edges, Edges::Pixels(_)));
    match pixels.count() {
        count if count == 0 || count == boxes.len() => Ok(boxes),
        _ => Err("some boxes are in pixels and some in fractions: expected one unit in a record".to_owned()),
    }
}

fn expected(found: &Value) -> String {
    let found: String = found.to_string().chars().take(80).collect();
    format!(r#"expected boxes such as {{"label": "cat", "pixels": [10, 20, 50, 90]}}, found {found}"#)
}

fn read_box(value: &Value, unit: BoxUnit) -> Result<RightBox, String> {
    let fields = value.as_object().ok_or_else(|| expected(value))?;
    let listed = |name: &str, unit| Some(Edges::new(numbers(fields.get(name)?.as_array()?)?, unit));
    let edges = listed("pixels", BoxUnit::Pixels)
        .or_else(|| listed("fractions", BoxUnit::Fractions))
        .or_else(|| listed("box", unit))
        .or_else(|| Some(Edges::new(corners(fields)?, unit)))
        .ok_or_else(|| expected(value))?;
    let bounds = edges.bounds();
    if bounds.left > bounds.right || bounds.top > bounds.bottom {
        let [left, top, right, bottom] = [bounds.left, bounds.top, bounds.right, bounds.bottom];
        return Err(format!(
            "expected the edges left, top, right, bottom of a box, found {left}, {top}, {right}, {bottom}"
        ));
    }
    let label = fields.get("label").or_else(|| fields.get("name"));
    let crowd = fields.get("crowd").or_else(|| fields.get("iscrowd"));
    Ok(RightBox {
        label: label.and_then(Value::as_str).unwrap_or_default().to_owned(),
        edges,
        crowd: crowd.is_some_and(|crowd| crowd == &Value::Bool(true) || crowd.as_f64() == Some(1.0)),
    })
}

fn numbers(items: &[Value]) -> Option<[f64; 4]> {
    let numbers: Option<Vec<f64>> = items.iter().map(Value::as_f64).collect();
    numbers?.try_into().ok()
}

fn corners(fields: &Map<String, Value>) -> Option<[f64; 4]> {
    let edge = |name: &str| fields.get(name)?.as_f64();
    Some([edge("x0")?, edge("y0")?, edge("x1")?, edge("y1")?])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Value, String> {
        read_boxes(value, BoxUnit::Fractions).map(|boxes| json!(boxes))
    }

    #[test]
    fn boxes_in_each_form_become_those_of_a_row() {
        let native = json!([{"label": "cat", "pixels": [1.0, 2.0, 3.0, 4.0]}, {"pixels": [0.0, 0.0, 9.0, 9.0], "crowd": true}]);
        assert_eq!(read(&native).unwrap(), native);
        let corners = json!({"name": "sun", "x0": 0.25, "y0": 0, "x1": 0.5, "y1": 1});
        let fractions = json!([{"label": "sun", "fractions": [0.25, 0.0, 0.5, 1.0]}]);
        assert_eq!(read(&corners).unwrap(), fractions);
        let listed = json!([{"name": "sun", "box": [0.25, 0, 0.5, 1], "iscrowd": 0}]);
        assert_eq!(read(&listed).unwrap(), fractions);
        // Tables hold everything as text.
        assert_eq!(read(&json!(listed.to_string())).unwrap(), fractions);
        assert_eq!(read(&json!([])).unwrap(), json!([]));
        let row: Vec<RightBox> = serde_json::from_value(native.clone()).unwrap();
        assert_eq!(json!(row), native);
    }

    #[test]
    fn what_is_no_box_is_told_with_what_was_expected() {
        for (value, message) in [
            (json!("a cat"), "expected boxes such as"),
            (json!("\"a cat\""), "expected boxes such as"),
            (json!([{"label": "cat"}]), "found {\"label\":\"cat\"}"),
            (json!([{"box": [1, 2, 3]}]), "expected boxes such as"),
            (json!({"box": [0.5, 0, 0.1, 1]}), "found 0.5, 0, 0.1, 1"),
            (
                json!([{"pixels": [0, 0, 1, 1]}, {"box": [0, 0, 1, 1]}]),
                "expected one unit",
            ),
        ] {
            let error = read(&value).unwrap_err();
            assert!(error.contains(message), "{value}: {error}");
        }
    }
}
