//! A value of a row, before it is known what of it is a picture.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parquet::data_type::ByteArray;
use serde_json::{Map, Value};

use crate::record::{Field, Picture};

/// What pictures begin with.
const PICTURES: [&[u8]; 4] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"];

/// A value of a row.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Value(Value),
    Bytes(ByteArray),
    Group(Vec<(String, Self)>),
    List(Vec<Self>),
    Map(Vec<Self>),
}

impl Cell {
    /// Makes the value the field `name`, where relative paths of pictures start from `folder`.
    pub(super) fn into_field(self, name: &str, folder: &Path) -> Field {
        if let Some(picture) = self.picture(name, folder) {
            return Field::Picture(picture);
        }
        if let Self::List(items) = &self
            && !items.is_empty()
        {
            let pictures = items.iter().map(|item| item.picture(name, folder));
            if let Some(pictures) = pictures.collect() {
                return Field::Pictures(pictures);
            }
        }
        Field::Value(self.into_value())
    }

    /// Returns the picture that a value is: bytes that begin as one, or `bytes` or else `path` of a group.
    fn picture(&self, name: &str, folder: &Path) -> Option<Picture> {
        match self {
            Self::Bytes(bytes) => {
                is_picture(bytes.data()).then(|| Picture::of_bytes(name.to_owned(), bytes.data()))
            }
            Self::Group(members) => {
                let (bytes, path) = match members.as_slice() {
                    [(first, bytes), (second, path)] if first == "bytes" && second == "path" => (bytes, path),
                    [(first, path), (second, bytes)] if first == "path" && second == "bytes" => (bytes, path),
                    _ => return None,
                };
                match (bytes, path) {
                    (Self::Bytes(bytes), Self::Value(Value::String(path))) => {
                        Some(Picture::of_bytes(path.clone(), bytes.data()))
                    }
                    (Self::Bytes(bytes), _) => Some(Picture::of_bytes(name.to_owned(), bytes.data())),
                    (_, Self::Value(Value::String(path))) => {
                        Some(Picture::of_file(path.clone(), folder.join(path)))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Returns the value as JSON: bytes as the text that they are, or in Base64.
    fn into_value(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Bytes(bytes) => match bytes.as_utf8() {
                Ok(text) => text.into(),
                Err(_) => BASE64_STANDARD.encode(bytes.data()).into(),
            },
            Self::Group(members) => {
                let members = members.into_iter();
                Value::Object(members.map(|(name, cell)| (name, cell.into_value())).collect())
            }
            Self::List(items) => items.into_iter().map(Self::into_value).collect(),
            Self::Map(items) => Value::Object(
                items
                    .into_iter()
                    .filter_map(Self::into_entry)
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// Returns the key and the value of an item of a map.
    fn into_entry(self) -> Option<(String, Value)> {
        let Self::Group(members) = self else {
            return None;
        };
        let mut members = members.into_iter().map(|(_, cell)| cell.into_value());
        let key = match members.next()? {
            Value::String(key) => key,
            key => key.to_string(),
        };
        Some((key, members.next().unwrap_or_default()))
    }
}

/// Tells whether bytes begin as a picture does.
fn is_picture(bytes: &[u8]) -> bool {
    let is_webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    // Four bytes of a bitmap are reserved: its first two are too few to tell it by.
    let is_bitmap = bytes.starts_with(b"BM") && bytes.get(6..10) == Some(&[0; 4]);
    is_webp || is_bitmap || PICTURES.iter().any(|start| bytes.starts_with(start))
}
