//! Rectangles of patches, as a caller writes them.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Names a rectangle of a picture's patches: `ROW:COLUMN`, or `ROW-ROW:COLUMN-COLUMN` with both ends, counted
/// from 0 at the top left.
///
/// # Examples
///
/// ```
/// use multiway_prompts::PatchRange;
///
/// let range: PatchRange = "3-5:2".parse()?;
/// assert_eq!((range.rows, range.columns), (3..=5, 2..=2));
///
/// let error = "5-3:2".parse::<PatchRange>().unwrap_err();
/// assert!(error.to_string().starts_with("expected patches as ROW:COLUMN"));
/// # Ok::<(), multiway_prompts::NoPatches>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchRange {
    /// Its rows, from the top.
    pub rows: RangeInclusive<usize>,
    /// Its columns, from the left.
    pub columns: RangeInclusive<usize>,
}

/// What was written names no patches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected patches as ROW:COLUMN or ROW-ROW:COLUMN-COLUMN, such as 3:2 or 3-5:2-7, counted from 0 at the top left, found {}",
    crate::suggest::quoted(found)
)]
pub struct NoPatches {
    /// What was found.
    pub found: String,
}

impl FromStr for PatchRange {
    type Err = NoPatches;

    fn from_str(text: &str) -> Result<Self, NoPatches> {
        let range = || {
            let (rows, columns) = text.split_once(':')?;
            Some(Self {
                rows: span(rows)?,
                columns: span(columns)?,
            })
        };
        range().ok_or_else(|| NoPatches {
            found: text.to_owned(),
        })
    }
}

/// Reads `3` or `3-5`.
fn span(text: &str) -> Option<RangeInclusive<usize>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some(first..=last)
}

impl fmt::Display for PatchRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |span: &RangeInclusive<usize>| match (span.start(), span.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        write!(f, "{}:{}", span(&self.rows), span(&self.columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_names_no_rectangle_is_refused() {
        for text in [
            "",
            ":",
            "3",
            "3:",
            ":2",
            "a:1",
            "1:2:3",
            "2-1:0",
            "-1:0",
            "1-2-3:0",
            "99999999999999999999:0",
        ] {
            let found = text.to_owned();
            assert_eq!(text.parse::<PatchRange>(), Err(NoPatches { found }), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(rows in 0..40_usize, more in 0..9_usize, columns in 0..40_usize, wider in 0..9_usize) {
            let range = PatchRange { rows: rows..=rows + more, columns: columns..=columns + wider };
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }
    }
}
