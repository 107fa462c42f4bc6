//! CSV and TSV with a header. All values are texts.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use csv::{Error, ErrorKind, ReaderBuilder, StringRecord};

use crate::limited::{Budget, Limited, most_values};
use crate::record::Field;
use crate::row::{Row, Rows};

pub(super) fn rows(bytes: Box<dyn Read + Send>, delimiter: u8, limit: u64) -> Rows {
    let budget = Budget::new(limit);
    let found = Arc::new(AtomicUsize::new(0));
    let most = most_values(limit);
    let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(Narrow {
        inner: Limited::new(bytes, budget.clone()),
        delimiter,
        found: Arc::clone(&found),
        most,
    });
    let refill = move || {
        budget.refill();
        found.store(0, Ordering::Relaxed);
    };
    let mut names: Option<Vec<String>> = None;
    let mut is_broken = false;
    Box::new(std::iter::from_fn(move || {
        if is_broken {
            return None;
        }
        let row = match &names {
            Some(names) => {
                refill();
                next(&mut reader, names)
            }
            None => match header(&mut reader) {
                Ok(found) => {
                    refill();
                    next(&mut reader, names.insert(found))
                }
                Err(reason) => Some(Row::Broken(reason)),
            },
        };
        is_broken = matches!(row, Some(Row::Broken(_)));
        row
    }))
}

/// Fails after so many delimiters in a record: each column takes memory, whether there is anything in it or
/// not.
struct Narrow<R> {
    inner: R,
    delimiter: u8,
    /// The delimiters that were read since the record before.
    found: Arc<AtomicUsize>,
    most: usize,
}

impl<R: Read> Read for Narrow<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.found.load(Ordering::Relaxed) > self.most {
            let most = self.most;
            return Err(io::Error::other(format!(
                "a record has more than {most} delimiters"
            )));
        }
        let read = self.inner.read(buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        let found = bytes.iter().filter(|byte| **byte == self.delimiter).count();
        self.found.fetch_add(found, Ordering::Relaxed);
        Ok(read)
    }
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
