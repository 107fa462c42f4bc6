//! The unfinished results of a job on disk: rows that are appended, and a state that says how many of them
//! count.
//!
//! `OUT.partial` holds one line of JSON for each record, in the order of the data. `OUT.state` says how many
//! bytes of it are good and where reading goes on; it is written under another name and renamed, after the
//! rows are safe on disk. So a job that is killed at any moment goes on after the last good row, and what was
//! written behind it is written again, the same. Results that are Parquet are made of the rows when all are
//! there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use multiway_data::{Corrupt, Cursor};
use serde::{Deserialize, Serialize};

use crate::error::{JobError, file_error};
use crate::row::Row;
use crate::table::{is_table, write_table};

/// The version of the state's format.
const FORMAT: u32 = 1;

/// How many rows are written between two states.
const ROWS_BETWEEN_STATES: usize = 64;

/// What a job is, by digests: unfinished results are only continued by the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobIdentity {
    /// The task file and the inputs that every record has.
    pub(crate) task: String,
    /// The model.
    pub(crate) model: String,
    /// The files of the data.
    pub(crate) data: String,
    /// Everything else that changes answers: sampling parameters, filters, the mapping of fields.
    pub(crate) options: String,
}

impl JobIdentity {
    /// Names what is different in another job.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            ("task", self.task == other.task),
            ("model", self.model == other.model),
            ("data set", self.data == other.data),
            ("set of options", self.options == other.options),
        ];
        parts.into_iter().find_map(|(what, same)| (!same).then_some(what))
    }
}

/// How far a job has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    job: JobIdentity,
    rows: usize,
    failed: usize,
    /// The length of the good part of the results.
    bytes: u64,
    cursor: Option<Cursor>,
    corrupt: Vec<Corrupt>,
}

/// Appends rows to unfinished results.
#[derive(Debug)]
pub(crate) struct Journal {
    out: PathBuf,
    file: io::BufWriter<File>,
    state: State,
    since_state: usize,
}

impl Journal {
    /// Begins the results of a job, or goes on with those that the same job left unfinished.
    pub(crate) fn open(out: &Path, job: JobIdentity) -> Result<Self, JobError> {
        if out.exists() {
            return Err(JobError::Exists { path: out.to_owned() });
        }
        let state = match read_state(&state_path(out))? {
            Some(state) => match state.job.difference(&job) {
                None => state,
                Some(what) => {
                    let path = state_path(out);
                    return Err(JobError::OtherJob { path, what });
                }
            },
            None => State {
                format: FORMAT,
                job,
                rows: 0,
                failed: 0,
                bytes: 0,
                cursor: None,
                corrupt: Vec::new(),
            },
        };
        let partial = partial_path(out);
        let file = open_at(&partial, state.bytes).map_err(file_error("open", &partial))?;
        Ok(Self {
            out: out.to_owned(),
            file: io::BufWriter::new(file),
            state,
            since_state: 0,
        })
    }

    /// Returns where reading goes on, if rows are there already.
    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        self.state.cursor.as_ref()
    }

    /// Counts the rows.
    pub(crate) fn rows(&self) -> usize {
        self.state.rows
    }

    /// Counts the rows of records that failed.
    pub(crate) fn failed(&self) -> usize {
        self.state.failed
    }

    /// Appends a row. `cursor` is where reading goes on after its record, and `corrupt` are the rows of the
    /// data that could not be read between the record before and this one.
    pub(crate) fn push(&mut self, row: &Row, cursor: Cursor, corrupt: &[Corrupt]) -> Result<(), JobError> {
        let path = partial_path(&self.out);
        let line = serde_json::to_string(row).map_err(io::Error::from);
        let line = line.map_err(file_error("write", &path))?;
        writeln!(self.file, "{line}").map_err(file_error("write", &path))?;
        self.state.rows += 1;
        self.state.failed += usize::from(row.error.is_some());
        self.state.bytes += line.len() as u64 + 1;
        self.state.cursor = Some(cursor);
        self.state.corrupt.extend_from_slice(corrupt);
        self.since_state += 1;
        if self.since_state >= ROWS_BETWEEN_STATES {
            self.save()?;
        }
        Ok(())
    }

    /// Forces the rows to disk, and then the state that counts them.
    pub(crate) fn save(&mut self) -> Result<(), JobError> {
        let partial = partial_path(&self.out);
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_data())
            .map_err(file_error("write", &partial))?;
        let path = state_path(&self.out);
        let json = serde_json::to_vec(&self.state).map_err(io::Error::from);
        let json = json.map_err(file_error("write", &path))?;
        write_atomically(&path, &json)?;
        self.since_state = 0;
        Ok(())
    }

    /// Saves what is there; leaves nothing behind if there is no row.
    pub(crate) fn stop(mut self) -> Result<(), JobError> {
        if self.state.rows > 0 {
            return self.save();
        }
        let partial = partial_path(&self.out);
        fs::remove_file(&partial).map_err(file_error("remove", &partial))
    }

    /// Gives the results their name, with the corrupt rows behind the last record counted too.
    pub(crate) fn finish(mut self, corrupt: &[Corrupt]) -> Result<Finished, JobError> {
        // A job that is killed from here on reads those corrupt rows again: they are not in the state.
        self.save()?;
        self.state.corrupt.extend_from_slice(corrupt);
        let partial = partial_path(&self.out);
        if is_table(&self.out) {
            write_table(read_rows(&partial)?, &beside(&self.out, "tmp"), &self.out)?;
            fs::remove_file(&partial).map_err(file_error("remove", &partial))?;
        } else {
            fs::rename(&partial, &self.out).map_err(file_error("rename", &partial))?;
        }
        let state = state_path(&self.out);
        fs::remove_file(&state).map_err(file_error("remove", &state))?;
        Ok(Finished {
            path: self.out,
            rows: self.state.rows,
            failed: self.state.failed,
            corrupt: self.state.corrupt,
        })
    }
}

/// The results of a job that has come to its end.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) path: PathBuf,
    pub(crate) rows: usize,
    pub(crate) failed: usize,
    pub(crate) corrupt: Vec<Corrupt>,
}

/// Reads the rows of finished results, one at a time.
pub(crate) fn read_rows(path: &Path) -> Result<impl Iterator<Item = Result<Row, JobError>>, JobError> {
    let file = File::open(path).map_err(file_error("open", path))?;
    let path = path.to_owned();
    Ok(BufReader::new(file).lines().map(move |line| {
        let line = line.map_err(file_error("read", &path))?;
        serde_json::from_str(&line)
            .map_err(io::Error::from)
            .map_err(file_error("read", &path))
    }))
}

/// Writes a file under another name, forces it to disk and renames it.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), JobError> {
    let temporary = beside(path, "tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(file_error("write", path))
}

fn partial_path(out: &Path) -> PathBuf {
    beside(out, "partial")
}

fn state_path(out: &Path) -> PathBuf {
    beside(out, "state")
}

/// Adds an extension to a path's name.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

fn read_state(path: &Path) -> Result<Option<State>, JobError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error("read", path)(error)),
    };
    let damaged = |reason: String| JobError::State {
        path: path.to_owned(),
        reason,
    };
    let state: State = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if state.format != FORMAT {
        let found = state.format;
        return Err(damaged(format!("expected format {FORMAT}, found {found}")));
    }
    Ok(Some(state))
}

/// Opens a file behind its first `bytes`, and drops what is there.
fn open_at(path: &Path, bytes: u64) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    let found = file.metadata()?.len();
    if found < bytes {
        let message = format!("expected at least {bytes} bytes, found {found}");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    file.set_len(bytes)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use multiway_data::{DataOptions, DataSource};
    use serde_json::Map;

    use super::*;

    fn row(number: usize) -> Row {
        let mut row = Row::failed(format!("data.jsonl#{number}"), None, "no answer".to_owned());
        row.references = vec![number.to_string()];
        row.answer = Map::from_iter([("number".to_owned(), number.into())]);
        row
    }

    /// Writes rows to `out`; the job is killed after the first `kill` of them, and while the results were
    /// written.
    fn write(folder: &Path, out: &str, kill: Option<usize>) -> Vec<u8> {
        let data = folder.join("data.jsonl");
        fs::write(&data, "{}\n{}\n{}\nwrong\n").unwrap();
        let source = DataSource::open(&[data], DataOptions::default()).unwrap();
        let out = folder.join(out);
        let open = || {
            let job = JobIdentity {
                task: "task".to_owned(),
                model: "model".to_owned(),
                data: source.fingerprint(),
                options: "options".to_owned(),
            };
            Journal::open(&out, job).unwrap()
        };
        let push = |journal: &mut Journal, most: usize| {
            let mut records = source.records(journal.cursor()).unwrap();
            while journal.rows() < most && records.next().is_some() {
                journal.push(&row(journal.rows()), records.cursor(), &[]).unwrap();
            }
        };
        if let Some(kill) = kill {
            let mut journal = open();
            push(&mut journal, kill);
            journal.save().unwrap();
            fs::write(beside(&out, "tmp"), "half a table").unwrap();
        }
        let mut journal = open();
        assert_eq!(journal.rows(), kill.unwrap_or(0));
        push(&mut journal, 3);
        let mut left = source.records(journal.cursor()).unwrap();
        assert!(left.next().is_none());
        let finished = journal.finish(left.corrupt()).unwrap();
        assert_eq!((finished.rows, finished.corrupt.len()), (3, 1));
        for left in ["partial", "state"] {
            assert!(!beside(&out, left).exists(), "{left}");
        }
        fs::read(out).unwrap()
    }

    #[test]
    fn results_are_the_same_bytes_whenever_the_job_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        for kind in ["jsonl", "parquet"] {
            let whole = write(folder.path(), &format!("whole.{kind}"), None);
            for kill in 0..=3 {
                let killed = write(folder.path(), &format!("{kill}.{kind}"), Some(kill));
                assert_eq!(killed, whole, "{kind} {kill}");
            }
        }
        assert!(!folder.path().join("whole.parquet.tmp").exists());
    }
}
