//! What a job writes for a record.

use multiway_tasks::{Answer, TaskOutcome};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::boxes::RightBox;

/// The result of one record, a line of JSON.
///
/// It holds nothing that another run of the same job would give otherwise, such as times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Row {
    /// The record.
    pub id: String,
    /// Its group, if records are in groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The text of the answer, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The typed answer, by the name of its kind; empty for text.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub answer: Map<String, Value>,
    /// The right answers, where the job evaluates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// The boxes that should be found, where the job evaluates boxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boxes: Option<Vec<RightBox>>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Row {
    /// Makes the row of an answered record.
    pub(crate) fn answered(id: String, group: Option<String>, outcome: &TaskOutcome) -> Self {
        Self {
            id,
            group,
            text: outcome.answer.text().map(str::to_owned),
            answer: typed(&outcome.answer),
            references: Vec::new(),
            boxes: None,
            error: None,
        }
    }

    /// Makes the row of a record that has no answer.
    pub(crate) fn failed(id: String, group: Option<String>, error: String) -> Self {
        Self {
            id,
            group,
            text: None,
            answer: Map::new(),
            references: Vec::new(),
            boxes: None,
            error: Some(error),
        }
    }
}

/// Writes an answer as `multiway run --json` does, without its text.
fn typed(answer: &Answer) -> Map<String, Value> {
    let mut fields = answer.typed();
    if !answer.choices().is_empty() {
        fields.insert("choices".to_owned(), json!(answer.choices()));
    }
    if let Some(vector) = answer.embedding() {
        fields.insert("embedding".to_owned(), json!(vector));
    }
    if let Some(value) = answer.json() {
        fields.insert("value".to_owned(), value.clone());
    }
    if !answer.patches().is_empty() {
        fields.insert("patches".to_owned(), json!(answer.patches()));
    }
    fields
}
