//! One JSON object a line.

use std::io::{BufReader, Read};

use indexmap::IndexMap;
use serde_json::Value;

use crate::limited::{Line, most_values, read_line};
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
            return Some(row(line, most_values(limit)));
        }
    }))
}

fn row(line: &[u8], mut values: usize) -> Row {
    match object(line, &mut values) {
        Ok(fields) => Row::Fields(None, fields),
        Err(reason) => Row::Corrupt(reason),
    }
}

/// Reads the fields of a JSON object, and takes its values from those that the record may still have.
pub(super) fn object(json: &[u8], values: &mut usize) -> Result<IndexMap<String, Field>, String> {
    let found = count_values(json);
    *values = values
        .checked_sub(found)
        .ok_or_else(|| format!("expected at most {values} values, found {found}"))?;
    match serde_json::from_slice(json) {
        Ok(Value::Object(members)) => Ok(members
            .into_iter()
            .map(|(name, value)| (name, Field::Value(value)))
            .collect()),
        Ok(_) => Err("expected a JSON object, found another value".to_owned()),
        Err(error) => Err(format!("expected a JSON object: {error}")),
    }
}

/// Counts the values of a JSON text before any memory is taken for them: in memory, the two bytes of `0,` are
/// a hundred.
fn count_values(json: &[u8]) -> usize {
    let mut values = 1;
    let mut is_text = false;
    let mut is_escaped = false;
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b',' | b'[' | b'{' if !is_text => values += 1,
            _ => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_texts() {
        for (json, expected) in [
            ("{}", 2),
            ("{\"a\": 1}", 2),
            ("{\"a\": 1, \"b\": [1, 2]}", 5),
            ("{\"a,[{\\\"\\\\\": \"\\\\\", \"b\": 0}", 3),
            ("[[[[", 5),
        ] {
            assert_eq!(count_values(json.as_bytes()), expected, "{json}");
        }
    }
}
