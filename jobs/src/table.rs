//! The results of a job as Parquet.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

use multiway_data::TableWriter;
use serde::Serialize;

use crate::error::{JobError, file_error};
use crate::row::Row;

/// The columns: those of [`Row`], with JSON in `answer` and `references`.
const COLUMNS: [&str; 6] = ["id", "group", "text", "answer", "references", "error"];

/// Tells whether results are written as Parquet, by the name of their file.
pub(crate) fn is_table(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// Writes rows to `temporary`, forces them to disk, and gives the file the name `path`.
pub(crate) fn write_table(
    rows: impl Iterator<Item = Result<Row, JobError>>,
    temporary: &Path,
    path: &Path,
) -> Result<(), JobError> {
    let failed = || file_error("write", temporary);
    let file = File::create(temporary).map_err(failed())?;
    let mut table = TableWriter::new(BufWriter::new(file), &COLUMNS).map_err(failed())?;
    for row in rows {
        let texts = texts(row?).map_err(failed())?;
        table.push(&texts).map_err(failed())?;
    }
    let file = table
        .finish()
        .and_then(|file| file.into_inner().map_err(io::IntoInnerError::into_error))
        .map_err(failed())?;
    file.sync_all().map_err(failed())?;
    fs::rename(temporary, path).map_err(file_error("rename", temporary))
}

fn texts(row: Row) -> io::Result<[Option<String>; 6]> {
    let answer = json(&row.answer, row.answer.is_empty())?;
    let references = json(&row.references, row.references.is_empty())?;
    Ok([Some(row.id), row.group, row.text, answer, references, row.error])
}

fn json(value: &impl Serialize, is_empty: bool) -> io::Result<Option<String>> {
    if is_empty {
        return Ok(None);
    }
    Ok(Some(serde_json::to_string(value)?))
}
