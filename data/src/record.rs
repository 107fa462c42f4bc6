//! A record: fields by name, and pictures.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use crate::error::DataError;

/// The most bytes that are read of a picture.
const MAX_PICTURE_BYTES: u64 = 64 << 20;

/// A record of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    id: String,
    fields: IndexMap<String, Field>,
    /// The folder that relative paths start from.
    folder: Arc<Path>,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Field {
    /// Anything but a picture.
    Value(Value),
    /// A picture.
    Picture(Picture),
    /// A list of pictures.
    Pictures(Vec<Picture>),
}

impl Field {
    fn bytes(&self) -> usize {
        match self {
            Self::Value(value) => bytes_of(value),
            Self::Picture(picture) => picture.bytes(),
            Self::Pictures(pictures) => pictures.iter().map(Picture::bytes).sum(),
        }
    }
}

fn bytes_of(value: &Value) -> usize {
    let inside = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes_of).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| name.len() + bytes_of(value))
            .sum(),
        _ => 0,
    };
    size_of::<Value>() + inside
}

/// A picture of a record, not decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    name: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq)]
enum Place {
    Bytes(Arc<[u8]>),
    File(PathBuf),
}

impl Record {
    pub(crate) fn new(id: String, fields: IndexMap<String, Field>, folder: Arc<Path>) -> Self {
        Self { id, fields, folder }
    }

    /// Counts the bytes of texts and pictures, and some for each value.
    pub(crate) fn bytes(&self) -> u64 {
        let fields = self.fields.iter();
        fields
            .map(|(name, field)| (name.len() + field.bytes()) as u64)
            .sum()
    }

    /// Returns what names the record: the file's name and the row, or the key in a tar or the path in a
    /// folder, with the file's name before it where there are several files.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Iterates over the fields, in the order of the file.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.fields.iter().map(|(name, field)| (name.as_str(), field))
    }

    /// Returns the value at a path: the name of a field, or names and places in lists with dots between them
    /// (`answers.0.text`).
    pub fn value(&self, path: &str) -> Option<&Value> {
        if let Some(Field::Value(value)) = self.fields.get(path) {
            return Some(value);
        }
        let (name, rest) = path.split_once('.')?;
        let Field::Value(value) = self.fields.get(name)? else {
            return None;
        };
        let mut value = value;
        for part in rest.split('.') {
            value = match value {
                Value::Object(members) => members.get(part)?,
                Value::Array(items) => items.get(part.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(value)
    }

    /// Returns the value at a path as text: numbers and booleans as JSON writes them. Lists, objects and null
    /// are none.
    pub fn text(&self, path: &str) -> Option<String> {
        match self.value(path)? {
            Value::String(text) => Some(text.clone()),
            value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
            _ => None,
        }
    }

    /// Returns the pictures at a path: one or a list of them, or the files that a text or a list of texts
    /// names, relative to the folder of the data.
    pub fn pictures(&self, path: &str) -> Option<Vec<Picture>> {
        match self.fields.get(path) {
            Some(Field::Picture(picture)) => return Some(vec![picture.clone()]),
            Some(Field::Pictures(pictures)) => return Some(pictures.clone()),
            _ => {}
        }
        match self.value(path)? {
            Value::String(file) => Some(vec![self.file(file)]),
            Value::Array(files) => files.iter().map(|file| Some(self.file(file.as_str()?))).collect(),
            _ => None,
        }
    }

    fn file(&self, path: &str) -> Picture {
        Picture::of_file(path.to_owned(), self.folder.join(path))
    }
}

impl Picture {
    /// Makes a picture of the bytes of a file.
    pub(crate) fn of_bytes(name: String, bytes: &[u8]) -> Self {
        let place = Place::Bytes(bytes.into());
        Self { name, place }
    }

    pub(crate) fn of_file(name: String, path: PathBuf) -> Self {
        let place = Place::File(path);
        Self { name, place }
    }

    fn bytes(&self) -> usize {
        match &self.place {
            Place::Bytes(bytes) => bytes.len(),
            Place::File(_) => 0,
        }
    }

    /// Returns the name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the bytes of the file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or has more than 64 MiB.
    pub fn read(&self) -> Result<Vec<u8>, DataError> {
        let failed = |reason: String| DataError::Picture {
            name: self.name.clone(),
            reason,
        };
        let path = match &self.place {
            Place::Bytes(bytes) => return Ok(bytes.to_vec()),
            Place::File(path) => path,
        };
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_PICTURE_BYTES + 1).read_to_end(&mut bytes));
        read.map_err(|error| failed(error.to_string()))?;
        if bytes.len() as u64 > MAX_PICTURE_BYTES {
            return Err(failed(format!("it has more than {MAX_PICTURE_BYTES} bytes")));
        }
        Ok(bytes)
    }
}
