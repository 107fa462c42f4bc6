//! Tables: rows of cells between `|`, as DePlot writes them.

use serde::Serialize;

/// How DePlot writes the end of a row, a byte token.
const ROW_END: &str = "<0x0A>";

/// Holds a table that was read from text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TableAnswer {
    /// The title, if the first row is `TITLE | ...`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The cells of the header.
    pub header: Vec<String>,
    /// The rows that have as many cells as the header.
    pub rows: Vec<Vec<String>>,
    /// What is wrong with the other rows, or with the table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Reads a table: rows end at a newline or at `<0x0A>`, cells at `|`, and the first row is the header.
///
/// A row with more or fewer cells than the header is left out and reported.
///
/// # Examples
///
/// ```
/// use multiway_tasks::parse::parse_table;
///
/// let table = parse_table("TITLE | Sales <0x0A> Year | Cars <0x0A> 2020 | 4 <0x0A> 2021");
/// assert_eq!(table.title.as_deref(), Some("Sales"));
/// assert_eq!(table.rows, [["2020", "4"]]);
/// assert_eq!(table.problems, ["row 2 has 1 cell, expected 2 as in the header: \"2021\""]);
/// assert_eq!(table.to_csv(), "Year,Cars\r\n2020,4\r\n");
/// ```
pub fn parse_table(text: &str) -> TableAnswer {
    let text = text.replace(ROW_END, "\n");
    let mut lines = text.lines().filter(|line| !line.trim().is_empty()).peekable();
    let mut table = TableAnswer::default();
    if let Some(title) = lines.peek().and_then(|line| title(line)) {
        table.title = Some(title);
        lines.next();
    }
    match lines.next() {
        Some(header) => table.header = cells(header),
        None => table
            .problems
            .push("expected a row of column names, found none".to_owned()),
    }
    let width = table.header.len();
    for (index, line) in lines.enumerate() {
        let row = cells(line);
        if row.len() == width {
            table.rows.push(row);
            continue;
        }
        let unit = if row.len() == 1 { "cell" } else { "cells" };
        table.problems.push(format!(
            "row {} has {} {unit}, expected {width} as in the header: {:?}",
            index + 1,
            row.len(),
            line.trim()
        ));
    }
    table
}

fn title(line: &str) -> Option<String> {
    let (name, title) = line.split_once('|')?;
    (name.trim() == "TITLE").then(|| title.trim().to_owned())
}

/// Cuts a row at `|`; bars at both of its ends, as Markdown has them, are no cells.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim();
    let inner = line.strip_prefix('|').and_then(|line| line.strip_suffix('|'));
    inner
        .unwrap_or(line)
        .split('|')
        .map(|cell| cell.trim().to_owned())
        .collect()
}

impl TableAnswer {
    /// Writes header and rows as CSV.
    ///
    /// Source: RFC 4180.
    pub fn to_csv(&self) -> String {
        let mut csv = String::new();
        for row in std::iter::once(&self.header).chain(&self.rows) {
            let fields: Vec<String> = row.iter().map(|cell| field(cell)).collect();
            csv.push_str(&fields.join(","));
            csv.push_str("\r\n");
        }
        csv
    }
}

fn field(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_cells_and_markdown_bars_are_kept_apart() {
        let table = parse_table("| a | b |\n| 1 |  |\n| 2 |");
        assert_eq!(table.header, ["a", "b"]);
        assert_eq!(table.rows, [["1", ""]]);
        assert_eq!(table.problems.len(), 1);
        assert_eq!(parse_table(" \n").problems.len(), 1);
    }

    #[test]
    fn csv_quotes_what_would_end_a_field() {
        let table = parse_table("a \"b\" | c,d");
        assert_eq!(table.to_csv(), "\"a \"\"b\"\"\",\"c,d\"\r\n");
    }

    proptest! {
        #[test]
        fn rectangular_tables_are_read_back(rows in prop::collection::vec(prop::collection::vec("[a-z猫ع0-9]{1,6}", 3), 1..8)) {
            let text: Vec<String> = rows.iter().map(|row| row.join(" | ")).collect();
            let table = parse_table(&text.join(" <0x0A> "));
            prop_assert!(table.problems.is_empty());
            prop_assert_eq!(&table.header, &rows[0]);
            prop_assert_eq!(&table.rows[..], &rows[1..]);
        }

        #[test]
        fn any_text_is_a_table_of_one_width(text in "[a|\\n<0x0A> ]{0,60}") {
            let table = parse_table(&text);
            prop_assert!(table.rows.iter().all(|row| row.len() == table.header.len()));
        }
    }
}
