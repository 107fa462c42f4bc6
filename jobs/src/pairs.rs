//! Pictures and the texts that belong to them, as vectors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use multiway_data::Record;
use multiway_prompts::{InputKind, InputValue};
use multiway_tasks::TaskInputs;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::digest;
use crate::error::JobError;
use crate::job::Job;
use crate::row::Row;

/// The most texts of a picture, so that a row stays small.
const MAX_TEXTS: usize = 1000;

/// The inputs of a task that makes vectors of pictures and of texts.
#[derive(Debug, Clone)]
pub(crate) struct PairInputs {
    picture: String,
    text: String,
    /// The field of the data with the texts of a picture.
    pub(crate) texts: String,
}

/// The vectors of a record, as its row holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pair {
    /// The digest of the picture's file, by which it is told from others.
    pub(crate) picture: String,
    /// Its vector.
    pub(crate) picture_vector: Vector,
    /// The texts that belong to it.
    pub(crate) texts: Vec<String>,
    /// Their vectors.
    pub(crate) text_vectors: Vec<Vector>,
}

/// A vector, written as base64 of its numbers in 32 bits, the lowest byte first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Vector(pub(crate) Vec<f32>);

impl From<Vector> for String {
    fn from(vector: Vector) -> Self {
        let bytes: Vec<u8> = vector.0.iter().flat_map(|number| number.to_le_bytes()).collect();
        STANDARD.encode(bytes)
    }
}

impl TryFrom<String> for Vector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
        let (numbers, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(format!(
                "expected numbers of 4 bytes, found {} bytes",
                bytes.len()
            ));
        }
        Ok(Self(
            numbers.iter().map(|number| f32::from_le_bytes(*number)).collect(),
        ))
    }
}

impl Job<'_> {
    /// Finds the inputs for pictures and texts. `texts` is the field with the texts of a picture; without it,
    /// that of the input.
    pub(crate) fn pair_inputs(&self, texts: Option<&str>) -> Result<PairInputs, JobError> {
        let inputs = &self.task.file().inputs;
        let mut pictures = inputs.iter().filter(|(_, spec)| spec.kind.is_picture());
        let mut written = inputs
            .iter()
            .filter(|(name, spec)| spec.kind == InputKind::Text && !self.binding.is_set(name));
        match (pictures.next(), pictures.next(), written.next(), written.next()) {
            (Some((picture, spec)), None, Some((text, of_text)), None)
                if spec.kind == InputKind::Images && !of_text.is_required() =>
            {
                Ok(PairInputs {
                    picture: picture.clone(),
                    text: text.clone(),
                    texts: texts.unwrap_or(self.binding.path(text)).to_owned(),
                })
            }
            _ => Err(JobError::NoPairs {
                task: self.task.name().to_owned(),
            }),
        }
    }

    /// Makes the vectors of a record's picture and of each of its texts.
    pub(crate) async fn embed_pair(
        &self,
        record: &Record,
        inputs: &PairInputs,
        texts: Vec<String>,
    ) -> Result<Row, JobError> {
        let (id, group) = (record.id().to_owned(), self.group_of(record));
        let (picture, of_picture) = match self.picture_inputs(record, inputs) {
            Ok(found) => found,
            Err(reason) => return Ok(Row::failed(id, group, reason)),
        };
        let texts: Vec<String> = texts.into_iter().filter(|text| !text.trim().is_empty()).collect();
        if texts.is_empty() || texts.len() > MAX_TEXTS {
            let found = texts.len();
            let reason = format!("expected 1 to {MAX_TEXTS} texts of the picture, found {found}");
            return Ok(Row::failed(id, group, reason));
        }
        let of_texts = texts.iter().map(|text| {
            let mut given = self.binding.fixed().clone();
            given
                .values
                .insert(inputs.text.clone(), InputValue::Text(text.clone()));
            given
        });
        let mut vectors = Vec::with_capacity(texts.len() + 1);
        for given in std::iter::once(of_picture).chain(of_texts) {
            match self.outcome(&given).await? {
                Ok(outcome) => vectors.push(Vector(outcome.answer.embedding().unwrap_or_default().to_vec())),
                Err(reason) => return Ok(Row::failed(id, group, reason)),
            }
        }
        Ok(Row::of_pair(
            id,
            group,
            &Pair {
                picture,
                picture_vector: vectors.remove(0),
                texts,
                text_vectors: vectors,
            },
        ))
    }

    /// Reads the picture of a record: its digest, and the inputs that hold it alone.
    fn picture_inputs(&self, record: &Record, inputs: &PairInputs) -> Result<(String, TaskInputs), String> {
        let pictures = self.binding.pictures(record, &inputs.picture).unwrap_or_default();
        let [picture] = pictures.as_slice() else {
            return Err(format!("expected a picture, found {}", pictures.len()));
        };
        let bytes = picture.read().map_err(|error| error.to_string())?;
        let image = self.processor.process(&bytes);
        let image = image.map_err(|error| format!("picture '{}': {error}", picture.name()))?;
        let mut given = self.binding.fixed().clone();
        let index = given.images.len();
        given.images.push(image);
        given
            .values
            .insert(inputs.picture.clone(), InputValue::Images(vec![index]));
        Ok((digest(&bytes), given))
    }
}

impl Row {
    /// Makes the row of a record whose picture and texts are vectors.
    fn of_pair(id: String, group: Option<String>, pair: &Pair) -> Self {
        let mut row = Self::failed(id, group, String::new());
        row.error = None;
        if let Ok(Value::Object(answer)) = serde_json::to_value(pair) {
            row.answer = answer;
        }
        row
    }

    /// Reads the vectors of a row; `None` if it has none.
    pub(crate) fn pair(&self) -> Option<Pair> {
        let pair: Pair = serde_json::from_value(Value::Object(self.answer.clone())).ok()?;
        (pair.texts.len() == pair.text_vectors.len()).then_some(pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_read_as_they_were_written_to_the_bit() {
        let vector = Vector(vec![0.1, -1e-30, f32::MIN_POSITIVE, 1.0]);
        let text = serde_json::to_string(&vector).unwrap();
        assert_eq!(serde_json::from_str::<Vector>(&text).unwrap(), vector);
        for wrong in ["\"AAA\"", "\"AAAA\"", "\"?\"", "3"] {
            assert!(serde_json::from_str::<Vector>(wrong).is_err(), "{wrong}");
        }
    }
}
