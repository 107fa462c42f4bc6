//! Loss curves: numbers to a CSV file while training runs, and a picture of them.

mod events;
mod plot;

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

pub use events::EventLog;
pub use plot::plot_losses;

/// What can go wrong with a log of losses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A log that is to be continued has other columns.
    #[error(
        "{path} has the columns '{found}', expected '{expected}': continue with the same settings, or move the file away"
    )]
    Columns {
        /// Which file.
        path: PathBuf,
        /// The header that was expected.
        expected: String,
        /// The header that was found.
        found: String,
    },
    /// A row is not what the log holds.
    #[error("{path}, line {line}: expected {expected}, found '{found}'")]
    Row {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The picture could not be drawn.
    #[error("cannot draw {path}: {reason}")]
    Draw {
        /// Which picture.
        path: PathBuf,
        /// What the plotting library says.
        reason: String,
    },
}

impl LogError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

/// Writes one row a step: the step, then a number for each column, empty where there is none.
#[derive(Debug)]
pub struct LossLog {
    path: PathBuf,
    columns: usize,
    writer: BufWriter<File>,
}

impl LossLog {
    /// Starts a log, in place of an earlier one.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be written.
    pub fn create(path: &Path, columns: &[&str]) -> Result<Self, LogError> {
        fs::write(path, header(columns) + "\n").map_err(LogError::file("write", path))?;
        Self::append_to(path, columns)
    }

    /// Goes on with a log after a step: later rows, which a stopped run had written, are dropped. Starts one
    /// where there is none.
    ///
    /// # Errors
    ///
    /// Fails where the file has other columns or a row does not begin with a step, or it cannot be read or
    /// written.
    pub fn resume(path: &Path, columns: &[&str], last_step: u64) -> Result<Self, LogError> {
        if !path.exists() {
            return Self::create(path, columns);
        }
        let text = fs::read_to_string(path).map_err(LogError::file("read", path))?;
        let mut lines = text.lines();
        let (found, expected) = (lines.next().unwrap_or_default(), header(columns));
        if found != expected {
            let (path, found) = (path.to_owned(), found.to_owned());
            return Err(LogError::Columns {
                path,
                expected,
                found,
            });
        }
        let mut kept = expected + "\n";
        for (index, line) in lines.enumerate() {
            // A run that was killed may leave half a row at the very end.
            let is_whole = text.ends_with('\n') || index + 2 < text.lines().count();
            if is_whole && parse_step(path, index + 2, line)? <= last_step {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        let temporary = path.with_extension("csv.tmp");
        fs::write(&temporary, kept).map_err(LogError::file("write", &temporary))?;
        fs::rename(&temporary, path).map_err(LogError::file("replace", path))?;
        Self::append_to(path, columns)
    }

    /// Writes a step's row: one value for each column, in their order.
    ///
    /// # Errors
    ///
    /// Fails where there are more or fewer values than columns, or the file cannot be written.
    pub fn append(&mut self, step: u64, values: &[Option<f64>]) -> Result<(), LogError> {
        if values.len() != self.columns {
            return Err(LogError::Row {
                path: self.path.clone(),
                line: 0,
                expected: format!("{} values for step {step}", self.columns),
                found: values.len().to_string(),
            });
        }
        let mut row = step.to_string();
        for value in values {
            row.push(',');
            row.push_str(&value.map(|value| format!("{value:.6}")).unwrap_or_default());
        }
        row.push('\n');
        let written = self
            .writer
            .write_all(row.as_bytes())
            .and_then(|()| self.writer.flush());
        written.map_err(LogError::file("write", &self.path))
    }

    fn append_to(path: &Path, columns: &[&str]) -> Result<Self, LogError> {
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(LogError::file("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            columns: columns.len(),
            writer: BufWriter::new(file),
        })
    }
}

fn header(columns: &[&str]) -> String {
    let mut header = "step".to_owned();
    for column in columns {
        header.push(',');
        header.push_str(column);
    }
    header
}

fn parse_step(path: &Path, line: usize, row: &str) -> Result<u64, LogError> {
    let first = row.split(',').next().unwrap_or_default();
    first.parse().map_err(|_| LogError::Row {
        path: path.to_owned(),
        line,
        expected: "a step, a whole number".to_owned(),
        found: first.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [&str; 2] = ["loss", "image_loss"];

    fn log_of(steps: std::ops::Range<u64>, path: &Path) -> LossLog {
        let mut log = LossLog::create(path, &COLUMNS).unwrap();
        for step in steps {
            let image_loss = (step % 2 == 0).then(|| 5.0 / (step + 1) as f64);
            log.append(step, &[Some(1.0 / (step + 1) as f64), image_loss])
                .unwrap();
        }
        log
    }

    #[test]
    fn resuming_drops_the_rows_after_the_resumed_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("losses.csv");
        drop(log_of(0..6, &path));
        // The run was killed within a row.
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("6,0.1");
        fs::write(&path, text).unwrap();
        let mut log = LossLog::resume(&path, &COLUMNS, 3).unwrap();
        log.append(4, &[Some(9.0), None]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "step,loss,image_loss\n0,1.000000,5.000000\n1,0.500000,\n2,0.333333,1.666667\n3,0.250000,\n4,9.000000,\n"
        );
    }

    #[test]
    fn a_log_with_other_columns_is_not_continued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("losses.csv");
        drop(log_of(0..2, &path));
        let error = LossLog::resume(&path, &["other"], 1).unwrap_err().to_string();
        assert!(
            error.contains("has the columns 'step,loss,image_loss', expected 'step,other'"),
            "{error}"
        );
        fs::write(&path, "step,loss,image_loss\nx,1,1\n").unwrap();
        let error = LossLog::resume(&path, &COLUMNS, 1).unwrap_err().to_string();
        assert!(
            error.ends_with("line 2: expected a step, a whole number, found 'x'"),
            "{error}"
        );
    }

    #[test]
    fn a_row_has_a_value_for_each_column() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log_of(0..1, &folder.path().join("losses.csv"));
        assert!(log.append(1, &[Some(1.0)]).is_err());
    }

    #[test]
    fn the_picture_shows_a_panel_for_each_column() {
        let folder = tempfile::tempdir().unwrap();
        let (csv, svg) = (folder.path().join("losses.csv"), folder.path().join("losses.svg"));
        drop(log_of(0..300, &csv));
        plot_losses(&csv, &svg).unwrap();
        let picture = fs::read_to_string(&svg).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
        assert!(picture.contains("image_loss") && picture.matches("<polyline").count() >= 4);
    }

    #[test]
    fn an_empty_or_broken_log_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (csv, svg) = (folder.path().join("losses.csv"), folder.path().join("losses.svg"));
        assert!(matches!(plot_losses(&csv, &svg), Err(LogError::File { .. })));
        for broken in [
            "",
            "step,loss\n",
            "step,loss\n1\n",
            "step,loss\n1,a\n",
            "step,loss\n1,2,3\n",
            "loss\n",
        ] {
            fs::write(&csv, broken).unwrap();
            assert!(
                matches!(plot_losses(&csv, &svg), Err(LogError::Row { .. })),
                "{broken:?}"
            );
        }
        fs::write(&csv, "step,loss,other\n5,NaN,1\n").unwrap();
        plot_losses(&csv, &svg).unwrap();
    }
}
