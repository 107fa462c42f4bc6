//! Losses as TensorBoard reads them.
//!
//! A file of events is a sequence of `TFRecord`s, each a message of Protocol Buffers:
//!
//! ```text
//! length: u64, masked CRC-32C of it: u32, message, masked CRC-32C of it: u32
//! Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; SessionLog session_log = 7 }
//! Summary { repeated Value value = 1 }    Value { string tag = 1; float simple_value = 2 }
//! SessionLog { enum status = 1 (START = 1) }
//! ```
//!
//! Source: TensorFlow, in `tensorflow/core`: `util/event.proto`, `framework/summary.proto`,
//! `lib/io/record_writer.h`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::LogError;

/// How a message's field is written: its number and its type are one byte.
const DOUBLE: u8 = 1;
const BYTES: u8 = 2;
const FLOAT: u8 = 5;
const VARINT: u8 = 0;

/// Writes one event a step into a file of its own. What an earlier, longer run wrote behind the step at which
/// this one begins is not shown.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    columns: Vec<String>,
    writer: BufWriter<File>,
}

impl EventLog {
    /// Starts a file in a folder for the steps behind `last_step`.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be written.
    pub fn create(folder: &Path, columns: &[&str], last_step: u64) -> Result<Self, LogError> {
        let mut second = now().as_secs();
        // A run that is resumed within a second gets a file of its own, too.
        let path = loop {
            let path = folder.join(format!("events.out.tfevents.{second}.multiway"));
            if !path.exists() {
                break path;
            }
            second += 1;
        };
        let file = File::create(&path).map_err(LogError::file("write", &path))?;
        let mut log = Self {
            path,
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            writer: BufWriter::new(file),
        };
        let mut version = event(0);
        bytes(&mut version, 3, b"brain.Event:2");
        log.write(&version)?;
        let mut session = Vec::new();
        varint(&mut session, 1, 1);
        let mut start = event(last_step + 1);
        bytes(&mut start, 7, &session);
        log.write(&start)?;
        Ok(log)
    }

    /// Writes a step's values, in the order of the columns; what is none is left out.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be written.
    pub fn append(&mut self, step: u64, values: &[Option<f64>]) -> Result<(), LogError> {
        let mut summary = Vec::new();
        for (column, value) in self.columns.iter().zip(values) {
            if let Some(value) = value {
                let mut one = Vec::new();
                bytes(&mut one, 1, column.as_bytes());
                one.push(2 << 3 | FLOAT);
                #[expect(clippy::cast_possible_truncation, reason = "the format has f32")]
                let value = *value as f32;
                one.extend(value.to_le_bytes());
                bytes(&mut summary, 1, &one);
            }
        }
        let mut event = event(step);
        bytes(&mut event, 5, &summary);
        self.write(&event)
    }

    fn write(&mut self, message: &[u8]) -> Result<(), LogError> {
        let length = (message.len() as u64).to_le_bytes();
        let parts = [
            &length[..],
            &masked_crc(&length).to_le_bytes(),
            message,
            &masked_crc(message).to_le_bytes(),
        ];
        let written = parts.iter().try_for_each(|part| self.writer.write_all(part));
        written
            .and_then(|()| self.writer.flush())
            .map_err(LogError::file("write", &self.path))
    }
}

/// The time since 1970.
fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// Begins an event.
fn event(step: u64) -> Vec<u8> {
    let mut event = vec![1 << 3 | DOUBLE];
    event.extend(now().as_secs_f64().to_le_bytes());
    varint(&mut event, 2, step);
    event
}

fn varint(message: &mut Vec<u8>, field: u8, value: u64) {
    message.push(field << 3 | VARINT);
    number(message, value);
}

fn bytes(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    message.push(field << 3 | BYTES);
    number(message, value.len() as u64);
    message.extend_from_slice(value);
}

/// Writes a number in groups of seven bits, the lowest first.
fn number(message: &mut Vec<u8>, mut value: u64) {
    loop {
        let [lowest, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            message.push(lowest);
            break;
        }
        message.push(lowest | 0x80);
    }
}

/// The checksum of a record: rotated and moved, so that it differs from that of a record in a record.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a file into messages, and checks their checksums.
    fn messages(path: &Path) -> Vec<Vec<u8>> {
        let file = std::fs::read(path).unwrap();
        let mut rest = file.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let (length, behind) = rest.split_first_chunk::<8>().unwrap();
            let (crc, behind) = behind.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_le_bytes(*crc), masked_crc(length));
            let (message, behind) = behind.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
            let (crc, behind) = behind.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_le_bytes(*crc), masked_crc(message));
            found.push(message.to_vec());
            rest = behind;
        }
        found
    }

    #[test]
    fn checksums_are_those_of_the_format() {
        // CRC-32C of "123456789" is 0xe3069283: the check value of the algorithm's definition.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        // Rotated right by 15 bits: 0x2507c60d; and moved by a constant.
        assert_eq!(
            masked_crc(b"123456789"),
            0x2507_c60d_u32.wrapping_add(0xa282_ead8)
        );
    }

    #[test]
    fn a_step_is_one_event_with_the_values_that_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::create(folder.path(), &["text", "codes"], 300).unwrap();
        log.append(301, &[Some(1.5), None]).unwrap();
        let path = log.path.clone();
        let [version, start, step] = messages(&path).try_into().unwrap();
        assert!(version.ends_with(b"\x1a\x0dbrain.Event:2"));
        // The step is field 2, behind nine bytes of time: 301 in groups of seven bits.
        assert_eq!(start[9..], [0x10, 0xad, 0x02, 0x3a, 2, 8, 1]);
        let value = [&[0x0a, 4][..], b"text", &[0x15, 0, 0, 0xc0, 0x3f]].concat();
        let expected = [&[0x10, 0xad, 0x02, 0x2a, 13, 0x0a, 11][..], &value].concat();
        assert_eq!(step[9..], expected);
    }

    #[test]
    fn each_start_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventLog::create(folder.path(), &["text"], 0).unwrap();
        let second = EventLog::create(folder.path(), &["text"], 5).unwrap();
        assert_ne!(first.path, second.path);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
