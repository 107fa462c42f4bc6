//! A row of a file, whatever its format.

use indexmap::IndexMap;

use crate::record::Field;

/// What a row of a file is.
pub(crate) enum Row {
    /// Its key, if the format has one, and its fields.
    Fields(Option<String>, IndexMap<String, Field>),
    /// It cannot be read; the next one can.
    Corrupt(String),
    /// Nothing behind this can be read.
    Broken(String),
    /// So many rows cannot be read; the next one can.
    #[cfg_attr(
        not(feature = "parquet"),
        expect(dead_code, reason = "rows of Parquet alone are lost together")
    )]
    Lost(String, u64),
}

impl Row {
    /// Counts the rows of the file that this is.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Lost(_, rows) => *rows,
            _ => 1,
        }
    }
}

/// The rows of a file, in their order.
pub(crate) type Rows = Box<dyn Iterator<Item = Row> + Send>;
