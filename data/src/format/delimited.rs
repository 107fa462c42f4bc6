//! CSV and TSV with a header. All values are texts.

use std::collections::HashSet;
use std::io::Read;

use csv::{Error, ErrorKind, ReaderBuilder, StringRecord};

use crate::limited::{Budget, Limited};
use crate::record::Field;
use crate::row::{Row, Rows};

pub(super) fn rows(bytes: Box<dyn Read + Send>, delimiter: u8, limit: u64) -> Rows {
    let budget = Budget::new(limit);
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .from_reader(Limited::new(bytes, budget.clone()));
    let mut names: Option<Vec<String>> = None;
    let mut is_broken = false;
    Box::new(std::iter::from_fn(move || {
        if is_broken {
            return None;
        }
        let row = match &names {
            Some(names) => {
                budget.refill();
                next(&mut reader, names)
            }
            None => match header(&mut reader) {
                Ok(found) => {
                    budget.refill();
                    next(&mut reader, names.insert(found))
                }
                Err(reason) => Some(Row::Broken(reason)),
            },
        };
        is_broken = matches!(row, Some(Row::Broken(_)));
        row
    }))
}

/// Reads the names of the columns.
fn header(reader: &mut csv::Reader<impl Read>) -> Result<Vec<String>, String> {
    let header = reader.headers().map_err(|error| error.to_string())?;
    let mut names: Vec<String> = header.iter().map(str::to_owned).collect();
    if let Some(first) = names.first_mut()
        && let Some(rest) = first.strip_prefix('\u{feff}')
    {
        *first = rest.to_owned();
    }
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(format!("the header has the column '{twice}' twice")),
        None => Ok(names),
    }
}

fn next(reader: &mut csv::Reader<impl Read>, names: &[String]) -> Option<Row> {
    let mut record = StringRecord::new();
    match reader.read_record(&mut record) {
        Ok(false) => None,
        Ok(true) => {
            let fields = names.iter().zip(&record);
            let fields = fields.map(|(name, value)| (name.clone(), Field::Value(value.into())));
            Some(Row::Fields(None, fields.collect()))
        }
        Err(error) => Some(wrong(&error)),
    }
}

fn wrong(error: &Error) -> Row {
    match error.kind() {
        ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => Row::Corrupt(format!("expected {expected_len} values, found {len}")),
        ErrorKind::Utf8 { err, .. } => Row::Corrupt(format!("expected UTF-8: {err}")),
        _ => Row::Broken(error.to_string()),
    }
}
