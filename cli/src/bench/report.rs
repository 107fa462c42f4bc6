//! Lines of measurements: JSON for scripts, an aligned table for people.

use serde_json::{Value, json};

use crate::failure::Outcome;
use crate::output::{print_json, print_line};

/// The width of a column of numbers, where its name is not longer.
const NUMBER_WIDTH: usize = 9;

/// The width of a column of lengths.
const LENGTH_WIDTH: usize = 5;

/// The width of a column of names.
const NAME_WIDTH: usize = 18;

/// Prints a line for each measurement as it comes.
pub(super) struct Report {
    json: bool,
    columns: &'static [&'static str],
    is_begun: bool,
}

impl Report {
    /// Begins a report whose table has these of the lines' fields.
    pub(super) fn new(json: bool, columns: &'static [&'static str]) -> Self {
        Self {
            json,
            columns,
            is_begun: false,
        }
    }

    /// Prints a line, and before the first of a table the columns' names.
    pub(super) fn print(&mut self, line: &Value) -> Outcome {
        if self.json {
            return print_json(line);
        }
        if !std::mem::replace(&mut self.is_begun, true) {
            print_line(&self.aligned(|name| name.to_owned()))?;
        }
        print_line(&self.aligned(|name| shown(line.get(name).unwrap_or(&Value::Null))))
    }

    fn aligned(&self, cell: impl Fn(&str) -> String) -> String {
        let cells = self.columns.iter().map(|name| {
            let cell = cell(name);
            match *name {
                "engine" => format!("{cell:<8}"),
                "model" | "kernel" | "shape" => format!("{cell:<NAME_WIDTH$}"),
                "dtype" | "cache" | "stage" => format!("{cell:<6}"),
                "src" => format!("{cell:>LENGTH_WIDTH$}"),
                "threads" | "batch" | "pictures" | "beam" => {
                    format!("{cell:>width$}", width = name.len())
                }
                _ => format!("{cell:>width$}", width = name.len().max(NUMBER_WIDTH)),
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    }
}

/// Shows a value in a table: four digits of a fraction are enough for people.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            let digits = match number.abs() {
                size if size >= 100.0 => 0,
                size if size >= 10.0 => 1,
                size if size >= 1.0 => 2,
                _ => 3,
            };
            format!("{number:.digits$}")
        }
        other => other.to_string(),
    }
}

/// Writes a number down to six digits of its fraction.
pub(super) fn rounded(number: f64) -> Value {
    json!((number * 1e6).round() / 1e6)
}

/// Writes seconds down as milliseconds.
pub(super) fn milliseconds(seconds: f64) -> Value {
    rounded(seconds * 1e3)
}

/// Reads the most memory that this process has had, in 10^6 bytes, where the system says so.
pub(super) fn peak_memory_mb() -> Value {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    peak_of(&status).map_or(Value::Null, |megabytes| json!(megabytes))
}

/// Finds the peak in what Linux tells of a process: its kilobytes are of 1024 bytes.
fn peak_of(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some((kilobytes * 0.010_24).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_under_its_names() {
        let report = Report::new(false, &["engine", "batch", "encode_ms", "decode_tokens_per_s"]);
        let line = json!({"engine": "x", "batch": 8, "encode_ms": 12.345, "decode_tokens_per_s": null});
        assert_eq!(
            report.aligned(|name| shown(&line[name])),
            "x             8       12.3                    -"
        );
        assert_eq!(
            report.aligned(str::to_owned),
            "engine    batch  encode_ms  decode_tokens_per_s"
        );
    }

    #[test]
    fn the_peak_of_memory_is_told_in_millions_of_bytes() {
        let status = "VmPeak:\t  999 kB\nVmHWM:\t 1000000 kB\nVmRSS:\t 5 kB\n";
        assert!(peak_of(status).is_some_and(|peak| (peak - 1024.0).abs() < 0.01));
        assert_eq!(peak_of(""), None);
    }

    #[test]
    fn numbers_are_shown_to_about_three_digits() {
        let told = [1234.5, 12.345, 1.2345, 0.012].map(|number| shown(&json!(number)));
        assert_eq!(told, ["1234", "12.3", "1.23", "0.012"]);
    }
}
