//! One JSON object a line.

use std::io::{BufReader, Read};

use indexmap::IndexMap;
use serde_json::Value;

use crate::limited::{Line, read_line};
use crate::record::Field;
use crate::row::{Row, Rows};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

pub(super) fn rows(bytes: Box<dyn Read + Send>, limit: u64) -> Rows {
    let mut reader = BufReader::new(bytes);
    let mut is_first = true;
    let mut is_broken = false;
    Box::new(std::iter::from_fn(move || {
        loop {
            if is_broken {
                return None;
            }
            let line = match read_line(&mut reader, limit) {
                Ok(Line::Whole(line)) => line,
                Ok(Line::TooLong) => {
                    return Some(Row::Corrupt(format!("the line has more than {limit} bytes")));
                }
                Ok(Line::End) => return None,
                Err(error) => {
                    is_broken = true;
                    return Some(Row::Broken(error.to_string()));
                }
            };
            let line = match line.strip_prefix(BYTE_ORDER_MARK) {
                Some(rest) if is_first => rest,
                _ => &line,
            };
            is_first = false;
            if line.trim_ascii().is_empty() {
                continue;
            }
            return Some(row(line));
        }
    }))
}

fn row(line: &[u8]) -> Row {
    match object(line) {
        Ok(fields) => Row::Fields(None, fields),
        Err(reason) => Row::Corrupt(reason),
    }
}

/// Reads the fields of a JSON object.
pub(super) fn object(json: &[u8]) -> Result<IndexMap<String, Field>, String> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(members)) => Ok(members
            .into_iter()
            .map(|(name, value)| (name, Field::Value(value)))
            .collect()),
        Ok(_) => Err("expected a JSON object, found another value".to_owned()),
        Err(error) => Err(format!("expected a JSON object: {error}")),
    }
}
